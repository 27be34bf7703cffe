//! Safety numbers, as digits and as scanned (W§16).

use super::*;
use tuckseal::{Comparison, Fingerprint, FingerprintParty, IdentityKey, Iterations};

pub(super) fn replay(file: &Value) {
    expect_sections(file, &["cases"]);
    for case in cases(file, "cases") {
        let (local_id, remote_id) = (bytes(case, "local_id"), bytes(case, "remote_id"));
        let key = |field| IdentityKey::new(public(case, field));
        let local = FingerprintParty { id: &local_id, identity_key: key("local_key") };
        let remote = FingerprintParty { id: &remote_id, identity_key: key("remote_key") };
        let (version, iterations) = (number(case, "version"), number(case, "iterations"));
        let iterations = Iterations::new(iterations).unwrap();

        let ours = Fingerprint::new(version, iterations, local, remote);
        assert_eq!(ours.to_string(), text(case, "displayable"), "{case}");
        assert_eq!(ours.encode(), bytes(case, "scannable"), "{case}");
        assert_eq!(Fingerprint::decode(&ours.encode()), Ok(ours), "{case}");

        let theirs = Fingerprint::new(version, iterations, remote, local);
        assert_eq!(theirs.compare(&bytes(case, "scannable")), Ok(Comparison::Match), "{case}");
        assert_eq!(ours.compare(&bytes(case, "scannable")), Ok(Comparison::Differ), "{case}");
    }
}
