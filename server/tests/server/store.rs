//! The behaviour of any store, and SQLite against a simple model under random commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;
use tuckseal_server::storage::sqlite::SqliteStore;
use tuckseal_server::storage::{
    AccountId, Append, AppendAnswer, Authority, Fetch, KemUse, KeySet, MailboxId, Mismatch,
    NewMessage, OneTime, PreKeyRow, PutKeys, Quota, ReadLimit, Recipient, RegisterAnswer,
    Registering, Store,
};

const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: usize::MAX };
const ACCESS: [u8; 32] = [9; 32];

fn open() -> (TempDir, Arc<dyn Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&folder.path().join("db")).unwrap();
    (folder, Arc::new(store))
}

fn key(id: u32) -> PreKeyRow {
    PreKeyRow { id, key: Bytes::from(id.to_be_bytes().repeat(8)), signature: Bytes::new() }
}

fn keys(ids: &[u32], digest: u8) -> KeySet {
    let list: Vec<PreKeyRow> = ids.iter().map(|id| key(*id)).collect();
    KeySet {
        signed: None,
        last_resort: None,
        one_time: list.clone(),
        one_time_kem: list,
        digest: [digest; 32],
        max_waiting: 1000,
    }
}

fn registering(account: u8, device: u8) -> Registering {
    Registering {
        fresh_account: AccountId([account; 16]),
        username: format!("name{account}"),
        identity_key: [account; 33],
        access_hash: ACCESS,
        device,
        registration_id: 100 + u16::from(device),
        token_hash: [device; 32],
        keys: KeySet { signed: Some(key(1)), last_resort: Some(key(1)), ..keys(&[], 0) },
    }
}

async fn add(store: &Arc<dyn Store>, account: u8, device: u8) -> MailboxId {
    match store.register(registering(account, device)).await.unwrap() {
        RegisterAnswer::As(id, mailbox) if id.0 == [account; 16] => mailbox,
        _ => panic!("not registered"),
    }
}

fn append(account: u8, dedup: u64, devices: &[u8], size: usize) -> Append {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&dedup.to_be_bytes());
    let message = |device: &u8| NewMessage {
        device: *device,
        registration_id: 100 + u32::from(*device),
        content: Bytes::from(vec![dedup as u8; size]),
    };
    let recipient = Recipient {
        account: AccountId([account; 16]),
        authority: Authority::AccessHash(ACCESS),
        dedup: id,
        messages: devices.iter().map(message).collect(),
    };
    Append {
        recipients: vec![recipient],
        shared: Bytes::new(),
        now_ms: 1000,
        expires_ms: 2000,
        quota: Quota { messages: 6, bytes: 60 },
    }
}

/// Of a submission for one recipient.
async fn submit(store: &Arc<dyn Store>, append: Append) -> AppendAnswer {
    let mut answers = store.append(append).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

async fn seqs(store: &Arc<dyn Store>, mailbox: MailboxId) -> Vec<i64> {
    let backlog = store.read_after(mailbox, 0, ALL).await.unwrap();
    backlog.envelopes.iter().map(|envelope| envelope.seq).collect()
}

#[tokio::test]
async fn bundles_of_all_devices_are_taken_together() {
    let (_folder, store) = open();
    let mailboxes = [add(&store, 1, 1).await, add(&store, 1, 2).await, add(&store, 1, 3).await];
    add(&store, 2, 1).await;
    for mailbox in &mailboxes[..2] {
        assert!(matches!(
            store.put_keys(*mailbox, keys(&[1, 2], 1)).await.unwrap(),
            PutKeys::Stored(_)
        ));
    }
    let account_row = store.account(AccountId([1; 16])).await.unwrap().unwrap().row;
    let fetch = Fetch { account_row, device: None, one_time: OneTime::Take };
    let taken = store.take(fetch).await.unwrap();
    let summary: Vec<_> = taken
        .iter()
        .map(|t| (t.device, t.one_time.as_ref().map(|k| k.id), t.kem_use, t.left))
        .collect();
    assert_eq!(
        summary,
        [
            (1, Some(1), KemUse::OneTime, (1, 1)),
            (2, Some(1), KemUse::OneTime, (1, 1)),
            (3, None, KemUse::LastResort, (0, 0)),
        ]
    );
    let one = store.take(Fetch { device: Some(2), ..fetch }).await.unwrap();
    assert_eq!((one.len(), one[0].one_time.as_ref().unwrap().id), (1, 2));
    let left =
        store.take(Fetch { device: Some(1), one_time: OneTime::Leave, ..fetch }).await.unwrap();
    assert_eq!((left[0].one_time.clone(), left[0].left), (None, (1, 1)));
    assert!(store.take(Fetch { device: Some(9), ..fetch }).await.unwrap().is_empty());
}

#[tokio::test]
async fn submission_to_several_devices_is_stored_for_all_or_for_none() {
    let (_folder, store) = open();
    let (first, second) = (add(&store, 1, 1).await, add(&store, 1, 2).await);
    let missing = submit(&store, append(1, 1, &[1], 10)).await;
    assert_eq!(
        missing,
        AppendAnswer::Mismatch(Mismatch { missing: vec![2], ..Mismatch::default() })
    );
    assert!(seqs(&store, first).await.is_empty());
    assert!(matches!(submit(&store, append(1, 1, &[1, 2], 10)).await, AppendAnswer::Stored(_)));
    assert_eq!((seqs(&store, first).await, seqs(&store, second).await), (vec![1], vec![1]));
    // Accepted before: that answer stands, whatever the devices are now.
    add(&store, 1, 3).await;
    assert_eq!(submit(&store, append(1, 1, &[1, 2], 10)).await, AppendAnswer::Repeated);
    let mut wrong = append(1, 2, &[1, 2, 3], 10);
    wrong.recipients[0].authority = Authority::AccessHash([8; 32]);
    assert_eq!(submit(&store, wrong).await, AppendAnswer::Unauthorised);
    assert_eq!(submit(&store, append(7, 2, &[1], 10)).await, AppendAnswer::Unauthorised);
    let mut unknown = append(7, 2, &[1], 10);
    unknown.recipients[0].authority = Authority::Token;
    assert_eq!(submit(&store, unknown).await, AppendAnswer::UnknownAccount);
}

#[tokio::test]
async fn reading_keeps_its_limits_and_says_what_it_covers() {
    let (_folder, store) = open();
    let mailbox = add(&store, 1, 1).await;
    for n in 1..=5 {
        submit(&store, append(1, n, &[1], 10)).await;
    }
    store.delete(mailbox, vec![4, 5]);
    store.settle().await.unwrap();
    let read =
        |cursor, messages, bytes| store.read_after(mailbox, cursor, ReadLimit { messages, bytes });
    let part = read(0, 2, 1000).await.unwrap();
    assert_eq!((part.envelopes.len(), part.covers, part.end), (2, 2, 5));
    let small = read(0, 9, 5).await.unwrap();
    assert_eq!((small.envelopes.len(), small.covers), (1, 1));
    let rest = read(2, 9, 1000).await.unwrap();
    assert_eq!((rest.envelopes.len(), rest.covers, rest.end), (1, 5, 5));
}

#[tokio::test]
async fn purge_goes_by_time_and_in_slices() {
    let (_folder, store) = open();
    let mailbox = add(&store, 1, 1).await;
    for n in 0..1200 {
        let append =
            Append { quota: Quota { messages: 9999, bytes: 999_999 }, ..append(1, n, &[1], 1) };
        store.append(append).await.unwrap();
    }
    assert_eq!(store.purge(1999, 1000).await.unwrap(), 0);
    assert_eq!(store.purge(2000, 1000).await.unwrap(), 500);
    assert_eq!(store.read_after(mailbox, 0, ALL).await.unwrap().dropped, 500);
    // 500 envelopes and 500 submissions, then the rest of both.
    let mut gone = 0;
    loop {
        match store.purge(2000, 1001).await.unwrap() {
            0 => break,
            n => gone += n,
        }
    }
    assert_eq!(gone, 700 + 1200);
    let backlog = store.read_after(mailbox, 0, ALL).await.unwrap();
    assert_eq!((backlog.envelopes.len(), backlog.dropped), (0, 1200));
    store.told_dropped(mailbox, 1200).await.unwrap();
    store.told_dropped(mailbox, 5).await.unwrap();
    assert_eq!(store.read_after(mailbox, 0, ALL).await.unwrap().dropped, 0);
    // Forgotten, so the same submission is new.
    assert!(matches!(submit(&store, append(1, 0, &[1], 1)).await, AppendAnswer::Stored(_)));
}

#[tokio::test]
async fn what_was_answered_survives_closing_and_opening() {
    let (folder, store) = open();
    let mailbox = add(&store, 1, 1).await;
    submit(&store, append(1, 1, &[1], 10)).await;
    submit(&store, append(1, 2, &[1], 10)).await;
    store.delete(mailbox, vec![1]);
    store.close().await.unwrap();
    assert!(store.append(append(1, 3, &[1], 10)).await.is_err());
    drop(store);
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("db")).unwrap());
    assert_eq!(seqs(&store, mailbox).await, [2]);
    submit(&store, append(1, 3, &[1], 10)).await;
    assert_eq!(seqs(&store, mailbox).await, [2, 3]);
}

#[derive(Debug, Clone)]
enum Step {
    Append { dedup: u64, size: usize },
    AppendToNobody { dedup: u64 },
    Delete(Vec<i64>),
    Told(u64),
    Upload(Vec<u32>),
    Take(OneTime),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..40u64, 1..25usize).prop_map(|(dedup, size)| Step::Append { dedup, size }),
        1 => (0..40u64).prop_map(|dedup| Step::AppendToNobody { dedup }),
        3 => prop::collection::vec(1..30i64, 0..4).prop_map(Step::Delete),
        1 => (0..4u64).prop_map(Step::Told),
        2 => prop::collection::btree_set(1..40u32, 1..6).prop_map(|ids| Step::Upload(ids.into_iter().collect())),
        4 => prop_oneof![4 => Just(OneTime::Take), 1 => Just(OneTime::Leave)].prop_map(Step::Take),
        1 => Just(Step::Reopen),
    ]
}

/// What one device with a quota of 6 envelopes and 60 bytes should have.
#[derive(Default)]
struct Model {
    next: i64,
    mailbox: BTreeMap<i64, usize>,
    accepted: BTreeSet<u64>,
    dropped: u64,
    waiting: BTreeSet<u32>,
    high_water: u32,
    uses: u64,
}

impl Model {
    fn append(&mut self, size: usize) -> u64 {
        self.next += 1;
        self.mailbox.insert(self.next, size);
        let before = self.dropped;
        while self.mailbox.len() > 6 || self.mailbox.values().sum::<usize>() > 60 {
            self.mailbox.pop_first();
            self.dropped += 1;
        }
        self.dropped - before
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_store_does_as_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(steps))?;
    }
}

async fn check(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (folder, mut store) = open();
    let mailbox = add(&store, 1, 1).await;
    let account_row = store.account(AccountId([1; 16])).await.unwrap().unwrap().row;
    let mut model = Model::default();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Append { dedup, size } => {
                let answer = submit(&store, append(1, dedup, &[1], size)).await;
                if model.accepted.insert(dedup) {
                    let dropped = model.append(size);
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
                let answer = submit(&store, append(1, 1000 + dedup, &[2], 10)).await;
                prop_assert!(matches!(answer, AppendAnswer::Mismatch(_)));
            }
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
                if !spent {
                    model.high_water = model.high_water.max(*ids.last().unwrap());
                    model.waiting.extend(ids);
                }
            }
            Step::Take(one_time) => {
                let taken = store
                    .take(Fetch { account_row, device: Some(1), one_time })
                    .await
                    .unwrap()
                    .remove(0);
                let expected =
                    if one_time == OneTime::Take { model.waiting.pop_first() } else { None };
                model.uses += u64::from(expected.is_none());
                prop_assert_eq!(taken.one_time.map(|key| key.id), expected);
                prop_assert_eq!(taken.kem.id, expected.unwrap_or(1));
            }
            Step::Reopen => {
                store.close().await.unwrap();
                store = Arc::new(SqliteStore::open(&folder.path().join("db")).unwrap());
            }
        }
        let backlog = store.read_after(mailbox, 0, ALL).await.unwrap();
        let held: Vec<(i64, usize)> =
            backlog.envelopes.iter().map(|e| (e.seq, e.content.len())).collect();
        prop_assert_eq!(
            held,
            model.mailbox.iter().map(|(seq, size)| (*seq, *size)).collect::<Vec<_>>()
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
