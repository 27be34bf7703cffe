//! Certificates, contents and envelopes that are malformed, unusual or at an edge (W§13–15).

use super::*;
use serde_json::json;
use tuckseal::{
    ContentHint, ContentKind, OpenError, SealedContent, SenderCertificate, SentMessage,
    ServerCertificate, SplitError, Timestamp, open,
};

/// The server certificates that senders may name by id (W§14.4).
const KNOWN_SIGNERS: [&str; 3] = [
    "0a25080212210539450d63ebd0752c0fd4038b9d07a916f5e174b756d409b5ca79f4c97400631e124064c5a38b1e927497d3d4786b101a623ab34a7da3954fae126b04dba9d7a3604ed88cdc8550950f0d4a9134ceb7e19b94139151d2c3d6e1c81e9d1128aafca806",
    "0a250803122105bc9d1d290be964810dfa7e94856480a3f7060d004c9762c24c575a1522353a5a1240c11ec3c401eb0107ab38f8600e8720a63169e0e2eb8a3fae24f63099f85ea319c3c1c46d3454706ae2a679d1fee690a488adda98a2290b66c906bb60295ed781",
    "0a2908d786df9a07122105847c0d2c375234f365e660955187a3735a0f7613d1609d3a6a4d8c53aeaa5a221240e0b9ebacdfc3aa2827f7924b697784d1c25e44ca05dd433e1a38dc6382eb2730d419ca9a250b1be9d5a9463e61efd6781777a91b83c97b844d014206e2829785",
];

pub(super) fn replay(file: &Value) {
    let sections = [
        "libsignal_version",
        "recipient_identity_private",
        "certificates",
        "usmc",
        "open",
        "split",
    ];
    expect_sections(file, &sections);
    let known = KNOWN_SIGNERS
        .map(|hex| ServerCertificate::decode(&hex::decode(hex).unwrap()).expect("a table entry"));
    for case in cases(file, "certificates") {
        certificate(case, &known);
    }
    cases(file, "usmc").iter().for_each(content);

    let recipient = identity(file, "recipient_identity_private");
    for case in cases(file, "open") {
        let (name, expect) = (text(case, "name"), &case["expect"]);
        match open(&bytes(case, "input"), &recipient) {
            Ok(content) => assert_eq!(content.encode(), bytes(expect, "usmc"), "{name}"),
            Err(error) => assert_eq!(Some(open_class(&error)), expect["error"].as_str(), "{name}"),
        }
    }
    cases(file, "split").iter().for_each(split);
}

fn split(case: &Value) {
    let verdict = match SentMessage::decode(&bytes(case, "input")) {
        Err(error) => json!({ "error": split_class(&error) }),
        Ok(sent) => {
            let mut recipients = serde_json::Map::new();
            for it in sent.recipients() {
                let devices: Vec<u8> = it.devices().iter().map(|it| it.device_id.get()).collect();
                let regs: Vec<u32> = it.devices().iter().map(|it| it.registration_id).collect();
                let ct = hex::encode(sent.received(it));
                let entry = json!({ "devices": devices, "regs": regs, "ct": ct });
                recipients.insert(it.service_id().to_string(), entry);
            }
            let excluded: Vec<_> = sent.excluded().iter().map(ToString::to_string).collect();
            json!({ "recipients": recipients, "excluded": excluded })
        }
    };
    assert_eq!(verdict, case["expect"], "{}", text(case, "name"));
}

fn certificate(case: &Value, known: &[ServerCertificate]) {
    let name = text(case, "name");
    let decoded = SenderCertificate::decode(&bytes(case, "certificate"));
    let certificate = match decoded {
        Ok(certificate) => certificate,
        Err(error) => {
            return assert_eq!(Some(class(&error)), case["expect"]["error"].as_str(), "{name}");
        }
    };
    let expect = &case["expect"]["ok"];
    assert!(expect.is_object(), "{name}: decoded, expected {}", case["expect"]);
    assert_eq!(certificate.encode(), bytes(case, "certificate"), "{name}");
    assert_eq!(certificate.sender_text(), text(expect, "uuid"), "{name}");
    let aci = certificate.sender().map(|sender| sender.service_id.to_string());
    assert_eq!(aci.as_deref(), expect["aci"].as_str(), "{name}");
    assert_eq!(certificate.e164(), expect["e164"].as_str(), "{name}");
    assert_eq!(Some(certificate.device_id().get().into()), expect["device"].as_u64(), "{name}");
    let roots: Vec<PublicKey> = cases(case, "trust_roots")
        .iter()
        .map(|root| PublicKey::decode(&hex::decode(root.as_str().unwrap()).unwrap()).unwrap())
        .collect();
    let now = Timestamp::from_millis(case["now"].as_u64().unwrap());
    let valid = certificate.validate(&roots, known, now);
    assert_eq!(Some(valid.is_ok()), expect["valid"].as_bool(), "{name}: {valid:?}");
}

fn content(case: &Value) {
    let name = text(case, "name");
    let content = match SealedContent::decode(&bytes(case, "input")) {
        Ok(content) => content,
        Err(error) => {
            return assert_eq!(Some(class(&error)), case["expect"]["error"].as_str(), "{name}");
        }
    };
    let expect = &case["expect"]["ok"];
    assert!(expect.is_object(), "{name}: decoded, expected {}", case["expect"]);
    // The type is given as a code of W§10.
    let kind = match expect["type"].as_u64().unwrap() {
        2 => ContentKind::Whisper,
        3 => ContentKind::PreKey,
        7 => ContentKind::SenderKey,
        8 => ContentKind::Plaintext,
        other => panic!("{name}: type {other}"),
    };
    let hint = match expect["hint"].as_u64().unwrap() {
        0 => ContentHint::Default,
        other => ContentHint::Unknown(u32::try_from(other).unwrap()),
    };
    assert_eq!((content.kind, content.hint), (kind, hint), "{name}");
    assert_eq!(content.content.to_vec(), bytes(expect, "content"), "{name}");
}

/// The class that errors-and-limits gives to an error of opening.
fn open_class(error: &OpenError) -> &'static str {
    match error {
        OpenError::Empty | OpenError::Unauthenticated | OpenError::SenderMismatch => "sealed",
        OpenError::UnknownVersion { .. } => "version",
        OpenError::Decode(error) => class(error),
        OpenError::Key(_) => "key",
        other => panic!("no class for {other:?}"),
    }
}

/// The class that row X15 gives to an error of the split.
fn split_class(error: &SplitError) -> &'static str {
    match error {
        SplitError::Empty | SplitError::Excluded => "sealed",
        SplitError::UnknownVersion { .. } => "version",
        SplitError::Truncated | SplitError::Field { .. } => "parse",
        other => panic!("no class for {other:?}"),
    }
}
