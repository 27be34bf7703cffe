//! `tuckseal-server check`: whether these settings would work, without changing anything.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::bus::NodesBus;
use crate::config::{AttachmentPlace, Config};
use crate::hook::HttpHook;
use crate::http::{acme, tls};
use crate::https;
use crate::identity::ServerIdentity;
use crate::push::{Apns, Fcm};
use crate::service::now_ms;
use crate::storage::postgres::PostgresStore;
use crate::storage::sqlite::SqliteStore;
use crate::storage::{AttachmentBucket, BucketError, NodeId};

/// More than this between our clock and PostgreSQL's, and envelopes would expire at another time at every node.
const CLOCKS: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A start would work; a line may say what would not be there then.
    Good,
    /// A line says what has to be put right first.
    Bad,
}

/// What is wrong.
enum Fault {
    /// It has to be put right before a start.
    Stop(String),
    /// A start works without it, and it may come back by itself.
    Warning(String),
}

fn stop(fault: impl ToString) -> Fault {
    Fault::Stop(fault.to_string())
}

fn warning(fault: impl ToString) -> Fault {
    Fault::Warning(fault.to_string())
}

/// Looks at everything that a start needs and prints a line for each. What a server can do without for a while, such as a bucket or a
/// hook, is a warning: a supervisor that asks first must not keep the relay down for it.
pub async fn check(config: &Config) -> Verdict {
    let findings = [
        ("data", data(&config.data_dir)),
        ("keys", keys(config)),
        ("database", database(config).await),
        ("bus", bus(config).await),
        ("files", attachments(config).await),
        ("listen", listen(config)),
        ("tls", certificate(config).await),
        ("push", push(config)),
        ("hook", hook(config).await),
    ];
    for (name, finding) in &findings {
        match finding {
            Ok(good) => println!("ok    {name:9} {good}"),
            Err(Fault::Warning(fault)) => println!("warn  {name:9} {fault}"),
            Err(Fault::Stop(fault)) => println!("FAIL  {name:9} {fault}"),
        }
    }
    let stops = |finding: &Finding| matches!(finding, Err(Fault::Stop(_)));
    if findings.iter().any(|(_, finding)| stops(finding)) { Verdict::Bad } else { Verdict::Good }
}

type Finding = Result<String, Fault>;

fn data(folder: &Path) -> Finding {
    writable(folder)?;
    let later = if folder.exists() { "" } else { " will be made at the first start" };
    Ok(format!("{}{later}", folder.display()))
}

/// Whether files can be put there. A folder that is not there is made in the one that is.
fn writable(folder: &Path) -> Result<(), Fault> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let probe = there.join(format!("check-{:x}", rand::random::<u64>()));
    let written = std::fs::write(&probe, []).and_then(|()| std::fs::remove_file(&probe));
    written.map_err(|error| {
        stop(format!("{}: {error}; make it writable for this user", folder.display()))
    })
}

fn keys(config: &Config) -> Finding {
    match ServerIdentity::load(config) {
        Ok(Some(_)) => Ok("trust root, key and certificate belong together".into()),
        Ok(None) if config.bus.is_some() => {
            Ok("will be made at the first start; copy them to the other nodes then".into())
        }
        Ok(None) => Ok("will be made at the first start".into()),
        Err(error) => Err(stop(error)),
    }
}

async fn database(config: &Config) -> Finding {
    let Some(setting) = &config.database else {
        let path = config.data_dir.join("tuckseal.db");
        if !path.exists() {
            return Ok("SQLite, will be made at the first start".into());
        }
        let version = SqliteStore::version(&path).map_err(stop)?;
        return Ok(format!("SQLite, schema {version}"));
    };
    let (version, now) = PostgresStore::inspect(setting.revealed()).await.map_err(stop)?;
    let apart = Duration::from_millis(now.abs_diff(now_ms()));
    if apart > CLOCKS {
        let fault = format!("its clock is {} s away from this machine's", apart.as_secs());
        return Err(warning(fault));
    }
    Ok(match version {
        Some(version) => format!("{setting}, schema {version}"),
        None => format!("{setting}, empty; its tables will be made at the first start"),
    })
}

async fn bus(config: &Config) -> Finding {
    let Some(address) = &config.bus else { return Ok("none: a single node".into()) };
    let name = format!("check-{:x}", rand::random::<u64>());
    NodesBus::connect(address, name, NodeId(0)).await.map_err(stop)?;
    Ok(format!("{address} gives back what is sent"))
}

async fn attachments(config: &Config) -> Finding {
    let place = match &config.attachments {
        AttachmentPlace::Bucket(place) => place,
        AttachmentPlace::Folder(folder) => {
            writable(folder)?;
            return Ok(config.attachments.to_string());
        }
    };
    // The server's answer may be many lines of XML.
    let line =
        |error: BucketError| error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let memory_kib = config.limits.attachment_memory_kib;
    let bucket = AttachmentBucket::new(place, &config.s3, memory_kib);
    let bucket = bucket.map_err(|error| stop(line(error)))?;
    bucket.probe().await.map_err(|error| match error {
        // That does not pass.
        BucketError::NoConditions => stop(line(error)),
        error => warning(line(error)),
    })?;
    Ok(format!("{} takes, lists, gives back and forgets", config.attachments))
}

fn push(config: &Config) -> Finding {
    let push = &config.push;
    Apns::open(push).map_err(stop)?;
    Fcm::open(push).map_err(stop)?;
    let named = [("APNs", &push.apns_key_file), ("FCM", &push.fcm_account_file)];
    let named = named.into_iter().filter(|(_, file)| file.is_some()).map(|(name, _)| name);
    Ok(["Web Push"].into_iter().chain(named).collect::<Vec<_>>().join(", "))
}

/// Asks it about nobody.
async fn hook(config: &Config) -> Finding {
    let hook = HttpHook::open(&config.hook).map_err(stop)?;
    let Some(hook) = hook else { return Ok("none: nobody is asked".into()) };
    let patience = Duration::from_millis(config.limits.hook_timeout_ms);
    let answer = tokio::time::timeout(patience, hook.probe()).await;
    let answer = answer.map_err(|_| warning("it does not answer within hook_timeout_ms"))?;
    answer.map_err(warning)?;
    Ok("answers as it should".into())
}

fn listen(config: &Config) -> Finding {
    for address in [Some(config.listen), config.metrics_listen].into_iter().flatten() {
        TcpListener::bind(address).map_err(|error| stop(format!("{address}: {error}")))?;
    }
    Ok(config.listen.to_string())
}

async fn certificate(config: &Config) -> Finding {
    if config.acme.is_on() {
        return by_acme(config).await;
    }
    let Some((certificate, key)) = config.tls_files() else {
        return Ok("none: put a proxy in front".into());
    };
    tls::acceptor(certificate, key).map_err(stop)?;
    Ok(certificate.display().to_string())
}

/// All but the proof, which the authority alone can try.
async fn by_acme(config: &Config) -> Finding {
    // A certificate that is not kept is asked for at every start, and authorities count.
    writable(&acme::folder(config))?;
    for name in &config.acme.acme_domains {
        if let Err(error) = tokio::net::lookup_host((name.as_str(), 443)).await {
            let fault = format!("{name} has no address ({error}); enter it in the DNS");
            return Err(warning(fault));
        }
    }
    let directory = config.acme.directory();
    let answer = directory_of(directory).await.map_err(|error| {
        warning(format!("acme_directory {directory}: {error}; is it a directory of ACME with a trusted certificate?"))
    })?;
    if answer.get("newOrder").is_none() {
        return Err(warning(format!("acme_directory {directory}: this is no directory of ACME")));
    }
    let names = config.acme.acme_domains.join(", ");
    let port = config.listen.port();
    let lead = if port == 443 { String::new() } else { format!("; port 443 must lead to {port}") };
    Ok(format!("by ACME for {names} from {directory}{lead}"))
}

async fn directory_of(url: &str) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(https::client_config()?)
        .timeout(Duration::from_secs(10))
        .build()?;
    let answer = client.get(url).send().await?.error_for_status()?;
    Ok(serde_json::from_slice(&answer.bytes().await?)?)
}
