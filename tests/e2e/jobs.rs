//! What `specrun` promises.

use crate::harness::digest::exact;
use crate::harness::{Mount, SPECRUN, is_running, sh, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

#[test]
fn success_is_committed_at_once() {
    let mount = Mount::new();
    mount.write("a", "old");
    let output = mount.specrun(&[], "echo new > a; mkdir d; echo x > d/x");
    assert!(output.status.success());
    assert!(text(&output.stderr).starts_with("committed 3 changes in "), "{}", text(&output.stderr));
    assert_eq!((mount.read("a"), mount.read("d/x")), ("new\n".into(), "x\n".into()));
    mount.check();
    assert_eq!(mount.read("d/x"), "x\n");
}

#[test]
fn failure_never_happened() {
    let mount = Mount::new();
    mount.write("a", "old");
    fs::create_dir(mount.at("d")).expect("mkdir");
    mount.write("d/x", "x");
    let before = exact(&mount.path());
    let output = mount.specrun(&[], "echo new > a; rm -r d; ln -s a link; chmod 0 a; exit 2");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("rolled back") && text(&output.stderr).contains("(exit 2)"));
    assert_eq!(exact(&mount.path()), before);
    mount.check();
    assert_eq!(exact(&mount.path()), before);
}

#[test]
fn nobody_sees_what_is_undecided() {
    let mount = Mount::new();
    mount.write("a", "old");
    let script = "echo new > a; echo x > b; touch ../written; while [ ! -e ../go ]; do sleep 0.01; done";
    let mut job = mount.specrun_command(&[], script).spawn().expect("specrun runs");
    until("the job has written", || mount.beside("written").exists());
    assert_eq!(mount.read("a"), "old");
    assert!(!mount.exists("b"));
    assert_eq!(mount.status()[0]["state"], "running");
    fs::write(mount.beside("go"), "").expect("go");
    assert!(job.wait().expect("the job ends").success());
    assert_eq!((mount.read("a"), mount.read("b")), ("new\n".into(), "x\n".into()));
}

#[test]
fn exit_codes_are_the_commands_or_env_s() {
    let mount = Mount::new();
    let code = |words: &[&str]| {
        let output = Command::new(SPECRUN).args(words).current_dir(mount.path()).output().expect("specrun runs");
        output.status.code()
    };
    assert_eq!(code(&["--", "sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["--", "/no/such/command"]), Some(127));
    assert_eq!(code(&["--", "/etc/passwd"]), Some(126));
    assert_eq!(code(&["--no-such-option"]), Some(125));
    assert_eq!(code(&["--", "sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(code(&["--timeout", "0.2", "--", "sleep", "100"]), Some(124));
    let outside = Command::new(SPECRUN).args(["--", "true"]).current_dir("/").output().expect("specrun runs");
    assert_eq!(outside.status.code(), Some(125));
    assert!(text(&outside.stderr).contains("all of the host is too much"), "{}", text(&outside.stderr));
}

#[test]
fn chosen_codes_count_as_success() {
    let mount = Mount::new();
    let output = mount.specrun(&["--commit-on", "0,3"], "echo x > a; exit 3");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(mount.read("a"), "x\n");
    for impossible in ["256", "-1", "0,300"] {
        let output = mount.specrun(&[&format!("--commit-on={impossible}")], "true");
        assert_eq!(output.status.code(), Some(125), "{}", text(&output.stderr));
    }
}

#[test]
fn nothing_is_committed_unasked_where_there_is_no_terminal() {
    let mount = Mount::new();
    let mut alone = Command::new("setsid");
    alone.args(["-w", SPECRUN, "--ask", "--", "sh", "-c", "echo x > a"]).current_dir(mount.path());
    let output = alone.stdin(Stdio::null()).output().expect("setsid runs");
    assert!(output.status.success() && text(&output.stderr).contains("held as"), "{}", text(&output.stderr));
    assert_eq!((mount.exists("a"), &mount.status()[0]["state"]), (false, &serde_json::json!("held")));
}

#[test]
fn a_timeout_undoes() {
    let mount = Mount::new();
    assert_eq!(mount.specrun(&["--timeout", "0"], "echo x > kept").status.code(), Some(0), "0 is no limit");
    assert!(mount.exists("kept"));
    let output = mount.specrun(&["--timeout", "0.3"], "echo x > a; sleep 100");
    assert_eq!(output.status.code(), Some(124));
    assert!(!mount.exists("a"));
}

#[test]
fn what_a_job_leaves_running_is_ended() {
    let mount = Mount::new();
    let script = "setsid sh -c 'echo $$ > ../pid; while :; do echo x >> a; sleep 0.01; done' & \
                  while [ ! -s ../pid ]; do sleep 0.01; done";
    assert!(mount.specrun(&[], script).status.success());
    let pid = fs::read_to_string(mount.beside("pid")).expect("the daemon's pid");
    assert!(!is_running(Pid::from_raw(pid.trim().parse().expect("a pid"))));
}

#[test]
fn a_killed_specrun_undoes_and_its_job_ends() {
    let mount = Mount::new();
    mount.write("a", "old");
    let script = "echo $$ > ../pid; echo new > a; touch ../written; sleep 100";
    let mut job = mount.specrun_command(&[], script).stderr(Stdio::null()).spawn().expect("specrun runs");
    until("the job has written", || mount.beside("written").exists());
    job.kill().expect("kill specrun");
    assert_eq!(job.wait().expect("it is gone").signal(), Some(9));
    let pid = fs::read_to_string(mount.beside("pid")).expect("the job's pid");
    let pid = Pid::from_raw(pid.trim().parse().expect("a pid"));
    until("the job's processes are gone", || !is_running(pid));
    until("nothing is undecided", || mount.status().is_empty());
    assert_eq!(mount.read("a"), "old");
}

#[test]
fn signals_reach_the_command() {
    let mount = Mount::new();
    let script = "trap 'echo got > a; exit 0' USR1; touch ../ready; while :; do sleep 0.01; done";
    let mut job = mount.specrun_command(&[], script).spawn().expect("specrun runs");
    until("the trap is set", || mount.beside("ready").exists());
    kill(Pid::from_raw(job.id().cast_signed()), Signal::SIGUSR1).expect("signal");
    assert!(job.wait().expect("it ends").success());
    assert_eq!(mount.read("a"), "got\n");
}

#[test]
fn an_inner_commit_folds_into_the_outer_job() {
    let mount = Mount::new();
    let script = format!("echo outer > a; {SPECRUN} --quiet -- sh -c 'cat a > b; echo inner > c'; cat b c > d");
    assert!(mount.specrun(&[], &script).status.success());
    assert_eq!(mount.read("d"), "outer\ninner\n");
    mount.check();
    assert_eq!(mount.read("d"), "outer\ninner\n");
}

#[test]
fn the_outer_abort_undoes_both() {
    let mount = Mount::new();
    let before = exact(&mount.path());
    let script = format!("echo outer > a; {SPECRUN} --quiet -- sh -c 'echo inner > c'; cat c; exit 1");
    let output = mount.specrun(&[], &script);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), "inner\n".into()));
    assert_eq!(exact(&mount.path()), before);
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn an_inner_abort_leaves_the_outer_job() {
    let mount = Mount::new();
    let script = format!("echo outer > a; {SPECRUN} --quiet -- sh -c 'echo inner > a; rm -f a; exit 1'; cat a > b");
    assert!(mount.specrun(&[], &script).status.success());
    assert_eq!((mount.read("a"), mount.read("b")), ("outer\n".into(), "outer\n".into()));
}

#[test]
fn held_work_waits_for_a_decision() {
    let mount = Mount::new();
    mount.write("a", "old\n");
    fs::create_dir(mount.at("d")).expect("mkdir");
    let id = mount.held("echo new > a; echo x > b; rmdir d; echo x > d; chmod 755 d");
    assert_eq!(mount.read("a"), "old\n");
    let diff = mount.mojavefs(&["diff", &id]);
    assert_eq!(text(&diff.stdout), "M  a\nA  b\nM  d (directory -> file)\n");
    let patch = text(&mount.mojavefs(&["diff", &id, "--patch"]).stdout);
    assert!(patch.contains("-old\n+new\n"), "{patch}");
    let shell = mount.mojavefs(&["shell", &id, "--", "cat", "a"]);
    assert_eq!(text(&shell.stdout), "new\n");
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    assert_eq!(mount.read("a"), "new\n");
    assert!(mount.mojavefs(&["commit", &id]).status.success(), "the same decision again is harmless");
    let late = mount.mojavefs(&["abort", &id]);
    assert!(!late.status.success() && text(&late.stderr).contains("committed already"), "{}", text(&late.stderr));
}

#[test]
fn only_its_supervisor_commits_a_job_that_runs() {
    let mount = Mount::new();
    let job = mount.start("job", &[], "echo half > a");
    let id = job.spec().to_string();
    let output = mount.mojavefs(&["commit", &id]);
    assert!(!output.status.success() && text(&output.stderr).contains("still running"), "{}", text(&output.stderr));
    assert!(!mount.exists("a"));
    assert!(job.exit(0).status.success());
    assert_eq!(mount.read("a"), "half\n");
    mount.check();
}

#[test]
fn what_is_copied_counts_as_changed() {
    let mount = Mount::new();
    mount.write("a", &"x".repeat(100_000));
    let range =
        "import os; a, b = open('a'), open('b', 'w'); print(os.copy_file_range(a.fileno(), b.fileno(), 90_000))";
    mount.held(&format!("python3 -c \"{range}\""));
    assert_eq!(mount.status()[0]["bytes"], 90_000);
}

#[test]
fn keep_going_holds_a_failure() {
    let mount = Mount::new();
    let output = mount.specrun(&["--keep-going"], "echo x > a; exit 7");
    assert_eq!(output.status.code(), Some(7));
    let status = mount.status();
    assert_eq!((status.len(), &status[0]["state"]), (1, &serde_json::json!("held")));
    assert!(mount.mojavefs(&["abort", &status[0]["id"].to_string()]).status.success());
    assert!(mount.status().is_empty() && !mount.exists("a"));
}

#[test]
fn output_to_a_file_of_the_filesystem_is_undone_too() {
    let mount = Mount::new();
    mount.write("out", "before\n");
    let script = format!(
        "{SPECRUN} --quiet -- sh -c 'echo undone; exit 1' >> out || true; {SPECRUN} --quiet -- echo kept >> out"
    );
    crate::harness::sh(&mount.path(), &script);
    assert_eq!(mount.read("out"), "before\nkept\n");
}

#[test]
fn someone_else_s_abort_ends_a_running_job() {
    let mount = Mount::new();
    let mut job =
        mount.specrun_command(&[], "touch a ../written; sleep 100").stderr(Stdio::piped()).spawn().expect("runs");
    until("the job has written", || mount.beside("written").exists());
    let id = mount.status()[0]["id"].to_string();
    assert!(mount.mojavefs(&["abort", &id]).status.success());
    assert_eq!(job.wait().expect("it ends").code(), Some(75));
    assert!(!mount.exists("a"));
}

/// `specrun --ask` on a terminal of its own, which says `answer`.
fn ask(mount: &Mount, answer: &str) -> (String, i32) {
    let specrun = format!("{} --ask -- sh -c 'echo job > a; echo new > b'", crate::harness::SPECRUN);
    let mut script = std::process::Command::new("script")
        .args(["-qec", &specrun, "/dev/null"])
        .current_dir(mount.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("script runs");
    let said = format!("{answer}\n");
    std::io::Write::write_all(script.stdin.as_mut().expect("its input"), said.as_bytes()).expect("answer");
    let output = script.wait_with_output().expect("it ends");
    (text(&output.stdout), output.status.code().expect("a code"))
}

#[test]
fn asking_shows_what_changed_and_does_what_is_answered() {
    let mount = Mount::new();
    mount.write("a", "old\n");
    let (said, code) = ask(&mount, "a");
    assert!(said.contains("M  a") && said.contains("A  b") && said.contains("2 changes"), "{said}");
    assert_eq!((code, mount.read("a"), mount.exists("b")), (1, "old\n".into(), false), "{said}");
    let (said, _) = ask(&mount, "h");
    assert!(said.contains("held as"), "{said}");
    assert_eq!(mount.status().len(), 1);
    let id = mount.status()[0]["id"].to_string();
    assert!(mount.mojavefs(&["abort", &id]).status.success());
    let (said, code) = ask(&mount, "c");
    assert_eq!((code, mount.read("a"), mount.exists("b")), (0, "job\n".into(), true), "{said}");
}

/// Runs a command on a terminal of its own, and at the prompt sends a signal, or types a character.
const AT_THE_PROMPT: &str = "
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said = b''
while not said.endswith(b'[h]old? '):
    said += os.read(terminal, 1000)
if sys.argv[1].startswith('^'):
    os.write(terminal, bytes([ord(sys.argv[1][1]) - 64]))
else:
    os.kill(pid, int(sys.argv[1]))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

#[test]
fn a_signal_at_the_prompt_undoes_and_ends() {
    let mount = Mount::new();
    let signals = [("1", 1), ("2", 2), ("3", 3), ("15", 15), ("^C", 2), ("^\\", 3)];
    for (what, signal) in signals {
        let mut python = Command::new("python3");
        python.args(["-c", AT_THE_PROMPT, what, SPECRUN, "--ask", "--", "touch", "a"]).current_dir(mount.path());
        let output = python.output().expect("python3 runs");
        assert_eq!(text(&output.stdout), format!("{}\n", 128 + signal), "{what}: {}", text(&output.stderr));
        assert!(mount.status().is_empty() && !mount.exists("a"), "{what}");
    }
    mount.check();
}

#[test]
fn a_job_that_runs_out_of_memory_is_undone() {
    let mount = Mount::new();
    let script = "echo x > a; ulimit -v 200000; exec python3 -c 'x = bytearray(10**10)'";
    assert_eq!(mount.specrun(&[], script).status.code(), Some(1));
    assert!(!mount.exists("a"));
    mount.write("b", "still here");
}

fn bytes_of(dir: &std::path::Path) -> u64 {
    let said = crate::harness::run(dir, "du", &["-s", "--block-size=1", "."]);
    said.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("a number")
}

#[test]
fn gc_gives_back_what_an_undone_job_took() {
    let mount = Mount::new();
    let before = bytes_of(mount.store());
    assert_eq!(mount.specrun(&[], "head -c 100000000 /dev/urandom > big; exit 1").status.code(), Some(1));
    let output = mount.mojavefs(&["gc"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(bytes_of(mount.store()) < before + (10 << 20));
    mount.check();
}

/// A root that is no mount's: what `chroot` makes of a directory.
const CHANGED_ROOT: &str = "
    cp $SPECRUN root/specrun
    for name in bin dev etc lib lib64 proc run usr; do
        [ -d /$name ] && mkdir root/$name && mount --rbind /$name root/$name
    done
    mkdir root/mnt && mount --bind mnt root/mnt && mount --make-shared root/mnt
    chroot root sh -ec 'cd /mnt; /specrun --quiet -- cp a b; ! /specrun --quiet -- sh -c \"rm b; exit 1\"; cat b'
    umount -R root/mnt
";

#[test]
fn jobs_run_in_a_changed_root() {
    require_root!();
    let mount = Mount::new();
    mount.write("a", "x");
    fs::create_dir(mount.beside("root")).expect("a directory");
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "sh", "-ec", CHANGED_ROOT]).env("SPECRUN", SPECRUN).current_dir(mount.beside(""));
    let output = unshare.output().expect("unshare runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((text(&output.stdout).as_str(), mount.read("b").as_str()), ("x", "x"));
    mount.check();
}

#[test]
fn a_job_started_elsewhere_is_run_again_where_it_was_started() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let elsewhere = mount.beside("elsewhere");
    fs::create_dir(&elsewhere).expect("a directory of the host");
    let writer = mount.start("writer", &[], "echo new > data");
    let point = mount.path();
    let script =
        format!("cat {}/data; /bin/pwd >> log; : > ran; until [ -e go ]; do sleep 0.01; done", point.display());
    let mut command = Command::new(SPECRUN);
    command.arg("-m").arg(&point).args(["--from-start", "--", "sh", "-c", &script]).current_dir(&elsewhere);
    let job = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("specrun runs");
    until("it has read", || elsewhere.join("ran").exists());
    writer.exit(1);
    fs::write(elsewhere.join("go"), "").expect("go");
    let output = job.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line = format!("{}\n", elsewhere.canonicalize().expect("it is there").display());
    assert_eq!(fs::read_to_string(elsewhere.join("log")).expect("where it was"), line.repeat(2));
}

#[test]
fn who_waits_for_a_fifo_that_was_there_before_is_told_that_nobody_comes() {
    let mount = Mount::new();
    sh(&mount.path(), "mkfifo before");
    let said = mount.beside("said");
    // One of its own, which was not there before, is nobody else's business.
    let script = "mkfifo own; (echo x > own) & cd ..; echo job > mnt/before; cat mnt/own";
    let script = script.replace("mnt", &mount.path().file_name().expect("a name").to_string_lossy());
    let mut command = mount.specrun_command(&[], &script);
    let mut job = command.stderr(fs::File::create(&said).expect("a file")).spawn().expect("specrun runs");
    let words = || fs::read_to_string(&said).expect("what it said");
    until("it says so", || words().contains("before`, which was there before: a job does not reach"));
    kill(Pid::from_raw(job.id().cast_signed()), Signal::SIGTERM).expect("it is told to end");
    job.wait().expect("it ends");
    assert_eq!(words().matches("to open the fifo").count(), 1, "{}", words());
}

#[test]
fn what_is_held_is_counted_as_its_diff_shows_it() {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir d; for name in replaced again moved gone kept d/f; do echo old > $name; done");
    let script = "for i in 1 2 3; do echo $i > tmp; mv tmp new-$i; done; echo x > tmp; rm tmp; \
                  echo x > tmp; mv tmp replaced; rm again; echo x > again; mv moved elsewhere; rm gone; chmod 600 kept; \
                  mkdir tmp; rmdir tmp; mv d e; ln kept link; mv kept aside; mv aside kept";
    let held = mount.specrun(&["--hold"], script);
    let said = text(&held.stderr);
    let count = |said: &str| -> u64 {
        let before = said.split(" change").next().and_then(|said| said.rsplit(['(', ' ', '\n']).next());
        before.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count of changes: {said}"))
    };
    let shown = text(&mount.mojavefs(&["diff", "1"]).stdout).lines().count() as u64;
    assert_eq!(count(&said), shown, "{said}");
    assert_eq!(count(&text(&mount.mojavefs(&["diff", "1", "--stat"]).stdout)), shown);
    for again in [false, true] {
        if again {
            mount.umount();
            mount.mount();
        }
        assert_eq!(mount.status()[0]["changes"], shown, "mounted again: {again}");
    }
    // What is done in it afterwards counts, too.
    assert!(mount.mojavefs(&["shell", "1", "--", "sh", "-c", "echo x > later"]).status.success());
    assert_eq!(mount.status()[0]["changes"], shown + 1);
    let committed = mount.mojavefs(&["commit", "1"]);
    assert_eq!(count(&text(&committed.stdout)), shown + 1, "{committed:?}");
    let id = mount.held("echo x > tmp; rm tmp; echo y > one");
    let undone = mount.mojavefs(&["abort", &id]);
    assert_eq!(count(&text(&undone.stdout)), 1, "{undone:?}");
    mount.check();
}
