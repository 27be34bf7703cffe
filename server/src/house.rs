//! What a server does by itself, beside answering. Each chore is a task of its own: one that takes long, a purge of a bucket for
//! instance, or fails holds up no other.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::Limits;
use crate::http::App;
use crate::service::ServiceError;

#[derive(Debug, Clone, Copy)]
enum Chore {
    Sweep,
    Envelopes,
    Attachments,
    Reports,
    Answers,
    Links,
    Push,
}

const ALL: [Chore; 7] = [
    Chore::Sweep,
    Chore::Envelopes,
    Chore::Attachments,
    Chore::Reports,
    Chore::Answers,
    Chore::Links,
    Chore::Push,
];

/// Drops what has expired and forgets budgets that are full, until the server is to stop. Where nothing is written nothing is
/// dropped, and there is nothing that a sweep could find.
pub(crate) fn keep(app: &Arc<App>) -> JoinSet<()> {
    let chores: &[Chore] = if app.read_only { &[] } else { &ALL };
    chores.iter().map(|chore| chore.repeat(Arc::clone(app))).collect()
}

impl Chore {
    /// What is under way when the server is to stop is broken off: the next start does the rest.
    async fn repeat(self, app: Arc<App>) {
        let work = async {
            let mut rounds = interval(self.period(&app.services.limits));
            rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                rounds.tick().await;
                if let Err(error) = self.work(&app).await {
                    tracing::warn!(%error, chore = ?self, "house-keeping");
                }
            }
        };
        tokio::select! {
            () = app.stopping.cancelled() => {}
            () = work => {}
        }
    }

    fn period(self, limits: &Limits) -> Duration {
        Duration::from_secs(match self {
            Self::Sweep => limits.sweep_interval_secs,
            _ => limits.purge_interval_secs,
        })
    }

    async fn work(self, app: &App) -> Result<(), ServiceError> {
        let services = &app.services;
        match self {
            Self::Sweep => services.relay.sweep().await,
            Self::Envelopes => services.relay.purge().await,
            Self::Attachments => services.attachments.purge().await,
            Self::Reports => services.reports.purge().await,
            Self::Answers => services.keys.tidy().await,
            Self::Links => services.devices.tidy().await,
            Self::Push => {
                services.push.tidy();
                Ok(())
            }
        }
    }
}
