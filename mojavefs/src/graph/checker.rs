//! Whether a graph does what the rules say: its naive model goes through the same events beside it, and what the two say
//! is compared.

use super::event::{Because, Cause, Effect, Event, GraphError};
use super::naive::{Model, Verdict};
use super::state::Graph;
use crate::id::{ContextId, IntervalId, SpecId};
use crate::limits::{
    NAIVE_EVENTS_TOLD, NAIVE_INTERVALS_MAX, NAIVE_LIVE_MAX, NAIVE_NUMBERS_MAX, NAIVE_PAIRS_SHARE, NAIVE_STEPS_MAX,
    WHY_LINKS_MAX,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::{Arguments, Debug};

/// A graph and its naive model differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interval graph and its naive model differ after {event:?}: {what}\nthe events before it:{}", lines(.late))]
pub struct Difference {
    /// The event after which it was noticed.
    pub event: Event,
    /// In what they differ, and what each says.
    pub what: String,
    /// What happened before it, the last events only.
    pub late: Vec<Event>,
}

fn lines(events: &[Event]) -> String {
    events.iter().map(|event| format!("\n  {event:?}")).collect()
}

/// Keeps the naive model of a graph, from when that is empty.
///
/// The model computes everything anew from the history after every event, so what it costs is bounded in four ways. Once
/// the history is [`NAIVE_INTERVALS_MAX`] intervals long it is cut: what is settled by then is taken for granted from then
/// on. What is under a live interval is compared for all of them up to 64, and beyond for fewer the more there are, by turns
/// ([`NAIVE_STEPS_MAX`]); what contexts see and carry for all of them up to [`NAIVE_NUMBERS_MAX`], and beyond for one, by turns.
/// And with more than [`NAIVE_LIVE_MAX`] live ones the checker gives up, for good.
#[derive(Clone, Debug)]
pub struct ModelChecker {
    model: Model,
    /// How many intervals the history may hold.
    intervals_max: usize,
    late: VecDeque<Event>,
    /// The last interval of which everything was compared.
    asked: Option<IntervalId>,
    gave_up: bool,
}

impl Default for ModelChecker {
    fn default() -> Self {
        Self::new(NAIVE_INTERVALS_MAX)
    }
}

impl ModelChecker {
    /// Of a graph that is empty. The history is cut once it holds more than `intervals_max` intervals.
    pub fn new(intervals_max: usize) -> Self {
        let (model, late) = Default::default();
        ModelChecker { model, intervals_max, late, asked: None, gave_up: false }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether there was too much undecided at a time, so that nothing is compared any more.
    pub fn gave_up(&self) -> bool {
        self.gave_up
    }

    /// Applies an event to the graph and to the model, and compares. Returns what the graph answered.
    pub fn apply(
        &mut self,
        graph: &mut Graph,
        event: &Event,
    ) -> Result<Result<Vec<Effect>, GraphError>, Box<Difference>> {
        if self.gave_up {
            return Ok(graph.apply(event));
        }
        let previewed = graph.preview(event);
        let answer = graph.apply(event);
        if !matches!(answer, Err(GraphError::Full(_))) {
            let compared = self.compare(graph, event, previewed, &answer);
            let late = || self.late.iter().cloned().collect();
            compared.map_err(|what| Box::new(Difference { event: event.clone(), what, late: late() }))?;
        }
        self.late.push_back(event.clone());
        self.late.drain(..self.late.len().saturating_sub(NAIVE_EVENTS_TOLD));
        if self.model.live().count() > NAIVE_LIVE_MAX {
            *self = ModelChecker { gave_up: true, ..ModelChecker::default() };
        } else if self.model.intervals().len() > self.intervals_max {
            self.model.forget_settled();
        }
        Ok(answer)
    }

    fn compare(
        &mut self,
        graph: &Graph,
        event: &Event,
        previewed: Result<Vec<Effect>, GraphError>,
        answer: &Result<Vec<Effect>, GraphError>,
    ) -> Result<(), String> {
        graph.check().map_err(|broken| broken.to_string())?;
        let judged = self.model.apply(event);
        let kind = |error: &GraphError| std::mem::discriminant(error);
        let refused = (answer.as_ref().err().map(kind), judged.as_ref().err().map(kind));
        if refused.0 != refused.1 {
            let model = judged.as_ref().err();
            return Err(format!("the answer\n  graph: {answer:?}\n  model: {}", model.map_or("Ok".into(), said)));
        }
        if let (Ok(effects), Ok(before)) = (answer, judged) {
            let finals = effects.iter().filter(|effect| matches!(effect, Effect::Final { .. })).cloned();
            same(format_args!("what the preview said"), &previewed, &Ok(finals.collect()))?;
            self.compare_effects(&before, effects)?;
            self.compare_sealed(event, effects)?;
        }
        self.compare_states(graph)
    }

    fn compare_effects(&self, before: &Verdict, effects: &[Effect]) -> Result<(), String> {
        let said = Said::of(effects)?;
        let now = self.model.verdict();
        // What was folded takes its votes along.
        let counts = |spec: &SpecId| self.model.is_known(*spec) && !now.aborted.contains(spec);
        let lost = before.votes.difference(&now.votes).filter(|(spec, _)| counts(spec));
        let dead: BTreeSet<IntervalId> = now.dead.difference(&before.dead).copied().collect();
        let mut rollbacks = BTreeMap::new();
        for fallen in self.model.intervals().iter().filter(|interval| dead.contains(&interval.id)) {
            if self.model.is_running(fallen.context) {
                rollbacks.entry(fallen.context).or_insert(fallen.id);
            }
        }
        let decided = now.finals.difference(&before.finals).chain(&dead);
        let numbers = decided.flat_map(|id| self.model.numbers_of(*id)).collect();
        let expected = Said {
            numbers,
            finals: now.finals.difference(&before.finals).copied().collect(),
            committed: now.committed.difference(&before.committed).copied().collect(),
            dead,
            aborted: now.aborted.difference(&before.aborted).copied().collect(),
            withdrawn: lost.copied().collect(),
            rollbacks,
        };
        same(format_args!("the effects"), &said, &expected)?;
        effects.iter().try_for_each(|effect| self.check_explanation(effect, &said))
    }

    /// What a vote has sealed.
    fn compare_sealed(&self, event: &Event, effects: &[Effect]) -> Result<(), String> {
        let said: Vec<&Effect> = effects.iter().filter(|effect| matches!(effect, Effect::Sealed { .. })).collect();
        let Event::Prepare { spec, .. } = event else {
            return same(format_args!("what is sealed without a vote for it"), &said, &Vec::new());
        };
        let sealed = self.model.sealed(*spec).cloned().unwrap_or_default();
        let numbers: BTreeSet<IntervalId> = sealed.iter().flat_map(|id| self.model.numbers_of(*id)).collect();
        let specs: BTreeSet<SpecId> = self.model.assumptions(&sealed).collect();
        let (intervals, numbers) = (sealed.into_iter().collect(), numbers.into_iter().collect());
        let expected = Effect::Sealed { intervals, numbers, specs: specs.into_iter().collect() };
        same(format_args!("what is sealed"), &said, &vec![&expected])
    }

    /// Every link of a rollback's explanation is a real one, and the last leads to what it began with.
    fn check_explanation(&self, effect: &Effect, said: &Said) -> Result<(), String> {
        let Effect::Rollback { to, entered, code, cause, why, .. } = effect else { return Ok(()) };
        let (Cause::Aborted { spec: root, .. } | Cause::OwnerGone { spec: root }) = *cause;
        let assumption = |id: IntervalId| self.model.interval(id).and_then(|interval| interval.assumption);
        same(format_args!("what was entered"), entered, &assumption(*to))?;
        let given = match cause {
            Cause::Aborted { code, .. } if *entered == Some(root) => Some(*code),
            _ => None,
        };
        same(format_args!("the abort code"), code, &given)?;
        same(format_args!("where the explanation begins"), &why.first().map(|link| link.interval), &Some(*to))?;
        for (at, link) in why.iter().enumerate() {
            let next = why.get(at + 1).map(|link| link.interval);
            // What follows on the last link of all that there may be is not told.
            let cut = at + 1 == WHY_LINKS_MAX;
            let interval = self.model.interval(link.interval).filter(|_| said.dead.contains(&link.interval));
            let holds = interval.is_some_and(|interval| match link.because {
                Because::Base(base) => interval.base == Some(base) && (cut || next == Some(base)),
                Because::Dep(dep) => interval.deps.contains(&dep) && (cut || next == Some(dep)),
                Because::Assumption(spec) => {
                    let lost = next.is_none_or(|next| self.model.is_entry_or_vote(spec, next));
                    let fell = interval.assumption == Some(spec) && said.aborted.contains(&spec);
                    fell && lost && (cut || (spec == root) == next.is_none())
                }
            });
            if !holds {
                return Err(format!("link {at} of an explanation does not hold: {effect:?}"));
            }
        }
        Ok(())
    }

    fn compare_states(&mut self, graph: &Graph) -> Result<(), String> {
        let stacks = self.model.stacks();
        for (context, stack) in &stacks {
            self.compare_context(graph, *context, stack)?;
        }
        let live: Vec<IntervalId> = stacks.into_values().flatten().collect();
        let undecided: Vec<SpecId> = self.model.undecided().collect();
        let (intervals, specs, _) = graph.size();
        same(format_args!("how much is undecided"), &(intervals, specs), &(live.len(), undecided.len()))?;
        undecided.into_iter().try_for_each(|spec| self.compare_spec(graph, spec))?;
        for (spec, outcome) in self.model.decided_lately() {
            same(format_args!("the outcome of {spec}"), &graph.outcome(spec), &Some(outcome))?;
        }
        let few = live.len() <= NAIVE_NUMBERS_MAX;
        let asked = self.by_turns(live);
        for (at, id) in asked.into_iter().enumerate() {
            self.compare_under(graph, id)?;
            let of = self.model.interval(id).map(|interval| interval.context);
            // The model goes through the whole history for it, several times.
            if let Some(context) = of.filter(|_| few || at == 0) {
                self.compare_numbers(graph, context)?;
            }
        }
        Ok(())
    }

    fn compare_context(&self, graph: &Graph, context: ContextId, stack: &[IntervalId]) -> Result<(), String> {
        same(format_args!("the stack of context {context}"), graph.stack(context), stack)?;
        let running = self.model.is_running(context);
        same(format_args!("whether context {context} runs"), &graph.running(context).is_ok(), &running)?;
        let settled = self.model.settled(context).filter(|_| running);
        same(format_args!("what is final of context {context}"), &graph.settled(context).filter(|_| running), &settled)
    }

    fn compare_spec(&self, graph: &Graph, spec: SpecId) -> Result<(), String> {
        let owners: Vec<_> = self.model.owners(spec).into_values().collect();
        same(format_args!("the owners of {spec}, and who has voted"), &graph.owners(spec), &owners)?;
        same(
            format_args!("whether {spec} is in conflict"),
            &graph.is_in_conflict(spec),
            &self.model.is_in_conflict(spec),
        )?;
        same(format_args!("whether {spec} is undecided"), &graph.is_undecided(spec), &true)
    }

    /// What an interval sees and waits for.
    fn compare_under(&self, graph: &Graph, id: IntervalId) -> Result<(), String> {
        let context = self.model.interval(id).map_or(ContextId(0), |interval| interval.context);
        for number in self.model.numbers_of(id) {
            same(format_args!("whose number {number} is"), &graph.writer_of(number), &Some(context))?;
        }
        let visible = self.model.visible(id);
        // Of a part of them: it is asked of pairs.
        for on in self.model.live().filter(|on| (on.0 ^ id.0).is_multiple_of(NAIVE_PAIRS_SHARE)) {
            let builds_on = visible.contains(&on);
            same(format_args!("whether interval {id} builds on {on}"), &graph.builds_on(id, on), &builds_on)?;
        }
        let contexts: BTreeSet<ContextId> = self.model.contexts_of(&visible).collect();
        let visible: Vec<IntervalId> = visible.into_iter().collect();
        same(format_args!("what interval {id} sees"), &graph.visible(id), &visible)?;
        same(format_args!("the contexts under interval {id}"), &graph.contexts_under(id), &contexts)?;
        same(format_args!("what interval {id} waits for"), &graph.open_under(id), &self.model.open_under(id))
    }

    /// What a context that has something undecided sees, changes and found.
    fn compare_numbers(&self, graph: &Graph, context: ContextId) -> Result<(), String> {
        let (seen, writer) = (self.model.seen_by(context), graph.writer(context));
        same(format_args!("what context {context} writes with"), &writer, &seen.as_ref().map(|seen| seen.writer))?;
        same(format_args!("what context {context} sees"), &graph.seen_by(context), &seen)?;
        let carried = self.model.carried_by(context);
        same(format_args!("what context {context} has changed"), &graph.carried_by(context), &carried)?;
        let builders = self.model.built_on(&carried);
        same(format_args!("who builds on context {context}"), &graph.built_on(&carried), &builders)?;
        let found = self.model.found_by(context);
        same(format_args!("what context {context} has found around it"), &graph.found_by(context), &found)?;
        let around: Vec<ContextId> = graph.around(context).collect();
        same(format_args!("what is around context {context}"), &around, &self.model.around(context))
    }

    /// As many of these as may be asked about; the others are next.
    fn by_turns(&mut self, mut live: Vec<IntervalId>) -> Vec<IntervalId> {
        live.sort_unstable();
        let count = NAIVE_STEPS_MAX / live.len().max(1);
        if live.len() > count {
            let next = live.partition_point(|id| Some(*id) <= self.asked) % live.len();
            live.rotate_left(next);
            live.truncate(count);
        }
        self.asked = live.last().copied();
        live
    }
}

/// The effects of one event, sorted out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    finals: BTreeSet<IntervalId>,
    numbers: BTreeSet<IntervalId>,
    committed: BTreeSet<SpecId>,
    dead: BTreeSet<IntervalId>,
    aborted: BTreeSet<SpecId>,
    withdrawn: BTreeSet<(SpecId, ContextId)>,
    rollbacks: BTreeMap<ContextId, IntervalId>,
}

impl Said {
    fn of(effects: &[Effect]) -> Result<Said, String> {
        let mut said = Said::default();
        let mut steps = (0, 0);
        let mut twice = false;
        for effect in effects {
            match effect {
                Effect::Final { intervals, numbers, specs } => {
                    said.numbers.extend(numbers);
                    steps.0 += 1;
                    said.finals.extend(intervals);
                    said.committed.extend(specs);
                }
                Effect::Dead { intervals, numbers, specs, .. } => {
                    said.numbers.extend(numbers);
                    steps.1 += 1;
                    said.dead.extend(intervals);
                    said.aborted.extend(specs);
                }
                Effect::Sealed { .. } => {}
                Effect::Withdrawn { spec, context } => twice |= !said.withdrawn.insert((*spec, *context)),
                Effect::Rollback { context, to, .. } => twice |= said.rollbacks.insert(*context, *to).is_some(),
            }
        }
        match steps.0 <= 1 && steps.1 <= 1 && !twice {
            true => Ok(said),
            false => Err(format!("what becomes final or dead does so in one step, and is said once: {effects:?}")),
        }
    }
}

fn said(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn same<T: Debug + PartialEq + ?Sized>(what: Arguments<'_>, graph: &T, model: &T) -> Result<(), String> {
    match graph == model {
        true => Ok(()),
        false => Err(format!("{what}\n  graph: {graph:?}\n  model: {model:?}")),
    }
}
