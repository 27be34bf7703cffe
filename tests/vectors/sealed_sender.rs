//! Certificates and envelopes that libsignal made (W§13–15).

use super::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::json;
use tuckseal::{
    Address, CertificateError, DeviceId, OpenError, SealedContent, SenderCertificate, SenderFields,
    SentMessage, ServerCertificate, ServiceId, Timestamp, open, seal_v1,
};

/// When the certificates inside the envelopes end, milliseconds since 1970.
const INNER_EXPIRY: u64 = 4_102_444_800_000;

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["certificates", "v1", "v2"]);
    certificates(&file["certificates"]);
    let root = public(&file["certificates"], "trust_root_public");
    for case in cases(file, "v1") {
        envelope(case, &root);
    }
    for case in cases(file, "v2") {
        for_many(case, &root);
    }
}

/// The received forms are what the sent form splits into; each recipient opens its own alone. That
/// sealing gives the sent form to the byte is seen in src/sealed/v2.rs.
fn for_many(case: &Value, root: &PublicKey) {
    let version = text(case, "libsignal_version");
    let sent = SentMessage::decode(&bytes(case, "sent_message")).expect(version);
    let excluded: Vec<Value> =
        sent.excluded().iter().map(|id| id.to_string().into()).collect();
    assert_eq!(Value::from(excluded), case["excluded"], "{version}");
    let parties = cases(case, "recipients");
    assert_eq!(sent.recipients().len(), parties.len(), "{version}");
    for (place, (recipient, party)) in sent.recipients().iter().zip(parties).enumerate() {
        assert_eq!(recipient.service_id().to_string(), text(party, "service_id"), "{version}");
        let devices = recipient.devices().iter();
        let devices: Vec<Value> =
            devices.map(|it| json!([it.device_id.get(), it.registration_id])).collect();
        assert_eq!(Value::from(devices), party["devices"], "{version}");
        let received = sent.received(recipient);
        assert_eq!(hex::encode(&received), case["received"][place], "{version}");

        let content = open(&received, &identity(party, "identity_private")).expect(version);
        assert_eq!(content.encode(), bytes(case, "usmc"), "{version}");
        let (us, now) = (Address::new(ServiceId::aci([1; 16]), DeviceId::PRIMARY), INNER_EXPIRY);
        let now = Timestamp::from_millis(now);
        content.authenticate(&[*root], &[], &us, None, now).expect(version);
        for (other, party) in parties.iter().enumerate() {
            let opened = open(&received, &identity(party, "identity_private"));
            assert_eq!(opened.is_ok(), other == place, "{version}");
        }
    }
}

fn certificates(case: &Value) {
    let root = public(case, "trust_root_public");
    let server = ServerCertificate::decode(&bytes(case, "server_certificate")).unwrap();
    assert_eq!(server.validate(&[root]), Ok(()));
    assert_eq!(server.key(), &private(case, "server_key_private").public_key());

    let sender = SenderCertificate::decode(&bytes(case, "sender_certificate")).unwrap();
    assert_eq!(sender.identity_key().public_key(), &public(case, "sender_identity_public"));
    let at = |field: &str| Timestamp::from_millis(case[field].as_u64().unwrap());
    assert_eq!(sender.validate(&[root], &[], at("valid_at")), Ok(()));
    assert_eq!(
        sender.validate(&[root], &[], at("expired_at")),
        Err(CertificateError::Expired { expires: at("valid_at") })
    );
    assert_eq!(
        sender.validate(&[*server.key()], &[], at("valid_at")),
        Err(CertificateError::UntrustedSigner)
    );

    // Issued here from the same contents, all but the random signature is the same to the byte.
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let own = ServerCertificate::issue(
        server.id(),
        server.key(),
        &private(case, "trust_root_private"),
        &mut rng,
    );
    assert_eq!(but_signature(own.encode()), but_signature(server.encode()));
    let fields = SenderFields {
        service_id: sender.sender().unwrap().service_id,
        e164: sender.e164().map(str::to_owned),
        device_id: sender.device_id(),
        identity_key: *sender.identity_key(),
        expires: sender.expires(),
    };
    let server_key = private(case, "server_key_private");
    let own = SenderCertificate::issue(fields, &server, &server_key, &mut rng);
    assert_eq!(but_signature(own.encode()), but_signature(sender.encode()));
    assert_eq!(own.validate(&[root], &[], at("valid_at")), Ok(()));
}

fn but_signature(certificate: &[u8]) -> &[u8] {
    &certificate[..certificate.len() - 64]
}

fn envelope(case: &Value, root: &PublicKey) {
    let version = text(case, "libsignal_version");
    let recipient = identity(case, "recipient_identity_private");
    let sender = identity(case, "sender_identity_private");
    let content = open(&bytes(case, "sealed"), &recipient).expect(version);
    assert_eq!(content.encode(), bytes(case, "usmc"), "{version}");
    assert_eq!(content, SealedContent::decode(&bytes(case, "usmc")).unwrap(), "{version}");

    let us = Address::new(ServiceId::aci([1; 16]), DeviceId::PRIMARY);
    let now = Timestamp::from_millis(INNER_EXPIRY);
    let from = content.authenticate(&[*root], &[], &us, None, now).expect(version);
    assert_eq!(from.service_id.to_string(), content.sender.sender_text(), "{version}");
    assert!(content.authenticate(&[], &[], &us, None, now).is_err(), "{version}");
    assert!(
        matches!(
            content.authenticate(&[*root], &[], &from, None, now),
            Err(OpenError::SelfSend(_))
        ),
        "{version}"
    );

    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let sealed = seal_v1(&content, &sender, &recipient.identity_key(), &mut rng).unwrap();
    assert_eq!(sealed.len(), bytes(case, "sealed").len(), "{version}");
    assert_eq!(open(&sealed, &recipient).as_ref(), Ok(&content), "{version}");
    assert_eq!(open(&sealed, &sender), Err(OpenError::Unauthenticated), "{version}");
}
