//! Each sender device numbers what it sends to us, from 1 in each of its streams. Messages get their turn by
//! that number; one that came too early waits, for a bounded time and among a bounded number, and the gap
//! is marked when it does not close. A number is news once.

use tuckseal::Address;

use super::deliver::{self, Came};
use super::receive::tell_all;
use super::settings::later;
use super::{Engine, Turn};
use crate::event::Event;
use crate::store::{Device, Early, ProfileError, Rows};

/// What became of a message.
#[derive(Debug)]
pub(super) enum Taken {
    /// What came of the messages whose turn has come, in order; it is in the store now.
    New(Vec<Event>),
    /// Its number has come before.
    Duplicate,
}

/// Takes a message in. Another stream than before begins anew.
pub(super) fn take(
    rows: Rows<'_>,
    device: &mut Device,
    stream: u64,
    early: Early,
    limit: u64,
) -> Result<Taken, ProfileError> {
    let mut ready = Vec::new();
    if early.sequence > 0 && stream != device.next_stream {
        ready = restart(rows, device)?;
        device.next_stream = stream;
    }
    if early.sequence < device.next {
        // Late, or outside the order.
        if early.sequence > 0 && !rows.take_missing(device.address, early.sequence)? {
            return Ok(Taken::Duplicate);
        }
        deliver(rows, device.address, &early, 0, &mut ready)?;
    } else if early.sequence == device.next {
        device.next += 1;
        deliver(rows, device.address, &early, 0, &mut ready)?;
        release(rows, device, &mut ready)?;
    } else {
        if !rows.insert_early(device.address, &early)? {
            return Ok(Taken::Duplicate);
        }
        while rows.early_count(device.address)? > limit {
            skip_gap(rows, device, &mut ready)?;
        }
    }
    Ok(Taken::New(ready))
}

/// Delivers all that waits and begins at 1 again.
pub(super) fn restart(rows: Rows<'_>, device: &mut Device) -> Result<Vec<Event>, ProfileError> {
    let mut ready = Vec::new();
    while rows.first_early(device.address)?.is_some() {
        skip_gap(rows, device, &mut ready)?;
    }
    rows.forget_missing(device.address)?;
    device.next = 1;
    Ok(ready)
}

/// A device is no more: what waits of it is delivered, and nothing more is kept of it, for whatever has its number next.
pub(super) fn forget_device(
    rows: Rows<'_>,
    address: Address,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    if let Some(mut device) = rows.device(address)? {
        let ready = restart(rows, &mut device)?;
        tell_all(rows, ready, turn)?;
    }
    rows.forget_requests(address)?;
    rows.delete_ciphertexts(address)?;
    rows.delete_device(address)
}

/// Gives up the messages before the first that waits.
fn skip_gap(
    rows: Rows<'_>,
    device: &mut Device,
    ready: &mut Vec<Event>,
) -> Result<(), ProfileError> {
    let Some(first) = rows.first_early(device.address)? else { return Ok(()) };
    let missing = first.sequence.saturating_sub(device.next);
    rows.insert_missing(device.address, device.next, first.sequence)?;
    device.next = first.sequence.saturating_add(1);
    deliver(rows, device.address, &first, missing, ready)?;
    rows.delete_early(device.address, first.sequence)?;
    release(rows, device, ready)
}

/// Delivers what waits without a gap before it.
fn release(
    rows: Rows<'_>,
    device: &mut Device,
    ready: &mut Vec<Event>,
) -> Result<(), ProfileError> {
    while let Some(first) =
        rows.first_early(device.address)?.filter(|first| first.sequence <= device.next)
    {
        device.next = first.sequence.saturating_add(1);
        deliver(rows, device.address, &first, 0, ready)?;
        rows.delete_early(device.address, first.sequence)?;
    }
    Ok(())
}

fn deliver(
    rows: Rows<'_>,
    sender: Address,
    early: &Early,
    missing: u64,
    ready: &mut Vec<Event>,
) -> Result<(), ProfileError> {
    if let Some(content) = &early.content {
        let came = Came { sender, since: early.since, sent: early.sent };
        ready.extend(deliver::deliver(rows, came, missing, content)?);
    } else if missing > 0 {
        ready.push(Event::Missing { account: sender.service_id, count: missing });
    }
    Ok(())
}

impl Engine {
    /// Delivers what has waited long enough for a missing message.
    pub(super) fn release_overdue(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        loop {
            let (settings, now) = (&self.settings, turn.now);
            let Some((sender, since)) = self.store.rows().oldest_early()? else { return Ok(()) };
            // Waiting from a time that is still to come: the clock was put back.
            let is_overdue =
                settings.gap_deadline(since) <= now || since > later(now, settings.gap_wait);
            if !is_overdue {
                return Ok(());
            }
            let receipts = settings.receipts;
            self.store.commit(|rows| {
                let mut device = rows.device(sender)?.unwrap_or(Device::unknown(sender));
                let mut ready = Vec::new();
                skip_gap(rows, &mut device, &mut ready)?;
                rows.save_device(&device)?;
                tell_all(rows, ready, turn)?;
                super::receipts::put_out(rows, receipts, turn)
            })?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::store::{Profile, Store};
    use proptest::prelude::*;
    use tuckseal::content::{Body, Content, Data};
    use tuckseal::{DeviceId, ServiceId, Timestamp};

    fn early(sequence: u64) -> Early {
        let at = Timestamp::from_millis(1);
        let content = Content::new(Body::Data(Data::text(sequence.to_string())), at);
        Early { sequence, since: at, sent: at, content: Some(content.encode()) }
    }

    fn messages(events: Vec<Event>) -> Vec<Message> {
        let message = |event| match event {
            Event::Message(message) => message,
            other => panic!("{other:?}"),
        };
        events.into_iter().map(message).collect()
    }

    /// Feeds the numbers in, then gives up what is missing; (number, missing before it) as delivered, and
    /// the most that waited at once.
    fn deliver_all(numbers: &[u64], limit: u64) -> (Vec<(u64, u64)>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        let mut device = Device::unknown(Address::new(ServiceId::aci([7; 16]), DeviceId::PRIMARY));
        let delivered = store.commit(|rows| {
            let (mut delivered, mut waited) = (Vec::new(), 0);
            for number in numbers {
                if let Taken::New(ready) = take(rows, &mut device, 1, early(*number), limit)? {
                    delivered.extend(messages(ready));
                }
                waited = waited.max(rows.early_count(device.address)?);
            }
            delivered.extend(messages(restart(rows, &mut device)?));
            assert_eq!(rows.inbox(0, u32::MAX)?, delivered, "what is told is in the inbox");
            Ok::<_, ProfileError>((delivered, waited))
        });
        let (delivered, waited) = delivered.unwrap();
        let pair = |message: Message| (message.text.parse().unwrap(), message.missing_before);
        (delivered.into_iter().map(pair).collect(), waited)
    }

    /// Numbers from 1, some of them lost, in any order.
    fn arrivals() -> impl Strategy<Value = Vec<u64>> {
        (1..40u64).prop_flat_map(|n| {
            proptest::sample::subsequence((1..=n).collect::<Vec<_>>(), 0..=n as usize)
                .prop_shuffle()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn messages_that_wait_long_enough_come_in_order_and_gaps_are_counted(numbers in arrivals()) {
            let (delivered, _) = deliver_all(&numbers, 64);
            let mut expected = numbers;
            expected.sort_unstable();
            let mut before = 0;
            for ((number, missing), expected) in delivered.iter().zip(&expected) {
                prop_assert_eq!(number, expected);
                prop_assert_eq!(*missing, number - before - 1);
                before = *number;
            }
            prop_assert_eq!(delivered.len(), expected.len());
        }

        #[test]
        fn few_wait_at_once_and_each_is_delivered_once(numbers in arrivals(), limit in 0..6u64) {
            let (delivered, waited) = deliver_all(&numbers, limit);
            prop_assert!(waited <= limit);
            let (mut delivered, mut expected): (Vec<_>, _) = (delivered.into_iter().map(|it| it.0).collect(), numbers);
            delivered.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(delivered, expected);
        }
    }

    #[test]
    fn a_number_is_news_once_whether_it_waits_is_read_or_was_given_up() {
        assert_eq!(deliver_all(&[2, 2, 1, 1, 2], 64).0, [(1, 0), (2, 0)]);
        // 1 to 3 are given up for 4, and 2 comes late, twice.
        assert_eq!(deliver_all(&[4, 2, 2, 4], 0).0, [(4, 3), (2, 0)]);
        assert_eq!(
            deliver_all(&[0, 0, 1], 64).0,
            [(0, 0), (0, 0), (1, 0)],
            "0 is outside the order"
        );
    }

    #[test]
    fn another_stream_begins_anew_after_what_waits_in_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        let mut device = Device::unknown(Address::new(ServiceId::aci([7; 16]), DeviceId::PRIMARY));
        let delivered = store.commit(|rows| {
            let mut delivered = Vec::new();
            for (stream, number) in [(5, 1), (5, 3), (6, 1), (6, 2), (6, 2)] {
                let taken = take(rows, &mut device, stream, early(number), 64)?;
                if let Taken::New(ready) = taken {
                    let ready = messages(ready);
                    delivered.extend(ready.into_iter().map(|it| (it.text, it.missing_before)));
                }
            }
            Ok::<_, ProfileError>(delivered)
        });
        let expected = [("1", 0), ("3", 1), ("1", 0), ("2", 0)];
        assert_eq!(delivered.unwrap(), expected.map(|(text, missing)| (text.to_owned(), missing)));
    }

    #[test]
    fn what_waits_of_a_device_that_is_gone_is_delivered_and_its_number_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        let sender = Address::new(ServiceId::aci([7; 16]), DeviceId::PRIMARY);
        let mut rng = rand::rng();
        let mut turn = Turn::new(&mut rng, Timestamp::from_millis(1));
        let inbox = store.commit(|rows| {
            rows.save_peer(&crate::store::Peer::unknown(sender.service_id))?;
            let mut device = Device::unknown(sender);
            for number in [1, 4, 5] {
                take(rows, &mut device, 1, early(number), 64)?;
            }
            rows.save_device(&device)?;
            let retry = rows.retry(sender)?;
            rows.save_retry(&crate::store::Retry { want: crate::store::Want::Missing, ..retry })?;
            forget_device(rows, sender, &mut turn)?;
            assert!(rows.device(sender)?.is_none() && rows.oldest_early()?.is_none());
            assert!(rows.next_retry()?.is_none());
            rows.inbox(0, u32::MAX)
        });
        let pairs: Vec<_> =
            inbox.unwrap().into_iter().map(|it| (it.text, it.missing_before)).collect();
        assert_eq!(pairs, [("1".to_owned(), 0), ("4".to_owned(), 2), ("5".to_owned(), 0)]);
    }

    #[tokio::test]
    async fn a_clock_that_was_put_back_keeps_no_message_waiting() {
        let relay = crate::stage::Relay::start().await;
        let alice = crate::stage::Person::register(&relay, "alice").await;
        let sender = Address::new(ServiceId::aci([7; 16]), DeviceId::PRIMARY);
        let year = std::time::Duration::from_secs(365 * 24 * 60 * 60);
        let waits = move |since: fn(Timestamp, std::time::Duration) -> Timestamp| {
            move |engine: &mut Engine, turn: &mut Turn<'_>| {
                let since = since(turn.now, year);
                engine.store.commit(|rows| {
                    rows.save_peer(&crate::store::Peer::unknown(sender.service_id))?;
                    rows.save_device(&Device::unknown(sender))?;
                    rows.insert_early(sender, &Early { since, ..early(5) })?;
                    Ok::<_, ProfileError>(())
                })?;
                engine.release_overdue(turn)
            }
        };
        alice.client.shell.call(waits(|now, _| now)).await.unwrap();
        assert_eq!(alice.client.inbox().await.unwrap(), [], "it came just now");
        let forgotten = move |engine: &mut Engine, _: &mut Turn<'_>| {
            engine.store.commit(|rows| rows.delete_early(sender, 5))
        };
        alice.client.shell.call(forgotten).await.unwrap();
        alice.client.shell.call(waits(later)).await.unwrap();
        let inbox = alice.client.inbox().await.unwrap();
        assert_eq!((inbox.len(), inbox[0].missing_before), (1, 4));
    }
}
