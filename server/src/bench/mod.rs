//! `tuckseal-server bench`: what a message costs, measured on a server process of its own. The generator runs on the
//! same machine: compare the processor time a message, not the rate.
//!
//! 1 KB random envelopes; every sender waits for its acceptance before it sends the next. Each envelope is compared with
//! what was sent, and none may come again after its acknowledgement. *alone* one sender; *store* while the receivers are
//! away; *drain* when they come, receive, acknowledge; *online* the whole way with the receivers there; *paced*
//! an open loop, send call to envelope at the receiver; *take* bundles with one-time prekeys; *idle* open streams.

mod device;
mod load;
mod part;
mod process;
mod tls;
mod tree;
mod wire;
mod work;

use std::sync::Arc;

pub use device::BenchError;
use tuckseal::ENVELOPE_SIZES;

use device::Device;
use part::{Figures, Part};
use process::Process;
use tls::Tls;
use work::Work;

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArguments {
    /// Messages of each part
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Bytes of an envelope: one of the sizes that the server takes, 1024, 4096, 16384, 65536, 98304
    #[arg(long, default_value_t = 1024, value_parser = envelope_size)]
    size: usize,
    /// Senders, each with a stream of its own
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// Receiving devices
    #[arg(long, default_value_t = 64)]
    mailboxes: usize,
    /// Messages a second of the paced part, which lasts ten seconds; 0 for none
    #[arg(long, default_value_t = 500)]
    pace: usize,
    /// Bundles to take; 0 for none
    #[arg(long, default_value_t = 5_000)]
    takes: usize,
    /// Idle streams; 0 for none. Measured with TLS too if certificate and key are set
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// Nodes; more than one needs --database and --bus
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// A process whose processor time counts too, with all below it: the database, the bus (can be repeated)
    #[arg(long, value_name = "PID")]
    with_pid: Vec<u32>,
    /// A JSON object a line, for programs
    #[arg(long)]
    json: bool,
}

fn envelope_size(text: &str) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| ENVELOPE_SIZES.contains(size));
    size.ok_or_else(|| format!("the server takes envelopes of one of {ENVELOPE_SIZES:?} bytes"))
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
    if !arguments.json {
        println!("part     count        /s   p50 ms   p99 ms   server us CPU each");
    }
    idle(folder.path(), settings, &arguments).await?;
    let mut nodes = Vec::new();
    let count = arguments.nodes.max(1);
    for number in 0..count {
        nodes.push(Process::start(folder.path(), (number, count), settings, None).await?);
    }
    let places = load::Places::new(&nodes, &arguments.with_pid);
    let mailboxes = device::register(&places, arguments.mailboxes).await?;
    parts(&places, &mailboxes, &arguments).await?;
    for node in nodes {
        node.stop().await?;
    }
    Ok(())
}

async fn parts(
    places: &load::Places<'_>,
    mailboxes: &[Device],
    arguments: &BenchArguments,
) -> Result<(), BenchError> {
    let report = |name: &str, part: Part| report(&part.figures(name), arguments);
    let work = |count| Arc::new(Work::new(count, arguments.size));
    let alone = work(arguments.messages.div_ceil(100));
    report("alone", load::store(places, mailboxes, 1, &alone).await?);
    load::drain(places, mailboxes, &alone).await?;
    let stored = work(arguments.messages);
    report("store", load::store(places, mailboxes, arguments.senders, &stored).await?);
    report("drain", load::drain(places, mailboxes, &stored).await?);
    let (full, fast) = (work(arguments.messages), (arguments.senders, None));
    report("online", load::online(places, mailboxes, fast, &full).await?);
    if arguments.pace > 0 {
        let some = work((arguments.pace * 10).min(arguments.messages));
        let paced = (arguments.senders, Some(arguments.pace));
        report("paced", load::online(places, mailboxes, paced, &some).await?);
    }
    if arguments.takes > 0 {
        report("take", load::take(places, mailboxes, arguments.takes).await?);
    }
    Ok(())
}

fn report(figures: &Figures, arguments: &BenchArguments) {
    if arguments.json {
        // Numbers and a name: always JSON.
        println!("{}", serde_json::to_string(figures).unwrap_or_default());
        return;
    }
    let Figures { part, count, per_second, p50_ms, p99_ms, cpu_us } = figures;
    println!("{part:7} {count:6} {per_second:9.0} {p50_ms:8.2} {p99_ms:8.2} {cpu_us:9.1}");
}

/// In a process that has done nothing before: what registering needed would be there for the streams. With TLS, if the
/// settings have certificate and key, and without.
async fn idle(
    folder: &std::path::Path,
    settings: &crate::config::Settings,
    arguments: &BenchArguments,
) -> Result<(), BenchError> {
    let count = arguments.idle;
    if count == 0 {
        return Ok(());
    }
    let node = [Process::start(folder, (0, 1), settings, None).await?];
    let devices: Vec<Device> = device::register(&load::Places::new(&node, &[]), count).await?;
    let [node] = node;
    node.stop().await?;
    let secured = settings.tls_certificate_file.as_deref().zip(settings.tls_key_file.as_deref());
    for tls_files in [None, secured].into_iter().take(1 + usize::from(secured.is_some())) {
        let tls = tls_files.map(|(certificate, _)| Tls::to(certificate)).transpose()?;
        let node = [Process::start(folder, (0, 1), settings, tls_files).await?];
        let places = load::Places::new(&node, &[]);
        let before = process::memory(&node);
        let mut streams = load::streams(&places, &devices, tls.as_ref()).await?;
        load::settled(&mut streams).await?;
        let after = process::memory(&node);
        let each = after.saturating_sub(before) as f64 / count as f64;
        let (part, with) = if tls.is_some() { ("idle-tls", " with TLS") } else { ("idle", "") };
        if arguments.json {
            println!("{}", serde_json::json!({"part": part, "count": count, "bytes": each}));
        } else {
            println!("idle    {count:6} streams{with}, {:.1} KB each in the server", each / 1024.0);
        }
        let [node] = node;
        node.stop().await?;
    }
    Ok(())
}
