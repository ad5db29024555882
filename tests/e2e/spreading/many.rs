//! Many jobs at once.

use crate::harness::{Mount, sh, text};
use std::fs;
use std::io::Write;
use std::process::Stdio;

#[test]
fn a_hundred_jobs_in_a_row_fall_and_stand_together() {
    let mount = Mount::new();
    mount.write("0", "x\n");
    for (code, expected) in [(1, false), (0, true)] {
        let first = mount.start("first", &[], "echo y > 0");
        for job in 1..100 {
            let output = mount.specrun(&["--no-wait", "--quiet"], &format!("cat {} > {job}", job - 1));
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        assert_eq!(mount.status().len(), 100);
        first.exit(code);
        assert!(mount.status().is_empty());
        assert_eq!(mount.exists("99"), expected);
    }
    assert_eq!(mount.read("99"), "y\n");
    mount.check();
}

#[test]
fn jobs_that_keep_meeting_all_finish() {
    let mount = Mount::new();
    mount.write("count", "0\n");
    let jobs: Vec<_> = (0..8)
        .map(|_| {
            let script = "n=$(cat count); echo $((n + 1)) > count; echo $n >> log";
            mount.specrun_command(&["--retries", "100"], script).stderr(Stdio::piped()).spawn().expect("specrun runs")
        })
        .collect();
    for job in jobs {
        let output = job.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert!(mount.status().is_empty());
    mount.check();
}

/// Their kernels may not know yet that somebody else has made the name.
#[test]
fn whoever_opens_a_name_to_make_it_opens_what_another_has_just_made() {
    let mount = Mount::new();
    let program = "import os\n\
        os.read(0, 1)\n\
        for n in range(400): os.close(os.open(str(n), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644))";
    let start = |_| {
        let mut command = mount.specrun_command(&["--quiet"], &format!("exec python3 -c '{program}'"));
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("specrun runs")
    };
    let mut jobs: Vec<_> = (0..3).map(start).collect();
    jobs.iter_mut().for_each(|job| job.stdin.take().expect("a pipe").write_all(b"!").expect("a start"));
    for job in jobs {
        let output = job.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(fs::read_dir(mount.path()).expect("names").count(), 400);
    mount.check();
}

/// Readers are in the kernel all the time while what they read is undone under them.
#[test]
fn aborts_under_many_readers_leave_nobody_stuck() {
    let rounds = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 3000 } else { 60 };
    let mount = Mount::new();
    sh(&mount.path(), "mkdir d; for i in 1 2 3 4 5 6 7 8; do head -c 20000 /dev/zero > d/$i; done");
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let script = "while ! [ -e ../stop ]; do cat d/* >/dev/null 2>&1; ls -l d >/dev/null 2>&1; done; true";
            let mut command = mount.specrun_command(&["--retries", "1000000", "--quiet"], script);
            command.stderr(Stdio::null()).spawn().expect("specrun runs")
        })
        .collect();
    for round in 0..rounds {
        let script = format!("for i in 1 2 3 4 5 6 7 8; do echo {round} >> d/$i; done; touch d/new; exit 1");
        let output = mount.specrun(&["--retries", "1000", "--quiet"], &script);
        assert_eq!(output.status.code(), Some(1), "round {round}: {}", text(&output.stderr));
    }
    fs::write(mount.beside("stop"), "").expect("stop");
    for mut reader in readers {
        assert!(reader.wait().expect("wait").success());
    }
    assert!(!mount.exists("d/new"));
    mount.check();
}
