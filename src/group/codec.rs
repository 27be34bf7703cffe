//! The stored forms, of our own, big-endian, parsed once when loaded.
//!
//! ```text
//! our key  | format 1 | distribution id 16 | chain id 4 | chain key 32, iteration 4
//!          | signing key: private 32, public 32, its Edwards point 32 |
//! record   | format 1 | chains: count 1, each
//!          |   id 4 | chain key 32, iteration 4 | skipped: count 2, each iteration 4, seed 32 | signing key 32 |
//! ```

use super::chain::ReceivingChain;
use super::own::SenderKey;
use super::record::{MAX_STATES, SenderKeyRecord, State, States};
use crate::crypto::{SecretBytes, SigningKey, VerificationKey};
use crate::ratchet::double::Chain;
use crate::ratchet::skipped::SkippedSeeds;
use crate::stored::{Reader, Writer};
use alloc::boxed::Box;

const FORMAT: u8 = 1;
const OWN_LEN: usize = 1 + 16 + 4 + 36 + 3 * 32;
const STATE_LEN: usize = 4 + 36 + 2 + 32;
const SEED_LEN: usize = 36;

/// Stored bytes are not what this crate wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SenderKeyError {
    /// Written by a newer release.
    #[error("the stored sender key has format {found}, which this release does not know")]
    Format {
        /// The number that stood there.
        found: u8,
    },
    /// Cut off, too long, or with a value that cannot be.
    #[error("the stored sender key is damaged: generate a new one, or ask its sender for it")]
    Damaged,
}

/// Checks the format, and that nothing is left.
fn decode<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Option<T>,
) -> Result<T, SenderKeyError> {
    let mut input = Reader(bytes);
    match input.u8() {
        Some(FORMAT) => {}
        Some(found) => return Err(SenderKeyError::Format { found }),
        None => return Err(SenderKeyError::Damaged),
    }
    read(&mut input).filter(|_| input.0.is_empty()).ok_or(SenderKeyError::Damaged)
}

impl SenderKey {
    /// The bytes to store: secrets, so keep them encrypted at rest. Wiped when dropped.
    pub fn encode(&self) -> SecretBytes {
        let mut out = Writer::with_capacity(OWN_LEN);
        out.u8(FORMAT);
        out.bytes(&self.distribution_id);
        out.u32(self.chain_id);
        self.chain.write(&mut out);
        out.bytes(&*self.signing.private().to_bytes());
        out.bytes(self.signing_public.as_u());
        out.bytes(self.signing.edwards());
        out.0
    }

    /// Reads what [`SenderKey::encode`] wrote. The stored bytes are now out of date as soon as this
    /// key encrypts: save it before the message leaves.
    ///
    /// # Errors
    /// [`SenderKeyError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SenderKeyError> {
        decode(bytes, |input| {
            let distribution_id = *input.array()?;
            let chain_id = input.u32()?;
            let chain = Chain::read(input)?;
            let private = input.private_key()?;
            let signing_public = input.public_key()?;
            let signing = SigningKey::from_stored(private, *input.array()?);
            Some(Self { distribution_id, chain_id, chain, signing, signing_public })
        })
    }
}

impl SenderKeyRecord {
    /// The bytes to store: secrets, so keep them encrypted at rest. Wiped when dropped.
    pub fn encode(&self) -> SecretBytes {
        let seeds: usize = self.states.iter().map(|it| it.receiving.skipped.len()).sum();
        let len = 2 + self.states.len() * STATE_LEN + seeds * SEED_LEN;
        let mut out = Writer::with_capacity(len);
        out.u8(FORMAT);
        out.u8(self.states.len() as u8);
        for state in &self.states {
            out.u32(state.chain_id);
            state.receiving.chain.write(&mut out);
            state.receiving.skipped.write(&mut out);
            out.bytes(state.signing.key().as_u());
        }
        out.0
    }

    /// Reads what [`SenderKeyRecord::encode`] wrote.
    ///
    /// # Errors
    /// [`SenderKeyError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SenderKeyError> {
        decode(bytes, |input| {
            let count = usize::from(input.u8()?);
            let mut states = States::with_capacity(count.min(MAX_STATES));
            for _ in 0..count {
                let state = read_state(input)?;
                let twice = states.iter().any(|it| it.chain_id == state.chain_id);
                if twice || states.len() == MAX_STATES {
                    return None;
                }
                states.push(Box::new(state));
            }
            Some(Self { states })
        })
    }
}

fn read_state(input: &mut Reader<'_>) -> Option<State> {
    let chain_id = input.u32()?;
    let chain = Chain::read(input)?;
    let skipped = SkippedSeeds::read(input, chain.index)?;
    let signing = VerificationKey::new(input.public_key()?);
    Some(State { chain_id, receiving: ReceivingChain { chain, skipped }, signing })
}
