//! specrun's engine: a view over the same path, the processes of a job, what becomes of them.

pub(crate) mod checkpoint;
pub(crate) mod fifos;
pub(crate) mod guard;
pub(crate) mod namespace;
pub(crate) mod outside;
pub(crate) mod supervise;

use crate::control::{receive, unexpected};
use crate::mount;
use crate::output;
use guard::Guard;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask, Start};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Fall, Outcome, Reply, SpecOp, SpecState};
use mojavefs_attach::Opened;
use mojavefs_attach::cover::{self, Cover};
use mojavefs_attach::descriptors;
pub(crate) use mojavefs_attach::find;
use mojavefs_attach::find::Filesystem;
use mojavefs_attach::places::Table;
use nix::fcntl::{OFlag, openat};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::Mode;
use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// This process's view of a job or of a held speculation, over the filesystem's path.
pub(crate) struct JobView {
    stream: UnixStream,
    answers: Receiver<Answer>,
    mount: File,
    /// The speculation.
    pub(crate) spec: SpecId,
    /// Where the filesystem is mounted.
    pub(crate) mountpoint: PathBuf,
    /// Over directories of the host: watches that it stays there.
    guard: Option<Arc<Guard>>,
    news: Arc<News>,
    may_be: Cell<Option<MayBe>>,
    /// Its connection outlives it.
    stays_on: Cell<bool>,
}

/// The connection of a view that is over: as long as it lives, the daemon takes it that the job may be run again.
pub(crate) struct Promise(UnixStream);

impl Drop for Promise {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// What a speculation may be by now, though nobody can say whether it is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum MayBe {
    /// Committed, or decided and waiting for others.
    Committed,
    /// Held.
    Held,
}

/// What was said of the speculation without being asked for.
struct News {
    fallen: AtomicBool,
    said: Mutex<Said>,
    changed: Condvar,
    /// Rung when there is something to do.
    bell: EventFd,
}

/// What the daemon asks of whoever supervises a job.
pub(crate) enum Todo {
    /// A process is to be stopped for a checkpoint.
    Stop {
        /// The question's number.
        ticket: u64,
        /// The process.
        pid: u32,
    },
    /// A segment of the job was undone by another's end: its process is to be taken back.
    GoBack {
        /// The segment.
        segment: SpecId,
        /// Why.
        why: Option<Fall>,
    },
}

#[derive(Default)]
struct Said {
    decided: Option<SpecState>,
    why: Option<Fall>,
    /// The daemon or its server is gone, and why.
    gone: Option<String>,
    todo: VecDeque<Todo>,
}

impl News {
    fn new() -> io::Result<News> {
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(News { fallen: AtomicBool::new(false), said: Mutex::default(), changed: Condvar::new(), bell })
    }

    fn ring(&self) {
        self.changed.notify_all();
        // It fails only if nobody has looked for 2^64 rings.
        let _ = self.bell.write(1);
    }

    fn put(&self, todo: Todo) {
        self.said.lock().todo.push_back(todo);
        self.ring();
    }

    /// A daemon that is gone, or its server, has aborted the job.
    fn lose(&self, why: String) {
        self.said.lock().gone.get_or_insert(why);
        self.fallen.store(true, Ordering::SeqCst);
        self.ring();
    }
}

/// Where jobs run: a mount namespace of this process's own, in which views are put over the filesystem's path, one after
/// another.
pub(crate) struct Place {
    filesystem: Filesystem,
    inherited: descriptors::Descriptors,
    cover: Cell<Cover>,
}

impl Place {
    /// Enters the namespace. Only before any thread was started.
    pub(crate) fn enter(filesystem: &Filesystem) -> Result<Place, Fault> {
        let inherited = descriptors::on(&Table::of(filesystem)?);
        if let Some(stderr) = inherited.stderr() {
            // What specrun itself says is no part of the job.
            let stderr = stderr.map_err(|e| Fault::new(FaultKind::Io, format!("standard error: {e}")))?;
            output::set_stderr(File::from(stderr));
        }
        mojavefs_attach::namespace::enter()?;
        Ok(Place { filesystem: filesystem.clone(), inherited, cover: Cell::default() })
    }

    /// What a process that speculates finds the filesystem by.
    pub(crate) fn environment(&self) -> (&'static str, String) {
        (mojavefs_attach::MOUNTPOINT_VARIABLE, self.filesystem.mountpoint.to_string_lossy().into_owned())
    }

    /// The job is undone: nothing here has its files open any more.
    pub(crate) fn let_go(&self) {
        self.inherited.restore();
    }

    /// The job is committed: whoever shares the inherited descriptors goes on where it left them.
    pub(crate) fn catch_up(&self) {
        self.inherited.catch_up();
    }
}

impl JobView {
    /// Opens a view and puts it over every place of the filesystem, where the one before was. The working directory and
    /// inherited descriptors on the filesystem are in the view afterwards, as they were at first.
    pub(crate) fn enter(place: &Place, start: Start) -> Result<JobView, Fault> {
        let filesystem = &place.filesystem;
        let fault = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| Fault::new(FaultKind::Io, format!("{what}: {e}"))
        };
        let before = place.cover.take();
        if !before.is_empty() && place.inherited.have_directory() {
            std::env::set_current_dir("/").map_err(fault("leave the view"))?;
        }
        before.take_away().map_err(fault("take the old view away"))?;
        let Opened { stream, spec, mount, .. } = mojavefs_attach::open(filesystem, start)?;
        let root = openat(&mount, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let root = File::from(root.map_err(io::Error::from).map_err(fault("open the job's view"))?);
        let news = Arc::new(News::new().map_err(fault("a bell"))?);
        let answers = listen(&stream, spec, news.clone()).map_err(fault("listen to the daemon"))?;
        let (mountpoint, may_be, stays_on) = (filesystem.mountpoint.clone(), Cell::new(None), Cell::new(false));
        let mut view = JobView { stream, answers, mount: root, spec, mountpoint, guard: None, news, may_be, stays_on };
        if let Err(fault) = view.covers(place, &mount) {
            // Nobody finds it any more when this is said. If that fails, it ends with this process.
            let _ = view.outcome(&Ask::Speculation(SpecOp::Abort { spec }));
            return Err(fault);
        }
        Ok(view)
    }

    fn covers(&mut self, place: &Place, mount: &OwnedFd) -> Result<(), Fault> {
        let cover = cover::cover(&place.filesystem, mount, &|ask| self.ask(ask).map(drop))?;
        let device = cover.device;
        place.cover.set(cover);
        let failed = |e: io::Error| Fault::new(FaultKind::Io, format!("watch what becomes of the directory: {e}"));
        self.guard = Guard::over(&place.filesystem, device).map_err(failed)?;
        place.inherited.reopen(&self.mount)
    }

    /// A directory of the host over which it was put leads elsewhere by now: its processes are ended.
    pub(crate) fn has_come_off(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.look())
    }

    /// The speculation was decided, or the daemon is gone.
    pub(crate) fn is_over(&self) -> bool {
        let said = self.news.said.lock();
        said.gone.is_some() || matches!(said.decided, Some(SpecState::Committed | SpecState::Aborted))
    }

    /// Someone else aborted the speculation, or the daemon is gone.
    pub(crate) fn has_fallen(&self) -> bool {
        self.news.fallen.load(Ordering::SeqCst)
    }

    /// Something is to be done. Silences the bell.
    pub(crate) fn has_todo(&self) -> bool {
        let _ = self.news.bell.read();
        !self.news.said.lock().todo.is_empty()
    }

    /// The job was undone, and may be run again.
    pub(crate) fn promise(self) -> Option<Promise> {
        let stream = self.stream.try_clone().ok()?;
        self.stays_on.set(true);
        Some(Promise(stream))
    }

    /// Its mount.
    pub(crate) fn mount(&self) -> &File {
        &self.mount
    }

    /// Readable when there is something to do.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.news.bell.as_fd()
    }

    /// What the daemon asks for, one thing after the other.
    pub(crate) fn next_todo(&self) -> Option<Todo> {
        // It is silent if it was not rung.
        let _ = self.news.bell.read();
        self.news.said.lock().todo.pop_front()
    }

    /// Why it fell, if another speculation's end was the reason.
    pub(crate) fn why_fallen(&self) -> Option<Fall> {
        self.news.said.lock().why.clone()
    }

    /// Why nobody can say any more what becomes of it, if that is so.
    pub(crate) fn why_gone(&self) -> Option<String> {
        self.news.said.lock().gone.clone()
    }

    /// What the speculation may be if the daemon is gone: a vote or a hold was sent, and nobody has said that it does not
    /// stand. Else it is undone then.
    pub(crate) fn may_be(&self) -> Option<MayBe> {
        let decided = self.news.said.lock().decided;
        self.may_be.get().filter(|_| decided != Some(SpecState::Aborted))
    }

    /// Waits until the speculation is decided, for `limit` at most; nothing if it is not by then. A daemon that is gone
    /// has aborted it, unless it [may be](Self::may_be) something else.
    pub(crate) fn wait_decided(&self, limit: Duration) -> Option<SpecState> {
        let mut said = self.news.said.lock();
        let undecided = |said: &mut Said| said.decided.is_none() && said.gone.is_none();
        self.news.changed.wait_while_for(&mut said, undecided, limit);
        said.decided.or(said.gone.is_some().then_some(SpecState::Aborted))
    }

    /// Forgets what was said of it, to hear what is said next.
    pub(crate) fn forget_news(&self) {
        self.news.said.lock().decided = None;
    }

    /// Asks for a decision. That a vote has made the speculation final is told before it is answered, which counts if whoever
    /// should answer is gone then; how much was changed is not known in that case.
    pub(crate) fn outcome(&self, ask: &Ask) -> Result<Outcome, Fault> {
        match self.ask(ask) {
            Ok(Answer::Reply(Reply::Outcome(outcome))) => Ok(outcome),
            Ok(other) => Err(unexpected(&other)),
            Err(fault) if fault.kind == FaultKind::InDoubt && self.is_vote(ask) && self.is_told_committed() => {
                Ok(Outcome::of(self.spec, SpecState::Committed, 0))
            }
            Err(fault) => Err(fault),
        }
    }

    fn is_vote(&self, ask: &Ask) -> bool {
        matches!(ask, Ask::Speculation(SpecOp::Commit { spec, .. }) if *spec == self.spec)
    }

    fn is_told_committed(&self) -> bool {
        self.news.said.lock().decided == Some(SpecState::Committed)
    }

    /// Writes out what the kernel still holds for the view.
    pub(crate) fn drain(&self) -> Result<(), Fault> {
        let failed = |e: io::Error| {
            let text = "the disk failed, or it was stored to others' undecided work with --on-read fail; all of the job is undone";
            Fault::new(FaultKind::Io, format!("what the job stored through mappings can't be written out: {e}: {text}"))
        };
        mount::drain(&self.mount).map_err(failed)
    }

    /// Asks the daemon. Errors: `Disconnected` if it was not asked, `InDoubt` if it did not answer.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<Answer, Fault> {
        let gone = |kind| Fault::new(kind, "the daemon behind the filesystem has gone");
        crate::control::send(&self.stream, ask, None).map_err(|_| gone(FaultKind::Disconnected))?;
        let answer = match self.answers.recv() {
            Ok(Answer::Refused(fault)) => Err(fault),
            Ok(answer) => Ok(answer),
            Err(_) => Err(gone(FaultKind::InDoubt)),
        };
        self.note(ask, &answer);
        answer
    }

    /// What this answer makes of what the speculation may be.
    fn note(&self, ask: &Ask, answer: &Result<Answer, Fault>) {
        let wanted = match ask {
            Ask::Speculation(SpecOp::Commit { spec, .. }) if *spec == self.spec => Some(MayBe::Committed),
            Ask::Speculation(SpecOp::Hold { spec }) if *spec == self.spec => Some(MayBe::Held),
            Ask::Speculation(SpecOp::Abort { spec }) if *spec == self.spec => None,
            _ => return,
        };
        match answer {
            Ok(Answer::Reply(Reply::Outcome(outcome))) => self.may_be.set(match outcome.state {
                SpecState::Running | SpecState::Aborted => None,
                SpecState::Held => Some(MayBe::Held),
                SpecState::Voted | SpecState::Committed => Some(MayBe::Committed),
            }),
            Err(fault) if fault.kind == FaultKind::InDoubt => self.may_be.set(wanted.or(self.may_be.get())),
            _ => {}
        }
    }
}

impl Drop for JobView {
    fn drop(&mut self) {
        self.guard.iter().for_each(|guard| guard.ends());
        // A daemon that is gone needs no farewell.
        let _ = self.ask(&Ask::Leave);
        if !self.stays_on.get() {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }
}

/// Answers come through the channel; that the speculation was decided by someone else comes at any time.
fn listen(stream: &UnixStream, spec: SpecId, news: Arc<News>) -> io::Result<Receiver<Answer>> {
    let stream = stream.try_clone()?;
    let (sender, answers) = channel();
    let read = move || {
        while let Ok(Some((answer, _))) = receive::<Answer>(&stream) {
            match answer {
                Answer::Checkpoint { ticket, pid } => news.put(Todo::Stop { ticket, pid }),
                Answer::Decided { spec: segment, state, why } if segment != spec => {
                    if state == SpecState::Aborted {
                        news.put(Todo::GoBack { segment, why });
                    }
                }
                Answer::Decided { state, why, .. } => {
                    {
                        let mut said = news.said.lock();
                        said.decided = Some(state);
                        said.why = why;
                    }
                    if state == SpecState::Aborted {
                        news.fallen.store(true, Ordering::SeqCst);
                    }
                    news.ring();
                }
                Answer::Lost { why } => news.lose(why),
                answer => {
                    if sender.send(answer).is_err() {
                        return;
                    }
                }
            }
        }
        news.lose("the filesystem was unmounted, or the daemon behind it is gone".to_owned());
    };
    mojavefs_threads::detached("specrun-daemon", read)?;
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::send;

    const SPEC: SpecId = SpecId(7);

    /// What is known of a vote to which a daemon says this, and then nothing any more.
    fn voted(says: Vec<Answer>) -> (Result<SpecState, FaultKind>, Option<MayBe>) {
        let (stream, daemon) = UnixStream::pair().expect("a pair of sockets");
        let news = Arc::new(News::new().expect("a bell"));
        let answers = listen(&stream, SPEC, news.clone()).expect("a thread");
        let mount = File::open("/").expect("a directory");
        let (may_be, stays_on) = (Cell::new(None), Cell::new(false));
        let mountpoint = PathBuf::from("/");
        let view = JobView { stream, answers, mount, spec: SPEC, mountpoint, guard: None, news, may_be, stays_on };
        let answering = std::thread::spawn(move || {
            receive::<Ask>(&daemon).expect("it is asked");
            says.iter().for_each(|answer| send(&daemon, answer, None).expect("it is answered"));
        });
        let outcome =
            view.outcome(&Ask::Speculation(SpecOp::Commit { spec: SPEC, resolutions: Vec::new(), touch: false }));
        answering.join().expect("the daemon's part");
        (outcome.map(|outcome| outcome.state).map_err(|fault| fault.kind), view.may_be())
    }

    fn told(state: SpecState) -> Answer {
        Answer::Decided { spec: SPEC, state, why: None }
    }

    fn unanswered() -> Answer {
        Answer::Refused(Fault::new(FaultKind::InDoubt, "the server is gone"))
    }

    #[test]
    fn a_vote_that_is_not_answered_may_be_committed() {
        let unknown = (Err(FaultKind::InDoubt), Some(MayBe::Committed));
        assert!(voted(vec![unanswered()]) == unknown);
        // The daemon is gone, too.
        assert!(voted(Vec::new()) == unknown);
    }

    #[test]
    fn a_vote_of_which_it_was_told_that_it_is_final_is_committed_though_it_is_not_answered() {
        for rest in [vec![unanswered()], Vec::new()] {
            let says = [vec![told(SpecState::Committed)], rest].concat();
            assert!(voted(says).0 == Ok(SpecState::Committed));
        }
    }

    #[test]
    fn a_vote_that_is_not_answered_of_what_was_undone_is_undone() {
        let (outcome, may_be) = voted(vec![told(SpecState::Aborted), unanswered()]);
        assert!(outcome == Err(FaultKind::InDoubt) && may_be.is_none());
    }
}
