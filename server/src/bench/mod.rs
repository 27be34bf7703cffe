//! `tuckseal-server bench`: what a message costs, measured on a server process of its own. The generator runs on the
//! same machine: compare the processor time a message, not the rate.
//!
//! 1 KB random envelopes; every sender waits for its acceptance before it sends the next. *store* while the receivers
//! are away; *drain* when they come, receive, acknowledge; *online* the whole way with the receivers there; *paced*
//! an open loop, send call to envelope at the receiver; *take* bundles with one-time prekeys; *idle* open streams.

mod device;
mod load;
mod process;
mod wire;

use std::time::Duration;

pub use device::BenchError;

use device::Device;
use process::Process;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArguments {
    /// Messages of each part
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Bytes of an envelope
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Senders, each with a stream of its own
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// Receiving devices
    #[arg(long, default_value_t = 64)]
    mailboxes: usize,
    /// Messages a second of the paced part
    #[arg(long, default_value_t = 500)]
    pace: usize,
    /// Bundles to take
    #[arg(long, default_value_t = 5_000)]
    takes: usize,
    /// Idle streams
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// Nodes; more than one needs --database and --bus
    #[arg(long, default_value_t = 1)]
    nodes: usize,
}

/// Measures and prints one line a part.
///
/// # Errors
/// The server does not start, or does not answer as it should.
pub async fn run(
    arguments: BenchArguments,
    settings: &crate::config::Settings,
) -> Result<(), BenchError> {
    let folder = device::Folder::new()?;
    println!("part     count        /s   p50 ms   p99 ms   server us CPU each");
    idle(folder.path(), settings, arguments.idle).await?;
    let mut nodes = Vec::new();
    for number in 0..arguments.nodes.max(1) {
        nodes.push(Process::start(folder.path(), number, settings).await?);
    }
    let places = load::Places::new(&nodes);
    let mailboxes = device::register(&places, arguments.mailboxes).await?;
    let sent = load::store(&places, &mailboxes, &arguments).await?;
    report("store", &nodes, sent);
    let drained = load::drain(&places, &mailboxes, arguments.messages).await?;
    report("drain", &nodes, drained);
    let online = load::online(&places, &mailboxes, &arguments, None).await?;
    report("online", &nodes, online);
    let paced = load::online(&places, &mailboxes, &arguments, Some(arguments.pace)).await?;
    report("paced", &nodes, paced);
    let taken = load::take(&places, &mailboxes, arguments.takes).await?;
    report("take", &nodes, taken);
    for node in nodes {
        node.stop().await?;
    }
    Ok(())
}

/// What a part did, beside the processor time that the servers had used before it.
struct Part {
    count: usize,
    took: Duration,
    latencies: Vec<Duration>,
    cpu_before: Duration,
}

fn report(name: &str, nodes: &[Process], mut part: Part) {
    let cpu = process::cpu(nodes).saturating_sub(part.cpu_before);
    part.latencies.sort_unstable();
    let at = |share: f64| {
        let last = part.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        part.latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
    };
    let rate = part.count as f64 / part.took.as_secs_f64();
    let each = cpu.as_secs_f64() * 1e6 / part.count.max(1) as f64;
    println!("{name:7} {:6} {rate:9.0} {:8.2} {:8.2} {each:9.1}", part.count, at(0.5), at(0.99));
}

/// In a process that has done nothing before: what registering needed would be there for the streams.
async fn idle(
    folder: &std::path::Path,
    settings: &crate::config::Settings,
    count: usize,
) -> Result<(), BenchError> {
    if count == 0 {
        return Ok(());
    }
    let node = [Process::start(folder, 0, settings).await?];
    let devices: Vec<Device> = device::register(&load::Places::new(&node), count).await?;
    let [node] = node;
    node.stop().await?;
    let node = [Process::start(folder, 0, settings).await?];
    let places = load::Places::new(&node);
    let before = process::memory(&node);
    let mut streams = load::streams(&places, &devices).await?;
    load::settled(&mut streams).await?;
    let after = process::memory(&node);
    let each = after.saturating_sub(before) as f64 / count as f64;
    println!("idle    {count:6} streams, {:.1} KB each in the server", each / 1024.0);
    let [node] = node;
    node.stop().await
}
