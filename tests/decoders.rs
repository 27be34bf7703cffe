//! Every decoder of the crate: what it writes it reads again, and no bytes make it panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use proptest::collection::vec;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::sync::LazyLock;
use tuckseal::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn party(seed: u8) -> LocalParty {
    LocalParty {
        identity: IdentityKeyPair::generate(&mut rng(seed)),
        registration_id: u32::from(seed),
        address: Address::new(ServiceId::aci([seed; 16]), DeviceId::PRIMARY),
    }
}

/// One good encoding of each type, and a session to try changed ones on.
struct Samples {
    alice: LocalParty,
    bob: LocalParty,
    encodings: Vec<Vec<u8>>,
    record: Vec<u8>,
    whisper: Vec<u8>,
    /// Of both versions.
    envelopes: [Vec<u8>; 2],
}

static SAMPLES: LazyLock<Samples> = LazyLock::new(|| {
    let (alice, bob, mut rng) = (party(1), party(2), rng(3));
    let signed = SignedPreKey::generate(SignedPreKeyId(1), &bob.identity, &mut rng, NOW);
    let kem = KemPreKey::generate(KemPreKeyId(2), &bob.identity, &mut rng, NOW);
    let bundle = PreKeyBundle {
        registration_id: 2,
        device_id: DeviceId::PRIMARY,
        identity_key: bob.identity.identity_key(),
        signed_prekey: signed.public(),
        one_time: None,
        kem: Some(kem.public()),
    };
    let (mut with_bob, mut with_alice) = (SessionRecord::new(), SessionRecord::new());
    let (trust, policy) = (Trust::FirstUse, AgreementPolicy::RequireSpqr);
    with_bob.initiate(&alice, &bob.address, &bundle, trust, policy, &mut rng, NOW).unwrap();
    let first = with_bob.encrypt(&alice, &bob.address, b"hi", trust, &mut rng, NOW).unwrap().body;
    let message = PreKeySignalMessage::decode(&first).unwrap();
    let prekeys = PreKeys { signed: Some(&signed), kem: Some(&kem), ..PreKeys::NONE };
    with_alice
        .decrypt_first(&bob, &alice.address, &message, prekeys, trust, policy, &mut rng)
        .unwrap();
    let whisper =
        with_alice.encrypt(&bob, &alice.address, b"hello", trust, &mut rng, NOW).unwrap().body;

    let error = DecryptionErrorMessage::for_first(&message, NOW, 1);
    let root = PrivateKey::generate(&mut rng);
    let content = sealed_content(&alice, &root, &whisper, ContentHint::Resendable, b"group");
    let envelope =
        seal_v1(&content, &alice.identity, &bob.identity.identity_key(), &mut rng).unwrap();
    let identity = bob.identity.identity_key();
    let for_one = seal_v2(&content, &alice.identity, &identity, &mut rng).unwrap();
    let recipients: Vec<_> = (0..3u8)
        .map(|account| SealedRecipient {
            service_id: ServiceId::aci([account; 16]),
            identity,
            devices: (0..=account).map(device).collect(),
        })
        .collect();
    let excluded = [ServiceId::pni([9; 16])];
    let sent = seal_v2_multi(&content, &alice.identity, &recipients, &excluded, &mut rng).unwrap();
    let group = SenderKeyMessage::sign([7; 16], 5, 6, b"body", &root, &mut rng);
    let key = SenderKeyDistributionMessage::new([7; 16], 5, 6, &[9; 32], root.public_key());
    let mut own = SenderKey::generate([7; 16], &mut rng);
    let mut of_alice = SenderKeyRecord::new();
    of_alice.process(&own.distribution_message());
    own.encrypt(b"skipped", &mut rng).unwrap();
    let group_message = own.encrypt(b"read", &mut rng).unwrap();
    of_alice.decrypt(&SenderKeyMessage::decode(&group_message).unwrap()).unwrap();
    let record = with_bob.encode().to_vec();
    let encodings = vec![
        first,
        whisper.clone(),
        record.clone(),
        error.encode(),
        PlaintextContent::new(&error).encode().to_vec(),
        group.encode().to_vec(),
        group_message,
        own.encode().to_vec(),
        of_alice.encode().to_vec(),
        key.encode().to_vec(),
        content.sender.encode().to_vec(),
        content.encode(),
        envelope.clone(),
        for_one.clone(),
        sent,
        kem.public().key.serialize(),
        said().encode(),
        said().encode_padded(),
        Fingerprint::of_accounts(account(&alice), account(&bob)).encode(),
        alice.identity.identity_key().serialize().to_vec(),
    ];
    let envelopes = [envelope, for_one];
    Samples { alice, bob, encodings, record, whisper, envelopes }
});

/// A content with a bit of everything that is nested in one.
fn said() -> content::Content {
    let pointer = content::AttachmentPointer {
        path: "/v1/attachments/1".into(),
        keys: AttachmentKeys::from_bytes(&[5; 64]).unwrap(),
        digest: [6; 32],
        size: 7,
        incremental: Some(IncrementalMacs {
            chunk: ChunkSize::for_len(7),
            values: vec![8; 32].into(),
        }),
        content_type: "image/png".into(),
        file_name: "a.png".into(),
        preview: vec![9; 9].into(),
    };
    let members = vec![ServiceId::aci([1; 16]), ServiceId::pni([2; 16])];
    let change = Some(content::GroupChange::State { name: "us".into(), members });
    let data = content::Data {
        text: "hi".into(),
        attachments: vec![pointer],
        location: Some(content::Location::new(1, -2, 30).unwrap()),
        group: Some(content::GroupContext { id: [3; 16], revision: 4, change }),
    };
    content::Content {
        profile: Some(content::Profile { access_key: [4; 16], name: "Alice".into() }),
        ..content::Content::new(content::Body::Data(data), NOW)
    }
}

fn account(party: &LocalParty) -> (ServiceId, IdentityKey) {
    (party.address.service_id, party.identity.identity_key())
}

fn device(account: u8) -> RecipientDevice {
    RecipientDevice {
        device_id: DeviceId::new(account + 1).unwrap(),
        registration_id: 0x3FFF - u32::from(account),
    }
}

fn sealed_content(
    sender: &LocalParty,
    root: &PrivateKey,
    content: &[u8],
    hint: ContentHint,
    group_id: &[u8],
) -> SealedContent {
    let mut rng = rng(4);
    let server_key = PrivateKey::generate(&mut rng);
    let server = ServerCertificate::issue(1, &server_key.public_key(), root, &mut rng);
    let fields = SenderFields {
        service_id: sender.address.service_id,
        e164: Some("+15550100".into()),
        device_id: sender.address.device_id,
        identity_key: sender.identity.identity_key(),
        expires: NOW,
    };
    SealedContent {
        kind: ContentKind::Whisper,
        sender: SenderCertificate::issue(fields, &server, &server_key, &mut rng),
        content: content.to_vec().into(),
        hint,
        group_id: Some(group_id.to_vec().into()).filter(|_| !group_id.is_empty()),
    }
}

/// Feeds all decoders. What one of them takes and keeps as bytes, it gives back unchanged.
fn decode_all(bytes: &[u8]) {
    if let Ok(message) = SignalMessage::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
    if let Ok(message) = SenderKeyMessage::decode(bytes) {
        assert_eq!(message.encode(), bytes);
        let _ = message.verify_signature(&PublicKey::from_u([9; 32]));
    }
    if let Ok(message) = PlaintextContent::decode(bytes) {
        assert_eq!(message.encode(), bytes);
        let _ = message.decryption_error();
    }
    if let Ok(certificate) = ServerCertificate::decode(bytes) {
        assert_eq!(certificate.encode(), bytes);
    }
    if let Ok(certificate) = SenderCertificate::decode(bytes) {
        assert_eq!(certificate.encode(), bytes);
        let _ = certificate.validate(&[PublicKey::from_u([9; 32])], &[], NOW);
        let _ = certificate.sender();
    }
    // These have more than one encoding: what they write is read as the same.
    if let Ok(message) = DecryptionErrorMessage::decode(bytes) {
        assert_eq!(DecryptionErrorMessage::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = SenderKeyDistributionMessage::decode(bytes) {
        let encoded = message.encode();
        assert_eq!(SenderKeyDistributionMessage::decode(&encoded).unwrap().encode(), encoded);
    }
    if let Ok(content) = SealedContent::decode(bytes) {
        assert_eq!(SealedContent::decode(&content.encode()), Ok(content));
    }
    if let Ok(number) = Fingerprint::decode(bytes) {
        assert_eq!(Fingerprint::decode(&number.encode()), Ok(number));
        let _ = number.compare(bytes).unwrap();
    }
    if let Ok(content) = content::Content::decode(bytes)
        && !matches!(content.body, content::Body::Unsupported(_))
    {
        assert_eq!(content::Content::decode(&content.encode()), Ok(content));
    }
    let _ = content::Content::decode_padded(bytes);
    if let Ok(record) = SessionRecord::decode(bytes) {
        assert_eq!(&*record.encode(), bytes);
    }
    if let Ok(key) = SenderKey::decode(bytes) {
        // But for the clamping of the private key.
        assert_eq!(key.encode().len(), bytes.len());
    }
    if let Ok(record) = SenderKeyRecord::decode(bytes) {
        assert_eq!(&*record.encode(), bytes);
    }
    if let Ok(sent) = SentMessage::decode(bytes) {
        let shared = sent.shared().len();
        assert!(bytes.ends_with(sent.shared()));
        for recipient in sent.recipients() {
            assert_eq!(sent.received(recipient).len(), 49 + shared);
        }
        let _ = sent.received_by_one();
    }
    let _ = SessionRecord::import_libsignal(
        bytes,
        &IdentityKey::new(PublicKey::from_u([9; 32])),
        Trust::FirstUse,
    );
    let _ = (SenderKeyRecord::import_libsignal(bytes), SenderKey::import_libsignal(bytes, [7; 16]));
    let _ = (PreKey::import_libsignal(bytes), SignedPreKey::import_libsignal(bytes));
    let _ = (KemPreKey::import_libsignal(bytes), IdentityKeyPair::import_libsignal(bytes));
    let _ = PreKeySignalMessage::decode(bytes);
    let _ = open(bytes, &SAMPLES.bob.identity);
    let _ = (PublicKey::decode(bytes), PrivateKey::from_bytes(bytes));
    let _ =
        (KemPublicKey::decode(bytes), KemSecretKey::decode(bytes), KemCiphertext::decode(bytes));
    let _ = (ServiceId::from_binary(bytes), ServiceId::from_fixed(bytes));
    let _ = core::str::from_utf8(bytes).map(str::parse::<ServiceId>);
}

/// A change of good bytes: places are taken modulo the length.
#[derive(Clone, Debug)]
enum Change {
    Flip { place: usize, bit: u8 },
    Set { place: usize, byte: u8 },
    Insert { place: usize, bytes: Vec<u8> },
    Cut { len: usize },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), 0u8..8).prop_map(|(place, bit)| Change::Flip { place, bit }),
        (any::<usize>(), any::<u8>()).prop_map(|(place, byte)| Change::Set { place, byte }),
        (any::<usize>(), vec(any::<u8>(), 1..12))
            .prop_map(|(place, bytes)| Change::Insert { place, bytes }),
        any::<usize>().prop_map(|len| Change::Cut { len }),
    ]
}

fn apply(bytes: &mut Vec<u8>, changes: &[Change]) {
    for change in changes {
        let len = bytes.len().max(1);
        match change {
            Change::Flip { place, bit } => {
                if let Some(byte) = bytes.get_mut(place % len) {
                    *byte ^= 1 << bit;
                }
            }
            Change::Set { place, byte: new } => {
                if let Some(byte) = bytes.get_mut(place % len) {
                    *byte = *new;
                }
            }
            Change::Insert { place, bytes: new } => {
                let place = bytes.len().min(place % len);
                bytes.splice(place..place, new.iter().copied());
            }
            Change::Cut { len: to } => bytes.truncate(to % len),
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_an_error_or_a_value(bytes in vec(any::<u8>(), 0..400)) {
        decode_all(&bytes);
    }

    #[test]
    fn changed_encodings_are_an_error_or_a_value(
        which in any::<proptest::sample::Index>(),
        changes in vec(change(), 1..4),
    ) {
        let mut bytes = which.get(&SAMPLES.encodings).clone();
        apply(&mut bytes, &changes);
        decode_all(&bytes);
    }

    #[test]
    fn a_changed_record_that_still_decodes_can_be_used_without_panic(
        changes in vec(change(), 1..3),
    ) {
        let samples = &*SAMPLES;
        let mut bytes = samples.record.clone();
        apply(&mut bytes, &changes);
        if let Ok(mut record) = SessionRecord::decode(&bytes) {
            let (alice, bob) = (&samples.alice, &samples.bob.address);
            let whisper = SignalMessage::decode(&samples.whisper).unwrap();
            let _ = record.decrypt(alice, bob, &whisper, Trust::FirstUse, &mut rng(5));
            let _ = record.encrypt(alice, bob, b"hi", Trust::FirstUse, &mut rng(5), NOW);
            let _ = SessionRecord::decode(&record.encode()).unwrap();
        }
    }

    #[test]
    fn decryption_errors_round_trip(
        key in any::<Option<[u8; 32]>>(),
        timestamp in any::<u64>(),
        device_id in any::<u32>(),
    ) {
        let error = DecryptionErrorMessage {
            ratchet_key: key.map(PublicKey::from_u),
            timestamp: Timestamp::from_millis(timestamp),
            device_id,
        };
        prop_assert_eq!(DecryptionErrorMessage::decode(&error.encode()), Ok(error));
        prop_assert_eq!(PlaintextContent::new(&error).decryption_error(), Ok(error));
    }

    #[test]
    fn service_ids_round_trip(uuid in any::<[u8; 16]>()) {
        for id in [ServiceId::aci(uuid), ServiceId::pni(uuid)] {
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(ServiceId::from_binary(&id.to_binary()), Ok(id));
            prop_assert_eq!(ServiceId::from_fixed(&id.to_fixed()), Ok(id));
        }
    }
}

// Each case costs a dozen scalar multiplications.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_changed_envelope_is_opened_as_something_else(
        which in any::<proptest::sample::Index>(),
        changes in vec(change(), 1..3),
    ) {
        let samples = &*SAMPLES;
        let envelope = which.get(&samples.envelopes);
        let good = open(envelope, &samples.bob.identity).unwrap();
        let mut bytes = envelope.clone();
        apply(&mut bytes, &changes);
        // The first byte's low half and unknown fields of version 1 are under no MAC.
        if let Ok(opened) = open(&bytes, &samples.bob.identity) {
            prop_assert_eq!(opened, good);
        }
    }

    #[test]
    fn contents_round_trip_bare_and_sealed(
        body in vec(any::<u8>(), 0..2000),
        hint in any::<u32>(),
        group_id in vec(any::<u8>(), 0..40),
        kind in prop_oneof![
            Just(ContentKind::PreKey), Just(ContentKind::Whisper),
            Just(ContentKind::SenderKey), Just(ContentKind::Plaintext),
        ],
    ) {
        let (alice, bob) = (&SAMPLES.alice, &SAMPLES.bob);
        let hint = match hint {
            0..0x2000_0000 => ContentHint::Default,
            0x2000_0000..0x4000_0000 => ContentHint::Resendable,
            0x4000_0000..0x6000_0000 => ContentHint::Implicit,
            other => ContentHint::Unknown(other),
        };
        let root = PrivateKey::from_bytes(&[6; 32]).unwrap();
        let content = SealedContent { kind, ..sealed_content(alice, &root, &body, hint, &group_id) };
        prop_assert_eq!(&SealedContent::decode(&content.encode()).unwrap(), &content);
        let recipient = bob.identity.identity_key();
        let sealed = seal_v1(&content, &alice.identity, &recipient, &mut rng(7)).unwrap();
        let opened = open(&sealed, &bob.identity).unwrap();
        prop_assert_eq!(&opened, &content);
        let sender = opened.authenticate(&[root.public_key()], &[], &bob.address, None, NOW);
        prop_assert_eq!(sender, Ok(alice.address));
    }

    #[test]
    fn group_messages_round_trip(
        id in any::<[u8; 16]>(),
        chain in any::<u32>(),
        iteration in any::<u32>(),
        body in vec(any::<u8>(), 0..300),
        chain_key in any::<[u8; 32]>(),
    ) {
        let key = PrivateKey::from_bytes(&[8; 32]).unwrap();
        let message = SenderKeyMessage::sign(id, chain, iteration, &body, &key, &mut rng(8));
        let decoded = SenderKeyMessage::decode(message.encode()).unwrap();
        prop_assert_eq!(decoded.ciphertext(), &body[..]);
        prop_assert_eq!(decoded.verify_signature(&key.public_key()), Ok(()));
        prop_assert_eq!(decoded, message);

        let public = key.public_key();
        let message = SenderKeyDistributionMessage::new(id, chain, iteration, &chain_key, public);
        let decoded = SenderKeyDistributionMessage::decode(&message.encode()).unwrap();
        prop_assert_eq!(decoded.encode(), message.encode());
        prop_assert_eq!(
            (decoded.distribution_id(), decoded.chain_id(), decoded.iteration()),
            (&id, chain, iteration)
        );
        prop_assert_eq!(decoded.signing_key(), &public);
    }
}

#[test]
fn every_prefix_of_a_good_encoding_is_an_error_or_a_value() {
    for encoding in &SAMPLES.encodings {
        for len in 0..encoding.len() {
            decode_all(&encoding[..len]);
        }
    }
}
