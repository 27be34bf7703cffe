//! A device that is away is woken, fetches, and goes again: with a real server and a push service of other people's
//! code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "stage/endpoint.rs"]
mod endpoint;
#[path = "../examples/woken_by_push.rs"]
mod example;
mod stage;

use std::time::{Duration, Instant};

use endpoint::Endpoint;
use stage::{Person, Relay, TIME, event};
use tuckseal_client::{
    Event, PushError, PushService, PushTarget, RunError, ServerError, WakeEnd, WebSubscription,
};
use tuckseal_server::Config;

fn private_endpoints(config: &mut Config) {
    config.push.push_private_endpoints = true;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TIME, waited).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_away_is_woken_fetches_everything_and_leaves_nothing_at_the_relay() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let relay = Relay::start_with(private_endpoints).await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    bob.client.register_push(endpoint.subscription()).await.unwrap();
    let bob = bob.reopen().await;

    let running = alice.spawn();
    let texts = ["one", "two", "three"];
    for text in texts {
        alice.send(&bob, text).await;
    }
    alice.sent().await;
    let request = endpoint.request().await;
    assert_eq!((&request["body"], &request["verified"]), (&"wake".into(), &true.into()));

    let woken = bob.client.wake(TIME).await.unwrap();
    assert_eq!(woken.end, WakeEnd::Emptied);
    let came: Vec<_> = woken.messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!(came, texts);
    // Not even an acknowledgement is left for later: the server would wake the device for it.
    let of_bob = || relay.rows("envelope WHERE mailbox IN (SELECT device FROM push)");
    until("envelopes of Bob stay at the relay", || of_bob() == 0).await;
    assert_eq!(bob.client.outbox_len().await.unwrap(), 0, "the receipts have left");
    // What a wake-up has shown stands in the inbox, and is not shown by the next.
    assert_eq!(bob.client.inbox().await.unwrap(), woken.messages);
    let again = bob.client.wake(TIME).await.unwrap();
    assert_eq!((again.messages.len(), again.end), (0, WakeEnd::Emptied));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_woken_by_the_server_and_by_nobody_else() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let relay = Relay::start_with(private_endpoints).await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let (to, folder) = (bob.client.account(), bob.folder);
    drop(bob.client);
    example::new_endpoint(folder.path(), &endpoint.url).await.unwrap();
    let running = alice.spawn();
    alice.client.send(to, "good morning").await.unwrap();
    let body = hex::decode(endpoint.request().await["raw"].as_str().unwrap()).unwrap();
    Person::close(&folder).await;
    assert!(example::message(folder.path(), b"wake").await.unwrap().is_empty());
    Person::close(&folder).await;
    assert_eq!(example::message(folder.path(), &body).await.unwrap(), ["good morning"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_when_all_has_come_leaves_nothing_unacknowledged() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let running = alice.spawn();
    for round in 0..8 {
        alice.send(&bob, &round.to_string()).await;
        alice.sent().await;
        let mut events = bob.client.events();
        let all_has_come = async {
            event(&mut events, |event| matches!(event, Event::QueueEmpty).then_some(())).await;
        };
        bob.client.run(all_has_come).await.unwrap();
    }
    running.stop().await;
    // Of Alice there may be a receipt that came when she was gone. Bob's device is the later one.
    let of_bob = || relay.rows("envelope WHERE mailbox = (SELECT max(id) FROM device)");
    until("it was not acknowledged", || of_bob() == 0).await;
    assert_eq!(bob.client.inbox().await.unwrap().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_told_to_the_server_again_at_every_start_and_when_it_is_back() {
    let mut relay = Relay::start_with(private_endpoints).await;
    let bob = Person::register(&relay, "bob").await;
    assert_eq!(bob.client.push_target().await.unwrap(), None);
    let target = PushTarget::Web(WebSubscription {
        endpoint: "https://push.example/1".into(),
        p256dh: bob.client.push_offer().await.unwrap().vapid_key,
        auth: [7; 16],
    });

    relay.stop().await;
    let error = bob.client.register_push(target.clone()).await.unwrap_err();
    assert!(matches!(error, PushError::NotYet { cause: ServerError::Unreachable { .. } }));
    let bob = bob.reopen().await;
    assert_eq!(bob.client.push_target().await.unwrap(), Some(target));
    let running = bob.spawn();
    relay.start_again().await;
    until("it was not told", || relay.rows("push") == 1).await;
    running.stop().await;

    // As when the push service once called it gone.
    let forget = || {
        let database = rusqlite::Connection::open(relay.folder.path().join("tuckseal.db")).unwrap();
        database.execute("DELETE FROM push", ()).unwrap();
    };
    forget();
    let bob = bob.reopen().await;
    let running = bob.spawn();
    until("it was not told again", || relay.rows("push") == 1).await;
    running.stop().await;
    let bob = bob.reopen().await;
    let running = bob.spawn();
    bob.client.register_web_push("https://push.example/2").await.unwrap();
    assert_eq!(relay.rows("push"), 1);
    relay.stop().await;
    let error = bob.client.unregister_push().await.unwrap_err();
    assert!(matches!(error, PushError::NotYet { .. }), "{error}");
    assert_eq!(bob.client.push_target().await.unwrap(), None);
    relay.start_again().await;
    until("it was not told to forget", || relay.rows("push") == 0).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_up_is_told_from_what_others_send_by_keys_of_the_profile() {
    let Some(mut endpoint) = Endpoint::start().await else { return };
    let relay = Relay::start_with(private_endpoints).await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    assert!(matches!(bob.client.is_wake_up(b"").await, Err(PushError::NoKeys)));
    bob.client.register_web_push(&endpoint.url).await.unwrap();
    let target = bob.client.push_target().await.unwrap();
    let bob = bob.reopen().await;
    bob.client.register_web_push(&endpoint.url).await.unwrap();
    assert_eq!(bob.client.push_target().await.unwrap(), target, "the keys have changed");

    let running = alice.spawn();
    alice.send(&bob, "a secret").await;
    let request = endpoint.request().await;
    assert!(request["error"].is_string(), "others can open it: {request}");
    let mut body = hex::decode(request["raw"].as_str().unwrap()).unwrap();
    assert!(bob.client.is_wake_up(&body).await.unwrap());
    *body.last_mut().unwrap() ^= 1;
    assert!(!bob.client.is_wake_up(&body).await.unwrap());
    assert!(!bob.client.is_wake_up(b"wake").await.unwrap());
    *body.last_mut().unwrap() ^= 1;
    bob.client.register_web_push("https://push.example/elsewhere").await.unwrap();
    assert!(!bob.client.is_wake_up(&body).await.unwrap(), "another endpoint has other keys");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_wake_is_refused_by_name_and_changes_nothing() {
    let relay = Relay::start().await;
    let bob = Person::register(&relay, "bob").await;
    let offer = bob.client.push_offer().await.unwrap();
    assert!(!offer.apns && !offer.fcm);
    bob.client.register_web_push("https://push.example/x").await.unwrap();
    let before = bob.client.push_target().await.unwrap();

    let web = |endpoint: &str, p256dh| {
        PushTarget::Web(WebSubscription { endpoint: endpoint.into(), p256dh, auth: [7; 16] })
    };
    let key = offer.vapid_key;
    let long = format!("https://push.example/{}", "x".repeat(1024));
    for endpoint in ["", "push.example", "file:///x", "https://me:pw@push.example/x", &long] {
        let refused = bob.client.register_push(web(endpoint, key)).await.unwrap_err();
        assert!(matches!(refused, PushError::Endpoint), "{endpoint}: {refused}");
    }
    let refused = bob.client.register_push(web("https://push.example/x", [4; 65])).await;
    assert!(matches!(refused, Err(PushError::Keys)));
    for token in [PushTarget::Apns("not hex".into()), PushTarget::Fcm(String::new())] {
        let refused = bob.client.register_push(token.clone()).await.unwrap_err();
        assert!(
            matches!(refused, PushError::Token { service } if service == token.service()),
            "{refused}"
        );
    }
    let by_the_server = [
        (web("https://127.0.0.1/x", key), PushService::Web),
        (web("http://push.example/x", key), PushService::Web),
        (PushTarget::Apns("00ff".into()), PushService::Apns),
        (PushTarget::Fcm("token".into()), PushService::Fcm),
    ];
    for (target, named) in by_the_server {
        let refused = bob.client.register_push(target).await.unwrap_err();
        assert!(
            matches!(refused, PushError::NotOffered { service } if service == named),
            "{refused}"
        );
    }
    assert_eq!(bob.client.push_target().await.unwrap(), before);
    assert_eq!(relay.rows("push"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_settings_have_changed_says_so_at_the_next_start() {
    let mut relay = Relay::start_with(private_endpoints).await;
    let bob = Person::register(&relay, "bob").await;
    bob.client.register_web_push("http://127.0.0.1:9/x").await.unwrap();
    relay.stop().await;
    relay.reconfigure(|_| ());
    relay.start_again().await;
    let bob = bob.reopen().await;
    let mut events = bob.client.events();
    let running = bob.spawn();
    let status = event(&mut events, |event| match event {
        Event::PushRefused { status } => Some(status),
        _ => None,
    });
    assert_eq!(status.await, 400);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_up_ends_at_its_deadline_and_says_why() {
    let mut relay = Relay::start().await;
    let bob = Person::register(&relay, "bob").await;
    let running = bob.spawn();
    let mut events = bob.client.events();
    event(&mut events, |event| matches!(event, Event::QueueEmpty).then_some(())).await;
    let busy = bob.client.wake(TIME).await;
    assert!(matches!(busy, Err(RunError::AlreadyRunning)), "the running client fetches it");
    running.stop().await;
    relay.stop().await;
    let begun = Instant::now();
    let woken = bob.client.wake(Duration::from_millis(500)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let cause = ServerError::Unreachable { server: relay.url.clone() };
    assert_eq!((woken.messages.len(), woken.end), (0, WakeEnd::NotConnected { cause }));
    // A server that takes connections and says nothing.
    let address = relay.url.strip_prefix("http://").unwrap();
    let _silent = std::net::TcpListener::bind(address).unwrap();
    let woken = bob.client.wake(Duration::from_millis(500)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(woken.end, WakeEnd::Deadline);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_up_fetches_what_waits_after_a_run_that_was_dropped() {
    let relay = Relay::start().await;
    let [alice, bob] =
        [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
    let mut events = bob.client.events();
    let running = bob.spawn();
    event(&mut events, |event| matches!(event, Event::QueueEmpty).then_some(())).await;
    running.dropped().await;
    let running = alice.spawn();
    alice.send(&bob, "come").await;
    alice.sent().await;
    let woken = bob.client.wake(TIME).await.unwrap();
    let came: Vec<_> = woken.messages.iter().map(|message| message.text.as_str()).collect();
    assert_eq!((came, woken.end), (vec!["come"], WakeEnd::Emptied));
    running.stop().await;
}
