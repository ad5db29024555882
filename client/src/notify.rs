//! Invalidations and outcomes in: the only path against the flow.

use crate::transport::Kernel;
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Fall, Notice, NoticeSink, SpecState};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

/// What became of a view's speculation without its doing.
pub(crate) enum News {
    /// Someone else decided it.
    Decided(SpecId, SpecState, Option<Fall>),
    /// The server is gone.
    Lost(Fault),
}

/// Told the news of a view.
pub(crate) type OnNews = Box<dyn Fn(News) + Send + Sync>;

/// Called when somebody wants to know whether the process of a view lives.
pub(crate) type Probe = dyn Fn() + Send + Sync;

/// Brings notices to the kernels of this process.
#[derive(Default)]
pub(crate) struct Notices {
    kernels: RwLock<HashMap<ViewId, Weak<Kernel>>>,
    listeners: Mutex<HashMap<ViewId, Arc<OnNews>>>,
    probes: Mutex<HashMap<ViewId, Arc<Probe>>>,
    lost: OnceLock<Fault>,
}

impl Notices {
    /// Notices for the view of `kernel` go there.
    pub(crate) fn add(&self, kernel: &Arc<Kernel>) {
        self.kernels.write().insert(kernel.view().id(), Arc::downgrade(kernel));
    }

    /// Calls `then` with the news of `view`.
    pub(crate) fn on_news(&self, view: ViewId, then: OnNews) {
        let then = Arc::new(then);
        self.listeners.lock().insert(view, then.clone());
        // Lost before anybody listened.
        if let Some(why) = self.lost.get() {
            then(News::Lost(why.clone()));
        }
    }

    /// Calls `probe` when somebody is about to depend on what the process of `view` has undecided.
    pub(crate) fn on_probe(&self, view: ViewId, probe: Arc<Probe>) {
        self.probes.lock().insert(view, probe);
    }

    /// The view is gone.
    pub(crate) fn remove(&self, view: ViewId) {
        self.kernels.write().remove(&view);
        self.listeners.lock().remove(&view);
        self.probes.lock().remove(&view);
    }
}

impl NoticeSink for Notices {
    fn deliver(&self, notice: Notice) {
        match notice {
            Notice::Invalidate { view, what, all_names } => {
                let kernel = self.kernels.read().get(&view).and_then(Weak::upgrade);
                if let Some(kernel) = kernel {
                    kernel.invalidate(what, all_names);
                }
            }
            Notice::Forget { view, what, all_names } => {
                let kernel = self.kernels.read().get(&view).and_then(Weak::upgrade);
                if let Some(kernel) = kernel {
                    kernel.forget(what, all_names);
                }
            }
            Notice::Probe { view } => {
                let probe = self.probes.lock().get(&view).cloned();
                if let Some(probe) = probe {
                    probe();
                }
            }
            Notice::Decided { view, spec, state, why } => {
                let then = self.listeners.lock().get(&view).cloned();
                if let Some(then) = then {
                    then(News::Decided(spec, state, why));
                }
            }
        }
    }

    fn lost(&self, why: &Fault) {
        // It is lost once.
        let _ = self.lost.set(why.clone());
        let listeners: Vec<_> = self.listeners.lock().values().cloned().collect();
        listeners.iter().for_each(|then| then(News::Lost(why.clone())));
        // Jobs are over by now. What a kernel has kept is as it was when the server was there.
        let kernels: Vec<Arc<Kernel>> = self.kernels.read().values().filter_map(Weak::upgrade).collect();
        kernels.iter().for_each(|kernel| kernel.forget_all());
    }
}
