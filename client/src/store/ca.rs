//! Rows of the authorities that the profile trusts instead of the system's: certificates in DER.

use super::{ProfileError, Rows};

impl Rows<'_> {
    /// Empty: those of the system.
    pub(crate) fn ca(self) -> Result<Vec<Vec<u8>>, ProfileError> {
        let mut statement = self.0.prepare("SELECT certificate FROM ca ORDER BY rowid")?;
        let certificates = statement.query_map((), |row| row.get(0))?;
        Ok(certificates.collect::<Result<_, _>>()?)
    }

    /// In place of those of before.
    pub(crate) fn set_ca(self, certificates: &[&[u8]]) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM ca", ())?;
        let mut insert = self.0.prepare("INSERT INTO ca (certificate) VALUES (?1)")?;
        for certificate in certificates {
            insert.execute((certificate,))?;
        }
        Ok(())
    }
}
