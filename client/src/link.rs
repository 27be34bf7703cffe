//! How an account gets a further device.
//!
//! ```text
//! new device                         a person                        device of the account
//! LinkRequest::new   ── its code ─────────────────────────────────►  Client::offer_link
//! Client::link       ◄──────────────────────── the offer's code ──   (asks the server for leave)
//! (registers)                                                        Client::linked
//! ```
//!
//! The request's code is a public key. The offer's code holds the account's identity key, sealed for that public key alone.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, sleep_until};
use tuckseal::content::LinkOffer;
use tuckseal::service::{DeviceRegistration, SignedDevice};
use tuckseal::{DeviceId, KeyPair, PublicKey, open_for_device, seal_for_device};
use zeroize::Zeroizing;

use crate::backoff;
use crate::client::Client;
use crate::engine::{Engine, Settings, Turn, later, linked_by, new_profile, registration_keys};
use crate::error::LinkError;
use crate::own_devices::seal_name;
use crate::register::{LINKING, account, draw_registration_id, now};
use crate::store::{Account, Own, Profile, ProfileError, Store};
use crate::transport::http::Http;
use crate::transport::{Ca, ServerError};

/// What is signed begins with this, so that the signature serves nothing else.
const SIGNED_PREFIX: &[u8] = b"tuckseal-device-v1";
/// Before the code of a request, and of an offer.
const REQUEST: &str = "tuckseal-link:";
const OFFER: &str = "tuckseal-offer:";
/// Longer codes are not read: an offer has some 300 characters.
const MAX_CODE: usize = 8192;
/// The server is not asked for a new device more often.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A registration without an answer is sent again so often: the server gives the same device.
const ATTEMPTS: u32 = 6;

/// What a device that is to be linked shows. Lives until it is linked: an offer is for one request.
pub struct LinkRequest(KeyPair);

impl std::fmt::Debug for LinkRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkRequest")
    }
}

impl Default for LinkRequest {
    fn default() -> Self {
        Self::new()
    }
}

impl LinkRequest {
    /// With a fresh key.
    #[must_use]
    pub fn new() -> Self {
        Self(KeyPair::generate(&mut rand::rng()))
    }

    /// For [`Client::offer_link`] on a device of the account: to be shown as a QR code, or copied. 58 characters, no secret.
    #[must_use]
    pub fn code(&self) -> String {
        format!("{REQUEST}{}", URL_SAFE_NO_PAD.encode(self.0.public().serialize()))
    }
}

/// An offer that waits for its device.
#[derive(Debug, Clone)]
pub struct OfferedLink {
    /// For [`Client::link`] on the new device. Opens on that alone.
    pub code: String,
    /// How long the server takes the device.
    pub expires_in: Duration,
    link: [u8; 16],
}

impl Client {
    /// Links this device to an account: makes a profile in a folder, with the account's keys. `name` is for the list of
    /// devices, readable for these alone; at most 128 bytes, may be empty. Whoever made the offer decides whose account it is: show
    /// [`Client::name`] afterwards.
    ///
    /// After an error with which the server may have taken the device nonetheless, look at [`Client::devices`] elsewhere and
    /// remove what is not there.
    ///
    /// # Errors
    /// [`LinkError`]. A folder that has no registered profile still has none.
    pub async fn link(
        folder: &Path,
        request: &LinkRequest,
        offer: &str,
        name: &str,
        ca: Option<Ca>,
    ) -> Result<Self, LinkError> {
        let sealed = decode(OFFER, offer)?;
        let offer = LinkOffer::decode(&open_for_device(&sealed, &request.0)?)?;
        let http = Http::new(&offer.server, ca.as_ref())?;
        let (folder, name) = (folder.to_owned(), name.to_owned());
        let of = offer.clone();
        let prepared =
            tokio::task::spawn_blocking(move || prepare(&folder, &of, &name, ca.as_ref()));
        let (store, own, signed) = prepared.await.map_err(|_| ProfileError::Closed)??;
        let registered = register(&http, &offer, &signed).await;
        let by = offer.device_id;
        let saved = tokio::task::spawn_blocking(move || save(store, own, registered, by));
        let (store, own, account) = saved.await.map_err(|_| ProfileError::Closed)??;
        Ok(Self::assemble(store, own, account, Settings::default())??)
    }

    /// Offers the account to the device that shows this code. The server takes one device, for ten minutes as a rule, and an
    /// offer that was made before is void. The offer's code holds the account's identity key, sealed for that device alone: others may
    /// see it.
    ///
    /// **Whoever has made the code gets the account.** Who is talked into entering somebody else's gives it away, as wherever devices
    /// are linked: ask a person first, who must see the code on the new device at that moment.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn offer_link(&self, request: &str) -> Result<OfferedLink, LinkError> {
        let recipient =
            PublicKey::decode(&decode(REQUEST, request)?).map_err(|_| LinkError::Code)?;
        let link = self.http.open_link(&self.account).await?;
        let token = link.token[..].try_into().map_err(|_| ServerError::Answer)?;
        let own = &self.own;
        let offer = LinkOffer {
            server: own.server.clone(),
            trust_root: self.account.trust_root,
            account: self.account(),
            name: own.name.clone(),
            identity: own.identity.clone(),
            access_key: own.access_key,
            link_token: Zeroizing::new(token),
            device_id: self.account.address.device_id,
        };
        let sealed = seal_for_device(&offer.encode(), &recipient, &mut rand::rng());
        let sealed = sealed.map_err(|_| LinkError::Code)?;
        let expires_in = Duration::from_secs(link.expires_in_secs);
        let expected = move |engine: &mut Engine, turn: &mut Turn<'_>| {
            engine.expect_device(later(turn.now, expires_in))
        };
        self.shell.call(expected).await?;
        Ok(OfferedLink {
            code: format!("{OFFER}{}", URL_SAFE_NO_PAD.encode(sealed)),
            expires_in,
            link: link.id[..].try_into().map_err(|_| ServerError::Answer)?,
        })
    }

    /// Waits until the device that the offer is for is linked. What it cannot know, contacts and groups, goes to it while
    /// the client runs. It is not needed: the device is found with the next connection as well.
    ///
    /// # Errors
    /// [`LinkError::Ended`] when the offer's time is over.
    pub async fn linked(&self, offer: &OfferedLink) -> Result<DeviceId, LinkError> {
        let mut attempt = 0;
        loop {
            let asked = Instant::now();
            match self.http.linked(&self.account, offer.link).await {
                Ok(None) => {
                    attempt = 0;
                    // One that is about to stop says so at once.
                    sleep_until(asked + ASK_AGAIN).await;
                }
                Ok(Some(linked)) => {
                    let device = DeviceId::try_from(linked.device_id);
                    let device = device.map_err(|_| ServerError::Answer)?;
                    self.shell.call(move |engine, turn| engine.device_linked(device, turn)).await?;
                    return Ok(device);
                }
                Err(ServerError::NotFound) => return Err(LinkError::Ended),
                Err(error) => pause(error, &mut attempt).await?,
            }
        }
    }
}

/// The profile with all keys saved, and what the server is to hear.
fn prepare(
    folder: &Path,
    offer: &LinkOffer,
    name: &str,
    ca: Option<&Ca>,
) -> Result<(Store, Own, SignedDevice), LinkError> {
    let mut store = Store::open(folder, Profile::Create)?;
    if let Some(Own { account: Some(_), name, .. }) = store.rows().own()? {
        return Err(LinkError::AlreadyRegistered { name });
    }
    let mut rng = rand::rng();
    let own = Own {
        server: offer.server.clone(),
        name: offer.name.clone(),
        identity: offer.identity.clone(),
        registration_id: draw_registration_id(&mut rng),
        access_key: offer.access_key,
        account: None,
    };
    let name = seal_name(&own, name, &mut rng)?;
    store.commit(|rows| {
        // An attempt of before had another offer.
        rows.forget_begun()?;
        rows.set_ca(&Ca::certificates(ca))?;
        let linking = Own { server: LINKING.to_owned(), ..own.clone() };
        new_profile(rows, &linking, &Settings::default(), &mut rng, now())
    })?;
    let (keys, _) = registration_keys(store.rows())?;
    let registration = DeviceRegistration {
        link_token: Bytes::copy_from_slice(&*offer.link_token),
        registration_id: own.registration_id,
        name,
        keys: Some(keys),
    };
    let registration = registration.encode_to_vec();
    let signed = [SIGNED_PREFIX, &registration].concat();
    let signature = own.identity.private_key().sign(&signed, &mut rng);
    let signed =
        SignedDevice { registration: registration.into(), signature: signature.to_vec().into() };
    Ok((store, own, signed))
}

/// Until there is an answer: the same registration gives the same device.
async fn register(
    http: &Http,
    offer: &LinkOffer,
    signed: &SignedDevice,
) -> Result<Account, LinkError> {
    let info = http.server_info().await?;
    if info.trust_root[..] != offer.trust_root.serialize() {
        return Err(LinkError::WrongTrustRoot { server: offer.server.clone() });
    }
    let mut attempt = 0;
    let answer = loop {
        match http.register_device(signed).await {
            Ok(answer) => break answer,
            Err(ServerError::Unauthorised | ServerError::NotFound) => return Err(LinkError::Ended),
            Err(ServerError::Conflict) => return Err(LinkError::TooManyDevices),
            Err(error) => pause(error, &mut attempt).await?,
        }
    };
    let account = account(&answer, offer.trust_root);
    let account = account.filter(|account| account.address.service_id == offer.account);
    Ok(account.ok_or(ServerError::Answer)?)
}

/// A device that was not taken keeps no keys of the account.
fn save(
    mut store: Store,
    own: Own,
    registered: Result<Account, LinkError>,
    by: DeviceId,
) -> Result<(Store, Own, Account), LinkError> {
    let account = match registered {
        Ok(account) => account,
        Err(error) => {
            store.commit(|rows| rows.forget_begun())?;
            return Err(error);
        }
    };
    store.commit(|rows| {
        let (_, upload) = registration_keys(rows)?;
        rows.rename_own(&own.server, &own.name)?;
        rows.set_account(&account)?;
        upload.mark(rows)?;
        linked_by(rows, &own.local_party(account.address), by, now())
    })?;
    Ok((store, own, account))
}

/// Waits before the next attempt, if the error may pass and was not there too often.
async fn pause(error: ServerError, attempt: &mut u32) -> Result<(), ServerError> {
    let passes = matches!(error, ServerError::Unreachable { .. } | ServerError::Busy { .. });
    if !passes || *attempt >= ATTEMPTS {
        return Err(error);
    }
    let wait = backoff::delay(*attempt, &mut rand::rng()).max(error.retry_after());
    *attempt += 1;
    sleep_until(Instant::now() + wait).await;
    Ok(())
}

/// Spaces and line ends come with copying.
fn decode(kind: &str, code: &str) -> Result<Vec<u8>, LinkError> {
    if code.len() > MAX_CODE {
        return Err(LinkError::Code);
    }
    let code: String = code.chars().filter(|it| !it.is_whitespace()).collect();
    let code = code.strip_prefix(kind).ok_or(LinkError::Code)?;
    URL_SAFE_NO_PAD.decode(code).map_err(|_| LinkError::Code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_with_the_spaces_of_copying_and_nothing_else_is_one() {
        let code = LinkRequest::new().code();
        assert_eq!(code.len(), 58);
        let spaced = format!(" {}\n{} ", &code[..30], &code[30..]);
        assert_eq!(decode(REQUEST, &spaced).unwrap().len(), 33);
        let long = format!("{REQUEST}{}", "A".repeat(MAX_CODE));
        for wrong in ["", "tuckseal-link", &code[1..], &code.replace("link", "offer"), &long] {
            assert!(matches!(decode(REQUEST, wrong), Err(LinkError::Code)), "{wrong:.40}");
        }
    }
}
