#![no_main]

tuckseal_fuzz::target!(decode_sender_certificate, bytes_per_byte = 16);
