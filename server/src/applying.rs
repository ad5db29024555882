//! What is committed is applied to the host, one decision after the other.

use crate::origin::{About, Decision, Displaced, Origin, store_fault};
use crate::server::Shared;
use mojavefs::id::{IntervalId, Seq};
use mojavefs::limits::UNAPPLIED_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Reply, Unapplied};
use std::collections::HashSet;

/// Why a decision waits that could be applied by itself.
const COMES_AFTER: &str = "it comes after what waits, too";
/// The same of one that was not tried since the store was opened.
const NOT_TRIED: &str = "it is just being applied";

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

    /// Whether there is any of that for which looks at the host have to wait.
    pub(crate) fn has_to_apply(&self) -> bool {
        let Some(origin) = &self.origin else { return false };
        self.waiting().iter().any(|(seq, _)| !origin.waiting.may_wait(*seq))
    }

    /// Applies it all, as far as that can be done. Returns what was in the way, and where it was put: a line for each. Errors: what these
    /// intervals have changed can't be applied. The caller holds no lock.
    pub(crate) fn apply(&self, of: &[IntervalId]) -> Result<Vec<String>, Fault> {
        let Some(origin) = &self.origin else { return Ok(Vec::new()) };
        let waits = || {
            let waiting = self.unapplied();
            of.iter().any(|interval| waiting.contains(interval))
        };
        let changes = |interval: &IntervalId| self.store.changes(*interval, None, 1).map_err(store_fault);
        let has_changed =
            of.iter().map(changes).collect::<Result<Vec<_>, Fault>>()?.iter().any(|keys| !keys.is_empty());
        // Who has changed nothing waits for nobody else's.
        let applying = if has_changed { Some(origin.waiting.begin()) } else { origin.waiting.try_begin() };
        let Some(_applying) = applying else { return Ok(Vec::new()) };
        let (displaced, why) = self.apply_all(origin)?;
        match waits() {
            false => Ok(displaced),
            true => Err(why.unwrap_or_else(|| Fault::new(FaultKind::Io, COMES_AFTER))),
        }
    }

    /// The same before somebody looks at the host, who may look beside what is being applied already, or was tried in vain just now. The
    /// caller holds no lock.
    pub(crate) fn apply_before_looking(&self, origin: &Origin) -> Result<(), Fault> {
        if !self.has_to_apply() {
            return Ok(());
        }
        match origin.waiting.try_begin() {
            Some(_applying) => self.apply_all(origin).map(drop),
            None => self.expect_all(origin).map(drop),
        }
    }

    /// From now on nobody takes for the host's doing what is about to be done there. Returns what waits.
    fn expect_all<'a>(&'a self, origin: &'a Origin) -> Result<Vec<(Seq, Decision<'a>)>, Fault> {
        let waiting = self.waiting().into_iter();
        let decisions = waiting.map(|(seq, intervals)| Ok((seq, self.decision(origin, seq, &intervals)?)));
        let decisions = decisions.collect::<Result<Vec<_>, Fault>>()?;
        // Looks that have begun are over then.
        let _comparing = origin.comparing.lock();
        decisions.iter().for_each(|(seq, decision)| origin.waiting.expect(*seq, decision.about().collect()));
        Ok(decisions)
    }

    /// Applies what waits. The caller is the only one who does, and also hears why something could not be applied, if so. Errors: the store's.
    fn apply_all(&self, origin: &Origin) -> Result<(Vec<String>, Option<Fault>), Fault> {
        let (mut displaced, mut about, mut why) = (Vec::new(), About::new(), None);
        for (seq, decision) in self.expect_all(origin)? {
            // What is about the same comes after it.
            let waits = decision.about().any(|one| about.contains(&one));
            match (!waits).then(|| decision.apply()) {
                Some(Ok(applied)) => displaced.extend(applied.displaced.iter().map(shown)),
                failed => {
                    about.extend(decision.about());
                    let reason = match failed {
                        Some(Err(error)) => {
                            tracing::warn!("what is committed can't be applied to the host: {error}");
                            why.get_or_insert_with(|| Fault::new(FaultKind::Io, error.to_string()));
                            error.to_string()
                        }
                        _ => COMES_AFTER.to_owned(),
                    };
                    origin.waiting.failed(seq, reason);
                }
            }
            self.nudge_keeper();
        }
        displaced.iter().for_each(|line| tracing::warn!("{line}"));
        Ok((displaced, why))
    }

    /// Which decisions wait, after they were tried: in any case if `again`, else unless that was in vain just now, or somebody else does
    /// it.
    pub(crate) fn tell_unapplied(&self, again: bool) -> Result<Reply, Fault> {
        let Some(origin) = &self.origin else {
            return Ok(Reply::Unapplied { waiting: Vec::new(), displaced: Vec::new() });
        };
        let applying = if again { Some(origin.waiting.begin()) } else { origin.waiting.try_begin() };
        let displaced = match applying {
            Some(_) if again || self.has_to_apply() => self.apply_all(origin)?.0,
            _ => Vec::new(),
        };
        let told = |(seq, intervals): &(Seq, Vec<IntervalId>)| {
            let (paths, paths_more) = self.decision(origin, *seq, intervals)?.paths().map_err(store_fault)?;
            let why = origin.waiting.why(*seq).unwrap_or_else(|| NOT_TRIED.to_owned());
            Ok(Unapplied { decision: seq.0, paths, paths_more, why })
        };
        let waiting = self.waiting().iter().take(UNAPPLIED_MAX).map(told).collect::<Result<_, Fault>>()?;
        Ok(Reply::Unapplied { waiting, displaced })
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
