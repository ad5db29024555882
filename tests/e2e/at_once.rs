//! What is committed is seen all at once: whoever has seen one thing of it never sees an older one, nor does anybody else from then on.

use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::served::Server;
use crate::harness::{Mount, SPECRUN, project, sh, text, until};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::UNIX_EPOCH;

/// Programs that read in every way until they are told to stop, and fail when one has seen something older than another before.
struct Readers {
    seen: PathBuf,
    pair: bool,
    running: Vec<(String, Child)>,
}

fn python(words: &[&str], at: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg(project(SUBJECTS).join("at_once.py")).args(words).current_dir(at).stdin(Stdio::null());
    command
}

impl Readers {
    fn new(seen: PathBuf, pair: bool) -> Self {
        fs::write(&seen, 1u64.to_ne_bytes()).expect("what was seen");
        Readers { seen, pair, running: Vec::new() }
    }

    fn words(&self) -> Vec<&str> {
        let words = ["read", self.seen.to_str().expect("text"), "pair"];
        words[..if self.pair { 3 } else { 2 }].to_vec()
    }

    fn start(&mut self, who: &str, mut command: Command) {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        self.running.push((who.to_owned(), child));
    }

    fn on(&mut self, who: &str, mount: &Mount) {
        self.start(who, python(&self.words(), &mount.path()));
    }

    /// In a job that sees what others commit.
    fn in_a_job(&mut self, who: &str, mount: &Mount, options: &[&str]) {
        let script = project(SUBJECTS).join("at_once.py");
        let mut command = Command::new(SPECRUN);
        command.args(options).args(["--quiet", "--", "python3"]).arg(script).args(self.words());
        command.current_dir(mount.path()).stdin(Stdio::null());
        self.start(who, command);
    }

    /// Ends them. Each has looked, and of what was committed somebody has seen something new so often at least.
    fn end(mut self, news_min: u64) {
        fs::write(self.seen.with_extension("stop"), "").expect("say so");
        let mut all_news = 0;
        for (who, child) in self.running.drain(..) {
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{who}: {}", text(&output.stderr));
            let said = text(&output.stdout);
            let counts: Vec<u64> = said.split_whitespace().map(|count| count.parse().expect("a count")).collect();
            assert!(counts[0] > 10, "{who} has looked {} times", counts[0]);
            all_news += counts[1];
        }
        assert!(all_news >= news_min, "something new was seen {all_news} times");
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            // One that has ended is reaped all the same.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Commits versions from 2 on of what was made.
fn commit_versions(mount: &Mount, last: u64) {
    for version in 2..=last {
        let script = format!("python3 {} change {version}", project(SUBJECTS).join("at_once.py").display());
        let output = mount.specrun(&["--quiet"], &script);
        assert!(output.status.success(), "version {version}: {}", text(&output.stderr));
    }
}

fn make(mount: &Mount, files: &str, names: &str) {
    let output = python(&["make", files, names], &mount.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// Whether there is time for more of everything.
fn soaks() -> bool {
    std::env::var_os("MOJAVEFS_SOAK").is_some()
}

#[test]
fn whoever_reads_sees_all_of_a_commit_or_nothing() {
    let mount = Mount::new();
    // More names than fit into one page of a listing.
    let files = if soaks() { "4000" } else { "100" };
    make(&mount, files, "2500");
    let mut readers = Readers::new(mount.beside("seen"), false);
    readers.on("one on trunk", &mount);
    readers.on("another on trunk", &mount);
    readers.in_a_job("a job that looks at what is committed", &mount, &["--on-read", "committed"]);
    commit_versions(&mount, 8);
    readers.end(5);
    mount.check();
}

#[test]
fn a_commit_waits_for_nobody_who_waits_for_it() {
    let mount = Mount::new();
    make(&mount, "100", "300");
    let mut readers = Readers::new(mount.beside("seen"), false);
    readers.in_a_job("one that waits", &mount, &["--on-read", "wait"]);
    readers.in_a_job("another that waits", &mount, &["--on-read", "wait"]);
    commit_versions(&mount, 12);
    readers.end(5);
    mount.check();
}

#[test]
fn who_waits_in_the_midst_of_a_listing_is_waited_for_by_nobody() {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir dir && touch dir/old");
    let held = mount.held("echo new > dir/new");
    let mut waits = mount.specrun_command(&["--quiet", "--on-read", "wait"], "ls dir").stdout(Stdio::piped()).spawn();
    let waits = waits.as_mut().expect("specrun runs");
    let threads = || fs::read_dir(format!("/proc/{}/task", mount.daemon())).expect("the daemon runs").flatten();
    let is_parked = |name: std::io::Result<String>| name.is_ok_and(|name| name.trim() == "mojavefs-parked");
    until("it waits", || threads().any(|thread| is_parked(fs::read_to_string(thread.path().join("comm")))));
    assert!(mount.mojavefs(&["commit", &held]).status.success());
    let mut listed = String::new();
    waits.stdout.take().expect("piped").read_to_string(&mut listed).expect("text");
    assert!(waits.wait().expect("it ends").success());
    assert_eq!(listed, "new\nold\n");
    mount.check();
}

#[test]
fn all_mounts_of_a_server_see_it_at_once() {
    require_root!();
    let server = Server::new();
    let (near, far) = (server.mount(), server.mount_tcp());
    make(&near, "50", "1500");
    let mut readers = Readers::new(server.beside("seen"), false);
    readers.on("one that is near", &near);
    readers.on("one that is far", &far);
    commit_versions(&near, 6);
    readers.end(4);
}

#[test]
fn two_files_that_a_process_changes_together_are_never_seen_apart() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "pair.c");
    for name in ["g0", "g1"] {
        mount.write(name, "00000001");
    }
    let mut readers = Readers::new(mount.beside("seen"), true);
    readers.on("one on trunk", &mount);
    readers.in_a_job("a job that looks at what is committed", &mount, &["--on-read", "committed"]);
    let mut command = Command::new(SPECRUN);
    command
        .args(["--no-speculation", "--"])
        .arg(program)
        .arg(if soaks() { "10000" } else { "1000" })
        .current_dir(mount.path());
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    readers.end(20);
    mount.check();
}

#[test]
fn what_a_commit_changes_is_newer_than_every_look_before_it() {
    let mount = Mount::new();
    mount.write("changed", "old");
    mount.write("kept", "old");
    let changed_at = |name: &str| {
        let found = fs::metadata(mount.at(name)).expect("it is there");
        (found.ctime(), found.ctime_nsec())
    };
    let times = || ["changed", "new", "dir", "."].map(changed_at);
    let modified = |name: &str| fs::metadata(mount.at(name)).and_then(|found| found.modified()).expect("it is there");
    let id = mount.held("echo new > changed; echo new > new; mkdir dir; touch -d @1000000000 new");
    let kept = changed_at("kept");
    mount.write("marker", "made after the job has ended");
    let marker = changed_at("marker");
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    let committed = times();
    assert!(committed.iter().all(|time| *time > marker), "{committed:?}, {marker:?}");
    assert_eq!(changed_at("kept"), kept);
    // The job has said when it was modified.
    assert_eq!(modified("new").duration_since(UNIX_EPOCH).expect("after 1970").as_secs(), 1_000_000_000);
    assert!(modified("changed") < modified("marker"));
    assert!(mount.mojavefs(&["gc"]).status.success());
    assert_eq!(times(), committed, "once it is merged");
    mount.check();
    assert_eq!(times(), committed, "once it was mounted again");
}

#[test]
fn with_touch_what_a_commit_changes_is_modified_by_it() {
    let mount = Mount::new();
    let modified = |name: &str| fs::metadata(mount.at(name)).and_then(|found| found.modified()).expect("it is there");
    mount.write("source", "old");
    mount.write("kept", "old");
    let kept = modified("kept");
    let id = mount.held("echo new > source; touch -d @1000000000 older");
    mount.write("target", "made of the old one");
    assert!(mount.mojavefs(&["commit", "--touch", &id]).status.success());
    assert!(modified("source") > modified("target") && modified("older") > modified("target"));
    assert_eq!(modified("kept"), kept);
    let committed = ["source", "older"].map(modified);
    assert!(mount.mojavefs(&["gc"]).status.success());
    assert_eq!(["source", "older"].map(modified), committed, "once it is merged");
    mount.check();
    assert_eq!(["source", "older"].map(modified), committed, "once it was mounted again");
    mount.write("target", "made again");
    assert!(mount.specrun(&["--touch"], "touch -d @1000000000 source").status.success());
    assert!(modified("source") > modified("target"));
}
