//! Ways: every way of looking at what another job has changed and not committed yet, and what it must show, as a table.
//!
//! Each cell is a change, a way of looking at it, who looks, what becomes of the change, where the reader is then, and what its
//! kernel knew before. `make test` goes through a part of the table, of which every way of looking at every change is one that
//! is undone; `make soak` goes through all of it.

mod cells;
mod running;
mod table;

use cells::{Cell, End, Reader};
use mojavefs_nets::net::Net;
use mojavefs_nets::random::Random;

/// How many cells a program has besides those of jobs that join and fall.
const OTHERS: usize = 300;
/// How many cells a program of the whole table has.
const PART: usize = 600;

fn shuffled(mut cells: Vec<Cell>, random: &mut Random) -> Vec<Cell> {
    for at in (1..cells.len()).rev() {
        cells.swap(at, random.below(at + 1));
    }
    cells
}

/// A part of the table; the parts of all seeds are all of it.
fn part(seed: u64) -> Vec<Cell> {
    let all = cells::all();
    let parts = all.len().div_ceil(PART);
    let all = shuffled(all, &mut Random(0));
    let is_of = |at: usize| at % parts == (seed as usize) % parts;
    all.into_iter().enumerate().filter(|(at, _)| is_of(*at)).map(|(_, cell)| cell).collect()
}

/// Each way of looking at each change once, by one who goes back; and some of all others.
fn sample(seed: u64) -> Vec<Cell> {
    let mut random = Random(seed);
    let all = shuffled(cells::all(), &mut random);
    let falls = |cell: &Cell| cell.reader == Reader::Join && matches!(cell.end, End::Undo | End::ChainUndo);
    let (falling, others): (Vec<_>, Vec<_>) = all.into_iter().partition(falls);
    let mut chosen: Vec<Cell> = Vec::new();
    for cell in falling {
        if !chosen.iter().any(|other| (other.subject.name, other.look.name) == (cell.subject.name, cell.look.name)) {
            chosen.push(cell);
        }
    }
    chosen.extend(others.into_iter().take(OTHERS));
    chosen
}

fn program(seed: u64) -> Vec<Cell> {
    if std::env::var_os("MOJAVEFS_SOAK").is_some() { part(seed) } else { sample(seed) }
}

#[test]
fn every_way_of_looking_shows_what_is_and_after_a_fall_what_was() {
    require_root!();
    Net { name: "every_way_of_looking", program, run: running::run, seeds: 1 }.cast();
}
