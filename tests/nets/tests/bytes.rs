//! Every call that moves bytes, or asks for sizes and holes, against the same on the host.

use mojavefs_harness::Mount;
use mojavefs_nets::net::{Failure, Net};
use mojavefs_nets::scene::{Line, program};
use mojavefs_nets::{beside, empty, generate};

fn run(program: &[Line]) -> Result<(), Failure> {
    let mount = Mount::new();
    beside::run_on(&mount, program)?;
    empty::left_nothing(&mount)
}

#[test]
fn bytes_are_as_on_the_host() {
    Net { name: "bytes_are_as_on_the_host", program: |seed| program(seed, generate::BYTES), run, seeds: (12, 20_000) }
        .cast();
}
