//! How often accounts were reported, and which report tokens were used.

use deadpool_postgres::Object;

use crate::storage::{ReportAnswer, Reporting, StoreError};

/// Rows that one purge takes.
const SLICE: i64 = 500;

/// One statement: two reports with one token at the same time wait for each other at its row.
pub(super) async fn count(db: &Object, reporting: &Reporting) -> Result<ReportAnswer, StoreError> {
    let sql = "WITH target AS (SELECT id FROM account WHERE aci = $1), \
               fresh AS (INSERT INTO report_token (id, expires_day) SELECT $2, $3 FROM target \
                         ON CONFLICT (id) DO NOTHING RETURNING id), \
               counted AS (INSERT INTO report (account, day, count) \
                           SELECT target.id, $4, 1 FROM target, fresh \
                           ON CONFLICT (account, day) DO UPDATE SET count = report.count + 1 \
                           RETURNING count) \
               SELECT (SELECT count(*) FROM target), (SELECT max(count) FROM counted)";
    let (account, token) = (&reporting.account.0[..], &reporting.token[..]);
    let row = db
        .query_one(
            &db.prepare_cached(sql).await?,
            &[&account, &token, &reporting.expires_day, &reporting.day],
        )
        .await?;
    let (known, counted): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match (known, counted) {
        (0, _) => ReportAnswer::UnknownAccount,
        (_, Some(count)) => ReportAnswer::Counted(count.unsigned_abs()),
        (_, None) => ReportAnswer::Repeated,
    })
}

pub(super) async fn purge(db: &Object, today: i64, counted_before: i64) -> Result<u64, StoreError> {
    let tokens = "DELETE FROM report_token WHERE id = ANY(ARRAY(SELECT id FROM report_token WHERE expires_day <= $1 \
                  LIMIT $2 FOR UPDATE SKIP LOCKED))";
    let counts = "DELETE FROM report WHERE ctid = ANY(ARRAY(SELECT ctid FROM report WHERE day < $1 \
                  LIMIT $2 FOR UPDATE SKIP LOCKED))";
    let tokens = db.execute(&db.prepare_cached(tokens).await?, &[&today, &SLICE]).await?;
    let counts = db.execute(&db.prepare_cached(counts).await?, &[&counted_before, &SLICE]).await?;
    Ok(tokens.saturating_add(counts))
}
