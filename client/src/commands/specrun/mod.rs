//! `specrun`

mod consult;
mod covered;
mod decide;
mod options;
mod output;
mod report;
mod waiting;
mod watch;

use super::{EXIT_TRY_AGAIN, EXIT_UNKNOWN, complain, count, host_fault, job_around};
use crate::job::find::Filesystem;
use crate::job::supervise::{self, Ending, Running, Supervisor};
use crate::job::{JobView, Place, Promise, outside};
use crate::output::{err, shortened};
use covered::Covered;
use decide::{Verdict, undone};
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Ask, Start};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Fall, OnRead, Outcome, SpecOp, SpecState};
use nix::sys::signal::Signal;
use nix::unistd::{Whence, lseek};
use options::{Cli, OnReadArg, Output, Outside};
use output::Held;
use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use waiting::{AttemptsWait, Awaited};
use watch::{Settled, Watch};

const EXIT_OWN: u8 = 125;
/// What became of the job is certain, and what its command said is lost.
const EXIT_UNSAID: u8 = 74;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;

/// How long after a question that came too late the news that explains it may take.
const NEWS_TIME: Duration = Duration::from_secs(2);
/// The same of what is known to be undone: why that is comes behind all that kernels are told of it, for which each has
/// [`NOTICE_TIME_MAX`](mojavefs::limits::NOTICE_TIME_MAX).
const WHY_TIME: Duration = Duration::from_secs(15);

/// `specrun`.
pub fn specrun_main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { EXIT_OWN } else { 0 });
        }
    };
    cli.run().unwrap_or_else(|fault| {
        complain("specrun", &fault);
        ExitCode::from(EXIT_OWN)
    })
}

/// What is to be waited for before a job goes on that was undone.
#[derive(Default)]
struct After {
    /// Those that it had met, and that are undecided.
    met: Vec<SpecId>,
    /// Those whose work it had read, and that were undone, too.
    sources: Vec<SpecId>,
}

impl After {
    fn of(fall: &Fall) -> Self {
        After { met: fall.met.clone(), sources: fall.sources.clone() }
    }
}

/// How one attempt ended.
enum Attempt {
    /// For good, with this exit status.
    Over(u8),
    /// It was undone for the sake of others, and these are to be waited for before it runs again.
    Undone {
        why: String,
        after: After,
        /// How it ended, if it is not run again.
        outcome: Box<Outcome>,
    },
}

/// Where a job runs.
struct Scene<'a> {
    supervisor: &'a Supervisor,
    filesystem: &'a Filesystem,
    place: &'a Place,
    /// How often the job was undone because of others.
    again: Cell<u64>,
    /// What it was when it was run last.
    was: Cell<Option<SpecId>>,
    /// That it may be run again, after it was undone.
    promise: Cell<Option<Promise>>,
}

impl Scene<'_> {
    /// Undoes the job, whose processes have ended.
    fn abort(&self, view: &JobView) -> Result<Outcome, Fault> {
        // What is open still is somebody else's then.
        self.place.let_go();
        view.outcome(&Ask::Speculation(SpecOp::Abort { spec: view.spec }))
    }
}

impl Cli {
    fn run(&self) -> Result<ExitCode, Fault> {
        // A daemon that this starts is none of what it watches.
        let filesystem = self.filesystem.find_for_job(&self.dirs)?;
        let supervisor = Supervisor::new().map_err(host_fault("watch the command"))?;
        self.tell_what_is_covered(&filesystem)?;
        let place = Place::enter(&filesystem)?;
        if self.outside == Outside::ReadOnly {
            outside::restrict(&filesystem, &self.host)?;
        }
        if self.no_speculation {
            return self.supervise(&supervisor, &place);
        }
        // A command that is run again reads its input again, where it can.
        let input = lseek(std::io::stdin(), 0, Whence::SeekCur).ok();
        let scene = Scene {
            supervisor: &supervisor,
            filesystem: &filesystem,
            place: &place,
            again: Cell::new(0),
            was: Cell::default(),
            promise: Cell::default(),
        };
        let mut after = After::default();
        let began = Instant::now();
        loop {
            if let Some(signal) = self.wait_for(&scene, &after)? {
                return Ok(ExitCode::from(128 + signal as u8));
            }
            let (why, outcome) = match self.attempt(&scene)? {
                Attempt::Over(code) => return Ok(ExitCode::from(code)),
                Attempt::Undone { why, after: next, outcome } => {
                    after = next;
                    (why, outcome)
                }
            };
            // One may have come while a commit was waited for.
            supervisor.asked_to_end().map_err(host_fault("signals"))?;
            if let Some(signal) = supervisor.was_asked(began) {
                let code = 128 + signal as u8;
                let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
                self.reporter().undone(
                    &outcome,
                    &format!("{why}; not run again, since {name} has asked for its end"),
                    code,
                );
                return Ok(ExitCode::from(code));
            }
            let again = scene.again.get();
            let in_vain = again < self.retries && !outcome.conflicts.is_empty() && scene.is_around_in_conflict()?;
            if in_vain {
                self.reporter()
                    .note("not run again: the job around it is in conflict itself, and can't be committed as it is");
            }
            if again == self.retries || in_vain {
                match outcome.conflicts.is_empty() {
                    true => {
                        let why = format!("{why}; it was run {} in all", count(again + 1, "time"));
                        self.reporter().undone(&outcome, &why, EXIT_TRY_AGAIN);
                    }
                    false => self.reporter().refused(&outcome, false, EXIT_TRY_AGAIN),
                }
                return Ok(ExitCode::from(EXIT_TRY_AGAIN));
            }
            scene.again.set(again + 1);
            self.reporter().note(&format!("{why}; running again ({} of {})", again + 1, self.retries));
            if let Some(at) = input {
                let _ = lseek(std::io::stdin(), at, Whence::SeekSet);
            }
        }
    }

    /// What of the host the job covers, and what not.
    fn tell_what_is_covered(&self, filesystem: &Filesystem) -> Result<(), Fault> {
        match Covered::of(filesystem)? {
            Some(covered) if self.json => err!("{}", covered.json()),
            Some(covered) if !self.quiet => covered.tell(self.outside == Outside::ReadOnly),
            _ => {}
        }
        Ok(())
    }

    /// Runs the command on what is final, and ends what it leaves behind.
    fn supervise(&self, supervisor: &Supervisor, place: &Place) -> Result<ExitCode, Fault> {
        let ran = supervisor.start(&self.command, self.limit(), &[place.environment()], None);
        let ending = match ran.and_then(|running| supervisor.watch(&running, &|| false)) {
            Ok(ending) => ending,
            Err(error) => return Ok(ExitCode::from(self.refuse(&error))),
        };
        supervise::end_all();
        Ok(ExitCode::from(self.judge(ending).0))
    }

    /// Waits for the speculations that the job had met before it was undone, so that two can't collide for ever; not for those
    /// that wait for the job around it, and not longer than until a signal asks for the end, which it returns. Then for those
    /// that it had read from, to have what it reads made anew.
    fn wait_for(&self, scene: &Scene<'_>, after: &After) -> Result<Option<i32>, Fault> {
        // The command of the job around this one waits for it, and so for these.
        let around = job_around(scene.filesystem);
        let mut open = after.met.clone();
        while !open.is_empty() {
            open = match scene.await_decided(&open, around, None)? {
                Awaited::Open(open) => open,
                Awaited::Asked(signal) => return Ok(Some(signal)),
                Awaited::InVain | Awaited::Rung => break,
            };
        }
        let Some(was) = scene.was.get() else { return Ok(None) };
        let mut wait = AttemptsWait::new(&after.sources, was, around);
        while wait.goes_on() {
            if let Some(signal) = wait.step(scene, self.reporter(), None)? {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }

    fn attempt(&self, scene: &Scene<'_>) -> Result<Attempt, Fault> {
        let Scene { filesystem, place, .. } = *scene;
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        let on_read = if self.isolate { OnRead::Isolate } else { self.on_read.into() };
        let (command, restarts) = (shortened(words.join(" ")), self.restarts());
        let dirs = filesystem.host_dirs().map(|dir| dir.as_os_str().as_bytes().to_vec()).collect();
        let start = Start::Job { parent: filesystem.view, command, dirs, on_read, own: self.own, restarts };
        let view = JobView::enter(place, start)?;
        if let Some(was) = scene.was.replace(Some(view.spec)) {
            // Who waits for what it has done follows it by that, and for nothing else.
            if let Err(fault) = view.ask(&Ask::Speculation(SpecOp::RunsAgain { spec: view.spec, was })) {
                tracing::debug!("that {was} is {} now: {fault}", view.spec);
            }
        }
        scene.promise.take();
        let attempt = self.run_in(scene, &view)?;
        place.let_go();
        if let Attempt::Undone { .. } = attempt {
            scene.promise.set(view.promise());
        }
        Ok(attempt)
    }

    /// Runs the command in a view, and decides what it did.
    fn run_in(&self, scene: &Scene<'_>, view: &JobView) -> Result<Attempt, Fault> {
        let Scene { supervisor, place, .. } = *scene;
        let (held, stdio) = match self.output {
            Output::Live => (None, None),
            Output::Hold => {
                let (held, stdout, stderr) = Held::start().map_err(host_fault("hold the output back"))?;
                (Some(held), Some((stdout, stderr)))
            }
        };
        let environment = [("MOJAVEFS_SPEC", view.spec.to_string()), place.environment()];
        let running = match supervisor.start(&self.command, self.limit(), &environment, stdio) {
            Ok(running) => running,
            Err(error) => return self.not_started(scene, view, error),
        };
        let watch = Watch::new(self, scene, view);
        let watched = self.watch(&watch, &running);
        watch.forget();
        supervise::end_all();
        if let Some(lost) = watch.lost() {
            return Ok(lost);
        }
        if view.has_fallen() {
            return Ok(self.fell(view, None));
        }
        if view.has_come_off() {
            return self.came_off(scene, view);
        }
        let (code, verdict) = match watched {
            Err(fault) if is_gone(&fault) => return Ok(self.fell(view, Some(&fault))),
            watched => watched?,
        };
        let attempt = match self.decide(scene, view, (code, verdict)) {
            // It was to be taken back to a read when it was too late for that.
            Err(fault) if fault.kind == FaultKind::Busy && !view.has_fallen() => match scene.abort(view) {
                Err(_) if view.wait_decided(NEWS_TIME) == Some(SpecState::Aborted) => self.fell(view, None),
                Err(fault) => return Err(fault),
                Ok(_) => {
                    let why = "rolled back: what it had read was undone as it ended".to_owned();
                    Attempt::Undone { why, after: After::default(), outcome: Box::new(undone(view)) }
                }
            },
            // Nobody answers any more, or what was voted for can't be taken back.
            Err(fault) if is_gone(&fault) || view.may_be().is_some() => self.fell(view, Some(&fault)),
            // What was asked came too late: others had decided.
            Err(_) if view.wait_decided(NEWS_TIME) == Some(SpecState::Aborted) => self.fell(view, None),
            attempt => attempt?,
        };
        if let (Attempt::Over(_), Some(held)) = (&attempt, held)
            && let Err(error) = held.release()
        {
            if let Attempt::Over(EXIT_UNKNOWN) = attempt {
                err!("specrun: cannot pass on the output that was held back: {error}");
                return Ok(attempt);
            }
            return Ok(Attempt::Over(self.unsaid(view, &error)));
        }
        Ok(attempt)
    }

    /// Watches the command to its end, also when it goes back and ends again; what it comes to.
    fn watch(&self, watch: &Watch<'_>, running: &Running) -> Result<(u8, Verdict), Fault> {
        loop {
            let ending = watch.run(running)?;
            let ended = Instant::now();
            let (code, verdict) = self.judge(ending);
            watch.end_all();
            // A failure may come of what did not happen, too; an end that was asked for does not.
            let by_itself = matches!(ending, Ending::Exited(0..128));
            let waits = !self.no_wait && by_itself && !matches!(verdict, Verdict::Hold);
            match watch.settle(running.main(), waits)? {
                Settled::Back => running.has_stood_still(ended),
                Settled::Yes => return Ok((code, verdict)),
                Settled::Asked(signal) => return Ok((128 + signal as u8, Verdict::Abort)),
            }
        }
    }

    /// The job is decided, and what its command said can't be passed on: says so; the exit status.
    fn unsaid(&self, view: &JobView, error: &std::io::Error) -> u8 {
        let became =
            match view.outcome(&Ask::Speculation(SpecOp::Outcome { spec: view.spec })).map(|outcome| outcome.state) {
                Ok(SpecState::Committed | SpecState::Voted) => "is committed all the same",
                Ok(SpecState::Aborted) => "is undone",
                Ok(SpecState::Held) => "is left undecided",
                _ => "is decided",
            };
        let spec = view.spec;
        err!("specrun: cannot pass on the output that was held back: {error}; speculation {spec} {became}");
        EXIT_UNSAID
    }

    fn not_started(&self, scene: &Scene<'_>, view: &JobView, error: std::io::Error) -> Result<Attempt, Fault> {
        let outcome = scene.abort(view)?;
        let code = self.refuse(&error);
        if self.json {
            self.reporter().outcome(&outcome, report::Took::own(Duration::ZERO), code);
        }
        Ok(Attempt::Over(code))
    }

    /// What waits for others' decisions is to stop waiting. A daemon that is gone has ended the waits itself.
    fn interrupt(&self, view: &JobView, for_good: bool) {
        if matches!(self.on_read, OnReadArg::Wait) {
            let _ = view.ask(&Ask::Interrupt { for_good });
        }
    }

    /// Says why the command did not start; the exit status.
    fn refuse(&self, error: &std::io::Error) -> u8 {
        complain("specrun", &host_fault(self.command[0].display())(error_without_path(error)));
        match error.kind() {
            std::io::ErrorKind::NotFound => EXIT_NOT_FOUND,
            _ => EXIT_NOT_EXECUTABLE,
        }
    }
}

/// Nobody answers any more.
fn is_gone(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::InDoubt | FaultKind::Disconnected)
}

/// The operating system's words without what Rust adds.
fn error_without_path(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(error.kind(), error.to_string()),
    }
}
