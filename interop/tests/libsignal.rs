//! Runs the conversations with released builds of libsignal, and with the C library before it
//! (`peer/run.mjs`), where Node is there.
//!
//! * `TUCKSEAL_REQUIRE_NODE=1`: it is a failure that one of them cannot run.
//! * `TUCKSEAL_INTEROP_RELEASES=all` or a list: other peers than 0.60.2, 0.103.0 and `c`.
//!
//! docs/interop.md says what they prove and what came out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The peers whose conversations belong to every test run: the C library, a release without the
/// post-quantum ratchet, and one that demands it.
const DEFAULT: &str = "c,0.60.2,0.103.0";
/// The C library, and all releases pinned in package.json, oldest first.
const ALL: &str = "c,0.22.0,0.60.2,0.72.1,0.76.0,0.90.0,0.103.0";

#[test]
fn conversations_with_libsignal_go_as_expected() {
    let releases = match std::env::var("TUCKSEAL_INTEROP_RELEASES") {
        Ok(list) if list == "all" => ALL.to_owned(),
        Ok(list) if !list.is_empty() => list,
        _ => DEFAULT.to_owned(),
    };
    let required = std::env::var("TUCKSEAL_REQUIRE_NODE").is_ok_and(|it| it == "1");
    if let Err(reason) = ready(&releases) {
        assert!(!required, "the conversations with libsignal cannot run: {reason}");
        announce(&format!("SKIPPED interop with libsignal: {reason}"));
        return;
    }
    let run = Command::new("node")
        .args(["run.mjs", "--shim", env!("CARGO_BIN_EXE_shim"), "--releases", &releases])
        .current_dir(peer())
        .output()
        .expect("node was there a moment ago");
    let table = String::from_utf8_lossy(&run.stdout);
    announce(&table);
    let problems = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "a conversation deviated:\n{table}\n{problems}");
    for peer in releases.split(',') {
        let name = if peer == "c" { "libsignal-protocol-c" } else { &format!("libsignal {peer}") };
        let ran = table.contains(&format!("| {name}"));
        let skipped = !required && table.contains(&format!("SKIPPED interop with {name}"));
        assert!(ran || skipped, "{name} did not run:\n{table}");
    }
}

fn peer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peer")
}

/// Installs the pinned releases if they are not there. The reason, if that cannot be done.
fn ready(releases: &str) -> Result<(), String> {
    let wanted = |release: &str| {
        let package = if release == "c" { "koffi" } else { &format!("libsignal-{release}") };
        peer().join("node_modules").join(package).is_dir()
    };
    if !answers("node") {
        return Err("node is not installed".into());
    }
    if releases.split(',').all(wanted) {
        return Ok(());
    }
    if !answers("npm") {
        return Err("npm is not installed, and interop/peer/node_modules lacks the library".into());
    }
    let mut install = Command::new("npm");
    install.arg("ci").current_dir(peer());
    if releases == DEFAULT {
        install.arg("--omit=dev");
    }
    let install = install.output().map_err(|error| format!("npm ci: {error}"))?;
    if install.status.success() && releases.split(',').all(wanted) {
        return Ok(());
    }
    let last = String::from_utf8_lossy(&install.stderr);
    Err(format!(
        "npm ci in interop/peer failed ({})",
        last.lines().next().unwrap_or("no reason given")
    ))
}

fn answers(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Past the test harness's capture, so that a skip cannot be overlooked.
fn announce(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "\n{text}");
}
