//! Mounts: making, attaching, finding and removing them.

use crate::sys;
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::statfs::{
    BPF_FS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, DEVPTS_SUPER_MAGIC, FsType, PROC_SUPER_MAGIC,
    SECURITYFS_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, statfs,
};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How the kernel calls our mounts.
pub const FS_TYPE: &str = "fuse.mojavefs";
const MOUNT_ATTR_NOSUID: u64 = 2;
const MOUNT_ATTR_NODEV: u64 = 4;
/// How `mountinfo` calls them.
const RESTRICTIONS: [(&str, u64); 7] = [
    ("ro", 1),
    ("nosuid", MOUNT_ATTR_NOSUID),
    ("nodev", MOUNT_ATTR_NODEV),
    ("noexec", 8),
    ("noatime", 0x10),
    ("nodiratime", 0x80),
    ("nosymfollow", 0x20_0000),
];

/// A FUSE connection and its mount, attached nowhere yet.
pub struct Detached {
    /// The FUSE connection.
    pub device: OwnedFd,
    /// The mount.
    pub mount: OwnedFd,
}

/// What a mount allows.
#[derive(Clone, Copy, Debug)]
pub struct MountOptions {
    /// Other users may use it; needs privilege in the user namespace of the mount.
    pub others: bool,
    /// Set-id bits and device nodes mean something.
    pub privileged: bool,
}

fn cstring(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL byte in a path or option"))
}

/// Where the kernel gives out connections.
const DEVICE: &str = "/dev/fuse";

/// Opens it, or says what can be done that it can be opened.
fn open_device() -> io::Result<OwnedFd> {
    let failed = |e: io::Error| {
        let hint = match e.raw_os_error() {
            Some(libc::ENOENT) => "load the module (`modprobe fuse`), or start the container with `--device /dev/fuse`",
            Some(libc::EACCES) => "this user may not open it: as root `chmod 666 /dev/fuse`",
            Some(libc::EPERM) => "start the container with `--device /dev/fuse`",
            _ => "load the module (`modprobe fuse`)",
        };
        io::Error::new(e.kind(), format!("open {DEVICE}: {e}; {hint}"))
    };
    let device: OwnedFd = OpenOptions::new().read(true).write(true).open(DEVICE).map_err(failed)?.into();
    match sys::is_fuse_device(device.as_fd())? {
        true => Ok(device),
        false => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{DEVICE} is something else than the FUSE device")))
        }
    }
}

/// Whether this process has the right to make mounts in its namespace.
pub fn may_mount() -> bool {
    sys::fsopen(c"tmpfs").is_ok()
}

/// Makes a FUSE mount in this process's user namespace. `source` is what `mount` shows.
pub fn detached(source: &[u8], options: MountOptions) -> io::Result<Detached> {
    let device = open_device()?;
    let config = sys::fsopen(c"fuse")?;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let numbers = [
        (c"fd", device.as_raw_fd().to_string()),
        (c"rootmode", "40000".to_owned()),
        (c"user_id", uid.to_string()),
        (c"group_id", gid.to_string()),
        (c"subtype", "mojavefs".to_owned()),
    ];
    for (key, value) in numbers {
        sys::fsconfig(config.as_fd(), key, Some(&cstring(value.as_bytes())?))?;
    }
    sys::fsconfig(config.as_fd(), c"source", Some(&cstring(source)?))?;
    sys::fsconfig(config.as_fd(), c"default_permissions", None)?;
    if options.others {
        sys::fsconfig(config.as_fd(), c"allow_other", None)?;
    }
    sys::fsconfig_create(config.as_fd())?;
    let attributes = if options.privileged { 0 } else { MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV };
    let mount = sys::fsmount(config.as_fd(), attributes)?;
    Ok(Detached { device, mount })
}

/// Puts a detached mount over a path.
pub fn attach(mount: &OwnedFd, path: &Path) -> io::Result<()> {
    sys::move_mount(mount.as_fd(), &cstring(path.as_os_str().as_bytes())?)
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// What the kernel calls it.
    pub id: u64,
    /// The mount on which it lies.
    pub parent: u64,
    /// What of the filesystem is mounted: a path from its root. Where the kernel has lost the name of that,
    /// [`DELETED`] follows the last one that it had.
    pub root: PathBuf,
    /// Where it is.
    pub point: PathBuf,
    /// The filesystem's type.
    pub kind: String,
    /// What is mounted.
    pub source: PathBuf,
    /// The major device number: 0 of a filesystem without a device of its own.
    pub major: u32,
    /// The minor device number: the number of the FUSE connection.
    pub minor: u32,
    /// Whose mount it is, as far as the filesystem says.
    pub owner: Option<u32>,
    /// What is not allowed on it: `MOUNT_ATTR_*`.
    pub restrictions: u64,
}

/// How the kernel says that a name is gone, or that it has to be looked up again.
pub const DELETED: &str = "//deleted";

/// Every mount this process sees, later ones over earlier ones.
pub fn mounts() -> io::Result<Vec<MountInfo>> {
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("/proc/self/mountinfo: {e}; /proc must be mounted"));
    let text = fs::read("/proc/self/mountinfo").map_err(failed)?;
    Ok(text.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let device = std::str::from_utf8(fields.next()?).ok()?;
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let restrictions = restrictions(fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-");
    let kind = String::from_utf8_lossy(rest.nth(1)?).into_owned();
    let source = unescape(rest.next()?);
    let mut options = rest.next().unwrap_or_default().split(|byte| *byte == b',');
    let owner = options.find_map(|option| std::str::from_utf8(option.strip_prefix(b"user_id=")?).ok()?.parse().ok());
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
    Some(MountInfo { id, parent, root, point, kind, source, major, minor, owner, restrictions })
}

/// The options of a mount, but those that are anything else than a restriction.
fn restrictions(options: &[u8]) -> u64 {
    let known = |option: &[u8]| RESTRICTIONS.iter().find(|(name, _)| name.as_bytes() == option);
    options.split(|byte| *byte == b',').filter_map(known).fold(0, |all, (_, attribute)| all | attribute)
}

/// Undoes the kernel's `\040` for a space and its like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\');
        let number = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match number {
            Some(number) => {
                out.push(number);
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// A mount of ours of this source.
pub fn ours_of(source: &Path) -> io::Result<Option<MountInfo>> {
    Ok(mounts()?.into_iter().find(|mount| mount.kind == FS_TYPE && mount.source == source))
}

/// The mount at exactly this path, if it is one of ours.
pub fn ours_at(point: &Path) -> io::Result<Option<MountInfo>> {
    Ok(mounts()?.into_iter().rev().find(|mount| mount.point == point).filter(|mount| mount.kind == FS_TYPE))
}

/// The mount in which a path lies.
pub fn around<'a>(mounts: &'a [MountInfo], path: &Path) -> Option<&'a MountInfo> {
    let around = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    around.enumerate().max_by_key(|(order, mount)| (mount.point.as_os_str().len(), *order)).map(|(_, mount)| mount)
}

/// Where a path leads through symbolic links, though nobody may answer for what is mounted there.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    for _ in 0..LINKS_MAX {
        // Without a name of its own it is the root, or ends in `..`.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return fs::canonicalize(path) };
        let parent = fs::canonicalize(parent)?;
        match fs::read_link(parent.join(name)) {
            Ok(target) => path = parent.join(target),
            Err(_) => return Ok(parent.join(name)),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Filesystems whose files are the kernel's, by what `statfs` says of them.
const KERNEL_FILESYSTEMS: [(FsType, &str); 9] = [
    (PROC_SUPER_MAGIC, "proc"),
    (SYSFS_MAGIC, "sysfs"),
    (DEVPTS_SUPER_MAGIC, "devpts"),
    (CGROUP_SUPER_MAGIC, "cgroup"),
    (CGROUP2_SUPER_MAGIC, "cgroup2"),
    (BPF_FS_MAGIC, "bpf"),
    (DEBUGFS_MAGIC, "debugfs"),
    (SECURITYFS_MAGIC, "securityfs"),
    (TRACEFS_MAGIC, "tracefs"),
];

/// The filesystem of the kernel's own to which a directory belongs. Where it can't be asked, it is none.
pub fn kernel_filesystem(dir: &Path) -> io::Result<Option<&'static str>> {
    let over = mounts()?.into_iter().rev().find(|mount| mount.point == dir);
    // To `statfs` it is like any other in memory, and in containers it is one.
    if dir == Path::new("/dev") || over.as_ref().is_some_and(|mount| mount.kind == "devtmpfs") {
        return Ok(Some("devtmpfs"));
    }
    if over.is_some_and(|mount| mount.kind == FS_TYPE) {
        return Ok(None);
    }
    let Ok(found) = statfs(dir) else { return Ok(None) };
    let known = KERNEL_FILESYSTEMS.iter().find(|(magic, _)| *magic == found.filesystem_type());
    Ok(known.map(|(_, name)| *name))
}

/// How many symbolic links may follow each other, as in the kernel.
const LINKS_MAX: usize = 40;

/// How it is with the daemon behind a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Answers,
    /// It is gone.
    Dead,
    /// It is there and does not answer.
    Hangs,
}

/// How long a daemon may take to answer until it counts as one that hangs.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// How it is with the daemon behind a mount: it is asked, whatever the kernel has cached.
pub fn health(point: &Path) -> Health {
    let (sender, answer) = channel();
    let point = point.to_owned();
    // While its call is not answered, only the end of the process ends this thread.
    let look = move || drop(sender.send(sys::fresh_stat(&point)));
    if mojavefs_threads::detached("mojavefs-health", look).is_err() {
        return Health::Hangs;
    }
    match answer.recv_timeout(ANSWER_TIME_MAX) {
        Ok(Err(e)) if matches!(e.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)) => Health::Dead,
        Ok(_) => Health::Answers,
        Err(_) => Health::Hangs,
    }
}

/// Takes a mount away; with `lazy` even while it is in use.
pub fn unmount(point: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(point, flags) {
        Err(nix::errno::Errno::EPERM) => unmount_by_helper(point, lazy),
        result => Ok(result?),
    }
}

/// An ordinary user's mount is removed by the set-user-id helper that made it.
fn unmount_by_helper(point: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").arg("-q");
    if lazy {
        command.arg("-z");
    }
    match command.arg("--").arg(point).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(io::Error::new(io::ErrorKind::ResourceBusy, "fusermount3 refused")),
        Err(e) => Err(io::Error::new(e.kind(), format!("fusermount3: {e}; install the package fuse3"))),
    }
}

/// Takes a mount of ours away though it is in use, and ends its connection: whatever waits for an answer gets an error.
pub fn tear_down(point: &Path) -> io::Result<()> {
    // The number of a connection that is gone is another's at once: as long as this is open, it is that of this mount.
    let held = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(point)?;
    let mount = mount_of(&held)?;
    unmount(point, true)?;
    abort_connection(mount.minor)
}

/// The mount of ours in which an open file lies.
fn mount_of(file: &File) -> io::Result<MountInfo> {
    let known = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let id = known.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse::<u64>().ok());
    let mount = mounts()?.into_iter().find(|mount| Some(mount.id) == id && mount.kind == FS_TYPE);
    mount.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no MojaveFS is mounted there any more"))
}

/// Where the kernel's FUSE connections are files, on most machines.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Ends a FUSE connection: whatever waits for an answer gets an error. One that is gone already is no error; whoever can't be sure that
/// it is not must keep its mount open, or it may be another's by now.
pub fn abort_connection(minor: u32) -> io::Result<()> {
    let failed = |e: io::Error| io::Error::new(e.kind(), format!("end FUSE connection {minor}: {e}"));
    let name = format!("{minor}/abort");
    match fs::write(Path::new(CONNECTIONS).join(&name), "1") {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !has_connections() => {
            abort_by_own_mount(&name).map_err(failed)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed),
    }
}

fn has_connections() -> bool {
    mounts().is_ok_and(|mounts| mounts.iter().any(|mount| mount.point == Path::new(CONNECTIONS)))
}

/// The same where nobody has mounted them. An ordinary user can't do that, and then nothing is ended.
fn abort_by_own_mount(name: &str) -> io::Result<()> {
    let mount = || {
        let config = sys::fsopen(c"fusectl")?;
        sys::fsconfig_create(config.as_fd())?;
        sys::fsmount(config.as_fd(), 0)
    };
    let mount = match mount() {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        mount => mount?,
    };
    match fs::write(Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()).join(name), "1") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Waits until this process's namespace has no mount any more whose FUSE connection has this number.
pub fn wait_until_gone(minor: u32) -> io::Result<()> {
    // The kernel signals every change of the mounts on this file.
    let table = File::open("/proc/self/mountinfo")?;
    loop {
        if !mounts()?.iter().any(|mount| mount.kind == FS_TYPE && mount.minor == minor) {
            return Ok(());
        }
        let mut changed = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut changed, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Writes everything out that a kernel has cached for the mount behind `mount`.
pub fn drain(mount: &File) -> io::Result<()> {
    Ok(nix::unistd::syncfs(mount)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_with_odd_bytes_in_its_path_is_read() {
        let line =
            br"36 35 0:52 /a\011b//deleted /mnt/a\040b ro,noatime master:1 - fuse.mojavefs /tmp/st\134ore rw,user_id=7,group_id=8";
        let mount = parse(line).expect("the line is whole");
        assert_eq!((mount.point.as_path(), mount.root.as_path()), (Path::new("/mnt/a b"), Path::new("/a\tb//deleted")));
        assert_eq!((mount.parent, mount.restrictions), (35, 0x11));
        assert_eq!(mount.source, Path::new(r"/tmp/st\ore"));
        assert_eq!((mount.id, mount.kind.as_str(), mount.minor, mount.owner), (36, FS_TYPE, 52, Some(7)));
    }
}
