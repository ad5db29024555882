//! A mount whose store lies on a disk that does not answer until it is told to.

use super::jobs::Running;
use super::programs::{SUBJECTS, preloaded};
use super::{Mount, until};
use std::cell::Cell;
use std::fs;

/// The disk under a mount: syncs of it wait, in the order in which they were begun, from when it stops until it goes on.
pub struct SlowDisk {
    /// The mount.
    pub mount: Mount,
    /// How many syncs were answered since it stopped.
    answered: Cell<u64>,
}

impl SlowDisk {
    /// A mount on such a disk, which is quick at first. The disk is a library that is put before the C library of the daemon.
    pub fn new() -> Self {
        let mut mount = Mount::beside_its_store();
        let library = preloaded(&mount, SUBJECTS, "slow_disk");
        mount.environment = vec![("LD_PRELOAD", library), ("SLOW_DISK", mount.beside("disk"))];
        fs::create_dir(mount.beside("disk")).expect("a directory");
        mount.mount();
        mount.watch();
        SlowDisk { mount, answered: Cell::new(0) }
    }

    /// From now on no sync is answered.
    pub fn stops(&self) {
        fs::write(self.mount.beside("disk/begun"), "").expect("a file");
        self.let_through(0);
        fs::write(self.mount.beside("disk/slow"), "").expect("a file");
    }

    /// Every sync is answered.
    pub fn goes_on(&self) {
        fs::remove_file(self.mount.beside("disk/slow")).expect("it was slow");
    }

    /// How many syncs were begun since it stopped.
    pub fn begun(&self) -> u64 {
        fs::metadata(self.mount.beside("disk/begun")).expect("it is slow").len()
    }

    /// Answers one sync, if one waits. Whether one did.
    pub fn answers_one(&self) -> bool {
        let waits = self.begun() > self.answered.get();
        if waits {
            self.let_through(self.answered.get() + 1);
        }
        waits
    }

    fn let_through(&self, syncs: u64) {
        self.answered.set(syncs);
        let (new, name) = (self.mount.beside("disk/new"), self.mount.beside("disk/answered"));
        fs::write(&new, syncs.to_string()).and_then(|()| fs::rename(new, name)).expect("a file");
    }

    /// A job that has done this, is through, and whose commit waits for the disk, which has stopped.
    pub fn committing(&self, script: &str) -> Running<'_> {
        let job = self.mount.start("job", &[], script);
        let spec = job.spec();
        self.stops();
        job.let_exit(0);
        self.until_committing(spec);
        job
    }

    /// Answers syncs until the record of this speculation's commit waits for one.
    fn until_committing(&self, spec: u64) {
        until("the record waits for the disk", || {
            if self.begun() == self.answered.get() {
                return false;
            }
            // A sync waits. If the commit is not at its record now, it is not the one that the record waits for.
            let is_committing = |status: &serde_json::Value| status["id"] == spec && status["state"] == "committing";
            let committing = self.mount.status().iter().any(is_committing);
            if !committing {
                self.answers_one();
            }
            committing
        });
    }
}

impl Default for SlowDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        // Whatever waits ends, so that the mount does.
        let _ = fs::remove_file(self.mount.beside("disk/slow"));
    }
}
