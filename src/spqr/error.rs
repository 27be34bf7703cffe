//! S§11. Why the post-quantum ratchet refused.

/// Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SpqrError {
    /// The stored state cannot be read, or contradicts itself.
    #[error("the stored post-quantum ratchet is damaged: restore it, or begin a new session")]
    StateDecode,
    /// A stored state has neither chain nor the means to make one.
    #[error("the stored post-quantum ratchet has no key chain: begin a new session")]
    ChainNotAvailable,
    /// The bytes are not a message (S§4).
    #[error("field 5 is not a message of the post-quantum ratchet")]
    MessageDecode,
    /// A version other than the one that was agreed on.
    #[error("the message has another version than was agreed on")]
    VersionMismatch,
    /// The peer has no SPQR, and this session was begun to have it.
    #[error("the peer sends without a post-quantum ratchet, which this session does not allow")]
    MinimumVersion,
    /// Of an epoch that was not reached yet, or is no longer kept.
    #[error("the message is of an epoch too far ahead or no longer kept")]
    EpochOutOfRange,
    /// Header or ciphertext does not come from the peer.
    #[error("a part of the key exchange does not authenticate")]
    MacVerify,
    /// The encapsulation key is not the one that its header announced.
    #[error("the encapsulation key does not belong to its header")]
    ErroneousData,
    /// Farther ahead than is followed.
    #[error("message {asked} is too far ahead of {newest}")]
    KeyJump {
        /// Number of the newest message that was received.
        newest: u32,
        /// Number of this one.
        asked: u32,
    },
    /// Older than keys are kept.
    #[error("message {asked} is too far behind {newest}")]
    KeyTrimmed {
        /// Number of the newest message that was received.
        newest: u32,
        /// Number of this one.
        asked: u32,
    },
    /// A duplicate.
    #[error("the key of message {asked} was used already")]
    KeyAlreadyRequested {
        /// Number of this message.
        asked: u32,
    },
    /// A stored state whose chain is ahead of its braid.
    #[error("the stored post-quantum ratchet contradicts itself: begin a new session")]
    SendKeyEpochDecreased,
    /// All 2^32 messages of an epoch were sent.
    #[error("this epoch has no message numbers left: begin a new session")]
    ChainExhausted,
}
