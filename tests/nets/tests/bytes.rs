//! Every call that moves bytes, or asks for sizes and holes, against the same on the host.

use mojavefs_harness::{Mount, require_root};
use mojavefs_nets::empty::Standing;
use mojavefs_nets::generate::Generator;
use mojavefs_nets::net::{Failure, Net};
use mojavefs_nets::scene::{Line, program};
use mojavefs_nets::{beside, empty, falls, generate};

fn run(program: &[Line]) -> Result<(), Failure> {
    let mount = Mount::new();
    let before = Standing::of(&mount);
    beside::run_on(&mount, program)?;
    empty::left_nothing(&mount, &before)
}

#[test]
fn bytes_are_as_on_the_host() {
    Net {
        name: "bytes_are_as_on_the_host",
        program: |seed| program(Generator::of_few_files(seed), generate::BYTES),
        run,
        seeds: 12,
    }
    .cast();
}

#[test]
fn a_job_that_goes_back_sees_what_it_would_have_seen() {
    require_root!();
    let name = "a_job_that_goes_back_sees_what_it_would_have_seen";
    Net { name, program: falls::program, run: falls::run, seeds: 12 }.cast();
}
