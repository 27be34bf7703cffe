//! Mosquitto: MQTT at least once (QoS 1), a persistent session a mailbox.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, Publish, QoS};

use crate::broker::{Broker, Outcome, Receiver, Sender};
use crate::server::{Server, free_port, program};

/// As the relay has.
const UNACKNOWLEDGED: u16 = 256;
/// What is held is delivered to a session that comes back at once.
const QUIET: Duration = Duration::from_millis(500);

pub(crate) struct Mosquitto {
    port: u16,
    mailboxes: usize,
}

impl Mosquitto {
    /// Its file is written every half an hour and when it ends, as it comes.
    pub(crate) async fn start(folder: &Path, mailboxes: usize) -> Outcome<(Self, Server)> {
        let port = free_port()?;
        let user = if rustix::process::geteuid().is_root() { "user root\n" } else { "" };
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\n{user}persistence true\npersistence_location {}/\n\
             max_queued_messages 0\nmax_inflight_messages {UNACKNOWLEDGED}\nset_tcp_nodelay true\n",
            folder.display()
        );
        let file = folder.join("mosquitto.conf");
        std::fs::write(&file, settings)?;
        let mut command = Command::new(program("mosquitto")?);
        let server = Server::start(command.arg("-c").arg(file), folder, port).await?;
        let mosquitto = Self { port, mailboxes };
        for mailbox in 0..mailboxes {
            mosquitto.subscribe(mailbox).await?;
        }
        Ok((mosquitto, server))
    }

    async fn subscribe(&self, mailbox: usize) -> Outcome<()> {
        let (client, mut events) = self.session(mailbox);
        client.subscribe(topic(mailbox), QoS::AtLeastOnce).await?;
        while !matches!(events.poll().await?, Event::Incoming(Packet::SubAck(_))) {}
        leave(&client, &mut events).await
    }

    fn session(&self, mailbox: usize) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(topic(mailbox), "127.0.0.1", self.port);
        options.set_clean_session(false).set_manual_acks(true);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut events) = AsyncClient::new(options, usize::from(UNACKNOWLEDGED));
        events.network_options.set_tcp_nodelay(true);
        (client, events)
    }
}

/// Its broker closes when it has read what came before.
async fn leave(client: &AsyncClient, events: &mut EventLoop) -> Outcome<()> {
    client.disconnect().await?;
    while events.poll().await.is_ok() {}
    Ok(())
}

fn topic(mailbox: usize) -> String {
    format!("mailbox-{mailbox}")
}

impl Broker for Mosquitto {
    type Sender = MosquittoSender;
    type Receiver = MosquittoReceiver;

    async fn sender(&self) -> Outcome<MosquittoSender> {
        let name = format!("sender-{:x}", rand::random::<u64>());
        let mut options = MqttOptions::new(name, "127.0.0.1", self.port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut events) = AsyncClient::new(options, 1);
        events.network_options.set_tcp_nodelay(true);
        while !matches!(events.poll().await?, Event::Incoming(Packet::ConnAck(_))) {}
        Ok(MosquittoSender { client, events })
    }

    async fn receiver(&self, mailbox: usize) -> Outcome<MosquittoReceiver> {
        let (client, mut events) = self.session(mailbox);
        loop {
            if let Event::Incoming(Packet::ConnAck(connected)) = events.poll().await? {
                if !connected.session_present {
                    return Err("a session was not kept".into());
                }
                return Ok(MosquittoReceiver {
                    client,
                    events,
                    received: Vec::new(),
                    early: Vec::new(),
                });
            }
        }
    }

    async fn held(&self) -> Outcome<usize> {
        let mut sessions = Vec::with_capacity(self.mailboxes);
        for mailbox in 0..self.mailboxes {
            sessions.push(self.receiver(mailbox).await?);
        }
        let begun = std::time::Instant::now();
        let mut held = 0;
        for session in &mut sessions {
            let left = QUIET.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
            while let Ok(contents) = tokio::time::timeout(left, session.receive()).await {
                held += contents?.len();
            }
        }
        Ok(held)
    }
}

pub(crate) struct MosquittoSender {
    client: AsyncClient,
    events: EventLoop,
}

impl Sender for MosquittoSender {
    async fn send(&mut self, mailbox: usize, content: Vec<u8>) -> Outcome<()> {
        self.client.publish(topic(mailbox), QoS::AtLeastOnce, false, content).await?;
        while !matches!(self.events.poll().await?, Event::Incoming(Packet::PubAck(_))) {}
        Ok(())
    }
}

pub(crate) struct MosquittoReceiver {
    client: AsyncClient,
    events: EventLoop,
    received: Vec<Publish>,
    /// Came while acknowledgements were on their way.
    early: Vec<Publish>,
}

impl Receiver for MosquittoReceiver {
    async fn receive(&mut self) -> Outcome<Vec<Bytes>> {
        self.received = std::mem::take(&mut self.early);
        while self.received.is_empty() {
            if let Event::Incoming(Packet::Publish(publish)) = self.events.poll().await? {
                self.received.push(publish);
            }
        }
        Ok(self.received.iter().map(|publish| publish.payload.clone()).collect())
    }

    async fn acknowledge(&mut self) -> Outcome<()> {
        let mut left = self.received.len();
        for publish in self.received.drain(..) {
            self.client.try_ack(&publish)?;
        }
        while left > 0 {
            match self.events.poll().await? {
                Event::Outgoing(Outgoing::PubAck(_)) => left -= 1,
                Event::Incoming(Packet::Publish(publish)) => self.early.push(publish),
                _ => {}
            }
        }
        Ok(())
    }

    async fn leave(mut self) -> Outcome<()> {
        leave(&self.client, &mut self.events).await
    }
}
