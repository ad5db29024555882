//! Whatever is killed, ended, stopped or taken away, and when: acknowledged is there, refused is not, unknown is all or nothing,
//! held is held.

use mojavefs_nets::kills;
use mojavefs_nets::net::Net;

#[test]
fn what_was_said_is_so_whatever_was_struck() {
    Net { name: "what_was_said_is_so_whatever_was_struck", program: kills::program, run: kills::run, seeds: 10 }.cast();
}
