//! Random histories of levels in one process, over its memory, its descriptors and its files at once; a model says after every
//! step how all of it must be, and in the end what is final.

mod model;

use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{Mount, SPECRUN, until};
use model::{CELLS, MAPPED_BYTES, Model, NAMES, Order, SLOTS, What};
use mojavefs_nets::random::Random;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const STEPS: usize = 250;
const DEPTH_MAX: usize = 12;
/// Between the seeds of the two histories of one.
const HISTORIES_APART: u64 = 1 << 32;

fn draw(random: &mut Random, model: &Model) -> (Order, usize) {
    let depth = model.depth();
    let what = match random.below(22) {
        0..8 => match random.below(16) {
            0 => What::Fill,
            1 => What::Replace,
            2..5 => What::Write,
            5 => What::Append,
            6 => What::Unlink,
            7 => What::Rename,
            8 => What::Link,
            9 => What::Truncate,
            10 | 11 => What::Open,
            12 | 13 => What::Put,
            14 => What::Seek,
            _ if random.below(4) == 0 => What::Child,
            _ => What::Map,
        },
        8..14 if depth < DEPTH_MAX => What::Enter,
        14..19 if depth > 0 => What::Commit,
        19 | 20 if depth > 0 => What::Abort,
        21 if depth > 0 => What::Retry,
        _ => What::Map,
    };
    let a = random.below(match what {
        What::Fill | What::Replace => CELLS,
        What::Open | What::Put | What::Seek => SLOTS,
        _ => NAMES.len(),
    });
    let what = match what {
        What::Put | What::Seek if !model.is_open(a) => What::Open,
        what => what,
    };
    // Most often the innermost, so that votes for outer ones are there for long.
    let innermost = match what {
        What::Commit => random.below(2) == 0,
        _ => random.below(10) > 0,
    };
    let level = if innermost || depth == 0 { depth.saturating_sub(1) } else { random.below(depth) };
    let number = match what {
        What::Map => random.below(MAPPED_BYTES),
        What::Commit | What::Abort | What::Retry => model.id(level).cast_unsigned() as usize,
        What::Append => random.below(3000),
        // Large ones lie in content files, small ones in records.
        _ if random.below(4) == 0 => random.below(40_000),
        _ => random.below(300),
    };
    (Order { what, a, b: random.below(NAMES.len()), byte: random.below(100) as u8, number }, level)
}

fn bytes(order: &Order) -> Vec<u8> {
    let number = u32::try_from(order.number).expect("numbers are small").to_ne_bytes();
    [&[order.what as u8, order.a as u8, order.b as u8, order.byte][..], &number].concat()
}

/// The histories of a seed: in a job, and without one.
fn run(seed: u64) {
    println!("MOJAVEFS_SEED={seed}");
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "orders");
    for (number, options) in [&[][..], &["--no-speculation"]].into_iter().enumerate() {
        let mut random = Random(seed + number as u64 * HISTORIES_APART);
        let place = format!("again with MOJAVEFS_SEED={seed}");
        history(&mount, &program, options, &place, STEPS, |model, _| draw(&mut random, model));
    }
    mount.check();
}

/// One history, in a directory of its own; `next` says what is done in each step, and to which level.
fn history(
    mount: &Mount,
    program: &Path,
    options: &[&str],
    again: &str,
    steps: usize,
    mut next: impl FnMut(&Model, usize) -> (Order, usize),
) {
    let place = |step: usize| format!("step {step}, {options:?}; {again}");
    let dir = mount.at(format!("history{}", options.concat()));
    fs::create_dir(&dir).expect("mkdir");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(options).arg("--quiet").arg("--").arg(program).current_dir(&dir);
    let mut specrun = specrun.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("specrun runs");
    let mut orders = specrun.stdin.take().expect("its input");
    let mut answers = BufReader::new(specrun.stdout.take().expect("its output")).lines();
    let mut model = Model::new();
    for step in 0..steps {
        let (order, level) = next(&model, step);
        let result = model.act(&order, level);
        orders.write_all(&bytes(&order)).expect("it takes orders");
        let answer = answers.next().unwrap_or_else(|| panic!("{}: {order:?} ended it", place(step))).expect("text");
        let (current, told) = answer.split_once(':').expect("its level and the rest");
        let current: i32 = current.parse().expect("a number");
        assert_eq!(told, model.tell(result), "{}: {order:?} at level {level}", place(step));
        if order.what == What::Enter {
            model.entered(current);
        }
        assert_eq!(current, model.current(), "{}", place(step));
    }
    drop(orders);
    assert!(specrun.wait().expect("it ends").success(), "{}", place(steps));
    until("what it had open is undone", || mount.status().is_empty());
    let end = model.end();
    for (name, path) in NAMES.iter().enumerate() {
        assert_eq!(fs::read(dir.join(path)).ok().as_deref(), end.read(name), "{path}: {}", place(steps));
    }
}

/// A vote cast inside of two levels, of which one is committed and one undone that is entered in its place.
#[test]
fn a_vote_that_was_cast_in_a_committed_level_does_not_fall_with_a_later_one() {
    use What::{Abort, Commit, Enter, Retry, Write};
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "orders");
    for options in [&[][..], &["--no-speculation"]] {
        let steps = [
            (Enter, 0),
            (Write, 0),
            (Enter, 0),
            (Enter, 0),
            (Commit, 0),
            (Commit, 2),
            (Enter, 0),
            (Abort, 2),
            (Enter, 0),
            (Retry, 2),
            (Abort, 2),
            (Commit, 1),
        ];
        history(&mount, &program, options, "no seed", steps.len(), |model, step| {
            let (what, level) = steps[step];
            let decides = matches!(what, Commit | Abort | Retry);
            let number = if decides { model.id(level).cast_unsigned() as usize } else { 5 };
            (Order { what, a: 0, b: 0, byte: 1, number }, level)
        });
        let dir = mount.at(format!("history{}", options.concat()));
        assert_eq!(fs::read(dir.join(NAMES[0])).expect("the vote counts"), [1; 5]);
    }
    mount.check();
}

#[test]
fn random_levels_keep_memory_descriptors_and_files_together() {
    let chosen = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    match chosen {
        Some(seed) => run(seed),
        None => (1..=if soak { 500 } else { 6 }).for_each(run),
    }
}
