//! The whole path, played and checked: a real relay and two real clients, each a process of its own,
//! the relay and Bob killed in the middle. Any deviation from what was promised ends it with an error that names the step.

mod acts;
mod devices;
mod evidence;
mod people;
pub(crate) mod person;
pub(crate) mod push_service;
mod relay;
mod texts;
mod wake;

use evidence::{Secrets, Traces};
use people::{Person, Received};
use relay::Relay;
use std::path::Path;
use std::time::{Duration, Instant};
use texts::Texts;

/// Their names at the relay: long enough that no ciphertext holds them by chance, as it would `bob`.
const ALICE: &str = "alice.of.the.demo";
const BOB: &str = "bob.of.the.demo";

/// How long any one thing may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Messages in the long conversation, in both directions together
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(6..=20_000))]
    messages: u32,
}

/// Something was not as promised.
#[derive(Debug, thiserror::Error)]
#[error("the demo failed at \"{step}\": {what}")]
pub(crate) struct Deviation {
    step: String,
    what: String,
}

/// What went wrong in one step, before it is known which.
pub(crate) type Outcome<T> = Result<T, String>;

pub(crate) async fn run(options: Options) -> Result<(), Deviation> {
    let began = Instant::now();
    let folder = tempfile::Builder::new().prefix("tuckseal-demo-").tempdir();
    let folder = folder.map_err(|error| Deviation {
        step: "a place for the demo".into(),
        what: error.to_string(),
    })?;
    let mut story = Story { step: String::new(), number: 0 };
    match story.play(folder.path(), options.messages).await {
        Ok(()) => {
            println!("\nAll as promised, in {:.1} s.", began.elapsed().as_secs_f32());
            Ok(())
        }
        Err(what) => {
            let kept = folder.keep();
            let what = format!("{what} (what is left of it is in {})", kept.display());
            Err(Deviation { step: story.step, what })
        }
    }
}

struct Story {
    step: String,
    number: u32,
}

impl Story {
    fn step(&mut self, title: &str) {
        self.number += 1;
        title.clone_into(&mut self.step);
        println!("\n{}. {title}", self.number);
    }

    async fn play(&mut self, folder: &Path, messages: u32) -> Outcome<()> {
        let texts = Texts::new();

        self.step("A relay starts, with nothing but an empty folder");
        let mut relay = Relay::start(folder).await?;
        println!("   it listens on {}", relay.url());

        self.step("Alice and Bob register: each makes keys, the relay gets the public halves");
        let mut alice = Person::register(ALICE, folder, &relay.url()).await?;
        let mut bob = Person::register(BOB, folder, &relay.url()).await?;
        let mut others = acts::register_others(folder, &relay).await?;
        println!("   Alice is {}\n   Bob is   {}", alice.account(), bob.account());
        // A clean stop leaves one database file: what names Alice and Bob in it now may stay, no more.
        relay.stop().await?;
        let secrets = Secrets::new(&texts, [&alice, &bob]);
        let after_registration = Traces::search(&relay, &secrets)?;
        relay.restart().await?;

        self.step("Alice writes to Bob, who has never been online");
        alice.come_online().await?;
        let early = texts.early();
        for text in &early {
            alice.send(BOB, text).await?;
        }
        alice.flush().await?;
        let waiting = evidence::counts(&relay)?;
        println!("   the relay keeps {waiting}");
        if waiting.envelopes != early.len() as u64 {
            return Err(format!("the relay should keep {} envelopes", early.len()));
        }
        println!("   each of them has 1, 4, 16, 64 or 96 KiB, whatever it says");
        Traces::search(&relay, &secrets)?.no_more_than(&after_registration)?;
        println!("   neither a word of them nor who sent them is in its files");

        self.step("Bob comes online and reads");
        bob.come_online().await?;
        bob.has_received(ALICE, &early).await?;
        for text in &early {
            println!("   Bob reads: {text}");
        }

        self.step(&format!("They exchange {messages} messages, some with emoji, some of 64 KiB"));
        let from_alice = texts.many("alice", messages / 2);
        let from_bob = texts.many("bob", messages - messages / 2);
        self.converse(&mut alice, &mut bob, &mut relay, &from_alice, &from_bob).await?;

        self.step("Every message has arrived exactly once, in order");
        let all_of_alice = [early, from_alice].concat();
        bob.has_received(ALICE, &all_of_alice).await?;
        alice.has_received(BOB, &from_bob).await?;
        // Receipts are on their way still; the next act has to find nothing that is.
        acts::settle(&mut [&mut alice, &mut bob], &relay).await?;
        summary("Bob", "Alice", bob.received());
        summary("Alice", "Bob", alice.received());
        for (name, person) in [("Alice", &mut alice), ("Bob", &mut bob)] {
            let status = person.status().await?;
            println!("   {name}: session {}; {}", status.session, status.sent);
            let told = status.told;
            println!(
                "   {name} was told that {} arrived and {} were read",
                told.delivered, told.read
            );
        }

        self.step("Bob's session is damaged while he is away, and heals");
        let all_of_alice = acts::broken_session(&mut alice, &mut bob, &texts, all_of_alice).await?;

        self.step("Alice sends Bob a file of 50 MiB");
        acts::file(&mut alice, &mut bob, &relay, folder, &texts).await?;

        self.step("A group of five: one is removed, one is added");
        acts::group(&mut alice, &mut bob, &mut others, &texts).await?;

        self.step("Bob links a second device: what one sends or gets, both have");
        let mut everybody: Vec<_> = [&mut alice, &mut bob].into_iter().chain(&mut others).collect();
        acts::settle(&mut everybody, &relay).await?;
        let heard = (all_of_alice, from_bob);
        devices::second(&mut alice, &mut bob, &relay, folder, &texts, heard).await?;

        self.step("Bob is away: a push wakes him, which says nothing");
        let mut everybody: Vec<_> = [&mut alice, &mut bob].into_iter().chain(&mut others).collect();
        acts::settle(&mut everybody, &relay).await?;
        wake::bob_is_woken(&mut alice, &mut bob, &relay, &secrets, &texts).await?;

        self.step("What the relay has, and what it has not");
        let mut everybody: Vec<_> = [&mut alice, &mut bob].into_iter().chain(&mut others).collect();
        acts::settle(&mut everybody, &relay).await?;
        for person in everybody {
            person.leave().await?;
        }
        Traces::search(&relay, &secrets)?.no_more_than(&after_registration)?;
        relay.stop().await?;
        let left = evidence::counts(&relay)?;
        println!("   {left}");
        if left.envelopes != 0 {
            return Err("acknowledged envelopes are still there".into());
        }
        let traces = Traces::search(&relay, &secrets)?;
        traces.no_more_than(&after_registration)?;
        println!("   searched: {traces}");
        Ok(())
    }

    /// A third of the messages, a killed relay, a third, a killed Bob, and the rest.
    async fn converse(
        &mut self,
        alice: &mut Person,
        bob: &mut Person,
        relay: &mut Relay,
        from_alice: &[String],
        from_bob: &[String],
    ) -> Outcome<()> {
        let parts = |texts: &[String]| {
            let third = texts.len().div_ceil(3);
            texts.chunks(third).map(<[String]>::to_vec).collect::<Vec<_>>()
        };
        let alices = parts(from_alice);
        let bobs = parts(from_bob);
        for (part, (of_alice, of_bob)) in alices.iter().zip(&bobs).enumerate() {
            match part {
                1 => {
                    relay.kill().await?;
                    println!("   the relay was killed (SIGKILL); both go on writing");
                }
                2 => {
                    bob.kill().await?;
                    println!("   Bob's process was killed (SIGKILL); Alice goes on writing");
                }
                _ => {}
            }
            for text in of_alice {
                alice.send(BOB, text).await?;
            }
            match part {
                1 => {
                    relay.restart().await?;
                    println!("   the relay is back, on the same files");
                }
                2 => {
                    bob.come_online().await?;
                    println!("   Bob is back, on the same profile");
                }
                _ => {}
            }
            for text in of_bob {
                bob.send(ALICE, text).await?;
            }
        }
        alice.flush().await?;
        bob.flush().await
    }
}

fn summary(name: &str, sender: &str, received: &Received) {
    println!(
        "   {name} has {} messages of {sender}, {} KiB of text; {} were shown again after a crash",
        received.texts.len(),
        received.texts.iter().map(String::len).sum::<usize>() / 1024,
        received.shown_again
    );
}
