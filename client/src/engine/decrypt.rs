//! From a sealed envelope to its content: who has sent it is proven, and the session opens it with the prekeys that it
//! names.

use tuckseal::{
    Address, AgreementPolicy, BaseKeyUse, Consumed, ContentHint, ContentKind, DecryptError,
    Decrypted, OpenError, PreKeySignalMessage, PreKeys, SealedContent, SignalMessage, Timestamp,
    Trust,
};

use super::Turn;
use super::encrypt::forget_stream;
use super::receive::{Receiver, Rejection};
use super::recovery::digest;
use crate::event::Failure;
use crate::store::{Device, Failed, KemUse, ProfileError, Rows, Want};

impl Receiver<'_> {
    /// The certificate must have been valid when the relay took the envelope: it may have waited there for
    /// longer than a certificate lives.
    pub(super) fn authenticate(
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

    pub(super) fn decrypt(
        &self,
        rows: Rows<'_>,
        sealed: &SealedContent,
        device: &mut Device,
        server: Timestamp,
        turn: &mut Turn<'_>,
    ) -> Result<Decrypted, Rejection> {
        let (sender, identity) = (device.address, *sealed.sender.identity_key());
        let trust = Trust::Only(identity);
        let unreadable = |failure, ratchet_key| match sealed.hint {
            // Nobody keeps it to send it again.
            ContentHint::Implicit => Rejection::Failed(Some(sender.service_id), failure),
            _ => {
                let digests = vec![digest(&sealed.content)];
                let failed = Failed { digests, ratchet_key, server };
                let is_anew = failure == Failure::NoPreKey;
                let want = if is_anew { Want::FailedAnew } else { Want::Failed };
                Rejection::Unreadable { sender, identity, failure, want, failed }
            }
        };
        let malformed = |_| unreadable(Failure::Undecryptable, None);
        let (result, ratchet_key) = match sealed.kind {
            ContentKind::PreKey => {
                let message = PreKeySignalMessage::from_bytes(sealed.content.clone());
                let message = message.map_err(malformed)?;
                let key = *message.message().ratchet_key();
                (self.decrypt_first(rows, &message, device, trust, turn)?, key)
            }
            ContentKind::Whisper => {
                let message = SignalMessage::from_bytes(sealed.content.clone());
                let message = message.map_err(malformed)?;
                let key = *message.ratchet_key();
                let session = &mut device.session;
                (session.decrypt(self.local, &sender, &message, trust, &mut turn.rng), key)
            }
            ContentKind::SenderKey | ContentKind::Plaintext => {
                return Err(Rejection::Failed(Some(sender.service_id), Failure::Unsupported));
            }
        };
        result.map_err(|error| match error {
            DecryptError::UntrustedIdentity(untrusted) => {
                Rejection::Identity { sender, offered: untrusted.offered }
            }
            DecryptError::Duplicate { .. } => unreadable(Failure::Duplicate, Some(ratchet_key)),
            DecryptError::NoPreKey { .. } => unreadable(Failure::NoPreKey, Some(ratchet_key)),
            _ => unreadable(Failure::Undecryptable, Some(ratchet_key)),
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
}

/// A device with another registration id was set up anew: what it gets begins at 1 again.
pub(super) fn note_registration(rows: Rows<'_>, device: &mut Device) -> Result<(), ProfileError> {
    let registration_id = device.session.info().map_or(0, |info| info.remote_registration_id);
    if device.registration_id != registration_id && device.registration_id != 0 {
        forget_stream(rows, device)?;
        rows.mark_not_encrypted(device.address.service_id)?;
    }
    device.registration_id = registration_id;
    Ok(())
}

/// What a new session has used up.
pub(super) fn consume(rows: Rows<'_>, consumed: &Consumed) -> Result<(), ProfileError> {
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
