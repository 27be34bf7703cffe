//! The work: senders, receivers, takers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tuckseal::service::{
    Ack, DeviceMessage, StreamSubmission, Submission, Submissions, client_frame, server_frame,
    submission_answer,
};

use super::device::{BenchError, Device};
use super::part::{Part, Watch};
use super::process::Process;
use super::tls::Tls;
use super::wire::{Http, Stream};
use super::work::Work;

/// Takers at the same time.
const TAKERS: usize = 32;

/// Where the nodes are; whoever comes next goes to the next.
pub(super) struct Places<'a> {
    nodes: &'a [Process],
    /// Whose processor time counts.
    servers: Vec<u32>,
}

impl<'a> Places<'a> {
    /// Nodes, and processes that work for them.
    pub(super) fn new(nodes: &'a [Process], with: &[u32]) -> Self {
        let servers = nodes.iter().map(Process::id).chain(with.iter().copied()).collect();
        Self { nodes, servers }
    }

    pub(super) fn at(&self, number: usize) -> SocketAddr {
        let node = self.nodes.get(number % self.nodes.len().max(1));
        node.map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |node| node.address)
    }
}

/// A stream of each device, its backlog not read yet.
pub(super) async fn streams(
    places: &Places<'_>,
    devices: &[Device],
    tls: Option<&Tls>,
) -> Result<Vec<Stream>, BenchError> {
    let mut streams = Vec::with_capacity(devices.len());
    for (n, device) in devices.iter().enumerate() {
        // Behind the submissions' nodes by one: with several nodes every message has to be woken over the bus.
        let address = places.at(n + 1);
        let http = match tls {
            None => Http::connect(address).await?,
            Some(tls) => Http::connect_by_tls(address, tls).await?,
        };
        streams.push(http.upgrade(&device.bearer()).await?);
    }
    Ok(streams)
}

/// Waits until the server has nothing more to say to any of them, and counts the envelopes that it had.
pub(super) async fn settled(streams: &mut [Stream]) -> Result<usize, BenchError> {
    let mut envelopes = 0;
    for stream in streams {
        loop {
            match stream.next().await? {
                server_frame::Body::QueueEmpty(_) => break,
                server_frame::Body::Delivery(delivery) => envelopes += delivery.envelopes.len(),
                _ => {}
            }
        }
    }
    Ok(envelopes)
}

/// So many senders, each waiting for its acceptance before it sends the next; the receivers are away.
pub(super) async fn store(
    places: &Places<'_>,
    devices: &[Device],
    senders: usize,
    work: &Arc<Work>,
) -> Result<Part, BenchError> {
    let watch = Watch::start(&places.servers);
    let latencies = send_all(places, devices, (senders, None), work).await?;
    Ok(watch.stop(latencies.len(), latencies).await)
}

/// All senders, each waiting for its acceptance, or all together at a pace. Gives the times to the acceptance.
async fn send_all(
    places: &Places<'_>,
    devices: &[Device],
    (senders, pace): (usize, Option<usize>),
    work: &Arc<Work>,
) -> Result<Vec<Duration>, BenchError> {
    let devices = Arc::new(devices.to_vec());
    let wait = pace.map(|pace| Duration::from_secs(1) * senders as u32 / pace.max(1) as u32);
    let senders = (0..senders).map(|n| {
        let (work, devices, address) = (Arc::clone(work), Arc::clone(&devices), places.at(n));
        tokio::spawn(send_some(address, devices, work, wait))
    });
    let senders: Vec<_> = senders.collect();
    let mut latencies = Vec::with_capacity(work.count());
    for sender in senders {
        latencies.extend(sender.await??);
    }
    Ok(latencies)
}

async fn send_some(
    address: SocketAddr,
    devices: Arc<Vec<Device>>,
    work: Arc<Work>,
    wait: Option<Duration>,
) -> Result<Vec<Duration>, BenchError> {
    let mut stream = Http::connect(address).await?.upgrade("").await?;
    let begun = Instant::now();
    let mut latencies = Vec::new();
    // Senders at a pace begin one after another, not all at once.
    let mut next = begun + wait.map_or(Duration::ZERO, |wait| wait.mul_f64(rand::random()));
    while let Some(number) = work.take() {
        if let Some(wait) = wait {
            tokio::time::sleep_until(next.into()).await;
            next += wait;
        }
        let place = rand::random::<u64>() as usize % devices.len().max(1);
        let Some(device) = devices.get(place) else { break };
        let sent = Instant::now();
        stream.send(submission(device, work.content(number))).await?;
        let server_frame::Body::SubmissionAnswers(answers) = stream.next().await? else {
            return Err(BenchError::Answer);
        };
        let accepted = |answer: &tuckseal::service::SubmissionAnswer| {
            matches!(answer.result, Some(submission_answer::Result::Accepted(_)))
        };
        if answers.answers.len() != 1 || !answers.answers.iter().all(accepted) {
            return Err(BenchError::Answer);
        }
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}

fn submission(device: &Device, content: Vec<u8>) -> client_frame::Body {
    let message = DeviceMessage {
        device_id: 1,
        registration_id: device.registration_id,
        content: content.into(),
    };
    let id: [u8; 16] = rand::random();
    let submission = Submission {
        submission_id: Bytes::copy_from_slice(&id),
        messages: vec![message],
        ..Submission::default()
    };
    client_frame::Body::Submissions(Submissions {
        submissions: vec![StreamSubmission {
            account: Bytes::copy_from_slice(&device.account),
            access_key: Bytes::copy_from_slice(&device.access_key),
            submission: Some(submission),
        }],
    })
}

/// What was stored comes, is acknowledged and is gone.
pub(super) async fn drain(
    places: &Places<'_>,
    devices: &[Device],
    work: &Arc<Work>,
) -> Result<Part, BenchError> {
    let watch = Watch::start(&places.servers);
    let streams = streams(places, devices, None).await?;
    let receivers = streams.into_iter().map(|stream| receive(stream, work));
    let received = try_join_all(receivers).await?;
    let part = watch.stop(work.count(), Vec::new()).await;
    drop(received);
    empty(places, devices).await?;
    Ok(part)
}

/// That nothing is delivered again.
async fn empty(places: &Places<'_>, devices: &[Device]) -> Result<(), BenchError> {
    let again = settled(&mut streams(places, devices, None).await?).await?;
    if again == 0 { Ok(()) } else { Err(BenchError::NotDeleted(again)) }
}

/// Receives and acknowledges until all receivers together have got all. Gives the times on the way.
async fn receive(mut stream: Stream, work: &Work) -> Result<(Stream, Vec<Duration>), BenchError> {
    let (mut latencies, mut finished) = (Vec::new(), std::pin::pin!(work.finished()));
    loop {
        let body = tokio::select! {
            body = stream.next() => body?,
            () = &mut finished => return Ok((stream, latencies)),
        };
        let server_frame::Body::Delivery(delivery) = body else { continue };
        let mut ids = Vec::with_capacity(delivery.envelopes.len());
        for envelope in delivery.envelopes {
            latencies.push(work.delivered(&envelope.content)?);
            ids.push(envelope.id);
        }
        stream.send(client_frame::Body::Ack(Ack { ids })).await?;
    }
}

/// The whole way, at full speed or at a pace.
pub(super) async fn online(
    places: &Places<'_>,
    devices: &[Device],
    (senders, pace): (usize, Option<usize>),
    work: &Arc<Work>,
) -> Result<Part, BenchError> {
    let streams = streams(places, devices, None).await?;
    let watch = Watch::start(&places.servers);
    let receivers: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            let work = Arc::clone(work);
            tokio::spawn(async move { receive(stream, &work).await })
        })
        .collect();
    send_all(places, devices, (senders, pace), work).await?;
    let (mut latencies, mut received) = (Vec::with_capacity(work.count()), Vec::new());
    for receiver in receivers {
        let (stream, times) = receiver.await??;
        latencies.extend(times);
        received.push(stream);
    }
    let part = watch.stop(latencies.len(), latencies).await;
    drop(received);
    empty(places, devices).await?;
    Ok(part)
}

/// Bundles, each with the access key of its account.
pub(super) async fn take(
    places: &Places<'_>,
    devices: &[Device],
    count: usize,
) -> Result<Part, BenchError> {
    let watch = Watch::start(&places.servers);
    let left = Arc::new(AtomicUsize::new(count));
    let devices = Arc::new(devices.to_vec());
    let takers: Vec<_> = (0..TAKERS)
        .map(|n| {
            let (left, devices, address) = (Arc::clone(&left), Arc::clone(&devices), places.at(n));
            tokio::spawn(async move {
                let (mut http, mut latencies) = (Http::connect(address).await?, Vec::new());
                let take = |n: usize| n.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    let place = rand::random::<u64>() as usize % devices.len().max(1);
                    let Some(device) = devices.get(place) else { break };
                    let account = uuid::Uuid::from_bytes(device.account).hyphenated();
                    let begun = Instant::now();
                    let request = format!("GET /v1/keys/{account}/*");
                    // As the client asks: the answer is kept for a repetition.
                    let id = format!("request-id: {:032x}\r\n", rand::random::<u128>());
                    http.ask(&request, &(device.access_header() + &id), &[]).await?;
                    latencies.push(begun.elapsed());
                }
                Ok::<_, BenchError>(latencies)
            })
        })
        .collect();
    let mut latencies = Vec::with_capacity(count);
    for taker in takers {
        latencies.extend(taker.await??);
    }
    Ok(watch.stop(latencies.len(), latencies).await)
}
