//! Group messages. So far the two wire formats alone (W§10.4, 10.5): the chains that make and use
//! them, and their record (W§12), come later.

mod message;

pub use message::{SenderKeyDistributionMessage, SenderKeyMessage};
