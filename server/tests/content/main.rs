//! The content of files: random histories on trunk and in jobs, against plain vectors of bytes.

#[path = "../common/mod.rs"]
mod common;
mod model;
mod steps;
mod world;

use proptest::prelude::*;

proptest! {
    #![proptest_config(common::config(32))]

    #[test]
    fn content_is_what_was_written(history in steps::history()) {
        let mut world = world::World::new();
        history.0.iter().for_each(|step| world.play(step));
        world.end();
    }
}
