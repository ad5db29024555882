//! Runs a piece of a test in a process of its own with one thread.

use std::io::Read;
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How long such a process may take, in seconds.
const LIMIT: u32 = 120;

/// Runs `work` in a child with one thread; the test fails if it panics, dies or takes too long.
pub(crate) fn alone(work: impl FnOnce()) {
    let code = exit_code(|| {
        work();
        0
    });
    assert_eq!(code, 0, "the process of the test failed; it says above why");
}

/// The same as root, who is told more by the kernel, and as an ordinary user.
pub(crate) fn for_everybody(work: impl Fn()) {
    alone(&work);
    alone(|| {
        become_nobody();
        work();
    });
}

/// Goes on as an ordinary user.
pub(crate) fn become_nobody() {
    if unsafe { libc::geteuid() } == 0 {
        assert_eq!(unsafe { libc::setresgid(65534, 65534, 65534) }, 0);
        assert_eq!(unsafe { libc::setresuid(65534, 65534, 65534) }, 0);
        // Who changes its user may not be looked into any more, its checkpoints neither.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) }, 0);
    }
}

/// Runs `work` in a child with one thread and returns its exit code, or -N if signal N ended it.
pub(crate) fn exit_code(work: impl FnOnce() -> i32) -> i32 {
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork");
    if child == 0 {
        unsafe { libc::alarm(LIMIT) };
        let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(101);
        unsafe { libc::_exit(code) };
    }
    wait(child)
}

pub(crate) fn wait(child: i32) -> i32 {
    let mut status = 0;
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

/// Enters a speculation; the code if it was aborted.
pub(crate) fn enter() -> Option<i32> {
    match mojave::enter().expect("enter") {
        mojave::Branch::Commit(_) => None,
        mojave::Branch::Abort(code) => Some(code.get()),
    }
}

pub(crate) fn code(code: i32) -> mojave::Code {
    mojave::Code::new(code).unwrap()
}

/// Aborts the innermost speculation.
pub(crate) fn abort(with: i32) -> ! {
    panic!("{}", mojave::abort(mojave::current().unwrap(), code(with)))
}

pub(crate) fn commit() {
    mojave::commit(mojave::current().unwrap()).unwrap();
}

/// Whether a process is there and not a zombie.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next()).is_some_and(|state| !"ZX".contains(state))
}

/// All children of a process, checkpoints included.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A pipe: what is written to it stays written.
pub(crate) fn pipe() -> (std::fs::File, std::fs::File) {
    let mut ends = [0; 2];
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    unsafe { (std::fs::File::from_raw_fd(ends[0]), std::fs::File::from_raw_fd(ends[1])) }
}

pub(crate) fn read_some(mut file: &std::fs::File) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    let got = file.read(&mut bytes).unwrap();
    bytes.truncate(got);
    bytes
}

/// Waits until something holds; the test's own limit ends it if it never does.
pub(crate) fn until(holds: impl Fn() -> bool) {
    while !holds() {
        std::thread::yield_now();
    }
}
