//! Rows of what came for a group before the change of the group that it follows.

use rusqlite::OptionalExtension;
use tuckseal::{Address, DeviceId, ServiceId, Timestamp};

use super::{Group, ProfileError, Rows, Standing, from_sql, to_sql};
use crate::message::GroupId;

/// What waits of one account, as much as waits of one device for a gap.
const AHEAD_MAX: i64 = 256;

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AheadForm {
    Message = 0,
    /// What the group is from a revision on.
    State = 1,
    /// Its sender has left.
    Left = 2,
}

/// See the table.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) sender: Address,
    /// When it came in.
    pub(crate) since: Timestamp,
    /// When the sender says it was sent.
    pub(crate) sent: Timestamp,
    pub(crate) revision: u32,
    pub(crate) form: AheadForm,
    pub(crate) content: Vec<u8>,
}

impl Rows<'_> {
    /// Keeps it until the group has that revision; of too much of an account the oldest goes. How many messages went.
    pub(crate) fn insert_ahead(self, chat: GroupId, ahead: &Ahead) -> Result<usize, ProfileError> {
        let account = ahead.sender.service_id;
        self.0
            .prepare_cached(
                "INSERT INTO ahead (chat, revision, form, account, device, since_ms, sent_ms, content)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute((
                chat.0,
                ahead.revision,
                ahead.form as u8,
                account.uuid(),
                ahead.sender.device_id.get(),
                to_sql(ahead.since.as_millis()),
                to_sql(ahead.sent.as_millis()),
                &ahead.content,
            ))?;
        let mut statement = self.0.prepare_cached(
            "DELETE FROM ahead WHERE account = ?1 AND position <=
             (SELECT position FROM ahead WHERE account = ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2)
             RETURNING form",
        )?;
        let forms = statement.query_map((account.uuid(), AHEAD_MAX), |row| row.get(0))?;
        let forms = forms.collect::<Result<Vec<u8>, _>>()?;
        Ok(forms.into_iter().filter(|form| *form == AheadForm::Message as u8).count())
    }

    /// The first that need not wait any longer, as the group is now; it is taken out. That is what is of a revision that has
    /// come, and what a member writes or makes of the group. Who leaves would be brought back by a revision before that, so
    /// it waits for its own.
    pub(crate) fn take_ahead(self, group: &Group) -> Result<Option<Ahead>, ProfileError> {
        let mut statement = self.0.prepare_cached(
            "DELETE FROM ahead WHERE position = (SELECT position FROM ahead WHERE chat = ?1 AND
             (revision <= ?2 OR ((form = 1 OR (form = 0 AND ?3))
              AND account IN (SELECT account FROM group_member WHERE id = ?1)))
             ORDER BY position LIMIT 1)
             RETURNING account, device, since_ms, sent_ms, revision, form, content",
        )?;
        let columns = |row: &rusqlite::Row<'_>| {
            let device = DeviceId::new(row.get(1)?).unwrap_or(DeviceId::PRIMARY);
            Ok(Ahead {
                sender: Address::new(ServiceId::aci(row.get(0)?), device),
                since: Timestamp::from_millis(from_sql(row.get(2)?)),
                sent: Timestamp::from_millis(from_sql(row.get(3)?)),
                revision: row.get(4)?,
                form: match row.get::<_, u8>(5)? {
                    0 => AheadForm::Message,
                    1 => AheadForm::State,
                    _ => AheadForm::Left,
                },
                content: row.get(6)?,
            })
        };
        // Nobody writes to us in a group that we are not in.
        let is_member = group.standing == Standing::Member;
        Ok(statement.query_row((group.id.0, group.revision, is_member), columns).optional()?)
    }

    /// Deletes what came before a time; whose messages were among it.
    pub(crate) fn trim_ahead(self, before: Timestamp) -> Result<Vec<ServiceId>, ProfileError> {
        let sql = "DELETE FROM ahead WHERE since_ms < ?1 RETURNING account, form";
        let mut statement = self.0.prepare_cached(sql)?;
        let columns = |row: &rusqlite::Row<'_>| {
            Ok((ServiceId::aci(row.get(0)?), row.get::<_, u8>(1)? == AheadForm::Message as u8))
        };
        let gone = statement.query_map((to_sql(before.as_millis()),), columns)?;
        let gone = gone.collect::<Result<Vec<_>, _>>()?;
        Ok(gone
            .into_iter()
            .filter_map(|(account, is_message)| is_message.then_some(account))
            .collect())
    }
}
