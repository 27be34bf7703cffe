//! Sessions that libsignal stored, taken over and gone on with: what the files about them share.

use super::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use tuckseal::{
    Address, AgreementPolicy, DecryptError, EncryptError, IdentityKey, ImportError,
    ImportedSessions, LocalParty, PreKeySignalMessage, PreKeys, SessionRecord, SignalMessage,
    Timestamp, Trust,
};

/// The local identity of a record: field 2 of its first session.
pub(super) fn local_identity(record: &[u8]) -> IdentityKey {
    let place = record.windows(3).position(|it| it == [0x12, 0x21, 0x05]).unwrap();
    IdentityKey::decode(&record[place + 2..place + 35]).unwrap()
}

/// Imports, and stores what came out as an app would.
pub(super) fn import(record: &[u8]) -> Result<ImportedSessions, ImportError> {
    let local = local_identity(record);
    SessionRecord::import_libsignal(record, &local, Trust::FirstUse).map(|imported| {
        let record = SessionRecord::decode(&imported.record.encode()).unwrap();
        ImportedSessions { record, ..imported }
    })
}

/// The verdict on a message in the words of the files; after an error the record is as it was.
pub(super) fn receive(
    record: &mut SessionRecord,
    local: &LocalParty,
    remote: &Address,
    kind: &Value,
    body: &[u8],
    trust: Trust,
) -> Result<Vec<u8>, &'static str> {
    let before = record.encode();
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let policy = AgreementPolicy::AllowX3dhAndNoSpqr;
    let result = if *kind == 2 {
        let message = SignalMessage::decode(body).unwrap();
        record.decrypt(local, remote, &message, trust, &mut rng)
    } else {
        let message = PreKeySignalMessage::decode(body).unwrap();
        record.decrypt_first(local, remote, &message, PreKeys::NONE, trust, policy, &mut rng)
    };
    result.map(|read| read.plaintext).map_err(|error| {
        assert_eq!(*record.encode(), *before);
        match error {
            // Without prekeys, a first message of another session ends here.
            DecryptError::Invalid | DecryptError::NoPreKey { .. } => "invalid",
            DecryptError::Duplicate { .. } => "duplicate",
            DecryptError::UntrustedIdentity(_) => "untrusted",
            other => panic!("no class for {other:?}"),
        }
    })
}

pub(super) fn send(
    record: &mut SessionRecord,
    local: &LocalParty,
    remote: &Address,
    trust: Trust,
) -> Result<Vec<u8>, &'static str> {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let sent = record.encrypt(local, remote, b"hi", trust, &mut rng, Timestamp::default());
    sent.map(|sent| sent.body).map_err(|error| match error {
        EncryptError::UntrustedIdentity(_) => "untrusted",
        EncryptError::NoSession | EncryptError::Unanswered => "not-found",
        EncryptError::Exhausted | EncryptError::Damaged => "state",
        other => panic!("no class for {other:?}"),
    })
}
