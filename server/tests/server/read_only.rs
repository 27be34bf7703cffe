//! A server that is switched to reading alone, on both stores.

use reqwest::{Method, Response, StatusCode};
use tuckseal::service::submission_answer::Result as Answer;

use crate::stores::Database;
use crate::world::{Party, World, refusal, texts};

async fn refused(response: Response) {
    assert_eq!(response.headers()["retry-after"], "60");
    assert_eq!(refusal(response).await, StatusCode::SERVICE_UNAVAILABLE);
}

async fn delivers_what_waits_and_takes_nothing_in(database: Option<&Database>) {
    let setting = database.map(|database| database.setting().parse().unwrap());
    let world = World::set(tempfile::tempdir().unwrap(), |config| {
        config.database = setting.clone();
    });
    let world = world.await;
    let bob = world.party("bob").await;
    bob.receive_text("before").await;
    // The connection of before has left its mark in the database.
    bob.stream().await.backlog().await;

    let world = World::set(world.stop().await, |config| {
        config.database = setting.clone();
        config.read_only = true;
        config.limits.sweep_interval_secs = 1;
    });
    let world = world.await;
    let at = Party { address: world.address, ..bob };
    refused(at.receive(&at.submission(b"x")).await).await;
    refused(at.fetch(&at).send().await.unwrap()).await;
    refused(at.upload(&at.keys).await).await;
    refused(at.post("/v1/challenges", Vec::new()).await).await;
    refused(at.own(Method::POST, "/v1/devices/links").send().await.unwrap()).await;
    refused(at.own(Method::DELETE, "/v1/devices/2").send().await.unwrap()).await;
    assert_eq!(crate::devices::list(&at).await.len(), 1);
    let room = at.own(Method::POST, "/v1/attachments").header("tus-resumable", "1.0.0");
    refused(room.header("upload-length", "5").send().await.unwrap()).await;
    let one = at.stream_submission(b"x");
    let mut bare = at.bare_stream().await;
    bare.hand_in(vec![one]).await;
    let answer = bare.answers(1).await.into_values().next().unwrap();
    assert!(
        matches!(answer, Answer::Refused(refused) if refused.status == 503 && refused.retry_after_secs == 60)
    );
    assert_eq!(at.counts().await.one_time, 0);
    let mut stream = at.stream().await;
    let backlog = stream.backlog().await;
    assert_eq!(texts(&backlog), ["before"]);
    stream.ack(&backlog).await;
    // Nothing displaces it, although it has claimed nothing.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    stream.leave().await;
    // What was acknowledged could not be taken away.
    assert_eq!(texts(&at.stream().await.backlog().await), ["before"]);

    let world = World::set(world.stop().await, |config| config.database = setting).await;
    let at = Party { address: world.address, ..at };
    at.receive_text("after").await;
    let mut stream = at.stream().await;
    let backlog = stream.backlog().await;
    assert_eq!(texts(&backlog), ["before", "after"]);
    stream.ack(&backlog).await;
    stream.leave().await;
    assert!(at.stream().await.backlog().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_what_waits_is_delivered_and_nothing_is_taken_in() {
    delivers_what_waits_and_takes_nothing_in(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_what_waits_is_delivered_and_nothing_is_taken_in() {
    delivers_what_waits_and_takes_nothing_in(Some(&Database::create().await)).await;
}
