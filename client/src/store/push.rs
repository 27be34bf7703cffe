//! The row that says where the device is woken.

use rusqlite::OptionalExtension;
use zeroize::Zeroizing;

use super::{ProfileError, Rows};

/// See the table.
#[derive(Clone)]
pub(crate) struct Push {
    /// An encoded `PushRegistration`.
    pub(crate) registration: Option<Vec<u8>>,
    pub(crate) secret: Option<Zeroizing<[u8; 32]>>,
    pub(crate) told: bool,
}

impl Rows<'_> {
    pub(crate) fn push(self) -> Result<Option<Push>, ProfileError> {
        let mut statement = self.0.prepare_cached("SELECT registration, secret, told FROM push")?;
        let columns = |row: &rusqlite::Row<'_>| {
            let secret: Option<[u8; 32]> = row.get(1)?;
            let secret = secret.map(Zeroizing::new);
            Ok(Push { registration: row.get(0)?, secret, told: row.get(2)? })
        };
        Ok(statement.query_row((), columns).optional()?)
    }

    /// What the server has been told to forget needs no row.
    pub(crate) fn set_push(self, push: &Push) -> Result<(), ProfileError> {
        self.0.execute("DELETE FROM push", ())?;
        if push.registration.is_some() || !push.told {
            let secret = push.secret.as_ref().map(|secret| &secret[..]);
            self.0.execute(
                "INSERT INTO push (only, registration, secret, told) VALUES (1, ?1, ?2, ?3)",
                (&push.registration, secret, push.told),
            )?;
        }
        Ok(())
    }
}
