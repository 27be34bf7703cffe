//! Moving from libsignal: what it stored goes on here, and nobody has to begin anew (W§17).

use serde_json::Value;
use std::error::Error;
use tuckseal::*;

fn main() -> Result<(), Box<dyn Error>> {
    // What an app on libsignal has in its tables; here recorded from released builds.
    let stored = vectors("archived_session")?;
    let (me, peer) = (owner(&stored)?, address(&stored, "/remote")?);
    let (ours, trust) = (me.identity.identity_key(), Trust::FirstUse);

    // Each session record with the identity of its owner. The peer's identity is checked against the
    // trusted one; where the app has none, that of the record is to be stored.
    let imported = SessionRecord::import_libsignal(&bytes(&stored, "/record")?, &ours, trust)?;
    let mut record = imported.record;
    print("taken over", &record);
    println!("left out            {} sessions that were damaged", imported.damaged);
    println!("to save             the record, {} bytes", record.encode().len());
    println!("                    the peer's identity: {}", imported.remote_identity.is_some());

    // Messages that were on their way are read, those of archived sessions too, and once only.
    let mut rng = rand::rng();
    for (place, name) in
        [(1, "of an old session"), (0, "of the current one"), (0, "the same again")]
    {
        let message = SignalMessage::decode(&bytes(&stored, &format!("/steps/{place}/message"))?)?;
        match record.decrypt(&me, &peer, &message, trust, &mut rng) {
            Ok(read) => println!("{name:<19} {:?}", String::from_utf8(read.plaintext)?),
            Err(error) => println!("{name:<19} error: {error}"),
        }
    }
    let now = Timestamp::from_millis(1_700_000_000_000);
    let sent = record.encrypt(&me, &peer, b"And on.", trust, &mut rng, now)?;
    println!("and on              {:?}, {} bytes", sent.kind, sent.body.len());

    // A session stays what it was: this one came without the post-quantum ratchet and never gets it, a
    // newer one brings it along.
    let newer = vectors("simultaneous")?.pointer("/cases/1").cloned().unwrap_or_default();
    let ours = owner(&newer)?.identity.identity_key();
    let newer = SessionRecord::import_libsignal(&bytes(&newer, "/record")?, &ours, trust)?;
    print("a newer one", &newer.record);

    // To have it, begin anew: the archived session still reads what is on its way, and the next message
    // needs a bundle of the peer's (02).
    record.archive_current();
    let next = record.encrypt(&me, &peer, b"Hello?", trust, &mut rng, now);
    println!("begun anew          {}", next.err().map_or("no".into(), |why| why.to_string()));
    Ok(())
}

fn print(what: &str, record: &SessionRecord) {
    if let Some(info) = record.info() {
        let pq = if info.post_quantum_ratchet { "with" } else { "without" };
        let archived = record.archived_sessions();
        println!("{what:<19} {:?} {pq} post-quantum ratchet, {archived} archived", info.version);
    }
}

fn owner(stored: &Value) -> Result<LocalParty, Box<dyn Error>> {
    let identity = PrivateKey::from_bytes(&bytes(stored, "/owner_identity_private")?)?.into();
    Ok(LocalParty { identity, registration_id: 202, address: address(stored, "/owner")? })
}

fn address(stored: &Value, place: &str) -> Result<Address, Box<dyn Error>> {
    let device_id = part(stored, &format!("{place}/1"))?.as_u64().unwrap_or_default();
    let service_id: ServiceId = text(stored, &format!("{place}/0"))?.parse()?;
    Ok(Address::new(service_id, DeviceId::try_from(u32::try_from(device_id)?)?))
}

fn bytes(stored: &Value, place: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(hex::decode(text(stored, place)?)?)
}

fn text<'a>(stored: &'a Value, place: &str) -> Result<&'a str, Box<dyn Error>> {
    Ok(part(stored, place)?.as_str().unwrap_or_default())
}

fn part<'a>(stored: &'a Value, place: &str) -> Result<&'a Value, Box<dyn Error>> {
    stored.pointer(place).ok_or_else(|| format!("the file lacks {place}").into())
}

fn vectors(name: &str) -> Result<Value, Box<dyn Error>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/test-vectors/libsignal");
    Ok(serde_json::from_slice(&std::fs::read(format!("{folder}/{name}.json"))?)?)
}
