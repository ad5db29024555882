//! Committed is there, undecided is gone, held is there: whatever is killed, and when.

use crate::harness::digest::exact;
use crate::harness::{Mount, sh, text};
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn what_was_committed_held_or_undecided_when_the_daemon_died() {
    let mount = Mount::new();
    mount.write("trunk", "written\n");
    assert!(mount.specrun(&[], "echo x > committed").status.success());
    let id = mount.held("echo x > held; rm trunk");
    let mut job = mount.specrun_command(&[], "echo x > undecided; touch ../written; sleep 100").spawn().expect("runs");
    crate::harness::until("the job has written", || mount.beside("written").exists());
    mount.crash();
    assert_eq!(job.wait().expect("the job ends").code(), Some(75));
    mount.fsck();
    mount.mount();
    assert_eq!((mount.read("trunk"), mount.read("committed")), ("written\n".into(), "x\n".into()));
    assert!(!mount.exists("undecided") && !mount.exists("held"));
    assert_eq!(mount.status()[0]["state"], "held");
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    assert!(mount.exists("held") && !mount.exists("trunk"));
    mount.check();
    assert!(mount.exists("held") && !mount.exists("trunk"));
}

#[test]
fn a_held_speculation_still_notices_conflicts_after_a_restart() {
    let mount = Mount::new();
    mount.write("read", "0\n");
    mount.write("changed", "0\n");
    let id = mount.held_apart("cat read; echo x > changed");
    mount.crash();
    mount.mount();
    mount.write("read", "1\n");
    let refused = mount.mojavefs(&["commit", &id]);
    assert_eq!(refused.status.code(), Some(75), "{}", text(&refused.stderr));
}

/// Jobs commit one after the other, each replacing the same three files; the daemon is killed at a random moment. After it
/// the three agree, and show the last job that said it was committed, or the one after it.
#[test]
fn a_commit_is_all_there_or_not_at_all() {
    let seed = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| std::process::id().into());
    eprintln!("repeat with MOJAVEFS_SEED={seed}");
    let mut random = seed;
    let rounds = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 300 } else { 12 };
    let mount = Mount::new();
    let mut last = 0;
    for _ in 0..rounds {
        last = one_crash(&mount, last, Duration::from_micros(random_below(&mut random, 400_000)));
    }
}

/// A repeatable number below `limit` (splitmix64).
fn random_below(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % limit
}

fn one_crash(mount: &Mount, last: u64, delay: Duration) -> u64 {
    // Each job writes its number to a small file, a large one, and a new name; the last three lines are kept.
    let script = format!(
        "n={last}; while :; do n=$((n+1)); {} --quiet -- sh -c \"echo $n > small; seq $n $((n+20000)) > large; \
         rm -f name.*; echo $n > name.$n\" || exit; echo $n > ../said; done",
        crate::harness::SPECRUN
    );
    fs::write(mount.beside("said"), format!("{last}\n")).expect("write");
    let mut load = std::process::Command::new("sh");
    load.args(["-c", &script]).current_dir(mount.path()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut load = load.spawn().expect("sh runs");
    let moment = Instant::now() + delay;
    crate::harness::until("the moment has come", || Instant::now() >= moment);
    mount.crash();
    load.wait().expect("the load ends");
    mount.fsck();
    mount.mount();
    let said: u64 = fs::read_to_string(mount.beside("said")).expect("said").trim().parse().unwrap_or(last);
    let Ok(small) = fs::read_to_string(mount.at("small")) else {
        assert_eq!(said, 0, "job {said} said it was committed, and nothing is there");
        return 0;
    };
    let there: u64 = small.trim().parse().expect("a whole number");
    assert!(there == said || there == said + 1, "job {said} was the last to say so; {there} is there");
    let large = mount.read("large");
    assert_eq!(large.lines().next(), Some(small.trim()), "small and large agree");
    assert_eq!(large.lines().count(), 20_001, "large is whole");
    assert_eq!(mount.read(&format!("name.{there}")), small);
    let names = fs::read_dir(mount.path()).expect("list").count();
    assert_eq!(names, 3, "no name of another job is left");
    there
}

#[test]
fn an_abort_after_a_crash_leaves_no_trace() {
    let mount = Mount::new();
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    for number in 0..50 {
        mount.write(&format!("f{number}"), &"x".repeat(number * 1000));
        model.insert(format!("f{number}"), "x".repeat(number * 1000));
    }
    let before = exact(&mount.path());
    let id = mount.held("for f in f*; do echo y >> $f; done; rm f1*; mkdir d; mv f2 d");
    mount.crash();
    mount.mount();
    assert_eq!(exact(&mount.path()), before);
    assert!(mount.mojavefs(&["abort", &id]).status.success());
    mount.crash();
    mount.fsck();
    mount.mount();
    assert_eq!(exact(&mount.path()), before);
    assert!(mount.status().is_empty());
    for (name, content) in model {
        assert_eq!(mount.read(&name), content);
    }
}

/// The daemon dies when it gives back the fourth block of a file: by then the change that freed it is there.
#[test]
fn a_file_that_is_cut_down_keeps_what_stays() {
    for change in
        ["truncate -s 10000 f", "truncate -s 131072 f", "fallocate -p -o 65536 -l 393216 f", "fallocate -z -l 393216 f"]
    {
        let mount = Mount::new();
        sh(&mount.path(), "seq 200000 | head -c 1000000 > f; sync f; cp f ../model");
        sh(mount.beside("").as_path(), &change.replace(" f", " model"));
        let daemon = mount.daemon();
        let mut strace = mount.strace(&["-e", "trace=fallocate", "-e", "inject=fallocate:signal=SIGKILL:when=4"]);
        // It may die while it answers, or only in the background.
        let _ = Command::new("sh").args(["-c", change]).current_dir(mount.path()).output();
        let _ = mount.mojavefs(&["gc"]);
        strace.wait().expect("strace ends with the daemon");
        mount.clear(daemon);
        mount.fsck();
        mount.mount();
        let model = fs::read(mount.beside("model")).expect("the model");
        assert!(fs::read(mount.at("f")).expect("read") == model, "{change}");
    }
}
