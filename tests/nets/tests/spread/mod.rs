//! Spread: jobs of every kind, at work at the same time on the same files, some of which fail.
//!
//! Who is committed has seen only what is; what it wrote is there, whole, in an order that its reads allow; trunk shows nothing
//! that is undone; exit statuses tell the truth; and all of it ends.

mod checker;
mod history;
mod program;
mod running;
mod turns;

use mojavefs_nets::net::Net;
use program::program;

#[test]
fn who_is_committed_has_seen_what_is_and_left_what_it_did() {
    require_root!();
    let name = "who_is_committed_has_seen";
    Net { name, program, run: running::run, seeds: 30 }.cast();
}
