//! `mojavefs mount`

use super::launch::{fail_launcher, launch, release_launcher, tell_launcher};
use super::{Embedded, harmless, host_fault, keygen, place};
use crate::daemon::{self, Backend, Setup};
use crate::limits::MEMORY_BYTES;
use crate::mount::{self, Health};
use crate::output::err;
use crate::remote::Remote;
use crate::transport::Transport;
use clap::{Args, ValueEnum};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_net::Address;
use nix::unistd::{getegid, geteuid};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use tracing_subscriber::fmt::format::FmtSpan;

#[derive(Args)]
pub(super) struct Mount {
    /// The store's directory (an empty or missing one becomes a new store, and that is said), or a server: unix:PATH or tcp:HOST:PORT
    #[arg(value_name = "STORE")]
    source: OsString,
    /// The directory to mount on
    mountpoint: PathBuf,
    /// Clear a mount that a dead daemon left there
    #[arg(long)]
    force: bool,
    /// Stay in the foreground
    #[arg(long)]
    foreground: bool,
    /// Memory for buffers and caches
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    memory: usize,
    /// The key that the server has, for tcp:
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// What answers the kernel: MojaveFS itself, or the crate fuser, which does not pass on all that kernels say
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    transport: Transport,
    /// This process is to become the daemon and to say so on standard output
    #[arg(long, hide = true)]
    daemon: bool,
}

/// What is to be mounted.
enum Source {
    Store(PathBuf),
    Server(Address),
}

impl Source {
    fn parse(text: &OsStr) -> Result<Self, Fault> {
        let cannot = |e| host_fault(text.display())(e);
        match text.to_str().filter(|text| Address::is_meant_by(text)) {
            None => Ok(Source::Store(std::path::absolute(text).map_err(cannot)?)),
            Some(address) => {
                let address: Address = address.parse().map_err(|why| Fault::new(FaultKind::Invalid, why))?;
                Ok(Source::Server(address.absolute().map_err(cannot)?))
            }
        }
    }

    fn store(&self) -> Option<&Path> {
        match self {
            Source::Store(dir) => Some(dir),
            Source::Server(_) => None,
        }
    }

    fn into_text(self) -> OsString {
        match self {
            Source::Store(dir) => dir.into_os_string(),
            Source::Server(address) => address.to_string().into(),
        }
    }
}

impl Mount {
    pub(super) fn run(&self, embedded: &dyn Embedded) -> Result<ExitCode, Fault> {
        if self.daemon {
            return self.become_daemon(embedded);
        }
        let source = Source::parse(&self.source)?;
        if self.key.is_some() && !matches!(source, Source::Server(Address::Tcp(_))) {
            let text = format!("--key is for tcp: only, and {} is none; leave it out", self.source.display());
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        let point = self.check_mountpoint(&source)?;
        self.key.iter().for_each(|key| place::warn_of_others("the key file", key));
        let new = match source {
            Source::Store(store) => {
                let found = place::look(&store)?;
                check_unused(&store)?;
                place::warn_of_others("the store", &store);
                found.becomes_new()
            }
            Source::Server(address) => {
                address.path().iter().for_each(|socket| place::warn_of_others("the socket", socket));
                false
            }
        };
        let mounted = || {
            if new {
                err!("created {}", self.source.display());
            }
        };
        if self.foreground {
            log_to(std::io::stderr);
            let ready = || {
                mounted();
                Ok(())
            };
            return self.serve(embedded, point, |note| err!("mojavefs: {note}"), ready);
        }
        let code = self.start_daemon(&point)?;
        mounted();
        Ok(code)
    }

    /// The mountpoint must be a directory on which nothing of ours is mounted, and that nobody needs as it is.
    fn check_mountpoint(&self, source: &Source) -> Result<PathBuf, Fault> {
        let shown = self.mountpoint.display();
        let point = mount::resolve(&self.mountpoint).map_err(host_fault(&shown))?;
        place::check_hides(&point, source.store())?;
        if mount::ours_at(&point).map_err(host_fault("read the mounts"))?.is_some() {
            let refuse = |kind, text: &str| Err(Fault::new(kind, format!("{shown} has {text} {shown}`")));
            match mount::health(&point) {
                Health::Answers => {
                    return refuse(FaultKind::Busy, "a MojaveFS mounted already; unmount it with `mojavefs umount");
                }
                Health::Hangs => {
                    let text = "a MojaveFS mounted whose daemon hangs; unmount it with `mojavefs umount --force";
                    return refuse(FaultKind::TimedOut, text);
                }
                Health::Dead => {}
            }
            if !self.force {
                let text = format!("{shown} has a mount whose daemon is dead; clear it with --force");
                return Err(Fault::new(FaultKind::Disconnected, text));
            }
            mount::unmount(&point, true).map_err(host_fault(format!("clear the dead mount on {shown}")))?;
        }
        match fs::metadata(&point) {
            Ok(found) if found.is_dir() => Ok(point),
            Ok(_) => Err(Fault::new(FaultKind::NotDirectory, format!("{shown} is no directory; name one to mount on"))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Fault::new(FaultKind::NotFound, format!("there is no directory {shown}; make it with mkdir")))
            }
            Err(e) => Err(host_fault(&shown)(e)),
        }
    }

    /// Starts this program again as a daemon and waits until it is ready or has said why not.
    fn start_daemon(&self, point: &Path) -> Result<ExitCode, Fault> {
        let me = std::env::current_exe().map_err(host_fault("find this program"))?;
        let log = daemon::runtime_dir().map_err(host_fault("the directory for logs"))?.join("daemon.log");
        let log = open_log(&log).map_err(host_fault(log.display()))?;
        let source = Source::parse(&self.source)?.into_text();
        let key = self.key.as_ref().map(std::path::absolute).transpose().map_err(host_fault("the key file"))?;
        let mut command = Command::new(me);
        command
            .arg("mount")
            .arg("--daemon")
            .arg("--memory")
            .arg(self.memory.to_string())
            .arg("--transport")
            .arg(self.transport.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned()))
            .args(key.iter().flat_map(|key| [OsStr::new("--key"), key.as_os_str()]))
            .arg("--")
            .arg(source)
            .arg(point);
        let on_silence = || {
            // It may have been about to say so.
            if mount::ours_at(point).is_ok_and(|found| found.is_some()) {
                drop(mount::unmount(point, true));
            }
        };
        match launch(command, log, on_silence)? {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(why) => {
                let text = format!("cannot mount on {}: {why}", self.mountpoint.display());
                Err(Fault::new(FaultKind::Io, text))
            }
        }
    }

    fn become_daemon(&self, embedded: &dyn Embedded) -> Result<ExitCode, Fault> {
        let _ = nix::unistd::setsid();
        log_to(std::io::stderr);
        match self.serve(embedded, self.mountpoint.clone(), tell_launcher, release_launcher) {
            Err(fault) => {
                fail_launcher(&fault);
                Ok(ExitCode::FAILURE)
            }
            done => done,
        }
    }

    fn serve(
        &self,
        embedded: &dyn Embedded,
        mountpoint: PathBuf,
        note: impl Fn(&str),
        ready: impl FnOnce() -> std::io::Result<()>,
    ) -> Result<ExitCode, Fault> {
        daemon::raise_descriptors();
        daemon::make_all_private();
        // Blocked before the first thread starts, also of the store's, so that only the one that waits for them gets them.
        daemon::ending_signals().thread_block().map_err(|e| host_fault("block signals")(e.into()))?;
        let owner = (geteuid().as_raw(), getegid().as_raw());
        let backend = match Source::parse(&self.source)? {
            Source::Store(store) => embedded.open(&store, self.memory, owner)?,
            Source::Server(address) => {
                let key = self.key.as_deref().map(keygen::read_key).transpose()?;
                let connection = Arc::new(Remote::connect(&address, key.as_ref())?);
                Backend { connection, notes: Vec::new(), keep: Box::new(()) }
            }
        };
        backend.notes.iter().for_each(|said| note(&harmless(said)));
        let source = self.source.to_string_lossy().into_owned();
        let transport = self.transport;
        daemon::run(Setup { backend, source, mountpoint, transport }, ready)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Refuses at once what is mounted elsewhere. What this does not see the lock of the store tells, after a while.
fn check_unused(store: &Path) -> Result<(), Fault> {
    let mounted = mount::ours_of(store).map_err(host_fault("read the mounts"))?;
    match mounted.filter(|mounted| mount::health(&mounted.point) == Health::Answers) {
        None => Ok(()),
        Some(mounted) => {
            let (store, point) = (store.display(), mounted.point.display());
            let text = format!(
                "store {store} is in use by another process: it is mounted on {point}; unmount it with `mojavefs umount {point}`"
            );
            Err(Fault::new(FaultKind::Busy, text))
        }
    }
}

/// Opens the log that this user's daemons share, for this user only.
pub(super) fn open_log(path: &Path) -> std::io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if log.metadata()?.mode() & 0o077 != 0 {
        log.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(log)
}

/// Sends the log to `writer`; what is told is set by `MOJAVEFS_LOG` (`warn` if it is not).
pub(super) fn log_to<W: Write + Send + 'static>(writer: fn() -> W) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MOJAVEFS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(writer);
    // What takes time is said once it is over, with how long it has taken.
    drop(log.with_span_events(FmtSpan::CLOSE).try_init());
}

/// Reads `64M`, `1G`, `300000`.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || format!("`{text}` is no size; write 256M or 1G");
    let (digits, unit) = match text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((at, _)) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_uppercase().trim_end_matches(['B', 'I']) {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(wrong()),
    };
    let number: usize = digits.parse().map_err(|_| wrong())?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    match bytes >= MEMORY_BYTES_MIN {
        true => Ok(bytes),
        false => Err(format!("{text} is too little; {}M at least", MEMORY_BYTES_MIN >> 20)),
    }
}

/// The least memory that a daemon works with, in bytes.
const MEMORY_BYTES_MIN: usize = 16 << 20;
/// The default says the same in words.
const _: () = assert!(MEMORY_BYTES == 256 << 20);
