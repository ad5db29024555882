//! In turns: many jobs, and jobs inside of jobs, do things to the same files one after the other, so that all can be foretold:
//! what each is answered, who depends on whom, who falls with whom, who is in conflict, who is final when, and what trunk shows.

mod model;
mod program;
mod running;

use mojavefs_nets::net::Net;

#[test]
fn in_turns_each_sees_and_leaves_what_the_rules_say() {
    let name = "in_turns_each_sees_and_leaves";
    Net { name, program: program::program, run: running::run, seeds: 6 }.cast();
}
