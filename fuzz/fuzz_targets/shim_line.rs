#![no_main]

tuckseal_fuzz::target!(shim_line, mebibytes = 64);
