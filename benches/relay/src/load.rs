//! The work of `tuckseal-server bench` at another broker: the same parts, the same contents, the same checks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Load;
use crate::broker::{Broker, Outcome, Receiver as _, Sender as _};
use crate::part::{Figures, Part, Watch};
use crate::work::Work;

/// A broker that deletes later than it is told to gets so long.
const DELETING: Duration = Duration::from_secs(30);
/// A part that takes longer has lost something.
const PART: Duration = Duration::from_secs(600);

/// A broker with its server processes under one load.
struct Run<B> {
    broker: Arc<B>,
    servers: Vec<u32>,
    load: Load,
}

/// All parts.
pub(crate) async fn measure<B: Broker>(
    broker: B,
    servers: Vec<u32>,
    load: Load,
) -> Outcome<Vec<Figures>> {
    let run = Run { broker: Arc::new(broker), servers, load };
    let work = |count| Arc::new(Work::new(count, load.size));
    let alone = work(load.messages.div_ceil(100));
    let mut figures = vec![run.store(1, &alone).await?.figures("alone")];
    run.drain(&alone).await?;
    let stored = work(load.messages);
    figures.push(run.store(load.senders, &stored).await?.figures("store"));
    figures.push(run.drain(&stored).await?.figures("drain"));
    if B::TELLS {
        figures.push(run.online(&work(load.messages)).await?.figures("online"));
    }
    Ok(figures)
}

impl<B: Broker> Run<B> {
    async fn store(&self, senders: usize, work: &Arc<Work>) -> Outcome<Part> {
        let watch = Watch::start(&self.servers);
        let latencies = self.send_all(senders, work).await?;
        Ok(watch.stop(latencies.len(), latencies).await)
    }

    async fn send_all(&self, senders: usize, work: &Arc<Work>) -> Outcome<Vec<Duration>> {
        let senders: Vec<_> = (0..senders)
            .map(|_| {
                let (broker, work) = (Arc::clone(&self.broker), Arc::clone(work));
                tokio::spawn(send_some(broker, work, self.load.mailboxes))
            })
            .collect();
        let mut latencies = Vec::with_capacity(work.count());
        for sender in senders {
            latencies.extend(sender.await??);
        }
        Ok(latencies)
    }

    async fn drain(&self, work: &Arc<Work>) -> Outcome<Part> {
        let watch = Watch::start(&self.servers);
        let receiving = self.receive_all(work, None);
        let (receivers, _): (Vec<_>, Vec<_>) = within(work, receiving).await?.into_iter().unzip();
        let part = watch.stop(work.count(), Vec::new()).await;
        self.leave(receivers).await?;
        Ok(part)
    }

    async fn online(&self, work: &Arc<Work>) -> Outcome<Part> {
        let mut receivers = Vec::with_capacity(self.load.mailboxes);
        for mailbox in 0..self.load.mailboxes {
            receivers.push(self.broker.receiver(mailbox).await?);
        }
        let watch = Watch::start(&self.servers);
        let receiving = self.receive_all(work, Some(receivers));
        let both = async { tokio::try_join!(receiving, self.send_all(self.load.senders, work)) };
        let (received, _) = within(work, both).await?;
        let (receivers, latencies): (Vec<_>, Vec<_>) = received.into_iter().unzip();
        let part = watch.stop(work.count(), latencies.concat()).await;
        self.leave(receivers).await?;
        Ok(part)
    }

    /// Of receivers that are there, or of new ones.
    async fn receive_all(
        &self,
        work: &Arc<Work>,
        receivers: Option<Vec<B::Receiver>>,
    ) -> Outcome<Vec<(B::Receiver, Vec<Duration>)>> {
        let mut there: Vec<_> = receivers.into_iter().flatten().map(Some).collect();
        there.resize_with(self.load.mailboxes, || None);
        let tasks: Vec<_> = there
            .into_iter()
            .enumerate()
            .map(|(mailbox, receiver)| {
                let (broker, work) = (Arc::clone(&self.broker), Arc::clone(work));
                tokio::spawn(async move {
                    let receiver = match receiver {
                        Some(receiver) => receiver,
                        None => broker.receiver(mailbox).await?,
                    };
                    receive::<B>(receiver, &work).await
                })
            })
            .collect();
        let mut received = Vec::with_capacity(tasks.len());
        for task in tasks {
            received.push(task.await??);
        }
        Ok(received)
    }

    async fn leave(&self, receivers: Vec<B::Receiver>) -> Outcome<()> {
        for receiver in receivers {
            receiver.leave().await?;
        }
        self.empty().await
    }

    /// Nothing acknowledged is still there.
    async fn empty(&self) -> Outcome<()> {
        let begun = Instant::now();
        loop {
            match self.broker.held().await? {
                0 => return Ok(()),
                held if begun.elapsed() > DELETING => {
                    return Err(format!("{held} messages are still there, all acknowledged").into());
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn within<T>(work: &Work, part: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let late = |_| format!("{} of {} messages did not come", work.left(), work.count());
    tokio::time::timeout(PART, part).await.map_err(late)?
}

async fn send_some<B: Broker>(
    broker: Arc<B>,
    work: Arc<Work>,
    mailboxes: usize,
) -> Outcome<Vec<Duration>> {
    let (mut sender, mut latencies) = (broker.sender().await?, Vec::new());
    while let Some(number) = work.take() {
        let mailbox = rand::random::<u64>() as usize % mailboxes;
        let sent = Instant::now();
        sender.send(mailbox, work.content(number)).await?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

async fn receive<B: Broker>(
    mut receiver: B::Receiver,
    work: &Work,
) -> Outcome<(B::Receiver, Vec<Duration>)> {
    let (mut latencies, mut finished) = (Vec::new(), std::pin::pin!(work.finished()));
    loop {
        let contents = tokio::select! {
            contents = receiver.receive() => contents?,
            () = &mut finished => return Ok((receiver, latencies)),
        };
        for content in &contents {
            latencies.push(work.delivered(content)?);
        }
        receiver.acknowledge().await?;
    }
}
