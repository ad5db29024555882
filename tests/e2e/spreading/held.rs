//! Held work that depends on other held work: what is shown of it, and what decides it.

use crate::harness::{Mount, SPECRUN, sh, text};

fn state_of(mount: &Mount, id: &str) -> Option<String> {
    let found = mount.status().into_iter().find(|status| status["id"].as_u64() == id.parse().ok());
    found.and_then(|status| Some(status["state"].as_str()?.to_owned()))
}

#[test]
fn those_that_depend_on_each_other_show_what_their_commit_will_change() {
    let mount = Mount::new();
    mount.write("f", "0\n");
    let one = mount.held("echo one > f; echo 1 > g");
    let two = mount.held("echo two >> f; rm g");
    let patch = |id: &str| {
        let output = mount.mojavefs(&["diff", id, "--patch"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        (text(&output.stdout), text(&output.stderr))
    };
    let (shown, said) = patch(&one);
    assert!(shown.contains("-0\n+one\n") && !shown.contains("two") && shown.contains("A  g"), "{shown}");
    assert_eq!(said, "");
    assert!(patch(&two).0.contains(" one\n+two\n"), "{}", patch(&two).0);
    let depends = |id: &str| {
        mount.status().iter().any(|s| s["id"].as_u64() == id.parse().ok() && s["depends_on"][0]["id"].is_u64())
    };
    assert!(!depends(&one), "a diff is no look at others' work");

    assert_eq!(text(&mount.mojavefs(&["shell", &one, "--", "cat", "f"]).stdout), "one\ntwo\n");
    assert!(depends(&one) && depends(&two));
    for (id, other) in [(&one, &two), (&two, &one)] {
        let (shown, said) = patch(id);
        assert!(shown.contains("-0\n+one\n+two\n") && !shown.contains("g\n"), "{shown}");
        assert!(said.contains(&format!("{id} and {other} depend on each other")), "{said}");
    }
    mount.mojavefs(&["commit", &two]);
    assert!(patch(&one).0.contains("-0\n+one\n+two\n"), "{}", patch(&one).0);
    assert!(mount.mojavefs(&["commit", &one]).status.success());
    assert_eq!((mount.read("f"), mount.exists("g")), ("one\ntwo\n".into(), false));
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn a_patch_has_what_lies_below_a_directory_that_was_renamed() {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir d");
    mount.write("d/e", "old\n");
    mount.write("d/f", "old\n");
    let patch = |id: &str| {
        let output = mount.mojavefs(&["diff", id, "--patch"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let is_there = |patch: &str, name: &str| {
        patch.contains(&format!("--- a/d/{name}\n+++ b/d2/{name}\n@@ -1 +1,2 @@\n old\n+new\n"))
    };
    let alone = mount.held("mv d d2; echo new >> d2/e; (cat d2/f; echo new) > d2/g; mv d2/g d2/f");
    assert!(["e", "f"].iter().all(|name| is_there(&patch(&alone), name)), "{}", patch(&alone));
    assert!(mount.mojavefs(&["abort", &alone]).status.success());

    let writes = mount.held("echo new >> d/e; echo 1 > x");
    let moves = mount.held("cat x; mv d d2; echo 2 > z");
    assert!(mount.mojavefs(&["shell", &writes, "--", "cat", "z"]).status.success());
    assert!(is_there(&patch(&writes), "e"), "{}", patch(&writes));
    assert!(patch(&moves).contains("R  d/ -> d2/"), "{}", patch(&moves));
    mount.mojavefs(&["commit", &writes]);
    assert!(mount.mojavefs(&["commit", &moves]).status.success());
    assert_eq!(mount.read("d2/e"), "old\nnew\n");
    mount.check();
}

#[test]
fn what_is_decided_and_waits_is_shown_the_same_after_a_remount() {
    for abort in [false, true] {
        let mount = Mount::new();
        let first = mount.held("echo x > x");
        let second = mount.held("cat x; echo y > y");
        let decided = mount.mojavefs(&["commit", &second]);
        let before = mount.status();
        assert_eq!((state_of(&mount, &first), state_of(&mount, &second)), (Some("held".into()), Some("voted".into())));
        mount.umount();
        mount.mount();
        let seen = |status: &[serde_json::Value]| {
            let row = |s: &serde_json::Value| (s["id"].clone(), s["state"].clone(), s["depends_on"][0]["id"].clone());
            status.iter().map(row).collect::<Vec<_>>()
        };
        assert_eq!(seen(&mount.status()), seen(&before));
        let again = mount.mojavefs(&["commit", &second]);
        assert_eq!((again.status.code(), text(&again.stdout)), (decided.status.code(), text(&decided.stdout)));
        let verb = if abort { "abort" } else { "commit" };
        if abort {
            let output = mount.mojavefs(&["abort", &second]);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        assert!(mount.mojavefs(&[verb, &first]).status.success());
        assert_eq!((mount.exists("x"), mount.exists("y")), (!abort, !abort));
        assert!(mount.status().is_empty());
        mount.check();
    }
}

#[test]
fn nobody_waits_for_a_path_that_is_not_there() {
    let mount = Mount::new();
    for (path, missing) in [("none", "none"), ("none/below", "none/below")] {
        let output = mount.mojavefs(&["barrier", path]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains(&format!("there is no `{missing}`")), "{}", text(&output.stderr));
    }
    for verb in ["why", "diff", "commit", "abort"] {
        let output = mount.mojavefs(&[verb, "999"]);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("there is no undecided speculation 999"), "{verb}: {said}");
    }
}

#[test]
fn held_work_in_held_work_that_it_has_become_part_of_is_there_after_a_remount_and_a_crash() {
    for (inner, dies) in [("echo new > inner", false), ("echo new > inner", true), ("true", false), ("true", true)] {
        let mount = Mount::new();
        let hold = format!("{SPECRUN} --hold --quiet -- sh -c '{inner}'; echo new > outer");
        let outer = mount.held(&hold);
        let all = mount.status();
        let is_inner = |status: &&serde_json::Value| status["id"].as_u64() != outer.parse().ok();
        let inner_id = all.iter().find(is_inner).expect("the inner one is held")["id"].to_string();
        assert!(mount.mojavefs(&["commit", &inner_id]).status.success());
        match dies {
            true => mount.crash(),
            false => mount.umount(),
        }
        mount.fsck();
        mount.mount();
        let all = mount.status();
        assert_eq!(all.len(), 1, "{all:?}");
        assert_eq!((all[0]["id"].to_string(), &all[0]["state"]), (outer.clone(), &"held".into()));
        let committed = mount.mojavefs(&["commit", &outer]);
        assert!(committed.status.success(), "{}", text(&committed.stderr));
        assert_eq!((mount.exists("inner"), mount.exists("outer")), (inner != "true", true));
        mount.check();
        assert!(mount.status().is_empty());
    }
}
