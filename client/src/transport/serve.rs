//! Answering one kernel: threads, notifications, the end.

use super::door::Parked;
use super::insiders::Insiders;
use super::requests::Requests;
use super::{Transport, fuser as by_fuser, own};
use crate::limits::{GIVE_TIME_MAX, HELD_UP_TIME, POLL_INTERVAL};
use crate::mount;
use mojavefs::id::Ino;
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::Invalidation;
use mojavefs_fs::{View, WaitForDecision, WritesOut};
use mojavefs_fuse::protocol::Notice;
use mojavefs_fuse::{Connection, Notifier, mount_helper};
use nix::libc;
use nix::sys::utsname::uname;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// From here on a kernel that is told of one name neither waits for who is looking it up at that moment, nor drops one that
/// was not there.
const NAMES_GET_LOST_SINCE: (u32, u32) = (6, 19);

/// A kernel that is being answered.
pub(crate) struct Kernel {
    notifier: Notifier,
    view: Arc<View>,
    parked: Arc<Parked>,
    connection: Answering,
}

/// By what it is.
enum Answering {
    Own(Connection),
    Fuser(by_fuser::Connection),
}

/// Answers what comes through `device`, a FUSE connection whose mount exists, for `view`. Returns once the kernel and we agree
/// on how to talk; the rest happens on threads of its own until the mount is gone. Others than the `insiders` are refused, if there
/// are any.
pub(crate) fn serve(
    device: OwnedFd,
    view: Arc<View>,
    transport: Transport,
    insiders: Option<Insiders>,
) -> io::Result<Arc<Kernel>> {
    let requests = Requests::of(view, insiders)?;
    let door = requests.door().clone();
    let (notifier, connection) = match transport {
        Transport::Own => {
            let connection = own::start(device, requests.clone())?;
            (connection.notifier().clone(), Answering::Own(connection))
        }
        Transport::Fuser => {
            let notifier = Notifier::of(device.try_clone()?.into());
            (notifier, Answering::Fuser(by_fuser::start(device, requests.clone())?))
        }
    };
    requests.told_by(&notifier);
    let (view, parked) = (door.view().clone(), door.parked().clone());
    Ok(Arc::new(Kernel { notifier, view, parked, connection }))
}

/// Mounts at `point` as an ordinary user, by the set-user-id helper `fusermount3`, and answers what comes through it.
pub(crate) fn serve_at(point: &Path, source: &str, view: Arc<View>, transport: Transport) -> io::Result<Arc<Kernel>> {
    // The helper takes a comma for the end of an option.
    let source = source.replace('\\', "\\\\").replace(',', "\\,");
    let options = [format!("fsname={source}"), "subtype=mojavefs".to_owned(), "default_permissions".to_owned()];
    let device = mount_helper::mount(point, &options)?;
    let kernel = serve(device, view, transport, None);
    if kernel.is_err() {
        drop(mount::unmount(point, true));
    }
    kernel
}

impl Kernel {
    /// The view it sees.
    pub(crate) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Waits until the mount is gone and everything asked was answered.
    pub(crate) fn join(&self) -> io::Result<()> {
        let joined = match &self.connection {
            Answering::Own(connection) => connection.join(),
            Answering::Fuser(connection) => connection.join(),
        };
        self.parked.end();
        joined
    }

    /// These are about to change: the kernel gets what was found for it before, forgets it, and has directories that it reads read to
    /// the end. As for [`Kernel::invalidate`].
    pub(crate) fn forget(self: &Arc<Self>, what: Vec<Invalidation>, all_names: bool) {
        if !self.view.wait_until_given(GIVE_TIME_MAX) {
            tracing::warn!("view {} has not been answered for {} s", self.view.id(), GIVE_TIME_MAX.as_secs());
        }
        let directories = what.iter().filter_map(|what| match what {
            Invalidation::Inode(ino) => Some(*ino),
            Invalidation::Attributes(_) | Invalidation::Entry { .. } => None,
        });
        directories.for_each(|ino| self.view.finish_listings(ino));
        self.invalidate(what, all_names);
    }

    /// Makes the kernel look these up again, as far as it knows them. Must not be called by a thread that answers it,
    /// nor with a lock held that such a thread takes, unless only attributes are told.
    ///
    /// To be told of a name the kernel locks its directory. It holds that lock, too, from when it asks for a name until it
    /// remembers the answer, so an answer under way is not believed afterwards.
    pub(crate) fn invalidate(self: &Arc<Self>, mut what: Vec<Invalidation>, mut all_names: bool) {
        if !*NAMES_ARE_TOLD {
            let others = what.len();
            what.retain(|what| !matches!(what, Invalidation::Entry { .. }));
            all_names |= what.len() < others;
        }
        if is_planted(Planted::NameKept) {
            what.retain(|what| !matches!(what, Invalidation::Entry { .. }));
            all_names = false;
        }
        match self.view.decision_wait() {
            Some(wait) => {
                // It keeps none.
                what.retain(|what| !matches!(what, Invalidation::Entry { .. }));
                all_names = false;
                self.invalidate_aside(what, wait);
            }
            None => {
                self.view.while_names_are_told(|| what.iter().for_each(|what| self.invalidate_one(what)));
                self.view.told(&what);
            }
        }
        if all_names && let Err(error) = self.invalidate_names().or_else(harmless) {
            tracing::error!("invalidating all names of view {}: {error}", self.view.id());
        }
    }

    /// Nobody can tell any more what is so: the kernel forgets all that it was told, so that whoever looks is told that.
    pub(crate) fn forget_all(&self) {
        let known = self.view.known().into_iter().chain([Ino::ROOT]);
        known.for_each(|ino| self.invalidate_one(&Invalidation::Inode(ino)));
        if let Err(error) = self.invalidate_names().or_else(harmless) {
            tracing::warn!("invalidating all names of view {}: {error}", self.view.id());
        }
    }

    /// What was shown is undone, and all who should have it open have ended: if somebody has a file open still `in_time`, which is one
    /// to whom it was passed on, the kernel forgets all that it was told, so that nobody reads on from its pages.
    pub(crate) fn forget_what_is_open(&self, in_time: Duration) {
        let deadline = Instant::now() + in_time;
        // Most often that is known already: a kernel says so before a process is gone.
        let mut pause = POLL_INTERVAL / 64;
        while self.view.open_files() > 0 {
            if Instant::now() >= deadline {
                return self.forget_all();
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(POLL_INTERVAL);
        }
    }

    /// Where programs wait for decisions the kernel has locked what they wait for. Nobody else shall wait with them: what is
    /// held up is left to a thread of its own, which is through as soon as the program goes on.
    fn invalidate_aside(self: &Arc<Self>, what: Vec<Invalidation>, wait: &WaitForDecision) {
        let rest = Arc::new(Mutex::new(VecDeque::from(what)));
        while !rest.lock().is_empty() {
            let (one_is_done, progress) = channel();
            let (kernel, queue) = (self.clone(), rest.clone());
            let work = move || {
                while let Some(what) = { queue.lock().pop_front() } {
                    kernel.invalidate_one(&what);
                    if one_is_done.send(()).is_err() {
                        return;
                    }
                }
            };
            if let Err(error) = mojavefs_threads::detached("mojavefs-notice", work) {
                tracing::error!("a thread that invalidates, for view {}: {error}", self.view.id());
                return rest.lock().drain(..).for_each(|what| self.invalidate_one(&what));
            }
            loop {
                match progress.recv_timeout(HELD_UP_TIME) {
                    Err(RecvTimeoutError::Timeout) if wait.is_waiting() => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                }
            }
        }
    }

    fn invalidate_one(&self, what: &Invalidation) {
        let result = match what {
            Invalidation::Inode(_) | Invalidation::Attributes(_) if is_planted(Planted::SizeKept) => Ok(()),
            Invalidation::Inode(ino) if self.view.knows(*ino) => self.invalidate_content(*ino),
            Invalidation::Attributes(ino) if self.view.knows(*ino) => self.notifier.tell(&attributes_of(*ino)),
            Invalidation::Entry { parent, name } if self.view.knows(*parent) => {
                self.notifier.tell(&Notice::Name { parent: parent.0, name })
            }
            _ => Ok(()),
        };
        if let Err(error) = result.or_else(harmless) {
            tracing::warn!("invalidating {what:?} in view {}: {error}", self.view.id());
        }
    }

    /// Attributes and content, but for what is just being read: whoever reads that may wait for others.
    fn invalidate_content(&self, ino: Ino) -> io::Result<()> {
        if is_planted(Planted::StalePage) {
            return self.notifier.tell(&attributes_of(ino));
        }
        let parts = self.parked.not_being_read(ino);
        let last = parts.len() - 1;
        parts.into_iter().enumerate().try_for_each(|(part, (at, length))| {
            // The last one has no end.
            let length = if part == last { 0 } else { length };
            self.notifier.tell(&Notice::Inode { ino: ino.0, from: at.cast_signed(), length: length.cast_signed() })
        })
    }

    fn invalidate_names(&self) -> io::Result<()> {
        self.notifier.tell(&Notice::AllNames)
    }
}

/// The kernel drops the mode that it has kept of a file. It runs a file by that, and asks nobody before. May be called by who answers it.
pub(super) fn drop_mode(notifier: &Notifier, ino: Ino) {
    if let Err(error) = notifier.tell(&attributes_of(ino)).or_else(harmless) {
        tracing::error!("a kernel may go on running inode {ino} as its owner, whose set-id bits are gone: {error}");
    }
}

/// Its attributes, and none of its bytes.
fn attributes_of(ino: Ino) -> Notice<'static> {
    Notice::Inode { ino: ino.0, from: -1, length: 0 }
}

/// Whether this kernel can be told of one name after another, and nothing is lost.
static NAMES_ARE_TOLD: LazyLock<bool> = LazyLock::new(|| {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    version(&release).is_some_and(|version| version < NAMES_GET_LOST_SINCE)
});

/// Major and minor number of a kernel, by what it says of itself.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The kernel, to be told to write out.
pub(super) struct Pages<'a>(pub(super) &'a Notifier);

impl WritesOut for Pages<'_> {
    fn write_out(&self, ino: Ino, from: u64, to: Option<u64>) {
        let length = to.map_or(0, |to| to - from);
        let told = self.0.tell(&Notice::Inode { ino: ino.0, from: from.cast_signed(), length: length.cast_signed() });
        if let Err(error) = told.or_else(harmless) {
            tracing::warn!("writing out inode {ino}: {error}");
        }
    }
}

/// The kernel dropped it on its own, or the mount is gone.
fn harmless(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENOTCONN | libc::ENOTDIR | libc::ENOTEMPTY) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_kernel_is_known_by_what_it_says() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("6.19"), Some((6, 19)));
        assert_eq!(version("7.0-rc3+"), Some((7, 0)));
        assert_eq!(version("7-something"), None);
        assert_eq!(version(""), None);
        assert!(version("6.9.1") < version("6.16.0") && version("6.19.0") >= Some(super::NAMES_GET_LOST_SINCE));
    }
}
