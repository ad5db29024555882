//! The same by one rule for each byte, slowly: what the table is held against.

use super::table::{Asked, Owner};
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::{LockAsked, LockClass, LockMode, Span, Unlocked};
use std::collections::BTreeMap;

/// How many bytes the files of the model have; the last stands for all behind it.
pub(super) const BYTES: u64 = 12;

/// Which owner has which byte of which file, how, and through which handle.
#[derive(Debug, Default)]
pub(super) struct Naive {
    bytes: BTreeMap<(Ino, u64, Owner), (LockMode, u64)>,
    /// Who waits, in their order, and whether it may take what it waits for.
    line: Vec<(Ino, LockAsked, ViewId, bool)>,
}

fn bytes(span: Span) -> impl Iterator<Item = u64> {
    span.first..=span.last.min(BYTES - 1)
}

impl Naive {
    fn owner(view: ViewId, asked: &LockAsked) -> Owner {
        Owner { view, owner: asked.owner }
    }

    /// Who is in the way.
    pub(super) fn obstacles(&self, view: ViewId, ino: Ino, asked: &LockAsked) -> Vec<Owner> {
        let (me, Some(mode)) = (Self::owner(view, asked), asked.mode) else { return Vec::new() };
        let has = |(file, byte, by): &(Ino, u64, Owner), theirs: LockMode| {
            *file == ino
                && bytes(asked.span).any(|b| b == *byte)
                && *by != me
                && by.owner.class == me.owner.class
                && theirs.excludes(mode)
        };
        let taken = self.bytes.iter().filter(|(key, (theirs, _))| has(key, *theirs)).map(|((.., by), _)| *by);
        let offered = self.line.iter().filter(|(.., is_offered)| *is_offered).flat_map(|(file, theirs, view, _)| {
            let by = Self::owner(*view, theirs);
            bytes(theirs.span).map(move |byte| ((*file, byte, by), theirs.mode.expect("a lock")))
        });
        let mut all: Vec<Owner> =
            taken.chain(offered.filter(|(key, mode)| has(key, *mode)).map(|((.., by), _)| by)).collect();
        all.sort();
        all.dedup();
        all
    }

    fn waits_for_itself(&self, me: Owner) -> bool {
        let waits_for = |who: Owner| -> Vec<Owner> {
            let theirs =
                self.line.iter().filter(|(_, asked, view, offered)| !offered && Self::owner(*view, asked) == who);
            theirs.flat_map(|(ino, asked, view, _)| self.obstacles(*view, *ino, asked)).collect()
        };
        let mut reached = waits_for(me);
        loop {
            let more: Vec<Owner> =
                reached.iter().flat_map(|who| waits_for(*who)).filter(|who| !reached.contains(who)).collect();
            if more.is_empty() {
                return reached.contains(&me);
            }
            reached.extend(more);
        }
    }

    pub(super) fn ask(&mut self, view: ViewId, ino: Ino, asked: &LockAsked, waits: bool) -> Asked {
        let me = Self::owner(view, asked);
        let Some(mode) = asked.mode else {
            self.bytes
                .retain(|(file, byte, by), _| !(*file == ino && *by == me && bytes(asked.span).any(|b| b == *byte)));
            self.offer();
            return Asked::Done;
        };
        let is_mine = |(file, theirs, of, _): &(Ino, LockAsked, ViewId, bool)| {
            *file == ino
                && *of == view
                && (theirs.owner, theirs.span, theirs.mode) == (asked.owner, asked.span, asked.mode)
        };
        match self.line.iter().position(is_mine) {
            Some(place) if self.line[place].3 => drop(self.line.remove(place)),
            Some(_) if waits => return Asked::Queued,
            _ => {}
        }
        if asked.owner.class == LockClass::Whole {
            self.bytes.retain(|(file, _, by), (theirs, _)| !(*file == ino && *by == me && *theirs != mode));
        }
        let outcome = if self.obstacles(view, ino, asked).is_empty() {
            self.take(view, ino, asked);
            Asked::Done
        } else if waits {
            self.line.push((ino, *asked, view, false));
            match asked.owner.class == LockClass::Range && self.waits_for_itself(me) {
                true => {
                    self.line.pop();
                    Asked::Deadlock
                }
                false => Asked::Queued,
            }
        } else {
            let by = self.obstacles(view, ino, asked)[0];
            Asked::Refused(super::table::Taken { by, handle: 0, pid: 0, span: asked.span, mode, number: 0 })
        };
        self.offer();
        outcome
    }

    pub(super) fn leave(&mut self, view: ViewId, ino: Ino, asked: &LockAsked) -> bool {
        let is_mine = |(file, theirs, of, _): &(Ino, LockAsked, ViewId, bool)| {
            *file == ino
                && *of == view
                && (theirs.owner, theirs.span, theirs.mode) == (asked.owner, asked.span, asked.mode)
        };
        let place = self.line.iter().position(is_mine);
        place.map(|place| self.line.remove(place));
        self.offer();
        place.is_some()
    }

    pub(super) fn unlock(&mut self, view: ViewId, ino: Ino, whose: Unlocked) {
        self.bytes.retain(|(file, _, by), (_, handle)| {
            let is_theirs = match whose {
                Unlocked::Owner(owner) => *by == Owner { view, owner },
                Unlocked::Handle(theirs) => by.view == view && *handle == theirs,
            };
            !(*file == ino && is_theirs)
        });
        self.offer();
    }

    pub(super) fn put_back(&mut self, view: ViewId, locks: &[(Ino, LockAsked)]) -> bool {
        self.line.retain(|(_, _, of, _)| *of != view);
        let is_kept = |file: Ino, byte: u64, by: Owner, mode: LockMode, handle: u64| {
            let is_it = |(ino, asked): &(Ino, LockAsked)| {
                (*ino, asked.owner, asked.mode, asked.handle) == (file, by.owner, Some(mode), handle)
                    && bytes(asked.span).any(|b| b == byte)
            };
            locks.iter().any(is_it)
        };
        self.bytes
            .retain(|(file, byte, by), (mode, handle)| by.view != view || is_kept(*file, *byte, *by, *mode, *handle));
        let mut has_all = true;
        for (ino, asked) in locks {
            let is_free = self.obstacles(view, *ino, asked).is_empty();
            if is_free {
                self.take(view, *ino, asked);
            }
            has_all &= is_free;
        }
        self.offer();
        has_all
    }

    fn take(&mut self, view: ViewId, ino: Ino, asked: &LockAsked) {
        let Some(mode) = asked.mode else { return };
        let me = Self::owner(view, asked);
        bytes(asked.span).for_each(|byte| _ = self.bytes.insert((ino, byte, me), (mode, asked.handle)));
    }

    pub(super) fn drop_view(&mut self, view: ViewId) {
        self.bytes.retain(|(.., by), _| by.view != view);
        self.line.retain(|(_, _, of, _)| *of != view);
        self.offer();
    }

    fn offer(&mut self) {
        for place in 0..self.line.len() {
            let (ino, asked, view, is_offered) = self.line[place];
            if !is_offered && self.obstacles(view, ino, &asked).is_empty() {
                self.line[place].3 = true;
            }
        }
    }

    /// Whether an owner may take now what it waits for.
    pub(super) fn is_offered(&self, view: ViewId, ino: Ino, asked: &LockAsked) -> bool {
        self.line.iter().any(|(file, theirs, of, offered)| {
            *offered
                && *file == ino
                && *of == view
                && (theirs.owner, theirs.span, theirs.mode) == (asked.owner, asked.span, asked.mode)
        })
    }
}
