//! The same work natively and over a directory of the host: in jobs that are committed, undone, nested, held and decided later, with the
//! daemon killed between. Every answer is the same, and every tree, inside each job and outside.

use mojavefs_harness::host::OverHost;
use mojavefs_nets::beside;
use mojavefs_nets::generate::{self, Generator};
use mojavefs_nets::memory::Memory;
use mojavefs_nets::net::{Failure, Net};
use mojavefs_nets::scene::{Line, program};

fn run(program: &[Line]) -> Result<(), Failure> {
    let host = OverHost::new();
    host.run("true");
    beside::run_on(&host, &Memory::Ample, program)?;
    // What is displaced was in the way of nobody's change.
    let displaced = host.state().join("displaced");
    match displaced.exists() {
        false => Ok(()),
        true => {
            Err(Failure::new("displaced", format!("{displaced:?} is there, though nobody else has changed anything")))
        }
    }
}

#[test]
fn work_over_a_directory_is_as_in_it() {
    Net {
        name: "work_over_a_directory_is_as_in_it",
        program: |seed| program(Generator::new(seed), generate::ALL),
        run,
        seeds: 8,
    }
    .cast();
}
