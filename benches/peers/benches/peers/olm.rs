//! vodozemac: Olm. A 3DH without a check of signatures, and a double ratchet without a post-quantum part.

use vodozemac::megolm::{
    GroupSession, InboundGroupSession, MegolmMessage, SessionConfig as MegolmConfig,
};
use vodozemac::olm::{Account, OlmMessage, PreKeyMessage, Session, SessionConfig};

pub struct Olm {
    pub alice: Account,
    pub bob: Account,
}

impl Olm {
    pub fn new() -> Self {
        Self { alice: Account::new(), bob: Account::new() }
    }

    /// A session of Alice with one of Bob's one-time keys, and her first message.
    pub fn initiate(&mut self) -> (Session, Vec<u8>) {
        let key = self.one_time_key();
        self.initiate_with(key)
    }

    pub fn one_time_key(&mut self) -> vodozemac::Curve25519PublicKey {
        let key = self.bob.generate_one_time_keys(1).created[0];
        self.bob.mark_keys_as_published();
        key
    }

    pub fn initiate_with(&self, key: vodozemac::Curve25519PublicKey) -> (Session, Vec<u8>) {
        let identity = self.bob.curve25519_key();
        let config = SessionConfig::version_1();
        let mut session = self.alice.create_outbound_session(config, identity, key).unwrap();
        let message = session.encrypt([5; 100]).unwrap();
        (session, message.to_parts().1)
    }

    /// Bob's end.
    pub fn respond(&mut self, first: &[u8]) -> Session {
        let message = PreKeyMessage::from_bytes(first).unwrap();
        let identity = self.alice.curve25519_key();
        let config = SessionConfig::version_1();
        self.bob.create_inbound_session(config, identity, &message).unwrap().session
    }

    /// A session in which both have read a message.
    pub fn talking(&mut self) -> (Session, Session) {
        let (mut at_alice, first) = self.initiate();
        let mut at_bob = self.respond(&first);
        let answer = at_bob.encrypt("hi").unwrap();
        at_alice.decrypt(&answer).unwrap();
        (at_alice, at_bob)
    }
}

pub fn encrypt(session: &mut Session, plaintext: &[u8]) -> Vec<u8> {
    session.encrypt(plaintext).unwrap().to_parts().1
}

pub fn decrypt(session: &mut Session, body: &[u8]) -> Vec<u8> {
    session.decrypt(&OlmMessage::from_parts(1, body).unwrap()).unwrap()
}

/// Megolm: encrypts on and on.
pub fn megolm_sender(plaintext: &[u8]) -> impl FnMut(()) -> Vec<u8> + use<'_> {
    let mut session = GroupSession::new(MegolmConfig::version_1());
    move |()| session.encrypt(plaintext).to_bytes()
}

/// A sender of Megolm and who reads it.
pub fn megolm(
    plaintext: &[u8],
) -> (impl FnMut() -> Vec<u8> + use<'_>, impl FnMut(Vec<u8>) -> Vec<u8> + use<>) {
    let mut sender = GroupSession::new(MegolmConfig::version_1());
    let key = sender.session_key();
    let mut reader = InboundGroupSession::new(&key, MegolmConfig::version_1());
    let read = move |body: Vec<u8>| {
        let message = MegolmMessage::from_bytes(&body).unwrap();
        reader.decrypt(&message).unwrap().plaintext
    };
    (move || sender.encrypt(plaintext).to_bytes(), read)
}
