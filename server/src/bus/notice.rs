//! What nodes tell each other: a kind, then numbers of 8 bytes, largest byte first; behind those of what is passed on, its
//! content.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Passing;
use crate::storage::MailboxId;

/// A hint for another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Something was stored for these mailboxes.
    Look(Vec<MailboxId>),
    /// Prekeys of this device run low.
    Keys(MailboxId),
    /// A connection with this epoch has the mailbox now.
    Displaced(MailboxId, i64),
    /// The device is gone.
    Removed(MailboxId),
    /// A device was linked to the account of this number.
    Linked(i64),
    /// This is for the device, if it is connected. The one notice with a content: it is not stored, and may be lost.
    Passing(MailboxId, Passing),
}

const PASSING: u8 = 4;
/// Kind, mailbox, time.
const PASSING_HEAD: usize = 17;

impl Notice {
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Self::Look(mailboxes) => {
                bytes.put_u8(1);
                mailboxes.iter().for_each(|mailbox| bytes.put_i64(mailbox.0));
            }
            Self::Keys(mailbox) => {
                bytes.put_u8(2);
                bytes.put_i64(mailbox.0);
            }
            Self::Displaced(mailbox, epoch) => {
                bytes.put_u8(3);
                bytes.put_i64(mailbox.0);
                bytes.put_i64(*epoch);
            }
            Self::Removed(mailbox) => {
                bytes.put_u8(5);
                bytes.put_i64(mailbox.0);
            }
            Self::Linked(account) => {
                bytes.put_u8(6);
                bytes.put_i64(*account);
            }
            Self::Passing(mailbox, passing) => {
                bytes.reserve(PASSING_HEAD + passing.content.len());
                bytes.put_u8(PASSING);
                bytes.put_i64(mailbox.0);
                bytes.put_i64(passing.received_ms);
                bytes.put_slice(&passing.content);
            }
        }
        bytes.freeze()
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let kind = bytes.try_get_u8().ok()?;
        if kind == PASSING {
            let (mailbox, received_ms) = (bytes.try_get_i64().ok()?, bytes.try_get_i64().ok()?);
            let content = Bytes::copy_from_slice(bytes);
            return Some(Self::Passing(MailboxId(mailbox), Passing { content, received_ms }));
        }
        if !bytes.len().is_multiple_of(8) {
            return None;
        }
        let mut numbers = Vec::with_capacity(bytes.len() / 8);
        while let Ok(number) = bytes.try_get_i64() {
            numbers.push(number);
        }
        match (kind, &numbers[..]) {
            (1, _) => Some(Self::Look(numbers.into_iter().map(MailboxId).collect())),
            (2, [mailbox]) => Some(Self::Keys(MailboxId(*mailbox))),
            (3, [mailbox, epoch]) => Some(Self::Displaced(MailboxId(*mailbox), *epoch)),
            (5, [mailbox]) => Some(Self::Removed(MailboxId(*mailbox))),
            (6, [account]) => Some(Self::Linked(*account)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn notice() -> impl Strategy<Value = Notice> {
        let mailbox = || any::<i64>().prop_map(MailboxId);
        prop_oneof![
            prop::collection::vec(mailbox(), 0..9).prop_map(Notice::Look),
            mailbox().prop_map(Notice::Keys),
            (mailbox(), any::<i64>())
                .prop_map(|(mailbox, epoch)| Notice::Displaced(mailbox, epoch)),
            mailbox().prop_map(Notice::Removed),
            any::<i64>().prop_map(Notice::Linked),
            (mailbox(), any::<i64>(), any::<Vec<u8>>()).prop_map(
                |(mailbox, received_ms, content)| {
                    Notice::Passing(mailbox, Passing { content: content.into(), received_ms })
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn notice_is_read_as_it_was_written(notice in notice()) {
            prop_assert_eq!(Notice::decode(&notice.encode()), Some(notice));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Notice::decode(&bytes);
        }
    }
}
