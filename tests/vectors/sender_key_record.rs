//! What libsignal keeps of sender keys after each step (W§12, 17), byte for byte: our stored form
//! holds the same and is written here in theirs.

use super::*;
use rand_chacha::rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;
use tuckseal::{SenderKey, SenderKeyDistributionMessage, SenderKeyMessage, SenderKeyRecord};

pub(super) fn replay(file: &Value) {
    let sections = [
        "libsignal_version",
        "distribution_id",
        "sender_address",
        "distribution_message",
        "distribution_message_after_6",
        "other_distribution_message",
        "messages",
        "plaintexts",
        "sender_records",
        "receiver_steps",
    ];
    expect_sections(file, &sections);
    sender(file);
    receiver(file);
}

/// Gives the bytes it was made of, in order.
struct Script(std::vec::IntoIter<u8>);

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("nothing draws 64 bits")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.iter_mut().for_each(|byte| *byte = self.0.next().expect("more bytes drawn"));
        Ok(())
    }
}

impl TryCryptoRng for Script {}

/// Drawing what libsignal drew, our key writes what libsignal wrote, but for the signatures.
fn sender(file: &Value) {
    let id = text(file, "distribution_id").replace('-', "");
    let id: [u8; 16] = hex::decode(id).unwrap().try_into().unwrap();
    let records = cases(file, "sender_records");
    let created = bytes(&records[0], "record");
    // Fields 1 (chain id), 2 (chain key) and 3 (signing key) of the only state, one after another.
    let first = SenderKeyDistributionMessage::decode(&bytes(file, "distribution_message")).unwrap();
    let private = &created[created.len() - 2 - 32..created.len() - 2];
    let chain_key = &created[12..44];
    let drawn = [&(first.chain_id() << 1).to_le_bytes()[..], chain_key, private].concat();
    let mut key = SenderKey::generate(id, &mut Script(drawn.into_iter()));
    assert_eq!(*key.distribution_message().encode(), bytes(file, "distribution_message"));
    assert_eq!(own_in_their_form(&key), created);

    for (place, theirs) in cases(file, "messages").iter().enumerate() {
        let theirs = hex::decode(theirs.as_str().unwrap()).unwrap();
        let plaintext = hex::decode(file["plaintexts"][place].as_str().unwrap()).unwrap();
        let ours = key.encrypt(&plaintext, &mut Script(vec![place as u8; 64].into_iter())).unwrap();
        assert_eq!(ours[..ours.len() - 64], theirs[..theirs.len() - 64], "{place}");
        let message = SenderKeyMessage::decode(&ours).unwrap();
        assert_eq!(message.verify_signature(first.signing_key()), Ok(()));
        key = SenderKey::decode(&key.encode()).unwrap();
    }
    assert_eq!(*key.distribution_message().encode(), bytes(file, "distribution_message_after_6"));
    assert_eq!(own_in_their_form(&key), bytes(&records[1], "record"));
    let imported = SenderKey::import_libsignal(&bytes(&records[1], "record"), id).unwrap();
    assert_eq!(*imported.encode(), *key.encode());
    let unversioned = without_version(&bytes(&records[1], "record"));
    assert_eq!(*SenderKey::import_libsignal(&unversioned, id).unwrap().encode(), *key.encode());
    let mut other = bytes(&records[1], "record");
    *other.last_mut().unwrap() = 4;
    assert!(SenderKey::import_libsignal(&other, id).is_err());
    let of_a_peer = bytes(&cases(file, "receiver_steps")[0], "record_after");
    assert!(SenderKey::import_libsignal(&of_a_peer, id).is_err());
}

fn receiver(file: &Value) {
    let mut record = SenderKeyRecord::new();
    for step in cases(file, "receiver_steps") {
        let name = text(step, "step");
        match name.split_once("message ").and_then(|(_, rest)| rest.get(..1)?.parse().ok()) {
            Some(place) => {
                let place: usize = place;
                let message = hex::decode(file["messages"][place].as_str().unwrap()).unwrap();
                let plaintext = record.decrypt(&SenderKeyMessage::decode(&message).unwrap());
                let expected = hex::decode(file["plaintexts"][place].as_str().unwrap()).unwrap();
                assert_eq!(plaintext.unwrap(), expected, "{name}");
            }
            None => {
                let other = name.starts_with("new distribution message");
                let field =
                    if other { "other_distribution_message" } else { "distribution_message" };
                let message = SenderKeyDistributionMessage::decode(&bytes(file, field)).unwrap();
                record.process(&message);
            }
        }
        assert_eq!(in_their_form(&record), bytes(step, "record_after"), "{name}");
        let stored = bytes(step, "record_after");
        let imported = SenderKeyRecord::import_libsignal(&stored).unwrap();
        assert_eq!(*imported.encode(), *record.encode(), "{name}");
        assert!(SenderKeyRecord::import_libsignal(&stored[..stored.len() - 1]).is_err());
        let unversioned = without_version(&stored);
        let imported = SenderKeyRecord::import_libsignal(&unversioned).unwrap();
        assert_eq!(*imported.encode(), *record.encode(), "{name}");
        record = SenderKeyRecord::decode(&record.encode()).unwrap();
    }
}

/// As older releases wrote it: no field 5, which is the last of each state and there means 3.
fn without_version(record: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut input = Reader(record);
    while !input.0.is_empty() {
        assert_eq!(input.number(1), 1 << 3 | 2);
        let mut shift = 0;
        let mut len = 0;
        loop {
            let byte = input.number(1) as usize;
            len |= (byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        let state = input.bytes(len).strip_suffix(&[5 << 3, 3]).expect("the version is last");
        out.extend(field(1, state));
    }
    out
}

/// Reads our stored forms (`src/group/codec.rs`).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        head
    }

    fn number(&mut self, len: usize) -> u64 {
        self.bytes(len).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
}

fn varint(tag: u8, mut number: u64) -> Vec<u8> {
    if number == 0 {
        return Vec::new();
    }
    let mut out = vec![tag << 3];
    while number > 0x7F {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = varint(tag, content.len() as u64);
    out[0] |= 2;
    out.extend_from_slice(content);
    out
}

/// A chain key or a stored seed: 1 iteration, 2 the 32 bytes.
fn keyed(tag: u8, iteration: u64, key: &[u8]) -> Vec<u8> {
    field(tag, &[varint(1, iteration), field(2, key)].concat())
}

fn signing(public: &[u8], private: Option<&[u8]>) -> Vec<u8> {
    let public = [&[5], public].concat();
    let private = private.map(|private| field(2, private)).unwrap_or_default();
    field(3, &[field(1, &public), private].concat())
}

fn own_in_their_form(key: &SenderKey) -> Vec<u8> {
    let stored = key.encode();
    let mut input = Reader(&stored);
    assert_eq!(input.number(1), 1);
    assert_eq!(input.bytes(16), key.distribution_id());
    let chain_id = varint(1, input.number(4));
    let chain_key = input.bytes(32);
    let chain = keyed(2, input.number(4), chain_key);
    let (private, public) = (input.bytes(32), input.bytes(32));
    field(1, &[chain_id, chain, signing(public, Some(private)), varint(5, 3)].concat())
}

fn in_their_form(record: &SenderKeyRecord) -> Vec<u8> {
    let stored = record.encode();
    let mut input = Reader(&stored);
    assert_eq!(input.number(1), 1);
    let mut out = Vec::new();
    for _ in 0..input.number(1) {
        let chain_id = varint(1, input.number(4));
        let chain_key = input.bytes(32);
        let chain = keyed(2, input.number(4), chain_key);
        let mut seeds = Vec::new();
        for _ in 0..input.number(2) {
            let iteration = input.number(4);
            seeds.extend(keyed(4, iteration, input.bytes(32)));
        }
        let public = input.bytes(32);
        out.extend(field(
            1,
            &[chain_id, chain, signing(public, None), seeds, varint(5, 3)].concat(),
        ));
    }
    assert!(input.0.is_empty());
    out
}
