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
use super::process::{self, Process};
use super::wire::{Http, Stream};
use super::{BenchArguments, Part};

/// Takers at the same time.
const TAKERS: usize = 32;

/// Where the nodes are; whoever comes next goes to the next.
pub(super) struct Places<'a>(&'a [Process]);

impl<'a> Places<'a> {
    pub(super) fn new(nodes: &'a [Process]) -> Self {
        Self(nodes)
    }

    pub(super) fn at(&self, number: usize) -> SocketAddr {
        let node = self.0.get(number % self.0.len().max(1));
        node.map_or(SocketAddr::from(([127, 0, 0, 1], 0)), |node| node.address)
    }

    fn begin(&self) -> (Instant, Duration) {
        (Instant::now(), process::cpu(self.0))
    }
}

/// A stream of each device, its backlog not read yet.
pub(super) async fn streams(
    places: &Places<'_>,
    devices: &[Device],
) -> Result<Vec<Stream>, BenchError> {
    let mut streams = Vec::with_capacity(devices.len());
    for (n, device) in devices.iter().enumerate() {
        // Behind the submissions' nodes by one: with several nodes every message has to be woken over the bus.
        let http = Http::connect(places.at(n + 1)).await?;
        streams.push(http.upgrade(&device.bearer()).await?);
    }
    Ok(streams)
}

/// Waits until the server has nothing more to say to any of them.
pub(super) async fn settled(streams: &mut [Stream]) -> Result<(), BenchError> {
    for stream in streams {
        while !matches!(stream.next().await?, server_frame::Body::QueueEmpty(_)) {}
    }
    Ok(())
}

pub(super) async fn store(
    places: &Places<'_>,
    devices: &[Device],
    arguments: &BenchArguments,
) -> Result<Part, BenchError> {
    let (begun, cpu_before) = places.begin();
    let latencies = send_all(places, devices, arguments, None).await?;
    Ok(Part { count: latencies.len(), took: begun.elapsed(), latencies, cpu_before })
}

/// All senders, each waiting for its acceptance, or all together at a pace. Gives the times to the acceptance.
async fn send_all(
    places: &Places<'_>,
    devices: &[Device],
    arguments: &BenchArguments,
    pace: Option<usize>,
) -> Result<Vec<Duration>, BenchError> {
    let left = Arc::new(AtomicUsize::new(arguments.messages));
    let (devices, size) = (Arc::new(devices.to_vec()), arguments.size);
    let wait =
        pace.map(|pace| Duration::from_secs(1) * arguments.senders as u32 / pace.max(1) as u32);
    let senders = (0..arguments.senders).map(|n| {
        let (left, devices, address) = (Arc::clone(&left), Arc::clone(&devices), places.at(n));
        tokio::spawn(send_some(address, devices, size, (left, wait)))
    });
    let senders: Vec<_> = senders.collect();
    let mut latencies = Vec::with_capacity(arguments.messages);
    for sender in senders {
        latencies.extend(sender.await??);
    }
    Ok(latencies)
}

async fn send_some(
    address: SocketAddr,
    devices: Arc<Vec<Device>>,
    size: usize,
    (left, wait): (Arc<AtomicUsize>, Option<Duration>),
) -> Result<Vec<Duration>, BenchError> {
    let mut stream = Http::connect(address).await?.upgrade("").await?;
    let begun = Instant::now();
    let mut latencies = Vec::new();
    // Senders at a pace begin one after another, not all at once.
    let mut next = begun + wait.map_or(Duration::ZERO, |wait| wait.mul_f64(rand::random()));
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        if let Some(wait) = wait {
            tokio::time::sleep_until(next.into()).await;
            next += wait;
        }
        let place = rand::random::<u64>() as usize % devices.len().max(1);
        let Some(device) = devices.get(place) else { break };
        let sent = Instant::now();
        stream.send(submission(device, size, sent)).await?;
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

/// Random bytes that begin with the time of sending, in nanoseconds of this process.
fn submission(device: &Device, size: usize, sent: Instant) -> client_frame::Body {
    let mut content = vec![0; size.max(8)];
    rand::Rng::fill_bytes(&mut rand::rng(), &mut content);
    let (time, _) = content.split_at_mut(8);
    time.copy_from_slice(&(sent.duration_since(*START).as_nanos() as u64).to_be_bytes());
    let message = DeviceMessage {
        device_id: 1,
        registration_id: device.registration_id,
        content: content.into(),
    };
    let id: [u8; 16] = rand::random();
    let submission = Submission {
        submission_id: Bytes::copy_from_slice(&id),
        messages: vec![message],
        background: false,
    };
    client_frame::Body::Submissions(Submissions {
        submissions: vec![StreamSubmission {
            account: Bytes::copy_from_slice(&device.account),
            access_key: Bytes::copy_from_slice(&device.access_key),
            submission: Some(submission),
        }],
    })
}

static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

pub(super) async fn drain(
    places: &Places<'_>,
    devices: &[Device],
    count: usize,
) -> Result<Part, BenchError> {
    let (begun, cpu_before) = places.begin();
    let streams = streams(places, devices).await?;
    let left = Arc::new(AtomicUsize::new(count));
    let receivers = streams.into_iter().map(|stream| receive(stream, Arc::clone(&left)));
    try_join_all(receivers).await?;
    Ok(Part { count, took: begun.elapsed(), latencies: Vec::new(), cpu_before })
}

/// Receives and acknowledges until all receivers together have got all. Gives the times on the way.
async fn receive(
    mut stream: Stream,
    left: Arc<AtomicUsize>,
) -> Result<(Stream, Vec<Duration>), BenchError> {
    let mut latencies = Vec::new();
    while left.load(Ordering::Relaxed) > 0 {
        let Ok(body) = tokio::time::timeout(Duration::from_millis(50), stream.next()).await else {
            continue;
        };
        let server_frame::Body::Delivery(delivery) = body? else { continue };
        let now = START.elapsed();
        for envelope in &delivery.envelopes {
            let sent = envelope.content.first_chunk().map_or(0, |time| u64::from_be_bytes(*time));
            latencies.push(now.saturating_sub(Duration::from_nanos(sent)));
        }
        let ids: Vec<Bytes> = delivery.envelopes.into_iter().map(|envelope| envelope.id).collect();
        let count = ids.len();
        stream.send(client_frame::Body::Ack(Ack { ids })).await?;
        left.fetch_sub(count, Ordering::Relaxed);
    }
    Ok((stream, latencies))
}

/// The whole way, at full speed or at a pace.
pub(super) async fn online(
    places: &Places<'_>,
    devices: &[Device],
    arguments: &BenchArguments,
    pace: Option<usize>,
) -> Result<Part, BenchError> {
    let streams = streams(places, devices).await?;
    // A paced part lasts ten seconds.
    let messages = pace.map_or(arguments.messages, |pace| (pace * 10).min(arguments.messages));
    let arguments = BenchArguments { messages, ..arguments.clone() };
    let left = Arc::new(AtomicUsize::new(messages));
    let (begun, cpu_before) = places.begin();
    let receivers: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::spawn(receive(stream, Arc::clone(&left))))
        .collect();
    send_all(places, devices, &arguments, pace).await?;
    let mut latencies = Vec::with_capacity(messages);
    for receiver in receivers {
        latencies.extend(receiver.await??.1);
    }
    Ok(Part { count: latencies.len(), took: begun.elapsed(), latencies, cpu_before })
}

/// Bundles, each with the access key of its account.
pub(super) async fn take(
    places: &Places<'_>,
    devices: &[Device],
    count: usize,
) -> Result<Part, BenchError> {
    let (begun, cpu_before) = places.begin();
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
                    http.ask(&request, &device.access_header(), &[]).await?;
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
    Ok(Part { count: latencies.len(), took: begun.elapsed(), latencies, cpu_before })
}
