//! The host changes while work over it is undecided.

use crate::harness::host::OverHost;
use crate::harness::{text, until};
use std::fs::{self, File};
use std::io::Write;
use std::process::Child;

/// A job that has run a script, and goes on when it is told to.
fn halfway(host: &OverHost, words: &[&str], script: &str) -> Child {
    let script = format!("{script}; touch ../halfway; until [ -e ../go ]; do sleep 0.01; done");
    let job = host.job(words, &script).stderr(std::process::Stdio::piped()).spawn().expect("a job");
    until("it is halfway", || host.aside("halfway").exists());
    job
}

fn end(host: &OverHost, job: Child) -> (Option<i32>, String) {
    fs::write(host.aside("go"), "").expect("go");
    let output = job.wait_with_output().expect("it ends");
    (output.status.code(), text(&output.stderr))
}

#[test]
fn what_both_have_changed_is_a_conflict_and_left_held() {
    let host = OverHost::new();
    host.write("a", "old\n");
    host.write("b", "old\n");
    let job = halfway(&host, &[], "echo job >> a; echo job > b");
    File::options().append(true).open(host.at("a")).expect("open").write_all(b"host\n").expect("write");
    let (code, said) = end(&host, job);
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("held as 1") && said.contains("project/a ") && !said.contains("project/b "), "{said}");
    assert_eq!((host.read("a"), host.read("b")), ("old\nhost\n".into(), "old\n".into()));
    let refused = host.mojavefs(&["commit", "1"]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    let committed = host.mojavefs(&["commit", "1", "--theirs", "a"]);
    assert!(committed.status.success(), "{committed:?}");
    assert_eq!((host.read("a"), host.read("b")), ("old\nhost\n".into(), "job\n".into()));
}

#[test]
fn ours_is_put_in_the_place_of_what_the_host_has() {
    let host = OverHost::new();
    host.write("a", "old\n");
    let job = halfway(&host, &[], "echo job >> a");
    host.write("a", "host\n");
    assert_eq!(end(&host, job).0, Some(75));
    let committed = host.mojavefs(&["commit", "1", "--ours", "a"]);
    assert!(committed.status.success(), "{committed:?}");
    assert_eq!(host.read("a"), "old\njob\n");
}

#[test]
fn every_kind_of_change_by_the_host_to_what_was_changed_is_noticed() {
    let cases = [
        ("echo job >> f", "echo host >> f"),
        ("echo job >> f", "rm f"),
        ("echo job >> f", "mv f g"),
        ("echo job >> f", "echo x > t; mv t f"),
        ("echo job >> f", "chmod 600 f"),
        ("chmod 600 f", "echo host >> f"),
        ("rm f", "echo host >> f"),
        ("mv f g", "echo host >> f"),
        ("echo job > new", "echo host > new"),
        ("mkdir new", "echo host > new"),
        ("rm -r d", "echo host > d/x"),
        ("rm -r d", "echo host > d/new"),
        ("echo job > d/new", "rm -r d"),
        ("mv d e", "rm -r d"),
        ("ln -sf f l", "ln -sf g l"),
        ("setfattr -n user.a -v job f", "setfattr -n user.a -v host f"),
    ];
    for (of_job, of_host) in cases {
        let host = OverHost::new();
        crate::harness::sh(&host.path(), "echo old > f; mkdir d; echo x > d/x; ln -s x l");
        let job = halfway(&host, &[], of_job);
        crate::harness::sh(&host.path(), of_host);
        let found = crate::harness::digest::content(&host.path());
        let (code, said) = end(&host, job);
        assert_eq!(code, Some(75), "{of_job} beside {of_host}: {said}");
        assert_eq!(crate::harness::digest::content(&host.path()), found, "{of_job} beside {of_host}");
        let aborted = host.mojavefs(&["abort", "1"]);
        assert!(aborted.status.success(), "{aborted:?}");
    }
}

#[test]
fn what_the_host_changes_elsewhere_is_no_conflict() {
    let host = OverHost::new();
    crate::harness::sh(&host.path(), "echo old > f; echo old > g; mkdir d");
    let job = halfway(&host, &[], "echo job >> f; cat g; ls; echo job > d/of-job");
    crate::harness::sh(&host.path(), "echo host >> g; echo host > d/of-host; echo host > new");
    let (code, said) = end(&host, job);
    assert_eq!(code, Some(0), "{said}");
    let found = ["f", "g", "d/of-job", "d/of-host", "new"].map(|path| host.read(path));
    assert_eq!(found, ["old\njob\n", "old\nhost\n", "job\n", "host\n", "host\n"]);
}

#[test]
fn what_an_isolated_job_has_read_is_a_conflict() {
    let host = OverHost::new();
    crate::harness::sh(&host.path(), "echo old > f; echo old > g");
    let job = halfway(&host, &["--isolate"], "cat g; echo job >> f");
    crate::harness::sh(&host.path(), "echo host >> g");
    let (code, said) = end(&host, job);
    assert_eq!(code, Some(75), "{said}");
    assert_eq!(host.read("f"), "old\n");
}

#[test]
fn a_job_sees_what_the_host_changes_after_a_second_at_most() {
    let host = OverHost::new();
    crate::harness::sh(&host.path(), "echo old > f; mkdir d");
    let script =
        "cat f; ls d; touch ../halfway; until grep -q host f && [ -e d/new ]; do sleep 0.05; done; cat f d/new";
    let job = host.job(&[], script).stdout(std::process::Stdio::piped()).spawn().expect("a job");
    until("it is halfway", || host.aside("halfway").exists());
    crate::harness::sh(&host.path(), "echo host >> f; echo new > d/new");
    let output = job.wait_with_output().expect("it ends");
    assert!(output.status.success() && text(&output.stdout).ends_with("old\nhost\nnew\n"), "{output:?}");
}

/// Who has a file open for writing when a commit replaces it goes on to write where that is put.
#[test]
fn what_is_written_through_an_open_descriptor_is_not_lost() {
    let host = OverHost::new();
    host.write("f", "old\n");
    let mut open = File::options().append(true).open(host.at("f")).expect("open");
    let output = host.specrun(&[], "echo job > f");
    assert!(output.status.success(), "{output:?}");
    open.write_all(b"late\n").expect("write");
    assert_eq!(host.read("f"), "job\n");
    let said = text(&output.stderr);
    let kept =
        said.lines().find_map(|line| line.rsplit_once("what was there is now ")).expect("it is said where it is").1;
    assert_eq!(fs::read_to_string(kept).expect("read"), "old\nlate\n");
}

/// What is committed and can't be applied is put aside, and keeps nobody else from working.
#[test]
fn a_held_job_whose_directory_the_host_has_removed() {
    let host = OverHost::new();
    crate::harness::sh(&host.path(), "mkdir d; echo old > d/f; echo old > g");
    let held = host.specrun(&["--hold"], "echo job > d/f; echo job > d/new; echo job > g");
    assert!(held.status.success(), "{held:?}");
    crate::harness::sh(&host.path(), "rm -r d");
    let refused = host.mojavefs(&["commit", "1"]);
    assert_eq!(refused.status.code(), Some(75), "{refused:?}");
    let committed = host.mojavefs(&["commit", "1", "--theirs", "."]);
    assert!(committed.status.success(), "{committed:?}");
    assert_eq!((host.read("g"), host.at("d").exists()), ("job\n".into(), false));
    assert_eq!(host.run("cat g"), "job\n");
}
