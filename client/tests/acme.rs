//! A certificate from a real authority (pebble), and a conversation over it. What is trusted is named by
//! `SSL_CERT_FILE`, which is read once in a process: the conversations are held in processes of their own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]
#![cfg(unix)]

mod stage;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use stage::{Person, Relay};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tuckseal_server::{Config, Verdict, check};

fn tls_file(name: &str) -> String {
    format!("{}/../server/tests/server/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The settings of the relay; the test below gives the ports in the environment.
fn set(config: &mut Config) {
    let of = |name: &str| std::env::var(name).unwrap();
    config.data_dir = of("ACME_TEST_FOLDER").into();
    config.listen = ([127, 0, 0, 1], of("ACME_TEST_LISTEN").parse().unwrap()).into();
    config.acme.acme_domains = vec!["localhost".into()];
    config.acme.acme_directory = Some(format!("https://localhost:{}/dir", of("ACME_TEST_PORT")));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a process of its own"]
async fn conversation() {
    let mut config = Config::new("");
    set(&mut config);
    let kept = config.data_dir.join("acme");
    let first = !kept.exists();
    if first {
        assert_eq!(check(&config).await, Verdict::Good);
        assert!(!kept.exists(), "check has made something");
    }
    let port = config.listen.port();
    let relay = Relay::start_set(set).await;
    // Until the first certificate is there no connection succeeds.
    let roots = std::env::var("SSL_CERT_FILE").unwrap();
    let trusted = async {
        while connect(port, &roots).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(stage::TIME, trusted).await.expect("no certificate");
    if first {
        let (alice, bob) =
            (Person::register(&relay, "alice").await, Person::register(&relay, "bob").await);
        let _running = [alice.spawn(), bob.spawn()];
        alice.send(&bob, "over a certificate of the authority").await;
        assert_eq!(bob.next().await.text, "over a certificate of the authority");
    }
    // The certificate is in use before it is kept.
    while std::fs::read_dir(&kept).map_or(0, Iterator::count) < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for file in std::fs::read_dir(&kept).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// The certificate that is shown at the port, as soon as one is good.
async fn shown(port: u16, roots: &str) -> CertificateDer<'static> {
    loop {
        if let Some(socket) = connect(port, roots).await {
            return socket.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a process of its own"]
async fn renewal() {
    let mut config = Config::new("");
    set(&mut config);
    let (port, kept) = (config.listen.port(), config.data_dir.join("acme"));
    let relay = Relay::start_set(set).await;
    let roots = std::env::var("SSL_CERT_FILE").unwrap();
    let first =
        tokio::time::timeout(stage::TIME, shown(port, &roots)).await.expect("no certificate");
    let bob = Person::register(&relay, "bob").await;
    let _running = bob.spawn();
    let renewed = async {
        while shown(port, &roots).await == first {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(stage::TIME, renewed).await.expect("not renewed");
    // Those who were connected stay, those who come now trust the new one.
    let alice = Person::register(&relay, "alice").await;
    let _running = alice.spawn();
    alice.send(&bob, "over the next certificate").await;
    assert_eq!(bob.next().await.text, "over the next certificate");
    // One file of the account, one of the certificate: the old one is not kept.
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 2);
}

/// A TLS connection, if what is there has a certificate for localhost under these roots.
async fn connect(port: u16, roots: &str) -> Option<TlsStream<TcpStream>> {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(roots).unwrap() {
        store.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(store).with_no_client_auth();
    let socket = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.ok()
}

/// An authority that proves names by tls-alpn-01 at this port; killed when this is dropped.
struct Pebble {
    child: Child,
    port: u16,
    management: u16,
}

impl Pebble {
    /// `life`: of its certificates, in seconds.
    fn start(folder: &Path, tls_port: u16, life: u32) -> Self {
        let (port, management) = (free_port(), free_port());
        let settings = format!(
            "{{\"pebble\": {{\"listenAddress\": \"127.0.0.1:{port}\", \
             \"managementListenAddress\": \"127.0.0.1:{management}\", \
             \"certificate\": {:?}, \"privateKey\": {:?}, \"httpPort\": 1, \"tlsPort\": {tls_port}, \
             \"certificateValidityPeriod\": {life}}}}}",
            tls_file("certificate.pem"),
            tls_file("key.pem"),
        );
        std::fs::write(folder.join("pebble.json"), settings).unwrap();
        let mut command = Command::new("pebble");
        command.arg("-config").arg(folder.join("pebble.json")).env("PEBBLE_VA_NOSLEEP", "1");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("pebble cannot be started: apt-get install pebble");
        Self { child, port, management }
    }

    /// The root under which it issues, in PEM.
    async fn root(&self) -> String {
        let mut socket = loop {
            match connect(self.management, &tls_file("certificate.pem")).await {
                Some(socket) => break socket,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        socket.write_all(b"GET /roots/0 HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, root) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{head}");
        root.to_owned()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

fn held(what: &str, folder: &Path, listen: u16, authority: u16) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", what, "--ignored", "--nocapture"]);
    command.env("SSL_CERT_FILE", folder.join("roots.pem"));
    command.env("ACME_TEST_FOLDER", folder.join("data"));
    command.env("ACME_TEST_LISTEN", listen.to_string());
    command.env("ACME_TEST_PORT", authority.to_string());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let more = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{more}");
}

/// The authority, and what is trusted: its root and that of its own address.
async fn authority(folder: &Path, listen: u16, life: u32) -> Pebble {
    let pebble = Pebble::start(folder, listen, life);
    let own = std::fs::read_to_string(tls_file("certificate.pem")).unwrap();
    let root = pebble.root().await;
    std::fs::write(folder.join("roots.pem"), format!("{own}\n{root}\n")).unwrap();
    pebble
}

#[tokio::test]
async fn conversation_is_held_over_a_certificate_by_acme_which_a_restart_finds_again() {
    let (folder, listen) = (tempfile::tempdir().unwrap(), free_port());
    let pebble = authority(folder.path(), listen, 90 * 86_400).await;
    let port = pebble.port;
    held("conversation", folder.path(), listen, port);
    // Nobody is there to ask for another one.
    drop(pebble);
    held("conversation", folder.path(), listen, port);
}

#[tokio::test]
async fn certificate_by_acme_is_renewed_when_two_thirds_of_its_life_are_over() {
    let (folder, listen) = (tempfile::tempdir().unwrap(), free_port());
    let pebble = authority(folder.path(), listen, 15).await;
    held("renewal", folder.path(), listen, pebble.port);
}
