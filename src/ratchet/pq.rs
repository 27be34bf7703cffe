//! The place of the post-quantum ratchet (W§9). Its only state in this release is "off", the empty
//! state of the wire: it sends nothing and gives no key, and of what arrives it looks at the header.

use crate::keys::PqMessageKey;
use alloc::vec::Vec;
use rand_core::CryptoRng;

/// State of the post-quantum ratchet of one session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PqRatchet {
    /// Not in use.
    Off,
}

/// Field 5 is not what the post-quantum ratchet could have sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PqRefused;

impl PqRatchet {
    pub(crate) fn send(&self, _rng: &mut impl CryptoRng) -> (Self, Vec<u8>, Option<PqMessageKey>) {
        (*self, Vec::new(), None)
    }

    /// Takes field 5, empty when absent.
    pub(crate) fn recv(&self, message: &[u8]) -> Result<(Self, Option<PqMessageKey>), PqRefused> {
        check_header(message)?;
        Ok((*self, None))
    }
}

/// The header rule of W§9: unless empty, one byte, a varint of at least 1, a varint within 32 bits.
fn check_header(message: &[u8]) -> Result<(), PqRefused> {
    let Some((_version, mut rest)) = message.split_first() else {
        return Ok(());
    };
    let epoch = prost::encoding::decode_varint(&mut rest).map_err(|_| PqRefused)?;
    let index = prost::encoding::decode_varint(&mut rest).map_err(|_| PqRefused)?;
    if epoch == 0 || u32::try_from(index).is_err() { Err(PqRefused) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_rule_holds_while_off() {
        for good in
            [&[][..], &[1, 1, 0], &[9, 1, 0, 77], &[1, 0x80, 0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]]
        {
            assert!(PqRatchet::Off.recv(good).is_ok(), "{good:?}");
        }
        for bad in
            [&[1][..], &[1, 0, 0], &[1, 1], &[1, 1, 0x80], &[1, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F]]
        {
            assert!(PqRatchet::Off.recv(bad).is_err(), "{bad:?}");
        }
    }
}
