//! What single events of the interval graph cost.

use divan::{Bencher, black_box};
use mojavefs::graph::{Event, Graph, Owner, Resume, Sees};
use mojavefs::id::{ContextId, IntervalId, SpecId};

fn main() {
    divan::main();
}

/// The job of a number: a context with one speculation.
fn enter(graph: &mut Graph, job: u64) {
    let context = ContextId(job);
    let open = Event::Open { context, interval: IntervalId(job * 4), from: None, sees: Sees::Follows };
    let speculate = Event::Speculate { context, interval: IntervalId(job * 4 + 1), spec: SpecId(job) };
    for event in [open, speculate] {
        graph.apply(&event).expect("a job begins");
    }
}

fn join(graph: &mut Graph, job: u64, of: u64) {
    let (of, interval) = (IntervalId(of * 4 + 1), IntervalId(job * 4 + 2));
    let read = Event::Read { context: ContextId(job), of, interval, resume: Resume::Start };
    graph.apply(&read).expect("a job joins");
}

/// So many jobs, each of which has read from the one before it.
fn chain(length: u64) -> Graph {
    let mut graph = Graph::default();
    (1..=length).for_each(|job| enter(&mut graph, job));
    (2..=length).for_each(|job| join(&mut graph, job, job - 1));
    graph
}

#[divan::bench]
fn enter_and_commit(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(Graph::default).bench_values(|mut graph| {
        enter(&mut graph, 1);
        graph.apply(&Event::Vote { owner: Owner::Context(ContextId(1)), spec: SpecId(1) }).expect("a vote")
    });
}

#[divan::bench(args = [1, 100, 10_000])]
fn join_among_so_many_jobs(bencher: Bencher<'_, '_>, jobs: u64) {
    let graph = || {
        let mut graph = Graph::default();
        (1..=jobs + 1).for_each(|job| enter(&mut graph, job));
        graph
    };
    bencher.with_inputs(graph).bench_refs(|graph| join(graph, 1, 2));
}

#[divan::bench(args = [1, 10, 100, 1000])]
fn abort_that_reaches(bencher: Bencher<'_, '_>, jobs: u64) {
    let abort = Event::Abort { owner: Owner::Context(ContextId(1)), spec: SpecId(1), code: 1, retry: false };
    bencher.with_inputs(|| chain(jobs)).bench_refs(|graph| black_box(graph.apply(&abort)).expect("an abort"));
}

#[divan::bench(args = [1, 10, 100, 1000])]
fn vote_that_makes_final(bencher: Bencher<'_, '_>, jobs: u64) {
    let vote = |job| Event::Vote { owner: Owner::Context(ContextId(job)), spec: SpecId(job) };
    let voted = || {
        let mut graph = chain(jobs);
        (2..=jobs).for_each(|job| drop(graph.apply(&vote(job)).expect("a vote")));
        graph
    };
    bencher.with_inputs(voted).bench_refs(|graph| black_box(graph.apply(&vote(1))).expect("a vote"));
}
