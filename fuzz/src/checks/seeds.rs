//! What each target begins with: the byte strings of test-vectors/, and conversations played here.

use super::group::SENDER;
use super::session::MOMENTS;
use super::shim;
use super::story::{KemKind, Offer, Party};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use tuckseal::content::*;
use tuckseal::{
    AttachmentKeys, ChunkSize, DecryptionErrorMessage, DeviceId, IdentityKey, IdentityKeyPair,
    PreKeySignalMessage, PrivateKey, PublicKey, ServiceId, Timestamp,
};

/// Longer strings make a fuzzer slow and show nothing new.
const LONGEST: usize = 4096;

/// The inputs that a target begins with, by its name.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "decode_content" => contents(),
        "decode_link_offer" => link_offers(),
        "decode_padded_envelope" => {
            let mut padded = strings("libsignal", LONGEST);
            padded.iter_mut().for_each(|envelope| tuckseal::pad_envelope(envelope).unwrap());
            padded
        }
        "decode_spqr_message" => strings("spqr", 64),
        "decode_signal_message" => {
            let all = strings("libsignal", LONGEST);
            let first = all.iter().filter_map(|it| PreKeySignalMessage::decode(it).ok());
            let inner: Vec<_> = first.map(|it| it.message().encode().to_vec()).collect();
            [all, inner].concat()
        }
        _ if target.starts_with("decode_") => strings("libsignal", LONGEST),
        "group_recv" => group_messages(),
        "incremental_mac" => incremental_macs(),
        "record_decode" => records(),
        "sender_key_decode" => [&SENDER.keys[..], std::slice::from_ref(&SENDER.record)].concat(),
        "session_message" => messages(),
        "session_two_parties" => courses(),
        "shim_line" => shim::seeds(),
        #[cfg(fuzzing)]
        "spqr_recv" => tuckseal::fuzzing::recv_seeds(),
        #[cfg(fuzzing)]
        "spqr_state" => tuckseal::fuzzing::state_seeds(),
        _ => panic!("no seeds for {target}"),
    }
}

/// Every byte string up to a length in the files of a folder of test-vectors/.
fn strings(folder: &str, longest: usize) -> Vec<Vec<u8>> {
    let mut found = BTreeSet::new();
    for file in files(folder) {
        collect(&file, longest, &mut found);
    }
    found.into_iter().collect()
}

fn files(folder: &str) -> Vec<Value> {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../test-vectors").join(folder);
    let mut paths: Vec<_> = fs::read_dir(vectors).unwrap().map(|it| it.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "json"));
    paths.iter().map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

fn collect(value: &Value, longest: usize, found: &mut BTreeSet<Vec<u8>>) {
    match value {
        Value::String(text) => {
            // Both what the text says and what it is: an identifier is text.
            found.extend(hex::decode(text).ok().filter(|bytes| bytes.len() <= longest));
            if text.len() <= 48 {
                found.insert(text.clone().into_bytes());
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, longest, found)),
        Value::Object(fields) => fields.values().for_each(|value| collect(value, longest, found)),
        _ => {}
    }
}

/// Every kind of body, with and without the fields beside it.
fn contents() -> Vec<Vec<u8>> {
    let (id, sender) = ([3; 16], ServiceId::aci([5; 16]));
    let timestamp = Timestamp::from_millis(1);
    let members = vec![sender, ServiceId::pni([6; 16])];
    let change = Some(GroupChange::State { name: "group".into(), members });
    let data = Data {
        attachments: vec![AttachmentPointer {
            path: "/v1/attachments/1".into(),
            keys: AttachmentKeys::from_bytes(&[7; 64]).unwrap(),
            digest: [8; 32],
            size: 9,
            incremental: None,
            content_type: "image/png".into(),
            file_name: "a.png".into(),
            preview: vec![2; 20].into(),
        }],
        location: Some(Location::new(1, 2, 3).unwrap().with_label("here")),
        group: Some(GroupContext { id, revision: 1, change }),
        ..Data::text("text")
    };
    let identity = IdentityKey::decode(&PublicKey::from_u([9; 32]).serialize()).unwrap();
    let contact = Contact {
        account: sender,
        username: Some("bob".into()),
        identity: Some(identity),
        verified: true,
        access_key: Some([1; 16]),
    };
    let left = GroupContext { id, revision: 2, change: Some(GroupChange::Left) };
    let bodies = [
        Body::Nothing,
        Body::Data(Data { group: Some(left), ..Data::text("bye") }),
        Body::Sync(Sync::Sent(Transcript { to: Some(sender), timestamp, data: data.clone() })),
        Body::Sync(Sync::Read(vec![ReadMark { sender, timestamp }])),
        Body::Sync(Sync::Contacts(vec![contact])),
        Body::Sync(Sync::History(data.attachments[0].clone())),
        Body::Receipt(Receipt { kind: ReceiptKind::Read, timestamps: vec![timestamp; 3] }),
        Body::Typing(Typing::Started { group: Some(id) }),
        Body::Typing(Typing::Stopped { group: None }),
        Body::Data(data),
    ];
    let full = |body| Content {
        sequence: 1,
        stream: 2,
        profile: Some(Profile { access_key: [1; 16], name: "a".into() }),
        sender_key: Some(SENDER.distributions[0].clone().into()),
        decryption_error: Some(DecryptionErrorMessage {
            ratchet_key: None,
            timestamp,
            device_id: 1,
        }),
        retry: Some(Retry { stream: 1, next: 2, have: vec![3], failed: vec![[4; 16]] }),
        ..Content::new(body, timestamp)
    };
    let plain = bodies.iter().map(|body| Content::new(body.clone(), timestamp).encode());
    plain.chain(bodies.iter().map(|body| full(body.clone()).encode_padded())).collect()
}

/// An offer, bare and sealed for the device of the check, and as others would seal something.
fn link_offers() -> Vec<Vec<u8>> {
    let identity: IdentityKeyPair = PrivateKey::from_bytes(&[7; 32]).unwrap().into();
    let offer = LinkOffer {
        server: "https://relay.example".into(),
        trust_root: PublicKey::from_u([9; 32]),
        account: ServiceId::aci([5; 16]),
        name: "alice".into(),
        identity,
        access_key: [1; 16],
        link_token: [2; 32].into(),
        device_id: DeviceId::PRIMARY,
    };
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let device = super::decode::RECIPIENT.identity_key();
    let mut sealed =
        |secret: &[u8]| tuckseal::seal_for_device(secret, device.public_key(), &mut rng).unwrap();
    let offer = offer.encode();
    vec![sealed(&offer), sealed(b""), offer.to_vec()]
}

fn group_messages() -> Vec<Vec<u8>> {
    let of = |kind: u8, bytes: &Vec<u8>| {
        let len = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[kind], &len[..], bytes].concat()
    };
    let each = SENDER.messages.iter().map(|it| of(0, it));
    let each: Vec<_> = each.chain(SENDER.distributions.iter().map(|it| of(1, it))).collect();
    let (first, last) = (each[..8].concat(), each[4..].concat());
    [each, vec![first, last]].concat()
}

fn incremental_macs() -> Vec<Vec<u8>> {
    let data: Vec<u8> = (0..100).collect();
    let of = |(chunk, piece, len): (u8, u8, usize)| {
        let data = &data[..len];
        let size = ChunkSize::new(chunk.into()).unwrap();
        let mut mac = tuckseal::IncrementalMac::new(b"key", size);
        mac.update(data);
        let list = mac.finish();
        [&[chunk, piece, (list.len() / 32) as u8], &list[..], data].concat()
    };
    [(32, 7, 0), (32, 7, 32), (32, 40, 100), (1, 1, 3), (255, 9, 100)].map(of).to_vec()
}

fn records() -> Vec<Vec<u8>> {
    let (mut alice, mut bob) = (Party::new(1), Party::new(2));
    for offer in [Offer::Everything, Offer::NoOneTime] {
        let bundle = bob.bundle(offer, KemKind::LastResort);
        alice.initiate(bob.address(), &bundle).unwrap();
        bob.initiate(alice.address(), &alice.bundle(offer, KemKind::LastResort)).unwrap();
    }
    let parties = MOMENTS.iter().map(|it| &it.bob).chain([&alice, &bob]);
    let stored = parties.flat_map(|party| party.sessions.values());
    stored.map(|record| record.encode().to_vec()).collect()
}

fn messages() -> Vec<Vec<u8>> {
    let of = |(place, sent): (usize, &Vec<u8>)| [&[place as u8], &sent[..]].concat();
    let sent = MOMENTS.iter().map(|moment| moment.sent.iter().map(|(_, body)| body));
    sent.enumerate().flat_map(|(place, sent)| sent.map(move |it| (place, it))).map(of).collect()
}

/// Courses of a conversation, in the form of `session_two_parties`.
fn courses() -> Vec<Vec<u8>> {
    const A: u8 = 0;
    const B: u8 = 0x80;
    const SEND: u8 = 8;
    let turn = [SEND | A, B, 0, SEND | B, A, 0];
    let late = [SEND | A, SEND | A, SEND | A, B, 2, B, 0, 1 | B, 0, 2 | B, 0, 2 | B, 0];
    let corrupt = [SEND | A, 3 | B, 0, 0, 9, 1, 3 | B, 0, 0, 60, 128, B, 0];
    let anew = [5 | A, 5 | B, SEND | A, SEND | B, A, 0, B, 0, 4 | A, 4 | B];
    let back = [6 | A, SEND | A, B, 0, 7 | A, SEND | A, B, 0, 6 | B, SEND | A, B, 0, 7 | B, B, 0];
    let courses = [
        turn.repeat(20),
        [late.repeat(3), turn.to_vec()].concat().repeat(2),
        corrupt.repeat(12),
        [&anew[..], &turn, &late].concat().repeat(3),
        [&back[..], &turn].concat().repeat(4),
    ];
    let begun = (0..10u8).flat_map(|begin| courses.iter().map(move |it| (begin, it)));
    begun.map(|(begin, course)| [&[begin], &course[..]].concat()).collect()
}
