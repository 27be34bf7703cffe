//! What is on its way to a device: no more than it acknowledges.

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message as Frame;
use tuckseal::service::server_frame;

use crate::world::{Stream, World, texts};

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_the_window_is_sent_until_something_is_acknowledged() {
    let world = World::with(|limits| limits.window_messages = 10).await;
    let bob = world.party("bob").await;
    for n in 0..25 {
        bob.receive_text(&n.to_string()).await;
    }
    let mut stream = bob.stream().await;
    let mut got = Vec::new();
    for _ in 0..10 {
        got.push(stream.envelope().await);
    }
    // The answer to a ping shows that the server had its turn and sent nothing more.
    stream.socket.send(Frame::Ping(Bytes::from_static(b"turn"))).await.unwrap();
    loop {
        match stream.raw().await.unwrap().unwrap() {
            Frame::Pong(payload) if payload == "turn" => break,
            Frame::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
    stream.ack(&got[..4]).await;
    for _ in 0..4 {
        got.push(stream.envelope().await);
    }
    stream.ack(&got[4..]).await;
    while got.len() < 25 {
        let envelope = stream.envelope().await;
        stream.ack(std::slice::from_ref(&envelope)).await;
        got.push(envelope);
    }
    let expected: Vec<String> = (0..25).map(|n| n.to_string()).collect();
    assert_eq!(texts(&got), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn device_that_is_lost_at_the_same_envelope_again_and_again_gets_it_alone() {
    let world = World::with(|limits| limits.delivery_loop_times = 3).await;
    let bob = world.party("bob").await;
    for n in 0..10 {
        bob.receive_text(&n.to_string()).await;
    }
    let delivered = async |stream: &mut Stream| match stream.next().await {
        server_frame::Body::Delivery(delivery) => delivery.envelopes,
        other => panic!("{other:?}"),
    };
    for _ in 0..3 {
        let mut stream = bob.stream().await;
        assert_eq!(delivered(&mut stream).await.len(), 10);
        // It has crashed, perhaps.
        stream.leave().await;
    }
    let mut stream = bob.stream().await;
    let first = delivered(&mut stream).await;
    assert_eq!(texts(&first), ["0"]);
    stream.ack(&first).await;
    // What it survives brings the rest.
    let rest = delivered(&mut stream).await;
    assert_eq!(rest.len(), 9);
    stream.ack(&rest).await;
    stream.leave().await;
    bob.receive_text("10").await;
    bob.receive_text("11").await;
    assert_eq!(texts(&bob.stream().await.backlog().await), ["10", "11"]);
}
