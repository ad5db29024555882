//! The locks that the programs of one view have asked for (`flock`, `fcntl`), as far as that must be known here: the server has the table.

use crate::limits::OFFER_STEP;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{LockAsked, LockClass, LockOwner, Unlocked};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

/// Who has asked for locks since they were last let go of, and who waits for one.
#[derive(Default)]
pub(crate) struct Locks {
    /// By file: the owners, and through which open file.
    asked: Mutex<HashMap<Ino, HashSet<(LockOwner, u64)>>>,
    /// The files on which somebody has asked for a lock that ends when the file is closed by any descriptor, while the kernel knew them.
    files: Mutex<HashSet<Ino>>,
    /// Anybody ever has: else nobody need look.
    is_used: AtomicBool,
    offers: Mutex<Offers>,
    some_are_known: Condvar,
}

/// What is known of how many locks were offered to those that wait.
#[derive(Default)]
struct Offers {
    known: u64,
    /// Somebody is asking.
    under_way: bool,
}

impl Locks {
    /// Somebody is about to ask for a lock.
    pub(crate) fn note(&self, ino: Ino, asked: &LockAsked) {
        self.is_used.store(true, Ordering::SeqCst);
        if asked.owner.class == LockClass::Range {
            self.files.lock().insert(ino);
        }
        self.asked.lock().entry(ino).or_default().insert((asked.owner, asked.handle));
    }

    /// Somebody has closed a file. Whether that may have locks.
    pub(crate) fn has_closed(&self, ino: Ino, whose: Unlocked) -> bool {
        if !self.is_used.load(Ordering::SeqCst) {
            return false;
        }
        let mut all = self.asked.lock();
        let Some(asked) = all.get_mut(&ino) else { return false };
        let before = asked.len();
        asked.retain(|(owner, handle)| match whose {
            Unlocked::Owner(closing) => *owner != closing,
            Unlocked::Handle(closed) => *handle != closed,
        });
        let is_theirs = asked.len() < before;
        if asked.is_empty() {
            all.remove(&ino);
        }
        is_theirs
    }

    /// Whether anybody has ever asked for a lock on a file while the kernel knew it.
    pub(crate) fn were_asked_for(&self, ino: Ino) -> bool {
        self.is_used.load(Ordering::SeqCst) && self.files.lock().contains(&ino)
    }

    /// The kernel knows a file no more: nobody has it open.
    pub(crate) fn forget(&self, ino: Ino) {
        if self.is_used.load(Ordering::SeqCst) {
            self.asked.lock().remove(&ino);
            self.files.lock().remove(&ino);
        }
    }

    /// How many locks are known to have been offered. To be read before a lock is asked for.
    pub(crate) fn offers(&self) -> u64 {
        self.offers.lock().known
    }

    /// Waits until more are known to have been offered than `seen`, or for a while: one of those that wait asks for all.
    pub(crate) fn wait_past(&self, seen: u64, ask: impl Fn(u64) -> Result<u64, Fault>) -> Result<(), Fault> {
        let mut offers = self.offers.lock();
        if offers.known != seen {
            return Ok(());
        }
        if offers.under_way {
            self.some_are_known.wait_for(&mut offers, OFFER_STEP);
            return Ok(());
        }
        offers.under_way = true;
        drop(offers);
        let answer = ask(seen);
        let mut offers = self.offers.lock();
        offers.under_way = false;
        if let Ok(known) = answer {
            offers.known = known;
        }
        self.some_are_known.notify_all();
        answer.map(drop)
    }
}
