//! What entering, committing and aborting cost as the change grows.

use crate::mount::Mount;
use crate::table::Table;
use crate::{Outcome, ROUNDS, median, seconds};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// What a job changes: files of a size.
const CHANGES: &[(&str, usize, usize)] = &[
    ("1 file of 1 KiB", 1, 1 << 10),
    ("100 files of 1 KiB", 100, 1 << 10),
    ("10,000 files of 1 KiB", 10_000, 1 << 10),
    ("100,000 files of 1 KiB", 100_000, 1 << 10),
    ("1 file of 1 MiB", 1, 1 << 20),
    ("1 file of 64 MiB", 1, 64 << 20),
    ("1 file of 1 GiB", 1, 1 << 30),
];

/// Prints the table of held speculations decided by `mojavefs commit` and `abort`, whole commands: so each figure holds a
/// process start too, the same in every row.
pub(crate) fn bench(mount: &Mount, filter: &str) -> Outcome<()> {
    if !"enter commit abort".contains(filter) {
        return Ok(());
    }
    let mut table = Table::new(&["change", "enter (a job that does nothing)", "commit", "abort"]);
    for (name, files, size) in CHANGES {
        let rounds = if files * size > 50 << 20 { 1 } else { ROUNDS };
        let mut times = [const { Vec::new() }; 3];
        for round in 0..rounds {
            times[0].push(enter(mount)?);
            times[1].push(decide(mount, "commit", *files, *size, round)?);
            times[2].push(decide(mount, "abort", *files, *size, round)?);
        }
        let [enter, commit, abort] = times.map(median);
        table.row(&[(*name).to_owned(), seconds(enter), seconds(commit), seconds(abort)]);
    }
    table.print();
    Ok(())
}

fn enter(mount: &Mount) -> Outcome<Duration> {
    let start = Instant::now();
    let status = mount.specrun(["--quiet", "--", "true"]).status()?;
    match status.success() {
        true => Ok(start.elapsed()),
        false => Err(format!("specrun true: {status}").into()),
    }
}

fn decide(mount: &Mount, decision: &str, files: usize, size: usize, round: usize) -> Outcome<Duration> {
    let dir = mount.path().join(format!("{decision}-{files}-{size}-{round}"));
    let me = std::env::current_exe()?;
    let workload = format!("write {files} {size}");
    let output = mount
        .specrun(["--hold", "--json", "--"])
        .arg(me)
        .arg("run")
        .arg(workload)
        .arg(&dir)
        .stderr(Stdio::piped())
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let id = number_after(&text, "\"id\":").ok_or_else(|| format!("specrun --hold --json says no id: {text}"))?;
    let start = Instant::now();
    let status = mount.mojavefs([decision, &id]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let time = start.elapsed();
    if !status.success() {
        return Err(format!("mojavefs {decision} {id}: {status}").into());
    }
    if decision == "commit" {
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(time)
}

/// The number that follows a key.
pub(crate) fn number_after(text: &str, key: &str) -> Option<String> {
    let rest = text.split_once(key)?.1.trim_start();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then_some(digits)
}
