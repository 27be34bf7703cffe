//! The operator's own check: what it is told, what its answers do, and what happens without one.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use prost::Message;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tuckseal::service::{StreamSubmission, Submission, submission_answer};
use tuckseal_server::config::{HookSettings, OnFailure};
use tuckseal_server::hook::{Asking, HookAnswer, HookEvent, HookKind, OperatorHook, ReasonCode};
use tuckseal_server::{Config, Extensions, Server};

use crate::attachments::create;
use crate::operating::run;
use crate::privacy::{Node, holds, says_nothing_of};
use crate::world::{PATIENCE, Party, World, refusal};

/// An operator's check that answers as the test says.
#[derive(Clone)]
pub(crate) struct Check {
    address: String,
    answer: Arc<Mutex<(u16, String)>>,
    told: Arc<Mutex<Vec<Value>>>,
    /// What it was shown as `authorization`.
    shown: Arc<Mutex<Vec<Option<String>>>>,
}

impl Check {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check = Self {
            address: format!("http://{}/check?secret=x", listener.local_addr().unwrap()),
            answer: Arc::default(),
            told: Arc::default(),
            shown: Arc::default(),
        };
        check.say(json!({ "answer": "allow" }));
        let router = Router::new().route("/check", post(answer)).with_state(check.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        check
    }

    pub(crate) fn say(&self, answer: Value) {
        self.say_with(200, &answer.to_string());
    }

    fn say_with(&self, status: u16, body: &str) {
        *self.answer.lock().unwrap() = (status, body.into());
    }

    pub(crate) fn told(&self) -> Vec<Value> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }

    fn settings(&self) -> HookSettings {
        HookSettings {
            hook_url: Some(self.address.clone()),
            hook_events: vec![
                HookKind::Registration,
                HookKind::Submission,
                HookKind::Sealed,
                HookKind::Upload,
            ],
            ..HookSettings::default()
        }
    }

    /// So many questions, once they have come.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Value> {
        let came = async {
            while self.told.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, came).await.expect("nothing came");
        self.told()
    }

    /// A server that asks it about everything, and whose patience outlasts a busy machine.
    pub(crate) async fn world(&self, change: impl FnOnce(&mut Config)) -> World {
        World::set(tempfile::tempdir().unwrap(), |config| {
            config.hook = self.settings();
            config.limits.hook_timeout_ms = 20_000;
            change(config);
        })
        .await
    }
}

async fn answer(
    State(check): State<Check>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    check.told.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    let shown = headers.get("authorization").map(|value| value.to_str().unwrap().into());
    check.shown.lock().unwrap().push(shown);
    let (status, body) = check.answer.lock().unwrap().clone();
    (StatusCode::from_u16(status).unwrap(), body)
}

async fn send(alice: &Party, to: &Party, submission: &Submission) -> Response {
    let path = format!("/v1/messages/{}", to.account_text());
    alice.own(Method::PUT, &path).body(submission.encode_to_vec()).send().await.unwrap()
}

/// Without the access key: on a stream with a token.
fn by_token(to: &Party) -> StreamSubmission {
    StreamSubmission { access_key: Bytes::new(), ..to.stream_submission(b"x") }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_question_names_one_account_at_most_and_never_who_a_message_is_for() {
    let check = Check::start().await;
    let world = check.world(|_| ()).await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let registrations = check.told();
    assert_eq!(
        registrations,
        ["alice", "bob"].map(|name| json!({ "event": "registration", "name": name }))
    );
    assert_eq!(send(&alice, &bob, &bob.submission(&[7; 2000])).await.status(), 200);
    let mut stream = alice.stream().await;
    stream.hand_in(vec![by_token(&bob)]).await;
    stream.answers(1).await;
    assert_eq!(create(&alice, 5000).await.status(), 201);
    let account = alice.account_text();
    let of_alice = check.told();
    assert_eq!(
        of_alice,
        [
            json!({ "event": "submission", "account": account, "devices": 1, "bytes": 4096 }),
            json!({ "event": "submission", "account": account, "devices": 1, "bytes": 1024 }),
            json!({ "event": "upload", "account": account, "bytes": 5000 }),
        ]
    );
    bob.receive_text("sealed").await;
    let mut bare = bob.bare_stream().await;
    bare.hand_in(vec![bob.stream_submission(&[7; 4097])]).await;
    bare.answers(1).await;
    let many = crate::multi::submission(&[&alice, &bob], &[7; 5000]);
    assert_eq!(crate::multi::submit(&alice, &many).await.status(), 200);
    // Refused after the question: with its head it would have been of the next size.
    let other = crate::multi::unpadded(&[&alice, &bob], &[7; 1000]);
    assert_eq!(crate::multi::submit(&alice, &other).await.status(), 400);
    let sealed = [1, 16, 16, 4].map(|kib| json!({ "event": "sealed", "size_class_kib": kib }));
    assert_eq!(check.told(), sealed);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_comes_with_its_reason_and_nothing_is_stored() {
    let check = Check::start().await;
    let world = check.world(|_| ()).await;
    let (alice, bob) = (world.party("alice").await, world.party("bob").await);
    let mut stream = alice.stream().await;
    check.say(json!({ "answer": "refuse", "reason": "account-suspended" }));
    let newcomer = Party::new(world.address, "carol");
    let registration = newcomer.registration().await;
    let refused = [
        send(&alice, &bob, &bob.submission(b"one")).await,
        bob.receive(&bob.submission(b"two")).await,
        create(&alice, 10).await,
        newcomer.send_registration(&registration).await,
    ];
    for response in refused {
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()["refusal-reason"], "account-suspended");
        let problem: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(problem["type"], "urn:tuckseal:problem:refused-by-operator");
        assert_eq!(problem["reason"], "account-suspended");
        assert!(problem["detail"].as_str().unwrap().contains("account-suspended"));
    }
    stream.hand_in(vec![by_token(&bob)]).await;
    let answers = stream.answers(1).await;
    let Some(submission_answer::Result::Refused(refused)) = answers.into_values().next() else {
        panic!("it was not refused");
    };
    assert_eq!((refused.status, &*refused.reason), (403, "account-suspended"));
    check.say(json!({ "answer": "later", "retry_after_secs": 30 }));
    let later = send(&alice, &bob, &bob.submission(b"three")).await;
    assert_eq!(later.headers()["retry-after"], "31");
    assert_eq!(refusal(later).await, StatusCode::TOO_MANY_REQUESTS);
    let db = world.database();
    assert_eq!(crate::world::rows(&db, "envelope"), 0);
    assert_eq!(crate::world::rows(&db, "account"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_unauthorised_recipients_look_the_same_whatever_the_hook_says() {
    let check = Check::start().await;
    let world = check.world(|_| ()).await;
    let bob = world.party("bob").await;
    let unknown = Party { account: crate::world::random(), ..bob.clone() };
    let no_key = Party { access_key: [1; 16], ..bob.clone() };
    for (answer, expected) in [
        (json!({ "answer": "allow" }), StatusCode::UNAUTHORIZED),
        (json!({ "answer": "refuse", "reason": "no" }), StatusCode::FORBIDDEN),
        (json!({ "answer": "later", "retry_after_secs": 1 }), StatusCode::TOO_MANY_REQUESTS),
    ] {
        check.say(answer);
        check.told();
        let submission = bob.submission(b"x");
        let mut bodies = Vec::new();
        for to in [&unknown, &no_key] {
            let response = to.receive(&submission).await;
            assert_eq!(response.status(), expected);
            bodies.push(response.bytes().await.unwrap());
        }
        assert_eq!(bodies[0], bodies[1]);
        let told = check.told();
        assert_eq!(told[0], told[1]);
        assert_eq!(told.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_that_fails_is_left_alone_and_the_settings_say_what_happens_meanwhile() {
    for (on_failure, expected) in [(OnFailure::Allow, 200), (OnFailure::Refuse, 503)] {
        let check = Check::start().await;
        let world = check
            .world(|config| {
                config.hook.hook_on_failure = Some(on_failure);
                config.limits.hook_failures = 3;
                config.limits.hook_pause_secs = 3600;
            })
            .await;
        let bob = world.party("bob").await;
        check.told();
        // Not good enough: another status, no JSON, no such answer, a reason that is none.
        let bad = [(500, "{}"), (200, "yes"), (200, r#"{"answer":"refuse","reason":"Not Nice"}"#)];
        for (status, body) in bad {
            check.say_with(status, body);
            let response = bob.receive(&bob.submission(b"x")).await;
            assert_eq!(response.status(), expected);
            assert_eq!(response.headers().contains_key("retry-after"), expected == 503);
        }
        assert_eq!(check.told().len(), 3);
        check.say(json!({ "answer": "refuse", "reason": "no" }));
        for _ in 0..20 {
            assert_eq!(bob.receive(&bob.submission(b"x")).await.status(), expected);
        }
        assert_eq!(check.told().len(), 0, "it was asked although it had failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_that_is_away_or_silent_holds_nobody_for_long() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    for address in [address, "http://127.0.0.1:1".into()] {
        let world = World::set(tempfile::tempdir().unwrap(), |config| {
            config.hook.hook_url = Some(address);
            config.hook.hook_events = vec![HookKind::Sealed];
            config.limits.hook_timeout_ms = 50;
            config.limits.hook_failures = 2;
            config.limits.hook_pause_secs = 3600;
        })
        .await;
        let bob = world.party("bob").await;
        let mut bare = bob.bare_stream().await;
        let many: Vec<_> = (0..60).map(|_| bob.stream_submission(b"x")).collect();
        bare.hand_in(many).await;
        let answers = bare.answers(60).await;
        let accepted = |one| matches!(one, &submission_answer::Result::Accepted(_));
        assert!(answers.values().all(accepted));
    }
}

/// Lets two through at once, no more.
struct Embedded {
    inside: AtomicUsize,
    most: Arc<AtomicUsize>,
}

impl OperatorHook for Embedded {
    fn wants(&self, kind: HookKind) -> bool {
        kind == HookKind::Sealed
    }

    fn ask(&self, event: HookEvent) -> Asking<'_> {
        Box::pin(async move {
            let HookEvent::Sealed { size_class_kib } = event else { panic!("not asked for") };
            let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(inside, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.inside.fetch_sub(1, Ordering::SeqCst);
            Ok(match size_class_kib {
                1 => HookAnswer::Allow,
                _ => HookAnswer::Refuse(ReasonCode::new("too-large-for-us").unwrap()),
            })
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hook_of_an_embedder_is_asked_a_bounded_number_of_times_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::new(folder.path());
    config.listen = ([127, 0, 0, 1], 0).into();
    (config.limits.hook_concurrency, config.limits.hook_timeout_ms) = (2, 60_000);
    let most = Arc::new(AtomicUsize::new(0));
    let hook = Embedded { inside: AtomicUsize::new(0), most: Arc::clone(&most) };
    let own = Extensions { hook: Some(Arc::new(hook)), ..Extensions::default() };
    let server = Server::bind_with(config, own).await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.run(std::future::pending()));
    let bob = Party::register(address, "bob").await;
    let mut bare = bob.bare_stream().await;
    bare.hand_in((0..40).map(|n| bob.stream_submission(&vec![7; 1 + n % 2 * 2000])).collect())
        .await;
    let answers = bare.answers(40).await;
    let accepted =
        |one: &&submission_answer::Result| matches!(one, submission_answer::Result::Accepted(_));
    assert_eq!(answers.values().filter(accepted).count(), 20);
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_shown_to_the_hook_and_check_tries_it() {
    let check = Check::start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let token = token.display().to_string();
    let data = tempfile::tempdir().unwrap();
    let settings =
        ["--hook-url", &check.address, "--hook-token-file", &token, "--hook-timeout-ms", "20000"];
    let asked = [&settings[..], &["check"]].concat();
    let (good, out, error) = run(data.path(), &asked).await;
    assert!(good && out.contains("ok    hook"), "{out}{error}");
    assert_eq!(check.told(), [json!({ "event": "check" })]);
    assert_eq!(*check.shown.lock().unwrap(), [Some("Bearer s3cret".into())]);
    check.say_with(404, "");
    let (good, out, _) = run(data.path(), &asked).await;
    // It goes on without an answer, as hook_on_failure says: no reason to keep a relay down.
    assert!(good && out.contains("warn  hook      the hook answered with status 404"), "{out}");
    let (_, out, error) = run(data.path(), &["--hook-url", "http://u:p@h/", "check"]).await;
    assert!(error.contains("hook_token_file") && !error.contains("u:p"), "{out}{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_and_counters_name_nobody_of_whom_the_hook_was_told() {
    let check = Check::start().await;
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        ("--hook-url", &*check.address),
        ("--hook-events", "registration,submission,sealed,upload"),
        ("--hook-failures", "1"),
    ];
    let node = Node::start(folder.path(), &settings).await;
    let alice = Party::register(node.address, "alice-of-the-test").await;
    let bob = Party::register(node.address, "bob-of-the-test").await;
    send(&alice, &bob, &bob.submission(b"sealed 1")).await;
    check.say(json!({ "answer": "refuse", "reason": "no" }));
    send(&alice, &bob, &bob.submission(b"sealed 1")).await;
    check.say_with(500, "");
    bob.receive(&bob.submission(b"sealed 1")).await;
    assert!(check.told().len() >= 4);
    let log = node.end().await;
    assert!(holds(&log, b"the operator's hook fails"), "the log is there");
    says_nothing_of(&log, [&alice, &bob], "the log");
    assert!(!holds(&log, b"secret=x"), "the log has the hook's address");
}
