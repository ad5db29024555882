//! What it costs to run nothing.

use super::median_of;
use super::place::{Place, drop_caches, sync};
use crate::table::Table;
use crate::{Outcome, seconds};
use std::time::{Duration, Instant};

pub(super) const NAME: &str = "specrun true";
const WARM_TIMES: usize = 21;
const COLD_TIMES: usize = 5;
const WARM_GOAL: Duration = Duration::from_millis(30);
const COLD_GOAL: Duration = Duration::from_millis(150);

/// Prints how long `specrun true` takes: with everything there, and with nothing.
pub(super) fn bench(place: &Place) -> Outcome<()> {
    let mut table = Table::new(&[&place.title(), "true", "specrun true", "goal"]);
    let mut row = |name: &str, [bare, job]: [Duration; 2], goal: Duration| {
        let reached = if job <= goal { "reached" } else { "misses" };
        table.row(&[name.to_owned(), seconds(bare), seconds(job), format!("{}: {reached}", seconds(goal))]);
    };
    let empty = place.empty();
    let bare = || {
        let start = Instant::now();
        place.finish(&mut place.command("true", &empty))?;
        Ok(start.elapsed())
    };
    let job = || {
        let start = Instant::now();
        place.finish(&mut place.specrun(&["--quiet", "--", "true"], &empty)?)?;
        Ok(start.elapsed())
    };
    place.begin_daemon()?;
    row("specrun true, warm", [median_of(WARM_TIMES, bare)?, median_of(WARM_TIMES, job)?], WARM_GOAL);
    if !place.can_drop_caches() {
        eprintln!("mojavefs-bench: skipped: {NAME}, cold: dropping caches takes root");
        table.print();
        return Ok(());
    }
    // What is held keeps the store when the daemon ends.
    place.finish(&mut place.specrun(&["--hold", "--quiet", "--", "touch", "held"], &empty)?)?;
    let cold = |what: &dyn Fn() -> Outcome<Duration>| {
        median_of(COLD_TIMES, || {
            place.end_daemon()?;
            sync(&empty)?;
            drop_caches()?;
            what()
        })
    };
    row("specrun true, cold: no daemon, a store, no caches", [cold(&bare)?, cold(&job)?], COLD_GOAL);
    table.print();
    Ok(())
}
