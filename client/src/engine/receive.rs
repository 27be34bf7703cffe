//! In: an envelope becomes a message in the inbox, a held envelope or a counted failure, in one commit with
//! the session, the consumed prekeys and the envelope's id. Only then is it acknowledged.

use tuckseal::content::{Body, Content};
use tuckseal::service::Envelope;
use tuckseal::{
    Address, AgreementPolicy, BaseKeyUse, Consumed, ContentKind, DecryptError, Decrypted,
    IdentityKey, LocalParty, OpenError, PreKeySignalMessage, PreKeys, PublicKey, SealedContent,
    ServiceId, SignalMessage, Timestamp, Trust,
};

use super::order;
use super::send::forget_stream;
use super::{Action, Engine, Settings, Turn};
use crate::event::{Event, Failure};
use crate::store::{Decision, Device, Early, KemUse, Peer, ProfileError, Rows};

/// Envelopes of one commit: they share its wait for the disk.
const BATCH: usize = 64;
/// Longest name that is kept, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// What is the same for all envelopes.
pub(super) struct Receiver<'a> {
    pub(super) local: &'a LocalParty,
    pub(super) trust_root: PublicKey,
    pub(super) settings: &'a Settings,
}

/// Why an envelope gave no message.
enum Rejection {
    Failed(Option<ServiceId>, Failure),
    /// The sender's identity key is not the known one.
    Identity {
        sender: Address,
        offered: IdentityKey,
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
        for batch in envelopes.chunks(BATCH) {
            let receiver = Receiver {
                local: &self.local,
                trust_root: self.account.trust_root,
                settings: &self.settings,
            };
            self.store.commit(|rows| {
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
                Ok::<_, ProfileError>(())
            })?;
            turn.actions.push(Action::Acknowledge(
                batch.iter().map(|envelope| envelope.id.clone()).collect(),
            ));
        }
        // A first message may have brought the session that ours wait for.
        self.pump_all(turn)
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
        let sealed = tuckseal::open(envelope, &self.local.identity)
            .map_err(|_| Rejection::Failed(None, Failure::Sealed))?;
        let sender = self.authenticate(&sealed, server_ms, turn.now)?;
        let account = sender.service_id;
        let failed = |failure| Rejection::Failed(Some(account), failure);
        let mut peer = rows.peer(account)?.unwrap_or(Peer::unknown(account));
        let certified = *sealed.sender.identity_key();
        if peer.identity.is_some_and(|known| known != certified) {
            return Err(Rejection::Identity { sender, offered: certified });
        }
        let mut device = rows.device(sender)?.unwrap_or(Device::unknown(sender));
        let trust = Trust::Only(certified);
        let decrypted = self.decrypt(rows, &sealed, &mut device, trust, turn)?;
        if let Some(consumed) = &decrypted.consumed {
            consume(rows, consumed)?;
        }
        self.note_registration(rows, &mut device, turn)?;
        peer.identity = Some(decrypted.identity);
        let plaintext = zeroize::Zeroizing::new(decrypted.plaintext);
        let content = Content::decode_padded(&plaintext);
        if let Some(profile) = content.as_ref().ok().and_then(|content| content.profile.as_ref()) {
            peer.access_key = Some(profile.access_key);
            peer.claimed_name =
                Some(&profile.name).filter(|name| name.len() <= MAX_NAME_BYTES).cloned();
        }
        rows.save_peer(&peer)?;
        // The session has moved on whether or not the content is one.
        let taken = match content {
            Ok(content) => Ok(self.take_content(rows, &mut device, content, turn)?),
            Err(_) => Err(failed(Failure::Content)),
        };
        rows.save_device(&device)?;
        taken
    }

    fn take_content(
        &self,
        rows: Rows<'_>,
        device: &mut Device,
        content: Content,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let early = Early {
            sequence: content.sequence,
            since: turn.now,
            sent: content.timestamp,
            body: match content.body {
                Body::Data(data) => Some(data.text),
                _ => None,
            },
        };
        for message in order::take(rows, device, early, self.settings.gap_messages)? {
            turn.tell(Event::Message(message));
        }
        Ok(())
    }

    /// The certificate must have been valid when the relay took the envelope: it may have waited there for
    /// longer than a certificate lives.
    fn authenticate(
        &self,
        sealed: &SealedContent,
        server_ms: u64,
        now: Timestamp,
    ) -> Result<Address, Rejection> {
        let at = if server_ms == 0 { now } else { Timestamp::from_millis(server_ms) };
        sealed.authenticate(&[self.trust_root], &[], &self.local.address, None, at).map_err(
            |error| {
                let failure = if matches!(error, OpenError::SelfSend(_)) {
                    Failure::SelfSend
                } else {
                    Failure::Certificate
                };
                Rejection::Failed(None, failure)
            },
        )
    }

    fn decrypt(
        &self,
        rows: Rows<'_>,
        sealed: &SealedContent,
        device: &mut Device,
        trust: Trust,
        turn: &mut Turn<'_>,
    ) -> Result<Decrypted, Rejection> {
        let sender = device.address;
        let failed = |failure| Rejection::Failed(Some(sender.service_id), failure);
        let result = match sealed.kind {
            ContentKind::PreKey => {
                let message = PreKeySignalMessage::from_bytes(sealed.content.clone());
                let message = message.map_err(|_| failed(Failure::Undecryptable))?;
                self.decrypt_first(rows, &message, device, trust, turn)?
            }
            ContentKind::Whisper => {
                let message = SignalMessage::from_bytes(sealed.content.clone());
                let message = message.map_err(|_| failed(Failure::Undecryptable))?;
                device.session.decrypt(self.local, &sender, &message, trust, &mut turn.rng)
            }
            ContentKind::SenderKey | ContentKind::Plaintext => {
                return Err(failed(Failure::Unsupported));
            }
        };
        result.map_err(|error| match error {
            DecryptError::UntrustedIdentity(untrusted) => {
                Rejection::Identity { sender, offered: untrusted.offered }
            }
            DecryptError::Duplicate { .. } => failed(Failure::Duplicate),
            DecryptError::NoPreKey { .. } => failed(Failure::NoPreKey),
            _ => failed(Failure::Undecryptable),
        })
    }

    fn decrypt_first(
        &self,
        rows: Rows<'_>,
        message: &PreKeySignalMessage,
        device: &mut Device,
        trust: Trust,
        turn: &mut Turn<'_>,
    ) -> Result<Result<Decrypted, DecryptError>, ProfileError> {
        let needs = message.needs();
        let known = device.session.has_session_of(message);
        let signed = if known { None } else { rows.signed(needs.signed)? };
        let one_time =
            needs.one_time.filter(|_| !known).map(|id| rows.one_time(id)).transpose()?.flatten();
        let kem = needs.kem.filter(|_| !known).map(|id| rows.kem(id)).transpose()?.flatten();
        let repeated = match &kem {
            Some((kem, KemUse::LastResort)) => {
                rows.base_key_seen(kem.id, needs.signed, &needs.base_key)?
            }
            Some((_, KemUse::OneTime)) | None => false,
        };
        let prekeys = PreKeys {
            signed: signed.as_ref(),
            one_time: one_time.as_ref(),
            kem: kem.as_ref().map(|(kem, _)| kem),
            base_key: if repeated { BaseKeyUse::Repeated } else { BaseKeyUse::First },
        };
        let policy = AgreementPolicy::RequireSpqr;
        let sender = device.address;
        Ok(device.session.decrypt_first(
            self.local,
            &sender,
            message,
            prekeys,
            trust,
            policy,
            &mut turn.rng,
        ))
    }

    /// A device with another registration id was set up anew: both streams begin at 1 again.
    fn note_registration(
        &self,
        rows: Rows<'_>,
        device: &mut Device,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let registration_id = device.session.info().map_or(0, |info| info.remote_registration_id);
        if device.registration_id != registration_id && device.registration_id != 0 {
            for message in order::restart(rows, device)? {
                turn.tell(Event::Message(message));
            }
            forget_stream(rows, device)?;
            rows.mark_not_encrypted(device.address.service_id)?;
        }
        device.registration_id = registration_id;
        Ok(())
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
            Some(known) if known != offered => known,
            // The session says other than the certificate: nobody honest sends that.
            _ => return count(rows, Some(account), Failure::Undecryptable, turn),
        };
        if peer.offered == Some(offered) && peer.decision == Decision::Rejected {
            return count(rows, Some(account), Failure::IdentityRejected, turn);
        }
        if super::identity::offer(&mut peer, offered) {
            rows.save_peer(&peer)?;
            turn.tell(Event::IdentityChanged { account, known, offered });
        }
        let gone =
            rows.hold(account, &offered, server_ms, envelope, self.settings.held_messages)?;
        if gone > 0 { count(rows, Some(account), Failure::HeldTooMany, turn) } else { Ok(()) }
    }
}

/// What a new session has used up.
fn consume(rows: Rows<'_>, consumed: &Consumed) -> Result<(), ProfileError> {
    if let Some(id) = consumed.one_time {
        rows.delete_one_time(id)?;
    }
    let Some(id) = consumed.kem else { return Ok(()) };
    match rows.kem(id)? {
        Some((_, KemUse::LastResort)) => {
            rows.remember_base_key(id, consumed.signed, &consumed.base_key)
        }
        Some((_, KemUse::OneTime)) | None => rows.delete_kem(id),
    }
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
