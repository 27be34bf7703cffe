//! Reports of spam. A sender fetches tokens while it is known, and hands them on inside what it encrypts; who gets one may
//! show it here, once. Until then nothing at the relay says who wrote to whom, and afterwards a count for the one reported.
//!
//! ```text
//! token   = number (16) || AES-256-GCM(account (16) || day of its making (4), big-endian) (36)
//! its key = HMAC-SHA-256(report key, number), used for this one text, so the nonce is zero
//! ```
//! The number is random and all that is kept of a token that was used: without the rest it opens nothing.

use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::Sha256;
use tuckseal::service::{Report, ReportTokens};
use zeroize::Zeroizing;

use super::accounts::Caller;
use super::error::ServiceError;
use super::hooks::Hooks;
use super::limits::Budget;
use super::{DAY_MS, today};
use crate::config::Limits;
use crate::identity::ServerIdentity;
use crate::metrics;
use crate::storage::{AccountId, MailboxId, ReportAnswer, Reporting, Store};

const TOKEN_LEN: usize = 52;

/// Report tokens and reports.
pub struct Reports {
    store: Arc<dyn Store>,
    hooks: Hooks,
    key: Zeroizing<[u8; 32]>,
    tokens: u64,
    token_days: i64,
    threshold: u64,
    fetches: Budget<MailboxId>,
    reports: Budget<MailboxId>,
}

impl Reports {
    pub(super) fn new(
        store: Arc<dyn Store>,
        hooks: Hooks,
        identity: &ServerIdentity,
        limits: &Limits,
    ) -> Self {
        Self {
            store,
            hooks,
            key: identity.report_key(),
            tokens: limits.report_tokens,
            token_days: i64::try_from(limits.report_token_days).unwrap_or(i64::MAX),
            threshold: limits.report_threshold,
            fetches: Budget::new(limits.report_token_burst, limits.report_token_per_hour),
            reports: Budget::new(limits.report_burst, limits.report_per_hour),
        }
    }

    /// Tokens that say nothing to anybody but this relay. Nothing is kept of them.
    ///
    /// # Errors
    /// [`ServiceError::TooMany`].
    pub fn tokens(&self, caller: &Caller) -> Result<ReportTokens, ServiceError> {
        self.fetches.spend(&caller.mailbox).map_err(ServiceError::TooMany)?;
        let today = today();
        let tokens = (0..self.tokens).map(|_| self.seal(caller.account, today));
        let tokens = tokens.collect::<Option<_>>();
        Ok(ReportTokens {
            tokens: tokens.ok_or(ServiceError::Invalid("no token can be made"))?,
            expires_ms: day_ms(today.saturating_add(self.token_days)),
        })
    }

    /// Counts a report against the account that the token was given to, if that is the one that the caller names. The
    /// same token again changes nothing, and looks the same.
    ///
    /// # Errors
    /// [`ServiceError::TooMany`], [`ServiceError::Invalid`], [`ServiceError::NoReportToken`] or the store's.
    pub async fn report(&self, caller: &Caller, report: &Report) -> Result<(), ServiceError> {
        self.reports.spend(&caller.mailbox).map_err(ServiceError::TooMany)?;
        let named = report.account.as_ref().try_into().map(AccountId);
        let named = named.map_err(|_| ServiceError::Invalid("account must have 16 bytes"))?;
        let reporting = self.open_on(&report.token, named, today())?;
        match self.store.report(reporting).await? {
            ReportAnswer::UnknownAccount => Err(ServiceError::NoReportToken),
            ReportAnswer::Repeated => Ok(()),
            ReportAnswer::Counted(count) => {
                metrics::REPORTS.add(1);
                if count == self.threshold {
                    metrics::REPORTED.add(1);
                    self.hooks.tell_reported(named, count);
                }
                Ok(())
            }
        }
    }

    /// Forgets used tokens that have expired, and counts that are as old.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge(&self) -> Result<(), ServiceError> {
        self.fetches.forget_full();
        self.reports.forget_full();
        let today = today();
        let before = today.saturating_sub(self.token_days);
        while self.store.purge_reports(today, before).await? > 0 {}
        Ok(())
    }

    /// What a token that is shown on this day counts for.
    fn open_on(
        &self,
        token: &[u8],
        named: AccountId,
        today: i64,
    ) -> Result<Reporting, ServiceError> {
        let token = self.open(token).ok_or(ServiceError::NoReportToken)?;
        let expires_day = token.day.saturating_add(self.token_days);
        if token.account != named || expires_day <= today {
            return Err(ServiceError::NoReportToken);
        }
        Ok(Reporting { account: named, token: token.number, day: today, expires_day })
    }

    fn seal(&self, account: AccountId, day: i64) -> Option<Bytes> {
        let mut number = [0; 16];
        rand::rng().fill_bytes(&mut number);
        let day = u32::try_from(day).unwrap_or(u32::MAX);
        let mut sealed = [&account.0[..], &day.to_be_bytes()].concat();
        let key = self.key_of(&number)?;
        key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).ok()?;
        Some([&number[..], &sealed].concat().into())
    }

    fn open(&self, token: &[u8]) -> Option<Token> {
        let token: &[u8; TOKEN_LEN] = token.try_into().ok()?;
        let (number, sealed) = token.split_first_chunk::<16>()?;
        let mut sealed = sealed.to_vec();
        let opened = self.key_of(number)?.open_in_place(nonce(), Aad::empty(), &mut sealed).ok()?;
        let (account, day) = opened.split_first_chunk::<16>()?;
        let day = u32::from_be_bytes(day.try_into().ok()?);
        Some(Token { number: *number, account: AccountId(*account), day: day.into() })
    }

    fn key_of(&self, number: &[u8; 16]) -> Option<LessSafeKey> {
        let keyed = Hmac::<Sha256>::new_from_slice(&*self.key).ok()?;
        let key: Zeroizing<[u8; 32]> =
            Zeroizing::new(keyed.chain_update(number).finalize().into_bytes().into());
        UnboundKey::new(&AES_256_GCM, &*key).ok().map(LessSafeKey::new)
    }
}

/// A token that this relay has made.
struct Token {
    number: [u8; 16],
    account: AccountId,
    /// Since 1970.
    day: i64,
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn day_ms(day: i64) -> u64 {
    day.saturating_mul(DAY_MS).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, OnFailure};
    use crate::storage::sqlite::SqliteStore;

    fn reports(folder: &std::path::Path) -> Reports {
        let config = Config::new(folder);
        let identity = ServerIdentity::load_or_create(&config).unwrap();
        let store = Arc::new(SqliteStore::open(&folder.join("db")).unwrap());
        let hooks = Hooks::new(None, OnFailure::Allow, &config.limits);
        Reports::new(store, hooks, &identity, &config.limits)
    }

    #[tokio::test]
    async fn token_tells_nothing_and_ends_after_its_days() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (here, there) = (reports(folder.path()), reports(other.path()));
        let account = AccountId([7; 16]);
        let tokens = [here.seal(account, 100).unwrap(), here.seal(account, 100).unwrap()];
        for token in &tokens {
            assert_eq!(token.len(), TOKEN_LEN);
            assert!(!token.windows(4).any(|bytes| bytes == [7; 4]));
            assert!(here.open(token).is_some() && there.open(token).is_none());
        }
        assert!(tokens[0].iter().zip(&tokens[1]).filter(|(one, two)| one == two).count() < 10);
        assert!(here.open_on(&tokens[0], account, 100 + 59).is_ok());
        let late = here.open_on(&tokens[0], account, 100 + 60);
        assert!(matches!(late, Err(ServiceError::NoReportToken)));
        let others = here.open_on(&tokens[0], AccountId([8; 16]), 100);
        assert!(matches!(others, Err(ServiceError::NoReportToken)));
    }
}
