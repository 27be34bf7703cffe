//! What one connected device gets next: order, window and the hand-over from mailbox to memory. No I/O.
//!
//! The mailbox is the truth. Envelopes handed over in memory go out only when they continue the sequence;
//! after a hole that stays open the mailbox is read again from the cursor.

use std::collections::{BTreeMap, BTreeSet};

use crate::storage::{Backlog, ReadLimit, StoredEnvelope};

/// Envelopes kept in memory ahead of their turn.
const EARLY: usize = 256;
/// Bytes of their bodies.
const EARLY_BYTES: usize = 1024 * 1024;
/// Bytes read from the mailbox at once.
const READ_BYTES: usize = 256 * 1024;
/// Envelopes read from the mailbox at once.
const READ_MESSAGES: usize = 128;

/// How much may be on its way without an acknowledgement.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Envelopes.
    pub messages: usize,
    /// Bytes of their bodies; one envelope is always let through.
    pub bytes: usize,
}

/// Whether the backlog of the opening has been delivered.
#[derive(Debug, PartialEq, Eq)]
enum Opening {
    Reading,
    Done,
}

/// The state of one connection.
#[derive(Debug)]
pub struct Delivery {
    window: Window,
    /// All places up to here were sent or are gone.
    cursor: i64,
    unacked: BTreeMap<i64, usize>,
    unacked_bytes: usize,
    early: BTreeMap<i64, StoredEnvelope>,
    /// Places after the cursor that the device has acknowledged: it got them on a stream before this one.
    ahead: BTreeSet<i64>,
    /// The mailbox may hold envelopes after the cursor that are not in `early`.
    behind: bool,
    opening: Opening,
    /// Until something is acknowledged no more than one envelope is on its way.
    one: bool,
}

impl Delivery {
    /// Begins at the start of the mailbox.
    #[must_use]
    pub fn new(window: Window) -> Self {
        Self {
            window,
            cursor: 0,
            unacked: BTreeMap::new(),
            unacked_bytes: 0,
            early: BTreeMap::new(),
            ahead: BTreeSet::new(),
            behind: true,
            opening: Opening::Reading,
            one: false,
        }
    }

    /// One envelope alone until the first acknowledgement: the device may not survive it.
    #[must_use]
    pub fn one_at_first(self) -> Self {
        Self { one: true, ..self }
    }

    /// Where to read on, and how much, if the mailbox has to be read now.
    #[must_use]
    pub fn reading(&self) -> Option<(i64, ReadLimit)> {
        let messages = self.messages().saturating_sub(self.unacked.len()).min(READ_MESSAGES);
        let bytes = self.window.bytes.saturating_sub(self.unacked_bytes).min(READ_BYTES);
        let limit = ReadLimit { messages, bytes };
        (self.behind && messages > 0 && bytes > 0).then_some((self.cursor, limit))
    }

    /// Takes what was read; gives what is to be sent.
    pub fn read(&mut self, backlog: Backlog) -> Vec<StoredEnvelope> {
        self.cursor = self.cursor.max(backlog.covers);
        self.behind = backlog.covers < backlog.end;
        let next = self.cursor.saturating_add(1);
        self.early = self.early.split_off(&next);
        self.ahead = self.ahead.split_off(&next);
        for envelope in &backlog.envelopes {
            self.sent(envelope);
        }
        backlog.envelopes
    }

    /// True once: the backlog of the opening has been read to its end.
    pub fn opened(&mut self) -> bool {
        let now = !self.behind && self.opening == Opening::Reading;
        if now {
            self.opening = Opening::Done;
        }
        now
    }

    /// An envelope was handed over in memory.
    pub fn offer(&mut self, envelope: StoredEnvelope) {
        if self.behind || envelope.seq <= self.cursor {
            return;
        }
        let bytes: usize = self.early.values().map(|early| early.size()).sum();
        if self.early.len() == EARLY || bytes.saturating_add(envelope.size()) > EARLY_BYTES {
            self.look();
        } else {
            self.early.insert(envelope.seq, envelope);
        }
    }

    /// The mailbox must be read.
    pub fn look(&mut self) {
        self.behind = true;
        self.early.clear();
    }

    /// The envelopes in memory whose turn it is.
    pub fn due(&mut self) -> Vec<StoredEnvelope> {
        let mut due = Vec::new();
        while self.has_room()
            && let Some(entry) = self.early.first_entry()
            && *entry.key() == self.cursor.saturating_add(1)
        {
            let envelope = entry.remove();
            self.cursor = envelope.seq;
            self.ahead.remove(&envelope.seq);
            self.sent(&envelope);
            due.push(envelope);
        }
        due
    }

    /// All places up to here were sent or are gone.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    /// Envelopes wait in memory for one before them.
    #[must_use]
    pub fn has_hole(&self) -> bool {
        self.early.first_key_value().is_some_and(|(seq, _)| *seq != self.cursor.saturating_add(1))
    }

    /// The device has it. Whether there may be something to delete: a place is worth that once, however often the device
    /// names it.
    ///
    /// Up to the cursor that is what was sent here. After it, it is what a stream before this one has sent, which was no more
    /// than a window.
    pub fn acknowledged(&mut self, seq: i64) -> bool {
        let Some(size) = self.unacked.remove(&seq) else {
            let before = seq > self.cursor && self.ahead.len() < self.window.messages;
            return before && self.ahead.insert(seq);
        };
        self.unacked_bytes = self.unacked_bytes.saturating_sub(size);
        self.one = false;
        true
    }

    /// The first place that was sent and has not been acknowledged.
    #[must_use]
    pub fn first_unacknowledged(&self) -> Option<i64> {
        self.unacked.first_key_value().map(|(seq, _)| *seq)
    }

    /// All that decides what it does next.
    #[cfg(test)]
    pub(crate) fn state(&self) -> impl std::hash::Hash + use<> {
        let places = |of: &mut dyn Iterator<Item = &i64>| of.copied().collect::<Vec<i64>>();
        let (unacked, early) = (places(&mut self.unacked.keys()), places(&mut self.early.keys()));
        let ahead = places(&mut self.ahead.iter());
        (self.cursor, unacked, early, ahead, self.behind, self.opening == Opening::Done, self.one)
    }

    fn messages(&self) -> usize {
        if self.one { 1 } else { self.window.messages }
    }

    fn sent(&mut self, envelope: &StoredEnvelope) {
        if self.unacked.insert(envelope.seq, envelope.size()).is_none() {
            self.unacked_bytes = self.unacked_bytes.saturating_add(envelope.size());
        }
    }

    fn has_room(&self) -> bool {
        self.unacked.len() < self.messages() && self.unacked_bytes < self.window.bytes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const WINDOW: Window = Window { messages: 4, bytes: 100 };

    fn envelope(seq: i64) -> StoredEnvelope {
        StoredEnvelope {
            seq,
            received_ms: 0,
            shared: Bytes::new(),
            content: Bytes::from_static(&[0; 10]),
        }
    }

    fn backlog(seqs: std::ops::RangeInclusive<i64>, end: i64) -> Backlog {
        let covers = *seqs.end();
        Backlog { envelopes: seqs.map(envelope).collect(), covers, end, dropped: 0 }
    }

    fn seqs(envelopes: &[StoredEnvelope]) -> Vec<i64> {
        envelopes.iter().map(|envelope| envelope.seq).collect()
    }

    fn live() -> Delivery {
        let mut delivery = Delivery::new(WINDOW);
        delivery.read(Backlog { envelopes: Vec::new(), covers: 0, end: 0, dropped: 0 });
        assert!(delivery.opened());
        delivery
    }

    #[test]
    fn envelopes_handed_over_out_of_order_go_out_in_order() {
        let mut delivery = live();
        delivery.offer(envelope(2));
        assert!(delivery.due().is_empty() && delivery.has_hole());
        delivery.offer(envelope(1));
        assert_eq!(seqs(&delivery.due()), [1, 2]);
        assert!(!delivery.has_hole());
    }

    #[test]
    fn window_stops_memory_and_mailbox_until_something_is_acknowledged() {
        let mut delivery = live();
        (1..=6).for_each(|seq| delivery.offer(envelope(seq)));
        assert_eq!(seqs(&delivery.due()), [1, 2, 3, 4]);
        assert!(delivery.due().is_empty());
        delivery.look();
        assert!(delivery.reading().is_none());
        delivery.acknowledged(1);
        assert_eq!(delivery.reading().unwrap().1.messages, 1);
        assert_eq!(seqs(&delivery.read(backlog(5..=5, 6))), [5]);
        assert!(delivery.reading().is_none());
    }

    #[test]
    fn one_envelope_goes_alone_until_something_is_acknowledged() {
        let mut delivery = Delivery::new(WINDOW).one_at_first();
        assert_eq!(delivery.reading().unwrap().1.messages, 1);
        delivery.read(backlog(3..=3, 9));
        assert!(delivery.reading().is_none());
        delivery.acknowledged(77);
        assert!(delivery.reading().is_none());
        assert_eq!(delivery.first_unacknowledged(), Some(3));
        delivery.acknowledged(3);
        assert_eq!(delivery.reading().unwrap().1.messages, WINDOW.messages);
        assert_eq!(delivery.first_unacknowledged(), None);
    }

    #[test]
    fn place_is_worth_one_deletion_and_none_if_it_was_neither_sent_here_nor_comes_later() {
        let mut delivery = Delivery::new(WINDOW);
        // The second one has gone.
        delivery.read(Backlog {
            envelopes: [1, 3].map(envelope).into(),
            covers: 3,
            end: 9,
            dropped: 0,
        });
        assert!(delivery.acknowledged(3) && !delivery.acknowledged(3));
        assert!(
            !delivery.acknowledged(2) && !delivery.acknowledged(0) && !delivery.acknowledged(-1)
        );
        // Of an earlier stream: each once, and no more than that one had on its way.
        let ahead = (4..100).chain(4..100).filter(|seq| delivery.acknowledged(*seq));
        assert_eq!(ahead.collect::<Vec<i64>>(), [4, 5, 6, 7]);
        // They went before the mailbox was read, or else they are sent again.
        delivery.read(backlog(7..=8, 9));
        assert!(!delivery.acknowledged(5) && delivery.acknowledged(7));
        assert!(delivery.acknowledged(9) && !delivery.acknowledged(9));
    }

    #[test]
    fn queue_is_empty_once_and_only_after_the_last_part_of_the_backlog() {
        let mut delivery = Delivery::new(WINDOW);
        delivery.read(backlog(1..=4, 9));
        assert!(!delivery.opened());
        assert!((1..=4).all(|seq| delivery.acknowledged(seq)));
        delivery.read(backlog(5..=8, 9));
        assert!((5..=8).all(|seq| delivery.acknowledged(seq)));
        delivery.read(backlog(9..=9, 9));
        assert!(delivery.opened());
        assert!(!delivery.opened());
    }

    #[test]
    fn envelope_in_memory_that_the_mailbox_gave_already_is_not_sent_twice() {
        let mut delivery = live();
        delivery.offer(envelope(2));
        delivery.look();
        assert_eq!(seqs(&delivery.read(backlog(1..=2, 2))), [1, 2]);
        delivery.offer(envelope(2));
        assert!(delivery.due().is_empty());
    }

    #[test]
    fn memory_ahead_of_the_cursor_is_bounded() {
        let mut delivery = live();
        (2..2 + 10 * EARLY as i64).for_each(|seq| delivery.offer(envelope(seq)));
        assert!(delivery.early.len() <= EARLY && delivery.reading().is_some());
    }
}
