//! Receipts: what arrived is told to its sender, as far as the app wants it, and what we are told is noted.

use std::collections::BTreeMap;

use tuckseal::content::{Body, Content, Receipt, ReceiptKind};
use tuckseal::{ServiceId, Timestamp};

use super::{Engine, Turn, devices};
use crate::event::Event;
use crate::message::{MessageId, SentId};
use crate::store::{Form, ProfileError, Rows};

/// Which receipts are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Receipts {
    /// None.
    Off,
    /// That a message arrived.
    Delivered,
    /// That it arrived, and that a person has read it.
    DeliveredAndRead,
}

/// Messages that one receipt speaks of.
const MAX_MESSAGES: usize = 1000;

/// Puts out what arrived in this turn.
pub(super) fn put_out(
    rows: Rows<'_>,
    receipts: Receipts,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let mut received = std::mem::take(&mut turn.received);
    if receipts == Receipts::Off || received.is_empty() {
        return Ok(());
    }
    // What another device of ours has sent is no message to us.
    let us = rows.own_account()?;
    received.retain(|(account, _)| *account != us);
    tell(rows, ReceiptKind::Delivered, received)
}

fn tell(
    rows: Rows<'_>,
    kind: ReceiptKind,
    messages: Vec<(ServiceId, Timestamp)>,
) -> Result<(), ProfileError> {
    let mut by_account = BTreeMap::<_, Vec<_>>::new();
    for (account, timestamp) in messages {
        by_account.entry(*account.uuid()).or_default().push(timestamp);
    }
    for (account, timestamps) in by_account {
        for timestamps in timestamps.chunks(MAX_MESSAGES) {
            let receipt = Receipt { kind, timestamps: timestamps.to_vec() };
            let content = Content { body: Body::Receipt(receipt), ..Content::default() };
            rows.put_out(ServiceId::aci(account), Form::Loose, &content)?;
        }
    }
    Ok(())
}

/// Somebody tells what became of messages of ours.
pub(super) fn take(
    rows: Rows<'_>,
    account: ServiceId,
    receipt: &Receipt,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let number = receipt.kind as u8 + 1;
    let mut messages = Vec::new();
    for timestamp in &receipt.timestamps {
        messages.extend(rows.note_receipt(account, *timestamp, number)?.map(SentId));
    }
    if !messages.is_empty() {
        turn.tell(Event::Receipt { account, kind: receipt.kind, messages });
    }
    Ok(())
}

impl Engine {
    /// A person has read these messages of the inbox.
    ///
    /// # Errors
    /// [`ProfileError`]; nothing was changed.
    pub(crate) fn mark_read(
        &mut self,
        messages: &[MessageId],
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let (us, receipts) = (self.us(), self.settings.receipts);
        if receipts != Receipts::DeliveredAndRead && !self.has_others() {
            return Ok(());
        }
        let mut read = Vec::new();
        for id in messages {
            let message = self.store.rows().inbox_message(*id)?;
            let message = message.filter(|message| message.from != us);
            read.extend(message.map(|message| (message.from, message.sent)));
        }
        let mut accounts: Vec<_> = read.iter().map(|(account, _)| *account).collect();
        accounts.push(us);
        self.store.commit(|rows| {
            devices::tell_read(rows, us, &read, turn)?;
            match receipts {
                Receipts::DeliveredAndRead => tell(rows, ReceiptKind::Read, read),
                Receipts::Off | Receipts::Delivered => Ok(()),
            }
        })?;
        for account in accounts {
            self.pump_stored(account, turn);
        }
        Ok(())
    }
}
