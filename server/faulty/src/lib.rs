//! An engine that loses, fails and fills as machines do, each time in the same way.
//!
//! [`Faulty`] is a place in memory in which a store lies. It keeps what is durable apart from what is not: records that were
//! applied and not synced, pages, lengths, creations and removals of blobs. [`Faulty::plan`] says at which call what goes wrong
//! ([`Fault`]); [`Faulty::crash`] gives the place as a machine might find it after its power was cut. What is lost is chosen by
//! a seed. What may go wrong is what the doors' contracts allow (`docs/engines.md`), and no more.
//!
//! It is a crate of its own so that it can't get into what is shipped.

mod blobs;
mod disk;
mod plan;
mod random;
mod records;

pub use plan::{Call, Counts, Fault, PowerCut};
pub use random::Random;

use blobs::FaultyBlobs;
use disk::Disk;
use mojavefs_server::store::engine::memory::MemorySpace;
use mojavefs_server::store::engine::{
    Access, BlobId, Blobs, Engine, EngineError, Records, Result, Space, SpaceInfo, Taken,
};
use parking_lot::Mutex;
use plan::{Steps, Verdict};
use records::FaultyRecords;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A place in which a store lies, or may be made. Clones are the same place.
#[derive(Clone)]
pub struct Faulty(Arc<Machine>);

/// What all doors of one place share.
struct Machine {
    disk: Mutex<Disk>,
    space: Arc<MemorySpace>,
    steps: Steps,
    is_taken: AtomicBool,
    /// The blobs that are not in memory.
    uncached: Mutex<BTreeSet<BlobId>>,
}

impl Faulty {
    /// A place that is empty, and takes so much.
    pub fn of(capacity_bytes: u64) -> Self {
        Self::on(Disk::default(), MemorySpace::of(capacity_bytes))
    }

    fn on(disk: Disk, space: MemorySpace) -> Self {
        let (disk, space, is_taken) = (Mutex::new(disk), Arc::new(space), AtomicBool::new(false));
        Faulty(Arc::new(Machine { disk, space, steps: Steps::default(), is_taken, uncached: Mutex::default() }))
    }

    /// From now on calls are counted from 1, and at the call of this number, among those that such a fault can hit, it does.
    /// `seed` chooses where there is a choice.
    pub fn plan(&self, fault: Fault, at: u64, seed: u64) {
        self.0.steps.plan(fault, at, seed);
    }

    /// The same at the next call for which `which` is true.
    pub fn plan_next(&self, fault: Fault, which: impl Fn(Call) -> bool + Send + Sync + 'static, seed: u64) {
        self.0.steps.plan_next(fault, Arc::new(which), seed);
    }

    /// Nothing goes wrong any more; what did so far stays.
    pub fn mend(&self) {
        self.0.steps.mend();
    }

    /// There is so much more space, all free.
    pub fn grow(&self, bytes: u64) {
        self.0.space.grow(bytes);
    }

    /// How many calls there were since the last plan.
    pub fn counts(&self) -> Counts {
        self.0.steps.counts()
    }

    /// Whether what was planned has happened.
    pub fn has_struck(&self) -> bool {
        self.0.steps.has_struck()
    }

    /// Calls this before each call of a door, in its thread: to delay it, to hold it up, or to note it.
    pub fn before_each(&self, hook: impl Fn(Call) + Send + Sync + 'static) {
        self.0.steps.before_each(Arc::new(hook));
    }

    /// No blob is in memory any more: each has to be fetched once.
    pub fn drop_cache(&self) {
        *self.0.uncached.lock() = self.0.disk.lock().blobs().into_iter().collect();
    }

    /// The place as it is found after the process was killed. This one is of no use any more.
    pub fn kill(&self) -> Faulty {
        let disk = std::mem::take(&mut *self.0.disk.lock()).after_kill();
        let space = MemorySpace::of(self.0.space.info().map_or(0, |info| info.total_bytes));
        space.take(disk.bytes()).expect("as much lies on the disk as before");
        Faulty::on(disk, space)
    }

    /// The place as it may be found after the power was cut: of what is not durable, `seed` chooses what is there. This one is
    /// of no use any more.
    pub fn crash(&self, seed: u64) -> Faulty {
        let disk = std::mem::take(&mut *self.0.disk.lock()).after_power_cut(&mut Random::new(seed));
        let space = MemorySpace::of(self.0.space.info().map_or(0, |info| info.total_bytes));
        // It was there before.
        space.take(disk.bytes()).expect("less lies on the disk than did before");
        Faulty::on(disk, space)
    }
}

impl Engine for Faulty {
    fn name(&self) -> String {
        "on a faulty disk".into()
    }

    fn take(&self, access: Access) -> Result<Arc<dyn Taken>> {
        let is_made = self.0.disk.lock().is_made();
        if access == Access::Look && !is_made {
            return Err(EngineError::NoStore(self.name()));
        }
        if self.0.is_taken.swap(true, Ordering::SeqCst) {
            return Err(EngineError::InUse(self.name()));
        }
        Ok(Arc::new(TakenFaulty { machine: self.0.clone(), is_new: !is_made, access }))
    }
}

struct TakenFaulty {
    machine: Arc<Machine>,
    is_new: bool,
    access: Access,
}

impl Taken for TakenFaulty {
    fn is_new(&self) -> bool {
        self.is_new
    }

    fn note(&self) -> Option<String> {
        None
    }

    fn records(&self, _memory_bytes: usize) -> Result<Arc<dyn Records>> {
        Ok(Arc::new(FaultyRecords::open(self.machine.clone(), self.access)?))
    }

    fn blobs(&self) -> Result<Arc<dyn Blobs>> {
        Ok(Arc::new(FaultyBlobs(self.machine.clone())))
    }

    fn space(&self) -> Arc<dyn Space> {
        Arc::new(FaultySpace(self.machine.clone()))
    }

    fn settle(&self) -> Result<()> {
        if self.machine.take(Call::Settle)? == Verdict::Fail {
            return Err(failed("that there is a store"));
        }
        self.machine.disk.lock().settle();
        Ok(())
    }

    fn discard(&self) {
        if self.is_new {
            let mut disk = self.machine.disk.lock();
            self.machine.space.give(disk.bytes());
            *disk = Disk::default();
        }
    }
}

impl Drop for TakenFaulty {
    fn drop(&mut self) {
        self.machine.is_taken.store(false, Ordering::SeqCst);
    }
}

struct FaultySpace(Arc<Machine>);

impl FaultySpace {
    fn take<T>(&self, call: Call, then: impl FnOnce(&MemorySpace) -> Result<T>) -> Result<T> {
        if self.0.take(call)? == Verdict::Fail {
            return Err(failed("the space"));
        }
        then(&self.0.space)
    }
}

impl Space for FaultySpace {
    fn info(&self) -> Result<SpaceInfo> {
        self.take(Call::Info, |space| space.info())
    }

    fn reserved(&self) -> Result<u64> {
        self.take(Call::Reserved, |space| space.reserved())
    }

    fn reserve(&self, bytes: u64) -> Result<()> {
        self.take(Call::Reserve, |space| space.reserve(bytes))
    }

    fn release(&self) -> Result<bool> {
        self.take(Call::Release, |space| space.release())
    }
}

impl Machine {
    /// Counts a call, and says whether it is to fail. Where the power is cut it does not return.
    fn take(&self, call: Call) -> Result<Verdict> {
        let verdict = self.steps.take_or_fill(call, || self.space.fill());
        if verdict == Verdict::Cut { self.steps.power_off() } else { Ok(verdict) }
    }

    /// Brings the space that is used to what lies on the disk. A place that shrank has the space that it needs.
    fn account(&self, before: u64, now: u64) {
        self.space.give(before);
        self.space.take(now).expect("no more is used than before");
    }
}

/// The error of a call that fails as a disk does.
fn failed(what: &str) -> EngineError {
    EngineError::Io {
        context: format!("{what} on a faulty disk"),
        source: std::io::Error::other("it fails as planned"),
    }
}
