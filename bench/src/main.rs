//! `make bench`: whole workloads on a MojaveFS mount beside the bare filesystem under its store, in the same run.
//!
//! Each workload runs in a child process that prints how long its measured part took, so that the same code is timed on the
//! bare filesystem, on trunk and inside a job. Figures are medians of alternating runs; only the ratios travel.

mod at_once;
mod decisions;
mod host;
mod mount;
mod process;
mod slow_disk;
mod spreading;
mod table;
mod workloads;

use mount::Mount;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;
use table::Table;
use workloads::Workload;

/// How often each figure is taken.
const ROUNDS: usize = 3;

/// What can go wrong in a measurement ends it: a benchmark that goes on after an error measures nothing.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["run", name, dir] => run_one(name, Path::new(dir)),
        ["speculate", words @ ..] => process::run(words),
        ["read", files @ ..] => spreading::read_each(files),
        ["wait", file] => spreading::read_and_wait(file),
        ["prepare", name, dir] => host::prepare(name, Path::new(dir)),
        ["--only", filter] => bench(filter),
        ["--user", user] => host::bench("", Some(user)),
        ["--user", user, "--only", filter] => host::bench(filter, Some(user)),
        [] => bench(""),
        _ => Err("usage: mojavefs-bench [--user NAME] [--only PART-OF-A-NAME]".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mojavefs-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The child's part: one workload in one directory, its seconds on standard output.
fn run_one(name: &str, dir: &Path) -> Outcome<()> {
    if let ["write", files, size] = name.split(' ').collect::<Vec<_>>().as_slice() {
        return workloads::write_files(dir, files.parse()?, size.parse()?);
    }
    let workload = Workload::named(name).ok_or_else(|| format!("there is no workload {name}"))?;
    println!("{}", workload.run(dir)?.as_secs_f64());
    Ok(())
}

fn bench(filter: &str) -> Outcome<()> {
    let root = tempfile::Builder::new().prefix("mojavefs-bench.").tempdir()?;
    let bare = root.path().join("bare");
    std::fs::create_dir(&bare)?;
    let mount = Mount::new(root.path())?;
    let mut table = Table::new(&["workload", "bare", "trunk", "x bare", "in a job", "x bare"]);
    for workload in Workload::ALL.iter().filter(|w| w.name().contains(filter)) {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            times[0].push(timed(workload, &bare, None)?);
            times[1].push(timed(workload, mount.path(), None)?);
            times[2].push(timed(workload, mount.path(), Some(&mount))?);
        }
        let [bare, trunk, job] = times.map(median);
        table.row(&[
            workload.name().to_owned(),
            seconds(bare),
            seconds(trunk),
            ratio(trunk, bare),
            seconds(job),
            ratio(job, bare),
        ]);
    }
    table.print();
    decisions::bench(&mount, filter)?;
    at_once::bench(&mount, filter)?;
    spreading::bench(&mount, filter)?;
    process::bench(&mount, filter)?;
    mount.close()?;
    slow_disk::bench(filter)?;
    host::bench(filter, None)
}

/// One run in a fresh directory below `place`; in a job if there is a mount to start it on.
fn timed(workload: &Workload, place: &Path, job: Option<&Mount>) -> Outcome<Duration> {
    timed_by(workload, place, job.map(|mount| mount.specrun(["--quiet", "--"])))
}

/// One run in a fresh directory below `place`, started by `starter` if there is one.
fn timed_by(workload: &Workload, place: &Path, starter: Option<Command>) -> Outcome<Duration> {
    let dir = place.join(format!("w-{}", workload.name().replace(' ', "-")));
    std::fs::create_dir_all(&dir)?;
    workload.prepare(&dir)?;
    let me = std::env::current_exe()?;
    let mut command = starter.unwrap_or_else(|| Command::new("env"));
    command.arg(me).arg("run").arg(workload.name()).arg(&dir).current_dir(place);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds: f64 = text.trim().parse().map_err(|_| {
        format!("{} in {}: {text}{}", workload.name(), dir.display(), String::from_utf8_lossy(&output.stderr))
    })?;
    std::fs::remove_dir_all(&dir)?;
    Ok(Duration::from_secs_f64(seconds))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn seconds(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} us", s * 1e6),
    }
}

fn ratio(time: Duration, base: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() / base.as_secs_f64().max(1e-9))
}

/// A program built beside this one.
fn sibling(name: &str) -> Outcome<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    match path.exists() {
        true => Ok(path),
        false => Err(format!("{} is missing: build it first (make bench does)", path.display()).into()),
    }
}
