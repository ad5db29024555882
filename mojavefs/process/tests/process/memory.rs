//! Memory is as it was.

use crate::alone::{abort, commit, enter, for_everybody};

const PAGE: usize = 4096;

fn map(bytes: usize, prot: i32) -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn at<'a>(start: *mut u8, bytes: usize) -> &'a mut [u8] {
    unsafe { std::slice::from_raw_parts_mut(start, bytes) }
}

#[test]
fn heap_stack_and_statics_are_as_they_were() {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    for_everybody(|| {
        let mut stack = [1u8; 20_000];
        let mut heap: Vec<Vec<u8>> = (0..100).map(|n| vec![n as u8; 1000 * n]).collect();
        if enter().is_none() {
            stack.fill(2);
            heap.iter_mut().for_each(|bytes| bytes.fill(255));
            heap.truncate(3);
            heap.extend((0..1000).map(|n| vec![7; n * 10]));
            COUNT.store(2, std::sync::atomic::Ordering::SeqCst);
            std::hint::black_box((&stack, &heap));
            abort(1);
        }
        assert!(stack.iter().all(|byte| *byte == 1));
        assert!(heap.iter().enumerate().all(|(n, bytes)| *bytes == vec![n as u8; 1000 * n]) && heap.len() == 100);
        assert_eq!(COUNT.load(std::sync::atomic::Ordering::SeqCst), 1);
        drop(heap);
    });
}

#[test]
fn what_a_commit_keeps_is_there() {
    for_everybody(|| {
        let mut bytes = vec![1; 100_000];
        assert_eq!(enter(), None);
        bytes.fill(2);
        commit();
        assert!(bytes.iter().all(|byte| *byte == 2));
    });
}

#[test]
fn memory_that_was_given_back_is_there_again() {
    for_everybody(|| {
        let dropped = map(64 * PAGE, RW);
        let unmapped = map(64 * PAGE, RW);
        let replaced = map(64 * PAGE, RW);
        let moved = map(64 * PAGE, RW);
        for start in [dropped, unmapped, replaced, moved] {
            at(start, 64 * PAGE).fill(9);
        }
        if enter().is_none() {
            unsafe {
                libc::madvise(dropped.cast(), 32 * PAGE, libc::MADV_DONTNEED);
                libc::munmap(unmapped.add(8 * PAGE).cast(), 40 * PAGE);
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                libc::mmap(replaced.add(PAGE).cast(), 10 * PAGE, RW, flags, -1, 0);
                libc::mremap(moved.cast(), 64 * PAGE, 1024 * PAGE, libc::MREMAP_MAYMOVE);
            }
            at(dropped, PAGE).fill(3);
            abort(1);
        }
        for start in [dropped, unmapped, replaced, moved] {
            assert!(at(start, 64 * PAGE).iter().all(|byte| *byte == 9));
        }
    });
}

/// What `mremap` moves, which `realloc` does, too, are pages that the checkpoint has elsewhere.
#[test]
fn what_was_moved_over_other_memory_is_where_it_was() {
    for_everybody(|| {
        let (a, b) = (map(64 * PAGE, RW), map(64 * PAGE, RW));
        at(a, 64 * PAGE).fill(1);
        at(b, 64 * PAGE).fill(2);
        let mut freed = vec![3u8; 8 << 20];
        let mut grown = vec![4u8; 1 << 20];
        if enter().is_none() {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            let (old, new) = (64 * PAGE, 64 * PAGE);
            assert!(unsafe { libc::mremap(a.cast(), old, new, flags, b) } == b.cast());
            freed = Vec::new();
            grown.resize(6 << 20, 5);
            std::hint::black_box((&freed, &grown));
            abort(1);
        }
        assert!(at(a, 64 * PAGE).iter().all(|byte| *byte == 1) && at(b, 64 * PAGE).iter().all(|byte| *byte == 2));
        assert!(freed.iter().all(|byte| *byte == 3) && freed.len() == 8 << 20);
        assert!(grown.iter().all(|byte| *byte == 4) && grown.len() == 1 << 20);
    });
}

/// Reads a byte of every page; nothing else is there afterwards but zeros.
fn only_read(start: *mut u8, bytes: usize) {
    assert!(at(start, bytes).iter().step_by(PAGE).all(|byte| *byte == 0));
}

#[test]
fn memory_that_was_given_back_and_then_only_read_is_there_again() {
    // Pages apart, some together, more than are looked at in one step, and huge ones.
    for bytes in [PAGE, 5 * PAGE, 1 << 20, 80 << 20] {
        for_everybody(|| {
            let (dropped, replaced, huge) = (map(bytes, RW), map(bytes, RW), map(bytes, RW));
            unsafe { libc::madvise(huge.cast(), bytes, libc::MADV_HUGEPAGE) };
            let untouched = map(bytes, RW);
            only_read(untouched, bytes);
            let mut freed = vec![9u8; bytes];
            for start in [dropped, replaced, huge] {
                at(start, bytes).fill(9);
            }
            if enter().is_none() {
                unsafe {
                    libc::madvise(dropped.cast(), bytes, libc::MADV_DONTNEED);
                    libc::madvise(huge.cast(), bytes, libc::MADV_DONTNEED);
                    libc::munmap(replaced.cast(), bytes);
                    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
                    libc::mmap(replaced.cast(), bytes, RW, flags, -1, 0);
                }
                freed = Vec::new();
                let again = vec![0u8; bytes];
                assert!(again.iter().step_by(PAGE).all(|byte| *byte == 0));
                for start in [dropped, replaced, huge] {
                    only_read(start, bytes);
                }
                at(untouched, bytes).iter_mut().step_by(3 * PAGE).for_each(|byte| *byte = 1);
                std::hint::black_box((&freed, &again));
                abort(1);
            }
            for start in [dropped, replaced, huge] {
                assert!(at(start, bytes).iter().all(|byte| *byte == 9));
            }
            assert!(freed.iter().all(|byte| *byte == 9) && at(untouched, bytes).iter().all(|byte| *byte == 0));
        });
    }
}

#[test]
fn every_second_page_given_back_in_levels_of_several_depths_is_there_again() {
    for_everybody(|| {
        let bytes = 16 << 20;
        let start = map(bytes, RW);
        at(start, bytes).fill(7);
        let reclaim_space = |from: usize| {
            for page in (from..bytes / PAGE).step_by(4) {
                unsafe { libc::madvise(start.add(page * PAGE).cast(), PAGE, libc::MADV_DONTNEED) };
                only_read(unsafe { start.add(page * PAGE) }, PAGE);
            }
        };
        if enter().is_none() {
            reclaim_space(0);
            if enter().is_none() {
                reclaim_space(1);
                at(start, PAGE).fill(3);
                if enter().is_none() {
                    reclaim_space(2);
                    abort(1);
                }
                assert!(
                    (0..bytes / PAGE).all(|page| (page % 4 > 1) == (at(start, bytes)[page * PAGE] == 7) || page == 0)
                );
                abort(1);
            }
            assert!((0..bytes / PAGE).all(|page| (page % 4 > 0) == (at(start, bytes)[page * PAGE] == 7)));
            assert_eq!(enter(), None);
            reclaim_space(3);
            commit();
            abort(1);
        }
        assert!(at(start, bytes).iter().all(|byte| *byte == 7));
    });
}

#[test]
fn a_heap_that_shrank_and_grew_again_is_there_again() {
    for_everybody(|| {
        for bytes in [100_000, 8 << 20] {
            let start = unsafe { libc::sbrk(bytes as isize) }.cast::<u8>();
            at(start, bytes).fill(5);
            if enter().is_none() {
                unsafe { libc::sbrk(-(bytes as isize)) };
                let again = unsafe { libc::sbrk(bytes as isize) }.cast::<u8>();
                assert!(again == start && at(start, bytes).iter().skip(PAGE).step_by(PAGE).all(|byte| *byte == 0));
                abort(1);
            }
            assert!(at(start, bytes).iter().all(|byte| *byte == 5));
        }
    });
}

#[test]
fn mappings_and_protections_are_as_they_were() {
    for_everybody(|| {
        let guarded = map(8 * PAGE, RW);
        at(guarded, 8 * PAGE).fill(5);
        unsafe { libc::mprotect(guarded.add(PAGE).cast(), PAGE, libc::PROT_READ) };
        unsafe { libc::mprotect(guarded.add(2 * PAGE).cast(), PAGE, libc::PROT_NONE) };
        let before = std::fs::read_to_string("/proc/self/maps").unwrap();
        if enter().is_none() {
            let more = map(100 * PAGE, RW);
            at(more, 100 * PAGE).fill(1);
            unsafe { libc::mprotect(guarded.cast(), 8 * PAGE, RW) };
            at(guarded, 8 * PAGE).fill(6);
            unsafe { libc::mprotect(guarded.cast(), 4 * PAGE, libc::PROT_NONE) };
            abort(1);
        }
        let after = std::fs::read_to_string("/proc/self/maps").unwrap();
        let guards = |maps: &str| {
            let near = format!("{:x}", guarded as usize >> 16);
            maps.lines().filter(|line| line.starts_with(&near)).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(guards(&before), guards(&after));
        unsafe { libc::mprotect(guarded.cast(), 8 * PAGE, RW) };
        assert!(at(guarded, 8 * PAGE).iter().all(|byte| *byte == 5));
    });
}

#[test]
fn a_private_file_mapping_shows_what_it_showed() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'f'; 4 * PAGE]).unwrap();
    // An ordinary user's abort maps it again by its name.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), readable).unwrap();
    for_everybody(|| {
        use std::os::fd::AsRawFd;
        let fd = file.as_file().as_raw_fd();
        let start = unsafe { libc::mmap(std::ptr::null_mut(), 4 * PAGE, RW, libc::MAP_PRIVATE, fd, 0) };
        let gone = unsafe { libc::mmap(std::ptr::null_mut(), 4 * PAGE, RW, libc::MAP_PRIVATE, fd, 0) };
        let (start, gone) = (start.cast::<u8>(), gone.cast::<u8>());
        at(start, PAGE).fill(b'a');
        at(gone, PAGE).fill(b'g');
        if enter().is_none() {
            at(start, 2 * PAGE).fill(b'b');
            unsafe { libc::munmap(gone.cast(), 4 * PAGE) };
            abort(1);
        }
        let expected = |first: u8| [vec![first; PAGE], vec![b'f'; 3 * PAGE]].concat();
        assert_eq!(at(start, 4 * PAGE), expected(b'a'));
        assert_eq!(at(gone, 4 * PAGE), expected(b'g'));
    });
}

#[test]
fn huge_pages_are_as_they_were() {
    for_everybody(|| {
        let bytes = 64 << 20;
        let start = map(bytes, RW);
        unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
        at(start, bytes).fill(1);
        for round in 0..3 {
            if enter().is_none() {
                at(start, bytes).iter_mut().step_by(100_000 + round).for_each(|byte| *byte = 2);
                abort(1);
            }
            assert!(at(start, bytes).iter().all(|byte| *byte == 1));
        }
    });
}

#[test]
fn pages_shared_with_children_of_the_program_are_put_back() {
    for_everybody(|| {
        let mut bytes = vec![1u8; 100 * PAGE];
        let (said, say) = crate::alone::pipe();
        if enter().is_none() {
            bytes[..50 * PAGE].fill(2);
            // A grandchild that nobody knows, which shares every page changed so far.
            if unsafe { libc::fork() } == 0 {
                unsafe { libc::setsid() };
                if unsafe { libc::fork() } == 0 {
                    let pid = unsafe { libc::getpid() };
                    std::io::Write::write_all(&mut &say, &pid.to_le_bytes()).unwrap();
                    unsafe { libc::alarm(60) };
                    unsafe { libc::pause() };
                }
                unsafe { libc::_exit(0) };
            }
            unsafe { libc::wait(std::ptr::null_mut()) };
            if enter().is_none() {
                bytes[50 * PAGE..].fill(3);
            }
            assert_eq!(mojave::depth(), 2);
            panic!("{}", mojave::abort(first(), crate::alone::code(4)));
        }
        assert!(bytes.iter().all(|byte| *byte == 1));
        let grandchild = i32::from_le_bytes(crate::alone::read_some(&said).try_into().unwrap());
        assert_eq!(unsafe { libc::kill(grandchild, libc::SIGKILL) }, 0, "it had left, so it runs on");
    });
}

/// The outermost speculation, when two are open.
fn first() -> mojave::Id {
    let inner = mojave::current().unwrap();
    commit();
    let outer = mojave::current().unwrap();
    assert_ne!(inner, outer);
    outer
}
