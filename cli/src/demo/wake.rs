//! The act in which nobody but a push service knows how to reach Bob: a content-free push wakes him.

use super::evidence::{self, Secrets};
use super::people::{Person, command};
use super::push_service::{Push, Subscription};
use super::relay::Relay;
use super::texts::Texts;
use super::{ALICE, BOB, Outcome, PATIENCE};
use std::process::Stdio;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// All that a push may say.
const WAKE: &str = "wake";

/// The push service of the story, ended with it.
struct PushService {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl PushService {
    async fn start() -> Outcome<(Self, Subscription)> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .arg("push-service")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("the push service cannot be started: {error}"))?;
        let output = child.stdout.take().ok_or("the push service has no output")?;
        let mut service = Self { _child: child, lines: BufReader::new(output).lines() };
        let subscription = service.line().await?;
        Ok((service, subscription))
    }

    async fn line<T: serde::de::DeserializeOwned>(&mut self) -> Outcome<T> {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.map_err(|_| format!("the push service heard nothing for {PATIENCE:?}"))?;
        let line = line.map_err(|error| error.to_string())?.ok_or("the push service has ended")?;
        serde_json::from_str(&line).map_err(|error| error.to_string())
    }

    /// The one push of the story, opened and its signature checked.
    async fn push(&mut self) -> Outcome<Push> {
        self.line::<Result<Push, String>>().await?
    }

    /// Nothing more has come.
    async fn is_silent(&mut self) -> bool {
        timeout(std::time::Duration::ZERO, self.lines.next_line()).await.is_err()
    }
}

/// Bob leaves, Alice writes, a push comes, Bob's device wakes him: he fetches, reads, and goes again.
pub(super) async fn bob_is_woken(
    alice: &mut Person,
    bob: &mut Person,
    relay: &Relay,
    secrets: &Secrets,
    texts: &Texts,
) -> Outcome<()> {
    let (mut service, subscription) = PushService::start().await?;
    bob.leave().await?;
    let Subscription { endpoint, p256dh, auth } = &subscription;
    tuckseal(bob, &["push", "web", endpoint, "--p256dh", p256dh, "--auth", auth]).await?;
    let shown = tuckseal(bob, &["push", "show"]).await?;
    let key = shown.lines().find_map(|line| line.strip_prefix("vapid key "));
    let key = key.ok_or("the relay names no key for Web Push")?.to_owned();

    let [text] = <[String; 1]>::try_from(texts.many("woken", 1)).map_err(|_| "one text")?;
    let sent = Instant::now();
    alice.send(BOB, &text).await?;
    alice.flush().await?;
    let push = service.push().await?;
    let after = sent.elapsed();
    if push.clear != WAKE || push.urgency != "high" {
        return Err(format!("the push says {:?}, urgency {}", push.clear, push.urgency));
    }
    if push.signed_by != key {
        return Err("the push is signed by another key than the relay's".into());
    }
    if secrets.stand_in(push.seen.as_bytes()) {
        return Err("the push service sees a text, a name or an account id".into());
    }
    println!(
        "   {:.1} s later the push service has {} bytes, signed by the relay and encrypted; opened they say: {}",
        after.as_secs_f32(),
        push.bytes,
        push.clear
    );
    println!("   neither a word, nor who writes, nor to whom is in them");

    let read = tuckseal(bob, &["wake"]).await?;
    if read != format!("{ALICE}: {text}\n") {
        return Err(format!("Bob was woken and read {read:?}"));
    }
    println!("   Bob is woken, fetches, and reads: {text}");
    if !service.is_silent().await {
        return Err("one message has woken Bob twice".into());
    }
    tuckseal(bob, &["push", "off"]).await?;
    bob.come_online().await?;
    let waiting = evidence::counts(relay)?;
    println!("   the relay keeps {waiting}");
    Ok(())
}

/// What a command of a person who is not online prints.
async fn tuckseal(person: &Person, arguments: &[&str]) -> Outcome<String> {
    let output = command(person.profile())?.args(arguments).output().await;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}
