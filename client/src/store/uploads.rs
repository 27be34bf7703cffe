//! Rows of uploads that were begun: with them the same bytes can be made again.

use rusqlite::OptionalExtension;
use tuckseal::AttachmentKeys;

use super::{ProfileError, Rows, from_sql, to_sql};

/// Uploads that are remembered; those begun first go first.
const UPLOADS_MAX: i64 = 100;

/// See the table.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// The file's path.
    pub(crate) name: String,
    pub(crate) size: u64,
    /// When the file was changed, as the system says it: another file under the name has another.
    pub(crate) modified: [u8; 16],
    pub(crate) keys: AttachmentKeys,
    pub(crate) iv: [u8; 16],
    /// Where the relay takes it, and gives it.
    pub(crate) upload: String,
    pub(crate) download: String,
}

impl Rows<'_> {
    pub(crate) fn upload(self, name: &str) -> Result<Option<Upload>, ProfileError> {
        let sql = "SELECT size, modified, keys, iv, upload, download FROM upload WHERE name = ?1";
        let columns = |row: &rusqlite::Row<'_>| {
            let keys: Vec<u8> = row.get(2)?;
            let Ok(keys) = AttachmentKeys::from_bytes(&zeroize::Zeroizing::new(keys)) else {
                return Ok(None);
            };
            Ok(Some(Upload {
                name: name.to_owned(),
                size: from_sql(row.get(0)?),
                modified: row.get(1)?,
                keys,
                iv: row.get(3)?,
                upload: row.get(4)?,
                download: row.get(5)?,
            }))
        };
        Ok(self.0.query_row(sql, (name,), columns).optional()?.flatten())
    }

    pub(crate) fn save_upload(self, upload: &Upload) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM upload WHERE name = ?1", (&upload.name,))?;
        self.0.execute(
            "INSERT INTO upload (name, size, modified, keys, iv, upload, download) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                &upload.name,
                to_sql(upload.size),
                upload.modified,
                &upload.keys.as_bytes()[..],
                upload.iv,
                &upload.upload,
                &upload.download,
            ),
        )?;
        let last = self.0.last_insert_rowid();
        self.0.execute("DELETE FROM upload WHERE position <= ?1", (last - UPLOADS_MAX,))?;
        Ok(())
    }

    pub(crate) fn delete_upload(self, name: &str) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM upload WHERE name = ?1", (name,))?;
        Ok(())
    }
}
