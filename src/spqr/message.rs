//! S§4. The message of the post-quantum ratchet, field 5 of a SignalMessage: encode and decode.
//!
//! ```text
//! version 1 (0x01) | epoch varint, 1.. | index varint, 32 bits | type 1
//! | with types 1, 2, 3, 5, 6: chunk index varint, 16 bits | chunk 32
//! ```
//! What follows is ignored: it is reserved for extensions. Other versions are `mod.rs`'s concern.

use super::SpqrError;
use super::erasure::Chunk;
use alloc::vec::Vec;

/// Longest message: three varints at their widest, two single bytes, one chunk.
const MAX_LEN: usize = 1 + 10 + 5 + 1 + 3 + 32;

/// What a message carries of the braid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// Nothing to say.
    None,
    /// Of header and header MAC.
    Header(Chunk),
    /// Of the ek vector.
    Ek(Chunk),
    /// Of the ek vector, by a sender that has the whole ct1.
    EkCt1Ack(Chunk),
    /// The sender has the whole ct1.
    Ct1Ack,
    /// Of ct1.
    Ct1(Chunk),
    /// Of ct2 and ciphertext MAC.
    Ct2(Chunk),
}

/// A message of version 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// At least 1.
    pub(super) epoch: u64,
    /// Number of the message key; 0 means that there is none.
    pub(super) index: u32,
    pub(super) payload: Payload,
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, chunk) = match &self.payload {
            Payload::None => (0, None),
            Payload::Header(chunk) => (1, Some(chunk)),
            Payload::Ek(chunk) => (2, Some(chunk)),
            Payload::EkCt1Ack(chunk) => (3, Some(chunk)),
            Payload::Ct1Ack => (4, None),
            Payload::Ct1(chunk) => (5, Some(chunk)),
            Payload::Ct2(chunk) => (6, Some(chunk)),
        };
        let mut out = Vec::with_capacity(MAX_LEN);
        out.push(1);
        write_varint(&mut out, self.epoch);
        write_varint(&mut out, self.index.into());
        out.push(kind);
        if let Some(chunk) = chunk {
            write_varint(&mut out, chunk.index.into());
            out.extend_from_slice(&chunk.data);
        }
        out
    }

    /// Reads a message whose first byte is 1.
    pub(super) fn decode(message: &[u8]) -> Result<Self, SpqrError> {
        Self::read(message).ok_or(SpqrError::MessageDecode)
    }

    fn read(message: &[u8]) -> Option<Self> {
        let (_version, mut rest) = message.split_first()?;
        let (epoch, index) = read_place(&mut rest)?;
        let (kind, mut rest) = rest.split_first()?;
        let payload = match kind {
            0 => Payload::None,
            1 => Payload::Header(read_chunk(&mut rest)?),
            2 => Payload::Ek(read_chunk(&mut rest)?),
            3 => Payload::EkCt1Ack(read_chunk(&mut rest)?),
            4 => Payload::Ct1Ack,
            5 => Payload::Ct1(read_chunk(&mut rest)?),
            6 => Payload::Ct2(read_chunk(&mut rest)?),
            _ => return None,
        };
        Some(Self { epoch, index, payload })
    }
}

/// Whether a message begins with a version, an epoch and an index: the header rule (W§9).
pub(super) fn has_header(message: &[u8]) -> bool {
    message.split_first().is_some_and(|(_version, mut rest)| read_place(&mut rest).is_some())
}

fn read_place(rest: &mut &[u8]) -> Option<(u64, u32)> {
    let epoch = read_varint(rest).filter(|epoch| *epoch > 0)?;
    let index = read_varint(rest)?.try_into().ok()?;
    Some((epoch, index))
}

fn read_chunk(rest: &mut &[u8]) -> Option<Chunk> {
    let index = read_varint(rest)?.try_into().ok()?;
    let (data, _reserved) = rest.split_first_chunk()?;
    Some(Chunk { index, data: *data })
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// At most 10 bytes; longer forms than needed are taken, bits above the 64th are lost (S§4).
fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payloads() -> impl Strategy<Value = Payload> {
        (0..7, any::<u16>(), any::<[u8; 32]>()).prop_map(|(kind, index, data)| {
            let chunk = Chunk { index, data };
            match kind {
                0 => Payload::None,
                1 => Payload::Header(chunk),
                2 => Payload::Ek(chunk),
                3 => Payload::EkCt1Ack(chunk),
                4 => Payload::Ct1Ack,
                5 => Payload::Ct1(chunk),
                _ => Payload::Ct2(chunk),
            }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch in 1u64.., index: u32, payload in payloads(), extra: [u8; 3]) {
            let message = Message { epoch, index, payload };
            let mut bytes = message.encode();
            prop_assert!(bytes.len() <= MAX_LEN && has_header(&bytes));
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            bytes.extend(extra);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            bytes.truncate(message.encode().len() - 1);
            prop_assert_eq!(Message::decode(&bytes), Err(SpqrError::MessageDecode));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            if Message::decode(&bytes).is_ok() {
                prop_assert!(has_header(&bytes));
            }
        }
    }

    #[test]
    fn epoch_0_an_index_over_32_bits_and_unknown_types_are_refused() {
        for bad in [
            &[1][..],
            &[1, 0, 0, 0],
            &[1, 1, 0],
            &[1, 1, 0, 7],
            &[1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F, 0],
        ] {
            assert_eq!(Message::decode(bad), Err(SpqrError::MessageDecode), "{bad:?}");
        }
    }
}
