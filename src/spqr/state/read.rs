//! Reads the parts of a stored state. The layout is drawn in `mod.rs`.

use super::{FORMAT, SHORTEST_LINK_LEN};
use crate::crypto::secret::{Secret, SecretBytes};
use crate::keys::PqMessageKey;
use crate::spqr::authenticator::Authenticator;
use crate::spqr::braid::ciphertext_side::{CiphertextSide, Encapsulation};
use crate::spqr::braid::key_side::KeySide;
use crate::spqr::braid::{Braid, Phase};
use crate::spqr::chain::{
    Chain, ChainLimits, Direction, Link, NextRoot, RecvSide, SendSide, SideKey,
};
use crate::spqr::erasure::{Chunk, Decoder, Encoder, Whole};
use crate::spqr::gf::Row;
use crate::spqr::mlkem::KeptKey;
use crate::spqr::skipped::SkippedKeys;
use crate::spqr::{MinVersion, Negotiation, V1};
use crate::stored::Reader;
use alloc::boxed::Box;

impl<'a> Reader<'a> {
    pub(super) fn v1(&mut self) -> Option<Box<V1>> {
        if self.u8()? != FORMAT {
            return None;
        }
        let negotiation = self.option(Self::negotiation)?;
        let chain = self.option(Self::chain)?;
        Some(Box::new(V1 { braid: self.braid()?, chain, negotiation }))
    }

    fn negotiation(&mut self) -> Option<Negotiation> {
        let direction = self.direction()?;
        let min_version = match self.u8()? {
            0 => MinVersion::V0,
            1 => MinVersion::V1,
            _ => return None,
        };
        let limits = self.limits()?;
        let len = self.u16()?;
        let auth_key = SecretBytes::from_vec(self.bytes(len.into())?.to_vec());
        Some(Negotiation { auth_key, direction, min_version, limits })
    }

    fn chain(&mut self) -> Option<Chain> {
        let direction = self.direction()?;
        let limits = self.limits().filter(|limits| *limits == limits.effective())?;
        let (current_epoch, send_epoch) = (self.u64()?, self.u64()?);
        let next_root = self.array()?;
        let count = self.u8()?.into();
        let links = self.repeated(count, SHORTEST_LINK_LEN, Self::link)?;
        let older = u64::try_from(links.len().checked_sub(1)?).ok()?;
        if older > current_epoch {
            return None;
        }
        Some(Chain {
            direction,
            limits,
            current_epoch,
            send_epoch,
            next_root: NextRoot::new(Secret::new(*next_root)),
            links,
        })
    }

    fn link(&mut self) -> Option<Link> {
        let (sent, sending) = (self.u32()?, self.option(Self::array)?);
        let (counter, receiving) = (self.u32()?, self.array()?);
        let skipped = self.skipped(counter)?;
        let side_key = |bytes: &[u8; 32]| SideKey::new(Secret::new(*bytes));
        Some(Link {
            send: SendSide::new(sent, sending.map(side_key)),
            recv: RecvSide { counter, key: side_key(receiving), skipped },
        })
    }

    /// Ascending, and all before the newest message.
    fn skipped(&mut self, newest: u32) -> Option<SkippedKeys> {
        let count = self.u32()? as usize;
        if count > self.0.len() / 36 {
            return None;
        }
        let mut keys = SkippedKeys::with_capacity(count);
        let mut next = 1;
        for _ in 0..count {
            let index = self.u32()?;
            if index < next || index >= newest {
                return None;
            }
            next = index + 1;
            keys.push(index, PqMessageKey::new(self.secret()?));
        }
        Some(keys)
    }

    fn braid(&mut self) -> Option<Braid> {
        let epoch = self.u64().filter(|epoch| *epoch > 0)?;
        let (root, mac_key) = (self.array()?, self.array()?);
        let phase = self.phase()?;
        let (root, mac_key) = (Secret::new(*root), Secret::new(*mac_key));
        Some(Braid { epoch, authenticator: Authenticator { root, mac_key }, phase })
    }

    fn phase(&mut self) -> Option<Phase> {
        Some(match self.u8()? {
            0 => Phase::Key(KeySide::KeysUnsampled),
            1 => {
                let (dk, header) = (self.kept_key()?, self.encoder()?);
                Phase::Key(KeySide::KeysSampled { dk, header })
            }
            2 => {
                let (dk, ek, ct1) = (self.kept_key()?, self.encoder()?, self.decoder()?);
                Phase::Key(KeySide::HeaderSent { dk, ek, ct1 })
            }
            3 => {
                let (dk, ct1, ek) = (self.kept_key()?, self.payload()?, self.encoder()?);
                Phase::Key(KeySide::Ct1Received { dk, ct1, ek })
            }
            4 => {
                let (dk, ct1, ct2) = (self.kept_key()?, self.payload()?, self.decoder()?);
                Phase::Key(KeySide::EkSentCt1Received { dk, ct1, ct2 })
            }
            other => Phase::Ciphertext(self.ciphertext_side(other)?),
        })
    }

    fn ciphertext_side(&mut self, phase: u8) -> Option<CiphertextSide> {
        Some(match phase {
            5 => CiphertextSide::NoHeaderReceived { header: self.decoder()? },
            6 => CiphertextSide::HeaderReceived { header: *self.array()? },
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

    fn kept_key(&mut self) -> Option<KeptKey> {
        match self.u8()? {
            0 => {
                let seed = self.array()?;
                Some(KeptKey::Seed(Secret::new(*seed)))
            }
            1 => self.boxed().map(KeptKey::Expanded),
            _ => None,
        }
    }

    fn encapsulation(&mut self) -> Option<Encapsulation> {
        Some(Encapsulation { header: *self.array()?, m: self.secret()? })
    }

    fn encoder<const N: usize>(&mut self) -> Option<Encoder<N>> {
        let next = self.u32()?;
        Some(Encoder::resumed(self.payload()?, next))
    }

    fn payload<const N: usize>(&mut self) -> Option<Whole<N>> {
        let (rows, _) = self.bytes(32 * N)?.as_chunks();
        Box::<[Row]>::from(rows).try_into().ok()
    }

    /// Ascending indices, as they are held.
    fn decoder<const N: usize>(&mut self) -> Option<Decoder<N>> {
        let count = usize::from(self.u8()?);
        if count >= N {
            return None;
        }
        let mut decoder = Decoder::new();
        for _ in 0..count {
            let index = self.u16()?;
            if decoder.held().last().is_some_and(|last| last.index >= index) {
                return None;
            }
            decoder.hold(Chunk { index, data: *self.array()? });
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

    fn boxed<const N: usize>(&mut self) -> Option<Box<Secret<N>>> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        let mut secret = Box::new(Secret::zeroed());
        secret.as_mut_bytes().copy_from_slice(bytes);
        Some(secret)
    }
}
