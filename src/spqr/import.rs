//! S§10. Reads the state that other implementations store. Everything is checked here, once; our own
//! form is `state/`'s concern.

use super::authenticator::Authenticator;
use super::braid::ciphertext_side::{CiphertextSide, Encapsulation};
use super::braid::key_side::KeySide;
use super::braid::{Braid, Phase};
use super::chain::{Chain, ChainLimits, Direction, Link, NextRoot, RecvSide, SendSide, SideKey};
use super::erasure::{Chunk, Decoder, Encoder, Whole, rows};
use super::gf;
use super::mlkem::{self, CT1_LEN, EK_LEN, HEADER_LEN, KeptKey};
use super::skipped::SkippedKeys;
use super::{MinVersion, Negotiation, Spqr, SpqrError, V1};
use crate::crypto::secret::{Secret, SecretBytes};
use crate::keys::PqMessageKey;
use crate::wire::spqr as stored;
use alloc::{boxed::Box, vec::Vec};
use prost::Message as _;
use stored::braid::Phase as StoredPhase;

/// More links than any state has: three.
const MAX_LINKS: usize = 8;
/// Bytes of the encapsulation state that others keep (S§7.6).
const ENCAPS_STATE_LEN: usize = 2080;

const BROKEN: SpqrError = SpqrError::StateDecode;

impl Spqr {
    /// Reads a stored state of another implementation (S§10); nothing is version 0.
    ///
    /// # Errors
    /// [`SpqrError::StateDecode`], and two others where the facts name them (S§10.3, 11).
    pub(crate) fn import(bytes: &[u8]) -> Result<Self, SpqrError> {
        let state = stored::State::decode(bytes).map_err(|_| BROKEN)?;
        let Some(braid) = &state.braid else {
            return Ok(Self::Off);
        };
        let braid = read_braid(braid.phase.as_ref().ok_or(BROKEN)?)?;
        let chain = state.chain.as_ref().map(read_chain).transpose()?;
        let negotiation = match (&state.negotiation, &chain) {
            (Some(stored::Negotiation { limits: None, .. }), None) | (None, None) => {
                return Err(SpqrError::ChainNotAvailable);
            }
            (stored, _) => stored.as_ref().map(read_negotiation).transpose()?,
        };
        Ok(Self::On(Box::new(V1 { braid, chain, negotiation })))
    }
}

fn read_negotiation(open: &stored::Negotiation) -> Result<Negotiation, SpqrError> {
    u16::try_from(open.auth_key.len()).map_err(|_| BROKEN)?;
    Ok(Negotiation {
        auth_key: SecretBytes::from_vec(open.auth_key.clone()),
        direction: read_direction(open.direction)?,
        min_version: if open.min_version == 0 { MinVersion::V0 } else { MinVersion::V1 },
        limits: read_limits(open.limits.unwrap_or_default()),
    })
}

fn read_direction(direction: i32) -> Result<Direction, SpqrError> {
    match direction {
        0 => Ok(Direction::A2B),
        1 => Ok(Direction::B2A),
        _ => Err(BROKEN),
    }
}

fn read_limits(limits: stored::Limits) -> ChainLimits {
    ChainLimits { max_jump: limits.max_jump, max_ooo: limits.max_ooo }.effective()
}

fn read_chain(chain: &stored::Chain) -> Result<Chain, SpqrError> {
    let older = chain.links.len().checked_sub(1).filter(|n| *n < MAX_LINKS).ok_or(BROKEN)?;
    if older as u64 > chain.current_epoch {
        return Err(BROKEN);
    }
    // Not collected: the list would grow, and leave keys behind.
    let mut links = Vec::with_capacity(chain.links.len());
    for link in &chain.links {
        links.push(read_link(link)?);
    }
    Ok(Chain {
        direction: read_direction(chain.direction)?,
        limits: read_limits(chain.limits.ok_or(BROKEN)?),
        current_epoch: chain.current_epoch,
        send_epoch: chain.send_epoch,
        next_root: NextRoot::new(secret(&chain.next_root)?),
        links,
    })
}

fn read_link(link: &stored::Link) -> Result<Link, SpqrError> {
    let (send, recv) = (link.send.as_ref().ok_or(BROKEN)?, link.recv.as_ref().ok_or(BROKEN)?);
    let key = match send.next.is_empty() {
        true => None,
        false => Some(SideKey::new(secret(&send.next)?)),
    };
    Ok(Link {
        send: SendSide::new(send.counter, key),
        recv: RecvSide {
            counter: recv.counter,
            key: SideKey::new(secret(&recv.next)?),
            skipped: read_skipped(&recv.skipped, recv.counter)?,
        },
    })
}

/// In any order; all must be before the newest message.
fn read_skipped(bytes: &[u8], newest: u32) -> Result<SkippedKeys, SpqrError> {
    let (entries, rest) = bytes.as_chunks::<36>();
    if !rest.is_empty() {
        return Err(BROKEN);
    }
    let mut keys = Vec::with_capacity(entries.len());
    for entry in entries {
        let (index, key) = entry.split_first_chunk().ok_or(BROKEN)?;
        let index = u32::from_be_bytes(*index);
        if index == 0 || index >= newest {
            return Err(BROKEN);
        }
        keys.push((index, key));
    }
    keys.sort_by_key(|(index, _)| *index);
    keys.dedup_by_key(|(index, _)| *index);
    let mut skipped = SkippedKeys::with_capacity(keys.len());
    for (index, key) in keys {
        skipped.push(index, PqMessageKey::new(secret(key)?));
    }
    Ok(skipped)
}

fn read_braid(phase: &StoredPhase) -> Result<Braid, SpqrError> {
    let (core, encoder, decoder) = match phase {
        StoredPhase::K0(p)
        | StoredPhase::K1(p)
        | StoredPhase::K2(p)
        | StoredPhase::K3(p)
        | StoredPhase::K4(p)
        | StoredPhase::C2(p)
        | StoredPhase::C3(p)
        | StoredPhase::C5(p) => (&p.core, &p.encoder, &p.decoder),
        StoredPhase::C0(p) | StoredPhase::C1(p) | StoredPhase::C4(p) => {
            (&p.core, &None, &p.decoder)
        }
    };
    let core = core.as_ref().ok_or(BROKEN)?;
    let auth = core.authenticator.as_ref().ok_or(BROKEN)?;
    let authenticator =
        Authenticator { root: secret(&auth.root)?, mac_key: secret(&auth.mac_key)? };
    if core.epoch == 0 {
        return Err(BROKEN);
    }
    let parts = Parts { core, encoder: encoder.as_ref(), decoder: decoder.as_ref() };
    let phase = match phase {
        StoredPhase::K0(_) => Phase::Key(KeySide::KeysUnsampled),
        StoredPhase::K1(_) => Phase::Key(parts.k1()?),
        StoredPhase::K2(_) => Phase::Key(KeySide::HeaderSent {
            dk: parts.dk(&core.part3)?,
            ek: parts.encoder()?,
            ct1: parts.decoder()?,
        }),
        StoredPhase::K3(_) => Phase::Key(KeySide::Ct1Received {
            dk: parts.dk(&core.part3)?,
            ct1: payload(&core.part4)?,
            ek: parts.encoder()?,
        }),
        StoredPhase::K4(_) => Phase::Key(KeySide::EkSentCt1Received {
            dk: parts.dk(&core.part3)?,
            ct1: payload(&core.part4)?,
            ct2: parts.decoder()?,
        }),
        StoredPhase::C0(_) => {
            Phase::Ciphertext(CiphertextSide::NoHeaderReceived { header: parts.decoder()? })
        }
        StoredPhase::C1(_) => Phase::Ciphertext(parts.c1()?),
        StoredPhase::C2(_) => {
            payload::<30>(&core.part5)?;
            Phase::Ciphertext(CiphertextSide::Ct1Sampled {
                encaps: parts.encapsulation()?,
                ct1: parts.encoder()?,
                ek: parts.decoder()?,
            })
        }
        StoredPhase::C3(_) => Phase::Ciphertext(parts.c3(&authenticator)?),
        StoredPhase::C4(_) => Phase::Ciphertext(CiphertextSide::Ct1Acknowledged {
            encaps: parts.encapsulation()?,
            ct1: payload(&core.part5)?,
            ek: parts.decoder()?,
        }),
        StoredPhase::C5(_) => {
            Phase::Ciphertext(CiphertextSide::Ct2Sampled { ct2: parts.encoder()? })
        }
    };
    Ok(Braid { epoch: core.epoch, authenticator, phase })
}

/// The fields of a phase, not yet checked.
struct Parts<'a> {
    core: &'a stored::Core,
    encoder: Option<&'a stored::Encoder>,
    decoder: Option<&'a stored::Decoder>,
}

impl Parts<'_> {
    /// The ek vector is stored beside the key that contains it.
    fn k1(&self) -> Result<KeySide, SpqrError> {
        let dk = self.dk(&self.core.part4)?;
        if self.core.part3.as_slice() != mlkem::ek(&dk.expand()) {
            return Err(BROKEN);
        }
        Ok(KeySide::KeysSampled { dk, header: self.encoder()? })
    }

    /// The decoder must be there, although it has nothing yet.
    fn c1(&self) -> Result<CiphertextSide, SpqrError> {
        self.decoder::<36>()?;
        let header: &[u8; HEADER_LEN] =
            self.core.part3.as_slice().try_into().map_err(|_| BROKEN)?;
        Ok(CiphertextSide::HeaderReceived { header: *header })
    }

    /// The header is not stored any more, so ct2 is made from the stored state, here and now.
    fn c3(&self, authenticator: &Authenticator) -> Result<CiphertextSide, SpqrError> {
        let mut state: Secret<ENCAPS_STATE_LEN> = secret(&self.core.part3)?;
        let ek: &[u8; EK_LEN] = self.core.part4.as_slice().try_into().map_err(|_| BROKEN)?;
        payload::<30>(&self.core.part5)?;
        repair_byte_order(&mut state);
        let ct2 = mlkem::encaps2_from_state(&state, ek);
        let mac = authenticator.ciphertext_mac(self.core.epoch, &self.core.part5, &ct2);
        Ok(CiphertextSide::EkReceivedCt1Sampled { ct2: rows(&[&ct2, &mac]), ct1: self.encoder()? })
    }

    fn dk(&self, bytes: &[u8]) -> Result<KeptKey, SpqrError> {
        secret(bytes).map(Box::new).map(KeptKey::Expanded)
    }

    /// m ends the stored state; the rest follows from m and the header.
    fn encapsulation(&self) -> Result<Encapsulation, SpqrError> {
        let header = self.core.part3.as_slice().try_into().map_err(|_| BROKEN)?;
        let state: &[u8; ENCAPS_STATE_LEN] =
            self.core.part4.as_slice().try_into().map_err(|_| BROKEN)?;
        let (_coefficients, m) = state.split_at(ENCAPS_STATE_LEN - 32);
        Ok(Encapsulation { header, m: secret(m)? })
    }

    fn encoder<const N: usize>(&self) -> Result<Encoder<N>, SpqrError> {
        let encoder = self.encoder.ok_or(BROKEN)?;
        let rows = match (encoder.points.as_slice(), encoder.polynomials.as_slice()) {
            (points, []) => from_points(sixteen(points)?)?,
            ([], polynomials) => from_polynomials(sixteen(polynomials)?)?,
            _ => return Err(BROKEN),
        };
        Ok(Encoder::resumed(rows, encoder.next))
    }

    fn decoder<const N: usize>(&self) -> Result<Decoder<N>, SpqrError> {
        let decoder = self.decoder.ok_or(BROKEN)?;
        if decoder.points_needed as usize != 16 * N {
            return Err(SpqrError::MessageDecode);
        }
        from_pairs(sixteen(&decoder.points)?)
    }
}

fn secret<const N: usize>(bytes: &[u8]) -> Result<Secret<N>, SpqrError> {
    let mut secret = Secret::zeroed();
    if bytes.len() != N {
        return Err(BROKEN);
    }
    secret.as_mut_bytes().copy_from_slice(bytes);
    Ok(secret)
}

fn payload<const N: usize>(bytes: &[u8]) -> Result<Whole<N>, SpqrError> {
    const { assert!(CT1_LEN == 32 * 30) };
    if bytes.len() == 32 * N { Ok(rows(&[bytes])) } else { Err(BROKEN) }
}

fn sixteen(lists: &[Vec<u8>]) -> Result<&[Vec<u8>; 16], SpqrError> {
    lists.try_into().map_err(|_| BROKEN)
}

/// List p has word p of every chunk.
fn from_points<const N: usize>(lists: &[Vec<u8>; 16]) -> Result<Whole<N>, SpqrError> {
    let mut whole = rows(&[]);
    for (p, list) in lists.iter().enumerate() {
        let (words, rest) = list.as_chunks::<2>();
        if words.len() != N || !rest.is_empty() {
            return Err(BROKEN);
        }
        set_column(&mut whole, p, words.iter().copied());
    }
    Ok(whole)
}

/// List p has the coefficients of polynomial p, lowest first; high ones may be missing.
fn from_polynomials<const N: usize>(lists: &[Vec<u8>; 16]) -> Result<Whole<N>, SpqrError> {
    let mut whole = rows(&[]);
    for (p, list) in lists.iter().enumerate() {
        let (coefficients, rest) = list.as_chunks::<2>();
        if coefficients.is_empty() || coefficients.len() > N || !rest.is_empty() {
            return Err(BROKEN);
        }
        let evaluate = |x: u16| {
            let horner = |sum, c: &[u8; 2]| gf::mul(sum, x) ^ u16::from_be_bytes(*c);
            coefficients.iter().rev().fold(0, horner).to_be_bytes()
        };
        set_column(&mut whole, p, (0..N as u16).map(evaluate));
    }
    Ok(whole)
}

fn set_column<const N: usize>(
    whole: &mut Whole<N>,
    p: usize,
    column: impl Iterator<Item = [u8; 2]>,
) {
    for (row, word) in whole.iter_mut().zip(column) {
        if let Some(to) = row.as_chunks_mut::<2>().0.get_mut(p) {
            *to = word;
        }
    }
}

/// Sixteen lists of pairs x, y with the same positions x.
fn from_pairs<const N: usize>(lists: &[Vec<u8>; 16]) -> Result<Decoder<N>, SpqrError> {
    let [first, ..] = lists;
    let held = first.len() / 4;
    if held >= N || lists.iter().any(|list| list.len() != 4 * held) {
        return Err(BROKEN);
    }
    let mut decoder = Decoder::new();
    for n in 0..held {
        let mut pairs = lists.iter().filter_map(|list| list.as_chunks::<4>().0.get(n));
        let [a, b, ..] = *pairs.clone().next().ok_or(BROKEN)?;
        let mut chunk = Chunk { index: u16::from_be_bytes([a, b]), data: [0; 32] };
        let (words, _) = chunk.data.as_chunks_mut::<2>();
        if pairs.any(|[x0, x1, ..]| [*x0, *x1] != [a, b]) {
            return Err(BROKEN);
        }
        let pairs = lists.iter().filter_map(|list| list.as_chunks::<4>().0.get(n));
        for (word, [.., y0, y1]) in words.iter_mut().zip(pairs) {
            *word = [*y0, *y1];
        }
        decoder.hold(chunk);
        if decoder.held().len() != n + 1 {
            return Err(BROKEN);
        }
    }
    Ok(decoder)
}

/// Old builds stored the coefficients big-endian. The first telling one of e2, whose true values lie
/// in [-2, 2], says which order it is (S§10.4).
fn repair_byte_order(state: &mut Secret<ENCAPS_STATE_LEN>) {
    let (words, _) = state.as_mut_bytes().as_chunks_mut::<2>();
    let (coefficients, _m) = words.split_at_mut(1024);
    let (_y, e2) = coefficients.split_at(768);
    let telling =
        e2.iter().map(|word| u16::from_le_bytes(*word)).find(|word| !matches!(word, 0 | 0xFFFF));
    if matches!(telling, Some(0x0100 | 0x0200 | 0xFEFF)) {
        for word in coefficients {
            word.reverse();
        }
    }
}
