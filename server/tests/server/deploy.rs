//! `deploy/` names counters, settings and alarms: they are those that there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser;
use tuckseal_server::{Arguments, Config};

use crate::nodes::KEYS;
use crate::operating::run;
use crate::stores::{BusServer, Database};
use crate::world::{PATIENCE, World, http};

fn deploy(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(deploy(name)).unwrap()
}

/// All names of counters in a text.
fn counters(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("tuckseal_")).map(Into::into).collect()
}

async fn served() -> BTreeSet<String> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::set(tempfile::tempdir().unwrap(), |config| {
        config.metrics_listen = Some(free);
    });
    let world = world.await;
    world.party("bob").await;
    let asked = http().get(format!("http://{free}/metrics")).send();
    let served =
        tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap().text().await.unwrap();
    counters(&served)
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alarms_name_counters_that_there_are_and_the_dashboard_all_of_them() {
    let served = served().await;
    assert!(served.len() > 20);
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("grafana/tuckseal.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let queries = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let queries: String =
        queries.map(|target| format!("{} ", target["expr"].as_str().unwrap())).collect();
    assert_eq!(counters(&queries), served);
    let alarms = counters(&text("prometheus/alerts.yml"));
    assert!(!alarms.is_empty() && alarms.is_subset(&served), "{alarms:?}");
    let runbook = counters(include_str!("../../../docs/operating.md"));
    let unknown: Vec<_> = runbook.difference(&served).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_alarm_is_in_the_runbook() {
    let alarms = text("prometheus/alerts.yml");
    let names: Vec<&str> =
        alarms.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 10);
    let runbook = include_str!("../../../docs/operating.md");
    for name in names {
        assert!(runbook.contains(&format!("| `{name}` |")), "{name} is not in docs/operating.md");
    }
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_where_the_settings_name_them_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let (keys, data) = (folder.path().join("keys"), folder.path().join("data"));
    let here = text("settings.toml")
        .replace("/keys/", &format!("{}/", keys.display()))
        .replace("\"/attachments", &format!("\"{}/attachments", folder.path().display()));
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, here).unwrap();
    let config = ["--config", settings.to_str().unwrap()];
    let read = || KEYS.map(|name| std::fs::read(keys.join(name)).unwrap());

    let (database, nats) = (Database::create().await, BusServer::nats().await);
    let (database, bus) = (database.setting(), nats.address());
    let own = ["--metrics-listen", "127.0.0.1:0", "--database", &database, "--bus", &bus, "check"];
    let check = [&config[..], &own].concat();
    let (good, out, _) = run(&data, &check).await;
    assert!(!good && out.contains("tuckseal-server keys"), "{out}");
    let (good, out, error) = run(&data, &[&config[..], &["keys"]].concat()).await;
    let root = keys.join("trust-root.private");
    assert!(good && out.contains(root.to_str().unwrap()), "{out}{error}");
    let made = read();
    std::fs::remove_file(root).unwrap();
    let (good, out, error) = run(&data, &[&config[..], &["keys"]].concat()).await;
    assert!(good && out.contains("are there") && read() == made, "{out}{error}");
    let (good, out, error) = run(&data, &check).await;
    assert!(good && !out.contains("FAIL") && !out.contains("warn"), "{out}{error}");
    std::fs::remove_file(keys.join("relay.secret")).unwrap();
    let (good, _, error) = run(&data, &[&config[..], &["keys"]].concat()).await;
    assert!(!good && error.contains("relay.secret is missing"), "{error}");
}

/// A volume belongs to the user of the image if the image has its folder.
#[test]
fn image_has_the_folders_of_the_volumes_for_its_user() {
    let (image, compose) = (text("Dockerfile"), text("compose.yaml"));
    let made = image.lines().find(|line| line.contains("install --directory --owner tuckseal"));
    for folder in ["keys", "attachments"] {
        assert!(made.unwrap().contains(&format!(" /{folder}")), "{folder}");
        assert!(compose.contains(&format!("- {folder}:/{folder}")), "{folder}");
        assert!(text("settings.toml").contains(&format!("\"/{folder}")), "{folder}");
    }
}

#[test]
fn settings_and_flags_are_understood() {
    let settings = deploy("settings.toml");
    let command = Command::parse_from(["x", "--config", settings.to_str().unwrap()]);
    let config = Config::load(command.arguments).unwrap();
    assert!(config.bus.is_some() && config.database.is_some());
    let unit = text("tuckseal-server.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let alone = Config::load(Command::parse_from(start.split(' ')).arguments).unwrap();
    // Whoever stops a node gives it the time that it takes.
    let secs = |name: &str, setting: &str| -> u64 {
        let text = text(name);
        let value = text.lines().find_map(|line| line.trim().strip_prefix(setting));
        value.unwrap().trim().trim_end_matches('s').parse().unwrap()
    };
    for (given, config) in [
        (secs("compose.yaml", "stop_grace_period:"), &config),
        (secs("tuckseal-server.service", "TimeoutStopSec="), &alone),
    ] {
        let limits = &config.limits;
        let taken = limits.drain_notice_secs + limits.drain_spread_secs + 2 * limits.shutdown_secs;
        assert!(given >= taken + 10, "{given} s for {taken}");
    }
    // However often it has to, and on port 443 too.
    for line in ["StartLimitIntervalSec=0", "AmbientCapabilities=CAP_NET_BIND_SERVICE"] {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    // What the balancer waits for is longer than what a node gives.
    let balancer = text("haproxy.cfg");
    let client = balancer.lines().find_map(|line| line.trim().strip_prefix("timeout client "));
    let secs: u64 = client.unwrap().trim_end_matches('s').parse().unwrap();
    assert!(secs > config.limits.body_timeout_secs);
}
