//! Random histories of one process against a model that keeps a copy of everything per level.
//!
//! The commands come from another process through a pipe, which no abort takes back.

use crate::alone::{alone, code, pipe};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;

const CELLS: usize = 64;
const FILES: usize = 4;
const STEPS: usize = 400;

/// A generator that a seed repeats (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[derive(Clone, Default, PartialEq, Debug)]
struct State {
    cells: Vec<u8>,
    /// Open files: their offsets.
    files: Vec<Option<u64>>,
    mask: u8,
}

/// One open level of the model.
struct Level {
    /// What it goes back to.
    before: State,
    /// Its number.
    id: i32,
    /// The interval that began with its entry.
    entry: usize,
    /// The interval that voted for it.
    vote: Option<usize>,
}

#[derive(Default)]
struct Model {
    now: State,
    levels: Vec<Level>,
    last_id: i32,
    /// What the process did between two entries: the numbers of those that are not undone. None has one twice.
    intervals: Vec<usize>,
    begun: usize,
}

impl Model {
    fn begin(&mut self) -> usize {
        self.begun += 1;
        self.intervals.push(self.begun);
        self.begun
    }

    fn enter(&mut self) {
        self.last_id += 1;
        let entry = self.begin();
        self.levels.push(Level { before: self.now.clone(), id: self.last_id, entry, vote: None });
    }

    fn go_back(&mut self, at: usize, retry: bool) {
        self.now = self.levels[at].before.clone();
        // What began with the entry or later is undone, and the votes that it cast are taken back.
        let entry = self.levels[at].entry;
        self.intervals.retain(|interval| *interval < entry);
        self.levels.iter_mut().for_each(|level| level.vote = level.vote.filter(|vote| *vote < entry));
        self.levels.truncate(at + usize::from(retry));
        if retry {
            self.levels[at].entry = self.begin();
        }
    }

    fn vote(&mut self, at: usize) {
        let current = self.intervals.last().copied();
        self.levels[at].vote = self.levels[at].vote.or(current);
        // A vote needs the levels that were entered from its own level's entry up to where it was cast. Those go from the list
        // of which every needed one goes, which may be each other.
        let mut goes: Vec<bool> = self.levels.iter().map(|level| level.vote.is_some()).collect();
        let needs = |level: &Level, other: &Level| (level.entry..=level.vote.unwrap_or(0)).contains(&other.entry);
        while let Some(stays) = (0..goes.len())
            .find(|at| goes[*at] && (0..goes.len()).any(|n| !goes[n] && needs(&self.levels[*at], &self.levels[n])))
        {
            goes[stays] = false;
        }
        let mut goes = goes.into_iter();
        self.levels.retain(|_| !goes.next().expect("one for each level"));
    }
}

/// What the process does: a command of four bytes at a time; after each, its whole state goes back.
fn obey(orders: &File, answers: &File, path: &std::path::Path) {
    let mut cells: Vec<Box<[u8; 3000]>> = (0..CELLS).map(|_| Box::new([0; 3000])).collect();
    let mut files: Vec<Option<i32>> = vec![None; FILES];
    loop {
        let mut order = [0u8; 8];
        if (&mut &*orders).read_exact(&mut order).is_err() {
            return;
        }
        let (what, a, b) = (order[0], usize::from(order[1]), order[2]);
        let id = i32::from_le_bytes(order[4..].try_into().unwrap());
        match what {
            0 => cells[a].fill(b),
            1 => *cells[a] = [b; 3000],
            2 => {
                // Elsewhere in memory.
                let old = std::mem::replace(&mut cells[a], Box::new([b; 3000]));
                drop(old);
            }
            3 => match files[a].take() {
                Some(fd) => drop(unsafe { libc::close(fd) }),
                None => files[a] = Some(unsafe { libc::dup(File::open(path).unwrap().as_raw_fd()) }),
            },
            4 => {
                if let Some(fd) = files[a] {
                    let mut file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(fd) });
                    file.seek(SeekFrom::Start(u64::from(b))).unwrap();
                }
            }
            5 => drop(unsafe { libc::umask(u32::from(b)) }),
            6 => drop(mojave::enter().expect("enter")),
            7 => drop(unsafe { spec_commit(id) }),
            8 => drop(unsafe { spec_abort(id, 1) }),
            _ => drop(unsafe { spec_retry(id, 1) }),
        }
        let mut answer: Vec<u8> = cells.iter().map(|cell| cell[2999]).collect();
        assert!(cells.iter().all(|cell| cell.iter().all(|byte| *byte == cell[0])));
        for fd in &files {
            let at = fd.map_or(u64::MAX, |fd| unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) } as u64);
            answer.extend(at.to_le_bytes());
        }
        let mask = unsafe { libc::umask(0) };
        unsafe { libc::umask(mask) };
        answer.push(mask as u8);
        answer.extend(mojave::depth().to_le_bytes());
        (&mut &*answers).write_all(&answer).unwrap();
    }
}

unsafe extern "C" {
    fn spec_commit(id: i32) -> i32;
    fn spec_abort(id: i32, code: i32) -> i32;
    fn spec_retry(id: i32, code: i32) -> i32;
}

fn history(seed: u64) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [0; 300]).unwrap();
    let ((orders, give), (answers, say)) = (pipe(), pipe());
    let child = unsafe { libc::fork() };
    if child == 0 {
        unsafe { libc::alarm(60) };
        unsafe { libc::umask(0) };
        drop((give, answers));
        if seed.is_multiple_of(2) {
            // Who is not root is told less by the kernel.
            std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
            crate::alone::become_nobody();
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| obey(&orders, &say, file.path())));
        unsafe { libc::_exit(if result.is_ok() { 0 } else { 101 }) };
    }
    drop((orders, say));
    let mut random = Random(seed * 0x9E37_79B9_7F4A_7C15 + 1);
    let now = State { cells: vec![0; CELLS], files: vec![None; FILES], mask: 0 };
    let mut model = Model { now, ..Model::default() };
    model.begin();
    for step in 0..STEPS {
        let depth = model.levels.len() as u64;
        let what = match random.below(22) {
            0..=7 => random.below(6) as u8,
            8..=13 if depth < 12 => 6,
            14..=18 if depth > 0 => 7,
            19..=20 if depth > 0 => 8,
            21 if depth > 0 => 9,
            _ => 0,
        };
        let (a, b) =
            (random.below(if (3..5).contains(&what) { FILES } else { CELLS } as u64) as usize, random.below(64) as u8);
        // Most often the innermost, so that votes for outer ones are there for long.
        let innermost = if what == 7 { random.below(2) == 0 } else { random.below(10) > 0 };
        let at = match what {
            7.. if innermost => depth as usize - 1,
            7.. => random.below(depth) as usize,
            _ => 0,
        };
        let id = if what >= 7 { model.levels[at].id } else { 0 };
        match what {
            0..=2 => model.now.cells[a] = b,
            3 => model.now.files[a] = if model.now.files[a].is_some() { None } else { Some(0) },
            4 if model.now.files[a].is_some() => model.now.files[a] = Some(u64::from(b)),
            5 => model.now.mask = b,
            6 => model.enter(),
            7 => model.vote(at),
            8 => model.go_back(at, false),
            9 => model.go_back(at, true),
            _ => {}
        }
        let order = [&[what, a as u8, b, 0][..], &id.to_le_bytes()].concat();
        (&give).write_all(&order).unwrap();
        let mut answer = vec![0u8; CELLS + 8 * FILES + 1 + 8];
        let answered = (&answers).read_exact(&mut answer);
        let place = || format!("seed {seed}, step {step}: order {what} at level {at}; repeat with MOJAVE_SEED={seed}");
        assert!(answered.is_ok(), "{}: the process is gone", place());
        let numbers: Vec<u64> =
            answer[CELLS..CELLS + 8 * FILES].chunks(8).map(|n| u64::from_le_bytes(n.try_into().unwrap())).collect();
        let state = State {
            cells: answer[..CELLS].to_vec(),
            files: numbers.into_iter().map(|at| (at != u64::MAX).then_some(at)).collect(),
            mask: answer[CELLS + 8 * FILES],
        };
        assert_eq!(state, model.now, "{}", place());
        assert_eq!(answer[CELLS + 8 * FILES + 1] as usize, model.levels.len(), "{}", place());
    }
    drop(give);
    assert_eq!(crate::alone::wait(child), 0, "seed {seed}");
}

#[test]
fn random_histories_are_as_the_model_says() {
    let chosen = std::env::var("MOJAVE_SEED").ok().and_then(|seed| seed.parse().ok());
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    let seeds = match chosen {
        Some(seed) => seed..seed + 1,
        None => 1..if soak { 1000 } else { 25 },
    };
    seeds.for_each(history);
}

#[test]
fn a_long_speculation_ends_well() {
    alone(|| {
        let mut state: Vec<u64> = (0..10_000).collect();
        if crate::alone::enter().is_none() {
            let mut random = Random(7);
            for _ in 0..100_000 {
                let at = random.below(state.len() as u64) as usize;
                state[at] = random.below(1000);
                state.push(1);
            }
            panic!("{}", mojave::abort(mojave::current().unwrap(), code(1)));
        }
        assert!(state.iter().copied().eq(0..10_000));
    });
}
