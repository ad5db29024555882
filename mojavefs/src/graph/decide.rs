//! What owners decide, and what stands in the way (rules 3, 4, 7, 8, 11).

use super::enter::final_at_once;
use super::event::{Cause, Effect, Event, GraphError, Owner};
use super::state::{Graph, Outcome, Place};
use crate::id::{ContextId, IntervalId, SpecId};

impl Graph {
    pub(super) fn place(&self, owner: Owner, spec: SpecId) -> Result<&Place, GraphError> {
        let place = self.undecided(spec)?.owners.get(&owner.context());
        let held = matches!(owner, Owner::Store(_));
        place.filter(|place| place.held == held).ok_or(GraphError::NotOwner(spec))
    }

    fn place_mut(&mut self, context: ContextId, spec: SpecId) -> &mut Place {
        self.spec_mut(spec).owners.get_mut(&context).expect("the owner was found before")
    }

    pub(super) fn vote(&mut self, owner: Owner, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        if self.outcomes.get(&spec) == Some(&Outcome::Committed) {
            return Ok(Vec::new());
        }
        if self.place(owner, spec)?.vote.is_some() {
            return Ok(Vec::new());
        }
        self.cast(owner.context(), spec);
        let finals = self.finals(spec);
        if let Err(error) = self.demand_apart(spec, &finals) {
            self.take_back(owner.context(), spec);
            return Err(error);
        }
        Ok(self.settle(&finals))
    }

    pub(super) fn cast(&mut self, context: ContextId, spec: SpecId) -> IntervalId {
        let by = self.current(context).expect("an owner's entry is alive as long as its speculation is undecided");
        self.interval_mut(by).votes.insert(spec);
        self.place_mut(context, spec).vote = Some(by);
        by
    }

    /// As if it had not been cast.
    pub(super) fn take_back(&mut self, context: ContextId, spec: SpecId) {
        if let Some(by) = self.place_mut(context, spec).vote.take() {
            self.interval_mut(by).votes.remove(&spec);
        }
    }

    pub(super) fn abort(
        &mut self,
        owner: Owner,
        spec: SpecId,
        code: i32,
        retry: bool,
    ) -> Result<Vec<Effect>, GraphError> {
        if code == 0 {
            return Err(GraphError::ZeroCode(spec));
        }
        if self.outcomes.get(&spec) == Some(&Outcome::Aborted) {
            return if retry { Err(GraphError::Aborted(spec)) } else { Ok(Vec::new()) };
        }
        self.place(owner, spec)?;
        self.demand_unsealed_spec(spec)?;
        Ok(self.fall(spec, Cause::Aborted { spec, code, retry }))
    }

    pub(super) fn hold(&mut self, context: ContextId, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        if self.place(Owner::Store(context), spec).is_err() {
            self.place(Owner::Context(context), spec)?;
            self.demand_unsealed_spec(spec)?;
            self.place_mut(context, spec).held = true;
        }
        Ok(Vec::new())
    }

    pub(super) fn close(&mut self, context: ContextId) -> Result<Vec<Effect>, GraphError> {
        self.running(context)?;
        self.demand_unsealed_context(context)?;
        let state = self.contexts.get_mut(&context).expect("it runs");
        state.open = false;
        let abandoned = |spec: &SpecId| {
            let place = &self.specs[spec].owners[&context];
            place.vote.is_none() && !place.held
        };
        // Whatever else it abandons has its entry on top of the first one's and falls with it.
        let mut entered = self.contexts[&context].stack.iter().filter_map(|id| self.intervals[id].assumption);
        let first = entered.find(abandoned);
        let effects = first.map(|spec| self.fall(spec, Cause::OwnerGone { spec })).unwrap_or_default();
        self.forget_unneeded(context);
        self.forget_if_done(context);
        Ok(effects)
    }

    /// Of a context that is gone and owns nothing undecided, what nothing builds on: nothing can any more, and whatever
    /// becomes of it makes no difference. Else each that was ever inside another would be kept until that is decided.
    fn forget_unneeded(&mut self, context: ContextId) {
        let Some(state) = self.contexts.get_mut(&context) else { return };
        if state.stack.iter().any(|id| self.intervals[id].assumption.is_some()) {
            return;
        }
        let mut stack = std::mem::take(&mut state.stack);
        while let Some(top) = stack.pop_if(|top| self.intervals[top].dependents.is_empty()) {
            self.detach(top);
        }
        if let Some(state) = self.contexts.get_mut(&context) {
            state.stack = stack;
        }
    }

    pub(super) fn conflict(&mut self, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        self.undecided(spec)?;
        self.demand_unsealed_spec(spec)?;
        self.spec_mut(spec).conflict = true;
        Ok(Vec::new())
    }

    pub(super) fn resolve(&mut self, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        if !self.undecided(spec)?.conflict {
            return Ok(Vec::new());
        }
        self.spec_mut(spec).conflict = false;
        let finals = self.finals(spec);
        if let Err(error) = self.demand_apart(spec, &finals) {
            self.spec_mut(spec).conflict = true;
            return Err(error);
        }
        Ok(self.settle(&finals))
    }

    /// What an event would make final; the graph stays as it is. A driver looks for conflicts among that and says which
    /// speculations are in [conflict](Event::Conflict), makes durable what is left, and applies the event when that is
    /// done, or an abort if it failed. So nothing becomes final unchecked, even where one vote settles several
    /// speculations (rule 11), and nothing counts as committed that is not.
    pub fn preview(&mut self, event: &Event) -> Result<Vec<Effect>, GraphError> {
        let finals = match *event {
            Event::Vote { owner, spec } if self.specs.contains_key(&spec) => {
                if self.place(owner, spec)?.vote.is_some() {
                    return Ok(Vec::new());
                }
                self.cast(owner.context(), spec);
                let finals = self.finals(spec);
                let apart = self.demand_apart(spec, &finals);
                self.take_back(owner.context(), spec);
                apart.map(|()| finals)?
            }
            Event::Resolve { spec } if self.undecided(spec)?.conflict => {
                self.spec_mut(spec).conflict = false;
                let finals = self.finals(spec);
                let apart = self.demand_apart(spec, &finals);
                self.spec_mut(spec).conflict = true;
                apart.map(|()| finals)?
            }
            Event::Confirm { spec } => match self.sealed.remove(&spec) {
                Some(sealed) => {
                    let finals = self.finals(spec);
                    self.sealed.insert(spec, sealed);
                    finals
                }
                None => return Ok(Vec::new()),
            },
            Event::Open { interval, from: None, .. } => return Ok(vec![final_at_once(interval)]),
            _ => return Ok(Vec::new()),
        };
        Ok(if finals.is_empty() { Vec::new() } else { vec![self.said_final(&finals)] })
    }
}
