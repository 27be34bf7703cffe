#![no_main]

tuckseal_fuzz::target!(decode_link_offer, bytes_per_byte = 16);
