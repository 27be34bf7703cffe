#![no_main]

tuckseal_fuzz::target!(spqr_recv, mebibytes = 64);
