//! A conversation as x3dh_v3.json and pqxdh_v4.json tell it: the responder's keys, and messages
//! of libsignal in the order of their delivery.

use super::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tuckseal::{
    Address, AgreementPolicy, BaseKeyUse, DecryptError, Decrypted, DeviceId, KemKeyPair, KemPreKey,
    KemPreKeyId, KemSecretKey, LocalParty, PreKey, PreKeyId, PreKeySignalMessage, PreKeys,
    SessionRecord, SessionVersion, SignalMessage, SignedPreKey, SignedPreKeyId, Timestamp, Trust,
};

struct Responder {
    local: LocalParty,
    signed: SignedPreKey,
    one_time: Option<PreKey>,
    kem: Option<KemPreKey>,
}

pub(super) fn replay(case: &Value, version: SessionVersion, number: usize) {
    let responder = responder(case);
    let sender = address(&case["sender_address"]);
    let mut record = SessionRecord::new();
    let messages = cases(case, "messages");
    for message in messages {
        let decrypted = deliver(&responder, &sender, &mut record, message);
        let decrypted = decrypted.unwrap_or_else(|error| panic!("case {number}: {error}"));
        assert_eq!(decrypted.plaintext, bytes(message, "plaintext"), "case {number}");
        assert_eq!(record.info().unwrap().version, version, "case {number}");
    }
    for message in messages {
        let before = record.encode();
        let again = deliver(&responder, &sender, &mut record, message);
        assert!(matches!(again, Err(DecryptError::Duplicate { .. })), "case {number}: {again:?}");
        assert_eq!(*record.encode(), *before, "case {number}");
    }
}

fn deliver(
    responder: &Responder,
    sender: &Address,
    record: &mut SessionRecord,
    message: &Value,
) -> Result<Decrypted, DecryptError> {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let body = bytes(message, "ciphertext");
    if message["type"] == 2 {
        let message = SignalMessage::decode(&body).unwrap();
        return record.decrypt(&responder.local, sender, &message, Trust::FirstUse, &mut rng);
    }
    let message = PreKeySignalMessage::decode(&body).unwrap();
    let needs = message.needs();
    assert_eq!(needs.signed, responder.signed.id);
    assert_eq!(needs.one_time, responder.one_time.as_ref().map(|prekey| prekey.id));
    assert_eq!(needs.kem, responder.kem.as_ref().map(|prekey| prekey.id));
    let prekeys = if record.has_session_of(&message) {
        PreKeys::NONE
    } else {
        PreKeys {
            signed: Some(&responder.signed),
            one_time: responder.one_time.as_ref(),
            kem: responder.kem.as_ref(),
            base_key: BaseKeyUse::First,
        }
    };
    let policy = match message.version() {
        SessionVersion::V3 => AgreementPolicy::AllowX3dh,
        SessionVersion::V4 => AgreementPolicy::AllowNoSpqr,
    };
    record.decrypt_first(
        &responder.local,
        sender,
        &message,
        prekeys,
        Trust::FirstUse,
        policy,
        &mut rng,
    )
}

fn responder(case: &Value) -> Responder {
    let keys = &case["responder"];
    let local = LocalParty {
        identity: identity(keys, "identity_private"),
        registration_id: 1,
        address: address(&case["recipient_address"]),
    };
    let signed = SignedPreKey {
        id: SignedPreKeyId(number(keys, "signed_prekey_id")),
        pair: private(keys, "signed_prekey_private").into(),
        signature: [0; 64],
        created: Timestamp::default(),
    };
    let one_time = keys["one_time_prekey"].is_object().then(|| {
        let prekey = &keys["one_time_prekey"];
        PreKey { id: PreKeyId(number(prekey, "id")), pair: private(prekey, "private").into() }
    });
    let kem = keys["kyber_prekey"].is_object().then(|| {
        let prekey = &keys["kyber_prekey"];
        let secret = KemSecretKey::decode(&bytes(prekey, "secret")).unwrap();
        let pair = KemKeyPair::from_secret(secret);
        assert_eq!(pair.public().serialize(), bytes(prekey, "public"));
        let id = KemPreKeyId(number(prekey, "id"));
        KemPreKey { id, pair, signature: [0; 64], created: Timestamp::default() }
    });
    Responder { local, signed, one_time, kem }
}

fn address(pair: &Value) -> Address {
    let device = u8::try_from(pair[1].as_u64().unwrap()).unwrap();
    Address::new(pair[0].as_str().unwrap().parse().unwrap(), DeviceId::new(device).unwrap())
}
