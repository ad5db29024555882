//! What can be said to `specrun`.

use super::super::{Where, parse_spec};
use super::report::Reporter;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use mojavefs::id::SpecId;
use mojavefs::protocol::OnRead;
use mojavefs_attach::namespace::is_user_namespace;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

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
   73  over a directory of the host: it is committed, and the host does not have it yet, for the reason that is said
   74  the job was decided, and what its command said could not be passed on (--output hold); it is said on standard
       error what became of the job
   75  it was undone because of others and --retries is used up: it depended on a job that was undone, or something
       it changed was changed by someone else meanwhile; or somebody undid it by hand; or its filesystem was gone before
       it had voted
   76  not known: it had voted, and the daemon or its server was gone before it said what came of that. To run it again may
       do it twice: after mounting, `mojavefs status` and `mojavefs commit ID` say what it came to
  124  the command ran longer than --timeout
  125  specrun itself failed, or its command line is wrong
  126  the command cannot be executed
  127  the command was not found"
)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) filesystem: Where,
    /// A directory of the host that the job is about, instead of the one where it is started; may be repeated
    #[arg(long = "dir", value_name = "DIR", conflicts_with = "mountpoint")]
    pub(super) dirs: Vec<PathBuf>,
    /// What of the host lies outside of the job's directories, where what is changed is not undone: can the command change it?
    #[arg(long, value_enum, default_value_t = Outside::Write, value_name = "HOW", conflicts_with = "mountpoint")]
    pub(super) outside: Outside,
    /// With `--outside read-only`: this file or directory can be changed all the same; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(super) host: Vec<PathBuf>,
    /// Leave it undecided when the command succeeds: review it, then `mojavefs commit` or `abort`
    #[arg(long)]
    pub(super) hold: bool,
    /// Leave it undecided whatever becomes of the command
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Show what was changed and ask what to do; without a terminal, leave undecided what would be committed
    #[arg(long)]
    pub(super) ask: bool,
    /// Undo it if the command runs longer, in seconds (or 5m, 2h, 1d); 0 is no limit. Run again from its start it has the whole
    /// time again; waiting for other jobs after its end does not count (see --no-wait)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) timeout: Option<Duration>,
    /// The exit codes that count as success, with commas between them
    #[arg(long, value_name = "CODES", value_delimiter = ',', default_value = "0", value_parser = parse_code)]
    pub(super) commit_on: Vec<i32>,
    /// What the command gets where another job has changed something and not committed yet
    #[arg(long, value_enum, default_value_t = OnReadArg::Join)]
    pub(super) on_read: OnReadArg,
    /// See the filesystem as it was at the start, and nothing that others do meanwhile
    #[arg(long, conflicts_with = "on_read")]
    pub(super) isolate: bool,
    /// Become a further owner of this speculation: final when all owners have committed, undone when one aborts
    #[arg(long, value_name = "ID", value_parser = parse_spec)]
    pub(super) own: Option<SpecId>,
    /// Do not wait for the speculations that the job depends on: leave it decided, final when they are
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Let the files that it has changed, in whatever way, count as modified when it is committed, rather than when they were changed:
    /// `make` builds what depends on them. Of a job inside another one, and of a held one, this is said where that is committed
    #[arg(long)]
    pub(super) touch: bool,
    /// How often to run the command again when it is undone because of others
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) retries: u64,
    /// When undone because of others, go back to the start, also where going back to the read is possible
    #[arg(long)]
    pub(super) from_start: bool,
    /// When what the command says is passed on: at once, or when it is certain that it happened (hold: not with --hold,
    /// --keep-going or --no-wait, which leave that open)
    #[arg(long, value_enum, default_value_t = Output::Live, value_name = "WHEN")]
    pub(super) output: Output,
    /// No speculation around the command: what it changes is final at once, except what its processes speculate with
    /// libmojave
    #[arg(long, conflicts_with_all = ["hold", "keep_going", "ask", "commit_on", "on_read", "isolate", "own", "no_wait", "touch"])]
    pub(super) no_speculation: bool,
    /// Say nothing at the end
    #[arg(long, conflicts_with = "json")]
    pub(super) quiet: bool,
    /// Say at the end what was done as JSON, on standard error; over directories of the host also, at the start, what is covered
    #[arg(long)]
    pub(super) json: bool,
    /// The command
    #[arg(required = true, trailing_var_arg = true)]
    pub(super) command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum OnReadArg {
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
pub(super) enum Outside {
    /// As without a job
    Write,
    /// No: it is read-only, /tmp is the job's own and gone with it; /proc, /sys, /dev, /run, $XDG_RUNTIME_DIR, the directory of
    /// $SSH_AUTH_SOCK and the sockets of gpg and X11 stay as they are
    ReadOnly,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum Output {
    /// At once
    Live,
    /// When the job is final, or the command itself has failed
    Hold,
}

impl Cli {
    /// What was said on the command line.
    pub(super) fn read() -> Result<Self, clap::Error> {
        let cli = Self::try_parse()?;
        let refused = |kind, text| Err(Self::command().error(kind, text));
        if cli.outside == Outside::Write && !cli.host.is_empty() {
            return refused(ErrorKind::ArgumentConflict, "--host goes with --outside read-only".to_owned());
        }
        let open = [("--hold", cli.hold), ("--keep-going", cli.keep_going), ("--no-wait", cli.no_wait)];
        match open.into_iter().find(|(_, said)| *said && cli.output == Output::Hold) {
            None => Ok(cli),
            Some((option, _)) => {
                let text = format!(
                    "--output hold passes on only what is final, and {option} leaves the job undecided: choose one of them"
                );
                refused(ErrorKind::ArgumentConflict, text)
            }
        }
    }

    pub(super) fn limit(&self) -> Option<Duration> {
        self.timeout.filter(|limit| !limit.is_zero())
    }

    pub(super) fn reporter(&self) -> Reporter {
        Reporter { quiet: self.quiet, json: self.json }
    }

    /// Why the command can go back to its start only, when others' work that it has read is undone.
    pub(super) fn restarts(&self) -> Option<String> {
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
}

fn parse_code(text: &str) -> Result<i32, String> {
    text.parse::<u8>()
        .map(i32::from)
        .map_err(|_| format!("`{text}` is no exit code; write numbers up to 255, as in 0,3"))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; write 90, 1.5s, 5m, 2h or 1d");
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
