//! One undecided speculation of a job.

use super::counts::Counted;
use crate::access::AccessKey;
use crate::store::{Snapshot, Specs};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Back, JobInfo, OnRead, SpecState, SpecStatus};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What a job is to those around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A job.
    Job,
    /// A level of a process that speculates.
    Level,
    /// What a job did since its process could go back to a call: it belongs to the job, and may fall without it.
    Segment {
        /// It has joined nothing yet: nothing was done since the call that it began with.
        fresh: bool,
    },
}

/// How far a running job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its command runs.
    Runs,
    /// Its command has ended, and can still be taken back to a segment's beginning.
    Ended,
    /// A segment of it was undone, and its process is not back yet.
    GoesBack,
}

/// What was looked at when a job joined another.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    /// The object.
    pub(crate) key: AccessKey,
    /// Where the job goes back to if the other is undone.
    pub(crate) back: Back,
}

/// A job's speculation and what belongs to it.
pub(crate) struct Job {
    pub(crate) spec: SpecId,
    pub(crate) context: ContextId,
    /// The interval that entered the speculation.
    pub(crate) entry: IntervalId,
    pub(crate) info: JobInfo,
    /// In seconds since the epoch.
    pub(crate) since: i64,
    pub(crate) kind: Kind,
    /// Why it can go back to its start only; nothing if its process is asked for a checkpoint before it joins.
    pub(crate) restarts: Option<String>,
    /// Why it joins what it meets next without a checkpoint.
    pub(crate) no_checkpoint: Option<String>,
    /// For a level: when its process was last known to live.
    pub(crate) probed: Option<Instant>,
    /// For a level: its process is dead, and it is about to be undone.
    pub(crate) doomed: bool,
    /// Its view is open still: whoever supervises it may run it again.
    pub(crate) supervised: bool,
    /// For something held: how many changes its diff shows.
    pub(crate) counted: Option<Counted>,
    /// What it sees of others.
    pub(crate) on_read: OnRead,
    /// What was final when it started, for one that stays with that.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// The speculations it depends on by its own reads, with the first object of each. In the place of a segment, or of
    /// one that is committed into another, stands what it is part of.
    pub(crate) joined: BTreeMap<SpecId, Met>,
    /// The speculations that it owns beside its own.
    pub(crate) owns: Vec<SpecId>,
    /// Those that have become part of it, or in whose place it is: they are committed with it.
    pub(crate) parts: Specs,
    /// Held work whose conflicts were settled, in whose place it is.
    pub(crate) replaces: Option<SpecId>,
    /// What it has changed counts as modified when it becomes final.
    pub(crate) marks_modified: bool,
    pub(crate) state: SpecState,
    pub(crate) stage: Stage,
    /// The store owns it, in the place of its context.
    pub(crate) kept: bool,
    /// The store has a record of it, which outlives this process.
    pub(crate) recorded: bool,
    /// Its owner votes, which is being written down.
    pub(crate) votes: bool,
    /// The last round that was under way when it began, 0 if none was. To what it has found that one comes later, which is on record
    /// once that round has ended.
    pub(crate) begun_during: u64,
    /// How much content it wrote.
    pub(crate) bytes: Arc<AtomicU64>,
    /// It is decided, or part of the job around it: its own views have nothing to say any more.
    pub(crate) over: Arc<AtomicBool>,
}

impl Job {
    pub(crate) fn is_segment(&self) -> bool {
        matches!(self.kind, Kind::Segment { .. })
    }

    /// Where it goes back to if what it is about to join is undone; nothing if that must be asked first.
    pub(crate) fn goes_back(&mut self) -> Option<Back> {
        match self.kind {
            Kind::Level => Some(Back::Entry),
            Kind::Segment { fresh: true } => {
                self.kind = Kind::Segment { fresh: false };
                Some(Back::Read)
            }
            Kind::Segment { fresh: false } => self.no_checkpoint.take().map(Back::Earlier),
            Kind::Job => self.no_checkpoint.take().or_else(|| self.restarts.clone()).map(Back::Start),
        }
    }

    /// It can't be decided while its process is on the way back: what it does next belongs to it.
    pub(crate) fn must_be_there(&self) -> Result<(), Fault> {
        match self.stage {
            Stage::GoesBack => {
                let text = format!("the process of speculation {} is being taken back to a read; try again", self.spec);
                Err(Fault::new(FaultKind::Busy, text))
            }
            Stage::Runs | Stage::Ended => Ok(()),
        }
    }

    /// Another one has become part of it.
    pub(crate) fn takes_in(&mut self, other: &Job) {
        self.parts.insert(other.spec);
        self.parts.extend(&other.parts);
    }

    /// It is left for somebody to decide.
    pub(crate) fn is_held(&self) -> bool {
        self.state == SpecState::Held
    }

    /// Up to where it sees what is final.
    pub(crate) fn horizon(&self) -> Seq {
        self.snapshot.as_ref().map_or(Seq::NOW, |snapshot| snapshot.seq())
    }

    /// It depends on one of these speculations by what it read or owns.
    pub(crate) fn builds_on(&self, specs: &[SpecId]) -> bool {
        self.joined.keys().chain(&self.owns).any(|spec| specs.contains(spec))
    }

    pub(crate) fn may_see(&self, uid: u32) -> bool {
        uid == 0 || uid == self.info.uid
    }

    /// Where it stands, but for what others have to say of it.
    pub(crate) fn status(&self) -> SpecStatus {
        SpecStatus {
            id: self.spec,
            state: self.state,
            info: self.info.clone(),
            since: self.since,
            changes: 0,
            bytes: self.bytes.load(Ordering::Relaxed),
            parent: None,
            conflicts: Vec::new(),
            joined: Vec::new(),
            owns: self.owns.clone(),
            ended: self.stage == Stage::Ended,
            sealed: false,
        }
    }
}

/// The time, in seconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
