//! Contents of every kind: what is written is read again, and nothing in them reaches a log.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use tuckseal::content::*;
use tuckseal::*;

fn service_id() -> impl Strategy<Value = ServiceId> {
    (any::<[u8; 16]>(), any::<bool>())
        .prop_map(|(uuid, pni)| if pni { ServiceId::pni(uuid) } else { ServiceId::aci(uuid) })
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_millis)
}

fn pointer() -> impl Strategy<Value = AttachmentPointer> {
    let macs = (1u32.., 0..40usize).prop_map(|(chunk, values)| IncrementalMacs {
        chunk: ChunkSize::new(chunk).unwrap(),
        values: vec![7; values * 32].into(),
    });
    let hints = (".{0,40}", ".{0,40}", vec(any::<u8>(), 0..60));
    (".{0,40}", vec(any::<u8>(), 64), any::<[u8; 32]>(), any::<u64>(), of(macs), hints).prop_map(
        |(path, keys, digest, size, incremental, (content_type, file_name, preview))| {
            let keys = AttachmentKeys::from_bytes(&keys).unwrap();
            let preview = preview.into();
            AttachmentPointer {
                path,
                keys,
                digest,
                size,
                incremental,
                content_type,
                file_name,
                preview,
            }
        },
    )
}

fn location() -> impl Strategy<Value = Location> {
    (-900_000_000..=900_000_000i32, -1_800_000_000..=1_800_000_000i32, 1u32.., ".{0,40}").prop_map(
        |(north, east, precision, label)| {
            Location::new(north, east, precision).unwrap().with_label(label)
        },
    )
}

fn contact() -> impl Strategy<Value = Contact> {
    let identity = any::<[u8; 32]>().prop_map(|seed| {
        let private = PrivateKey::from_bytes(&seed).unwrap();
        IdentityKeyPair::from(private).identity_key()
    });
    let known = (of(".{1,40}"), of(identity), any::<bool>(), of(any::<[u8; 16]>()));
    (service_id(), known).prop_map(|(account, (username, identity, verified, access_key))| {
        Contact { account, username, identity, verified, access_key }
    })
}

fn group() -> impl Strategy<Value = GroupContext> {
    let change = prop_oneof![
        Just(GroupChange::Left),
        (".{0,40}", vec(service_id(), 0..9))
            .prop_map(|(name, members)| GroupChange::State { name, members }),
    ];
    (any::<[u8; 16]>(), any::<u32>(), of(change)).prop_map(|(id, revision, change)| GroupContext {
        id,
        revision,
        change,
    })
}

fn data() -> impl Strategy<Value = Data> {
    (".{0,200}", vec(pointer(), 0..3), of(location()), of(group())).prop_map(
        |(text, attachments, location, group)| Data { text, attachments, location, group },
    )
}

fn body() -> impl Strategy<Value = Body> {
    let kind = prop_oneof![Just(ReceiptKind::Delivered), Just(ReceiptKind::Read)];
    let mark =
        (service_id(), timestamp()).prop_map(|(sender, timestamp)| ReadMark { sender, timestamp });
    prop_oneof![
        Just(Body::Nothing),
        data().prop_map(Body::Data),
        (kind, vec(timestamp(), 0..9))
            .prop_map(|(kind, timestamps)| Body::Receipt(Receipt { kind, timestamps })),
        of(any::<[u8; 16]>()).prop_map(|group| Body::Typing(Typing::Started { group })),
        of(any::<[u8; 16]>()).prop_map(|group| Body::Typing(Typing::Stopped { group })),
        vec(mark, 0..9).prop_map(|marks| Body::Sync(Sync::Read(marks))),
        vec(contact(), 0..9).prop_map(|contacts| Body::Sync(Sync::Contacts(contacts))),
        pointer().prop_map(|archive| Body::Sync(Sync::History(archive))),
        (of(service_id()), timestamp(), data()).prop_map(|(to, timestamp, data)| Body::Sync(
            Sync::Sent(Transcript { to, timestamp, data })
        )),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let profile =
        (any::<[u8; 16]>(), ".{0,40}").prop_map(|(access_key, name)| Profile { access_key, name });
    let error = (any::<Option<[u8; 32]>>(), timestamp(), any::<u32>()).prop_map(
        |(key, timestamp, device_id)| DecryptionErrorMessage {
            ratchet_key: key.map(PublicKey::from_u),
            timestamp,
            device_id,
        },
    );
    let retry = (any::<u64>(), any::<u64>(), vec(any::<u64>(), 0..9), vec(any::<[u8; 16]>(), 0..9))
        .prop_map(|(stream, next, have, failed)| Retry { stream, next, have, failed });
    let sender_key = vec(any::<u8>(), 0..99).prop_map(Bytes::from);
    let report_token = vec(any::<u8>(), 1..=128).prop_map(Bytes::from);
    let beside = (of(sender_key), of(error), of(retry), of(report_token));
    let numbers = (any::<u64>(), any::<u64>(), timestamp());
    (body(), numbers, of(profile), beside).prop_map(
        |(body, (sequence, stream, timestamp), profile, beside)| {
            let (sender_key, decryption_error, retry, report_token) = beside;
            Content {
                body,
                sequence,
                stream,
                timestamp,
                profile,
                sender_key,
                decryption_error,
                retry,
                report_token,
            }
        },
    )
}

proptest! {
    #[test]
    fn contents_of_every_kind_round_trip_bare_and_padded(content in content()) {
        prop_assert_eq!(&Content::decode(&content.encode()).unwrap(), &content);
        prop_assert_eq!(content.check(), Ok(()));
        let padded = content.encode_padded();
        prop_assert_eq!((padded.len() + 1) % 80, 0);
        prop_assert_eq!(&Content::decode_padded(&padded).unwrap(), &content);
    }
}

fn file(change: impl FnOnce(&mut AttachmentPointer)) -> Body {
    let mut pointer = AttachmentPointer {
        path: String::new(),
        keys: AttachmentKeys::from_bytes(&[7; 64]).unwrap(),
        digest: [0; 32],
        size: 1,
        incremental: None,
        content_type: String::new(),
        file_name: String::new(),
        preview: Bytes::new(),
    };
    change(&mut pointer);
    Body::Data(Data { attachments: vec![pointer], ..Data::default() })
}

fn state(name: usize, members: usize) -> Body {
    let (name, members) = ("x".repeat(name), vec![ServiceId::aci([1; 16]); members]);
    let change = Some(GroupChange::State { name, members });
    let group = Some(GroupContext { id: [1; 16], revision: 1, change });
    Body::Data(Data { group, ..Data::default() })
}

fn labelled(length: usize) -> Data {
    let place = Location::new(1, 1, 1).unwrap().with_label("x".repeat(length));
    Data { location: Some(place), ..Data::default() }
}

/// A body with so many bytes, or so many things, in what the name stands for.
type Case = (&'static str, usize, fn(usize) -> Body);

#[test]
fn what_no_reader_takes_is_known_before_it_is_written() {
    let now = Timestamp::from_millis(1);
    let cases: [Case; 12] = [
        ("path", 1024, |n| file(|it| it.path = "x".repeat(n))),
        ("content_type", 1024, |n| file(|it| it.content_type = "x".repeat(n))),
        ("file_name", 1024, |n| file(|it| it.file_name = "x".repeat(n))),
        ("preview", 32 * 1024, |n| file(|it| it.preview = vec![1; n].into())),
        ("attachments", 32, |n| {
            let Body::Data(one) = file(|_| ()) else { return Body::Nothing };
            let attachments = vec![one.attachments[0].clone(); n];
            Body::Data(Data { attachments, ..Data::default() })
        }),
        ("label", 1024, |n| Body::Data(labelled(n))),
        ("label", 1024, |n| {
            let sent = Transcript { to: None, timestamp: Timestamp::default(), data: labelled(n) };
            Body::Sync(Sync::Sent(sent))
        }),
        ("name", 1024, |n| state(n, 1)),
        ("members", 1000, |n| state(1, n)),
        ("timestamps", 1000, |n| {
            let timestamps = vec![Timestamp::default(); n];
            Body::Receipt(Receipt { kind: ReceiptKind::Read, timestamps })
        }),
        ("marks", 1000, |n| {
            let sender = ServiceId::aci([1; 16]);
            Body::Sync(Sync::Read(vec![ReadMark { sender, timestamp: Timestamp::default() }; n]))
        }),
        ("contacts", 100, |n| {
            let account = ServiceId::aci([1; 16]);
            let (username, identity, access_key) = (None, None, None);
            let contact = Contact { account, username, identity, verified: false, access_key };
            Body::Sync(Sync::Contacts(vec![contact; n]))
        }),
    ];
    for (field, limit, body) in cases {
        assert_eq!(Content::new(body(limit), now).check(), Ok(()), "{field}");
        let beyond = Content::new(body(limit + 1), now);
        assert_eq!(beyond.check(), Err(DecodeError::Field { field }));
        assert_eq!(
            Content::decode_padded(&beyond.encode_padded()),
            Err(DecodeError::Field { field })
        );
    }
    let token = |length| {
        let report_token = Some(vec![1; length].into());
        Content { report_token, ..Content::new(Body::Nothing, now) }.check()
    };
    assert_eq!([token(1), token(MAX_REPORT_TOKEN_BYTES)], [Ok(()); 2]);
    let refused = Err(DecodeError::Field { field: "report_token" });
    assert_eq!([token(0), token(MAX_REPORT_TOKEN_BYTES + 1)], [refused; 2]);
    let long = Content::new(Body::Data(Data::text("x".repeat(MAX_CONTENT_BYTES))), now);
    assert!(matches!(long.check(), Err(DecodeError::TooLong { .. })));
}

#[test]
fn nothing_that_people_wrote_is_printed_for_a_log() {
    let group = GroupChange::State { name: "secretname".into(), members: Vec::new() };
    let data = Data {
        text: "secrettext".into(),
        attachments: vec![AttachmentPointer {
            path: "/secretpath".into(),
            keys: AttachmentKeys::from_bytes(&[7; 64]).unwrap(),
            digest: [0; 32],
            size: 1,
            incremental: None,
            content_type: String::new(),
            file_name: "secretfile".into(),
            preview: Bytes::new(),
        }],
        location: Some(Location::new(387_223_111, 1, 1).unwrap().with_label("secretlabel")),
        group: Some(GroupContext { id: [1; 16], revision: 1, change: Some(group.clone()) }),
    };
    let content = Content {
        profile: Some(Profile { access_key: [1; 16], name: "secretuser".into() }),
        sender_key: Some(Bytes::from_static(b"secretkey")),
        report_token: Some(Bytes::from_static(b"secrettoken")),
        ..Content::new(Body::Data(data.clone()), Timestamp::default())
    };
    let newer = Body::Unsupported(Bytes::from_static(b"secretbody"));
    let newer = Content { body: newer, ..content.clone() };
    let pointer = &data.attachments[0];
    let printed = format!(
        "{content:?} {newer:?} {:?} {data:?} {pointer:?} {:?} {:?} {group:?} {:?}",
        newer.body, data.location, data.group, pointer.keys
    );
    assert!(!printed.contains("secret") && !printed.contains("3872"), "{printed}");
}
