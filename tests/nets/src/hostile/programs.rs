//! Programs: fixed ones, and those of a seed.

use super::model::{Change, Kind, Tree};
use super::{Decision, Line, Mode, When};
use crate::random::Random;

/// Directories that hold every kind of file, and jobs that make every kind of change.
pub const EVERYTHING: [&str; 3] = [
    "was write changed old-1
    was write replaced old-2
    was write removed old-3
    was write moved old-4
    was write modes old-5
    was write attributes old-6
    was write over old-7
    was write both old-8
    job append changed new-1
    job replace replaced new-2
    job remove removed -
    job move moved elsewhere
    job chmod modes 600
    job attribute attributes new-a
    job move both over
    job append over new-8
    job write made new-9",
    "was mkdir gone -
    was write gone/a old-1
    was mkdir gone/in -
    was write gone/in/b old-2
    was mkdir moved -
    was write moved/c old-3
    was mkdir moved/in -
    was write moved/in/d old-4
    was mkdir kept -
    was write kept/e old-5
    was write kept/f old-6
    was mkdir swapped -
    was write file old-7
    job remove-tree gone -
    job mkdir new -
    job mkdir new/in -
    job write new/in/x new-1
    job move moved new/moved
    job append new/moved/in/d new-2
    job move kept/e new/e
    job chmod kept 700
    job attribute swapped new-a
    job remove file -
    job mkdir file -
    job write file/y new-3",
    "was write one old-1
    was link one second
    was write three old-2
    was link three d
    was symlink link old-target
    was symlink dangling nowhere
    was fifo pipe -
    was fifo gone -
    was write e old-3
    was attribute e old-a
    job append one new-1
    job remove d -
    job remove link -
    job symlink link new-target
    job move dangling moved
    job remove gone -
    job fifo made -
    job chmod pipe 600
    job link e another
    job attribute e new-a
    job write fresh new-2
    job link fresh again
    job remove three -
    job symlink three e",
];

/// What is there at first in programs of a seed.
const TREE: &str = "was write f old-f
    was write g old-g
    was mkdir d -
    was write d/a old-a
    was write d/b old-b
    was mkdir d/e -
    was write d/e/c old-c
    was mkdir k -
    was write h old-h
    was link h d/h
    was symlink l old-l
    was fifo p -
    was attribute g old-x";
/// Names that are made.
const NEW: &[&str] = &["n", "m", "d/n", "d/e/n", "k/n", "n/n", "m/n"];
const TRIES_MAX: usize = 40;
/// How many calls an apply makes, roughly.
const CALLS: usize = 60;

/// Lines of text, as a program. Panics if one of them is none.
pub fn parse(text: &str) -> Vec<Line> {
    text.lines().map(|line| line.parse().expect("a line")).collect()
}

/// A random change that can be made in this tree, and is made there.
fn change(random: &mut Random, trees: [&mut Tree; 2], text: &str) -> Option<Change> {
    let [tree, other] = trees;
    for _ in 0..TRIES_MAX {
        let kind = random.weighted(&[
            (3, Kind::Write),
            (3, Kind::Append),
            (3, Kind::Replace),
            (3, Kind::Remove),
            (2, Kind::RemoveTree),
            (2, Kind::MakeDir),
            (1, Kind::Symlink),
            (1, Kind::Fifo),
            (1, Kind::HardLink),
            (4, Kind::Move),
            (1, Kind::Chmod),
            (1, Kind::Attribute),
        ]);
        let mut known: Vec<String> = tree.names.keys().cloned().collect();
        known.extend(NEW.iter().map(|new| (*new).to_owned()));
        let path = random.of(&known);
        let with = match kind {
            Kind::Write | Kind::Append | Kind::Replace | Kind::Symlink | Kind::Attribute => text.to_owned(),
            Kind::HardLink | Kind::Move => random.of(&known),
            Kind::Chmod => random.of(&["600", "700", "640"]).to_owned(),
            Kind::Remove | Kind::RemoveTree | Kind::MakeDir | Kind::Fifo => "-".to_owned(),
        };
        let change = Change { kind, path, with };
        if tree.change(&change) {
            other.change(&change);
            return Some(change);
        }
    }
    None
}

/// The program of a seed.
pub fn program(seed: u64) -> Vec<Line> {
    let mut random = Random(seed);
    let mut lines = parse(TREE);
    let mut host = Tree::default();
    lines.iter().filter_map(Line::change).for_each(|change| assert!(host.change(&change), "{change}"));
    let mut job = host.clone();
    let mode = random.weighted(&[(4, Mode::Plain), (1, Mode::Apart), (2, Mode::Hold), (1, Mode::HoldAgain)]);
    lines.push(Line::Mode { mode });
    for number in 0..1 + random.below(6) {
        if let Some(Change { kind, path, with }) =
            change(&mut random, [&mut job, &mut Tree::default()], &format!("job-{number}"))
        {
            lines.push(Line::Job { kind, path, with });
        }
    }
    for number in 0..random.below(4) {
        let when = moment(&mut random, mode);
        let text = format!("host-{number}");
        // What the job has made is there only afterwards.
        let trees = match matches!(when, When::Before(_) | When::After(_)) && random.one_in(3) {
            true => [&mut job, &mut host],
            false => [&mut host, &mut job],
        };
        if let Some(Change { kind, path, with }) = change(&mut random, trees, &text) {
            lines.push(Line::Host { when, kind, path, with });
        }
    }
    if random.one_in(3) {
        lines.push(Line::Kill { when: moment(&mut random, Mode::Plain) });
    }
    lines.push(Line::InConflict { decision: random.of(Decision::ALL) });
    lines
}

/// A change by somebody else at a random moment of a program's job.
pub fn disturb(random: &mut Random, lines: &[Line]) -> Option<Line> {
    let (mut host, mut job) = (Tree::default(), Tree::default());
    for line in lines {
        let change = line.change();
        if let (Line::Was { .. }, Some(change)) = (line, &change) {
            host.change(change);
        }
        change.map(|change| job.change(&change));
    }
    let when = moment(random, Mode::Plain);
    let trees = if random.one_in(3) { [&mut job, &mut host] } else { [&mut host, &mut job] };
    let Change { kind, path, with } = change(random, trees, "host")?;
    Some(Line::Host { when, kind, path, with })
}

fn moment(random: &mut Random, mode: Mode) -> When {
    let early = match mode {
        Mode::Hold | Mode::HoldAgain => When::Held,
        Mode::Plain | Mode::Apart => When::Running,
    };
    let call = 1 + random.below(CALLS);
    random.weighted(&[
        (1, early),
        (1, When::Prepare),
        (1, When::Recorded),
        (4, When::Before(call)),
        (3, When::After(call)),
    ])
}
