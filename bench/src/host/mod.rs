//! Jobs over a directory of the host, beside the same commands in other ways: on the bare filesystem and synced, on an overlay that is
//! copied back and synced, and with `try`.
//!
//! Each run has a directory of its own, which is on disk before it begins; the ways take turns. The daemon begins before a job over the host
//! and ends after it, so that nothing of it goes on while others are measured.

mod overlay;
mod place;
mod rows;
mod start;
mod way;

use crate::table::Table;
use crate::{Outcome, ROUNDS, median, ratio, seconds};
use place::{Place, drop_caches};
use rows::{Caches, Goal, Row};
use std::fs;
use std::path::Path;
use std::time::Duration;
use way::Way;

/// What one run took.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    job: Duration,
    /// Until what the job did is on the host, and on disk.
    commit: Duration,
}

impl Took {
    fn sum(self) -> Duration {
        self.job + self.commit
    }
}

/// For whom the tables are printed beside root's.
const ORDINARY: &str = "nobody";

/// Prints the tables of jobs over the host, of this user if one is named; else of who runs this, and if that is root, of an ordinary user, too.
pub(crate) fn bench(filter: &str, user: Option<&str>) -> Outcome<()> {
    let is_meant = |name: &str| format!("host: {name}").contains(filter);
    if !Row::ALL.iter().map(|row| row.name).chain([start::NAME]).any(is_meant) {
        return Ok(());
    }
    let place = Place::new(user)?;
    tables(&place, &is_meant)?;
    if user.is_some() || !place.is_roots() {
        return place.close();
    }
    place.close()?;
    let place = Place::new(Some(ORDINARY))?;
    match place.begin_daemon() {
        Ok(()) => tables(&place, &is_meant)?,
        Err(why) => eprintln!("mojavefs-bench: skipped: jobs over the host by {ORDINARY}: {why}"),
    }
    place.close()
}

fn tables(place: &Place, is_meant: &dyn Fn(&str) -> bool) -> Outcome<()> {
    let rows: Vec<&Row> = Row::ALL.iter().filter(|row| is_meant(row.name)).collect();
    if !rows.is_empty() {
        let ways = available(place)?;
        let mut table = Table::new(&[&place.title(), "by", "job", "commit", "sum", "x bare", "goal"]);
        for row in rows {
            compare(row, &ways, place, &mut table)?;
        }
        table.print();
    }
    if is_meant(start::NAME) { start::bench(place) } else { Ok(()) }
}

/// Makes what a row needs, as the user whose job it is.
pub(crate) fn prepare(name: &str, dir: &Path) -> Outcome<()> {
    let row = Row::ALL.iter().find(|row| row.name == name).ok_or_else(|| format!("there is no row {name}"))?;
    (row.prepare)(dir)
}

/// The ways that work here. The others are named, with the reason.
fn available(place: &Place) -> Outcome<Vec<Way>> {
    let mut ways = Vec::new();
    for way in Way::ALL {
        let dir = place.fresh()?;
        match way.run(place, &dir, "true") {
            Ok(_) => ways.push(way),
            Err(why) if way.is_needed() => return Err(why),
            Err(why) => eprintln!("mojavefs-bench: skipped: {}: {why}", way.name()),
        }
        place.end_daemon()?;
        fs::remove_dir_all(&dir)?;
    }
    Ok(ways)
}

/// Takes the figures of one row in turns, and adds its lines to the table.
fn compare(row: &Row, ways: &[Way], place: &Place, table: &mut Table) -> Outcome<()> {
    if let Err(why) = place.sh(place.root(), row.needs) {
        eprintln!("mojavefs-bench: skipped: {}: {why}", row.name);
        return Ok(());
    }
    if row.caches == Caches::Cold && !place.can_drop_caches() {
        eprintln!("mojavefs-bench: skipped: {}: dropping caches takes root", row.name);
        return Ok(());
    }
    let taken = take_turns(row, ways, place)?;
    let of = |wanted: Way| taken.iter().find(|(way, _)| *way == wanted).map(|(_, took)| *took);
    let bare = of(Way::Bare).ok_or("the bare filesystem is no way")?;
    for (way, took) in &taken {
        let goals = match way {
            Way::Specrun => judged(row, *took, bare, of(Way::FuseOverlayfs)),
            _ => String::new(),
        };
        let (commit, sum) = match row.is_timed_by_itself {
            true => ("-".to_owned(), "-".to_owned()),
            false => (seconds(took.commit), seconds(took.sum())),
        };
        let x = ratio(took.sum(), bare.sum());
        table.row(&[row.name.to_owned(), way.name().to_owned(), seconds(took.job), commit, sum, x, goals]);
    }
    Ok(())
}

/// What each way takes for a row. One that can't do it is left out, if it is none of ours.
fn take_turns(row: &Row, ways: &[Way], place: &Place) -> Outcome<Vec<(Way, Took)>> {
    let mut taken: Vec<(Way, Vec<Took>)> = ways.iter().map(|way| (*way, Vec::new())).collect();
    for _ in 0..ROUNDS {
        let mut able = Vec::new();
        for (way, mut times) in taken {
            match once(row, way, place).map_err(|why| format!("{} by {}: {why}", row.name, way.name())) {
                Ok(took) => {
                    times.push(took);
                    able.push((way, times));
                }
                Err(why) if way.is_needed() => return Err(why.into()),
                Err(why) => eprintln!("mojavefs-bench: skipped: {why}"),
            }
        }
        taken = able;
    }
    Ok(taken.into_iter().map(|(way, times)| (way, middle(times))).collect())
}

/// One run in a fresh directory.
fn once(row: &Row, way: Way, place: &Place) -> Outcome<Took> {
    let dir = place.fresh()?;
    let took = once_in(row, way, place, &dir);
    place.end_daemon()?;
    fs::remove_dir_all(&dir)?;
    took
}

fn once_in(row: &Row, way: Way, place: &Place, dir: &Path) -> Outcome<Took> {
    let project = dir.join(place::PROJECT);
    place.finish(place.command(std::env::current_exe()?, &project).args(["prepare", row.name]).arg(&project))?;
    if way == Way::Specrun {
        place.begin_daemon()?;
    }
    place::sync(&project)?;
    if row.caches == Caches::Cold {
        drop_caches()?;
    }
    let (took, said) = way.run(place, dir, row.script)?;
    place.sh(&project, row.leaves).map_err(|why| format!("the work was not done: {why}"))?;
    if !row.is_timed_by_itself {
        return Ok(took);
    }
    let nanoseconds = said.trim().parse().map_err(|_| format!("says no time: {said}"))?;
    Ok(Took { job: Duration::from_nanos(nanoseconds), commit: Duration::ZERO })
}

/// The run whose sum is the median.
fn middle(mut taken: Vec<Took>) -> Took {
    taken.sort_by_key(|took| took.sum());
    taken[taken.len() / 2]
}

/// What is said of a row's goals.
fn judged(row: &Row, took: Took, bare: Took, other: Option<Took>) -> String {
    let word = |is_reached: bool| if is_reached { "reached" } else { "misses" };
    let judge = |goal: &Goal| match goal {
        Goal::Bare(most) => {
            format!("{most:.1} x: {}", word(took.sum().as_secs_f64() <= most * bare.sum().as_secs_f64()))
        }
        Goal::Commit(most) => format!("commit {}: {}", seconds(*most), word(took.commit <= *most)),
    };
    let ahead = other.map(|other| format!("ahead of fuse-overlayfs: {}", word(took.sum() < other.sum())));
    row.goals.iter().map(judge).chain(ahead).collect::<Vec<_>>().join("; ")
}

/// The median of several times that something takes.
fn median_of(times: usize, mut take: impl FnMut() -> Outcome<Duration>) -> Outcome<Duration> {
    Ok(median((0..times).map(|_| take()).collect::<Outcome<Vec<_>>>()?))
}
