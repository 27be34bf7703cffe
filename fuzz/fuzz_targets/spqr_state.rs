#![no_main]

tuckseal_fuzz::target!(spqr_state, mebibytes = 64);
