//! Levels of a process that nobody else knows of: when one is committed, it simply was never apart from what is around it.
//!
//! A process may enter and commit a hundred thousand speculations in one job. Each as a context of its own to the job's end
//! would make every later look-up slower; so those that nothing depends on, and that depend on nothing but what is around
//! them, leave the graph, and their changes are the outer job's.

use super::job::Kind;
use super::{Aftermath, Coordinator, State, graph_fault};
use crate::store::Store;
use mojavefs::error::Fault;
use mojavefs::graph::Event;
use mojavefs::id::{IntervalId, SpecId};
use mojavefs::limits::OUTCOMES_KEPT_MAX;
use mojavefs::wire::{Outcome, SpecState};

impl Coordinator {
    /// Makes a committed level part of what is around it; nothing if it can't be done so simply.
    pub(super) fn absorb(&self, state: &mut State, spec: SpecId) -> Result<Option<Aftermath>, Fault> {
        let Some(parent) = state.absorbs(spec) else { return Ok(None) };
        let job = &state.jobs[&spec];
        let (owner, changed) = (job.owner(), job.changed_intervals(&self.store));
        // As far as the graph goes it never was: nothing in it refers to it.
        state.apply(&Event::Abort { owner, spec, code: 1, retry: false }).map_err(graph_fault)?;
        let jobs: Vec<_> = state.remove(spec).into_iter().collect();
        state.end_contexts(&jobs);
        state.absorbed.push_back(spec);
        if state.absorbed.len() > OUTCOMES_KEPT_MAX {
            state.absorbed.pop_front();
        }
        let context = jobs[0].context;
        let outer = jobs[0].parent_context.expect("a level that is absorbed is inside another context");
        let mut aftermath = Aftermath { jobs, ..Aftermath::default() };
        if changed.is_empty() {
            self.conflicts.decided(context, true);
            aftermath.dropped = Some((context, outer));
            return Ok(Some(aftermath));
        }
        if let Some(outer) = state.jobs.get_mut(&parent) {
            outer.intervals.extend(&changed);
        }
        self.conflicts.fold(context, outer);
        self.conflicts.outdated(outer);
        aftermath.rescoped = state.inside(parent);
        aftermath.folded = Some((context, outer, changed));
        Ok(Some(aftermath))
    }
}

impl State {
    /// The job that a level can become part of, without anybody's knowing that it was apart.
    fn absorbs(&self, spec: SpecId) -> Option<SpecId> {
        let job = self.jobs.get(&spec).filter(|job| job.kind != Kind::Job && job.on_read.follows())?;
        let lonely = job.joined.is_empty() && job.owns.is_empty() && self.is_alone(spec);
        job.parent.filter(|_| lonely && !self.graph.is_needed_by_others(job.context))
    }

    /// Where a level stands that is part of another by now.
    pub(super) fn absorbed_outcome(&self, spec: SpecId) -> Option<Outcome> {
        self.absorbed.contains(&spec).then(|| Outcome::of(spec, SpecState::Voted, 0))
    }
}

impl super::Job {
    /// Those of its intervals in which something was changed.
    fn changed_intervals(&self, store: &Store) -> Vec<IntervalId> {
        self.intervals.iter().copied().filter(|interval| store.changes_count(*interval) > 0).collect()
    }
}
