//! What each request of a kernel is to the view.

mod changes;
mod files;
mod locks;

use super::answers::{self, Answered};
use super::door::Door;
use super::insiders::Insiders;
use super::listing;
use super::owners::Owners;
use super::reply::Reply;
use super::slow::Slow;
use locks::Asking;
use mojavefs::id::Ino;
use mojavefs::protocol::Caller;
use mojavefs_fs::{Call, View, deliveries};
use mojavefs_fuse::Notifier;
use mojavefs_fuse::protocol::{Answer, Opened, Operation, Request};
use nix::errno::Errno;
use std::io;
use std::sync::{Arc, OnceLock};

/// Carries out the requests of one kernel.
#[derive(Clone)]
pub(super) struct Requests {
    door: Door,
    slow: Arc<Slow>,
    /// How the kernel is told, as soon as it listens.
    told_by: Arc<OnceLock<Notifier>>,
    owners: Arc<Owners>,
    /// Who is answered; everybody if nobody is named.
    insiders: Option<Arc<Insiders>>,
}

/// What a request is about, beside what is asked: who asks, and the inode.
#[derive(Clone, Copy)]
struct About {
    caller: Caller,
    ino: Ino,
}

impl Requests {
    /// Those of the kernel that is to see a view.
    pub(super) fn of(view: Arc<View>, insiders: Option<Insiders>) -> io::Result<Self> {
        Ok(Requests {
            door: Door::new(view),
            slow: Arc::new(Slow::start()?),
            told_by: Arc::default(),
            owners: Arc::default(),
            insiders: insiders.map(Arc::new),
        })
    }

    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    /// The kernel listens.
    pub(super) fn told_by(&self, notifier: &Notifier) {
        // There is one kernel.
        let _ = self.told_by.set(notifier.clone());
    }

    /// Carries out a request, now or later.
    pub(super) fn carry_out(&self, request: Request<'_>, reply: impl Reply) {
        self.begin(request, reply);
        // What this thread has found is given by now, or is found anew by another: nobody is to wait for it until the next request comes.
        drop(deliveries::take());
    }

    fn begin(&self, request: Request<'_>, reply: impl Reply) {
        let caller = Caller { pid: request.pid, uid: request.uid, gid: request.gid };
        let about = About { caller, ino: Ino(request.node) };
        if self.insiders.as_ref().is_some_and(|insiders| !insiders.admit(request.pid, &request.operation)) {
            return reply.give(Err(Errno::EACCES));
        }
        match request.operation {
            // By handle: the kernel knows an inode's number, and nothing more.
            Operation::Lookup { name: name @ (b"." | b"..") } => {
                let around = name == b"..";
                self.answer(about, reply, move |call| answers::made(call.look_up_inode(about.ino, around)));
            }
            Operation::Lookup { name } => {
                let name = name.to_vec();
                self.answer(about, reply, move |call| answers::looked_up(call.look_up(about.ino, &name)));
            }
            Operation::Forget(inos) => self.door.view().forget(inos.into_iter().map(|(ino, count)| (Ino(ino), count))),
            Operation::Getattr { .. } => {
                self.answer(about, reply, move |call| answers::found(call.attributes(about.ino)));
            }
            Operation::Statx { .. } => {
                self.answer(about, reply, move |call| answers::found_with_birth(call.attributes(about.ino)));
            }
            Operation::Readlink => self.answer(about, reply, move |call| call.read_link(about.ino).map(Answer::Data)),
            Operation::Statfs => {
                let about = About { caller: Caller::KERNEL, ..about };
                self.answer(about, reply, |call| call.space().map(|space| answers::space(&space)));
            }
            Operation::Getxattr { name, size } => {
                let name = name.to_vec();
                self.answer(about, reply, move |call| answers::xattr(call.xattr(about.ino, &name), size));
            }
            Operation::Listxattr { size } => {
                self.answer(about, reply, move |call| answers::xattr(call.xattrs(about.ino), size));
            }
            Operation::Opendir { .. } => {
                let handle = self.door.view().open_dir(about.ino);
                reply.give(Ok(Answer::Opened(Opened { handle, ..Opened::default() })));
            }
            Operation::Releasedir { handle } => {
                self.door.view().close_dir(handle);
                reply.give(Ok(Answer::Done));
            }
            Operation::Readdir { handle, offset, size, attributes } => {
                self.answer(about, reply, move |call| listing::page(call, (handle, offset), size, attributes));
            }
            Operation::Destroy => reply.give(Ok(Answer::Done)),
            operation => self.change(about, operation, reply),
        }
    }

    /// What changes something.
    fn change(&self, about: About, operation: Operation<'_>, reply: impl Reply) {
        match operation {
            Operation::Setattr(set) => self.set_attributes(about, &set, reply),
            Operation::Symlink { name, target, .. } => self.symlink(about, name, target, reply),
            Operation::Make { name, new } => self.make(about, name, &new, reply),
            Operation::Create { name, new, flags, .. } => self.create(about, (name, &new), flags, reply),
            Operation::Tmpfile(unnamed) => self.create_unnamed(about, &unnamed, reply),
            Operation::Unlink { name } => {
                let name = name.to_vec();
                self.answer(about, reply, move |call| answers::done(call.unlink(about.ino, &name)));
            }
            Operation::Rmdir { name } => {
                let name = name.to_vec();
                self.answer(about, reply, move |call| answers::done(call.remove_dir(about.ino, &name)));
            }
            Operation::Rename { name, to, new_name, flags } => {
                self.rename(about, (name, Ino(to), new_name), flags, reply);
            }
            Operation::Link { ino, name } => {
                let (ino, name) = (Ino(ino), name.to_vec());
                self.answer(about, reply, move |call| answers::made(call.link(ino, about.ino, &name)));
            }
            Operation::Setxattr { name, value, flags, kill_set_gid } => {
                self.set_xattr(about, (name, value), (flags, kill_set_gid), reply);
            }
            Operation::Removexattr { name } => {
                let name = name.to_vec();
                self.answer(about, reply, move |call| answers::done(call.remove_xattr(about.ino, &name)));
            }
            operation => self.file(about, operation, reply),
        }
    }

    /// What is about the content of a file; whatever else there is we have nothing to say to, and the kernel does not ask again.
    fn file(&self, about: About, operation: Operation<'_>, reply: impl Reply) {
        match operation {
            Operation::Open { flags, runs, .. } => self.open(about, flags, runs, reply),
            Operation::Release { handle, .. } => self.release(about, handle, reply),
            Operation::Getlk { handle, owner, lock, flock } => {
                self.test_lock(about, &Asking { handle, owner, lock, flock }, reply);
            }
            Operation::Setlk { handle, owner, lock, flock, waits } => {
                self.lock(about, &Asking { handle, owner, lock, flock }, waits, reply);
            }
            Operation::Read { offset, size, flags, .. } => self.read(about, (offset, size), flags, reply),
            Operation::Write { offset, data, from, flags, .. } => {
                self.write(about, (offset, data), (from, flags), reply);
            }
            Operation::Flush { lock_owner, .. } => self.flush(about, lock_owner, reply),
            Operation::Fsync { .. } | Operation::Fsyncdir { .. } => self.sync(about, reply),
            Operation::Fallocate { offset, length, mode, .. } => self.fallocate(about, (offset, length), mode, reply),
            Operation::Lseek { offset, whence, .. } => self.seek(about, offset, whence, reply),
            Operation::CopyFileRange { from, to, length, wide, .. } => {
                self.copy(about, (from.1, length), (Ino(to.0), to.2), wide, reply);
            }
            // Access, `ioctl` and what later kernels ask: the kernel does that by itself, and need not ask again.
            _ => reply.give(Err(Errno::ENOSYS)),
        }
    }

    fn answer(&self, about: About, reply: impl Reply, work: impl Fn(&Call<'_>) -> Answered + Send + 'static) {
        self.door.answer(about.caller, reply, work);
    }

    /// Answers what may wait for the disk.
    fn answer_slowly(&self, about: About, reply: impl Reply, work: impl Fn(&Call<'_>) -> Answered + Send + 'static) {
        let door = self.door.clone();
        // No process is stopped for a checkpoint by it.
        let caller = Caller { pid: Caller::KERNEL.pid, ..about.caller };
        self.slow.run(move || door.answer(caller, reply, work));
    }
}
