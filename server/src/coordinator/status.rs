//! What is undecided, and where it stands.

use super::conflicts::Standing;
use super::job::Met;
use super::{Coordinator, Job, State};
use crate::store::{Sight, Store};
use mojavefs::id::{ContextId, SpecId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Outcome, SpecState, SpecStatus};
use std::collections::BTreeMap;

/// A speculation's status, and what is to be put into words.
type Row = (SpecStatus, Sight, Standing, BTreeMap<SpecId, Met>);

impl Coordinator {
    /// The context of an undecided speculation, for its owner or root.
    pub(crate) fn context_for(&self, spec: SpecId, uid: u32) -> Result<ContextId, Fault> {
        let state = self.state.lock();
        state.job(spec, uid)?;
        Ok(state.tip(spec).context)
    }

    /// Everything undecided that a user may see.
    pub(crate) fn status(&self, uid: u32) -> Vec<SpecStatus> {
        let jobs: Vec<_> = {
            let state = self.state.lock();
            let visible = state.jobs.values().filter(|job| job.may_see(uid) && !job.is_segment());
            visible.map(|job| self.row(&state, job)).collect()
        };
        let named = |(status, sight, standing, joined): Row| {
            let joined = joined.iter().map(|(spec, met)| self.joined(&sight, *spec, met)).collect();
            SpecStatus { conflicts: self.named(&sight, &standing), joined, ..status }
        };
        jobs.into_iter().map(named).collect()
    }

    /// One undecided speculation with all its segments.
    fn row(&self, state: &State, job: &Job) -> Row {
        let parts = state.parts(job.spec);
        let mut standing = Standing::default();
        parts.iter().for_each(|part| standing.merge(self.conflicts.of(part.context)));
        let joined = parts.iter().rev().flat_map(|part| part.joined.clone()).collect();
        let changes = parts.iter().map(|part| state.changes(part, &self.store)).sum();
        let status = SpecStatus {
            changes: state.counted(job, &self.store).unwrap_or(changes),
            sealed: parts.iter().any(|part| state.graph.is_sealed(part.context)),
            parent: state.outer(job.spec).map(|outer| state.whole(outer)),
            ..job.status()
        };
        (status, state.sight(state.tip(job.spec)), standing, joined)
    }

    /// Where a speculation stands, or how it was decided lately.
    pub(crate) fn outcome(&self, spec: SpecId) -> Result<Outcome, Fault> {
        let state = self.state.lock();
        if let Some(outcome) = state.folded_outcome(spec) {
            return Ok(outcome);
        }
        let how = match (state.jobs.get(&spec), state.how_decided(&self.store, spec)?) {
            (Some(job), _) => job.state,
            (None, Some(decided)) => decided,
            (None, None) => {
                let text = format!("there is no speculation {spec}");
                return Err(Fault::new(FaultKind::NotFound, text));
            }
        };
        Ok(Outcome::of(spec, how, 0))
    }

    /// Whether anything is undecided.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().jobs.is_empty()
    }

    /// The undecided speculation a context owns.
    pub(crate) fn spec_of(&self, context: ContextId) -> Option<SpecId> {
        self.state.lock().contexts.get(&context).copied()
    }

    /// Whether its owner has voted.
    pub(crate) fn has_voted(&self, spec: SpecId) -> bool {
        self.state.lock().jobs.get(&spec).is_some_and(|job| job.state == SpecState::Voted)
    }

    /// Whether it stays undecided without its owner: that has voted, or it is held.
    pub(crate) fn is_left(&self, spec: SpecId) -> bool {
        self.has_voted(spec) || self.is_held(spec)
    }

    /// Whether a speculation is held.
    pub(crate) fn is_held(&self, spec: SpecId) -> bool {
        self.state.lock().jobs.get(&spec).is_some_and(Job::is_held)
    }
}

/// How a speculation was decided, if it was in the way that is wanted. Errors: [`FaultKind::Decided`] if it was in the other.
pub(super) fn decided(state: &State, store: &Store, spec: SpecId, wanted: SpecState) -> Result<Option<Outcome>, Fault> {
    if let Some(outcome) = state.folded_outcome(spec) {
        return match wanted {
            SpecState::Aborted => Err(into_its_surroundings(spec)),
            _ => Ok(Some(outcome)),
        };
    }
    let Some(decided) = state.how_decided(store, spec)? else { return Ok(None) };
    if decided == wanted || (decided, wanted) == (SpecState::Voted, SpecState::Committed) {
        return Ok(Some(Outcome::of(spec, decided, 0)));
    }
    if decided == SpecState::Voted {
        return Err(into_its_surroundings(spec));
    }
    let how = if decided == SpecState::Committed { "committed" } else { "aborted" };
    Err(Fault::new(FaultKind::Decided, format!("speculation {spec} is {how} already")))
}

pub(super) fn into_its_surroundings(spec: SpecId) -> Fault {
    Fault::new(FaultKind::Decided, format!("speculation {spec} is committed into the job around it; abort that one"))
}
