//! What is committed is applied to the host, one decision after the other.

use crate::origin::{Decision, Displaced, Origin, store_fault};
use crate::server::Shared;
use mojavefs::id::{IntervalId, Seq};
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::collections::HashSet;

impl Shared {
    /// What is committed and not on the host yet, one decision after the other.
    fn waiting(&self) -> Vec<(Seq, Vec<IntervalId>)> {
        let Some(origin) = &self.origin else { return Vec::new() };
        self.store.committed().into_iter().filter(|(seq, _)| !origin.has_applied(*seq)).collect()
    }

    /// The intervals of that.
    pub(crate) fn unapplied(&self) -> HashSet<IntervalId> {
        self.waiting().into_iter().flat_map(|(_, intervals)| intervals).collect()
    }

    /// The intervals of that, but for what is known to be stuck.
    pub(crate) fn unapplied_and_free(&self) -> bool {
        let Some(origin) = &self.origin else { return false };
        self.waiting().iter().any(|(seq, _)| !origin.is_known_as_stuck(*seq))
    }

    /// Applies it all. Returns what was in the way, and where it was put: a line for each.
    pub(crate) fn apply(&self) -> Result<Vec<String>, Fault> {
        let Some(origin) = &self.origin else { return Ok(Vec::new()) };
        let _comparing = origin.comparing.lock();
        self.apply_all(origin)
    }

    /// The same, unless it was tried in vain just now. The caller holds `comparing`.
    pub(crate) fn apply_if_free(&self, origin: &Origin) {
        if self.unapplied_and_free()
            && let Err(fault) = self.apply_all(origin)
        {
            tracing::warn!("what is committed can't be applied to the host: {fault}");
        }
    }

    /// The same. The caller holds `comparing`.
    fn apply_all(&self, origin: &Origin) -> Result<Vec<String>, Fault> {
        let mut displaced = Vec::new();
        let waiting = self.waiting();
        for (at, (seq, intervals)) in waiting.iter().enumerate() {
            let decision = self.decision(origin, *seq, intervals)?;
            match decision.apply() {
                Ok(applied) => displaced.extend(applied.displaced.iter().map(shown)),
                Err(error) => {
                    let mut about = HashSet::new();
                    for (seq, intervals) in &waiting[at..] {
                        about.extend(self.decision(origin, *seq, intervals)?.about());
                    }
                    let last = waiting.last().map_or(*seq, |(last, _)| *last);
                    origin.sticks(last, about);
                    return Err(Fault::new(FaultKind::Io, error.to_string()));
                }
            }
            self.nudge_keeper();
        }
        if !waiting.is_empty() {
            origin.is_free();
        }
        displaced.iter().for_each(|line| tracing::warn!("{line}"));
        Ok(displaced)
    }

    fn decision<'a>(&'a self, origin: &'a Origin, seq: Seq, intervals: &[IntervalId]) -> Result<Decision<'a>, Fault> {
        Decision::of((origin, &self.store), seq, intervals).map_err(store_fault)
    }
}

fn shown(displaced: &Displaced) -> String {
    let Displaced { from, to, is_ours } = displaced;
    let (from, to) = (from.escape_ascii(), to.escape_ascii());
    match is_ours {
        false => format!("{from} was changed by somebody else meanwhile: what was there is now {to}"),
        true => format!("{from} has no place on the host any more: what was committed there is in {to}"),
    }
}
