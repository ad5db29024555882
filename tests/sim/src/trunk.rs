//! What is done and seen outside of every job.

use crate::mount::Mount;
use crate::world::{CELLS, COUNTERS, Stored, World, number_in, text_of};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use std::collections::BTreeSet;

/// How many names of a listing are taken at a time.
const LISTED_AT_ONCE: usize = 4;

/// A listing of the root that is under way.
pub(crate) struct Listing {
    dir: u64,
    next: u64,
    names: Vec<String>,
    /// How many decisions there had been when it began.
    since: u64,
}

impl World {
    pub(crate) fn count_on_trunk(&self) {
        let (number, trunk) = (self.below(COUNTERS as u64) as usize, self.trunk());
        let ino = self.files.counters[number];
        let counted = trunk.read(ino, false).and_then(|bytes| {
            let count = number_in(&bytes) + 1;
            trunk.write(ino, 0, text_of(count).as_bytes()).map(|()| count)
        });
        match counted {
            Ok(count) => {
                self.say(|| format!("trunk writes to {number}: {count}"));
                self.on_trunk.borrow_mut()[number] += 1;
            }
            Err(fault) => self.refused("count on trunk", &fault),
        }
    }

    /// A byte that nobody has stored yet.
    pub(crate) fn free_cell(&self) -> Option<usize> {
        let cell = self.below(CELLS as u64) as usize;
        (!self.stored.borrow().contains_key(&cell)).then_some(cell)
    }

    pub(crate) fn store_on_trunk(&self) {
        let Some(cell) = self.free_cell() else { return };
        match self.trunk().store(self.files.cells, cell, b'x') {
            Ok(()) => {
                self.say(|| format!("trunk stores to byte {cell}"));
                self.stored.borrow_mut().insert(cell, Stored { by: None, may_be_lost: false });
            }
            Err(fault) => self.refused("store on trunk", &fault),
        }
    }

    /// What a program on trunk sees, with what its kernel has kept, is what is so now: whatever else it has looked at, it sees nothing
    /// older; and of each commit it sees all or nothing.
    pub(crate) fn look_on_trunk(&self) {
        let name = self.some_name();
        self.look(&self.trunk(), "trunk", &name, true);
        self.look_at_cells();
    }

    /// A name that somebody has made, or nobody.
    pub(crate) fn some_name(&self) -> String {
        let jobs = self.jobs.borrow();
        let names: Vec<&String> = jobs.iter().flat_map(|job| &job.made).collect();
        let which = if names.is_empty() { 0 } else { self.below(names.len() as u64) as usize };
        names.get(which).map_or("nothing".to_owned(), |name| format!("{name}-1"))
    }

    /// Compares what a kernel has with what is there, unless others act meanwhile. `whole` if it sees all of each commit or nothing.
    pub(crate) fn look(&self, mount: &Mount, who: &str, name: &str, whole: bool) {
        let counter = self.below(COUNTERS as u64) as usize;
        let before = self.counts().steps;
        let looked = self.look_at(mount, counter, name);
        let is_alone = self.counts().steps == before;
        match looked {
            Ok((bytes, sizes, names)) if is_alone => {
                self.say(|| format!("{who} looks: {bytes:?} {sizes:?} {names:?}"));
                assert_eq!(bytes.0, bytes.1, "{who}: bytes that the kernel has kept, and those that are there");
                assert_eq!(sizes.0, sizes.1, "{who}: a size that the kernel has kept, and the one that there is");
                assert_eq!(names.0, names.1, "{who}: what the kernel takes `{name}` for, and what it leads to");
            }
            Ok(_) => {}
            Err(fault) => self.refused("look", &fault),
        }
        let before = self.counts().steps;
        let twins = self.files.twins.map(|ino| mount.read(ino, false).ok());
        if let [Some(one), Some(other)] = twins
            && whole
            && self.counts().steps == before
            && !self.twins_mixed.get()
        {
            assert_eq!(number_in(&one), number_in(&other), "{who}: what is written to both twins");
        }
    }

    /// What others have stored and their kernels have written out is told a moment later; trunk itself is told before it changes.
    fn look_at_cells(&self) {
        let (before, cells, trunk) = (self.counts().steps, self.files.cells, self.trunk());
        let (kept, there) = (trunk.read(cells, false), trunk.read_past(cells));
        let is_alone = self.counts().steps == before && !trunk.has_unwritten(cells);
        if let (Ok(kept), Ok(there), true) = (kept, there, is_alone) {
            assert_eq!(kept, there, "single bytes that trunk's kernel has kept, and those that are there");
        }
    }

    #[expect(clippy::type_complexity, reason = "pairs of what is kept and what is there")]
    fn look_at(
        &self,
        mount: &Mount,
        counter: usize,
        name: &str,
    ) -> Result<((Vec<u8>, Vec<u8>), (u64, u64), (Option<Ino>, Option<Ino>)), Fault> {
        let ino = mount.look_up(format!("counter {counter}").as_bytes())?.expect("a counter stays");
        let bytes = (mount.read(ino, false)?, mount.read_past(ino)?);
        let sizes = (mount.size(ino)?, mount.size_past(ino)?);
        let names = (mount.look_up(name.as_bytes())?, mount.look_up_past(name.as_bytes())?);
        Ok((bytes, sizes, names))
    }

    /// Lists some more of the root. Whatever is committed meanwhile, a listing shows it as it was at one time.
    pub(crate) fn list_on_trunk(&self) {
        let trunk = self.trunk();
        let listing = self.listing.take();
        let mut listing = listing.unwrap_or_else(|| Listing {
            dir: trunk.view.open_dir(Ino::ROOT),
            next: 0,
            names: Vec::new(),
            since: self.decided.get(),
        });
        let listed = trunk.list(listing.dir, listing.next, LISTED_AT_ONCE);
        match listed {
            Ok((names, _)) if names.is_empty() => {
                trunk.view.close_dir(listing.dir);
                self.count(|counts| counts.listed_on += u64::from(self.decided.get() > listing.since));
                self.check_pairs(&listing.names);
            }
            Ok((names, next)) => {
                listing.names.extend(names);
                listing.next = next;
                self.listing.replace(Some(listing));
            }
            Err(fault) => {
                trunk.view.close_dir(listing.dir);
                self.refused("list on trunk", &fault);
            }
        }
    }

    /// Of each pair both are there, or none, and each name once.
    pub(crate) fn check_pairs(&self, names: &[String]) {
        let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(all.len(), names.len(), "a name is listed twice: {names:?}");
        for name in &all {
            let other = match name.rsplit_once('-') {
                Some((pair, "1")) => format!("{pair}-2"),
                Some((pair, "2")) => format!("{pair}-1"),
                _ => continue,
            };
            assert!(all.contains(&*other), "{name} is listed without {other}: {names:?}");
        }
    }
}
