//! What is in the relay's files: rows and sizes by SQL, and traces by a search of the bytes of the
//! database, its write-ahead log and the log.

use super::Outcome;
use super::people::Person;
use super::relay::Relay;
use super::texts::Texts;
use rusqlite::{Connection, OpenFlags};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use tuckseal::ENVELOPE_SIZES;

/// Rows of the relay's database.
pub(crate) struct Counts {
    accounts: u64,
    prekeys: u64,
    pub(crate) envelopes: u64,
    envelope_bytes: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} accounts, {} one-time prekeys, {} sealed envelopes ({} bytes)",
            self.accounts, self.prekeys, self.envelopes, self.envelope_bytes
        )
    }
}

/// Envelopes whose bytes, with what they share with others, are of no size that a client pads to.
const OF_NO_SIZE: &str =
    "SELECT count(*) FROM envelope LEFT JOIN payload ON payload.id = envelope.payload
    WHERE length(envelope.body) + coalesce(length(payload.body), 0) NOT IN";

/// Looks into the database, beside the relay if that is running.
pub(crate) fn counts(relay: &Relay) -> Outcome<Counts> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(database(relay), flags);
    let database = database.map_err(|error| format!("the relay's database: {error}"))?;
    let one = |sql: &str| {
        let value = database.query_row(sql, (), |row| row.get::<_, i64>(0));
        value
            .map_err(|error| error.to_string())
            .and_then(|value| u64::try_from(value).map_err(|_| format!("{sql} gave {value}")))
    };
    let sizes = ENVELOPE_SIZES.map(|size| size.to_string()).join(", ");
    if one(&format!("{OF_NO_SIZE} ({sizes})"))? > 0 {
        return Err(
            "an envelope at the relay is of another size than those that are padded to".into()
        );
    }
    Ok(Counts {
        accounts: one("SELECT count(*) FROM account")?,
        prekeys: one("SELECT count(*) FROM prekey_once")?,
        envelopes: one("SELECT count(*) FROM envelope")?,
        envelope_bytes: one("SELECT coalesce(sum(length(body)), 0) FROM envelope")?,
    })
}

fn database(relay: &Relay) -> PathBuf {
    relay.data().join("tuckseal.db")
}

/// What is looked for.
pub(crate) struct Secrets {
    /// Beginnings of plaintexts: must be nowhere.
    texts: Vec<Vec<u8>>,
    /// Names and account ids, as text and as bytes: only in the accounts' own rows.
    people: Vec<Vec<u8>>,
}

impl Secrets {
    pub(crate) fn new(texts: &Texts, people: [&Person; 2]) -> Self {
        let people = people.iter().flat_map(|person| {
            let id = person.account();
            let digits: String = id.chars().filter(|c| *c != '-').collect();
            let bytes = hex::decode(digits).unwrap_or_default();
            [person.name().as_bytes().to_vec(), id.as_bytes().to_vec(), bytes]
        });
        Self { texts: texts.needles().to_vec(), people: people.collect() }
    }

    /// Whether any of them is in there.
    pub(crate) fn stand_in(&self, bytes: &[u8]) -> bool {
        occurrences(bytes, &self.texts) + occurrences(bytes, &self.people) > 0
    }
}

/// How often what was looked for stands in the relay's files.
pub(crate) struct Traces {
    bytes: usize,
    texts: usize,
    people_in_database: usize,
    people_in_logs: usize,
}

impl Traces {
    pub(crate) fn search(relay: &Relay, secrets: &Secrets) -> Outcome<Self> {
        let read = |path: PathBuf| match fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(format!("{}: {error}", path.display())),
        };
        let main = read(database(relay))?;
        if main.is_empty() {
            return Err("the relay has no database to search".into());
        }
        let mut wal = database(relay).into_os_string();
        wal.push("-wal");
        let (wal, log) = (read(wal.into())?, read(relay.log())?);
        let files = attachments(&relay.data().join("attachments"))?;
        let all: Vec<_> = [&main, &wal, &log].into_iter().chain(&files).collect();
        Ok(Self {
            bytes: all.iter().map(|file| file.len()).sum(),
            texts: all.iter().map(|file| occurrences(file, &secrets.texts)).sum(),
            people_in_database: occurrences(&main, &secrets.people),
            people_in_logs: occurrences(&wal, &secrets.people) + occurrences(&log, &secrets.people),
        })
    }

    /// No plaintext anywhere, nobody in the write-ahead log or the log, and in the database nobody
    /// more often than registration has put them there.
    pub(crate) fn no_more_than(&self, after_registration: &Self) -> Outcome<()> {
        if self.texts > 0 {
            return Err("a plaintext is in the relay's files".into());
        }
        if self.people_in_logs > 0 {
            return Err("a name or account id is in the relay's log or write-ahead log".into());
        }
        if self.people_in_database > after_registration.people_in_database {
            return Err(
                "a name or account id is in the database beside the accounts' own rows".into()
            );
        }
        Ok(())
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB of database, log and attachments; {} plaintexts; a name or account id {} times, all of them in \
             the rows of the two accounts",
            self.bytes / 1024,
            self.texts,
            self.people_in_database
        )
    }
}

/// All files below a folder, if there is one.
fn attachments(folder: &Path) -> Outcome<Vec<Vec<u8>>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            files.extend(attachments(&path)?);
        } else {
            files.push(fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?);
        }
    }
    Ok(files)
}

fn occurrences(file: &[u8], needles: &[Vec<u8>]) -> usize {
    needles
        .iter()
        .filter(|needle| !needle.is_empty())
        .map(|needle| file.windows(needle.len()).filter(|part| part == needle).count())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::occurrences;

    #[test]
    fn a_planted_trace_is_found() {
        let needles = [b"alice".to_vec(), vec![0xAB; 4]];
        assert_eq!(occurrences(b"..alice..alice\xAB\xAB\xAB\xAB", &needles), 3);
        assert_eq!(occurrences(b"", &needles), 0);
        assert_eq!(occurrences(b"alic", &needles), 0);
    }
}
