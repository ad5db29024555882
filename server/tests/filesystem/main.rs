//! Names, links and attributes: random histories on trunk and in jobs, against plain trees.

#[path = "../common/mod.rs"]
mod common;
mod directed;
mod op;
mod tree;
mod world;

use proptest::prelude::*;

proptest! {
    #![proptest_config(common::config(24))]

    #[test]
    fn a_committed_job_did_what_it_would_have_done_on_trunk(history in world::history()) {
        play(&history.0);
    }

    #[test]
    fn a_committed_job_did_what_it_would_have_done_on_trunk_on_disk(history in world::history()) {
        play_on(common::Place::disk(), &history.0);
    }
}

/// Plays a history and has the store checked.
fn play(history: &[world::Step]) {
    play_on(common::Place::memory(), history);
}

fn play_on(place: common::Place, history: &[world::Step]) {
    let mut world = world::World::new(place);
    history.iter().for_each(|step| world.play(step));
    world.end();
}
