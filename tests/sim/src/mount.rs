//! A mount: a view, and the kernel before it. Its methods are what programs do there; what must wait for others is refused, for the program
//! to try again.

use crate::kernel::Cache;
use crate::{Counts, WORLD};
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{Caller, Connection, Invalidation, Notice, NoticeSink, OnRead, Reads, RenameMode, ViewOwner};
use mojavefs_fs::{Call, Control, Listed, NewFile, Patience, ReadPolicy, Rename, View, Write};
use mojavefs_fs::{deliveries, has_to_wait};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Notes what kernels do, for who looks for a fault.
fn say(what: impl FnOnce() -> String) {
    if let Some(world) = WORLD.with_borrow(Clone::clone) {
        world.say(what);
    }
}

/// How many bytes are read of a file, at most.
const SIZE: u64 = 100;
/// The program that does everything.
const PROGRAM: Caller = Caller { pid: 1, uid: 0, gid: 0 };

pub(crate) struct Mount {
    pub(crate) view: View,
    cache: Mutex<Cache>,
    /// What the kernel writes out and has to wait for: it tries again.
    waiting: Mutex<Vec<Waiting>>,
    counts: Mutex<Counts>,
    /// What it wrote out was refused: `syncfs` says so.
    has_lost: AtomicBool,
    /// How many directories are being listed.
    lists: AtomicUsize,
    /// Its programs look at no undecided work.
    fails: bool,
    /// The names of the files that are there from the beginning.
    names: Arc<Names>,
}

/// A page that is written out as soon as may be, as a write where it was asked for.
struct Waiting {
    write: Write,
    /// What the page was then.
    before: Option<Vec<u8>>,
    bytes: Vec<u8>,
}

pub(crate) type Names = HashMap<Ino, String>;

impl Mount {
    /// Of a view that was opened.
    pub(crate) fn new(
        ask: Arc<dyn Connection>,
        id: ViewId,
        job: Option<(SpecId, OnRead)>,
        names: Arc<Names>,
    ) -> Arc<Mount> {
        let owner = if job.is_some() { ViewOwner::Job } else { ViewOwner::Trunk };
        let policy = job.map_or_else(ReadPolicy::default, |(spec, on_read)| ReadPolicy {
            asks: false,
            waits: (on_read == OnRead::Wait).then_some((spec, 0)),
            fails: on_read == OnRead::Fail,
        });
        let fails = policy.fails;
        let control = Control { name: "system.mojavefs", value: Vec::new() };
        let view = View::new(ask, id, owner, policy, control);
        let (cache, waiting, counts, has_lost, lists) = Default::default();
        Arc::new(Mount { view, cache, waiting, counts, has_lost, lists, fails, names })
    }

    /// What there was, to be counted.
    pub(crate) fn counts(&self) -> Counts {
        *self.counts.lock()
    }

    /// Asks, as whoever answers a kernel does. What is found reaches it, unless it has forgotten something meanwhile.
    fn ask<T>(
        &self,
        caller: Caller,
        work: impl FnOnce(&Call<'_>) -> Result<T, Fault>,
        keep: impl FnOnce(&mut Cache, &T),
    ) -> Result<T, Fault> {
        let turn = self.cache.lock().turn;
        let found = work(&self.view.call(caller, Patience::Never));
        let under_way = deliveries::take();
        let mut cache = self.cache.lock();
        if let Ok(found) = &found
            && cache.turn == turn
        {
            keep(&mut cache, found);
        }
        drop((cache, under_way));
        found
    }

    fn count(&self, what: impl FnOnce(&mut Counts)) {
        what(&mut self.counts.lock());
    }

    /// Whether the kernel has something of a file that the server does not know yet.
    pub(crate) fn has_unwritten(&self, ino: Ino) -> bool {
        self.cache.lock().dirty.contains(&ino) || self.waiting.lock().iter().any(|waiting| waiting.write.ino == ino)
    }

    /// Before a program does anything with a file, its kernel has looked it up.
    fn open(&self, ino: Ino) -> Result<(), Fault> {
        match self.names.get(&ino).filter(|_| !self.cache.lock().known.contains(&ino)) {
            Some(name) => self.look_up(name.as_bytes()).map(drop),
            None => Ok(()),
        }
    }

    /// What a program reads of a file, which may be what the kernel has kept; `mapped` if the kernel would let it store there.
    pub(crate) fn read(&self, ino: Ino, mapped: bool) -> Result<Vec<u8>, Fault> {
        self.open(ino)?;
        if let Some(kept) = self.cache.lock().bytes.get(&ino).cloned() {
            self.count(|counts| counts.kept += 1);
            return Ok(kept);
        }
        if self.waiting.lock().iter().any(|waiting| waiting.write.ino == ino) {
            return Err(Fault::new(FaultKind::Again, "its page is being written out"));
        }
        let reads = if mapped { Reads::Mapped } else { Reads::Kept };
        let read = self.ask(
            PROGRAM,
            |call| call.read((ino, 0, SIZE), reads),
            |cache, bytes| {
                cache.bytes.insert(ino, bytes.clone());
            },
        );
        if mapped && read.as_ref().is_err_and(|fault| fault.kind == FaultKind::Sealed) {
            self.count(|counts| counts.held_reads += 1);
        }
        read
    }

    /// What is there, whatever the kernel has kept.
    pub(crate) fn read_past(&self, ino: Ino) -> Result<Vec<u8>, Fault> {
        self.open(ino)?;
        self.ask(PROGRAM, |call| call.read((ino, 0, SIZE), Reads::Once), |_, _| ())
    }

    /// How long the kernel takes a file to be.
    pub(crate) fn size(&self, ino: Ino) -> Result<u64, Fault> {
        self.open(ino)?;
        if let Some(kept) = self.cache.lock().sizes.get(&ino) {
            return Ok(*kept);
        }
        let keep = |cache: &mut Cache, (attr, lasts): &mojavefs_fs::Given| match lasts {
            true => drop(cache.sizes.insert(ino, attr.size)),
            false => self.count(|counts| counts.provisional += 1),
        };
        Ok(self.ask(PROGRAM, |call| call.attributes(ino), keep)?.0.size)
    }

    /// The same past the kernel.
    pub(crate) fn size_past(&self, ino: Ino) -> Result<u64, Fault> {
        Ok(self.ask(PROGRAM, |call| call.attributes(ino), |_, _| ())?.0.size)
    }

    /// What a name leads to.
    pub(crate) fn look_up(&self, name: &[u8]) -> Result<Option<Ino>, Fault> {
        if let Some(kept) = self.cache.lock().names.get(name) {
            return Ok(*kept);
        }
        let keep = |cache: &mut Cache, (found, lasts): &(Option<Ino>, bool)| {
            cache.known.extend(*found);
            match lasts {
                true => drop(cache.names.insert(name.to_vec(), *found)),
                false => self.count(|counts| counts.provisional += 1),
            }
        };
        Ok(self.ask(PROGRAM, |call| look_up(call, name), keep)?.0)
    }

    /// The same past the kernel.
    pub(crate) fn look_up_past(&self, name: &[u8]) -> Result<Option<Ino>, Fault> {
        Ok(self.ask(PROGRAM, |call| look_up(call, name), |_, _| ())?.0)
    }

    /// Writes to a file and closes it, so that whoever sees that is told. Where the kernel has the page, it is written, too.
    pub(crate) fn write(&self, ino: Ino, offset: u64, data: &[u8]) -> Result<(), Fault> {
        self.open(ino)?;
        let write = Write { ino, offset, append: false, clear_set_id: false, by_kernel: false };
        self.ask(PROGRAM, |call| call.write(&write, data), |cache, _| cache.write(ino, offset as usize, data))?;
        self.cache.lock().sizes.remove(&ino);
        self.close()
    }

    /// A file that was written to is closed.
    fn close(&self) -> Result<(), Fault> {
        let closed = self.view.call(PROGRAM, Patience::Own).close(false);
        match closed {
            Ok(()) => Ok(()),
            Err(_) => self.view.call(PROGRAM, Patience::Own).close(true),
        }
    }

    /// Makes an empty file.
    pub(crate) fn make(&self, name: &str) -> Result<Ino, Fault> {
        let new = NewFile { kind: FileKind::Regular, mode: 0o644, umask: 0, rdev: 0, target: Vec::new() };
        let keep = |cache: &mut Cache, (attr, lasts): &mojavefs_fs::Given| {
            cache.known.insert(attr.ino);
            match lasts {
                true => cache.names.insert(name.as_bytes().to_vec(), Some(attr.ino)),
                false => cache.names.remove(name.as_bytes()),
            };
        };
        let made = self.ask(PROGRAM, |call| call.create(Ino::ROOT, name.as_bytes(), &new), keep)?.0.ino;
        self.close().map(|()| made)
    }

    /// Renames a file.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Fault> {
        let place = |name: &str| (Ino::ROOT, name.as_bytes().to_vec());
        let rename = Rename { from: place(from), to: place(to), mode: RenameMode::Replace };
        self.ask(PROGRAM, |call| call.rename(&rename), |_, ()| ())?;
        let mut cache = self.cache.lock();
        // The kernel moves what it has under the old name; that the old one is gone it looks up again.
        cache.names.remove(to.as_bytes());
        cache.names.remove(from.as_bytes());
        Ok(())
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Fault> {
        self.ask(PROGRAM, |call| call.unlink(Ino::ROOT, name.as_bytes()), |_, ()| ())?;
        self.cache.lock().names.remove(name.as_bytes());
        Ok(())
    }

    /// Lists the root from a position of an open directory on: so many names, and where to go on.
    pub(crate) fn list(&self, dir: u64, from: u64, count: usize) -> Result<(Vec<String>, u64), Fault> {
        let listed = |call: &Call<'_>| {
            let (mut names, mut next) = (Vec::new(), from);
            call.list_names(dir, from, |entry: Listed<'_>| {
                let has_room = names.len() < count;
                if has_room {
                    names.push(String::from_utf8_lossy(entry.name).into_owned());
                    next = entry.next;
                }
                has_room
            })?;
            Ok((names, next))
        };
        self.lists.fetch_add(1, Ordering::SeqCst);
        let found = self.ask(PROGRAM, listed, |_, _| ());
        self.lists.fetch_sub(1, Ordering::SeqCst);
        found
    }

    /// Stores a byte to a page through a mapping. The kernel writes it out when it likes.
    pub(crate) fn store(&self, ino: Ino, offset: usize, byte: u8) -> Result<(), Fault> {
        self.read(ino, true)?;
        let mut cache = self.cache.lock();
        let page = cache.bytes.get_mut(&ino).and_then(|bytes| bytes.get_mut(offset));
        let Some(page) = page else { return Err(Fault::new(FaultKind::Again, "the page is gone again")) };
        *page = byte;
        cache.dirty.insert(ino);
        Ok(())
    }

    /// The kernel writes out what was stored to the pages of a file, or of all. What has to wait it tries again later.
    pub(crate) fn write_out(&self, only: Option<Ino>) {
        let pages: Vec<(Ino, Vec<u8>)> = {
            let mut cache = self.cache.lock();
            let dirty: Vec<Ino> =
                cache.dirty.iter().copied().filter(|ino| only.is_none_or(|only| only == *ino)).collect();
            cache.dirty.retain(|ino| !dirty.contains(ino));
            let page = |ino: Ino| Some((ino, cache.bytes.get(&ino)?.clone()));
            dirty.into_iter().filter_map(page).collect()
        };
        for (ino, bytes) in pages {
            let write = Write { ino, offset: 0, append: false, clear_set_id: false, by_kernel: true };
            let written = self.ask(Caller::KERNEL, |call| call.write(&write, &bytes), |_, _| ());
            say(|| {
                format!(
                    "view {} writes out {ino}: {}: {:?}",
                    self.view.id(),
                    String::from_utf8_lossy(&bytes),
                    written.as_ref().err().map(|fault| fault.kind)
                )
            });
            if let Err(fault) = written {
                if !self.waits(&fault) {
                    continue;
                }
                let before = self.ask(Caller::KERNEL, |call| call.read((ino, 0, SIZE), Reads::Once), |_, _| ()).ok();
                self.count(|counts| counts.written_later += 1);
                self.waiting.lock().push(Waiting { write, before, bytes });
            }
        }
    }

    /// What had to wait is written out, as far as it need not any more. Whether there is nothing left.
    pub(crate) fn write_out_waiting(&self) -> bool {
        let all = std::mem::take(&mut *self.waiting.lock());
        for waiting in all {
            let Waiting { write, before, bytes } = &waiting;
            let written = self.ask(
                Caller::KERNEL,
                |call| match before {
                    Some(before) => call.write_stored(write, before, bytes),
                    None => call.write(write, bytes),
                },
                |_, _| (),
            );
            match written {
                Err(fault) if self.waits(&fault) => self.waiting.lock().push(waiting),
                _ => {}
            }
        }
        self.waiting.lock().is_empty()
    }

    /// Whether what the kernel writes out has to wait.
    fn waits(&self, fault: &Fault) -> bool {
        match fault.kind {
            // The view is undone, and with it what was stored there.
            FaultKind::Stale => return false,
            _ if has_to_wait(fault) => return true,
            FaultKind::Busy if self.fails => {}
            _ => {
                let fails = WORLD.with_borrow(|world| world.as_ref().is_some_and(|world| world.fails));
                assert!(fails, "what the kernel writes out is refused: {fault}");
            }
        }
        self.has_lost.store(true, Ordering::SeqCst);
        false
    }

    /// Whether something that its programs stored was refused when it was written out.
    pub(crate) fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::SeqCst)
    }

    /// It is told of something, which it forgets; what was stored there is written out first.
    fn is_told(&self, what: &[Invalidation], all_names: bool, is_about_to_change: bool) {
        if is_about_to_change {
            // Where somebody lower in this thread is being answered, that answer is not kept.
            self.view.wait_until_given(Duration::ZERO);
        }
        say(|| format!("view {} is told{}: {what:?}", self.view.id(), if is_about_to_change { " before" } else { "" }));
        for what in what {
            if let Invalidation::Inode(ino) = what {
                // Where somebody lower in this thread lists it, that listing begins again.
                if is_about_to_change && self.lists.load(Ordering::SeqCst) == 0 {
                    self.view.finish_listings(*ino);
                }
                self.write_out(Some(*ino));
            }
            let had = self.cache.lock().forget(what);
            self.count(|counts| counts.forgotten += u64::from(had && is_about_to_change));
        }
        if all_names {
            self.cache.lock().forget_names();
        }
        self.view.told(what);
    }
}

fn look_up(call: &Call<'_>, name: &[u8]) -> Result<(Option<Ino>, bool), Fault> {
    match call.look_up(Ino::ROOT, name) {
        Ok((attr, lasts)) => Ok((Some(attr.ino), lasts)),
        Err(fault) if fault.kind == FaultKind::NotFound => Ok((None, true)),
        Err(fault) if fault.kind == FaultKind::NotFoundNow => Ok((None, false)),
        Err(fault) => Err(fault),
    }
}

/// Brings notices to the mounts.
#[derive(Default)]
pub(crate) struct Mounts(Mutex<HashMap<ViewId, Weak<Mount>>>);

impl Mounts {
    pub(crate) fn add(&self, mount: &Arc<Mount>) {
        self.0.lock().insert(mount.view.id(), Arc::downgrade(mount));
    }

    pub(crate) fn remove(&self, view: ViewId) {
        self.0.lock().remove(&view);
    }
}

impl NoticeSink for Mounts {
    fn deliver(&self, notice: Notice) {
        let is_about_to_change = matches!(notice, Notice::Forget { .. });
        let (Notice::Forget { view, what, all_names } | Notice::Invalidate { view, what, all_names }) = notice else {
            return;
        };
        // Until it is told others go on. The server's own threads have no world.
        if let Some(world) = WORLD.with_borrow(Clone::clone).filter(|_| is_about_to_change) {
            world.waits();
        }
        let mount = self.0.lock().get(&view).and_then(Weak::upgrade);
        if let Some(mount) = mount {
            mount.is_told(&what, all_names, is_about_to_change);
        }
    }
}
