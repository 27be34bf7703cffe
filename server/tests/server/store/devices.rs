//! Linking, listing and removing devices, on any store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use tuckseal_server::storage::{
    AccountId, Append, AppendAnswer, Authority, DeviceEntry, Fetch, Keep, KeySet, LinkAnswer,
    LinkState, Linked, Linking, MailboxId, Mismatch, NodeId, OpeningLink, PutKeys, Quota, Store,
    Taken,
};

use super::{ALL, NOW, add, append, fetch, key, keys, registering, seqs, submit, take};
use crate::stores::Opened;

pub(super) const LARGE: Quota = Quota { messages: 100_000, bytes: 100_000_000 };

/// A link that is open until 2,000.
pub(super) fn opening(by: MailboxId, n: u16) -> OpeningLink {
    let (mut id, mut token_hash) = ([0; 16], [0; 32]);
    id[..2].copy_from_slice(&n.to_be_bytes());
    token_hash[..2].copy_from_slice(&n.to_be_bytes());
    OpeningLink { by, id, token_hash, expires_ms: 2000 }
}

/// The use of it by this registration.
pub(super) fn linking(n: u16, registration: u8) -> Linking {
    Linking {
        link: opening(MailboxId(0), n).token_hash,
        now_ms: NOW,
        registration: [registration; 32],
        registration_id: 102,
        name: Bytes::from_static(b"encrypted"),
        token_hash: [registration; 32],
        keys: KeySet {
            signed: Some(key(1)),
            last_resort: Some(key(1)),
            ..keys(&[1, 2, 3], registration)
        },
        max_devices: 6,
        day: 20_001,
    }
}

/// What was made.
pub(super) fn made(answer: LinkAnswer) -> Linked {
    match answer {
        LinkAnswer::Made(linked) => linked,
        LinkAnswer::Renewed(..) => panic!("renewed"),
        LinkAnswer::NoLink => panic!("no link"),
        LinkAnswer::Full => panic!("full"),
    }
}

/// A further device of the account by a link of the device with this mailbox.
async fn link(store: &Arc<dyn Store>, by: MailboxId, n: u16) -> Linked {
    assert!(store.open_link(opening(by, n)).await.unwrap());
    made(store.link_device(linking(n, n as u8)).await.unwrap())
}

async fn account_row(store: &Arc<dyn Store>) -> i64 {
    store.account(AccountId([1; 16])).await.unwrap().unwrap().row
}

fn to(devices: &[u8], dedup: u64) -> Append {
    Append { quota: LARGE, ..append(1, dedup, devices, 10) }
}

async fn link_makes_one_device_and_the_same_registration_again_renews_it(opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let store = &nodes[0];
    let first = add(store, 1, 1).await;
    assert_eq!(submit(&nodes[1], to(&[1], 1)).await, submit_stored(first, 1));
    assert!(store.open_link(opening(first, 1)).await.unwrap());
    let row = account_row(store).await;
    let id = opening(first, 1).id;
    let open = LinkState { account_row: row, device: None };
    assert_eq!(nodes[1].link(id, NOW).await.unwrap(), Some(open));
    let of = nodes[1].link_of_token(linking(1, 5).link, NOW).await.unwrap().unwrap();
    assert_eq!((of.account_row, of.identity_key), (row, [1; 33]));

    let linked = made(nodes[1].link_device(linking(1, 5)).await.unwrap());
    assert!(linked.account == AccountId([1; 16]) && linked.account_row == row);
    assert_eq!(linked.device, 2);
    let used = LinkState { account_row: row, device: Some(2) };
    assert_eq!(store.link(id, NOW).await.unwrap(), Some(used));
    let device = store.device(AccountId([1; 16]), 2).await.unwrap().unwrap();
    assert_eq!((device.mailbox, device.token_hash), (linked.mailbox, [5; 32]));
    assert_eq!(store.key_state(linked.mailbox).await.unwrap().unwrap().one_time, 3);
    // Seen at once where the account was looked up before.
    let missing = Mismatch { missing: vec![2], ..Mismatch::default() };
    assert_eq!(submit(&nodes[1], to(&[1], 2)).await, AppendAnswer::Mismatch(missing));
    assert!(matches!(submit(&nodes[1], to(&[1, 2], 2)).await, AppendAnswer::Stored(_)));
    assert_eq!(seqs(store, linked.mailbox).await, [1]);

    // Another registration does not get it; the same one does, with another token, and no prekey is offered again.
    let taken = take(store, fetch(row, Some(2))).await.remove(0);
    assert_eq!(taken.one_time.unwrap().id, 1);
    assert!(matches!(store.link_device(linking(1, 6)).await.unwrap(), LinkAnswer::NoLink));
    let again = Linking { token_hash: [55; 32], ..linking(1, 5) };
    let before = store.claim(linked.mailbox, NodeId(7)).await.unwrap().unwrap().epoch;
    let LinkAnswer::Renewed(renewed, epoch) = nodes[1].link_device(again).await.unwrap() else {
        panic!("not renewed")
    };
    assert!(renewed == linked && epoch >= before);
    let device = store.device(AccountId([1; 16]), 2).await.unwrap().unwrap();
    assert_eq!(device.token_hash, [55; 32]);
    assert_eq!(take(store, fetch(row, Some(2))).await.remove(0).one_time.unwrap().id, 2);
    let entry = |device, registration_id, name: &'static [u8], made_day| DeviceEntry {
        device,
        registration_id,
        name: Bytes::from_static(name),
        made_day,
    };
    let listed = nodes[1].devices(row).await.unwrap();
    assert_eq!(listed, [entry(1, 101, b"", 20_000), entry(2, 102, b"encrypted", 20_001)]);
    assert!(store.name_device(row, 1, Bytes::from_static(b"other")).await.unwrap());
    assert!(!store.name_device(row, 3, Bytes::from_static(b"other")).await.unwrap());
    assert_eq!(store.devices(row).await.unwrap()[0], entry(1, 101, b"other", 20_000));
    nodes[1].close().await.unwrap();
}

fn submit_stored(mailbox: MailboxId, seq: i64) -> AppendAnswer {
    use tuckseal_server::storage::Placed;
    AppendAnswer::Stored(vec![Placed { mailbox, seq, dropped: 0, node: None }])
}

async fn link_ends_with_its_time_another_link_a_registration_and_a_removal(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let first = add(&store, 1, 1).await;
    let second = link(&store, first, 1).await;
    let row = account_row(&store).await;
    let is_open = async |n| {
        let link = store.link(opening(first, n).id, NOW).await.unwrap();
        let of_token = store.link_of_token(opening(first, n).token_hash, NOW).await.unwrap();
        assert_eq!(link.is_some(), of_token.is_some());
        link.is_some()
    };
    // It ends with its time.
    assert!(store.open_link(opening(first, 2)).await.unwrap());
    let late = Linking { now_ms: 2000, ..linking(2, 2) };
    assert!(store.link_of_token(late.link, 2000).await.unwrap().is_none());
    assert!(store.link(opening(first, 2).id, 2000).await.unwrap().is_none());
    assert!(matches!(store.link_device(late).await.unwrap(), LinkAnswer::NoLink));
    // Another one takes its place; the one that was used stays for its repetition.
    assert!(store.open_link(opening(second.mailbox, 3)).await.unwrap());
    assert_eq!((is_open(1).await, is_open(2).await, is_open(3).await), (true, false, true));
    assert!(matches!(store.link_device(linking(2, 2)).await.unwrap(), LinkAnswer::NoLink));
    // Whoever registers the account anew trusts none of them, and keeps its devices.
    add(&store, 1, 1).await;
    assert_eq!((is_open(1).await, is_open(3).await), (true, false));
    assert_eq!(store.devices(row).await.unwrap().len(), 2);
    // Nor does a device that goes come back by a link that it has opened.
    assert!(store.open_link(opening(second.mailbox, 4)).await.unwrap());
    assert_eq!(store.remove_device(row, 2).await.unwrap(), Some(second.mailbox));
    assert_eq!((is_open(1).await, is_open(4).await), (false, false));
    for n in [1, 4] {
        assert!(matches!(
            store.link_device(linking(n, n as u8)).await.unwrap(),
            LinkAnswer::NoLink
        ));
    }
    assert!(!store.open_link(opening(second.mailbox, 5)).await.unwrap());
    assert_eq!(opened.number("SELECT count(*) FROM device_link").await, 0);
    assert!(store.open_link(opening(first, 6)).await.unwrap());
    assert_eq!(
        (store.purge_links(1999).await.unwrap(), store.purge_links(2000).await.unwrap()),
        (0, 1)
    );
}

async fn of_many_who_use_a_link_at_once_one_gets_a_device(opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let first = add(&nodes[0], 1, 1).await;
    for round in 0..5 {
        assert!(nodes[0].open_link(opening(first, round)).await.unwrap());
        let using = (0..24).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            tokio::spawn(async move { store.link_device(linking(round, n as u8 + 1)).await })
        });
        let mut linked = 0;
        for answer in join_all(using).await {
            match answer.unwrap().unwrap() {
                LinkAnswer::Made(made) => {
                    assert_eq!(u16::from(made.device), round + 2);
                    linked += 1;
                }
                LinkAnswer::NoLink => {}
                _ => panic!("it was used by another registration"),
            }
        }
        assert_eq!(linked, 1);
    }
    let row = account_row(&nodes[0]).await;
    assert_eq!(nodes[0].devices(row).await.unwrap().len(), 6);
    nodes[1].close().await.unwrap();
}

async fn account_that_has_all_its_devices_gets_no_more_and_the_link_stays_open(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let first = add(&store, 1, 1).await;
    let mut numbers = BTreeSet::from([first]);
    for n in 2..=6 {
        let linked = link(&store, first, n).await;
        assert_eq!(u16::from(linked.device), n);
        numbers.insert(linked.mailbox);
    }
    assert!(store.open_link(opening(first, 7)).await.unwrap());
    assert!(matches!(store.link_device(linking(7, 7)).await.unwrap(), LinkAnswer::Full));
    let row = account_row(&store).await;
    assert_eq!(store.link(opening(first, 7).id, NOW).await.unwrap().unwrap().device, None);
    assert_eq!(store.devices(row).await.unwrap().len(), 6);
    // The lowest number that is free, also when the last that was made has gone, and never a mailbox that was.
    for (n, device) in [(8, 4), (9, 6), (10, 6), (11, 2)] {
        store.remove_device(row, device).await.unwrap().unwrap();
        let linked = link(&store, first, n).await;
        assert_eq!(linked.device, device);
        assert!(numbers.insert(linked.mailbox), "a mailbox lives again");
        assert!(seqs(&store, linked.mailbox).await.is_empty());
    }
    assert!(store.remove_device(row, 7).await.unwrap().is_none());
}

/// Rows that have something of a device, by table.
const OF_DEVICE: [&str; 7] = [
    "device WHERE id = ",
    "prekey_once WHERE device = ",
    "prekey_fixed WHERE device = ",
    "prekey_state WHERE device = ",
    "push WHERE device = ",
    "mailbox WHERE device = ",
    "envelope WHERE mailbox = ",
];

async fn counts(opened: &Opened, mailbox: MailboxId) -> Vec<i64> {
    let mut counts = Vec::new();
    for part in OF_DEVICE {
        counts.push(opened.number(&format!("SELECT count(*) FROM {part}{}", mailbox.0)).await);
    }
    counts
}

async fn device_goes_with_all_that_it_has_and_leaves_the_others_alone(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let (first, other) = (add(&store, 1, 1).await, add(&store, 2, 1).await);
    let gone = link(&store, first, 2).await.mailbox;
    let row = account_row(&store).await;
    for mailbox in [first, gone] {
        store.put_push(mailbox, Some(Bytes::from_static(b"somewhere"))).await.unwrap();
    }
    submit(&store, to(&[1, 2], 1)).await;
    // One with an end that both accounts have, and one that only this one has.
    let shared = |dedup: u64, end: &'static [u8]| {
        let mut both = to(&[1, 2], dedup);
        both.recipients.push(append(2, dedup, &[1], 3).recipients.remove(0));
        Append { shared: Bytes::from_static(end), ..both }
    };
    store.append(shared(2, b"for both of them")).await.unwrap();
    let mut own = shared(3, b"for the one that goes");
    own.recipients.truncate(1);
    store.append(own).await.unwrap();
    store.delete(first, vec![3]);
    store.settle().await.unwrap();
    let answer = Arc::new(|_: &[_]| Bytes::from_static(b"two bundles"));
    let keep = Keep { request: [1; 16], answer };
    let asked = Fetch { keep: Some(keep), ..fetch(row, None) };
    assert!(
        matches!(store.take(asked.clone()).await.unwrap(), Taken::Now(taken) if taken.len() == 2)
    );
    let before = counts(&opened, first).await;
    assert_eq!(counts(&opened, gone).await, [1, 4, 2, 2, 1, 1, 3]);

    assert_eq!(store.remove_device(row, 2).await.unwrap(), Some(gone));
    assert_eq!(counts(&opened, gone).await, [0; 7]);
    assert_eq!(counts(&opened, first).await, before);
    assert_eq!(opened.number("SELECT count(*) FROM taken_answer").await, 0);
    assert_eq!(opened.number("SELECT count(*) FROM payload").await, 1);
    // Of the end that is left there is one reference of each who is left.
    assert_eq!(opened.number("SELECT refs FROM payload").await, 2);
    assert!(matches!(store.take(asked).await.unwrap(), Taken::Now(taken) if taken.len() == 1));
    assert!(store.device(AccountId([1; 16]), 2).await.unwrap().is_none());
    assert!(store.states(vec![gone]).await.unwrap().is_empty());
    let extra = Mismatch { extra: vec![2], ..Mismatch::default() };
    assert_eq!(submit(&store, to(&[1, 2], 4)).await, AppendAnswer::Mismatch(extra));
    assert!(matches!(submit(&store, to(&[1], 4)).await, AppendAnswer::Stored(_)));
    // What was accepted for both stays accepted, and what the shared end is for is whole.
    assert_eq!(submit(&store, to(&[1, 2], 1)).await, AppendAnswer::Repeated);
    let whole = store.read_after(other, 0, ALL, NOW).await.unwrap().envelopes.remove(0).whole();
    assert!(whole.ends_with(b"for both of them"));
    // Its requests that come late find nothing and make nothing.
    assert_eq!(store.put_keys(gone, keys(&[9], 9)).await.unwrap(), PutKeys::NoDevice);
    store.put_push(gone, Some(Bytes::from_static(b"elsewhere"))).await.unwrap();
    store.told_dropped(gone, 1).await.unwrap();
    store.delete(gone, vec![1, 2, 3]);
    store.settle().await.unwrap();
    let claim = store.claim(gone, NodeId(7)).await.unwrap();
    assert!(claim.is_none_or(|claim| claim.epoch == 0));
    store.release(gone, 0).await.unwrap();
    assert!(store.key_state(gone).await.unwrap().is_none());
    assert!(seqs(&store, gone).await.is_empty());
    assert_eq!(counts(&opened, gone).await, [0; 7]);
}

async fn submissions_and_takes_while_a_device_goes_leave_nothing_of_it(opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    let first = add(&nodes[0], 1, 1).await;
    let row = account_row(&nodes[0]).await;
    for round in 0..6_u64 {
        let gone = link(&nodes[0], first, round as u16).await.mailbox;
        let over = Arc::new(AtomicBool::new(false));
        let busy = (0..6_u64).map(|n| {
            let (store, over) = (Arc::clone(&nodes[n as usize % 2]), Arc::clone(&over));
            tokio::spawn(async move {
                let mut dedup = (round * 6 + n) * 100_000;
                loop {
                    let last = over.load(Ordering::Relaxed);
                    dedup += 1;
                    let answer = submit(&store, to(&[1, 2], dedup)).await;
                    let taken = take(&store, fetch(row, None)).await.len();
                    store.put_keys(gone, keys(&[dedup as u32], dedup as u8)).await.unwrap();
                    if last {
                        return (answer, taken);
                    }
                }
            })
        });
        let busy: Vec<_> = busy.collect();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        assert_eq!(nodes[1].remove_device(row, 2).await.unwrap(), Some(gone));
        over.store(true, Ordering::Relaxed);
        for task in busy {
            let extra = Mismatch { extra: vec![2], ..Mismatch::default() };
            assert_eq!(task.await.unwrap(), (AppendAnswer::Mismatch(extra), 1));
        }
        assert_eq!(counts(&opened, gone).await, [0; 7]);
    }
    // Nobody who submitted for both was told that it is stored, and then found a hole.
    let places = seqs(&nodes[0], first).await;
    assert_eq!(places, (1..=places.len() as i64).collect::<Vec<_>>());
    nodes[1].close().await.unwrap();
}

async fn device_sends_to_the_others_of_its_account_and_not_to_itself(opened: Opened) {
    let store = Arc::clone(&opened.store);
    let first = add(&store, 1, 1).await;
    let by = |device: u8, to: &[u8], dedup: u64| {
        let mut new = append(1, dedup, to, 10);
        new.recipients[0].authority = Authority::Own(device);
        Append { quota: LARGE, ..new }
    };
    let mismatch = |missing: &[u8], extra: &[u8]| {
        let (missing, extra) = (missing.to_vec(), extra.to_vec());
        AppendAnswer::Mismatch(Mismatch { missing, extra, stale: Vec::new() })
    };
    // There is no other yet: nothing is stored, and nothing noted.
    for _ in 0..2 {
        assert_eq!(submit(&store, by(1, &[], 1)).await, AppendAnswer::Stored(Vec::new()));
    }
    assert_eq!(opened.number("SELECT count(*) FROM submission").await, 0);
    let second = link(&store, first, 2).await.mailbox;
    assert_eq!(submit(&store, by(1, &[], 1)).await, mismatch(&[2], &[]));
    assert_eq!(submit(&store, by(1, &[1, 2], 1)).await, mismatch(&[], &[1]));
    assert_eq!(submit(&store, by(2, &[2], 1)).await, mismatch(&[1], &[2]));
    assert_eq!(submit(&store, by(1, &[2], 1)).await, submit_stored(second, 1));
    assert_eq!(submit(&store, by(2, &[1], 2)).await, submit_stored(first, 1));
    assert_eq!(submit(&store, by(2, &[1], 2)).await, AppendAnswer::Repeated);
    // Nobody else is excused.
    assert_eq!(submit(&store, to(&[2], 3)).await, mismatch(&[1], &[]));
    let located = store.locate(by(1, &[2], 4).recipients).await.unwrap().remove(0).unwrap();
    assert_eq!(located.iter().map(|at| at.mailbox).collect::<Vec<_>>(), [second]);
    let refused = store.locate(by(1, &[1, 2], 4).recipients).await.unwrap().remove(0);
    assert_eq!(refused, Err(mismatch(&[], &[1])));
    let mut unknown = by(1, &[2], 5);
    unknown.recipients[0].account = AccountId([7; 16]);
    assert_eq!(submit(&store, unknown).await, AppendAnswer::UnknownAccount);
}

async fn what_was_linked_and_removed_outlives_the_server(mut opened: Opened) {
    let store = Arc::clone(&opened.store);
    let first = add(&store, 1, 1).await;
    let gone = link(&store, first, 2).await.mailbox;
    let row = account_row(&store).await;
    store.remove_device(row, 2).await.unwrap().unwrap();
    assert!(store.open_link(opening(first, 3)).await.unwrap());
    opened.reopen().await;
    let store = Arc::clone(&opened.store);
    let linked = made(store.link_device(linking(3, 3)).await.unwrap());
    assert!(linked.device == 2 && linked.mailbox > gone);
    store.register(registering(1, 1)).await.unwrap();
    assert_eq!(store.devices(row).await.unwrap().len(), 2);
}

super::on_every_store! {
    account_that_has_all_its_devices_gets_no_more_and_the_link_stays_open
    device_goes_with_all_that_it_has_and_leaves_the_others_alone
    device_sends_to_the_others_of_its_account_and_not_to_itself
    link_ends_with_its_time_another_link_a_registration_and_a_removal
    link_makes_one_device_and_the_same_registration_again_renews_it
    of_many_who_use_a_link_at_once_one_gets_a_device
    submissions_and_takes_while_a_device_goes_leave_nothing_of_it
    what_was_linked_and_removed_outlives_the_server
}
