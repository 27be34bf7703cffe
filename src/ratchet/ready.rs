//! Keys of skipped messages that another library stored ready-made (W§17): only imported sessions
//! have some, and they never become more.

use super::double::ReceiverChain;
use crate::crypto::PublicKey;
use crate::crypto::secret::Secret;
use crate::keys::MessageKeys;
use crate::stored::{Reader, Writer};
use alloc::vec::Vec;

/// Keys kept at most: as many as there can be seeds in five chains.
pub(crate) const MAX_READY: usize = 10_000;

/// Bytes of one in the stored form.
pub(crate) const READY_LEN: usize = 32 + 4 + 80;

/// The keys of one message, without a seed: no post-quantum key can be mixed into them.
#[derive(Clone, Debug)]
pub(crate) struct ReadyKey {
    /// Names the chain.
    pub(crate) ratchet_key: PublicKey,
    pub(crate) counter: u32,
    /// Cipher key 32, MAC key 32, IV 16.
    pub(crate) keys: Secret<80>,
}

/// In no order: there are few or none.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadyKeys(Vec<ReadyKey>);

impl ReadyKeys {
    /// The caller keeps the bound.
    pub(crate) fn new(keys: Vec<ReadyKey>) -> Self {
        Self(keys)
    }

    /// The keys of a message and where they lie.
    pub(crate) fn find(
        &self,
        ratchet_key: &PublicKey,
        counter: u32,
    ) -> Option<(usize, MessageKeys)> {
        let wanted = |it: &ReadyKey| it.counter == counter && it.ratchet_key == *ratchet_key;
        let position = self.0.iter().position(wanted)?;
        let (cipher, rest) = self.0.get(position)?.keys.split::<32, 48>();
        let (mac, iv) = rest.split();
        Some((position, MessageKeys { cipher, mac, iv }))
    }

    /// Takes out and wipes the keys at a position that [`Self::find`] gave.
    pub(crate) fn remove(&mut self, position: usize) {
        if let Some(tail) = self.0.get_mut(position..) {
            tail.rotate_left(1);
            self.0.truncate(self.0.len() - 1);
        }
    }

    /// Forgets those of chains that are gone.
    pub(crate) fn keep_only(&mut self, chains: &[ReceiverChain]) {
        self.0.retain(|key| chains.iter().any(|chain| chain.ratchet_key == key.ratchet_key));
    }

    /// Bytes of the stored form.
    pub(crate) fn encoded_len(&self) -> usize {
        2 + READY_LEN * self.0.len()
    }

    /// Writes count 2, then each ratchet key 32, counter 4, keys 80.
    pub(crate) fn write(&self, out: &mut Writer) {
        out.u16(self.0.len() as u16);
        for key in &self.0 {
            out.bytes(key.ratchet_key.as_u());
            out.u32(key.counter);
            out.bytes(key.keys.as_bytes());
        }
    }

    /// Reads what [`Self::write`] wrote; `None` when there are too many.
    pub(crate) fn read(input: &mut Reader<'_>) -> Option<Self> {
        let count = usize::from(input.u16()?);
        if count > MAX_READY {
            return None;
        }
        let read = |input: &mut Reader<'_>| {
            let ratchet_key = input.public_key()?;
            Some(ReadyKey { ratchet_key, counter: input.u32()?, keys: input.secret()? })
        };
        input.repeated(count, READY_LEN, read).map(Self)
    }
}
