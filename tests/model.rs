//! Two parties under a network that drops, reorders, repeats and corrupts: random runs of the world
//! that `story/world.rs` judges. The fuzz target `session_two_parties` runs the same one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod story;

use proptest::prelude::*;
use story::world::{Side, Step, World};

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Alice), Just(Side::Bob)]
}

fn step() -> impl Strategy<Value = Step> {
    let place = any::<usize>;
    prop_oneof![
        12 => side().prop_map(Step::Send),
        12 => (side(), place()).prop_map(|(to, which)| Step::Deliver(to, which)),
        2 => (side(), place()).prop_map(|(to, which)| Step::Drop(to, which)),
        2 => (side(), place()).prop_map(|(to, which)| Step::Repeat(to, which)),
        4 => (side(), place(), place(), 1..=255u8)
            .prop_map(|(to, which, byte, change)| Step::Corrupt(to, which, byte, change)),
        2 => side().prop_map(Step::Restart),
        2 => side().prop_map(Step::Begin),
    ]
}

/// As [`step`], with backups.
fn step_with_backups() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => step(),
        1 => side().prop_map(Step::Save),
        1 => side().prop_map(Step::RollBack),
    ]
}

fn run(steps: Vec<Step>) {
    let mut world = World::new();
    steps.into_iter().for_each(|step| world.run(step));
    world.assert_still_talking();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn messages_arrive_at_most_once_and_unchanged(steps in prop::collection::vec(step(), 1..120)) {
        run(steps);
    }

    #[test]
    fn a_restored_backup_never_reads_a_wrong_plaintext(
        steps in prop::collection::vec(step_with_backups(), 1..120),
    ) {
        run(steps);
    }
}
