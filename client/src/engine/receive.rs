//! In: an envelope becomes a message in the inbox, a held envelope or a counted failure, in one commit with
//! the session, the consumed prekeys and the envelope's id. Only then is it acknowledged.

use bytes::Bytes;
use tuckseal::content::{Body, Content};
use tuckseal::service::{Envelope, Ephemeral};
use tuckseal::{
    Address, ContentKind, GroupDecryptError, IdentityKey, IdentityKeyPair, LocalParty,
    PlaintextContent, PublicKey, SealedContent, SenderKeyMessage, ServiceId, Timestamp,
    unpad_envelope,
};

use super::decrypt::{consume, note_registration};
use super::deliver::{self, Came};
use super::order::{self, Taken};
use super::receipts;
use super::recovery::{self, Asked, digest};
use super::typing;
use super::{Action, Engine, Link, Settings, Turn, devices};
use crate::event::{Event, Failure};
use crate::store::{
    Decision, Device, Early, Failed, LogKey, Own, Peer, ProfileError, Rows, Store, Want,
};

/// Envelopes of one commit: they share its wait for the disk.
const BATCH: usize = 64;
/// Longest name that is kept, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// What is the same for all envelopes.
pub(super) struct Receiver<'a> {
    pub(super) local: &'a LocalParty,
    pub(super) own: &'a Own,
    pub(super) trust_root: PublicKey,
    pub(super) settings: &'a Settings,
    pub(super) log_key: LogKey,
    pub(super) link: Link,
}

/// Why an envelope gave no message.
pub(super) enum Rejection {
    Failed(Option<ServiceId>, Failure),
    /// The sender's identity key is not the known one.
    Identity {
        sender: Address,
        offered: IdentityKey,
    },
    /// No session can read it: the sender is to send it again.
    Unreadable {
        sender: Address,
        identity: IdentityKey,
        failure: Failure,
        want: Want,
        failed: Failed,
    },
    Profile(ProfileError),
}

impl From<ProfileError> for Rejection {
    fn from(error: ProfileError) -> Self {
        Self::Profile(error)
    }
}

impl Engine {
    pub(super) fn delivered(
        &mut self,
        envelopes: &[Envelope],
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let (store, receiver) = self.receiving();
        for batch in envelopes.chunks(BATCH) {
            store.commit(|rows| {
                for envelope in batch {
                    if !rows.see(&envelope.id)? {
                        receiver.take(
                            rows,
                            &envelope.content,
                            envelope.server_timestamp_ms,
                            turn,
                        )?;
                    }
                }
                receipts::put_out(rows, receiver.settings.receipts, turn)
            })?;
            turn.actions.push(Action::Acknowledge(
                batch.iter().map(|envelope| envelope.id.clone()).collect(),
            ));
        }
        self.ask_due(turn)?;
        // A first message may have brought the session that ours wait for.
        self.pump_all(turn)
    }

    /// What the relay hands over and does not keep: it is neither acknowledged nor asked for again.
    pub(super) fn passed(
        &mut self,
        ephemeral: &Ephemeral,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let (store, receiver) = self.receiving();
        store.commit(|rows| {
            let server_ms = ephemeral.server_timestamp_ms;
            match receiver.read(rows, &ephemeral.content, server_ms, turn) {
                // What comes next under that key will be asked about.
                Ok(()) | Err(Rejection::Identity { .. }) => Ok(()),
                Err(Rejection::Failed(account, failure)) => count(rows, account, failure, turn),
                Err(Rejection::Unreadable { sender, failure, .. }) => {
                    count(rows, Some(sender.service_id), failure, turn)
                }
                Err(Rejection::Profile(error)) => Err(error),
            }
        })?;
        self.pump_all(turn)
    }

    fn receiving(&mut self) -> (&mut Store, Receiver<'_>) {
        let Self { store, local, own, account, settings, link, .. } = self;
        let (trust_root, log_key, link) = (account.trust_root, store.log_key(), *link);
        (store, Receiver { local, own, trust_root, settings, log_key, link })
    }
}

impl Receiver<'_> {
    /// Deals with one envelope.
    pub(super) fn take(
        &self,
        rows: Rows<'_>,
        envelope: &[u8],
        server_ms: u64,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        match self.read(rows, envelope, server_ms, turn) {
            Ok(()) => Ok(()),
            Err(Rejection::Failed(account, failure)) => count(rows, account, failure, turn),
            Err(Rejection::Identity { sender, offered }) => {
                self.hold(rows, sender, offered, envelope, server_ms, turn)
            }
            Err(Rejection::Unreadable { sender, identity, failure, want, failed }) => {
                count(rows, Some(sender.service_id), failure, turn)?;
                if self.is_of_use(rows, sender, failure, &failed)? {
                    self.ask(rows, sender, identity, want, &failed, turn)
                } else {
                    Ok(())
                }
            }
            Err(Rejection::Profile(error)) => Err(error),
        }
    }

    fn read(
        &self,
        rows: Rows<'_>,
        envelope: &[u8],
        server_ms: u64,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let sealed =
            open(envelope, &self.local.identity).ok_or(Rejection::Failed(None, Failure::Sealed))?;
        let sender = self.authenticate(&sealed, server_ms, turn.now)?;
        let account = sender.service_id;
        let mut peer = rows.peer(account)?.unwrap_or(Peer::unknown(account));
        let certified = *sealed.sender.identity_key();
        let is_ours = self.is_ours(sender);
        if is_ours && certified != self.local.identity.identity_key() {
            // Nobody decides on our own key.
            return Err(Rejection::Failed(Some(account), Failure::Certificate));
        }
        if peer.identity.is_some_and(|known| known != certified) {
            return Err(Rejection::Identity { sender, offered: certified });
        }
        if sealed.kind == ContentKind::Plaintext {
            return self.read_plaintext(rows, sender, &sealed.content, turn);
        }
        if sealed.kind == ContentKind::SenderKey {
            return self.read_group_message(rows, sender, &sealed, server_ms, turn);
        }
        let known = rows.device(sender)?;
        // One more of an account that we write to: it lacks our keys for groups.
        let is_another = known.is_none() && rows.has_devices(account)?;
        let mut device = known.unwrap_or(Device::unknown(sender));
        let server = Timestamp::from_millis(server_ms);
        let decrypted = self.decrypt(rows, &sealed, &mut device, server, turn)?;
        rows.see(&digest(&sealed.content))?;
        if is_ours {
            devices::meet(rows, self.local, sender.device_id, turn)?;
        }
        if let Some(consumed) = &decrypted.consumed {
            consume(rows, consumed)?;
        }
        if device.sent_stream == 0 {
            rows.mark_lacking(sender)?;
        }
        if is_another {
            rows.untell(account)?;
        }
        note_registration(rows, &mut device)?;
        peer.identity = Some(decrypted.identity);
        let plaintext = zeroize::Zeroizing::new(decrypted.plaintext);
        let content = Content::decode_padded(&plaintext);
        if let Some(profile) = content.as_ref().ok().and_then(|content| content.profile.as_ref())
            && !is_ours
        {
            peer.access_key = Some(profile.access_key);
            peer.claimed_name =
                Some(&profile.name).filter(|name| name.len() <= MAX_NAME_BYTES).cloned();
        }
        if let Some(token) = content.as_ref().ok().and_then(|content| content.report_token.as_ref())
        {
            rows.keep_report_token(account, token)?;
        }
        rows.save_peer(&peer)?;
        rows.retry_succeeded(sender)?;
        // The session has moved on whether or not the content is one.
        match content {
            Ok(content) => Ok(self.take_content(rows, device, content, turn)?),
            Err(_) => {
                rows.save_device(&device)?;
                Err(Rejection::Failed(Some(account), Failure::Content))
            }
        }
    }

    fn take_content(
        &self,
        rows: Rows<'_>,
        mut device: Device,
        mut content: Content,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let address = device.address;
        if matches!(content.body, Body::Sync(_)) && !self.is_ours(address) {
            // What devices tell each other is believed of our own account alone.
            content.body = Body::Unsupported(Bytes::new());
        }
        let early = Early {
            sequence: content.sequence,
            since: turn.now,
            sent: content.timestamp,
            content: deliver::keep(&content),
        };
        // As our database keeps it.
        let stream = content.stream & (u64::MAX >> 1);
        match order::take(rows, &mut device, stream, early, self.settings.gap_messages)? {
            Taken::New(ready) => tell_all(rows, ready, turn)?,
            Taken::Duplicate => {
                count(rows, Some(address.service_id), Failure::Duplicate, turn)?;
            }
        }
        rows.save_device(&device)?;
        if content.sequence > device.next {
            // It waits for others.
            recovery::want(rows, self.settings, address, Want::Missing, None, turn)?;
        }
        match &content.body {
            Body::Receipt(receipt) => receipts::take(rows, address.service_id, receipt, turn)?,
            Body::Typing(typing) => {
                typing::take(rows, self.link, address.service_id, *typing, turn)?;
            }
            Body::Unsupported(_) => {
                count(rows, Some(address.service_id), Failure::Unsupported, turn)?;
            }
            _ => {}
        }
        let Some(retry) = content.retry else { return Ok(()) };
        let error = content.decryption_error;
        self.answer(rows, Asked { from: address, error, retry }, turn)
    }

    /// Whether this is another device of our account.
    fn is_ours(&self, sender: Address) -> bool {
        sender.service_id == self.local.address.service_id
    }

    /// A message to a group (W§12): under the sender's key for it, which came through their session. Whether they may write
    /// to it depends on the revision, which stands inside.
    fn read_group_message(
        &self,
        rows: Rows<'_>,
        sender: Address,
        sealed: &SealedContent,
        server_ms: u64,
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let account = sender.service_id;
        let failed = |failure| Rejection::Failed(Some(account), failure);
        let message = SenderKeyMessage::from_bytes(sealed.content.clone())
            .map_err(|_| failed(Failure::Undecryptable))?;
        let id = *message.distribution_id();
        let mut record = rows.sender_key(sender, &id)?;
        let plaintext = match record.decrypt(&message) {
            Ok(plaintext) => zeroize::Zeroizing::new(plaintext),
            Err(GroupDecryptError::Duplicate { .. }) => return Err(failed(Failure::Duplicate)),
            Err(_) => {
                let digests = vec![digest(&sealed.content)];
                let server = Timestamp::from_millis(server_ms);
                let failed = Failed { digests, ratchet_key: None, server };
                let identity = *sealed.sender.identity_key();
                let (failure, want) = (Failure::Undecryptable, Want::Group);
                return Err(Rejection::Unreadable { sender, identity, failure, want, failed });
            }
        };
        rows.save_sender_key(sender, &id, &record)?;
        let content = Content::decode_padded(&plaintext).ok();
        match content.map(|content| (content.body, content.timestamp)) {
            Some((Body::Data(data), sent)) if data.group.as_ref().is_some_and(|it| it.id == id) => {
                let came = Came { sender, since: turn.now, sent };
                Ok(tell_all(rows, deliver::take_data(rows, came, 0, data)?, turn)?)
            }
            _ => Err(failed(Failure::Content)),
        }
    }

    /// Somebody could not read what we sent (W§10.6).
    fn read_plaintext(
        &self,
        rows: Rows<'_>,
        sender: Address,
        body: &[u8],
        turn: &mut Turn<'_>,
    ) -> Result<(), Rejection> {
        let junk = || Rejection::Failed(Some(sender.service_id), Failure::Content);
        let plaintext = PlaintextContent::decode(body).map_err(|_| junk())?;
        let error = plaintext.decryption_error().map_err(|_| junk())?;
        let content = Content::decode(plaintext.content()).map_err(|_| junk())?;
        let retry = content.retry.unwrap_or_default();
        Ok(self.answer(rows, Asked { from: sender, error: Some(error), retry }, turn)?)
    }

    fn answer(
        &self,
        rows: Rows<'_>,
        asked: Asked,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let (interval, own) = (self.settings.retry_interval, self.local.address.device_id);
        recovery::answer(rows, interval, &self.log_key, own, self.own, &asked, turn)
    }

    /// Whether a message that could not be read is to be asked for.
    fn is_of_use(
        &self,
        rows: Rows<'_>,
        sender: Address,
        failure: Failure,
        failed: &Failed,
    ) -> Result<bool, ProfileError> {
        let asked = rows.retry(sender)?.asked;
        Ok(match failure {
            // It came again because the relay has sent it again, not because the sender has.
            Failure::Duplicate => failed.digests.iter().try_fold(true, |unseen, digest| {
                Ok::<_, ProfileError>(unseen && !rows.has_seen(digest)?)
            })?,
            // The relay had it before we asked: the numbers of that request tell of it, if it has one.
            _ => failed.ratchet_key.is_none() || failed.server > asked,
        })
    }

    fn ask(
        &self,
        rows: Rows<'_>,
        sender: Address,
        identity: IdentityKey,
        want: Want,
        failed: &Failed,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if self.is_ours(sender) {
            // The certificate proves it, whatever the message is.
            devices::meet(rows, self.local, sender.device_id, turn)?;
        }
        let peer = rows.peer(sender.service_id)?.unwrap_or(Peer::unknown(sender.service_id));
        rows.save_peer(&Peer { identity: Some(identity), ..peer })?;
        recovery::want(rows, self.settings, sender, want, Some(failed), turn)
    }

    fn hold(
        &self,
        rows: Rows<'_>,
        sender: Address,
        offered: IdentityKey,
        envelope: &[u8],
        server_ms: u64,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let account = sender.service_id;
        let mut peer = rows.peer(account)?.unwrap_or(Peer::unknown(account));
        let known = match peer.identity {
            Some(known) if known != offered && !self.is_ours(sender) => known,
            // The session says other than the certificate: nobody honest sends that.
            _ => return count(rows, Some(account), Failure::Undecryptable, turn),
        };
        if peer.offered == Some(offered) && peer.decision == Decision::Rejected {
            return count(rows, Some(account), Failure::IdentityRejected, turn);
        }
        if super::identity::offer(&mut peer, offered) {
            rows.save_peer(&peer)?;
            let was_verified = peer.verified;
            turn.tell(Event::IdentityChanged { account, known, offered, was_verified });
        }
        let gone =
            rows.hold(account, &offered, server_ms, envelope, self.settings.held_messages)?;
        if gone > 0 { count(rows, Some(account), Failure::HeldTooMany, turn) } else { Ok(()) }
    }
}

/// Bytes that are not padded as they should be are no envelope.
fn open(padded: &[u8], recipient: &IdentityKeyPair) -> Option<SealedContent> {
    tuckseal::open(unpad_envelope(padded).ok()?, recipient).ok()
}

/// Tells what came of messages, and remembers whom to send a receipt.
pub(super) fn tell_all(
    rows: Rows<'_>,
    events: Vec<Event>,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    for event in events {
        match event {
            Event::Failure { account, reason, .. } => count(rows, account, reason, turn)?,
            Event::Message(message) => {
                turn.received.push((message.from, message.sent));
                turn.tell(Event::Message(message));
            }
            event => turn.tell(event),
        }
    }
    Ok(())
}

/// Counts a failure and tells of it at the 1st, 2nd, 4th, 8th … time, so that a storm stays a few lines.
pub(super) fn count(
    rows: Rows<'_>,
    account: Option<ServiceId>,
    reason: Failure,
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let count = rows.count_failure(account, reason as u8, turn.now)?;
    if count.is_power_of_two() {
        turn.tell(Event::Failure { account, reason, count });
    }
    Ok(())
}
