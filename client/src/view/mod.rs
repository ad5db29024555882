//! What one context sees: one mount's view of the server, and what its kernel knows of it.

mod checkpoint_before_join;
pub(crate) mod deliveries;
mod entered;
mod kernel_cache;
mod listing;
mod patience;
mod refused;
mod wait_for_decision;

use checkpoint_before_join::CheckpointBeforeJoin;
pub(crate) use checkpoint_before_join::Question;
pub(crate) use patience::{Asking, Patience};
use refused::Refused;
pub(crate) use wait_for_decision::WaitForDecision;

use entered::Entered;
use kernel_cache::KernelCache;
pub(crate) use kernel_cache::has_to_wait;
use listing::{OpenDir, Page};
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::limits::LISTING_ENTRIES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Attr;
use mojavefs::protocol::{Connection, ConnectionExt, Invalidation, Reads, Reply, Request, Rounds, ViewOwner};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mojavefs_attach::CONTROL_VERSION;
pub(crate) use mojavefs_attach::CONTROL_XATTR;

/// What a view does when it meets others' undecided work, beside what the server does.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadPolicy {
    /// Has the process stopped for a checkpoint before it joins.
    pub(crate) asks: bool,
    /// Waits until that is decided, on behalf of this speculation, which is this user's.
    pub(crate) waits: Option<(SpecId, u32)>,
    /// Fails.
    pub(crate) fails: bool,
}

/// Some bytes of a file: from where on, and how many.
pub(crate) type Range = (Ino, u64, u64);

/// One view.
pub(crate) struct View {
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
    /// What [`CONTROL_XATTR`] says.
    control: Vec<u8>,
    entered: Mutex<Entered>,
    open_dirs: Mutex<HashMap<u64, Arc<OpenDir>>>,
    next_handle: AtomicU64,
}

impl View {
    /// The view `id` of a session. `control` is where the daemon listens.
    pub(crate) fn new(
        session: Arc<dyn Connection>,
        id: ViewId,
        owner: ViewOwner,
        policy: ReadPolicy,
        control: &str,
    ) -> Self {
        let known = Arc::new(KernelCache::new(session));
        // Above what is held while something is given: what waits must hold nobody up there.
        let mut connection: Arc<dyn Connection> =
            Arc::new(Rounds::new(known.clone(), patience::may_wait, patience::is_patient));
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
            control: format!("{CONTROL_VERSION}\n{control}\n{id}\n").into_bytes(),
            entered: Mutex::default(),
            open_dirs: Mutex::default(),
            next_handle: AtomicU64::new(1),
        }
    }

    /// Its number in the session.
    pub(crate) fn id(&self) -> ViewId {
        self.id
    }

    /// The server.
    pub(crate) fn server(&self) -> &dyn Connection {
        &*self.connection
    }

    /// What the daemon is found by.
    pub(crate) fn control(&self) -> &[u8] {
        &self.control
    }

    /// Whether `fsync` has anything to wait for.
    pub(crate) fn syncs(&self) -> bool {
        self.owner != ViewOwner::Job
    }

    /// Whether somebody else may have to be told before a file counts as closed: another mount, or a job that looks at
    /// this one's undecided work.
    pub(crate) fn settles(&self) -> bool {
        self.owner != ViewOwner::Trunk || !self.connection.is_embedded()
    }

    /// How often those of its programs' calls that wait were told to stop.
    pub(crate) fn interrupts(&self) -> u64 {
        self.decision_wait.as_ref().map_or(0, |wait| wait.interrupts())
    }

    /// Who supervises the job that it shows.
    pub(crate) fn supervised_by(&self, pid: u32) {
        // A view is opened by one process.
        let _ = self.supervisor.set(pid);
    }

    /// A file's attributes as a process asks for them; false if the kernel must not believe them any longer. Whoever supervises
    /// the job looks at nobody's undecided work by that: it asks on behalf of a process that does not run.
    pub(crate) fn attributes(&self, ino: Ino, pid: u32) -> Result<(Attr, bool), Fault> {
        match self.supervisor.get() == Some(&pid) || self.is_glancing(pid) {
            true => self.connection.given(Request::GlanceAt { view: self.id, ino }),
            false => self.unless_refused(ino, || self.connection.given(Request::GetAttr { view: self.id, ino })),
        }
    }

    /// What this process looks up from now on is on nobody's behalf.
    pub(crate) fn glances(&self, pid: Option<u32>) {
        self.glances.store(pid.unwrap_or(0), Ordering::SeqCst);
    }

    /// The kernel itself, which is 0, never is.
    fn is_glancing(&self, pid: u32) -> bool {
        pid != 0 && self.glances.load(Ordering::SeqCst) == pid
    }

    fn unless_refused<T>(&self, ino: Ino, ask: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        match &self.refused {
            Some(refused) => refused.ask(ino, ask),
            None => ask(),
        }
    }

    /// The kernel has been told all of this.
    pub(crate) fn told(&self, what: &[Invalidation]) {
        let Some(refused) = &self.refused else { return };
        for what in what {
            if let Invalidation::Inode(ino) | Invalidation::Attributes(ino) = what {
                refused.told(*ino);
            }
        }
    }

    /// Has processes stopped before they join, if its programs can be.
    pub(crate) fn checkpoints(&self) -> Option<&CheckpointBeforeJoin> {
        self.checkpoints.as_deref()
    }

    /// Waits for decisions, if its programs do.
    pub(crate) fn decision_wait(&self) -> Option<&WaitForDecision> {
        self.decision_wait.as_deref()
    }

    /// Reads a range of a file, at most.
    pub(crate) fn read(&self, range: Range, reads: Reads) -> Result<Vec<u8>, Fault> {
        let (ino, offset, size) = range;
        let request = Request::Read { view: self.id, ino, offset, size: size as u32, reads };
        match self.decision_wait.as_ref().filter(|_| reads != Reads::Once) {
            Some(wait) => wait.read(&request),
            None => self.unless_refused(ino, || self.connection.data(request)),
        }
    }

    /// Asks for the attributes of something that the kernel is about to know; false if the kernel must not keep them.
    /// Where programs wait for decisions it keeps no names: it could not be told of them while it has locked their directory.
    pub(crate) fn give(&self, request: Request<'_>) -> Result<(Attr, bool), Fault> {
        let given = self.connection.given(request);
        match (given, &self.decision_wait) {
            (Ok((attr, _)), Some(_)) => Ok((attr, false)),
            (Err(fault), Some(_)) if fault.kind == FaultKind::NotFound => {
                Err(Fault { kind: FaultKind::NotFoundNow, ..fault })
            }
            (given, _) => given,
        }
    }

    /// Waits until the kernel has got what was found for it before, for so long at most. Whether it has.
    pub(crate) fn wait_until_given(&self, limit: Duration) -> bool {
        self.known.deliveries().wait(limit)
    }

    /// The kernel has dropped inodes, each so many times.
    pub(crate) fn forget(&self, inos: impl Iterator<Item = (Ino, u64)>) {
        self.known.forget(inos, |server, gone| {
            for inos in gone.chunks(crate::limits::FORGETS_MAX) {
                if let Err(fault) = server.done(Request::Forget { view: self.id, inos: inos.to_vec() }) {
                    tracing::debug!("forgetting {} inodes of view {}: {fault}", inos.len(), self.id);
                }
            }
        });
    }

    /// All inodes that the kernel knows, but the root.
    pub(crate) fn known(&self) -> Vec<Ino> {
        self.known.all()
    }

    /// Whether the kernel knows an inode.
    pub(crate) fn knows(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || self.known.has(ino)
    }

    /// The view has gone into a speculation that can be undone without what is around it.
    pub(crate) fn went_into(&self, spec: SpecId) {
        self.entered.lock().enter(spec);
    }

    /// That speculation has become part of what is around it.
    pub(crate) fn stays(&self, spec: SpecId) {
        self.entered.lock().keep(spec);
    }

    /// That speculation was undone, and the view is back from it: so is what is remembered here.
    pub(crate) fn came_back(&self, spec: SpecId) {
        if let Some(supervisor) = self.supervisor.get() {
            self.glances(Some(*supervisor));
        }
        let since = self.entered.lock().undo(spec);
        self.open_dirs.lock().values().for_each(|dir| dir.undo(since));
        if let Some(wait) = &self.decision_wait {
            wait.wait_again();
        }
    }

    fn with_entered<T>(&self, work: impl FnOnce(&Entered) -> T) -> T {
        work(&self.entered.lock())
    }

    /// Opens a directory for listing.
    pub(crate) fn open_dir(&self, ino: Ino) -> u64 {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        self.open_dirs.lock().insert(handle, Arc::new(OpenDir::new(ino)));
        handle
    }

    /// An open directory.
    pub(crate) fn dir(&self, handle: u64) -> Result<Arc<OpenDir>, Fault> {
        let dir = self.open_dirs.lock().get(&handle).cloned();
        dir.ok_or_else(|| Fault::new(FaultKind::Stale, format!("directory handle {handle} is not open")))
    }

    /// Closes a directory.
    pub(crate) fn close_dir(&self, handle: u64) {
        self.open_dirs.lock().remove(&handle);
    }

    /// A page of a directory.
    fn page(&self, ino: Ino, after: Option<&[u8]>) -> Result<Page, Fault> {
        let limit = LISTING_ENTRIES_MAX as u32;
        match self.connection.call(Request::ReadDir { view: self.id, ino, after, limit, attrs: false })? {
            Reply::Entries { entries, end, lasts, decision } => Ok(Page { entries, end, lasts, decision }),
            other => Err(Fault::new(FaultKind::Protocol, format!("this is no page of a directory: {other:?}"))),
        }
    }

    /// A directory is about to change: what is being read of it is read to the end. Where programs wait for decisions it is so from the
    /// beginning, and who waits in the midst of it is waited for by nobody.
    pub(crate) fn finish_listings(&self, ino: Ino) {
        if self.decision_wait.is_some() {
            return;
        }
        let dirs: Vec<Arc<OpenDir>> = self.open_dirs.lock().values().filter(|dir| dir.ino() == ino).cloned().collect();
        dirs.iter().for_each(|dir| dir.finish(self));
    }

    /// Looks an entry of a directory up for a process, as the kernel is about to know it; false if the kernel must not believe
    /// what it is told. Whoever does not act on it looks at nobody's undecided work by that.
    pub(crate) fn give_entry(&self, parent: Ino, name: &[u8], pid: u32) -> Result<(Attr, bool), Fault> {
        if self.is_glancing(pid) {
            return self.give(Request::GlanceNamed { view: self.id, parent, name });
        }
        self.give(Request::Lookup { view: self.id, parent, name })
    }

    /// The same for a listing; false if the kernel must not believe what it is told.
    pub(crate) fn give_listed(&self, parent: Ino, name: &[u8]) -> Result<(Attr, bool), Fault> {
        self.give(Request::Glance { view: self.id, parent, name })
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
