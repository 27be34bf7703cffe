#![no_main]

tuckseal_fuzz::target!(decode_sealed_content, bytes_per_byte = 16);
