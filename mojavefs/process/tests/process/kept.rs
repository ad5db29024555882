//! Files of `/proc` that the library keeps open are nobody else's, and a program that closes them loses nothing.

use crate::alone::{abort, alone, become_nobody, commit, enter, exit_code, until};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd};

/// The descriptors that are open on something that `is` so.
fn open_on(is: impl Fn(&str) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let those = entries.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| is(&to.to_string_lossy())));
    those.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// Those that the library keeps: a program of these tests has none on `/proc` but the one that lists them.
fn kept() -> Vec<i32> {
    open_on(|to| to.starts_with("/proc/")).into_iter().filter(|fd| *fd >= 100).collect()
}

/// Enters, changes something, aborts: it is as it was.
fn goes_back() {
    let mut memory = vec![1u8; 100_000];
    if enter().is_none() {
        std::hint::black_box(&mut memory).fill(2);
        abort(1);
    }
    assert!(std::hint::black_box(&memory).iter().all(|byte| *byte == 1));
}

#[test]
fn what_a_program_opens_at_their_numbers_is_the_programs() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"0123456789").unwrap();
    alone(|| {
        goes_back();
        let numbers = kept();
        assert!(numbers.len() > 3, "{numbers:?}");
        let mut own: Vec<File> = Vec::new();
        for number in &numbers {
            let one = File::open(file.path()).unwrap();
            assert_eq!(unsafe { libc::dup2(one.as_raw_fd(), *number) }, *number);
            own.push(unsafe { File::from_raw_fd(*number) });
        }
        let seek = |own: &mut Vec<File>, to| {
            own.iter_mut().for_each(|one| assert_eq!(one.seek(SeekFrom::Start(to)).unwrap(), to))
        };
        seek(&mut own, 3);
        if enter().is_none() {
            seek(&mut own, 7);
            unsafe { libc::close(numbers[0]) };
            abort(1);
        }
        assert_eq!(
            own.iter_mut().map(|one| one.stream_position().unwrap()).collect::<Vec<_>>(),
            vec![3; numbers.len()]
        );
        assert!(kept().len() > 3 && kept().iter().all(|number| !numbers.contains(number)));
    });
}

#[test]
fn closed_inside_of_a_level_they_are_opened_again() {
    alone(|| {
        goes_back();
        if enter().is_none() {
            kept().into_iter().for_each(|number| drop(unsafe { File::from_raw_fd(number) }));
            abort(1);
        }
        goes_back();
        let numbers = kept();
        kept().into_iter().for_each(|number| drop(unsafe { File::from_raw_fd(number) }));
        assert_eq!(enter(), None);
        commit();
        goes_back();
        assert_eq!(kept().len(), numbers.len());
    });
}

#[test]
fn a_child_of_the_programs_has_none_and_its_parent_keeps_them() {
    alone(|| {
        goes_back();
        let before = kept();
        assert_eq!(exit_code(|| kept().len() as i32), 0);
        let child = || {
            goes_back();
            kept().len() as i32
        };
        assert_eq!(exit_code(child), before.len() as i32);
        goes_back();
        assert_eq!(kept(), before);
    });
}

#[test]
fn a_process_that_becomes_another_users_goes_back_as_that() {
    alone(|| {
        goes_back();
        become_nobody();
        goes_back();
        goes_back();
    });
}

#[test]
fn locks_of_many_files_are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    alone(|| {
        let open = |number: i32| File::create(dir.path().join(number.to_string())).unwrap();
        let lock = |file: &File, how: i32| unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) };
        let mut files: Vec<File> = (0..30).map(open).collect();
        files.iter().for_each(|file| assert_eq!(lock(file, libc::LOCK_EX), 0));
        let others = || (0..30).filter(|number| lock(&open(*number), libc::LOCK_EX) == 0).count();
        if enter().is_none() {
            files.iter().for_each(|file| assert_eq!(lock(file, libc::LOCK_UN), 0));
            abort(1);
        }
        assert_eq!(others(), 0);
        // The numbers are others' now.
        files.rotate_left(7);
        files.drain(..11);
        files.extend((30..45).map(open));
        if enter().is_none() {
            files.iter().skip(19).for_each(|file| assert_eq!(lock(file, libc::LOCK_EX), 0));
            abort(1);
        }
        // Checkpoints that are on their way out still have what was closed.
        until(|| others() == 11);
        until(|| (30..45).filter(|number| lock(&open(*number), libc::LOCK_EX) == 0).count() == 15);
    });
}

#[test]
fn few_descriptors_are_enough() {
    alone(|| {
        let at_most = |most: u64| {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: 1024 };
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
        };
        at_most(48);
        goes_back();
        let file = tempfile::tempfile().unwrap();
        at_most(32);
        goes_back();
        drop(file);
        goes_back();
    });
}

#[test]
fn a_program_that_closes_all_it_has_between_levels_goes_back_all_the_same() {
    alone(|| {
        for _ in 0..3 {
            goes_back();
            assert_eq!(unsafe { libc::close_range(3, u32::MAX, 0) }, 0);
        }
        if enter().is_none() {
            assert_eq!(unsafe { libc::close_range(3, u32::MAX, 0) }, 0);
            let why = mojave::enter().expect_err("the level could not be undone").to_string();
            assert!(why.contains("was the library's own"), "{why}");
        }
    });
}
