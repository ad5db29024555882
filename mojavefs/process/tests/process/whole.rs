//! A mapping is one piece again, whatever was done with a part of it.

use crate::alone::{abort, commit, enter, for_everybody};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

const PAGE: usize = 4096;
const BYTES: usize = 16 * PAGE;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn map(flags: i32, prot: i32, fd: i32) -> usize {
    let at = unsafe { libc::mmap(null_mut(), BYTES, prot, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at as usize
}

fn memory(prot: i32) -> usize {
    let at = map(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, RW, -1);
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, BYTES) }.fill(b'a');
    assert_eq!(unsafe { libc::mprotect(at as *mut _, BYTES, prot) }, 0);
    at
}

/// In words, and what it does with the mapping at an address.
type Change = (&'static str, fn(usize));

/// What a level may do with a mapping.
const CHANGES: [Change; 11] = [
    ("its end is unmapped", |at| unmap(at + BYTES / 2, BYTES / 2)),
    ("its start is unmapped", |at| unmap(at, BYTES / 2)),
    ("its middle is unmapped", |at| unmap(at + PAGE, PAGE)),
    ("all of it is unmapped", |at| unmap(at, BYTES)),
    ("a page is protected", |at| protect(at + PAGE, libc::PROT_NONE)),
    ("a page can be written", |at| {
        protect(at + PAGE, RW);
        unsafe { *((at + PAGE) as *mut u8) = b'b' };
    }),
    ("it shrinks", |at| assert_ne!(unsafe { libc::mremap(at as *mut _, BYTES, PAGE, 0) }, libc::MAP_FAILED)),
    ("it grows elsewhere", |at| {
        assert_ne!(unsafe { libc::mremap(at as *mut _, BYTES, 4 * BYTES, libc::MREMAP_MAYMOVE) }, libc::MAP_FAILED);
    }),
    ("a part is mapped over", |at| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        assert_ne!(unsafe { libc::mmap((at + PAGE) as *mut _, PAGE, RW, flags, -1, 0) }, libc::MAP_FAILED);
    }),
    ("a part is given back", |at| advise(at + PAGE, libc::MADV_DONTNEED)),
    ("a part is kept from children", |at| advise(at + PAGE, libc::MADV_DONTFORK)),
];

fn unmap(at: usize, bytes: usize) {
    assert_eq!(unsafe { libc::munmap(at as *mut _, bytes) }, 0);
}

fn protect(at: usize, prot: i32) {
    assert_eq!(unsafe { libc::mprotect(at as *mut _, PAGE, prot) }, 0);
}

fn advise(at: usize, advice: i32) {
    assert_eq!(unsafe { libc::madvise(at as *mut _, PAGE, advice) }, 0);
}

/// It holds what it held, and can grow, which only one piece can.
fn is_whole(at: usize, what: &str) {
    assert_eq!(unsafe { libc::mprotect(at as *mut _, BYTES, libc::PROT_READ) }, 0);
    let bytes = unsafe { std::slice::from_raw_parts(at as *const u8, BYTES) };
    assert!(bytes.iter().all(|byte| *byte == b'a'), "{what}");
    let grown = unsafe { libc::mremap(at as *mut _, BYTES, 2 * BYTES, libc::MREMAP_MAYMOVE) };
    assert_ne!(grown, libc::MAP_FAILED, "{what}: {}", std::io::Error::last_os_error());
    assert_eq!(unsafe { *(grown as *const u8).add(BYTES - 1) }, b'a', "{what}");
}

fn undone(at: usize, what: &str, change: fn(usize)) {
    if enter().is_none() {
        change(at);
        abort(1);
    }
    is_whole(at, what);
}

#[test]
fn memory_that_was_changed_in_part_is_one_piece_again() {
    for prot in [RW, libc::PROT_READ, libc::PROT_NONE] {
        for_everybody(|| CHANGES.iter().for_each(|(what, change)| undone(memory(prot), what, *change)));
    }
}

#[test]
fn memory_that_was_there_before_a_fork_is_one_piece_again() {
    let all = CHANGES.map(|(what, change)| (memory(RW), what, change));
    for_everybody(|| all.iter().for_each(|(at, what, change)| undone(*at, what, *change)));
    all.iter().for_each(|(at, ..)| unmap(*at, BYTES));
}

#[test]
fn mapped_files_that_were_changed_in_part_are_one_piece_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [b'a'; BYTES]).unwrap();
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let fd = file.as_file().as_raw_fd();
    for_everybody(|| {
        for (what, change) in CHANGES {
            let private = map(libc::MAP_PRIVATE, RW, fd);
            unsafe { *(private as *mut u8) = b'a' };
            undone(private, what, change);
            if what != "a page can be written" {
                // What is writable and shared with others is refused at the next entry.
                let read = std::fs::File::open(file.path()).unwrap();
                undone(map(libc::MAP_SHARED, libc::PROT_READ, read.as_raw_fd()), what, change);
            }
        }
    });
}

#[test]
fn what_several_levels_have_cut_is_one_piece_again_in_each() {
    for_everybody(|| {
        let all = CHANGES.map(|(what, change)| (memory(RW), what, change));
        if enter().is_none() {
            for (_, first, change) in &all {
                let at = memory(RW);
                if enter().is_none() {
                    change(at);
                    abort(2);
                }
                is_whole(at, first);
            }
            all.iter().step_by(2).for_each(|(at, _, change)| change(*at));
            if !all.iter().step_by(2).any(|(_, what, _)| what.contains("kept from children")) {
                assert_eq!(enter(), None);
                commit();
            }
            abort(1);
        }
        all.iter().for_each(|(at, what, _)| is_whole(*at, what));
    });
}

#[test]
fn advice_to_keep_memory_from_children_is_taken_back() {
    for advice in [libc::MADV_DONTFORK, libc::MADV_WIPEONFORK] {
        for_everybody(|| {
            let at = memory(RW);
            if enter().is_none() {
                assert_eq!(unsafe { libc::madvise(at as *mut _, BYTES, advice) }, 0);
                abort(1);
            }
            undone(at, "its memory is its checkpoint's, too", |at| unsafe { *(at as *mut u8) = b'b' });
        });
    }
}
