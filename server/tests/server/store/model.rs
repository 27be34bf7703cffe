//! Random commands on any store, and what a simple model says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tuckseal_server::storage::{AccountId, Append, AppendAnswer, Fetch, Life, PutKeys};

use super::{ALL, NEVER, NOW, add, append, fetch, keys, submit, take};
use crate::stores::Opened;

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
    AppendToNobody {
        dedup: u64,
    },
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
#[derive(Default)]
struct Model {
    now: i64,
    next: i64,
    /// Size and end of each.
    mailbox: BTreeMap<i64, (usize, i64)>,
    accepted: BTreeSet<u64>,
    dropped: u64,
    waiting: BTreeSet<u32>,
    high_water: u32,
    uses: u64,
}

impl Model {
    fn append(&mut self, size: usize, end: i64) -> u64 {
        self.next += 1;
        self.mailbox.insert(self.next, (size, end));
        let before = self.dropped;
        // What has ended takes its room until it is taken away.
        while self.mailbox.len() > 6 || self.mailbox.values().map(|it| it.0).sum::<usize>() > 60 {
            self.mailbox.pop_first();
            self.dropped += 1;
        }
        self.dropped - before
    }
}

/// Every case has an account of its own.
async fn check(opened: &mut Opened, account: u8, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut store = Arc::clone(&opened.store);
    let mailbox = add(&store, account, 1).await;
    let account_row = store.account(AccountId([account; 16])).await.unwrap().unwrap().row;
    let mut model = Model { now: NOW, ..Model::default() };
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append { dedup, size, life } => {
                let own = if life == Life::Short { SHORT } else { FULL };
                let (now_ms, expires_ms) = (model.now, model.now + own);
                let new = Append { now_ms, expires_ms, life, ..append(account, dedup, &[1], size) };
                let answer = submit(&store, new).await;
                if model.accepted.insert(dedup) {
                    let dropped = model.append(size, expires_ms);
                    let AppendAnswer::Stored(placed) = answer else { panic!("{answer:?}") };
                    prop_assert_eq!(
                        (placed[0].mailbox, placed[0].seq, placed[0].dropped),
                        (mailbox, model.next, dropped)
                    );
                } else {
                    prop_assert_eq!(answer, AppendAnswer::Repeated);
                }
            }
            Step::AppendToNobody { dedup } => {
                let answer = submit(&store, append(account, 1000 + dedup, &[2], 10)).await;
                prop_assert!(matches!(answer, AppendAnswer::Mismatch(_)));
            }
            Step::Later => model.now += SHORT,
            Step::Delete(seqs) => {
                model.mailbox.retain(|seq, _| !seqs.contains(seq));
                store.delete(mailbox, seqs);
                store.settle().await.unwrap();
            }
            Step::Told(count) => {
                model.dropped = model.dropped.saturating_sub(count);
                store.told_dropped(mailbox, count).await.unwrap();
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
        let backlog = store.read_after(mailbox, 0, ALL, model.now).await.unwrap();
        let held: Vec<(i64, usize)> =
            backlog.envelopes.iter().map(|e| (e.seq, e.content.len())).collect();
        prop_assert_eq!(
            held,
            model
                .mailbox
                .iter()
                .filter(|(_, (_, end))| *end > model.now)
                .map(|(seq, (size, _))| (*seq, *size))
                .collect::<Vec<_>>()
        );
        prop_assert_eq!(
            (backlog.covers, backlog.end, backlog.dropped),
            (model.next, model.next, model.dropped)
        );
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
