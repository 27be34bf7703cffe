#![no_main]

tuckseal_fuzz::target!(decode_keys_and_ids, bytes_per_byte = 16);
