//! The fastest primitives that could be had, whatever library they come from. A floor is the sum of
//! those that the protocol forces; it leaves out all encoding, allocation and bookkeeping.

use aes::Aes256;
use aws_lc_rs::kem;
use cbc::cipher::{
    BlockModeDecrypt, BlockModeEncrypt, KeyIvInit,
    block_padding::{NoPadding, Pkcs7},
};
use curve25519_dalek::montgomery::MontgomeryPoint;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier};
use graviola::key_agreement::x25519;
use graviola::signing::eddsa::Ed25519SigningKey;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, block_api::compress256};
use std::hint::black_box;

type HmacSha256 = Hmac<Sha256>;
const KEY: [u8; 32] = [7; 32];
/// Identities, version, ratchet key and counters: what the MAC covers beside the body.
pub const MACED: usize = 66 + 1 + 35 + 4 + 3;
/// Version, distribution, chain, iteration and a length: what a group message signs beside the body.
pub const SIGNED: usize = 1 + 18 + 6 + 3 + 3;

/// Keys that the primitives work on.
pub struct Floor {
    secret: x25519::StaticPrivateKey,
    public: x25519::PublicKey,
    montgomery: MontgomeryPoint,
    signer: SigningKey,
    signature: Signature,
    fast_signer: Ed25519SigningKey,
    kem: kem::DecapsulationKey,
    kem_public: kem::EncapsulationKey,
    ciphertext: Vec<u8>,
}

impl Floor {
    pub fn new() -> Self {
        let secret = x25519::StaticPrivateKey::from_array(&KEY);
        let signer = SigningKey::from_bytes(&[9; 32]);
        let kem = kem::DecapsulationKey::generate(&kem::ML_KEM_1024).unwrap();
        let kem_public = kem.encapsulation_key().unwrap();
        let (ciphertext, _) = kem_public.encapsulate().unwrap();
        Self {
            public: secret.public_key(),
            montgomery: MontgomeryPoint(secret.public_key().as_bytes()),
            secret,
            signature: signer.sign(&[1; 33]),
            signer,
            fast_signer: Ed25519SigningKey::from_bytes(&[9; 32]).unwrap(),
            ciphertext: ciphertext.as_ref().to_vec(),
            kem,
            kem_public,
        }
    }

    pub fn x25519(&self, times: usize) {
        for _ in 0..times {
            black_box(self.secret.diffie_hellman(black_box(&self.public)).unwrap());
        }
    }

    pub fn x25519_base(&self, times: usize) {
        for _ in 0..times {
            black_box(black_box(&self.secret).public_key());
        }
    }

    /// XEdDSA: the key's point on the Edwards curve, and an Ed25519 verification.
    pub fn verify(&self, times: usize) {
        for _ in 0..times {
            black_box(black_box(self.montgomery).to_edwards(0));
            let key = self.signer.verifying_key();
            black_box(&key).verify(&[1; 33], &self.signature).unwrap();
        }
    }

    /// Two signatures, two key pairs, the agreements of W§7.1 with the first ratchet step, ML-KEM-1024
    /// encapsulation, and ML-KEM-768 key generation for the post-quantum ratchet.
    pub fn initiator(&self) {
        self.verify(2);
        self.x25519_base(2);
        self.x25519(5);
        black_box(self.kem_public.encapsulate().unwrap());
        black_box(kem::DecapsulationKey::generate(&kem::ML_KEM_768).unwrap());
    }

    /// The agreements with both halves of the ratchet step, a key pair, ML-KEM-1024 decapsulation.
    pub fn responder(&self) {
        self.x25519(6);
        self.x25519_base(1);
        black_box(self.kem.decapsulate(self.ciphertext.as_slice().into()).unwrap());
    }

    /// One step of the Diffie-Hellman ratchet, and a message in and out.
    pub fn ping_pong(&self, out: Vec<u8>, back: Vec<u8>) {
        self.x25519(2);
        self.x25519_base(1);
        black_box((hkdf::<64>(&KEY, &KEY), hkdf::<64>(&KEY, &KEY)));
        black_box((encrypt(out, 100), decrypt(back)));
    }

    /// An identity, a signed prekey and 100 one-time prekeys.
    pub fn keys(&self) {
        self.x25519_base(102);
        black_box(self.fast_signer.sign(&[1; 33]));
    }

    /// The same with 100 KEM prekeys, each signed.
    pub fn keys_with_kem(&self) {
        self.keys();
        for _ in 0..100 {
            black_box(kem::DecapsulationKey::generate(&kem::ML_KEM_1024).unwrap());
            black_box(self.fast_signer.sign(&[1; 1569]));
        }
    }

    /// Chain step, message keys, AES-256-CBC, and a signature by the fastest code there is: it takes
    /// Ed25519 keys alone, and so cannot make the signatures of W§3.
    pub fn group_encrypt(&self, mut body: Vec<u8>, len: usize) -> [u8; 64] {
        black_box(chain_step());
        black_box::<[u8; 48]>(hkdf(&[0; 32], &KEY));
        let cipher = cbc::Encryptor::<Aes256>::new(&KEY.into(), &[0; 16].into());
        cipher.encrypt_padded::<Pkcs7>(&mut body[SIGNED..], len).unwrap();
        self.fast_signer.sign(&body)
    }

    /// A signature by dalek, which can make those of W§3.
    pub fn dalek_signature(&self) -> Signature {
        self.signer.sign(black_box(&[1; 33]))
    }

    /// Ed25519 verification under a key that is at hand, chain step, message keys, AES-256-CBC.
    pub fn group_decrypt(&self, (mut body, signature): (Vec<u8>, Signature)) {
        black_box(&self.signer.verifying_key()).verify(&body, &signature).unwrap();
        black_box(chain_step());
        black_box::<[u8; 48]>(hkdf(&[0; 32], &KEY));
        let cipher = cbc::Decryptor::<Aes256>::new(&KEY.into(), &[0; 16].into());
        cipher.decrypt_padded::<NoPadding>(&mut body[SIGNED..]).unwrap();
    }

    /// What [`Floor::group_decrypt`] reads.
    pub fn group_message(&self, len: usize) -> (Vec<u8>, Signature) {
        let body = group_buffer(len);
        let signature = self.signer.sign(&body);
        (body, signature)
    }
}

fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8]) -> [u8; N] {
    let mut okm = [0; N];
    Hkdf::<Sha256>::new(Some(black_box(salt)), black_box(ikm))
        .expand(b"WhisperMessageKeys", &mut okm)
        .unwrap();
    okm
}

/// Two HMACs of one byte under one key: six compressions.
fn chain_step() -> ([u32; 8], [u32; 8]) {
    let block = black_box([[7u8; 64]]);
    let mut states = [[1u32; 8]; 2];
    for state in &mut states {
        compress256(state, &block);
    }
    let [inner, outer] = states;
    let one = |byte: u8| {
        let (mut inner, mut outer) = (inner, outer);
        compress256(&mut inner, black_box(&[[byte; 64]]));
        compress256(&mut outer, black_box(&[[inner[0] as u8; 64]]));
        outer
    };
    (one(1), one(2))
}

/// Chain step, the post-quantum ratchet's HKDF, message keys, AES-256-CBC, HMAC.
pub fn encrypt(mut body: Vec<u8>, len: usize) -> [u8; 32] {
    black_box(chain_step());
    let salt: [u8; 64] = hkdf(&KEY, &KEY);
    black_box::<[u8; 80]>(hkdf(&salt[..32], &KEY));
    let cipher = cbc::Encryptor::<Aes256>::new(&KEY.into(), &[0; 16].into());
    cipher.encrypt_padded::<Pkcs7>(&mut body[MACED..], len).unwrap();
    HmacSha256::new_from_slice(&KEY).unwrap().chain_update(&body).finalize().into_bytes().into()
}

/// The same in the other direction.
pub fn decrypt(mut body: Vec<u8>) -> [u8; 32] {
    black_box(chain_step());
    let salt: [u8; 64] = hkdf(&KEY, &KEY);
    black_box::<[u8; 80]>(hkdf(&salt[..32], &KEY));
    let mac = HmacSha256::new_from_slice(&KEY).unwrap().chain_update(&body).finalize();
    let cipher = cbc::Decryptor::<Aes256>::new(&KEY.into(), &[0; 16].into());
    cipher.decrypt_padded::<NoPadding>(&mut body[MACED..]).unwrap();
    mac.into_bytes().into()
}

/// Bytes of a padded body.
pub fn padded(len: usize) -> usize {
    (len / 16 + 1) * 16
}

/// What [`encrypt`] and [`decrypt`] work on.
pub fn buffer(len: usize) -> Vec<u8> {
    vec![0; MACED + padded(len)]
}

/// What [`Floor::group_encrypt`] works on.
pub fn group_buffer(len: usize) -> Vec<u8> {
    vec![0; SIGNED + padded(len)]
}
