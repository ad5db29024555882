//! Nothing is left behind.

use crate::alone::{abort, alone, children, commit, enter, lives, pipe, read_some, until};
use std::io::Write;

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn fd_count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn after_100_000_commits_and_10_000_aborts_nothing_is_left() {
    alone(|| {
        let me = std::process::id() as i32;
        let mut bytes = vec![0u8; 20_000];
        let mut round = |commits: bool| {
            if enter().is_none() {
                bytes.fill(1);
                match commits {
                    true => commit(),
                    false => abort(1),
                }
            }
        };
        (0..10).for_each(|n| round(n % 2 == 0));
        let (fds, rss) = (fd_count(), rss_kib());
        (0..100_000).for_each(|_| round(true));
        (0..10_000).for_each(|_| round(false));
        assert_eq!(fd_count(), fds);
        assert!(rss_kib() < rss + 2048, "{} KiB before, {} after", rss, rss_kib());
        until(|| children(me).iter().all(|pid| !lives(*pid)));
        assert!(children(me).len() <= 16, "{} processes are not reaped", children(me).len());
    });
}

/// Starts a process that opens some levels and then does `last`; returns its checkpoints, once it has done so.
fn with_checkpoints(last: impl FnOnce()) -> Vec<i32> {
    let (said, say) = pipe();
    let child = unsafe { libc::fork() };
    if child == 0 {
        unsafe { libc::alarm(60) };
        assert!((0..5).all(|_| enter().is_none()));
        let all = children(std::process::id() as i32);
        let bytes: Vec<u8> = all.iter().flat_map(|pid| pid.to_le_bytes()).collect();
        (&say).write_all(&bytes).unwrap();
        last();
        unsafe { libc::_exit(0) };
    }
    let pids = read_some(&said);
    let pids = pids.chunks(4).map(|pid| i32::from_le_bytes(pid.try_into().unwrap())).collect();
    crate::alone::wait(child);
    pids
}

#[test]
fn no_checkpoint_outlives_an_exit_a_kill_or_an_exec() {
    let kill = || unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    };
    let exec = || unsafe {
        let program = [c"/bin/sleep".as_ptr(), c"0.2".as_ptr(), std::ptr::null()];
        libc::execv(program[0], program.as_ptr());
    };
    for checkpoints in [with_checkpoints(|| {}), with_checkpoints(kill), with_checkpoints(exec)] {
        assert_eq!(checkpoints.len(), 5);
        until(|| checkpoints.iter().all(|pid| !lives(*pid)));
    }
}

#[test]
fn an_exec_ends_the_checkpoints_while_the_program_runs() {
    let (said, say) = pipe();
    let child = unsafe { libc::fork() };
    if child == 0 {
        unsafe { libc::alarm(60) };
        assert_eq!(enter(), None);
        let all = children(std::process::id() as i32);
        (&say).write_all(&all[0].to_le_bytes()).unwrap();
        let program = [c"/bin/sleep".as_ptr(), c"60".as_ptr(), std::ptr::null()];
        unsafe { libc::execv(program[0], program.as_ptr()) };
    }
    let checkpoint = i32::from_le_bytes(read_some(&said).try_into().unwrap());
    until(|| !lives(checkpoint));
    assert!(lives(child));
    unsafe { libc::kill(child, libc::SIGKILL) };
    crate::alone::wait(child);
}

#[test]
fn a_process_whose_checkpoint_was_killed_ends_when_it_aborts() {
    let ended = crate::alone::exit_code(|| {
        if enter().is_none() {
            let checkpoint = children(std::process::id() as i32)[0];
            unsafe { libc::kill(checkpoint, libc::SIGKILL) };
            until(|| !lives(checkpoint));
            abort(1);
        }
        0
    });
    assert_eq!(ended, -libc::SIGABRT);
}
