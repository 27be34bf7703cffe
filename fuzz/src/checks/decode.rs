//! Decoders: no bytes stop them; what they take is written as it came, or is read the same again; and
//! nothing in it is longer than the input.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use std::collections::BTreeSet;
use std::sync::LazyLock;
use tuckseal::content::{Body, Content, LinkOffer};
use tuckseal::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The recipient of `open[]` in hostile_sealed.json.
pub(super) static RECIPIENT: LazyLock<IdentityKeyPair> = LazyLock::new(|| {
    let key =
        hex::decode("98631a75809c42291e12341c614b46231c08e824992b48b3a9b815f62d7f6377").unwrap();
    PrivateKey::from_bytes(&key).unwrap().into()
});

pub fn decode_signal_message(data: &[u8]) {
    let Ok(message) = SignalMessage::decode(data) else { return };
    assert_eq!(message.encode(), data);
    let error = DecryptionErrorMessage::for_message(&message, NOW, 1);
    assert_eq!(DecryptionErrorMessage::decode(&error.encode()), Ok(error));
}

pub fn decode_prekey_message(data: &[u8]) {
    let Ok(message) = PreKeySignalMessage::decode(data) else { return };
    let inner = message.message();
    assert!(data.windows(inner.encode().len()).any(|part| part == inner.encode()));
    assert_eq!(SignalMessage::decode(inner.encode()).as_ref(), Ok(inner));
    assert!(message.version() == SessionVersion::V3 || message.needs().kem.is_some());
    assert_eq!(message.needs().base_key, *message.base_key());
}

pub fn decode_sender_key_message(data: &[u8]) {
    let Ok(message) = SenderKeyMessage::decode(data) else { return };
    assert_eq!(message.encode(), data);
    assert!(message.ciphertext().len() < data.len());
    let _ = message.verify_signature(&PublicKey::from_u([9; 32]));
}

pub fn decode_sender_key_distribution(data: &[u8]) {
    let Ok(message) = SenderKeyDistributionMessage::decode(data) else { return };
    let encoded = message.encode();
    let again = SenderKeyDistributionMessage::decode(&encoded).unwrap();
    assert_eq!(again.encode(), encoded);
    assert_eq!(
        (again.distribution_id(), again.chain_id(), again.iteration(), again.signing_key()),
        (message.distribution_id(), message.chain_id(), message.iteration(), message.signing_key())
    );
}

pub fn decode_decryption_error(data: &[u8]) {
    let Ok(error) = DecryptionErrorMessage::decode(data) else { return };
    assert_eq!(DecryptionErrorMessage::decode(&error.encode()), Ok(error));
    assert_eq!(PlaintextContent::new(&error).decryption_error(), Ok(error));
}

pub fn decode_plaintext_content(data: &[u8]) {
    let Ok(content) = PlaintextContent::decode(data) else { return };
    assert_eq!(content.encode(), data);
    let Ok(error) = content.decryption_error() else { return };
    assert_eq!(PlaintextContent::new(&error).decryption_error(), Ok(error));
}

pub fn decode_server_certificate(data: &[u8]) {
    let Ok(certificate) = ServerCertificate::decode(data) else { return };
    assert_eq!(certificate.encode(), data);
    let _ = certificate.validate(&[PublicKey::from_u([9; 32]), *certificate.key()]);
}

pub fn decode_sender_certificate(data: &[u8]) {
    let Ok(certificate) = SenderCertificate::decode(data) else { return };
    assert_eq!(certificate.encode(), data);
    assert!(certificate.sender_text().len() <= data.len().max(36));
    assert!(certificate.e164().is_none_or(|number| number.len() < data.len()));
    if let Some(sender) = certificate.sender() {
        assert_eq!(sender.device_id, certificate.device_id());
        let text = sender.service_id.to_string();
        assert!(text.eq_ignore_ascii_case(certificate.sender_text()));
    }
    let _ = certificate.validate(&[PublicKey::from_u([9; 32])], &[], NOW);
}

pub fn decode_sealed_content(data: &[u8]) {
    let Ok(content) = SealedContent::decode(data) else { return };
    content_is_sound(&content);
    assert!(content.content.len() < data.len());
}

fn content_is_sound(content: &SealedContent) {
    assert_eq!(SealedContent::decode(&content.encode()).as_ref(), Ok(content));
    let own = Address::new(ServiceId::aci([1; 16]), DeviceId::PRIMARY);
    let root = PublicKey::from_u([9; 32]);
    assert!(content.authenticate(&[root], &[], &own, Some("+1"), NOW).is_err());
}

pub fn decode_sealed_v1(data: &[u8]) {
    envelope(data, seal_v1);
}

pub fn decode_sealed_v2(data: &[u8]) {
    envelope(data, seal_v2);
}

type Seal = fn(
    &SealedContent,
    &IdentityKeyPair,
    &IdentityKey,
    &mut ChaCha20Rng,
) -> Result<Vec<u8>, SealError>;

/// As an envelope; and as a content to be put into one, which only its certified sender may do.
fn envelope(data: &[u8], seal: Seal) {
    if let Ok(content) = open(data, &RECIPIENT) {
        content_is_sound(&content);
        assert!(content.content.len() < data.len());
    }
    let Ok(content) = SealedContent::decode(data) else { return };
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let recipient = RECIPIENT.identity_key();
    let sealed = seal(&content, &RECIPIENT, &recipient, &mut rng).unwrap();
    let opened = open(&sealed, &RECIPIENT);
    if content.sender.identity_key() == &recipient {
        assert_eq!(opened, Ok(content));
    } else {
        assert!(opened.is_err(), "opened under a certificate of somebody else");
    }
}

/// An envelope as a relay hands it over. Padded anew it is as it was, but for zeros that the least size does not need.
pub fn decode_padded_envelope(data: &[u8]) {
    let Ok(envelope) = unpad_envelope(data) else { return };
    assert!(ENVELOPE_SIZES.contains(&data.len()) && data.starts_with(envelope));
    let mut again = envelope.to_vec();
    pad_envelope(&mut again).unwrap();
    assert!(data.starts_with(&again));
    assert!(data[again.len()..].iter().all(|byte| *byte == 0));
    assert_eq!(unpad_envelope(&again), Ok(envelope));
}

/// The form of version 2 that a relay splits.
pub fn decode_sent_message(data: &[u8]) {
    let Ok(sent) = SentMessage::decode(data) else {
        assert!(SentMessage::pad(&mut data.to_vec()).is_err());
        return;
    };
    let ids = sent.recipients().iter().map(|it| it.service_id()).chain(sent.excluded().to_vec());
    let ids: Vec<_> = ids.collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "somebody stands there twice");
    let devices = sent.recipients().iter().map(|it| it.devices().len()).sum::<usize>();
    assert!(3 * devices + sent.shared().len() < data.len());
    for recipient in sent.recipients() {
        assert!(!recipient.devices().is_empty());
        let received = sent.received(recipient);
        assert_eq!(received, [&recipient.head()[..], sent.shared()].concat());
        assert_eq!(peek_version(&received), Ok(SealedVersion::V2));
    }
    assert_eq!(sent.received_by_one().is_ok(), sent.recipients().len() == 1);
    let mut padded = data.to_vec();
    if SentMessage::pad(&mut padded).is_ok() {
        let padded = SentMessage::from_bytes(padded.into()).unwrap();
        assert_eq!(padded.recipients(), sent.recipients());
        for recipient in sent.recipients() {
            let received = padded.received(recipient);
            assert_eq!(unpad_envelope(&received).unwrap(), sent.received(recipient));
        }
    }
}

/// What a session decrypted, padded or not. A body that is not known is kept as it came, and not written.
pub fn decode_content(data: &[u8]) {
    let Ok(read) = Content::decode_padded(data) else { return };
    let mut again = Content::decode(&read.encode()).unwrap();
    if let Body::Unsupported(bytes) = &read.body {
        assert!(data.starts_with(bytes));
        assert_eq!(again.body, Body::Nothing);
        again.body = read.body.clone();
    }
    assert_eq!(again, read);
    assert_eq!(Content::decode_padded(&read.encode_padded()), Content::decode(&read.encode()));
}

/// What a new device is shown: sealed by whoever likes to, and the offer inside.
pub fn decode_link_offer(data: &[u8]) {
    let device = KeyPair::from(RECIPIENT.private_key().clone());
    if let Ok(secret) = open_for_device(data, &device) {
        assert_eq!(secret.len() + PROVISIONING_OVERHEAD, data.len());
    }
    let Ok(offer) = LinkOffer::decode(data) else { return };
    let again = LinkOffer::decode(&offer.encode()).unwrap();
    assert_eq!(*again.encode(), *offer.encode());
    assert!(offer.server.len() + offer.name.len() < data.len());
}

/// A safety number that was scanned.
pub fn decode_fingerprint(data: &[u8]) {
    let Ok(scanned) = Fingerprint::decode(data) else { return };
    assert_eq!(Fingerprint::decode(&scanned.encode()), Ok(scanned));
    let digits = scanned.to_string();
    assert!(digits.len() == 60 && digits.bytes().all(|digit| digit.is_ascii_digit()));
    assert!(scanned.compare(data).is_ok());
}

/// Keys of every kind, and the forms of a service id.
pub fn decode_keys_and_ids(data: &[u8]) {
    if let Ok(key) = PublicKey::decode(data) {
        assert_eq!(key.serialize(), data[..PublicKey::SERIALIZED_LEN]);
        let _ = key.is_canonical();
        let _ = key.verify_signature(b"message", &data[PublicKey::SERIALIZED_LEN..]);
    }
    if let Ok(key) = PrivateKey::from_bytes(data) {
        let clamped = key.to_bytes();
        assert_eq!(PrivateKey::from_bytes(&*clamped).unwrap().public_key(), key.public_key());
        assert!(key.public_key().is_canonical());
    }
    if let Ok(key) = KemPublicKey::decode(data) {
        assert_eq!(key.serialize(), data);
    }
    if let Ok(key) = KemSecretKey::decode(data) {
        assert_eq!(&*key.serialize(), data);
        assert_eq!(KemKeyPair::from_secret(key).public().serialize()[1..], data[1537..3105]);
    }
    if let Ok(ciphertext) = KemCiphertext::decode(data) {
        assert_eq!(ciphertext.serialize(), data);
    }
    if let Ok(id) = ServiceId::from_binary(data) {
        assert_eq!(id.to_binary(), data);
    }
    if let Ok(id) = ServiceId::from_fixed(data) {
        assert_eq!(id.to_fixed(), data);
    }
    if let Ok(id) = str::from_utf8(data).unwrap_or_default().parse::<ServiceId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().eq_ignore_ascii_case(str::from_utf8(data).unwrap()));
    }
}
