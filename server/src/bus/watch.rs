//! Those who wait at this node for a device to be linked to their account. Only a hint, as all that is on the bus: whoever waits looks at
//! the store, before and from time to time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// By the numbers of their accounts.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<HashMap<i64, watch::Sender<()>>>>);

impl Watches {
    pub(super) fn watch(&self, account: i64, most: usize) -> Option<Watch> {
        let mut all = self.lock();
        let waiting = all.get(&account).map_or(0, watch::Sender::receiver_count);
        if waiting >= most {
            return None;
        }
        let news = all.entry(account).or_insert_with(|| watch::Sender::new(())).subscribe();
        Some(Watch { account, news, watches: self.clone() })
    }

    pub(super) fn tell(&self, account: i64) {
        if let Some(news) = self.lock().get(&account) {
            news.send_replace(());
        }
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits. Dropping it ends that.
pub struct Watch {
    account: i64,
    news: watch::Receiver<()>,
    watches: Watches,
}

impl Watch {
    /// Waits for news that came since this began to watch, or since the last. Cancelling the wait loses nothing.
    pub async fn news(&mut self) {
        // The sender is there as long as anybody watches.
        let _ = self.news.changed().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut all = self.watches.lock();
        if all.get(&self.account).is_some_and(|news| news.receiver_count() <= 1) {
            all.remove(&self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn all_who_wait_for_an_account_are_told_also_before_they_wait_and_others_are_not() {
        let watches = Watches::default();
        let mut first = watches.watch(1, 2).unwrap();
        let mut second = watches.watch(1, 2).unwrap();
        let mut other = watches.watch(2, 2).unwrap();
        assert!(watches.watch(1, 2).is_none(), "more than may wait");
        watches.tell(1);
        watches.tell(3);
        first.news().await;
        second.news().await;
        assert!(first.news().now_or_never().is_none() && other.news().now_or_never().is_none());
        drop(first);
        let mut third = watches.watch(1, 2).unwrap();
        watches.tell(1);
        third.news().await;
        second.news().await;
        drop((second, third, other));
        assert!(watches.lock().is_empty());
    }
}
