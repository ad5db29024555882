//! The same work natively and on a mount: on trunk, in jobs that are committed, undone, nested, held and decided later, and
//! remounted between. Every answer is the same, and every tree, inside each job and outside.

use mojavefs_harness::Mount;
use mojavefs_nets::empty::Standing;
use mojavefs_nets::generate::Generator;
use mojavefs_nets::memory::Memory;
use mojavefs_nets::net::{Failure, Net};
use mojavefs_nets::scene::{Line, program};
use mojavefs_nets::{beside, empty, generate};

fn run(program: &[Line]) -> Result<(), Failure> {
    let mount = Mount::new();
    let before = Standing::of(&mount);
    beside::run_on(&mount, &Memory::Ample, program)?;
    empty::left_nothing(&mount, &before)
}

#[test]
fn work_on_a_mount_is_as_on_the_host() {
    Net {
        name: "work_on_a_mount_is_as_on_the_host",
        program: |seed| program(Generator::new(seed), generate::ALL),
        run,
        seeds: 12,
    }
    .cast();
}
