//! Threads for what waits for the disk, so that those which answer the kernel never do.

use crate::limits::{SLOW_QUEUE_MAX, SLOW_THREADS};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

type Work = Box<dyn FnOnce(Turn) + Send>;

/// On which thread work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// On one of those for slow work.
    Aside,
    /// On one that answers the kernel: it must not wait for others that do.
    AtOnce,
}

/// A fixed number of threads and a bounded queue. They end when it is dropped.
pub(super) struct Slow {
    queue: SyncSender<Work>,
}

impl Slow {
    pub(super) fn start() -> io::Result<Self> {
        let (queue, work) = sync_channel::<Work>(SLOW_QUEUE_MAX);
        let work = Arc::new(Mutex::new(work));
        for number in 0..SLOW_THREADS {
            let work = work.clone();
            mojavefs_threads::detached(&format!("mojavefs-slow-{number}"), move || run(&work))?;
        }
        Ok(Slow { queue })
    }

    /// Runs `work` on one of the threads; here, if all are busy and the queue is full.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        self.run_by_turn(move |_| work());
    }

    /// The same for work that must know on which thread it runs.
    pub(super) fn run_by_turn(&self, work: impl FnOnce(Turn) + Send + 'static) {
        match self.queue.try_send(Box::new(work)) {
            Ok(()) => {}
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => work(Turn::AtOnce),
        }
    }
}

fn run(work: &Mutex<Receiver<Work>>) {
    loop {
        let next = work.lock().recv();
        match next {
            Ok(work) => work(Turn::Aside),
            Err(_) => return,
        }
    }
}
