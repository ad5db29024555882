//! Programs that are linked with libmojave: their files roll back with their memory.

mod daemon;
mod exec;
mod leaks;
mod levels;
mod random;
mod together;
mod unanswered;
mod votes;
pub(crate) mod waiter;

use crate::harness::programs::{EXAMPLES, SUBJECTS, compiled, compiled_with_it_inside, with_python_package};
use crate::harness::{Mount, SPECRUN, text, until};
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Output};

fn specrun(mount: &Mount, options: &[&str], program: &Path, words: &[&str]) -> Output {
    let mut specrun = Command::new(SPECRUN);
    specrun.args(options).arg("--").arg(program).args(words).current_dir(mount.path());
    specrun.output().expect("specrun runs")
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn files_roll_back_with_the_process_in_a_job() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    succeeds(&specrun(&mount, &[], &program, &["all"]));
    assert_eq!(mount.read("a"), "kept");
    assert!(mount.read("m").starts_with("kept\0"));
    mount.check();
    assert_eq!(mount.read("a"), "kept");
}

#[test]
fn files_roll_back_with_the_process_without_a_job_around_it() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    succeeds(&specrun(&mount, &["--no-speculation"], &program, &["all"]));
    assert_eq!(mount.read("a"), "kept");
    mount.check();
}

#[test]
fn a_rolled_back_job_undoes_what_its_processes_committed() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    let script = format!("{} all && exit 1", program.display());
    let output = specrun(&mount, &[], Path::new("sh"), &["-c", &script]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(mount.path()).expect("list").count(), 0);
    mount.check();
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    require_root!();
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    // The programs must be where that user can run them.
    let library = Path::new(SPECRUN).with_file_name("libmojave.so");
    fs::copy(library, mount.beside("libmojave.so")).expect("copy");
    fs::copy(SPECRUN, mount.beside("specrun")).expect("copy");
    for options in [&[][..], &["--no-speculation"]] {
        let mut specrun = Command::new(mount.beside("specrun"));
        specrun.env("LD_LIBRARY_PATH", mount.beside(""));
        specrun.args(options).arg("--").arg(&program).arg("all").current_dir(mount.path());
        succeeds(&specrun.uid(65_534).gid(65_534).output().expect("specrun runs"));
        assert_eq!(mount.read("a"), "kept");
    }
    mount.check();
}

#[test]
fn a_process_that_dies_in_a_level_has_undone_it() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    let script = format!("{} die; cat before; ls", program.display());
    let output = specrun(&mount, &["--quiet"], Path::new("sh"), &["-c", &script]);
    assert_eq!(text(&output.stdout), "1before\n", "{}", text(&output.stderr));
    let output = specrun(&mount, &["--no-speculation"], &program, &["die"]);
    assert_eq!(output.status.code(), Some(128 + 9), "{:?}", output.status.signal());
    until("its level is undone", || mount.status().is_empty());
    assert_eq!(mount.read("before"), "1");
    assert!(!mount.exists("inside"));
    mount.check();
}

#[test]
fn a_level_in_conflict_is_rolled_back() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    mount.write("shared", "old");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(["--no-speculation", "--"]).arg(&program).arg("wait").current_dir(mount.path());
    let mut process = specrun.spawn().expect("specrun runs");
    until("it has written", || mount.beside("told").exists());
    assert_eq!(mount.read("shared"), "old");
    assert_eq!(mount.status().len(), 1);
    mount.write("shared", "trunk");
    fs::write(mount.beside("go"), "").expect("go");
    assert_eq!(process.wait().expect("it ends").code(), Some(254));
    assert_eq!(mount.read("shared"), "trunk");
    assert!(!mount.exists("other"));
    mount.check();
}

#[test]
fn a_level_that_somebody_aborts_is_rolled_back_at_once() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(["--no-speculation", "--"]).arg(&program).arg("wait").current_dir(mount.path());
    let mut process = specrun.spawn().expect("specrun runs");
    until("it has written", || mount.beside("told").exists());
    let id = mount.status()[0]["id"].to_string();
    succeeds(&mount.mojavefs(&["abort", &id]));
    assert_eq!(process.wait().expect("it ends").code(), Some(255));
    assert!(!mount.exists("shared"));
    mount.check();
}

/// What `files.c` does by the name of `what` succeeds in a job, and without a speculation around it.
fn succeeds_in_both(what: &str) {
    for options in [&[][..], &["--no-speculation"]] {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "files");
        succeeds(&specrun(&mount, options, &program, &[what]));
        mount.check();
    }
}

#[test]
fn levels_nest_deeper_than_jobs_do() {
    succeeds_in_both("deep");
}

#[test]
fn what_was_mapped_is_mapped_again_whatever_it_is_called() {
    // Only root maps again what was renamed.
    require_root!();
    succeeds_in_both("mapped");
}

#[test]
fn a_first_level_is_refused_while_a_file_is_locked() {
    // Only root maps again what was renamed.
    require_root!();
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    for options in [&[][..], &["--no-speculation"]] {
        succeeds(&specrun(&mount, options, &program, &["locks"]));
        // What another has locked and passed on it keeps.
        let script = format!(
            "exec 9> held; flock 9; {} mapped; code=$?; flock -n held true && exit 8; exit $code",
            program.display()
        );
        succeeds(&specrun(&mount, options, Path::new("sh"), &["-c", &script]));
    }
    mount.check();
}

#[test]
fn what_a_level_started_and_left_behind_is_over_when_the_level_is_undone() {
    succeeds_in_both("orphans");
}

#[test]
fn levels_of_several_processes_over_one_file_fall_with_each_other_and_none_ends() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    mount.write("shared", "0\n");
    let count = |seed: usize| {
        let output = specrun(&mount, &["--no-speculation"], &program, &["count", &seed.to_string()]);
        succeeds(&output);
        text(&output.stdout).trim().parse::<u32>().expect("a number")
    };
    let kept: u32 = std::thread::scope(|scope| {
        let counting: Vec<_> = (1..5)
            .map(|seed| {
                scope.spawn({
                    let count = &count;
                    move || count(seed)
                })
            })
            .collect();
        counting.into_iter().map(|counting| counting.join().expect("it ends")).sum()
    });
    let shared: u32 = mount.read("shared").trim().parse().expect("a number");
    assert!(0 < shared && shared <= kept);
    mount.check();
}

#[test]
fn a_job_that_reads_a_level_falls_with_it() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    mount.write("shared", "old");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(["--no-speculation", "--"]).arg(&program).arg("wait").current_dir(mount.path());
    let mut process = specrun.spawn().expect("specrun runs");
    until("it has written", || mount.beside("told").exists());
    let reader = mount.specrun_command(&[], "cat shared > seen; touch ../seen").spawn().expect("specrun runs");
    until("it was read", || mount.beside("seen").exists());
    let id = mount.status()[0]["id"].to_string();
    succeeds(&mount.mojavefs(&["abort", &id]));
    assert_eq!(process.wait().expect("it ends").code(), Some(255));
    succeeds(&reader.wait_with_output().expect("it ends"));
    assert_eq!(mount.read("seen"), "old");
    mount.check();
}

#[test]
fn a_job_that_reads_what_its_own_process_then_aborts_is_run_again() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    // The first time the shell reads what the level has changed.
    let script = format!(
        "echo run >> ../runs; rm -f ../told ../go; {} abort & \
         until [ -e ../told ]; do sleep 0.01; done; \
         [ $(wc -l < ../runs) -gt 1 ] || cat shared; touch ../go; wait $!; ls > listing",
        program.display()
    );
    let output = specrun(&mount, &[], "sh".as_ref(), &["-c", &script]);
    succeeds(&output);
    assert!(text(&output.stdout).starts_with("speculative"), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("it had read `shared`"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(mount.beside("runs")).expect("its runs"), "run\nrun\n");
    assert_eq!(mount.read("listing"), "listing\n");
    mount.check();
}

#[test]
fn a_transfer_that_fails_anywhere_never_happened() {
    let mount = Mount::new();
    let program = compiled(&mount, EXAMPLES, "transfer");
    mount.write("a", "100\n");
    mount.write("b", "50\n");
    for step in ["1", "2", "3", "4"] {
        let output = specrun(&mount, &["--no-speculation"], &program, &["a", "b", "30", step]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stdout).ends_with("nothing was transferred; steps taken: 0\n"));
        assert_eq!((mount.read("a"), mount.read("b")), ("100\n".into(), "50\n".into()));
    }
    succeeds(&specrun(&mount, &[], &program, &["a", "b", "30"]));
    assert_eq!((mount.read("a"), mount.read("b")), ("70\n".into(), "80\n".into()));
    mount.check();
}

#[test]
fn a_transfer_in_rust_that_fails_never_happened() {
    let mount = Mount::new();
    let program = Path::new(SPECRUN).with_file_name("examples").join("transfer");
    mount.write("a", "100\n");
    mount.write("b", "50\n");
    mount.write("odd", "fifty\n");
    // Too little money, which is found when both accounts are written; and an account that can't be read.
    for (to, amount, code) in [("b", "101", "2"), ("odd", "30", "1")] {
        let output = specrun(&mount, &["--no-speculation"], &program, &["a", to, amount]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let said = format!("nothing was transferred: the speculation was aborted with code {code}\n");
        assert_eq!(text(&output.stdout), said);
        let accounts = (mount.read("a"), mount.read("b"), mount.read("odd"));
        assert_eq!(accounts, ("100\n".into(), "50\n".into(), "fifty\n".into()));
    }
    let output = specrun(&mount, &[], &program, &["a", "b", "30"]);
    assert_eq!(text(&output.stdout), "transferred 30; 70 left\n", "{}", text(&output.stderr));
    assert_eq!((mount.read("a"), mount.read("b")), ("70\n".into(), "80\n".into()));
    mount.check();
}

#[test]
fn a_search_finds_its_way_by_failing() {
    let mount = Mount::new();
    let program = compiled(&mount, EXAMPLES, "search");
    succeeds(&specrun(&mount, &[], &program, &["board"]));
    let board = mount.read("board");
    let columns: Vec<usize> = board.lines().map(|line| line.find('Q').expect("a queen")).collect();
    assert_eq!(columns, [0, 4, 7, 5, 2, 6, 1, 3], "the first solution in order, and nothing of what was tried");
    assert_eq!(specrun(&mount, &[], &program, &["none", "3"]).status.code(), Some(1));
    assert!(!mount.exists("none"));
    mount.check();
}

const RULES: &str = "\
app 1: main lib
    cat main lib > app
main 4:
    echo dear >> tried; echo main from source > main
main 2: cache
    cat cache/main > main
cache 1:
    mkdir cache; echo main from the cache > cache/main
lib 1: app
    echo a ring > lib
lib 1: cache
    echo started > lib; cp cache/lib lib
lib 3:
    echo lib from source > lib
";

#[test]
fn a_search_for_the_cheapest_way_leaves_only_that() {
    let mount = Mount::new();
    let program = Path::new(SPECRUN).with_file_name("examples").join("cheapest");
    mount.write("rules", RULES);
    let output = specrun(&mount, &[], &program, &["rules", "app"]);
    assert_eq!(text(&output.stdout), "made app for 7\n", "{}", text(&output.stderr));
    assert_eq!(mount.read("app"), "main from the cache\nlib from source\n");
    assert_eq!(mount.read("cache/main"), "main from the cache\n");
    assert!(!mount.exists("tried"), "a dearer way has left something");
    let output = specrun(&mount, &[], &program, &["rules", "nothing"]);
    assert_eq!(text(&output.stderr).lines().next(), Some("cheapest: there is no way to make nothing"));
    mount.check();
}

#[test]
fn a_grid_computation_survives_the_death_of_one_of_its_processes_to_the_last_bit() {
    let mount = Mount::new();
    let program = compiled(&mount, EXAMPLES, "grid");
    let rows = |dir: &str, kill: &[&str]| {
        fs::create_dir(mount.at(dir)).expect("mkdir");
        let mut specrun = Command::new(SPECRUN);
        specrun.args(["--no-speculation", "--"]).arg(&program).args(["4", "60"]).args(kill);
        succeeds(&specrun.current_dir(mount.at(dir)).output().expect("specrun runs"));
        let part = |n: usize| fs::read(mount.at(format!("{dir}/rows-{n}"))).expect("its rows");
        (0..4).flat_map(part).collect::<Vec<u8>>()
    };
    let undisturbed = rows("undisturbed", &[]);
    for step in ["5", "35", "59"] {
        assert!(rows(step, &[step]) == undisturbed, "killed in step {step}, the result differs");
    }
    until("nothing is left undecided", || mount.status().is_empty());
    mount.check();
}

#[test]
fn a_speculation_of_two_owners_needs_both() {
    for (decision, codes) in [(&[][..], (0, 0)), (&["7"], (255, 7))] {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "files");
        let mut specrun_share = Command::new(SPECRUN);
        specrun_share.args(["--no-speculation", "--"]).arg(&program).arg("share").current_dir(mount.path());
        let mut first = specrun_share.spawn().expect("specrun runs");
        until("it has shared", || mount.beside("token").exists());
        let words = [&["own"], decision].concat();
        let second = specrun(&mount, &["--no-speculation"], &program, &words);
        let codes_seen = (first.wait().expect("it ends").code(), second.status.code());
        assert_eq!(codes_seen, (Some(codes.0), Some(codes.1)), "{}", text(&second.stderr));
        let committed = codes.0 == 0;
        assert_eq!((mount.exists("shared"), mount.exists("own")), (committed, committed));
        mount.check();
    }
}

const PYTHON: &str = r#"
import mojave, os
state = {"n": 1, "list": [1, 2, 3]}
try:
    with mojave.speculation():
        state["n"] = 2
        state["list"].extend(range(10000))
        open("gone", "w").write("x")
        raise ValueError("no")
except mojave.Aborted as aborted:
    assert aborted.code == 1 and aborted.words == "ValueError: no", aborted
try:
    with mojave.speculation() as level:
        level.abort(7, "ä" * 300)
except mojave.Aborted as aborted:
    assert aborted.code == 7 and aborted.words.startswith("ä" * 250) and len(aborted.words) < 300, aborted
try:
    with mojave.speculation() as level:
        mojave.abort(8)
except mojave.Aborted as aborted:
    assert (aborted.code, aborted.words) == (8, "")
assert state == {"n": 1, "list": [1, 2, 3]} and not os.path.exists("gone")
with mojave.speculation() as level:
    if mojave.code() < 3:
        level.retry(mojave.code() + 1)
    open("kept", "w").write(str(mojave.code()))
assert mojave.depth() == 0 and mojave.outcome(level.number) is True
"#;

fn specrun_python(mount: &Mount, script: &str) -> Output {
    let mut specrun = Command::new(SPECRUN);
    specrun.args(["--", "python3", "-c", script]).current_dir(mount.path());
    with_python_package(&mut specrun).output().expect("specrun runs")
}

const MAPPED: &str = r#"
import mmap, mojave
file = open("mapped", "w+b")
file.truncate(4096)
mapped = mmap.mmap(file.fileno(), 4096)
try:
    mojave.speculate()
    raise SystemExit("not refused")
except mojave.Refused as refused:
    assert "after the first speculation" in str(refused), refused
mapped.close()
with mojave.speculation(): pass
# From `file` too: it was opened again in the view.
mapped = mmap.mmap(file.fileno(), 4096)
for round in range(3):
    try:
        with mojave.speculation() as level:
            mapped[0] = 7
            level.abort()
    except mojave.Aborted: assert mapped[0] == 0
with mojave.speculation(): mapped[0] = 9
"#;

const ABORTED: &str = r#"
import mojave, os, time
def until(name):
    while not os.path.exists(name): time.sleep(0.005)
try:
    with mojave.speculation() as level:
        open("file", "w").write("undone")
        open("../entered", "w").close()
        until("../waited")
        level.abort()
except mojave.Aborted: pass
until("../through")
"#;

#[test]
fn a_barrier_waits_for_no_level_that_is_undone_though_its_process_goes_on() {
    let mount = Mount::new();
    mount.write("file", "old");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(["--", "python3", "-c", ABORTED]).current_dir(mount.path());
    let mut job = with_python_package(&mut specrun).spawn().expect("specrun runs");
    until("it is in a level", || mount.beside("entered").exists());
    let mut barrier = Command::new(crate::harness::MOJAVEFS);
    let mut barrier = barrier.args(["barrier", "file"]).current_dir(mount.path()).spawn().expect("it runs");
    let [sleeps_in, io] = ["wchan", "io"].map(|file| format!("/proc/{}/{file}", barrier.id()));
    // It asks for who has the file first: that was answered long since if it has read nothing for many looks.
    let (before, looks) = (Cell::new(String::new()), Cell::new(0));
    until("it waits", || {
        let waits = fs::read_to_string(&sleeps_in).is_ok_and(|place| place.contains("unix_stream"));
        let read = fs::read_to_string(&io).unwrap_or_default();
        looks.set(if before.replace(read.clone()) == read && waits { looks.get() + 1 } else { 0 });
        looks.get() > 50
    });
    fs::write(mount.beside("waited"), "").expect("a sign");
    assert_eq!(barrier.wait().expect("it ends").code(), Some(75));
    fs::write(mount.beside("through"), "").expect("a sign");
    assert!(job.wait().expect("it ends").success());
    mount.check();
}

#[test]
fn files_are_mapped_shared_after_the_first_speculation() {
    let mount = Mount::new();
    succeeds(&specrun_python(&mount, MAPPED));
    assert!(mount.read("mapped").starts_with("\t\0"));
    mount.check();
}

#[test]
fn a_python_program_goes_back() {
    let mount = Mount::new();
    succeeds(&specrun_python(&mount, PYTHON));
    assert_eq!(mount.read("kept"), "3");
    assert!(!mount.exists("gone"));
    mount.check();
}

#[test]
fn the_primitives_of_the_paper_work_outside_of_any_job_and_linked_statically() {
    let mount = Mount::new();
    for compiled in [compiled, compiled_with_it_inside] {
        let program = compiled(&mount, SUBJECTS, "mcc");
        assert!(Command::new(&program).status().expect("it runs").success());
    }
}

const REMOVED: &str = r#"
import os, mojave
file = open("removed", "w+")
file.write("x"); file.flush()
os.remove("removed")
try:
    with mojave.speculation() as level:
        open("b", "w").write("x")
        level.abort()
except mojave.Aborted: assert not os.path.exists("b")
with mojave.speculation(): open("a", "w").write("x")
file.seek(0)
assert file.read() == "x"
"#;

#[test]
fn a_file_that_was_removed_and_is_still_open_keeps_nobody_from_speculating() {
    let mount = Mount::new();
    succeeds(&specrun_python(&mount, REMOVED));
    assert_eq!((mount.read("a"), mount.exists("b"), mount.exists("removed")), ("x".into(), false, false));
    mount.check();
}

const REFUSED: &str = r#"
import os, mojave
def refused():
    event = os.eventfd(0)
    try:
        mojave.speculate()
        raise SystemExit("not refused")
    except mojave.Refused as refused:
        assert "eventfd" in str(refused), refused
    os.close(event)
refused()
with mojave.speculation():
    open("a", "w").write("x")
    refused()
    try:
        with mojave.speculation() as level:
            open("b", "w").write("x")
            level.abort()
    except mojave.Aborted: pass
    assert mojave.depth() == 1
"#;

/// What is refused after the filesystem was told of the level.
#[test]
fn a_level_that_is_refused_leaves_nothing_undecided() {
    let mount = Mount::new();
    succeeds(&specrun_python(&mount, REFUSED));
    assert_eq!((mount.read("a"), mount.exists("b")), ("x".into(), false));
    mount.check();
}
