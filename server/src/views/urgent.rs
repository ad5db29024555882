//! Names that others change under a view: its kernel is told before the call that changed them returns.
//!
//! To tell it waits for the directory's lock in that kernel. A request that changes something holds such locks in its own
//! kernel while it waits for the others to be told, so two that tell each other must not both wait.

use crate::limits::NAMES_TOLD_TIME_MAX;
use crate::views::View;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::Invalidation;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

/// What a view is being told because of one change.
pub(crate) struct Ticket {
    view: Arc<View>,
    number: u64,
    directories: HashSet<Ino>,
}

/// The requests that wait until others were told: through which view each came, and which directories its kernel has locked.
#[derive(Default)]
pub(crate) struct Waiters(Mutex<Vec<(u64, ViewId, HashSet<Ino>)>>);

impl View {
    /// Begins to tell of names.
    pub(crate) fn tell_names(self: &Arc<Self>, names: Vec<Invalidation>) -> Ticket {
        let directories = directories(&names);
        let (number, is_being_told) = self.urgent.note(names);
        if !is_being_told {
            let view = self.clone();
            if let Err(error) = mojavefs_threads::detached("mojavefs-names", move || view.tell_what_is_urgent()) {
                tracing::error!("a thread that tells of names, for view {}: {error}", self.id);
                self.urgent.is_left();
            }
        }
        Ticket { view: self.clone(), number, directories }
    }

    fn tell_what_is_urgent(&self) {
        while self.urgent.tell(|names| {
            if !self.is_dead() {
                self.tell(names);
            }
        }) {}
    }
}

impl Ticket {
    fn wait(&self, deadline: Instant) {
        if !self.view.urgent.wait(self.number, deadline) {
            tracing::debug!("view {} is told of names later", self.view.id);
        }
    }
}

impl Waiters {
    /// Waits until others were told of what a request of `view` has changed that holds these directories. Not for those who
    /// are held up by a request that waits itself: they are told when that one is through.
    pub(crate) fn wait(&self, view: ViewId, locked: HashSet<Ino>, tickets: Vec<Ticket>) {
        let deadline = Instant::now() + NAMES_TOLD_TIME_MAX;
        let (mine, tickets) = {
            let mut waiters = self.0.lock();
            let is_free = |ticket: &Ticket| {
                let holds_up = |(_, view, locked): &(u64, ViewId, HashSet<Ino>)| {
                    *view == ticket.view.id && !locked.is_disjoint(&ticket.directories)
                };
                !waiters.iter().any(holds_up)
            };
            let tickets: Vec<Ticket> = tickets.into_iter().filter(is_free).collect();
            let mine = waiters.last().map_or(1, |(last, ..)| last + 1);
            waiters.push((mine, view, locked));
            (mine, tickets)
        };
        tickets.iter().for_each(|ticket| ticket.wait(deadline));
        self.0.lock().retain(|(waiter, ..)| *waiter != mine);
    }
}

/// The directories of these names.
pub(crate) fn directories(names: &[Invalidation]) -> HashSet<Ino> {
    let directory = |what: &Invalidation| match what {
        Invalidation::Entry { parent, .. } => Some(*parent),
        _ => None,
    };
    names.iter().filter_map(directory).collect()
}
