//! The content of files: random histories on trunk and in jobs, against plain vectors of bytes.

#[path = "../common/mod.rs"]
mod common;
mod directed;
mod levels;
mod model;
mod steps;
mod world;

use proptest::prelude::*;

proptest! {
    #![proptest_config(common::config(32))]

    #[test]
    fn content_is_what_was_written(history in steps::history()) {
        play(&history.0);
    }

    #[test]
    fn content_is_what_was_written_on_disk(history in steps::history()) {
        play_on(common::Place::disk(), &history.0);
    }
}

/// Plays a history and has the store checked.
fn play(history: &[steps::Step]) {
    play_on(common::Place::memory(), history);
}

fn play_on(place: common::Place, history: &[steps::Step]) {
    let mut world = world::World::new(place);
    history.iter().for_each(|step| world.play(step));
    world.end();
}
