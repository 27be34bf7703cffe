//! Submissions over the stream: several under way at once, answered in the order in which they are done, the answers
//! that are there together in one frame.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use prost::Message as _;
use tuckseal::service::{
    Accepted, StreamSubmission, SubmissionAnswer, SubmissionAnswers, Submissions, submission_answer,
};

use super::super::App;
use super::super::error::refused;
use crate::service::ServiceError;
use crate::service::relay::{Right, Sender};
use crate::storage::AccountId;

/// What the stream was opened with.
#[derive(Clone, Copy)]
pub(super) enum Shown {
    /// By this device.
    Token(Sender),
    Nothing,
}

/// What a stream has handed in and has no answer for yet.
pub(super) struct Submitting {
    app: Arc<App>,
    shown: Shown,
    waiting: FuturesUnordered<BoxFuture<'static, (usize, SubmissionAnswer)>>,
    /// Of what is waiting.
    bytes: usize,
}

/// More in one frame than may be under way.
pub(super) struct TooMany;

impl Submitting {
    pub(super) fn new(app: Arc<App>, shown: Shown) -> Self {
        Self { app, shown, waiting: FuturesUnordered::new(), bytes: 0 }
    }

    /// Whether further frames may be read.
    pub(super) fn has_room(&self) -> bool {
        let limits = &self.app.services.limits;
        (self.waiting.len() as u64) < limits.stream_submissions
            && (self.bytes as u64) < limits.max_submission_bytes
    }

    pub(super) fn add(&mut self, submissions: Submissions) -> Result<(), TooMany> {
        if submissions.submissions.len() as u64 > self.app.services.limits.stream_submissions {
            return Err(TooMany);
        }
        for one in submissions.submissions {
            let (app, shown, size) = (Arc::clone(&self.app), self.shown, one.encoded_len());
            self.bytes = self.bytes.saturating_add(size);
            self.waiting.push(async move { (size, submit(app, shown, one).await) }.boxed());
        }
        Ok(())
    }

    /// The stream is at its end: what is under way goes on without it, so that its recipients are woken.
    pub(super) fn leave(self) {
        if !self.waiting.is_empty() {
            tokio::spawn(self.waiting.for_each(|_| std::future::ready(())));
        }
    }

    /// All answers that are there, at least one. Never ready while nothing is under way.
    pub(super) async fn answers(&mut self) -> SubmissionAnswers {
        let Some(first) = self.waiting.next().await else { return std::future::pending().await };
        let mut done = vec![first];
        while let Some(Some(next)) = self.waiting.next().now_or_never() {
            done.push(next);
        }
        let (sizes, answers): (Vec<usize>, Vec<_>) = done.into_iter().unzip();
        self.bytes = self.bytes.saturating_sub(sizes.iter().sum());
        SubmissionAnswers { answers }
    }
}

async fn submit(app: Arc<App>, shown: Shown, one: StreamSubmission) -> SubmissionAnswer {
    use submission_answer::Result;
    let id = one.submission.as_ref().map(|submission| submission.submission_id.clone());
    let result = match submitted(&app, shown, one).await {
        Ok(()) => Result::Accepted(Accepted {}),
        Err(ServiceError::Devices(mismatch)) => Result::Devices(mismatch.into()),
        Err(error) => Result::Refused(refused(&error)),
    };
    SubmissionAnswer { submission_id: id.unwrap_or_default(), result: Some(result) }
}

async fn submitted(app: &App, shown: Shown, one: StreamSubmission) -> Result<(), ServiceError> {
    app.services.relay.has_room()?;
    let account = one.account.as_ref().try_into().map(AccountId);
    let account = account.map_err(|_| ServiceError::Invalid("account must have 16 bytes"))?;
    let right = match (one.access_key.is_empty(), shown) {
        (false, Shown::Token(_)) => {
            return Err(ServiceError::Invalid(
                "hand in sealed messages on a stream without a token",
            ));
        }
        (false, Shown::Nothing) => Right::AccessKey(
            one.access_key
                .as_ref()
                .try_into()
                .map_err(|_| ServiceError::Invalid("access_key must have 16 bytes"))?,
        ),
        (true, Shown::Token(sender)) => Right::Token(sender),
        (true, Shown::Nothing) => return Err(ServiceError::Unauthorised),
    };
    let submission = one.submission.ok_or(ServiceError::Invalid("submission is missing"))?;
    match shown {
        Shown::Token(sender) => app.services.hooks.submission(sender.account, &submission).await?,
        Shown::Nothing => app.services.hooks.sealed(&submission).await?,
    }
    app.services.relay.submit(account, right, submission).await
}
