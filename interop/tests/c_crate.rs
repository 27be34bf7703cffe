//! The crate `libsignal-protocol` 0.1.0, which wraps the C library, against the shim. Its public
//! interface writes messages and cannot read any, so here it begins and we read; `peer/c-library.mjs`
//! has the C library in both roles.
//!
//! Needs CMake, so it stands behind the feature `c-crate`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use aes::Aes256;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::Pkcs7};
use hmac::{Hmac, KeyInit, Mac};
use libsignal_protocol::crypto::{Crypto, Sha256Hmac, Sha512Digest, SignalCipherType};
use libsignal_protocol::keys::{IdentityKeyPair, PublicKey};
use libsignal_protocol::messages::CiphertextType;
use libsignal_protocol::stores::{
    InMemoryIdentityKeyStore, InMemoryPreKeyStore, InMemorySessionStore, InMemorySignedPreKeyStore,
};
use libsignal_protocol::{
    Address, Context, InternalError, PreKeyBundle, Serializable, SessionCipher, StoreContext,
    calculate_signature, generate_identity_key_pair, session_builder, store_context,
};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use tuckseal_interop::Shim;

const OURS: &str = "9d0652a3-dcc3-4d11-975f-74d61598733f";
const THEIRS: &str = "796abedb-ca4e-4f18-8803-1fde5b921f9f";

/// Messages of a session that come after all others of it.
const LATE: usize = 20;

/// What the crate wants of its user, from the crates that the library itself uses.
struct Provider;

impl Crypto for Provider {
    fn fill_random(&self, buffer: &mut [u8]) -> Result<(), InternalError> {
        rand::rng().fill(buffer);
        Ok(())
    }

    fn hmac_sha256(&self, key: &[u8]) -> Result<Box<dyn Sha256Hmac>, InternalError> {
        Ok(Box::new(Running(Hmac::<Sha256>::new_from_slice(key).unwrap())))
    }

    fn sha512_digest(&self) -> Result<Box<dyn Sha512Digest>, InternalError> {
        Ok(Box::new(Running(Sha512::new())))
    }

    fn encrypt(
        &self,
        cipher: SignalCipherType,
        key: &[u8],
        iv: &[u8],
        data: &[u8],
    ) -> Result<Vec<u8>, InternalError> {
        let SignalCipherType::AesCbcPkcs5 = cipher else { return Err(InternalError::Unknown) };
        let encryptor = cbc::Encryptor::<Aes256>::new_from_slices(key, iv).unwrap();
        Ok(encryptor.encrypt_padded_vec::<Pkcs7>(data))
    }

    fn decrypt(
        &self,
        cipher: SignalCipherType,
        key: &[u8],
        iv: &[u8],
        data: &[u8],
    ) -> Result<Vec<u8>, InternalError> {
        let SignalCipherType::AesCbcPkcs5 = cipher else { return Err(InternalError::Unknown) };
        let decryptor = cbc::Decryptor::<Aes256>::new_from_slices(key, iv).unwrap();
        decryptor.decrypt_padded_vec::<Pkcs7>(data).map_err(|_| InternalError::InvalidMessage)
    }
}

struct Running<T>(T);

impl Sha256Hmac for Running<Hmac<Sha256>> {
    fn update(&mut self, data: &[u8]) -> Result<(), InternalError> {
        Mac::update(&mut self.0, data);
        Ok(())
    }

    fn finalize(&mut self) -> Result<Vec<u8>, InternalError> {
        Ok(self.0.clone().finalize().into_bytes().to_vec())
    }
}

impl Sha512Digest for Running<Sha512> {
    fn update(&mut self, data: &[u8]) -> Result<(), InternalError> {
        Digest::update(&mut self.0, data);
        Ok(())
    }

    fn finalize(&mut self) -> Result<Vec<u8>, InternalError> {
        Ok(self.0.finalize_reset().to_vec())
    }
}

/// The side that lives in the crate.
struct Theirs {
    context: Context,
    identity: IdentityKeyPair,
    stores: StoreContext,
    remote: Address,
}

impl Theirs {
    fn new() -> Self {
        let context = Context::new(Provider).unwrap();
        let identity = generate_identity_key_pair(&context).unwrap();
        let stores = store_context(
            &context,
            InMemoryPreKeyStore::default(),
            InMemorySignedPreKeyStore::default(),
            InMemorySessionStore::default(),
            InMemoryIdentityKeyStore::new(2222, &identity),
        );
        let stores = stores.unwrap();
        Self { context, identity, stores, remote: Address::new(OURS, 1) }
    }

    fn key(&self, hex: &Value) -> PublicKey {
        PublicKey::decode_point(&self.context, &bytes(hex)).unwrap()
    }

    fn process(&self, bundle: &Value) -> Result<(), InternalError> {
        let number = |place: &str| bundle.pointer(place).unwrap().as_u64().unwrap() as u32;
        let signed = &bundle["signed_prekey"];
        let mut builder = PreKeyBundle::builder()
            .registration_id(number("/registration_id"))
            .device_id(1)
            .identity_key(&self.key(&bundle["identity_key"]))
            .signed_pre_key(number("/signed_prekey/id"), &self.key(&signed["public"]))
            .signature(&bytes(&signed["signature"]));
        if !bundle["prekey"].is_null() {
            builder = builder.pre_key(number("/prekey/id"), &self.key(&bundle["prekey"]["public"]));
        }
        let bundle = builder.build().unwrap();
        session_builder(&self.context, &self.stores, &self.remote).process_pre_key_bundle(&bundle)
    }

    fn encrypt(&self, plaintext: &[u8]) -> Vec<u8> {
        let cipher = SessionCipher::new(&self.context, &self.stores, &self.remote).unwrap();
        let message = cipher.encrypt(plaintext).unwrap();
        assert_eq!(message.get_type().unwrap(), CiphertextType::PreKey);
        message.serialize().unwrap().as_slice().to_vec()
    }
}

/// Our side, behind the shim.
struct Ours(Shim);

impl Ours {
    fn new() -> Self {
        let mut ours = Self(Shim::default());
        let party =
            json!({"party": "us", "service_id": OURS, "device_id": 1, "registration_id": 1});
        ours.ask("party.new", party).unwrap();
        ours
    }

    fn ask(&mut self, op: &str, mut request: Value) -> Result<Value, String> {
        request["id"] = json!(0);
        request["op"] = json!(op);
        let line = request.to_string();
        let answer: Value = serde_json::from_str(&self.0.answer(line.as_bytes())).unwrap();
        match answer.get("ok") {
            Some(ok) => Ok(ok.clone()),
            None => Err(answer["err"]["kind"].as_str().unwrap().to_owned()),
        }
    }

    fn bundle(&mut self, one_time: impl Into<Value>) -> Value {
        self.ask("party.bundle", json!({"party": "us", "one_time": one_time.into(), "kem": "none"}))
            .unwrap()
    }

    fn read(&mut self, body: &[u8]) -> Result<Value, String> {
        let remote = json!({"service_id": THEIRS, "device_id": 2});
        let request = json!({"party": "us", "remote": remote, "type": "prekey",
                             "body": hex::encode(body), "allow_x3dh": true});
        self.ask("session.decrypt", request).map(|read| read["plaintext"].clone())
    }

    fn archived(&mut self) -> Value {
        let remote = json!({"service_id": THEIRS, "device_id": 2});
        let info = self.ask("session.info", json!({"party": "us", "remote": remote})).unwrap();
        assert_eq!(info["version"], 3);
        info["previous_states"].clone()
    }

    /// The state goes into a shim that knows nothing.
    fn restart(self) -> Self {
        let Self(mut shim) = self;
        let dump = shim.answer(br#"{"id": 0, "op": "party.dump", "party": "us"}"#);
        let state = serde_json::from_str::<Value>(&dump).unwrap()["ok"]["state"].clone();
        let mut fresh = Self(Shim::default());
        fresh.ask("party.load", json!({"party": "us", "state": state})).unwrap();
        fresh
    }
}

fn bytes(text: &Value) -> Vec<u8> {
    hex::decode(text.as_str().unwrap()).unwrap()
}

/// Two sessions of 120 messages each, of which one in ten is lost and one in eight comes twice; all
/// of one session arrive in any order, and the last twenty of the first after the second has begun.
#[test]
fn messages_of_the_crate_are_read_through_loss_disorder_restart_and_a_second_session() {
    let mut rng = StdRng::seed_from_u64(3);
    let (theirs, mut ours) = (Theirs::new(), Ours::new());
    let (mut sent, mut read, mut repeated) = (0, 0, 0);
    let mut late: Vec<(Vec<u8>, String)> = Vec::new();
    for (session, one_time) in [true, false].into_iter().enumerate() {
        theirs.process(&ours.bundle(one_time)).unwrap();
        let mut flying = Vec::new();
        for n in 0..120 {
            let plaintext = vec![session as u8; n * 7];
            let message = (theirs.encrypt(&plaintext), hex::encode(&plaintext));
            sent += 1;
            if !rng.random_ratio(1, 10) {
                flying.push(message);
            }
        }
        flying.shuffle(&mut rng);
        let next_late = flying.split_off(flying.len() - LATE);
        let half = flying.len() / 2;
        for (n, (body, plaintext)) in flying.into_iter().chain(late).enumerate() {
            if n == half {
                ours = ours.restart();
            }
            let mut broken = body.clone();
            let mac = broken.len() - 10;
            broken[mac] ^= 1;
            assert_eq!(ours.read(&broken), Err("invalid_message".into()));
            assert_eq!(ours.read(&body), Ok(json!(plaintext)));
            read += 1;
            if rng.random_ratio(1, 8) {
                assert_eq!(ours.read(&body), Err("duplicate_message".into()));
                repeated += 1;
            }
        }
        assert_eq!(ours.archived(), session);
        late = next_late;
    }
    for (body, plaintext) in late {
        assert_eq!(ours.read(&body), Ok(json!(plaintext)));
        read += 1;
    }
    let (lost, late) = (sent - read, 2 * LATE);
    eprintln!(
        "| crate libsignal-protocol 0.1.0 | the peer | X3DH | ok | \
         {sent} sent, {read} read, {lost} lost, {late} late, {repeated} repeated |"
    );
    assert!(lost > 0 && repeated > 0);
}

#[test]
fn crate_refuses_a_bundle_whose_signature_was_changed() {
    let (theirs, mut ours) = (Theirs::new(), Ours::new());
    let good = ours.bundle(true);
    let mut bad = good.clone();
    bad["signed_prekey"]["signature"] = json!("01".repeat(64));
    assert!(theirs.process(&bad).is_err());
    theirs.process(&good).unwrap();
}

#[test]
fn signatures_of_each_are_verified_by_the_other() {
    let (theirs, mut ours) = (Theirs::new(), Ours::new());
    let public = theirs.identity.public();
    let public_hex = hex::encode(public.serialize().unwrap().as_slice());
    let private_hex = hex::encode(theirs.identity.private().serialize().unwrap().as_slice());
    for length in [0, 1, 64, 1000] {
        let message = vec![7; length];
        let sign = json!({"private": private_hex, "message": hex::encode(&message)});
        let made = bytes(&ours.ask("xeddsa.sign", sign).unwrap()["signature"]);
        public.verify_signature(&message, &made).unwrap();
        let signed = calculate_signature(&theirs.context, &theirs.identity.private(), &message);
        let verify = json!({"public": public_hex, "message": hex::encode(&message),
                            "signature": hex::encode(signed.unwrap().as_slice())});
        assert_eq!(ours.ask("xeddsa.verify", verify).unwrap()["valid"], true);
    }
}
