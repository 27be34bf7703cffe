//! A relay with a certificate of its operator's own authority, which the profile names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use stage::{Person, Relay, event, registration};
use tempfile::TempDir;
use tuckseal_client::{Ca, CaError, Client, Event, RegisterError, Registration, ServerError};

/// An authority that nobody else knows.
struct Authority {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    fn ca(&self) -> Ca {
        Ca::from_pem(self.certificate.pem().as_bytes()).unwrap()
    }

    /// A relay for `localhost`.
    async fn relay(&self, files: &TempDir) -> Relay {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        let write = |name: &str, pem: String| {
            let path = files.path().join(name);
            std::fs::write(&path, pem).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let certificate = write("certificate.pem", certificate.pem());
        Relay::start_with_tls(certificate, write("key.pem", key.serialize_pem())).await
    }
}

fn named(relay: &Relay, name: &str, ca: Option<Ca>) -> Registration {
    Registration { ca, ..registration(&relay.url, name) }
}

async fn refused(folder: &Path, registration: Registration) {
    let error = Client::register(folder, registration).await.unwrap_err();
    let refused =
        matches!(error, RegisterError::Server(ServerError::Unreachable { .. } | ServerError::Tls));
    assert!(refused, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_is_trusted_by_the_authority_that_the_profile_names_and_keeps() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let relay = authority.relay(&files).await;
    let mut people = Vec::new();
    for name in ["alice", "bob"] {
        let folder = tempfile::tempdir().unwrap();
        // What did not come to be may be begun anew with the right authority.
        refused(folder.path(), named(&relay, name, None)).await;
        refused(folder.path(), named(&relay, name, Some(Authority::new().ca()))).await;
        let registration = named(&relay, name, Some(authority.ca()));
        drop(Client::register(folder.path(), registration).await.unwrap());
        people.push(Person::open(folder).await);
    }
    let [alice, bob] = [people.remove(0), people.remove(0)];
    let _running = [alice.spawn(), bob.spawn()];
    alice.send(&bob, "under our own authority").await;
    assert_eq!(bob.next().await.text, "under our own authority");
}

#[tokio::test(flavor = "multi_thread")]
async fn authority_of_a_profile_can_be_replaced() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let relay = authority.relay(&files).await;
    let folder = tempfile::tempdir().unwrap();
    let registration = named(&relay, "alice", Some(authority.ca()));
    let mut alice =
        Person::of(Client::register(folder.path(), registration).await.unwrap(), folder);
    for (ca, connects) in [(Authority::new().ca(), false), (authority.ca(), true)] {
        alice.client.set_ca(Some(ca)).await.unwrap();
        alice = alice.reopen().await;
        let mut events = alice.client.events();
        let running = alice.spawn();
        let outcome = event(&mut events, |event| match event {
            Event::Connected => Some(true),
            Event::Disconnected { .. } => Some(false),
            _ => None,
        });
        assert_eq!(outcome.await, connects);
        running.stop().await;
    }
}

#[test]
fn file_without_an_authority_is_refused() {
    let authority = Authority::new();
    let key = authority.key.serialize_pem();
    assert_eq!(Ca::from_pem(b"").unwrap_err(), CaError::Empty);
    assert_eq!(Ca::from_pem(key.as_bytes()).unwrap_err(), CaError::Empty);
    let pem = authority.certificate.pem();
    let damaged = pem.replacen("MII", "AAA", 1);
    assert_eq!(Ca::from_pem(damaged.as_bytes()).unwrap_err(), CaError::Certificate);
    // A key beside the certificate is left where it is.
    assert_eq!(Ca::from_pem((key + &pem).as_bytes()).unwrap(), authority.ca());
}
