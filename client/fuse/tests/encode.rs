//! Answers and notices are written as a kernel reads them.

mod common;

use common::{UNIQUE, config};
use mojavefs_fuse::protocol::abi::{self, OutHeader};
use mojavefs_fuse::protocol::{
    Answer, Attributes, Entry, Lasting, Listed, Lock, LockKind, Notice, Opened, OpenedFlags, Page, Space, encode,
    encode_notice,
};
use proptest::prelude::*;
use std::time::Duration;
use zerocopy::FromBytes;

const LASTS: Lasting = Lasting(Duration::new(1 << 40, 5));
const ATTRIBUTES: Attributes = Attributes {
    ino: 1,
    mode: 0o020_644,
    nlink: 2,
    uid: 3,
    gid: 4,
    // Major 0x123, minor 0x45678.
    rdev: 0x4561_2378,
    size: 1 << 40,
    blocks: 6,
    block_bytes: 4096,
    accessed: (-1, 7),
    modified: (i64::MIN, 8),
    changed: (i64::MAX, 999_999_999),
    born: Some((-9, 10)),
};
const ENTRY: Entry = Entry {
    node: 11,
    generation: 12,
    name_lasts: Lasting(Duration::from_millis(1500)),
    attributes_last: LASTS,
    attributes: ATTRIBUTES,
};
const OPENED: Opened = Opened { handle: 13, flags: OpenedFlags::KEEP_CACHE, backing: -1 };

/// What a kernel is sent: what the header says, and what is behind it.
fn sent(answer: &Result<Answer, i32>) -> (i32, Vec<u8>) {
    let (first, second) = encode(UNIQUE, answer);
    let all = [first.bytes(), second].concat();
    let (header, body) = OutHeader::read_from_prefix(&all).expect("a header");
    assert_eq!((header.len as usize, header.unique), (all.len(), UNIQUE));
    (header.error, body.to_vec())
}

/// The body of an answer that is all of a structure.
fn body<T: FromBytes>(answer: Answer) -> T {
    let (error, body) = sent(&Ok(answer));
    assert_eq!(error, 0);
    T::read_from_bytes(&body).expect("as long as the structure")
}

fn page() -> Page {
    let mut page = Page::new(4096, false);
    assert!(page.add(&Listed { ino: 1, next: 2, kind: 4, name: b"four" }));
    page
}

#[test]
fn each_answer_is_as_long_as_its_structure() {
    let lock = Lock { start: 0, end: 1, kind: LockKind::None, pid: 0 };
    let sizes = [
        (Answer::Done, 0),
        (Answer::Entry(ENTRY), 128),
        (Answer::Attributes(ATTRIBUTES, LASTS), 104),
        (Answer::Statx(ATTRIBUTES, LASTS), 288),
        (Answer::Opened(OPENED), 16),
        (Answer::Created(ENTRY, OPENED), 144),
        (Answer::Data(Vec::new()), 0),
        (Answer::Data(vec![1; 1000]), 1000),
        (Answer::Written(1), 8),
        (Answer::Copied(1), 8),
        (Answer::Space(Space::default()), 80),
        (Answer::Length(1), 8),
        (Answer::Lock(lock), 24),
        (Answer::Offset(1), 8),
        (Answer::Listing(Page::new(4096, true)), 0),
        (Answer::Listing(page()), 32),
    ];
    for (answer, size) in sizes {
        let (error, body) = sent(&Ok(answer.clone()));
        assert_eq!((error, body.len()), (0, size), "{answer:?}");
    }
}

#[test]
fn an_error_is_a_header_and_nothing_else() {
    for errno in [1, nix::libc::ENOSYS, nix::libc::EIO, 511] {
        assert_eq!(sent(&Err(errno)), (-errno, Vec::new()));
    }
}

#[test]
fn a_file_is_told_with_its_times_and_how_long_that_lasts() {
    let expected = abi::Attr {
        ino: 1,
        size: 1 << 40,
        blocks: 6,
        atime: u64::MAX,
        mtime: 1 << 63,
        ctime: (1 << 63) - 1,
        atimensec: 7,
        mtimensec: 8,
        ctimensec: 999_999_999,
        mode: 0o020_644,
        nlink: 2,
        uid: 3,
        gid: 4,
        rdev: 0x4561_2378,
        blksize: 4096,
        flags: 0,
    };
    let told: abi::AttrOut = body(Answer::Attributes(ATTRIBUTES, LASTS));
    assert_eq!(told, abi::AttrOut { attr_valid: 1 << 40, attr_valid_nsec: 5, dummy: 0, attr: expected });
    let entry = abi::EntryOut {
        nodeid: 11,
        generation: 12,
        entry_valid: 1,
        attr_valid: 1 << 40,
        entry_valid_nsec: 500_000_000,
        attr_valid_nsec: 5,
        attr: expected,
    };
    assert_eq!(body::<abi::EntryOut>(Answer::Entry(ENTRY)), entry);
    let (_, created) = sent(&Ok(Answer::Created(ENTRY, OPENED)));
    let (first, rest) = abi::EntryOut::read_from_prefix(&created).expect("an entry");
    let opened = abi::OpenOut { fh: 13, open_flags: 2, backing_id: -1 };
    assert_eq!((first, abi::OpenOut::read_from_bytes(rest)), (entry, Ok(opened)));
    assert_eq!(body::<abi::OpenOut>(Answer::Opened(OPENED)), opened);
}

#[test]
fn statx_tells_when_a_file_was_made_if_that_is_known() {
    let told: abi::StatxOut = body(Answer::Statx(ATTRIBUTES, LASTS));
    let time = |tv_sec, tv_nsec| abi::SxTime { tv_sec, tv_nsec, reserved: 0 };
    let stat = abi::Statx {
        mask: 0xfff,
        blksize: 4096,
        nlink: 2,
        uid: 3,
        gid: 4,
        mode: 0o020_644,
        ino: 1,
        size: 1 << 40,
        blocks: 6,
        atime: time(-1, 7),
        btime: time(-9, 10),
        ctime: time(i64::MAX, 999_999_999),
        mtime: time(i64::MIN, 8),
        rdev_major: 0x123,
        rdev_minor: 0x45678,
        ..abi::Statx::default()
    };
    assert_eq!(told, abi::StatxOut { attr_valid: 1 << 40, attr_valid_nsec: 5, stat, ..abi::StatxOut::default() });
    let unknown: abi::StatxOut = body(Answer::Statx(Attributes { born: None, ..ATTRIBUTES }, LASTS));
    assert_eq!((unknown.stat.mask, unknown.stat.btime), (0x7ff, abi::SxTime::default()));
}

#[test]
fn numbers_are_told() {
    assert_eq!(body::<abi::WriteOut>(Answer::Written(u32::MAX)), abi::WriteOut { size: u32::MAX, padding: 0 });
    assert_eq!(body::<u64>(Answer::Copied(1 << 40)), 1 << 40);
    assert_eq!(body::<u64>(Answer::Offset(1 << 40)), 1 << 40);
    assert_eq!(body::<abi::GetxattrOut>(Answer::Length(7)), abi::GetxattrOut { size: 7, padding: 0 });
    let space = Space { unit: 1, total: 2, free: 3, available: 4, files: 5, files_free: 6, name_bytes: 255 };
    let told: abi::StatfsOut = body(Answer::Space(space));
    assert_eq!((told.bsize, told.frsize, told.namelen, told.padding, told.spare), (1, 1, 255, 0, [0; 6]));
    assert_eq!((told.blocks, told.bfree, told.bavail, told.files, told.ffree), (2, 3, 4, 5, 6));
    for (kind, number) in [(LockKind::Shared, 0), (LockKind::Exclusive, 1), (LockKind::None, 2)] {
        let told: abi::FileLock = body(Answer::Lock(Lock { start: 1, end: 2, kind, pid: 3 }));
        assert_eq!(told, abi::FileLock { start: 1, end: 2, kind: number, pid: 3 });
    }
}

#[test]
fn data_and_listings_are_sent_as_they_are() {
    let data = Answer::Data(b"some\0bytes".to_vec());
    assert_eq!(sent(&Ok(data)), (0, b"some\0bytes".to_vec()));
    assert_eq!(sent(&Ok(Answer::Listing(page()))), (0, page().bytes().to_vec()));
}

/// What a kernel is told: the code, and what is behind the header.
fn told(notice: &Notice<'_>) -> (i32, Vec<u8>) {
    let all = encode_notice(notice);
    let (header, body) = OutHeader::read_from_prefix(&all).expect("a header");
    assert_eq!((header.len as usize, header.unique), (all.len(), 0));
    (header.error, body.to_vec())
}

#[test]
fn notices_are_told_by_their_codes() {
    let (code, body) = told(&Notice::Inode { ino: 1, from: -1, length: 2 });
    let inode = abi::InvalInodeOut { ino: 1, off: -1, len: 2 };
    assert_eq!((code, abi::InvalInodeOut::read_from_bytes(&body)), (2, Ok(inode)));
    let (code, body) = told(&Notice::Name { parent: 1, name: b"\xffname" });
    let (entry, name) = abi::InvalEntryOut::read_from_prefix(&body).expect("an entry");
    assert_eq!((code, entry), (3, abi::InvalEntryOut { parent: 1, namelen: 5, flags: 0 }));
    // Its end is not counted.
    assert_eq!(name, b"\xffname\0");
    assert_eq!(told(&Notice::AllNames), (8, Vec::new()));
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn every_device_is_told_alike_by_both_forms(rdev in any::<u32>()) {
        let told: abi::StatxOut = body(Answer::Statx(Attributes { rdev, ..ATTRIBUTES }, LASTS));
        let (major, minor) = (told.stat.rdev_major, told.stat.rdev_minor);
        // As the kernel writes a device in 32 bits.
        prop_assert_eq!(minor & 0xff | major << 8 | (minor & !0xff) << 12, rdev);
    }

    #[test]
    fn listings_never_have_more_than_there_is_room_for(
        room in 0..2000u32, attributes in any::<bool>(), lengths in prop::collection::vec(0..256usize, 0..40),
    ) {
        let mut page = Page::new(room, attributes);
        let name = [b'n'; 256];
        let mut added = Vec::new();
        for (at, length) in (1..).zip(lengths) {
            let listed = Listed { ino: at, next: at + 1, kind: 8, name: &name[..length] };
            let fits = if attributes { page.add_with(&listed, &ENTRY) } else { page.add(&listed) };
            if !fits {
                break;
            }
            added.push(listed);
        }
        prop_assert!(page.bytes().len() <= room as usize);
        prop_assert_eq!(page.entries().map(|(listed, _)| listed).collect::<Vec<_>>(), added);
    }
}
