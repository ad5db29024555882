//! `specrun`

use super::diff::{all_changes, line};
use super::{EXIT_TRY_AGAIN, Where, complain, conflict_lines, count, host_fault};
use crate::control::unexpected;
use crate::job::JobView;
use crate::job::supervise::{self, Ending, Supervisor};
use clap::Parser;
use mojavefs::error::Fault;
use mojavefs::wire::control::{Answer, Ask, Start};
use mojavefs::wire::{Outcome, SpecState};
use serde_json::json;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const EXIT_OWN: u8 = 125;
const EXIT_NOT_EXECUTABLE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;
const EXIT_TIMED_OUT: u8 = 124;

/// Run a command and keep all of what it changed on the filesystem, or nothing.
///
/// The command sees the filesystem as it was when it started, and its own changes. When it succeeds they become permanent at
/// once; when it fails nothing ever happened.
#[derive(Parser)]
#[command(
    name = "specrun",
    version,
    after_help = "\
Exit status: that of the command, 128+N if signal N killed it; or
  124  it took longer than --timeout
  125  specrun itself failed
  126  the command cannot be executed
  127  the command was not found
   75  it succeeded, but the commit was refused: something it read or changed was changed by someone else meanwhile,
       or somebody else undid it"
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
    /// Show what was changed and ask what to do, if there is a terminal
    #[arg(long)]
    ask: bool,
    /// Undo it if it takes longer, in seconds (or 5m, 2h)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,
    /// The exit codes that count as success
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_value = "0")]
    commit_on: Vec<i32>,
    /// Each job sees the filesystem as it was when it started (the default)
    #[arg(long)]
    isolate: bool,
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

impl Cli {
    fn run(&self) -> Result<ExitCode, Fault> {
        let supervisor = Supervisor::new().map_err(host_fault("watch the command"))?;
        let filesystem = self.filesystem.find()?;
        let words: Vec<_> = self.command.iter().map(|word| word.to_string_lossy()).collect();
        let start = Start::Job { parent: filesystem.view, command: words.join(" ") };
        let view = JobView::enter(&filesystem, start, || ())?;
        let environment = [("MOJAVEFS_SPEC", view.spec.to_string())];
        let ending = match supervisor.run(&self.command, self.timeout, &|| view.has_fallen(), &environment) {
            Ok(ending) => ending,
            Err(error) => return self.not_started(&view, error),
        };
        supervise::end_all();
        if view.has_fallen() {
            return Ok(self.fell(&view));
        }
        let (code, verdict) = self.judge(ending);
        view.drain()?;
        let verdict = if self.ask { self.consult(&filesystem, &view, verdict)? } else { verdict };
        let began = Instant::now();
        let ask = match verdict {
            Verdict::Commit => Ask::Commit { spec: view.spec, resolutions: Vec::new() },
            Verdict::Hold => Ask::Hold { spec: view.spec },
            Verdict::Abort => Ask::Abort { spec: view.spec },
        };
        let outcome = match view.ask(&ask)? {
            Answer::Outcome(outcome) => outcome,
            other => return Err(unexpected(&other)),
        };
        if !outcome.conflicts.is_empty() {
            return self.refused(&view, &outcome);
        }
        self.report(&outcome, began.elapsed(), code);
        Ok(ExitCode::from(code))
    }

    fn not_started(&self, view: &JobView, error: std::io::Error) -> Result<ExitCode, Fault> {
        view.ask(&Ask::Abort { spec: view.spec })?;
        complain("specrun", &host_fault(self.command[0].display())(error_without_path(&error)));
        Ok(ExitCode::from(match error.kind() {
            std::io::ErrorKind::NotFound => EXIT_NOT_FOUND,
            _ => EXIT_NOT_EXECUTABLE,
        }))
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

    /// Someone else undid the speculation.
    fn fell(&self, view: &JobView) -> ExitCode {
        eprintln!("specrun: speculation {} was undone by somebody else, or its daemon is gone", view.spec);
        ExitCode::from(EXIT_TRY_AGAIN)
    }

    /// Shows what changed and asks; what would have been done anyway if there is no terminal.
    fn consult(
        &self,
        filesystem: &crate::job::find::Filesystem,
        view: &JobView,
        verdict: Verdict,
    ) -> Result<Verdict, Fault> {
        let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            return Ok(verdict);
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

    fn refused(&self, view: &JobView, outcome: &Outcome) -> Result<ExitCode, Fault> {
        let keep = self.hold || self.keep_going || self.ask;
        let ask = if keep { Ask::Hold { spec: view.spec } } else { Ask::Abort { spec: view.spec } };
        view.ask(&ask)?;
        let what = if keep { format!("held as {}", view.spec) } else { "rolled back".to_owned() };
        if self.json {
            let paths: Vec<_> = outcome.conflicts.iter().map(|c| String::from_utf8_lossy(&c.path)).collect();
            eprintln!(
                "{}",
                json!({"id": outcome.spec.0, "state": if keep { "held" } else { "aborted" },
                       "changes": outcome.changes, "conflicts": paths, "exit": EXIT_TRY_AGAIN})
            );
        } else {
            eprintln!(
                "specrun: {what} {}: conflicts with what became final meanwhile:",
                count(outcome.changes, "change")
            );
            conflict_lines(&outcome.conflicts, outcome.conflicts_more).iter().for_each(|line| eprintln!("{line}"));
        }
        Ok(ExitCode::from(EXIT_TRY_AGAIN))
    }

    fn report(&self, outcome: &Outcome, took: Duration, code: u8) {
        let ms = took.as_secs_f64() * 1000.0;
        if self.json {
            let state = match outcome.state {
                SpecState::Committed | SpecState::Voted => "committed",
                SpecState::Aborted => "aborted",
                _ => "held",
            };
            let text =
                json!({"id": outcome.spec.0, "state": state, "changes": outcome.changes, "ms": ms, "exit": code});
            eprintln!("{text}");
        } else if !self.quiet {
            let changes = count(outcome.changes, "change");
            match outcome.state {
                SpecState::Committed | SpecState::Voted => eprintln!("committed {changes} in {ms:.1} ms"),
                SpecState::Aborted => eprintln!("rolled back {changes} (exit {code})"),
                _ => eprintln!("held as {} ({changes}); see `mojavefs diff {}`", outcome.spec, outcome.spec),
            }
        }
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
