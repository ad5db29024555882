//! An open directory: what has been read of it so far, so that every offset keeps its meaning.

use crate::deliveries;
use crate::entered::{Entered, Place};
use crate::limits::{LISTING_LOCK_TIME_MAX, LISTING_TRIES_MAX};
use crate::patience::{Asking, Patience};
use crate::view::View;
use mojavefs::id::Ino;
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::DirEntry;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicU64, Ordering};

/// An open directory, as its handle leads to it.
pub(crate) struct OpenDir {
    ino: Ino,
    /// What was read since this entry of the view is undone; `u64::MAX` if nothing is.
    undone_since: AtomicU64,
    listing: Mutex<Listing>,
}

impl OpenDir {
    pub(crate) fn new(ino: Ino) -> Self {
        let listing = Mutex::new(Listing { ino, read: Vec::new() });
        OpenDir { ino, undone_since: AtomicU64::new(u64::MAX), listing }
    }

    /// The directory.
    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    /// It is about to change: if it is being read, it is read to the end, as it is. Not where a reader waits for others in the midst of
    /// that.
    pub(crate) fn finish(&self, view: &View) {
        let Some(listing) = self.listing.try_lock_for(LISTING_LOCK_TIME_MAX) else { return };
        let mut reader = Reader { dir: self, listing };
        if !reader.listing.is_under_way() {
            return;
        }
        let asking = Asking::for_process(0, Patience::Never);
        if let Err(fault) = reader.entry(view, usize::MAX) {
            tracing::debug!("reading directory {} of view {} to the end: {fault}", self.ino, view.id());
        }
        drop((asking, deliveries::take()));
    }

    /// What was read since that entry of the view is undone. Waits for nobody who reads at this moment.
    pub(crate) fn undo(&self, since: u64) {
        self.undone_since.fetch_min(since, Ordering::SeqCst);
    }

    /// Waits for whoever else reads it.
    pub(crate) fn lock(&self) -> Reader<'_> {
        Reader { dir: self, listing: self.listing.lock() }
    }
}

/// One who reads an open directory, alone.
pub(crate) struct Reader<'a> {
    dir: &'a OpenDir,
    listing: MutexGuard<'a, Listing>,
}

impl Reader<'_> {
    /// Starts over: the directory is read anew.
    pub(crate) fn rewind(&mut self, view: &View) {
        self.forget_undone();
        view.with_entered(|entered| self.listing.go_on(entered).start_over());
    }

    /// The entry at a position, reading on as needed; nothing at the end.
    pub(crate) fn entry(&mut self, view: &View, position: usize) -> Result<Option<&DirEntry>, Fault> {
        loop {
            self.forget_undone();
            let (place, after) = view.with_entered(|entered| (entered.place(), self.listing.missing(position)));
            let Some(after) = after else { break };
            let (page, end) = view.pages(self.listing.ino, after)?;
            view.with_entered(|entered| {
                // Else nobody knows of which speculation it is.
                if entered.place() == place {
                    self.listing.go_on(entered).add(page, end);
                }
            });
        }
        Ok(self.listing.read.last().and_then(|read| read.entries.get(position)))
    }

    /// The directory.
    pub(crate) fn ino(&self) -> Ino {
        self.listing.ino
    }

    fn forget_undone(&mut self) {
        let since = self.dir.undone_since.swap(u64::MAX, Ordering::SeqCst);
        self.listing.read.retain(|read| read.since < since);
    }
}

/// A page of a directory.
pub(crate) struct Page {
    pub(crate) entries: Vec<DirEntry>,
    pub(crate) end: bool,
    /// The view is told before a decision changes the directory.
    pub(crate) lasts: bool,
    /// The last decision that has changed it.
    pub(crate) decision: u64,
}

impl View {
    /// What comes in a directory after a name, and whether that is all: a page, or all of it where others' decisions could come in
    /// between. So one listing shows it as it was at one time.
    fn pages(&self, ino: Ino, after: Option<Vec<u8>>) -> Result<(Vec<DirEntry>, bool), Fault> {
        for _ in 0..LISTING_TRIES_MAX {
            let mut page = self.page(ino, after.as_deref())?;
            // Who waits for decisions is told of them when it need not wait any more.
            if page.end || page.lasts && self.decision_wait().is_none() {
                return Ok((page.entries, page.end));
            }
            let (decision, mut all) = (page.decision, page.entries);
            loop {
                page = self.page(ino, all.last().map(|entry| &entry.name[..]))?;
                if page.decision != decision {
                    break;
                }
                let is_all = page.end || page.entries.is_empty();
                all.append(&mut page.entries);
                if is_all {
                    return Ok((all, true));
                }
            }
        }
        Err(Fault::new(FaultKind::Busy, format!("others change directory {ino} all the time; try again later")))
    }
}

/// What was read of a directory, the latest last. Below it lies what had been read when the view went into speculations that
/// it may come back from, each if more was read since.
struct Listing {
    ino: Ino,
    read: Vec<Read>,
}

/// The entries of a directory, `.` and `..` first.
#[derive(Clone)]
struct Read {
    /// The entry of the view since which it was read.
    since: u64,
    entries: Vec<DirEntry>,
    complete: bool,
}

impl Listing {
    /// Somebody has read some of it, and not all.
    fn is_under_way(&self) -> bool {
        self.read.last().is_some_and(|read| !read.complete && read.entries.len() > 2)
    }

    /// After which name more must be read for a position; nothing if what there is says what is there.
    fn missing(&self, position: usize) -> Option<Option<Vec<u8>>> {
        let Some(read) = self.read.last() else { return Some(None) };
        // Whether `.` and `..` are there is known with the first page: one that was removed has nothing.
        let is_known = read.complete || read.entries.len() > 2 && position < read.entries.len();
        (!is_known).then(|| read.entries.get(2..).and_then(<[DirEntry]>::last).map(|entry| entry.name.clone()))
    }

    /// What is to be changed where the view is now: what was read before it went there is kept beside.
    fn go_on(&mut self, entered: &Entered) -> &mut Read {
        let Place { since, .. } = entered.place();
        match self.read.last() {
            None => self.read.push(Read { since, entries: dots(self.ino), complete: false }),
            Some(read) if read.since < since => {
                let copy = Read { since, ..read.clone() };
                self.read.push(copy);
                self.drop_unneeded(entered);
            }
            Some(_) => {}
        }
        let last = self.read.len() - 1;
        &mut self.read[last]
    }

    /// Drops what the view can't come back to any more.
    fn drop_unneeded(&mut self, entered: &Entered) {
        let later: Vec<u64> = self.read.iter().skip(1).map(|read| read.since).collect();
        let mut at = 0;
        self.read.retain(|read| {
            let next = later.get(at);
            at += 1;
            next.is_none_or(|next| entered.entries().any(|entry| read.since < entry && entry <= *next))
        });
    }
}

impl Read {
    fn start_over(&mut self) {
        if !is_planted(Planted::ListingKept) {
            self.entries.truncate(2);
            self.complete = false;
        }
    }

    fn add(&mut self, page: Vec<DirEntry>, end: bool) {
        self.complete = end || page.is_empty();
        self.entries.extend(page);
    }
}

fn dots(ino: Ino) -> Vec<DirEntry> {
    let dot = |name: &[u8]| DirEntry { name: name.to_vec(), ino, kind: FileKind::Directory };
    vec![dot(b"."), dot(b"..")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::id::SpecId;

    fn page(names: &[&str]) -> Vec<DirEntry> {
        let entry = |name: &&str| DirEntry { name: name.as_bytes().to_vec(), ino: Ino(9), kind: FileKind::Regular };
        names.iter().map(entry).collect()
    }

    fn names(dir: &OpenDir) -> String {
        let mut reader = dir.lock();
        reader.forget_undone();
        let names = |read: &Read| {
            let names = read.entries.iter().skip(2).map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        reader.listing.read.last().map(names).unwrap_or_default()
    }

    fn read_on(dir: &OpenDir, entered: &Entered, more: &[&str], end: bool) {
        dir.lock().listing.go_on(entered).add(page(more), end);
    }

    #[test]
    fn what_was_read_in_what_is_undone_is_read_again_and_what_was_read_before_is_kept() {
        let (dir, mut entered) = (OpenDir::new(Ino(2)), Entered::default());
        read_on(&dir, &entered, &["a", "b"], false);
        entered.enter(SpecId(1));
        read_on(&dir, &entered, &["undone"], true);
        assert_eq!(names(&dir), "a b undone");
        dir.undo(entered.undo(SpecId(1)));
        assert_eq!((names(&dir), dir.lock().listing.missing(4)), ("a b".to_owned(), Some(Some(b"b".to_vec()))));
        read_on(&dir, &entered, &["c"], true);
        assert_eq!(names(&dir), "a b c");
    }

    #[test]
    fn one_who_starts_over_and_goes_back_has_what_was_read_before() {
        let (dir, mut entered) = (OpenDir::new(Ino(2)), Entered::default());
        read_on(&dir, &entered, &["a", "b"], true);
        entered.enter(SpecId(1));
        dir.lock().listing.go_on(&entered).start_over();
        read_on(&dir, &entered, &["undone"], true);
        assert_eq!(names(&dir), "undone");
        dir.undo(entered.undo(SpecId(1)));
        assert_eq!(names(&dir), "a b");
    }

    #[test]
    fn what_was_first_read_in_what_is_undone_was_never_read() {
        let (dir, mut entered) = (OpenDir::new(Ino(2)), Entered::default());
        entered.enter(SpecId(1));
        read_on(&dir, &entered, &["undone"], true);
        dir.undo(entered.undo(SpecId(1)));
        assert_eq!((names(&dir), dir.lock().listing.missing(2)), (String::new(), Some(None)));
    }

    #[test]
    fn what_was_read_in_what_has_become_part_of_something_else_is_undone_with_that() {
        let (dir, mut entered) = (OpenDir::new(Ino(2)), Entered::default());
        read_on(&dir, &entered, &["a"], false);
        entered.enter(SpecId(1));
        entered.enter(SpecId(2));
        read_on(&dir, &entered, &["b"], false);
        entered.keep(SpecId(2));
        assert_eq!(names(&dir), "a b");
        dir.undo(entered.undo(SpecId(1)));
        assert_eq!(names(&dir), "a");
    }

    #[test]
    fn however_often_it_goes_in_and_stays_little_is_kept() {
        let (dir, mut entered) = (OpenDir::new(Ino(2)), Entered::default());
        entered.enter(SpecId(1));
        for number in 2..1000 {
            entered.enter(SpecId(number));
            read_on(&dir, &entered, &["a"], false);
            entered.keep(SpecId(number));
        }
        assert!(dir.lock().listing.read.len() <= 3);
        assert_eq!(names(&dir).len(), 2 * 998 - 1);
        dir.undo(entered.undo(SpecId(1)));
        assert_eq!(names(&dir), "");
    }
}
