//! What cannot be read is asked for again, and who asks us gets it from the log, in a new session if the
//! old one is broken (W§10.6). A device is asked at most once in a time that doubles, and answered at most once
//! in half of it, whatever it sends: nothing here can become a storm. Group messages are asked for in a
//! shorter time, because they touch no session: each is sent again at most once to each device.
//!
//! ```text
//! a group message fails ─► its digest                            ─► in plaintext, to its sender device
//! a message fails ─► its digest and the first number that lacks ─► in plaintext, to its sender device
//! a number lacks  ─► the first number that lacks                ─► in the session
//! a prekey of ours is gone, or a backup was restored            ─► in a new session that we begin
//! ```

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tuckseal::content::{Content, Retry as Request};
use tuckseal::{Address, DecryptionErrorMessage, DeviceId, PlaintextContent, Timestamp};

use super::receive::count;
use super::settings::{Settings, later};
use super::{Engine, Turn};
use crate::event::{Event, Failure};
use crate::store::{
    Device, Digest, Failed, Form, LogKey, Logged, Own, ProfileError, Retry, Rows, Want, Whereabouts,
};

/// Messages that one answer takes up again: who lacks more asks again.
const AGAIN_MAX: usize = 256;
/// How often a message is taken up again.
const RESENT_MAX: u32 = 5;
/// Numbers that a request names as come.
const HAVE_MAX: u32 = 256;
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// Names a session message.
pub(super) fn digest(message: &[u8]) -> Digest {
    let hash: [u8; 32] = Sha256::digest(message).into();
    let mut digest = [0; 16];
    digest.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    digest
}

/// Asks a device for something, now or when it may be asked again. The peer must be known.
pub(super) fn want(
    rows: Rows<'_>,
    settings: &Settings,
    address: Address,
    want: Want,
    failed: Option<&Failed>,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let mut retry = rows.retry(address)?;
    retry.want = retry.want.max(want);
    retry.not_before = match retry.want {
        Want::Group => retry.not_before.min(for_groups(&retry, settings)),
        _ => retry.not_before.max(for_sessions(&retry, settings)),
    };
    match (&mut retry.failed, failed) {
        (Some(known), Some(failed)) => known.append(failed),
        (known @ None, failed) => *known = failed.cloned(),
        (Some(_), None) => {}
    }
    // Group messages that fail one after the other are asked for together, when all of them are read.
    if want != Want::Group && is_due(&retry, turn.now) {
        ask(rows, settings, retry, turn)
    } else {
        rows.save_retry(&retry)
    }
}

fn wait(interval: Duration, attempts: u32) -> Duration {
    interval.saturating_mul(1 << attempts.min(16)).min(INTERVAL_MAX)
}

/// When group messages may be asked for again.
fn for_groups(retry: &Retry, settings: &Settings) -> Timestamp {
    later(retry.asked, wait(settings.group_retry_interval, retry.attempts.saturating_sub(1)))
}

/// A request for group messages may have come before its time for all else.
fn for_sessions(retry: &Retry, settings: &Settings) -> Timestamp {
    if retry.asked == Timestamp::from_millis(0) {
        return retry.asked;
    }
    later(retry.asked, settings.retry_interval)
}

/// A clock that was put back stops nothing for longer than the longest interval.
fn is_due(retry: &Retry, now: Timestamp) -> bool {
    retry.not_before <= now || retry.not_before > later(now, INTERVAL_MAX)
}

/// Puts the request into the outbox.
fn ask(
    rows: Rows<'_>,
    settings: &Settings,
    mut retry: Retry,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let address = retry.address;
    let asked = std::mem::replace(&mut retry.want, Want::Nothing);
    let failed = retry.failed.take();
    if asked == Want::Missing && rows.early_count(address)? == 0 {
        // The gap has closed by itself.
        return rows.save_retry(&retry);
    }
    let mut device = rows.device(address)?.unwrap_or(Device::unknown(address));
    if asked == Want::FailedAnew {
        reset(rows, &mut device)?;
    }
    rows.save_device(&device)?;
    let (form, body) = request(rows, &device, asked, failed.as_ref())?;
    rows.insert_outbox(address.service_id, Some(address.device_id), form, &body)?;
    if asked == Want::Group && rows.early_count(address)? > 0 {
        // It is perhaps too soon for what else was missing.
        retry.want = Want::Missing;
    }
    retry.not_before = later(turn.now, wait(settings.retry_interval, retry.attempts));
    retry.attempts = retry.attempts.saturating_add(1);
    retry.asked = turn.now;
    rows.save_retry(&retry)?;
    turn.tell(Event::AskedAgain { account: address.service_id, device_id: address.device_id });
    Ok(())
}

fn request(
    rows: Rows<'_>,
    device: &Device,
    asked: Want,
    failed: Option<&Failed>,
) -> Result<(Form, Vec<u8>), ProfileError> {
    let digests = failed.map(|failed| &failed.digests[..]).unwrap_or_default();
    let retry = Request {
        stream: device.next_stream,
        next: device.next,
        have: rows.early_numbers(device.address, HAVE_MAX)?,
        failed: digests.to_vec(),
    };
    let content = Content { retry: Some(retry), ..Content::default() };
    let error = failed.map(|failed| DecryptionErrorMessage {
        ratchet_key: failed.ratchet_key,
        timestamp: failed.server,
        device_id: device.address.device_id.get().into(),
    });
    Ok(match (asked, error) {
        (Want::Group | Want::Failed, Some(error)) => {
            let body = PlaintextContent::with_fields(&error, &content.encode());
            (Form::Plaintext, body.encode().to_vec())
        }
        (_, decryption_error) => (Form::Loose, Content { decryption_error, ..content }.encode()),
    })
}

/// The next message needs a new session; what waits is encrypted again, under the numbers that it has.
fn reset(rows: Rows<'_>, device: &mut Device) -> Result<(), ProfileError> {
    device.session.archive_current();
    rows.save_device(device)?;
    rows.encrypt_again(device.address.service_id)
}

/// What a device asks us for.
pub(super) struct Asked {
    pub(super) from: Address,
    pub(super) error: Option<DecryptionErrorMessage>,
    pub(super) retry: Request,
}

/// Takes up again what a device lacks, in a new session if it could not read the one that is.
pub(super) fn answer(
    rows: Rows<'_>,
    interval: Duration,
    key: &LogKey,
    own_device: DeviceId,
    own: &Own,
    asked: &Asked,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let address = asked.from;
    let Some(mut device) = rows.device(address)? else { return Ok(()) };
    let mut state = rows.retry(address)?;
    if (state.answered..later(state.answered, interval / 2)).contains(&turn.now) {
        let failed = &asked.retry.failed;
        let (account, device_id) = (address.service_id, address.device_id);
        let messages = super::group::answer(rows, own, key, address, failed, turn)?;
        if messages == 0 {
            return count(rows, Some(account), Failure::AskedTooSoon, turn);
        }
        turn.tell(Event::SentAgain { account, device_id, messages });
        return Ok(());
    }
    state.answered = turn.now;
    rows.save_retry(&state)?;
    let mut retry = asked.retry.clone();
    if retry.stream == 0 {
        // It knows nothing of us, and lacks all of it.
        (retry.stream, retry.next) = (device.sent_stream, 1);
    }
    let logged = rows.logged(address)?;
    let failed_in_current = device.session.info().is_some_and(|info| {
        let current = Some(*info.base_key.as_u());
        logged.iter().any(|it| it.session == current && retry.failed.contains(&it.digest))
    });
    let known = retry.stream == device.sent_stream;
    let chosen = if known && retry.next > device.sent.saturating_add(1) {
        // It has more of us than we have sent: we are older than we were.
        let chosen = choose(logged, &retry, Rewound::Yes);
        restored(rows)?;
        turn.tell(Event::Restored);
        device = rows.device(address)?.unwrap_or(device);
        chosen
    } else {
        choose(logged, &retry, Rewound::No)
    };
    let error = asked.error.filter(|error| error.device_id == u32::from(own_device.get()));
    let key_of_error = error.and_then(|error| error.ratchet_key);
    let (account, device_id) = (address.service_id, address.device_id);
    // Since it sent what failed, the session may have taken another step: a message of ours names it better.
    let key_is_current =
        key_of_error.is_some_and(|key| device.session.is_current_ratchet_key(&key));
    if key_is_current || failed_in_current {
        reset(rows, &mut device)?;
        turn.tell(Event::SessionReset { account, device_id });
    } else if !retry.failed.is_empty() {
        // What is on its way was perhaps encrypted in the session that failed.
        rows.encrypt_again(account)?;
    }
    let mut messages = super::group::answer(rows, own, key, address, &retry.failed, turn)?;
    for (logged, number) in chosen {
        if number == Number::New || logged.stream != device.sent_stream {
            rows.forget_number(logged.id, address)?;
        }
        messages += u64::from(rows.take_up_again(key, &logged)?);
    }
    turn.tell(Event::SentAgain { account, device_id, messages });
    Ok(())
}

/// Whether we are an earlier state of ourselves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rewound {
    Yes,
    No,
}

/// The number that a message is sent again under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Same,
    New,
}

/// What is sent again: what lacks by its number, under the same; and what could not be read although its
/// number has come, under a new one. An earlier state has used numbers twice: from the first such message on,
/// all of them are news.
fn choose(logged: Vec<Logged>, retry: &Request, rewound: Rewound) -> Vec<(Logged, Number)> {
    let failed = |it: &Logged| retry.failed.contains(&it.digest);
    let lacks = |it: &Logged| {
        it.whereabouts == Whereabouts::Relay
            && it.stream == retry.stream
            && it.sequence >= retry.next
            && !retry.have.contains(&it.sequence)
    };
    let later = |it: &Logged| it.stream == retry.stream && it.sequence >= retry.next;
    let first = logged.iter().find(|it| failed(it)).map(|it| (it.stream, it.sequence));
    let after = |it: &Logged| {
        first.is_some_and(|(stream, from)| it.stream == stream && it.sequence >= from)
    };
    let number = |it: &Logged| match rewound {
        _ if it.resent >= RESENT_MAX => None,
        Rewound::Yes => after(it).then_some(Number::New),
        Rewound::No if lacks(it) => Some(Number::Same),
        Rewound::No if failed(it) => Some(if later(it) { Number::Same } else { Number::New }),
        Rewound::No => None,
    };
    logged
        .into_iter()
        .filter_map(|it| number(&it).map(|number| (it, number)))
        .take(AGAIN_MAX)
        .collect()
}

/// The sessions may have gone on without us: none of them, and no key of ours for a group, is used any more,
/// our streams begin anew, and
/// everybody with whom there was one is asked for what has come since.
pub(super) fn restored(rows: Rows<'_>) -> Result<(), ProfileError> {
    for peer in rows.peers()? {
        for mut device in rows.devices(peer.account)? {
            if device.session.info().is_none() && device.session.archived_sessions() == 0 {
                continue;
            }
            device.session.archive_current();
            super::encrypt::forget_stream(rows, &mut device)?;
            rows.save_device(&device)?;
            let now = Timestamp::from_millis(0);
            let retry = rows.retry(device.address)?;
            rows.save_retry(&Retry { want: Want::FailedAnew, not_before: now, ..retry })?;
        }
        rows.mark_not_encrypted(peer.account)?;
    }
    // There may be devices of ours that came later.
    rows.expect_device(Timestamp::from_millis(0))?;
    // An iteration that was used may not be used again.
    rows.rotate_groups()
}

impl Engine {
    /// When the next request is due, if one is.
    pub(super) fn next_retry(&self) -> Result<Option<Timestamp>, ProfileError> {
        Ok(self.store.rows().next_retry()?.map(|retry| retry.not_before))
    }

    /// Asks for what is due.
    pub(super) fn ask_due(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        while let Some(retry) =
            self.store.rows().next_retry()?.filter(|retry| is_due(retry, turn.now))
        {
            let account = retry.address.service_id;
            self.store.commit(|rows| ask(rows, &self.settings, retry, turn))?;
            self.pump(account, turn)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(sequence: u64) -> Logged {
        let digest = [u8::try_from(sequence).unwrap(); 16];
        let whereabouts = Whereabouts::Relay;
        Logged { id: sequence, whereabouts, stream: 9, sequence, digest, resent: 0, session: None }
    }

    fn ask_for(next: u64, have: &[u64], failed: &[u64], rewound: Rewound) -> Vec<(u64, Number)> {
        let retry = Request {
            stream: 9,
            next,
            have: have.to_vec(),
            failed: failed.iter().map(|it| logged(*it).digest).collect(),
        };
        let chosen = choose((1..=6).map(logged).collect(), &retry, rewound);
        chosen.into_iter().map(|(it, number)| (it.sequence, number)).collect()
    }

    #[test]
    fn what_lacks_keeps_its_number_and_what_failed_after_its_number_had_come_gets_a_new_one() {
        use Number::{New, Same};
        assert_eq!(ask_for(3, &[5], &[], Rewound::No), [(3, Same), (4, Same), (6, Same)]);
        assert_eq!(ask_for(5, &[], &[5], Rewound::No), [(5, Same), (6, Same)]);
        assert_eq!(ask_for(7, &[], &[2], Rewound::No), [(2, New)]);
        assert_eq!(ask_for(7, &[], &[], Rewound::No), []);
        assert_eq!(ask_for(9, &[], &[5], Rewound::Yes), [(5, New), (6, New)]);
    }

    #[test]
    fn a_message_is_taken_up_again_a_few_times_and_no_more() {
        let retry = Request { stream: 9, next: 1, ..Default::default() };
        let on_its_way = Logged { whereabouts: Whereabouts::OnItsWay, ..logged(3) };
        assert_eq!(choose(vec![on_its_way], &retry, Rewound::No), [], "it will come by itself");
        let worn = Logged { resent: RESENT_MAX, ..logged(1) };
        assert_eq!(choose(vec![worn, logged(2)], &retry, Rewound::No).len(), 1);
    }
}
