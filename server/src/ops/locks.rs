//! Locks on inodes: striped, so that their number is fixed.

use crate::limits::STRIPES;
use mojavefs::id::Ino;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A fixed set of locks that all inodes share. Whoever changes a name holds its directory's, whoever changes a file or
/// its attributes holds the file's; whoever reads content holds the file's as one of many.
pub(crate) struct Stripes([RwLock<()>; STRIPES]);

/// Some inodes are locked against change while this lives.
pub(crate) struct Locked<'a>(#[expect(dead_code, reason = "held, never read")] Vec<RwLockWriteGuard<'a, ()>>);

impl Stripes {
    pub(crate) fn new() -> Self {
        Stripes(std::array::from_fn(|_| RwLock::new(())))
    }

    fn index(ino: Ino) -> usize {
        (ino.0 % STRIPES as u64) as usize
    }

    /// Locks all of `inos`, in one order for everybody. Blocks.
    pub(crate) fn lock(&self, inos: &[Ino]) -> Locked<'_> {
        let mut stripes: Vec<usize> = inos.iter().map(|ino| Self::index(*ino)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        Locked(stripes.into_iter().map(|i| self.0[i].write()).collect())
    }

    /// Keeps `ino` from being changed, together with other readers. Blocks.
    pub(crate) fn share(&self, ino: Ino) -> RwLockReadGuard<'_, ()> {
        self.0[Self::index(ino)].read()
    }
}
