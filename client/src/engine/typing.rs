//! Who is writing. Worth something now or never: it is sent while the stream is open and nothing else waits
//! for the peer, the relay hands it to who is connected and keeps nothing, and the app is told when all that waited at the
//! relay has been read.

use tuckseal::ServiceId;
use tuckseal::content::{Body, Content, Typing};

use super::{Engine, Link, Turn};
use crate::event::Event;
use crate::message::GroupId;
use crate::store::{Form, ProfileError, Rows};

/// Of the present alone: what has waited at the relay says nothing any more.
pub(super) fn take(
    rows: Rows<'_>,
    link: Link,
    account: ServiceId,
    typing: Typing,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let is_theirs = match group_of(typing) {
        Some(id) => super::membership::may_write(rows, GroupId(id), account)?,
        None => true,
    };
    if link == Link::Live && is_theirs {
        turn.tell(Event::Typing { account, typing });
    }
    Ok(())
}

fn group_of(typing: Typing) -> Option<[u8; 16]> {
    let (Typing::Started { group } | Typing::Stopped { group }) = typing;
    group
}

impl Engine {
    /// Tells these accounts, if it can be told at once.
    ///
    /// # Errors
    /// [`ProfileError`]; nothing was changed.
    pub(crate) fn typing(
        &mut self,
        accounts: &[ServiceId],
        typing: Typing,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        for account in accounts {
            if self.link == Link::Down || !self.can_be_told(*account, turn)? {
                continue;
            }
            self.store.commit(|rows| {
                let content = Content::new(Body::Typing(typing), rows.timestamp(turn.now)?);
                rows.put_out(*account, Form::Passing, &content)
            })?;
            self.pump_stored(*account, turn);
        }
        Ok(())
    }

    /// Tells the other members of its group.
    ///
    /// # Errors
    /// As [`Engine::typing`].
    pub(crate) fn typing_in_group(
        &mut self,
        typing: Typing,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let us = self.local.address.service_id;
        let Some(id) = group_of(typing) else { return Ok(()) };
        let group = self.own_group(GroupId(id))?;
        let mut others = group.map(|group| group.members).unwrap_or_default();
        others.retain(|member| *member != us);
        self.typing(&others, typing, turn)
    }

    /// Nothing waits for them, and there is a session with every device.
    fn can_be_told(&self, account: ServiceId, turn: &Turn<'_>) -> Result<bool, ProfileError> {
        let rows = self.store.rows();
        let devices = rows.devices(account)?;
        let is_usable = devices.iter().all(|device| device.session.can_encrypt(turn.now));
        Ok(!devices.is_empty() && is_usable && !rows.waits_before(account, u64::MAX >> 1)?)
    }
}
