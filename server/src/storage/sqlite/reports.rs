//! How often accounts were reported, and which report tokens were used.

use rusqlite::{Connection, OptionalExtension, params};

use crate::storage::{ReportAnswer, Reporting};

/// Rows that one purge takes.
const SLICE: i64 = 500;

pub(super) fn count(db: &Connection, reporting: &Reporting) -> rusqlite::Result<ReportAnswer> {
    let account: Option<i64> = db
        .prepare_cached("SELECT id FROM account WHERE aci = ?1")?
        .query_row([&reporting.account.0[..]], |row| row.get(0))
        .optional()?;
    let Some(account) = account else { return Ok(ReportAnswer::UnknownAccount) };
    let fresh = db
        .prepare_cached("INSERT OR IGNORE INTO report_token (id, expires_day) VALUES (?1, ?2)")?
        .execute(params![&reporting.token[..], reporting.expires_day])?;
    if fresh == 0 {
        return Ok(ReportAnswer::Repeated);
    }
    let sql = "INSERT INTO report (account, day, count) VALUES (?1, ?2, 1) \
               ON CONFLICT (account, day) DO UPDATE SET count = count + 1 RETURNING count";
    let count: i64 =
        db.prepare_cached(sql)?.query_row(params![account, reporting.day], |row| row.get(0))?;
    Ok(ReportAnswer::Counted(count.unsigned_abs()))
}

pub(super) fn purge(db: &Connection, today: i64, counted_before: i64) -> rusqlite::Result<u64> {
    let tokens = "DELETE FROM report_token WHERE rowid IN \
                  (SELECT rowid FROM report_token WHERE expires_day <= ?1 LIMIT ?2)";
    let counts = "DELETE FROM report WHERE rowid IN \
                  (SELECT rowid FROM report WHERE day < ?1 LIMIT ?2)";
    let tokens = db.prepare_cached(tokens)?.execute([today, SLICE])?;
    let counts = db.prepare_cached(counts)?.execute([counted_before, SLICE])?;
    Ok((tokens as u64).saturating_add(counts as u64))
}
