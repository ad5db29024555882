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

    /// Whether there is any of that which is not known to be stuck.
    pub(crate) fn unapplied_and_free(&self) -> bool {
        let Some(origin) = &self.origin else { return false };
        self.waiting().iter().any(|(seq, _)| !origin.is_known_as_stuck(*seq))
    }

    /// Applies it all, as far as that can be done. Returns what was in the way, and where it was put: a line for each. Errors: what these
    /// intervals have changed can't be applied.
    pub(crate) fn apply(&self, of: &[IntervalId]) -> Result<Vec<String>, Fault> {
        let Some(origin) = &self.origin else { return Ok(Vec::new()) };
        let _comparing = origin.comparing.lock();
        let (displaced, why) = self.apply_all(origin)?;
        let waiting = self.unapplied();
        match of.iter().any(|interval| waiting.contains(interval)) {
            false => Ok(displaced),
            true => Err(why.unwrap_or_else(|| Fault::new(FaultKind::Io, "it comes after what waits, too"))),
        }
    }

    /// The same, unless it was tried in vain just now. The caller holds `comparing`.
    pub(crate) fn apply_if_free(&self, origin: &Origin) -> Result<(), Fault> {
        if self.unapplied_and_free() {
            self.apply_all(origin)?;
        }
        Ok(())
    }

    /// The same. The caller holds `comparing`. Also returns why something could not be applied, if so. Errors: the store's.
    fn apply_all(&self, origin: &Origin) -> Result<(Vec<String>, Option<Fault>), Fault> {
        let (mut displaced, mut stuck, mut about) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut why = None;
        for (seq, intervals) in self.waiting() {
            let decision = self.decision(origin, seq, &intervals)?;
            // What is about the same comes after it.
            let waits = decision.about().any(|one| about.contains(&one));
            match (!waits).then(|| decision.apply()) {
                Some(Ok(applied)) => displaced.extend(applied.displaced.iter().map(shown)),
                failed => {
                    about.extend(decision.about());
                    stuck.insert(seq);
                    if let Some(Err(error)) = failed {
                        tracing::warn!("what is committed can't be applied to the host: {error}");
                        why.get_or_insert_with(|| Fault::new(FaultKind::Io, error.to_string()));
                    }
                }
            }
            self.nudge_keeper();
        }
        origin.stick(stuck, about);
        displaced.iter().for_each(|line| tracing::warn!("{line}"));
        Ok((displaced, why))
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
