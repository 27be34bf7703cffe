//! What can happen next in a world.

use super::store::Task;
use super::world::{Submitting, World, mark};

/// A step is one thing that no other can come into the middle of: a transaction, or what a task does between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The device does what it does next.
    Move,
    /// A submission comes and is stored.
    Submit(usize),
    /// A transaction is carried out.
    Commit(Task),
    /// A task sees the answer and goes on.
    Resume(Task),
    /// A stream takes what waits for it.
    Wake(usize),
    /// Envelopes in memory have waited for the one before them.
    Hole(usize),
    /// The device reads what is there and acknowledges it.
    Read,
    /// A stream sees that its device is gone.
    Gone(usize),
    /// Of what is on the bus, this arrives, is lost, or arrives and will come again.
    Arrive(usize),
    Lose(usize),
    Repeat(usize),
    /// A node deletes what was acknowledged.
    Delete(usize),
    Sweep(usize),
    /// A node is killed, and another is there in its place.
    Crash(usize),
    /// Nothing else happens but one sweep of each node.
    Finish,
}

impl World {
    /// All that can happen now.
    pub(super) fn steps(&self) -> Vec<Step> {
        if self.finished {
            return Vec::new();
        }
        let mut steps = self.due();
        if steps.is_empty() {
            steps.push(Step::Finish);
        }
        self.push_faults(&mut steps);
        steps
    }

    /// What happens sooner or later.
    pub(super) fn due(&self) -> Vec<Step> {
        let (mut due, store) = (Vec::new(), &self.nodes.mailboxes);
        for (at, connection) in self.connections.iter().enumerate() {
            due.extend(connection.due(at, store));
        }
        if let Some(at) = self.current()
            && self.connections[at].is_waiting()
            && self.connections[at].pipe.has_something()
        {
            due.push(Step::Read);
        }
        for (at, submission) in self.submissions.iter().enumerate() {
            match submission {
                Submitting::Not if self.is_first_of_its_like(at) => due.push(Step::Submit(at)),
                Submitting::Under(_, job) => due.extend(job.next(store)),
                _ => {}
            }
        }
        let sweeps = self.sweeps.iter().filter_map(|(_, job)| job.as_ref());
        due.extend(sweeps.filter_map(|job| job.next(store)));
        due.extend(self.different_notices().map(Step::Arrive));
        let deleting = self.live.iter().filter(|at| store.has_deletes(self.node(**at).id));
        due.extend(deleting.map(|at| Step::Delete(*at)));
        if self.moves < self.scenario.moves.len() {
            due.push(Step::Move);
        }
        due
    }

    /// What may happen or not, so often.
    fn push_faults(&self, steps: &mut Vec<Step>) {
        let scenario = self.scenario;
        if self.lost < scenario.losses {
            steps.extend(self.different_notices().map(Step::Lose));
        }
        if self.repeated < scenario.repeats {
            steps.extend(self.different_notices().map(Step::Repeat));
        }
        if self.sweeps.len() < scenario.sweeps {
            let live = self.live.iter().filter(|at| self.node(**at).line.borrow().has_listeners());
            steps.extend(live.map(|at| Step::Sweep(*at)));
        }
        if let Some(node) = scenario.crash
            && !self.crashed
        {
            steps.push(Step::Crash(node));
        }
        if scenario.breaks {
            let before = self.connections.len().saturating_sub(1);
            let old = self.connections.iter().take(before).enumerate();
            let old = old.filter(|(_, it)| !it.left && it.is_waiting());
            steps.extend(old.map(|(at, _)| Step::Gone(at)));
        }
    }

    /// Those that are alike come in their order: another one shows nothing more.
    fn is_first_of_its_like(&self, at: usize) -> bool {
        let like = self.scenario.submissions[at];
        let mut before = self.scenario.submissions.iter().zip(&self.submissions).take(at);
        before.all(|(other, state)| *other != like || !matches!(state, Submitting::Not))
    }

    /// The first of each kind: they are in order.
    fn different_notices(&self) -> impl Iterator<Item = usize> {
        let like = |at: &usize| at.checked_sub(1).map(|before| mark(&self.air[before]));
        (0..self.air.len()).filter(move |at| like(at) != Some(mark(&self.air[*at])))
    }
}
