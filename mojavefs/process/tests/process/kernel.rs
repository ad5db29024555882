//! What the kernel keeps of a process is as it was.

use crate::alone::{abort, alone, children, enter, lives, pipe, read_some};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;

fn open_fds() -> Vec<String> {
    let dir = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut fds: Vec<String> = dir
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some(format!("{} {}", entry.file_name().display(), target.display()))
        })
        .filter(|line| !line.contains("/proc/"))
        .collect();
    fds.sort();
    fds
}

#[test]
fn descriptors_offsets_and_flags_are_as_they_were() {
    let (one, two) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    std::fs::write(one.path(), b"0123456789").unwrap();
    alone(|| {
        let mut read = File::open(one.path()).unwrap();
        read.seek(std::io::SeekFrom::Start(3)).unwrap();
        let (closed, replaced) = (File::open(one.path()).unwrap(), File::open(one.path()).unwrap());
        // The library's own descriptors are there from the first entry on.
        assert_eq!(enter(), None);
        crate::alone::commit();
        let before = open_fds();
        if enter().is_none() {
            read.read_exact(&mut [0; 4]).unwrap();
            unsafe { libc::close(closed.as_raw_fd()) };
            let new = File::open(two.path()).unwrap();
            unsafe { libc::dup2(new.as_raw_fd(), replaced.as_raw_fd()) };
            unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETFD, 0) };
            unsafe { libc::fcntl(read.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
            std::mem::forget(new);
            abort(1);
        }
        assert_eq!(open_fds(), before);
        let mut rest = String::new();
        read.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "3456789");
        assert_eq!(unsafe { libc::fcntl(read.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
        assert_eq!(unsafe { libc::fcntl(read.as_raw_fd(), libc::F_GETFL) } & libc::O_NONBLOCK, 0);
        assert_eq!(unsafe { libc::fcntl(closed.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
    });
}

#[test]
fn locks_taken_since_are_released_and_released_ones_are_held() {
    let (taken, held) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    alone(|| {
        let (a, b) = (File::open(taken.path()).unwrap(), File::options().write(true).open(held.path()).unwrap());
        let lock = |kind: i32| libc::flock { l_type: kind as i16, l_whence: 0, l_start: 10, l_len: 5, l_pid: 0 };
        let set = |file: &File, kind: i32| {
            let lock = lock(kind);
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) }
        };
        assert_eq!(set(&b, libc::F_WRLCK), 0);
        if enter().is_none() {
            assert_eq!(unsafe { libc::flock(a.as_raw_fd(), libc::LOCK_EX) }, 0);
            assert_eq!(set(&b, libc::F_UNLCK), 0);
            abort(1);
        }
        let others = crate::alone::exit_code(|| {
            let again = File::open(taken.path()).unwrap();
            let free = unsafe { libc::flock(again.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            let again = File::options().write(true).open(held.path()).unwrap();
            i32::from(free != 0) + 2 * i32::from(set(&again, libc::F_WRLCK) == 0)
        });
        assert_eq!(others, 0, "1: flock is still held, 2: the fcntl lock is lost");
    });
}

extern "C" fn nothing(_: i32) {}

#[test]
fn signals_directory_umask_and_timers_are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    alone(|| unsafe {
        libc::signal(libc::SIGUSR1, nothing as *const () as usize);
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut mask, libc::SIGUSR2);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        libc::umask(0o027);
        std::env::set_current_dir(dir.path()).unwrap();
        let hour = libc::itimerval {
            it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
            it_value: libc::timeval { tv_sec: 3600, tv_usec: 0 },
        };
        libc::setitimer(libc::ITIMER_VIRTUAL, &raw const hour, std::ptr::null_mut());
        if enter().is_none() {
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            libc::signal(libc::SIGTERM, nothing as *const () as usize);
            libc::sigemptyset(&raw mut mask);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
            libc::umask(0);
            std::env::set_current_dir("/").unwrap();
            let none: libc::itimerval = std::mem::zeroed();
            libc::setitimer(libc::ITIMER_VIRTUAL, &raw const none, std::ptr::null_mut());
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_NONE;
            let mut timer = std::mem::zeroed();
            assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0);
            abort(1);
        }
        let action = |signal| {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(signal, std::ptr::null(), &raw mut action);
            action.sa_sigaction
        };
        assert_eq!(action(libc::SIGUSR1), nothing as *const () as usize);
        assert_eq!(action(libc::SIGTERM), libc::SIG_DFL);
        let mut now: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, std::ptr::null(), &raw mut now);
        assert_eq!(libc::sigismember(&raw const now, libc::SIGUSR2), 1);
        assert_eq!(libc::sigismember(&raw const now, libc::SIGTERM), 0);
        assert_eq!(libc::umask(0), 0o027);
        assert_eq!(std::env::current_dir().unwrap(), dir.path().canonicalize().unwrap());
        let mut timer: libc::itimerval = std::mem::zeroed();
        libc::getitimer(libc::ITIMER_VIRTUAL, &raw mut timer);
        assert!(timer.it_value.tv_sec > 3000);
        // The POSIX timer is gone: another entry is not refused.
        assert_eq!(enter(), None);
        crate::alone::commit();
    });
}

#[test]
fn what_signals_do_is_as_it_was_with_flags_and_masks() {
    alone(|| unsafe {
        let action = |signal: i32| {
            let mut action: libc::sigaction = std::mem::zeroed();
            assert_eq!(libc::sigaction(signal, std::ptr::null(), &raw mut action), 0);
            let blocked = (1..=64).filter(|other| libc::sigismember(&raw const action.sa_mask, *other) == 1);
            (action.sa_sigaction, action.sa_flags, blocked.collect::<Vec<i32>>())
        };
        let set = |signal: i32, handler: usize, flags: i32, blocks: i32| {
            let mut action: libc::sigaction = std::mem::zeroed();
            (action.sa_sigaction, action.sa_flags) = (handler, flags);
            libc::sigaddset(&raw mut action.sa_mask, blocks);
            assert_eq!(libc::sigaction(signal, &raw const action, std::ptr::null_mut()), 0);
        };
        let (queued, last, handler) = (libc::SIGRTMIN() + 3, libc::SIGRTMAX(), nothing as *const () as usize);
        set(libc::SIGHUP, handler, libc::SA_RESTART, libc::SIGUSR1);
        set(last, handler, libc::SA_NODEFER, queued);
        set(libc::SIGCHLD, libc::SIG_DFL, libc::SA_NOCLDWAIT, libc::SIGUSR1);
        set(libc::SIGQUIT, libc::SIG_IGN, 0, libc::SIGUSR1);
        let all = [libc::SIGHUP, last, libc::SIGCHLD, libc::SIGQUIT, queued, libc::SIGUSR2];
        let before = all.map(action);
        if enter().is_none() {
            set(libc::SIGHUP, handler, 0, libc::SIGUSR2);
            set(last, libc::SIG_DFL, 0, libc::SIGUSR2);
            set(libc::SIGCHLD, libc::SIG_DFL, 0, libc::SIGUSR2);
            set(libc::SIGQUIT, libc::SIG_DFL, 0, libc::SIGUSR2);
            set(queued, handler, 0, libc::SIGUSR1);
            set(libc::SIGUSR2, libc::SIG_IGN, 0, libc::SIGUSR1);
            abort(1);
        }
        assert_eq!(all.map(action), before);
    });
}

#[test]
fn signals_that_were_raised_since_do_not_come_and_those_of_others_do() {
    alone(|| unsafe {
        let block = |signals: &[i32]| {
            let mut mask: libc::sigset_t = std::mem::zeroed();
            signals.iter().for_each(|signal| assert_eq!(libc::sigaddset(&raw mut mask, *signal), 0));
            libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        };
        let is_pending = |signal: i32| {
            let mut now: libc::sigset_t = std::mem::zeroed();
            libc::sigpending(&raw mut now);
            libc::sigismember(&raw const now, signal) == 1
        };
        let (before, others) = (libc::SIGUSR2, [libc::SIGTERM, libc::SIGRTMIN() + 1]);
        block(&[before, others[0], others[1]]);
        libc::raise(before);
        if enter().is_none() {
            block(&[before, others[0], others[1], libc::SIGUSR1, libc::SIGALRM]);
            libc::raise(libc::SIGUSR1);
            libc::raise(others[1]);
            let (me, [ordinary, queued]) = (libc::getpid(), others);
            let sent = crate::alone::exit_code(|| libc::kill(me, ordinary) + libc::kill(me, queued));
            assert_eq!(sent, 0);
            libc::raise(others[1]);
            let soon = libc::timeval { tv_sec: 0, tv_usec: 100 };
            let timer = libc::itimerval { it_interval: soon, it_value: soon };
            libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
            crate::alone::until(|| is_pending(libc::SIGALRM));
            abort(1);
        }
        assert!(is_pending(before) && others.iter().all(|signal| is_pending(*signal)));
        assert!(!is_pending(libc::SIGUSR1) && !is_pending(libc::SIGALRM));
        let mut queued: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut queued, others[1]);
        let none: libc::timespec = std::mem::zeroed();
        let mut info: libc::siginfo_t = std::mem::zeroed();
        assert_eq!(libc::sigtimedwait(&raw const queued, &raw mut info, &raw const none), others[1]);
        assert!(info.si_pid() != libc::getpid() && info.si_code == libc::SI_USER);
        assert_eq!(libc::sigtimedwait(&raw const queued, &raw mut info, &raw const none), -1);
    });
}

#[test]
fn a_timer_that_expires_during_the_abort_does_not_ring() {
    alone(|| unsafe {
        for tries in 0..200 {
            if enter().is_none() {
                libc::signal(libc::SIGALRM, nothing as *const () as usize);
                let timer = libc::itimerval {
                    it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
                    it_value: libc::timeval { tv_sec: 0, tv_usec: 10 * (1 + tries) },
                };
                libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
                abort(1);
            }
        }
    });
}

#[test]
fn limits_priority_name_and_group_are_as_they_were() {
    alone(|| unsafe {
        let name = || {
            let mut name = [0u8; 16];
            libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
            name
        };
        let limit = |which| {
            let mut limit: libc::rlimit = std::mem::zeroed();
            assert_eq!(libc::getrlimit(which, &raw mut limit), 0);
            (limit.rlim_cur, limit.rlim_max)
        };
        let state = || {
            let limits = [limit(libc::RLIMIT_NOFILE), limit(libc::RLIMIT_STACK)];
            (limits, libc::getpriority(libc::PRIO_PROCESS, 0), name(), libc::getpgid(0))
        };
        libc::prctl(libc::PR_SET_NAME, c"fifteen letters".as_ptr());
        let before = state();
        if enter().is_none() {
            let few = libc::rlimit { rlim_cur: 64, rlim_max: before.0[0].1 };
            assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few), 0);
            let few = libc::rlimit { rlim_cur: 1 << 20, rlim_max: before.0[1].1 };
            assert_eq!(libc::setrlimit(libc::RLIMIT_STACK, &raw const few), 0);
            if libc::geteuid() == 0 {
                assert_eq!(libc::setpriority(libc::PRIO_PROCESS, 0, before.1 + 3), 0);
            }
            libc::prctl(libc::PR_SET_NAME, c"another".as_ptr());
            assert_eq!(libc::setpgid(0, 0), 0);
            abort(1);
        }
        assert_eq!(state(), before);
    });
}

#[test]
fn a_session_of_its_own_ends_the_process_at_the_abort() {
    let code = crate::alone::exit_code(|| {
        if enter().is_none() {
            assert!(unsafe { libc::setsid() } > 0);
            abort(1);
        }
        0
    });
    assert_eq!(code, -libc::SIGABRT);
}

#[test]
fn children_started_since_are_ended_and_earlier_ones_are_not() {
    alone(|| {
        let sleeper = || match unsafe { libc::fork() } {
            0 => loop {
                unsafe { libc::pause() };
            },
            child => child,
        };
        let earlier = sleeper();
        let (said, say) = pipe();
        if enter().is_none() {
            let child = sleeper();
            let parent = unsafe { libc::fork() };
            if parent == 0 {
                let grandchild = sleeper();
                (&say).write_all(&grandchild.to_le_bytes()).unwrap();
                loop {
                    unsafe { libc::pause() };
                }
            }
            let grandchild = read_some(&said);
            (&say).write_all(&[&child.to_le_bytes()[..], &parent.to_le_bytes(), &grandchild].concat()).unwrap();
            abort(1);
        }
        for pid in read_some(&said).chunks(4) {
            let pid = i32::from_le_bytes(pid.try_into().unwrap());
            assert!(!lives(pid), "process {pid} is still there");
        }
        assert!(lives(earlier));
        // The checkpoint is told to end, and not waited for.
        crate::alone::until(|| children(std::process::id() as i32).iter().filter(|pid| lives(**pid)).count() == 1);
        unsafe { libc::kill(earlier, libc::SIGKILL) };
        assert_eq!(crate::alone::wait(earlier), -libc::SIGKILL);
    });
}

#[test]
fn the_pid_is_the_same_on_both_branches() {
    alone(|| {
        let pid = std::process::id();
        if enter().is_none() {
            assert_eq!(std::process::id(), pid);
            abort(1);
        }
        assert_eq!(std::process::id(), pid);
    });
}

#[test]
fn a_leader_of_a_process_group_and_an_ordinary_user_can_speculate() {
    alone(|| {
        assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
        assert_eq!(unsafe { libc::setgid(65_534) + libc::setuid(65_534) }, 0);
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        let mut value = vec![1u8; 10_000];
        for _ in 0..10 {
            if enter().is_none() {
                value.fill(2);
                abort(3);
            }
            assert!(value.iter().all(|byte| *byte == 1));
        }
    });
}
