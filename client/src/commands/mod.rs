//! The command line: one file per subcommand. Here is the one place that speaks to people.

mod abort;
mod apply;
mod barrier;
mod commit;
mod diff;
mod displaced;
mod escape;
mod export;
mod fsck;
mod gc;
mod graph;
mod host;
mod import;
mod json;
mod keygen;
mod launch;
mod mount;
mod place;
mod progress;
mod resolutions;
mod serve;
mod shell;
mod silence;
mod specrun;
mod status;
mod tree;
mod umount;
mod unapplied;
mod which;
mod why;

pub use specrun::specrun_main;

use crate::daemon::Backend;
use crate::job::find::Filesystem;
use crate::output::{err, out};
use clap::{Args, Parser, Subcommand};
use escape::{escaped, harmless, in_patch, shown};
use mojavefs::id::SpecId;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Conflict, Outcome, SpecState};
use mojavefs_net::{Address, Key};
use std::any::Any;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A refused commit and the like: trying again later may help (`EX_TEMPFAIL`).
pub(crate) const EXIT_TRY_AGAIN: u8 = 75;
/// It is committed, and the host does not have it yet.
pub(crate) const EXIT_UNAPPLIED: u8 = 73;
/// A decision was asked for, and nobody has said what came of it: to do the work again may do it twice.
pub(crate) const EXIT_UNKNOWN: u8 = 76;
/// It is decided, and final when others are.
pub(crate) const EXIT_NOT_FINAL: u8 = 77;

/// The job that this command is run in, as far as its environment tells.
pub(crate) fn job_around(filesystem: &Filesystem) -> Option<SpecId> {
    let elsewhere = |mountpoint: std::ffi::OsString| !filesystem.is_at(Path::new(&mountpoint));
    if std::env::var_os(mojavefs_attach::MOUNTPOINT_VARIABLE).is_some_and(elsewhere) {
        return None;
    }
    std::env::var("MOJAVEFS_SPEC").ok()?.parse().ok().map(SpecId)
}

/// What the programs bring along so that a store needs no server set up.
pub trait Embedded {
    /// Opens a store in this process, with so much memory for buffers and caches; a new one belongs to `owner`.
    fn open(&self, store: &Path, memory_bytes: usize, owner: (u32, u32)) -> Result<Backend, Fault>;

    /// Opens the store of a user over the host's own filesystem, in this process. Their state lies in the directory `state`.
    fn open_over_host(&self, state: &Path, memory_bytes: usize, owner: (u32, u32)) -> Result<Backend, Fault>;

    /// Serves a store to clients at these addresses, until what is returned is dropped.
    fn serve(
        &self,
        store: &Path,
        memory_bytes: usize,
        owner: (u32, u32),
        listen: &[Address],
        key: Option<&Key>,
    ) -> Result<Serving, Fault>;

    /// Checks a store that nobody has open. `progress` is told how many records were looked at.
    fn fsck(&self, store: &Path, memory_bytes: usize, progress: &mut dyn FnMut(u64)) -> Result<Checked, Fault>;
}

/// A server that listens.
pub struct Serving {
    /// Where.
    pub addresses: Vec<Address>,
    /// What opening the store has to tell users, in words.
    pub notes: Vec<String>,
    /// Ends it when dropped.
    pub keep: Box<dyn Any + Send>,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// What was counted, by name.
    pub counts: Vec<(&'static str, u64)>,
    /// What is no problem and worth knowing, in words.
    pub notes: Vec<String>,
}

/// A speculative filesystem: mount it, run jobs in it with specrun, commit or undo what they did as one.
#[derive(Parser)]
#[command(
    name = "mojavefs",
    version,
    propagate_version = true,
    after_help = "\
Exit status:
    0  done
    1  it could not be done: the reason is said
    2  the command line is wrong; abort, commit, diff, shell, why: it is not said which of several speculations
    4  fsck: something is wrong with the store
   73  commit: it is committed, and the host does not have it yet; apply: something still waits
   75  commit, import: not committed, as it was undone or is in conflict; barrier: it was undone; shell: what it was in is
       decided
   76  commit, abort, import: not known, as the daemon has gone before it answered
   77  commit: it is decided and not final yet
  141  nobody reads standard output any more
shell exits as what ran in it, with 128+N if signal N killed that."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mount a store, or what a server serves; returns when it can be used
    Mount(mount::Mount),
    /// Serve a store to clients on other mounts and hosts
    Serve(serve::Serve),
    /// Make a key for serving over the network
    Keygen(keygen::Keygen),
    /// Unmount, and wait until everything is on disk
    Umount(umount::Umount),
    /// Show what is undecided
    Status(status::Status),
    /// Show what a speculation changed
    Diff(diff::Diff),
    /// Make a held speculation permanent
    Commit(commit::Commit),
    /// Undo a speculation
    Abort(abort::Abort),
    /// Say why a speculation depends on others: which read of which path
    Why(why::Why),
    /// Wait until a speculation, or what a path shows, is final or rolled back
    Barrier(barrier::Barrier),
    /// Open a shell inside an undecided speculation
    Shell(shell::Shell),
    /// Check a store that is not mounted
    Fsck(fsck::Fsck),
    /// Give back all space that is not needed any more
    Gc(gc::Gc),
    /// Make directories of the host what was committed over them, where that had to wait
    Apply(apply::Apply),
    /// Copy a directory of the host into the filesystem, all or nothing
    Import(import::Import),
    /// Copy a part of the filesystem out to the host
    Export(export::Export),
    /// Stand for the host's own filesystem: started by the first job over a directory of it
    #[command(hide = true)]
    OverHost(host::OverHost),
}

/// Which filesystem is meant.
#[derive(Args)]
pub(crate) struct Where {
    /// The filesystem mounted here, instead of the one around the working directory
    #[arg(short = 'm', long = "mountpoint", value_name = "MOUNTPOINT")]
    mountpoint: Option<PathBuf>,
}

impl Where {
    /// The filesystem that is mounted there, or the host's own if something is undecided over that.
    pub(crate) fn find(&self) -> Result<Filesystem, Fault> {
        self.find_or(host::known_at)
    }

    /// The same for a view over it.
    pub(crate) fn find_to_cover(&self) -> Result<Filesystem, Fault> {
        let found = self.find()?;
        host::refuse_all(&found).map(|()| found)
    }

    /// The same for a job, which may begin over any directories of the host: these, or the one where it is started.
    pub(crate) fn find_for_job(&self, dirs: &[PathBuf]) -> Result<Filesystem, Fault> {
        let found = match dirs {
            [] => self.find_or(|dir| Some(host::at(&[dir.to_owned()]))),
            dirs => host::at(dirs),
        }?;
        host::refuse_all(&found).map(|()| found)
    }

    /// The same as [`Where::find`]. Nothing where this is no mount, and nothing is undecided over the host.
    pub(crate) fn find_if_any(&self) -> Result<Option<Filesystem>, Fault> {
        match Filesystem::find(self.mountpoint.as_deref()) {
            Err(fault) if fault.kind == FaultKind::NotFound && self.mountpoint.is_none() => {
                host::known_at(&working_directory()?).transpose()
            }
            found => found.map(Some),
        }
    }

    fn find_or(&self, host: impl Fn(&Path) -> Option<Result<Filesystem, Fault>>) -> Result<Filesystem, Fault> {
        match Filesystem::find(self.mountpoint.as_deref()) {
            Err(fault) if fault.kind == FaultKind::NotFound && self.mountpoint.is_none() => {
                let nothing = || {
                    let text = format!("nothing is undecided over directories of the host, and {fault}");
                    Fault::new(FaultKind::NotFound, text)
                };
                host(&working_directory()?).unwrap_or_else(|| Err(nothing()))
            }
            found => found,
        }
    }

    fn connect(&self) -> Result<UnixStream, Fault> {
        self.find()?.connect()
    }
}

fn working_directory() -> Result<PathBuf, Fault> {
    mojavefs_attach::descriptors::working_directory().map_err(host_fault("the working directory"))
}

/// `mojavefs`.
pub fn mojavefs_main(embedded: &dyn Embedded) -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Mount(command) => command.run(embedded),
        Command::Serve(command) => command.run(embedded),
        Command::Keygen(command) => command.run(),
        Command::Umount(command) => command.run(),
        Command::Status(command) => command.run(),
        Command::Diff(command) => command.run(),
        Command::Commit(command) => command.run(),
        Command::Abort(command) => command.run(),
        Command::Why(command) => command.run(),
        Command::Barrier(command) => command.run(),
        Command::Shell(command) => command.run(),
        Command::Fsck(command) => command.run(embedded),
        Command::Gc(command) => command.run(),
        Command::Apply(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::OverHost(command) => command.run(embedded),
    };
    result.unwrap_or_else(|fault| {
        complain("mojavefs", &fault);
        ExitCode::FAILURE
    })
}

/// Says what went wrong. A message may name what others have named.
pub(crate) fn complain(program: &str, fault: &Fault) {
    err!("{program}: {}", harmless(&fault.message));
}

/// A fault of a system call on something of the host's.
pub(crate) fn host_fault(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Fault {
    let what = what.to_string();
    move |error| {
        let kind = match error.raw_os_error() {
            Some(nix::libc::ENOSPC) => FaultKind::NoSpace,
            Some(nix::libc::ENOENT) => FaultKind::NotFound,
            _ => FaultKind::Io,
        };
        Fault::new(kind, format!("{what}: {error}"))
    }
}

/// A number of things, for people.
pub(crate) fn count(number: u64, thing: &str) -> String {
    match number {
        1 => format!("1 {thing}"),
        _ => format!("{number} {thing}s"),
    }
}

/// The lines that say why a commit was refused.
pub(crate) fn conflict_lines(conflicts: &[Conflict], more: u64) -> Vec<String> {
    let line = |conflict: &Conflict| {
        let path = shown(&conflict.path);
        if let Some(who) = &conflict.in_use {
            return format!("  {path} (changed or locked here, and {who} since)");
        }
        let how = if conflict.changed { "changed here" } else { "read here" };
        format!("  {path} ({}; {how}, changed by someone else meanwhile)", conflict.what)
    };
    let mut lines: Vec<String> = conflicts.iter().map(line).collect();
    if more > 0 {
        lines.push(format!("  and {} more", count(more, "conflict")));
    }
    lines
}

/// That nobody can say what has become of a decision, and who can say it later.
pub(crate) fn not_known(spec: SpecId, what: &str, why: &str, mountpoint: &str) -> String {
    format!(
        "{}: not known whether speculation {spec} {what}; see `mojavefs status` after mounting {} again",
        harmless(why),
        escaped(mountpoint)
    )
}

/// Speculations, for programs.
pub(crate) fn numbers(specs: &[SpecId]) -> Vec<u64> {
    specs.iter().map(|spec| spec.0).collect()
}

/// Where a speculation stands after a decision, in one word for programs.
pub(crate) fn word_of(outcome: &Outcome) -> &'static str {
    match outcome.state {
        SpecState::Committed => "committed",
        SpecState::Voted if outcome.waits_for.is_empty() && outcome.conflicts.is_empty() => "committed",
        SpecState::Voted => "voted",
        SpecState::Aborted => "aborted",
        SpecState::Running | SpecState::Held => "held",
    }
}

/// What came of its work, in one word for programs.
pub(crate) fn class(outcome: &Outcome) -> &'static str {
    match word_of(outcome) {
        "committed" => "committed",
        "aborted" => "undone",
        _ => "undecided",
    }
}

/// Who fell with a speculation.
pub(crate) fn also_undone(outcome: &Outcome) -> Option<String> {
    let others = outcome.undone.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    (!others.is_empty()).then(|| format!("also undone, as depending on {}: {others}", outcome.spec))
}

/// A commit is refused since somebody works on what it would change, and for nothing else.
pub(crate) fn in_use(outcome: &Outcome) -> bool {
    outcome.conflicts.iter().all(|conflict| conflict.in_use.is_some())
}

/// The answer to a decision, in words; refused commits are told in full.
pub(crate) fn tell(outcome: &Outcome) {
    if let Some(also) = also_undone(outcome) {
        err!("mojavefs: {also}");
    }
    let changes = count(outcome.changes, "change");
    if !outcome.conflicts.is_empty() {
        let with = if in_use(outcome) { "who has locked what it has used" } else { "what became final meanwhile" };
        err!("mojavefs: speculation {} is in conflict with {with}:", outcome.spec);
        conflict_lines(&outcome.conflicts, outcome.conflicts_more).iter().for_each(|line| err!("{line}"));
        let advice = match in_use(outcome) {
            true => "commit it again when that is over",
            false => "say whose version stands with --ours PATH or --theirs PATH",
        };
        err!("nothing was changed; {advice}, or abort {}", outcome.spec);
        return;
    }
    match outcome.state {
        SpecState::Committed => {
            out!("committed {} ({changes})", outcome.spec);
            outcome.displaced.iter().for_each(|line| err!("mojavefs: {line}"));
            if let Some(why) = &outcome.unapplied {
                err!("mojavefs: it is not on the host yet: {why}; it is tried again by whoever looks next");
            }
        }
        SpecState::Aborted => out!("aborted {} ({changes} undone)", outcome.spec),
        SpecState::Voted if !outcome.waits_for.is_empty() => {
            let others = outcome.waits_for.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            out!("decided {} ({changes}): final when {others} is", outcome.spec);
        }
        SpecState::Voted => out!("committed {} into the job around it ({changes})", outcome.spec),
        SpecState::Held | SpecState::Running => out!("{} is still undecided ({changes})", outcome.spec),
    }
}

/// Reads a speculation's number.
pub(crate) fn parse_spec(text: &str) -> Result<SpecId, String> {
    text.parse().map(SpecId).map_err(|_| format!("`{text}` is no speculation's number; see `mojavefs status`"))
}
