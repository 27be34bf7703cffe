//! The double ratchet and the post-quantum ratchet side by side, committed together (W§9).

use super::double::{Chain, DoubleRatchet, ReceivePlan};
use super::pq::{PqRatchet, PqRefused};
use crate::crypto::curve::PublicKey;
use crate::keys::{MessageKeys, PqMessageKey};
use crate::ratchet::{JumpLimit, RatchetError};
use alloc::vec::Vec;
use rand_core::CryptoRng;

/// Both halves of a session's ratchet. `Clone` is for the archive alone.
#[derive(Clone, Debug)]
pub(crate) struct TripleRatchet {
    pub(crate) double: DoubleRatchet,
    pub(crate) pq: PqRatchet,
}

/// The next message to send: its place, its keys, and what committing it will change.
pub(crate) struct SendPlan {
    pub(crate) counter: u32,
    /// Field 5; empty means absent.
    pub(crate) pq_message: Vec<u8>,
    pub(crate) keys: MessageKeys,
    next: Chain,
    pq: PqRatchet,
}

/// A received message: its keys, and what committing it will change.
pub(crate) struct RecvPlan {
    pub(crate) keys: MessageKeys,
    double: ReceivePlan,
    pq: PqRatchet,
}

/// Why a message was refused before its MAC was looked at.
pub(crate) enum RecvRefused {
    Ratchet(RatchetError),
    Pq(PqRefused),
}

impl TripleRatchet {
    pub(crate) fn plan_send(&self, rng: &mut impl CryptoRng) -> Result<SendPlan, RatchetError> {
        let (seed, next) = self.double.plan_send()?;
        let (pq, pq_message, pq_key) = self.pq.send(rng);
        Ok(SendPlan {
            counter: self.double.sender.chain.index,
            pq_message,
            keys: seed.message_keys(pq_key.as_ref()),
            next,
            pq,
        })
    }

    pub(crate) fn commit_send(&mut self, plan: SendPlan) {
        self.double.commit_send(plan.next);
        self.pq = plan.pq;
    }

    /// Steps 1 to 4 of "order on receive" (W§9); the caller does MAC, addresses and body.
    pub(crate) fn plan_receive(
        &self,
        ratchet_key: &PublicKey,
        counter: u32,
        pq_message: &[u8],
        limit: JumpLimit,
        rng: &mut impl CryptoRng,
    ) -> Result<RecvPlan, RecvRefused> {
        let (seed, double) = self
            .double
            .plan_receive(ratchet_key, counter, limit, rng)
            .map_err(RecvRefused::Ratchet)?;
        let (pq, pq_key): (PqRatchet, Option<PqMessageKey>) =
            self.pq.recv(pq_message).map_err(RecvRefused::Pq)?;
        Ok(RecvPlan { keys: seed.message_keys(pq_key.as_ref()), double, pq })
    }

    pub(crate) fn commit_receive(&mut self, plan: RecvPlan) {
        self.double.commit_receive(plan.double);
        self.pq = plan.pq;
    }
}
