//! Redis: a stream a mailbox, read from a place on; what is acknowledged is deleted.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, cmd};

use crate::broker::{Broker, Outcome, Receiver, Sender};
use crate::server::{Server, free_port, program};

pub(crate) struct Redis {
    client: Client,
    mailboxes: usize,
}

impl Redis {
    /// A server that syncs its log before it answers, and says so when it is asked.
    pub(crate) async fn start(folder: &Path, mailboxes: usize) -> Outcome<(Self, Server)> {
        let port = free_port()?;
        let mut command = Command::new(program("redis-server")?);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]);
        command.arg(folder).args(["--appendonly", "yes", "--appendfsync", "always"]);
        let server = Server::start(&mut command, folder, port).await?;
        let redis = Self { client: Client::open(("127.0.0.1", port))?, mailboxes };
        let mut connection = redis.connect().await?;
        let of = "append*";
        let set: Vec<(String, String)> =
            cmd("CONFIG").arg("GET").arg(of).query_async(&mut connection).await?;
        for needed in [("appendonly", "yes"), ("appendfsync", "always")] {
            if !set.iter().any(|(name, value)| (name.as_str(), value.as_str()) == needed) {
                return Err(format!("{} is not {}", needed.0, needed.1).into());
            }
        }
        Ok((redis, server))
    }

    async fn connect(&self) -> Outcome<MultiplexedConnection> {
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        Ok(self.client.get_multiplexed_async_connection_with_config(&patient).await?)
    }
}

impl Broker for Redis {
    type Sender = RedisSender;
    type Receiver = RedisReceiver;

    async fn sender(&self) -> Outcome<RedisSender> {
        Ok(RedisSender(self.connect().await?))
    }

    async fn receiver(&self, mailbox: usize) -> Outcome<RedisReceiver> {
        let connection = self.connect().await?;
        Ok(RedisReceiver { connection, key: key(mailbox), last: "0".to_owned(), ids: Vec::new() })
    }

    async fn held(&self) -> Outcome<usize> {
        let (mut connection, mut held) = (self.connect().await?, 0);
        for mailbox in 0..self.mailboxes {
            let mut length = cmd("XLEN");
            held += length.arg(key(mailbox)).query_async::<usize>(&mut connection).await?;
        }
        Ok(held)
    }
}

fn key(mailbox: usize) -> String {
    format!("mailbox:{mailbox}")
}

pub(crate) struct RedisSender(MultiplexedConnection);

impl Sender for RedisSender {
    async fn send(&mut self, mailbox: usize, content: Vec<u8>) -> Outcome<()> {
        let mut add = cmd("XADD");
        add.arg(key(mailbox)).arg("*").arg("c").arg(content);
        Ok(add.query_async(&mut self.0).await?)
    }
}

pub(crate) struct RedisReceiver {
    connection: MultiplexedConnection,
    key: String,
    last: String,
    ids: Vec<String>,
}

impl Receiver for RedisReceiver {
    async fn receive(&mut self) -> Outcome<Vec<Bytes>> {
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(256).arg("BLOCK").arg(0).arg("STREAMS").arg(&self.key);
        let reply: StreamReadReply = read.arg(&self.last).query_async(&mut self.connection).await?;
        let mut contents = Vec::new();
        for entry in reply.keys.into_iter().flat_map(|key| key.ids) {
            let content: Vec<u8> = entry.get("c").ok_or("an entry has no content")?;
            contents.push(content.into());
            self.ids.push(entry.id);
        }
        if let Some(last) = self.ids.last() {
            self.last.clone_from(last);
        }
        Ok(contents)
    }

    async fn acknowledge(&mut self) -> Outcome<()> {
        let mut delete = cmd("XDEL");
        delete.arg(&self.key).arg(std::mem::take(&mut self.ids));
        Ok(delete.query_async(&mut self.connection).await?)
    }
}
