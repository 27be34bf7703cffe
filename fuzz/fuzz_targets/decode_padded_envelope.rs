#![no_main]

tuckseal_fuzz::target!(decode_padded_envelope, bytes_per_byte = 16);
