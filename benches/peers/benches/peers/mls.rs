//! openmls with its rust-crypto provider, in groups of two: it signs every message and makes a new
//! key exchange only when somebody commits.

use openmls::prelude::{tls_codec::*, *};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

pub type Group = MlsGroup;

pub struct Member {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
}

impl Member {
    pub fn new(name: &str) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        signer.store(provider.storage()).unwrap();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.into()).into(),
            signature_key: signer.public().into(),
        };
        Self { provider, signer, credential }
    }

    pub fn key_package(&self) -> KeyPackage {
        let builder = KeyPackage::builder();
        let made = builder.build(SUITE, &self.provider, &self.signer, self.credential.clone());
        made.unwrap().key_package().clone()
    }

    /// A group with these members, and the welcome for them.
    pub fn found(&self, others: &[KeyPackage]) -> (MlsGroup, Vec<u8>) {
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(1_000, 2_000))
            .build();
        let mut group =
            MlsGroup::new(&self.provider, &self.signer, &config, self.credential.clone()).unwrap();
        let (_, welcome, _) = group.add_members(&self.provider, &self.signer, others).unwrap();
        group.merge_pending_commit(&self.provider).unwrap();
        (group, welcome.tls_serialize_detached().unwrap())
    }

    pub fn join(&self, welcome: &[u8]) -> MlsGroup {
        let config = MlsGroupJoinConfig::builder()
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(1_000, 2_000))
            .build();
        let message = MlsMessageIn::tls_deserialize(&mut &*welcome).unwrap();
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!("no welcome") };
        let staged = StagedWelcome::new_from_welcome(&self.provider, &config, welcome, None);
        staged.unwrap().into_group(&self.provider).unwrap()
    }

    pub fn send(&self, group: &mut MlsGroup, plaintext: &[u8]) -> Vec<u8> {
        let message = group.create_message(&self.provider, &self.signer, plaintext).unwrap();
        message.tls_serialize_detached().unwrap()
    }

    pub fn read(&self, group: &mut MlsGroup, body: &[u8]) -> Vec<u8> {
        let message = MlsMessageIn::tls_deserialize(&mut &*body).unwrap();
        let message = message.try_into_protocol_message().unwrap();
        let read = group.process_message(&self.provider, message).unwrap();
        let ProcessedMessageContent::ApplicationMessage(message) = read.into_content() else {
            panic!("no message of an application")
        };
        message.into_bytes()
    }
}
