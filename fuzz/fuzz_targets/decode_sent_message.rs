#![no_main]

tuckseal_fuzz::target!(decode_sent_message, bytes_per_byte = 16);
