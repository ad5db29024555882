//! Invalidations and outcomes in: the only path against the flow.

use crate::fuse::Kernel;
use mojavefs::id::{SpecId, ViewId};
use mojavefs::wire::{Fall, Notice, NoticeSink, SpecState};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Told that a job's speculation was decided by someone else.
pub(crate) type OnDecided = Box<dyn Fn(SpecId, SpecState, Option<Fall>) + Send + Sync>;

/// Called when somebody wants to know whether the process of a view lives.
pub(crate) type Probe = dyn Fn() + Send + Sync;

/// Brings notices to the kernels of this process.
#[derive(Default)]
pub(crate) struct Notices {
    kernels: RwLock<HashMap<ViewId, Weak<Kernel>>>,
    decided: Mutex<HashMap<ViewId, Arc<OnDecided>>>,
    probes: Mutex<HashMap<ViewId, Arc<Probe>>>,
}

impl Notices {
    /// Notices for the view of `kernel` go there.
    pub(crate) fn add(&self, kernel: &Arc<Kernel>) {
        self.kernels.write().insert(kernel.view().id(), Arc::downgrade(kernel));
    }

    /// Calls `then` when the speculation of `view` is decided.
    pub(crate) fn on_decided(&self, view: ViewId, then: OnDecided) {
        self.decided.lock().insert(view, Arc::new(then));
    }

    /// Calls `probe` when somebody is about to depend on what the process of `view` has undecided.
    pub(crate) fn on_probe(&self, view: ViewId, probe: Arc<Probe>) {
        self.probes.lock().insert(view, probe);
    }

    /// The view is gone.
    pub(crate) fn remove(&self, view: ViewId) {
        self.kernels.write().remove(&view);
        self.decided.lock().remove(&view);
        self.probes.lock().remove(&view);
    }
}

impl NoticeSink for Notices {
    fn deliver(&self, notice: Notice) {
        match notice {
            Notice::Invalidate { view, what, all_names } => {
                let kernel = self.kernels.read().get(&view).and_then(Weak::upgrade);
                if let Some(kernel) = kernel {
                    kernel.invalidate(&what, all_names);
                }
            }
            Notice::Probe { view } => {
                let probe = self.probes.lock().get(&view).cloned();
                if let Some(probe) = probe {
                    probe();
                }
            }
            Notice::Decided { view, spec, state, why } => {
                let then = self.decided.lock().get(&view).cloned();
                if let Some(then) = then {
                    then(spec, state, why);
                }
            }
        }
    }
}
