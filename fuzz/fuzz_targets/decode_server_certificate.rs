#![no_main]

tuckseal_fuzz::target!(decode_server_certificate, bytes_per_byte = 16);
