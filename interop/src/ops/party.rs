//! `party.*`: making, storing and publishing a device. What it keeps is in `party/`.

use super::{Answer, Request, Shim};
use crate::error::Refusal;
use crate::party::{KemUse, OneTime, Party, State, generator};
use crate::request::{Bundle, Hex, Now, Remote, arguments};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{IdentityKey, IdentityKeyPair, LocalParty, PrivateKey, Timestamp};

#[derive(Deserialize)]
struct New {
    party: String,
    service_id: String,
    device_id: u32,
    registration_id: u32,
    identity_private: Option<Hex>,
    seed: Option<Hex>,
}

pub(super) fn new(shim: &mut Shim, request: Request) -> Answer {
    let it: New = arguments(request)?;
    let address = Remote { service_id: it.service_id, device_id: it.device_id }.address()?;
    let mut rng = generator(seed(it.seed)?);
    let identity = match it.identity_private {
        Some(private) => PrivateKey::from_bytes(&private.0)?.into(),
        None => IdentityKeyPair::generate(&mut rng),
    };
    let public = hex::encode(identity.identity_key().serialize());
    let local = LocalParty { identity, registration_id: it.registration_id, address };
    shim.parties.insert(it.party, Party { state: State::new(local), rng });
    Ok(json!({"identity_public": public}))
}

fn seed(seed: Option<Hex>) -> Result<Option<[u8; 32]>, Refusal> {
    seed.map(|seed| seed.exact("seed")).transpose()
}

#[derive(Deserialize)]
struct Named {
    party: String,
}

pub(super) fn dump(shim: &mut Shim, request: Request) -> Answer {
    let it: Named = arguments(request)?;
    let state = shim.party(&it.party)?.state.encode()?;
    Ok(json!({"state": hex::encode(state)}))
}

#[derive(Deserialize)]
struct Load {
    party: String,
    state: Hex,
    seed: Option<Hex>,
}

pub(super) fn load(shim: &mut Shim, request: Request) -> Answer {
    let it: Load = arguments(request)?;
    let state = State::decode(&it.state.0)?;
    let seed = seed(it.seed)?;
    let running = shim.parties.remove(&it.party).filter(|_| seed.is_none());
    let rng = running.map_or_else(|| generator(seed), |party| party.rng);
    shim.parties.insert(it.party, Party { state, rng });
    Ok(json!({}))
}

#[derive(Deserialize)]
struct MakeBundle {
    party: String,
    one_time: bool,
    kem: Kem,
    now: Now,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kem {
    OneTime,
    LastResort,
    None,
}

pub(super) fn bundle(shim: &mut Shim, request: Request) -> Answer {
    let it: MakeBundle = arguments(request)?;
    let one_time = if it.one_time { OneTime::Give } else { OneTime::Omit };
    let kem = match it.kem {
        Kem::OneTime => Some(KemUse::OneTime),
        Kem::LastResort => Some(KemUse::LastResort),
        Kem::None => None,
    };
    // No clock enters the state: without a time given, the prekeys have none.
    let created = Timestamp::from_millis(it.now.unwrap_or(0));
    let party = shim.party(&it.party)?;
    let bundle = party.state.bundle(one_time, kem, created, &mut party.rng)?;
    serde_json::to_value(Bundle::from(&bundle)).map_err(Refusal::bad_request)
}

#[derive(Deserialize)]
struct Accept {
    party: String,
    remote: Remote,
    identity_key: Hex,
}

pub(super) fn accept_identity(shim: &mut Shim, request: Request) -> Answer {
    let it: Accept = arguments(request)?;
    let (remote, identity) = (it.remote.address()?, IdentityKey::decode(&it.identity_key.0)?);
    shim.party(&it.party)?.state.accept(remote, identity);
    Ok(json!({}))
}
