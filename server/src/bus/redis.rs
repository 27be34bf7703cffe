//! Redis carries the notices by publish and subscribe, on two connections: one that listens cannot publish. Both are made
//! anew when either fails, or when what the node tells itself does not come back: a line that is dead without having ended.

use std::time::Duration;

use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client, RedisError};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::LocalBus;
use super::nodes::{Addressed, BusError, CONNECT, LOOP, Told, Topics, heed};
use crate::config::Address;
use crate::metrics;

/// Notices that go out in one write.
const BATCH: usize = 256;
/// Time between two words to ourselves, each of which has so long to come back.
const BEAT: Duration = Duration::from_secs(5);
/// Waits between attempts to connect: from the first to the last, doubled.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

pub(super) async fn connect(
    address: &Address,
    topics: Topics,
    local: LocalBus,
    waiting: mpsc::Receiver<Told>,
) -> Result<(), BusError> {
    let unreachable = |source| BusError::RedisUnreachable { address: address.clone(), source };
    let client = Client::open(address.revealed()).map_err(unreachable)?;
    let mut line = Line::open(&client).await.map_err(unreachable)?;
    line.listen(&topics).await.map_err(BusError::RedisRefused)?;
    line.publish(vec![topics.hello()]).await.map_err(BusError::RedisRefused)?;
    if !matches!(timeout(LOOP, line.incoming.next()).await, Ok(Some(_))) {
        return Err(BusError::RedisNoLoop);
    }
    tokio::spawn(carry(client, topics, line, local, waiting));
    Ok(())
}

/// The two connections.
struct Line {
    outgoing: MultiplexedConnection,
    sink: PubSubSink,
    incoming: PubSubStream,
}

/// Why a line is not used any longer.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{0}")]
    Failed(#[from] RedisError),
    #[error("the connection that listens has ended")]
    Ended,
    #[error("what this node tells itself does not come back")]
    Silent,
}

impl Line {
    async fn open(client: &Client) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(LOOP));
        let outgoing = client.get_multiplexed_async_connection_with_config(&config).await?;
        let listening = in_time(CONNECT, client.get_async_pubsub()).await?;
        let (sink, incoming) = listening.split();
        Ok(Self { outgoing, sink, incoming })
    }

    async fn listen(&mut self, topics: &Topics) -> Result<(), RedisError> {
        let channels = [&topics.own[..], &topics.all[..]];
        in_time(LOOP, self.sink.subscribe(&channels[..])).await
    }

    /// When it fails, how much has arrived is not known.
    async fn publish(&mut self, batch: Vec<Addressed>) -> Result<(), RedisError> {
        let mut commands = redis::pipe();
        for (channel, notice) in batch {
            commands.cmd("PUBLISH").arg(channel).arg(&notice[..]).ignore();
        }
        commands.query_async(&mut self.outgoing).await
    }
}

async fn in_time<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisError> {
    let late = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    timeout(limit, asking).await.map_err(late)?
}

/// Until the bus is dropped.
async fn carry(
    client: Client,
    topics: Topics,
    mut line: Line,
    local: LocalBus,
    mut waiting: mpsc::Receiver<Told>,
) {
    while let Err(error) = line.serve(&topics, &local, &mut waiting).await {
        tracing::warn!(%error, "the line to Redis is broken; connecting again");
        let Some(next) = open_again(&client, &topics, &waiting).await else { return };
        tracing::info!("connected to Redis again");
        line = next;
    }
}

/// None if nobody needs the bus any longer.
async fn open_again(
    client: &Client,
    topics: &Topics,
    waiting: &mpsc::Receiver<Told>,
) -> Option<Line> {
    let (mut wait, longest) = AGAIN;
    while !waiting.is_closed() {
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(longest);
        if let Ok(mut line) = Line::open(client).await
            && line.listen(topics).await.is_ok()
        {
            return Some(line);
        }
    }
    None
}

impl Line {
    /// Carries in both directions until the line breaks or, without error, the bus is dropped.
    async fn serve(
        &mut self,
        topics: &Topics,
        local: &LocalBus,
        waiting: &mut mpsc::Receiver<Told>,
    ) -> Result<(), Broken> {
        let (mut batch, mut heard) = (Vec::with_capacity(BATCH), true);
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = self.incoming.next() => {
                    heed(local, message.ok_or(Broken::Ended)?.get_payload_bytes());
                    heard = true;
                }
                count = waiting.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.publish(topics.addressed(batch.split_off(0))).await.inspect_err(|_| {
                        metrics::NOTICES_LOST.add(u64::try_from(count).unwrap_or(u64::MAX));
                    })?;
                }
                _ = beats.tick() => {
                    if !std::mem::take(&mut heard) {
                        return Err(Broken::Silent);
                    }
                    self.publish(vec![topics.hello()]).await?;
                }
            }
        }
    }
}
