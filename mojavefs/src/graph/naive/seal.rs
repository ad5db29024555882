//! Decisions that are under way, by what confirming all of them would make final.

use super::Model;
use crate::graph::event::{GraphError, Owner};
use crate::id::{ContextId, IntervalId, SpecId};
use std::collections::BTreeSet;

impl Model {
    /// What the vote for a speculation has sealed.
    pub fn sealed(&self, spec: SpecId) -> Option<&BTreeSet<IntervalId>> {
        self.sealed.get(&spec).map(|(_, sealed)| sealed)
    }

    /// Confirming all that is sealed decides the speculations of that, and no others.
    pub fn seals_exactly(&self) -> bool {
        let then = Model { sealed: Default::default(), ..self.clone() };
        let all: BTreeSet<IntervalId> = self.sealed.values().flat_map(|(_, sealed)| sealed).copied().collect();
        let specs: BTreeSet<SpecId> = self.assumptions(&all).collect();
        let (now, then) = (self.judge(), then.judge());
        all.is_subset(&then.finals) && &then.committed - &now.committed == specs
    }

    /// Else something would be decided together with what is sealed.
    pub(super) fn demand_apart(&self) -> Result<(), GraphError> {
        match self.sealed.first_key_value() {
            Some((first, _)) => self.demand(self.seals_exactly(), GraphError::Sealed(*first)),
            None => Ok(()),
        }
    }

    pub(super) fn prepare(&mut self, owner: Owner, spec: SpecId) -> Result<(), GraphError> {
        self.demand_owner(owner, spec)?;
        let context = owner.context();
        self.demand(!self.verdict.votes.contains(&(spec, context)), GraphError::SealsNothing(spec))?;
        let by = self.standing(context).next_back().expect("an owner's entry stands");
        self.place_mut(context, spec).votes.push(by);
        let sealed = &self.judge().finals - &self.verdict.finals;
        let refused = match sealed.is_empty() {
            true => Err(GraphError::SealsNothing(spec)),
            false => self.demand_apart(),
        };
        match refused {
            Ok(()) => drop(self.sealed.insert(spec, (context, sealed))),
            Err(_) => drop(self.place_mut(context, spec).votes.pop()),
        }
        refused
    }

    /// Returns whose vote had sealed something.
    pub(super) fn unseal(&mut self, spec: SpecId) -> Result<ContextId, GraphError> {
        self.sealed.remove(&spec).map(|(voter, _)| voter).ok_or(GraphError::NotSealed(spec))
    }

    pub(super) fn demand_unsealed(&self, interval: IntervalId) -> Result<(), GraphError> {
        let sealed = self.sealed.iter().find(|(_, (_, sealed))| sealed.contains(&interval));
        sealed.map_or(Ok(()), |(spec, _)| Err(GraphError::Sealed(*spec)))
    }

    pub(super) fn demand_unsealed_spec(&self, spec: SpecId) -> Result<(), GraphError> {
        self.places_of(spec).try_for_each(|place| self.demand_unsealed(place.entry))
    }

    pub(super) fn demand_unsealed_context(&self, context: ContextId) -> Result<(), GraphError> {
        self.stack(context).into_iter().try_for_each(|interval| self.demand_unsealed(interval))
    }
}
