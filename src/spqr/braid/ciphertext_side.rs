//! S§5.2–5.4, states C0 to C5: gathers header and ek vector, encapsulates, sends ct1 and ct2.

use super::{Braid, BraidChange, Outcome, Phase};
use crate::crypto::secret::Secret;
use crate::spqr::SpqrError;
use crate::spqr::authenticator::{EpochSecret, verify};
use crate::spqr::erasure::{Chunk, Decoder, Encoder, Gathered, Whole, rows, whole};
use crate::spqr::message::Payload;
use crate::spqr::mlkem::{EK_LEN, Header, IncrementalKem, MlKem768};
use rand_core::CryptoRng;

/// The ciphertext side's phases; each holds what it still needs and no more.
#[derive(Clone)]
pub(in crate::spqr) enum CiphertextSide {
    /// C0: the header comes in.
    NoHeaderReceived { header: Decoder<3> },
    /// C1.
    HeaderReceived { header: Header },
    /// C2: ct1 goes out, the ek vector comes in.
    Ct1Sampled { encaps: Encapsulation, ct1: Encoder<30>, ek: Decoder<36> },
    /// C3: ct2 and its MAC are ready, ct1 still goes out.
    EkReceivedCt1Sampled { ct2: Whole<5>, ct1: Encoder<30> },
    /// C4: the peer has ct1, the ek vector still comes in.
    Ct1Acknowledged { encaps: Encapsulation, ct1: Whole<30>, ek: Decoder<36> },
    /// C5: ct2 goes out.
    Ct2Sampled { ct2: Encoder<5> },
}

/// What the second half of an encapsulation needs of the first.
#[derive(Clone)]
pub(in crate::spqr) struct Encapsulation {
    pub(in crate::spqr) header: Header,
    pub(in crate::spqr) m: Secret<32>,
}

/// Whether a message says that its sender has the whole ct1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ct1 {
    Acknowledged,
    Unacknowledged,
}

impl CiphertextSide {
    /// The beginning of an epoch.
    pub(super) fn waiting() -> Self {
        Self::NoHeaderReceived { header: Decoder::new() }
    }

    pub(super) fn send(&self, braid: &Braid, rng: &mut impl CryptoRng) -> (Payload, Outcome) {
        let payload = match self {
            Self::HeaderReceived { header } => return sample_ct1(braid, header, rng),
            Self::Ct1Sampled { ct1, .. } | Self::EkReceivedCt1Sampled { ct1, .. } => {
                Payload::Ct1(ct1.chunk())
            }
            Self::Ct2Sampled { ct2 } => Payload::Ct2(ct2.chunk()),
            Self::NoHeaderReceived { .. } | Self::Ct1Acknowledged { .. } => {
                return (Payload::None, (BraidChange::None, None));
            }
        };
        (payload, (BraidChange::ChunkSent, None))
    }

    pub(super) fn recv(&self, braid: &Braid, payload: &Payload) -> Result<Outcome, SpqrError> {
        let change = match (self, payload) {
            (Self::NoHeaderReceived { header }, Payload::Header(chunk)) => {
                match header.gather(chunk) {
                    Gathered::StillReceiving => BraidChange::ChunkHeld(*chunk),
                    Gathered::Done(header_mac) => receive_header(braid, &header_mac)?,
                }
            }
            (Self::Ct1Sampled { encaps, ct1, ek }, Payload::Ek(chunk)) => {
                receive_ek(braid, encaps, ct1, ek, chunk, Ct1::Unacknowledged)?
            }
            (Self::Ct1Sampled { encaps, ct1, ek }, Payload::EkCt1Ack(chunk)) => {
                receive_ek(braid, encaps, ct1, ek, chunk, Ct1::Acknowledged)?
            }
            (Self::EkReceivedCt1Sampled { ct2, .. }, Payload::Ct1Ack | Payload::EkCt1Ack(_)) => {
                enter(braid, Self::Ct2Sampled { ct2: Encoder::new(ct2.clone()) })
            }
            (
                Self::Ct1Acknowledged { encaps, ct1, ek },
                Payload::Ek(chunk) | Payload::EkCt1Ack(chunk),
            ) => match ek.gather(chunk) {
                Gathered::StillReceiving => BraidChange::ChunkHeld(*chunk),
                Gathered::Done(ek) => {
                    let ct2 = Encoder::new(make_ct2(braid, encaps, ct1, &ek)?);
                    enter(braid, Self::Ct2Sampled { ct2 })
                }
            },
            _ => BraidChange::None,
        };
        Ok((change, None))
    }

    pub(super) fn advance_encoder(&mut self) {
        match self {
            Self::Ct1Sampled { ct1, .. } | Self::EkReceivedCt1Sampled { ct1, .. } => ct1.advance(),
            Self::Ct2Sampled { ct2 } => ct2.advance(),
            Self::NoHeaderReceived { .. }
            | Self::HeaderReceived { .. }
            | Self::Ct1Acknowledged { .. } => {}
        }
    }

    pub(super) fn hold(&mut self, chunk: Chunk) {
        match self {
            Self::NoHeaderReceived { header } => header.hold(chunk),
            Self::Ct1Sampled { ek, .. } | Self::Ct1Acknowledged { ek, .. } => ek.hold(chunk),
            Self::HeaderReceived { .. }
            | Self::EkReceivedCt1Sampled { .. }
            | Self::Ct2Sampled { .. } => {}
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::NoHeaderReceived { .. } => "C0",
            Self::HeaderReceived { .. } => "C1",
            Self::Ct1Sampled { .. } => "C2",
            Self::EkReceivedCt1Sampled { .. } => "C3",
            Self::Ct1Acknowledged { .. } => "C4",
            Self::Ct2Sampled { .. } => "C5",
        }
    }
}

fn enter(braid: &Braid, side: CiphertextSide) -> BraidChange {
    BraidChange::enter(braid.in_phase(Phase::Ciphertext(side)))
}

fn receive_header(braid: &Braid, header_mac: &Whole<3>) -> Result<BraidChange, SpqrError> {
    let [header @ .., mac] = &**header_mac;
    let header: &Header = whole(header);
    verify(&braid.authenticator.header_mac(braid.epoch, header), mac)?;
    Ok(enter(braid, CiphertextSide::HeaderReceived { header: *header }))
}

/// The secret of the epoch is known from here on; the authenticator takes it in at once.
fn sample_ct1(braid: &Braid, header: &Header, rng: &mut impl CryptoRng) -> (Payload, Outcome) {
    let mut m = Secret::zeroed();
    rng.fill_bytes(m.as_mut_bytes());
    let (ct1, ss) = MlKem768::encaps1(header, &m);
    let secret = EpochSecret::derive(braid.epoch, &ss);
    let mut ct1 = Encoder::new(rows(&[&ct1]));
    let payload = Payload::Ct1(ct1.chunk());
    ct1.advance();
    let encaps = Encapsulation { header: *header, m };
    let next = Braid {
        epoch: braid.epoch,
        authenticator: braid.authenticator.updated(braid.epoch, secret.secret.as_bytes()),
        phase: Phase::Ciphertext(CiphertextSide::Ct1Sampled { encaps, ct1, ek: Decoder::new() }),
    };
    (payload, (BraidChange::enter(next), Some(secret)))
}

/// The second table of S§5.4.
fn receive_ek(
    braid: &Braid,
    encaps: &Encapsulation,
    ct1: &Encoder<30>,
    ek: &Decoder<36>,
    chunk: &Chunk,
    peer: Ct1,
) -> Result<BraidChange, SpqrError> {
    let next = match (ek.gather(chunk), peer) {
        (Gathered::StillReceiving, Ct1::Unacknowledged) => {
            return Ok(BraidChange::ChunkHeld(*chunk));
        }
        (Gathered::StillReceiving, Ct1::Acknowledged) => {
            let mut ek = ek.clone();
            ek.hold(*chunk);
            let ct1 = alloc::boxed::Box::new(*ct1.payload());
            CiphertextSide::Ct1Acknowledged { encaps: encaps.clone(), ct1, ek }
        }
        (Gathered::Done(ek), Ct1::Unacknowledged) => {
            let ct2 = make_ct2(braid, encaps, ct1.payload(), &ek)?;
            CiphertextSide::EkReceivedCt1Sampled { ct2, ct1: ct1.clone() }
        }
        (Gathered::Done(ek), Ct1::Acknowledged) => {
            let ct2 = Encoder::new(make_ct2(braid, encaps, ct1.payload(), &ek)?);
            CiphertextSide::Ct2Sampled { ct2 }
        }
    };
    Ok(enter(braid, next))
}

/// Checks the ek vector and makes ct2 ‖ MAC as soon as it can be made (S§5.4): m and header, which
/// could be turned into the epoch's secret, go one phase earlier.
fn make_ct2(
    braid: &Braid,
    encaps: &Encapsulation,
    ct1: &[[u8; 32]; 30],
    ek: &Whole<36>,
) -> Result<Whole<5>, SpqrError> {
    let ek: &[u8; EK_LEN] = whole(ek);
    MlKem768::check(&encaps.header, ek).map_err(|_| SpqrError::ErroneousData)?;
    let ct2 = MlKem768::encaps2(&encaps.header, &encaps.m, ek);
    let mac = braid.authenticator.ciphertext_mac(braid.epoch, ct1.as_flattened(), &ct2);
    Ok(rows(&[&ct2, &mac]))
}
