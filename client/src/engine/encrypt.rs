//! Ciphertexts for what waits: one for each device of a recipient, in order, numbered in the stream to it; and what
//! becomes of them when the recipient has other devices than we thought.

use tuckseal::content::Content;
use tuckseal::service::DeviceMismatch;
use tuckseal::{
    Address, ContentKind, DeviceId, IdentityKey, LocalParty, MessageKind, ServiceId, Trust,
};

use super::Turn;
use super::order::forget_device;
use super::recovery::digest;
use crate::store::{Ciphertext, Decision, Device, Form, ProfileError, Progress, Rows, Waiting};

/// How far encrypting came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encrypting {
    /// Every waiting message has its ciphertexts.
    Done,
    /// A device has no usable session, which a message needs.
    NeedsBundles,
    /// An identity key waits for a decision.
    NeedsDecision,
}

/// Gives the waiting messages a ciphertext for every device, in their order, until one needs a session that
/// is not there.
pub(super) fn encrypt_waiting(
    rows: Rows<'_>,
    local: &LocalParty,
    to: ServiceId,
    turn: &mut Turn<'_>,
) -> Result<Encrypting, ProfileError> {
    let Some(peer) = rows.peer(to)? else { return Ok(Encrypting::NeedsBundles) };
    if peer.decision == Decision::Awaited {
        return Ok(Encrypting::NeedsDecision);
    }
    let mut devices = rows.devices(to)?;
    let (Some(identity), false) = (peer.identity, devices.is_empty()) else {
        return Ok(Encrypting::NeedsBundles);
    };
    let mut encrypting = Encrypting::Done;
    'messages: for waiting in rows.not_encrypted(to)? {
        for device in &mut devices {
            encrypting = encrypt_for(rows, local, device, &identity, &waiting, turn)?;
            if encrypting != Encrypting::Done {
                break 'messages;
            }
        }
        rows.mark_encrypted(waiting.id, turn.random())?;
    }
    devices.iter().try_for_each(|device| rows.save_device(device))?;
    Ok(encrypting)
}

/// Gives one message a ciphertext for one device, unless it has one.
fn encrypt_for(
    rows: Rows<'_>,
    local: &LocalParty,
    device: &mut Device,
    identity: &IdentityKey,
    waiting: &Waiting,
    turn: &mut Turn<'_>,
) -> Result<Encrypting, ProfileError> {
    let device_id = device.address.device_id;
    let progress = rows.progress(waiting.id, device_id)?;
    if progress == Progress::Encrypted {
        return Ok(Encrypting::Done);
    }
    if device.registration_id == 0 {
        // Nothing has come from it that we could read, and the server takes nothing for it without its number.
        return Ok(Encrypting::NeedsBundles);
    }
    let is_for_it = waiting.device.is_none_or(|wanted| wanted == device_id.get());
    let (stream, sequence) = match progress {
        _ if !waiting.form.is_numbered() => (0, 0),
        // In a stream that is over a number means nothing any more, and it would bring the stream back.
        Progress::Numbered { stream, sequence } if stream == device.sent_stream => {
            (stream, sequence)
        }
        _ => (stream_of(device, turn), device.sent + 1),
    };
    let (kind, body) = if waiting.form == Form::Plaintext && is_for_it {
        (ContentKind::Plaintext, waiting.content.clone())
    } else {
        let content = if is_for_it { &waiting.content[..] } else { &[] };
        let content =
            Content::decode(content).map_err(|_| ProfileError::Damaged { what: "outbox" })?;
        let plaintext = Content { stream, sequence, ..content }.encode_padded();
        let (trust, now) = (Trust::Only(*identity), turn.now);
        let rng = &mut turn.rng;
        let session = &mut device.session;
        match session.encrypt(local, &device.address, &plaintext, trust, rng, now) {
            Ok(it) if it.kind == MessageKind::PreKey => (ContentKind::PreKey, it.body),
            Ok(it) => (ContentKind::Whisper, it.body),
            Err(_) => {
                // The session is of no use any more; it still reads what is on its way to us.
                session.archive_current();
                return Ok(Encrypting::NeedsBundles);
            }
        }
    };
    if sequence > device.sent {
        (device.sent_stream, device.sent) = (stream, sequence);
    }
    let session = match kind {
        ContentKind::Plaintext => None,
        _ => device.session.info().map(|info| *info.base_key.as_u()),
    };
    let ciphertext = Ciphertext {
        device_id,
        registration_id: device.registration_id,
        kind: kind as u8,
        stream,
        sequence,
        digest: digest(&body),
        session,
        body: body.into(),
    };
    rows.insert_ciphertext(waiting.id, &ciphertext)?;
    Ok(Encrypting::Done)
}

/// The stream of what we send to a device: the one that was begun, or a new one.
fn stream_of(device: &Device, turn: &mut Turn<'_>) -> u64 {
    match device.sent_stream {
        0 => (u64::from_le_bytes(turn.random()) >> 1).max(1),
        stream => stream,
    }
}

/// The recipient has other devices than we thought. Nothing of `message` was stored.
pub(super) fn apply_mismatch(
    rows: Rows<'_>,
    account: ServiceId,
    message: u64,
    mismatch: &DeviceMismatch,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let address =
        |id: &u32| DeviceId::try_from(*id).ok().map(|device| Address::new(account, device));
    for extra in mismatch.extra.iter().filter_map(address) {
        forget_device(rows, extra, turn)?;
    }
    let submitted = rows.ciphertexts(message)?;
    for stale in mismatch.stale.iter().filter_map(address) {
        let Some(mut device) = rows.device(stale)? else { continue };
        let used = submitted.iter().find(|ciphertext| ciphertext.device_id == stale.device_id);
        // Unless a newer session has come in meanwhile.
        if used.is_some_and(|used| used.registration_id == device.registration_id) {
            device.session.archive_current();
        }
        forget_stream(rows, &mut device)?;
        rows.save_device(&device)?;
    }
    for missing in mismatch.missing.iter().filter_map(address) {
        if rows.device(missing)?.is_none() {
            rows.save_device(&Device::unknown(missing))?;
        }
    }
    rows.untell(account)?;
    rows.mark_not_encrypted(account)
}

/// What a device gets begins at 1 again, in another stream, and what waits is encrypted anew.
pub(super) fn forget_stream(rows: Rows<'_>, device: &mut Device) -> Result<(), ProfileError> {
    (device.sent_stream, device.sent) = (0, 0);
    rows.untell(device.address.service_id)?;
    rows.delete_ciphertexts(device.address)
}
