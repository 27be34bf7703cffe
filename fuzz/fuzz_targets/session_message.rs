#![no_main]

tuckseal_fuzz::target!(session_message, mebibytes = 64);
