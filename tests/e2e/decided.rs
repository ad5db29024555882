//! What `mojavefs commit` says of a speculation, and for how long it is known.

use crate::harness::{MOJAVEFS, Mount, SPECRUN, project, text};
use std::fs;
use std::process::{Command, Output, Stdio};

fn json(bytes: &[u8]) -> serde_json::Value {
    let text = text(bytes);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Runs a job to its end, and returns its number.
fn ran(mount: &Mount, options: &[&str], script: &str) -> String {
    let output = mount.specrun(&[options, &["--json"]].concat(), script);
    json(&output.stderr)["id"].to_string()
}

fn commit(mount: &Mount, words: &[&str]) -> (Option<i32>, String) {
    let output: Output = mount.mojavefs(&[&["commit"], words].concat());
    (output.status.code(), [text(&output.stdout), text(&output.stderr)].concat())
}

/// A held one, and one that has read its work, has voted, and waits for it.
fn held_and_voted(mount: &Mount) -> [String; 2] {
    mount.write("f", "0");
    let held = mount.held("echo 1 > f");
    [held, ran(mount, &["--no-wait"], "cat f > g")]
}

/// The numbers of the exit statuses that a source file names.
fn named(path: &std::path::Path) -> Vec<String> {
    let source = fs::read_to_string(path).expect("a source file");
    let line = |line: &str| {
        let (name, value) =
            line.trim_start().trim_start_matches("pub(crate) ").strip_prefix("const EXIT_")?.split_once('=')?;
        let value = value.trim().trim_end_matches(';');
        Some(if name.starts_with("PIPE") { "141".to_owned() } else { value.to_owned() })
    };
    source.lines().filter_map(line).collect()
}

#[test]
fn every_exit_status_stands_in_the_help_and_in_the_docs() {
    let commands = project("client/src/commands");
    let files = ["mod.rs", "fsck.rs", "specrun/mod.rs", "specrun/decide.rs", "../output.rs"];
    let [all @ .., pipe] = files.map(|file| named(&commands.join(file)));
    let mut statuses: Vec<String> = all.into_iter().flatten().chain(pipe).collect();
    statuses.sort();
    assert_eq!(statuses, ["1", "124", "125", "126", "127", "141", "4", "73", "74", "75", "76", "77"]);
    let docs = fs::read_to_string(project("docs/semantics.md")).expect("the docs");
    let help = |program| text(&Command::new(program).arg("--help").output().expect("it runs").stdout);
    let help = [help(MOJAVEFS), help(SPECRUN)].concat();
    for status in &statuses {
        let in_help = help.lines().any(|line| line.trim_start().starts_with(&format!("{status}  ")));
        assert!(in_help, "{status} is missing in --help");
        let cells = || docs.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
        let in_docs = cells().any(|cell| cell.split(", ").any(|number| number == status));
        assert!(in_docs, "{status} is missing in docs/semantics.md");
    }
    let of_commit = text(&Command::new(MOJAVEFS).args(["commit", "--help"]).output().expect("it runs").stdout);
    for status in [0, 1, 73, 75, 76, 77] {
        assert!(of_commit.contains(&format!("\n {status:>3}  ")), "{status}: {of_commit}");
    }
}

#[test]
fn a_commit_that_is_not_final_yet_has_a_status_of_its_own() {
    let mount = Mount::new();
    let [held, voted] = held_and_voted(&mount);
    let (code, said) = commit(&mount, &[&voted]);
    assert_eq!((code, said), (Some(77), format!("decided {voted} (1 change): final when {held} is\n")));
    let (code, said) = commit(&mount, &["--json", &voted]);
    let said = json(said.as_bytes());
    assert_eq!((code, &said["state"], &said["outcome"]), (Some(77), &"voted".into(), &"undecided".into()));
    assert_eq!((said["waits_for"][0].to_string(), &said["exit"]), (held.clone(), &77.into()));
    assert_eq!(commit(&mount, &[&held]).0, Some(0));
    let (code, said) = commit(&mount, &["--json", &voted]);
    assert_eq!((code, &json(said.as_bytes())["outcome"]), (Some(0), &"committed".into()));
    assert_eq!(mount.read("g"), "1\n");
    mount.check();
}

#[test]
fn a_commit_can_be_waited_for_until_it_is_final_or_undone() {
    for (verb, expected) in [("commit", 0), ("abort", 75)] {
        let mount = Mount::new();
        let [held, voted] = held_and_voted(&mount);
        let mut waits = Command::new(MOJAVEFS);
        waits
            .args(["commit", "--wait", &voted])
            .current_dir(mount.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let waits = waits.spawn().expect("mojavefs runs");
        assert!(mount.mojavefs(&[verb, &held]).status.success());
        let output = waits.wait_with_output().expect("it ends");
        let said = [text(&output.stdout), text(&output.stderr)].concat();
        assert_eq!(output.status.code(), Some(expected), "{said}");
        let end = if expected == 0 { format!("committed {voted} (") } else { "it was undone\n".to_owned() };
        assert!(said.contains(&end), "{said}");
        assert_eq!(mount.exists("g"), expected == 0);
        mount.check();
    }
}

#[test]
fn a_conflict_that_arises_while_a_commit_waits_is_said() {
    let mount = Mount::new();
    let [held, voted] = held_and_voted(&mount);
    mount.write("g", "mine");
    let (code, said) = commit(&mount, &["--wait", &voted]);
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("in conflict") && said.contains("  g ("), "{said}");
    let (code, said) = commit(&mount, &["--json", &voted]);
    let said = json(said.as_bytes());
    assert_eq!((code, &said["outcome"], &said["conflicts"][0]), (Some(75), &"undecided".into(), &"g".into()));
    assert!(mount.mojavefs(&["abort", &held]).status.success());
    mount.check();
}

#[test]
fn what_was_committed_and_what_was_undone_is_known_after_a_restart() {
    let mount = Mount::new();
    let committed = ran(&mount, &[], "echo 1 > a");
    let undone = ran(&mount, &[], "echo 2 > a; exit 3");
    let aborted = mount.held("echo 3 > a");
    assert!(mount.mojavefs(&["abort", &aborted]).status.success());
    let inner = format!("{} --json -- sh -c 'echo x > b' 2>> ../inner", crate::harness::SPECRUN);
    let outer = ran(&mount, &[], &format!("{inner}; {inner}"));
    let inner: Vec<String> = fs::read_to_string(mount.beside("inner"))
        .expect("they said so")
        .lines()
        .map(|line| json(line.as_bytes())["id"].to_string())
        .collect();
    // In conflict, and settled.
    let settled = mount.held("echo 4 > a");
    mount.write("a", "5");
    assert_eq!(commit(&mount, &["--ours", "a", &settled]).0, Some(0));
    let known = |when: &str| {
        for id in [&committed, &outer, &inner[0], &inner[1], &settled] {
            let (code, said) = commit(&mount, &[id]);
            assert_eq!((code, said.starts_with("committed ")), (Some(0), true), "{when}, {id}: {said}");
        }
        for id in [&undone, &aborted] {
            let (code, said) = commit(&mount, &[id]);
            assert_eq!(code, Some(75), "{when}, {id}: {said}");
            assert_eq!(said, format!("mojavefs: speculation {id} is not committed: it was undone\n"));
        }
        let late = mount.mojavefs(&["abort", &committed]);
        assert_eq!(late.status.code(), Some(1), "{when}");
        assert!(text(&late.stderr).contains("is committed already"), "{when}: {}", text(&late.stderr));
        let (code, said) = commit(&mount, &["4711"]);
        assert_eq!((code, said.contains("no undecided speculation 4711")), (Some(1), true), "{when}: {said}");
    };
    known("at once");
    mount.check();
    known("after a restart");
    mount.crash();
    mount.mount();
    known("after a crash");
}

#[test]
fn what_became_part_of_held_work_is_known_to_be_undecided_and_then_committed() {
    let mount = Mount::new();
    let inner = format!("{} --json -- sh -c 'echo x > b' 2> ../inner", crate::harness::SPECRUN);
    let held = mount.held(&format!("{inner}; echo y > c"));
    let inner = fs::read(mount.beside("inner")).expect("it said so");
    let inner = json(&inner)["id"].to_string();
    mount.crash();
    mount.mount();
    assert_eq!(commit(&mount, &[&inner]), (Some(0), format!("committed {inner} into the job around it (0 changes)\n")));
    assert!(!mount.exists("b"));
    assert_eq!(commit(&mount, &[&held]).0, Some(0));
    mount.check();
    assert_eq!((commit(&mount, &[&inner]).0, mount.exists("b")), (Some(0), true));
}
