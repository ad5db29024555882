//! Ops from a seed: weighted, over few names, with sizes around those at which the store changes how it keeps a file.

mod ops;

pub use ops::{ALL, BYTES, LOOKS};

use crate::op::{Mode, Op, Step};
use crate::perform::SLOTS;
use crate::random::Random;
use nix::libc;

/// Makes an op.
pub type Make = fn(&mut Generator) -> Op;

/// Small files lie in records, larger ones in content files, in blocks; pages are what mappings are made of.
const SIZES: &[u64] = &[0, 1, 10, 700, 4096, 5000, 16384, 20000, 65536, 70000, 131_072, 200_000, 300_000];
const DIRS: &[&str] = &["d", "e", "d/s"];
const LEAVES: &[&str] = &["a", "b", "c", "f"];

/// All names that are made where there is no other root.
pub fn names() -> impl Iterator<Item = String> {
    let dirs = DIRS.iter().map(|dir| format!("{dir}/"));
    let in_dirs = std::iter::once(String::new())
        .chain(dirs)
        .flat_map(|dir| LEAVES.iter().map(move |leaf| format!("{dir}{leaf}")));
    DIRS.iter().map(|dir| (*dir).to_owned()).chain(in_dirs)
}

/// What is probably there: what a generator has made, if all went well.
#[derive(Clone, Debug, Default)]
pub struct Guess {
    files: Vec<String>,
    dirs: Vec<String>,
    /// Descriptors that are probably open.
    open: Vec<u8>,
    /// Those of them that are directories.
    open_dirs: Vec<u8>,
    /// Mappings that are probably there, each with the descriptor that it was made by.
    mapped: Vec<(u8, u8)>,
}

impl Guess {
    /// A file that is there.
    pub fn is_there(&mut self, path: impl Into<String>) {
        let path = path.into();
        if !self.files.contains(&path) {
            self.files.push(path);
        }
    }

    /// Another process goes on, which has nothing open.
    pub fn another_process(&mut self) {
        self.open.clear();
        self.open_dirs.clear();
        self.mapped.clear();
    }

    /// The process that guessed this goes on, and finds what others have left.
    pub fn back_to(self, left: Guess) -> Guess {
        Guess { open: self.open, open_dirs: self.open_dirs, mapped: self.mapped, ..left }
    }
}

/// Makes steps.
#[derive(Clone, Debug)]
pub struct Generator {
    /// The numbers.
    pub random: Random,
    /// What is probably there; for undone work, put back what was.
    pub guess: Guess,
    /// The directories in which names are made, at first the one of the start.
    pub roots: Vec<String>,
    leaves: &'static [&'static str],
    fill: u32,
}

impl Generator {
    /// The one of a seed.
    pub fn new(seed: u64) -> Self {
        Generator { random: Random(seed), guess: Guess::default(), roots: vec![String::new()], leaves: LEAVES, fill: 0 }
    }

    /// One that uses few files, so that they are used in many ways at once.
    pub fn of_few_files(seed: u64) -> Self {
        Generator { leaves: &LEAVES[..2], ..Self::new(seed) }
    }

    /// A step whose op is one of these, each as often as its weight says, or opens a file where none is open.
    pub fn step(&mut self, makes: &[(usize, Make)]) -> Step {
        let by_child = self.random.one_in(20);
        let op = match self.guess.open.is_empty() && self.random.one_in(2) {
            true => ops::open(self),
            false => self.random.weighted(makes)(self),
        };
        self.step_of(op, by_child)
    }

    fn step_of(&mut self, op: Op, by_child: bool) -> Step {
        if let Op::Open { slot, flags, .. } = &op
            && !by_child
        {
            self.guess.open_dirs.retain(|open| open != slot);
            self.guess.open_dirs.extend((flags.0 & libc::O_DIRECTORY != 0).then_some(*slot));
        }
        match op {
            Op::Open { slot, .. } | Op::OpenAt { slot, .. } | Op::Dup { to: slot, .. } if !by_child => {
                self.guess.open.push(slot);
            }
            Op::Close { slot } => {
                self.guess.open.retain(|open| *open != slot);
                self.guess.open_dirs.retain(|open| *open != slot);
            }
            Op::Map { map, slot, .. } if !by_child => self.guess.mapped.push((map, slot)),
            Op::Unmap { map } => self.guess.mapped.retain(|(mapped, _)| *mapped != map),
            _ => {}
        }
        Step { by_child, op }
    }

    /// A step that looks at one of these files in a directory, or at something that may be there.
    pub fn look(&mut self, dir: &str, files: &[&str]) -> Step {
        let roots = std::mem::replace(&mut self.roots, vec![dir.to_owned()]);
        let there = files.iter().map(|file| format!("{dir}/{file}")).collect();
        let (files, dirs) = (std::mem::replace(&mut self.guess.files, there), std::mem::take(&mut self.guess.dirs));
        // Nothing is opened that is not of these: it might be made, or cut.
        let (by_child, op) = (self.random.one_in(20), self.random.weighted(LOOKS)(self));
        let step = self.step_of(op, by_child);
        (self.roots, self.guess.files, self.guess.dirs) = (roots, files, dirs);
        step
    }

    fn any_slot(&mut self) -> u8 {
        self.random.below(SLOTS.into()) as u8
    }

    fn slot(&mut self) -> u8 {
        match self.guess.open.is_empty() || self.random.one_in(10) {
            true => self.any_slot(),
            false => self.random.of(&self.guess.open),
        }
    }

    fn directory_slot(&mut self) -> u8 {
        match self.guess.open_dirs.is_empty() || self.random.one_in(10) {
            true => self.slot(),
            false => self.random.of(&self.guess.open_dirs),
        }
    }

    fn mapping(&mut self) -> u8 {
        match self.guess.mapped.is_empty() || self.random.one_in(10) {
            true => self.any_slot(),
            false => self.random.of(&self.guess.mapped).0,
        }
    }

    /// Bytes that no other step writes, or zeros.
    fn fill(&mut self) -> u32 {
        self.fill += 1;
        if self.random.one_in(10) { 0 } else { self.fill }
    }

    /// A size, or an offset: around those that matter.
    fn size(&mut self) -> u64 {
        let size = self.random.of(SIZES);
        match self.random.below(4) {
            0 => size.saturating_sub(1 + self.random.below(20) as u64),
            1 => size + 1 + self.random.below(20) as u64,
            2 => self.random.below(size as usize + 1) as u64,
            _ => size,
        }
    }

    fn length(&mut self) -> u32 {
        self.size() as u32
    }

    /// A path below one of the roots.
    fn below(&mut self, path: &str) -> String {
        let root = self.random.of(&self.roots);
        if root.is_empty() { path.to_owned() } else { format!("{root}/{path}") }
    }

    fn new_dir(&mut self) -> String {
        let dir = self.random.of(DIRS);
        self.below(dir)
    }

    fn new_path(&mut self) -> String {
        let leaf = self.random.of(self.leaves);
        match self.random.below(8) {
            // Probably in no directory.
            0 => format!("{}/{leaf}", self.new_dir()),
            1..4 if !self.guess.dirs.is_empty() => format!("{}/{leaf}", self.random.of(&self.guess.dirs)),
            _ => self.below(leaf),
        }
    }

    fn may_be_in(&self, path: &str) -> bool {
        let parent = path.trim_start_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
        self.roots.iter().chain(&self.guess.dirs).any(|dir| dir == parent)
    }

    /// One that is probably there, or any.
    fn path_of(&mut self, there: &[String]) -> String {
        if there.is_empty() || self.random.one_in(8) { self.new_path() } else { self.random.of(there) }
    }

    fn file(&mut self) -> String {
        let files = self.guess.files.clone();
        let path = self.path_of(&files);
        // By its absolute path, which is another way through the directories.
        if self.random.one_in(8) { format!("/{path}") } else { path }
    }

    fn dir(&mut self) -> String {
        if self.guess.dirs.is_empty() || self.random.one_in(3) {
            let root = self.random.of(&self.roots);
            return match self.random.below(4) {
                0 => ".".to_owned(),
                1 if root.is_empty() => "/".to_owned(),
                2 if !root.is_empty() => root,
                _ => self.below("d"),
            };
        }
        let dirs = self.guess.dirs.clone();
        self.path_of(&dirs)
    }

    /// One below the root, which is a mountpoint.
    fn dir_below(&mut self) -> String {
        Some(self.dir()).filter(|dir| dir != "/").unwrap_or_else(|| self.new_dir())
    }

    fn any(&mut self) -> String {
        if self.random.one_in(3) { self.dir() } else { self.file() }
    }

    fn made(&mut self, path: &str) {
        if self.may_be_in(path) {
            self.guess.is_there(path.trim_start_matches('/'));
        }
    }

    fn gone(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        self.guess.files.retain(|file| file != path);
    }

    fn mode(&mut self) -> Mode {
        Mode(self.random.of(&[0o644, 0o600, 0o755, 0o444, 0o666, 0o4755, 0o2750, 0o1777, 0o000]))
    }
}
