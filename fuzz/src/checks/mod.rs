//! What each target asserts for any input, by the target's name. Logic only: no fuzzer in here.

mod attachment;
mod decode;
mod group;
pub mod seeds;
mod session;
mod shim;
#[path = "../../../tests/story/mod.rs"]
mod story;

pub use attachment::incremental_mac;
pub use decode::*;
pub use group::{group_recv, sender_key_decode};
pub use session::{record_decode, session_message, session_two_parties};
pub use shim::shim_line;
#[cfg(fuzzing)]
pub use tuckseal::fuzzing::{
    message as decode_spqr_message, recv as spqr_recv, state as spqr_state,
};
