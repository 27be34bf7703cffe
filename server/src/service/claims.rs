//! Claims of one mailbox go one after the other at a node, so that the latest connection has the latest claim. Carried out
//! at once they might come to the store in another order, and the connection that is left would be taken for an old one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::storage::MailboxId;

type Place = Arc<tokio::sync::Mutex<()>>;

/// The mailboxes that are being claimed.
#[derive(Default)]
pub(super) struct Claims(Mutex<HashMap<MailboxId, Place>>);

impl Claims {
    /// Waits for those that came before. The next one goes when the turn is dropped.
    pub(super) async fn turn(&self, mailbox: MailboxId) -> Turn<'_> {
        let place = Arc::clone(self.lock().entry(mailbox).or_default());
        let mut turn = Turn { claims: self, mailbox, held: None };
        turn.held = Some(place.lock_owned().await);
        turn
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxId, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that claims, or waits to.
pub(super) struct Turn<'a> {
    claims: &'a Claims,
    mailbox: MailboxId,
    held: Option<OwnedMutexGuard<()>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut places = self.claims.lock();
        if places.get(&self.mailbox).is_some_and(|place| Arc::strong_count(place) == 1) {
            places.remove(&self.mailbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MAILBOX: MailboxId = MailboxId(1);

    #[tokio::test]
    async fn one_claims_at_a_time_and_nothing_is_left() {
        let claims = Claims::default();
        let first = claims.turn(MAILBOX).await;
        let mut second = Box::pin(claims.turn(MAILBOX));
        assert!((&mut second).now_or_never().is_none());
        assert!(claims.turn(MailboxId(2)).now_or_never().is_some());
        drop(first);
        let second = second.await;
        let third = Box::pin(claims.turn(MAILBOX));
        drop(third);
        drop(second);
        assert!(claims.lock().is_empty());
        // One that gives up waiting leaves nothing either.
        let first = claims.turn(MAILBOX).await;
        let mut second = Box::pin(claims.turn(MAILBOX));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        drop(second);
        assert!(claims.lock().is_empty());
    }
}
