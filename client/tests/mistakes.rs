//! What people get wrong, and the one line that tells them what to do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod stage;

use stage::{Person, Relay, registration};
use tuckseal_client::{
    Client, LookupError, ProfileError, RegisterError, RunError, SendError, ServerError, Settings,
};

#[tokio::test]
async fn a_name_that_nobody_has() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    for name in ["nobody", "no/body", "", "Nobody!"] {
        let error = alice.client.lookup(name).await.unwrap_err();
        assert!(matches!(error, LookupError::NoSuchName { .. }), "{name}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    // Bound and closed again: nobody listens there.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let error = Client::register(folder.path(), registration(&url, "alice")).await.unwrap_err();
    assert!(error.to_string().contains(&url), "{error}");
    assert!(matches!(error, RegisterError::Server(ServerError::Unreachable { .. })));
}

#[tokio::test]
async fn a_registration_that_broke_off_goes_on_with_the_same_keys() {
    let folder = tempfile::tempdir().unwrap();
    Client::register(folder.path(), registration("http://127.0.0.1:1", "alice")).await.unwrap_err();
    let not_yet = Client::open(folder.path(), Settings::default()).await.unwrap_err();
    assert!(matches!(not_yet, ProfileError::NotRegistered { .. }));
    let relay = Relay::start().await;
    let alice = Client::register(folder.path(), registration(&relay.url, "alice2")).await.unwrap();
    assert_eq!(alice.name(), "alice2");
}

#[tokio::test]
async fn a_profile_that_is_registered_already() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let in_use =
        Client::register(alice.folder.path(), registration(&relay.url, "other")).await.unwrap_err();
    assert!(matches!(in_use, RegisterError::Profile(ProfileError::InUse { .. })));
    drop(alice.client);
    let error =
        Client::register(alice.folder.path(), registration(&relay.url, "other")).await.unwrap_err();
    assert!(error.to_string().contains("already registered as alice"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_taken_or_impossible() {
    let relay = Relay::start().await;
    let _alice = Person::register(&relay, "alice").await;
    let folder = tempfile::tempdir().unwrap();
    let taken =
        Client::register(folder.path(), registration(&relay.url, "alice")).await.unwrap_err();
    assert!(matches!(taken, RegisterError::NameTaken { .. }));
    let impossible =
        Client::register(folder.path(), registration(&relay.url, "Alice!")).await.unwrap_err();
    assert!(matches!(impossible, RegisterError::NameRefused { .. }));
    // The folder is still good for another name.
    Client::register(folder.path(), registration(&relay.url, "alice2")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_work_and_one_that_asks_for_too_much() {
    let relay = Relay::start_with(|config| config.registration_work_bits = 12).await;
    let alice = Person::register(&relay, "alice").await;
    assert_eq!(alice.client.lookup("alice").await.unwrap(), alice.client.account());
    let relay = Relay::start_with(|config| config.registration_work_bits = 25).await;
    let folder = tempfile::tempdir().unwrap();
    let error = Client::register(folder.path(), registration(&relay.url, "bob")).await.unwrap_err();
    assert!(matches!(error, RegisterError::TooMuchWork { bits: 25, limit: 24 }), "{error}");
}

#[tokio::test]
async fn a_server_with_another_trust_root_than_expected() {
    let relay = Relay::start().await;
    let folder = tempfile::tempdir().unwrap();
    let other = *tuckseal::IdentityKeyPair::generate(&mut rand::rng()).identity_key().public_key();
    let registration = tuckseal_client::Registration {
        trust_root: Some(other),
        ..registration(&relay.url, "alice")
    };
    let error = Client::register(folder.path(), registration).await.unwrap_err();
    assert!(matches!(error, RegisterError::WrongTrustRoot { .. }));
}

#[tokio::test]
async fn a_folder_without_a_profile() {
    let folder = tempfile::tempdir().unwrap();
    let error =
        Client::open(&folder.path().join("nothing"), Settings::default()).await.unwrap_err();
    assert!(matches!(error, ProfileError::NotRegistered { .. }));
    assert!(!folder.path().join("nothing").exists(), "a question must not make a folder");
}

#[tokio::test]
async fn a_message_to_oneself_and_a_second_run() {
    let relay = Relay::start().await;
    let alice = Person::register(&relay, "alice").await;
    let error = alice.client.send(alice.client.account(), "me").await.unwrap_err();
    assert!(matches!(error, SendError::ToOurselves));
    let mut events = alice.client.events();
    let running = alice.spawn();
    stage::event(&mut events, Some).await;
    assert!(matches!(
        alice.client.run(std::future::pending()).await,
        Err(RunError::AlreadyRunning)
    ));
    running.stop().await;
    alice.client.run(std::future::ready(())).await.unwrap();
}
