//! Who is measured, what "accepted" means there, and how it is started.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::Load;
use crate::broker::Outcome;
use crate::load::measure;
use crate::mosquitto::Mosquitto;
use crate::nats::{self, Nats};
use crate::part::Figures;
use crate::postgres::Postgres;
use crate::rabbitmq::RabbitMq;
use crate::redis::Redis;
use crate::server::{self, NotInstalled, program};
use crate::tuckseal::{self, Scaled};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Our relay with SQLite in it
    Tuckseal,
    /// Our relay, one node, PostgreSQL and NATS
    TucksealScaled,
    /// Our relay, three nodes, PostgreSQL and NATS
    TucksealThree,
    Rabbitmq,
    Redis,
    Postgres,
    Mosquitto,
    Nats,
}

impl Engine {
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::Tuckseal | Self::TucksealScaled | Self::TucksealThree)
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tuckseal => "**tuckseal, SQLite**",
            Self::TucksealScaled => "**tuckseal, PostgreSQL and NATS, 1 node**",
            Self::TucksealThree => "**tuckseal, PostgreSQL and NATS, 3 nodes**",
            Self::Rabbitmq => "RabbitMQ, quorum queues of one member, publisher confirms",
            Self::Redis => "Redis streams, `appendfsync always`",
            Self::Postgres => "PostgreSQL, a row and a commit a message",
            Self::Mosquitto => "Mosquitto, QoS 1, persistent sessions",
            Self::Nats => "NATS JetStream, files, work queue",
        }
    }

    /// What a sender knows when it has its answer.
    pub(crate) fn accepted(self) -> &'static str {
        match self {
            Self::Tuckseal => "synced (WAL, FULL)",
            Self::TucksealScaled | Self::TucksealThree => "synced (commit in PostgreSQL)",
            Self::Rabbitmq => "synced (log of the quorum)",
            Self::Redis => "synced (append-only file)",
            Self::Postgres => "synced (commit)",
            Self::Mosquitto => "**in memory**: to its file every 30 minutes",
            Self::Nats => "**with the kernel**: synced every 2 minutes",
        }
    }

    /// What has to be installed for it, with the version of it; of ours the version is in the program.
    pub(crate) fn version(self, ours: &Path) -> Result<String, NotInstalled> {
        let of = |name| Ok(server::version(&program(name)?, "--version"));
        match self {
            Self::Tuckseal => Ok(server::version(ours, "--version")),
            Self::TucksealScaled | Self::TucksealThree => {
                program("initdb")?;
                let (postgres, nats) = (of("postgres")?, of("nats-server")?);
                Ok(format!(
                    "{}, PostgreSQL {postgres}, NATS {nats}",
                    server::version(ours, "--version")
                ))
            }
            Self::Rabbitmq => {
                program("rabbitmq-server")?;
                program("epmd")?;
                Ok(rabbitmq_version())
            }
            Self::Redis => of("redis-server"),
            Self::Postgres => {
                program("initdb")?;
                of("postgres")
            }
            Self::Mosquitto => Ok(server::version(&program("mosquitto")?, "-h")),
            Self::Nats => of("nats-server"),
        }
    }

    /// Starts it in an empty folder, does all parts, ends it.
    pub(crate) async fn measure(
        self,
        ours: &Path,
        folder: &Path,
        load: Load,
    ) -> Outcome<Vec<Figures>> {
        let mailboxes = load.mailboxes;
        match self {
            Self::Tuckseal => tuckseal::measure(ours, folder, load, None).await,
            Self::TucksealScaled => scaled(ours, folder, load, 1).await,
            Self::TucksealThree => scaled(ours, folder, load, 3).await,
            Self::Rabbitmq => {
                let (broker, servers) = RabbitMq::start(folder, mailboxes).await?;
                measure(broker, servers.iter().map(|server| server.id()).collect(), load).await
            }
            Self::Redis => {
                let (broker, server) = Redis::start(folder, mailboxes).await?;
                measure(broker, vec![server.id()], load).await
            }
            Self::Postgres => {
                let (broker, server) = Postgres::start(folder).await?;
                measure(broker.with_table().await?, vec![server.id()], load).await
            }
            Self::Mosquitto => {
                let (broker, server) = Mosquitto::start(folder, mailboxes).await?;
                measure(broker, vec![server.id()], load).await
            }
            Self::Nats => {
                let (broker, server) = Nats::start(folder, mailboxes).await?;
                measure(broker, vec![server.id()], load).await
            }
        }
    }
}

async fn scaled(ours: &Path, folder: &Path, load: Load, nodes: usize) -> Outcome<Vec<Figures>> {
    let (postgres, database) = Postgres::start(folder).await?;
    let (port, bus) = nats::plain(folder, &[]).await?;
    let scaled = Scaled {
        database: postgres.address(),
        bus: format!("nats://127.0.0.1:{port}"),
        nodes,
        servers: vec![database.id(), bus.id()],
    };
    tuckseal::measure(ours, folder, load, Some(scaled)).await
}

/// It tells only while it runs, but has it in the name of a folder.
fn rabbitmq_version() -> String {
    let places = ["/usr/lib/rabbitmq/lib", "/usr/local/lib/rabbitmq/lib"].map(PathBuf::from);
    let entries =
        places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let versions = names.filter_map(|name| Some(name.strip_prefix("rabbitmq_server-")?.to_owned()));
    versions.max().unwrap_or_else(|| "of unknown version".to_owned())
}
