//! PostgreSQL as it comes: a row and a commit a message. Also the database of our own nodes.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use rustix::process::Signal;
use tokio_postgres::{Client, NoTls, Statement};

use crate::broker::{Broker, Outcome, Receiver, Sender};
use crate::server::{Server, free_port, program};

const TABLE: &str =
    "CREATE TABLE envelope (id bigserial PRIMARY KEY, mailbox int NOT NULL, body bytea NOT NULL);
    CREATE INDEX ON envelope (mailbox, id)";

pub(crate) struct Postgres {
    port: u16,
}

impl Postgres {
    /// A new cluster with the settings that it comes with, which are to sync at commit: it is asked.
    pub(crate) async fn start(folder: &Path) -> Outcome<(Self, Server)> {
        let (port, data) = (free_port()?, folder.join("data"));
        let as_user = rustix::process::geteuid().is_root();
        if as_user {
            run(Command::new("chown").arg("postgres").arg(folder))?;
        }
        let mut make = command(as_user, "initdb")?;
        make.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust"]);
        run(&mut make)?;
        let mut command = command(as_user, "postgres")?;
        command.arg("-D").arg(&data).arg("-k").arg(folder).args(["-h", "127.0.0.1"]);
        command.args(["-p", &port.to_string(), "-c", "max_connections=300"]);
        // By an immediate shutdown: it takes its shared memory with it.
        let server = Server::start(&mut command, folder, port).await?.ended_by(Signal::QUIT);
        let postgres = Self { port };
        let client = postgres.ready().await?;
        for (name, needed) in [("fsync", "on"), ("synchronous_commit", "on")] {
            let row = client.query_one(&format!("SHOW {name}"), &[]).await?;
            if row.get::<_, &str>(0) != needed {
                return Err(format!("{name} is not {needed}").into());
            }
        }
        Ok((postgres, server))
    }

    /// What a relay takes as `--database`.
    pub(crate) fn address(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(crate) async fn with_table(self) -> Outcome<Self> {
        self.connect().await?.batch_execute(TABLE).await?;
        Ok(self)
    }

    /// It listens before it takes anybody.
    async fn ready(&self) -> Outcome<Client> {
        for _ in 0..200 {
            if let Ok(client) = self.connect().await {
                return Ok(client);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        self.connect().await
    }

    async fn connect(&self) -> Outcome<Client> {
        let (client, connection) = tokio_postgres::connect(&self.address(), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// It refuses to run as root.
fn command(as_user: bool, name: &'static str) -> Outcome<Command> {
    let program = program(name)?;
    if !as_user {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    Ok(command)
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    let said = || String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said().into()) }
}

impl Broker for Postgres {
    type Sender = PostgresSender;
    type Receiver = PostgresReceiver;

    const TELLS: bool = false;

    async fn sender(&self) -> Outcome<PostgresSender> {
        let client = self.connect().await?;
        let insert = "INSERT INTO envelope (mailbox, body) VALUES ($1, $2)";
        Ok(PostgresSender { insert: client.prepare(insert).await?, client })
    }

    async fn receiver(&self, mailbox: usize) -> Outcome<PostgresReceiver> {
        let client = self.connect().await?;
        let select =
            "SELECT id, body FROM envelope WHERE mailbox = $1 AND id > $2 ORDER BY id LIMIT 256";
        let (select, delete) = (
            client.prepare(select).await?,
            client.prepare("DELETE FROM envelope WHERE id = ANY($1)").await?,
        );
        Ok(PostgresReceiver {
            client,
            mailbox: mailbox as i32,
            last: 0,
            ids: Vec::new(),
            select,
            delete,
        })
    }

    async fn held(&self) -> Outcome<usize> {
        let row = self.connect().await?.query_one("SELECT count(*) FROM envelope", &[]).await?;
        Ok(row.get::<_, i64>(0) as usize)
    }
}

pub(crate) struct PostgresSender {
    client: Client,
    insert: Statement,
}

impl Sender for PostgresSender {
    async fn send(&mut self, mailbox: usize, content: Vec<u8>) -> Outcome<()> {
        self.client.execute(&self.insert, &[&(mailbox as i32), &content]).await?;
        Ok(())
    }
}

pub(crate) struct PostgresReceiver {
    client: Client,
    mailbox: i32,
    last: i64,
    ids: Vec<i64>,
    select: Statement,
    delete: Statement,
}

impl Receiver for PostgresReceiver {
    async fn receive(&mut self) -> Outcome<Vec<Bytes>> {
        let rows = self.client.query(&self.select, &[&self.mailbox, &self.last]).await?;
        if rows.is_empty() {
            // Nobody would tell it that something came; whoever drains knows that there is no more.
            return std::future::pending().await;
        }
        self.ids = rows.iter().map(|row| row.get(0)).collect();
        self.last = self.ids.last().copied().unwrap_or(self.last);
        Ok(rows.iter().map(|row| Bytes::copy_from_slice(row.get(1))).collect())
    }

    async fn acknowledge(&mut self) -> Outcome<()> {
        self.client.execute(&self.delete, &[&std::mem::take(&mut self.ids)]).await?;
        Ok(())
    }
}
