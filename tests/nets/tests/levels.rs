//! Levels of one process, over its memory, mappings, signals, children, descriptors and files at once: after every order all of it
//! is as a model says that keeps a copy for each level; in the end what is final is there. In jobs that are committed and undone,
//! and in none.

use mojavefs_nets::machine;
use mojavefs_nets::net::Net;

#[test]
fn levels_keep_all_of_a_process_together() {
    Net { name: "levels_keep_all_of_a_process_together", program: machine::program, run: machine::run, seeds: 6 }
        .cast();
}
