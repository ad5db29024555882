//! `--outside read-only`: of what a job's mount namespace has of the host, only its directories can be written to, and what is excepted.
//!
//! What stays writable is copied, as mounts that are attached nowhere, before all that is attached is made read-only; then each copy is
//! put over its own place.

use crate::daemon;
use crate::mount;
use crate::sys;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_attach::find::Filesystem;
use nix::fcntl::{OFlag, open};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Where a job has a filesystem of its own, which is gone with it.
const PRIVATE: &str = "/tmp";
/// What stays as it is, for all jobs.
const KEPT: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp/.X11-unix"];
/// The sockets of gpg, in its home directory.
const GPG_SOCKETS: [&str; 6] =
    ["S.gpg-agent", "S.gpg-agent.extra", "S.gpg-agent.ssh", "S.gpg-agent.browser", "S.keyboxd", "S.scdaemon"];

/// A place that stays as it is, and a copy of what is mounted there.
struct Kept {
    path: PathBuf,
    copy: OwnedFd,
}

/// Makes all of this process's mount namespace read-only, but for the directories of a job, `host` and what programs need.
///
/// # Errors
/// The filesystem is not the host's own, one of `host` is not there, or the kernel refuses.
pub(crate) fn restrict(filesystem: &Filesystem, host: &[PathBuf]) -> Result<(), Fault> {
    if !filesystem.is_host() {
        let text = "--outside read-only is for jobs over directories of the host, and this is a mount of MojaveFS";
        return Err(Fault::new(FaultKind::Unsupported, text));
    }
    let dirs: Vec<PathBuf> = filesystem.host_dirs().map(Path::to_owned).collect();
    let writable = host.iter().map(|path| fs::canonicalize(path).map_err(failed("keep writable", path)));
    let mut paths: Vec<PathBuf> = writable.collect::<Result<_, Fault>>()?;
    paths.extend(usual(&dirs));
    let mut kept = dirs.iter().map(|dir| directory(dir)).collect::<Result<Vec<_>, Fault>>()?;
    for path in paths.into_iter().filter(|path| !dirs.contains(path)) {
        let copy = place(&path).and_then(|at| sys::clone_tree(at.as_fd(), true));
        kept.push(Kept { copy: copy.map_err(failed("keep as it is", &path))?, path });
    }
    // What lies in another one is put there after that.
    kept.sort_by_key(|kept| kept.path.components().count());
    kept.dedup_by(|second, first| second.path == first.path);
    read_only()?;
    let private = Path::new(PRIVATE);
    let has_private = private.is_dir() && !kept.iter().any(|kept| private.starts_with(&kept.path));
    if has_private {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let mounted = nix::mount::mount(Some("tmpfs"), private, Some("tmpfs"), flags, Some("mode=1777"));
        mounted.map_err(|errno| failed("mount a filesystem for the job on", private)(errno.into()))?;
    }
    for kept in &kept {
        let put = kept.put(has_private && kept.path.starts_with(private));
        put.map_err(failed("keep as it is", &kept.path))?;
    }
    // It may lie in one of them.
    if let Ok(dir) = std::env::current_dir() {
        let _ = std::env::set_current_dir(dir);
    }
    Ok(())
}

fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Fault + use<> {
    let what = format!("--outside read-only: {what} {}", path.display());
    move |e| Fault::new(FaultKind::Io, format!("{what}: {e}"))
}

fn place(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// A directory of the job's: it can be written to as before, and what is mounted below can't.
fn directory(dir: &Path) -> Result<Kept, Fault> {
    let copied = || {
        let copy = sys::clone_tree(place(dir)?.as_fd(), true)?;
        let mounts = mount::mounts()?;
        let was = mount::around(&mounts, dir).map_or(0, |around| around.restrictions);
        sys::set_read_only(copy.as_fd(), true, true)?;
        if was & sys::MOUNT_ATTR_RDONLY == 0 {
            sys::set_read_only(copy.as_fd(), false, false)?;
        }
        Ok(copy)
    };
    let copy = copied().map_err(failed("keep writable", dir))?;
    Ok(Kept { path: dir.to_owned(), copy })
}

/// What programs need, as far as it is there: the kernel's filesystems, and the sockets of those that serve the user.
fn usual(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let gpg = of("GNUPGHOME").or_else(|| Some(of("HOME")?.join(".gnupg")));
    let gpg = gpg.iter().flat_map(|home| GPG_SOCKETS.iter().map(|socket| home.join(socket)));
    let agent = of("SSH_AUTH_SOCK").map(|socket| directory_of_agent(&socket, of("HOME"), dirs));
    let all = KEPT.iter().map(PathBuf::from).chain(of("XDG_RUNTIME_DIR")).chain(agent).chain(gpg);
    // Where the daemons of this user listen.
    let all = all.chain([daemon::runtime_path()]);
    all.filter_map(|path| fs::canonicalize(path).ok()).collect()
}

/// The directory of a socket, unless that is one with all kinds of other things in it: then the socket itself.
fn directory_of_agent(socket: &Path, home: Option<PathBuf>, dirs: &[PathBuf]) -> PathBuf {
    let Some(dir) = socket.parent() else { return socket.to_owned() };
    let shared = ["/tmp", "/var/tmp"].map(PathBuf::from);
    let holds_others = shared.iter().chain(&home).chain(dirs).any(|other| other.starts_with(dir));
    if holds_others { socket.to_owned() } else { dir.to_owned() }
}

/// Makes everything read-only, and lets nothing come in that is mounted on the host later.
fn read_only() -> Result<(), Fault> {
    let root = place(Path::new("/")).and_then(|root| {
        sys::set_private(root.as_fd())?;
        sys::set_read_only(root.as_fd(), true, true)
    });
    root.map_err(|e| match e.raw_os_error() {
        Some(nix::libc::EINVAL) => {
            let text = "--outside read-only: the root directory is no mount here (a changed root, as by chroot)";
            Fault::new(FaultKind::Unsupported, text)
        }
        _ => Fault::new(FaultKind::Io, format!("--outside read-only: make all mounts read-only: {e}")),
    })
}

impl Kept {
    /// Puts it over its place, which is made first if that is on the job's own filesystem.
    fn put(&self, is_private: bool) -> io::Result<()> {
        if is_private && fs::symlink_metadata(&self.path).is_err() {
            let is_dir = fs::metadata(mojavefs_attach::places::in_proc(&self.copy))?.is_dir();
            if let Some(above) = self.path.parent() {
                fs::create_dir_all(above)?;
            }
            match is_dir {
                true => fs::create_dir(&self.path)?,
                false => drop(File::create(&self.path)?),
            }
        }
        sys::move_mount_onto(self.copy.as_fd(), place(&self.path)?.as_fd())
    }
}
