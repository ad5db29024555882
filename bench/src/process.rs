//! What a process pays for speculating (the table of the DSM paper's figure 5, from user space): entry, abort and commit
//! beside a bare `fork` of the same process in the same run.

use crate::mount::Mount;
use crate::table::Table;
use crate::{Outcome, median, ratio, seconds};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;

/// One row: how much memory, how much of it is changed in a speculation, in huge pages or not.
struct Case {
    name: &'static str,
    bytes: usize,
    percent: usize,
    huge: bool,
    rounds: usize,
}

const fn case(name: &'static str, bytes: usize, percent: usize, huge: bool, rounds: usize) -> Case {
    Case { name, bytes, percent, huge, rounds }
}

const CASES: [Case; 12] = [
    case("100 KB, 10 %", 100_000, 10, false, 300),
    case("100 KB, 100 %", 100_000, 100, false, 300),
    case("200 KB, 10 %", 200_000, 10, false, 300),
    case("200 KB, 100 %", 200_000, 100, false, 300),
    case("1 MB, 10 %", 1_000_000, 10, false, 300),
    case("1 MB, 100 %", 1_000_000, 100, false, 300),
    case("100 MB, 10 %", 100_000_000, 10, false, 20),
    case("100 MB, 100 %", 100_000_000, 100, false, 20),
    case("100 MB, 10 %, huge", 100_000_000, 10, true, 20),
    case("1 GB, 10 %", 1_000_000_000, 10, false, 5),
    case("1 GB, 100 %", 1_000_000_000, 100, false, 5),
    case("1 GB, 10 %, huge", 1_000_000_000, 10, true, 5),
];

/// The rows, without a filesystem, and inside a job with a file changed in each speculation.
pub(crate) fn bench(mount: &Mount, filter: &str) -> Outcome<()> {
    if !"process".contains(filter) {
        return Ok(());
    }
    let head = ["process", "fork", "entry", "x fork", "commit", "abort", "with a file: entry", "commit", "abort"];
    let mut table = Table::new(&head);
    for case in &CASES {
        let bare = measured(case, Command::new("env"), mount.path(), false)?;
        let in_job = measured(case, mount.specrun(["--quiet", "--"]), mount.path(), true)?;
        let [fork, entry, commit, abort] = bare;
        let [_, file_entry, file_commit, file_abort] = in_job;
        let mut row = vec![case.name.to_owned(), seconds(fork), seconds(entry), ratio(entry, fork)];
        row.extend([commit, abort, file_entry, file_commit, file_abort].map(seconds));
        table.row(&row);
    }
    table.print();
    Ok(())
}

/// Fork, entry, commit and abort as a child measured them.
fn measured(case: &Case, mut starter: Command, dir: &Path, files: bool) -> Outcome<[Duration; 4]> {
    let words = [case.bytes, case.percent, usize::from(case.huge), case.rounds, usize::from(files)];
    starter.arg(std::env::current_exe()?).arg("speculate").args(words.map(|word| word.to_string()));
    let output = starter.current_dir(dir).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let times: Vec<Duration> =
        text.split_whitespace().filter_map(|word| word.parse().ok().map(Duration::from_nanos)).collect();
    let broken = || format!("{}: {text}{}", case.name, String::from_utf8_lossy(&output.stderr));
    <[Duration; 4]>::try_from(times).map_err(|_| broken().into())
}

/// The child's part: `bytes percent huge rounds files`; nanoseconds on standard output.
pub(crate) fn run(words: &[&str]) -> Outcome<()> {
    let numbers: Vec<usize> = words.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let &[bytes, percent, huge, rounds, files] = &numbers[..] else { return Err("five numbers are needed".into()) };
    if huge == 0 {
        nix::sys::prctl::set_thp_disable(true)?;
    }
    let mut memory = vec![1u8; bytes];
    let file = (files == 1).then(|| File::create("speculated")).transpose()?;
    // Outside of what is undone: it carries times across aborts.
    let clock = tempfile::tempfile_in("/tmp")?;
    let began = Instant::now();
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        times[0].push(forked()?);
        let now = Instant::now();
        enter()?;
        times[1].push(now.elapsed());
        change(&mut memory, percent, file.as_ref())?;
        let now = Instant::now();
        mojave::commit(mojave::current().ok_or("no speculation is open")?)?;
        times[2].push(now.elapsed());
        if enter()?.is_none() {
            change(&mut memory, percent, file.as_ref())?;
            clock.write_all_at(&began.elapsed().as_nanos().to_le_bytes(), 0)?;
            let id = mojave::current().ok_or("no speculation is open")?;
            return Err(mojave::abort(id, mojave::Code::FAILED).into());
        }
        let mut start = [0; 16];
        let end = began.elapsed();
        clock.read_exact_at(&mut start, 0)?;
        times[3].push(end - Duration::from_nanos(u128::from_le_bytes(start) as u64));
    }
    for times in times {
        println!("{}", median(times).as_nanos());
    }
    Ok(())
}

fn enter() -> Outcome<Option<mojave::Code>> {
    Ok(match mojave::enter()? {
        mojave::Branch::Commit(_) => None,
        mojave::Branch::Abort(code) => Some(code),
    })
}

fn change(memory: &mut [u8], percent: usize, file: Option<&File>) -> Outcome<()> {
    let end = memory.len() * percent / 100;
    memory[..end].iter_mut().step_by(PAGE).for_each(|byte| *byte = byte.wrapping_add(1));
    if let Some(file) = file {
        file.write_all_at(b"changed", 0)?;
    }
    Ok(())
}

/// How long a bare fork takes.
fn forked() -> Outcome<Duration> {
    let now = Instant::now();
    let child = fork()?;
    let took = now.elapsed();
    nix::sys::wait::waitpid(child, None)?;
    Ok(took)
}

#[allow(unsafe_code)]
fn fork() -> Outcome<nix::unistd::Pid> {
    // SAFETY: the child does nothing but exit.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child),
        // SAFETY: as it says.
        nix::unistd::ForkResult::Child => unsafe { nix::libc::_exit(0) },
    }
}
