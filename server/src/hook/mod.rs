//! An operator's own check, asked before somebody registers, sends or uploads. It is told of one account at most, never
//! of both ends of a message, and neither an address nor a content. When it is asked, and what follows when it does not
//! answer, is `service/hooks.rs`.

mod http;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde::Deserialize;

pub use http::{HookOpenError, HttpHook};

use crate::storage::AccountId;

const REASON_MAX: usize = 64;

/// What can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum HookKind {
    /// Somebody registers, for the first time or again
    Registration,
    /// A device that has shown its token hands in messages
    Submission,
    /// Sealed messages are handed in without a token
    Sealed,
    /// A device wants room for an attachment
    Upload,
    /// An account was reported as a sender of spam, so often in a day as `report_threshold` says; told, the answer counts for nothing
    Reported,
}

impl HookKind {
    /// As it is written in the settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Registration => "registration",
            Self::Submission => "submission",
            Self::Sealed => "sealed",
            Self::Upload => "upload",
            Self::Reported => "reported",
        }
    }
}

/// What is asked about. This is all that a hook is told.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HookEvent {
    /// Somebody has proven an identity key and wants this name, or has it.
    Registration {
        /// 1..32 characters.
        username: String,
    },
    /// A device of this account hands in messages, sealed or not. For whom is not told.
    Submission {
        /// Who sends.
        account: AccountId,
        /// Devices of the recipients, together.
        devices: u64,
        /// Of all messages.
        bytes: u64,
    },
    /// Somebody who has shown no token hands in messages. Neither who nor for whom is told, nor for how many.
    Sealed {
        /// The largest message has at most so many KiB: 1, 4, 16, 64, 96 or more.
        size_class_kib: u64,
    },
    /// A device of this account wants room for an attachment.
    Upload {
        /// Who uploads.
        account: AccountId,
        /// Of the attachment.
        bytes: u64,
    },
    /// This account was reported so often today. By whom is not told, nor known. The answer counts for nothing.
    Reported {
        /// Who was reported.
        account: AccountId,
        /// As often as `report_threshold` says.
        reports: u64,
    },
}

impl HookEvent {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> HookKind {
        match self {
            Self::Registration { .. } => HookKind::Registration,
            Self::Submission { .. } => HookKind::Submission,
            Self::Sealed { .. } => HookKind::Sealed,
            Self::Upload { .. } => HookKind::Upload,
            Self::Reported { .. } => HookKind::Reported,
        }
    }
}

/// What a hook says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookAnswer {
    /// It may go on.
    Allow,
    /// It may not; the user is told why.
    Refuse(ReasonCode),
    /// Not now; it may be tried again after this time.
    Later(Duration),
}

/// Why a hook refuses, in the operator's own words for programs: 1 to 64 of a-z 0-9 -.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonCode(String);

impl ReasonCode {
    /// None if it has other characters or another length.
    #[must_use]
    pub fn new(code: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=REASON_MAX).contains(&code.len()) && code.bytes().all(plain);
        good.then(|| Self(code.into()))
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A hook did not say what it should. `hook_on_failure` decides then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookFailure {
    /// Nobody answers. The text is logged: it must name no account.
    #[error("the hook cannot be reached ({0}); see that it runs and that the address leads to it")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another status than 200.
    #[error("the hook answered with status {0}; it has to answer with 200")]
    Status(u16),
    /// Not what docs/operating.md asks for.
    #[error("the hook's answer is not one of allow, refuse with a reason, later with a time")]
    Answer,
}

/// A question that is on its way.
pub type Asking<'a> = Pin<Box<dyn Future<Output = Result<HookAnswer, HookFailure>> + Send + 'a>>;

/// Somebody who is asked.
pub trait OperatorHook: Send + Sync + 'static {
    /// Whether it wants to be asked about such events. This is looked at before each of them, so answer at once.
    fn wants(&self, kind: HookKind) -> bool;

    /// Answers. Many are asked at once, up to `hook_concurrency`; one that takes longer than `hook_timeout_ms` is dropped.
    ///
    /// The answer future resolves to [`HookFailure`] when the hook cannot tell.
    fn ask(&self, event: HookEvent) -> Asking<'_>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_a_short_code() {
        assert!(ReasonCode::new("account-suspended-2").is_some());
        for bad in ["", "Suspended", "no spaces", "ü", "a\r\nb", &"x".repeat(65)] {
            assert!(ReasonCode::new(bad).is_none(), "{bad}");
        }
    }
}
