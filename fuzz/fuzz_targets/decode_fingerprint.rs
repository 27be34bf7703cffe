#![no_main]

tuckseal_fuzz::target!(decode_fingerprint, bytes_per_byte = 16);
