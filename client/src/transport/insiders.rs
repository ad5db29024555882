//! Whose requests a view answers that shows undecided work: those of the job's processes, or of the process that speculates and what it
//! has started. Others reach it through `/proc/PID/cwd`, `/proc/PID/fd` or a descriptor that was passed to them, and would see
//! undecided work without depending on it.

use crate::job::namespace;
use crate::limits::{ANCESTORS_MAX, INSIDER_KNOWN_TIME, INSIDERS_KNOWN_MAX};
use mojavefs_fuse::protocol::Operation;
use mojavefs_procfs::process::Birth;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

/// The kernel's own process, from which all its threads come.
const KERNEL_THREADS: u32 = 2;

/// The processes of a job, or one that speculates with those that it has started.
pub(crate) struct Insiders {
    /// The process that supervises the job, or speculates; the others come from it. What loses its parent becomes a child of who
    /// supervises it.
    holder: u32,
    /// Where it runs: the place is its own, and that of those who come from it.
    ///
    /// The number, since who has it open keeps its mounts. No other has that number before the view ends.
    namespace: Option<u64>,
    /// The threads that were found to be inside, and when.
    known: Mutex<HashMap<u32, Instant>>,
}

impl Insiders {
    /// Those of this process. Nothing if requests may name processes by numbers that mean others here.
    pub(crate) fn of(holder: u32) -> Option<Insiders> {
        let numbers = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let here = numbers("self")?;
        (numbers(&holder.to_string())? == here).then(|| Insiders {
            holder,
            namespace: namespace::number_of(holder),
            known: Mutex::default(),
        })
    }

    /// Whether a request is to be carried out. Whoever holds a file may close it.
    pub(super) fn admit(&self, thread: u32, operation: &Operation<'_>) -> bool {
        let is_end = matches!(
            operation,
            Operation::Forget(_)
                | Operation::Flush { .. }
                | Operation::Release { .. }
                | Operation::Releasedir { .. }
                | Operation::Statfs
                | Operation::Destroy
        );
        is_end || self.knows(thread) || self.find(thread)
    }

    fn knows(&self, thread: u32) -> bool {
        // Write-out and read-ahead of the kernel's own, or a process that can't be seen from here.
        thread == 0 || self.known.lock().get(&thread).is_some_and(|since| since.elapsed() < INSIDER_KNOWN_TIME)
    }

    fn find(&self, thread: u32) -> bool {
        let is_inside = self.namespace.is_some_and(|here| namespace::number_of(thread) == Some(here))
            || Path::new("/proc/self/task").join(thread.to_string()).exists()
            || self.comes_from_holder(thread);
        if is_inside {
            let mut known = self.known.lock();
            if known.len() >= INSIDERS_KNOWN_MAX {
                known.clear();
            }
            known.insert(thread, Instant::now());
        }
        is_inside
    }

    /// What can't be seen has ended meanwhile, and hears no answer.
    fn comes_from_holder(&self, thread: u32) -> bool {
        let mut at = thread;
        for _ in 0..ANCESTORS_MAX {
            if at == self.holder || at == KERNEL_THREADS {
                return true;
            }
            // Of a thread it is the parent of its process.
            match Birth::of(at.cast_signed()).map(|birth| birth.parent.cast_unsigned()) {
                Some(0 | 1) => return false,
                Some(parent) => at = parent,
                None => return at == thread,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::parent_id;

    #[test]
    fn who_comes_from_the_holder_is_inside() {
        let holder = |pid| Insiders { holder: pid, namespace: None, known: Mutex::default() };
        let me = std::process::id();
        assert!(holder(parent_id()).comes_from_holder(me) && holder(me).comes_from_holder(me));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a child");
        assert!(!holder(child.id()).comes_from_holder(parent_id()), "its grandparent");
        assert!(holder(me).find(child.id()) && !holder(child.id()).comes_from_holder(me));
        child.kill().and_then(|()| child.wait()).expect("it ends");
        assert!(holder(me).comes_from_holder(KERNEL_THREADS));
    }
}
