#![no_main]

tuckseal_fuzz::target!(decode_sender_key_message, bytes_per_byte = 16);
