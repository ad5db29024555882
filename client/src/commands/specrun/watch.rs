//! A job while it runs: its process is checkpointed before it depends on others, and taken back when one of these is undone.

use super::super::shown;
use super::decide::undone;
use super::options::Cli;
use super::report::{Reporter, because, waits_for};
use super::waiting::{AttemptsWait, Awaited};
use super::{After, Attempt, NEWS_TIME, Scene, host_fault};
use crate::control::{self, unexpected};
use crate::job::checkpoint::{Checkpoints, Ledger};
use crate::job::fifos::Fifos;
use crate::job::supervise::{self, Ending, Ground, Running, Woken};
use crate::job::{JobView, Todo};
use crate::limits::{FIFO_WAIT, LEFT_BEHIND_TIME_MAX};
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Fall, Reply, SpecOp, SpecState};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

/// One attempt of a job.
pub(super) struct Watch<'a> {
    cli: &'a Cli,
    scene: &'a Scene<'a>,
    view: &'a JobView,
    checkpoints: RefCell<Checkpoints>,
    fifos: RefCell<Fifos>,
    /// How often it went back to a checkpoint.
    returns: Cell<u64>,
    /// It could not: it is undone as a whole, and why.
    lost: RefCell<Option<(String, After)>>,
}

/// What became of a job whose command has ended.
pub(super) enum Settled {
    /// It need not go back any more.
    Yes,
    /// It went back, and its command runs again.
    Back,
    /// This signal asked for its end.
    Asked(i32),
}

impl<'a> Watch<'a> {
    pub(super) fn new(cli: &'a Cli, scene: &'a Scene<'a>, view: &'a JobView) -> Self {
        Watch {
            cli,
            scene,
            view,
            checkpoints: RefCell::default(),
            fifos: RefCell::new(Fifos::new(view.mount())),
            returns: Cell::new(0),
            lost: RefCell::default(),
        }
    }

    fn reporter(&self) -> Reporter {
        self.cli.reporter()
    }

    /// Runs to the command's end.
    pub(super) fn run(&self, running: &Running) -> Result<Ending, Fault> {
        let ending = self.scene.supervisor.watch(running, self).map_err(host_fault("watch the command"))?;
        self.cli.interrupt(self.view, true);
        Ok(ending)
    }

    /// Ends what a command has left behind, but for its checkpoints.
    pub(super) fn end_all(&self) {
        if self.has_fallen() {
            self.kill();
        }
        let ended = supervise::end_all_but(&self.checkpoints.borrow().pids());
        if ended > 0
            && !self.has_fallen()
            && let Err(fault) = self.await_undone()
        {
            tracing::debug!("{fault}");
        }
    }

    /// Whoever ran inside of the job and was ended has decided nothing: that is undone before the job is decided, since the job may
    /// have read it, and answers for what it has read.
    fn await_undone(&self) -> Result<(), Fault> {
        let stream = self.scene.filesystem.connect()?;
        let deadline = Instant::now() + LEFT_BEHIND_TIME_MAX;
        while Instant::now() < deadline {
            let all = match control::ask(&stream, &Ask::Speculation(SpecOp::Status), None)?.0 {
                Answer::Reply(Reply::Status(all)) => all,
                other => return Err(unexpected(&other)),
            };
            let inside = all.iter().filter(|one| one.parent == Some(self.view.spec) && one.state == SpecState::Running);
            let specs: Vec<SpecId> = inside.map(|one| one.id).collect();
            if specs.is_empty() {
                return Ok(());
            }
            let millis = LEFT_BEHIND_TIME_MAX.as_millis() as u32;
            control::ask(&stream, &Ask::Speculation(SpecOp::Await { specs, behind: None, millis }), None)?;
        }
        Ok(())
    }

    /// Kills its processes but for the checkpoints: one that waits for an answer ends when it has it, and never sees it.
    fn kill(&self) {
        supervise::kill_all_but(&self.checkpoints.borrow().pids());
        if let Err(fault) = self.view.ask(&Ask::Unheard) {
            tracing::debug!("{fault}");
        }
    }

    /// Nothing goes back any more.
    pub(super) fn forget(&self) {
        self.checkpoints.take();
    }

    /// Why the whole job was undone from here, if it was.
    pub(super) fn lost(&self) -> Option<Attempt> {
        let (why, after) = self.lost.take()?;
        Some(Attempt::Undone { why, after, outcome: Box::new(undone(self.view)) })
    }

    /// The command has ended: says whether it went back to a checkpoint since. If it `waits`, it is kept until nothing can take
    /// it back any more.
    pub(super) fn settle(&self, main: Pid, waits: bool) -> Result<Settled, Fault> {
        let before = self.returns.get();
        let mut told = false;
        loop {
            self.attend(main);
            if self.returns.get() > before {
                return Ok(Settled::Back);
            }
            if self.checkpoints.borrow().is_empty() || self.has_fallen() {
                return Ok(Settled::Yes);
            }
            let open = match self.view.ask(&Ask::Speculation(SpecOp::Unsettled { spec: self.view.spec })) {
                Ok(Answer::Reply(Reply::Specs(open))) => open,
                Ok(other) => return Err(unexpected(&other)),
                // It is to go back, which is told at once.
                Err(fault) if fault.kind == FaultKind::Busy => {
                    let bell = [self.view.bell()];
                    match self.scene.supervisor.wait_for(&bell).map_err(host_fault("wait for the daemon"))? {
                        Woken::Asked(signal) => return Ok(Settled::Asked(signal)),
                        Woken::By(_) => continue,
                    }
                }
                // It was decided by others meanwhile.
                Err(_) if self.view.wait_decided(NEWS_TIME).is_some() => return Ok(Settled::Yes),
                Err(fault) => return Err(fault),
            };
            if open.is_empty() || !waits {
                return Ok(Settled::Yes);
            }
            if !told {
                if let Err(error) = self.checkpoints.borrow().release_locks() {
                    self.reporter().note(&format!("what it has locked may stay locked until then: {error}"));
                }
                self.reporter().note(&waits_for(self.view, &open));
                told = true;
            }
            match self.scene.await_decided(&open, Some(self.view.spec), Some(self.view.bell()))? {
                Awaited::Open(_) | Awaited::Rung => {}
                Awaited::InVain => return Ok(Settled::Yes),
                Awaited::Asked(signal) => return Ok(Settled::Asked(signal)),
            }
        }
    }

    /// Goes back to the checkpoint of `segment`, which was `taken` then.
    fn go_back(&self, (segment, taken): (SpecId, Instant), why: Option<Fall>, main: Pid) {
        let (text, after) = match &why {
            Some(fall) => (because(fall), After::of(fall)),
            None => ("rolled back by somebody else".to_owned(), After::default()),
        };
        let used = self.scene.again.get();
        if used == self.cli.retries {
            return self.lose(text, after);
        }
        self.scene.again.set(used + 1);
        let told = format!("{text}; going on from the read ({} of {})", used + 1, self.cli.retries);
        self.kill();
        let back = self.checkpoints.borrow_mut().go_back(segment, main, self.view.mount(), || {
            self.reporter().note(&told);
            self.ready(segment, &after)?;
            // What had asked it to end since then has gone with it, or has come while it did not run.
            self.scene.supervisor.was_asked(taken).map_or(Ok(()), |signal| ask_to_end(main, signal))
        });
        match back {
            Ok(()) => self.returns.set(self.returns.get() + 1),
            Err(failed) => {
                // The way back to the start counts, and is counted there.
                self.scene.again.set(used);
                self.lose(format!("{text}; {failed}"), after);
            }
        }
    }

    /// The process is there, and has not gone on yet: the view is to show what it had before.
    fn ready(&self, segment: SpecId, after: &After) -> Result<(), String> {
        let failed = |fault: Fault| fault.to_string();
        self.view.ask(&Ask::Undo { spec: segment, drained: false }).map_err(failed)?;
        // Two that keep meeting would meet again.
        let mut open = after.met.clone();
        while !open.is_empty() {
            let awaited = self.scene.await_decided(&open, Some(self.view.spec), Some(self.view.bell()));
            open = match awaited.map_err(failed)? {
                Awaited::Open(open) => open,
                Awaited::Asked(_) | Awaited::InVain | Awaited::Rung => break,
            };
        }
        let mut wait = AttemptsWait::new(&after.sources, self.view.spec, Some(self.view.spec));
        // Who is to go back further, or was undone, is not kept from it.
        while wait.goes_on() && !self.view.has_todo() && !self.view.has_fallen() {
            let asked = wait.step(self.scene, self.reporter(), Some(self.view.bell())).map_err(failed)?;
            if asked.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Gives the whole job up.
    fn lose(&self, why: String, after: After) {
        self.lost.replace(Some((why, after)));
        self.forget();
        // They see nothing of what is undone under them.
        self.kill();
        if let Err(fault) = self.scene.abort(self.view) {
            // It is undone when its view closes.
            self.reporter().note(&format!("{fault}"));
        }
    }
}

fn ask_to_end(main: Pid, signal: i32) -> Result<(), String> {
    kill(main, Signal::try_from(signal).unwrap_or(Signal::SIGTERM)).map_err(|errno| errno.to_string())
}

impl Ground for Watch<'_> {
    fn has_fallen(&self) -> bool {
        self.view.has_fallen() || self.lost.borrow().is_some()
    }

    fn interrupt(&self) {
        self.cli.interrupt(self.view, false);
    }

    fn bell(&self) -> Option<BorrowedFd<'_>> {
        Some(self.view.bell())
    }

    fn attend(&self, main: Pid) {
        // It ends the command, which is found by that.
        let _ = self.view.has_come_off();
        for fifo in self.fifos.borrow_mut().look(main.as_raw().cast_unsigned()) {
            let (fifo, waited) = (shown(fifo.as_os_str().as_bytes()), FIFO_WAIT.as_secs());
            self.reporter().note(&format!(
                "its command has waited for {waited} s to open the fifo `{fifo}`, which was there before: a job does not reach who has \
                 it open outside"
            ));
        }
        if let Err(error) = self.checkpoints.borrow_mut().let_go_late() {
            self.lose(format!("rolled back: a checkpoint failed: {error}"), After::default());
        }
        while let Some(todo) = self.view.next_todo() {
            match todo {
                Todo::Stop { ticket, pid } => {
                    let book = Book { view: self.view, ticket };
                    let taken = self.checkpoints.borrow_mut().take(main, pid, self.view.mount(), &book);
                    if let Err(error) = taken {
                        self.lose(format!("rolled back: a checkpoint failed: {error}"), After::default());
                    }
                }
                Todo::GoBack { segment, why } => {
                    let taken = self.checkpoints.borrow().of(segment);
                    // Else it belongs to one that has gone already.
                    if let Some(taken) = taken {
                        self.go_back((segment, taken), why, main);
                    }
                }
            }
        }
    }
}

/// Where the daemon keeps account of a job's segments.
struct Book<'a> {
    view: &'a JobView,
    ticket: u64,
}

impl Ledger for Book<'_> {
    fn stopped(&self, why_not: Option<String>) -> bool {
        self.view.ask(&Ask::Stopped { ticket: self.ticket, why_not }).is_ok()
    }

    fn begin_segment(&self) -> Result<SpecId, String> {
        match self.view.ask(&Ask::Segment) {
            Ok(Answer::Started { spec, .. }) => Ok(spec),
            Ok(other) => Err(unexpected(&other).to_string()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    fn no_segment(&self, why: String) {
        if let Err(fault) = self.view.ask(&Ask::NoSegment { why }) {
            tracing::debug!("{fault}");
        }
    }
}
