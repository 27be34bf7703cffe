//! `tuckseal-server backup`: a copy of the embedded database while the server runs.
//!
//! The copy is made so that restoring it does no harm: it holds no one-time prekeys, of which some will have been
//! given out by then (devices are told and upload new ones), its mailboxes go on at places that were never used, and new
//! devices get mailboxes that never were, so that no envelope gets the id of another.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

/// Places that a mailbox skips: more than any uses between the copy and its restoring.
const SKIP: i64 = 1 << 40;

/// Numbers of devices that are left out: more than are made between the copy and its restoring.
const DEVICES: i64 = 1 << 32;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Something is there.
    #[error("{path} is there already; name a new file")]
    Exists {
        /// As given.
        path: PathBuf,
    },
    /// The database is elsewhere or the disk is full.
    #[error("the copy failed ({0}); check the data folder and the room on the disk")]
    Database(#[from] rusqlite::Error),
    /// The file cannot be written.
    #[error("{path}: {source}")]
    File {
        /// As given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Copies the database to a new file, durable when this returns.
///
/// # Errors
/// [`BackupError`]; there is no file then.
pub fn backup(database: &Path, to: &Path) -> Result<(), BackupError> {
    if to.exists() {
        return Err(BackupError::Exists { path: to.into() });
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let done = copy(database, &part).and_then(|()| {
        finish(&part, to).map_err(|source| BackupError::File { path: to.into(), source })
    });
    if done.is_err() {
        // It may not have come to be.
        let _ = std::fs::remove_file(&part);
    }
    done
}

fn copy(database: &Path, part: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::File { path: part.into(), source };
    create(part).map_err(failed)?;
    let from = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    from.busy_timeout(std::time::Duration::from_secs(30))?;
    from.execute("VACUUM INTO ?1", [part.to_string_lossy()])?;
    let mut copy = Connection::open_with_flags(part, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let changing = copy.transaction()?;
    changing.execute_batch("DELETE FROM prekey_once; UPDATE prekey_state SET remaining = 0;")?;
    changing.execute("UPDATE mailbox SET next_seq = next_seq + ?1", [SKIP])?;
    let skip =
        "UPDATE device_mark SET last = ?1 + max(last, (SELECT coalesce(max(id), 0) FROM device))";
    changing.execute(skip, [DEVICES])?;
    Ok(changing.commit()?)
}

/// For the owner alone: it holds who has an account.
fn create(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

fn finish(part: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::File::open(part)?.sync_all()?;
    std::fs::rename(part, to)?;
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
