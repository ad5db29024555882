//! What it costs that speculation spreads: a join, an abort that reaches others, the attention when nothing is met.

use crate::mount::Mount;
use crate::table::Table;
use crate::workloads::Workload;
use crate::{Outcome, ROUNDS, median, ratio, seconds, timed_by};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How many joins are measured in one job: as many as it may have checkpoints.
const JOINS: usize = 16;
/// How many jobs an abort reaches.
const DEPENDENTS: &[usize] = &[1, 10, 100];

pub(crate) fn bench(mount: &Mount, filter: &str) -> Outcome<()> {
    if !"join abort tracking".contains(filter) {
        return Ok(());
    }
    let mut table = Table::new(&["spreading", "time", "beside", "time", "ratio"]);
    join(mount, &mut table)?;
    returns(mount, &mut table)?;
    aborts(mount, &mut table)?;
    attention(mount, &mut table)?;
    table.print();
    Ok(())
}

/// The child's part: reads these files, each for the first time; the median on standard output.
pub(crate) fn read_each(files: &[&str]) -> Outcome<()> {
    let mut times = Vec::new();
    for file in files {
        let start = Instant::now();
        std::fs::read(file)?;
        times.push(start.elapsed());
    }
    println!("{}", median(times).as_secs_f64());
    Ok(())
}

/// The child's part: reads this file; if that is undecided, says so and waits to be taken back.
pub(crate) fn read_and_wait(file: &str) -> Outcome<()> {
    if std::fs::read_to_string(file)? == "undecided\n" {
        println!("read");
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// The first read of undecided data with and without a checkpoint, beside the first read of final data; each file in a job of
/// its own.
fn join(mount: &Mount, table: &mut Table) -> Outcome<()> {
    let (mut kept, mut met, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = |kind: &str, file: usize| format!("{kind}-{round}-{file}");
        let mut held = Vec::new();
        for file in 0..JOINS {
            std::fs::write(mount.path().join(name("final", file)), "final")?;
            std::fs::write(mount.path().join(name("open", file)), "final")?;
            held.push(hold(mount, &format!("echo undecided > {}", name("open", file)))?);
        }
        let cases = [("final", &[][..], &mut plain), ("open", &["--from-start"], &mut met), ("open", &[], &mut kept)];
        for (kind, options, times) in cases {
            let files: Vec<String> = (0..JOINS).map(|file| name(kind, file)).collect();
            let mut command = mount.specrun(["--quiet", "--no-wait"]);
            command.args(options).arg("--").arg(std::env::current_exe()?).arg("read").args(&files);
            let output = command.output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            times.push(Duration::from_secs_f64(text.trim().parse().map_err(|_| format!("reading: {text}"))?));
        }
        for id in held {
            decide(mount, "abort", &id)?;
        }
    }
    let plain = median(plain);
    for (what, time) in [("with a checkpoint", median(kept)), ("without", median(met))] {
        table.row(&[
            format!("first read of undecided data (a join), {what}"),
            seconds(time),
            "of final data".to_owned(),
            seconds(plain),
            ratio(time, plain),
        ]);
    }
    Ok(())
}

/// From the command that aborts to the end of a job that depends on it and has read again then.
fn returns(mount: &Mount, table: &mut Table) -> Outcome<()> {
    let (mut back, mut again) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        back.push(return_with(mount, &[])?);
        again.push(return_with(mount, &["--from-start"])?);
    }
    let (back, again) = (median(back), median(again));
    table.row(&[
        "abort, a dependent job goes back to the read".to_owned(),
        seconds(back),
        "runs again".to_owned(),
        seconds(again),
        ratio(back, again),
    ]);
    Ok(())
}

fn return_with(mount: &Mount, options: &[&str]) -> Outcome<Duration> {
    std::fs::write(mount.path().join("source"), "final\n")?;
    let id = hold(mount, "echo undecided > source")?;
    let mut command = mount.specrun(["--quiet"]);
    command.args(options).arg("--").arg(std::env::current_exe()?).args(["wait", "source"]);
    let mut job = command.stdout(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(job.stdout.take().ok_or("no pipe")?);
    said.read_line(&mut String::new())?;
    let start = Instant::now();
    decide(mount, "abort", &id)?;
    let status = job.wait()?;
    if !status.success() {
        return Err(format!("a dependent job: {status}").into());
    }
    Ok(start.elapsed())
}

/// An abort with so many jobs that depend on it, beside one that reaches nobody.
fn aborts(mount: &Mount, table: &mut Table) -> Outcome<()> {
    let alone = median((0..ROUNDS).map(|_| abort_with(mount, 0)).collect::<Outcome<Vec<_>>>()?);
    for dependents in DEPENDENTS {
        let time = median((0..ROUNDS).map(|_| abort_with(mount, *dependents)).collect::<Outcome<Vec<_>>>()?);
        table.row(&[
            format!("abort that reaches {dependents} dependent jobs"),
            seconds(time),
            "none".to_owned(),
            seconds(alone),
            ratio(time, alone),
        ]);
    }
    Ok(())
}

fn abort_with(mount: &Mount, dependents: usize) -> Outcome<Duration> {
    std::fs::write(mount.path().join("source"), "final")?;
    let id = hold(mount, "echo undecided > source")?;
    for job in 0..dependents {
        let script = format!("cat source > dependent-{job}");
        let status = mount.specrun(["--quiet", "--no-wait", "--", "sh", "-c", &script]).status()?;
        if !status.success() {
            return Err(format!("a dependent job: {status}").into());
        }
    }
    let start = Instant::now();
    decide(mount, "abort", &id)?;
    Ok(start.elapsed())
}

/// Whole workloads in a job that joins what it meets, where there is nothing to meet, beside one that is isolated; and on
/// trunk while something unrelated is undecided, beside trunk alone.
fn attention(mount: &Mount, table: &mut Table) -> Outcome<()> {
    for workload in Workload::ALL.iter().filter(|w| w.name().contains("untar") || w.name().contains("make")) {
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            times[0].push(timed_by(workload, mount.path(), Some(mount.specrun(["--quiet", "--"])))?);
            times[1].push(timed_by(workload, mount.path(), Some(mount.specrun(["--quiet", "--isolate", "--"])))?);
            let id = hold(mount, "echo undecided > unrelated")?;
            times[2].push(timed_by(workload, mount.path(), None)?);
            decide(mount, "abort", &id)?;
            times[3].push(timed_by(workload, mount.path(), None)?);
        }
        let [joining, isolated, beside, alone] = times.map(median);
        let name = workload.name();
        table.row(&[
            format!("{name} in a job that joins"),
            seconds(joining),
            "isolated".to_owned(),
            seconds(isolated),
            ratio(joining, isolated),
        ]);
        table.row(&[
            format!("{name} on trunk, something undecided"),
            seconds(beside),
            "nothing".to_owned(),
            seconds(alone),
            ratio(beside, alone),
        ]);
    }
    Ok(())
}

pub(crate) fn hold(mount: &Mount, script: &str) -> Outcome<String> {
    let output = mount.specrun(["--hold", "--json", "--", "sh", "-c", script]).stderr(Stdio::piped()).output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    crate::decisions::number_after(&text, "\"id\":")
        .ok_or_else(|| format!("specrun --hold --json says no id: {text}").into())
}

fn decide(mount: &Mount, decision: &str, id: &str) -> Outcome<()> {
    let status = mount.mojavefs([decision, id]).stdout(Stdio::null()).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("mojavefs {decision} {id}: {status}").into()),
    }
}
