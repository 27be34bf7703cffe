//! Replays the data of `test-vectors/spqr/`, byte for byte. What each file holds and where it comes
//! from stands in the README there. These tests are inside the crate since SPQR is not public.

use super::authenticator::{Authenticator, EpochSecret};
use super::braid::Braid;
use super::chain::{Chain, ChainLimits, Direction};
use super::erasure::{Chunk, Decoder, Encoder, Gathered, rows};
use super::mlkem::{self, IncrementalKem, MlKem768};
use super::{Change, MinVersion, Spqr, SpqrError, gf};
use crate::crypto::kdf::HmacSha256;
use crate::crypto::secret::Secret;
use crate::keys::{ChainKey, PqMessageKey};
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use prost::Message as _;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// Makes of each line a test that replays a file, and a row of the table that
/// `every_vector_file_is_replayed` compares with the folder.
macro_rules! replays {
    ($($test:ident: $file:literal by $replay:expr),* $(,)?) => {
        const REPLAYED: &[&str] = &[$($file),*];

        $(#[test]
        fn $test() {
            $replay(&load($file));
        })*
    };
}

replays! {
    components: "components.json" by components_replay,
    gaps: "gaps.json" by transcripts,
    import: "import.json" by transcripts,
    limits: "limits.json" by transcripts,
    lockstep: "lockstep.json" by transcripts,
    lossy: "lossy.json" by transcripts,
    mixing: "mixing.json" by mixing_replay,
    negotiation: "negotiation.json" by transcripts,
    rejections: "rejections.json" by transcripts,
    small_limits: "small-limits.json" by transcripts,
    states: "states.json" by states_replay,
}

#[test]
fn every_vector_file_is_replayed() {
    let there: BTreeSet<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    assert_eq!(there, REPLAYED.iter().map(ToString::to_string).collect());
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test-vectors/spqr")
}

fn load(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder().join(file)).expect(file)).expect(file)
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("a hex string")).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

fn secret<const N: usize>(value: &Value) -> Secret<N> {
    Secret::new(array(value))
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

/// Gives bytes in order, and must be empty in the end.
struct Scripted(Vec<u8>);

impl TryRng for Scripted {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("whole arrays are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("whole arrays are drawn")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.copy_from_slice(&self.0.drain(..out.len()).collect::<Vec<_>>());
        Ok(())
    }
}

impl TryCryptoRng for Scripted {}

/// One party of a transcript, or the reason why its state could not be imported.
struct Party {
    name: &'static str,
    state: Result<Spqr, SpqrError>,
    draws: u32,
}

fn transcripts(file: &Value) {
    match &file["cases"] {
        Value::Null => transcript(file, &[]),
        cases => {
            let cases = cases.as_array().unwrap();
            for case in cases {
                transcript(case, cases);
            }
        }
    }
}

fn transcript(case: &Value, cases: &[Value]) {
    let mut parties =
        ["A", "B"].map(|name| Party { name, state: begin(case, cases, name), draws: 0 });
    let steps = case["steps"].as_array().unwrap();
    if parties.iter().any(|party| matches!(party.state, Err(SpqrError::ChainNotAvailable))) {
        // No chain and no way to one: refused when loaded, where the original refuses when it needs
        // the chain (S§10.3 allows it). It does need it in these cases.
        assert!(steps.iter().any(|step| step["error"] == "chain not available"));
        return;
    }
    for (n, step) in steps.iter().enumerate() {
        let at = alloc::format!("{} step {n}", case["description"]);
        let by = usize::from(step["by"] == "B");
        match step["op"].as_str().unwrap() {
            "rounds" => rounds(&mut parties, step, &case["rng_seed"], &at),
            "sends" => sends(&mut parties[by], step, &case["rng_seed"], &at),
            "send" => send(&mut parties[by], step, &at),
            "recv" => recv(&mut parties[by], step, steps, &at),
            other => panic!("{other}"),
        }
    }
}

fn begin(case: &Value, cases: &[Value], name: &str) -> Result<Spqr, SpqrError> {
    let party = &case[name];
    if party.is_null() {
        return Ok(Spqr::Off);
    }
    if let Some(state) = stored_state(party, cases, name) {
        return Spqr::import(&state);
    }
    if party["version"] == 0 {
        return Ok(Spqr::Off);
    }
    let direction = direction(&party["direction"]);
    let min = if party["min_version"] == 0 { MinVersion::V0 } else { MinVersion::V1 };
    let limits = ChainLimits {
        max_jump: number(&party["max_jump"]),
        max_ooo: number(&party["max_ooo_keys"]),
    };
    Ok(Spqr::seeded(direction, min, &bytes(&case["auth_key"]), limits))
}

fn direction(value: &Value) -> Direction {
    if value == "A2B" { Direction::A2B } else { Direction::B2A }
}

fn stored_state(party: &Value, cases: &[Value], name: &str) -> Option<Vec<u8>> {
    let mut state = match (&party["state"], &party["state_of"]) {
        (Value::Null, Value::Null) => return None,
        (Value::Null, Value::String(case)) => {
            let states = load("states.json");
            let mut all = states["states"].as_array().unwrap().iter();
            bytes(&all.find(|state| state["case"] == case.as_str()).unwrap()["state"])
        }
        (Value::Null, number) => bytes(&cases[number.as_u64().unwrap() as usize][name]["state"]),
        (state, _) => bytes(state),
    };
    for edit in party["edits"].as_array().into_iter().flatten().rev() {
        let (at, removed) = (number(&edit[0]) as usize, number(&edit[1]) as usize);
        state.splice(at..at + removed, bytes(&edit[2]));
    }
    if let Some(swap) = party["swap"].as_array() {
        let (at, len) = (number(&swap[0]) as usize, number(&swap[1]) as usize);
        state[at..at + len].chunks_exact_mut(2).for_each(|pair| pair.reverse());
    }
    Some(state)
}

impl Party {
    /// What this party holds encoded, decoded again and compared: every state of every transcript
    /// goes through our stored form.
    fn reloaded(&self) -> Result<Spqr, SpqrError> {
        let encoded = self.state.as_ref().map_err(|error| *error)?.encode();
        let state = Spqr::decode(&encoded).unwrap();
        assert_eq!(state.encode(), encoded);
        Ok(state)
    }

    /// One send with scripted or seeded randomness; committed.
    fn send_seeded(&mut self, seed: &Value) -> (Vec<u8>, Option<PqMessageKey>) {
        let state = self.state.as_mut().unwrap();
        let drawn = match state {
            Spqr::On(v1) => drawn_in(&v1.braid),
            Spqr::Off => 0,
        };
        let mut random = Vec::new();
        if drawn > 0 {
            let input = [&bytes(seed), self.name.as_bytes(), &self.draws.to_be_bytes()].concat();
            self.draws += 1;
            random = libcrux_sha3::shake256::<64>(&input)[..drawn].to_vec();
        }
        let mut random = Scripted(random);
        let step = state.send(&mut random).unwrap();
        assert!(random.0.is_empty());
        state.commit(step.change);
        (step.message, step.key)
    }
}

fn drawn_in(braid: &Braid) -> usize {
    match braid.phase_name() {
        "K0" => 64,
        "C1" => 32,
        _ => 0,
    }
}

fn hash(digest: &mut Sha256, message: &[u8], key: Option<&PqMessageKey>) {
    digest.update(message);
    if let Some(key) = key {
        digest.update(key.as_bytes());
    }
}

fn rounds(parties: &mut [Party; 2], step: &Value, seed: &Value, at: &str) {
    let mut digest = Sha256::new();
    for _ in 0..number(&step["count"]) {
        for name in step["order"].as_str().unwrap().chars() {
            let by = usize::from(name == 'B');
            let (message, key) = parties[by].send_seeded(seed);
            hash(&mut digest, &message, key.as_ref());
            let receiver = parties[1 - by].state.as_mut().unwrap();
            let received = receiver.recv(&message).expect(at);
            let same = |a: &PqMessageKey, b: &PqMessageKey| a.as_bytes() == b.as_bytes();
            assert!(
                key.as_ref().zip(received.key.as_ref()).is_none_or(|(a, b)| same(a, b)),
                "{at}"
            );
            receiver.commit(received.change);
        }
    }
    assert_eq!(digest.finalize().as_slice(), bytes(&step["digest"]), "{at}");
    let names: Vec<_> =
        parties.iter().map(|party| name_of(party.state.as_ref().unwrap())).collect();
    assert_eq!(names.join(" "), step["states"].as_str().unwrap(), "{at}");
}

fn sends(party: &mut Party, step: &Value, seed: &Value, at: &str) {
    let mut digest = Sha256::new();
    for _ in 0..number(&step["count"]) {
        let (message, key) = party.send_seeded(seed);
        hash(&mut digest, &message, key.as_ref());
    }
    assert_eq!(digest.finalize().as_slice(), bytes(&step["digest"]), "{at}");
    assert_eq!(name_of(party.state.as_ref().unwrap()), step["state"], "{at}");
}

fn send(party: &mut Party, step: &Value, at: &str) {
    if let Some(error) = step["error"].as_str() {
        let outcome =
            party.reloaded().and_then(|state| state.send(&mut Scripted(alloc::vec![7; 64])));
        assert_eq!(outcome.err().map(spelled).unwrap_or_default(), error, "{at}");
        return;
    }
    let state = party.reloaded().expect(at);
    let mut random = Scripted(bytes(&step["rng"]));
    party.draws += u32::from(!random.0.is_empty());
    let before = state.encode();
    let sent = state.send(&mut random).expect(at);
    assert!(random.0.is_empty(), "{at}");
    assert_eq!(state.encode(), before, "{at}");
    assert_eq!(hex::encode(&sent.message), step["msg"], "{at}");
    check_key(sent.key.as_ref(), &step["key"], at);
    finish(party, state, sent.change, step, at);
}

fn recv(party: &mut Party, step: &Value, steps: &[Value], at: &str) {
    let message = match step["of"].as_u64() {
        Some(of) => bytes(&steps[of as usize]["msg"]),
        None => bytes(&step["msg"]),
    };
    if let Some(error) = step["error"].as_str() {
        let outcome = party.reloaded().and_then(|state| {
            let before = state.encode();
            let outcome = state.recv_lenient(&message);
            assert_eq!(state.encode(), before, "{at}");
            outcome
        });
        assert_eq!(outcome.err().map(spelled).unwrap_or_default(), error, "{at}");
        return;
    }
    let state = party.reloaded().expect(at);
    let received = state.recv_lenient(&message).expect(at);
    check_key(received.key.as_ref(), &step["key"], at);
    finish(party, state, received.change, step, at);
}

fn finish(party: &mut Party, mut state: Spqr, change: Change, step: &Value, at: &str) {
    state.commit(change);
    assert_eq!(name_of(&state), step["state"], "{at}");
    if let (Some(stored), Spqr::On(v1)) = (step["stored"].as_u64(), &state) {
        assert_eq!(v1.chain.as_ref().map_or(0, Chain::stored) as u64, stored, "{at}");
    }
    if step["commit"] != false {
        party.state = Ok(state);
    }
}

fn check_key(key: Option<&PqMessageKey>, expected: &Value, at: &str) {
    assert_eq!(key.map(|key| hex::encode(key.as_bytes())).as_deref(), expected.as_str(), "{at}");
}

fn name_of(state: &Spqr) -> &'static str {
    match state {
        Spqr::Off => "V0",
        Spqr::On(v1) => v1.braid.phase_name(),
    }
}

/// The names of S§11.
fn spelled(error: SpqrError) -> &'static str {
    match error {
        SpqrError::StateDecode => "state decode",
        SpqrError::ChainNotAvailable => "chain not available",
        SpqrError::MessageDecode => "message decode",
        SpqrError::VersionMismatch => "version mismatch",
        SpqrError::MinimumVersion => "minimum version",
        SpqrError::EpochOutOfRange => "epoch out of range",
        SpqrError::MacVerify => "mac verify",
        SpqrError::ErroneousData => "erroneous data",
        SpqrError::KeyJump { .. } => "key jump",
        SpqrError::KeyTrimmed { .. } => "key trimmed",
        SpqrError::KeyAlreadyRequested { .. } => "key already requested",
        SpqrError::SendKeyEpochDecreased => "send key epoch decreased",
        SpqrError::ChainExhausted => "chain exhausted",
    }
}

fn states_replay(file: &Value) {
    let mut seen = BTreeSet::new();
    for case in file["states"].as_array().unwrap() {
        let name = case["case"].as_str().unwrap();
        let state = Spqr::import(&bytes(&case["state"])).expect(name);
        assert_eq!(name_of(&state), name);
        let Spqr::On(v1) = &state else { panic!("{name}") };
        assert_eq!(v1.chain.as_ref().unwrap().direction, direction(&case["direction"]));
        seen.insert(name);
        let mut party = Party { name: "A", state: Ok(state.clone()), draws: 0 };
        send_without_state(&mut party, &case["next_send"], name);
        if case["then_recv"].is_object() {
            let mut state = state;
            let received = state.recv(&bytes(&case["then_recv"]["msg"])).unwrap();
            check_key(received.key.as_ref(), &case["then_recv"]["key"], name);
            state.commit(received.change);
            for message in case["then_sends"].as_array().unwrap() {
                let sent = state.send(&mut Scripted(Vec::new())).unwrap();
                assert_eq!(hex::encode(&sent.message), *message);
                state.commit(sent.change);
            }
        }
    }
    assert_eq!(seen.len(), 11);
}

fn send_without_state(party: &mut Party, step: &Value, at: &str) {
    let mut random = Scripted(bytes(&step["rng"]));
    let sent = party.reloaded().unwrap().send(&mut random).unwrap();
    assert!(random.0.is_empty(), "{at}");
    assert_eq!(hex::encode(&sent.message), step["msg"], "{at}");
    check_key(sent.key.as_ref(), &step["key"], at);
}

fn components_replay(file: &Value) {
    for triple in file["gf65536_mul"].as_array().unwrap() {
        let [a, b, product] = [0, 1, 2].map(|n| number(&triple[n]) as u16);
        assert_eq!(gf::mul(a, b), product);
    }
    kem(&file["kem"]);
    for case in file["erasure"].as_array().unwrap() {
        match bytes(&case["message"]).len() / 32 {
            3 => erasure::<3>(case),
            5 => erasure::<5>(case),
            30 => erasure::<30>(case),
            36 => erasure::<36>(case),
            other => panic!("{other} chunks"),
        }
    }
    let ss = secret::<32>(&file["kem"]["ss"]);
    let secret = authenticator(&file["authenticator"], &file["kem"], &ss);
    chain(&file["chain"], &secret);
}

fn kem(case: &Value) {
    let dk = MlKem768::generate(&secret(&case["d_z"]));
    assert_eq!(hex::encode(dk.as_bytes()), case["dk"]);
    assert_eq!(hex::encode(mlkem::header(&dk)), case["header"]);
    assert_eq!(hex::encode(mlkem::ek(&dk)), case["ek_vector"]);
    let (header, ek, m) = (mlkem::header(&dk), mlkem::ek(&dk), secret(&case["m"]));
    let (ct1, ss) = MlKem768::encaps1(header, &m);
    assert_eq!(hex::encode(ct1), case["ct1"]);
    assert_eq!(hex::encode(ss.as_bytes()), case["ss"]);
    assert!(MlKem768::check(header, ek).is_ok());
    let ct2 = MlKem768::encaps2(header, &m, ek);
    assert_eq!(hex::encode(ct2), case["ct2"]);
    assert_eq!(MlKem768::decaps(&dk, &ct1, &ct2).as_bytes(), ss.as_bytes());
    let state = secret(&case["stored_encaps_state"]);
    assert_eq!(mlkem::encaps2_from_state(&state, ek), ct2);
}

fn erasure<const N: usize>(case: &Value) {
    let message = bytes(&case["message"]);
    let whole = rows::<N>(&[&message]);
    let chunks: Vec<Chunk> = case["chunks"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(index, data)| Chunk { index: index.parse().unwrap(), data: array(data) })
        .collect();
    for chunk in &chunks {
        assert_eq!(Encoder::resumed(whole.clone(), chunk.index.into()).chunk(), *chunk);
    }
    let mut decoder = Decoder::<N>::new();
    let others = (2000..).map(|index| Encoder::resumed(whole.clone(), index).chunk());
    for chunk in chunks.into_iter().chain(others).take(N) {
        if let Gathered::Done(rebuilt) = decoder.gather(&chunk) {
            assert_eq!(rebuilt.as_flattened(), message);
            return;
        }
        decoder.hold(chunk);
    }
    panic!("never complete");
}

fn authenticator(case: &Value, kem: &Value, ss: &Secret<32>) -> EpochSecret {
    let check = |auth: &Authenticator, pair: &Value| {
        assert_eq!(hex::encode(auth.root.as_bytes()), pair[0]);
        assert_eq!(hex::encode(auth.mac_key.as_bytes()), pair[1]);
    };
    let auth = Authenticator::new(&bytes(&case["auth_key"]));
    check(&auth, &case["after_init"]);
    let mac = auth.header_mac(1, &array(&kem["header"]));
    assert_eq!(hex::encode(mac), case["header_mac_epoch1"]);
    let secret = EpochSecret::derive(1, ss);
    assert_eq!(hex::encode(secret.secret.as_bytes()), case["epoch_key_1"]);
    let auth = auth.updated(1, secret.secret.as_bytes());
    check(&auth, &case["after_update_1"]);
    let mac = auth.ciphertext_mac(1, &bytes(&kem["ct1"]), &bytes(&kem["ct2"]));
    assert_eq!(hex::encode(mac), case["ciphertext_mac_epoch1"]);
    secret
}

fn chain(case: &Value, secret: &EpochSecret) {
    let mut chain = Chain::start(&bytes(&case["auth_key"]), Direction::A2B, ChainLimits::DEFAULT);
    let side = |chain: &Chain, expected: &Value| {
        let link = chain.links.last().unwrap();
        assert_eq!(hex::encode(chain.next_root.as_bytes()), expected["next_root"]);
        assert_eq!(hex::encode(link.send.key().unwrap().as_bytes()), expected["a2b"]);
        assert_eq!(hex::encode(link.recv.key.as_bytes()), expected["b2a"]);
    };
    side(&chain, &case["start"]);
    for expected in case["a2b_epoch0_keys"].as_array().unwrap() {
        let (_, key, change) = chain.plan_send(0).unwrap();
        check_key(Some(&key), expected, "chain");
        chain.commit(change);
    }
    let (key, change) = chain.plan_recv(0, 5).unwrap();
    check_key(Some(&key), &case["b2a_epoch0_key_5"], "chain");
    chain.commit(change);
    let new = chain.plan_epoch(secret).unwrap();
    chain.append(&new);
    side(&chain, &case["after_add_epoch_1"]);
    let (_, key, change) = chain.plan_send(1).unwrap();
    check_key(Some(&key), &case["a2b_epoch1_key_1"], "chain");
    chain.commit(change);
    assert!(chain.links[0].send.key().is_none(), "the old sending key is erased");
}

fn mixing_replay(file: &Value) {
    for case in file["cases"].as_array().unwrap() {
        let (seed, _) = ChainKey::new(secret(&case["sender_chain_key"])).kdf_ck();
        let pq = PqMessageKey::new(secret(&case["spqr_key"]));
        let keys = seed.message_keys(Some(&pq));
        let okm = [&keys.cipher.as_bytes()[..], keys.mac.as_bytes(), keys.iv.as_bytes()].concat();
        assert_eq!(hex::encode(okm), case["expanded_keys_80"]);
        let message = bytes(&case["signal_message"]);
        let (signed, mac) = message.split_last_chunk::<8>().unwrap();
        let hmac = HmacSha256::new(keys.mac.as_bytes())
            .chain(&bytes(&case["sender_identity"]))
            .chain(&bytes(&case["receiver_identity"]));
        assert!(hmac.chain(signed).verify_truncated(mac));
        let inner = crate::wire::message::SignalMessage::decode(&signed[1..]).unwrap();
        assert_eq!(inner.pq_ratchet.unwrap(), bytes(&case["spqr_message"]));
    }
}

#[test]
fn imported_states_are_the_same_state_when_encoded() {
    let file = load("states.json");
    let sizes = file["states"].as_array().unwrap().iter().map(|case| {
        let state = Spqr::import(&bytes(&case["state"])).unwrap();
        let again = Spqr::decode(&state.encode()).unwrap();
        assert_eq!(again.encode(), state.encode());
        state.encode().len()
    });
    assert!(sizes.max().unwrap() <= 5 * 1024);
}
