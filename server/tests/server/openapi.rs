//! `/openapi.json` against the running server: schemathesis reads it, sends what it describes and what it does not,
//! and looks whether the answers are those that it promises.

use crate::peers::{python, script};
use crate::world::World;

/// The rest of its checks are not ours: any bytes are a "valid" protobuf body to OpenAPI, and are refused.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method";

/// `TUCKSEAL_FUZZ_EXAMPLES` makes it longer.
#[tokio::test(flavor = "multi_thread")]
async fn api_answers_what_its_description_says() {
    let Some(mut python) = python("the API against its description, by schemathesis") else {
        return;
    };
    let world = World::with(|limits| {
        limits.fetch_caller_burst = 1_000_000;
        limits.lookup_burst = 1_000_000;
        limits.push_burst = 1_000_000;
        limits.report_burst = 1_000_000;
        limits.report_token_burst = 1_000_000;
        limits.link_burst = 1_000_000;
    });
    let world = world.await;
    let bob = world.party("bob").await;
    let examples = std::env::var("TUCKSEAL_FUZZ_EXAMPLES").unwrap_or_else(|_| "10".into());
    python.args(["-m", "schemathesis.cli", "run", "--no-color", "--checks", CHECKS]);
    python.args(["--max-examples", &examples, "--seed", "1", "--continue-on-failure"]);
    python.args(["--exclude-path", "/v1/stream", "--header"]);
    python.arg(format!("Authorization: {}", bob.bearer()));
    python.arg(format!("http://{}/openapi.json", world.address));
    python.env("SCHEMATHESIS_HOOKS", script("schemathesis_hooks.py"));
    python.current_dir(world.folder.path());
    let output = python.stderr(std::process::Stdio::piped()).output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // It did run, and the server is still there.
    assert!(said.contains("passed") || said.contains("No issues found"), "{said}");
    bob.receive_text("still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn description_has_every_route_and_names_the_credentials() {
    let world = World::start().await;
    let api = crate::world::http().get(format!("http://{}/openapi.json", world.address));
    let api = api.send().await.unwrap().bytes().await.unwrap();
    let api: serde_json::Value = serde_json::from_slice(&api).unwrap();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    let documented = include_str!("../../../docs/server-api.md");
    let paths = api["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 22, "{:?}", paths.keys());
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["security"].is_array(), "{method} {path}");
            assert!(
                operation["responses"]["400"]["content"]["application/problem+json"].is_object()
            );
        }
        let prose = path.replace("/{capability}", "");
        assert!(documented.contains(&prose), "{path} is not in docs/server-api.md");
    }
}
