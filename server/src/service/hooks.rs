//! Asking the operator's hook (`hook/`): how many at once, how long, and what follows when it does not answer. Nothing
//! here knows for whom a message is: the sender is looked at before the relay, which is not told of her.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tuckseal::service::{MultiSubmission, Submission};
use tuckseal::{ENVELOPE_SIZES, SentMessage};

use super::circuit::{Change, Circuit};
use super::error::ServiceError;
use crate::config::{Limits, OnFailure};
use crate::hook::{HookAnswer, HookEvent, HookKind, OperatorHook};
use crate::metrics;
use crate::storage::AccountId;

/// A hook that does not answer is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest time that a hook can make somebody wait.
const LATER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The operator's hook, if there is one. Clones share it.
#[derive(Clone)]
pub struct Hooks(Option<Arc<Asked>>);

struct Asked {
    hook: Arc<dyn OperatorHook>,
    places: Semaphore,
    patience: Duration,
    on_failure: OnFailure,
    circuit: Circuit,
}

impl Hooks {
    /// Asks this hook within the limits.
    #[must_use]
    pub fn new(
        hook: Option<Arc<dyn OperatorHook>>,
        on_failure: OnFailure,
        limits: &Limits,
    ) -> Self {
        let places = usize::try_from(limits.hook_concurrency).unwrap_or(usize::MAX);
        let circuit =
            Circuit::new(limits.hook_failures, Duration::from_secs(limits.hook_pause_secs));
        Self(hook.map(|hook| {
            Arc::new(Asked {
                hook,
                places: Semaphore::new(places.min(Semaphore::MAX_PERMITS)),
                patience: Duration::from_millis(limits.hook_timeout_ms),
                on_failure,
                circuit,
            })
        }))
    }

    /// Whether somebody may have this name.
    ///
    /// # Errors
    /// [`ServiceError::RefusedByOperator`], [`ServiceError::NotNow`] or [`ServiceError::NoCheck`].
    pub async fn registration(&self, username: &str) -> Result<(), ServiceError> {
        let event = || HookEvent::Registration { username: username.into() };
        self.ask(HookKind::Registration, event).await
    }

    /// Whether a device of this account may hand that in.
    ///
    /// # Errors
    /// As [`Hooks::registration`].
    pub async fn submission(
        &self,
        account: AccountId,
        submission: &Submission,
    ) -> Result<(), ServiceError> {
        let event = || {
            let messages = &submission.messages;
            let (devices, bytes) =
                (messages.len() as u64, messages.iter().map(|m| m.content.len() as u64).sum());
            HookEvent::Submission { account, devices, bytes }
        };
        self.ask(HookKind::Submission, event).await
    }

    /// The same for a submission for many.
    ///
    /// # Errors
    /// As [`Hooks::registration`].
    pub async fn multi_submission(
        &self,
        account: AccountId,
        submission: &MultiSubmission,
    ) -> Result<(), ServiceError> {
        let event = || HookEvent::Submission {
            account,
            devices: devices(submission),
            bytes: submission.sent.len() as u64,
        };
        self.ask(HookKind::Submission, event).await
    }

    /// Whether somebody who has shown no token may hand that in. Asked before the recipient is looked for.
    ///
    /// # Errors
    /// As [`Hooks::registration`].
    pub async fn sealed(&self, submission: &Submission) -> Result<(), ServiceError> {
        let sizes = submission.messages.iter().map(|message| message.content.len());
        let event = || HookEvent::Sealed { size_class_kib: size_class(sizes.max().unwrap_or(0)) };
        self.ask(HookKind::Sealed, event).await
    }

    /// The same for a submission for many: what all of them get has the size that is told.
    ///
    /// # Errors
    /// As [`Hooks::registration`].
    pub async fn multi_sealed(&self, submission: &MultiSubmission) -> Result<(), ServiceError> {
        let event = || {
            let sent = SentMessage::from_bytes(submission.sent.clone());
            let size = sent.map_or(0, |sent| sent.received_len());
            HookEvent::Sealed { size_class_kib: size_class(size) }
        };
        self.ask(HookKind::Sealed, event).await
    }

    /// Whether a device of this account may have so much room.
    ///
    /// # Errors
    /// As [`Hooks::registration`].
    pub async fn upload(&self, account: AccountId, bytes: u64) -> Result<(), ServiceError> {
        self.ask(HookKind::Upload, || HookEvent::Upload { account, bytes }).await
    }

    /// Tells that this account was reported so often. Nobody waits for it.
    pub fn tell_reported(&self, account: AccountId, reports: u64) {
        let hooks = self.clone();
        tokio::spawn(async move {
            let event = || HookEvent::Reported { account, reports };
            // It is told, not asked.
            let _ = hooks.ask(HookKind::Reported, event).await;
        });
    }

    /// Boxed where somebody is asked: without a hook a message pays for nothing.
    async fn ask(
        &self,
        kind: HookKind,
        event: impl FnOnce() -> HookEvent,
    ) -> Result<(), ServiceError> {
        match &self.0 {
            Some(asked) if asked.hook.wants(kind) => Box::pin(asked.ask(event())).await,
            _ => Ok(()),
        }
    }
}

impl Asked {
    async fn ask(&self, event: HookEvent) -> Result<(), ServiceError> {
        metrics::HOOK_ASKED.add(1);
        if let Err(wait) = self.circuit.may(Instant::now()) {
            return self.failed(wait);
        }
        let asking = async {
            // It is never closed.
            let _place = self.places.acquire().await;
            self.hook.ask(event).await
        };
        let answer = match timeout(self.patience, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "hook");
                return self.bad(&error.to_string());
            }
            Err(_) => return self.bad("the hook takes longer than hook_timeout_ms"),
        };
        if self.circuit.good() == Change::Closed {
            tracing::info!("the operator's hook answers again");
        }
        match answer {
            HookAnswer::Allow => Ok(()),
            HookAnswer::Refuse(reason) => {
                metrics::HOOK_REFUSED.add(1);
                Err(ServiceError::RefusedByOperator(reason))
            }
            HookAnswer::Later(wait) => {
                metrics::HOOK_REFUSED.add(1);
                Err(ServiceError::NotNow(wait.min(LATER_MAX)))
            }
        }
    }

    fn bad(&self, why: &str) -> Result<(), ServiceError> {
        if self.circuit.bad(Instant::now()) == Change::Opened {
            tracing::warn!(
                why,
                "the operator's hook fails; hook_on_failure decides until it answers"
            );
        }
        self.failed(AGAIN)
    }

    fn failed(&self, wait: Duration) -> Result<(), ServiceError> {
        metrics::HOOK_FAILED.add(1);
        match self.on_failure {
            OnFailure::Allow => Ok(()),
            OnFailure::Refuse => Err(ServiceError::NoCheck(wait)),
        }
    }
}

fn devices(submission: &MultiSubmission) -> u64 {
    let sent = SentMessage::from_bytes(submission.sent.clone());
    sent.map_or(0, |sent| sent.recipients().iter().map(|to| to.devices().len() as u64).sum())
}

/// What is told of the size of a sealed message, in KiB. The relay refuses what has another size, after the question: the
/// next one is told, and beyond the largest twice the largest.
fn size_class(bytes: usize) -> u64 {
    let [.., largest] = ENVELOPE_SIZES;
    let class = ENVELOPE_SIZES.into_iter().find(|class| bytes <= *class);
    (class.unwrap_or(largest.saturating_mul(2)) / 1024) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_told_in_classes() {
        let told = [0, 1, 1024, 1025, 65_536, 98_304, 98_305].map(size_class);
        assert_eq!(told, [1, 1, 1, 4, 64, 96, 192]);
    }
}
