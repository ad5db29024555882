//! Signals that were on their way at an entry are so again after an abort, as they were.

use crate::alone::{abort, alone, commit, enter, exit_code, for_everybody};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

fn set(signals: &[i32]) -> libc::sigset_t {
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    signals.iter().for_each(|signal| assert_eq!(unsafe { libc::sigaddset(&raw mut set, *signal) }, 0));
    set
}

fn block(how: i32, signals: &[i32]) {
    let set = set(signals);
    assert_eq!(unsafe { libc::sigprocmask(how, &raw const set, null_mut()) }, 0);
}

/// A signal that is on its way, and what it says: who sent it, and the value that came with it.
type Said = (i32, i32, i32, usize);

fn take(signals: &[i32]) -> Option<Said> {
    let set = set(signals);
    unsafe {
        let (mut info, now): (libc::siginfo_t, libc::timespec) = (std::mem::zeroed(), std::mem::zeroed());
        let signal = libc::sigtimedwait(&raw const set, &raw mut info, &raw const now);
        (signal > 0).then(|| (signal, info.si_code, info.si_pid(), info.si_value().sival_ptr as usize))
    }
}

fn take_all(signals: &[i32]) -> Vec<Said> {
    std::iter::from_fn(|| take(signals)).collect()
}

fn queue(signal: i32, value: usize) {
    let value = libc::sigval { sival_ptr: value as *mut _ };
    assert_eq!(unsafe { libc::sigqueue(libc::getpid(), signal, value) }, 0);
}

fn to_thread(signal: i32) {
    assert_eq!(unsafe { libc::raise(signal) }, 0);
}

fn to_process(signal: i32) {
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

/// What is on its way to the thread, and to the process.
fn on_their_way() -> (String, String) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    (of("SigPnd:"), of("ShdPnd:"))
}

#[test]
fn a_signal_that_was_taken_in_a_level_is_on_its_way_again() {
    for_everybody(|| {
        unsafe { libc::signal(libc::SIGUSR1, count as *const () as usize) };
        block(libc::SIG_BLOCK, &[libc::SIGUSR1]);
        for send in [to_process, to_thread] {
            for handled in [true, false] {
                send(libc::SIGUSR1);
                let before = on_their_way();
                if enter().is_none() {
                    match handled {
                        true => block(libc::SIG_UNBLOCK, &[libc::SIGUSR1]),
                        false => assert!(take(&[libc::SIGUSR1]).is_some()),
                    }
                    abort(1);
                }
                assert_eq!(on_their_way(), before);
                // Memory was put back, too.
                assert_eq!(HANDLED.load(Ordering::SeqCst), 0);
                assert_eq!(take_all(&[libc::SIGUSR1]).len(), 1);
            }
        }
    });
}

#[test]
fn queued_signals_are_in_their_order_again_with_what_they_say() {
    for_everybody(|| {
        let (first, second) = (libc::SIGRTMIN() + 1, libc::SIGRTMIN() + 5);
        let all = [first, second, libc::SIGUSR2];
        block(libc::SIG_BLOCK, &all);
        let send = || {
            (1..=5).for_each(|value| queue(first, value));
            to_thread(second);
            (7..=9).for_each(|value| queue(second, value));
            to_process(second);
            queue(libc::SIGUSR2, 77);
        };
        send();
        let expected = take_all(&all);
        assert_eq!(expected.len(), 11);
        send();
        let before = on_their_way();
        // Nobody takes any, some, all; then the process sends others, which it has not sent after all.
        for taken in [0, 3, 11] {
            if enter().is_none() {
                (0..taken).for_each(|_| assert!(take(&all).is_some()));
                queue(first, 100);
                to_process(second);
                if enter().is_none() {
                    take_all(&all);
                    queue(second, 200);
                    abort(2);
                }
                assert_eq!(take_all(&all).len(), 11 - taken + 2);
                abort(1);
            }
            assert_eq!(on_their_way(), before);
        }
        assert_eq!(enter(), None);
        commit();
        assert_eq!(take_all(&all), expected);
    });
}

#[test]
fn what_others_send_comes_behind_what_was_on_its_way() {
    alone(|| {
        let signal = libc::SIGRTMIN() + 2;
        block(libc::SIG_BLOCK, &[signal, libc::SIGUSR1]);
        let me = unsafe { libc::getpid() };
        let another_sends = |times: usize| {
            let sends = || unsafe { libc::kill(me, signal) };
            assert_eq!(exit_code(|| (0..times).map(|_| sends()).sum()), 0);
        };
        // Alike but for who has sent them.
        another_sends(2);
        to_process(libc::SIGUSR1);
        if enter().is_none() {
            assert!(take(&[signal]).is_some());
            assert!(take(&[libc::SIGUSR1]).is_some());
            let (me, user) = (me, libc::SIGUSR1);
            assert_eq!(exit_code(|| unsafe { libc::kill(me, user) }), 0);
            another_sends(3);
            abort(1);
        }
        assert_eq!(take_all(&[signal]).len(), 5);
        assert_eq!(take_all(&[libc::SIGUSR1]).len(), 1);
    });
}

#[test]
fn a_child_of_an_undone_level_is_not_told_of() {
    for_everybody(|| {
        block(libc::SIG_BLOCK, &[libc::SIGCHLD]);
        for ends_by_itself in [true, false] {
            if enter().is_none() {
                let child = unsafe { libc::fork() };
                if child == 0 {
                    if ends_by_itself {
                        unsafe { libc::_exit(0) };
                    }
                    loop {
                        unsafe { libc::pause() };
                    }
                }
                if ends_by_itself {
                    crate::alone::wait(child);
                }
                abort(1);
            }
            assert_eq!(take(&[libc::SIGCHLD]), None);
        }
        // One that was there before is.
        let earlier = unsafe { libc::fork() };
        if earlier == 0 {
            unsafe { libc::_exit(7) };
        }
        crate::alone::until(|| on_their_way().1 != "0000000000000000");
        if enter().is_none() {
            assert!(take(&[libc::SIGCHLD]).is_some());
            abort(1);
        }
        assert_eq!(take(&[libc::SIGCHLD]).map(|said| said.2), Some(earlier));
        assert_eq!(crate::alone::wait(earlier), 7);
    });
}

#[test]
fn more_signals_than_can_be_put_back_are_refused_and_stay() {
    alone(|| {
        let signal = libc::SIGRTMIN() + 3;
        block(libc::SIG_BLOCK, &[signal]);
        (0..300).for_each(|value| queue(signal, value));
        let refused = mojave::enter().expect_err("it is refused");
        assert!(refused.to_string().contains("256 signals"), "{refused}");
        let values: Vec<usize> = take_all(&[signal]).iter().map(|said| said.3).collect();
        assert_eq!(values, (0..300).collect::<Vec<_>>());
        assert_eq!(enter(), None);
        commit();
    });
}
