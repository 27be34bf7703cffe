#![no_main]

tuckseal_fuzz::target!(decode_signal_message, bytes_per_byte = 16);
