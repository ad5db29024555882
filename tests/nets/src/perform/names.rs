//! What makes, removes and changes names, attributes and descriptors.

use super::{Performer, Said, bytes_of, done, io};
use crate::op::{Flags, How, Mode, Op, Put};
use crate::sys::{self, Owner};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, RenameFlags, fcntl, openat, renameat2};
use nix::libc;
use nix::sys::stat::{self, FchmodatFlags, UtimensatFlags, fchmod, fchmodat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{self, FchownatFlags, Gid, Uid, UnlinkatFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

fn bits(mode: Mode) -> stat::Mode {
    stat::Mode::from_bits_truncate(mode.0)
}

fn put_flags(put: Put) -> i32 {
    match put {
        Put::Any => 0,
        Put::Create => libc::XATTR_CREATE,
        Put::Replace => libc::XATTR_REPLACE,
    }
}

/// The time to set: 0 is now.
fn time(seconds: i64, nanoseconds: i64) -> TimeSpec {
    if seconds == 0 { TimeSpec::new(0, libc::UTIME_NOW) } else { TimeSpec::new(seconds, nanoseconds) }
}

impl Performer {
    pub(super) fn names(&mut self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::Open { slot, path, flags, mode } => {
                let path = self.at(path);
                let opened = nix::fcntl::open(&path, open_flags(*flags), bits(*mode));
                opened.and_then(|fd| self.keep(*slot, fd))
            }
            Op::OpenAt { slot, dir, path, flags, mode } => {
                let opened =
                    self.slot(*dir).and_then(|dir| openat(dir, path.as_str(), open_flags(*flags), bits(*mode)));
                opened.and_then(|fd| self.keep(*slot, fd))
            }
            Op::Close { slot } => match self.slots.get_mut(usize::from(*slot)).and_then(Option::take) {
                Some(_) => done(Ok(())),
                None => Err(Errno::EBADF),
            },
            Op::Dup { slot, to } => {
                let copied = self.slot(*slot).and_then(|fd| fd.try_clone_to_owned().map_err(|e| io(&e)));
                copied.and_then(|fd| self.keep(*to, fd))
            }
            Op::Locks { path } => self.locks(path),
            Op::Chdir { path } => done(unistd::chdir(&self.at(path))),
            Op::Umask { mode } => Ok(format!("{:o}", stat::umask(bits(*mode)))),
            _ => return self.entries(op).or_else(|| self.attributes(op)),
        })
    }

    fn entries(&self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::Link { path, to } => {
                let (path, to) = (self.at(path), self.at(to));
                done(unistd::linkat(AT_FDCWD, &path, AT_FDCWD, &to, AtFlags::empty()))
            }
            Op::LinkSlot { slot, to } => self.link_slot(*slot, to),
            Op::Symlink { target, path } => done(unistd::symlinkat(target.as_str(), AT_FDCWD, &self.at(path))),
            Op::Unlink { path } => done(unistd::unlink(&self.at(path))),
            Op::Rmdir { path } => done(unistd::unlinkat(AT_FDCWD, &self.at(path), UnlinkatFlags::RemoveDir)),
            Op::RemoveAll { path } => done(std::fs::remove_dir_all(self.at(path)).map_err(|e| io(&e))),
            Op::Mkdir { path, mode } => done(mkdirat(AT_FDCWD, &self.at(path), bits(*mode))),
            Op::Mkfifo { path, mode } => done(unistd::mkfifo(&self.at(path), bits(*mode))),
            Op::Rename { path, to, how } => {
                let flags = match how {
                    How::Plain => RenameFlags::empty(),
                    How::NoReplace => RenameFlags::RENAME_NOREPLACE,
                    How::Exchange => RenameFlags::RENAME_EXCHANGE,
                };
                done(renameat2(AT_FDCWD, &self.at(path), AT_FDCWD, &self.at(to), flags))
            }
            _ => return None,
        })
    }

    fn attributes(&self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::Chmod { path, mode } => {
                done(fchmodat(AT_FDCWD, &self.at(path), bits(*mode), FchmodatFlags::FollowSymlink))
            }
            Op::Fchmod { slot, mode } => self.slot(*slot).and_then(|fd| done(fchmod(fd, bits(*mode)))),
            Op::Chown { path, uid, gid } => {
                done(unistd::chown(&self.at(path), Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid))))
            }
            Op::Lchown { path, uid, gid } => {
                let (uid, gid) = (Some(Uid::from_raw(*uid)), Some(Gid::from_raw(*gid)));
                done(unistd::fchownat(AT_FDCWD, &self.at(path), uid, gid, FchownatFlags::AT_SYMLINK_NOFOLLOW))
            }
            Op::Utimens { path, seconds, nanoseconds } => {
                let time = time(*seconds, *nanoseconds);
                done(utimensat(AT_FDCWD, &self.at(path), &time, &time, UtimensatFlags::NoFollowSymlink))
            }
            Op::Futimens { slot, seconds, nanoseconds } => {
                let time = time(*seconds, *nanoseconds);
                self.slot(*slot).and_then(|fd| done(futimens(fd, &time, &time)))
            }
            Op::SetXattr { path, name, fill, length, put } => {
                let value = bytes_of(*fill, *length as usize);
                done(sys::set_xattr(Owner::Path(&self.text(path)), name, &value, put_flags(*put)))
            }
            Op::FsetXattr { slot, name, fill, length, put } => {
                let value = bytes_of(*fill, *length as usize);
                let owner = self.slot(*slot).map(Owner::Open);
                owner.and_then(|owner| done(sys::set_xattr(owner, name, &value, put_flags(*put))))
            }
            Op::RemoveXattr { path, name } => done(sys::remove_xattr(&self.text(path), name)),
            _ => return None,
        })
    }

    fn link_slot(&self, slot: u8, to: &str) -> Said {
        let path = format!("/proc/self/fd/{}", self.slot(slot)?.as_raw_fd());
        let to = self.at(to);
        done(unistd::linkat(AT_FDCWD, path.as_str(), AT_FDCWD, &to, AtFlags::AT_SYMLINK_FOLLOW))
    }

    fn locks(&self, path: &str) -> Said {
        let (first, second) = (self.open(path, OFlag::O_RDWR)?, self.open(path, OFlag::O_RDWR)?);
        let flock = |fd: &OwnedFd, how| sys::flock(fd.as_fd(), how | libc::LOCK_NB).err();
        let range = |fd: &OwnedFd, kind: i32, start| {
            let range = libc::flock { l_type: kind as _, l_whence: 0, l_start: start, l_len: 100, l_pid: 0 };
            fcntl(fd, FcntlArg::F_OFD_SETLK(&range)).err()
        };
        let said = [
            flock(&first, libc::LOCK_EX),
            flock(&second, libc::LOCK_SH),
            flock(&first, libc::LOCK_SH),
            flock(&second, libc::LOCK_SH),
            range(&first, libc::F_WRLCK, 0),
            range(&second, libc::F_RDLCK, 50),
            range(&second, libc::F_RDLCK, 100),
            range(&first, libc::F_UNLCK, 0),
            range(&second, libc::F_WRLCK, 50),
        ];
        let words = said.map(|e| e.map_or("ok".to_owned(), |e| format!("{e:?}")));
        Ok(words.join(" "))
    }
}

/// Never inherited, and never waiting at a fifo.
fn open_flags(flags: Flags) -> OFlag {
    OFlag::from_bits_retain(flags.0) | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK
}
