//! Real programs, three times each: on trunk, inside a job that commits, inside one that is undone.

use crate::harness::digest::{content, exact};
use crate::harness::{Mount, sh, text};
use std::fs;

/// Runs a script natively, on trunk, in a job and in an undone job, and compares what is left. What it leaves must not
/// depend on when it runs.
fn three_times(script: &str) {
    let mount = Mount::new();
    let native = mount.beside("native");
    for dir in [&native, &mount.at("trunk"), &mount.at("job")] {
        fs::create_dir(dir).expect("mkdir");
    }
    sh(&native, script);
    sh(&mount.at("trunk"), script);
    let output = mount.specrun(&["--quiet"], &format!("set -e; cd job; {script}"));
    assert!(output.status.success(), "in a job: {}{}", text(&output.stdout), text(&output.stderr));
    let wanted = content(&native);
    let same = |dir: &str| {
        let left = content(&mount.at(dir));
        let differs = wanted.lines().zip(left.lines()).find(|(a, b)| a != b);
        assert!(wanted == left, "{dir}: {differs:?}");
    };
    same("trunk");
    same("job");
    let before = exact(&mount.path());
    let undone = mount.specrun(&["--quiet"], &format!("set -e; cd trunk; {script}; rm -rf ../job; exit 1"));
    assert_eq!(undone.status.code(), Some(1), "{}{}", text(&undone.stdout), text(&undone.stderr));
    assert!(exact(&mount.path()) == before, "an undone run left something");
    mount.check();
    assert!(exact(&mount.path()) == before, "a remount changed something");
}

#[test]
fn git() {
    three_times(
        "rm -rf r c; export GIT_AUTHOR_DATE=2001-01-01T00:00:00Z GIT_COMMITTER_DATE=2001-01-01T00:00:00Z; \
         export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; \
         git -c init.defaultBranch=main init -q r; cd r; for i in 1 2 3; do seq $i 2000 > f$i; git add .; git commit -qm $i; done; \
         cd ..; git clone -q r c 2>&1; cd c; git fsck --strict 2>&1; git checkout -q HEAD~1 2>&1; cd ..; \
         rm -rf r/.git/index c/.git/index c/.git/logs r/.git/logs c/.git/config",
    );
}

#[test]
fn sqlite() {
    for mode in ["delete", "wal"] {
        three_times(&format!(
            "rm -f db*; sqlite3 db 'pragma journal_mode={mode}; create table t(a,b)' > /dev/null; \
             for i in 1 2 3 4 5 6 7 8; do sqlite3 db \"insert into t select value, hex(value) from generate_series($i, 400)\"; done; \
             test \"$(sqlite3 db 'pragma integrity_check')\" = ok; sqlite3 db 'select count(*) from t' > count; \
             sqlite3 db 'pragma wal_checkpoint(truncate)' > /dev/null; sqlite3 db .dump > dump; rm -f db*"
        ));
    }
}

#[test]
fn a_parallel_build() {
    three_times(
        "i=0; while [ $i -lt 24 ]; do echo \"int f$i(int n){int s=0;for(int j=0;j<n;j++)s+=j*$i;return s;}\" > u$i.c; i=$((i+1)); done; \
         echo 'int main(void){return 0;}' > main.c; \
         printf 'OBJ=$(patsubst %%.c,%%.o,$(wildcard *.c))\nprog: $(OBJ)\n\tcc -o $@ $(OBJ)\n' > Makefile; make -s -j4; ./prog",
    );
}

#[test]
fn tar_round_trip() {
    three_times(
        "rm -rf t o; mkdir -p t/a/b o; seq 100000 > t/a/big; echo x > t/a/b/small; ln t/a/b/small t/hard; ln -s a/b t/soft; \
         mkfifo t/fifo; chmod 2750 t/a; chmod 4711 t/a/b/small; setfattr -n user.note -v hello t/a/big; \
         touch -d '2011-01-02 03:04:05.123456789' t/a/big t/a/b; tar --xattrs -cf x.tar t; tar --xattrs -xpf x.tar -C o; \
         cmp t/a/big o/t/a/big; test \"$(stat -c '%a %y' o/t/a/big o/t/a/b)\" = \"$(stat -c '%a %y' t/a/big t/a/b)\"; \
         test \"$(getfattr --only-values -n user.note o/t/a/big)\" = hello; rm x.tar",
    );
}

#[test]
fn fsx() {
    let program = crate::posix::tool("fsx", "0.3.2");
    let operations = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 200_000 } else { 4_000 };
    let mount = Mount::new();
    for seed in 1..=3 {
        let script = format!("{} -S {seed} -N {operations} file", program.display());
        let native = mount.beside(&format!("native-{seed}"));
        fs::create_dir(&native).expect("mkdir");
        sh(&native, &script);
        let expected = fs::read(native.join("file")).expect("read");
        sh(&mount.path(), &script);
        assert!(fs::read(mount.at("file")).expect("read") == expected, "seed {seed}: trunk differs from the host");
        let output = mount.specrun(&["--quiet"], &format!("rm file; {script}"));
        assert!(output.status.success(), "seed {seed}: {}{}", text(&output.stdout), text(&output.stderr));
        assert!(fs::read(mount.at("file")).expect("read") == expected, "seed {seed}: the job's differs from the host");
        let before = exact(&mount.path());
        let undone = mount.specrun(&["--quiet"], &format!("{script} || exit 2; exit 1"));
        assert_eq!(undone.status.code(), Some(1), "seed {seed}: {}{}", text(&undone.stdout), text(&undone.stderr));
        assert!(exact(&mount.path()) == before, "seed {seed}: an undone run left something");
    }
    mount.check();
}
