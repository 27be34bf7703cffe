//! Every secret role of a session and the one derivation that makes it (W§7.2, 8.1, 8.2, 8.4).

use crate::crypto::curve::SharedSecret;
use crate::crypto::kdf::{HmacKey, hkdf_keyed};
use crate::crypto::secret::{Secret, secret_role};

secret_role! {
    /// Root of a session's ratchet; made by the key agreement and by [`RootKey::kdf_rk`].
    RootKey, 32
}
secret_role! {
    /// Head of a sending or receiving chain. `Clone` because an archived state is read again.
    ChainKey, 32
}
secret_role! {
    /// What a chain gives for one message. Kept for skipped messages, because the post-quantum
    /// key that is mixed in is known only when the message arrives (W§8.7).
    MessageSeed, 32
}
secret_role! {
    /// Third part of the PQXDH output: seeds the post-quantum ratchet (W§7.2, 9).
    PqrKey, 32
}
secret_role! {
    /// The post-quantum ratchet's key for one message: the salt of its keys (W§8.4, 9).
    PqMessageKey, 32
}

impl RootKey {
    /// `KDF_RK` (W§8.1): the next root and the chain that begins with it.
    pub(crate) fn kdf_rk(&self, dh: &SharedSecret) -> (RootKey, ChainKey) {
        let okm: Secret<64> = hkdf_keyed(self.as_bytes(), dh.as_bytes(), b"WhisperRatchet");
        let (root, chain) = okm.split();
        (RootKey::new(root), ChainKey::new(chain))
    }
}

impl ChainKey {
    /// `KDF_CK` (W§8.2): the seed of this message and the next chain key.
    pub(crate) fn kdf_ck(&self) -> (MessageSeed, ChainKey) {
        let keyed = HmacKey::new(self.as_bytes());
        let seed = keyed.begin().chain(&[0x01]).finish();
        let next = keyed.begin().chain(&[0x02]).finish();
        (MessageSeed::new(Secret::new(seed)), ChainKey::new(Secret::new(next)))
    }

    /// The next chain key alone, for the messages of a gap whose seeds are not kept.
    pub(crate) fn skip(&self) -> ChainKey {
        ChainKey::new(Secret::new(HmacKey::new(self.as_bytes()).begin().chain(&[0x02]).finish()))
    }
}

impl MessageSeed {
    /// The keys of one message (W§8.4).
    pub(crate) fn message_keys(&self, pq: Option<&PqMessageKey>) -> MessageKeys {
        let salt = pq.map_or(&[0; 32], PqMessageKey::as_bytes);
        let okm: Secret<80> = hkdf_keyed(salt, self.as_bytes(), b"WhisperMessageKeys");
        let (cipher, rest) = okm.split::<32, 48>();
        let (mac, iv) = rest.split();
        MessageKeys { cipher, mac, iv }
    }
}

/// Cipher key, MAC key and IV of exactly one message.
pub(crate) struct MessageKeys {
    pub(crate) cipher: Secret<32>,
    pub(crate) mac: Secret<32>,
    pub(crate) iv: Secret<16>,
}
