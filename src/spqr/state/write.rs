//! Writes the parts of a stored state. The layout is drawn in `mod.rs`.

use crate::spqr::braid::ciphertext_side::{CiphertextSide, Encapsulation};
use crate::spqr::braid::key_side::KeySide;
use crate::spqr::braid::{Braid, Phase};
use crate::spqr::chain::{Chain, ChainLimits, Direction};
use crate::spqr::erasure::{Decoder, Encoder};
use crate::spqr::mlkem::KeptKey;
use crate::spqr::{MinVersion, Negotiation};
use crate::stored::Writer;

impl Writer {
    pub(super) fn negotiation(&mut self, open: &Negotiation) {
        self.u8(direction_byte(open.direction));
        self.u8(matches!(open.min_version, MinVersion::V1).into());
        self.limits(open.limits);
        self.u16(open.auth_key.len() as u16);
        self.bytes(&open.auth_key);
    }

    pub(super) fn chain(&mut self, chain: &Chain) {
        self.u8(direction_byte(chain.direction));
        self.limits(chain.limits);
        self.u64(chain.current_epoch);
        self.u64(chain.send_epoch);
        self.bytes(chain.next_root.as_bytes());
        self.u8(chain.links.len() as u8);
        for link in &chain.links {
            self.u32(link.send.counter);
            self.option(link.send.key(), |out, key| out.bytes(key.as_bytes()));
            self.u32(link.recv.counter);
            self.bytes(link.recv.key.as_bytes());
            self.u32(link.recv.skipped.len() as u32);
            for (index, key) in link.recv.skipped.iter() {
                self.u32(index);
                self.bytes(key.as_bytes());
            }
        }
    }

    pub(super) fn braid(&mut self, braid: &Braid) {
        self.u64(braid.epoch);
        self.bytes(braid.authenticator.root.as_bytes());
        self.bytes(braid.authenticator.mac_key.as_bytes());
        match &braid.phase {
            Phase::Key(side) => self.key_side(side),
            Phase::Ciphertext(side) => self.ciphertext_side(side),
        }
    }

    fn key_side(&mut self, side: &KeySide) {
        match side {
            KeySide::KeysUnsampled => self.u8(0),
            KeySide::KeysSampled { dk, header } => {
                self.u8(1);
                self.kept_key(dk);
                self.encoder(header);
            }
            KeySide::HeaderSent { dk, ek, ct1 } => {
                self.u8(2);
                self.kept_key(dk);
                self.encoder(ek);
                self.decoder(ct1);
            }
            KeySide::Ct1Received { dk, ct1, ek } => {
                self.u8(3);
                self.kept_key(dk);
                self.bytes(ct1.as_flattened());
                self.encoder(ek);
            }
            KeySide::EkSentCt1Received { dk, ct1, ct2 } => {
                self.u8(4);
                self.kept_key(dk);
                self.bytes(ct1.as_flattened());
                self.decoder(ct2);
            }
        }
    }

    fn ciphertext_side(&mut self, side: &CiphertextSide) {
        match side {
            CiphertextSide::NoHeaderReceived { header } => {
                self.u8(5);
                self.decoder(header);
            }
            CiphertextSide::HeaderReceived { header } => {
                self.u8(6);
                self.bytes(header);
            }
            CiphertextSide::Ct1Sampled { encaps, ct1, ek } => {
                self.u8(7);
                self.encapsulation(encaps);
                self.encoder(ct1);
                self.decoder(ek);
            }
            CiphertextSide::EkReceivedCt1Sampled { ct2, ct1 } => {
                self.u8(8);
                self.bytes(ct2.as_flattened());
                self.encoder(ct1);
            }
            CiphertextSide::Ct1Acknowledged { encaps, ct1, ek } => {
                self.u8(9);
                self.encapsulation(encaps);
                self.bytes(ct1.as_flattened());
                self.decoder(ek);
            }
            CiphertextSide::Ct2Sampled { ct2 } => {
                self.u8(10);
                self.encoder(ct2);
            }
        }
    }

    fn kept_key(&mut self, key: &KeptKey) {
        match key {
            KeptKey::Seed(seed) => {
                self.u8(0);
                self.bytes(seed.as_bytes());
            }
            KeptKey::Expanded(dk) => {
                self.u8(1);
                self.bytes(dk.as_bytes());
            }
        }
    }

    fn encapsulation(&mut self, encaps: &Encapsulation) {
        self.bytes(&encaps.header);
        self.bytes(encaps.m.as_bytes());
    }

    fn encoder<const N: usize>(&mut self, encoder: &Encoder<N>) {
        self.u32(encoder.next_index());
        self.bytes(encoder.payload().as_flattened());
    }

    fn decoder<const N: usize>(&mut self, decoder: &Decoder<N>) {
        self.u8(decoder.held().len() as u8);
        for chunk in decoder.held() {
            self.u16(chunk.index);
            self.bytes(&chunk.data);
        }
    }

    fn limits(&mut self, limits: ChainLimits) {
        self.u32(limits.max_jump);
        self.u32(limits.max_ooo);
    }
}

fn direction_byte(direction: Direction) -> u8 {
    match direction {
        Direction::A2B => 0,
        Direction::B2A => 1,
    }
}
