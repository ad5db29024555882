//! What can't be undone is refused by name.

use crate::alone::{alone, become_nobody, commit, enter};
use std::net::{TcpListener, TcpStream};

fn refused() -> String {
    mojave::enter().expect_err("the entry is refused").to_string()
}

fn possible() {
    assert_eq!(enter(), None);
    commit();
}

#[test]
fn a_second_thread() {
    alone(|| {
        let (stop, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || wait.recv());
        assert!(refused().contains("2 threads"), "{}", refused());
        stop.send(()).unwrap();
        thread.join().unwrap().unwrap();
        // The kernel forgets a joined thread a moment later.
        crate::alone::until(|| std::fs::read_dir("/proc/self/task").unwrap().count() == 1);
        possible();
    });
}

#[test]
fn a_process_that_nobody_may_look_into() {
    alone(|| {
        become_nobody();
        possible();
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
        assert!(refused().contains("PR_SET_DUMPABLE"), "{}", refused());
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
        possible();
    });
}

#[test]
fn a_connected_tcp_socket() {
    alone(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        possible();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let why = refused();
        assert!(why.contains("a connected TCP socket") && why.contains("descriptor"), "{why}");
        drop(stream);
        possible();
    });
}

#[test]
fn a_connected_unix_socket() {
    alone(|| {
        let pair = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(refused().contains("a connected Unix socket"));
        drop(pair);
        possible();
    });
}

#[test]
fn kernel_objects_whose_state_is_shared() {
    alone(|| {
        for (make, name) in [
            (unsafe { libc::epoll_create1(0) }, "eventpoll"),
            (unsafe { libc::eventfd(0, 0) }, "eventfd"),
            (unsafe { libc::inotify_init() }, "inotify"),
            (unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) }, "timerfd"),
        ] {
            let why = refused();
            assert!(!why.is_empty());
            unsafe { libc::close(make) };
            std::hint::black_box(name);
        }
        possible();
        let epoll = unsafe { libc::epoll_create1(0) };
        let why = refused();
        assert!(why.contains("eventpoll") && why.contains(&epoll.to_string()), "{why}");
    });
}

#[test]
fn memory_that_a_checkpoint_would_not_hold() {
    alone(|| {
        let map = |flags: i32| {
            let prot = libc::PROT_READ | libc::PROT_WRITE;
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, prot, flags | libc::MAP_ANONYMOUS, -1, 0) }
        };
        possible();
        let shared = map(libc::MAP_SHARED);
        assert!(refused().contains("MAP_SHARED"));
        unsafe { libc::munmap(shared, 4096) };
        possible();
        for (advice, back, name) in [
            (libc::MADV_DONTFORK, libc::MADV_DOFORK, "MADV_DONTFORK"),
            (libc::MADV_WIPEONFORK, libc::MADV_KEEPONFORK, "MADV_WIPEONFORK"),
        ] {
            let memory = map(libc::MAP_PRIVATE);
            assert_eq!(unsafe { libc::madvise(memory, 4096, advice) }, 0);
            assert!(refused().contains(name), "{}", refused());
            assert_eq!(unsafe { libc::madvise(memory, 4096, back) }, 0);
            possible();
        }
    });
}

#[test]
fn a_posix_timer() {
    alone(|| unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_NONE;
        let mut timer = std::mem::zeroed();
        assert_eq!(libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer), 0);
        assert!(refused().contains("POSIX timer"));
        libc::timer_delete(timer);
        possible();
    });
}

#[test]
fn what_can_not_be_put_back_ends_the_process() {
    let ended = crate::alone::exit_code(|| {
        if enter().is_none() {
            std::thread::spawn(|| {
                loop {
                    std::thread::park();
                }
            });
            crate::alone::abort(1);
        }
        0
    });
    assert_eq!(ended, -libc::SIGABRT);
}

#[test]
fn more_descriptors_than_can_be_put_back() {
    alone(|| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        let open = || std::fs::File::open("/dev/null").unwrap();
        let listed = || std::fs::read_dir("/proc/self/fd").unwrap().count() - 1;
        let mut all: Vec<std::fs::File> = (listed()..1024).map(|_| open()).collect();
        // The library's own do not count.
        possible();
        possible();
        all.push(open());
        assert!(refused().starts_with("1025 descriptors"), "{}", refused());
        all.pop();
        possible();
    });
}
