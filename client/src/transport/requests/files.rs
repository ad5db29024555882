//! The content of files.

use super::{About, Requests};
use crate::transport::answers::{self, Answered};
use crate::transport::convert::error;
use crate::transport::privileges;
use crate::transport::reply::Reply;
use crate::transport::serve::{Pages, drop_mode};
use crate::transport::slow::Turn;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Changed;
use mojavefs::protocol::{Caller, FallocateMode, LockClass, LockOwner, Reads, SeekWhence, Unlocked};
use mojavefs_fs::{Call, Patience, Range, Write, WritesOut};
use mojavefs_fuse::protocol::{Answer, WriteFlags};
use nix::errno::Errno;
use nix::libc;

impl Requests {
    pub(super) fn read(&self, about: About, (offset, size): (u64, u32), flags: u32, reply: impl Reply) {
        // Many are the kernel's own, which can't be interrupted for a checkpoint.
        let reads = match flags.cast_signed() {
            flags if flags & libc::O_DIRECT != 0 => Reads::Once,
            flags if flags & libc::O_ACCMODE == libc::O_RDWR => Reads::Mapped,
            _ => Reads::Kept,
        };
        let range = (about.ino, offset, u64::from(size));
        self.door.answer_read((about.caller.pid, range), reply, move |call| call.read(range, reads).map(Answer::Data));
    }

    pub(super) fn write(
        &self,
        about: About,
        (offset, data): (u64, &[u8]),
        (from, flags): (WriteFlags, u32),
        reply: impl Reply,
    ) {
        // For what the kernel writes out by itself nobody waits in a call.
        let by_kernel = from.has(WriteFlags::CACHE);
        let write = Write {
            ino: about.ino,
            offset,
            append: flags.cast_signed() & libc::O_APPEND != 0,
            clear_set_id: from.has(WriteFlags::KILL_SUIDGID),
            by_kernel,
        };
        let count = data.len() as u32;
        let answered = move |requests: &Requests, written: Result<Changed, Fault>| -> Answered {
            match written {
                // Written out by the kernel after its speculation was undone: nobody waits for it any more.
                Err(fault) if fault.kind == FaultKind::Stale && by_kernel => Ok(Answer::Written(count)),
                written => {
                    requests.has_changed(write.ino, written?);
                    Ok(Answer::Written(count))
                }
            }
        };
        let copied = || {
            let requests = self.clone();
            // What was stored to pages of what is being replaced is all that is to be written to what replaces it.
            let range = (write.ino, offset, data.len() as u64);
            let before = by_kernel.then(|| self.door.at_once(Caller::KERNEL, |call| call.read(range, Reads::Once)));
            let (data, before) = (data.to_vec(), before.flatten().and_then(Result::ok));
            move |call: &Call<'_>| {
                let written = match &before {
                    Some(before) => call.write_stored(&write, before, &data),
                    None => call.write(&write, &data),
                };
                answered(&requests, written)
            }
        };
        let caller = if by_kernel { Caller::KERNEL } else { about.caller };
        self.door.answer_write(caller, reply, |call| answered(self, call.write(&write, data)), copied);
    }

    /// Opens a file. Who truncates it asks for that by itself.
    pub(super) fn open(&self, about: About, flags: u32, runs: bool, reply: impl Reply) {
        let view = self.door.view();
        let opened = answers::opened(flags, view.next_handle(), view.unlocks_at_close(about.ino));
        let writes = flags.cast_signed() & (libc::O_ACCMODE | libc::O_TRUNC) != libc::O_RDONLY;
        match (runs, writes) {
            (true, _) => self.answer(about, reply, move |call| {
                call.run(about.ino, opened.handle).map(|()| answers::open(call.view(), opened))
            }),
            (false, true) => self.answer(about, reply, move |call| {
                call.may_write(about.ino).map(|()| answers::open(call.view(), opened))
            }),
            (false, false) => reply.give(Ok(answers::open(view, opened))),
        }
    }

    /// Nobody has an open file open any more.
    pub(super) fn release(&self, about: About, handle: u64, reply: impl Reply) {
        self.unlock(about, Unlocked::Handle(handle));
        self.door.view().closes_file();
        reply.give(Ok(Answer::Done));
    }

    fn unlock(&self, about: About, whose: Unlocked) {
        let call = self.door.view().call(Caller::KERNEL, Patience::Own);
        if let Err(fault) = call.unlock(about.ino, whose) {
            tracing::debug!("letting go of the locks on inode {}: {fault}", about.ino);
        }
    }

    /// A process has closed a file.
    pub(super) fn flush(&self, about: About, lock_owner: u64, reply: impl Reply) {
        self.unlock(about, Unlocked::Owner(LockOwner { class: LockClass::Range, number: lock_owner }));
        let view = self.door.view();
        match view.settles() {
            // Most often there is nothing to wait for, and no other thread is needed to find that out.
            true if view.server().is_embedded() && view.call(Caller::KERNEL, Patience::Own).close(false).is_ok() => {
                reply.give(Ok(Answer::Done));
            }
            true => self.answer_slowly(about, reply, |call| answers::done(call.close(true))),
            false => reply.give(Ok(Answer::Done)),
        }
    }

    pub(super) fn sync(&self, about: About, reply: impl Reply) {
        match self.door.view().syncs() {
            true => self.answer_slowly(about, reply, move |call| answers::done(call.sync(about.ino))),
            // Durable when it commits: the kernel need not ask again.
            false => reply.give(Err(Errno::ENOSYS)),
        }
    }

    pub(super) fn fallocate(&self, about: About, (offset, length): (u64, u64), mode: u32, reply: impl Reply) {
        let mode = mode.cast_signed();
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => FallocateMode::Allocate { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE => FallocateMode::PunchHole,
            libc::FALLOC_FL_ZERO_RANGE => FallocateMode::ZeroRange { keep_size },
            _ => return reply.give(Err(Errno::EOPNOTSUPP)),
        };
        let range = (about.ino, offset, length);
        let (requests, clear_set_id) = (self.clone(), !privileges::keeps_set_ids(about.caller));
        self.answer_slowly(about, reply, move |call| {
            requests.has_changed(about.ino, call.fallocate(range, mode, clear_set_id)?);
            Ok(Answer::Done)
        });
    }

    pub(super) fn seek(&self, about: About, offset: u64, whence: u32, reply: impl Reply) {
        let whence = match whence.cast_signed() {
            libc::SEEK_DATA => SeekWhence::Data,
            libc::SEEK_HOLE => SeekWhence::Hole,
            _ => return reply.give(Err(Errno::EINVAL)),
        };
        if offset > i64::MAX as u64 {
            return reply.give(Err(Errno::ENXIO));
        }
        let (About { caller, ino }, door) = (about, self.door.clone());
        match door.at_once(caller, |call| call.seek_at_once(ino, offset, whence).transpose()) {
            Some(Ok(Some(found))) => reply.give(Ok(Answer::Offset(found))),
            Some(Err(fault)) => reply.give(Err(error(&fault))),
            Some(Ok(None)) | None => {
                let told_by = self.told_by.clone();
                self.slow.run_by_turn(move |turn| {
                    let work = move |call: &Call<'_>| {
                        // Those that answer the kernel must not wait until others have.
                        let kernel = told_by.get().filter(|_| turn == Turn::Aside).map(Pages);
                        let kernel = kernel.as_ref().map(|kernel| kernel as &dyn WritesOut);
                        call.seek(ino, offset, whence, kernel).map(Answer::Offset)
                    };
                    door.answer(caller, reply, work);
                });
            }
        }
    }

    pub(super) fn copy(
        &self,
        about: About,
        (offset, length): (u64, u64),
        to: (Ino, u64),
        wide: bool,
        reply: impl Reply,
    ) {
        let from: Range = (about.ino, offset, length);
        let (requests, clear_set_id) = (self.clone(), !privileges::keeps_set_ids(about.caller));
        self.answer_slowly(about, reply, move |call| {
            let copied = call.copy(from, to, clear_set_id)?;
            requests.has_changed(to.0, copied);
            Ok(if wide { Answer::Copied(copied.at) } else { Answer::Written(copied.at as u32) })
        });
    }

    /// What is about to be answered has changed a file: nobody runs it any more by the mode that it had before.
    fn has_changed(&self, ino: Ino, changed: Changed) {
        if let Some(notifier) = self.told_by.get().filter(|_| changed.mode_changed) {
            drop_mode(notifier, ino);
        }
    }
}
