//! Answers on their way to a kernel: who is about to have it forget something waits until it has got those that were found before.

use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

thread_local! {
    /// What this thread is about to give to a kernel.
    static UNDER_WAY: RefCell<Option<Delivery>> = const { RefCell::new(None) };
}

/// The answers to one kernel that are under way.
#[derive(Default)]
pub struct Deliveries {
    state: Mutex<State>,
    one_has_ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Grows whenever somebody waits for those before.
    generation: u64,
    /// How many there are of each generation.
    under_way: BTreeMap<u64, usize>,
}

/// An answer that is being found, and not given yet.
pub struct Delivery {
    deliveries: Arc<Deliveries>,
    generation: u64,
}

impl Deliveries {
    /// This thread asks for something that a kernel may keep, which it gives to it unless it says otherwise.
    pub(crate) fn begin(self: &Arc<Self>) {
        UNDER_WAY.with_borrow_mut(|under_way| {
            under_way.get_or_insert_with(|| {
                let mut state = self.state.lock();
                let generation = state.generation;
                *state.under_way.entry(generation).or_insert(0) += 1;
                Delivery { deliveries: self.clone(), generation }
            });
        });
    }

    /// Waits until the kernel has got whatever was found before, for so long at most. Whether it has.
    pub fn wait(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        let before = state.generation;
        state.generation += 1;
        let is_under_way =
            |state: &mut State| state.under_way.first_key_value().is_some_and(|(first, _)| *first <= before);
        self.one_has_ended.wait_while_until(&mut state, is_under_way, deadline);
        !is_under_way(&mut state)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut state = self.deliveries.state.lock();
        if let Some(count) = state.under_way.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(&self.generation);
                self.deliveries.one_has_ended.notify_all();
            }
        }
    }
}

/// What this thread has found and is about to give to a kernel: under way until this is dropped.
pub fn take() -> Option<Delivery> {
    UNDER_WAY.take()
}

/// This thread gives nothing of what it has found: it waits for others, and asks again.
pub(crate) fn forget() {
    drop(take());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;

    #[test]
    fn those_before_are_waited_for_and_those_after_are_not() {
        let deliveries = Arc::new(Deliveries::default());
        deliveries.begin();
        deliveries.begin();
        let before = take().expect("it is under way");
        assert!(take().is_none() && !deliveries.wait(Duration::ZERO));
        deliveries.begin();
        let after = take();
        let (is_through, through) = channel();
        let waiter = thread::spawn({
            let deliveries = deliveries.clone();
            move || is_through.send(deliveries.wait(Duration::from_secs(60)))
        });
        assert!(through.try_recv().is_err());
        drop((before, after));
        assert!(through.recv().expect("an answer"));
        waiter.join().expect("it ends").expect("somebody listens");
        deliveries.begin();
        forget();
        assert!(deliveries.wait(Duration::ZERO));
    }
}
