//! Every limit, once: its name with the unit, its reason, its default, its environment variable.

use serde::Deserialize;

use super::ConfigError;

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:expr, $env:literal;)+) => {
        /// The limits that are in force.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        /// Limits of one source; what is absent is left to the next source.
        #[derive(Debug, Clone, Default, Deserialize, clap::Args)]
        #[serde(default, deny_unknown_fields)]
        pub struct LimitSettings {
            $(
                $(#[doc = $doc])+
                #[doc = concat!(" [default: ", stringify!($default), "]")]
                #[arg(long, value_name = "N", env = $env)]
                pub $name: Option<u64>,
            )+
        }

        impl LimitSettings {
            pub(super) fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)+ }
            }

            pub(super) fn complete(self) -> Limits {
                Limits { $($name: self.$name.unwrap_or($default),)+ }
            }
        }

        /// As lines of a settings file.
        impl std::fmt::Display for Limits {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let lines = [$((stringify!($name), self.$name)),+];
                let lines = lines.map(|(name, value)| format!("{name} = {value}"));
                f.write_str(&lines.join("\n"))
            }
        }

        impl Limits {
            /// Zero would switch a function off by accident (but for [`MAY_BE_ZERO`]), and more than `i64::MAX` has no place in the database.
            pub(super) fn check(&self) -> Result<(), ConfigError> {
                $(
                    let zero = self.$name == 0 && !MAY_BE_ZERO.contains(&stringify!($name));
                    if zero || i64::try_from(self.$name).is_err() {
                        return Err(ConfigError::Limit { name: stringify!($name), rule: "from 1 to 2^63 - 1" });
                    }
                )+
                self.check_together()
            }
        }
    };
}

/// A limit below it would refuse every envelope.
const SMALLEST_ENVELOPE: u64 = tuckseal::ENVELOPE_SIZES[0] as u64;
/// Times that a single node has no use for.
const MAY_BE_ZERO: [&str; 2] = ["drain_notice_secs", "drain_spread_secs"];

limits! {
    /// Largest sealed envelope, in bytes; of the sizes 1024, 4096, 16384, 65536 and 98304 those above it are refused
    max_envelope_bytes = 98_304, "TUCKSEAL_MAX_ENVELOPE_BYTES";
    /// Largest body of a submission, in bytes
    max_submission_bytes = 1_048_576, "TUCKSEAL_MAX_SUBMISSION_BYTES";
    /// Largest body of a registration or a key upload, in bytes
    max_keys_bytes = 262_144, "TUCKSEAL_MAX_KEYS_BYTES";
    /// Recipients of one submission for many
    max_recipients = 5_000, "TUCKSEAL_MAX_RECIPIENTS";
    /// Envelopes that a mailbox holds; the oldest goes when one more comes
    mailbox_messages = 10_000, "TUCKSEAL_MAILBOX_MESSAGES";
    /// Bytes that a mailbox holds; the oldest go when more come
    mailbox_bytes = 67_108_864, "TUCKSEAL_MAILBOX_BYTES";
    /// Bytes that may come for one account at once, in KiB
    inbound_burst_kib = 131_072, "TUCKSEAL_INBOUND_BURST_KIB";
    /// Bytes that may come for one account in an hour, after the burst, in KiB
    inbound_kib_per_hour = 1_048_576, "TUCKSEAL_INBOUND_KIB_PER_HOUR";
    /// When a submission waits for the store for longer than this many milliseconds, further ones are refused with 503
    store_wait_ms = 250, "TUCKSEAL_STORE_WAIT_MS";
    /// Life of an envelope that is not fetched, in seconds; on PostgreSQL up to a quarter longer (at least an hour, at most a week)
    envelope_ttl_secs = 2_592_000, "TUCKSEAL_ENVELOPE_TTL_SECS";
    /// How long a submission id is remembered, in seconds
    submission_ttl_secs = 86_400, "TUCKSEAL_SUBMISSION_TTL_SECS";
    /// Ephemeral messages that a connection has not taken within this many seconds are dropped
    ephemeral_secs = 10, "TUCKSEAL_EPHEMERAL_SECS";
    /// Time between two searches for what has expired, in seconds
    purge_interval_secs = 60, "TUCKSEAL_PURGE_INTERVAL_SECS";
    /// Time between two comparisons of connected mailboxes with the database, in seconds; finds lost wake-ups
    sweep_interval_secs = 30, "TUCKSEAL_SWEEP_INTERVAL_SECS";
    /// Envelopes on their way to a device without acknowledgement
    window_messages = 256, "TUCKSEAL_WINDOW_MESSAGES";
    /// Bytes on their way to a device without acknowledgement
    window_bytes = 1_048_576, "TUCKSEAL_WINDOW_BYTES";
    /// A device that lost so many streams in a row at the same envelope gets it alone until it is acknowledged
    delivery_loop_times = 5, "TUCKSEAL_DELIVERY_LOOP_TIMES";
    /// Submissions of one stream that are under way at the same time, and of one frame
    stream_submissions = 64, "TUCKSEAL_STREAM_SUBMISSIONS";
    /// Time between two pings on a stream, in seconds
    ping_interval_secs = 30, "TUCKSEAL_PING_INTERVAL_SECS";
    /// A stream on which nothing arrives, not even a pong, is closed after this many seconds
    stream_idle_secs = 90, "TUCKSEAL_STREAM_IDLE_SECS";
    /// Who does not take a frame of a stream, or any byte of an answer, within this many seconds is disconnected
    stream_write_secs = 30, "TUCKSEAL_STREAM_WRITE_SECS";
    /// Life of a registration challenge, in seconds
    challenge_ttl_secs = 60, "TUCKSEAL_CHALLENGE_TTL_SECS";
    /// Devices that an account may have, the first one included
    max_devices = 6, "TUCKSEAL_MAX_DEVICES";
    /// Encrypted name of a device, in bytes
    device_name_bytes = 256, "TUCKSEAL_DEVICE_NAME_BYTES";
    /// Life of a linking token, in seconds
    link_ttl_secs = 600, "TUCKSEAL_LINK_TTL_SECS";
    /// Linking tokens that one account may get at once, and attempts to use them
    link_burst = 10, "TUCKSEAL_LINK_BURST";
    /// Linking tokens that one account may get in an hour, after the burst, and attempts to use them
    link_per_hour = 30, "TUCKSEAL_LINK_PER_HOUR";
    /// How long a request may wait for a device that is being linked, in seconds
    link_poll_secs = 30, "TUCKSEAL_LINK_POLL_SECS";
    /// Requests of one account that may wait so at the same time
    link_polls = 4, "TUCKSEAL_LINK_POLLS";
    /// Life of a sender certificate, in seconds
    certificate_ttl_secs = 86_400, "TUCKSEAL_CERTIFICATE_TTL_SECS";
    /// One-time prekeys of one kind that a device may have waiting
    one_time_prekeys = 1_000, "TUCKSEAL_ONE_TIME_PREKEYS";
    /// A device is told when fewer one-time prekeys than this are left
    prekeys_low = 20, "TUCKSEAL_PREKEYS_LOW";
    /// Bundles that one caller may fetch at once; those who show one access key are one caller, and get no one-time prekeys beyond it
    fetch_caller_burst = 100, "TUCKSEAL_FETCH_CALLER_BURST";
    /// Bundles that one caller may fetch in an hour, after the burst
    fetch_caller_per_hour = 1_200, "TUCKSEAL_FETCH_CALLER_PER_HOUR";
    /// Bundles with one-time prekeys that all callers may fetch of one device at once
    fetch_target_burst = 100, "TUCKSEAL_FETCH_TARGET_BURST";
    /// Bundles with one-time prekeys that all callers may fetch of one device in an hour, after the burst
    fetch_target_per_hour = 240, "TUCKSEAL_FETCH_TARGET_PER_HOUR";
    /// Names that one device may look up at once
    lookup_burst = 60, "TUCKSEAL_LOOKUP_BURST";
    /// Names that one device may look up in an hour, after the burst
    lookup_per_hour = 600, "TUCKSEAL_LOOKUP_PER_HOUR";
    /// Largest attachment, in bytes
    max_attachment_bytes = 104_857_600, "TUCKSEAL_MAX_ATTACHMENT_BYTES";
    /// Life of an attachment, in seconds; it may stay up to a day longer
    attachment_ttl_secs = 3_888_000, "TUCKSEAL_ATTACHMENT_TTL_SECS";
    /// Attachments that one device may upload at once, in KiB
    attachment_burst_kib = 2_097_152, "TUCKSEAL_ATTACHMENT_BURST_KIB";
    /// Attachments that one device may upload in an hour, after the burst, in KiB
    attachment_kib_per_hour = 262_144, "TUCKSEAL_ATTACHMENT_KIB_PER_HOUR";
    /// Memory that all uploads to a bucket have together, in KiB; beyond it they go in smaller pieces
    attachment_memory_kib = 262_144, "TUCKSEAL_ATTACHMENT_MEMORY_KIB";
    /// Wake-ups for a device that is away wait up to this many seconds: they gather, and their time tells nothing
    push_delay_secs = 1, "TUCKSEAL_PUSH_DELAY_SECS";
    /// Time between two urgent wake-ups of one device, in seconds
    push_interval_secs = 10, "TUCKSEAL_PUSH_INTERVAL_SECS";
    /// Time between two wake-ups of one device that are not urgent, in seconds
    push_background_secs = 1_200, "TUCKSEAL_PUSH_BACKGROUND_SECS";
    /// A device that has not fetched within this many seconds although it was connected is woken, once
    push_unfetched_secs = 60, "TUCKSEAL_PUSH_UNFETCHED_SECS";
    /// Time between two wake-ups of one device because its prekeys run low, in seconds
    push_keys_secs = 86_400, "TUCKSEAL_PUSH_KEYS_SECS";
    /// How long a push service may keep a wake-up, in seconds
    push_ttl_secs = 86_400, "TUCKSEAL_PUSH_TTL_SECS";
    /// Registrations for push that one device may make at once
    push_burst = 10, "TUCKSEAL_PUSH_BURST";
    /// Registrations for push that one device may make in an hour, after the burst
    push_per_hour = 30, "TUCKSEAL_PUSH_PER_HOUR";
    /// The operator's hook has to answer within this many milliseconds
    hook_timeout_ms = 500, "TUCKSEAL_HOOK_TIMEOUT_MS";
    /// Questions to the hook at the same time; further ones wait
    hook_concurrency = 64, "TUCKSEAL_HOOK_CONCURRENCY";
    /// Failures in a row after which the hook is left alone for a while
    hook_failures = 5, "TUCKSEAL_HOOK_FAILURES";
    /// How long it is left alone then, in seconds
    hook_pause_secs = 10, "TUCKSEAL_HOOK_PAUSE_SECS";
    /// Report tokens that a device gets at once
    report_tokens = 20, "TUCKSEAL_REPORT_TOKENS";
    /// Fetches of report tokens that one device may make at once
    report_token_burst = 10, "TUCKSEAL_REPORT_TOKEN_BURST";
    /// Fetches of report tokens that one device may make in an hour, after the burst
    report_token_per_hour = 10, "TUCKSEAL_REPORT_TOKEN_PER_HOUR";
    /// Life of a report token, in days, and of the count of a day
    report_token_days = 60, "TUCKSEAL_REPORT_TOKEN_DAYS";
    /// Reports of spam that one device may make at once
    report_burst = 10, "TUCKSEAL_REPORT_BURST";
    /// Reports of spam that one device may make in an hour, after the burst
    report_per_hour = 5, "TUCKSEAL_REPORT_PER_HOUR";
    /// Reports of one account in a day of which the operator's hook is told
    report_threshold = 10, "TUCKSEAL_REPORT_THRESHOLD";
    /// How long the answer to a bundle request is kept for its repetition, in seconds
    replay_ttl_secs = 60, "TUCKSEAL_REPLAY_TTL_SECS";
    /// Connections at the same time; further ones wait
    connections = 100_000, "TUCKSEAL_CONNECTIONS";
    /// Time for the head of a request to arrive, in seconds
    header_timeout_secs = 15, "TUCKSEAL_HEADER_TIMEOUT_SECS";
    /// Time for the body of a request to arrive, in seconds
    body_timeout_secs = 30, "TUCKSEAL_BODY_TIMEOUT_SECS";
    /// After the signal to stop, /readyz fails for this many seconds before anything else changes; for a balancer
    drain_notice_secs = 0, "TUCKSEAL_DRAIN_NOTICE_SECS";
    /// Then streams are closed one by one over this many seconds, so that devices do not all come back at once
    drain_spread_secs = 0, "TUCKSEAL_DRAIN_SPREAD_SECS";
    /// Time for open requests and streams to end after that, in seconds
    shutdown_secs = 10, "TUCKSEAL_SHUTDOWN_SECS";
}

impl Limits {
    fn check_together(&self) -> Result<(), ConfigError> {
        let rules = [
            (
                self.max_submission_bytes > self.max_envelope_bytes,
                "max_submission_bytes",
                "above max_envelope_bytes",
            ),
            (
                self.max_envelope_bytes >= SMALLEST_ENVELOPE,
                "max_envelope_bytes",
                "at least 1024, the smallest size of an envelope",
            ),
            (
                self.stream_idle_secs > self.ping_interval_secs,
                "stream_idle_secs",
                "above ping_interval_secs",
            ),
            (
                self.mailbox_bytes >= self.max_envelope_bytes,
                "mailbox_bytes",
                "at least max_envelope_bytes",
            ),
            (self.max_devices <= 127, "max_devices", "at most 127"),
            (self.device_name_bytes <= 2048, "device_name_bytes", "at most 2048"),
            (u32::try_from(self.one_time_prekeys).is_ok(), "one_time_prekeys", "below 2^32"),
        ];
        let broken = rules.into_iter().find(|(kept, _, _)| !kept);
        broken.map_or(Ok(()), |(_, name, rule)| Err(ConfigError::Limit { name, rule }))
    }
}
