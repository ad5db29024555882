//! What the process must be like: a whole copy of everything for each level.

use std::collections::BTreeMap;
use std::fmt::Write;

pub(super) const CELLS: usize = 16;
pub(super) const SLOTS: usize = 4;
pub(super) const NAMES: [&str; 7] = ["f0", "f1", "f2", "f3", "d/f4", "d/f5", "d/f6"];
pub(super) const MAPPED_BYTES: usize = 4096;

const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

/// What the process can be told, numbered as in `orders.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Fill,
    Replace,
    Write,
    Append,
    Unlink,
    Rename,
    Link,
    Truncate,
    Open,
    Put,
    Seek,
    Map,
    Child,
    Enter,
    Commit,
    Abort,
    Retry,
}

/// One order; what the numbers mean depends on `what`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) what: What,
    pub(super) a: usize,
    pub(super) b: usize,
    pub(super) byte: u8,
    pub(super) number: usize,
}

/// A file, whatever it is called.
type File = usize;

#[derive(Clone, Debug)]
pub(super) struct State {
    cells: [u8; CELLS],
    /// Open descriptors: their files and offsets.
    slots: [Option<(File, usize)>; SLOTS],
    names: [Option<File>; NAMES.len()],
    contents: BTreeMap<File, Vec<u8>>,
    mapped: Vec<u8>,
}

/// What the process did between two entries. Each has a number of its own, which none has later.
type Interval = usize;

/// An open level.
struct Level {
    before: State,
    id: i32,
    /// The code by which it was entered again.
    code: i32,
    /// The interval that began with its entry.
    entry: Interval,
    /// The interval that voted for it.
    vote: Option<Interval>,
}

pub(super) struct Model {
    now: State,
    /// The intervals that are not undone, each on top of the one before.
    intervals: Vec<Interval>,
    begun: usize,
    levels: Vec<Level>,
    next: File,
}

/// Puts bytes where they belong; what is missing before them is zeros.
fn put(content: &mut Vec<u8>, at: usize, byte: u8, count: usize) {
    content.resize(content.len().max(at + count), 0);
    content[at..at + count].fill(byte);
}

impl State {
    fn content(&mut self, name: usize) -> Option<&mut Vec<u8>> {
        self.names[name].and_then(|file| self.contents.get_mut(&file))
    }

    /// Does it, and returns the errno.
    fn act(&mut self, order: &Order, new: File) -> i32 {
        let Order { what, a, b, byte, number } = *order;
        match what {
            What::Fill | What::Replace => self.cells[a] = byte,
            What::Write | What::Child => {
                let file = *self.names[a].get_or_insert(new);
                self.contents.insert(file, vec![byte; number]);
            }
            What::Append => match self.content(a) {
                Some(content) => put(content, content.len(), byte, number),
                None => return ENOENT,
            },
            What::Truncate => match self.content(a) {
                Some(content) => content.resize(number, 0),
                None => return ENOENT,
            },
            What::Unlink if self.names[a].is_none() => return ENOENT,
            What::Unlink => self.names[a] = None,
            What::Rename if self.names[a].is_none() => return ENOENT,
            // Two names of one file stay.
            What::Rename if self.names[a] == self.names[b] => {}
            What::Rename => self.names[b] = self.names[a].take(),
            What::Link if self.names[a].is_none() => return ENOENT,
            What::Link if self.names[b].is_some() => return EEXIST,
            What::Link => self.names[b] = self.names[a],
            What::Open if self.slots[a].is_some() => self.slots[a] = None,
            What::Open if self.names[b].is_none() => return ENOENT,
            What::Open => self.slots[a] = self.names[b].map(|file| (file, 0)),
            What::Put => {
                if let Some((file, at)) = &mut self.slots[a] {
                    put(self.contents.entry(*file).or_default(), *at, byte, number);
                    *at += number;
                }
            }
            What::Seek => self.slots[a] = self.slots[a].map(|(file, _)| (file, number)),
            What::Map => self.mapped[number] = byte,
            What::Enter | What::Commit | What::Abort | What::Retry => {}
        }
        self.forget();
        0
    }

    /// Files without a name that nobody has open are gone.
    fn forget(&mut self) {
        let (names, slots) = (&self.names, &self.slots);
        self.contents
            .retain(|file, _| names.contains(&Some(*file)) || slots.iter().flatten().any(|(open, _)| open == file));
    }

    fn tell_file(&self, file: File, text: &mut String) {
        let names = self.names.iter().filter(|name| **name == Some(file)).count();
        tell_content(&self.contents[&file], names, text);
    }

    /// A file's content by its name.
    pub(super) fn read(&self, name: usize) -> Option<&[u8]> {
        self.names[name].map(|file| &self.contents[&file][..])
    }
}

fn tell_content(content: &[u8], names: usize, text: &mut String) {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    write!(text, "{}/{names}/{hash:016x}", content.len()).expect("text has room");
}

impl Model {
    pub(super) fn new() -> Self {
        let now = State {
            cells: [0; CELLS],
            slots: [None; SLOTS],
            names: [None; NAMES.len()],
            contents: BTreeMap::new(),
            mapped: vec![0; MAPPED_BYTES],
        };
        Model { now, intervals: vec![0], begun: 1, levels: Vec::new(), next: 0 }
    }

    pub(super) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// The number of a level.
    pub(super) fn id(&self, level: usize) -> i32 {
        self.levels[level].id
    }

    pub(super) fn is_open(&self, slot: usize) -> bool {
        self.now.slots[slot].is_some()
    }

    /// The number of the level that has just been entered.
    pub(super) fn entered(&mut self, id: i32) {
        let (entered, around) = self.levels.split_last_mut().expect("a level was entered");
        assert!(around.iter().all(|level| level.id < id), "the number {id} is not new");
        entered.id = id;
    }

    /// The innermost level's number.
    pub(super) fn current(&self) -> i32 {
        self.levels.last().map_or(0, |level| level.id)
    }

    /// Does it, and returns the result that the process must see. `level`: the one that is decided.
    pub(super) fn act(&mut self, order: &Order, level: usize) -> i32 {
        match order.what {
            What::Enter => {
                let entry = self.begin();
                self.levels.push(Level { before: self.now.clone(), id: 0, code: 0, entry, vote: None });
                0
            }
            What::Commit => {
                self.vote(level);
                0
            }
            What::Abort => self.go_back(level, order, false),
            What::Retry => self.go_back(level, order, true),
            _ => {
                self.next += 1;
                self.now.act(order, self.next)
            }
        }
    }

    fn begin(&mut self) -> Interval {
        self.intervals.push(self.begun);
        self.begun += 1;
        self.begun - 1
    }

    /// A vote belongs to the interval that casts it.
    fn vote(&mut self, at: usize) {
        let by = self.intervals.last().copied();
        self.levels[at].vote = self.levels[at].vote.or(by);
        let committed = self.committed();
        let mut levels = std::mem::take(&mut self.levels);
        levels.retain(|level| !committed.contains(&level.id));
        self.levels = levels;
    }

    /// The greatest set of voted levels each of whose votes depends on no level but these and those around it: a vote depends
    /// on all that was entered from the level's own entry up to the interval that cast it.
    fn committed(&self) -> Vec<i32> {
        let mut set: Vec<&Level> = self.levels.iter().filter(|level| level.vote.is_some()).collect();
        loop {
            let before = set.len();
            let ids: Vec<i32> = set.iter().map(|level| level.id).collect();
            set.retain(|level| self.needed_by_vote(level).iter().all(|needed| ids.contains(needed)));
            if set.len() == before {
                return ids;
            }
        }
    }

    fn needed_by_vote(&self, level: &Level) -> Vec<i32> {
        let place = |of: Interval| self.intervals.iter().position(|interval| *interval == of);
        let (from, to) = (place(level.entry), level.vote.and_then(place));
        let inside = |other: &&Level| (from..=to).contains(&place(other.entry));
        self.levels.iter().filter(inside).map(|other| other.id).collect()
    }

    fn go_back(&mut self, at: usize, order: &Order, again: bool) -> i32 {
        self.now = self.levels[at].before.clone();
        let entry = self.levels[at].entry;
        let undone: Vec<Interval> = self.intervals.iter().copied().skip_while(|interval| *interval != entry).collect();
        self.intervals.retain(|interval| !undone.contains(interval));
        // An interval that is undone takes its votes back.
        self.levels.iter_mut().for_each(|level| level.vote = level.vote.filter(|vote| !undone.contains(vote)));
        let code = i32::from(order.byte) + 1;
        self.levels.truncate(at + usize::from(again));
        if !again {
            return code;
        }
        let entry = self.begin();
        (self.levels[at].entry, self.levels[at].code) = (entry, code);
        0
    }

    /// What is left when the process ends: what is open then is undone.
    pub(super) fn end(self) -> State {
        self.levels.into_iter().next().map_or(self.now, |outermost| outermost.before)
    }

    /// What the process must say of itself, as in `orders.c`.
    pub(super) fn tell(&self, result: i32) -> String {
        let code = self.levels.last().map_or(0, |level| level.code);
        let mut text = format!("{result} depth {} code {code} cells", self.levels.len());
        self.now.cells.iter().for_each(|cell| write!(text, " {cell}").expect("text has room"));
        for slot in &self.now.slots {
            text.push_str(" slot ");
            if let Some((file, at)) = slot {
                write!(text, "{at}:").expect("text has room");
                self.now.tell_file(*file, &mut text);
            }
        }
        for file in &self.now.names {
            text.push_str(" name ");
            if let Some(file) = file {
                self.now.tell_file(*file, &mut text);
            }
        }
        text.push_str(" mapped ");
        tell_content(&self.now.mapped, 1, &mut text);
        text
    }
}
