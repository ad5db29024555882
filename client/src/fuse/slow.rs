//! Threads for what waits for the disk, so that those which answer the kernel never do.

use crate::limits::{SLOW_QUEUE_MAX, SLOW_THREADS};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

type Work = Box<dyn FnOnce() + Send>;

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
            std::thread::Builder::new().name(format!("mojavefs-slow-{number}")).spawn(move || run(&work))?;
        }
        Ok(Slow { queue })
    }

    /// Runs `work` on one of the threads; here, if all are busy and the queue is full.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) {
        match self.queue.try_send(Box::new(work)) {
            Ok(()) => {}
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => work(),
        }
    }
}

fn run(work: &Mutex<Receiver<Work>>) {
    loop {
        let next = work.lock().recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}
