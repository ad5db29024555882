//! The daemon dies when a vote was sent, before it has said what came of it: nobody knows, and nothing is done twice.

use super::waiter::Waiter;
use crate::harness::Mount;
use crate::harness::stopped::Stopped;
use nix::sys::signal::{Signal, kill};

/// A process that has voted for what it wrote, while its daemon hung; that one is dead now.
fn voted_in_vain(mount: &Mount) -> Waiter {
    let mut waiter = Waiter::start(mount);
    assert_eq!(["s", "w"].map(|order| waiter.does(order)), ["s 0", "w 0"]);
    let daemon = mount.daemon();
    let stopped = Stopped::new(daemon);
    assert_eq!(waiter.does("c"), "c 0");
    kill(daemon, Signal::SIGKILL).expect("kill the daemon");
    drop(stopped);
    mount.clear(daemon);
    waiter
}

#[test]
fn a_process_whose_vote_was_not_answered_is_told_that_nobody_knows_and_does_not_go_back() {
    let mount = Mount::new();
    let mut waiter = voted_in_vain(&mount);
    for order in ["B", "o", "b"] {
        assert_eq!(waiter.does(order), format!("{order} -1 Input/output error"));
    }
    let said = waiter.does("s");
    assert!(said.starts_with("s -1 ") && said.contains("daemon"), "{said}");
    assert_eq!(waiter.code(), Some(0));
    mount.fsck();
    mount.mount();
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn a_program_that_ends_without_knowing_what_came_of_its_vote_does_not_end_well() {
    let mount = Mount::new();
    let waiter = voted_in_vain(&mount);
    assert_eq!(waiter.code(), Some(128 + Signal::SIGABRT as i32));
    mount.mount();
}
