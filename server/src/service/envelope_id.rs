//! Public envelope ids: (mailbox, place) encrypted with AES-128 under a key of the server. Stable over redelivery,
//! and they tell a device nothing about other mailboxes or how much they get.

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

use crate::storage::MailboxId;

/// 16 bytes.
pub(super) type EnvelopeId = [u8; 16];

/// Makes and reads ids.
pub(super) struct EnvelopeIds(Aes128);

impl EnvelopeIds {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self(Aes128::new(key.into()))
    }

    pub(super) fn id(&self, mailbox: MailboxId, seq: i64) -> EnvelopeId {
        let mut block = ((mailbox.0.cast_unsigned() as u128) << 64 | seq.cast_unsigned() as u128)
            .to_be_bytes()
            .into();
        self.0.encrypt_block(&mut block);
        block.into()
    }

    /// The place in this mailbox; none if the id was made for another one, or by nobody.
    pub(super) fn seq(&self, mailbox: MailboxId, id: EnvelopeId) -> Option<i64> {
        let mut block = id.into();
        self.0.decrypt_block(&mut block);
        let plain = u128::from_be_bytes(block.into());
        let (of, seq) = ((plain >> 64) as u64, plain as u64);
        (of.cast_signed() == mailbox.0).then_some(seq.cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn id_leads_back_to_its_place_and_in_its_mailbox_alone(mailbox in 1..i64::MAX, seq in 1..i64::MAX) {
            let ids = EnvelopeIds::new(&[7; 16]);
            let id = ids.id(MailboxId(mailbox), seq);
            prop_assert_eq!(ids.seq(MailboxId(mailbox), id), Some(seq));
            prop_assert_eq!(ids.seq(MailboxId(mailbox - 1), id), None);
        }
    }
}
