//! What is run over the host, and how fast it is to be.

use crate::Outcome;
use crate::workloads::{self, command};
use std::fs;
use std::path::Path;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Caches {
    Warm,
    Cold,
}

/// What a job over the host is to reach.
pub(super) enum Goal {
    /// At most so many times what the bare filesystem takes, the commit and its sync included.
    Bare(f64),
    /// At most so long from the vote until it is on the host.
    Commit(Duration),
}

/// One script.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// What succeeds where all is installed that it needs.
    pub(super) needs: &'static str,
    /// Makes what it works on.
    pub(super) prepare: fn(&Path) -> Outcome<()>,
    pub(super) caches: Caches,
    pub(super) script: &'static str,
    /// It says itself how long the part took that counts, in nanoseconds; the rest does not count.
    pub(super) is_timed_by_itself: bool,
    /// What succeeds where it was done.
    pub(super) leaves: &'static str,
    pub(super) goals: &'static [Goal],
}

const PLAIN: Row = Row {
    name: "",
    needs: "true",
    prepare: |_| Ok(()),
    caches: Caches::Warm,
    script: "true",
    is_timed_by_itself: false,
    leaves: "true",
    goals: &[],
};

/// Reads everything, and changes one file.
const READ_AND_CHANGE: Row = Row {
    prepare: many_files,
    script: "find tree -type f -exec cat {} + > /dev/null; echo changed >> tree/d500/f50",
    leaves: "tail -n 1 tree/d500/f50 | grep -q changed",
    ..PLAIN
};

const COMMIT_OF_ONE: Goal = Goal::Commit(Duration::from_millis(50));

impl Row {
    pub(super) const ALL: &[Row] = &[
        Row {
            name: "untar of 4,271 files",
            prepare: workloads::tarball,
            script: "tar -xf tree.tar",
            leaves: "test -f tree/d10/s6/file4270.c",
            goals: &[Goal::Bare(3.0)],
            ..PLAIN
        },
        Row {
            name: "git clone of 4,271 files",
            needs: "git --version",
            prepare: repository,
            script: "git clone -q --no-local tree/.git clone",
            leaves: "test -f clone/d10/s6/file4270.c",
            ..PLAIN
        },
        Row {
            name: "git status of 4,271 files",
            needs: "git --version",
            prepare: repository,
            script: "cd tree; git status > /dev/null",
            ..PLAIN
        },
        Row {
            name: "git status again, 3 s later",
            needs: "git --version",
            prepare: repository,
            script: "cd tree; git status > /dev/null; sleep 3; from=$(date +%s%N); git status > /dev/null; echo $(($(date +%s%N) - from))",
            is_timed_by_itself: true,
            goals: &[Goal::Bare(1.2)],
            ..PLAIN
        },
        Row {
            name: "compile of 60 C files, make -j2",
            needs: "make --version; cc --version",
            prepare: workloads::sources,
            script: "make -s -j2",
            leaves: "./program",
            goals: &[Goal::Bare(1.1)],
            ..PLAIN
        },
        Row {
            name: "pip install of a wheel of 600 files",
            needs: "python3 -m pip --version",
            prepare: wheel,
            script: "python3 -m pip install --quiet --no-index --no-deps --target site many-1.0-py3-none-any.whl",
            leaves: "test -f site/many/m599.py",
            ..PLAIN
        },
        Row {
            name: "300 commits of SQLite",
            needs: "sqlite3 --version",
            prepare: workloads::sqlite_script,
            script: "sqlite3 test.db < script.sql",
            leaves: "test $(sqlite3 test.db 'select count(*) from t') = 300",
            goals: &[Goal::Bare(1.0)],
            ..PLAIN
        },
        Row {
            name: "one byte of a file of 1 GiB",
            prepare: workloads::gib,
            script: "printf x | dd of=large bs=1 seek=524288007 conv=notrunc status=none",
            leaves: "test $(dd if=large bs=1 skip=524288007 count=1 status=none) = x",
            goals: &[Goal::Commit(Duration::from_millis(10))],
            ..PLAIN
        },
        Row {
            name: "removal of 10,000 files",
            prepare: |dir| workloads::write_files(&dir.join("files"), 10_000, 100),
            script: "rm -r files",
            leaves: "test ! -e files",
            ..PLAIN
        },
        Row { name: "reads 100,000 files, changes one", goals: &[Goal::Bare(12.0), COMMIT_OF_ONE], ..READ_AND_CHANGE },
        Row {
            name: "the same with cold caches",
            caches: Caches::Cold,
            goals: &[Goal::Bare(3.0), COMMIT_OF_ONE],
            ..READ_AND_CHANGE
        },
    ];
}

/// A tree of small files with a repository.
fn repository(dir: &Path) -> Outcome<()> {
    workloads::tree(dir)?;
    let script =
        "git init -q; git add .; git -c user.name=bench -c user.email=bench commit -qm all; git status > /dev/null";
    command(&dir.join("tree"), "sh", &["-ec", script])
}

/// 100,000 files in 1,000 directories.
fn many_files(dir: &Path) -> Outcome<()> {
    fs::create_dir(dir.join("tree"))?;
    (0..1000).try_for_each(|number| workloads::write_files(&dir.join(format!("tree/d{number}")), 100, 500))
}

/// A package of 600 modules, as pip takes it.
fn wheel(dir: &Path) -> Outcome<()> {
    let script = "
import zipfile
with zipfile.ZipFile('many-1.0-py3-none-any.whl', 'w', zipfile.ZIP_DEFLATED) as wheel:
    names = []
    def add(name, text):
        wheel.writestr(name, text)
        names.append(name)
    add('many/__init__.py', '')
    for number in range(600):
        functions = [f'def f{n}(a, b):\\n    return a * {number} + b * {n}\\n' for n in range(40)]
        add(f'many/m{number}.py', '\\n'.join(functions))
    info = 'many-1.0.dist-info/'
    add(info + 'METADATA', 'Metadata-Version: 2.1\\nName: many\\nVersion: 1.0\\n')
    add(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: bench\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', ''.join(f'{name},,\\n' for name in names + [info + 'RECORD']))
";
    command(dir, "python3", &["-c", script])
}
