//! The devices of our account: listed, named, removed, and given what was said before. How one comes is in `link.rs`.

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, KeyInit};
use bytes::Bytes;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use tuckseal::DeviceId;
use tuckseal::content::AttachmentPointer;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::error::DeviceError;
use crate::message::OwnDevice;
use crate::store::Own;
use crate::transport::ServerError;

/// Before the identity key in the hash that names are encrypted with.
const NAME_LABEL: &[u8] = b"tuckseal-device-name-v1";
const NONCE: usize = 12;
/// Names are padded to a multiple of this.
const NAME_BLOCK: usize = 32;
/// Longest name, in bytes: encrypted it has 156 of the 256 that a server takes.
const MAX_NAME: usize = 128;

impl Client {
    /// The devices of our account, by their numbers.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn devices(&self) -> Result<Vec<OwnDevice>, DeviceError> {
        let devices = self.http.devices(&self.account).await?.devices;
        let read = |device: &tuckseal::service::DeviceInfo| {
            let device_id = DeviceId::try_from(device.device_id).ok()?;
            Some(OwnDevice {
                device_id,
                name: open_name(&self.own, &device.name),
                linked_day: device.made_day,
                is_this: device_id == self.account.address.device_id,
            })
        };
        Ok(devices.iter().filter_map(read).collect())
    }

    /// Gives a device of our account a name, which the devices of the account can read. The first device may name all of them,
    /// another one itself.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn name_device(&self, device: DeviceId, name: &str) -> Result<(), DeviceError> {
        let name = seal_name(&self.own, name, &mut rand::rng())?;
        self.http.name_device(&self.account, device, name).await.map_err(of_device(device))
    }

    /// Hands what was said before to another device of ours, that was linked later as a rule. The client keeps no history: the
    /// file is the app's, in its own format, and was given to [`Client::upload`], which bounds and encrypts it. When this returns it
    /// is kept and will be sent, to that device alone, where it comes as a [`crate::Message`] with `is_history`.
    ///
    /// Ask a person before, and put in no more than they want: a message that has left its session's keys behind can be read again
    /// wherever the archive is.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing was stored.
    pub async fn send_history(
        &self,
        device: DeviceId,
        archive: AttachmentPointer,
    ) -> Result<(), DeviceError> {
        self.shell.call(move |engine, turn| engine.send_history(device, archive, turn)).await
    }

    /// Takes a device out of our account: it gets nothing any more, and what waits for it is gone. **It keeps the identity key.** The
    /// first device may remove all others, another one itself.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub async fn remove_device(&self, device: DeviceId) -> Result<(), DeviceError> {
        self.http.remove_device(&self.account, device).await.map_err(of_device(device))?;
        self.shell.call(move |engine, turn| engine.device_removed(device, turn)).await?;
        Ok(())
    }
}

fn of_device(device: DeviceId) -> impl FnOnce(ServerError) -> DeviceError {
    move |error| match error {
        ServerError::NotFound => DeviceError::NoSuchDevice { device },
        ServerError::Refused { status: 403 } => DeviceError::NotAllowed,
        error => error.into(),
    }
}

/// The same for all devices of the account, and for nobody else.
fn name_cipher(own: &Own) -> Option<Aes256Gcm> {
    let private = own.identity.private_key().to_bytes();
    let key = Sha256::new_with_prefix(NAME_LABEL).chain_update(&private[..]).finalize();
    let key = Zeroizing::new(<[u8; 32]>::from(key));
    Aes256Gcm::new_from_slice(&key[..]).ok()
}

/// ```text
/// nonce: 12 · AES-256-GCM of the name, padded with zeros to a multiple of 32: 32 k + 16
/// ```
pub(crate) fn seal_name(
    own: &Own,
    name: &str,
    rng: &mut impl CryptoRng,
) -> Result<Bytes, DeviceError> {
    if name.is_empty() {
        return Ok(Bytes::new());
    }
    if name.len() > MAX_NAME || name.contains('\0') {
        return Err(DeviceError::Name { limit: MAX_NAME });
    }
    let mut padded = name.as_bytes().to_vec();
    padded.resize(name.len().next_multiple_of(NAME_BLOCK), 0);
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let sealed = name_cipher(own).and_then(|it| it.encrypt(&nonce.into(), &padded[..]).ok());
    let sealed = sealed.ok_or(DeviceError::Name { limit: MAX_NAME })?;
    Ok([&nonce[..], &sealed].concat().into())
}

/// `None` for what [`seal_name`] of this account has not made.
fn open_name(own: &Own, sealed: &[u8]) -> Option<String> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let mut name = name_cipher(own)?.decrypt(&(*nonce).into(), sealed).ok()?;
    name.truncate(name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tuckseal::IdentityKeyPair;

    fn own() -> Own {
        Own {
            server: String::new(),
            name: String::new(),
            identity: IdentityKeyPair::generate(&mut rand::rng()),
            registration_id: 1,
            access_key: [0; 16],
            account: None,
        }
    }

    #[test]
    fn a_name_is_read_by_the_devices_of_the_account_alone_and_shows_its_length_roughly() {
        let (own, other) = (own(), self::own());
        let sealed = |name: &str| seal_name(&own, name, &mut rand::rng()).unwrap();
        for name in ["laptop", "Büro 🦆", &"x".repeat(MAX_NAME)] {
            assert_eq!(open_name(&own, &sealed(name)).as_deref(), Some(name));
            assert_eq!(open_name(&other, &sealed(name)), None);
        }
        assert_eq!(sealed("a").len(), sealed(&"a".repeat(32)).len());
        assert_eq!(sealed(&"x".repeat(MAX_NAME)).len(), 156);
        assert!(sealed("").is_empty() && open_name(&own, b"").is_none());
        for wrong in ["x".repeat(MAX_NAME + 1), "a\0b".into()] {
            let refused = seal_name(&own, &wrong, &mut rand::rng());
            assert!(matches!(refused, Err(DeviceError::Name { limit: MAX_NAME })));
        }
    }
}
