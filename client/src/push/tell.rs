//! Telling the server where the device is woken. One at a time: what is told last is what the profile remembers.

use zeroize::Zeroizing;

use super::PushService;
use crate::error::PushError;
use crate::shell::Shell;
use crate::store::{Account, Push};
use crate::transport::ServerError;
use crate::transport::http::Http;

/// What it needs of the client.
pub(crate) struct Teller<'a> {
    pub(crate) shell: &'a Shell,
    pub(crate) http: &'a Http,
    pub(crate) account: &'a Account,
}

impl Teller<'_> {
    pub(super) async fn register(
        &self,
        service: PushService,
        registration: Vec<u8>,
        secret: Option<Zeroizing<[u8; 32]>>,
    ) -> Result<(), PushError> {
        let push = Push { registration: Some(registration), secret, told: false };
        self.change(push).await.map_err(|error| match error {
            PushError::Server(ServerError::Refused { status: 400 }) => {
                PushError::NotOffered { service }
            }
            other => other,
        })
    }

    pub(super) async fn unregister(&self) -> Result<(), PushError> {
        self.change(Push { registration: None, secret: None, told: false }).await
    }

    /// The server first: what it refuses is not remembered.
    async fn change(&self, push: Push) -> Result<(), PushError> {
        let _turn = self.shell.push_turn().await;
        let answer = self.tell(&push).await;
        match answer {
            Ok(()) => self.save(Push { told: true, ..push }).await,
            Err(cause) if is_passing(&cause) => {
                self.save(push).await?;
                Err(PushError::NotYet { cause })
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// Tells the server what the profile remembers.
    pub(crate) async fn repeat(&self) -> Result<(), PushError> {
        let _turn = self.shell.push_turn().await;
        let Some(push) = self.shell.call(|engine, _| engine.store.rows().push()).await? else {
            return Ok(());
        };
        self.tell(&push).await?;
        if !push.told {
            self.save(Push { told: true, ..push }).await?;
        }
        Ok(())
    }

    async fn tell(&self, push: &Push) -> Result<(), ServerError> {
        match &push.registration {
            Some(registration) => {
                self.http.register_push(self.account, registration.clone().into()).await
            }
            None => self.http.unregister_push(self.account).await,
        }
    }

    async fn save(&self, push: Push) -> Result<(), PushError> {
        Ok(self.shell.call(move |engine, turn| engine.save_push(&push, turn)).await?)
    }
}

/// Whether it may be otherwise later.
fn is_passing(error: &ServerError) -> bool {
    matches!(error, ServerError::Unreachable { .. } | ServerError::Busy { .. })
}
