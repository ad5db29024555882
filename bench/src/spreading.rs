//! What it costs that speculation spreads: a join, an abort that reaches others, the attention when nothing is met.

use crate::mount::Mount;
use crate::table::Table;
use crate::workloads::Workload;
use crate::{Outcome, ROUNDS, median, ratio, seconds, timed_by};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How many joins are measured in one job.
const JOINS: usize = 40;
/// How many jobs an abort reaches.
const DEPENDENTS: &[usize] = &[1, 10, 100];

pub(crate) fn bench(mount: &Mount, filter: &str) -> Outcome<()> {
    if !"join abort tracking".contains(filter) {
        return Ok(());
    }
    let mut table = Table::new(&["spreading", "time", "beside", "time", "ratio"]);
    join(mount, &mut table)?;
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

/// The first read of undecided data, beside the first read of final data; each file in a job of its own.
fn join(mount: &Mount, table: &mut Table) -> Outcome<()> {
    let (mut met, mut plain) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = |kind: &str, file: usize| format!("{kind}-{round}-{file}");
        let mut held = Vec::new();
        for file in 0..JOINS {
            std::fs::write(mount.path().join(name("final", file)), "final")?;
            std::fs::write(mount.path().join(name("open", file)), "final")?;
            held.push(hold(mount, &format!("echo undecided > {}", name("open", file)))?);
        }
        for (kind, times) in [("final", &mut plain), ("open", &mut met)] {
            let files: Vec<String> = (0..JOINS).map(|file| name(kind, file)).collect();
            let mut command = mount.specrun(["--quiet", "--no-wait", "--"]);
            command.arg(std::env::current_exe()?).arg("read").args(&files);
            let output = command.output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            times.push(Duration::from_secs_f64(text.trim().parse().map_err(|_| format!("reading: {text}"))?));
        }
        for id in held {
            decide(mount, "abort", &id)?;
        }
    }
    let (met, plain) = (median(met), median(plain));
    table.row(&[
        "first read of undecided data (a join)".to_owned(),
        seconds(met),
        "of final data".to_owned(),
        seconds(plain),
        ratio(met, plain),
    ]);
    Ok(())
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

fn hold(mount: &Mount, script: &str) -> Outcome<String> {
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
