#![no_main]

tuckseal_fuzz::target!(decode_spqr_message, bytes_per_byte = 16);
