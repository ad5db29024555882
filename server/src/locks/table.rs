//! The locks of all views on all files of a server, as a pure structure.
//!
//! Whoever has to wait stands in a line. A lock that becomes free is *offered* to the first in the line that can have it: from then on it
//! is in others' way, and is taken when its owner asks again. So one who gives up the wait leaves everything as it was.

use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::{LockAsked, LockClass, LockMode, LockOwner, Span, Unlocked};
use std::collections::{BTreeMap, BTreeSet};

/// An owner, of any view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) view: ViewId,
    pub(crate) owner: LockOwner,
}

/// A lock that an owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) by: Owner,
    pub(crate) handle: u64,
    pub(crate) pid: u32,
    pub(crate) span: Span,
    pub(crate) mode: LockMode,
    /// Locks are counted as they are taken.
    pub(crate) number: u64,
}

impl Taken {
    /// How it was asked for.
    pub(crate) fn asked(&self) -> LockAsked {
        let Taken { by, handle, pid, span, mode, .. } = *self;
        LockAsked { owner: by.owner, handle, pid, span, mode: Some(mode) }
    }

    /// Whether the two can't be there at the same time, if they are different owners'.
    pub(crate) fn excludes(&self, other: &Taken) -> bool {
        let is_one_kind = self.by.owner.class == other.by.owner.class;
        is_one_kind && self.span.overlaps(other.span) && self.mode.excludes(other.mode)
    }

    /// The part of it that was asked for like this.
    fn within(self, asked: &LockAsked) -> Option<Taken> {
        let is_so = (self.by.owner, self.handle, Some(self.mode)) == (asked.owner, asked.handle, asked.mode);
        let span = Span { first: self.span.first.max(asked.span.first), last: self.span.last.min(asked.span.last) };
        (is_so && span.first <= span.last).then_some(Taken { span, ..self })
    }
}

/// One who stands in the line for a file.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    by: Owner,
    span: Span,
    mode: LockMode,
    is_offered: bool,
}

/// The locks on one file.
#[derive(Debug, Default)]
struct File {
    taken: Vec<Taken>,
    line: Vec<Waiting>,
}

/// What comes of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The owner has it, or has it no more.
    Done,
    /// This one is in the way.
    Refused(Taken),
    /// It stands in the line.
    Queued,
    /// It would wait for itself.
    Deadlock,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    files: BTreeMap<Ino, File>,
    /// The number of the last that was taken.
    last: u64,
}

impl File {
    /// Locks that others have, or are offered, and that one excludes.
    fn obstacles(&self, by: Owner, span: Span, mode: LockMode) -> impl Iterator<Item = Taken> {
        let offered = self.line.iter().filter(|waiting| waiting.is_offered);
        let offered = offered.map(|Waiting { by, span, mode, .. }| Taken {
            by: *by,
            handle: 0,
            pid: 0,
            span: *span,
            mode: *mode,
            number: 0,
        });
        let wanted = Taken { by, handle: 0, pid: 0, span, mode, number: 0 };
        let is_in_the_way = move |other: &Taken| other.by != by && other.excludes(&wanted);
        self.taken.iter().copied().chain(offered).filter(is_in_the_way)
    }

    /// The first of them.
    fn obstacle(&self, by: Owner, span: Span, mode: LockMode) -> Option<Taken> {
        self.obstacles(by, span, mode).next()
    }

    /// An owner has nothing of a part any more; what it has around that stays.
    fn cut(&mut self, by: Owner, span: Span) {
        let (theirs, mut others): (Vec<Taken>, Vec<Taken>) =
            self.taken.drain(..).partition(|taken| taken.by == by && taken.span.overlaps(span));
        let left =
            theirs.into_iter().flat_map(|taken| taken.span.without(span).map(move |span| Taken { span, ..taken }));
        others.extend(left);
        self.taken = others;
    }

    /// An owner takes a lock of which nothing is in the way. What it has next to it, of the same kind and by the same way, is one with it.
    fn take(&mut self, mut taken: Taken) {
        self.cut(taken.by, taken.span);
        self.taken.retain(|other| {
            let touches = other.span.last.checked_add(1) == Some(taken.span.first)
                || taken.span.last.checked_add(1) == Some(other.span.first);
            let is_one = touches && (other.by, other.mode, other.handle) == (taken.by, taken.mode, taken.handle);
            if is_one {
                taken.span.first = taken.span.first.min(other.span.first);
                taken.span.last = taken.span.last.max(other.span.last);
            }
            !is_one
        });
        self.taken.push(taken);
    }

    /// Takes a lock, or has its owner wait in the line.
    fn ask(&mut self, wanted: Taken, waits: bool) -> Asked {
        let Taken { by, span, mode, .. } = wanted;
        match self.place(by, span, mode) {
            Some(place) if self.line[place].is_offered => {
                self.line.remove(place);
            }
            // It keeps its place.
            Some(_) if waits => return Asked::Queued,
            Some(_) | None => {}
        }
        if by.owner.class == LockClass::Whole {
            // One kind is not made another: the first is let go of, whatever comes of the second.
            self.taken.retain(|taken| taken.by != by || taken.mode == mode);
        }
        match self.obstacle(by, span, mode) {
            None => self.take(wanted),
            Some(obstacle) if !waits => return Asked::Refused(obstacle),
            Some(_) => {
                self.line.push(Waiting { by, span, mode, is_offered: false });
                return Asked::Queued;
            }
        }
        Asked::Done
    }

    /// Where an owner stands in the line for a lock.
    fn place(&self, by: Owner, span: Span, mode: LockMode) -> Option<usize> {
        self.line.iter().position(|waiting| (waiting.by, waiting.span, waiting.mode) == (by, span, mode))
    }

    /// Offers what has become free, in the order of the line. To whom.
    fn offer(&mut self) -> Vec<ViewId> {
        let mut told = Vec::new();
        for place in 0..self.line.len() {
            let Waiting { by, span, mode, is_offered } = self.line[place];
            if !is_offered && self.obstacle(by, span, mode).is_none() {
                self.line[place].is_offered = true;
                told.push(by.view);
            }
        }
        told
    }
}

impl Table {
    /// Asks for a lock, again for one who stands in the line, or lets go of one. Also to whom something is offered that has become free by
    /// it.
    pub(crate) fn ask(&mut self, view: ViewId, ino: Ino, asked: &LockAsked, waits: bool) -> (Asked, Vec<ViewId>) {
        let by = Owner { view, owner: asked.owner };
        let file = self.files.entry(ino).or_default();
        let outcome = match asked.mode {
            None => {
                file.cut(by, asked.span);
                Asked::Done
            }
            Some(mode) => {
                self.last += 1;
                let LockAsked { handle, pid, span, .. } = *asked;
                file.ask(Taken { by, handle, pid, span, mode, number: self.last }, waits)
            }
        };
        if outcome == Asked::Queued && self.waits_for_itself(by) {
            self.leave(view, ino, asked);
            return (Asked::Deadlock, self.offer(ino));
        }
        (outcome, self.offer(ino))
    }

    /// An owner waits no more. Whether it did, and to whom something is offered by it.
    pub(crate) fn leave(&mut self, view: ViewId, ino: Ino, asked: &LockAsked) -> (bool, Vec<ViewId>) {
        let by = Owner { view, owner: asked.owner };
        let Some(file) = self.files.get_mut(&ino) else { return (false, Vec::new()) };
        let place = asked.mode.and_then(|mode| file.place(by, asked.span, mode));
        place.map(|place| file.line.remove(place));
        (place.is_some(), self.offer(ino))
    }

    /// What would be in the way of a lock, in another view rather than in this one.
    pub(crate) fn test(&self, view: ViewId, ino: Ino, asked: &LockAsked) -> Option<Taken> {
        let by = Owner { view, owner: asked.owner };
        let file = self.files.get(&ino)?;
        let mut elsewhere = file.obstacles(by, asked.span, asked.mode?).filter(|taken| taken.by.view != view);
        elsewhere.next().or_else(|| file.obstacle(by, asked.span, asked.mode?))
    }

    /// Somebody has closed a file. To whom something is offered by it.
    pub(crate) fn unlock(&mut self, view: ViewId, ino: Ino, whose: Unlocked) -> Vec<ViewId> {
        let is_theirs = |by: Owner, handle: u64| match whose {
            Unlocked::Owner(owner) => by == Owner { view, owner },
            Unlocked::Handle(theirs) => by.view == view && handle == theirs,
        };
        if let Some(file) = self.files.get_mut(&ino) {
            file.taken.retain(|taken| !is_theirs(taken.by, taken.handle));
        }
        self.offer(ino)
    }

    /// A view has no locks any more, and nobody in it waits for one. To whom something is offered by it.
    pub(crate) fn drop_view(&mut self, view: ViewId) -> Vec<ViewId> {
        let mut changed = Vec::new();
        for (ino, file) in &mut self.files {
            let before = file.taken.len() + file.line.len();
            file.taken.retain(|taken| taken.by.view != view);
            file.line.retain(|waiting| waiting.by.view != view);
            if file.taken.len() + file.line.len() < before {
                changed.push(*ino);
            }
        }
        changed.into_iter().flat_map(|ino| self.offer(ino)).collect()
    }

    /// A view has these locks, and no others. To whom something is offered by it, and whether it could take all of them.
    pub(crate) fn put_back(&mut self, view: ViewId, locks: &[(Ino, LockAsked)]) -> (Vec<ViewId>, bool) {
        for (ino, file) in &mut self.files {
            file.line.retain(|waiting| waiting.by.view != view);
            // What runs is another process, or the same program still.
            let is_mine = |taken: &Taken| taken.by.view == view && taken.by.owner.class != LockClass::Program;
            let here = || locks.iter().filter(|(of, _)| of == ino).map(|(_, asked)| asked);
            let kept = |taken: Taken| here().filter_map(move |asked| taken.within(asked)).collect::<Vec<_>>();
            let (mine, others): (Vec<Taken>, Vec<Taken>) = file.taken.drain(..).partition(is_mine);
            file.taken = others.into_iter().chain(mine.into_iter().flat_map(kept)).collect();
        }
        let mut has_all = true;
        for (ino, asked) in locks {
            let file = self.files.entry(*ino).or_default();
            let (by, Some(mode)) = (Owner { view, owner: asked.owner }, asked.mode) else { continue };
            if !file.taken.iter().any(|taken| taken.by == by && taken.asked() == *asked) {
                self.last += 1;
                let LockAsked { handle, pid, span, .. } = *asked;
                has_all &= file.ask(Taken { by, handle, pid, span, mode, number: self.last }, false) == Asked::Done;
            }
        }
        let files: Vec<Ino> = self.files.keys().copied().collect();
        (files.into_iter().flat_map(|ino| self.offer(ino)).collect(), has_all)
    }

    /// The views that have what somebody in a view stands in the line for.
    pub(crate) fn in_the_way_of(&self, view: ViewId) -> BTreeSet<ViewId> {
        let waiting = |file: &File| {
            let theirs = file.line.iter().filter(|waiting| waiting.by.view == view && !waiting.is_offered);
            let found = theirs.flat_map(|waiting| file.obstacles(waiting.by, waiting.span, waiting.mode));
            found.map(|taken| taken.by.view).collect::<Vec<_>>()
        };
        self.files.values().flat_map(waiting).collect()
    }

    /// What somebody in a view has locked, as it was asked for.
    pub(crate) fn of(&self, view: ViewId) -> Vec<(Ino, LockAsked)> {
        let all = self.all().flat_map(|(ino, taken)| taken.iter().map(move |taken| (ino, taken)));
        let is_mine = |taken: &Taken| taken.by.view == view && taken.by.owner.class != LockClass::Program;
        all.filter(|(_, taken)| is_mine(taken)).map(|(ino, taken)| (ino, taken.asked())).collect()
    }

    /// Every file with locks, and these.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Ino, &[Taken])> {
        self.files.iter().map(|(ino, file)| (*ino, &file.taken[..])).filter(|(_, taken)| !taken.is_empty())
    }

    /// The locks on one.
    pub(crate) fn taken(&self, ino: Ino) -> &[Taken] {
        self.files.get(&ino).map_or(&[], |file| &file.taken)
    }

    /// The number of the lock that was taken last.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Whether anybody has a lock on a file.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.files.get(&ino).is_some_and(|file| !file.taken.is_empty())
    }

    /// Whether there is no lock at all, and nobody waits for one.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn offer(&mut self, ino: Ino) -> Vec<ViewId> {
        let Some(file) = self.files.get_mut(&ino) else { return Vec::new() };
        let told = file.offer();
        if file.taken.is_empty() && file.line.is_empty() {
            self.files.remove(&ino);
        }
        told
    }

    /// Whether an owner waits for one who waits for it, and so on. Only processes do: of open files nobody knows who could let go.
    fn waits_for_itself(&self, by: Owner) -> bool {
        if by.owner.class != LockClass::Range {
            return false;
        }
        let (mut seen, mut next) = (BTreeSet::new(), vec![by]);
        while let Some(waiter) = next.pop() {
            for file in self.files.values() {
                let theirs = file.line.iter().filter(|waiting| waiting.by == waiter && !waiting.is_offered);
                for other in theirs.flat_map(|waiting| file.obstacles(waiting.by, waiting.span, waiting.mode)) {
                    let other = other.by;
                    if other == by {
                        return true;
                    }
                    if seen.insert(other) {
                        next.push(other);
                    }
                }
            }
        }
        false
    }
}
