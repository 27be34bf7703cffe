//! The checked-in structs of `src/wire/` are what `proto/` says.
//! `TUCKSEAL_REGENERATE=1 cargo test --test wire` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::{fs, path::Path};

const SCHEMAS: [&str; 9] = [
    "message",
    "group",
    "sealed_sender",
    "fingerprint",
    "content",
    "link",
    "service",
    "spqr",
    "storage",
];

/// Their byte fields share the buffer that was decoded.
const PLAIN: [&str; 6] = ["message", "group", "sealed_sender", "fingerprint", "content", "service"];
/// What holds secrets: it owns its bytes and wipes them.
const SECRET: [&str; 19] = [
    "link.Offer",
    "spqr.Negotiation",
    "spqr.Chain",
    "spqr.Link",
    "spqr.Side",
    "spqr.Core",
    "spqr.Authenticator",
    "storage.SessionRecord",
    "storage.Session",
    "storage.Chain",
    "storage.ChainKey",
    "storage.MessageKey",
    "storage.PreKey",
    "storage.SignedPreKey",
    "storage.IdentityKeyPair",
    "storage.SenderKeyState",
    "storage.SenderChainKey",
    "storage.SigningKey",
    "storage.SenderMessageKey",
];

/// What client and server say to each other with a secret in it: what is printed of it stands in `src/wire/redacted.rs`.
const NOT_PRINTED: [&str; 13] = [
    "PushRegistration",
    "WebPush",
    "SignedRegistration",
    "Registration",
    "Registered",
    "DeviceLink",
    "SignedDevice",
    "DeviceRegistration",
    "RecipientAccess",
    "StreamSubmission",
    "ReportTokens",
    "Report",
    "AttachmentSlot",
];

#[test]
fn checked_in_structs_match_the_schemas() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = tempfile::tempdir().unwrap();
    let files = SCHEMAS.map(|name| root.join(format!("proto/{name}.proto")));
    let schemas = protox::Compiler::new([root.join("proto")])
        .expect("the schema folder is there")
        .include_source_info(true)
        .open_files(files)
        .expect("schemas compile")
        .file_descriptor_set();
    let mut config = prost_build::Config::new();
    config.bytes(PLAIN.map(|name| format!(".tuckseal.{name}")));
    for package in ["link", "spqr", "storage"] {
        config.type_attribute(format!(".tuckseal.{package}"), "#[derive(zeroize::Zeroize)]");
    }
    for name in SECRET {
        let path = format!(".tuckseal.{name}");
        config.type_attribute(path, "#[derive(zeroize::ZeroizeOnDrop)]");
    }
    config.skip_debug(NOT_PRINTED.map(|name| format!(".tuckseal.service.{name}")));
    config.out_dir(made.path()).compile_fds(schemas).expect("structs can be generated");
    for name in SCHEMAS {
        let fresh = fs::read_to_string(made.path().join(format!("tuckseal.{name}.rs"))).unwrap();
        let kept = root.join(format!("src/wire/{name}.rs"));
        if std::env::var_os("TUCKSEAL_REGENERATE").is_some() {
            fs::write(&kept, &fresh).unwrap();
        }
        assert_eq!(
            fresh,
            fs::read_to_string(&kept).unwrap_or_default(),
            "{} differs from its schema: run TUCKSEAL_REGENERATE=1 cargo test --test wire",
            kept.display()
        );
    }
}
