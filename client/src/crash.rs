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
const WATCHED: [&str; 4] = ["outbox", "inbox", "seen", "retry"];

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
    use std::process::Stdio;

    use super::arm;
    use crate::stage::{Person, Relay, collect, registration};
    use crate::store::{Device, Rows};
    use crate::{Client, ProfileError, RegisterError, Settings};
    use tempfile::TempDir;
    use tokio::process::Command;
    use tuckseal::SessionRecord;

    const FOLDER: &str = "TUCKSEAL_CRASH_FOLDER";
    const SERVER: &str = "TUCKSEAL_CRASH_SERVER";
    const NAME: &str = "TUCKSEAL_CRASH_NAME";
    /// How many messages she waits for.
    const WANTED: &str = "TUCKSEAL_CRASH_WANTED";
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
        let wanted = of(WANTED).parse().unwrap();
        // In the first story, where nothing else is broken.
        let with_group = wanted == MESSAGES;
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
        if with_group && stored(&client).await == MESSAGES {
            let group = match client.groups().await.unwrap().first() {
                Some(group) => group.id,
                None => client.create_group("two", &[bob]).await.unwrap(),
            };
            client.send_to_group(group, "to the group").await.unwrap();
        }
        while client.outbox_len().await.unwrap() > 0 || (seen(folder).len() as u64) < wanted {
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
        client.shell.call(|engine, _| engine.store.rows().messages_ever()).await.unwrap()
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
    async fn run_child(folder: &Path, relay: &Relay, name: &str, wanted: u64, at: i64) -> bool {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "crash::tests::child", "--ignored", "--nocapture"])
            .envs([(NAME, name), (SERVER, relay.url.as_str()), (AT, &at.to_string())])
            .env(FOLDER, folder)
            .env(WANTED, wanted.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        // A test that fails meanwhile must not leave it behind.
        let status = command.kill_on_drop(true).status().await.unwrap();
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
            let writing = write_back(&bob, 0..MESSAGES);
            let _running = bob.spawn();
            let (survived, from_alice) = tokio::join!(
                async {
                    let survived = run_child(folder.path(), &relay, &name, MESSAGES, at).await;
                    assert!(
                        survived || run_child(folder.path(), &relay, &name, MESSAGES, FAR).await
                    );
                    survived
                },
                async {
                    let texts = collect(&bob, 1).await;
                    writing.await;
                    [texts, collect(&bob, 3).await].concat()
                },
            );
            let sent = ["a0", "a1", "a2", "to the group"];
            assert_eq!(from_alice, sent, "crash at {at}");
            assert_eq!(bob.client.inbox().await.unwrap(), [], "crash at {at}");
            let to_alice: Vec<_> = seen(folder.path()).into_values().collect();
            assert_eq!(to_alice, ["0 b0", "0 b1", "0 b2"], "crash at {at}");
            if survived {
                break;
            }
            at += 1;
        }
        // Registration, prekeys, certificate, three messages out and three in, receipts, a group and a message to
        // it: boundaries on each side of each and within those that write to a watched table.
        assert!(at >= 60, "{at} boundaries");
    }

    /// As if all sessions had been overwritten.
    async fn lose_sessions(person: &Person) {
        let lose = |rows: Rows<'_>| {
            for peer in rows.peers()? {
                for device in rows.devices(peer.account)? {
                    rows.save_device(&Device { session: SessionRecord::new(), ..device })?;
                }
            }
            Ok::<_, ProfileError>(())
        };
        person.client.shell.call(move |engine, _| engine.store.commit(lose)).await.unwrap();
    }

    /// Alice and Bob have met, one of them has lost the session, and Bob's answers wait at the relay.
    async fn broken_session(relay: &Relay, name: &str, is_lost_by: Loser) -> (TempDir, Person) {
        let alice = Person::register(relay, name).await;
        let bob = Person::register(relay, &format!("{name}.bob")).await;
        let running = [alice.spawn(), bob.spawn()];
        alice.client.lookup(&format!("{name}.bob")).await.unwrap();
        alice.send(&bob, "a0").await;
        assert_eq!(collect(&bob, 1).await, ["a0"]);
        bob.send(&alice, "hello").await;
        assert_eq!(collect(&alice, 1).await, ["hello"]);
        alice.sent().await;
        for running in running {
            running.stop().await;
        }
        let running = bob.spawn();
        for n in 0..MESSAGES {
            bob.send(&alice, &format!("b{n}")).await;
        }
        bob.sent().await;
        running.stop().await;
        match is_lost_by {
            Loser::Alice => lose_sessions(&alice).await,
            Loser::Bob => lose_sessions(&bob).await,
        }
        let Person { client, folder, .. } = alice;
        drop(client);
        Person::close(&folder).await;
        (folder, bob)
    }

    #[derive(Debug, Clone, Copy)]
    enum Loser {
        Alice,
        Bob,
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn field_needs_row_25_a_crash_at_any_commit_while_a_session_heals_loses_nothing() {
        let relay = Relay::start().await;
        for loser in [Loser::Alice, Loser::Bob] {
            let mut at = 0;
            loop {
                let name = format!("{loser:?}{at}").to_lowercase();
                let (folder, bob) = broken_session(&relay, &name, loser).await;
                let _running = bob.spawn();
                let (survived, from_alice) = tokio::join!(
                    async {
                        let survived =
                            run_child(folder.path(), &relay, &name, MESSAGES + 1, at).await;
                        assert!(
                            survived
                                || run_child(folder.path(), &relay, &name, MESSAGES + 1, FAR).await
                        );
                        survived
                    },
                    async {
                        let texts = collect(&bob, 2).await;
                        // Alice stays until she has heard that Bob has them.
                        write_back(&bob, MESSAGES..MESSAGES + 1).await;
                        texts
                    },
                );
                assert_eq!(from_alice, ["a1", "a2"], "{loser:?} has lost it, crash at {at}");
                assert_eq!(bob.client.inbox().await.unwrap(), [], "crash at {at}");
                let to_alice: Vec<_> = seen(folder.path()).into_values().collect();
                assert_eq!(to_alice, ["0 b0", "0 b1", "0 b2", "0 b3"], "crash at {at}");
                if survived {
                    break;
                }
                at += 1;
            }
            assert!(at >= 20, "{at} boundaries");
        }
    }

    /// Bob answers whoever wrote first.
    async fn write_back(bob: &Person, numbers: std::ops::Range<u64>) {
        let contacts = bob.client.contacts().await.unwrap();
        for n in numbers {
            bob.client.send(contacts[0].account, &format!("b{n}")).await.unwrap();
        }
    }
}
