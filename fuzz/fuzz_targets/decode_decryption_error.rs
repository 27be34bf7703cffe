#![no_main]

tuckseal_fuzz::target!(decode_decryption_error, bytes_per_byte = 16);
