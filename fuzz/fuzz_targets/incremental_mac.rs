#![no_main]

tuckseal_fuzz::target!(incremental_mac, bytes_per_byte = 64);
