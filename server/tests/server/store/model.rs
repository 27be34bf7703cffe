//! Random commands on any store, and what a simple model of one account says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tuckseal_server::storage::{
    AccountId, Append, AppendAnswer, Authority, Fetch, Life, LinkAnswer, Linking, MailboxId,
    Mismatch, PutKeys, Store,
};

use super::devices::{linking, made, opening};
use super::{ALL, NEVER, NOW, add, append, fetch, keys, submit, take};
use crate::stores::Opened;

/// Devices that an account may have here.
const DEVICES: u8 = 4;
/// Lives of envelopes, in milliseconds.
const SHORT: i64 = 500;
const FULL: i64 = 1_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OneTime {
    Take,
    Leave,
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        dedup: u64,
        size: usize,
        life: Life,
    },
    /// By the first device, for the others.
    AppendOwn {
        dedup: u64,
        size: usize,
    },
    AppendToNobody {
        dedup: u64,
    },
    /// A device more.
    Link,
    /// One with this number, or none.
    Remove(u8),
    /// Short lives end before this is over.
    Later,
    Delete(Vec<i64>),
    Told(u64),
    Upload(Vec<u32>),
    Take(OneTime),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40u64, 1..25usize, life()).prop_map(|(dedup, size, life)| Step::Append { dedup, size, life }),
        2 => (0..40u64, 1..25usize).prop_map(|(dedup, size)| Step::AppendOwn { dedup, size }),
        2 => Just(Step::Link),
        1 => (2..=DEVICES).prop_map(Step::Remove),
        1 => Just(Step::Later),
        1 => (0..40u64).prop_map(|dedup| Step::AppendToNobody { dedup }),
        3 => prop::collection::vec(1..30i64, 0..4).prop_map(Step::Delete),
        1 => (0..4u64).prop_map(Step::Told),
        2 => prop::collection::btree_set(1..40u32, 1..6).prop_map(|ids| Step::Upload(ids.into_iter().collect())),
        4 => prop_oneof![4 => Just(OneTime::Take), 1 => Just(OneTime::Leave)].prop_map(Step::Take),
        1 => Just(Step::Reopen),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    prop_oneof![3 => Just(Life::Full), 1 => Just(Life::Short)]
}

/// What one device with a quota of 6 envelopes and 60 bytes should have.
struct Mailbox {
    number: MailboxId,
    next: i64,
    /// Size and end of each.
    envelopes: BTreeMap<i64, (usize, i64)>,
    dropped: u64,
}

impl Mailbox {
    fn new(number: MailboxId) -> Self {
        Self { number, next: 0, envelopes: BTreeMap::new(), dropped: 0 }
    }

    /// Its place, and how many are dropped for it.
    fn append(&mut self, size: usize, end: i64) -> (i64, u64) {
        self.next += 1;
        self.envelopes.insert(self.next, (size, end));
        let before = self.dropped;
        // What has ended takes its room until it is taken away.
        while self.envelopes.len() > 6 || self.envelopes.values().map(|it| it.0).sum::<usize>() > 60
        {
            self.envelopes.pop_first();
            self.dropped += 1;
        }
        (self.next, self.dropped - before)
    }

    async fn check(&self, store: &Arc<dyn Store>, now: i64) -> Result<(), TestCaseError> {
        let backlog = store.read_after(self.number, 0, ALL, now).await.unwrap();
        let held: Vec<(i64, usize)> =
            backlog.envelopes.iter().map(|e| (e.seq, e.content.len())).collect();
        let good = self.envelopes.iter().filter(|(_, (_, end))| *end > now);
        let good: Vec<(i64, usize)> = good.map(|(seq, (size, _))| (*seq, *size)).collect();
        prop_assert_eq!(held, good);
        prop_assert_eq!(
            (backlog.covers, backlog.end, backlog.dropped),
            (self.next, self.next, self.dropped)
        );
        Ok(())
    }
}

/// What one account should have.
struct Model {
    now: i64,
    devices: BTreeMap<u8, Mailbox>,
    /// All mailboxes that there are or were.
    numbers: BTreeSet<MailboxId>,
    links: u16,
    accepted: BTreeSet<u64>,
    /// Of the first device.
    waiting: BTreeSet<u32>,
    high_water: u32,
    uses: u64,
}

impl Model {
    fn new(first: MailboxId) -> Self {
        Self {
            now: NOW,
            devices: BTreeMap::from([(1, Mailbox::new(first))]),
            numbers: BTreeSet::from([first]),
            links: 0,
            accepted: BTreeSet::new(),
            waiting: BTreeSet::new(),
            high_water: 0,
            uses: 0,
        }
    }

    fn others(&self) -> Vec<u8> {
        self.devices.keys().copied().filter(|device| *device != 1).collect()
    }

    /// What these devices are told where an envelope is.
    fn append(&mut self, to: &[u8], size: usize, end: i64) -> Vec<(MailboxId, i64, u64)> {
        let place = |device: &u8| {
            let it = self.devices.get_mut(device).unwrap();
            let (seq, dropped) = it.append(size, end);
            (it.number, seq, dropped)
        };
        to.iter().map(place).collect()
    }
}

/// A link that the first device opens, used. The account number makes it its own.
async fn link(store: &Arc<dyn Store>, account: u8, model: &mut Model) -> Result<(), TestCaseError> {
    model.links += 1;
    let n = u16::from(account) << 8 | model.links;
    let free = (2..).find(|device| !model.devices.contains_key(device)).unwrap();
    assert!(store.open_link(opening(model.devices[&1].number, n)).await.unwrap());
    let linking = Linking {
        registration_id: 100 + u16::from(free),
        max_devices: DEVICES.into(),
        ..linking(n, model.links as u8)
    };
    let answer = store.link_device(linking.clone()).await.unwrap();
    if model.devices.len() == usize::from(DEVICES) {
        prop_assert!(matches!(answer, LinkAnswer::Full));
        return Ok(());
    }
    let linked = made(answer);
    prop_assert_eq!(linked.device, free);
    prop_assert!(model.numbers.insert(linked.mailbox), "a mailbox lives again");
    model.devices.insert(free, Mailbox::new(linked.mailbox));
    let again = store.link_device(linking).await.unwrap();
    prop_assert!(matches!(again, LinkAnswer::Renewed(renewed, _) if renewed == linked));
    Ok(())
}

/// Every case has an account of its own.
async fn check(opened: &mut Opened, account: u8, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut store = Arc::clone(&opened.store);
    let mailbox = add(&store, account, 1).await;
    let account_row = store.account(AccountId([account; 16])).await.unwrap().unwrap().row;
    let mut model = Model::new(mailbox);
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append { .. } | Step::AppendOwn { .. } => {
                let (dedup, size, life, to) = match step {
                    Step::Append { dedup, size, life } => (dedup, size, life, vec![1]),
                    Step::AppendOwn { dedup, size } => (100 + dedup, size, Life::Full, vec![]),
                    _ => unreachable!(),
                };
                let own = if life == Life::Short { SHORT } else { FULL };
                let (now_ms, expires_ms) = (model.now, model.now + own);
                let by_first = to.is_empty();
                let to = [to, model.others()].concat();
                let mut new = append(account, dedup, &to, size);
                if by_first {
                    new.recipients[0].authority = Authority::Own(1);
                }
                let new = Append { now_ms, expires_ms, life, ..new };
                let answer = submit(&store, new).await;
                if to.is_empty() || model.accepted.insert(dedup) {
                    let AppendAnswer::Stored(placed) = answer else { panic!("{answer:?}") };
                    let placed: Vec<_> =
                        placed.iter().map(|it| (it.mailbox, it.seq, it.dropped)).collect();
                    prop_assert_eq!(placed, model.append(&to, size, expires_ms));
                } else {
                    prop_assert_eq!(answer, AppendAnswer::Repeated);
                }
            }
            Step::Link => link(&store, account, &mut model).await?,
            Step::Remove(device) => {
                let removed = store.remove_device(account_row, device).await.unwrap();
                let expected = model.devices.remove(&device);
                prop_assert_eq!(removed, expected.map(|it| it.number));
                if let Some(gone) = removed {
                    prop_assert!(store.key_state(gone).await.unwrap().is_none());
                    prop_assert!(store.states(vec![gone]).await.unwrap().is_empty());
                    Mailbox::new(gone).check(&store, 0).await?;
                }
            }
            Step::AppendToNobody { dedup } => {
                let answer = submit(&store, append(account, 1000 + dedup, &[99], 10)).await;
                let missing = model.devices.keys().copied().collect();
                let mismatch = Mismatch { missing, extra: vec![99], ..Mismatch::default() };
                prop_assert_eq!(answer, AppendAnswer::Mismatch(mismatch));
            }
            Step::Later => model.now += SHORT,
            Step::Delete(seqs) => {
                for it in model.devices.values_mut() {
                    it.envelopes.retain(|seq, _| !seqs.contains(seq));
                }
                for number in &model.numbers {
                    store.delete(*number, seqs.clone());
                }
                store.settle().await.unwrap();
            }
            Step::Told(count) => {
                for it in model.devices.values_mut() {
                    it.dropped = it.dropped.saturating_sub(count);
                    store.told_dropped(it.number, count).await.unwrap();
                }
            }
            Step::Upload(ids) => {
                let answer = store.put_keys(mailbox, keys(&ids, n as u8 + 1)).await.unwrap();
                let spent =
                    ids.iter().any(|id| *id <= model.high_water && !model.waiting.contains(id));
                prop_assert_eq!(matches!(answer, PutKeys::Collision(_)), spent, "{:?}", answer);
                if let PutKeys::Collision(collision) = answer {
                    let known = collision.known;
                    let marks = (known.high_water, known.high_water_kem);
                    prop_assert_eq!(marks, (model.high_water, model.high_water));
                }
                if !spent {
                    model.high_water = model.high_water.max(*ids.last().unwrap());
                    model.waiting.extend(ids);
                }
            }
            Step::Take(one_time) => {
                let ours = fetch(account_row, Some(1));
                let pace = if one_time == OneTime::Take { ours.pace } else { NEVER };
                let taken = take(&store, Fetch { pace, ..ours }).await.remove(0);
                let expected =
                    if one_time == OneTime::Take { model.waiting.pop_first() } else { None };
                model.uses += u64::from(expected.is_none());
                prop_assert_eq!(taken.one_time.map(|key| key.id), expected);
                prop_assert_eq!(taken.kem.id, expected.unwrap_or(1));
            }
            Step::Reopen => {
                opened.reopen().await;
                store = Arc::clone(&opened.store);
            }
        }
        for it in model.devices.values() {
            it.check(&store, model.now).await?;
        }
        let there = store.devices(account_row).await.unwrap();
        let there: Vec<u8> = there.iter().map(|entry| entry.device).collect();
        prop_assert_eq!(there, model.devices.keys().copied().collect::<Vec<_>>());
        let state = store.key_state(mailbox).await.unwrap().unwrap();
        prop_assert_eq!(
            (state.one_time, state.one_time_kem, state.high_water, state.last_resort_uses),
            (model.waiting.len() as u32, model.waiting.len() as u32, model.high_water, model.uses)
        );
    }
    Ok(())
}

/// Random commands on one store, case after case.
pub(super) async fn does_as_the_model(mut opened: Opened) {
    let handle = tokio::runtime::Handle::current();
    let testing = tokio::task::spawn_blocking(move || {
        let config = ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() };
        let opened = std::cell::RefCell::new((&mut opened, 0));
        let steps = prop::collection::vec(step(), 1..40);
        TestRunner::new(config).run(&steps, |steps| {
            let (opened, account) = &mut *opened.borrow_mut();
            *account += 1;
            handle.block_on(check(opened, *account, steps))
        })
    });
    testing.await.unwrap().unwrap();
}
