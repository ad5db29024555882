//! What is said goes where it should, and what comes too late goes nowhere.

use crate::harness::{Mount, SPECRUN, run, sh, text, until};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

/// Runs a job whose standard error is a file of the filesystem.
fn with_stderr(mount: &Mount, file: File, options: &[&str], script: &str) -> Option<i32> {
    mount.specrun_command(options, script).stderr(file).status().expect("specrun runs").code()
}

fn appended(mount: &Mount, name: &str) -> File {
    OpenOptions::new().append(true).create(true).open(mount.at(name)).expect("open")
}

#[test]
fn what_specrun_says_into_the_filesystem_is_said_once_and_for_all() {
    let mount = Mount::new();
    mount.write("log", "old\n");
    assert_eq!(with_stderr(&mount, appended(&mount, "log"), &[], "echo x > a"), Some(0));
    assert_eq!(with_stderr(&mount, appended(&mount, "log"), &[], "echo new >> log"), Some(0));
    let log = mount.read("log");
    let lines: Vec<&str> = log.lines().map(|line| line.split(" in ").next().unwrap_or(line)).collect();
    assert_eq!(lines, ["old", "committed 1 change", "new", "committed 1 change"]);
    assert_eq!(
        with_stderr(&mount, File::create(mount.at("err")).expect("create"), &[], "echo no >&2; exit 3"),
        Some(3)
    );
    assert_eq!(mount.read("err"), "rolled back 1 change (exit 3)\n");
    mount.check();
    assert_eq!(mount.read("log"), log);
}

#[test]
fn output_and_errors_into_one_file_stay_in_order() {
    let mount = Mount::new();
    let script = format!("{{ {SPECRUN} -- sh -c 'echo 1; echo 2 >&2; echo 3'; {SPECRUN} -- echo 4; }} > log 2>&1");
    sh(&mount.path(), &script);
    let log = mount.read("log");
    let said: Vec<&str> = log.lines().filter(|line| !line.starts_with("committed 1 change in")).collect();
    assert_eq!((said, log.lines().count()), (vec!["1", "2", "3", "4"], 6), "{log}");
    mount.check();
}

#[test]
fn holding_what_a_job_said_into_the_filesystem_is_no_conflict() {
    let mount = Mount::new();
    let log = File::create(mount.at("log")).expect("create");
    let code = with_stderr(&mount, log, &["--hold"], "echo said >&2; echo x > a");
    assert_eq!((code, mount.read("log")), (Some(0), String::new()));
    let id = mount.status()[0]["id"].to_string();
    run(&mount.path(), crate::harness::MOJAVEFS, &["commit", &id]);
    assert!(mount.read("log").starts_with("said\nheld as "), "{}", mount.read("log"));
    mount.check();
}

/// What `status` says is still to be merged.
fn to_merge(mount: &Mount) -> u64 {
    let said = text(&mount.mojavefs(&["status"]).stdout);
    let line = said.lines().find(|line| line.ends_with("of committed work to be merged in the background"));
    line.map_or(0, |line| line.split(' ').next().and_then(|number| number.parse().ok()).expect("a number"))
}

#[test]
fn what_is_left_of_a_large_commit_is_said_until_it_is_merged() {
    let mount = Mount::new();
    let job = |round: u32| {
        let script = format!("mkdir {round}; for i in $(seq 5000); do echo {round} > {round}/$i; done");
        assert!(mount.specrun(&["--quiet"], &script).status.success());
    };
    let status = || text(&mount.mojavefs(&["status"]).stdout);
    let words = "records of committed work to be merged";
    // It is merged while we look: whoever comes too late tries again.
    let seen = (0..5).any(|round| {
        job(round);
        let (first, said, then) = (to_merge(&mount), status(), to_merge(&mount));
        assert!(then <= first && first <= 5 * 5003, "{first}, then {then}");
        assert!(said.contains(words) || then == 0, "{said}");
        said.starts_with("nothing is undecided\n") && said.ends_with(&format!("{words} in the background\n"))
    });
    assert!(seen, "nobody ever saw anything to be merged");
    job(5);
    let gc = mount.mojavefs(&["gc"]);
    assert!(gc.status.success() && gc.stderr.is_empty(), "{}", text(&gc.stderr));
    assert_eq!((to_merge(&mount), status().as_str()), (0, "nothing is undecided\n"));
    mount.check();
    assert_eq!(to_merge(&mount), 0);
}

#[test]
fn collecting_shows_on_a_terminal_what_is_left() {
    let mount = Mount::new();
    let gc = format!("{} gc", crate::harness::MOJAVEFS);
    let seen = (0..5).any(|round| {
        let script = format!("mkdir {round}; for i in $(seq 5000); do echo {round} > {round}/$i; done");
        assert!(mount.specrun(&["--quiet"], &script).status.success());
        let said = run(&mount.path(), "script", &["-qec", &gc, "/dev/null"]);
        assert!(said.contains("reclaimed "), "{said:?}");
        said.contains("records of committed work to be merged")
    });
    assert!(seen, "the terminal never showed what is left");
}

#[test]
fn errors_that_nobody_hears_change_no_exit_status() {
    let mount = Mount::new();
    let full = || OpenOptions::new().write(true).open("/dev/full").expect("open");
    assert_eq!(with_stderr(&mount, full(), &[], "echo x > a"), Some(0));
    assert_eq!(mount.read("a"), "x\n");
    let mut status = Command::new(crate::harness::MOJAVEFS);
    status.arg("status").current_dir(mount.path());
    let output = status.stdout(full()).stderr(Stdio::piped()).output().expect("mojavefs runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write to standard output"), "{}", text(&output.stderr));
    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    assert_eq!(status.stdout(writer).status().expect("mojavefs runs").code(), Some(128 + 13));
}

#[test]
fn what_is_written_in_a_shell_after_the_commit_goes_nowhere() {
    let mount = Mount::new();
    mount.write("log", "old\n");
    for _ in 0..5 {
        let id = mount.held("echo x > f; echo y >> log");
        let mut shell = Command::new(crate::harness::MOJAVEFS);
        let script = format!("touch ../in-{id}; while :; do echo z >> log; echo q > g-{id}; done");
        shell.args(["shell", &id, "--", "sh", "-c", &script]).current_dir(mount.path());
        let mut shell = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mojavefs runs");
        until("the shell works", || mount.beside(&format!("in-{id}")).exists());
        run(&mount.path(), crate::harness::MOJAVEFS, &["commit", &id]);
        assert_eq!(shell.wait().expect("the shell ends").code(), Some(75));
    }
    assert!(mount.read("log").starts_with("old\ny\n"));
    assert_eq!(mount.read("f"), "x\n");
    mount.check();
}

#[test]
fn an_append_goes_to_the_end_though_others_have_moved_it() {
    let mount = Mount::new();
    mount.write("log", "1\n");
    let mut log = appended(&mount, "log");
    for n in 0..20 {
        assert!(mount.specrun(&[], &format!("echo job {n} >> log")).status.success());
        writeln!(log, "trunk {n}").expect("append");
    }
    let expected: String = (0..20).map(|n| format!("job {n}\ntrunk {n}\n")).collect();
    let expected = format!("1\n{expected}");
    assert_eq!(mount.read("log"), expected);
    drop(log);
    mount.check();
    assert_eq!(fs::read_to_string(mount.at("log")).expect("read"), expected);
}

#[test]
fn what_others_have_named_never_reaches_the_terminal_as_it_is() {
    let mount = Mount::new();
    let evil = "\u{1b}[2J\n9  held  root\u{9b}\\";
    let script = format!("echo x > '{evil}'; echo 1 > a; : '{evil}'");
    let id = mount.held(&script);
    let reader = mount.held(&format!("cat '{evil}' a > b"));
    let plain = |words: &[&str]| {
        let output = mount.mojavefs(words);
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        let said = text(&output.stdout);
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{words:?}: {said:?}");
        said
    };
    let shown = r"\x1b[2J\n9  held  root\xc2\x9b\\";
    let status = plain(&["status"]);
    assert!(status.lines().next().is_some_and(|line| line.ends_with(&format!(": '{shown}'"))), "{status:?}");
    assert!(!status.lines().any(|line| line.starts_with('9')), "{status:?}");
    assert!(plain(&["status", "--graph"]).contains(&format!("read `{shown}`")));
    assert!(plain(&["why", &reader]).contains(&format!("`sh -c echo x > '{shown}'")));
    assert!(plain(&["diff", &id]).contains(&format!("A  {shown}\n")));
    for words in
        [["diff", &id, "--patch"], ["diff", &id, "--stat"], ["status", "--dot", "-m."], ["status", "--svg", "-m."]]
    {
        plain(&words);
    }
    assert!(mount.status()[0]["command"].as_str().is_some_and(|command| command.ends_with(&format!(": '{evil}'"))));
    let missing = mount.mojavefs(&["export", evil, "../out"]);
    assert!(text(&missing.stderr).contains("[2J") && !missing.stderr.contains(&0x1b), "{}", text(&missing.stderr));
}

#[test]
fn names_that_are_no_text_are_told_apart_in_json() {
    let mount = Mount::new();
    sh(&mount.path(), r#"for byte in '\376' '\377'; do echo 0 > "$(printf "old$byte")"; done; echo 0 > plain"#);
    let id = mount.held(
        r#"for byte in '\376' '\377'; do mv "$(printf "old$byte")" "$(printf "new$byte")"; done; echo 1 >> plain
           echo 1 >> "$(printf 'new\377')""#,
    );
    let diff = mount.mojavefs(&["diff", &id, "--json"]);
    let diff: Vec<serde_json::Value> = serde_json::from_slice(&diff.stdout).expect("diff says JSON");
    for (change, byte) in diff.iter().zip(["fe", "ff"]) {
        assert_eq!((&change["path"], &change["from"]), (&"new\u{fffd}".into(), &"old\u{fffd}".into()));
        assert_eq!(change["path_bytes"], format!("6e6577{byte}"));
        assert_eq!(change["from_bytes"], format!("6f6c64{byte}"));
    }
    assert_eq!((diff.len(), &diff[2]["path"]), (3, &"plain".into()));
    assert!(diff[2].get("path_bytes").is_none() && diff[2]["from"].is_null(), "{}", diff[2]);

    let reader = mount.held(r#"cat "$(printf 'new\376')" > copy"#);
    let status = mount.status();
    let reader = reader.parse::<u64>().expect("a number");
    let reader = status.iter().find(|status| status["id"] == reader).expect("the reader is held");
    assert_eq!(reader["depends_on"][0]["path_bytes"], "6e6577fe", "{reader}");

    let script =
        r#"echo 1 > "$(printf 'a\377')"; echo 1 > b; touch ../written; until [ -e ../go ]; do sleep 0.01; done"#;
    let mut job = mount.specrun_command(&["--isolate", "--retries", "0", "--json"], script);
    let job = job.stderr(Stdio::piped()).spawn().expect("specrun runs");
    until("the job has written", || mount.beside("written").exists());
    sh(&mount.path(), r#"echo 2 > "$(printf 'a\377')"; echo 2 > b; touch ../go"#);
    let output = job.wait_with_output().expect("it ends");
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("--json says JSON");
    assert_eq!((&said["state"], &said["conflicts_bytes"]), (&"aborted".into(), &serde_json::json!(["61ff", "62"])));
}

/// Names that have to be quoted, and one that has not.
const ODD_NAMES: [&[u8]; 9] = [
    b"new\nline",
    b"back\\slash",
    b"quo\"te",
    b"tab\there",
    b"two words",
    b"end ",
    b"\x01\xff",
    b"\xe2\x80\xae",
    b"\xc3\xa4",
];

#[test]
fn a_patch_is_taken_where_names_are_odd() {
    let mount = Mount::new();
    let (git, patch) = (mount.beside("git"), mount.beside("patch"));
    for dir in [&mount.path(), &git, &patch] {
        fs::create_dir_all(dir).expect("mkdir");
        for name in ODD_NAMES {
            let [changed, removed] = [&b"changed "[..], b"removed "].map(|word| [word, name].concat());
            fs::write(dir.join(OsStr::from_bytes(&changed)), "1\na\rb\n2").expect("write");
            fs::write(dir.join(OsStr::from_bytes(&removed)), "1\n").expect("write");
        }
    }
    let script = "rm removed*; for file in changed*; do printf '0\n1\nc\rb\n2\n' > \"$file\"; \
                  printf '1\n2' > \"added ${file#changed }\"; done";
    let id = mount.held(script);
    let said = mount.mojavefs(&["diff", &id, "--patch"]).stdout;
    let file = mount.beside("changes");
    fs::write(&file, said).expect("write");
    let file = file.to_str().expect("a path of text");
    run(&git, "git", &["apply", file]);
    run(&patch, "patch", &["-p1", "-i", file]);
    run(&mount.path(), crate::harness::MOJAVEFS, &["commit", &id]);
    for dir in ["git", "patch"] {
        run(&mount.beside(""), "diff", &["-r", "mnt", dir]);
    }
}

#[test]
fn a_job_whose_held_output_is_lost_says_what_became_of_it() {
    let mount = Mount::new();
    let lost = |script: &str| {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("a full device");
        let output = mount.specrun_command(&["--output", "hold"], script).stdout(full).output().expect("specrun runs");
        assert_eq!(output.status.code(), Some(74), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    let said = lost("echo x > a; echo said");
    assert!(said.contains("cannot pass on the output") && said.contains("is committed all the same"), "{said}");
    let said = lost("echo x > b; echo said; exit 3");
    assert!(said.contains("cannot pass on the output") && said.contains("is undone"), "{said}");
    assert_eq!((mount.exists("a"), mount.exists("b")), (true, false));
}

#[test]
fn json_tells_the_end_of_a_job_that_did_not_start_and_of_one_that_others_have_undone() {
    let mount = Mount::new();
    let end = |output: &Output, code: i32| {
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        let said = text(&output.stderr);
        let said: serde_json::Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
        assert_eq!((&said["state"], &said["exit"]), (&"aborted".into(), &code.into()), "{said}");
    };
    let mut missing = Command::new(SPECRUN);
    missing.args(["--json", "--", "/no/such/program"]).current_dir(mount.path());
    end(&missing.output().expect("specrun runs"), 127);
    let job = mount.start("job", &["--json"], "echo x > a");
    run(&mount.path(), crate::harness::MOJAVEFS, &["abort", &job.spec().to_string()]);
    end(&job.wait(), 75);
    assert!(!mount.exists("a"));
}
