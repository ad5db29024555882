//! What the process must be like: a whole copy of everything for each level, the votes included.

use super::files::Files;
use super::signals::Signals;
use super::{INNERMOST, Order, What};
use std::collections::BTreeSet;
use std::fmt::Write;

const CELLS: usize = 6;
const REGIONS: usize = 4;
const PAGES: usize = 16;
const SLEEPERS: usize = 3;
const DEPTH: usize = 10;

/// A page of a region, with what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Gone,
    Closed(u8),
    ReadOnly(u8),
    Writable(u8),
}

#[derive(Clone, Debug)]
struct State {
    cells: [(usize, u8); CELLS],
    regions: [Vec<Page>; REGIONS],
    signals: Signals,
    sleepers: [bool; SLEEPERS],
    umask: u8,
    files: Files,
    /// The levels that were voted for: a vote is undone with the level in which it was cast.
    votes: BTreeSet<usize>,
}

/// An open level.
struct Level {
    number: usize,
    before: State,
    /// The code by which it was entered again.
    code: i32,
}

pub(super) struct Model {
    now: State,
    levels: Vec<Level>,
    next: usize,
}

impl Page {
    fn byte(self) -> u8 {
        match self {
            Page::Gone => 0,
            Page::Closed(byte) | Page::ReadOnly(byte) | Page::Writable(byte) => byte,
        }
    }

    fn obey(self, order: &Order) -> Page {
        let with: fn(u8) -> Page = match self {
            Page::Gone => return self,
            Page::Closed(_) => Page::Closed,
            Page::ReadOnly(_) => Page::ReadOnly,
            Page::Writable(_) => Page::Writable,
        };
        match (order.what, self) {
            (What::Cut, _) => Page::Gone,
            (What::Protect, _) => {
                [Page::Closed, Page::ReadOnly, Page::Writable][order.number as usize % 3](self.byte())
            }
            (What::Store, Page::Writable(_)) => Page::Writable(order.number as u8),
            (What::GiveBack, _) => with(0),
            _ => self,
        }
    }

    /// A letter for how it is protected, and what can be read of it.
    fn tell(self) -> (char, String) {
        match self {
            Page::Gone => ('-', String::new()),
            Page::Closed(_) => ('n', String::new()),
            Page::ReadOnly(byte) => ('r', byte.to_string()),
            Page::Writable(byte) => ('w', byte.to_string()),
        }
    }
}

impl State {
    /// Does it, and returns the result.
    fn obey(&mut self, order: &Order, new: usize) -> i32 {
        let (cell, region) = (usize::from(order.a) % CELLS, usize::from(order.a) % REGIONS);
        let pages = 1 + usize::from(order.b) % PAGES;
        match order.what {
            What::Fill => self.cells[cell].1 = order.c,
            What::Resize => self.cells[cell] = (order.number as usize, order.c),
            What::Map if !self.regions[region].is_empty() => self.regions[region].clear(),
            What::Map => self.regions[region] = vec![Page::Writable(order.c); pages],
            What::Cut | What::Protect | What::Store | What::GiveBack => {
                let first = usize::from(order.b);
                let those = self.regions[region].iter_mut().skip(first).take(1 + usize::from(order.c) % 4);
                those.for_each(|page| *page = page.obey(order));
            }
            What::Grow => {
                let region = &mut self.regions[region];
                if !region.is_empty() && region.iter().all(|page| matches!(page, Page::Writable(_))) {
                    region.resize(pages, Page::Writable(0));
                }
            }
            What::Start => self.sleepers[usize::from(order.a) % SLEEPERS] = true,
            What::Umask => self.umask = order.b % 64,
            What::Block | What::Unblock | What::Raise | What::Send | What::Queue | What::Take | What::Handle => {
                return self.signals.obey(order);
            }
            _ => return self.files.obey(order, new),
        }
        0
    }

    fn tell(&self) -> String {
        let mut text = " cells".to_owned();
        self.cells.iter().for_each(|(length, byte)| write!(text, " {length}:{byte}").expect("text has room"));
        for region in &self.regions {
            text.push_str(" region");
            let mut before = '-';
            for page in region {
                let (letter, byte) = page.tell();
                let another = before != '-' && letter != '-' && letter != before;
                write!(text, "{}{letter}{byte}", if another { " | " } else { " " }).expect("text has room");
                before = letter;
            }
        }
        text += &self.signals.tell();
        text.push_str(" sleepers");
        self.sleepers.iter().for_each(|sleeps| write!(text, " {}", u8::from(*sleeps)).expect("text has room"));
        write!(text, " umask {}", self.umask).expect("text has room");
        text + &self.files.tell()
    }
}

impl Model {
    pub(super) fn new() -> Self {
        let now = State {
            cells: [(100, 0); CELLS],
            regions: Default::default(),
            signals: Signals::new(),
            sleepers: [false; SLEEPERS],
            umask: 0o022,
            files: Files::new(),
            votes: BTreeSet::new(),
        };
        Model { now, levels: Vec::new(), next: 0 }
    }

    /// Does it, and returns what the process must say of itself, as in `machine.c`.
    pub(super) fn obey(&mut self, order: &Order) -> String {
        self.next += 1;
        let result = match order.what {
            What::Enter => self.enter(),
            What::Commit | What::Abort | What::Retry if self.levels.is_empty() => 0,
            What::Commit => self.vote(self.level(order)),
            What::Abort | What::Retry => self.go_back(self.level(order), order),
            _ => self.now.obey(order, self.next),
        };
        let code = self.levels.last().map_or(0, |level| level.code);
        format!("{result} depth {} code {code}{}", self.levels.len(), self.now.tell())
    }

    /// Any of them, or one of the two innermost.
    fn level(&self, order: &Order) -> usize {
        let (a, depth) = (usize::from(order.a), self.levels.len());
        if order.a < INNERMOST { a % depth } else { depth - 1 - a % depth.min(2) }
    }

    fn enter(&mut self) -> i32 {
        if self.levels.len() < DEPTH {
            self.levels.push(Level { number: self.next, before: self.now.clone(), code: 0 });
        }
        0
    }

    fn vote(&mut self, at: usize) -> i32 {
        self.now.votes.insert(self.levels[at].number);
        while self.levels.pop_if(|last| self.now.votes.contains(&last.number)).is_some() {}
        0
    }

    fn go_back(&mut self, at: usize, order: &Order) -> i32 {
        let (again, code) = (order.what == What::Retry, i32::from(order.b) + 1);
        self.now = self.levels[at].before.clone();
        self.levels.truncate(at + usize::from(again));
        if again {
            self.levels[at].code = code;
        }
        if again { 0 } else { code }
    }

    /// What is left when the process ends: what is open then is undone.
    pub(super) fn end(self) -> Files {
        self.levels.into_iter().next().map_or(self.now, |outermost| outermost.before).files
    }
}
