#![no_main]

tuckseal_fuzz::target!(decode_sealed_v1, bytes_per_byte = 16);
