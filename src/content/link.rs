//! What a device hands to a new one of the same account: all that the new one cannot draw itself.

use super::data::service_id;
use super::exact;
use crate::address::{DeviceId, ServiceId};
use crate::crypto::{PrivateKey, PublicKey};
use crate::identity::IdentityKeyPair;
use crate::wire::DecodeError;
use crate::wire::link as stored;
use alloc::string::String;
use alloc::vec::Vec;
use prost::Message;
use zeroize::Zeroizing;

/// Longest offer that is read, in bytes.
const MAX: usize = 4096;
/// Longest name: it goes with every message of the new device.
const MAX_NAME: usize = 128;

/// The account and its keys, for a new device alone: seal it with [`crate::seal_for_device`].
#[derive(Clone)]
pub struct LinkOffer {
    /// The relay's base address.
    pub server: String,
    /// Its trust root, as the device that makes the offer has pinned it.
    pub trust_root: PublicKey,
    /// The account.
    pub account: ServiceId,
    /// Its name, at most 128 bytes.
    pub name: String,
    /// Its identity key, the private half with it.
    pub identity: IdentityKeyPair,
    /// Its access key.
    pub access_key: [u8; 16],
    /// With this the relay takes one device (`DeviceLink.token`).
    pub link_token: Zeroizing<[u8; 32]>,
    /// The device that makes the offer.
    pub device_id: DeviceId,
}

impl core::fmt::Debug for LinkOffer {
    /// No keys and no names.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LinkOffer").finish_non_exhaustive()
    }
}

impl LinkOffer {
    /// `Offer` of `proto/link.proto`. Wiped when dropped.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let stored = stored::Offer {
            server: self.server.clone(),
            trust_root: self.trust_root.serialize().to_vec(),
            account: self.account.to_binary(),
            name: self.name.clone(),
            identity_private: self.identity.private_key().to_bytes().to_vec(),
            access_key: self.access_key.to_vec(),
            link_token: self.link_token.to_vec(),
            device_id: self.device_id.get().into(),
        };
        Zeroizing::new(stored.encode_to_vec())
    }

    /// Reads what [`LinkOffer::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`]: something lacks, or has a length or value that it cannot have.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX {
            return Err(DecodeError::TooLong { limit: MAX, found: bytes.len() });
        }
        let stored = stored::Offer::decode(bytes).map_err(|_| DecodeError::Protobuf)?;
        let field = |field| DecodeError::Field { field };
        if stored.name.len() > MAX_NAME {
            return Err(field("name"));
        }
        let identity = PrivateKey::from_bytes(&stored.identity_private);
        let device = u8::try_from(stored.device_id).ok().and_then(DeviceId::new);
        Ok(Self {
            server: stored.server.clone(),
            trust_root: PublicKey::decode(&stored.trust_root).map_err(|_| field("trust_root"))?,
            account: service_id(&stored.account, "account")?,
            name: stored.name.clone(),
            identity: identity.map_err(|_| field("identity_private"))?.into(),
            access_key: exact(&stored.access_key, "access_key")?,
            link_token: Zeroizing::new(exact(&stored.link_token, "link_token")?),
            device_id: device.ok_or_else(|| field("device_id"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_chacha::rand_core::SeedableRng;

    fn offer() -> LinkOffer {
        let identity = IdentityKeyPair::generate(&mut ChaCha20Rng::from_seed([7; 32]));
        LinkOffer {
            server: "https://relay.example".into(),
            trust_root: *identity.identity_key().public_key(),
            account: ServiceId::aci([3; 16]),
            name: "alice".into(),
            identity,
            access_key: [4; 16],
            link_token: Zeroizing::new([5; 32]),
            device_id: DeviceId::PRIMARY,
        }
    }

    #[test]
    fn an_offer_is_read_as_it_was_written_and_shows_nothing() {
        let offer = offer();
        let read = LinkOffer::decode(&offer.encode()).unwrap();
        assert_eq!(*read.encode(), *offer.encode());
        assert_eq!(read.identity.identity_key(), offer.identity.identity_key());
        assert_eq!(alloc::format!("{read:?}"), "LinkOffer { .. }");
    }

    #[test]
    fn an_offer_without_one_of_its_parts_is_refused() {
        let whole = stored::Offer::decode(&offer().encode()[..]).unwrap();
        let without: [fn(&mut stored::Offer); 7] = [
            |it| it.trust_root.clear(),
            |it| it.account.clear(),
            |it| it.identity_private.clear(),
            |it| it.access_key.truncate(15),
            |it| it.link_token.push(0),
            |it| it.device_id = 128,
            |it| it.name = "a".repeat(129),
        ];
        for change in without {
            let mut changed = whole.clone();
            change(&mut changed);
            let refused = LinkOffer::decode(&changed.encode_to_vec());
            assert!(matches!(refused, Err(DecodeError::Field { .. })), "{refused:?}");
        }
        let long = LinkOffer::decode(&[0; MAX + 1]);
        assert!(matches!(long, Err(DecodeError::TooLong { .. })));
    }
}
