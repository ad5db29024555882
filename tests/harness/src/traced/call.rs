//! Calls that change files, as they are seen from outside of the process that makes them.
#![allow(unsafe_code)]

use nix::libc::{self, c_int, c_long, ptrace_syscall_info};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// On which side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It is about to be made.
    Before,
    /// It has been made.
    After,
}

/// A call that changes files, or makes changes durable.
#[derive(Clone, Debug)]
pub struct Call {
    /// On which side of it its thread waits.
    pub edge: Edge,
    /// The thread that makes it.
    pub thread: Pid,
    /// Its name.
    pub name: &'static str,
    /// The files or names that it is about.
    pub paths: Vec<PathBuf>,
    /// After it: it has changed nothing.
    pub has_failed: bool,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edge = if self.edge == Edge::Before { "before" } else { "after" };
        write!(f, "{edge} {}", self.name)?;
        self.paths.iter().try_for_each(|path| write!(f, " {}", path.display()))
    }
}

/// Which of a call's words say what it is about.
#[derive(Clone, Copy)]
enum About {
    /// The file of a descriptor.
    Descriptor(usize),
    /// A path.
    Path(usize),
    /// A directory's descriptor, and a path from there.
    At(usize, usize),
}

use About::{At, Descriptor, Path as Plain};

const CALLS: &[(c_long, &str, &[About])] = &[
    (libc::SYS_copy_file_range, "copy_file_range", &[Descriptor(2)]),
    (libc::SYS_fallocate, "fallocate", &[Descriptor(0)]),
    (libc::SYS_fchmod, "fchmod", &[Descriptor(0)]),
    (libc::SYS_fchmodat, "fchmodat", &[At(0, 1)]),
    (libc::SYS_fchown, "fchown", &[Descriptor(0)]),
    (libc::SYS_fchownat, "fchownat", &[At(0, 1)]),
    (libc::SYS_fdatasync, "fdatasync", &[Descriptor(0)]),
    (libc::SYS_fremovexattr, "fremovexattr", &[Descriptor(0)]),
    (libc::SYS_fsetxattr, "fsetxattr", &[Descriptor(0)]),
    (libc::SYS_fsync, "fsync", &[Descriptor(0)]),
    (libc::SYS_ftruncate, "ftruncate", &[Descriptor(0)]),
    (libc::SYS_linkat, "linkat", &[At(0, 1), At(2, 3)]),
    (libc::SYS_mkdirat, "mkdirat", &[At(0, 1)]),
    (libc::SYS_mknodat, "mknodat", &[At(0, 1)]),
    (libc::SYS_openat, "openat", &[At(0, 1)]),
    (libc::SYS_pwrite64, "pwrite64", &[Descriptor(0)]),
    (libc::SYS_removexattr, "removexattr", &[Plain(0)]),
    (libc::SYS_renameat, "renameat", &[At(0, 1), At(2, 3)]),
    (libc::SYS_renameat2, "renameat2", &[At(0, 1), At(2, 3)]),
    (libc::SYS_sendfile, "sendfile", &[Descriptor(0)]),
    (libc::SYS_setxattr, "setxattr", &[Plain(0)]),
    (libc::SYS_symlinkat, "symlinkat", &[At(1, 2)]),
    (libc::SYS_syncfs, "syncfs", &[Descriptor(0)]),
    (libc::SYS_unlinkat, "unlinkat", &[At(0, 1)]),
    (libc::SYS_utimensat, "utimensat", &[At(0, 1)]),
    (libc::SYS_write, "write", &[Descriptor(0)]),
    (libc::SYS_writev, "writev", &[Descriptor(0)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", &[Plain(0)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", &[Plain(0), Plain(1)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir", &[Plain(0)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", &[Plain(0)]),
];

/// The number and the words of a call that a stopped thread is about to make.
pub(super) fn begins(info: &ptrace_syscall_info) -> Option<(c_long, [u64; 6])> {
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: at the beginning of a call the kernel has filled in this one.
    let entry = unsafe { info.u.entry };
    Some((entry.nr.cast_signed(), entry.args))
}

/// Whether a call that a stopped thread has made is an error.
pub(super) fn has_failed(info: &ptrace_syscall_info) -> bool {
    // SAFETY: at the end of a call the kernel has filled in this one.
    info.op == libc::PTRACE_SYSCALL_INFO_EXIT && unsafe { info.u.exit }.is_error != 0
}

impl Call {
    /// The call that a thread is about to make, if it is one that changes files.
    pub(super) fn decode(thread: Pid, number: c_long, words: [u64; 6]) -> Option<Call> {
        let (_, name, about) = CALLS.iter().find(|(known, ..)| *known == number)?;
        let changes = (libc::O_CREAT | libc::O_TRUNC) as u64;
        if number == libc::SYS_openat && words[2] & changes == 0 {
            return None;
        }
        let paths = about.iter().filter_map(|about| match *about {
            Descriptor(at) => descriptor(thread, words[at]),
            Plain(at) => path(thread, None, words[at]),
            At(dir, at) => path(thread, Some(words[dir]), words[at]),
        });
        Some(Call { edge: Edge::Before, thread, name, paths: paths.collect(), has_failed: false })
    }
}

fn descriptor(thread: Pid, descriptor: u64) -> Option<PathBuf> {
    let descriptor = descriptor as c_int;
    let link = match descriptor {
        libc::AT_FDCWD => format!("/proc/{thread}/cwd"),
        descriptor => format!("/proc/{thread}/fd/{descriptor}"),
    };
    fs::read_link(link).ok()
}

/// A path that begins at an address in a thread's memory.
fn path(thread: Pid, dir: Option<u64>, address: u64) -> Option<PathBuf> {
    let mut bytes = vec![0; libc::PATH_MAX as usize];
    let read = File::open(format!("/proc/{thread}/mem")).ok()?.read_at(&mut bytes, address).ok()?;
    let len = bytes[..read].iter().position(|byte| *byte == 0)?;
    let path = Path::new(OsStr::from_bytes(&bytes[..len]));
    if let Ok(own) = path.strip_prefix("/proc/self/fd") {
        return descriptor(thread, own.to_str()?.parse().ok()?);
    }
    match dir.filter(|_| path.is_relative()) {
        Some(dir) => Some(descriptor(thread, dir)?.join(path)),
        None => Some(path.to_owned()),
    }
}
