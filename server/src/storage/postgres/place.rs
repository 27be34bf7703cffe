//! The statement that stores envelopes: all of them or none, in one way to the database and back.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::recipients::Target;
use crate::storage::{Append, Life, MailboxId, NewMessage, NodeId, StoreError};

/// Notes the keys ($1, at the time $2) if none of them is known; then adds to the mailboxes ($3, in the order of their
/// numbers, of the generations $4, so many envelopes $5 of so many bytes $6) and stores their envelopes ($8 to $13), each
/// mailbox's beginning at its place ($7, from 1) in these. A mailbox of another generation ends it, since `next_seq` cannot be
/// null, and one that is gone, since no mailbox is without its device. Gives the mailboxes; none if a key was known.
///
/// The mailboxes are locked in the order in which they are given; the keys before them, since they wait for the count of those
/// that are new. They are all there: the conflict takes the newest row under its lock, where an update would begin the
/// statement anew for each row that another node has changed meanwhile.
const PLACE: &str = "WITH known AS (
    SELECT FROM submission WHERE key = ANY($1::uuid[])
), fresh AS (
    INSERT INTO submission (key, at_ms) SELECT unnest($1::uuid[]), $2::bigint WHERE NOT EXISTS (SELECT FROM known) RETURNING 1
), filled AS (
    INSERT INTO mailbox (device, next_seq, count, bytes, generation)
    SELECT unnest($3::bigint[]), 0, unnest($5::bigint[]), unnest($6::bigint[]), unnest($4::bigint[])
    WHERE (SELECT count(*) FROM fresh) = cardinality($1)
    ON CONFLICT (device) DO UPDATE SET
        next_seq = CASE WHEN mailbox.generation = excluded.generation THEN mailbox.next_seq + excluded.count END,
        count = mailbox.count + excluded.count, bytes = mailbox.bytes + excluded.bytes
    RETURNING device, next_seq, count, bytes, node
), placed AS (
    SELECT device, next_seq - ($5::bigint[])[i] AS first, ($7::bigint[])[i] AS place, ($5::bigint[])[i] AS n, ($3::bigint[])[i] AS asked, count, bytes, node
    FROM (SELECT filled.*, row_number() OVER () AS i FROM filled) f
), put AS (
    INSERT INTO envelope (mailbox, seq, received_ms, expires_ms, size, payload, body, short)
    SELECT CASE WHEN f.device = f.asked THEN f.device END, f.first + f.at - f.place,
           ($8::bigint[])[f.at], ($9::bigint[])[f.at], ($10::bigint[])[f.at], ($11::bigint[])[f.at], ($12::bytea[])[f.at], ($13::boolean[])[f.at]
    FROM (SELECT device, asked, first, place, generate_series(place, place + n - 1)::integer AS at FROM placed) f
)
SELECT device, first, count, bytes, node FROM placed";

/// Whether a mailbox was gone or of another generation.
pub(super) fn is_changed(error: &StoreError) -> bool {
    let StoreError::Postgres(error) = error else { return false };
    [SqlState::NOT_NULL_VIOLATION, SqlState::FOREIGN_KEY_VIOLATION]
        .iter()
        .any(|of| error.code() == Some(of))
}

/// An envelope on its way to a mailbox.
struct Entry<'a> {
    new: &'a Append,
    size: i64,
    payload: Option<i64>,
    body: &'a [u8],
}

#[derive(Default)]
struct Group<'a> {
    generation: i64,
    size: i64,
    entries: Vec<Entry<'a>>,
}

/// What is to be stored, by mailbox.
#[derive(Default)]
pub(super) struct Placing<'a>(BTreeMap<MailboxId, Group<'a>>);

impl<'a> Placing<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(
        &mut self,
        target: Target,
        new: &'a Append,
        message: &'a NewMessage,
        payload: Option<i64>,
    ) {
        let size = message.content.len().saturating_add(new.shared.len());
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let group = self.0.entry(target.mailbox).or_default();
        group.generation = target.generation;
        group.size = group.size.saturating_add(size);
        group.entries.push(Entry { new, size, payload, body: &message.content });
    }

    /// Stores all. None if a key was known, and nothing is stored.
    pub(super) async fn place(
        &self,
        db: &impl GenericClient,
        keys: &BTreeSet<Uuid>,
    ) -> Result<Option<Filled>, StoreError> {
        let groups = self.0.values();
        let column = |of: fn(&Group<'_>) -> i64| groups.clone().map(of).collect::<Vec<i64>>();
        let (generations, sizes) = (column(|it| it.generation), column(|it| it.size));
        let counts = column(|it| i64::try_from(it.entries.len()).unwrap_or(i64::MAX));
        let places: Vec<i64> =
            counts.iter().scan(1, |at, n| Some(std::mem::replace(at, *at + n))).collect();
        let mailboxes: Vec<i64> = self.0.keys().map(|mailbox| mailbox.0).collect();
        let entries = groups.clone().flat_map(|group| &group.entries);
        let column = |of: fn(&Entry<'_>) -> i64| entries.clone().map(of).collect::<Vec<i64>>();
        let (received, expires) = (column(|it| it.new.now_ms), column(|it| it.new.expires_ms));
        let envelope_sizes = column(|it| it.size);
        let payloads: Vec<Option<i64>> = entries.clone().map(|it| it.payload).collect();
        let short: Vec<bool> = entries.clone().map(|it| it.new.life == Life::Short).collect();
        let bodies: Vec<&[u8]> = entries.map(|it| it.body).collect();
        let keys: Vec<Uuid> = keys.iter().copied().collect();
        let now = received.iter().max();
        let place = db.prepare_cached(PLACE).await?;
        let rows = db
            .query(
                &place,
                &[
                    &keys,
                    &now,
                    &mailboxes,
                    &generations,
                    &counts,
                    &sizes,
                    &places,
                    &received,
                    &expires,
                    &envelope_sizes,
                    &payloads,
                    &bodies,
                    &short,
                ],
            )
            .await?;
        if rows.is_empty() { Ok(None) } else { filled(&rows).map(Some) }
    }
}

/// The mailboxes after that.
pub(super) type Filled = BTreeMap<MailboxId, State>;

pub(super) struct State {
    /// Of its next envelope of the batch.
    pub(super) seq: i64,
    pub(super) count: i64,
    pub(super) bytes: i64,
    pub(super) node: Option<NodeId>,
}

fn filled(rows: &[Row]) -> Result<Filled, StoreError> {
    let filled = rows.iter().map(|row| {
        let node: Option<i64> = row.try_get(4)?;
        let state = State {
            seq: row.try_get(1)?,
            count: row.try_get(2)?,
            bytes: row.try_get(3)?,
            node: node.map(NodeId),
        };
        Ok((MailboxId(row.try_get(0)?), state))
    });
    filled.collect()
}
