//! Sender keys: group messages, distributions and stored forms of any bytes.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::sync::LazyLock;
use tuckseal::{SenderKey, SenderKeyDistributionMessage, SenderKeyMessage, SenderKeyRecord};

const TEXT: &[u8] = b"what the sender wrote";

/// A sender's two keys, and what was distributed and written with each: one message was read, the one
/// before it was not.
pub struct Sender {
    pub keys: [Vec<u8>; 2],
    pub record: Vec<u8>,
    pub distributions: Vec<Vec<u8>>,
    pub messages: Vec<Vec<u8>>,
}

pub static SENDER: LazyLock<Sender> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    let mut keys = [(); 2].map(|()| SenderKey::generate([7; 16], &mut rng));
    let mut record = SenderKeyRecord::new();
    let (mut distributions, mut messages) = (Vec::new(), Vec::new());
    for key in &mut keys {
        let distribution = key.distribution_message();
        record.process(&distribution);
        distributions.push(distribution.encode().to_vec());
        let written: Vec<_> = (0..4).map(|_| key.encrypt(TEXT, &mut rng).unwrap()).collect();
        let read = record.decrypt(&SenderKeyMessage::decode(&written[1]).unwrap());
        assert_eq!(read.as_deref(), Ok(TEXT));
        messages.extend(written);
    }
    let keys = keys.map(|key| key.encode().to_vec());
    Sender { keys, record: record.encode().to_vec(), distributions, messages }
});

/// `each: kind 1 (odd: a distribution), length 2, bytes`: a refused message changes nothing, none is
/// read that the sender did not write, and no record outgrows its bound.
pub fn group_recv(mut data: &[u8]) {
    /// A message may skip 25,000.
    const STEPS: usize = 8;
    /// Five chains with 2,000 seeds each.
    const BOUND: usize = 2 + 5 * (4 + 36 + 2 + 32 + 2_000 * 36);
    let mut record = SenderKeyRecord::decode(&SENDER.record).unwrap();
    for _ in 0..STEPS {
        let Some(([kind, high, low], rest)) = data.split_first_chunk() else { return };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let (bytes, rest) = rest.split_at(rest.len().min(len));
        data = rest;
        let before = record.encode();
        if kind % 2 == 1 {
            if let Ok(message) = SenderKeyDistributionMessage::decode(bytes) {
                record.process(&message);
            }
        } else if let Ok(message) = SenderKeyMessage::decode(bytes) {
            match record.decrypt(&message) {
                Ok(plaintext) => assert_eq!(plaintext, TEXT),
                Err(_) => assert_eq!(record.encode(), before, "an error changed the record"),
            }
        }
        let stored = record.encode();
        assert!(stored.len() <= BOUND);
        assert_eq!(SenderKeyRecord::decode(&stored).unwrap().encode(), stored);
    }
}

/// Stored bytes of either form: what is taken is written the same, and can be used without a panic.
pub fn sender_key_decode(data: &[u8]) {
    if let Ok(mut key) = SenderKey::decode(data) {
        assert_eq!(&*key.encode(), data);
        let _ = key.encrypt(TEXT, &mut ChaCha20Rng::from_seed([4; 32]));
        let _ = SenderKey::decode(&key.encode()).unwrap().distribution_message();
    }
    let Ok(mut record) = SenderKeyRecord::decode(data) else { return };
    assert_eq!(&*record.encode(), data);
    for message in &SENDER.messages {
        let _ = record.decrypt(&SenderKeyMessage::decode(message).unwrap());
    }
    for message in &SENDER.distributions {
        record.process(&SenderKeyDistributionMessage::decode(message).unwrap());
    }
    SenderKeyRecord::decode(&record.encode()).unwrap();
}
