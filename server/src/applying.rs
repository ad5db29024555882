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

    /// Applies it all. Returns what was in the way, and where it was put: a line for each.
    pub(crate) fn apply(&self) -> Result<Vec<String>, Fault> {
        let Some(origin) = &self.origin else { return Ok(Vec::new()) };
        let _comparing = origin.comparing.lock();
        self.apply_all(origin)
    }

    /// The same. The caller holds `comparing`.
    pub(crate) fn apply_all(&self, origin: &Origin) -> Result<Vec<String>, Fault> {
        let mut displaced = Vec::new();
        for (seq, intervals) in self.waiting() {
            let decision = Decision::of((origin, &self.store), seq, &intervals).map_err(store_fault)?;
            let applied = decision.apply().map_err(|error| Fault::new(FaultKind::Io, error.to_string()))?;
            displaced.extend(applied.displaced.iter().map(shown));
            self.nudge_keeper();
        }
        displaced.iter().for_each(|line| tracing::warn!("{line}"));
        Ok(displaced)
    }
}

fn shown(displaced: &Displaced) -> String {
    let Displaced { from, to } = displaced;
    format!(
        "{} was changed by somebody else meanwhile: what was there is now {}",
        from.escape_ascii(),
        to.escape_ascii()
    )
}
