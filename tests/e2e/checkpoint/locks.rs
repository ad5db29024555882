//! What a job has locked on the host while it has checkpoints, and who else may lock it.

use super::{Job, let_go, mounted};
use crate::harness::{Mount, SPECRUN, until};
use std::io::BufReader;
use std::process::{Command, Stdio};

fn is_free(mount: &Mount) -> bool {
    let status = Command::new("flock").args(["--nonblock", "lock", "true"]).current_dir(mount.beside("")).status();
    status.expect("flock runs").success()
}

#[test]
fn what_a_job_was_started_with_stays_locked_when_it_goes_back() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    let script = "open('data').read(); open('../fifo').read()";
    let mut flock = Command::new("flock");
    flock.args(["--no-fork", "../lock", SPECRUN, "--", "python3", "-c", script]).current_dir(mount.path());
    let mut child = flock.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("flock runs");
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut job = Job { child, stderr, said: String::new() };
    assert_eq!(job.joined(&mount, "data")["back_to"], "read");
    first.exit(1);
    job.until_said("going on from the read (1 of 3)");
    until("it is back", || job.dependency(&mount, "data").is_none());
    assert!(!is_free(&mount));
    let_go(&mount);
    let (code, said) = job.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(is_free(&mount));
}

#[test]
fn what_a_job_has_locked_since_is_free_when_its_command_has_ended() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    let script = "import fcntl
lock = open('../lock', 'w')
text = open('data').read()
fcntl.flock(lock, fcntl.LOCK_EX)
open('result', 'w').write(text)";
    let mut job = Job::python(&mount, &[], script);
    job.until_said("done; waits until");
    assert_eq!(job.joined(&mount, "data")["back_to"], "read");
    assert!(is_free(&mount));
    first.exit(1);
    let (code, said) = job.end();
    assert_eq!((code, mount.read("result")), (Some(0), "old\n".into()), "{said}");
    assert!(said.contains("going on from the read (1 of 3)"), "{said}");
    mount.check();
}
