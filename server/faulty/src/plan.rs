//! At which call what goes wrong.

use crate::random::Random;
use mojavefs_server::store::engine::EngineError;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A call of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of this name")]
pub enum Call {
    OpenRecords,
    Get,
    Contains,
    Newest,
    Scan,
    Apply { synced: bool },
    SyncRecords,
    Flush,
    Create,
    Len,
    Read,
    Fetch,
    SyncBlob,
    SyncNames,
    SyncAll,
    Remove,
    List,
    Extend,
    Write,
    Allocate,
    StartWriteOut,
    Punch,
    Info,
    Reserved,
    Reserve,
    Release,
    Settle,
}

impl Call {
    /// Whether it changes what lies on the disk, or makes it durable.
    pub fn changes(self) -> bool {
        use Call::{Contains, Fetch, Get, Info, Len, List, Newest, Read, Reserved, Scan};
        !matches!(self, Fetch | Get | Contains | Newest | Scan | Len | Read | List | Info | Reserved)
    }

    /// Whether it makes something durable.
    pub fn is_sync(self) -> bool {
        use Call::{Apply, Flush, Settle, SyncAll, SyncBlob, SyncNames, SyncRecords};
        matches!(self, Apply { synced: true } | SyncRecords | Flush | SyncBlob | SyncNames | SyncAll | Settle)
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power is cut in the middle of the call: it and all later ones never return, but unwind with [`PowerCut`]. Hits
    /// calls that change something.
    Cut,
    /// The call fails, once. What it was to change may have been changed or not, as far as the door's contract leaves that
    /// open. Hits any call.
    Fail,
    /// The disk is full from the call on. Hits calls that change something.
    Full,
    /// A sync fails, once. What it was to write may be lost, though it can be read still, and later syncs say nothing of it.
    FailSync,
}

impl Fault {
    fn can_hit(self, call: Call) -> bool {
        match self {
            Fault::Cut | Fault::Full => call.changes(),
            Fault::Fail => true,
            Fault::FailSync => call.is_sync(),
        }
    }
}

/// What is thrown where the power was cut.
#[derive(Debug)]
pub struct PowerCut;

/// How many calls there were, of the sorts that faults hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Any.
    pub all: u64,
    /// Those that change something.
    pub changes: u64,
    /// Those that make something durable.
    pub syncs: u64,
}

impl Counts {
    /// How many calls such a fault could have hit.
    pub fn hit_by(self, fault: Fault) -> u64 {
        match fault {
            Fault::Cut | Fault::Full => self.changes,
            Fault::Fail => self.all,
            Fault::FailSync => self.syncs,
        }
    }
}

type Hook = Arc<dyn Fn(Call) + Send + Sync>;

/// Calls, as they are counted.
#[derive(Default)]
pub(crate) struct Steps {
    now: Mutex<Now>,
    is_off: AtomicBool,
    hook: RwLock<Option<Hook>>,
}

#[derive(Default)]
struct Now {
    counts: Counts,
    plan: Option<(Fault, At)>,
    has_struck: bool,
    random: Option<Random>,
}

/// Which call is hit.
#[derive(Clone)]
enum At {
    /// The one of this number.
    Number(u64),
    /// The next for which this is true.
    Next(Arc<dyn Fn(Call) -> bool + Send + Sync>),
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    Fail,
    /// The power is cut while it is under way.
    Cut,
}

impl Steps {
    pub(crate) fn plan(&self, fault: Fault, at: u64, seed: u64) {
        self.begin(fault, At::Number(at), seed);
    }

    pub(crate) fn plan_next(&self, fault: Fault, which: Arc<dyn Fn(Call) -> bool + Send + Sync>, seed: u64) {
        self.begin(fault, At::Next(which), seed);
    }

    fn begin(&self, fault: Fault, at: At, seed: u64) {
        let (plan, random) = (Some((fault, at)), Some(Random::new(seed)));
        *self.now.lock() = Now { plan, random, ..Now::default() };
    }

    pub(crate) fn mend(&self) {
        self.now.lock().plan = None;
    }

    pub(crate) fn counts(&self) -> Counts {
        self.now.lock().counts
    }

    pub(crate) fn has_struck(&self) -> bool {
        self.now.lock().has_struck
    }

    pub(crate) fn before_each(&self, hook: Hook) {
        *self.hook.write() = Some(hook);
    }

    /// Chooses where there is a choice.
    pub(crate) fn coin(&self) -> bool {
        self.now.lock().random.get_or_insert_with(|| Random::new(0)).coin()
    }

    /// Counts a call. The disk is filled by who asked, if that was planned: then it goes on.
    pub(crate) fn take_or_fill(&self, call: Call, fill: impl FnOnce()) -> Verdict {
        let hook = self.hook.read().clone();
        if let Some(hook) = hook {
            hook(call);
        }
        if self.is_off.load(Ordering::SeqCst) {
            return Verdict::Cut;
        }
        let mut now = self.now.lock();
        now.counts.all += 1;
        now.counts.changes += u64::from(call.changes());
        now.counts.syncs += u64::from(call.is_sync());
        let Some((fault, at)) = now.plan.clone().filter(|_| !now.has_struck) else { return Verdict::Go };
        let is_hit = match &at {
            At::Number(number) => now.counts.hit_by(fault) == *number,
            At::Next(which) => which(call),
        };
        if !fault.can_hit(call) || !is_hit {
            return Verdict::Go;
        }
        now.has_struck = true;
        match fault {
            Fault::Cut => Verdict::Cut,
            Fault::Fail | Fault::FailSync => Verdict::Fail,
            Fault::Full => {
                fill();
                Verdict::Go
            }
        }
    }

    /// Nothing returns any more. Where something is unwound already, there is an error instead.
    pub(crate) fn power_off<T>(&self) -> Result<T, EngineError> {
        self.is_off.store(true, Ordering::SeqCst);
        if std::thread::panicking() {
            return Err(crate::failed("the power is off"));
        }
        std::panic::resume_unwind(Box::new(PowerCut))
    }
}
