#![no_main]

tuckseal_fuzz::target!(record_decode, mebibytes = 64);
