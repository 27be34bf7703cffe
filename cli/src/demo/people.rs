//! Alice and Bob as the story holds them: a child process each, what they were told and what they said.

use super::person::{Order, Said, Status};
use super::{Outcome, PATIENCE};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// What a person has shown of its inbox.
#[derive(Default)]
pub(crate) struct Received {
    /// In the order in which they were shown first.
    pub(crate) texts: Vec<String>,
    /// Places in `texts` by inbox id.
    by_id: BTreeMap<u64, usize>,
    /// Shown, not acknowledged before the crash, and shown again.
    pub(crate) shown_again: u32,
}

pub(crate) struct Person {
    name: &'static str,
    profile: PathBuf,
    account: String,
    process: Option<Process>,
    received: Received,
    /// What was written to groups, in order.
    in_groups: Vec<String>,
    files: Vec<PathBuf>,
}

struct Process {
    child: Child,
    orders: ChildStdin,
    /// Its output by lines, read as it comes: a child that waits for its output to be read does not read
    /// its orders, and orders are as long as messages.
    said: UnboundedReceiver<String>,
}

impl Person {
    /// Runs `tuckseal register` to its end.
    pub(crate) async fn register(name: &'static str, folder: &Path, url: &str) -> Outcome<Self> {
        let profile = folder.join(name);
        let output = command(&profile)?
            .args(["register", name, "--server", url])
            .output()
            .await
            .map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let account = printed.lines().find_map(|line| line.strip_prefix("account"));
        let account = account.ok_or("register printed no account")?.trim().to_owned();
        Ok(Self::of(name, profile, account))
    }

    /// Somebody whose profile is in this folder.
    pub(crate) fn of(name: &'static str, profile: PathBuf, account: String) -> Self {
        Self {
            name,
            profile,
            account,
            process: None,
            received: Received::default(),
            in_groups: Vec::new(),
            files: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn account(&self) -> &str {
        &self.account
    }

    /// Its folder, for a command that is not driven by the story.
    pub(crate) fn profile(&self) -> &Path {
        &self.profile
    }

    /// Its database, for who wants to damage it.
    pub(crate) fn database(&self) -> PathBuf {
        self.profile.join("profile.db")
    }

    pub(crate) fn received(&self) -> &Received {
        &self.received
    }

    /// Starts the process.
    pub(crate) async fn come_online(&mut self) -> Outcome<()> {
        let mut child = command(&self.profile)?
            .arg("person")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let orders = child.stdin.take().ok_or("no input")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let (heard, said) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if heard.send(line).is_err() {
                    break;
                }
            }
        });
        self.process = Some(Process { child, orders, said });
        self.until(|said| matches!(said, Said::Ready).then_some(())).await
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self) -> Outcome<()> {
        let mut process = self.process.take().ok_or("not online")?;
        process.child.kill().await.map_err(|error| error.to_string())?;
        // What was printed before the end was shown all the same.
        while let Some(line) = process.said.recv().await {
            if let Ok(Said::Message { id, text, .. }) = serde_json::from_str(&line) {
                self.received.show(id, text)?;
            }
        }
        Ok(())
    }

    /// Ends the process as a person would: the input ends.
    pub(crate) async fn leave(&mut self) -> Outcome<()> {
        let Process { mut child, orders, said } = self.process.take().ok_or("not online")?;
        drop((orders, said));
        let ended = timeout(PATIENCE, child.wait()).await;
        let status = ended.map_err(|_| "does not end")?.map_err(|error| error.to_string())?;
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.name)) }
    }

    /// Returns when the message is on the sender's disk.
    pub(crate) async fn send(&mut self, to: &str, text: &str) -> Outcome<()> {
        self.obey(&Order::Send { to: to.into(), text: text.into() }).await
    }

    /// Returns when an order has been carried out.
    pub(crate) async fn obey(&mut self, order: &Order) -> Outcome<()> {
        self.order(order).await?;
        self.until(|said| matches!(said, Said::Kept).then_some(())).await
    }

    /// Waits until so many are in a group, as this person sees it; 0: it is not in it.
    pub(crate) async fn sees_members(&mut self, group: &str, members: usize) -> Outcome<()> {
        let name = self.name;
        let wait = async {
            loop {
                self.order(&Order::Members { group: group.into() }).await?;
                let seen = self.until(|said| match said {
                    Said::Members(seen) => Some(seen),
                    _ => None,
                });
                if seen.await? == members {
                    return Ok(());
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let seen = timeout(PATIENCE, wait).await;
        seen.map_err(|_| format!("{name} does not see {members} in the group"))?
    }

    /// Waits until exactly these were written to groups, in this order.
    pub(crate) async fn has_read_in_groups(&mut self, texts: &[String]) -> Outcome<()> {
        while self.in_groups.len() < texts.len() {
            self.hear().await?;
        }
        if self.in_groups == texts {
            return Ok(());
        }
        Err(format!("{} has read {:?} in the group, not {texts:?}", self.name, self.in_groups))
    }

    /// The next file that comes.
    pub(crate) async fn file(&mut self) -> Outcome<PathBuf> {
        while self.files.is_empty() {
            self.hear().await?;
        }
        Ok(self.files.remove(0))
    }

    /// Returns when the relay has everything.
    pub(crate) async fn flush(&mut self) -> Outcome<()> {
        self.order(&Order::Flush).await?;
        self.until(|said| matches!(said, Said::Flushed).then_some(())).await
    }

    pub(crate) async fn status(&mut self) -> Outcome<Status> {
        self.order(&Order::Status).await?;
        self.until(|said| if let Said::Status(status) = said { Some(status) } else { None }).await
    }

    /// Waits for these texts, and checks that they and no others came, in this order.
    pub(crate) async fn has_received(&mut self, from: &str, texts: &[String]) -> Outcome<()> {
        while self.received.texts.len() < texts.len() {
            let waited = self.hear().await;
            waited.map_err(|error| {
                format!(
                    "{} has {} of {} messages of {from}: {error}",
                    self.name,
                    self.received.texts.len(),
                    texts.len()
                )
            })?;
        }
        let differs = self.received.texts.iter().zip(texts).position(|(got, sent)| got != sent);
        match differs {
            Some(at) => Err(format!("message {} of {from} is not what was sent", at + 1)),
            None if self.received.texts.len() > texts.len() => {
                Err(format!("{} has more messages than {from} sent", self.name))
            }
            None => Ok(()),
        }
    }

    async fn order(&mut self, order: &Order) -> Outcome<()> {
        let process = self.process.as_mut().ok_or("not online")?;
        let mut line = serde_json::to_string(order).map_err(|error| error.to_string())?;
        line.push('\n');
        let written = process.orders.write_all(line.as_bytes()).await;
        written.map_err(|error| format!("{} does not listen: {error}", self.name))
    }

    /// Listens until something is said that `wanted` takes.
    async fn until<T>(&mut self, wanted: impl Fn(Said) -> Option<T>) -> Outcome<T> {
        loop {
            if let Some(said) = self.hear().await?
                && let Some(found) = wanted(said)
            {
                return Ok(found);
            }
        }
    }

    /// One thing that is said; messages are kept and give `None`.
    async fn hear(&mut self) -> Outcome<Option<Said>> {
        let process = self.process.as_mut().ok_or("not online")?;
        let line = timeout(PATIENCE, process.said.recv()).await;
        let line = line.map_err(|_| format!("{} says nothing for {PATIENCE:?}", self.name))?;
        let line = line.ok_or_else(|| format!("{} has ended by itself", self.name))?;
        match serde_json::from_str(&line).map_err(|error| error.to_string())? {
            Said::Message { in_group: true, text, .. } => {
                self.in_groups.push(text);
                Ok(None)
            }
            Said::File(path) => {
                self.files.push(path);
                Ok(None)
            }
            Said::Message { missing_before: 0, id, text, .. } => {
                self.received.show(id, text)?;
                Ok(None)
            }
            Said::Message { missing_before, .. } => {
                Err(format!("{} misses {missing_before} messages", self.name))
            }
            Said::Trouble(what) => Err(format!("{}: {what}", self.name)),
            said => Ok(Some(said)),
        }
    }
}

impl Received {
    /// The same id again is the same message, shown again; its text must be the same.
    fn show(&mut self, id: u64, text: String) -> Outcome<()> {
        match self.by_id.get(&id).and_then(|at| self.texts.get(*at)) {
            Some(known) if *known == text => {
                self.shown_again += 1;
                Ok(())
            }
            Some(_) => Err(format!("message {id} has changed its text")),
            None => {
                self.by_id.insert(id, self.texts.len());
                self.texts.push(text);
                Ok(())
            }
        }
    }
}

pub(crate) fn command(profile: &Path) -> Outcome<Command> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("--profile").arg(profile).kill_on_drop(true);
    Ok(command)
}
