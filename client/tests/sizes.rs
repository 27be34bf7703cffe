//! What the relay holds of a client's traffic has a few sizes, which say little of what it is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt;
use prost::Message;
use stage::{Person, Relay, collect, database, relay_database, until};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tuckseal::content::Typing;
use tuckseal::service::{ServerFrame, server_frame};
use tuckseal::{ENVELOPE_SIZES, unpad_envelope};

/// The envelopes that nobody has fetched, as they are stored, the oldest first.
fn stored(relay: &Relay) -> Vec<Vec<u8>> {
    let database = relay_database(relay);
    let sql = "SELECT envelope.body, payload.body FROM envelope
        LEFT JOIN payload ON payload.id = envelope.payload ORDER BY envelope.id";
    let mut query = database.prepare(sql).unwrap();
    let whole = |row: &rusqlite::Row<'_>| {
        let (own, shared): (Vec<u8>, Option<Vec<u8>>) = (row.get(0)?, row.get(1)?);
        Ok([own, shared.unwrap_or_default()].concat())
    };
    query.query_map((), whole).unwrap().map(Result::unwrap).collect()
}

fn sizes(envelopes: &[Vec<u8>]) -> Vec<usize> {
    envelopes.iter().map(Vec::len).collect()
}

/// What the relay hands to Bob's device, without keeping it, when Alice tells that she is writing.
async fn typing(relay: &Relay, alice: &Person, bob: &Person) -> Vec<u8> {
    let sql = "SELECT account, device, token FROM profile";
    let (account, device, token): ([u8; 16], u8, [u8; 32]) = database(bob.folder.path())
        .query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap();
    let token = URL_SAFE_NO_PAD.encode([&account[..], &[device], &token].concat());
    let url = format!("{}/v1/stream", relay.url.replacen("http", "ws", 1));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let (mut stream, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    let handed_over = async {
        loop {
            let Frame::Binary(frame) = stream.next().await.unwrap().unwrap() else { continue };
            match ServerFrame::decode(frame).unwrap().body.unwrap() {
                server_frame::Body::QueueEmpty(_) => {
                    let started = Typing::Started { group: None };
                    alice.client.typing(bob.client.account(), started).await.unwrap();
                }
                server_frame::Body::Ephemeral(ephemeral) => return ephemeral.content.to_vec(),
                _ => {}
            }
        }
    };
    tokio::time::timeout(stage::TIME, handed_over).await.expect("nothing was handed over")
}

/// A real conversation, of which the relay keeps what is for those who are away.
#[tokio::test(flavor = "multi_thread")]
async fn all_that_a_client_sends_is_of_a_size_and_a_short_text_looks_like_a_receipt_and_like_typing()
 {
    let relay = Relay::start().await;
    let [alice, bob, carol] = [
        Person::register(&relay, "alice").await,
        Person::register(&relay, "bob").await,
        Person::register(&relay, "carol").await,
    ];
    let running = alice.spawn();
    alice.send(&bob, "!").await;
    alice.sent().await;
    assert_eq!(sizes(&stored(&relay)), [4096], "a first message with its prekey part");
    let bobs = bob.spawn();
    collect(&bob, 1).await;
    running.stop().await;
    bob.send(&alice, "hello").await;
    bob.sent().await;
    bobs.stop().await;

    // Alice reads it, which Bob is told, and goes on while he is away.
    let running = alice.spawn();
    collect(&alice, 1).await;
    alice.sent().await;
    until(|| relay.rows("envelope") == 1).await;
    let typing = typing(&relay, &alice, &bob).await;
    let texts = [1, 200, 900, 64 * 1024].map(|len| "x".repeat(len));
    for text in &texts {
        alice.send(&bob, text).await;
    }
    alice.sent().await;
    let envelopes = stored(&relay);
    assert_eq!(sizes(&envelopes), [1024, 1024, 1024, 4096, 98_304]);
    assert_eq!(typing.len(), 1024);
    // A receipt, two texts and typing, the padding off: the ratchets make some difference, what they say none.
    let short = envelopes[..3].iter().chain([&typing]);
    let mut within: Vec<usize> =
        short.map(|envelope| unpad_envelope(envelope).unwrap().len()).collect();
    within.sort_unstable();
    assert!(within[3] - within[0] < 50, "{within:?}");

    let others = [&bob, &carol].map(|person| person.client.account());
    let group = alice.client.create_group("three", &others).await.unwrap();
    alice.client.send_to_group(group, "x").await.unwrap();
    alice.client.send_to_group(group, &"y".repeat(900)).await.unwrap();
    alice.sent().await;
    let to_group = stored(&relay).split_off(envelopes.len());
    assert!(to_group.len() >= 6, "two are told of the group, and get two messages each");
    let to_group = sizes(&to_group);
    assert!(to_group.iter().all(|size| ENVELOPE_SIZES.contains(size)), "{to_group:?}");
    assert_eq!(relay.rows("payload"), 1, "the longer one is stored once");
    running.stop().await;

    let _running = [bob.spawn(), carol.spawn()];
    let mut of_bob = collect(&bob, 6).await;
    assert_eq!(of_bob.split_off(4), ["x".to_owned(), "y".repeat(900)]);
    assert!(of_bob == texts);
    assert_eq!(collect(&carol, 2).await, ["x".to_owned(), "y".repeat(900)]);
}
