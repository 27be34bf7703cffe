//! S§5.2–5.4, states K0 to K4: makes the key pair, sends header and ek vector, gathers ct1 and ct2.

use super::ciphertext_side::CiphertextSide;
use super::{Braid, BraidChange, Outcome, Phase};
use crate::crypto::secret::Secret;
use crate::spqr::SpqrError;
use crate::spqr::authenticator::{EpochSecret, verify};
use crate::spqr::erasure::{Chunk, Decoder, Encoder, Gathered, Whole, rows, whole};
use crate::spqr::message::Payload;
use crate::spqr::mlkem::{self, IncrementalKem, KeptKey, MlKem768};
use rand_core::CryptoRng;

/// The key side's phases; each holds what it still needs and no more.
#[derive(Clone)]
pub(in crate::spqr) enum KeySide {
    /// K0.
    KeysUnsampled,
    /// K1: the header goes out.
    KeysSampled { dk: KeptKey, header: Encoder<3> },
    /// K2: the ek vector goes out, ct1 comes in.
    HeaderSent { dk: KeptKey, ek: Encoder<36>, ct1: Decoder<30> },
    /// K3: ct1 is there, the ek vector still goes out.
    Ct1Received { dk: KeptKey, ct1: Whole<30>, ek: Encoder<36> },
    /// K4: ct2 comes in.
    EkSentCt1Received { dk: KeptKey, ct1: Whole<30>, ct2: Decoder<5> },
}

impl KeySide {
    pub(super) fn send(&self, braid: &Braid, rng: &mut impl CryptoRng) -> (Payload, Outcome) {
        let payload = match self {
            Self::KeysUnsampled => return sample_keys(braid, rng),
            Self::KeysSampled { header, .. } => Payload::Header(header.chunk()),
            Self::HeaderSent { ek, .. } => Payload::Ek(ek.chunk()),
            Self::Ct1Received { ek, .. } => Payload::EkCt1Ack(ek.chunk()),
            Self::EkSentCt1Received { .. } => return (Payload::Ct1Ack, (BraidChange::None, None)),
        };
        (payload, (BraidChange::ChunkSent, None))
    }

    pub(super) fn recv(&self, braid: &Braid, payload: &Payload) -> Result<Outcome, SpqrError> {
        let change = match (self, payload) {
            (Self::KeysSampled { dk, .. }, Payload::Ct1(chunk)) => {
                let mut ct1 = Decoder::new();
                ct1.hold(*chunk);
                let ek = Encoder::new(rows(&[mlkem::ek(&dk.expand())]));
                enter(braid, Self::HeaderSent { dk: dk.clone(), ek, ct1 })
            }
            (Self::HeaderSent { dk, ek, ct1 }, Payload::Ct1(chunk)) => match ct1.gather(chunk) {
                Gathered::StillReceiving => BraidChange::ChunkHeld(*chunk),
                Gathered::Done(ct1) => {
                    enter(braid, Self::Ct1Received { dk: dk.clone(), ct1, ek: ek.clone() })
                }
            },
            (Self::Ct1Received { dk, ct1, .. }, Payload::Ct2(chunk)) => {
                let mut ct2 = Decoder::new();
                ct2.hold(*chunk);
                let (dk, ct1) = (dk.clone(), ct1.clone());
                enter(braid, Self::EkSentCt1Received { dk, ct1, ct2 })
            }
            (Self::EkSentCt1Received { dk, ct1, ct2 }, Payload::Ct2(chunk)) => {
                match ct2.gather(chunk) {
                    Gathered::StillReceiving => BraidChange::ChunkHeld(*chunk),
                    Gathered::Done(ct2_mac) => return finish(braid, dk, ct1, &ct2_mac),
                }
            }
            _ => BraidChange::None,
        };
        Ok((change, None))
    }

    pub(super) fn advance_encoder(&mut self) {
        match self {
            Self::KeysSampled { header, .. } => header.advance(),
            Self::HeaderSent { ek, .. } | Self::Ct1Received { ek, .. } => ek.advance(),
            Self::KeysUnsampled | Self::EkSentCt1Received { .. } => {}
        }
    }

    pub(super) fn hold(&mut self, chunk: Chunk) {
        match self {
            Self::HeaderSent { ct1, .. } => ct1.hold(chunk),
            Self::EkSentCt1Received { ct2, .. } => ct2.hold(chunk),
            Self::KeysUnsampled | Self::KeysSampled { .. } | Self::Ct1Received { .. } => {}
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::KeysUnsampled => "K0",
            Self::KeysSampled { .. } => "K1",
            Self::HeaderSent { .. } => "K2",
            Self::Ct1Received { .. } => "K3",
            Self::EkSentCt1Received { .. } => "K4",
        }
    }
}

fn enter(braid: &Braid, side: KeySide) -> BraidChange {
    BraidChange::enter(braid.in_phase(Phase::Key(side)))
}

fn sample_keys(braid: &Braid, rng: &mut impl CryptoRng) -> (Payload, Outcome) {
    let mut seed = Secret::zeroed();
    rng.fill_bytes(seed.as_mut_bytes());
    let dk = MlKem768::generate(&seed);
    let mac = braid.authenticator.header_mac(braid.epoch, mlkem::header(&dk));
    let mut header = Encoder::new(rows(&[mlkem::header(&dk), &mac]));
    let payload = Payload::Header(header.chunk());
    header.advance();
    let dk = KeptKey::Seed(seed);
    (payload, (enter(braid, KeySide::KeysSampled { dk, header }), None))
}

/// Both ciphertexts are there. The MAC is checked under the authenticator that already contains the
/// new secret (S§5.4 "finish").
fn finish(
    braid: &Braid,
    dk: &KeptKey,
    ct1: &Whole<30>,
    ct2_mac: &Whole<5>,
) -> Result<Outcome, SpqrError> {
    let [ct2 @ .., mac] = &**ct2_mac;
    let (ct1, ct2) = (whole(ct1), whole(ct2));
    let secret = EpochSecret::derive(braid.epoch, &MlKem768::decaps(&dk.expand(), ct1, ct2));
    let authenticator = braid.authenticator.updated(braid.epoch, secret.secret.as_bytes());
    verify(&authenticator.ciphertext_mac(braid.epoch, ct1, ct2), mac)?;
    let epoch = braid.epoch.checked_add(1).ok_or(SpqrError::EpochOutOfRange)?;
    let phase = Phase::Ciphertext(CiphertextSide::waiting());
    Ok((BraidChange::enter(Braid { epoch, authenticator, phase }), Some(secret)))
}
