//! What a relay sees of the length of a message: one of a few sizes, and behind the zeros of the padding nothing
//! that was written.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "story/mod.rs"]
mod story;

use bytes::Bytes;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use story::{KemKind, NOW, Offer, Party};
use tuckseal::content::{Body, Content, Data, Profile, Receipt, ReceiptKind, Typing};
use tuckseal::*;

/// A certificate as our server issues them, at its longest.
fn certificate(of: &Party) -> SenderCertificate {
    let mut rng = ChaCha20Rng::from_seed([99; 32]);
    let key = PrivateKey::generate(&mut rng);
    let server = ServerCertificate::issue(u32::MAX, &key.public_key(), &key, &mut rng);
    let fields = SenderFields {
        service_id: of.address().service_id,
        e164: None,
        device_id: DeviceId::new(127).unwrap(),
        identity_key: of.local.identity.identity_key(),
        expires: Timestamp::from_millis(u64::MAX),
    };
    SenderCertificate::issue(fields, &server, &key, &mut rng)
}

fn sealed_content(sender: &Party, kind: ContentKind, content: Vec<u8>) -> SealedContent {
    let group_id = Some(Bytes::from_static(&[7; 16])).filter(|_| kind == ContentKind::SenderKey);
    let sender = certificate(sender);
    SealedContent { kind, sender, content: content.into(), hint: ContentHint::Resendable, group_id }
}

fn text(len: usize) -> Content {
    let profile = Profile { access_key: [1; 16], name: "alice".into() };
    let data = Body::Data(Data::text("x".repeat(len)));
    Content { profile: Some(profile), sequence: 1, stream: 9, ..Content::new(data, NOW) }
}

/// Bytes of the sealed envelope around a message of the session with `to`, without padding.
fn sealed_len(from: &mut Party, to: &mut Party, content: &Content) -> usize {
    let sent = from.encrypt(to.address(), &content.encode_padded()).unwrap();
    let kind = match sent.kind {
        MessageKind::PreKey => ContentKind::PreKey,
        _ => ContentKind::Whisper,
    };
    let recipient = to.local.identity.identity_key();
    let content = sealed_content(from, kind, sent.body.clone());
    let sealed = seal_v1(&content, &from.local.identity, &recipient, &mut from.rng).unwrap();
    to.decrypt(from.address(), sent.kind, &sent.body).unwrap();
    sealed.len()
}

fn pair() -> (Party, Party) {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    let bundle = bob.bundle(Offer::Everything, KemKind::OneTime);
    alice.initiate(bob.address(), &bundle).unwrap();
    (alice, bob)
}

/// Longest texts, about, whose contents are padded to one length each.
const TEXTS: [usize; 5] = [400, 3_400, 15_700, 64_800, 90_000];
/// More than counters add to a message in the life of a session.
const GROWTH: usize = 45;

#[test]
fn whatever_the_ratchets_add_a_content_stays_in_the_size_that_it_is_padded_for() {
    let (mut alice, mut bob) = pair();
    sealed_len(&mut alice, &mut bob, &text(1));
    sealed_len(&mut bob, &mut alice, &text(1));
    let mut around = Vec::new();
    for _ in 0..120 {
        around.push(sealed_len(&mut alice, &mut bob, &text(1)));
        around.push(sealed_len(&mut bob, &mut alice, &text(1)));
    }
    let most = around.iter().max().unwrap() - text(1).encode_padded().len();
    assert!(around.iter().max() > around.iter().min(), "the post-quantum ratchet never rested");
    for (len, size) in TEXTS.into_iter().zip(ENVELOPE_SIZES) {
        let padded = text(len).encode_padded().len();
        assert!(padded + most + GROWTH < size, "{padded} and {most} more in {size}");
        let sealed = sealed_len(&mut alice, &mut bob, &text(len));
        assert!(sealed < size && sealed > padded, "{len}");
    }
}

#[test]
fn first_messages_take_the_next_size_and_the_longest_has_room_for_one() {
    let sizes = TEXTS.map(|len| {
        let (mut alice, mut bob) = pair();
        let mut envelope = vec![0; sealed_len(&mut alice, &mut bob, &text(len)) + GROWTH];
        pad_envelope(&mut envelope).unwrap();
        envelope.len()
    });
    assert_eq!(sizes, [4096, 16_384, 65_536, 98_304, 98_304]);
}

#[test]
fn short_text_receipt_and_typing_are_sealed_to_the_same_length() {
    let (mut alice, mut bob) = pair();
    sealed_len(&mut alice, &mut bob, &text(1));
    sealed_len(&mut bob, &mut alice, &text(1));
    let receipt = Receipt { kind: ReceiptKind::Read, timestamps: vec![NOW; 3] };
    let all = [
        text(1),
        text(300),
        Content { body: Body::Receipt(receipt), ..Content::default() },
        Content { body: Body::Typing(Typing::Started { group: None }), ..Content::default() },
        Content::default(),
    ];
    // One chain, one message after the other: both ratchets add the same to each.
    let lengths = all.map(|content| sealed_len(&mut alice, &mut bob, &content));
    assert_eq!(lengths, [lengths[0]; 5]);
}

/// A message to a group, sealed for so many, each with two devices.
fn sent(recipients: u8, content: &[u8]) -> Vec<u8> {
    let mut alice = Party::new(1);
    let mut key = SenderKey::generate([7; 16], &mut alice.rng);
    let message = key.encrypt(content, &mut alice.rng).unwrap();
    let content = sealed_content(&alice, ContentKind::SenderKey, message);
    let device = |id| RecipientDevice { device_id: DeviceId::new(id).unwrap(), registration_id: 5 };
    let recipients: Vec<_> = (0..recipients)
        .map(|n| SealedRecipient {
            service_id: ServiceId::aci([n; 16]),
            identity: Party::new(2).local.identity.identity_key(),
            devices: vec![device(1), device(2)],
        })
        .collect();
    let excluded = [ServiceId::aci([200; 16])];
    seal_v2_multi(&content, &alice.local.identity, &recipients, &excluded, &mut alice.rng).unwrap()
}

#[test]
fn upload_for_many_is_padded_so_that_everybody_receives_a_padded_envelope() {
    for (len, size) in TEXTS.into_iter().zip(ENVELOPE_SIZES) {
        let bare = sent(3, &text(len).encode_padded());
        let mut padded = bare.clone();
        SentMessage::pad(&mut padded).unwrap();
        let (bare, padded) =
            (SentMessage::decode(&bare).unwrap(), SentMessage::decode(&padded).unwrap());
        assert_eq!(padded.received_len(), size);
        assert_eq!((padded.recipients(), padded.excluded()), (bare.recipients(), bare.excluded()));
        for recipient in padded.recipients() {
            let received = padded.received(recipient);
            assert_eq!(received.len(), size);
            let envelope = unpad_envelope(&received).unwrap();
            assert_eq!(envelope, bare.received(recipient));
            assert!(open(envelope, &Party::new(2).local.identity).is_ok());
        }
    }
}

#[test]
fn what_is_no_sent_message_or_too_long_is_not_padded() {
    let good = sent(2, b"");
    for bad in [&[][..], &[0x23], &[0x11; 100], &good[..150]] {
        let mut bytes = bad.to_vec();
        SentMessage::pad(&mut bytes).unwrap_err();
        assert_eq!(bytes, bad);
    }
    let mut long = sent(2, &[1; 98_304]);
    let before = long.clone();
    assert!(matches!(SentMessage::pad(&mut long), Err(SplitError::TooLong(_))));
    assert_eq!(long, before);
}

proptest! {
    #[test]
    fn padding_for_many_adds_a_mark_and_zeros_and_changes_nothing(
        recipients in 0..4_u8, content in proptest::collection::vec(any::<u8>(), 0..5000),
    ) {
        let bare = sent(recipients, &content);
        let mut padded = bare.clone();
        SentMessage::pad(&mut padded).unwrap();
        prop_assert_eq!(&padded[..bare.len()], &bare[..]);
        prop_assert_eq!(padded[bare.len()], 0x80);
        prop_assert!(padded[bare.len() + 1..].iter().all(|byte| *byte == 0));
        let size = SentMessage::decode(&padded).unwrap().received_len();
        prop_assert!(ENVELOPE_SIZES.contains(&size));
    }
}
