//! System calls that no crate wraps: the mount API of file descriptors.
#![allow(unsafe_code)]

use nix::libc::{self, c_int, c_long, c_uint};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
const OPEN_TREE_CLONE: c_uint = 1;
const OPEN_TREE_CLOEXEC: c_uint = libc::O_CLOEXEC as c_uint;
const MOUNT_ATTR_ATIME: u64 = 0x70;
/// Nothing on a mount can be changed through it.
pub const MOUNT_ATTR_RDONLY: u64 = 1;

fn check(result: c_long) -> io::Result<c_int> {
    match result {
        0.. => Ok(result as c_int),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `fsopen(2)`: the configuration of a filesystem to be mounted.
pub fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the string is terminated and outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fsconfig(2)`: sets an option, with a value if it takes one.
pub fn fsconfig(config: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> io::Result<()> {
    let (command, value) = match value {
        Some(value) => (FSCONFIG_SET_STRING, value.as_ptr()),
        None => (FSCONFIG_SET_FLAG, ptr::null()),
    };
    // SAFETY: both strings are terminated and outlive the call.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, config.as_raw_fd(), command, key.as_ptr(), value, 0) })?;
    Ok(())
}

/// `fsconfig(2)`: makes the filesystem.
pub fn fsconfig_create(config: BorrowedFd<'_>) -> io::Result<()> {
    let none = ptr::null::<libc::c_char>();
    // SAFETY: the command takes no key and no value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, config.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) })?;
    Ok(())
}

/// `fsmount(2)`: a mount that is attached nowhere. `attributes` are `MOUNT_ATTR_*`.
pub fn fsmount(config: BorrowedFd<'_>, attributes: u64) -> io::Result<OwnedFd> {
    // SAFETY: the call touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_fsmount, config.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `move_mount(2)`: attaches a detached mount at a path.
pub fn move_mount(mount: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let empty = c"";
    // SAFETY: both strings are terminated and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_FDCWD,
            path.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })?;
    Ok(())
}

/// `move_mount(2)`: attaches a detached mount over what a descriptor stands for, whatever leads there by now.
pub fn move_mount_onto(mount: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> io::Result<()> {
    let (empty, flags) = (c"".as_ptr(), MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
    let (mount, onto) = (mount.as_raw_fd(), onto.as_raw_fd());
    // SAFETY: the string is terminated and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_move_mount, mount, empty, onto, empty, flags) }).map(drop)
}

/// `open_tree(2)`: a copy of the mount that a descriptor stands for, from that on downwards, attached nowhere. With `whole`
/// everything that is mounted below comes along.
pub fn clone_tree(at: BorrowedFd<'_>, whole: bool) -> io::Result<OwnedFd> {
    let recursive = if whole { libc::AT_RECURSIVE as c_uint } else { 0 };
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as c_uint | recursive;
    // SAFETY: the string is terminated and outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, at.as_raw_fd(), c"".as_ptr(), flags) })?;
    Ok(own(fd))
}

/// What `mount_setattr(2)` takes.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// `mount_setattr(2)`: sets `MOUNT_ATTR_*` of a mount.
pub fn restrict_mount(mount: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    // How access times are kept is one number among the bits: it is set as a whole.
    let clear = if attributes & MOUNT_ATTR_ATIME == 0 { 0 } else { MOUNT_ATTR_ATIME };
    set_mount(mount, &MountAttr { set: attributes, clear, propagation: 0, user_namespace: 0 }, false)
}

/// Makes a mount read-only, or writable again; with `whole` everything that is mounted below, too.
pub fn set_read_only(mount: BorrowedFd<'_>, on: bool, whole: bool) -> io::Result<()> {
    let (set, clear) = if on { (MOUNT_ATTR_RDONLY, 0) } else { (0, MOUNT_ATTR_RDONLY) };
    set_mount(mount, &MountAttr { set, clear, propagation: 0, user_namespace: 0 }, whole)
}

/// From now on nothing is mounted or unmounted in a mount, and in everything that is mounted below, because it is elsewhere.
pub fn set_private(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_mount(mount, &MountAttr { set: 0, clear: 0, propagation: libc::MS_PRIVATE, user_namespace: 0 }, true)
}

fn set_mount(mount: BorrowedFd<'_>, attr: &MountAttr, whole: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if whole { libc::AT_RECURSIVE } else { 0 };
    let (fd, path) = (mount.as_raw_fd(), c"".as_ptr());
    // SAFETY: the string is terminated, and the kernel reads as many bytes of `attr` as it has.
    let done =
        unsafe { libc::syscall(libc::SYS_mount_setattr, fd, path, flags, ptr::from_ref(attr), size_of::<MountAttr>()) };
    check(done).map(drop)
}

/// `getxattr(2)` of a path, following links; an empty answer if the value is larger than `most`.
pub fn getxattr(path: &CStr, name: &CStr, most: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; most];
    // SAFETY: the strings are terminated; the buffer is as long as we say.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match usize::try_from(length) {
        Ok(length) => {
            value.truncate(length);
            Ok(value)
        }
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Makes `fd` the number `number`, closing what had it.
pub fn dup_onto(fd: BorrowedFd<'_>, number: c_int, close_on_exec: bool) -> io::Result<()> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: the call touches no memory of ours; the caller owns the number.
    check(c_long::from(unsafe { libc::dup3(fd.as_raw_fd(), number, flags) }))?;
    Ok(())
}

/// Whether two descriptors come from the same `open`, and so share their offset. Where the kernel doesn't say: no.
pub fn is_same_open(a: &impl AsRawFd, b: &impl AsRawFd) -> bool {
    const KCMP_FILE: c_int = 0;
    let own = std::process::id();
    // SAFETY: the call touches no memory of ours.
    (unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, a.as_raw_fd(), b.as_raw_fd()) }) == 0
}

/// Takes over a descriptor that the kernel has just given to this process.
pub fn own(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: the caller got it from a system call and hands it on to nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `pidfd_open(2)`: a descriptor that stands for a process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: the call touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    Ok(own(fd))
}

/// `SO_PEERGROUPS`: the further groups of whoever connected a Unix socket, as they were then.
pub fn peer_groups(stream: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0u32; 32];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(&groups[..])).unwrap_or(libc::socklen_t::MAX);
        let (fd, into) = (stream.as_raw_fd(), groups.as_mut_ptr().cast());
        // SAFETY: the buffer is as long as we say; the kernel writes no more, and how much that would have been.
        let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, into, &raw mut bytes) };
        let result = check(c_long::from(result));
        match result {
            Err(e) if e.raw_os_error() != Some(libc::ERANGE) => return Err(e),
            _ => groups.resize(bytes as usize / size_of::<u32>(), 0),
        }
        if result.is_ok() {
            return Ok(groups);
        }
    }
}

/// Whether the process behind a descriptor of [`pidfd_open`] has ended.
pub fn has_ended(process: &OwnedFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut ended = [PollFd::new(std::os::fd::AsFd::as_fd(process), PollFlags::POLLIN)];
    poll(&mut ended, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// [`pidfd_signal`] with `SIGKILL`.
pub fn pidfd_kill(process: &OwnedFd) -> io::Result<()> {
    pidfd_signal(process, libc::SIGKILL)
}

/// `pidfd_send_signal(2)`, for a descriptor of [`pidfd_open`].
pub fn pidfd_signal(process: &OwnedFd, signal: c_int) -> io::Result<()> {
    let (fd, none) = (process.as_raw_fd(), ptr::null::<libc::siginfo_t>());
    // SAFETY: the call touches no memory of ours.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) }).map(drop)
}

/// Whether a descriptor is the FUSE device, not something that pretends to be a kernel.
pub fn is_fuse_device(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = nix::sys::stat::fstat(fd)?;
    let is_char = stat.st_mode & libc::S_IFMT == libc::S_IFCHR;
    Ok(is_char && libc::major(stat.st_rdev) == 10 && libc::minor(stat.st_rdev) == 229)
}

/// A descriptor that this process inherited and nobody in it closes.
pub fn borrow(fd: std::os::fd::RawFd) -> BorrowedFd<'static> {
    // SAFETY: the number was found among this process's open descriptors, before it closed any.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

fn c_path(path: &std::path::Path) -> io::Result<std::ffi::CString> {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    std::ffi::CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Calls with a buffer as large as the kernel says it must be, again if it grew meanwhile.
fn sized(call: impl Fn(*mut libc::c_void, usize) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let length = usize::try_from(call(ptr::null_mut(), 0)).map_err(|_| io::Error::last_os_error())?;
        let mut value = vec![0u8; length];
        match usize::try_from(call(value.as_mut_ptr().cast(), value.len())) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE) => {}
            Err(_) => return Err(io::Error::last_os_error()),
        }
    }
}

/// `listxattr(2)`: the names of a file's extended attributes.
pub fn list_xattrs(path: &std::path::Path) -> io::Result<Vec<std::ffi::CString>> {
    let path = c_path(path)?;
    // SAFETY: the path is terminated; the buffer is as long as we say.
    let list = match sized(|buffer, length| unsafe { libc::listxattr(path.as_ptr(), buffer.cast(), length) }) {
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        list => list?,
    };
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| std::ffi::CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))).collect()
}

/// `getxattr(2)` of a path, however long the value is.
pub fn read_xattr(path: &std::path::Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = c_path(path)?;
    // SAFETY: the strings are terminated; the buffer is as long as we say.
    sized(|buffer, length| unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer, length) })
}

/// `lsetxattr(2)`.
pub fn write_xattr(path: &std::path::Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the strings are terminated; the value is as long as we say.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(c_long::from(result)).map(drop)
}

/// Lets a command start with no signal blocked, whatever this process has blocked for itself.
pub fn unblock_signals(command: &mut std::process::Command) {
    let unblock = || {
        let none = nix::sys::signal::SigSet::empty();
        Ok(nix::sys::signal::sigprocmask(nix::sys::signal::SigmaskHow::SIG_SETMASK, Some(&none), None)?)
    };
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe { std::os::unix::process::CommandExt::pre_exec(command, unblock) };
}

/// Whether this process ignores a signal, as it may have been started to.
pub fn is_ignored(signal: c_int) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: nothing is changed; the kernel fills the structure in, of which zeros are a value.
    let (asked, now) = unsafe { (libc::sigaction(signal, ptr::null(), now.as_mut_ptr()), now.assume_init()) };
    asked == 0 && now.sa_sigaction == libc::SIG_IGN
}

/// `PTRACE_GETSIGMASK`: the signals that a stopped process has blocked.
pub fn ptrace_mask(pid: nix::unistd::Pid) -> io::Result<u64> {
    let mut mask = 0u64;
    // SAFETY: the kernel writes as many bytes as are said, and that is what `mask` has.
    check(unsafe { libc::ptrace(libc::PTRACE_GETSIGMASK, pid.as_raw(), size_of::<u64>(), &raw mut mask) })?;
    Ok(mask)
}

/// `PTRACE_SETSIGMASK`: lets a stopped process block these signals.
pub fn ptrace_set_mask(pid: nix::unistd::Pid, mask: u64) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as are said, and that is what `mask` has.
    check(unsafe { libc::ptrace(libc::PTRACE_SETSIGMASK, pid.as_raw(), size_of::<u64>(), &raw const mask) })?;
    Ok(())
}

/// The length of `siginfo_t`.
pub const SIGINFO_BYTES: usize = 128;
/// How many signals are asked for at once.
const SIGNALS_STEP: usize = 64;
/// `PTRACE_PEEKSIGINFO_SHARED`
const OF_PROCESS: u32 = 1;

/// `PTRACE_PEEKSIGINFO`: the signals that are on their way to a stopped process, each a `siginfo_t`: those to the process, or
/// else those to the thread.
pub fn ptrace_signals(pid: nix::unistd::Pid, to_process: bool) -> io::Result<Vec<[u8; SIGINFO_BYTES]>> {
    let mut all = Vec::new();
    loop {
        let flags = if to_process { OF_PROCESS } else { 0 };
        let which = libc::ptrace_peeksiginfo_args { off: all.len() as u64, flags, nr: SIGNALS_STEP as i32 };
        let mut some = [[0u8; SIGINFO_BYTES]; SIGNALS_STEP];
        // SAFETY: the kernel reads `which`, and writes `nr` signals at most, for which `some` has room.
        let count = check(unsafe {
            libc::ptrace(libc::PTRACE_PEEKSIGINFO, pid.as_raw(), &raw const which, some.as_mut_ptr())
        })?;
        all.extend(&some[..count as usize]);
        if (count as usize) < SIGNALS_STEP {
            return Ok(all);
        }
    }
}

/// `pidfd_getfd(2)`: a descriptor of another process, given by [`pidfd_open`].
pub fn pidfd_getfd(process: &OwnedFd, number: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the call touches no memory of ours.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })?;
    Ok(own(fd))
}

/// `flock(2)`, for a descriptor that shares its open file with another process: the lock is the other's as well.
pub fn flock(fd: BorrowedFd<'_>, how: c_int) -> io::Result<()> {
    // SAFETY: the call touches no memory of ours.
    check(c_long::from(unsafe { libc::flock(fd.as_raw_fd(), how) })).map(drop)
}

/// `statx(2)` that asks the filesystem, whatever the kernel has cached; of a symbolic link, of the link.
pub fn fresh_stat(path: &std::path::Path) -> io::Result<()> {
    fresh(path, libc::AT_SYMLINK_NOFOLLOW)
}

/// The same of what a link leads to, such as one in `/proc`.
pub fn fresh_stat_through(path: &std::path::Path) -> io::Result<()> {
    fresh(path, 0)
}

fn fresh(path: &std::path::Path, how: c_int) -> io::Result<()> {
    let path = c_path(path)?;
    let flags = libc::AT_STATX_FORCE_SYNC | how;
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is terminated; the kernel fills the structure in.
    let result =
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, libc::STATX_BASIC_STATS, stat.as_mut_ptr()) };
    check(c_long::from(result)).map(drop)
}

/// What is known of a file without asking the filesystem that it lies on.
pub struct CachedStat {
    /// Its type, as in `st_mode & S_IFMT`.
    pub kind: libc::mode_t,
    /// Its device: major and minor number.
    pub device: (u32, u32),
    /// Its inode.
    pub ino: u64,
    /// The device that it stands for, if it is one: major and minor number.
    pub stands_for: (u32, u32),
    /// The mount that it was found on.
    pub mount: u64,
}

/// `statx(2)` of what the kernel has cached, following links.
pub fn cached_stat(path: &std::path::Path) -> io::Result<CachedStat> {
    let path = c_path(path)?;
    let wanted = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_MNT_ID;
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is terminated; the kernel fills the structure in.
    let result =
        unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), libc::AT_STATX_DONT_SYNC, wanted, stat.as_mut_ptr()) };
    check(c_long::from(result))?;
    // SAFETY: it was zeroed before, and every bit pattern is one of its values.
    let stat = unsafe { stat.assume_init() };
    let kind = libc::mode_t::from(stat.stx_mode) & libc::S_IFMT;
    let device = (stat.stx_dev_major, stat.stx_dev_minor);
    let stands_for = (stat.stx_rdev_major, stat.stx_rdev_minor);
    Ok(CachedStat { kind, device, ino: stat.stx_ino, stands_for, mount: stat.stx_mnt_id })
}
