//! `register --ca` and `ca`, as a person types them, against a relay whose authority nobody else knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tuckseal(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal"));
    command.arg("--profile").arg(folder.join("profile"));
    command
}

/// The end of the command, and what it said.
fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Writes the certificate of an authority and what it issued for a relay at `localhost`.
fn make_authority(folder: &Path) {
    let (key, relay_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = params.signed_by(&relay_key, &authority, &key).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(folder.join("relay.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("relay.key"), relay_key.serialize_pem()).unwrap();
}

fn start(folder: &Path) -> (Relay, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--data-dir"]);
    command.arg(folder.join("data"));
    command.arg("--tls-certificate-file").arg(folder.join("relay.pem"));
    command.arg("--tls-key-file").arg(folder.join("relay.key"));
    let mut relay = Relay(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(relay.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().rsplit_once(':').unwrap().1.to_owned();
    (relay, format!("https://localhost:{port}"))
}

#[test]
fn profile_is_registered_with_an_authority_of_its_own_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    make_authority(folder);
    let (_relay, url) = start(folder);
    let register = || {
        let mut command = tuckseal(folder);
        command.args(["register", "alice", "--server", &url]);
        command
    };
    assert!(!said(&mut register()).0, "a relay of an unknown authority is trusted");
    let (done, text) = said(register().arg("--ca").arg(folder.join("no.pem")));
    assert!(!done && text.contains("cannot read the CA file"), "{text}");
    let (done, text) = said(register().arg("--ca").arg(folder.join("relay.key")));
    assert!(!done && text.contains("there is no certificate in it"), "{text}");
    let (done, text) = said(register().arg("--ca").arg(folder.join("ca.pem")));
    assert!(done && text.contains("registered as alice"), "{text}");

    std::fs::rename(folder.join("ca.pem"), folder.join("moved.pem")).unwrap();
    let asked = || said(tuckseal(folder).args(["send", "nobody", "hello"])).1;
    assert!(asked().contains("nobody is called nobody"), "{}", asked());
    assert!(said(tuckseal(folder).args(["ca", "--system"])).0);
    assert!(!asked().contains("nobody is called nobody"), "{}", asked());
    assert!(said(tuckseal(folder).arg("ca").arg(folder.join("moved.pem"))).0);
    assert!(asked().contains("nobody is called nobody"), "{}", asked());
}
