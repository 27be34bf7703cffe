//! What is sent and what has come: contents that tell their number and the time of sending, compared byte by byte at
//! the receiver. The bench beside other brokers (`benches/relay`) sends and checks with this file too.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;

/// Time of sending and number.
const HEAD: usize = 16;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What came is not what was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WrongDelivery {
    /// Other bytes, or no message of this work.
    #[error("a delivered message is none of those that were sent")]
    Content,
    /// A number again.
    #[error("message {0} was delivered twice without a connection lost")]
    Twice(u64),
}

/// So many messages, sent by some and received by others.
pub(super) struct Work {
    seed: u64,
    size: usize,
    next: AtomicUsize,
    left: AtomicUsize,
    delivered: Vec<AtomicBool>,
    done: Notify,
}

impl Work {
    pub(super) fn new(count: usize, size: usize) -> Self {
        let (next, left) = (AtomicUsize::new(0), AtomicUsize::new(count));
        let delivered = (0..count).map(|_| AtomicBool::new(false)).collect();
        Self {
            seed: rand::random(),
            size: size.max(HEAD),
            next,
            left,
            delivered,
            done: Notify::new(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.delivered.len()
    }

    /// How many have not been delivered.
    pub(super) fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// Waits until all have been delivered.
    pub(super) async fn finished(&self) {
        let mut done = std::pin::pin!(self.done.notified());
        done.as_mut().enable();
        if self.left() > 0 {
            done.await;
        }
    }

    /// The number of the next to send.
    pub(super) fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.count()).then_some(number as u64)
    }

    /// Random bytes behind the time and the number.
    pub(super) fn content(&self, number: u64) -> Vec<u8> {
        let mut content = self.random(number);
        let now = START.elapsed().as_nanos() as u64;
        let head = now.to_be_bytes().into_iter().chain(number.to_be_bytes());
        content.iter_mut().zip(head).for_each(|(byte, of_head)| *byte = of_head);
        content
    }

    /// Counts what has come and tells how long it was under way.
    ///
    /// # Errors
    /// It was not sent, or came before.
    pub(super) fn delivered(&self, content: &[u8]) -> Result<Duration, WrongDelivery> {
        let now = START.elapsed();
        let (head, random) = content.split_at_checked(HEAD).ok_or(WrongDelivery::Content)?;
        let [sent, number] = [head.first_chunk(), head.last_chunk()]
            .map(|bytes| bytes.map_or(0, |bytes| u64::from_be_bytes(*bytes)));
        let before = self.delivered.get(number as usize).ok_or(WrongDelivery::Content)?;
        if self.random(number).get(HEAD..) != Some(random) {
            return Err(WrongDelivery::Content);
        }
        if before.swap(true, Ordering::Relaxed) {
            return Err(WrongDelivery::Twice(number));
        }
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_waiters();
        }
        Ok(now.saturating_sub(Duration::from_nanos(sent)))
    }

    fn random(&self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.size];
        StdRng::seed_from_u64(self.seed.wrapping_add(number)).fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_sent_counts_and_once() {
        let work = Work::new(2, 100);
        let numbers = [work.take(), work.take(), work.take()];
        assert_eq!(numbers, [Some(0), Some(1), None]);
        let sent = work.content(1);
        let mut other = sent.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(matches!(work.delivered(&other), Err(WrongDelivery::Content)));
        assert!(matches!(work.delivered(&sent[..50]), Err(WrongDelivery::Content)));
        let foreign = Work::new(2, 100).content(1);
        assert!(matches!(work.delivered(&foreign), Err(WrongDelivery::Content)));
        assert_eq!(work.left(), 2);
        work.delivered(&sent).unwrap();
        assert!(matches!(work.delivered(&sent), Err(WrongDelivery::Twice(1))));
        assert_eq!(work.left(), 1);
    }
}
