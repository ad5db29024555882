//! A job over directories of the host, where somebody moves or replaces one of these: the view over it does not go along, and what the
//! job writes by its path would reach the host.

use super::supervise;
use crate::sys;
use mojavefs_attach::find::Filesystem;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Watches that the paths of a job's directories lead to its view, and ends its processes when one does not.
pub(crate) struct Guard {
    dirs: Vec<PathBuf>,
    device: (u32, u32),
    over: AtomicBool,
    has_come_off: AtomicBool,
}

impl Guard {
    /// Begins to watch. `device` is the view's. Nothing if the filesystem is not the host's own.
    pub(crate) fn over(filesystem: &Filesystem, device: (u32, u32)) -> io::Result<Option<Arc<Guard>>> {
        if !filesystem.is_host() {
            return Ok(None);
        }
        let dirs = filesystem.host_dirs().map(Path::to_owned).collect();
        let (over, has_come_off) = (AtomicBool::new(false), AtomicBool::new(false));
        let guard = Arc::new(Guard { dirs, device, over, has_come_off });
        let changes = Inotify::init(InitFlags::IN_CLOEXEC)?;
        let what = AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_UNMOUNT;
        for dir in &guard.dirs {
            // The names of the directory itself are the view's.
            for above in dir.ancestors().skip(1) {
                // One that can't be read can't be watched.
                match changes.add_watch(above, what) {
                    Ok(_) | Err(nix::errno::Errno::EACCES) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        let watching = guard.clone();
        let watch = move || {
            while changes.read_events().is_ok() && !watching.over.load(Ordering::SeqCst) {
                watching.look();
            }
        };
        mojavefs_threads::detached("specrun-guard", watch)?;
        // Before it was watched.
        guard.look();
        Ok(Some(guard))
    }

    /// Ends the job's processes if one of the paths leads elsewhere. Whether one does, or has.
    pub(crate) fn look(&self) -> bool {
        let leads_there = |dir: &PathBuf| sys::cached_stat(dir).is_ok_and(|found| found.device == self.device);
        if !self.over.load(Ordering::SeqCst) && !self.dirs.iter().all(leads_there) {
            self.has_come_off.store(true, Ordering::SeqCst);
            supervise::kill_all_but(&[]);
        }
        self.has_come_off.load(Ordering::SeqCst)
    }

    /// The view is about to be taken away.
    pub(crate) fn ends(&self) {
        self.over.store(true, Ordering::SeqCst);
    }
}
