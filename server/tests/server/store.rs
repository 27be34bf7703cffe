//! The behaviour of any store: every test here and that of `model.rs` runs on SQLite and on PostgreSQL.

mod devices;
mod model;
mod nodes;
mod upgrade;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tuckseal_server::storage::{
    AccountId, Append, AppendAnswer, Authority, Fetch, Keep, KemUse, KeySet, Life, MailboxId,
    MakeAnswer, Mismatch, NewMessage, NodeId, Pace, PreKeyRow, PutKeys, Quota, ReadLimit,
    Recipient, RegisterAnswer, Registering, Store, Taken, TakenDevice, Waiting,
};

use crate::stores::Opened;
use model::does_as_the_model;

pub(crate) const ALL: ReadLimit = ReadLimit { messages: 100_000, bytes: usize::MAX };
const ACCESS: [u8; 32] = [9; 32];
/// When envelopes are taken in here.
pub(crate) const NOW: i64 = 1000;
/// When envelopes that expire at 2,000 have gone from any store.
pub(crate) const LATER: i64 = 2 * 60 * 60 * 1000;

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
        waiting: Waiting::Stay,
        digest: [digest; 32],
        max_waiting: 1000,
    }
}

pub(crate) fn registering(account: u8, device: u8) -> Registering {
    Registering {
        fresh_account: AccountId([account; 16]),
        username: format!("name{account}"),
        identity_key: [account; 33],
        access_hash: ACCESS,
        device,
        registration_id: 100 + u16::from(device),
        token_hash: [device; 32],
        day: 20_000,
        keys: KeySet { signed: Some(key(1)), last_resort: Some(key(1)), ..keys(&[], 0) },
    }
}

pub(crate) async fn add(store: &Arc<dyn Store>, account: u8, device: u8) -> MailboxId {
    match store.register(registering(account, device)).await.unwrap() {
        RegisterAnswer::As(id, mailbox, _) if id.0 == [account; 16] => mailbox,
        _ => panic!("not registered"),
    }
}

pub(crate) fn append(account: u8, dedup: u64, devices: &[u8], size: usize) -> Append {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&dedup.to_be_bytes());
    id[8] = account;
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
        now_ms: NOW,
        expires_ms: 2000,
        life: Life::Full,
        quota: Quota { messages: 6, bytes: 60 },
    }
}

/// Of a submission for one recipient.
async fn submit(store: &Arc<dyn Store>, append: Append) -> AppendAnswer {
    let mut answers = store.append(append).await.unwrap();
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

pub(crate) async fn seqs(store: &Arc<dyn Store>, mailbox: MailboxId) -> Vec<i64> {
    let backlog = store.read_after(mailbox, 0, ALL, NOW).await.unwrap();
    backlog.envelopes.iter().map(|envelope| envelope.seq).collect()
}

const NEVER: Pace = Pace { burst: 0, period_ms: 0 };

/// Whenever it comes, and not kept.
pub(crate) fn fetch(account_row: i64, device: Option<u8>) -> Fetch {
    let pace = Pace { burst: 1, period_ms: 0 };
    Fetch { account_row, device, now_ms: NOW, pace, keep: None }
}

async fn take(store: &Arc<dyn Store>, fetch: Fetch) -> Vec<TakenDevice> {
    match store.take(fetch).await.unwrap() {
        Taken::Now(taken) => taken,
        Taken::Before(_) => panic!("nothing was kept"),
    }
}

async fn one_time_prekeys_go_out_as_often_as_the_budget_lasts_whoever_asks(opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let mailbox = add(&nodes[0], 1, 1).await;
    nodes[0].put_keys(mailbox, keys(&(1..=20).collect::<Vec<_>>(), 1)).await.unwrap();
    let row = nodes[0].account(AccountId([1; 16])).await.unwrap().unwrap().row;
    let pace = Pace { burst: 3, period_ms: 1000 };
    let at = async |now_ms, n: usize| {
        let fetch = Fetch { now_ms, pace, ..fetch(row, None) };
        take(&nodes[n % 2], fetch).await.remove(0).one_time.map(|key| key.id)
    };
    let ids = [at(NOW, 0).await, at(NOW, 1).await, at(NOW, 0).await, at(NOW, 1).await];
    assert_eq!(ids, [Some(1), Some(2), Some(3), None]);
    assert_eq!((at(NOW + 999, 0).await, at(NOW + 1000, 1).await), (None, Some(4)));
    assert_eq!(at(NOW + 1999, 0).await, None);
    // It is full again after a while, and never more than full.
    let later = NOW + 1_000_000;
    let ids = [at(later, 0).await, at(later, 1).await, at(later, 0).await, at(later, 1).await];
    assert_eq!(ids, [Some(5), Some(6), Some(7), None]);
    let state = nodes[0].key_state(mailbox).await.unwrap().unwrap();
    assert_eq!((state.one_time, state.last_resort_uses), (13, 4));
    nodes[1].close().await.unwrap();
}

async fn one_time_prekeys_are_replaced_at_a_stroke_and_never_missing(opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let mailbox = add(&nodes[0], 1, 1).await;
    let row = nodes[0].account(AccountId([1; 16])).await.unwrap().unwrap().row;
    let replacing = |first: u32, digest: u8| KeySet {
        waiting: Waiting::Go,
        ..keys(&(first..first + 40).collect::<Vec<_>>(), digest)
    };
    nodes[0].put_keys(mailbox, replacing(1, 1)).await.unwrap();
    let store = Arc::clone(&nodes[1]);
    let (replaced, mut seen) = tokio::sync::watch::channel(0);
    let taker = tokio::spawn(async move {
        let mut ids = Vec::new();
        loop {
            // Half of what there is: the other half may have gone before this is told of it.
            if ids.len() % 20 == 19 && seen.changed().await.is_err() {
                return ids;
            }
            let taken = take(&store, fetch(row, None)).await.remove(0);
            assert_eq!(taken.kem_use, KemUse::OneTime, "for a moment there were none");
            ids.push(taken.one_time.expect("for a moment there were none").id);
        }
    });
    for n in 1..=20 {
        let state = nodes[0].put_keys(mailbox, replacing(1 + n * 40, n as u8 + 1)).await.unwrap();
        let PutKeys::Stored(state) = state else { panic!("{state:?}") };
        assert!(state.one_time <= 40 && state.one_time == state.one_time_kem);
        replaced.send(n).unwrap();
    }
    drop(replaced);
    let ids = taker.await.unwrap();
    assert!(ids.is_sorted_by(|id, next| id < next), "{ids:?}");
    // The same upload again is a repetition; an id that was seen is none that can replace.
    let again = nodes[0].put_keys(mailbox, replacing(801, 21)).await.unwrap();
    assert!(matches!(again, PutKeys::Stored(_)));
    let seen = nodes[0].put_keys(mailbox, replacing(840, 99)).await.unwrap();
    assert!(matches!(seen, PutKeys::Collision(collision) if collision.id == 840));
    let none = KeySet { waiting: Waiting::Go, ..keys(&[], 98) };
    let PutKeys::Stored(state) = nodes[0].put_keys(mailbox, none).await.unwrap() else { panic!() };
    assert_eq!((state.one_time, state.high_water), (0, 840));
    nodes[1].close().await.unwrap();
}

async fn request_that_comes_again_gets_its_answer_and_takes_nothing(mut opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let mailbox = add(&nodes[0], 1, 1).await;
    nodes[0].put_keys(mailbox, keys(&(1..=50).collect::<Vec<_>>(), 1)).await.unwrap();
    let row = nodes[0].account(AccountId([1; 16])).await.unwrap().unwrap().row;
    let answer: MakeAnswer = Arc::new(|taken: &[TakenDevice]| {
        Bytes::copy_from_slice(&taken[0].one_time.as_ref().unwrap().id.to_be_bytes())
    });
    let request = |request: u8| {
        let keep = Keep { request: [request; 16], answer: Arc::clone(&answer) };
        Fetch { keep: Some(keep), ..fetch(row, None) }
    };
    let got = |taken| match taken {
        Taken::Now(taken) => (true, answer(&taken)),
        Taken::Before(answer) => (false, answer),
    };
    let (first, again) = (nodes[0].take(request(1)).await, nodes[1].take(request(1)).await);
    let (first, again) = (got(first.unwrap()), got(again.unwrap()));
    assert_eq!((first.0, again.0, &first.1), (true, false, &again.1));
    // At the same time, at every node: one takes, and all have its answer.
    let asked = (0..16).map(|n| nodes[n % 2].take(request(2)));
    let answers = futures_util::future::try_join_all(asked).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(got).collect();
    assert_eq!(answers.iter().filter(|(now, _)| *now).count(), 1);
    assert!(answers.iter().all(|(_, answer)| *answer == answers[0].1));
    assert_eq!(nodes[0].key_state(mailbox).await.unwrap().unwrap().one_time, 48);
    nodes[1].close().await.unwrap();
    // It outlives the server, for a while.
    opened.reopen().await;
    let store = Arc::clone(&opened.store);
    assert!(matches!(store.take(request(1)).await.unwrap(), Taken::Before(_)));
    assert_eq!(
        (store.purge_answers(NOW).await.unwrap(), store.purge_answers(NOW + 1).await.unwrap()),
        (0, 2)
    );
    assert!(matches!(store.take(request(1)).await.unwrap(), Taken::Now(_)));
    assert_eq!(store.key_state(mailbox).await.unwrap().unwrap().one_time, 47);
}

async fn bundles_of_all_devices_are_taken_together(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailboxes = [add(&store, 1, 1).await, add(&store, 1, 2).await, add(&store, 1, 3).await];
    add(&store, 2, 1).await;
    for mailbox in &mailboxes[..2] {
        assert!(matches!(
            store.put_keys(*mailbox, keys(&[1, 2], 1)).await.unwrap(),
            PutKeys::Stored(_)
        ));
    }
    let account_row = store.account(AccountId([1; 16])).await.unwrap().unwrap().row;
    let fetch = fetch(account_row, None);
    let taken = take(&store, fetch.clone()).await;
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
    let one = take(&store, Fetch { device: Some(2), ..fetch.clone() }).await;
    assert_eq!((one.len(), one[0].one_time.as_ref().unwrap().id), (1, 2));
    let left = take(&store, Fetch { device: Some(1), pace: NEVER, ..fetch.clone() }).await;
    assert_eq!((left[0].one_time.clone(), left[0].left), (None, (1, 1)));
    assert!(take(&store, Fetch { device: Some(9), ..fetch }).await.is_empty());
}

async fn submission_to_several_devices_is_stored_for_all_or_for_none(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let (first, second) = (add(&store, 1, 1).await, add(&store, 1, 2).await);
    let missing = submit(&store, append(1, 1, &[1], 10)).await;
    assert_eq!(
        missing,
        AppendAnswer::Mismatch(Mismatch { missing: vec![2], ..Mismatch::default() })
    );
    assert!(seqs(&store, first).await.is_empty());
    assert!(matches!(submit(&store, append(1, 1, &[1, 2], 10)).await, AppendAnswer::Stored(_)));
    assert_eq!((seqs(&store, first).await, seqs(&store, second).await), (vec![1], vec![1]));
    // Each message goes to its device, whatever their order.
    let mut turned = append(1, 3, &[2, 1], 10);
    turned.recipients[0].messages[0].content = Bytes::from_static(b"to the second");
    let AppendAnswer::Stored(placed) = submit(&store, turned).await else { panic!("not stored") };
    assert_eq!(placed.iter().map(|it| it.mailbox).collect::<Vec<_>>(), [second, first]);
    let at_second = store.read_after(second, 1, ALL, NOW).await.unwrap().envelopes;
    assert_eq!(at_second[0].content, b"to the second"[..]);
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

async fn reading_keeps_its_limits_and_says_what_it_covers(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailbox = add(&store, 1, 1).await;
    for n in 1..=5 {
        submit(&store, append(1, n, &[1], 10)).await;
    }
    store.delete(mailbox, vec![4, 5]);
    store.settle().await.unwrap();
    let read = |cursor, messages, bytes| {
        store.read_after(mailbox, cursor, ReadLimit { messages, bytes }, NOW)
    };
    let part = read(0, 2, 1000).await.unwrap();
    assert_eq!((part.envelopes.len(), part.covers, part.end), (2, 2, 5));
    let small = read(0, 9, 5).await.unwrap();
    assert_eq!((small.envelopes.len(), small.covers), (1, 1));
    let rest = read(2, 9, 1000).await.unwrap();
    assert_eq!((rest.envelopes.len(), rest.covers, rest.end), (1, 5, 5));
}

async fn place_that_is_acknowledged_again_and_again_is_deleted_once(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailboxes = [add(&store, 1, 1).await, add(&store, 2, 1).await];
    for account in 1..=2 {
        submit(&store, append(account, 1, &[1], 10)).await;
        submit(&store, append(account, 2, &[1], 10)).await;
    }
    for _ in 0..60 {
        store.delete(mailboxes[0], vec![1; 100_000]);
    }
    // Many that there are not, before those that there are.
    store.delete(mailboxes[0], (-10_000..0).collect());
    store.delete(mailboxes[1], vec![2]);
    store.settle().await.unwrap();
    assert_eq!(
        (seqs(&store, mailboxes[0]).await, seqs(&store, mailboxes[1]).await),
        (vec![2], vec![1])
    );
}

async fn submission_for_nobody_leaves_nothing_behind(opened: Opened) {
    let store = Arc::clone(&opened.store);
    add(&store, 1, 1).await;
    let shared = |n| Bytes::from(vec![n; 2000]);
    let nobody = Append { recipients: vec![], shared: shared(1), ..append(1, 1, &[], 0) };
    assert_eq!(store.append(nobody).await.unwrap(), []);
    // Of the only device of an account to the others.
    let mut own = Append { shared: shared(2), ..append(1, 2, &[], 0) };
    own.recipients[0].authority = Authority::Own(1);
    assert_eq!(submit(&store, own).await, AppendAnswer::Stored(vec![]));
    let refused = Append { shared: shared(3), ..append(7, 3, &[1], 10) };
    assert_eq!(submit(&store, refused).await, AppendAnswer::Unauthorised);
    assert_eq!(opened.number("SELECT count(*) FROM payload").await, 0);
}

async fn purge_goes_by_time_and_in_slices(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailbox = add(&store, 1, 1).await;
    for n in 0..1200 {
        let append =
            Append { quota: Quota { messages: 9999, bytes: 999_999 }, ..append(1, n, &[1], 1) };
        store.append(append).await.unwrap();
    }
    assert_eq!(store.purge(1999, 1000).await.unwrap(), 0);
    // 1,200 envelopes in one go or in several, then 1,200 submissions in several.
    let (mut gone, mut steps) = (0, 0);
    loop {
        match store.purge(LATER, 1001).await.unwrap() {
            0 => break,
            n => (gone, steps) = (gone + n, steps + 1),
        }
    }
    assert!(gone == 1200 + 1200 && steps >= 3, "{gone} in {steps} steps");
    let backlog = store.read_after(mailbox, 0, ALL, NOW).await.unwrap();
    assert_eq!((backlog.envelopes.len(), backlog.dropped), (0, 1200));
    store.told_dropped(mailbox, 1200).await.unwrap();
    store.told_dropped(mailbox, 5).await.unwrap();
    assert_eq!(store.read_after(mailbox, 0, ALL, NOW).await.unwrap().dropped, 0);
    // Forgotten, so the same submission is new.
    assert!(matches!(submit(&store, append(1, 0, &[1], 1)).await, AppendAnswer::Stored(_)));
}

async fn what_ends_late_does_not_keep_what_came_after_it(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailbox = add(&store, 1, 1).await;
    // Taken in while the clock stood in another age, or envelopes were kept for longer.
    let late = Append { now_ms: i64::MAX / 4, expires_ms: i64::MAX / 2, ..append(1, 1, &[1], 10) };
    submit(&store, late).await;
    submit(&store, append(1, 2, &[1], 10)).await;
    submit(&store, append(1, 3, &[1], 10)).await;
    let mut gone = 0;
    loop {
        match store.purge(LATER, NOW + 1).await.unwrap() {
            0 => break,
            n => gone += n,
        }
    }
    assert_eq!(gone, 2 + 2);
    assert_eq!(seqs(&store, mailbox).await, [1]);
    assert_eq!(store.read_after(mailbox, 0, ALL, NOW).await.unwrap().dropped, 2);
    assert_eq!(opened.number("SELECT count(*) FROM submission").await, 1);
    assert_eq!(submit(&store, append(1, 1, &[1], 10)).await, AppendAnswer::Repeated);
    assert!(matches!(submit(&store, append(1, 2, &[1], 10)).await, AppendAnswer::Stored(_)));
}

/// Of what is over, some ends with what others end with, too.
async fn full_mailboxes_of_one_submission_all_lose_their_oldest(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mut mailboxes = Vec::new();
    for account in 1..=5 {
        mailboxes.push(add(&store, account, 1).await);
    }
    let new = |dedup: u64, size: usize| Append {
        recipients: (1..=5).map(|to| append(to, dedup, &[1], size).recipients.remove(0)).collect(),
        shared: Bytes::from(vec![dedup as u8; 2]),
        ..append(1, 0, &[], 0)
    };
    for n in 1..=6 {
        store.append(new(n, 3)).await.unwrap();
    }
    // One holds fewer, and its oldest is not its first.
    store.delete(mailboxes[2], vec![1, 3]);
    store.settle().await.unwrap();
    let dropped = async |dedup, size| {
        let answers = store.append(new(dedup, size)).await.unwrap();
        let placed = answers.into_iter().map(|answer| match answer {
            AppendAnswer::Stored(placed) => placed[0].dropped,
            other => panic!("{other:?}"),
        });
        placed.collect::<Vec<u64>>()
    };
    assert_eq!(dropped(7, 3).await, [1, 1, 0, 1, 1]);
    // By their bytes now: 46 of 60 leave room for the newest two of five bytes.
    assert_eq!(dropped(8, 46).await, [4, 4, 3, 4, 4]);
    for (n, mailbox) in mailboxes.iter().enumerate() {
        assert_eq!(seqs(&store, *mailbox).await, [6, 7, 8], "{n}");
        let dropped = if n == 2 { 3 } else { 5 };
        assert_eq!(store.read_after(*mailbox, 0, ALL, NOW).await.unwrap().dropped, dropped);
    }
    assert_eq!(opened.number("SELECT count(*) FROM payload WHERE refs = 5").await, 3);
    assert_eq!(opened.number("SELECT count(*) FROM payload").await, 3);
}

async fn envelope_of_a_short_life_is_not_read_after_it_and_ends_without_a_gap(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailbox = add(&store, 1, 1).await;
    let short =
        |dedup| Append { expires_ms: 1500, life: Life::Short, ..append(1, dedup, &[1], 10) };
    submit(&store, append(1, 1, &[1], 10)).await;
    submit(&store, short(2)).await;
    submit(&store, Append { expires_ms: i64::MAX / 2, ..append(1, 3, &[1], 10) }).await;
    let read = async |limit, at| {
        let backlog = store.read_after(mailbox, 0, limit, at).await.unwrap();
        let seqs: Vec<i64> = backlog.envelopes.iter().map(|envelope| envelope.seq).collect();
        (seqs, backlog.covers, backlog.dropped)
    };
    assert_eq!(read(ALL, 1499).await, (vec![1, 2, 3], 3, 0));
    assert_eq!(read(ALL, 1500).await, (vec![1, 3], 3, 0));
    // The same where the mailbox is read in parts.
    let part = ReadLimit { messages: 2, bytes: 25 };
    assert_eq!(read(part, 1499).await, (vec![1, 2], 2, 0));
    assert_eq!(read(part, 1500).await, (vec![1, 3], 3, 0));
    store.put_push(mailbox, Some(Bytes::from_static(b"somewhere"))).await.unwrap();
    let waits = async |at| store.to_push(vec![mailbox], at).await.unwrap()[0].oldest_ms;
    store.delete(mailbox, vec![1, 3]);
    store.settle().await.unwrap();
    assert_eq!((waits(1499).await, waits(1500).await), (Some(NOW), None));
    submit(&store, append(1, 4, &[1], 10)).await;
    while store.purge(LATER, 0).await.unwrap() > 0 {}
    // Who sent the other one did not say that it might be lost.
    assert_eq!(read(ALL, NOW).await, (vec![], 4, 1));
    for dedup in 5..=10 {
        let answer = submit(&store, append(1, dedup, &[1], 10)).await;
        let AppendAnswer::Stored(placed) = answer else { panic!("{answer:?}") };
        assert_eq!(placed[0].dropped, 0, "the mailbox is not empty");
    }
}

async fn devices_are_located_under_the_rules_of_a_submission(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let (first, second) = (add(&store, 1, 1).await, add(&store, 1, 2).await);
    let locate = async |new: Append| store.locate(new.recipients).await.unwrap().remove(0);
    store.claim(second, NodeId(7)).await.unwrap();
    let found = locate(append(1, 1, &[1, 2], 10)).await.unwrap();
    assert_eq!(found.iter().map(|it| it.mailbox).collect::<Vec<_>>(), [first, second]);
    // One node alone knows of no other.
    assert!(matches!(found[1].node, None | Some(NodeId(7))) && found[0].node.is_none());
    let missing = Mismatch { missing: vec![2], ..Mismatch::default() };
    let refused = locate(append(1, 1, &[1], 10)).await;
    assert_eq!(refused, Err(AppendAnswer::Mismatch(missing)));
    assert_eq!(locate(append(7, 1, &[1], 10)).await, Err(AppendAnswer::Unauthorised));
    let mut wrong = append(1, 1, &[1, 2], 10);
    wrong.recipients[0].authority = Authority::AccessHash([8; 32]);
    assert_eq!(locate(wrong).await, Err(AppendAnswer::Unauthorised));
    // A device more is seen at once, also where the account was looked up before.
    add(&store, 1, 3).await;
    let missing = Mismatch { missing: vec![3], ..Mismatch::default() };
    let refused = locate(append(1, 1, &[1, 2], 10)).await;
    assert_eq!(refused, Err(AppendAnswer::Mismatch(missing)));
    // Nothing was stored or noted.
    assert!(seqs(&store, first).await.is_empty());
    assert!(matches!(submit(&store, append(1, 1, &[1, 2, 3], 10)).await, AppendAnswer::Stored(_)));
}

async fn what_was_answered_survives_closing_and_opening(mut opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailbox = add(&store, 1, 1).await;
    submit(&store, append(1, 1, &[1], 10)).await;
    submit(&store, append(1, 2, &[1], 10)).await;
    store.delete(mailbox, vec![1]);
    opened.reopen().await;
    assert!(store.append(append(1, 3, &[1], 10)).await.is_err());
    let store = Arc::clone(&opened.store);
    assert_eq!(seqs(&store, mailbox).await, [2]);
    submit(&store, append(1, 3, &[1], 10)).await;
    assert_eq!(seqs(&store, mailbox).await, [2, 3]);
}

async fn envelopes_of_one_submission_share_what_they_have_in_common(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let mailboxes = [add(&store, 1, 1).await, add(&store, 2, 1).await, add(&store, 3, 1).await];
    let shared = Bytes::from(vec![5; 30]);
    let recipients = |dedup: u64| {
        let of = |account| append(account, dedup, &[1], 4).recipients.remove(0);
        let mut recipients: Vec<Recipient> = (1..=4).map(of).collect();
        // Nobody has number 4, and the third shows another's key.
        recipients[2].authority = Authority::AccessHash([1; 32]);
        recipients
    };
    let new = |dedup| Append {
        recipients: recipients(dedup),
        shared: shared.clone(),
        ..append(1, dedup, &[1], 4)
    };
    let answers = store.append(new(7)).await.unwrap();
    assert!(matches!(&answers[..2], [AppendAnswer::Stored(_), AppendAnswer::Stored(_)]));
    assert_eq!(answers[2..], [AppendAnswer::Unauthorised, AppendAnswer::Unauthorised]);
    let again = store.append(new(7)).await.unwrap();
    assert_eq!(again[..2], [AppendAnswer::Repeated, AppendAnswer::Repeated]);
    for mailbox in &mailboxes[..2] {
        let backlog = store.read_after(*mailbox, 0, ALL, NOW).await.unwrap();
        let whole = backlog.envelopes[0].clone().whole();
        assert_eq!(whole, [&[7; 4][..], &shared].concat());
    }
    assert!(seqs(&store, mailboxes[2]).await.is_empty());
    // 34 bytes each: the second leaves the first, the third does not (the quota is 60).
    store.delete(mailboxes[0], vec![1]);
    store.settle().await.unwrap();
    let still = store.read_after(mailboxes[1], 0, ALL, NOW).await.unwrap();
    assert_eq!(still.envelopes[0].shared, shared);
    let AppendAnswer::Stored(placed) = &store.append(new(8)).await.unwrap()[1] else { panic!() };
    assert_eq!((placed[0].seq, placed[0].dropped), (2, 1));
    let now = store.read_after(mailboxes[1], 0, ALL, NOW).await.unwrap();
    assert_eq!((now.envelopes.len(), now.envelopes[0].shared.clone()), (1, shared));
}

/// Two nodes where the store allows it.
async fn writers_readers_and_deletions_at_once_lose_nothing_and_keep_the_order(opened: Opened) {
    const EACH: u64 = 60;
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let mailboxes = [add(&nodes[0], 1, 1).await, add(&nodes[0], 2, 1).await];
    let sender = |sender: u64| {
        let store = Arc::clone(&nodes[sender as usize % 2]);
        tokio::spawn(async move {
            for n in 0..EACH {
                let dedup = sender * 1000 + n;
                let of = |account| append(account, dedup, &[1], 8).recipients.remove(0);
                // In opposite orders, so that locks taken as they come would stop each other.
                let mut recipients = vec![of(1), of(2)];
                if sender % 2 == 1 {
                    recipients.reverse();
                }
                let quota = Quota { messages: 10_000, bytes: 1_000_000 };
                let new = Append { recipients, quota, ..append(1, dedup, &[1], 8) };
                let answers = store.append(new).await.unwrap();
                assert!(answers.iter().all(|answer| matches!(answer, AppendAnswer::Stored(_))));
            }
        })
    };
    let senders: Vec<_> = (0..6).map(sender).collect();
    let mut seen = [Vec::new(), Vec::new()];
    let mut at = [0, 0];
    while seen.iter().any(|seen| seen.len() < 6 * EACH as usize) {
        for n in 0..2 {
            let limit = ReadLimit { messages: 32, bytes: 1_000_000 };
            let backlog = nodes[n].read_after(mailboxes[n], at[n], limit, NOW).await.unwrap();
            at[n] = backlog.covers;
            let new: Vec<i64> = backlog.envelopes.iter().map(|envelope| envelope.seq).collect();
            nodes[1 - n].delete(mailboxes[n], new.clone());
            seen[n].extend(new);
        }
    }
    for sender in senders {
        sender.await.unwrap();
    }
    for seen in &seen {
        assert_eq!(*seen, (1..=6 * EACH as i64).collect::<Vec<_>>());
    }
    for node in &nodes {
        node.settle().await.unwrap();
    }
    for mailbox in mailboxes {
        assert!(seqs(&nodes[0], mailbox).await.is_empty());
    }
    nodes[1].close().await.unwrap();
}

async fn prekey_goes_out_once_whoever_takes_and_uploads_at_the_same_time(opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let mailbox = add(&nodes[0], 1, 1).await;
    add(&nodes[0], 1, 2).await;
    let account_row = nodes[0].account(AccountId([1; 16])).await.unwrap().unwrap().row;
    let fetch = fetch(account_row, None);
    let takers: Vec<_> = (0..8)
        .map(|taker| {
            let (store, fetch) = (Arc::clone(&nodes[taker % 2]), fetch.clone());
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for _ in 0..30 {
                    let taken = take(&store, fetch.clone()).await;
                    ids.extend(taken.iter().filter_map(|t| t.one_time.as_ref().map(|k| k.id)));
                }
                ids
            })
        })
        .collect();
    for n in 0..10 {
        let ids: Vec<u32> = (1 + n * 10..=10 + n * 10).collect();
        let answer = nodes[0].put_keys(mailbox, keys(&ids, n as u8 + 1)).await.unwrap();
        assert!(matches!(answer, PutKeys::Stored(_)));
    }
    let mut all = BTreeSet::new();
    for taker in takers {
        for id in taker.await.unwrap() {
            assert!(all.insert(id), "prekey {id} went out twice");
        }
    }
    let state = nodes[0].key_state(mailbox).await.unwrap().unwrap();
    assert_eq!(state.one_time as usize, 100 - all.len());
    // Two devices, 8 takers, 30 takes: whoever got no one-time KEM prekey got the last resort.
    assert_eq!(state.last_resort_uses as usize, 240 - all.len());
    nodes[1].close().await.unwrap();
}

macro_rules! on_every_store {
    ($($name:ident)+) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Opened::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Opened::postgres().await).await;
            })+
        }
    };
}

pub(crate) use on_every_store;

on_every_store! {
    bundles_of_all_devices_are_taken_together
    devices_are_located_under_the_rules_of_a_submission
    envelope_of_a_short_life_is_not_read_after_it_and_ends_without_a_gap
    does_as_the_model
    full_mailboxes_of_one_submission_all_lose_their_oldest
    envelopes_of_one_submission_share_what_they_have_in_common
    place_that_is_acknowledged_again_and_again_is_deleted_once
    one_time_prekeys_go_out_as_often_as_the_budget_lasts_whoever_asks
    one_time_prekeys_are_replaced_at_a_stroke_and_never_missing
    prekey_goes_out_once_whoever_takes_and_uploads_at_the_same_time
    request_that_comes_again_gets_its_answer_and_takes_nothing
    purge_goes_by_time_and_in_slices
    reading_keeps_its_limits_and_says_what_it_covers
    submission_for_nobody_leaves_nothing_behind
    submission_to_several_devices_is_stored_for_all_or_for_none
    what_ends_late_does_not_keep_what_came_after_it
    what_was_answered_survives_closing_and_opening
    writers_readers_and_deletions_at_once_lose_nothing_and_keep_the_order
}
