//! Group messages (W§10.4, 10.5, 12): one ciphertext for all members, signed by its sender.
//!
//! `own.rs` is our key and what it encrypts, `record.rs` a peer's keys and what they decrypt, `chain.rs`
//! the keys of a message, `message.rs` the wire formats, `codec.rs` the stored forms. Who the members
//! are is nobody's business here: whoever was sent the key can read.

mod chain;
mod codec;
mod message;
mod own;
mod record;

pub(crate) use chain::ReceivingChain;
pub(crate) use record::{MAX_STATES, State};

pub use codec::SenderKeyError;
pub use message::{SenderKeyDistributionMessage, SenderKeyMessage};
pub use own::{GroupEncryptError, SenderKey};
pub use record::{GroupDecryptError, SenderKeyRecord};
