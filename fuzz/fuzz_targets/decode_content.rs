#![no_main]

tuckseal_fuzz::target!(decode_content, bytes_per_byte = 16);
