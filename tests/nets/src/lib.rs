//! The nets: random use of the filesystem through real mounts and real processes, made from a seed. What a net holds is said in
//! the module of its test (`tests/nets/tests`), and in `docs/testing.md`.
//!
//! | to make a net of | there is |
//! | --- | --- |
//! | ops | [`op::Op`]: every call and every way of looking, each a line of text and back. [`op::Step`] is one, perhaps done by a child |
//! | programs | [`generate::Generator`]: `step(&[(weight, make)])`; [`generate::ALL`], [`generate::BYTES`], or a table of one's own |
//! | doing | [`worker::Worker`]: a process (`nets-worker`) that does a line and answers a line, outside of jobs, in a job, in one within; or does a file of lines. [`perform::Performer`] is what it does them with |
//! | comparing | answers are words without inode numbers, bytes told as `LENGTH:HASH`; [`tree::walk`]; [`known`] lists what is left out |
//! | running | [`net::Net`]: seeds, repeating, making smaller, telling; its lines are any type that is written as a line and read back |
//! | scenes | [`scene::program`] and [`beside::run_on`]: steps on trunk, in jobs, in jobs within jobs, done natively as well |
//! | little memory | [`memory::Memory`]: those that work on the mount have less than they use |
//! | falling | [`falls`]: a job that goes back to reads of what others have undone, and adopts their files |
//! | a hostile host | [`hostile`]: others change a directory of the host at each moment of a job over it, with a plain model of both |
//! | the end | [`empty::left_nothing`] |
//!
//! A failure prints its seed, and the smallest program that was found to fail in the same way ([`net::Failure::kind`]). Repeat with
//! `MOJAVEFS_SEED=N`, or write the lines to a file and set `MOJAVEFS_PROGRAM=FILE`; `MOJAVEFS_SEEDS=N` runs seeds 1 to N.
//! With `MOJAVEFS_PLANTED=FAULT` the programs with planted faults are run (`make planted`), and nothing is made smaller.

pub mod beside;
pub mod empty;
pub mod falls;
pub mod generate;
pub mod hostile;
pub mod kills;
pub mod known;
pub mod machine;
pub mod memory;
pub mod net;
pub mod op;
pub mod perform;
pub mod place;
pub mod random;
pub mod scene;
pub mod shrink;
mod sys;
pub mod tree;
mod words;
pub mod worker;
