//! What the relay does in whatever order things happen: a stream begins, gets, acknowledges and ends, submissions come, nodes
//! tell each other, sweep and are killed. The nodes, their streams and the bus are the real ones; the store is one in memory
//! (`store`), since what matters is where its transactions fall and each schedule begins with a new one. `explore` goes
//! through all schedules of a small world (`world`), and in each `properties` are looked at.

mod connection;
mod device;
mod explore;
mod job;
mod nodes;
mod properties;
mod steps;
mod store;
mod world;

use std::hash::{DefaultHasher, Hash, Hasher};

use Kind::{Ephemeral, Stored};
use Move::{Connect, Leave};
pub(super) use device::Wire;
use explore::explore;

/// Of a message: its place among the submissions, and each byte of its envelope.
type Number = u8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stored,
    Ephemeral,
}

/// What a device does. It may open a connection while the one before seems open to its node.
#[derive(Debug, Clone, Copy)]
enum Move {
    Connect(usize),
    Leave,
}

/// What a world may have in it.
struct Scenario {
    name: &'static str,
    moves: &'static [Move],
    /// The node that takes each of them in.
    submissions: &'static [(usize, Kind)],
    /// Notices that may be lost or come twice.
    losses: usize,
    repeats: usize,
    /// Sweeps, besides the last one.
    sweeps: usize,
    /// May be killed.
    crash: Option<usize>,
    /// A node may see that a connection is gone that the device has left without a word.
    breaks: bool,
}

fn digest(what: &impl Hash) -> u64 {
    let mut into = DefaultHasher::new();
    what.hash(&mut into);
    into.finish()
}

const NONE: Scenario = Scenario {
    name: "",
    moves: &[],
    submissions: &[],
    losses: 0,
    repeats: 0,
    sweeps: 0,
    crash: None,
    breaks: false,
};

/// Explores all schedules, and says how many there are. So many different worlds are among them, or it does not do what it
/// should.
#[track_caller]
fn covers(scenario: &'static Scenario, states: usize) {
    let begun = std::time::Instant::now();
    let explored = explore(scenario);
    eprintln!(
        "{}: {} schedules through {} worlds, in {:.1?}",
        scenario.name,
        explored.schedules,
        explored.states,
        begun.elapsed()
    );
    assert!(explored.states >= states && explored.schedules >= states as u128);
}

#[test]
fn device_goes_to_another_node_and_the_old_connection_seems_open() {
    static OLD: Scenario = Scenario {
        name: "goes, and something comes to the old node",
        moves: &[Connect(0), Connect(1)],
        submissions: &[(0, Stored)],
        breaks: true,
        ..NONE
    };
    static NEW: Scenario = Scenario {
        name: "goes, and something comes to the new node",
        moves: &[Connect(0), Connect(1)],
        submissions: &[(1, Stored)],
        ..NONE
    };
    covers(&OLD, 2000);
    covers(&NEW, 1500);
}

#[test]
fn device_leaves_and_comes_back_at_another_node() {
    static SCENARIO: Scenario = Scenario {
        name: "leaves and comes back",
        moves: &[Connect(0), Leave, Connect(1)],
        submissions: &[(1, Stored)],
        ..NONE
    };
    covers(&SCENARIO, 2500);
}

#[test]
fn device_comes_back_to_the_node_where_its_first_connection_seems_open() {
    static OTHER: Scenario = Scenario {
        name: "three connections",
        moves: &[Connect(0), Connect(1), Connect(0)],
        ..NONE
    };
    static SAME: Scenario = Scenario {
        name: "two connections to one node",
        moves: &[Connect(0), Connect(0)],
        submissions: &[(0, Stored)],
        ..NONE
    };
    static SWEPT: Scenario = Scenario {
        name: "two connections to one node, which sweeps",
        moves: &[Connect(0), Connect(0)],
        sweeps: 1,
        ..NONE
    };
    covers(&OTHER, 800);
    covers(&SAME, 400);
    covers(&SWEPT, 100);
}

#[test]
fn device_that_leaves_is_woken() {
    static STORED: Scenario = Scenario {
        name: "leaves",
        moves: &[Connect(0), Leave],
        submissions: &[(0, Stored), (1, Stored)],
        ..NONE
    };
    static EPHEMERAL: Scenario = Scenario {
        name: "leaves, and something ephemeral comes",
        moves: &[Connect(0), Leave],
        submissions: &[(1, Ephemeral), (1, Stored)],
        repeats: 1,
        ..NONE
    };
    covers(&STORED, 2000);
    covers(&EPHEMERAL, 2000);
}

#[test]
fn more_comes_than_may_wait_in_memory() {
    static SCENARIO: Scenario = Scenario {
        name: "more than may wait",
        moves: &[Connect(0)],
        submissions: &[(0, Stored), (0, Stored), (0, Stored)],
        ..NONE
    };
    covers(&SCENARIO, 1000);
}

#[test]
fn notice_is_lost() {
    static LOOK: Scenario = Scenario {
        name: "a notice is lost",
        moves: &[Connect(0)],
        submissions: &[(1, Stored), (1, Stored)],
        losses: 1,
        ..NONE
    };
    static MOVED: Scenario = Scenario {
        name: "goes, and a notice is lost",
        moves: &[Connect(0), Connect(1)],
        submissions: &[(0, Stored)],
        losses: 1,
        ..NONE
    };
    covers(&LOOK, 300);
    covers(&MOVED, 1500);
}

#[test]
fn node_is_killed() {
    static SCENARIO: Scenario = Scenario {
        name: "a node is killed",
        moves: &[Connect(0), Connect(1)],
        submissions: &[(1, Stored)],
        crash: Some(0),
        ..NONE
    };
    covers(&SCENARIO, 4000);
}

/// Minutes. Run it by `just interleavings`.
#[test]
#[ignore = "minutes"]
fn deeper() {
    static ALL: [Scenario; 5] = [
        Scenario {
            name: "three connections, and something comes to the node between",
            moves: &[Connect(0), Connect(1), Connect(0)],
            submissions: &[(1, Stored)],
            ..NONE
        },
        Scenario {
            name: "a node is killed, and something has come to it",
            moves: &[Connect(0), Connect(1)],
            submissions: &[(0, Stored), (1, Stored)],
            crash: Some(0),
            ..NONE
        },
        Scenario {
            name: "leaves and comes back, and notices are lost and come twice",
            moves: &[Connect(0), Leave, Connect(1)],
            submissions: &[(0, Stored)],
            losses: 1,
            repeats: 1,
            ..NONE
        },
        Scenario {
            name: "two connections to one node, which sweeps, and something comes to the other",
            moves: &[Connect(0), Connect(0)],
            submissions: &[(1, Stored)],
            sweeps: 1,
            ..NONE
        },
        Scenario {
            name: "goes, and something comes to both nodes",
            moves: &[Connect(0), Connect(1)],
            submissions: &[(0, Stored), (1, Stored)],
            breaks: true,
            ..NONE
        },
    ];
    ALL.iter().for_each(|scenario| covers(scenario, 5_000));
}
