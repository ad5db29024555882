//! A disk that does not answer: who waits for it, and who does not.

use crate::harness::{MOJAVEFS, Mount, SlowDisk, is_running, sh, text, until};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How often something is looked at that gives no signal.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// More than threads that answer a kernel.
const MANY: usize = 200;

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// How many requests of a mount wait.
fn parked(mount: &Mount) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", mount.daemon())).expect("the daemon runs");
    let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "mojavefs-parked").count()
}

fn name(number: usize) -> String {
    format!("f{number}")
}

#[test]
fn however_many_wait_for_a_commit_the_rest_of_the_mount_does_not() {
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    (0..MANY).for_each(|number| mount.write(&name(number), "old"));
    mount.write("other", "old");
    let job = disk.committing(&format!("for n in $(seq 0 {}); do echo new > f$n; done", MANY - 1));
    let written = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..MANY {
            let written = &written;
            scope.spawn(move || {
                mount.write(&name(number), "trunk's");
                written.fetch_add(1, Ordering::SeqCst);
            });
        }
        until("all wait", || parked(mount) == MANY);
        // What the kernel does not have is asked for; the rest can be changed.
        assert_eq!(mount.read("other"), "old");
        mount.write("other", "new");
        sh(&mount.path(), "mkdir d && touch d/x && mv d/x d/y && ls -l d && rm -r d && stat -f .");
        assert_eq!(mount.status().len(), 1);
        let undone = mount.specrun(&[], "echo undone > other; exit 3");
        assert_eq!(undone.status.code(), Some(3), "{}", text(&undone.stderr));
        assert_eq!(mount.read("other"), "new");
        assert_eq!(written.load(Ordering::SeqCst), 0);
        disk.goes_on();
    });
    succeeds(&job.wait());
    assert!((0..MANY).all(|number| mount.read(&name(number)) == "trunk's"));
    mount.check();
}

#[test]
fn who_looks_at_what_is_being_committed_sees_what_is_final_and_waits_for_nothing() {
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    mount.write("file", "old");
    let job = disk.committing("echo new > file; touch more");
    let spec = job.spec();
    assert_eq!((mount.read("file"), mount.exists("more")), ("old".into(), false));
    // A job becomes part of it, and is undone by itself.
    let joined = mount.specrun(&[], "cat file; exit 3");
    assert_eq!((text(&joined.stdout), joined.status.code()), ("new\n".into(), Some(3)));
    // An abort comes too late, and says so once that is known.
    let abort = Command::new(MOJAVEFS)
        .args(["abort", &spec.to_string()])
        .current_dir(mount.path())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mojavefs runs");
    disk.goes_on();
    let abort = abort.wait_with_output().expect("it ends");
    assert_eq!(abort.status.code(), Some(1), "{}", text(&abort.stderr));
    assert!(
        text(&abort.stderr).contains(&format!("speculation {spec} is committed already")),
        "{}",
        text(&abort.stderr)
    );
    succeeds(&job.wait());
    assert_eq!((mount.read("file"), mount.exists("more")), ("new\n".into(), true));
    mount.check();
}

/// Has a file mapped, and stores to it when it is told to, and once more writes out what it has stored.
const STORES: &str = "
import mmap, os, sys
pages = mmap.mmap(os.open('file', os.O_RDWR), 8192)
print('mapped', flush=True)
for line in sys.stdin:
    if line == 'store\\n': pages[5000:5005] = b'TRUNK'
    else: pages.flush()
    print(line, flush=True)
";

#[test]
fn what_is_stored_to_a_page_that_is_being_replaced_is_all_that_is_written_to_what_replaces_it() {
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    mount.write("file", &"o".repeat(8192));
    // All of it was read by others before: nobody asks for it because of the mapping.
    mount.read("file");
    let mut python = Command::new("python3");
    python.args(["-c", STORES]).current_dir(mount.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().expect("python3 runs");
    let (mut asks, said) = (python.stdin.take().expect("piped"), python.stdout.take().expect("piped"));
    let mut said = BufReader::new(said).lines();
    let mut is_done = |word: &str| {
        let line = said.by_ref().map(|line| line.expect("text")).find(|line| !line.is_empty());
        assert_eq!(line.as_deref(), Some(word));
    };
    is_done("mapped");
    let job = disk.committing("head -c 8192 /dev/zero | tr '\\0' n 1<> file");
    assert_eq!(mount.read("file"), "o".repeat(8192));
    writeln!(asks, "store").expect("it listens");
    is_done("store");
    disk.goes_on();
    succeeds(&job.wait());
    writeln!(asks, "flush").expect("it listens");
    is_done("flush");
    drop(asks);
    assert!(python.wait().expect("it ends").success());
    let mut expected = "n".repeat(8192);
    expected.replace_range(5000..5005, "TRUNK");
    until("it is written out", || mount.read("file") == expected);
    mount.check();
}

#[test]
fn who_waits_for_a_disk_that_never_answers_is_told_so_and_nothing_of_it_has_happened() {
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    ["a", "b", "c"].into_iter().for_each(|name| mount.write(name, "old"));
    let job = disk.committing("for name in a b c; do echo new > $name; done");
    thread::scope(|scope| {
        // Side by side: this takes half a minute.
        let changes = [
            scope.spawn(|| fs::set_permissions(mount.at("a"), fs::Permissions::from_mode(0o600))),
            scope.spawn(|| fs::write(mount.at("b"), "trunk's")),
            scope.spawn(|| fs::rename(mount.at("c"), mount.at("d"))),
        ];
        for change in changes {
            let failed = change.join().expect("no panic").expect_err("the disk does not answer");
            assert_eq!(failed.raw_os_error(), Some(nix::libc::EIO), "{failed}");
        }
    });
    // Whoever comes now need not wait to be told.
    let late = fs::set_permissions(mount.at("a"), fs::Permissions::from_mode(0o600)).expect_err("it is as before");
    assert_eq!(late.raw_os_error(), Some(nix::libc::EIO), "{late}");
    disk.goes_on();
    succeeds(&job.wait());
    assert_eq!(["a", "b", "c"].map(|name| mount.read(name)), ["new\n"; 3]);
    let mode = fs::metadata(mount.at("a")).expect("it is there").permissions().mode();
    assert_eq!((mode & 0o777, mount.exists("d")), (0o644, false));
    mount.check();
}

#[test]
fn a_mount_that_is_taken_away_by_force_takes_those_along_who_wait() {
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    mount.write("file", "old");
    let job = disk.committing("echo new > file");
    let file = mount.at("file");
    let writes = thread::spawn(move || fs::write(file, "trunk's"));
    let daemon = mount.daemon();
    until("it waits", || parked(mount) == 1);
    mount.may_be_dead();
    let umount = Command::new(MOJAVEFS).args(["umount", "--force"]).arg(mount.path()).spawn();
    let mut umount = umount.expect("mojavefs runs");
    // The program is let go though the disk does not answer.
    writes.join().expect("no panic").expect_err("its mount is gone");
    disk.goes_on();
    assert!(umount.wait().expect("it ends").success());
    let ended = job.wait();
    // Nobody may have heard how it ended.
    assert!(matches!(ended.status.code(), Some(0 | 75 | 76)), "{:?}: {}", ended.status, text(&ended.stderr));
    until("the daemon is gone", || !is_running(daemon));
    mount.mount();
    let now = mount.read("file");
    // What the program has asked for may have been done, as far as it came: it had cut the file off.
    let possible: &[&str] = match ended.status.code() {
        Some(0) => &["new\n", ""],
        Some(75) => &["old", ""],
        _ => &["old", "new\n", ""],
    };
    assert!(possible.contains(&&*now), "{now}");
    mount.check();
}

/// Those threads of a mount of this name that wait, and how often each has done so.
fn asleep(mount: &Mount, name: &str) -> BTreeSet<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", mount.daemon())).expect("the daemon runs");
    let statuses = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let named = statuses.filter(|status| status.starts_with(&format!("Name:\t{name}\n")));
    let waits = |status: String| {
        let line = |word: &str| status.lines().find(|line| line.starts_with(word)).map(str::to_owned);
        line("State:").filter(|state| state.contains("sleeping"))?;
        Some([line("Pid:")?, line("voluntary_ctxt_switches:")?].concat())
    };
    named.filter_map(waits).collect()
}

#[test]
fn sixty_four_votes_while_the_disk_syncs_take_four_syncs_of_the_log() {
    const VOTES: usize = 64;
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    let held: Vec<String> = (0..VOTES).map(|number| mount.held(&format!("echo new > {}", name(number)))).collect();
    disk.stops();
    let commit = |id: &String| {
        let mut command = Command::new(MOJAVEFS);
        command.args(["commit", id]).current_dir(mount.path()).stderr(Stdio::piped()).stdout(Stdio::null());
        command.spawn().expect("mojavefs runs")
    };
    let mut commits: Vec<_> = held.iter().map(commit).collect();
    let wait = || {
        let before = RefCell::new(BTreeSet::new());
        until("all wait", || {
            let now = asleep(mount, "mojavefs-contro");
            // The one whose sync is under way looks again and again whether it is answered.
            let is_so = before.borrow().intersection(&now).count() >= VOTES - 1;
            before.replace(now);
            thread::sleep(LOOK_INTERVAL);
            is_so
        });
    };
    let committing = || mount.status().iter().filter(|status| status["state"] == "committing").count();
    wait();
    while committing() < VOTES {
        assert!(disk.answers_one(), "{} are at their records, and no sync waits", committing());
        wait();
    }
    let mut ended = || commits.iter_mut().all(|commit| commit.try_wait().expect("it is a child").is_some());
    while !ended() {
        disk.answers_one();
        thread::sleep(LOOK_INTERVAL);
    }
    // One may be the server's own, for which nobody waits.
    assert!(disk.begun() <= 5, "{} syncs", disk.begun());
    for commit in commits {
        succeeds(&commit.wait_with_output().expect("it ends"));
    }
    disk.goes_on();
    assert!((0..VOTES).all(|number| mount.read(&name(number)) == "new\n"));
    mount.check();
}
