#![no_main]

tuckseal_fuzz::target!(decode_prekey_message, bytes_per_byte = 16);
