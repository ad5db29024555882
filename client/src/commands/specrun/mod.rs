//! `specrun`

mod output;
mod report;
mod waiting;
mod watch;

use super::diff::{all_changes, line};
use super::{EXIT_TRY_AGAIN, Where, complain, count, host_fault, parse_spec, shown};
use crate::job::find::Filesystem;
use crate::job::supervise::{self, Ending, Running, Supervisor};
use crate::job::{JobView, Place};
use crate::limits::QUIET_WAIT;
use crate::speech::err;
use clap::{Parser, ValueEnum};
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::SpecId;
use mojavefs::wire::control::{Ask, Start};
use mojavefs::wire::{OnRead, Outcome, SpecState};
use mojavefs_place::namespace::is_user_namespace;
use nix::unistd::{Whence, lseek};
use output::Held;
use report::{Voice, because, they_are};
use std::cell::Cell;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use waiting::Awaited;
use watch::{Settled, Watch};

const EXIT_OWN: u8 = 125;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
const EXIT_TIMED_OUT: u8 = 124;
/// The command exited with 0, and what it did was undone all the same.
const EXIT_UNDONE: u8 = 1;

/// Run a command and keep all of what it changed on the filesystem, or nothing.
///
/// When the command succeeds its changes become permanent at once; when it fails nothing ever happened. Where it looks at
/// what another job has not committed yet, it becomes part of that one and stands or falls with it.
#[derive(Parser)]
#[command(
    name = "specrun",
    version,
    after_help = "\
Exit status: that of the command, 128+N if signal N killed it; or
    1  the command exited with 0 and was undone all the same (--commit-on, --ask)
  124  it took longer than --timeout
  125  specrun itself failed
  126  the command cannot be executed
  127  the command was not found
   75  it was undone because of others and --retries is used up: it depended on a job that was undone, or something
       it changed was changed by someone else meanwhile; or somebody undid it by hand; or its filesystem is gone"
)]
struct Cli {
    #[command(flatten)]
    filesystem: Where,
    /// Leave it undecided when the command succeeds: review it, then `mojavefs commit` or `abort`
    #[arg(long)]
    hold: bool,
    /// Leave it undecided whatever becomes of the command
    #[arg(long)]
    keep_going: bool,
    /// Show what was changed and ask what to do; without a terminal, leave undecided what would be committed
    #[arg(long)]
    ask: bool,
    /// Undo it if it takes longer, in seconds (or 5m, 2h); 0 is no limit
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// The exit codes that count as success
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_value = "0",
          value_parser = clap::value_parser!(i32).range(0..=255))]
    commit_on: Vec<i32>,
    /// What the command gets where another job has changed something and not committed yet
    #[arg(long, value_enum, default_value_t = OnReadArg::Join)]
    on_read: OnReadArg,
    /// See the filesystem as it was at the start, and nothing that others do meanwhile
    #[arg(long, conflicts_with = "on_read")]
    isolate: bool,
    /// Become a further owner of this speculation: final when all owners have committed, undone when one aborts
    #[arg(long, value_name = "ID", value_parser = parse_spec)]
    own: Option<SpecId>,
    /// Do not wait for the speculations that the job depends on: leave it decided, final when they are
    #[arg(long)]
    no_wait: bool,
    /// How often to run the command again when it is undone because of others
    #[arg(long, value_name = "N", default_value_t = 3)]
    retries: u64,
    /// When undone because of others, go back to the start, also where going back to the read is possible
    #[arg(long)]
    from_start: bool,
    /// When what the command says is passed on: at once, or when it is certain that it happened
    #[arg(long, value_enum, default_value_t = Output::Live, value_name = "WHEN")]
    output: Output,
    /// No speculation around the command: what it changes is final at once, except what its processes speculate with
    /// libmojave
    #[arg(long, conflicts_with_all = ["hold", "keep_going", "ask", "commit_on", "on_read", "isolate", "own", "no_wait"])]
    no_speculation: bool,
    /// Say nothing at the end
    #[arg(long, conflicts_with = "json")]
    quiet: bool,
    /// Say at the end what was done as JSON, on standard error
    #[arg(long)]
    json: bool,
    /// The command
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum OnReadArg {
    /// The other's version; the job becomes part of the other and stands or falls with it
    Join,
    /// Nothing before the other is decided
    Wait,
    /// What is final
    Committed,
    /// An error (EBUSY)
    Fail,
}

impl From<OnReadArg> for OnRead {
    fn from(arg: OnReadArg) -> Self {
        match arg {
            OnReadArg::Join => OnRead::Join,
            OnReadArg::Wait => OnRead::Wait,
            OnReadArg::Committed => OnRead::Committed,
            OnReadArg::Fail => OnRead::Fail,
        }
    }
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Output {
    /// At once
    Live,
    /// When the job is final, or the command itself has failed
    Hold,
}

/// How long after a question that came too late the news that explains it may take.
const NEWS_TIME: Duration = Duration::from_secs(2);

/// `specrun`.
pub fn specrun_main() -> ExitCode {
    let cli = match Cli::try_parse() {
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

/// What to do with a job that is over.
enum Verdict {
    Commit,
    Hold,
    Abort,
}

/// How one attempt ended.
enum Attempt {
    /// For good, with this exit status.
    Over(u8),
    /// It was undone for the sake of others, and these are to be waited for before it runs again.
    Undone {
        why: String,
        after: Vec<SpecId>,
        /// What is said if it is not run again.
        refusal: Option<Outcome>,
    },
}

/// Where a job runs.
struct Scene<'a> {
    supervisor: &'a Supervisor,
    filesystem: &'a Filesystem,
    place: &'a Place,
    /// How often the job was undone because of others.
    again: Cell<u64>,
}

impl Cli {
    fn limit(&self) -> Option<Duration> {
        self.timeout.filter(|limit| !limit.is_zero())
    }

    fn voice(&self) -> Voice {
        Voice { quiet: self.quiet, json: self.json }
    }

    fn run(&self) -> Result<ExitCode, Fault> {
        let supervisor = Supervisor::new().map_err(host_fault("watch the command"))?;
        let filesystem = self.filesystem.find()?;
        let place = Place::enter(&filesystem)?;
        if self.no_speculation {
            return self.supervise(&supervisor, &place);
        }
        // A command that is run again reads its input again, where it can.
        let input = lseek(std::io::stdin(), 0, Whence::SeekCur).ok();
        let scene = Scene { supervisor: &supervisor, filesystem: &filesystem, place: &place, again: Cell::new(0) };
        let mut after = Vec::new();
        loop {
            if let Some(signal) = self.wait_for(&scene, &after)? {
                return Ok(ExitCode::from(128 + signal as u8));
            }
            let (why, refusal) = match self.attempt(&scene)? {
                Attempt::Over(code) => return Ok(ExitCode::from(code)),
                Attempt::Undone { why, after: met, refusal } => {
                    after = met;
                    (why, refusal)
                }
            };
            let again = scene.again.get();
            if again == self.retries {
                match refusal {
                    Some(outcome) => self.voice().refused(&outcome, false, EXIT_TRY_AGAIN),
                    None => err!("specrun: {why}; it was run {} in all", count(again + 1, "time")),
                }
                return Ok(ExitCode::from(EXIT_TRY_AGAIN));
            }
            scene.again.set(again + 1);
            self.voice().note(&format!("{why}; running again ({} of {})", again + 1, self.retries));
            if let Some(at) = input {
                let _ = lseek(std::io::stdin(), at, Whence::SeekSet);
            }
        }
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

    /// Waits for the speculations that the job had met before it was undone, so that two can't collide for ever; not longer
    /// than until a signal asks for the end, which it returns.
    fn wait_for(&self, scene: &Scene<'_>, specs: &[SpecId]) -> Result<Option<i32>, Fault> {
        let mut open = specs.to_vec();
        while !open.is_empty() {
            open = match scene.await_decided(&open, None, None)? {
                Awaited::Open(open) => open,
                Awaited::Asked(signal) => return Ok(Some(signal)),
                Awaited::InVain | Awaited::Rung => return Ok(None),
            };
        }
        Ok(None)
    }

    fn attempt(&self, scene: &Scene<'_>) -> Result<Attempt, Fault> {
        let Scene { supervisor, filesystem, place, .. } = *scene;
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        let on_read = if self.isolate { OnRead::Isolate } else { self.on_read.into() };
        let (command, restarts) = (words.join(" "), self.restarts());
        let start = Start::Job { parent: filesystem.view, command, on_read, own: self.own, restarts };
        let view = JobView::enter(place, start)?;
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
            Err(error) => return self.not_started(&view, error),
        };
        let watch = Watch::new(self, scene, &view);
        let (code, verdict) = self.watch(&watch, &running)?;
        watch.forget();
        supervise::end_all();
        if let Some(lost) = watch.lost() {
            return Ok(lost);
        }
        if view.has_fallen() {
            return Ok(self.fell(&view));
        }
        let attempt = match self.decide(scene, &view, (code, verdict)) {
            // It was to be taken back to a read when it was too late for that.
            Err(fault) if fault.kind == FaultKind::Busy && !view.has_fallen() => {
                match view.ask(&Ask::Abort { spec: view.spec }) {
                    Err(_) if view.wait_decided(NEWS_TIME) == Some(SpecState::Aborted) => self.fell(&view),
                    Err(fault) => return Err(fault),
                    Ok(_) => {
                        let why = "rolled back: what it had read was undone as it ended".to_owned();
                        Attempt::Undone { why, after: Vec::new(), refusal: None }
                    }
                }
            }
            // What was asked came too late: others had decided.
            Err(_) if view.wait_decided(NEWS_TIME) == Some(SpecState::Aborted) => self.fell(&view),
            attempt => attempt?,
        };
        if let (Attempt::Over(_), Some(held)) = (&attempt, held) {
            held.release().map_err(host_fault("the output that was held back"))?;
        }
        Ok(attempt)
    }

    /// Watches the command to its end, also when it goes back and ends again; what it comes to.
    fn watch(&self, watch: &Watch<'_>, running: &Running) -> Result<(u8, Verdict), Fault> {
        loop {
            let ending = watch.run(running)?;
            let (code, verdict) = self.judge(ending);
            watch.end_all();
            // A failure may come of what did not happen, too; an end that was asked for does not.
            let by_itself = matches!(ending, Ending::Exited(0..128));
            let waits = !self.no_wait && by_itself && !matches!(verdict, Verdict::Hold);
            match watch.settle(running.main(), waits)? {
                Settled::Back => {}
                Settled::Yes => return Ok((code, verdict)),
                Settled::Asked(signal) => return Ok((128 + signal as u8, Verdict::Abort)),
            }
        }
    }

    /// Why the command can go back to its start only, when others' work that it has read is undone.
    fn restarts(&self) -> Option<String> {
        let why = match () {
            () if self.from_start => "--from-start",
            () if self.output == Output::Hold => "--output hold can't take back what was said since",
            () if !nix::unistd::geteuid().is_root() || is_user_namespace() => {
                "bringing a process back takes the rights of root"
            }
            () => return None,
        };
        Some(why.to_owned())
    }

    fn not_started(&self, view: &JobView, error: std::io::Error) -> Result<Attempt, Fault> {
        view.ask(&Ask::Abort { spec: view.spec })?;
        Ok(Attempt::Over(self.refuse(&error)))
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

    fn judge(&self, ending: Ending) -> (u8, Verdict) {
        let (code, success) = match ending {
            Ending::Exited(code) => (code as u8, self.commit_on.contains(&code)),
            Ending::Killed(signal) => (128 + signal as u8, false),
            Ending::TimedOut => (EXIT_TIMED_OUT, false),
        };
        let verdict = match success {
            _ if self.keep_going => Verdict::Hold,
            true if self.hold => Verdict::Hold,
            true => Verdict::Commit,
            false => Verdict::Abort,
        };
        (code, verdict)
    }

    /// Carries the verdict out, and waits for others where it depends on them.
    fn decide(&self, scene: &Scene<'_>, view: &JobView, (code, verdict): (u8, Verdict)) -> Result<Attempt, Fault> {
        view.drain()?;
        let verdict = if self.ask { self.consult(scene.filesystem, view, verdict)? } else { verdict };
        let began = Instant::now();
        let ask = match verdict {
            Verdict::Commit => Ask::Commit { spec: view.spec, resolutions: Vec::new() },
            Verdict::Hold => Ask::Hold { spec: view.spec },
            Verdict::Abort => Ask::Abort { spec: view.spec },
        };
        let outcome = view.outcome(&ask)?;
        if !outcome.conflicts.is_empty() {
            return self.refused(view, outcome);
        }
        if matches!(outcome.state, SpecState::Committed | SpecState::Voted) {
            scene.place.catch_up();
        }
        if outcome.waits_for.is_empty() || self.no_wait {
            self.voice().outcome(&outcome, began.elapsed(), code);
            // 0 means that what the command did has happened.
            let code = if outcome.state == SpecState::Aborted && code == 0 { EXIT_UNDONE } else { code };
            return Ok(Attempt::Over(code));
        }
        self.wait_final(scene.supervisor, view, outcome, (code, began))
    }

    /// The job has voted; others decide with it.
    fn wait_final(
        &self,
        supervisor: &Supervisor,
        view: &JobView,
        outcome: Outcome,
        (code, began): (u8, Instant),
    ) -> Result<Attempt, Fault> {
        let mut told = false;
        loop {
            match view.wait_decided(QUIET_WAIT) {
                Some(SpecState::Committed) => {
                    let outcome = Outcome { state: SpecState::Committed, ..outcome };
                    self.voice().outcome(&outcome, began.elapsed(), code);
                    return Ok(Attempt::Over(code));
                }
                Some(SpecState::Aborted) => return Ok(self.fell(view)),
                Some(_) => {
                    // Something that became final meanwhile is in its way: asking again says what.
                    view.forget_news();
                    let again = view.outcome(&Ask::Commit { spec: view.spec, resolutions: Vec::new() })?;
                    if !again.conflicts.is_empty() {
                        return self.refused(view, again);
                    }
                }
                None => {}
            }
            if let Some(signal) = supervisor.asked_to_end().map_err(host_fault("signals"))? {
                let outcome = view.outcome(&Ask::Abort { spec: view.spec })?;
                self.voice().outcome(&outcome, began.elapsed(), 128 + signal as u8);
                return Ok(Attempt::Over(128 + signal as u8));
            }
            if !told {
                self.voice().note(&format!("done; waits until {} decided", they_are(&outcome.waits_for)));
                told = true;
            }
        }
    }

    /// Someone else undid the speculation.
    fn fell(&self, view: &JobView) -> Attempt {
        if let Some(fall) = view.why_fallen() {
            return Attempt::Undone { why: because(&fall), after: fall.met, refusal: None };
        }
        match view.why_gone() {
            Some(why) => err!("specrun: {why}: speculation {} was undone", view.spec),
            None => err!("specrun: speculation {} was undone by somebody else", view.spec),
        }
        Attempt::Over(EXIT_TRY_AGAIN)
    }

    /// Something that it read or changed became final meanwhile.
    fn refused(&self, view: &JobView, outcome: Outcome) -> Result<Attempt, Fault> {
        let keep = self.hold || self.keep_going || self.ask;
        view.ask(&if keep { Ask::Hold { spec: view.spec } } else { Ask::Abort { spec: view.spec } })?;
        if keep {
            self.voice().refused(&outcome, true, EXIT_TRY_AGAIN);
            return Ok(Attempt::Over(EXIT_TRY_AGAIN));
        }
        let first = outcome.conflicts.first().map(|conflict| shown(&conflict.path)).unwrap_or_default();
        let why = format!("rolled back: `{first}` was changed by someone else meanwhile");
        Ok(Attempt::Undone { why, after: Vec::new(), refusal: Some(outcome) })
    }

    /// Shows what changed and asks. Nothing is committed unasked if there is no terminal.
    fn consult(&self, filesystem: &Filesystem, view: &JobView, verdict: Verdict) -> Result<Verdict, Fault> {
        let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            self.voice().note("there is no terminal to ask on");
            return Ok(if let Verdict::Commit = verdict { Verdict::Hold } else { verdict });
        };
        let io = host_fault("the terminal");
        let mut talk = || -> std::io::Result<Option<Verdict>> {
            let stream = filesystem.connect().map_err(|fault| std::io::Error::other(fault.to_string()))?;
            let changes = all_changes(&stream, view.spec).map_err(|fault| std::io::Error::other(fault.to_string()))?;
            for change in &changes {
                writeln!(terminal, "{}", line(change))?;
            }
            writeln!(terminal, "{}", count(changes.len() as u64, "change"))?;
            let mut lines = BufReader::new(terminal.try_clone()?).lines();
            loop {
                write!(terminal, "[c]ommit, [a]bort or [h]old? ")?;
                terminal.flush()?;
                match lines.next().transpose()?.as_deref().map(str::trim) {
                    Some("c" | "commit") => return Ok(Some(Verdict::Commit)),
                    Some("a" | "abort") => return Ok(Some(Verdict::Abort)),
                    Some("h" | "hold") => return Ok(Some(Verdict::Hold)),
                    Some(_) => {}
                    None => return Ok(None),
                }
            }
        };
        Ok(talk().map_err(io)?.unwrap_or(Verdict::Abort))
    }
}

/// The operating system's words without what Rust adds.
fn error_without_path(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(error.kind(), error.to_string()),
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write 90, 5m or 2h");
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => 86_400.0,
    };
    let seconds: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds * factor).map_err(|_| wrong())
}
