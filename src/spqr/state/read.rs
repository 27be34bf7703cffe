//! Reads the parts of a stored state. The layout is drawn in `mod.rs`.

use super::FORMAT;
use crate::crypto::secret::Secret;
use crate::keys::PqMessageKey;
use crate::spqr::authenticator::Authenticator;
use crate::spqr::braid::ciphertext_side::{CiphertextSide, Encapsulation};
use crate::spqr::braid::key_side::KeySide;
use crate::spqr::braid::{Braid, Phase};
use crate::spqr::chain::{
    Chain, ChainLimits, Direction, Extract, Link, NextRoot, RecvSide, SendSide, SideKey,
};
use crate::spqr::erasure::{Chunk, Decoder, Encoder, Whole, rows};
use crate::spqr::skipped::SkippedKeys;
use crate::spqr::{MinVersion, Negotiation, V1};
use alloc::{boxed::Box, vec::Vec};
use zeroize::Zeroizing;

/// Reads from the front; `None` when too little is left or a value cannot be.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn v1(&mut self) -> Option<V1> {
        if self.u8()? != FORMAT {
            return None;
        }
        let negotiation = self.option(Self::negotiation)?;
        let chain = self.option(Self::chain)?;
        let braid = self.braid()?;
        Some(V1 { braid, chain, negotiation })
    }

    fn negotiation(&mut self) -> Option<Negotiation> {
        let direction = self.direction()?;
        let min_version = match self.u8()? {
            0 => MinVersion::V0,
            1 => MinVersion::V1,
            _ => return None,
        };
        let limits = self.limits()?;
        let len = u16::from_be_bytes(self.array()?);
        let (auth_key, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        let auth_key = Zeroizing::new(auth_key.to_vec());
        Some(Negotiation { auth_key, direction, min_version, limits })
    }

    fn chain(&mut self) -> Option<Chain> {
        let direction = self.direction()?;
        let limits = self.limits().filter(|limits| *limits == limits.effective())?;
        let (current_epoch, send_epoch) = (self.u64()?, self.u64()?);
        let next_root = NextRoot::new(self.secret()?);
        let links = (0..self.u8()?).map(|_| self.link()).collect::<Option<Vec<_>>>()?;
        let older = u64::try_from(links.len().checked_sub(1)?).ok()?;
        let extract = Extract::new();
        (older <= current_epoch).then_some(Chain {
            direction,
            limits,
            current_epoch,
            send_epoch,
            next_root,
            links,
            extract,
        })
    }

    fn link(&mut self) -> Option<Link> {
        let counter = self.u32()?;
        let key = self.option(|input| input.secret().map(SideKey::new))?;
        let send = SendSide { counter, key };
        let counter = self.u32()?;
        let key = SideKey::new(self.secret()?);
        let skipped = self.skipped(counter)?;
        Some(Link { send, recv: RecvSide { counter, key, skipped } })
    }

    /// Ascending, and all before the newest message.
    fn skipped(&mut self, newest: u32) -> Option<SkippedKeys> {
        let count = self.u32()? as usize;
        if count > self.0.len() / 36 {
            return None;
        }
        let mut keys = Vec::with_capacity(count);
        let mut next = 1;
        for _ in 0..count {
            let index = self.u32()?;
            if index < next || index >= newest {
                return None;
            }
            next = index + 1;
            keys.push((index, PqMessageKey::new(self.secret()?)));
        }
        let mut skipped = SkippedKeys::default();
        skipped.append(keys);
        Some(skipped)
    }

    fn braid(&mut self) -> Option<Braid> {
        let epoch = self.u64().filter(|epoch| *epoch > 0)?;
        let authenticator = Authenticator { root: self.secret()?, mac_key: self.secret()? };
        Some(Braid { epoch, authenticator, phase: self.phase()? })
    }

    fn phase(&mut self) -> Option<Phase> {
        Some(match self.u8()? {
            0 => Phase::Key(KeySide::KeysUnsampled),
            1 => Phase::Key(KeySide::KeysSampled { dk: self.boxed()?, header: self.encoder()? }),
            2 => {
                let (dk, ek, ct1) = (self.boxed()?, self.encoder()?, self.decoder()?);
                Phase::Key(KeySide::HeaderSent { dk, ek, ct1 })
            }
            3 => {
                let (dk, ct1, ek) = (self.boxed()?, self.payload()?, self.encoder()?);
                Phase::Key(KeySide::Ct1Received { dk, ct1, ek })
            }
            4 => {
                let (dk, ct1, ct2) = (self.boxed()?, self.payload()?, self.decoder()?);
                Phase::Key(KeySide::EkSentCt1Received { dk, ct1, ct2 })
            }
            other => Phase::Ciphertext(self.ciphertext_side(other)?),
        })
    }

    fn ciphertext_side(&mut self, phase: u8) -> Option<CiphertextSide> {
        Some(match phase {
            5 => CiphertextSide::NoHeaderReceived { header: self.decoder()? },
            6 => CiphertextSide::HeaderReceived { header: self.array()? },
            7 => {
                let (encaps, ct1, ek) = (self.encapsulation()?, self.encoder()?, self.decoder()?);
                CiphertextSide::Ct1Sampled { encaps, ct1, ek }
            }
            8 => {
                CiphertextSide::EkReceivedCt1Sampled { ct2: self.payload()?, ct1: self.encoder()? }
            }
            9 => {
                let (encaps, ct1, ek) = (self.encapsulation()?, self.payload()?, self.decoder()?);
                CiphertextSide::Ct1Acknowledged { encaps, ct1, ek }
            }
            10 => CiphertextSide::Ct2Sampled { ct2: self.encoder()? },
            _ => return None,
        })
    }

    fn encapsulation(&mut self) -> Option<Encapsulation> {
        Some(Encapsulation { header: self.array()?, m: self.secret()? })
    }

    fn encoder<const N: usize>(&mut self) -> Option<Encoder<N>> {
        let next = self.u32()?;
        Some(Encoder::resumed(self.payload()?, next))
    }

    fn payload<const N: usize>(&mut self) -> Option<Whole<N>> {
        let (bytes, rest) = self.0.split_at_checked(32 * N)?;
        self.0 = rest;
        Some(rows(&[bytes]))
    }

    /// Ascending indices, as they are held.
    fn decoder<const N: usize>(&mut self) -> Option<Decoder<N>> {
        let count = usize::from(self.u8()?);
        if count >= N {
            return None;
        }
        let mut decoder = Decoder::new();
        for _ in 0..count {
            let index = u16::from_be_bytes(self.array()?);
            if decoder.held().last().is_some_and(|last| last.index >= index) {
                return None;
            }
            decoder.hold(Chunk { index, data: self.array()? });
        }
        Some(decoder)
    }

    fn limits(&mut self) -> Option<ChainLimits> {
        Some(ChainLimits { max_jump: self.u32()?, max_ooo: self.u32()? })
    }

    fn direction(&mut self) -> Option<Direction> {
        match self.u8()? {
            0 => Some(Direction::A2B),
            1 => Some(Direction::B2A),
            _ => None,
        }
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    fn boxed<const N: usize>(&mut self) -> Option<Box<Secret<N>>> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        let mut secret = Box::new(Secret::zeroed());
        secret.as_mut_bytes().copy_from_slice(bytes);
        Some(secret)
    }

    fn secret<const N: usize>(&mut self) -> Option<Secret<N>> {
        self.array().map(Secret::new)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
}
