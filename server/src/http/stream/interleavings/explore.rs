//! The search: all schedules, depth first, in one order. A task cannot be copied, so each branch but the first begins anew and
//! goes the way again; where it comes to a world that was there before, it turns back.

use std::collections::HashMap;
use std::rc::Rc;

use super::Scenario;
use super::nodes::Nodes;
use super::steps::Step;
use super::world::World;

/// What a search has seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Explored {
    /// Different ways from the beginning to an end.
    pub(super) schedules: u128,
    /// Different worlds on them.
    pub(super) states: usize,
}

struct Search {
    scenario: &'static Scenario,
    nodes: Rc<Nodes>,
    path: Vec<Step>,
    /// Schedules from each world that was there to an end.
    known: HashMap<u64, u128>,
}

/// # Panics
/// Something is wrong in one of the worlds: the steps to it are told.
pub(super) fn explore(scenario: &'static Scenario) -> Explored {
    // Sockets measure time, though nothing here waits for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let nodes = Rc::new(Nodes::new());
    let begin = World::new(scenario, &nodes);
    let mut search = Search { scenario, nodes, path: Vec::new(), known: HashMap::new() };
    let schedules = search.from(begin);
    Explored { schedules, states: search.known.len() }
}

impl Search {
    fn from(&mut self, world: World) -> u128 {
        let here = world.fingerprint();
        if let Some(schedules) = self.known.get(&here) {
            return *schedules;
        }
        let (steps, mut world) = (world.steps(), Some(world));
        let mut schedules = u128::from(steps.is_empty());
        for step in steps {
            let mut next = world.take().unwrap_or_else(|| self.again(here));
            self.path.push(step);
            if let Err(wrong) = next.take(step) {
                panic!("{}: {wrong}, after\n{}", self.scenario.name, self.way());
            }
            schedules += self.from(next);
            self.path.pop();
        }
        self.known.insert(here, schedules);
        schedules
    }

    /// The same world once more.
    fn again(&self, fingerprint: u64) -> World {
        let mut world = World::new(self.scenario, &self.nodes);
        for step in &self.path {
            world.change(*step).expect("it was right before");
        }
        assert_eq!(world.fingerprint(), fingerprint, "it went another way:\n{}", self.way());
        world
    }

    fn way(&self) -> String {
        self.path.iter().map(|step| format!("  {step:?}\n")).collect()
    }
}
