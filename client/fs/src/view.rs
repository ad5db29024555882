//! What one context sees: one mount's view of the server, and what its kernel knows of it.

use crate::checkpoint_before_join::CheckpointBeforeJoin;
use crate::entered::Entered;
use crate::kernel_cache::KernelCache;
use crate::limits::FORGETS_MAX;
use crate::listing::{OpenDir, Page};
use crate::locks::Locks;
use crate::operations::Given;
use crate::patience;
use crate::refused::Refused;
use crate::wait_for_decision::WaitForDecision;
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::limits::LISTING_ENTRIES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, ConnectionExt, FsOp, Invalidation, Reply, Request, Rounds, ViewOwner};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What a view does when it meets others' undecided work, beside what the server does.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadPolicy {
    /// Has the process stopped for a checkpoint before it joins.
    pub asks: bool,
    /// Waits until that is decided, on behalf of this speculation, which is this user's.
    pub waits: Option<(SpecId, u32)>,
    /// Fails.
    pub fails: bool,
}

/// An extended attribute of every file that the server knows nothing of, by which programs find whoever serves the view.
pub struct Control {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub value: Vec<u8>,
}

/// One view.
pub struct View {
    /// The session, through those below.
    connection: Arc<dyn Connection>,
    known: Arc<KernelCache>,
    checkpoints: Option<Arc<CheckpointBeforeJoin>>,
    decision_wait: Option<Arc<WaitForDecision>>,
    /// What was refused, if looking at undecided work fails.
    refused: Option<Refused>,
    id: ViewId,
    owner: ViewOwner,
    /// The process that supervises a job, which looks at the job's files for nobody else.
    supervisor: OnceLock<u32>,
    /// Who looks up names without acting on them: the supervisor of a job that has come back, or a process for as long as it says
    /// so. 0 for nobody.
    glances: AtomicU32,
    control: Control,
    entered: Mutex<Entered>,
    open_dirs: Mutex<HashMap<u64, Arc<OpenDir>>>,
    locks: Locks,
    next_handle: AtomicU64,
    open_files: AtomicU64,
    /// How many are just telling the kernel of names.
    telling_names: AtomicU64,
}

impl View {
    /// The view `id` of a session.
    pub fn new(
        session: Arc<dyn Connection>,
        id: ViewId,
        owner: ViewOwner,
        policy: ReadPolicy,
        control: Control,
    ) -> Self {
        let known = Arc::new(KernelCache::new(session));
        // Above what is held while something is given: what waits must hold nobody up there.
        let mut connection: Arc<dyn Connection> =
            Arc::new(Rounds::new(known.clone(), patience::may_wait, patience::is_patient, patience::wait_for_round));
        let checkpoints = policy.asks.then(|| Arc::new(CheckpointBeforeJoin::new(connection.clone(), id)));
        if let Some(checkpoints) = &checkpoints {
            connection = checkpoints.clone();
        }
        // A wait that would never end is a join, before which the other one asks.
        let decision_wait = policy.waits.map(|spec| Arc::new(WaitForDecision::new(connection.clone(), spec)));
        if let Some(wait) = &decision_wait {
            connection = wait.clone();
        }
        View {
            connection,
            known,
            checkpoints,
            decision_wait,
            refused: policy.fails.then(Refused::default),
            id,
            owner,
            supervisor: OnceLock::new(),
            glances: AtomicU32::new(0),
            control,
            entered: Mutex::default(),
            open_dirs: Mutex::default(),
            locks: Locks::default(),
            next_handle: AtomicU64::new(1),
            open_files: AtomicU64::new(0),
            telling_names: AtomicU64::new(0),
        }
    }

    /// Its number in the session.
    pub fn id(&self) -> ViewId {
        self.id
    }

    /// The server.
    pub fn server(&self) -> &dyn Connection {
        &*self.connection
    }

    /// Whether `fsync` has anything to wait for.
    pub fn syncs(&self) -> bool {
        self.owner != ViewOwner::Job
    }

    /// Whether somebody else may have to be told before a file counts as closed: another mount, or a job that looks at
    /// this one's undecided work.
    pub fn settles(&self) -> bool {
        self.owner != ViewOwner::Trunk || !self.connection.is_embedded()
    }

    /// How often those of its programs' calls that wait were told to stop.
    pub fn interrupts(&self) -> u64 {
        self.decision_wait.as_ref().map_or(0, |wait| wait.interrupts())
    }

    /// Who supervises the job that it shows.
    pub fn supervised_by(&self, pid: u32) {
        // A view is opened by one process.
        let _ = self.supervisor.set(pid);
    }

    /// What this process looks up from now on is on nobody's behalf.
    pub fn glances(&self, pid: Option<u32>) {
        self.glances.store(pid.unwrap_or(0), Ordering::SeqCst);
    }

    /// The value of an attribute, if it is the one that serves to find the daemon.
    pub(crate) fn control_of(&self, name: &[u8]) -> Option<&[u8]> {
        (name == self.control.name.as_bytes()).then_some(&self.control.value[..])
    }

    /// Whether a process that asks for attributes looks at nobody's undecided work by that.
    pub(crate) fn only_glances(&self, pid: u32) -> bool {
        self.supervisor.get() == Some(&pid) || self.is_glancing(pid)
    }

    /// Whether a process that asks for names looks at nobody's undecided work by that. The kernel itself, which is 0, never does.
    pub(crate) fn is_glancing(&self, pid: u32) -> bool {
        pid != 0 && self.glances.load(Ordering::SeqCst) == pid
    }

    pub(crate) fn unless_refused<T>(&self, ino: Ino, ask: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
        match &self.refused {
            Some(refused) => refused.ask(ino, ask, || self.connection.done(FsOp::AwaitNotices.on(self.id))),
            None => ask(),
        }
    }

    /// The kernel has been told all of this.
    pub fn told(&self, what: &[Invalidation]) {
        let Some(refused) = &self.refused else { return };
        for what in what {
            if let Invalidation::Inode(ino) | Invalidation::Attributes(ino) = what {
                refused.told(*ino);
            }
        }
    }

    /// Has processes stopped before they join, if its programs can be.
    pub fn checkpoints(&self) -> Option<&CheckpointBeforeJoin> {
        self.checkpoints.as_deref()
    }

    /// Waits for decisions, if its programs do.
    pub fn decision_wait(&self) -> Option<&WaitForDecision> {
        self.decision_wait.as_deref()
    }

    /// Asks for the attributes of something that the kernel is about to know; false if the kernel must not keep them.
    /// Where programs wait for decisions it keeps no names: it could not be told of them while it has locked their directory.
    pub(crate) fn give(&self, request: Request<'_>) -> Result<Given, Fault> {
        let given = self.connection.given(request);
        match (given, &self.decision_wait) {
            (Ok((attr, _)), Some(_)) => Ok((attr, false)),
            (Err(fault), Some(_)) if fault.kind == FaultKind::NotFound => {
                Err(Fault { kind: FaultKind::NotFoundNow, ..fault })
            }
            (given, _) => given,
        }
    }

    /// The same of several names of a listing.
    pub(crate) fn give_listed(&self, request: Request<'_>) -> Result<Vec<Option<Given>>, Fault> {
        let mut found = self.connection.glanced(request)?;
        if self.decision_wait.is_some() {
            found.iter_mut().flatten().for_each(|(_, lasts)| *lasts = false);
        }
        Ok(found)
    }

    /// Waits until the kernel has got what was found for it before, for so long at most. Whether it has.
    pub fn wait_until_given(&self, limit: Duration) -> bool {
        self.known.deliveries().wait(limit)
    }

    /// The kernel has dropped inodes, each so many times.
    pub fn forget(&self, inos: impl Iterator<Item = (Ino, u64)>) {
        self.known.forget(inos, |server, gone| {
            gone.iter().for_each(|ino| self.locks.forget(*ino));
            for inos in gone.chunks(FORGETS_MAX) {
                if let Err(fault) = server.done(FsOp::Forget { inos: inos.to_vec() }.on(self.id)) {
                    tracing::debug!("forgetting {} inodes of view {}: {fault}", inos.len(), self.id);
                }
            }
        });
    }

    /// All inodes that the kernel knows, but the root.
    pub fn known(&self) -> Vec<Ino> {
        self.known.all()
    }

    /// Whether the kernel knows an inode.
    pub fn knows(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.known.has(ino)
    }

    /// The view has gone into a speculation that can be undone without what is around it.
    pub fn went_into(&self, spec: SpecId) {
        self.entered.lock().enter(spec);
    }

    /// That speculation has become part of what is around it.
    pub fn stays(&self, spec: SpecId) {
        self.entered.lock().keep(spec);
    }

    /// That speculation was undone, and the view is back from it: so is what is remembered here.
    pub fn came_back(&self, spec: SpecId) {
        if let Some(supervisor) = self.supervisor.get() {
            self.glances(Some(*supervisor));
        }
        let since = self.entered.lock().undo(spec);
        self.open_dirs.lock().values().for_each(|dir| dir.undo(since));
        if let Some(wait) = &self.decision_wait {
            wait.wait_again();
        }
    }

    pub(crate) fn with_entered<T>(&self, work: impl FnOnce(&Entered) -> T) -> T {
        work(&self.entered.lock())
    }

    /// The locks that its programs have asked for.
    pub(crate) fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Whether what a process has locked of a file is let go of when it closes that, by any descriptor: else it need not be told when a file
    /// is closed that was opened only to be read.
    pub fn unlocks_at_close(&self, ino: Ino) -> bool {
        self.locks.were_asked_for(ino)
    }

    /// A number for a file, or directory, that is opened.
    pub fn next_handle(&self) -> u64 {
        self.next_handle.fetch_add(1, Ordering::Relaxed)
    }

    /// The kernel is told that a file is open.
    pub fn opens_file(&self) {
        self.open_files.fetch_add(1, Ordering::SeqCst);
    }

    /// Nobody has that file open any more.
    pub fn closes_file(&self) {
        // One whose opening was not heard of any more is not closed either.
        let _ = self.open_files.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |open| open.checked_sub(1));
    }

    /// How many files are open.
    pub fn open_files(&self) -> u64 {
        self.open_files.load(Ordering::SeqCst)
    }

    /// Tells the kernel of names: who has it list a directory meanwhile does so by little.
    pub fn while_names_are_told<T>(&self, tell: impl FnOnce() -> T) -> T {
        self.telling_names.fetch_add(1, Ordering::SeqCst);
        let told = tell();
        self.telling_names.fetch_sub(1, Ordering::SeqCst);
        told
    }

    /// Whether the kernel is just told of names.
    pub fn names_are_told(&self) -> bool {
        self.telling_names.load(Ordering::SeqCst) > 0
    }

    /// Opens a directory for listing.
    pub fn open_dir(&self, ino: Ino) -> u64 {
        let handle = self.next_handle();
        self.open_dirs.lock().insert(handle, Arc::new(OpenDir::new(ino)));
        handle
    }

    /// An open directory.
    pub(crate) fn dir(&self, handle: u64) -> Result<Arc<OpenDir>, Fault> {
        let dir = self.open_dirs.lock().get(&handle).cloned();
        dir.ok_or_else(|| Fault::new(FaultKind::Stale, format!("directory handle {handle} is not open")))
    }

    /// Closes a directory.
    pub fn close_dir(&self, handle: u64) {
        self.open_dirs.lock().remove(&handle);
    }

    /// A page of a directory.
    pub(crate) fn page(&self, ino: Ino, after: Option<&[u8]>) -> Result<Page, Fault> {
        let limit = LISTING_ENTRIES_MAX as u32;
        match self.connection.call(FsOp::ReadDir { ino, after, limit }.on(self.id))? {
            Reply::Entries { entries, end, lasts, decision } => Ok(Page { entries, end, lasts, decision }),
            other => Err(Fault::new(FaultKind::Protocol, format!("this is no page of a directory: {other:?}"))),
        }
    }

    /// A directory is about to change: what is being read of it is read to the end. Where programs wait for decisions it is so from the
    /// beginning, and who waits in the midst of it is waited for by nobody.
    pub fn finish_listings(&self, ino: Ino) {
        if self.decision_wait.is_some() {
            return;
        }
        let dirs: Vec<Arc<OpenDir>> = self.open_dirs.lock().values().filter(|dir| dir.ino() == ino).cloned().collect();
        dirs.iter().for_each(|dir| dir.finish(self));
    }

    /// The kernel is given an inode that nobody was asked about, to forget it at once.
    pub(crate) fn is_given(&self, ino: Ino) {
        self.known.add(ino);
    }

    /// The kernel did not take what it was given after all.
    pub(crate) fn take_back(&self, ino: Ino) {
        self.forget(std::iter::once((ino, 1)));
    }
}
