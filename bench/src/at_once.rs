//! What it costs others that a commit is seen all at once: how long they wait for what it changes.

use crate::mount::Mount;
use crate::spreading::hold;
use crate::table::Table;
use crate::workloads::Random;
use crate::{Outcome, median, seconds};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many files a commit changes.
const FILES: usize = 4000;
const ROUNDS: usize = 5;
const READERS: usize = 2;

/// Prints how long a commit takes whose files others have looked at, and look at meanwhile, and how long these wait.
pub(crate) fn bench(mount: &Mount, filter: &str) -> Outcome<()> {
    if !"seen at once".contains(filter) {
        return Ok(());
    }
    let dir = mount.path().join("at-once");
    crate::workloads::write_files(&dir, FILES, 100)?;
    let mut table = Table::new(&["4,000 files that trunk has read", "commit", "longest stat", "longest read"]);
    for readers in [0, READERS] {
        let (mut commits, mut waited) = (Vec::new(), [Duration::ZERO; 2]);
        for round in 0..ROUNDS {
            (0..FILES).try_for_each(|number| fs::read(dir.join(name(number))).map(drop))?;
            let id = hold(mount, &format!("for n in $(seq 0 {}); do echo {round} > at-once/f$n; done", FILES - 1))?;
            let (commit, longest) = commit_beside(mount, &id, &dir, readers)?;
            commits.push(commit);
            waited = [0, 1].map(|kind| waited[kind].max(longest[kind]));
        }
        let beside = if readers == 0 { "nobody reads" } else { "two read all the time" };
        let [stat, read] = waited.map(|time| if readers == 0 { "-".to_owned() } else { seconds(time) });
        table.row(&[beside.to_owned(), seconds(median(commits)), stat, read]);
    }
    table.print();
    Ok(fs::remove_dir_all(&dir)?)
}

fn name(number: usize) -> String {
    format!("f{number}")
}

/// How long a commit takes, and the longest look and the longest read of so many readers meanwhile.
fn commit_beside(mount: &Mount, id: &str, dir: &Path, readers: usize) -> Outcome<(Duration, [Duration; 2])> {
    let is_over = AtomicBool::new(false);
    let read = |seed: usize| {
        let (mut random, mut longest) = (Random(seed as u64 + 1), [Duration::ZERO; 2]);
        while !is_over.load(Ordering::SeqCst) {
            let path = dir.join(name(random.below(FILES as u64) as usize));
            for (kind, longest) in longest.iter_mut().enumerate() {
                let start = Instant::now();
                if kind == 0 {
                    fs::metadata(&path).map(drop)?
                } else {
                    fs::read(&path).map(drop)?
                }
                *longest = start.elapsed().max(*longest);
            }
        }
        Ok::<_, std::io::Error>(longest)
    };
    std::thread::scope(|scope| {
        let read = &read;
        let reading: Vec<_> = (0..readers).map(|seed| scope.spawn(move || read(seed))).collect();
        let start = Instant::now();
        let committed = mount.mojavefs(["commit", id]).stdout(Stdio::null()).status();
        let time = start.elapsed();
        is_over.store(true, Ordering::SeqCst);
        let mut longest = [Duration::ZERO; 2];
        for reader in reading {
            let theirs = reader.join().map_err(|_| "a reader panicked")??;
            longest = [0, 1].map(|kind| longest[kind].max(theirs[kind]));
        }
        match committed?.success() {
            true => Ok((time, longest)),
            false => Err(format!("mojavefs commit {id} failed").into()),
        }
    })
}
