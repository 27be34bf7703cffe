//! The double ratchet and the post-quantum ratchet side by side, committed together (W§9).

use super::double::{Chain, DoubleRatchet, ReceivePlan};
use super::{JumpLimit, RatchetError};
use crate::crypto::curve::PublicKey;
use crate::keys::MessageKeys;
use crate::spqr::{Change, Spqr, SpqrError};
use alloc::vec::Vec;
use rand_core::CryptoRng;

/// Both halves of a session's ratchet. `Clone` is for the archive alone.
#[derive(Clone, Debug)]
pub(crate) struct TripleRatchet {
    pub(crate) double: DoubleRatchet,
    pub(crate) pq: Spqr,
}

/// The next message to send: its place, its keys, and what committing it will change.
pub(crate) struct SendPlan {
    pub(crate) counter: u32,
    /// Field 5; empty means absent.
    pub(crate) pq_message: Vec<u8>,
    pub(crate) keys: MessageKeys,
    next: Chain,
    pq: Change,
}

/// A received message: its keys, and what committing it will change.
pub(crate) struct RecvPlan {
    pub(crate) keys: MessageKeys,
    double: ReceivePlan,
    pq: Change,
}

/// Which half refused, before a MAC was looked at.
pub(crate) enum Refused {
    Ratchet(RatchetError),
    Pq(SpqrError),
}

impl TripleRatchet {
    /// The next message in both halves. Either half may refuse: a chain is used up, or the stored
    /// state is damaged.
    pub(crate) fn plan_send(&self, rng: &mut impl CryptoRng) -> Result<SendPlan, Refused> {
        let (seed, next) = self.double.plan_send().map_err(Refused::Ratchet)?;
        let pq = self.pq.send(rng).map_err(Refused::Pq)?;
        Ok(SendPlan {
            counter: self.double.sender.chain.index,
            pq_message: pq.message,
            keys: seed.message_keys(pq.key.as_ref()),
            next,
            pq: pq.change,
        })
    }

    pub(crate) fn commit_send(&mut self, plan: SendPlan) {
        self.double.commit_send(plan.next);
        self.pq.commit(plan.pq);
    }

    /// Steps 1 to 4 of "order on receive" (W§9); the caller does MAC, addresses and body.
    pub(crate) fn plan_receive(
        &self,
        ratchet_key: &PublicKey,
        counter: u32,
        pq_message: &[u8],
        limit: JumpLimit,
        rng: &mut impl CryptoRng,
    ) -> Result<RecvPlan, Refused> {
        if let Some((position, keys)) = self.double.ready.find(ratchet_key, counter) {
            let pq = self.pq.recv(pq_message).map_err(Refused::Pq)?;
            return Ok(RecvPlan { keys, double: ReceivePlan::Ready { position }, pq: pq.change });
        }
        let (seed, double) =
            self.double.plan_receive(ratchet_key, counter, limit, rng).map_err(Refused::Ratchet)?;
        let pq = self.pq.recv(pq_message).map_err(Refused::Pq)?;
        Ok(RecvPlan { keys: seed.message_keys(pq.key.as_ref()), double, pq: pq.change })
    }

    pub(crate) fn commit_receive(&mut self, plan: RecvPlan) {
        self.double.commit_receive(plan.double);
        self.pq.commit(plan.pq);
    }
}
