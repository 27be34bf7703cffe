//! Counters of this process, for Prometheus. Fixed names, no label that could name anybody.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Only ever grows.
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// Goes up and down.
pub(crate) struct Gauge(AtomicI64);

impl Gauge {
    pub(crate) fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// One more, as long as the answer is held.
    pub(crate) fn one(&'static self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }
}

/// One of a gauge.
pub(crate) struct Held(&'static Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

macro_rules! metrics {
    (counters { $($counter:ident $counter_name:literal $counter_help:literal;)+ }
     gauges { $($gauge:ident $gauge_name:literal $gauge_help:literal;)+ }) => {
        $(pub(crate) static $counter: Counter = Counter(AtomicU64::new(0));)+
        $(pub(crate) static $gauge: Gauge = Gauge(AtomicI64::new(0));)+

        fn write_fixed(out: &mut String) {
            $(line(out, $counter_name, "counter", $counter_help, $counter.0.load(Ordering::Relaxed));)+
            $(line(out, $gauge_name, "gauge", $gauge_help, $gauge.0.load(Ordering::Relaxed));)+
        }
    };
}

metrics! {
    counters {
        ACCEPTED "tuckseal_envelopes_accepted_total" "Envelopes stored.";
        REPEATED "tuckseal_submissions_repeated_total" "Submissions that had been accepted before.";
        REFUSED "tuckseal_submissions_refused_total" "Submissions refused: wrong devices, not authorised.";
        SHED "tuckseal_submissions_shed_total" "Submissions refused because the store was behind, or too much had come for the account.";
        DROPPED "tuckseal_envelopes_dropped_total" "Envelopes dropped unread to make room.";
        DELIVERED "tuckseal_envelopes_delivered_total" "Envelopes sent to devices, repetitions included.";
        EPHEMERAL "tuckseal_ephemeral_total" "Ephemeral messages handed in, by device.";
        EPHEMERAL_LOST "tuckseal_ephemeral_lost_total" "Of these, those for devices that were away, and those that no connection took in time.";
        ACKNOWLEDGED "tuckseal_envelopes_acknowledged_total" "Envelopes that devices have acknowledged.";
        TAKEN "tuckseal_bundles_taken_total" "Bundles given out.";
        LAST_RESORT "tuckseal_last_resort_total" "Bundles with the last-resort KEM prekey.";
        COMMITS "tuckseal_store_commits_total" "Group commits.";
        COMMITTED "tuckseal_store_commands_total" "Commands in group commits: divided by the commits, how well they group.";
        COMMIT_MICROS "tuckseal_store_commit_microseconds_total" "Time in group commits.";
        STORE_FAILED "tuckseal_store_failures_total" "Group commits and purges that failed.";
        NOTICES "tuckseal_bus_notices_total" "Notices for other nodes.";
        NOTICES_LOST "tuckseal_bus_notices_lost_total" "Notices that found the queue full or the line to the bus broken; the sweep does their work.";
        SWEPT "tuckseal_sweep_found_total" "Mailboxes in which a sweep found something: lost wake-ups.";
        LOOPS "tuckseal_delivery_loops_total" "Devices that got an envelope delivery_loop_times in a row without acknowledging it.";
        DISPLACED "tuckseal_streams_displaced_total" "Streams closed because the device opened another.";
        DEVICES_LINKED "tuckseal_devices_linked_total" "Further devices of accounts that were made.";
        DEVICES_REMOVED "tuckseal_devices_removed_total" "Devices that were removed from accounts.";
        PUSH_SENT "tuckseal_push_sent_total" "Wake-ups that push services have taken.";
        PUSH_FAILED "tuckseal_push_failed_total" "Wake-ups that a push service refused or did not take in time.";
        PUSH_DROPPED "tuckseal_push_dropped_total" "Wake-ups that were forgotten because too many devices were to be woken.";
        PUSH_GONE "tuckseal_push_gone_total" "Registrations that push services do not know any more.";
        HOOK_ASKED "tuckseal_hook_asked_total" "Questions for the operator's hook.";
        HOOK_REFUSED "tuckseal_hook_refused_total" "Questions to which the hook said no, or later.";
        HOOK_FAILED "tuckseal_hook_failed_total" "Questions that the hook did not answer, or was not asked because it does not answer.";
        REPORTS "tuckseal_reports_total" "Reports of spam that counted.";
        REPORTED "tuckseal_accounts_reported_total" "Accounts that reached report_threshold, by day.";
        UPLOADED "tuckseal_attachment_bytes_received_total" "Bytes of attachments received.";
    }
    gauges {
        DEVICE_STREAMS "tuckseal_device_streams" "Open streams of devices.";
        BARE_STREAMS "tuckseal_bare_streams" "Open streams without a token.";
        ROWS "tuckseal_postgres_rows" "Rows in use in PostgreSQL, as its statistics estimate.";
        DEAD_ROWS "tuckseal_postgres_dead_rows" "Rows that a vacuum has not taken away yet.";
    }
}

/// A group commit.
pub(crate) fn committed(commands: usize, took: Duration) {
    COMMITS.add(1);
    COMMITTED.add(commands as u64);
    COMMIT_MICROS.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
}

fn line(out: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    // A String takes everything.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

/// Requests by route template and status: as many as there are routes and statuses.
static REQUESTS: Mutex<BTreeMap<(String, u16), (u64, Duration)>> = Mutex::new(BTreeMap::new());

pub(crate) fn request(route: &str, status: u16, took: Duration) {
    let mut requests = REQUESTS.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = requests.entry((route.to_owned(), status)).or_default();
    entry.0 = entry.0.saturating_add(1);
    entry.1 = entry.1.saturating_add(took);
}

/// The text format of Prometheus, version 0.0.4.
pub(crate) fn text() -> String {
    let mut out = String::new();
    write_fixed(&mut out);
    let requests = REQUESTS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (name, kind, help) in [
        ("tuckseal_http_requests_total", "counter", "Requests by route and status."),
        ("tuckseal_http_seconds_total", "counter", "Time in them."),
    ] {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for ((route, status), (count, took)) in &requests {
            let _ = write!(out, "{name}{{route=\"{route}\",status=\"{status}\"}} ");
            let _ = match name {
                "tuckseal_http_requests_total" => writeln!(out, "{count}"),
                _ => writeln!(out, "{:.6}", took.as_secs_f64()),
            };
        }
    }
    out
}
