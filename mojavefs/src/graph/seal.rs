//! Decisions that are under way (rule 12): what is sealed becomes final as it is, or not at all.

use super::event::{Effect, GraphError, Owner};
use super::state::{Graph, Sealed};
use crate::id::{ContextId, IntervalId, SpecId};
use std::collections::BTreeSet;

impl Graph {
    /// Casts a vote whose effect waits: until it is confirmed its speculation counts as open.
    pub(super) fn prepare(&mut self, owner: Owner, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        if self.place(owner, spec)?.vote.is_some() {
            return Err(GraphError::SealsNothing(spec));
        }
        let voter = owner.context();
        self.cast(voter, spec);
        let intervals = self.finals(spec);
        let refused = match intervals.is_empty() {
            true => Err(GraphError::SealsNothing(spec)),
            false => self.demand_apart(spec, &intervals),
        };
        if let Err(error) = refused {
            self.take_back(voter, spec);
            return Err(error);
        }
        let (numbers, specs) = (self.numbers_of(&intervals), self.assumptions_of(&intervals));
        let effect = Effect::Sealed { intervals: intervals.iter().copied().collect(), numbers, specs };
        self.sealed.insert(spec, Sealed { voter, intervals });
        Ok(vec![effect])
    }

    pub(super) fn confirm(&mut self, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        let sealed = self.sealed.remove(&spec).ok_or(GraphError::NotSealed(spec))?;
        let specs = |intervals| self.assumptions_of(intervals);
        let (finals, sealed) = (self.finals(spec), sealed.intervals);
        let is_as_it_was = sealed.is_subset(&finals) && specs(&finals) == specs(&sealed);
        assert!(is_as_it_was, "speculation {spec}: {sealed:?} was sealed, and {finals:?} would be final");
        Ok(self.settle(&finals))
    }

    pub(super) fn cancel(&mut self, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        let sealed = self.sealed.remove(&spec).ok_or(GraphError::NotSealed(spec))?;
        self.take_back(sealed.voter, spec);
        Ok(vec![Effect::Withdrawn { spec, context: sealed.voter }])
    }

    /// What is decided by it is decided now: no speculation waits for both this and something sealed, so that it would be decided
    /// together with the latter.
    pub(super) fn demand_apart(&mut self, spec: SpecId, finals: &BTreeSet<IntervalId>) -> Result<(), GraphError> {
        let Some(first) = self.sealed.keys().next().copied() else { return Ok(()) };
        let mut now = finals.clone();
        self.sealed.values().for_each(|sealed| now.extend(&sealed.intervals));
        // What is sealed is not open once it is confirmed.
        let sealed = std::mem::take(&mut self.sealed);
        let together: Vec<SpecId> = sealed.keys().copied().chain([spec]).collect();
        let then = self.finals_of(&together);
        self.sealed = sealed;
        match self.assumptions_of(&then) == self.assumptions_of(&now) {
            true => Ok(()),
            false => Err(GraphError::Sealed(first)),
        }
    }

    pub(super) fn demand_unsealed(&self, interval: IntervalId) -> Result<(), GraphError> {
        self.sealed_with(interval).map_or(Ok(()), |spec| Err(GraphError::Sealed(spec)))
    }

    /// The same for a speculation.
    pub(super) fn demand_unsealed_spec(&self, spec: SpecId) -> Result<(), GraphError> {
        let mut entries = self.specs.get(&spec).into_iter().flat_map(|spec| spec.owners.values());
        entries.next().map_or(Ok(()), |place| self.demand_unsealed(place.entry))
    }

    /// The same for all of a context that is live: what is sealed of it is the bottom of its stack.
    pub(super) fn demand_unsealed_context(&self, context: ContextId) -> Result<(), GraphError> {
        self.stack(context).first().map_or(Ok(()), |bottom| self.demand_unsealed(*bottom))
    }

    /// With which speculation's vote an interval is sealed, if it is.
    pub fn sealed_with(&self, interval: IntervalId) -> Option<SpecId> {
        self.sealed.iter().find(|(_, sealed)| sealed.intervals.contains(&interval)).map(|(spec, _)| *spec)
    }

    /// Whether something of a context is sealed.
    pub fn is_sealed(&self, context: ContextId) -> bool {
        self.demand_unsealed_context(context).is_err()
    }
}
