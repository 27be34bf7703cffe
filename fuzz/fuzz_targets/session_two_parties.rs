#![no_main]

tuckseal_fuzz::target!(session_two_parties, mebibytes = 64);
