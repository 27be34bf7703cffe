//! Rows of report tokens: ours that are left, and which went to and came from whom.

use bytes::Bytes;
use rusqlite::OptionalExtension;
use tuckseal::content::MAX_REPORT_TOKEN_BYTES;
use tuckseal::{ServiceId, Timestamp};

use super::{ProfileError, Rows, to_sql};

impl Rows<'_> {
    /// Takes what a relay gave into the stock. A token that nobody could read would be lost with the message it goes
    /// with: it is left out.
    pub(crate) fn add_report_tokens(
        self,
        tokens: &[Bytes],
        expires_ms: u64,
    ) -> Result<(), ProfileError> {
        let sql = "INSERT INTO report_token (token, expires_ms) VALUES (?1, ?2)";
        let mut statement = self.0.prepare_cached(sql)?;
        let is_readable = |token: &&Bytes| (1..=MAX_REPORT_TOKEN_BYTES).contains(&token.len());
        for token in tokens.iter().filter(is_readable) {
            statement.execute((&token[..], to_sql(expires_ms)))?;
        }
        Ok(())
    }

    /// Those that are good at this time.
    pub(crate) fn report_tokens_left(self, now: Timestamp) -> Result<u64, ProfileError> {
        let sql = "SELECT count(*) FROM report_token WHERE expires_ms > ?1";
        let count: i64 = self.0.query_row(sql, (to_sql(now.as_millis()),), |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The token that goes to an account: the same one each time, until none is left to give.
    pub(crate) fn give_report_token(
        self,
        account: ServiceId,
        now: Timestamp,
    ) -> Result<Option<Bytes>, ProfileError> {
        let sql = "SELECT given FROM report_peer WHERE account = ?1";
        let given: Option<Option<Vec<u8>>> =
            self.0.query_row(sql, (account.uuid(),), |row| row.get(0)).optional()?;
        if let Some(given) = given.flatten() {
            return Ok(Some(given.into()));
        }
        self.0.execute(
            "DELETE FROM report_token WHERE expires_ms <= ?1",
            (to_sql(now.as_millis()),),
        )?;
        let sql = "DELETE FROM report_token WHERE id = (SELECT min(id) FROM report_token) RETURNING token";
        let taken: Option<Vec<u8>> = self.0.query_row(sql, (), |row| row.get(0)).optional()?;
        if let Some(token) = &taken {
            let sql = "INSERT INTO report_peer (account, given) VALUES (?1, ?2)
                       ON CONFLICT (account) DO UPDATE SET given = ?2";
            self.0.execute(sql, (account.uuid(), token))?;
        }
        Ok(taken.map(Into::into))
    }

    pub(crate) fn keep_report_token(
        self,
        account: ServiceId,
        token: &[u8],
    ) -> Result<(), ProfileError> {
        let sql = "INSERT INTO report_peer (account, received) VALUES (?1, ?2)
                   ON CONFLICT (account) DO UPDATE SET received = ?2";
        self.0.execute(sql, (account.uuid(), token))?;
        Ok(())
    }

    /// The latest that came from an account.
    pub(crate) fn received_report_token(
        self,
        account: ServiceId,
    ) -> Result<Option<Bytes>, ProfileError> {
        let sql = "SELECT received FROM report_peer WHERE account = ?1";
        let received: Option<Option<Vec<u8>>> =
            self.0.query_row(sql, (account.uuid(),), |row| row.get(0)).optional()?;
        Ok(received.flatten().map(Into::into))
    }
}
