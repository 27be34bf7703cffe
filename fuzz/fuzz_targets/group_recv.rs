#![no_main]

tuckseal_fuzz::target!(group_recv, mebibytes = 64);
