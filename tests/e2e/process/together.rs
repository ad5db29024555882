//! Processes that own a speculation together, in Rust and in Python.

use crate::harness::programs::{EXAMPLES, SUBJECTS, compiled, with_python_package};
use crate::harness::{Mount, SPECRUN, project, text};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// One of them.
struct Owner {
    specrun: Child,
    said: BufReader<ChildStdout>,
    token: String,
}

impl Owner {
    fn start(mount: &Mount, language: &str, words: &[&str]) -> Self {
        let mut specrun = Command::new(SPECRUN);
        specrun.args(["--no-speculation", "--"]);
        match language {
            "python" => specrun.arg("python3").arg(project(EXAMPLES).join("together.py")),
            _ => specrun.arg(Path::new(SPECRUN).with_file_name("examples").join("together")),
        };
        with_python_package(&mut specrun)
            .args(words)
            .current_dir(mount.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut specrun = specrun.spawn().expect("specrun runs");
        let mut said = BufReader::new(specrun.stdout.take().expect("its output"));
        let mut token = String::new();
        said.read_line(&mut token).expect("text");
        Owner { specrun, said, token: token.trim().to_owned() }
    }

    fn told(&mut self, word: &str) {
        writeln!(self.specrun.stdin.take().expect("its input"), "{word}").expect("it listens");
    }

    fn end(mut self) -> (String, Option<i32>) {
        let mut said = String::new();
        self.said.read_line(&mut said).expect("text");
        (said.trim().to_owned(), self.specrun.wait().expect("it ends").code())
    }
}

#[test]
fn what_two_own_is_final_with_both_or_undone_with_one() {
    let mount = Mount::new();
    for (first, second) in [("rust", "python"), ("python", "rust")] {
        let pair = || {
            let one = Owner::start(&mount, first, &["a", "one"]);
            let other = Owner::start(&mount, second, &["b", "other", &one.token]);
            (one, other)
        };
        let (mut one, mut other) = pair();
        one.told("commit");
        other.told("abort");
        let (said, code) = other.end();
        assert!(said.starts_with("undone, code 1") && code == Some(1), "{said}");
        assert_eq!(said.contains("told to abort"), second == "python", "{said}");
        let (said, code) = one.end();
        assert!(said.starts_with("undone, code 255") && code == Some(1), "{said}");
        assert_eq!(said.contains("somebody else has undone it"), first == "python", "{said}");
        assert!(!mount.exists("a") && !mount.exists("b"));
        let (mut one, mut other) = pair();
        one.told("commit");
        assert!(!mount.exists("a"));
        other.told("commit");
        assert_eq!([one.end(), other.end()], [("final".to_owned(), Some(0)), ("final".to_owned(), Some(0))]);
        assert_eq!((mount.read("a"), mount.read("b")), ("one".into(), "other".into()));
        mount.check();
        std::fs::remove_file(mount.at("a")).expect("remove");
        std::fs::remove_file(mount.at("b")).expect("remove");
    }
}

/// Where it makes no sense: outside of `specrun`, outside of levels, in a job.
const REFUSED: &str = r#"
import errno, mojave, os, sys
def refused(call):
    try: call()
    except OSError as error: return error.errno, str(error)
job = "MOJAVEFS_SPEC" in os.environ
files = "MOJAVEFS_MOUNTPOINT" in os.environ
assert refused(mojave.share)[0] == errno.ENOTSUP
assert refused(lambda: mojave.own("nonsense"))[0] == errno.EINVAL
assert (refused(mojave.barrier) or [0])[0] == (errno.EDEADLK if job else 0)
own = refused(lambda: mojave.own("mojave:999999"))
assert own[0] == (errno.EIO if files else errno.ENOTSUP), own
print(own[1])
with mojave.speculation():
    assert "no token" in refused(lambda: mojave.own("nonsense"))[1]
    assert refused(mojave.barrier)[0] == errno.EDEADLK
    assert (refused(mojave.share) or [0])[0] == (0 if files else errno.ENOTSUP)
"#;

#[test]
fn sharing_and_barriers_are_refused_where_they_mean_nothing() {
    let mount = Mount::new();
    let python = ["python3", "-c", REFUSED];
    for command in [&[][..], &[SPECRUN, "--no-speculation", "--"], &[SPECRUN, "--quiet", "--"]] {
        let words = [command, &python].concat();
        let mut program = Command::new(words[0]);
        program.args(&words[1..]).current_dir(mount.path());
        let output = with_python_package(&mut program).output().expect("it runs");
        assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
        let why = if command.is_empty() { "only a process in a job of specrun" } else { "999999" };
        assert!(text(&output.stdout).contains(why), "{command:?}: {}", text(&output.stdout));
    }
    mount.check();
}

#[test]
fn a_process_of_a_job_reads_what_another_job_has_undecided_after_its_levels() {
    // Only root's jobs go back to a read.
    require_root!();
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    let first = mount.start("first", &[], "printf undecided > shared");
    let script = format!("{} look", program.display());
    let second = mount.start("second", &[], &script);
    let status = mount.status();
    let joined = status.iter().find(|s| s["id"] == second.spec()).expect("it is undecided")["depends_on"][0].clone();
    assert_eq!((&joined["id"], &joined["back_to"]), (&first.spec().into(), &"start".into()), "{joined}");
    let why_not = joined["why_not_to_the_read"].as_str().unwrap_or_default();
    assert!(why_not.contains("speculates by itself"), "{joined}");
    second.let_exit(0);
    assert!(first.exit(0).status.success());
    let output = second.wait();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(mount.read("seen"), "undecided");
    mount.check();
}
