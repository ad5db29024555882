//! Files, their names, and open descriptors.

use super::{Order, What};
use std::collections::BTreeMap;
use std::fmt::Write;

const SLOTS: usize = 6;
const NAMES: [&str; 5] = ["f0", "f1", "f2", "d/f3", "d/f4"];
const MAPPED_BYTES: usize = 8192;
const ENOENT: i32 = 2;
const EEXIST: i32 = 17;

/// A file, whatever it is called.
type File = usize;

/// An open file; several descriptors may be of one.
#[derive(Clone, Debug)]
struct Opened {
    file: File,
    at: usize,
    appends: bool,
}

/// What a process sees of its files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    names: [Option<File>; NAMES.len()],
    contents: BTreeMap<File, Vec<u8>>,
    slots: [Option<usize>; SLOTS],
    opened: BTreeMap<usize, Opened>,
    shared: Vec<u8>,
}

/// Puts bytes where they belong; what is missing before them is zeros.
fn put(content: &mut Vec<u8>, at: usize, byte: u8, count: usize) {
    if count > 0 {
        content.resize(content.len().max(at + count), 0);
        content[at..at + count].fill(byte);
    }
}

impl Files {
    pub(super) fn new() -> Self {
        let (names, contents, slots, opened) = Default::default();
        Files { names, contents, slots, opened, shared: vec![0; MAPPED_BYTES] }
    }

    /// Does it, and returns the errno. `new` is a number that nothing has yet.
    pub(super) fn obey(&mut self, order: &Order, new: usize) -> i32 {
        let Order { what, a, b, c, number } = *order;
        let (name, other) = (usize::from(a) % NAMES.len(), usize::from(b) % NAMES.len());
        let (slot, number) = (usize::from(a) % SLOTS, number as usize);
        let result = match what {
            What::Shared => {
                self.shared[number % MAPPED_BYTES] = c;
                0
            }
            What::Open if self.slots[slot].is_none() => self.open(slot, other, c % 4 == 0, new),
            What::Close => {
                self.slots[slot] = None;
                0
            }
            What::Dup if self.slots[slot].is_some() => {
                self.slots[usize::from(b) % SLOTS] = self.slots[slot];
                0
            }
            What::Put | What::Seek | What::Appending => self.by_descriptor(order, slot),
            What::Open | What::Dup => 0,
            _ => self.by_name(order, name, other, new),
        };
        self.forget();
        result
    }

    fn open(&mut self, slot: usize, name: usize, appends: bool, new: usize) -> i32 {
        let Some(file) = self.names[name] else { return ENOENT };
        self.opened.insert(new, Opened { file, at: 0, appends });
        self.slots[slot] = Some(new);
        0
    }

    fn by_descriptor(&mut self, order: &Order, slot: usize) -> i32 {
        let number = order.number as usize;
        let Some(opened) = self.slots[slot].and_then(|opened| self.opened.get_mut(&opened)) else { return 0 };
        match order.what {
            What::Put => {
                let content = self.contents.entry(opened.file).or_default();
                // Nothing written moves nothing.
                if opened.appends && number > 0 {
                    opened.at = content.len();
                }
                put(content, opened.at, order.c, number);
                opened.at += number;
            }
            What::Seek => opened.at = number,
            _ => opened.appends = order.b % 2 == 1,
        }
        0
    }

    fn by_name(&mut self, order: &Order, name: usize, other: usize, new: File) -> i32 {
        let (byte, number) = (order.c, order.number as usize);
        if matches!(order.what, What::Write | What::Child) {
            let file = *self.names[name].get_or_insert(new);
            self.contents.insert(file, vec![byte; number]);
            return 0;
        }
        let Some(file) = self.names[name] else { return ENOENT };
        let content = self.contents.entry(file).or_default();
        match order.what {
            What::Append => put(content, content.len(), byte, number),
            What::Truncate => content.resize(number, 0),
            What::Unlink => self.names[name] = None,
            What::Link if self.names[other].is_some() => return EEXIST,
            What::Link => self.names[other] = Some(file),
            // Two names of one file stay.
            What::Rename if self.names[other] == Some(file) => {}
            _ => self.names[other] = self.names[name].take(),
        }
        0
    }

    /// What no descriptor is of is closed; files without a name that nobody has open are gone.
    fn forget(&mut self) {
        let Files { names, contents, slots, opened, .. } = self;
        opened.retain(|number, _| slots.contains(&Some(*number)));
        contents.retain(|file, _| names.contains(&Some(*file)) || opened.values().any(|opened| opened.file == *file));
    }

    /// The names that there can be, with what is there.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, Option<&[u8]>)> {
        let named =
            NAMES.iter().zip(&self.names).map(|(name, file)| (*name, file.map(|file| &self.contents[&file][..])));
        named.chain([("shared", Some(&self.shared[..]))])
    }

    pub(super) fn tell(&self) -> String {
        let mut text = String::new();
        let file = |file: File| {
            let names = self.names.iter().filter(|name| **name == Some(file)).count();
            tell_content(&self.contents[&file], names)
        };
        for slot in &self.slots {
            text.push_str(" slot ");
            if let Some(opened) = slot.map(|opened| &self.opened[&opened]) {
                let appends = if opened.appends { "+" } else { "" };
                write!(text, "{}{appends}:{}", opened.at, file(opened.file)).expect("text has room");
            }
        }
        for named in &self.names {
            write!(text, " name {}", named.map(file).unwrap_or_default()).expect("text has room");
        }
        text + " shared " + &tell_content(&self.shared, 1)
    }
}

fn tell_content(content: &[u8], names: usize) -> String {
    let hash = content
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{}/{hash:016x}/{names}", content.len())
}
