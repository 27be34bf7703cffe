//! RabbitMQ: a quorum queue a mailbox, of the one member that one node has; publisher confirms.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use rustix::process::Signal;

use crate::broker::{Broker, Outcome, Receiver, Sender};
use crate::server::{Server, free_port, program};

/// Persistent.
const PERSISTENT: u8 = 2;
/// As the relay has.
const UNACKNOWLEDGED: u16 = 256;

pub(crate) struct RabbitMq {
    port: u16,
    mailboxes: usize,
}

impl RabbitMq {
    /// A node without plugins, with a port mapper of its own; and all processes of it.
    pub(crate) async fn start(folder: &Path, mailboxes: usize) -> Outcome<(Self, Vec<Server>)> {
        let (mapper_port, port, between) = (free_port()?, free_port()?, free_port()?);
        let mapper_port = mapper_port.to_string();
        let mut mapper = Command::new(program("epmd")?);
        mapper.args(["-address", "127.0.0.1", "-port", &mapper_port]);
        let mapper = Server::start(&mut mapper, folder, mapper_port.parse()?).await?;
        let mut command = Command::new(program("rabbitmq-server")?);
        command.current_dir(folder).env("HOME", folder).env("ERL_EPMD_PORT", mapper_port);
        for (name, text) in [
            ("enabled_plugins", "[]."),
            ("environment", ""),
            ("settings.conf", ""),
            ("advanced.config", "[]."),
        ] {
            std::fs::write(folder.join(name), text)?;
        }
        command.env("RABBITMQ_CONF_ENV_FILE", folder.join("environment"));
        command.env("RABBITMQ_CONFIG_FILE", folder.join("settings.conf"));
        command.env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"));
        command.env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"));
        command.env("RABBITMQ_LOG_BASE", folder.join("log"));
        command.env("RABBITMQ_NODENAME", format!("bench-{port}@localhost"));
        command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_NODE_PORT", port.to_string());
        command.env("RABBITMQ_DIST_PORT", between.to_string());
        // The virtual machine takes the place of the script that starts it.
        command.env("RABBITMQ_ALLOW_INPUT", "1").arg("-noinput");
        let server = Server::start(&mut command, folder, port).await?.ended_by(Signal::KILL);
        let rabbit = Self { port, mailboxes };
        rabbit.make_queues().await?;
        Ok((rabbit, vec![server, mapper]))
    }

    async fn make_queues(&self) -> Outcome<()> {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        for mailbox in 0..self.mailboxes {
            declare(&channel, mailbox, "quorum").await?;
        }
        // It would be taken for the same queue if it were not a quorum queue.
        if declare(&channel, 0, "classic").await.is_ok() {
            return Err("it did not make quorum queues".into());
        }
        Ok(())
    }

    async fn connect(&self) -> Outcome<Connection> {
        let address = format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port);
        Ok(Connection::connect(&address, ConnectionProperties::default()).await?)
    }
}

async fn declare(channel: &Channel, mailbox: usize, kind: &str) -> lapin::Result<usize> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from(kind)));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(name(mailbox).into(), durable, arguments).await?;
    Ok(queue.message_count() as usize)
}

fn name(mailbox: usize) -> String {
    format!("mailbox-{mailbox}")
}

impl Broker for RabbitMq {
    type Sender = RabbitSender;
    type Receiver = RabbitReceiver;

    async fn sender(&self) -> Outcome<RabbitSender> {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(RabbitSender { channel, _connection: connection })
    }

    async fn receiver(&self, mailbox: usize) -> Outcome<RabbitReceiver> {
        let connection = self.connect().await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(UNACKNOWLEDGED, BasicQosOptions::default()).await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer =
            channel.basic_consume(name(mailbox).into(), "".into(), options, none).await?;
        Ok(RabbitReceiver { consumer, last: 0, channel, _connection: connection })
    }

    async fn held(&self) -> Outcome<usize> {
        let connection = self.connect().await?;
        let (channel, mut held) = (connection.create_channel().await?, 0);
        for mailbox in 0..self.mailboxes {
            held += declare(&channel, mailbox, "quorum").await?;
        }
        connection.close(200, "".into()).await?;
        Ok(held)
    }
}

pub(crate) struct RabbitSender {
    channel: Channel,
    _connection: Connection,
}

impl Sender for RabbitSender {
    async fn send(&mut self, mailbox: usize, content: Vec<u8>) -> Outcome<()> {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let to = name(mailbox).into();
        let confirm = self.channel.basic_publish("".into(), to, options, &content, properties);
        match confirm.await?.await? {
            Confirmation::Ack(None) => Ok(()),
            _ => Err("a message was not accepted".into()),
        }
    }
}

pub(crate) struct RabbitReceiver {
    consumer: Consumer,
    last: u64,
    channel: Channel,
    _connection: Connection,
}

impl Receiver for RabbitReceiver {
    async fn receive(&mut self) -> Outcome<Vec<Bytes>> {
        let mut contents = Vec::new();
        let mut next = self.consumer.next().await;
        loop {
            let delivery = next.ok_or("the queue closed")??;
            self.last = delivery.delivery_tag;
            contents.push(delivery.data.into());
            match self.consumer.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(contents),
            }
        }
    }

    async fn acknowledge(&mut self) -> Outcome<()> {
        Ok(self.channel.basic_ack(self.last, BasicAckOptions { multiple: true }).await?)
    }
}
