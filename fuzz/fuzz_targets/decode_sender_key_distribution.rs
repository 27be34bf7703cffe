#![no_main]

tuckseal_fuzz::target!(decode_sender_key_distribution, bytes_per_byte = 16);
