//! A batch of submissions. Nearly always that is one statement, which is a transaction of its own (`place`); where something
//! was handed in before, or a part is shared, it is several in one transaction.
//!
//! Locks are taken in one order everywhere: submissions by key, mailboxes by number, then envelopes, then payloads by hash.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use deadpool_postgres::{GenericClient, Object};
use sha2::{Digest, Sha256};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connections::{Connections, repeat};
use super::mailbox::{lock, make_room};
use super::place::{Filled, Placing};
use super::recipients::{Accounts, Plan, Target};
use crate::storage::{Append, AppendAnswer, MailboxId, Placed, Quota, Recipient, StoreError};

/// A recipient that gets its messages, and where they go.
struct Delivering<'a> {
    append: usize,
    recipient: usize,
    new: &'a Append,
    to: &'a Recipient,
    targets: Vec<Target>,
}

/// What became of a batch.
pub(super) struct Appended {
    /// Those of each submission's recipients.
    pub(super) answers: Vec<Vec<AppendAnswer>>,
    /// The mailboxes that are over their quota, each with what was placed in it last.
    pub(super) over: BTreeMap<MailboxId, Over>,
}

pub(super) struct Over {
    quota: Quota,
    append: usize,
    recipient: usize,
    place: usize,
}

/// Stores a batch.
pub(super) async fn append(
    db: &mut Object,
    accounts: &Accounts,
    batch: &[Append],
) -> Result<Appended, StoreError> {
    let recipients: Vec<&Recipient> = batch.iter().flat_map(|new| &new.recipients).collect();
    let (mut answers, mut delivering) = planned(accounts.plans(db, &recipients).await?, batch);
    repeated_before_refused(db, batch, &mut answers).await?;
    let mut seen = HashSet::new();
    delivering.retain(|one| seen.insert(one.to.dedup));
    let mut filled = match at_once(db, &delivering).await? {
        Some(filled) => filled,
        None => step_by_step(db, &mut delivering).await?,
    };
    for one in &delivering {
        let placed = placed(one, &mut filled)?;
        let answer = answers.get_mut(one.append).and_then(|own| own.get_mut(one.recipient));
        if let Some(answer) = answer {
            *answer = AppendAnswer::Stored(placed);
        }
    }
    Ok(Appended { answers, over: over(&delivering, &filled) })
}

/// What is refused, and what is to be delivered; that counts as repeated until it is stored.
fn planned(plans: Vec<Plan>, batch: &[Append]) -> (Vec<Vec<AppendAnswer>>, Vec<Delivering<'_>>) {
    let (mut answers, mut delivering) = (Vec::with_capacity(batch.len()), Vec::new());
    let mut plans = plans.into_iter();
    for (append, new) in batch.iter().enumerate() {
        let mut own = Vec::with_capacity(new.recipients.len());
        for ((recipient, to), plan) in new.recipients.iter().enumerate().zip(&mut plans) {
            own.push(match plan {
                // Of the only device of an account to the others.
                Ok(targets) if targets.is_empty() => AppendAnswer::Stored(Vec::new()),
                Ok(targets) => {
                    delivering.push(Delivering { append, recipient, new, to, targets });
                    AppendAnswer::Repeated
                }
                Err(refusal) => refusal,
            });
        }
        answers.push(own);
    }
    (answers, delivering)
}

/// What was accepted before stays accepted, whatever the devices are now.
async fn repeated_before_refused(
    db: &Object,
    batch: &[Append],
    answers: &mut [Vec<AppendAnswer>],
) -> Result<(), StoreError> {
    let recipients = batch.iter().flat_map(|new| &new.recipients);
    let refused: Vec<(&mut AppendAnswer, &Recipient)> = answers
        .iter_mut()
        .flatten()
        .zip(recipients)
        .filter(|(answer, _)| matches!(answer, AppendAnswer::Mismatch(_)))
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let keys: Vec<Uuid> = refused.iter().map(|(_, to)| Uuid::from_bytes(to.dedup)).collect();
    let query = db.prepare_cached("SELECT key FROM submission WHERE key = ANY($1)").await?;
    let known = key_set(&db.query(&query, &[&keys]).await?)?;
    for (answer, to) in refused {
        if known.contains(&to.dedup) {
            *answer = AppendAnswer::Repeated;
        }
    }
    Ok(())
}

/// All in one statement. None if that cannot be, and nothing is done.
async fn at_once(db: &Object, delivering: &[Delivering<'_>]) -> Result<Option<Filled>, StoreError> {
    // A shared part counts its envelopes, so it has to be known first which are stored.
    if delivering.iter().any(|one| !one.new.shared.is_empty()) {
        return Ok(None);
    }
    let placing = placing(delivering, &HashMap::new());
    if placing.is_empty() {
        return Ok(Some(Filled::new()));
    }
    placing.place(db, &keys(delivering)).await
}

/// Leaves of them what was not handed in before, and stores that.
async fn step_by_step(
    db: &mut Object,
    delivering: &mut Vec<Delivering<'_>>,
) -> Result<Filled, StoreError> {
    let changing = db.transaction().await?;
    let fresh = note(&changing, delivering).await?;
    delivering.retain(|one| fresh.contains(&one.to.dedup));
    let mailboxes = delivering.iter().flat_map(|one| &one.targets).map(|target| target.mailbox.0);
    lock(&changing, &mailboxes.collect::<Vec<i64>>()).await?;
    let payloads = hold_payloads(&changing, delivering).await?;
    let placing = placing(delivering, &payloads);
    let filled = if placing.is_empty() {
        Filled::new()
    } else {
        placing.place(&changing, &BTreeSet::new()).await?.ok_or(StoreError::Damaged)?
    };
    changing.commit().await?;
    Ok(filled)
}

fn placing<'a>(delivering: &[Delivering<'a>], payloads: &HashMap<usize, i64>) -> Placing<'a> {
    let mut placing = Placing::default();
    for one in delivering {
        let payload = payloads.get(&one.append).copied();
        for (target, message) in one.targets.iter().zip(&one.to.messages) {
            placing.add(*target, one.new, message, payload);
        }
    }
    placing
}

/// The submission keys in their order.
fn keys(delivering: &[Delivering<'_>]) -> BTreeSet<Uuid> {
    delivering.iter().map(|one| Uuid::from_bytes(one.to.dedup)).collect()
}

/// The submission keys that were not there before; they are now.
async fn note(
    db: &impl GenericClient,
    delivering: &[Delivering<'_>],
) -> Result<HashSet<[u8; 16]>, StoreError> {
    let keys: Vec<Uuid> = keys(delivering).into_iter().collect();
    let now = delivering.iter().map(|one| one.new.now_ms).max();
    let sql = "INSERT INTO submission (key, at_ms) SELECT unnest($1::uuid[]), $2::bigint \
               ON CONFLICT DO NOTHING RETURNING key";
    key_set(&db.query(&db.prepare_cached(sql).await?, &[&keys, &now]).await?)
}

fn key_set(rows: &[Row]) -> Result<HashSet<[u8; 16]>, StoreError> {
    rows.iter().map(|row| Ok(row.try_get::<_, Uuid>(0)?.into_bytes())).collect()
}

/// The shared parts of submissions that have one, by submission, with a reference for each envelope that ends with it.
async fn hold_payloads(
    db: &impl GenericClient,
    delivering: &[Delivering<'_>],
) -> Result<HashMap<usize, i64>, StoreError> {
    let mut refs: BTreeMap<usize, (i64, &[u8])> = BTreeMap::new();
    for one in delivering.iter().filter(|one| !one.new.shared.is_empty()) {
        let count = i64::try_from(one.targets.len()).unwrap_or(i64::MAX);
        refs.entry(one.append).or_insert((0, &one.new.shared)).0 += count;
    }
    let refs = refs
        .into_iter()
        .map(|(append, (count, shared))| (Sha256::digest(shared), append, count, shared));
    let mut refs: Vec<_> = refs.collect();
    // Locked in this order wherever several are.
    refs.sort_unstable_by_key(|(hash, append, ..)| (*hash, *append));
    let mut held = HashMap::new();
    for (hash, append, count, shared) in refs {
        let sql = "INSERT INTO payload (hash, refs, body) VALUES ($1, $2, $3) \
                   ON CONFLICT (hash) DO UPDATE SET refs = payload.refs + $2 RETURNING id";
        let insert = db.prepare_cached(sql).await?;
        let row = db.query_one(&insert, &[&&hash[..], &count, &shared]).await?;
        held.insert(append, row.try_get(0)?);
    }
    Ok(held)
}

fn placed(one: &Delivering<'_>, filled: &mut Filled) -> Result<Vec<Placed>, StoreError> {
    let placed = one.targets.iter().map(|target| {
        let state = filled.get_mut(&target.mailbox).ok_or(StoreError::Damaged)?;
        let seq = state.seq;
        state.seq += 1;
        Ok(Placed { mailbox: target.mailbox, seq, dropped: 0, node: state.node })
    });
    placed.collect()
}

fn over(delivering: &[Delivering<'_>], filled: &Filled) -> BTreeMap<MailboxId, Over> {
    let mut over = BTreeMap::new();
    for one in delivering {
        let (quota, append, recipient) = (one.new.quota, one.append, one.recipient);
        for (place, target) in one.targets.iter().enumerate() {
            let Some(state) = filled.get(&target.mailbox) else { continue };
            if state.count > quota.messages || state.bytes > quota.bytes {
                over.insert(target.mailbox, Over { quota, append, recipient, place });
            }
        }
    }
    over
}

/// Mailboxes that are over their quota lose their oldest; the last one placed there tells how many. The batch is stored by
/// now, whatever becomes of this: the next one for the mailbox makes up for it.
pub(super) async fn keep_quotas(
    db: &Connections,
    over: &BTreeMap<MailboxId, Over>,
    answers: &mut [Vec<AppendAnswer>],
) {
    if over.is_empty() {
        return;
    }
    let quotas: Vec<(MailboxId, Quota)> =
        over.iter().map(|(mailbox, over)| (*mailbox, over.quota)).collect();
    let dropped = match repeat(|| db.run(async |db| make_room(db, &quotas).await)).await {
        Ok(dropped) => dropped,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "mailboxes are over their quotas"
            );
            return;
        }
    };
    for (mailbox, Over { append, recipient, place, .. }) in over {
        let answer = answers.get_mut(*append).and_then(|own| own.get_mut(*recipient));
        if let Some(AppendAnswer::Stored(placed)) = answer
            && let Some(placed) = placed.get_mut(*place)
        {
            placed.dropped = dropped.get(mailbox).copied().unwrap_or(0);
        }
    }
}
