//! `group.*`: sender keys (W§12). Distribution messages travel through sessions; that is the caller's.

use super::{Answer, Request, Shim};
use crate::error::{Kind, Refusal};
use crate::party::Party;
use crate::request::{Hex, Remote, arguments, uuid};
use serde::Deserialize;
use serde_json::json;
use tuckseal::{Address, SenderKey, SenderKeyDistributionMessage, SenderKeyMessage};

#[derive(Deserialize)]
struct Distribute {
    party: String,
    distribution_id: String,
}

/// The key as it stands; a fresh one where the party has none of this distribution.
pub(super) fn distribute(shim: &mut Shim, request: Request) -> Answer {
    let it: Distribute = arguments(request)?;
    let id = uuid(&it.distribution_id)?;
    let Party { state, rng } = shim.party(&it.party)?;
    let key = state.own_keys.entry(id).or_insert_with(|| SenderKey::generate(id, rng));
    Ok(json!({"body": hex::encode(key.distribution_message().encode())}))
}

#[derive(Deserialize)]
struct Received {
    party: String,
    sender: Remote,
    body: Hex,
}

pub(super) fn process(shim: &mut Shim, request: Request) -> Answer {
    let it: Received = arguments(request)?;
    let sender = it.sender.address()?;
    let message = SenderKeyDistributionMessage::decode(&it.body.0)?;
    let keys = &mut shim.party(&it.party)?.state.sender_keys;
    keys.entry((sender, *message.distribution_id())).or_default().process(&message);
    Ok(json!({}))
}

#[derive(Deserialize)]
struct Encrypt {
    party: String,
    distribution_id: String,
    plaintext: Hex,
}

pub(super) fn encrypt(shim: &mut Shim, request: Request) -> Answer {
    let it: Encrypt = arguments(request)?;
    let id = uuid(&it.distribution_id)?;
    let Party { state, rng } = shim.party(&it.party)?;
    let none = || Refusal::new(Kind::NoSenderKey, "the party has no key of this distribution");
    let key = state.own_keys.get_mut(&id).ok_or_else(none)?;
    Ok(json!({"body": hex::encode(key.encrypt(&it.plaintext.0, rng)?)}))
}

pub(super) fn decrypt(shim: &mut Shim, request: Request) -> Answer {
    let it: Received = arguments(request)?;
    let sender = it.sender.address()?;
    let plaintext = read(shim.party(&it.party)?, sender, &it.body.0)?;
    Ok(json!({"plaintext": hex::encode(plaintext)}))
}

/// Decrypts a group message of this sender. A refusal changes nothing.
pub(super) fn read(party: &mut Party, sender: Address, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let message = SenderKeyMessage::decode(body)?;
    let none =
        || Refusal::new(Kind::NoSenderKey, "the sender's key of this distribution is missing");
    let record = party.state.sender_keys.get_mut(&(sender, *message.distribution_id()));
    Ok(record.ok_or_else(none)?.decrypt(&message)?)
}
