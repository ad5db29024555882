//! Processes that run other programs.

use super::{specrun, specrun_python, succeeds};
use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{Mount, sh, text, until};
use std::fs;

const OPTIONS: [&[&str]; 2] = [&["--quiet"], &["--quiet", "--no-speculation"]];

/// What a shell says in which a program runs another one with a level open, that command's status last.
fn with_a_level_open(mount: &Mount, options: &[&str], words: &[&str]) -> String {
    let program = compiled(mount, SUBJECTS, "exec").display().to_string();
    let around = ["-c", r#""$@"; echo "$?""#, "sh", &program, "open"];
    let output = specrun(mount, options, "sh".as_ref(), &[&around, words].concat());
    succeeds(&output);
    text(&output.stdout)
}

#[test]
fn a_program_that_is_run_in_an_open_level_is_part_of_it_and_undone_with_it() {
    let script = "cat before inside; echo after > after; ls; exit 7";
    for options in OPTIONS {
        let mount = Mount::new();
        let said = with_a_level_open(&mount, options, &["sh", "-c", script]);
        assert_eq!(said, "beforeinsideafter\nbefore\ninside\n7\n");
        until("the level is undone", || mount.status().is_empty());
        assert_eq!(mount.read("before"), "before");
        assert!(!mount.exists("inside") && !mount.exists("after"));
        mount.check();
    }
}

#[test]
fn a_program_in_an_open_level_that_read_what_is_undone_is_run_again() {
    let script = "cat data inside; echo read >> ../log; cat ../fifo";
    for options in OPTIONS {
        let mount = Mount::new();
        mount.write("data", "old\n");
        sh(&mount.beside(""), "mkfifo fifo");
        let held = mount.held("echo new > data");
        let runs = || fs::read_to_string(mount.beside("log")).unwrap_or_default().lines().count();
        std::thread::scope(|scope| {
            let said = scope.spawn(|| with_a_level_open(&mount, options, &["sh", "-c", script]));
            until("it has read", || runs() == 1);
            succeeds(&mount.mojavefs(&["abort", &held]));
            until("it is run again", || runs() == 2);
            fs::write(mount.beside("fifo"), "done\n").expect("the fifo");
            assert_eq!(said.join().expect("it ends"), "new\ninsideold\ninsidedone\n0\n");
        });
        assert_eq!(runs(), 2);
        mount.check();
    }
}

#[test]
fn who_signals_the_process_signals_the_program_that_it_runs() {
    let signalled = "trap 'echo signalled; exit 3' TERM; kill -TERM $PPID; while :; do sleep 0.01; done";
    let stopped =
        "(until grep -q '^State:.T' /proc/$PPID/status; do :; done; kill -CONT $PPID) & kill -STOP $$; echo on";
    for options in OPTIONS {
        let mount = Mount::new();
        assert_eq!(with_a_level_open(&mount, options, &["sh", "-c", signalled]), "signalled\n3\n");
        assert_eq!(with_a_level_open(&mount, options, &["sh", "-c", "kill -TERM $$"]), "143\n");
        assert_eq!(with_a_level_open(&mount, options, &["sh", "-c", "kill -KILL $PPID; sleep 1000"]), "137\n");
        assert_eq!(with_a_level_open(&mount, options, &["sh", "-c", stopped]), "on\n0\n");
        mount.check();
    }
}

#[test]
fn a_program_is_waited_for_whatever_was_done_about_children_before() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "exec");
    for how in ["by default", "handled", "ignored", "not waited for"] {
        let run = |program_run: &[&str]| {
            let words = [&["reaping", how], program_run].concat();
            let output = specrun(&mount, &["--quiet", "--no-speculation"], &program, &words);
            assert_eq!(text(&output.stderr), "", "{how}");
            (output.status.code(), text(&output.stdout))
        };
        assert_eq!(run(&["sh", "-c", "exit 7"]), (Some(7), String::new()), "{how}");
        // The 17th bit of what is ignored is that of SIGCHLD: the program finds it as it was.
        let ignored = run(&["grep", "SigIgn", "/proc/self/status"]).1;
        let digit = ignored.trim().chars().rev().nth(4).and_then(|digit| digit.to_digit(16));
        assert_eq!(digit.map(|digit| digit & 1), Some(u32::from(how == "ignored")), "{how}: {ignored}");
        let aborted = "trap 'echo told; exit 4' ABRT; kill -ABRT $PPID; while :; do sleep 0.01; done";
        assert_eq!(run(&["sh", "-c", aborted]), (Some(4), "told\n".to_owned()), "{how}");
    }
    mount.check();
}

/// Runs a command in a shell at a terminal, stops it by ^Z and has it go on.
const AT_A_TERMINAL: &str = r#"
import os, pty, select, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvpe('bash', ['bash', '--norc', '-i'], dict(os.environ, PS1='$ ', TERM='dumb'))
shown = ''
def until(text):
    global shown
    while text not in shown:
        if not select.select([terminal], [], [], 30)[0]:
            os.kill(pid, 9)
            sys.exit(f'no {text!r} in {shown!r}')
        shown += os.read(terminal, 65536).decode()
    shown = shown[shown.index(text) + len(text):]
def enter(line): os.write(terminal, line.encode() + b'\n')
until('$ ')
enter(sys.argv[1])
until('ready')
os.write(terminal, b'\x1a')
until('Stopped')
enter('fg')
enter('hello')
until('got hello')
enter('echo ended $?')
until('ended 5')
os.kill(pid, 9)
"#;

#[test]
fn a_program_that_is_stopped_from_the_terminal_stops_what_stands_for_it() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "exec").display().to_string();
    let run = r#"sh -c 'echo rea''dy; read word; echo "got $word"; exit 5'"#;
    let line = format!("{} --quiet --no-speculation -- {program} open {run}", crate::harness::SPECRUN);
    let mut python = std::process::Command::new("python3");
    succeeds(&python.args(["-c", AT_A_TERMINAL, &line]).current_dir(mount.path()).output().expect("python"));
    mount.check();
}

#[test]
fn a_program_with_the_library_that_is_run_in_an_open_level_speculates_inside_of_it() {
    for options in OPTIONS {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "exec");
        let output = specrun(&mount, options, &program, &["open", &program.display().to_string(), "try"]);
        assert_eq!(text(&output.stdout), "0 \n");
        assert!(!mount.exists("inside"));
        mount.check();
    }
}

#[test]
fn a_program_is_run_by_each_name_that_the_c_library_has_for_it() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "exec");
    for form in ["execv", "execve", "execvp", "execvpe", "fexecve", "execveat", "execl", "execlp", "execle"] {
        let output = specrun(&mount, &["--quiet"], &program, &["form", form]);
        assert_eq!(text(&output.stdout), format!("{form} 1 2 3 4 5 6 7 so\n"));
    }
    mount.check();
}

const PYTHON: &str = "
import mojave
mojave.speculate()
open('inside', 'w').write('inside')
try:
    mojave.execvp('there-is-no-such-program', ['none'])
except FileNotFoundError:
    mojave.execvp('sh', ['sh', '-c', 'cat inside; exit $1', 'sh', '7'])
";

#[test]
fn a_python_program_runs_another_in_an_open_level() {
    let mount = Mount::new();
    let output = specrun_python(&mount, PYTHON);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(7), "inside".to_owned()),
        "{}",
        text(&output.stderr)
    );
    assert!(!mount.exists("inside"));
    mount.check();
}

#[test]
fn what_can_not_be_run_leaves_the_level_open() {
    for options in OPTIONS {
        let mount = Mount::new();
        let output = specrun(&mount, options, &compiled(&mount, SUBJECTS, "exec"), &["missing"]);
        assert_eq!(text(&output.stdout), "a script of the shell: word\n", "{}", text(&output.stderr));
        assert_eq!(mount.read("inside"), "inside");
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
