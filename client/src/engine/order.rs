//! Each sender device numbers what it sends to us, from 1. Messages get their turn by that number; one that
//! came too early waits, for a bounded time and among a bounded number, and the gap is marked when it
//! does not close.

use tuckseal::Address;

use super::{Engine, Turn};
use crate::event::Event;
use crate::message::Message;
use crate::store::{Device, Early, ProfileError, Rows};

/// Takes a message in; the messages whose turn has come, in order, which are in the inbox now.
pub(super) fn take(rows: Rows<'_>, device: &mut Device, early: Early, limit: u64) -> Result<Vec<Message>, ProfileError> {
    let mut ready = Vec::new();
    if early.sequence <= device.next {
        // Its turn, or late, or outside the order.
        if early.sequence == device.next {
            device.next += 1;
        }
        deliver(rows, device.address, &early, 0, &mut ready)?;
        release(rows, device, &mut ready)?;
        return Ok(ready);
    }
    if !rows.insert_early(device.address, &early)? {
        // Two with one number, both authentic: show this one too.
        deliver(rows, device.address, &early, 0, &mut ready)?;
    }
    while rows.early_of(device.address)?.0 > limit {
        skip_gap(rows, device, &mut ready)?;
    }
    Ok(ready)
}

/// Delivers all that waits and begins at 1 again.
pub(super) fn restart(rows: Rows<'_>, device: &mut Device) -> Result<Vec<Message>, ProfileError> {
    let mut ready = Vec::new();
    while rows.first_early(device.address)?.is_some() {
        skip_gap(rows, device, &mut ready)?;
    }
    device.next = 1;
    Ok(ready)
}

/// Gives up the messages before the first that waits.
fn skip_gap(rows: Rows<'_>, device: &mut Device, ready: &mut Vec<Message>) -> Result<(), ProfileError> {
    let Some(first) = rows.first_early(device.address)? else { return Ok(()) };
    let missing = first.sequence.saturating_sub(device.next);
    device.next = first.sequence.saturating_add(1);
    deliver(rows, device.address, &first, missing, ready)?;
    rows.delete_early(device.address, first.sequence)?;
    release(rows, device, ready)
}

/// Delivers what waits without a gap before it.
fn release(rows: Rows<'_>, device: &mut Device, ready: &mut Vec<Message>) -> Result<(), ProfileError> {
    while let Some(first) = rows.first_early(device.address)?.filter(|first| first.sequence <= device.next) {
        device.next = first.sequence.saturating_add(1);
        deliver(rows, device.address, &first, 0, ready)?;
        rows.delete_early(device.address, first.sequence)?;
    }
    Ok(())
}

fn deliver(rows: Rows<'_>, sender: Address, early: &Early, missing: u64, ready: &mut Vec<Message>) -> Result<(), ProfileError> {
    if let Some(text) = &early.body {
        ready.push(rows.insert_inbox(sender, early.sent, missing, text)?);
    }
    Ok(())
}

impl Engine {
    /// Delivers what has waited long enough for a missing message.
    pub(super) fn release_overdue(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        loop {
            let oldest = self.store.rows().oldest_early()?;
            let due = oldest.filter(|(_, since)| self.settings.gap_deadline(*since) <= turn.now);
            let Some((sender, _)) = due else { return Ok(()) };
            let ready = self.store.commit(|rows| {
                let mut device = rows.device(sender)?.unwrap_or(Device::unknown(sender));
                let mut ready = Vec::new();
                skip_gap(rows, &mut device, &mut ready)?;
                rows.save_device(&device)?;
                Ok::<_, ProfileError>(ready)
            })?;
            ready.into_iter().for_each(|message| turn.tell(Event::Message(message)));
        }
    }
}
