//! Another identity key of a known peer: offered by the peer or the server, decided on by the app.

use tuckseal::{IdentityKey, ServiceId};

use super::Link;
use super::encrypt::forget_stream;
use super::receive::{Receiver, tell_all};
use super::{Engine, Turn, order};
use crate::error::IdentityError;
use crate::message::Verification;
use crate::store::{Decision, Peer, Rows};

/// Notes the key; whether that is news.
pub(super) fn offer(peer: &mut Peer, offered: IdentityKey) -> bool {
    let news = peer.offered != Some(offered) || peer.decision == Decision::None;
    peer.offered = Some(offered);
    peer.decision = Decision::Awaited;
    news
}

impl Engine {
    /// From now on `key` is the peer's. What was held under it is delivered, what waits for the peer is
    /// encrypted anew.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed.
    pub(crate) fn accept_identity(
        &mut self,
        account: ServiceId,
        key: IdentityKey,
        turn: &mut Turn<'_>,
    ) -> Result<(), IdentityError> {
        let receiver = Receiver {
            local: &self.local,
            own: &self.own,
            trust_root: self.account.trust_root,
            settings: &self.settings,
            log_key: self.store.log_key(),
            // They have waited.
            link: Link::Up,
        };
        self.store.commit(|rows| {
            let peer = offered(rows, account, key)?;
            rows.save_peer(&Peer {
                identity: Some(key),
                offered: None,
                decision: Decision::None,
                verified: false,
                ..peer
            })?;
            // Whoever had the old key reads nothing more of ours.
            rows.rotate_groups_of(account)?;
            rows.delete_sender_keys(account)?;
            for mut device in rows.devices(account)? {
                device.session.archive_current();
                let ready = order::restart(rows, &mut device)?;
                tell_all(rows, ready, turn)?;
                forget_stream(rows, &mut device)?;
                rows.save_device(&device)?;
            }
            rows.mark_not_encrypted(account)?;
            for held in rows.held(account, &key)? {
                rows.delete_held(held.id)?;
                receiver.take(rows, &held.content, held.server_ms, turn)?;
            }
            super::receipts::put_out(rows, self.settings.receipts, turn)?;
            Ok::<_, IdentityError>(())
        })?;
        self.flights.remove(&account);
        self.pump_stored(account, turn);
        Ok(())
    }

    /// A person says whether they have compared the safety number of the known key.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed.
    pub(crate) fn set_verified(
        &mut self,
        account: ServiceId,
        key: IdentityKey,
        verification: Verification,
    ) -> Result<(), IdentityError> {
        self.store.commit(|rows| {
            let peer = rows.peer(account)?.filter(|peer| peer.identity == Some(key));
            let peer = peer.ok_or(IdentityError::NotKnown)?;
            let verified = verification == Verification::Verified;
            Ok(rows.save_peer(&Peer { verified, ..peer })?)
        })
    }

    /// The known key stays. What was held under `key` is dropped; messages that could go to it alone are
    /// refused.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed.
    pub(crate) fn reject_identity(
        &mut self,
        account: ServiceId,
        key: IdentityKey,
        turn: &mut Turn<'_>,
    ) -> Result<(), IdentityError> {
        self.store.commit(|rows| {
            let peer = offered(rows, account, key)?;
            rows.save_peer(&Peer { decision: Decision::Rejected, ..peer })?;
            for held in rows.held(account, &key)? {
                rows.delete_held(held.id)?;
            }
            Ok::<_, IdentityError>(())
        })?;
        self.pump_stored(account, turn);
        Ok(())
    }
}

/// The peer, if it is this key that was offered.
fn offered(rows: Rows<'_>, account: ServiceId, key: IdentityKey) -> Result<Peer, IdentityError> {
    rows.peer(account)?.filter(|peer| peer.offered == Some(key)).ok_or(IdentityError::NotOffered)
}
