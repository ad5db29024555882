//! The workloads. Each runs in a directory of its own and says how long its measured part took.

use crate::Outcome;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// How large the files of sequential and random I/O are.
const LARGE: usize = 256 * MIB;
const SMALL_FILES: usize = 4271;
const SEED: u64 = 0x6d6f_6a61_7665;

/// One workload.
pub(crate) struct Workload {
    name: &'static str,
    prepare: fn(&Path) -> Outcome<()>,
    run: fn(&Path) -> Outcome<Duration>,
}

impl Workload {
    /// Those of the table, in its order.
    pub(crate) const ALL: &[Workload] = &[
        Workload { name: "untar 4271 small files", prepare: tarball, run: untar },
        Workload { name: "stat walk of 4271 files", prepare: tree, run: walk },
        Workload { name: "read 4271 small files", prepare: tree, run: read_tree },
        Workload { name: "20000 opens to read and closes", prepare: few, run: open_to_read },
        Workload { name: "20000 opens to write and closes", prepare: few, run: open_to_write },
        Workload { name: "create and unlink 5000 files", prepare: nothing, run: create_unlink },
        Workload { name: "write 1 GiB in 1 MiB pieces", prepare: nothing, run: write_gib },
        Workload { name: "read 1 GiB in 1 MiB pieces", prepare: gib, run: read_gib },
        Workload { name: "write 256 MiB in 4 KiB pieces", prepare: nothing, run: write_4k },
        Workload { name: "read 256 MiB in 4 KiB pieces", prepare: large, run: read_4k },
        Workload { name: "20000 random writes of 4 KiB", prepare: large, run: random_write_4k },
        Workload { name: "20000 random reads of 4 KiB", prepare: large, run: random_read_4k },
        Workload { name: "200 random writes of 1 MiB", prepare: large, run: random_write_1m },
        Workload { name: "1-byte change in 1 GiB", prepare: gib, run: one_byte },
        Workload { name: "10000 locks and unlocks", prepare: nothing, run: locks },
        Workload { name: "300 SQLite commits", prepare: sqlite_script, run: sqlite },
        Workload { name: "8 threads, 50 synced appends each", prepare: nothing, run: synced_appends },
        Workload { name: "make -j2 of 60 C files", prepare: sources, run: compile },
    ];

    /// The workload of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Workload> {
        Workload::ALL.iter().find(|workload| workload.name == name)
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Makes what the workload needs, outside the measurement and outside any job.
    pub(crate) fn prepare(&self, dir: &Path) -> Outcome<()> {
        (self.prepare)(dir)
    }

    /// Runs it and returns the time of the measured part.
    pub(crate) fn run(&self, dir: &Path) -> Outcome<Duration> {
        (self.run)(dir)
    }
}

fn nothing(_: &Path) -> Outcome<()> {
    Ok(())
}

fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// A small generator of repeatable numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for chunk in bytes.chunks_mut(8) {
            let word = self.below(u64::MAX).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }
}

/// `count` files of `size` bytes each in a new directory: the change that decisions are measured by.
pub(crate) fn write_files(dir: &Path, count: usize, size: usize) -> Outcome<()> {
    fs::create_dir_all(dir)?;
    let data = Random(SEED).bytes(size.min(MIB));
    for number in 0..count {
        let mut file = File::create(dir.join(format!("f{number}")))?;
        let mut left = size;
        while left > 0 {
            let piece = left.min(data.len());
            file.write_all(&data[..piece])?;
            left -= piece;
        }
    }
    Ok(())
}

/// A tree like a source package's: 38 MB in small files of uneven size.
fn tree_at(root: &Path) -> Outcome<()> {
    let mut random = Random(SEED);
    for number in 0..SMALL_FILES {
        let dir = root.join(format!("d{}/s{}", number / 400, number / 40 % 10));
        fs::create_dir_all(&dir)?;
        let size = 200 + random.below(17_400) as usize;
        fs::write(dir.join(format!("file{number}.c")), random.bytes(size))?;
    }
    Ok(())
}

pub(crate) fn tree(dir: &Path) -> Outcome<()> {
    tree_at(&dir.join("tree"))
}

pub(crate) fn tarball(dir: &Path) -> Outcome<()> {
    let source = tempfile::tempdir()?;
    tree_at(&source.path().join("tree"))?;
    command(dir, "tar", &["-cf", "tree.tar", "-C", &source.path().to_string_lossy(), "tree"])
}

fn untar(dir: &Path) -> Outcome<Duration> {
    timed(|| command(dir, "tar", &["-xf", "tree.tar"]))
}

fn each_file(dir: &Path, visit: &mut dyn FnMut(&Path) -> Outcome<()>) -> Outcome<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match fs::symlink_metadata(&path)?.is_dir() {
            true => each_file(&path, visit)?,
            false => visit(&path)?,
        }
    }
    Ok(())
}

fn walk(dir: &Path) -> Outcome<Duration> {
    timed(|| each_file(dir, &mut |_| Ok(())))
}

fn read_tree(dir: &Path) -> Outcome<Duration> {
    timed(|| {
        each_file(dir, &mut |path| {
            fs::read(path)?;
            Ok(())
        })
    })
}

/// As many files as are opened in turns.
const FEW: usize = 16;

fn few(dir: &Path) -> Outcome<()> {
    (0..FEW).try_for_each(|number| Ok(fs::write(dir.join(number.to_string()), "content")?))
}

fn open_each(dir: &Path, options: &fs::OpenOptions) -> Outcome<Duration> {
    let paths: Vec<_> = (0..FEW).map(|number| dir.join(number.to_string())).collect();
    timed(|| {
        for path in paths.iter().cycle().take(20_000) {
            options.open(path)?;
        }
        Ok(())
    })
}

fn open_to_read(dir: &Path) -> Outcome<Duration> {
    open_each(dir, fs::OpenOptions::new().read(true))
}

fn open_to_write(dir: &Path) -> Outcome<Duration> {
    open_each(dir, fs::OpenOptions::new().write(true))
}

fn create_unlink(dir: &Path) -> Outcome<Duration> {
    timed(|| {
        for number in 0..5000 {
            File::create(dir.join(format!("f{number}")))?;
        }
        for number in 0..5000 {
            fs::remove_file(dir.join(format!("f{number}")))?;
        }
        Ok(())
    })
}

fn write_all(path: &Path, length: usize, piece: usize) -> Outcome<()> {
    let data = Random(SEED).bytes(piece);
    let mut file = File::create(path)?;
    for _ in 0..length / piece {
        file.write_all(&data)?;
    }
    Ok(())
}

fn read_all(path: &Path, piece: usize) -> Outcome<Duration> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; piece];
    timed(|| {
        while file.read(&mut buffer)? > 0 {}
        Ok(())
    })
}

pub(crate) fn gib(dir: &Path) -> Outcome<()> {
    write_all(&dir.join("large"), 1024 * MIB, MIB)
}

fn large(dir: &Path) -> Outcome<()> {
    write_all(&dir.join("large"), LARGE, MIB)
}

fn write_gib(dir: &Path) -> Outcome<Duration> {
    timed(|| write_all(&dir.join("large"), 1024 * MIB, MIB))
}

fn read_gib(dir: &Path) -> Outcome<Duration> {
    read_all(&dir.join("large"), MIB)
}

fn write_4k(dir: &Path) -> Outcome<Duration> {
    timed(|| write_all(&dir.join("large"), LARGE, 4 * KIB))
}

fn read_4k(dir: &Path) -> Outcome<Duration> {
    read_all(&dir.join("large"), 4 * KIB)
}

fn random_writes(dir: &Path, count: usize, piece: usize) -> Outcome<Duration> {
    let mut random = Random(SEED);
    let data = random.bytes(piece);
    let file = OpenOptions::new().write(true).open(dir.join("large"))?;
    timed(|| {
        for _ in 0..count {
            file.write_all_at(&data, random.below((LARGE / piece) as u64) * piece as u64)?;
        }
        Ok(())
    })
}

fn random_write_4k(dir: &Path) -> Outcome<Duration> {
    random_writes(dir, 20_000, 4 * KIB)
}

fn random_write_1m(dir: &Path) -> Outcome<Duration> {
    random_writes(dir, 200, MIB)
}

fn random_read_4k(dir: &Path) -> Outcome<Duration> {
    let mut random = Random(SEED);
    let mut buffer = [0; 4 * KIB];
    let pieces = (LARGE / buffer.len()) as u64;
    let file = File::open(dir.join("large"))?;
    timed(|| {
        for _ in 0..20_000 {
            file.read_exact_at(&mut buffer, random.below(pieces) * 4 * KIB as u64)?;
        }
        Ok(())
    })
}

fn one_byte(dir: &Path) -> Outcome<Duration> {
    let mut file = OpenOptions::new().write(true).open(dir.join("large"))?;
    timed(|| {
        file.seek(SeekFrom::Start(500 * MIB as u64 + 7))?;
        file.write_all(b"x")?;
        Ok(())
    })
}

fn locks(dir: &Path) -> Outcome<Duration> {
    let file = File::create(dir.join("lock"))?;
    timed(|| Ok((0..10_000).try_for_each(|_| file.lock().and_then(|()| file.unlock()))?))
}

/// 300 insertions that are committed one by one.
pub(crate) fn sqlite_script(dir: &Path) -> Outcome<()> {
    let mut script = String::from("create table t(a integer primary key, b text);\n");
    for number in 0..300 {
        script += &format!("insert into t values({number}, 'row {number} of a table that is written row by row');\n");
    }
    Ok(fs::write(dir.join("script.sql"), script)?)
}

fn sqlite(dir: &Path) -> Outcome<Duration> {
    timed(|| command(dir, "sh", &["-c", "sqlite3 test.db < script.sql"]))
}

/// Each thread has a file of its own.
fn synced_appends(dir: &Path) -> Outcome<Duration> {
    let append = |thread: usize| -> io::Result<()> {
        let mut file = File::create(dir.join(thread.to_string()))?;
        for _ in 0..50 {
            file.write_all(&[1; 4 * KIB])?;
            file.sync_data()?;
        }
        Ok(())
    };
    timed(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|thread| scope.spawn(move || append(thread))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        Ok(())
    })
}

/// Sixty units of C of some weight, each with the same headers.
pub(crate) fn sources(dir: &Path) -> Outcome<()> {
    let mut makefile = String::from("CFLAGS = -O1\nall: program\n");
    let objects: Vec<String> = (0..60).map(|number| format!("unit{number}.o")).collect();
    makefile += &format!("program: main.o {0}\n\tcc -o $@ main.o {0}\n", objects.join(" "));
    fs::write(dir.join("Makefile"), makefile)?;
    for number in 0..60 {
        let mut unit =
            String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n");
        for function in 0..40 {
            unit += &format!(
                "int f{number}_{function}(int n) {{ char b[64]; int s = {function}; for (int i = 0; i < n; i++) \
                 s = s * 31 + snprintf(b, sizeof b, \"%d %d\", i, s) + (int)strlen(b); return s; }}\n"
            );
        }
        fs::write(dir.join(format!("unit{number}.c")), unit)?;
    }
    fs::write(dir.join("main.c"), "int f0_0(int); int main(void) { return f0_0(3) == 0; }\n")?;
    Ok(())
}

fn compile(dir: &Path) -> Outcome<Duration> {
    timed(|| command(dir, "make", &["-s", "-j2"]))
}

pub(crate) fn command(dir: &Path, program: &str, args: &[&str]) -> Outcome<()> {
    let output = Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into()),
    }
}
