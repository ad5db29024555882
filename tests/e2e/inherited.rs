//! What a job is started with: descriptors on the filesystem, and signals that are ignored.

use crate::harness::{Mount, SPECRUN, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::process::{Command, Output};

/// A shell in the mount that starts `"$0"`, which is `specrun`.
fn shell(mount: &Mount, script: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "60", "sh", "-c", script, SPECRUN]).current_dir(mount.path());
    command.output().expect("a shell runs")
}

#[test]
fn a_descriptor_never_leads_through_a_link_that_others_put_in_its_place() {
    let mount = Mount::new();
    fs::write(mount.beside("victim"), "untouched").expect("write");
    // The kernel calls a file without a name so.
    let said =
        shell(&mount, "exec 3>>log && rm log && ln -s ../victim 'log (deleted)' && exec \"$0\" -- sh -c 'echo x >&3'");
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(fs::read_to_string(mount.beside("victim")).expect("read"), "untouched");
    // The file has another name left, so it is not the job's alone: what is written to it would not be undone.
    let script = "exec 3>>kept && ln kept other && rm kept && echo untouched > 'kept (deleted)' && \
                  exec \"$0\" -- sh -c 'echo x >&3'";
    let said = shell(&mount, script);
    assert_eq!(said.status.code(), Some(125), "{}", text(&said.stderr));
    assert!(text(&said.stderr).contains("(descriptor 3) in the job's view: it is not there any more"));
    assert_eq!((mount.read("kept (deleted)"), mount.read("other")), ("untouched\n".into(), String::new()));
}

#[test]
fn the_working_directory_is_entered_where_it_is_now() {
    let mount = Mount::new();
    let said = shell(&mount, "mkdir -p d/work && cd d/work && mv ../../d ../../e && \"$0\" -- sh -c 'echo x > here'");
    assert!(said.status.success(), "{}", text(&said.stderr));
    assert_eq!(mount.read("e/work/here"), "x\n");
}

#[test]
fn input_that_was_removed_is_read_all_the_same() {
    let mount = Mount::new();
    let said = shell(&mount, "echo one > in && echo two >> in && exec < in && rm in && read first && \"$0\" -- cat");
    assert_eq!((text(&said.stdout), said.status.code()), ("two\n".into(), Some(0)), "{}", text(&said.stderr));
}

#[test]
fn a_fifo_of_the_filesystem_is_read_and_written_as_it_was_opened() {
    let mount = Mount::new();
    let said = shell(
        &mount,
        "mkfifo p && { echo hi > p & } && \"$0\" -- cat < p && { cat p & } && \"$0\" -- echo ho > p && wait",
    );
    assert_eq!((text(&said.stdout), said.status.code()), ("hi\nho\n".into(), Some(0)), "{}", text(&said.stderr));
}

#[test]
fn a_signal_that_it_was_started_to_ignore_does_not_end_a_job_that_waits() {
    let mount = Mount::new();
    let first = mount.start("first", &[], "echo x > a");
    let log = mount.beside("log");
    let script = "trap '' HUP; exec \"$0\" -- sh -c 'cat a > b'";
    let mut second = Command::new("sh");
    second.args(["-c", script, SPECRUN]).current_dir(mount.path()).stderr(File::create(&log).expect("a log"));
    let mut second = second.spawn().expect("a shell runs");
    until("it waits for the first", || fs::read_to_string(&log).is_ok_and(|said| said.contains("waits until")));
    kill(Pid::from_raw(second.id().cast_signed()), Signal::SIGHUP).expect("signal it");
    assert!(first.exit(0).status.success());
    assert!(second.wait().expect("wait").success(), "{}", fs::read_to_string(&log).expect("the log"));
    assert_eq!(mount.read("b"), "x\n");
}
