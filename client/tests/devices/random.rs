//! A random story of two accounts with two devices each. `TUCKSEAL_SEED` plays one again, as far as time lets it.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::rand_core::SeedableRng;
use tuckseal::ServiceId;
use tuckseal_client::{Client, GroupId};

use crate::link;
use crate::stage::{Person, Relay, Running, TIME};

/// What is written in it.
const ALONE: &str = "to one";
const GROUP: &str = "to the group";

/// A device of the random story: what it wrote, and what it has shown.
struct Player {
    person: Option<Person>,
    running: Option<Running>,
    wrote: Vec<String>,
    seen: Vec<String>,
}

impl Player {
    fn client(&self) -> &Client {
        &self.person.as_ref().unwrap().client
    }

    /// Takes what is in the inbox as an app would: shown, then acknowledged.
    async fn read(&mut self) {
        for message in self.client().inbox().await.unwrap() {
            self.client().acknowledge(message.id).await.unwrap();
            assert_eq!(message.missing_before, 0, "{}", message.text);
            self.seen.push(message.text);
        }
    }
}

/// Two accounts of two devices each; they write, to each other or to a group, go offline in the middle, are closed and opened. In the end each
/// device has what the three others wrote, once, and in the order of each.
async fn play(kinds: &[&str]) {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let (to_bob, to_alice) = (bob.client.account(), alice.client.account());
    let seconds = [link(&alice, "second").await, link(&bob, "second").await];
    let [second_of_alice, second_of_bob] = seconds;
    let mut players: Vec<Player> = [alice, second_of_alice, bob, second_of_bob]
        .into_iter()
        .map(|person| Player { person: Some(person), running: None, wrote: vec![], seen: vec![] })
        .collect();
    let group = match kinds.contains(&GROUP) {
        true => Some(group_of_all(&players, to_bob).await),
        false => None,
    };
    let seed =
        std::env::var("TUCKSEAL_SEED").map_or_else(|_| rand::random(), |it| it.parse().unwrap());
    eprintln!("TUCKSEAL_SEED={seed}");
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    for step in 0..120 {
        let who = rng.random_range(0..4);
        let player = &mut players[who];
        match rng.random_range(0..10) {
            0..=4 => {
                let to = if who < 2 { to_bob } else { to_alice };
                let kind = kinds[rng.random_range(0..kinds.len())];
                let text = format!("{who} writes {kind} {step}");
                let sent = match group.filter(|_| kind == GROUP) {
                    Some(group) => player.client().send_to_group(group, &text).await,
                    None => player.client().send(to, &text).await,
                };
                let _ = sent.unwrap();
                player.wrote.push(text);
            }
            5 | 6 => match player.running.take() {
                Some(running) => running.stop().await,
                None => player.running = Some(player.person.as_ref().unwrap().spawn()),
            },
            // Without a goodbye: what was on its way is not known to have arrived.
            7 => {
                drop(player.running.take());
                player.person = Some(player.person.take().unwrap().reopen().await);
            }
            8 => player.read().await,
            _ => tokio::time::sleep(Duration::from_millis(rng.random_range(0..30))).await,
        }
    }
    for player in &mut players {
        if player.running.is_none() {
            player.running = Some(player.person.as_ref().unwrap().spawn());
        }
    }
    let wrote: Vec<Vec<String>> = players.iter().map(|player| player.wrote.clone()).collect();
    let all: usize = wrote.iter().map(Vec::len).sum();
    for (who, player) in players.iter_mut().enumerate() {
        let begun = std::time::Instant::now();
        while player.seen.len() < all - wrote[who].len() {
            player.read().await;
            assert!(begun.elapsed() < TIME, "{who} has {} of {all}", player.seen.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        player.person.as_ref().unwrap().sent().await;
    }
    // What comes twice would have come by now.
    for (who, player) in players.iter_mut().enumerate() {
        player.read().await;
        for (other, wrote) in wrote.iter().enumerate().filter(|(other, _)| *other != who) {
            for kind in kinds {
                let of = |text: &&String| text.starts_with(&format!("{other} writes {kind}"));
                let seen: Vec<&String> = player.seen.iter().filter(of).collect();
                let wrote: Vec<&String> = wrote.iter().filter(of).collect();
                assert_eq!(seen, wrote, "what {who} has of {other}");
            }
        }
        assert_eq!(player.seen.len(), all - wrote[who].len());
    }
}

/// They have met by then.
async fn group_of_all(players: &[Player], with: ServiceId) -> GroupId {
    let group = players[0].client().create_group("everybody", &[with]).await.unwrap();
    let running: Vec<_> = players.iter().map(|it| it.person.as_ref().unwrap().spawn()).collect();
    for player in players {
        while player.client().groups().await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    for running in running {
        running.stop().await;
    }
    group
}

#[tokio::test(flavor = "multi_thread")]
async fn four_devices_that_meet_and_come_and_go_at_random_each_get_all_of_it_once_and_in_order() {
    play(&[ALONE]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_devices_in_a_group_that_come_and_go_at_random_each_get_all_of_it_once_and_in_order() {
    play(&[ALONE, GROUP]).await;
}
