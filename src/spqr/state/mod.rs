//! Our stored form of the ratchet: a fixed layout, big-endian, written only when a session is saved.
//! The form of other implementations is read by `import.rs`.
//!
//! ```text
//! state       | nothing: off
//!             | format 1, negotiation 0 or 1 …, chain 0 or 1 …, braid
//! negotiation | direction 1, min version 1, max jump 4, max out of order 4, length 2, auth key
//! chain       | direction 1, max jump 4, max out of order 4, current epoch 8, send epoch 8, next root 32,
//!             | links: count 1, each: counter 4, 0 or 1, [sending key 32],
//!             |                       counter 4, receiving key 32, skipped: count 4, each index 4, key 32
//! braid       | epoch 8, root 32, MAC key 32, phase 1, content
//! content     | K0 –          K1 key, encoder 3   K2 key, encoder 36, decoder   K3 key, ct1 960, encoder 36
//!             | K4 key, ct1, decoder      C0 decoder  C1 header 64   C2 header, m 32, encoder 30, decoder
//!             | C3 ct2 ‖ MAC 160, encoder 30          C4 header, m, ct1, decoder     C5 encoder 5
//! key         | 0, seed 64; or 1, dk 2400 of an import
//! encoder N   | next index 4, payload 32·N            decoder | count 1, each index 2, chunk 32 |
//! ```

mod read;
mod write;

use super::braid::Phase;
use super::braid::ciphertext_side::CiphertextSide;
use super::braid::key_side::KeySide;
use super::chain::Link;
use super::erasure::Decoder;
use super::mlkem::{CT1_LEN, DK_LEN, HEADER_LEN, KeptKey};
use super::{Spqr, SpqrError, V1};
use crate::stored::{Reader, Writer};

const FORMAT: u8 = 1;
/// What is there in every state: format, two options, the braid before its content.
const FRAME_LEN: usize = 1 + 1 + 1 + 8 + 32 + 32 + 1;
const NEGOTIATION_LEN: usize = 1 + 1 + 8 + 2;
const CHAIN_LEN: usize = 1 + 8 + 8 + 8 + 32 + 1;
const LINK_LEN: usize = SHORTEST_LINK_LEN + 32;
/// Of an epoch with which nothing is sent any more.
const SHORTEST_LINK_LEN: usize = 4 + 1 + 4 + 32 + 4;
const SKIPPED_LEN: usize = 4 + 32;

impl Spqr {
    /// Most bytes of an encoded state with the default limits: 5 KiB, and 36 bytes for each key of a
    /// skipped message, of which the three sides that are kept have 2,200 each.
    pub(crate) const MAX_ENCODED_LEN: usize = 5 * 1024 + 3 * 2_200 * SKIPPED_LEN;

    /// Writes what is to be stored: secrets. Nothing when off; otherwise at most
    /// [`Self::MAX_ENCODED_LEN`].
    pub(crate) fn write(&self, out: &mut Writer) {
        if let Self::On(v1) = self {
            out.u8(FORMAT);
            out.option(v1.negotiation.as_ref(), Writer::negotiation);
            out.option(v1.chain.as_ref(), Writer::chain);
            out.braid(&v1.braid);
        }
    }

    /// Not less than what will be written: secrets must not move to a larger buffer. Not much more
    /// either: all of it is wiped.
    pub(crate) fn max_encoded_len(&self) -> usize {
        match self {
            Self::Off => 0,
            Self::On(v1) => v1.max_encoded_len(),
        }
    }

    /// The bytes alone, for comparison.
    #[cfg(all(feature = "std", any(test, fuzzing)))]
    pub(crate) fn encode(&self) -> crate::crypto::secret::SecretBytes {
        let mut out = Writer::with_capacity(self.max_encoded_len());
        self.write(&mut out);
        out.0
    }

    /// Reads what [`Spqr::write`] wrote.
    ///
    /// # Errors
    /// [`SpqrError::StateDecode`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, SpqrError> {
        if bytes.is_empty() {
            return Ok(Self::Off);
        }
        let mut input = Reader(bytes);
        let v1 = input.v1().ok_or(SpqrError::StateDecode)?;
        if input.0.is_empty() { Ok(Self::On(v1)) } else { Err(SpqrError::StateDecode) }
    }
}

impl V1 {
    fn max_encoded_len(&self) -> usize {
        let negotiation =
            self.negotiation.as_ref().map_or(0, |open| NEGOTIATION_LEN + open.auth_key.len());
        let links = self.chain.as_ref().map_or(&[][..], |chain| &chain.links);
        let link = |link: &Link| LINK_LEN + SKIPPED_LEN * link.recv.skipped.len();
        let chain = CHAIN_LEN + links.iter().map(link).sum::<usize>();
        FRAME_LEN + negotiation + chain + content_len(&self.braid.phase)
    }
}

fn content_len(phase: &Phase) -> usize {
    use CiphertextSide as C;
    use KeySide as K;
    match phase {
        Phase::Key(K::KeysUnsampled) => 0,
        Phase::Key(K::KeysSampled { dk, .. }) => key_len(dk) + encoder_len(3),
        Phase::Key(K::HeaderSent { dk, ct1, .. }) => {
            key_len(dk) + encoder_len(36) + decoder_len(ct1)
        }
        Phase::Key(K::Ct1Received { dk, .. }) => key_len(dk) + CT1_LEN + encoder_len(36),
        Phase::Key(K::EkSentCt1Received { dk, ct2, .. }) => {
            key_len(dk) + CT1_LEN + decoder_len(ct2)
        }
        Phase::Ciphertext(C::NoHeaderReceived { header }) => decoder_len(header),
        Phase::Ciphertext(C::HeaderReceived { .. }) => HEADER_LEN,
        Phase::Ciphertext(C::Ct1Sampled { ek, .. }) => {
            HEADER_LEN + 32 + encoder_len(30) + decoder_len(ek)
        }
        Phase::Ciphertext(C::EkReceivedCt1Sampled { .. }) => 32 * 5 + encoder_len(30),
        Phase::Ciphertext(C::Ct1Acknowledged { ek, .. }) => {
            HEADER_LEN + 32 + CT1_LEN + decoder_len(ek)
        }
        Phase::Ciphertext(C::Ct2Sampled { .. }) => encoder_len(5),
    }
}

fn key_len(key: &KeptKey) -> usize {
    1 + match key {
        KeptKey::Seed(_) => 64,
        KeptKey::Expanded(_) => DK_LEN,
    }
}

fn encoder_len(chunks: usize) -> usize {
    4 + 32 * chunks
}

fn decoder_len<const N: usize>(decoder: &Decoder<N>) -> usize {
    1 + 34 * decoder.held().len()
}
