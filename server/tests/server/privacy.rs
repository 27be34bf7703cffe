//! What the files and the log hold after sealed messages: no secret, no sender.

use std::path::Path;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::world::Party;

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn database_and_log_hold_no_token_no_access_key_and_no_sender() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tuckseal-server"))
        .args(["--listen", "127.0.0.1:0", "--log", "trace", "--data-dir"])
        .arg(folder.path())
        .kill_on_drop(true)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = child.stderr.take().unwrap();
    let log = tokio::spawn(async move {
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes).await.unwrap();
        bytes
    });
    let line =
        BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let address = line.strip_prefix("listening on http://").unwrap().parse().unwrap();
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
    let mut stream = bob.stream().await;
    assert_eq!(stream.backlog().await.len(), 20);
    child.kill().await.unwrap();
    let log = log.await.unwrap();

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
        .collect();
    for (name, bytes) in files(folder.path()) {
        for (whose, secret) in &everywhere {
            assert!(!holds(&bytes, secret), "{name} holds {whose} secret");
        }
    }
    // The log names nobody, in no form.
    assert!(holds(&log, b"/v1/messages/{account}"), "the log is there");
    for party in [&alice, &bob] {
        let bearer = party.bearer();
        let forms = [
            party.account_text().into_bytes(),
            hex::encode(party.account).into_bytes(),
            bearer.trim_start_matches("Bearer ").as_bytes().to_vec(),
            URL_SAFE_NO_PAD.encode(party.access_key).into_bytes(),
            party.name.clone().into_bytes(),
            b"sealed 1".to_vec(),
        ];
        for form in forms {
            assert!(!holds(&log, &form), "the log holds {}", String::from_utf8_lossy(&form));
        }
    }
    // No table but `account` holds an account id, and no column is there for a sender.
    let db = crate::world::database(folder.path());
    for table in [
        "device",
        "mailbox",
        "envelope",
        "submission",
        "prekey_once",
        "prekey_fixed",
        "prekey_state",
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
