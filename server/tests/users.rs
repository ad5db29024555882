//! What a user may ask of others' jobs.

mod common;

use common::Client;
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{ConnectionExt, JobInfo, OnRead, OpenedView, SpecOp, ViewKind, ViewOp};

const ROOT: u32 = 0;
const ONE: u32 = 1000;
const OTHER: u32 = 1001;

fn job(client: &Client, parent: ViewId, uid: u32) -> Result<OpenedView, Fault> {
    let info = JobInfo { uid, ..JobInfo::default() };
    let kind = ViewKind::Job { parent, info, on_read: OnRead::Isolate, own: None, restarts: Some(String::new()) };
    client.ask().view(ViewOp::Open(kind))
}

fn process(client: &Client, parent: ViewId, uid: u32) -> Result<OpenedView, Fault> {
    client.ask().view(ViewOp::Open(ViewKind::Process { parent, uid, pid: 1 }))
}

fn spec(opened: &OpenedView) -> SpecId {
    opened.spec.expect("a job has a speculation")
}

fn is_denied<T>(result: Result<T, Fault>) -> bool {
    result.is_err_and(|fault| fault.kind == FaultKind::AccessDenied)
}

#[test]
fn only_the_owner_and_root_start_something_inside_a_job() {
    let client = Client::new();
    for owner in [ROOT, ONE] {
        let outer = job(&client, client.trunk, owner).expect("everybody starts jobs on trunk").view;
        assert!(is_denied(job(&client, outer, OTHER)) && is_denied(process(&client, outer, OTHER)));
        for uid in [owner, ROOT] {
            job(&client, outer, uid).expect("a job within a job");
            let process = process(&client, outer, uid).expect("a process of a job").view;
            assert!(is_denied(job(&client, process, OTHER)), "the views of its processes are closed to others, too");
        }
    }
    process(&client, client.trunk, OTHER).expect("everybody speculates on trunk");
}

#[test]
fn only_the_owner_and_root_say_that_a_job_has_ended_or_waits() {
    let client = Client::new();
    let first = spec(&job(&client, client.trunk, ONE).expect("a job"));
    let second = spec(&job(&client, client.trunk, OTHER).expect("a job"));
    let unsettled = |uid| client.ask().specs(SpecOp::Unsettled { spec: first }.by(uid));
    assert!(is_denied(unsettled(OTHER)));
    for uid in [ONE, ROOT] {
        assert_eq!(unsettled(uid).expect("an answer"), []);
    }
    let wait = |(behind, on): (SpecId, SpecId), uid| {
        let request = SpecOp::Await { specs: vec![on], millis: 1, behind: Some(behind) }.by(uid);
        client.ask().specs(request)
    };
    assert_eq!(wait((first, second), OTHER).expect("a wait"), [second], "the first does not wait by this");
    assert_eq!(wait((second, first), OTHER).expect("a wait"), [first], "so the second does not wait for itself");
    let circular = wait((first, second), ONE).expect_err("now the second waits, and the first would for itself");
    assert_eq!(circular.kind, FaultKind::Deadlock);
}
