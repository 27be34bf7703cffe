//! NATS core carries the notices. Its client reconnects by itself.

use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::LocalBus;
use super::nodes::{BusError, CONNECT, LOOP, Told, Topics, heed};
use crate::config::Address;
use crate::metrics;

/// Notices that are looked at together.
const BATCH: usize = 256;

pub(super) async fn connect(
    address: &Address,
    topics: Topics,
    local: LocalBus,
    waiting: mpsc::Receiver<Told>,
) -> Result<(), BusError> {
    let options = ConnectOptions::new().name("tuckseal-server").connection_timeout(CONNECT);
    let client = options
        .connect(address.revealed())
        .await
        .map_err(|source| BusError::Unreachable { address: address.clone(), source })?;
    let own = client.subscribe(topics.own.clone()).await?;
    let all = client.subscribe(topics.all.clone()).await?;
    let mut incoming = futures_util::stream::select(own, all);
    let (subject, hello) = topics.hello();
    let looped = async {
        let published = client.publish(subject, hello).await.is_ok();
        published && client.flush().await.is_ok() && incoming.next().await.is_some()
    };
    if !tokio::time::timeout(LOOP, looped).await.unwrap_or(false) {
        return Err(BusError::NoLoop);
    }
    tokio::spawn(async move {
        while let Some(message) = incoming.next().await {
            heed(&local, &message.payload);
        }
    });
    tokio::spawn(publish(client, topics, waiting));
    Ok(())
}

async fn publish(client: Client, topics: Topics, mut waiting: mpsc::Receiver<Told>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        // Those who were stored together are about to say so.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
        for (subject, notice) in topics.addressed(batch.split_off(0)) {
            if let Err(error) = client.publish(subject, notice).await {
                tracing::warn!(%error, "a notice was not sent");
                metrics::NOTICES_LOST.add(1);
            }
        }
    }
}
