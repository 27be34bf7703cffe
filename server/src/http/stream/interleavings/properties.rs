//! What holds in every world, when nothing is under way, and at the end.

use std::collections::BTreeSet;

use super::world::World;
use super::{Kind, Move, Number, Scenario};
use crate::service::push::Reason;

const DISPLACED: u16 = 4409;

/// A submission is answered: a node that has the device nowhere asks for a wake-up, and so, for later, does one whose store
/// says that it is at another node. Nobody else does.
pub(super) fn wake_up(
    world: &World,
    at: usize,
    (node, here): (usize, bool),
    reason: Option<Reason>,
) -> Result<(), String> {
    let presence =
        world.nodes.mailboxes.look(|mailbox| mailbox.kept(at as Number).map(|it| it.node));
    let expected = match presence {
        None => None,
        Some(_) if here => None,
        Some(Some(there)) if there != world.node(node).id => Some(Reason::Unfetched),
        Some(_) => Some(Reason::Away),
    };
    if reason == expected {
        return Ok(());
    }
    Err(format!("submission {at} asked for a wake-up by {reason:?}, not {expected:?}"))
}

/// # Errors
/// What does not hold.
pub(super) fn hold(world: &World) -> Result<(), String> {
    nothing_is_lost(world)?;
    closed_with_reason(world)?;
    let calm = world.lost == 0 && !world.crashed;
    if world.finished {
        only_one_is_open(world)?;
        return complete(world);
    }
    // Unless notices were lost or a node was killed no sweep is needed, but for an old connection that was told before it
    // knew its claim.
    if calm && world.due().is_empty() { complete(world) } else { Ok(()) }
}

fn stored(world: &World) -> BTreeSet<Number> {
    world.nodes.mailboxes.look(|mailbox| mailbox.numbers())
}

/// What was accepted is in the mailbox until the device has it, and nothing ephemeral is.
fn nothing_is_lost(world: &World) -> Result<(), String> {
    let stored = stored(world);
    let ephemeral =
        |number: &&Number| world.scenario.submissions[usize::from(**number)].1 == Kind::Ephemeral;
    if let Some(number) = stored.iter().find(ephemeral) {
        return Err(format!("{number} is ephemeral and was stored"));
    }
    match world.accepted().iter().find(|it| !stored.contains(it) && !world.got.contains(it)) {
        Some(number) => Err(format!("{number} was accepted and is nowhere")),
        None => Ok(()),
    }
}

/// The server closes connections because a later one is there, and for nothing else.
fn closed_with_reason(world: &World) -> Result<(), String> {
    for (at, connection) in world.connections.iter().enumerate() {
        match connection.pipe.closed() {
            None => {}
            Some(DISPLACED) if at + 1 < world.connections.len() || is_overtaken(world) => {}
            Some(DISPLACED) => return Err("the youngest connection was displaced".into()),
            Some(code) => return Err(format!("a connection was closed with {code}")),
        }
    }
    Ok(())
}

fn only_one_is_open(world: &World) -> Result<(), String> {
    let open = world.connections.iter().enumerate().filter(|(_, it)| !it.is_over());
    match open.map(|(at, _)| at).find(|at| Some(*at) != world.current()) {
        Some(_) if is_overtaken(world) => Ok(()),
        Some(at) => Err(format!("connection {at} is still open")),
        None => Ok(()),
    }
}

/// The device has all, or is away and will be woken.
fn complete(world: &World) -> Result<(), String> {
    let to_be_connected = matches!(world.scenario.moves.last(), Some(Move::Connect(_)));
    match world.current() {
        Some(_) if is_overtaken(world) => Ok(()),
        Some(at) if to_be_connected => connected(world, at),
        Some(_) => Err("the device has left, and seems connected".into()),
        None if to_be_connected && !world.crashed && !is_overtaken(world) => {
            Err("the device was put out".into())
        }
        None if is_overtaken(world) => Ok(()),
        None => away(world),
    }
}

fn connected(world: &World, at: usize) -> Result<(), String> {
    if let Some(number) = world.accepted().difference(&world.got).next() {
        return Err(format!("{number} was accepted and did not come"));
    }
    if let Some(number) = stored(world).first() {
        return Err(format!("{number} was not acknowledged, or is still there"));
    }
    let connection = &world.connections[at];
    let presence = world.nodes.mailboxes.look(|mailbox| (mailbox.node, mailbox.epoch));
    if presence == (Some(world.node(connection.node).id), connection.waiting.epoch()) {
        return Ok(());
    }
    Err(format!("the device is connected, and its mailbox is at {presence:?}"))
}

/// Where it may not be, nobody asks who knows whom to wake.
pub(super) fn may_be_away(scenario: &Scenario) -> bool {
    scenario.crash.is_some() || matches!(scenario.moves.last(), Some(Move::Leave))
}

fn away(world: &World) -> Result<(), String> {
    // An old connection may be taken for the device until a sweep.
    if world.connections.iter().any(|connection| !connection.is_over()) {
        return Ok(());
    }
    let node = world.nodes.mailboxes.look(|mailbox| mailbox.node);
    if node.is_some() && !world.crashed {
        return Err(format!("the device is away, and its mailbox is at {node:?}"));
    }
    for number in stored(world).intersection(&world.accepted()) {
        // A node that is killed forgets whom it meant to wake.
        let (taken_in_at, _) = world.scenario.submissions[usize::from(*number)];
        let forgotten = world.crashed && world.scenario.crash == Some(taken_in_at);
        let asked = world.asked.get(number).is_some_and(|nodes| !nodes.is_empty());
        if !asked && !forgotten {
            return Err(format!("{number} waits, and nobody wakes the device"));
        }
    }
    Ok(())
}

/// An old connection at another node has claimed the mailbox after the youngest one. No node can know that: the later claim
/// has it.
fn is_overtaken(world: &World) -> bool {
    let Some(youngest) = world.connections.last() else { return false };
    let claims = world.nodes.mailboxes.look(|mailbox| mailbox.claims.clone());
    let last = claims.last().and_then(|at| world.connections.get(*at));
    last.is_some_and(|last| {
        last.node != youngest.node && claims.contains(&(world.connections.len() - 1))
    })
}
