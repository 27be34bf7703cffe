//! Random stories of two accounts with several devices each. `TUCKSEAL_SEED` plays one again, as far as time lets it.

use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use tuckseal::{DeviceId, ServiceId};
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

fn rng() -> ChaCha8Rng {
    let seed =
        std::env::var("TUCKSEAL_SEED").map_or_else(|_| rand::random(), |it| it.parse().unwrap());
    eprintln!("TUCKSEAL_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
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
    let mut rng = rng();
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

/// A device that comes in the middle, and perhaps goes for good.
struct Guest {
    player: Player,
    account: usize,
    number: DeviceId,
    /// How many texts there were when it was linked.
    since: usize,
    removed: bool,
}

impl Guest {
    async fn new(person: Person, account: usize, since: usize) -> Self {
        let devices = person.client.devices().await.unwrap();
        let number = devices.iter().find(|device| device.is_this).unwrap().device_id;
        let player = Player { person: Some(person), running: None, wrote: vec![], seen: vec![] };
        Self { player, account, number, since, removed: false }
    }

    fn person(&self) -> &Person {
        self.player.person.as_ref().unwrap()
    }
}

/// Two accounts whose devices come and go, and a relay that goes away in the middle.
struct Storm {
    relay: Relay,
    is_up: bool,
    accounts: [ServiceId; 2],
    /// The first two are the first devices of the accounts, in this order.
    guests: Vec<Guest>,
    /// Who wrote what, in the order in which it was written.
    wrote: Vec<(usize, String)>,
    rng: ChaCha8Rng,
}

impl Storm {
    async fn start() -> Self {
        let relay = Relay::start().await;
        let [alice, bob] =
            [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
        let accounts = [alice.client.account(), bob.client.account()];
        let mut guests = vec![];
        let seconds = [link(&alice, "").await, link(&bob, "").await];
        for (person, account) in [alice, bob].into_iter().chain(seconds).zip([0, 1, 0, 1]) {
            guests.push(Guest::new(person, account, 0).await);
        }
        Self { relay, is_up: true, accounts, guests, wrote: vec![], rng: rng() }
    }

    async fn step(&mut self) {
        let who = self.rng.random_range(0..self.guests.len());
        if self.guests[who].removed {
            return;
        }
        let player = &mut self.guests[who].player;
        match self.rng.random_range(0..24) {
            0..=10 => self.write(who).await,
            11..=14 => match player.running.take() {
                Some(running) => running.stop().await,
                None => player.running = Some(player.person.as_ref().unwrap().spawn()),
            },
            15 => {
                drop(player.running.take());
                player.person = Some(player.person.take().unwrap().reopen().await);
            }
            16 => {
                if let Some(running) = player.running.take() {
                    running.dropped().await;
                }
            }
            17 => player.read().await,
            18 if self.is_up => self.link(who).await,
            19 if self.is_up => self.remove(who).await,
            20 => {
                if self.is_up {
                    self.relay.stop().await;
                } else {
                    self.relay.start_again().await;
                }
                self.is_up = !self.is_up;
            }
            _ => tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..40))).await,
        }
    }

    async fn write(&mut self, who: usize) {
        let text = format!("{who} writes {}", self.wrote.len());
        let to = self.accounts[1 - self.guests[who].account];
        let _ = self.guests[who].player.client().send(to, &text).await.unwrap();
        self.wrote.push((who, text));
    }

    /// By any of the account's devices.
    async fn link(&mut self, by: usize) {
        let account = self.guests[by].account;
        let there = self.guests.iter().filter(|it| it.account == account && !it.removed);
        if there.count() < 4 {
            let linked = link(self.guests[by].person(), "").await;
            self.guests.push(Guest::new(linked, account, self.wrote.len()).await);
        }
    }

    /// By the first device of the account.
    async fn remove(&mut self, who: usize) {
        let (first, number) = (self.guests[who].account, self.guests[who].number);
        if number == DeviceId::PRIMARY {
            return;
        }
        self.guests[who].player.read().await;
        self.guests[who].removed = true;
        self.guests[first].player.client().remove_device(number).await.unwrap();
    }

    /// All that are left have what the others that are left wrote since they came.
    async fn settle(&mut self) {
        if !self.is_up {
            self.relay.start_again().await;
        }
        for guest in self.guests.iter_mut().filter(|guest| !guest.removed) {
            let person = guest.player.person.as_ref().unwrap();
            guest.player.running.get_or_insert_with(|| person.spawn());
        }
        let removed: Vec<bool> = self.guests.iter().map(|guest| guest.removed).collect();
        let left = self.guests.iter_mut().enumerate().filter(|(_, guest)| !guest.removed);
        for (who, Guest { player, since, .. }) in left {
            let others = self.wrote[*since..].iter().filter(|(by, _)| *by != who && !removed[*by]);
            let must: Vec<&String> = others.map(|(_, text)| text).collect();
            let begun = std::time::Instant::now();
            while let Some(lacks) = must.iter().find(|text| !player.seen.contains(text)) {
                player.read().await;
                assert!(begun.elapsed() < TIME, "{who} lacks {lacks:?}: {:?}", player.seen);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Nobody has anything twice, or before what the same device wrote earlier.
    async fn check_order(&mut self) {
        for (who, guest) in self.guests.iter_mut().enumerate() {
            if !guest.removed {
                guest.player.read().await;
            }
            let seen = &guest.player.seen;
            for by in (0..).take_while(|by| self.wrote.iter().any(|(it, _)| it >= by)) {
                let of = |text: &&String| text.starts_with(&format!("{by} writes "));
                let in_order: Vec<&String> =
                    self.wrote.iter().map(|(_, text)| text).filter(of).collect();
                let seen: Vec<&String> = seen.iter().filter(of).collect();
                let expected: Vec<&String> =
                    in_order.into_iter().filter(|text| seen.contains(text)).collect();
                assert_eq!(seen, expected, "what {who} has of {by}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_linked_and_removed_and_the_relay_goes_away_and_nobody_misses_anything() {
    let mut storm = Storm::start().await;
    for _ in 0..160 {
        storm.step().await;
    }
    storm.settle().await;
    storm.check_order().await;
}
