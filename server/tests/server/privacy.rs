//! What the files, the database, the bus, the log and the counters hold after sealed messages: no secret, no sender.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

use crate::stores::{BusServer, Database};
use crate::world::Party;

pub(crate) fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

/// A server process that says all it can say.
pub(crate) struct Node {
    child: Child,
    pub(crate) address: SocketAddr,
    log: JoinHandle<Vec<u8>>,
}

impl Node {
    pub(crate) async fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuckseal-server"));
        command.args(["--listen", "127.0.0.1:0", "--log", "trace", "--data-dir"]).arg(folder);
        for (name, value) in settings {
            command.args([name, value]);
        }
        command.kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut bytes = Vec::new();
            log.read_to_end(&mut bytes).await.unwrap();
            bytes
        });
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
        Self { child, address, log }
    }

    pub(crate) async fn end(mut self) -> Vec<u8> {
        self.child.kill().await.unwrap();
        self.log.await.unwrap()
    }
}

/// Everything that names one of them, as it could be written in a line of text.
fn written_forms(party: &Party) -> [Vec<u8>; 6] {
    [
        party.account_text().into_bytes(),
        hex::encode(party.account).into_bytes(),
        party.bearer().trim_start_matches("Bearer ").as_bytes().to_vec(),
        URL_SAFE_NO_PAD.encode(party.access_key).into_bytes(),
        party.name.clone().into_bytes(),
        b"sealed 1".to_vec(),
    ]
}

pub(crate) fn says_nothing_of(text: &[u8], parties: [&Party; 2], what: &str) {
    for form in parties.into_iter().flat_map(written_forms) {
        assert!(!holds(text, &form), "{what} holds {}", String::from_utf8_lossy(&form));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_and_log_hold_no_token_no_access_key_and_no_sender() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), &[]).await;
    let address = node.address;
    let (alice, bob) =
        (Party::register(address, "alice").await, Party::register(address, "bob").await);
    // The sender is known to the server by her token here, and still must not be stored with the envelope.
    let mut submissions = Vec::new();
    for n in 0..20 {
        let submission = bob.submission(format!("sealed {n}").as_bytes());
        let path = format!("/v1/messages/{}", bob.account_text());
        let request = match n % 2 {
            0 => alice.own(reqwest::Method::PUT, &path),
            _ => {
                alice.request(reqwest::Method::PUT, &path).header("access-key", bob.access_header())
            }
        };
        let response =
            request.body(prost::Message::encode_to_vec(&submission)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        submissions.push(submission.submission_id);
    }
    // Alice has another device, which hands in for Bob, too, and a link that nobody has used.
    let (used, second) = crate::devices::link_with_token(&alice).await;
    let open = crate::devices::open(&alice).await;
    let path = format!("/v1/messages/{}", bob.account_text());
    let by_second = second.own(reqwest::Method::PUT, &path);
    let submission = prost::Message::encode_to_vec(&bob.submission(b"sealed 20"));
    assert_eq!(by_second.body(submission).send().await.unwrap().status(), 200);
    let mut stream = bob.stream().await;
    assert_eq!(stream.backlog().await.len(), 21);
    // Bob has found a token in one of them, and shows it.
    let tokens = crate::reports::tokens(&alice).await;
    assert_eq!(crate::reports::report(&bob, &alice, &tokens[0]).await.status(), 204);
    let log = node.end().await;

    let everywhere: Vec<(&str, Vec<u8>)> = [("alice's", &alice), ("bob's", &bob)]
        .into_iter()
        .flat_map(|(whose, party)| {
            [
                (whose, party.token.to_vec()),
                (whose, party.access_key.to_vec()),
                (whose, party.identity.to_bytes().to_vec()),
            ]
        })
        .chain(submissions.iter().map(|id| ("submission", id.to_vec())))
        .chain([
            ("second device's", second.token.to_vec()),
            ("link's", used.to_vec()),
            ("open link's", open.token.to_vec()),
        ])
        .chain(tokens.iter().map(|token| ("report token's", token.to_vec())))
        .collect();
    for (name, bytes) in files(folder.path()) {
        for (whose, secret) in &everywhere {
            assert!(!holds(&bytes, secret), "{name} holds {whose} secret");
        }
    }
    // The log names nobody, in no form.
    assert!(holds(&log, b"/v1/messages/{account}"), "the log is there");
    says_nothing_of(&log, [&alice, &bob], "the log");
    // No table but `account` holds an account id, and no column is there for a sender.
    let db = crate::world::database(folder.path());
    for table in [
        "device",
        "device_link",
        "taken_answer",
        "mailbox",
        "envelope",
        "submission",
        "prekey_once",
        "prekey_fixed",
        "prekey_state",
        "report",
        "report_token",
    ] {
        let mut query = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = query.column_count();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                let value = row.get_ref(column).unwrap();
                let Ok(bytes) = value.as_bytes() else { continue };
                assert!(
                    !holds(bytes, &alice.account) && !holds(bytes, &bob.account),
                    "{table} holds an account id"
                );
            }
        }
    }
}

/// All rows of all tables, each with the name of its table; bytes are in hex.
async fn dump(setting: &str) -> Vec<(String, String)> {
    let (client, connection) = tokio_postgres::connect(setting, NoTls).await.unwrap();
    tokio::spawn(connection);
    let tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'";
    let mut rows = Vec::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        for row in client.query(&format!("SELECT t::text FROM {table} t"), &[]).await.unwrap() {
            rows.push((table.clone(), row.get(0)));
        }
    }
    rows
}

/// All that the bus carries until it falls silent.
async fn listen(bus: &str) -> JoinHandle<Vec<u8>> {
    let client = async_nats::connect(bus).await.unwrap();
    let mut all = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        let mut heard = Vec::new();
        while let Ok(Some(message)) = tokio::time::timeout(QUIET, all.next()).await {
            heard.extend_from_slice(message.subject.as_bytes());
            heard.extend_from_slice(&message.payload);
        }
        heard
    })
}

/// Longer than the bus is silent while something is going on.
const QUIET: std::time::Duration = std::time::Duration::from_secs(3);

fn free_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Alice sends from an address of her own, by a node that is not Bob's.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_bus_postgres_and_counters_hold_no_sender() {
    let (database, nats) = (Database::create().await, BusServer::nats().await);
    let (setting, bus) = (database.setting(), nats.address());
    let counters = [free_port(), free_port()];
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings =
        |counters| [("--database", &*setting), ("--bus", &*bus), ("--metrics-listen", counters)];
    let here = Node::start(folders[0].path(), &settings(&counters[0])).await;
    for name in ["trust-root.public", "server.private", "server.certificate", "relay.secret"] {
        std::fs::copy(folders[0].path().join(name), folders[1].path().join(name)).unwrap();
    }
    let there = Node::start(folders[1].path(), &settings(&counters[1])).await;
    let heard = listen(&bus).await;

    const ALICES: &str = "127.9.8.7";
    let from = ALICES.parse::<IpAddr>().unwrap();
    let alice = Party::register(here.address, "alice-of-the-test").await;
    let alice =
        Party { http: reqwest::Client::builder().local_address(from).build().unwrap(), ..alice };
    let bob = Party::register(there.address, "bob-of-the-test").await;
    let mut stream = bob.stream().await;
    stream.backlog().await;
    let bob_from_here = Party { address: here.address, http: alice.http.clone(), ..bob.clone() };
    let mut submissions = Vec::new();
    for n in 0..10 {
        let submission = bob.submission(format!("sealed {n}").as_bytes());
        // Known by a token or by nothing: neither is kept.
        let response = match n % 2 {
            0 => bob_from_here.receive(&submission).await,
            _ => {
                let body = prost::Message::encode_to_vec(&submission);
                let path = format!("/v1/messages/{}", bob.account_text());
                alice.own(reqwest::Method::PUT, &path).body(body).send().await.unwrap()
            }
        };
        assert_eq!(response.status(), 200);
        submissions.push(submission.submission_id);
        assert_eq!(stream.text().await, format!("sealed {n}"));
    }
    let tokens = crate::reports::tokens(&alice).await;
    let before = dump(&setting).await;
    assert_eq!(crate::reports::report(&bob_from_here, &alice, &tokens[0]).await.status(), 204);
    let mut shown = String::new();
    for address in &counters {
        let url = format!("http://{address}/metrics");
        shown += &crate::world::http().get(url).send().await.unwrap().text().await.unwrap();
    }
    let rows = dump(&setting).await;
    // A report changes nothing but a count for Alice and the number of the token.
    let new: Vec<&str> =
        rows.iter().filter(|row| !before.contains(row)).map(|(table, _)| &**table).collect();
    assert_eq!(new.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{new:?}");
    assert!(new.iter().all(|table| table.starts_with("report")), "{new:?}");
    let heard = heard.await.unwrap();
    let log = [here.end().await, there.end().await].concat();

    assert!(holds(&log, b"/v1/messages/{account}"), "the log is there");
    assert!(shown.contains("tuckseal_envelopes_accepted_total 10"), "the counters are there");
    assert!(holds(&heard, b"tuckseal."), "the bus was listened to");
    assert!(rows.iter().filter(|(table, _)| table.starts_with("envelope")).count() >= 10);
    for (bytes, what) in [(&log[..], "a log"), (shown.as_bytes(), "a counter"), (&heard, "the bus")]
    {
        says_nothing_of(bytes, [&alice, &bob], what);
        assert!(!holds(bytes, ALICES.as_bytes()), "{what} has the sender's address");
    }
    for party in [&alice, &bob] {
        for secret in [&party.account[..], &party.token, &party.access_key] {
            assert!(!holds(&heard, secret), "the bus carries a secret or an account id");
        }
    }
    let ids = [&alice, &bob].map(|party| hex::encode(party.account));
    let texts = ids.clone().into_iter().chain([alice.account_text(), bob.account_text()]);
    let texts: Vec<String> = texts.collect();
    let secrets = [&alice, &bob].into_iter().flat_map(|party| {
        [
            hex::encode(party.token),
            hex::encode(party.access_key),
            hex::encode(party.identity.to_bytes()),
        ]
    });
    let secrets: Vec<String> = secrets
        .chain(submissions.iter().chain(&tokens).map(hex::encode))
        .chain([ALICES.into()])
        .collect();
    for (table, row) in &rows {
        assert!(!secrets.iter().any(|secret| row.contains(secret)), "{table} holds a secret");
        let named = texts.iter().any(|id| row.contains(id));
        assert!(!named || table == "account", "{table} holds an account id");
    }
}
