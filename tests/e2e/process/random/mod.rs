//! Random histories of levels in one process, over its memory, its descriptors and its files at once; a model says after every
//! step how all of it must be, and in the end what is final.

mod model;

use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{Mount, SPECRUN, until};
use crate::spreading::random::Random;
use model::{CELLS, MAPPED_BYTES, Model, NAMES, Order, SLOTS, What};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const STEPS: usize = 250;
const DEPTH_MAX: usize = 12;

fn draw(random: &mut Random, model: &Model) -> (Order, usize) {
    let depth = model.depth();
    let what = match random.below(22) {
        0..12 => match random.below(16) {
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
        12..16 if depth < DEPTH_MAX => What::Enter,
        16..19 if depth > 0 => What::Commit,
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
    let level = if depth > 0 { random.below(depth) } else { 0 };
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
    history(&mount, &program, &[], seed);
    history(&mount, &program, &["--no-speculation"], seed);
    mount.check();
}

/// One history, in a directory of its own.
fn history(mount: &Mount, program: &Path, options: &[&str], seed: u64) {
    let place = |step: usize| format!("seed {seed}, step {step}, {options:?}; again with MOJAVEFS_SEED={seed}");
    let dir = mount.at(format!("history{}", options.concat()));
    fs::create_dir(&dir).expect("mkdir");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(options).arg("--quiet").arg("--").arg(program).current_dir(&dir);
    let mut specrun = specrun.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("specrun runs");
    let mut orders = specrun.stdin.take().expect("its input");
    let mut answers = BufReader::new(specrun.stdout.take().expect("its output")).lines();
    let (mut random, mut model) = (Random(seed), Model::new());
    for step in 0..STEPS {
        let (order, level) = draw(&mut random, &model);
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
    assert!(specrun.wait().expect("it ends").success(), "{}", place(STEPS));
    until("what it had open is undone", || mount.status().is_empty());
    let end = model.end();
    for (name, path) in NAMES.iter().enumerate() {
        assert_eq!(fs::read(dir.join(path)).ok().as_deref(), end.read(name), "{path}: {}", place(STEPS));
    }
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
