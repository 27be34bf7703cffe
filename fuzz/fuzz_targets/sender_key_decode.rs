#![no_main]

tuckseal_fuzz::target!(sender_key_decode, mebibytes = 64);
