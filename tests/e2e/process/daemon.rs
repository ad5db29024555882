//! The daemon hangs, or is gone, while a process speculates.

use super::waiter::Waiter;
use crate::harness::stopped::Stopped;
use crate::harness::{Mount, until};
use nix::sys::signal::{Signal, kill};

/// While the daemon hangs these orders have their answers, and the last one only when it goes on.
fn waits_for_the_last(mount: &Mount, waiter: &mut Waiter, orders: &[(&str, &str)]) {
    let ((last, its_answer), before) = orders.split_last().expect("an order");
    let stopped = Stopped::new(mount.daemon());
    for (order, answer) in before {
        assert_eq!(waiter.does(order), *answer);
    }
    waiter.order(last);
    waiter.waits();
    drop(stopped);
    assert_eq!(waiter.answer(), *its_answer);
}

#[test]
fn a_daemon_that_hangs_is_waited_for() {
    require_root!();
    let mount = Mount::new();
    let mut waiter = Waiter::start(&mount);
    // A barrier with nothing to wait for asks nothing.
    waits_for_the_last(&mount, &mut waiter, &[("b", "b 0"), ("s", "s 0")]);
    let voted = [("c", "c 0"), ("b", "b -1 Connection timed out"), ("s", "s 0")];
    waits_for_the_last(&mount, &mut waiter, &voted);
    waits_for_the_last(&mount, &mut waiter, &[("c", "c 0"), ("B", "B 0")]);
    assert_eq!(waiter.code(), Some(0));
    mount.check();
}

#[test]
fn a_process_that_waits_for_a_daemon_that_hangs_can_be_ended() {
    require_root!();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mount = Mount::new();
        let mut waiter = Waiter::start(&mount);
        let stopped = Stopped::new(mount.daemon());
        waiter.order("s");
        waiter.waits();
        kill(waiter.pid, signal).expect("signal it");
        assert_eq!(waiter.code(), Some(128 + signal as i32));
        drop(stopped);
        until("what it had open is undone", || mount.status().is_empty());
        mount.check();
    }
}

#[test]
fn without_its_daemon_no_process_speculates_and_what_is_open_can_not_be_committed() {
    let mount = Mount::new();
    let (mut outside, mut inside) = (Waiter::start(&mount), Waiter::start(&mount));
    inside.order("s");
    assert_eq!(inside.answer(), "s 0");
    mount.crash();
    outside.order("s");
    let said = outside.answer();
    assert!(said.starts_with("s -1 ") && said.contains("daemon"), "{said}");
    assert_eq!(outside.code(), Some(0));
    inside.order("cB");
    while inside.answer().starts_with("c 0") {}
    assert_eq!(inside.code(), Some(128 + Signal::SIGABRT as i32));
    mount.fsck();
    mount.mount();
}

#[test]
fn a_program_that_closes_the_connection_to_the_daemon_is_told_so() {
    let mount = Mount::new();
    let mut waiter = Waiter::start(&mount);
    // The vote counts, and that can be known all the same.
    assert_eq!(["s", "w", "c", "x", "B"].map(|order| waiter.does(order)), ["s 0", "w 0", "c 0", "x 0", "B 0"]);
    assert!(mount.exists("after"));
    let said = waiter.does("s");
    assert!(said.starts_with("s -1 descriptor ") && said.contains("was the library's own"), "{said}");
    assert_eq!(waiter.code(), Some(0));
    mount.check();
}
