//! Jobs, held work and ordinary writes, one after the other in two places at once, and a blow at any moment: to the daemon, the
//! server, `specrun`, a job's command, the mount, or the disk. Then: what was acknowledged is there and whole, what was refused
//! is not, what is unknown is all there or not at all, what is held is held.

mod blow;
mod judge;
mod runner;

use crate::net::Failure;
use crate::random::Random;
use crate::words::{lines, words};
use blow::Site;
use runner::Runner;
use std::time::{Duration, Instant};

words! {
    /// What a runner does.
    pub enum How {
        /// A job that replaces all that the runner has.
        Plain "plain",
        /// The same, isolated from others.
        Apart "apart",
        /// The same, without checkpoints.
        FromStart "from-start",
        /// The same, by a job within a job.
        Nested "nested",
        /// The same, but its command fails.
        Fails "fails",
        /// A job that is held.
        Hold "hold",
        /// An ordinary process's file, synced.
        Synced "synced",
    }
}

words! {
    /// What happens at some moment.
    // Their names say what they do.
    #[allow(missing_docs)]
    pub enum Blow {
        /// Nothing, and all that is refused then is an error.
        Nothing "nothing",
        /// `SIGKILL`, `SIGTERM`, or `SIGSTOP` and a moment later `SIGCONT`, to the daemon behind the mount.
        KillDaemon "kill-daemon",
        EndDaemon "end-daemon",
        StopDaemon "stop-daemon",
        /// The same to the server.
        KillServer "kill-server",
        EndServer "end-server",
        StopServer "stop-server",
        /// To a `specrun`, or the command that it runs.
        KillSpecrun "kill-specrun",
        EndSpecrun "end-specrun",
        KillCommand "kill-command",
        /// `mojavefs umount`, which is refused while somebody is there, and `umount --force`.
        Umount "umount",
        UmountForce "umount-force",
        /// The disk refuses to sync, or is full, for a while.
        SyncFails "sync-fails",
        DiskFull "disk-full",
    }
}

lines! {
    /// A line of a program.
    pub enum Line {
        /// The store has a server, and the mount is a client of it.
        Served "served" { },
        Job "job" { runner: usize, how: How },
        /// So many microseconds after the beginning; the last one counts.
        Strike "strike" { blow: Blow, after: u64 },
    }
}

/// How many do something at once.
const RUNNERS: usize = 2;
const JOBS: usize = 8;
/// The latest moment of a blow, in microseconds.
const AFTER_MAX: usize = 400_000;

/// The program of a seed.
pub fn program(seed: u64) -> Vec<Line> {
    let mut random = Random(seed);
    let served = random.one_in(2);
    let mut lines = if served { vec![Line::Served {}] } else { Vec::new() };
    for _ in 0..RUNNERS * JOBS {
        let how = if random.one_in(2) { How::Plain } else { random.of(How::ALL) };
        lines.push(Line::Job { runner: random.below(RUNNERS), how });
    }
    let fits = |blow: &Blow| served || !matches!(blow, Blow::KillServer | Blow::EndServer | Blow::StopServer);
    let blows: Vec<Blow> = Blow::ALL.iter().copied().filter(fits).collect();
    lines.push(Line::Strike { blow: random.of(&blows), after: random.below(AFTER_MAX) as u64 });
    lines
}

/// Runs a program on a mount of its own.
pub fn run(lines: &[Line]) -> Result<(), Failure> {
    let mut site = Site::new(lines.contains(&Line::Served {}));
    let strike = lines.iter().rev().find_map(|line| match line {
        Line::Strike { blow, after } => Some((*blow, Duration::from_micros(*after))),
        _ => None,
    });
    let (blow, after) = strike.unwrap_or((Blow::Nothing, Duration::ZERO));
    println!("{blow} after {after:?}");
    let mut runners: Vec<Runner> = (0..RUNNERS).map(|number| Runner::new(&site.mount, number, lines)).collect();
    let (now, moment) = (runners.iter().map(Runner::now).collect::<Vec<_>>(), Instant::now() + after);
    std::thread::scope(|scope| {
        for runner in &mut runners {
            scope.spawn(move || runner.run());
        }
        mojavefs_harness::until("the moment has come", || Instant::now() >= moment);
        site.strike(blow, &now);
    });
    let failed = |what: String| Failure::new(blow.to_string(), format!("{blow} after {after:?}: {what}"));
    let done = |runners: &[Runner]| runners.iter().map(Runner::tell).collect::<Vec<_>>().join("; ");
    let told = |what: String| failed(format!("{what}\n  {}", done(&runners)));
    if matches!(blow, Blow::Nothing | Blow::StopDaemon | Blow::StopServer) {
        runners.iter().try_for_each(Runner::all_went_well).map_err(told)?;
    }
    site.recover(blow).map_err(told)?;
    judge::judge(&site.mount, &runners).map_err(told)?;
    site.check().map_err(told)?;
    judge::judge_decided(&site.mount, &runners).map_err(told)
}
