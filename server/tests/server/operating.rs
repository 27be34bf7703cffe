//! What an operator uses: TLS, counters, `config`, `check`, `backup`, `rotate`.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tuckseal::service::{SenderCertificateAnswer, ServerInfo};
use tuckseal::{PublicKey, SenderCertificate, Timestamp};

use crate::crash::{program, start};
use crate::stores::{BusServer, Database};
use crate::world::{PATIENCE, Party, World, http, message, one_time_keys, texts};

fn tls_file(name: &str) -> String {
    format!("{}/tests/server/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

async fn tls(address: std::net::SocketAddr) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls_file("certificate.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_streams_go_over_tls_and_plain_ones_do_not() {
    let world = World::set(tempfile::tempdir().unwrap(), |config| {
        config.tls_certificate_file = Some(tls_file("certificate.pem").into());
        config.tls_key_file = Some(tls_file("key.pem").into());
    })
    .await;
    let mut socket = tls(world.address).await;
    socket
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ready\n"), "{answer}");
    let request = format!("ws://localhost:{}/v1/stream", world.address.port());
    let upgraded = tokio_tungstenite::client_async(request, tls(world.address).await).await;
    assert_eq!(upgraded.unwrap().1.status(), 101);
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    plain.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    // Somebody who connects and says nothing does not hold the end.
    let _silent = TcpStream::connect(world.address).await.unwrap();
    world.stop().await;
}

pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> (bool, String, String) {
    let mut command = program(folder);
    let output = command.args(arguments).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_have_a_port_of_their_own_and_name_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = program(folder.path());
    let mut child = command.args(["--metrics-listen", &free.to_string()]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
    let bob = Party::register(address, "bob").await;
    bob.receive_text("one").await;
    bob.receive(&bob.submission(b"two")).await;
    let mut stream = bob.stream().await;
    assert_eq!(stream.backlog().await.len(), 2);
    let text =
        http().get(format!("http://{free}/metrics")).send().await.unwrap().text().await.unwrap();
    for expected in [
        "tuckseal_envelopes_accepted_total 2",
        "tuckseal_envelopes_delivered_total 2",
        "tuckseal_device_streams 1",
        "tuckseal_http_requests_total{route=\"/v1/messages/{account}\",status=\"200\"} 2",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
    }
    assert!(!text.contains("bob") && !text.contains(&bob.account_text()));
    let here = bob.request(reqwest::Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(here.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn config_prints_what_is_in_force_and_no_password() {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["--database", "postgresql://u:hunter2@db:1/x", "--mailbox-messages", "7", "config"];
    let (good, out, _) = run(folder.path(), &arguments).await;
    assert!(good && out.contains("mailbox_messages = 7") && out.contains("postgresql://db:1/x"));
    assert!(!out.contains("hunter2"));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it has made something");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_wrong_with_acme() {
    let folder = tempfile::tempdir().unwrap();
    let directory = ["--acme-directory", "https://localhost:1/dir"];
    for (arguments, said) in [
        (
            &["--acme-domains", "localhost"][..],
            "warn  tls       acme_directory https://localhost:1/dir",
        ),
        (
            &["--acme-domains", "no-such-name.invalid"],
            "warn  tls       no-such-name.invalid has no address",
        ),
        (
            &["--acme-domains", "localhost", "--acme-cache", "/proc/none"],
            "FAIL  tls       /proc/none",
        ),
        (&["--acme-domains", "localhost,*.example.org"], "acme_domains must be names"),
        (&["--acme-domains", "a", "--acme-contact", "me"], "acme_contact must be an address"),
        (&["--acme-domains", "a", "--bus", "nats://b", "--database", "d"], "at the balancer"),
    ] {
        let arguments = [&directory[..], arguments, &["check"]].concat();
        let (good, out, error) = run(folder.path(), &arguments).await;
        // The server tries again until the authority answers.
        assert_eq!(good, said.starts_with("warn"), "{said}");
        assert!(format!("{out}{error}").contains(said), "{said}: {out}{error}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it has made something");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_is_good_and_what_is_not_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (database, server) = (Database::create().await, BusServer::nats().await);
    let (setting, bus) = (database.setting(), server.address());
    let (good, out, error) =
        run(folder.path(), &["--database", &setting, "--bus", &bus, "check"]).await;
    assert!(good, "{out}{error}");
    assert!(out.contains("empty; its tables will be made") && !out.contains("FAIL"), "{out}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it has made something");
    drop((database, server));
    let key = folder.path().join("server.private");
    std::fs::write(&key, "00\n").unwrap();
    let (good, out, _) =
        run(folder.path(), &["--database", &setting, "--bus", &bus, "check"]).await;
    assert!(!good);
    for name in ["keys", "database", "bus"] {
        let line = out.lines().find(|line| line.contains(name)).unwrap();
        assert!(line.starts_with("FAIL"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_a_folder_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("attachments");
    for place in ["/proc/attachments", below.to_str().unwrap()] {
        let (good, out, error) = run(folder.path(), &["--attachments", place, "check"]).await;
        let line = out.lines().find(|line| line.contains(" files ")).unwrap();
        assert!(!good && line.starts_with("FAIL") && line.contains(place), "{out}{error}");
    }
    let to = folder.path().join("not/yet");
    let (good, out, error) =
        run(folder.path(), &["--attachments", to.to_str().unwrap(), "check"]).await;
    assert!(good && !folder.path().join("not").exists(), "{out}{error}");
    let (good, out, _) = run(&below, &["check"]).await;
    assert!(!good && out.lines().next().unwrap().starts_with("FAIL  data"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_redis_does_not_allow_and_no_password() {
    let deaf = ["--user", "deaf", "on", ">hunter2", "resetchannels", "&other.*", "+@all"];
    let (database, redis) = (Database::create().await, BusServer::redis_with(&deaf).await);
    let (setting, folder) = (database.setting(), tempfile::tempdir().unwrap());
    let at = |scheme: &str, user: &str| {
        redis.address().replace("redis://", &format!("{scheme}://{user}"))
    };
    for (bus, expected) in [
        (at("redis", ""), "ok "),
        (at("redis", "deaf:hunter2@"), "&tuckseal.*"),
        (at("redis", "deaf:hunter3@"), "takes this user and password"),
        (at("rediss", "deaf:hunter2@"), "not encrypted"),
    ] {
        let (_, out, error) =
            run(folder.path(), &["--database", &setting, "--bus", &bus, "check"]).await;
        let line = out.lines().find(|line| line.contains("bus ")).unwrap();
        assert!(line.contains(expected), "{line}");
        assert!(!out.contains("hunter") && !error.contains("hunter"), "{out}{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_made_while_the_server_runs_is_whole_and_gives_no_prekey_or_id_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = start(folder.path()).await;
    let bob = Party::register(address, "bob").await;
    bob.upload(&one_time_keys(&bob.identity, 1..=5)).await;
    bob.receive_text("before").await;
    let to = folder.path().join("copy.db");
    let (good, _, error) = run(folder.path(), &["backup", to.to_str().unwrap()]).await;
    assert!(good, "{error}");
    let (again, _, error) = run(folder.path(), &["backup", to.to_str().unwrap()]).await;
    assert!(!again && error.contains("there already"), "{error}");
    // Somebody comes after the copy.
    let carol = Party::register(address, "carol").await;
    carol.receive_text("hers").await;
    let hers = carol.stream().await.envelope().await;
    bob.receive_text("after").await;
    let original = bob.stream().await.backlog().await;
    assert_eq!(texts(&original), ["before", "after"]);
    child.kill().await.unwrap();

    for name in ["tuckseal.db", "tuckseal.db-wal", "tuckseal.db-shm"] {
        let _ = std::fs::remove_file(folder.path().join(name));
    }
    std::fs::rename(&to, folder.path().join("tuckseal.db")).unwrap();
    let (_child, address) = start(folder.path()).await;
    let bob = Party { address, ..bob };
    let mut stream = bob.stream().await;
    let restored = stream.backlog().await;
    assert_eq!((texts(&restored), &restored[0].id), (vec!["before".into()], &original[0].id));
    assert!(bob.bundles(&bob).await.devices[0].one_time.is_none());
    bob.receive_text("other").await;
    let other = stream.envelope().await;
    assert!(other.content == "other" && other.id != original[1].id);
    let carol = Party::register(address, "carol").await;
    carol.receive_text("hers").await;
    assert_ne!(carol.stream().await.envelope().await.id, hers.id);
}

/// What has to be done with a restored copy of PostgreSQL, as operators read it.
fn restoring() -> &'static str {
    let manual = include_str!("../../../docs/operating.md");
    let begin = manual.find("DELETE FROM prekey_once;").unwrap();
    manual[begin..].split('`').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_copy_of_postgres_gives_no_prekey_or_id_again() {
    let database = Database::create().await;
    let on = |folder, database: &Database| {
        let setting = database.setting().parse().unwrap();
        World::set(folder, |config| config.database = Some(setting))
    };
    let world = on(tempfile::tempdir().unwrap(), &database).await;
    let bob = world.party("bob").await;
    bob.upload(&one_time_keys(&bob.identity, 1..=5)).await;
    bob.receive_text("before").await;
    let folder = world.stop().await;
    let copy = database.copy().await;
    // Somebody comes after the copy.
    let world = on(folder, &database).await;
    let carol = world.party("carol").await;
    carol.receive_text("hers").await;
    let hers = carol.stream().await.envelope().await;
    let bob = Party { address: world.address, ..bob };
    bob.receive_text("after").await;
    let original = bob.stream().await.backlog().await;
    let folder = world.stop().await;

    let (client, connection) =
        tokio_postgres::connect(&copy.setting(), tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(restoring()).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let world = on(folder, &copy).await;
    let bob = Party { address: world.address, ..bob };
    let mut stream = bob.stream().await;
    assert_eq!(texts(&stream.backlog().await), ["before"]);
    assert!(bob.bundles(&bob).await.devices[0].one_time.is_none());
    bob.receive_text("other").await;
    let other = stream.envelope().await;
    assert!(other.content == "other" && other.id != original[1].id);
    let carol = world.party("carol").await;
    carol.receive_text("hers").await;
    assert_ne!(carol.stream().await.envelope().await.id, hers.id);
    world.stop().await;
}

/// The certificate that the server gives out, which has to be good under this root.
async fn sender_certificate(of: &Party, root: &PublicKey) -> SenderCertificate {
    let answer = of.own(Method::GET, "/v1/certificates/sender").send().await.unwrap();
    let answer: SenderCertificateAnswer = message(answer).await;
    let certificate = SenderCertificate::decode(&answer.certificate).unwrap();
    let before = Timestamp::from_millis(answer.expires_ms - 1);
    certificate.validate(&[*root], &[], before).unwrap();
    certificate
}

#[tokio::test(flavor = "multi_thread")]
async fn server_key_is_replaced_under_the_same_trust_root_and_nobody_notices() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, address) = start(folder.path()).await;
    let bob = Party::register(address, "bob").await;
    let info = bob.request(Method::GET, "/v1/server").send().await.unwrap();
    let root = PublicKey::decode(&message::<ServerInfo>(info).await.trust_root).unwrap();
    let before = sender_certificate(&bob, &root).await;
    child.kill().await.unwrap();

    // The root is elsewhere, offline.
    let offline = tempfile::tempdir().unwrap();
    let kept = offline.path().join("root");
    std::fs::rename(folder.path().join("trust-root.private"), &kept).unwrap();
    let to = offline.path().join("new");
    let (kept, to_text) = (kept.to_str().unwrap(), to.to_str().unwrap());
    let (good, out, error) = run(folder.path(), &["rotate", kept, to_text]).await;
    assert!(good && out.contains("certificate "), "{out}{error}");
    let (again, _, error) = run(folder.path(), &["rotate", kept, to_text]).await;
    assert!(!again && error.contains("server.private"), "{error}");
    for name in ["server.private", "server.certificate"] {
        std::fs::rename(to.join(name), folder.path().join(name)).unwrap();
    }
    let (_child, address) = start(folder.path()).await;
    let bob = Party { address, ..bob };
    let after = sender_certificate(&bob, &root).await;
    assert_ne!(before.encode(), after.encode());
    // What was signed before is good until it expires.
    let then = Timestamp::from_millis(before.expires().as_millis() - 1);
    before.validate(&[root], &[], then).unwrap();
    let (bad, _, error) = run(folder.path(), &["rotate", "/nowhere", to_text]).await;
    assert!(!bad && error.contains("/nowhere"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bench_measures_a_small_load() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal-server"));
    command.args(["bench", "--messages", "200", "--senders", "4", "--mailboxes", "4"]);
    command.args(["--takes", "50", "--idle", "5", "--pace", "200"]);
    let output = command.stderr(Stdio::inherit()).output().await.unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    for part in ["store", "drain", "online", "paced", "take", "idle"] {
        assert!(out.lines().any(|line| line.starts_with(part)), "{part} is not in\n{out}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal-server"));
    let output = command.args(["bench", "--size", "1000"]).output().await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("[1024, 4096, 16384"), "{error}");
}
