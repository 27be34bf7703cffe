//! NATS: JetStream in files, a work queue with a durable consumer a mailbox. Without JetStream the bus of our own nodes.

use std::path::Path;
use std::process::Command;

use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context, Message};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};

use crate::broker::{Broker, Outcome, Receiver, Sender};
use crate::server::{Server, free_port, program};

const STREAM: &str = "mailboxes";

pub(crate) struct Nats {
    port: u16,
}

impl Nats {
    /// Its files sync every two minutes and nothing turns that up to every message: it is not asked.
    pub(crate) async fn start(folder: &Path, mailboxes: usize) -> Outcome<(Self, Server)> {
        let (port, server) = plain(folder, &["-js", "-sd", &folder.to_string_lossy()]).await?;
        let nats = Self { port };
        let stream = Config {
            name: STREAM.to_owned(),
            subjects: vec![format!("{STREAM}.*")],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            ..Config::default()
        };
        let stream = nats.connect().await?.create_stream(stream).await?;
        for mailbox in 0..mailboxes {
            let consumer = pull::Config {
                durable_name: Some(name(mailbox)),
                filter_subject: subject(mailbox),
                ack_policy: AckPolicy::Explicit,
                ..pull::Config::default()
            };
            stream.create_consumer(consumer).await?;
        }
        Ok((nats, server))
    }

    async fn connect(&self) -> Outcome<Context> {
        let client = async_nats::connect(format!("127.0.0.1:{}", self.port)).await?;
        Ok(jetstream::new(client))
    }
}

/// A server with these arguments, and its port.
pub(crate) async fn plain(folder: &Path, arguments: &[&str]) -> Outcome<(u16, Server)> {
    let port = free_port()?;
    let mut command = Command::new(program("nats-server")?);
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]).args(arguments);
    Ok((port, Server::start(&mut command, folder, port).await?))
}

fn name(mailbox: usize) -> String {
    format!("mailbox-{mailbox}")
}

fn subject(mailbox: usize) -> String {
    format!("{STREAM}.{mailbox}")
}

impl Broker for Nats {
    type Sender = NatsSender;
    type Receiver = NatsReceiver;

    async fn sender(&self) -> Outcome<NatsSender> {
        Ok(NatsSender(self.connect().await?))
    }

    async fn receiver(&self, mailbox: usize) -> Outcome<NatsReceiver> {
        let context = self.connect().await?;
        let stream = context.get_stream(STREAM).await?;
        let consumer = stream.get_consumer::<pull::Config>(&name(mailbox)).await?;
        Ok(NatsReceiver {
            messages: consumer.messages().await?,
            received: Vec::new(),
            client: context.client(),
        })
    }

    async fn held(&self) -> Outcome<usize> {
        let mut stream = self.connect().await?.get_stream(STREAM).await?;
        Ok(stream.info().await?.state.messages as usize)
    }
}

pub(crate) struct NatsSender(Context);

impl Sender for NatsSender {
    async fn send(&mut self, mailbox: usize, content: Vec<u8>) -> Outcome<()> {
        self.0.publish(subject(mailbox), content.into()).await?.await?;
        Ok(())
    }
}

pub(crate) struct NatsReceiver {
    messages: pull::Stream,
    received: Vec<Message>,
    client: Client,
}

impl Receiver for NatsReceiver {
    async fn receive(&mut self) -> Outcome<Vec<Bytes>> {
        let mut next = self.messages.next().await;
        loop {
            self.received.push(next.ok_or("the consumer ended")??);
            match self.messages.next().now_or_never() {
                Some(more) => next = more,
                None => {
                    return Ok(self
                        .received
                        .iter()
                        .map(|message| message.payload.clone())
                        .collect());
                }
            }
        }
    }

    async fn acknowledge(&mut self) -> Outcome<()> {
        for message in self.received.drain(..) {
            message.ack().await?;
        }
        Ok(self.client.flush().await?)
    }
}
