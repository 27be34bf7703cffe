//! Out: a message is encrypted and stored in one commit, then submitted until the server has it.
//!
//! The session's ciphertext is made once and kept. The sealed envelope around it is made when the message
//! goes out, with a certificate that is valid then; tries of one run repeat the same bytes.

use bytes::Bytes;
use prost::Message as _;
use tuckseal::content::{Body, Content, Data, Profile};
use tuckseal::service::{DeviceMessage, Submission};
use tuckseal::{
    ContentHint, ContentKind, IdentityKey, SealedContent, SenderCertificate, ServiceId, Timestamp,
    pad_envelope, seal_v1,
};

use super::encrypt::{Encrypting, encrypt_waiting};
use super::flight::Stage;
use super::reports::is_new;
use super::{Engine, Link, Turn, devices};
use crate::error::SendError;
use crate::event::Refused;
use crate::message::{SentId, SentState};
use crate::store::{Ciphertext, Decision, Form, Own, ProfileError, Waiting};

/// Longest text, in bytes of UTF-8: sealed and padded it fits the largest envelope, 96 KiB.
pub(crate) const MAX_TEXT_BYTES: usize = 80 * 1024;
/// What may stand beside it, in bytes: files, a place.
const MAX_BESIDE_BYTES: usize = 8 * 1024;

impl Engine {
    /// Takes a message over: when this returns it is on disk and will be sent.
    ///
    /// # Errors
    /// [`SendError`]; nothing was stored.
    pub(crate) fn send(
        &mut self,
        to: ServiceId,
        data: Data,
        turn: &mut Turn<'_>,
    ) -> Result<SentId, SendError> {
        if to == self.local.address.service_id {
            return Err(SendError::ToOurselves);
        }
        check(&data)?;
        let (local, own, us) = (&self.local, &self.own, self.us());
        let (id, is_new, is_told) = self.store.commit(|rows| {
            let is_new = is_new(rows, to)?;
            let report_token = if is_new { rows.give_report_token(to, turn.now)? } else { None };
            let timestamp = rows.timestamp(turn.now)?;
            let is_told = devices::tell_sent(rows, us, Some(to), timestamp, &data, turn)?;
            let content = Content {
                profile: Some(profile_of(own)),
                report_token,
                ..Content::new(Body::Data(data), timestamp)
            };
            let id = rows.put_out(to, Form::Numbered, &content)?;
            encrypt_waiting(rows, local, to, turn)?;
            Ok::<_, ProfileError>((id, is_new, is_told))
        })?;
        self.pump_stored(to, turn);
        if is_told {
            self.pump_stored(us, turn);
        }
        if is_new {
            self.refill_report_tokens(turn);
        }
        Ok(SentId(id))
    }

    /// Brings on its way what a call of the app has just stored. The call has succeeded whatever becomes of
    /// this: a database that fails here fails again in the next input, whose caller can be told.
    pub(super) fn pump_stored(&mut self, account: ServiceId, turn: &mut Turn<'_>) {
        if let Err(error) = self.pump(account, turn) {
            tracing::warn!(%error, "outbox");
            self.flights.remove(&account);
        }
    }

    pub(crate) fn sent_state(&self, message: SentId) -> Result<SentState, ProfileError> {
        let rows = self.store.rows();
        Ok(match rows.outbox_state(message.0)? {
            Some((2, _, _)) => SentState::Refused,
            Some((_, _, 2)) => SentState::Read,
            Some((_, _, 1)) => SentState::Delivered,
            Some((0 | 1, 0, _)) => SentState::Waiting,
            // It is in the log, or is sent again from there.
            Some(_) => SentState::Accepted,
            None if message.0 >= 1 && message.0 <= rows.outbox_last()? => SentState::Accepted,
            None => SentState::Unknown,
        })
    }

    pub(super) fn pump_all(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        if self.link == Link::Down {
            return Ok(());
        }
        for account in self.store.rows().waiting_accounts()? {
            if self.is_full() {
                break;
            }
            self.pump(account, turn)?;
        }
        self.pump_groups(turn)
    }

    /// Brings the oldest message to an account on its way, unless one is.
    pub(super) fn pump(
        &mut self,
        account: ServiceId,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if self.link == Link::Down || self.is_full() || self.flights.contains_key(&account) {
            return Ok(());
        }
        let Some(first) = self.store.rows().first_waiting(account)? else { return Ok(()) };
        if self.store.rows().peer(account)?.is_some_and(|peer| peer.decision == Decision::Awaited) {
            return Ok(());
        }
        if let Some(submission_id) = first.submission_id {
            return self.launch_submission(account, &first, submission_id, turn);
        }
        if account == self.us() && !self.has_others() {
            return self.want_devices(turn);
        }
        let local = &self.local;
        let encrypting = self.store.commit(|rows| encrypt_waiting(rows, local, account, turn))?;
        if encrypting == Encrypting::NeedsDecision {
            return Ok(());
        }
        match self.store.rows().first_waiting(account)? {
            Some(first @ Waiting { submission_id: Some(id), .. }) => {
                self.launch_submission(account, &first, id, turn)
            }
            _ if encrypting == Encrypting::NeedsBundles => {
                let request_id = turn.random();
                self.launch(account, Stage::Bundles { request_id }, turn)
            }
            _ => Ok(()),
        }
    }

    fn launch_submission(
        &mut self,
        account: ServiceId,
        first: &Waiting,
        submission_id: [u8; 16],
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        // Without a certificate it waits; the answer to that request looks here again.
        let Some(certificate) = self.usable_certificate(turn) else { return Ok(()) };
        let rows = self.store.rows();
        let identity = rows.peer(account)?.and_then(|peer| peer.identity);
        let identity = identity.ok_or(ProfileError::Damaged { what: "peer" })?;
        let ciphertexts = rows.ciphertexts(first.id)?;
        // Only what is in the log can be sent again.
        let hint = match first.form {
            Form::Numbered | Form::Notice | Form::Group => ContentHint::Resendable,
            Form::Loose | Form::Plaintext | Form::Passing => ContentHint::Implicit,
        };
        let Some(messages) = self.seal(&certificate, &identity, ciphertexts, hint, turn) else {
            return self.give_up(account, first.id, Refused::ByServer { status: 400 }, turn);
        };
        let submission = Submission {
            submission_id: Bytes::copy_from_slice(&submission_id),
            messages,
            background: first.form == Form::Loose,
            ephemeral: first.form == Form::Passing,
            ttl_secs: 0,
        };
        let body = submission.encode_to_vec().into();
        let message = first.id;
        self.launch(account, Stage::Submission { message, submission_id, body }, turn)
    }

    /// `None` when nothing can be sealed for this identity key, or what is sealed fits no envelope.
    fn seal(
        &self,
        certificate: &SenderCertificate,
        recipient: &IdentityKey,
        ciphertexts: Vec<Ciphertext>,
        hint: ContentHint,
        turn: &mut Turn<'_>,
    ) -> Option<Vec<DeviceMessage>> {
        let seal_one = |ciphertext: Ciphertext| {
            let content = SealedContent {
                kind: [ContentKind::PreKey, ContentKind::Plaintext]
                    .into_iter()
                    .find(|kind| *kind as u8 == ciphertext.kind)
                    .unwrap_or(ContentKind::Whisper),
                sender: certificate.clone(),
                content: ciphertext.body,
                hint,
                group_id: None,
            };
            let mut envelope =
                seal_v1(&content, &self.local.identity, recipient, &mut turn.rng).ok()?;
            pad_envelope(&mut envelope).ok()?;
            Some(DeviceMessage {
                device_id: ciphertext.device_id.get().into(),
                registration_id: ciphertext.registration_id,
                content: envelope.into(),
            })
        };
        ciphertexts.into_iter().map(seal_one).collect()
    }
}

/// How the recipient reaches us from now on.
pub(super) fn profile_of(own: &Own) -> Profile {
    Profile { access_key: own.access_key, name: own.name.clone() }
}

/// Whether this fits an envelope, and those take it who get it.
pub(super) fn check(data: &Data) -> Result<(), SendError> {
    let (found, limit) = (data.text.len(), MAX_TEXT_BYTES);
    if found > limit {
        return Err(SendError::TooLong { found, limit });
    }
    let content = Content::new(Body::Data(data.clone()), Timestamp::from_millis(0));
    let encoded = content.encode();
    let (found, limit) = (encoded.len(), MAX_TEXT_BYTES + MAX_BESIDE_BYTES);
    if found > limit {
        return Err(SendError::TooLong { found, limit });
    }
    Content::decode(&encoded).map(drop).map_err(SendError::Unreadable)
}

#[cfg(test)]
mod tests {
    use tuckseal::content::{AttachmentPointer, Location, MAX_NAME_BYTES};
    use tuckseal::{AttachmentKeys, DecodeError, ENVELOPE_SIZES, Timestamp};

    use super::*;

    fn with_preview(data: Data, bytes: usize) -> Data {
        let pointer = AttachmentPointer {
            path: String::new(),
            keys: AttachmentKeys::generate(&mut rand::rng()),
            digest: [0; 32],
            size: 1,
            incremental: None,
            content_type: String::new(),
            file_name: String::new(),
            preview: vec![1; bytes].into(),
        };
        Data { attachments: vec![pointer], ..data }
    }

    #[test]
    fn the_longest_data_that_is_taken_fits_an_envelope_with_all_that_goes_with_it() {
        let text = Data::text("x".repeat(MAX_TEXT_BYTES));
        let data = with_preview(text.clone(), MAX_BESIDE_BYTES - 150);
        assert!(check(&data).is_ok());
        let more = check(&with_preview(text, MAX_BESIDE_BYTES));
        assert!(matches!(more, Err(SendError::TooLong { .. })), "{more:?}");
        let content = Content {
            sequence: u64::MAX,
            stream: u64::MAX,
            profile: Some(Profile { access_key: [1; 16], name: "x".repeat(128) }),
            report_token: Some(vec![1; 128].into()),
            ..Content::new(Body::Data(data), Timestamp::from_millis(u64::MAX))
        };
        // What a first message has around it, at most.
        assert!(content.encode_padded().len() + 2_250 < ENVELOPE_SIZES[4]);
    }

    #[test]
    fn what_no_recipient_would_take_is_not_taken_for_sending() {
        let labelled = |length| {
            let place = Location::new(1, 1, 1).unwrap().with_label("x".repeat(length));
            check(&Data { location: Some(place), ..Data::default() })
        };
        let refused = |field| move |it| matches!(it, Err(SendError::Unreadable(DecodeError::Field { field: found })) if found == field);
        assert!(labelled(MAX_NAME_BYTES).is_ok());
        assert!(refused("label")(labelled(MAX_NAME_BYTES + 1)));
        assert!(check(&with_preview(Data::default(), 32 * 1024)).is_ok());
        assert!(refused("preview")(check(&with_preview(Data::default(), 32 * 1024 + 1))));
    }
}
