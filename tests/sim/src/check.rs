//! What must be so in the end.

use crate::jobs::{Job, state};
use crate::world::{CELLS, COUNTERS, World, number_in};
use mojavefs::id::Ino;
use mojavefs::protocol::SpecState;
use std::collections::BTreeSet;

impl World {
    /// Whether what a job has done is committed, with what it has become part of.
    fn is_committed(&self, jobs: &[Job], job: &Job) -> bool {
        let mut whole = job;
        while let Some(outer) = whole.outer.filter(|_| whole.is_part) {
            whole = jobs.iter().find(|job| job.spec == outer).expect("it began before");
        }
        let state = state(&*self.ask(), whole.spec);
        if let Some(told @ (SpecState::Committed | SpecState::Aborted)) = job.told {
            assert_eq!(state, told, "speculation {} was told so", job.spec);
        }
        state == SpecState::Committed
    }

    /// Once everything is decided: there is what was committed, and what trunk has done, and nothing else.
    pub(crate) fn check(&self) {
        if self.is_stopped.get() {
            return;
        }
        let trunk = self.trunk();
        trunk.write_out(None);
        assert!(trunk.write_out_waiting(), "what trunk has stored still waits, though everything is decided");
        self.note_lost_stores(&trunk);
        let jobs = self.jobs.borrow();
        let committed: Vec<bool> = jobs.iter().map(|job| self.is_committed(&jobs, job)).collect();
        let mut counted = *self.on_trunk.borrow();
        let mut names: BTreeSet<String> = (0..COUNTERS).map(|number| format!("counter {number}")).collect();
        names.extend(["twin 0", "twin 1", "cells", ".", ".."].map(str::to_owned));
        for (job, _) in jobs.iter().zip(&committed).filter(|(_, is_committed)| **is_committed) {
            (0..COUNTERS).for_each(|number| counted[number] += job.counted[number]);
            names.extend(job.made.iter().flat_map(|name| [format!("{name}-1"), format!("{name}-2")]));
        }
        let read = |ino: Ino| trunk.read_past(ino).expect("trunk waits for nobody");
        let found = self.files.counters.map(|ino| number_in(&read(ino)));
        assert_eq!(found, counted, "counted by what is committed");
        let dir = trunk.view.open_dir(Ino::ROOT);
        let (listed, _) = trunk.list(dir, 0, usize::MAX).expect("trunk waits for nobody");
        trunk.view.close_dir(dir);
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), names, "the files of what is committed");
        let [one, other] = self.files.twins.map(|ino| number_in(&read(ino)));
        assert!(one == other || self.twins_mixed.get(), "the twins have {one} and {other}");
        let cells = read(self.files.cells);
        let stored = self.stored.borrow();
        assert_eq!(cells.len(), CELLS);
        for (cell, byte) in cells.into_iter().enumerate() {
            let by = stored.get(&cell);
            let must_be = by.is_some_and(|stored| stored.by.is_none_or(|job| committed[job]));
            let may_be_lost = by.is_some_and(|stored| stored.may_be_lost);
            assert!((byte == b'x') == must_be || may_be_lost, "byte {cell} is {:?}, {by:?}", char::from(byte));
        }
    }

    /// Decides what is undecided, one after the other.
    pub(crate) fn end(&self) {
        for turn in 0.. {
            if self.is_stopped.get() {
                return;
            }
            self.look_who_is_over();
            let open: Vec<usize> = {
                let jobs = self.jobs.borrow();
                (0..jobs.len()).filter(|job| !jobs[*job].is_over).collect()
            };
            if open.is_empty() {
                return;
            }
            assert!(turn < 10, "{} are undecided for ever", open.len());
            // Inner ones first.
            for job in open.into_iter().rev() {
                let how = if turn < 2 && self.below(3) > 0 { "commit" } else { "abort" };
                if !self.is_stopped.get() {
                    self.decide(job, how);
                }
            }
        }
    }
}
