//! One part of a measurement and its figures. The bench beside other brokers (`benches/relay`) measures with this
//! file too.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::tree;

/// What a server does after its last answer, such as removing what was acknowledged, is its work too.
const SETTLE: Duration = Duration::from_millis(100);

/// Time and processor time since a part began.
pub(super) struct Watch<'a> {
    servers: &'a [u32],
    begun: Instant,
    cpu_before: Duration,
}

impl<'a> Watch<'a> {
    /// Of these processes and all below them.
    pub(super) fn start(servers: &'a [u32]) -> Self {
        let cpu_before = tree::cpu(servers);
        Self { servers, begun: Instant::now(), cpu_before }
    }

    /// The rate ends here, the processor time a moment later.
    pub(super) async fn stop(self, count: usize, latencies: Vec<Duration>) -> Part {
        let took = self.begun.elapsed();
        tokio::time::sleep(SETTLE).await;
        let cpu = tree::cpu(self.servers).saturating_sub(self.cpu_before);
        Part { count, took, latencies, cpu }
    }
}

/// What a part did.
pub(super) struct Part {
    count: usize,
    took: Duration,
    latencies: Vec<Duration>,
    cpu: Duration,
}

impl Part {
    pub(super) fn figures(mut self, part: &str) -> Figures {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let place = (self.latencies.len().saturating_sub(1) as f64 * share).round() as usize;
            self.latencies.get(place).map_or(0.0, |latency| latency.as_secs_f64() * 1000.0)
        };
        Figures {
            part: part.to_owned(),
            count: self.count,
            per_second: self.count as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            cpu_us: self.cpu.as_secs_f64() * 1e6 / self.count.max(1) as f64,
        }
    }
}

/// A line of the report.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Figures {
    pub(super) part: String,
    pub(super) count: usize,
    pub(super) per_second: f64,
    /// Zero where nobody waits.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Processor time of the server each, in microseconds.
    pub(super) cpu_us: f64,
}
