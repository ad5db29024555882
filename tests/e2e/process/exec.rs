//! Processes that run other programs.

use super::{specrun, succeeds};
use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{Mount, text, until};

const OPTIONS: [&[&str]; 2] = [&["--quiet"], &["--quiet", "--no-speculation"]];

#[test]
fn a_program_that_is_run_in_an_open_level_finds_the_filesystem_closed_and_the_level_is_undone() {
    // It waits until the level is undone, and then finds nothing that it could read or change.
    let script = "while cat inside; do sleep 0.01; done; cat before; ls; echo > after || echo closed";
    for options in OPTIONS {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "exec");
        let around = format!("{} open sh -c '{script}' 2>&1 && cat before && ls", program.display());
        let output = specrun(&mount, options, "sh".as_ref(), &["-c", &around]);
        succeeds(&output);
        let said = text(&output.stdout);
        assert!(said.contains("cat: before: Stale file handle\n"), "{said}");
        assert!(said.ends_with("closed\nbeforebefore\n"), "{said}");
        until("the level is undone", || mount.status().is_empty());
        assert_eq!(mount.read("before"), "before");
        assert!(!mount.exists("inside") && !mount.exists("after"));
        mount.check();
    }
}

#[test]
fn a_program_with_the_library_that_is_run_in_an_open_level_can_not_speculate() {
    for options in OPTIONS {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "exec");
        let myself = program.display().to_string();
        let wait = format!("while cat inside; do sleep 0.01; done; exec {myself} try");
        let output = specrun(&mount, options, &program, &["open", "sh", "-c", &wait]);
        assert!(text(&output.stdout).contains("-1 a view of its own: "), "{}", text(&output.stdout));
        assert!(!mount.exists("inside"));
        mount.check();
    }
}

#[test]
fn programs_that_are_run_when_all_is_decided_go_on_where_the_last_one_was() {
    for options in OPTIONS {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "exec");
        succeeds(&specrun(&mount, options, &program, &["decided", "5"]));
        assert_eq!(mount.read("kept"), "xxxxxx");
        assert!(!mount.exists("undone"));
        mount.check();
    }
}

#[test]
fn a_program_that_a_child_runs_is_part_of_the_level() {
    for options in OPTIONS {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "exec");
        succeeds(&specrun(&mount, options, &program, &["child"]));
        assert_eq!(
            (mount.read("mine"), mount.read("seen"), mount.read("children")),
            ("x".into(), "x".into(), "child\n".into())
        );
        mount.check();
    }
}
