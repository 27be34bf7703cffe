//! The profile on disk: one folder, one SQLite database, one process at a time.
//!
//! Everything that belongs together is done in one [`Store::commit`]: all of it is on disk when that
//! returns, or nothing. The rows of each subject are in the file of its name; what they mean is the
//! engine's business. No SQL stands anywhere else.

mod ahead;
mod ca;
mod error;
mod groups;
mod inbox;
mod open;
mod outbox;
mod peers;
mod prekeys;
mod profile;
mod push;
mod reports;
mod retry;
mod sent_log;
mod uploads;
mod witness;

pub(crate) use ahead::{Ahead, AheadForm};
pub use error::ProfileError;
pub(crate) use groups::{Group, GroupMessage, NewGroupMessage, Reached, Standing};
pub(crate) use inbox::Early;
pub(crate) use open::{Origin, Profile};
pub(crate) use outbox::{Ciphertext, Form, Progress, SentBy, Waiting};
pub(crate) use peers::{Decision, Device, Peer};
pub(crate) use prekeys::{HighWater, KemUse};
pub(crate) use profile::{Account, Own};
pub(crate) use push::Push;
pub(crate) use retry::{Digest, Failed, Retry, Want};
pub(crate) use sent_log::{LogKey, Logged, Whereabouts};
pub(crate) use uploads::Upload;

use rusqlite::{Connection, TransactionBehavior};

/// The open profile. It holds the lock of the folder until it is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    database: Connection,
    /// What the last transaction left in the database.
    generation: i64,
    witness: witness::Witness,
    log_key: LogKey,
    /// Where the database is, if it does not say so itself.
    place: Option<String>,
    origin: Origin,
    _lock: open::Lock,
}

/// Access to the rows; inside [`Store::commit`] what it changes is one transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a>(&'a Connection);

impl Store {
    /// One transaction: on disk as a whole when this returns `Ok`, and not at all otherwise.
    ///
    /// # Errors
    /// What `work` returns, or [`ProfileError`]: then nothing was changed.
    pub(crate) fn commit<R, E: From<ProfileError>>(
        &mut self,
        work: impl FnOnce(Rows<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(ProfileError::from)?;
        let generation = next_generation(Rows(&transaction), self.generation)?;
        let result = work(Rows(&transaction))?;
        #[cfg(test)]
        crate::crash::point();
        transaction.commit().map_err(ProfileError::from)?;
        #[cfg(test)]
        crate::crash::point();
        self.generation = generation;
        self.witness.write(generation);
        Ok(result)
    }

    /// Whether this is the database that was closed last.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }

    /// Whatever it was before, from now on this database is the one.
    ///
    /// # Errors
    /// [`ProfileError`]; nothing was changed.
    pub(crate) fn settle(&mut self) -> Result<(), ProfileError> {
        if let Some(place) = self.place.take() {
            self.commit(|rows| rows.set_place(&place))?;
        }
        self.origin = Origin::Continued;
        Ok(())
    }

    /// Seals what was sent.
    pub(crate) fn log_key(&self) -> LogKey {
        self.log_key.clone()
    }

    /// The rows as they are, to read only.
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows(&self.database)
    }
}

impl Rows<'_> {
    /// The generation, and the place that the database was in.
    fn generation(self) -> Result<(i64, Option<String>), ProfileError> {
        let sql = "SELECT number, place FROM generation";
        Ok(self.0.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    fn set_place(self, place: &str) -> Result<(), ProfileError> {
        self.0.execute("UPDATE generation SET place = ?1", (place,))?;
        Ok(())
    }
}

/// Checks that nobody else has written, and counts this transaction.
fn next_generation(rows: Rows<'_>, known: i64) -> Result<i64, ProfileError> {
    let mut statement =
        rows.0.prepare_cached("UPDATE generation SET number = number + 1 RETURNING number")?;
    let number: i64 = statement.query_row((), |row| row.get(0))?;
    if number == known + 1 { Ok(number) } else { Err(ProfileError::ChangedOutside) }
}

/// Milliseconds, a counter or an id as SQLite keeps them. Nothing that we store reaches 2^63.
fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back; a negative number is none that we wrote.
fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
