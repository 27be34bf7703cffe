//! Opening a profile: its folder (0700), its lock, its database (0600), the database's format, and whether
//! the database is the one that was closed last.

use std::fs::{File, TryLockError};
use std::path::Path;
#[cfg(unix)]
use std::time::UNIX_EPOCH;

use rusqlite::Connection;

use super::sent_log::LogKey;
use super::witness::Witness;
use super::{ProfileError, Rows, Store};

/// What makes a database of each format out of one of the format before.
const MIGRATIONS: [&str; 5] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];
/// Format that this release writes.
const FORMAT: i64 = MIGRATIONS.len() as i64;
const DATABASE: &str = "profile.db";
const LOCK: &str = "lock";
const WITNESS: &str = "generation";
const LOG_KEY: &str = "sent.key";

/// What to do with a folder in which nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// It is an error.
    Existing,
    /// Make the folder and the database.
    Create,
}

/// Whether a database is the one that was closed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Continued,
    /// It is an earlier one, or a copy: its sessions may have gone on without it.
    Restored,
}

/// The exclusive lock of a profile's folder; the operating system ends it with the process.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "held, never read")] File);

impl Store {
    /// Opens the profile in a folder, exclusively.
    ///
    /// # Errors
    /// [`ProfileError`]: not there, in use, of a newer format, or not to be read.
    pub(crate) fn open(folder: &Path, profile: Profile) -> Result<Self, ProfileError> {
        let database = folder.join(DATABASE);
        match profile {
            Profile::Create => private_folder(folder).map_err(ProfileError::io(folder))?,
            Profile::Existing if database.is_file() => {}
            Profile::Existing => return Err(ProfileError::NotRegistered { folder: folder.into() }),
        }
        let file = |name: &str| private_file(&folder.join(name)).map_err(ProfileError::io(folder));
        let lock = lock(folder)?;
        let places = places(&file(DATABASE)?).map_err(ProfileError::io(folder))?;
        let log_key = LogKey::of(&file(LOG_KEY)?, &mut rand::rng());
        let witness = Witness::new(file(WITNESS)?);
        let mut database = Connection::open(&database)?;
        configure(&database)?;
        migrate(&mut database)?;
        let (generation, known_place) = Rows(&database).generation()?;
        let moved = known_place.as_ref().is_some_and(|known| !places.contains(known));
        let origin = if moved || witness.number() > generation {
            Origin::Restored
        } else {
            Origin::Continued
        };
        #[cfg(test)]
        crate::crash::watch(&mut database);
        let log_key = log_key.map_err(ProfileError::io(folder))?;
        let place = places.into_iter().next();
        let settled = origin == Origin::Continued && known_place == place;
        let place = place.filter(|_| !settled);
        Ok(Self { database, generation, witness, log_key, place, origin, _lock: lock })
    }
}

/// Names of the file itself, the best first: a copy of it has others. None where the system has none.
///
/// The number of a file system may be another one after a restart (btrfs, overlay, NFS); the time at which the file was made
/// stays, where there is one.
fn places(file: &File) -> std::io::Result<Vec<String>> {
    let metadata = file.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let made = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let by_time = made.map(|made| format!("{}@{}", metadata.ino(), made.as_nanos()));
        let by_system = format!("{}:{}", metadata.dev(), metadata.ino());
        Ok(by_time.into_iter().chain([by_system]).collect())
    }
    #[cfg(not(unix))]
    Ok(Vec::new())
}

fn lock(folder: &Path) -> Result<Lock, ProfileError> {
    let file = private_file(&folder.join(LOCK)).map_err(ProfileError::io(folder))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(ProfileError::InUse { folder: folder.into() }),
        Err(TryLockError::Error(source)) => Err(ProfileError::io(folder)(source)),
    }
}

fn configure(database: &Connection) -> Result<(), ProfileError> {
    database.set_prepared_statement_cache_capacity(96);
    database.pragma_update(None, "journal_mode", "wal")?;
    // A commit that has returned survives a power cut.
    database.pragma_update(None, "synchronous", "full")?;
    // A deleted key is overwritten, not merely forgotten.
    database.pragma_update(None, "secure_delete", "on")?;
    database.pragma_update(None, "foreign_keys", "on")?;
    database.pragma_update(None, "temp_store", "memory")?;
    Ok(())
}

fn migrate(database: &mut Connection) -> Result<(), ProfileError> {
    let found: i64 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > FORMAT {
        return Err(ProfileError::Newer { found, known: FORMAT });
    }
    let had = usize::try_from(found).map_err(|_| ProfileError::Damaged { what: "format" })?;
    if found < FORMAT {
        let transaction = database.transaction()?;
        for migration in MIGRATIONS.iter().skip(had) {
            transaction.execute_batch(migration)?;
        }
        transaction.pragma_update(None, "user_version", FORMAT)?;
        transaction.commit()?;
    }
    Ok(())
}

fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// SQLite gives its side files the mode of the database.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_needs_row_29_a_profile_is_open_once_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Profile::Create).unwrap();
        let second = Store::open(folder.path(), Profile::Existing);
        assert!(matches!(second, Err(ProfileError::InUse { .. })));
        drop(store);
        Store::open(folder.path(), Profile::Existing).unwrap();
    }

    #[test]
    fn a_database_changed_behind_our_back_stops_the_next_commit() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        let other = Connection::open(folder.path().join(DATABASE)).unwrap();
        other.execute("UPDATE generation SET number = 7", ()).unwrap();
        let result = store.commit(|_| Ok::<_, ProfileError>(()));
        assert!(matches!(result, Err(ProfileError::ChangedOutside)));
    }

    fn change(store: &mut Store) {
        store.commit(|_| Ok::<_, ProfileError>(())).unwrap();
    }

    fn reopened(folder: &Path) -> Origin {
        Store::open(folder, Profile::Existing).unwrap().origin()
    }

    #[test]
    fn field_needs_row_14_a_database_of_yesterday_or_a_copy_of_it_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        assert_eq!(store.origin(), Origin::Continued);
        change(&mut store);
        store.settle().unwrap();
        drop(store);
        let backup = std::fs::read(&path).unwrap();
        let mut store = Store::open(folder.path(), Profile::Existing).unwrap();
        assert_eq!(store.origin(), Origin::Continued);
        change(&mut store);
        drop(store);
        assert_eq!(reopened(folder.path()), Origin::Continued);

        // Over the same file: its generation is behind the witness.
        std::fs::write(&path, &backup).unwrap();
        assert_eq!(reopened(folder.path()), Origin::Restored);
        // In another folder, without a witness: it is another file.
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join(DATABASE), &backup).unwrap();
        let mut store = Store::open(other.path(), Profile::Existing).unwrap();
        assert_eq!(store.origin(), Origin::Restored);
        store.settle().unwrap();
        drop(store);
        assert_eq!(reopened(other.path()), Origin::Continued, "from now on it is the one");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_system_that_has_another_number_after_a_restart_is_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path(), Profile::Create).unwrap();
        store.settle().unwrap();
        let places = places(&File::open(folder.path().join(DATABASE)).unwrap()).unwrap();
        assert_eq!(store.rows().generation().unwrap().1.as_ref(), places.first());
        let (number, file) = places.last().unwrap().split_once(':').unwrap();
        let moved = |place: &str| {
            let mut store = Store::open(folder.path(), Profile::Existing).unwrap();
            store.commit(|rows| rows.set_place(place)).unwrap();
            drop(store);
            reopened(folder.path())
        };
        drop(store);
        assert_eq!(moved(places.last().unwrap()), Origin::Continued, "of an earlier release");
        assert_eq!(moved(&format!("{number}0:{file}")), Origin::Restored);
        assert_eq!(moved(&format!("{file}@1")), Origin::Restored);
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        drop(Store::open(folder.path(), Profile::Create).unwrap());
        let other = Connection::open(folder.path().join(DATABASE)).unwrap();
        other.pragma_update(None, "user_version", 9).unwrap();
        let result = Store::open(folder.path(), Profile::Existing);
        assert!(matches!(result, Err(ProfileError::Newer { found: 9, known: FORMAT })));
    }

    #[test]
    fn a_database_of_the_first_format_keeps_its_rows_and_gets_the_new_tables() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(folder.path().join(DATABASE)).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute("INSERT INTO statistic VALUES (1, 7)", ()).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let store = Store::open(folder.path(), Profile::Existing).unwrap();
        assert_eq!(store.rows().statistics().unwrap().sent_with_token, 7);
        assert!(store.rows().push().unwrap().is_none());
        assert!(store.rows().ca().unwrap().is_empty());
        let now = tuckseal::Timestamp::from_millis(0);
        assert_eq!(store.rows().report_tokens_left(now).unwrap(), 0);
        drop(store);
        Store::open(folder.path(), Profile::Existing).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap().path().join("profile");
        let mut store = Store::open(&folder, Profile::Create).unwrap();
        store.commit(|_| Ok::<_, ProfileError>(())).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for name in [DATABASE, "profile.db-wal", LOCK, WITNESS, LOG_KEY] {
            assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
        }
    }
}
