//! The daemon over the host ends, well or not.

use super::exact;
use crate::harness::host::OverHost;
use crate::harness::{sh, text, until};
use nix::sys::signal::Signal;

#[test]
fn what_is_held_outlives_the_daemon() {
    for how in [Signal::SIGTERM, Signal::SIGKILL] {
        let host = OverHost::new();
        sh(&host.path(), "echo old > f; mkdir d; echo x > d/x");
        let held = host.specrun(&["--hold"], "echo held >> f; mv d e; echo n > e/n");
        assert!(held.status.success(), "{held:?}");
        host.end(how);
        let status = host.mojavefs(&["status"]);
        assert!(text(&status.stdout).starts_with("1  held"), "{how:?}: {status:?}");
        let committed = host.mojavefs(&["commit", "1"]);
        assert!(committed.status.success(), "{how:?}: {committed:?}");
        assert_eq!(
            (host.read("f"), host.read("e/n"), host.read("e/x")),
            ("old\nheld\n".into(), "n\n".into(), "x\n".into())
        );
        assert!(!host.at("d").exists());
    }
}

#[test]
fn a_job_whose_daemon_is_killed_has_changed_nothing() {
    let host = OverHost::new();
    sh(&host.path(), "echo old > f; mkdir d");
    let before = exact(&host.path());
    let script = "echo job >> f; rm -r d; touch ../halfway; sleep 1000";
    let job = host.job(&["--retries", "0"], script).spawn().expect("a job");
    until("it is halfway", || host.aside("halfway").exists());
    host.end(Signal::SIGKILL);
    let output = job.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(exact(&host.path()), before);
    // And the next one begins anew.
    host.run("cat f; echo again > f");
    assert_eq!(host.read("f"), "again\n");
}
