//! Locks on files: who asks for them, and what whoever gets one is to know.

use super::Session;
use crate::access::AccessKey;
use crate::limits::{LOCK_WAIT_STEP_MAX, WAIT_NOTED_TIME};
use crate::locks::{Asked, Taken};
use crate::server::Shared;
use crate::views::View;
use crate::views::invalidations::InvalidationSet;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Invalidation, LockAsked, LockClass, LockHeld, Reply};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Session {
    /// Takes a lock, or lets go of one.
    pub(super) fn lock(&self, view: ViewId, ino: Ino, asked: &LockAsked, waits: bool) -> Result<Reply, Fault> {
        let open = self.open_view(view)?;
        let Shared { coordinator, locks, .. } = &*self.shared;
        let outcome = coordinator.undisturbed(|| {
            if asked.mode.is_some() {
                coordinator.demand_lockable(ino)?;
            }
            Ok(locks.ask((view, open.view.context()), ino, asked, waits))
        })?;
        if open.view.is_dead() || self.shared.views.find(view).is_none() {
            // It has ended meanwhile, perhaps before it had this.
            locks.drop_view(view);
            return Err(Fault::new(FaultKind::Stale, format!("view {view} has ended")));
        }
        let who = |taken: &Taken| match taken.pid {
            0 => String::new(),
            pid => format!(" (process {pid} of view {})", taken.by.view),
        };
        match outcome {
            Asked::Done if asked.mode.is_none() => Ok(Reply::Locked { current: true }),
            Asked::Done => {
                if asked.owner.class != LockClass::Program {
                    // It may store to pages that its kernel has had since before.
                    open.view.kernel.may_be_mapped(ino);
                }
                Ok(Reply::Locked { current: self.is_current(&open.view, ino) })
            }
            Asked::Refused(by) => {
                Err(Fault::new(FaultKind::Locked, format!("another has locked inode {ino}{}", who(&by))))
            }
            Asked::Queued => {
                self.note_wait(&open.view);
                Err(Fault::new(FaultKind::Queued, format!("another has locked inode {ino}")))
            }
            Asked::Deadlock => {
                let text = format!("who has locked inode {ino} waits for what this one has locked");
                Err(Fault::new(FaultKind::Deadlock, text))
            }
        }
    }

    pub(super) fn leave_line(&self, view: ViewId, ino: Ino, asked: &LockAsked) -> Reply {
        self.shared.locks.leave(view, ino, asked);
        Reply::Done
    }

    pub(super) fn await_offer(&self, view: ViewId, after: u64, millis: u32) -> Result<Reply, Fault> {
        let open = self.open_view(view)?;
        let deadline = Instant::now() + Duration::from_millis(millis.into()).min(LOCK_WAIT_STEP_MAX);
        loop {
            // That a job waits has to be said again and again; trunk is nobody whom a decision could wait for.
            let step = if open.view.context().is_some() { WAIT_NOTED_TIME / 2 } else { LOCK_WAIT_STEP_MAX };
            self.note_wait(&open.view);
            let left = deadline.saturating_duration_since(Instant::now());
            let offers = self.shared.locks.await_offer(view, after, left.min(step));
            if offers > after || left <= step {
                return Ok(Reply::Number(offers));
            }
        }
    }

    /// Somebody in a job's view may stand in the line for what others have locked: the job waits for these.
    fn note_wait(&self, view: &View) {
        let Some(waiter) = view.context() else { return };
        let holders = self.shared.locks.in_the_way_of(view.id).into_iter();
        let holders = holders.filter_map(|holder| self.shared.views.find(holder)?.context());
        holders.for_each(|holder| self.shared.coordinator.waits_for_lock(waiter, holder));
    }

    pub(super) fn test_lock(&self, view: ViewId, ino: Ino, asked: &LockAsked) -> Result<Reply, Fault> {
        self.open_view(view)?;
        let found = self.shared.locks.test(view, ino, asked);
        let is_known = |view: ViewId| self.views.lock().contains_key(&view);
        Ok(Reply::Obstacle(found.map(|Taken { by, span, mode, pid, .. }| {
            // Another machine's processes are nothing to this one.
            LockHeld { span, mode, pid: if is_known(by.view) { pid } else { 0 }, is_here: by.view == view }
        })))
    }

    /// Whether the kernel of a view knows all that others have done to a file.
    fn is_current(&self, view: &View, ino: Ino) -> bool {
        !view.has_queued() && self.holding_back(view, ino).is_empty()
    }

    /// Other views whose kernels may hold something back that was written to a file.
    fn holding_back(&self, view: &View, ino: Ino) -> Vec<Arc<View>> {
        let all = self.shared.views.all().into_iter();
        all.filter(|other| other.id != view.id && !other.is_dead() && other.kernel.may_write_mapped(ino)).collect()
    }

    /// Others write out what they hold back of a file, and the view is told of it.
    pub(super) fn make_current(&self, id: ViewId, ino: Ino) -> Result<Reply, Fault> {
        let view = self.open_view(id)?.view.clone();
        self.shared.side_by_side(&self.holding_back(&view, ino), |other| {
            let mut set = InvalidationSet::default();
            set.add([Invalidation::Inode(ino)]);
            if !self.shared.forget_in_time(other, set) {
                tracing::warn!("view {} has not written out inode {ino} for who has locked it in view {id}", other.id);
            }
        });
        self.settle_one(id)
    }

    /// A process is about to go where it may have to come back from by another one's memory: what it has locked as a process it could not
    /// take again then. An open file keeps its locks.
    pub(super) fn demand_comes_back(&self, view: &View) -> Result<(), Fault> {
        self.demand_none(view, |taken| taken.by.owner.class == LockClass::Range)
    }

    /// A process can go back to this point: it has no lock, which others could take before.
    pub(super) fn demand_unlocked(&self, view: &View) -> Result<(), Fault> {
        self.demand_none(view, |taken| taken.by.owner.class != LockClass::Program)
    }

    /// A process is about to open its files anew in a view of its own: what it has locked it would lose.
    pub(super) fn demand_nothing_to_lose(&self, view: &View, pid: u32) -> Result<(), Fault> {
        self.demand_none(view, |taken| taken.pid == pid && taken.by.owner.class != LockClass::Program)
    }

    fn demand_none(&self, view: &View, is_such: impl Fn(&Taken) -> bool) -> Result<(), Fault> {
        let Some(ino) = self.shared.locks.of_view(view.id, is_such) else { return Ok(()) };
        let (path, _) = self.shared.coordinator.named_key(&view.scope().sight, &AccessKey::Inode(ino));
        let text = format!(
            "`{}` is locked by its process, for which others could have locked it before that is back",
            path.escape_ascii()
        );
        Err(Fault::new(FaultKind::Unsupported, text))
    }
}
