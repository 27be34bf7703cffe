//! For tests alone: a process that dies at the n-th boundary of a commit, or between two writes of one, and
//! what must hold when it is started again.

use std::sync::atomic::{AtomicI64, Ordering};

/// Boundaries left; negative: never.
static LEFT: AtomicI64 = AtomicI64::new(-1);

/// From now on the `n`-th boundary, counted from 0, ends the process at once.
fn arm(n: i64) {
    LEFT.store(n, Ordering::SeqCst);
}

/// Writes to these tables are boundaries too: what they are part of must be undone.
const WATCHED: [&str; 3] = ["outbox", "inbox", "seen"];

pub(crate) fn watch(database: &mut rusqlite::Connection) {
    let written = |_, _: &str, table: &str, _| {
        if WATCHED.contains(&table) {
            point();
        }
    };
    database.update_hook(Some(written)).unwrap();
}

/// A boundary: just before a commit, or just after it.
pub(crate) fn point() {
    if LEFT.load(Ordering::SeqCst) >= 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 0 {
        std::process::abort();
    }
}

mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::arm;
    use crate::stage::{Person, Relay, collect, registration};
    use crate::{Client, RegisterError, Settings};

    const FOLDER: &str = "TUCKSEAL_CRASH_FOLDER";
    const SERVER: &str = "TUCKSEAL_CRASH_SERVER";
    const NAME: &str = "TUCKSEAL_CRASH_NAME";
    const AT: &str = "TUCKSEAL_CRASH_AT";
    /// What the app of the child has seen, as it would keep it: one line a message, written before the message
    /// is acknowledged.
    const SEEN: &str = "seen";
    const MESSAGES: u64 = 3;
    /// Never reached: a client has far fewer commits in this story.
    const FAR: i64 = 1_000;

    /// Alice. She is told nothing of what went before: the profile has to know.
    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "runs as a child process of the test of row 9"]
    async fn child() {
        let of = |name| std::env::var(name).unwrap();
        let (folder, name) = (of(FOLDER), of(NAME));
        let folder = Path::new(&folder);
        arm(of(AT).parse().unwrap());
        let client = match Client::register(folder, registration(&of(SERVER), &name)).await {
            Err(RegisterError::AlreadyRegistered { .. }) => {
                Client::open(folder, Settings::default()).await.unwrap()
            }
            registered => registered.unwrap(),
        };
        let bob = client.lookup(&format!("{name}.bob")).await.unwrap();
        let mut events = client.events();
        let running = client.clone();
        tokio::spawn(async move { running.run(std::future::pending()).await.unwrap() });
        while stored(&client).await < MESSAGES {
            client.send(bob, &format!("a{}", stored(&client).await)).await.unwrap();
        }
        while client.outbox_len().await.unwrap() > 0 || (seen(folder).len() as u64) < MESSAGES {
            for message in client.inbox().await.unwrap() {
                let mut file = std::fs::File::options()
                    .append(true)
                    .create(true)
                    .open(folder.join(SEEN))
                    .unwrap();
                writeln!(file, "{} {} {}", message.id.0, message.missing_before, message.text)
                    .unwrap();
                client.acknowledge(message.id).await.unwrap();
            }
            let next = tokio::time::timeout(std::time::Duration::from_millis(50), events.recv());
            // Events are hints: what is looked at is the profile.
            let _ = next.await;
        }
    }

    /// How many messages were ever taken over.
    async fn stored(client: &Client) -> u64 {
        client.shell().call(|engine, _| engine.store.rows().outbox_last()).await.unwrap()
    }

    /// Messages by id: one that was shown again counts once, if it is the same.
    fn seen(folder: &Path) -> BTreeMap<u64, String> {
        let lines = std::fs::read_to_string(folder.join(SEEN)).unwrap_or_default();
        let mut seen = BTreeMap::new();
        for line in lines.lines() {
            let (id, message) = line.split_once(' ').unwrap();
            let before = seen.insert(id.parse().unwrap(), message.to_owned());
            assert!(before.is_none_or(|before| before == message), "message {id} has changed");
        }
        seen
    }

    /// Whether the child came to its end; else it was aborted.
    async fn run_child(folder: &Path, relay: &Relay, name: &str, at: i64) -> bool {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "crash::tests::child", "--ignored", "--nocapture"])
            .envs([(NAME, name), (SERVER, relay.url.as_str()), (AT, &at.to_string())])
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
        // A failed test has the code 101, an abort has none.
        assert!(status.success() || status.code().is_none(), "{name}: {status}");
        status.success()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn field_needs_rows_08_09_10_a_crash_at_any_commit_loses_nothing_and_repeats_nothing() {
        let relay = Relay::start().await;
        let mut at = 0;
        loop {
            let (name, folder) = (format!("alice{at}"), tempfile::tempdir().unwrap());
            let bob = Person::register(&relay, &format!("{name}.bob")).await;
            let writing = write_back(&bob);
            let _running = bob.spawn();
            let (survived, from_alice) = tokio::join!(
                async {
                    let survived = run_child(folder.path(), &relay, &name, at).await;
                    assert!(survived || run_child(folder.path(), &relay, &name, FAR).await);
                    survived
                },
                async {
                    let texts = collect(&bob, 1).await;
                    writing.await;
                    [texts, collect(&bob, 2).await].concat()
                },
            );
            assert_eq!(from_alice, ["a0", "a1", "a2"], "crash at {at}");
            assert_eq!(bob.client.inbox().await.unwrap(), [], "crash at {at}");
            let to_alice: Vec<_> = seen(folder.path()).into_values().collect();
            assert_eq!(to_alice, ["0 b0", "0 b1", "0 b2"], "crash at {at}");
            if survived {
                break;
            }
            at += 1;
        }
        // Registration, prekeys, certificate, three messages out and three in: boundaries on each side of each and
        // within those that write to a watched table.
        assert!(at >= 40, "{at} boundaries");
    }

    /// Bob answers whoever wrote first.
    async fn write_back(bob: &Person) {
        let contacts = bob.client.contacts().await.unwrap();
        for n in 0..MESSAGES {
            bob.client.send(contacts[0].account, &format!("b{n}")).await.unwrap();
        }
    }
}
