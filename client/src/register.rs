//! Registration: everything is drawn and saved first, then the server hears of it. Whatever breaks in
//! between, the same call in the same folder goes on where it was.

use bytes::Bytes;
use prost::Message;
use rand_core::CryptoRng;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tuckseal::service::{Registered, Registration as Form, SignedRegistration};
use tuckseal::{Address, DeviceId, IdentityKeyPair, PublicKey, ServiceId, Timestamp};
use zeroize::Zeroizing;

use crate::engine::{Settings, new_profile, registration_keys};
use crate::error::RegisterError;
use crate::store::{Account, Own, Profile, ProfileError, Store};
use crate::transport::http::Http;
use crate::transport::{Ca, ServerError};
use crate::work;

/// What is signed begins with this, so that the signature serves nothing else.
const SIGNED_PREFIX: &[u8] = b"tuckseal-registration-v1";
/// Registration ids are 1..=0x3FFC (W§4).
const REGISTRATION_IDS: u32 = 0x3FFC;

/// Server of a profile that was to be linked and is not: it holds the keys of an account that is none of its own.
pub(crate) const LINKING: &str = "";

/// Whom to register, and where.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The server's address, as `https://host` or `http://host:port`.
    pub server: String,
    /// The name by which others find this account.
    pub name: String,
    /// The server's trust root. An app that is made for one server ships it; without it, the one
    /// that the server shows is taken and pinned.
    pub trust_root: Option<PublicKey>,
    /// The authorities of the server's certificate, if they are its own; kept in the profile. Without them
    /// those are trusted that the system trusts.
    pub ca: Option<Ca>,
}

/// A profile that the server knows.
pub(crate) async fn register(
    folder: PathBuf,
    registration: Registration,
) -> Result<(Store, Own, Account), RegisterError> {
    let http = Http::new(&registration.server, registration.ca.as_ref())?;
    let prepared = registration.clone();
    let prepared = tokio::task::spawn_blocking(move || prepare(&folder, &prepared)).await;
    let (mut store, own) = prepared.map_err(|_| ProfileError::Closed)??;

    let info = http.server_info().await?;
    let trust_root = PublicKey::decode(&info.trust_root).map_err(|_| ServerError::Answer)?;
    if registration.trust_root.is_some_and(|expected| expected != trust_root) {
        return Err(RegisterError::WrongTrustRoot { server: registration.server });
    }
    let challenge = http.challenge().await?;
    let (keys, upload) = registration_keys(store.rows())?;
    let form = Form {
        challenge: challenge.challenge,
        identity_key: own.identity.identity_key().serialize().to_vec().into(),
        registration_id: own.registration_id,
        username: own.name.clone(),
        access_key: own.access_key.to_vec().into(),
        keys: Some(keys),
    };
    let mut signed = sign(&form, &own.identity);
    let (form, bits) = (signed.registration.clone(), challenge.work_bits);
    let time = Duration::from_secs(challenge.expires_in_secs);
    let solved = tokio::task::spawn_blocking(move || work::solve(&form, bits, time)).await;
    signed.work = solved.map_err(|_| ProfileError::Closed)??.into();
    let answer = http.register(&signed).await.map_err(|error| match error {
        ServerError::Conflict => {
            RegisterError::NameTaken { name: own.name.clone(), server: own.server.clone() }
        }
        ServerError::Refused { status: 400 } => {
            RegisterError::NameRefused { name: own.name.clone() }
        }
        ServerError::Refused { status: 403 } => {
            RegisterError::NotAdmitted { server: own.server.clone() }
        }
        other => other.into(),
    })?;
    let account = account(&answer, trust_root).ok_or(ServerError::Answer)?;
    store.commit(|rows| {
        rows.set_account(&account)?;
        upload.mark(rows)
    })?;
    if let Ok(answer) = http.report_tokens(&account).await {
        // The first message shall have one; without an answer it goes without.
        store.commit(|rows| rows.add_report_tokens(&answer.tokens, answer.expires_ms))?;
    }
    Ok((store, own, account))
}

/// Opens or makes the profile, with all keys saved.
fn prepare(
    folder: &std::path::Path,
    registration: &Registration,
) -> Result<(Store, Own), RegisterError> {
    let mut store = Store::open(folder, Profile::Create)?;
    let Registration { server, name, ca, .. } = registration;
    let ca = Ca::certificates(ca.as_ref());
    match store.rows().own()? {
        Some(Own { account: Some(_), name, .. }) => Err(RegisterError::AlreadyRegistered { name }),
        Some(begun) if begun.server != LINKING => {
            store.commit(|rows| {
                rows.rename_own(server, name)?;
                rows.set_ca(&ca)
            })?;
            Ok((store, Own { server: server.clone(), name: name.clone(), ..begun }))
        }
        Some(_) | None => {
            let mut rng = rand::rng();
            let own = draw(server, name, &mut rng);
            store.commit(|rows| {
                rows.forget_begun()?;
                rows.set_ca(&ca)?;
                new_profile(rows, &own, &Settings::default(), &mut rng, now())
            })?;
            Ok((store, own))
        }
    }
}

fn draw(server: &str, name: &str, mut rng: &mut impl CryptoRng) -> Own {
    let mut access_key = [0; 16];
    let identity = IdentityKeyPair::generate(&mut rng);
    rng.fill_bytes(&mut access_key);
    Own {
        server: server.trim_end_matches('/').to_owned(),
        name: name.to_owned(),
        identity,
        registration_id: draw_registration_id(rng),
        access_key,
        account: None,
    }
}

pub(crate) fn draw_registration_id(rng: &mut impl CryptoRng) -> u32 {
    1 + rng.next_u32() % REGISTRATION_IDS
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn sign(form: &Form, identity: &IdentityKeyPair) -> SignedRegistration {
    let registration = form.encode_to_vec();
    let signed = [SIGNED_PREFIX, &registration].concat();
    let signature = identity.private_key().sign(&signed, &mut rand::rng());
    SignedRegistration {
        registration: registration.into(),
        signature: signature.to_vec().into(),
        work: Bytes::new(),
    }
}

/// `None` when the answer cannot be.
pub(crate) fn account(answer: &Registered, trust_root: PublicKey) -> Option<Account> {
    let account = ServiceId::aci(answer.account[..].try_into().ok()?);
    let device = DeviceId::try_from(answer.device_id).ok()?;
    let token = Zeroizing::new(answer.token[..].try_into().ok()?);
    Some(Account { address: Address::new(account, device), token, trust_root })
}
