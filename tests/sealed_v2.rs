//! Sealed sender version 2 as stories, and its rows of errors-and-limits (X), each by name.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use bytes::Bytes;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tuckseal::{
    ContentHint, ContentKind, DecodeError, DeviceId, IdentityKey, IdentityKeyPair, KeyError,
    OpenError, PrivateKey, PublicKey, RecipientDevice, SealError, SealedContent, SealedRecipient,
    SealedVersion, Sealer, SenderCertificate, SenderFields, SentMessage, ServerCertificate,
    ServiceId, SplitError, Timestamp, open, peek_version, seal_v1, seal_v2, seal_v2_multi,
};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn identity(seed: u8) -> IdentityKeyPair {
    IdentityKeyPair::generate(&mut rng(seed))
}

/// What Alice, whose identity is number 0, says.
fn content() -> SealedContent {
    let mut rng = rng(100);
    let key = PrivateKey::generate(&mut rng);
    let server = ServerCertificate::issue(1, &key.public_key(), &key, &mut rng);
    let fields = SenderFields {
        service_id: ServiceId::aci([0; 16]),
        e164: None,
        device_id: DeviceId::PRIMARY,
        identity_key: identity(0).identity_key(),
        expires: Timestamp::from_millis(1),
    };
    SealedContent {
        kind: ContentKind::SenderKey,
        sender: SenderCertificate::issue(fields, &server, &key, &mut rng),
        content: Bytes::from_static(b"a group message"),
        hint: ContentHint::Resendable,
        group_id: Some(Bytes::from_static(b"group")),
    }
}

fn device(id: u8, registration_id: u32) -> RecipientDevice {
    RecipientDevice { device_id: DeviceId::new(id).unwrap(), registration_id }
}

fn recipient(seed: u8) -> SealedRecipient {
    SealedRecipient {
        service_id: ServiceId::aci([seed; 16]),
        identity: identity(seed).identity_key(),
        devices: vec![device(1, seed.into())],
    }
}

fn seal(recipients: &[SealedRecipient], excluded: &[ServiceId]) -> Result<Vec<u8>, SealError> {
    seal_v2_multi(&content(), &identity(0), recipients, excluded, &mut rng(50))
}

#[test]
fn each_recipient_opens_what_is_split_for_them_and_nothing_else() {
    let recipients: Vec<_> = (1..=5).map(recipient).collect();
    let sent = SentMessage::from_bytes(seal(&recipients, &[]).unwrap().into()).unwrap();
    for (place, entry) in sent.recipients().iter().enumerate() {
        assert_eq!(entry.service_id(), recipients[place].service_id);
        let received = sent.received(entry);
        assert_eq!(peek_version(&received), Ok(SealedVersion::V2));
        for seed in 1..=5 {
            let opened = open(&received, &identity(seed));
            if usize::from(seed) == place + 1 {
                assert_eq!(opened.unwrap(), content());
            } else {
                assert_eq!(opened, Err(OpenError::Unauthenticated));
            }
        }
    }
}

#[test]
fn the_form_for_one_is_what_a_sent_message_for_one_splits_into() {
    let key = recipient(1).identity;
    let direct = seal_v2(&content(), &identity(0), &key, &mut rng(50)).unwrap();
    let sent = SentMessage::decode(&seal(&[recipient(1)], &[]).unwrap()).unwrap();
    assert_eq!(sent.received_by_one().unwrap(), direct);
    assert_eq!(open(&direct, &identity(1)).unwrap(), content());
}

#[test]
fn devices_and_excluded_members_come_out_as_they_went_in() {
    let mut both = recipient(1);
    both.devices = vec![device(1, 0), device(127, 0x3FFF), device(2, 5)];
    let pni = SealedRecipient { service_id: ServiceId::pni([2; 16]), ..recipient(2) };
    let excluded = [ServiceId::aci([9; 16]), ServiceId::pni([1; 16])];
    let sent = SentMessage::decode(&seal(&[both.clone(), pni], &excluded).unwrap()).unwrap();
    assert_eq!(sent.recipients()[0].devices(), both.devices);
    assert_eq!(sent.recipients()[1].service_id(), ServiceId::pni([2; 16]));
    assert_eq!(sent.excluded(), excluded);
}

#[test]
fn a_message_for_nobody_is_a_message() {
    let sent = SentMessage::decode(&seal(&[], &[]).unwrap()).unwrap();
    assert!(sent.recipients().is_empty());
    assert_eq!(sent.received_by_one(), Err(SplitError::NotOne { found: 0 }));
}

#[test]
fn the_shared_part_is_not_copied_by_the_parser_and_once_by_the_split() {
    let recipients: Vec<_> = (1..=3).map(recipient).collect();
    let bytes = Bytes::from(seal(&recipients, &[]).unwrap());
    let sent = SentMessage::from_bytes(bytes.clone()).unwrap();
    let shared = sent.shared();
    assert_eq!(shared.as_ptr(), bytes[bytes.len() - shared.len()..].as_ptr());
    for recipient in sent.recipients() {
        let received = sent.received(recipient);
        assert_eq!(received.capacity(), 49 + shared.len(), "made larger while it was written");
        assert_eq!(received, [&recipient.head()[..], shared].concat());
    }
}

#[test]
fn a_recipient_that_comes_again_adds_its_devices_to_its_first_entry() {
    let mut later = recipient(1);
    later.devices = vec![device(2, 22)];
    let sent = seal(&[recipient(1), recipient(2), later], &[]).unwrap();
    let sent = SentMessage::decode(&sent).unwrap();
    assert_eq!(sent.recipients().len(), 2);
    assert_eq!(sent.recipients()[0].devices(), [device(1, 1), device(2, 22)]);
    assert_eq!(open(&sent.received(&sent.recipients()[0]), &identity(1)).unwrap(), content());
}

/// The form that releases before PNI wrote: 0x22, and accounts as 16 bytes.
#[test]
fn the_older_sent_form_is_split_into_the_same() {
    let sent = seal(&[recipient(1)], &[ServiceId::aci([9; 16])]).unwrap();
    let excluded_at = 2 + 17 + 3 + 48;
    let older = [&[0x22, 2], &sent[3..excluded_at], &sent[excluded_at + 1..]].concat();
    let (sent, older) = (SentMessage::decode(&sent).unwrap(), SentMessage::decode(&older).unwrap());
    assert_eq!(sent, older);
}

#[test]
fn x3_shorter_than_81_bytes_is_too_short_and_the_rest_is_not_for_us() {
    let good = seal_v2(&content(), &identity(0), &recipient(1).identity, &mut rng(1)).unwrap();
    for len in 1..good.len() {
        let expected = match len {
            0..=80 => DecodeError::TooShort { needed: 81, found: len }.into(),
            _ => OpenError::Unauthenticated,
        };
        assert_eq!(open(&good[..len], &identity(1)), Err(expected), "{len} bytes");
    }
}

#[test]
fn x6_every_changed_byte_but_the_low_half_of_the_first_is_noticed() {
    let good = seal_v2(&content(), &identity(0), &recipient(1).identity, &mut rng(1)).unwrap();
    for place in 1..good.len() {
        let mut bad = good.clone();
        bad[place] ^= 0x80;
        let refused = open(&bad, &identity(1)).unwrap_err();
        let expected = match place {
            33..49 => OpenError::SenderMismatch,
            _ => OpenError::Unauthenticated,
        };
        assert_eq!(refused, expected, "byte {place}");
    }
}

#[test]
fn x6_sealed_by_another_than_the_certificate_names() {
    let by_mallory =
        seal_v2(&content(), &identity(7), &recipient(1).identity, &mut rng(1)).unwrap();
    assert_eq!(open(&by_mallory, &identity(1)), Err(OpenError::SenderMismatch));
}

/// A recipient of a message for many knows what the others got, but cannot pass it on as sealed for them.
#[test]
fn x6_an_envelope_for_one_recipient_cannot_be_made_one_for_another() {
    let sent = seal(&[recipient(1), recipient(2)], &[]).unwrap();
    let sent = SentMessage::decode(&sent).unwrap();
    let [one, two] = [0, 1].map(|place| sent.received(&sent.recipients()[place]));
    let crossed = [&one[..33], &two[33..]].concat();
    assert_eq!(open(&crossed, &identity(1)), Err(OpenError::SenderMismatch));
}

#[test]
fn x6_an_ephemeral_key_of_low_order_is_refused() {
    let mut bad = seal_v2(&content(), &identity(0), &recipient(1).identity, &mut rng(1)).unwrap();
    bad[49..81].fill(0);
    assert_eq!(open(&bad, &identity(1)), Err(OpenError::Key(KeyError::LowOrder)));
}

#[test]
fn x13_registration_ids_have_14_bits() {
    let mut recipients = [recipient(1), recipient(2)];
    recipients[1].devices.push(device(2, 0x3FFF));
    assert!(seal(&recipients, &[]).is_ok());
    recipients[1].devices.push(device(3, 0x4000));
    let refused = SealError::RegistrationId { place: 1, found: 0x4000 };
    assert_eq!(seal(&recipients, &[]), Err(refused));
}

#[test]
fn x14_a_recipient_needs_a_device_and_a_key_to_agree_with() {
    let nobody = SealedRecipient { devices: Vec::new(), ..recipient(2) };
    assert_eq!(seal(&[recipient(1), nobody], &[]), Err(SealError::NoDevice { place: 1 }));
    let low = IdentityKey::new(PublicKey::from_u([0; 32]));
    let weak = SealedRecipient { identity: low, ..recipient(2) };
    let refused = SealError::OneRecipient { place: 1, source: KeyError::LowOrder };
    assert_eq!(seal(&[recipient(1), weak], &[]), Err(refused));
    let refused = seal_v2(&content(), &identity(0), &low, &mut rng(1));
    assert_eq!(refused, Err(SealError::Recipient(KeyError::LowOrder)));
}

#[test]
fn x15_who_is_excluded_is_neither_recipient_nor_excluded_again() {
    let (one, id) = (recipient(1), ServiceId::aci([1; 16]));
    assert_eq!(seal(core::slice::from_ref(&one), &[id]), Err(SealError::Excluded));
    assert_eq!(seal(&[], &[id, id]), Err(SealError::Excluded));
    // A PNI with the same UUID is somebody else.
    let sent = seal(&[one], &[ServiceId::pni([1; 16])]).unwrap();

    // Written by somebody who did not look: excluded before or after, and as recipient.
    let (entry, shared) = (&sent[2..2 + 68], &sent[2 + 68 + 18..]);
    let excluded = [&id.to_fixed()[..], &[0]].concat();
    for entries in [[entry, &excluded], [&excluded, entry], [&excluded, &excluded]] {
        let sent = [&[0x23, 2], &entries.concat()[..], shared].concat();
        assert_eq!(SentMessage::decode(&sent), Err(SplitError::Excluded));
    }
}

#[test]
fn x15_every_prefix_is_cut_off() {
    let sent = seal(&[recipient(1), recipient(2)], &[ServiceId::aci([9; 16])]).unwrap();
    assert_eq!(SentMessage::decode(&[]), Err(SplitError::Empty));
    let shared_from = 2 + 2 * 68 + 18;
    for len in 1..shared_from + 32 {
        assert_eq!(SentMessage::decode(&sent[..len]), Err(SplitError::Truncated), "{len} bytes");
    }
    assert!(SentMessage::decode(&sent[..shared_from + 32]).is_ok());
}

#[test]
fn x15_a_count_is_written_in_as_few_bytes_as_it_needs() {
    let sent = seal(&[recipient(1)], &[]).unwrap();
    let longer = [&[0x23, 0x81, 0x00], &sent[2..]].concat();
    let refused = SplitError::Field { field: "the count" };
    assert_eq!(SentMessage::decode(&longer), Err(refused));
    // A count that nothing could follow ends with the bytes, not with the memory.
    let huge = [&[0x23][..], &[0xFF; 9], &[1], &sent[2..]].concat();
    assert!(SentMessage::decode(&huge).is_err());
}

#[test]
fn x16_only_the_only_recipient_is_received_by_one() {
    let sent = SentMessage::decode(&seal(&[recipient(1), recipient(2)], &[]).unwrap()).unwrap();
    assert_eq!(sent.received_by_one(), Err(SplitError::NotOne { found: 2 }));
}

/// What is shared is made once, what is a recipient's own is the same in whatever order and on however
/// many threads it is made.
#[test]
fn for_a_hundred_the_result_is_that_of_each_one_alone() {
    let recipients: Vec<_> = (1..=100).map(recipient).collect();
    let sent = SentMessage::from_bytes(seal(&recipients, &[]).unwrap().into()).unwrap();
    for (entry, to) in sent.recipients().iter().zip(&recipients) {
        let alone = seal_v2(&content(), &identity(0), &to.identity, &mut rng(50)).unwrap();
        assert_eq!(sent.received(entry), alone);
    }
}

#[test]
fn of_several_bad_recipients_the_first_is_reported() {
    let low = IdentityKey::new(PublicKey::from_u([0; 32]));
    let mut recipients: Vec<_> = (0..50).map(recipient).collect();
    for place in [7, 20, 45] {
        recipients[place].identity = low;
    }
    let refused = SealError::OneRecipient { place: 7, source: KeyError::LowOrder };
    assert_eq!(seal(&recipients, &[]), Err(refused));
}

#[test]
fn a_sealer_writes_the_same_bytes_the_first_time_and_again() {
    let mut sealer = Sealer::new(identity(0), 4);
    let (content, alice) = (content(), identity(0));
    for round in 0..3 {
        // Six recipients of whom four fit, and each alone.
        let recipients: Vec<_> = (1..=6).map(recipient).collect();
        let many = sealer.seal_v2_multi(&content, &recipients, &[], &mut rng(round)).unwrap();
        let expected = seal_v2_multi(&content, &alice, &recipients, &[], &mut rng(round));
        assert_eq!(many, expected.unwrap());
        for to in &recipients {
            let one = sealer.seal_v2(&content, &to.identity, &mut rng(round)).unwrap();
            let expected = seal_v2(&content, &alice, &to.identity, &mut rng(round)).unwrap();
            assert_eq!(one, expected);
            let one = sealer.seal_v1(&content, &to.identity, &mut rng(round)).unwrap();
            let expected = seal_v1(&content, &alice, &to.identity, &mut rng(round)).unwrap();
            assert_eq!(one, expected);
            assert!(sealer.remembered() <= 4);
        }
    }
    assert_eq!(sealer.remembered(), 4);
}

#[test]
fn a_sealer_opens_what_is_for_it_and_remembers_its_sender() {
    let (content, to) = (content(), recipient(1).identity);
    let first = seal_v1(&content, &identity(0), &to, &mut rng(1)).unwrap();
    let second = seal_v2(&content, &identity(0), &to, &mut rng(2)).unwrap();
    let forged = seal_v2(&content, &identity(7), &to, &mut rng(3)).unwrap();
    let mut sealer = Sealer::new(identity(1), 4);
    for _ in 0..2 {
        assert_eq!(sealer.open(&first).unwrap(), content);
        assert_eq!(sealer.open(&second).unwrap(), content);
        // Known or not, who did not seal it is not believed.
        assert_eq!(sealer.open(&forged), Err(OpenError::SenderMismatch));
        assert_eq!(sealer.remembered(), 1);
    }
    let mut bad = first.clone();
    *bad.last_mut().unwrap() ^= 1;
    assert_eq!(sealer.open(&bad), Err(OpenError::Unauthenticated));
}

#[test]
fn a_sealer_remembers_nobody_whose_envelope_or_key_was_refused() {
    let mut sealer = Sealer::new(identity(1), 4);
    let forged = seal_v2(&content(), &identity(7), &recipient(1).identity, &mut rng(3)).unwrap();
    assert_eq!(sealer.open(&forged), Err(OpenError::SenderMismatch));
    let low = IdentityKey::new(PublicKey::from_u([0; 32]));
    let refused = Err(SealError::Recipient(KeyError::LowOrder));
    assert_eq!(sealer.seal_v2(&content(), &low, &mut rng(1)), refused);
    assert_eq!(sealer.remembered(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_sealed_is_split_and_opened(
        recipients in prop::collection::btree_map(
            any::<[u8; 16]>(),
            (1..=255u8, any::<bool>(), prop::collection::vec((1..=127u8, 0..0x4000u32), 1..5)),
            0..4,
        ),
        excluded in prop::collection::btree_set(any::<[u8; 16]>(), 0..3),
        body in prop::collection::vec(any::<u8>(), 0..500),
        seed in any::<u8>(),
    ) {
        let content = SealedContent { content: body.into(), ..content() };
        let wanted: Vec<_> = recipients.iter().map(|(id, (key, pni, devices))| SealedRecipient {
            service_id: if *pni { ServiceId::pni(*id) } else { ServiceId::aci(*id) },
            identity: identity(*key).identity_key(),
            devices: devices.iter().map(|(id, registration)| device(*id, *registration)).collect(),
        }).collect();
        let excluded: Vec<_> = excluded.iter()
            .filter(|id| !recipients.contains_key(*id)).map(|id| ServiceId::aci(*id)).collect();
        let sealed = seal_v2_multi(&content, &identity(0), &wanted, &excluded, &mut rng(seed));
        let sent = SentMessage::from_bytes(sealed.unwrap().into()).unwrap();
        prop_assert_eq!(sent.excluded(), excluded);
        prop_assert_eq!(sent.recipients().len(), wanted.len());
        for (entry, wanted) in sent.recipients().iter().zip(&wanted) {
            prop_assert_eq!(entry.service_id(), wanted.service_id);
            prop_assert_eq!(entry.devices(), &wanted.devices[..]);
            let key = recipients[wanted.service_id.uuid()].0;
            prop_assert_eq!(&open(&sent.received(entry), &identity(key)).unwrap(), &content);
        }
    }
}
