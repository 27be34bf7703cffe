//! Reports of spam: a token counts once, against the account it was made for, and nothing tells who reported.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tuckseal::service::{Report, ReportTokens};
use tuckseal_server::hook::HookKind;
use tuckseal_server::storage::{AccountId, ReportAnswer, Reporting, Store};

use crate::hooks::Check;
use crate::store::add;
use crate::stores::Opened;
use crate::world::{Party, World, message, refusal, rows};

pub(crate) async fn tokens(of: &Party) -> Vec<Bytes> {
    let tokens = of.own(Method::POST, "/v1/report-tokens").send().await.unwrap();
    message::<ReportTokens>(tokens).await.tokens
}

pub(crate) async fn report(by: &Party, account: &Party, token: &[u8]) -> Response {
    let report = Report {
        account: Bytes::copy_from_slice(&account.account),
        token: Bytes::copy_from_slice(token),
    };
    let request = by.own(Method::POST, "/v1/reports").body(report.encode_to_vec());
    request.send().await.unwrap()
}

fn counted(world: &World) -> Vec<(String, i64)> {
    let db = world.database();
    let sql =
        "SELECT username, count FROM report r JOIN account a ON a.id = r.account ORDER BY username";
    let mut query = db.prepare(sql).unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn token_counts_once_whoever_shows_it_and_the_second_use_looks_the_same() {
    let world = World::start().await;
    let (alice, bob, carol) =
        (world.party("alice").await, world.party("bob").await, world.party("carol").await);
    let of_alice = tokens(&alice).await;
    assert!(of_alice.len() > 1 && of_alice.iter().all(|token| token.len() == 52));
    for by in [&bob, &bob, &carol, &alice] {
        let answer = report(by, &alice, &of_alice[0]).await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(answer.bytes().await.unwrap().len(), 0);
    }
    assert_eq!(counted(&world), [("alice".into(), 1)]);
    report(&carol, &alice, &of_alice[1]).await;
    assert_eq!(counted(&world), [("alice".into(), 2)]);
    // It counts no second time after a restart either, and tokens stay good.
    let world = World::on(world.stop().await, |_| ()).await;
    let bob = Party { address: world.address, ..bob };
    for token in &of_alice[..3] {
        assert_eq!(report(&bob, &alice, token).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(counted(&world), [("alice".into(), 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_token_and_one_of_another_account_are_refused_and_used_up_by_nothing() {
    let world = World::start().await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let of_alice = tokens(&alice).await.remove(0);
    let mut altered: Vec<Vec<u8>> = Vec::new();
    for place in [0, 15, 16, 32, 35, 36, 51] {
        let mut token = of_alice.to_vec();
        token[place] ^= 1;
        altered.push(token);
    }
    altered.extend([Vec::new(), of_alice[..51].to_vec(), [&of_alice[..], &[0]].concat()]);
    for (n, token) in altered.iter().enumerate() {
        // Each from somebody else: the budget is not what refuses.
        let by = world.party(&format!("reporter{n}")).await;
        let response = report(&by, &alice, token).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(problem["type"], "urn:tuckseal:problem:report-token");
    }
    // Somebody hands on a token that he got from Alice, as if it were his: it counts against nobody.
    assert_eq!(refusal(report(&alice, &bob, &of_alice).await).await, StatusCode::BAD_REQUEST);
    let nobody = Party { account: [7; 16], ..alice.clone() };
    assert_eq!(refusal(report(&bob, &nobody, &of_alice).await).await, StatusCode::BAD_REQUEST);
    let body = Report { account: Bytes::new(), token: of_alice.clone() }.encode_to_vec();
    let bare = alice.request(Method::POST, "/v1/reports").body(body.clone());
    assert_eq!(refusal(bare.send().await.unwrap()).await, StatusCode::UNAUTHORIZED);
    let unnamed = bob.own(Method::POST, "/v1/reports").body(body).send().await.unwrap();
    assert_eq!(refusal(unnamed).await, StatusCode::BAD_REQUEST);
    assert_eq!(rows(&world.database(), "report_token"), 0);
    assert_eq!(report(&bob, &alice, &of_alice).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(counted(&world), [("alice".into(), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_and_fetches_of_one_device_have_a_budget() {
    let world = World::with(|limits| {
        (limits.report_burst, limits.report_per_hour) = (2, 1);
        (limits.report_token_burst, limits.report_token_per_hour) = (1, 1);
        limits.report_tokens = 4;
    })
    .await;
    let (alice, bob, carol) =
        (world.party("alice").await, world.party("bob").await, world.party("carol").await);
    let of_alice = tokens(&alice).await;
    assert_eq!(of_alice.len(), 4);
    let more = alice.own(Method::POST, "/v1/report-tokens").send().await.unwrap();
    assert_eq!(refusal(more).await, StatusCode::TOO_MANY_REQUESTS);
    let expected = [StatusCode::NO_CONTENT, StatusCode::NO_CONTENT, StatusCode::TOO_MANY_REQUESTS];
    for (token, expected) in of_alice.iter().zip(expected) {
        assert_eq!(report(&bob, &alice, token).await.status(), expected);
    }
    assert_eq!(report(&carol, &alice, &of_alice[3]).await.status(), StatusCode::NO_CONTENT);
    assert_eq!(counted(&world), [("alice".into(), 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_is_told_once_who_was_reported_often_and_never_by_whom() {
    let check = Check::start().await;
    let world = check
        .world(|config| {
            config.hook.hook_events = vec![HookKind::Reported];
            config.limits.report_threshold = 2;
        })
        .await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let of_alice = tokens(&alice).await;
    // What it answers changes nothing.
    check.say(json!({ "answer": "refuse", "reason": "no" }));
    for token in &of_alice[..4] {
        assert_eq!(report(&bob, &alice, token).await.status(), StatusCode::NO_CONTENT);
    }
    let told = check.wait_for(1).await;
    // Stopping waits for nothing that is told: look once more at the end.
    world.stop().await;
    let account = alice.account_text();
    assert_eq!(told, [json!({ "event": "reported", "account": account, "reports": 2 })]);
    assert!(check.told().is_empty());
}

fn reporting(account: u8, token: u8, day: i64) -> Reporting {
    Reporting { account: AccountId([account; 16]), token: [token; 16], day, expires_day: day + 10 }
}

async fn report_counts_by_account_and_day_and_each_token_once(mut opened: Opened) {
    let store = Arc::clone(&opened.store);
    for account in [1, 2] {
        add(&store, account, 1).await;
    }
    let count = async |store: &Arc<dyn Store>, account, token, day| {
        store.report(reporting(account, token, day)).await.unwrap()
    };
    assert_eq!(count(&store, 9, 1, 5).await, ReportAnswer::UnknownAccount);
    assert_eq!(count(&store, 1, 1, 5).await, ReportAnswer::Counted(1));
    assert_eq!(count(&store, 1, 2, 5).await, ReportAnswer::Counted(2));
    assert_eq!(count(&store, 2, 3, 5).await, ReportAnswer::Counted(1));
    assert_eq!(count(&store, 1, 4, 6).await, ReportAnswer::Counted(1));
    for day in [5, 6] {
        assert_eq!(count(&store, 1, 1, day).await, ReportAnswer::Repeated);
        assert_eq!(count(&store, 2, 1, day).await, ReportAnswer::Repeated);
    }
    drop(store);
    opened.reopen().await;
    let store = &opened.store;
    assert_eq!(count(store, 1, 2, 5).await, ReportAnswer::Repeated);
    // On the last day before they expire, tokens are remembered; counts of that day and later stay.
    assert_eq!(store.purge_reports(14, 5).await.unwrap(), 0);
    assert_eq!(count(store, 1, 1, 14).await, ReportAnswer::Repeated);
    // Three tokens of day 5, and the counts of two accounts.
    assert_eq!(store.purge_reports(15, 6).await.unwrap(), 5);
    assert_eq!(store.purge_reports(15, 6).await.unwrap(), 0);
    assert_eq!(count(store, 1, 1, 5).await, ReportAnswer::Counted(1));
    assert_eq!(count(store, 1, 4, 6).await, ReportAnswer::Repeated);
    assert_eq!(count(store, 1, 5, 6).await, ReportAnswer::Counted(2));
}

async fn token_that_is_shown_at_many_places_at_once_counts_once(opened: Opened) {
    let nodes = [Arc::clone(&opened.store), opened.second_node().await];
    add(&nodes[0], 1, 1).await;
    let shown = (0..40_u8).map(|n| {
        let store = Arc::clone(&nodes[usize::from(n) % 2]);
        tokio::spawn(async move { store.report(reporting(1, n / 4, 5)).await.unwrap() })
    });
    let answers = futures_util::future::join_all(shown.collect::<Vec<_>>()).await;
    let mut counts: Vec<u64> = answers
        .into_iter()
        .filter_map(|answer| match answer.unwrap() {
            ReportAnswer::Counted(count) => Some(count),
            _ => None,
        })
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=10).collect::<Vec<_>>());
    nodes[1].close().await.unwrap();
}

crate::store::on_every_store! {
    report_counts_by_account_and_day_and_each_token_once
    token_that_is_shown_at_many_places_at_once_counts_once
}
