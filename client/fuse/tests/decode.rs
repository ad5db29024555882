//! What a kernel writes is read as what it says.

mod common;

use common::samples::{self, ODD_NAME};
use common::{NODE, asked, body, extension, groups, refused, request, request_extended, with_header};
use mojavefs_fuse::protocol::abi::{self, Opcode, fattr};
use mojavefs_fuse::protocol::{Creation, Hello, InitFlags, Operation, SetAttributes, SetTime, decode};
use zerocopy::IntoBytes;

const NONE: InitFlags = InitFlags::NONE;

#[test]
fn a_request_of_each_kind_is_read_as_what_it_says() {
    let samples = samples::all();
    for sample in &samples {
        assert_eq!(asked(&sample.bytes, sample.taken), sample.asks, "{:?}", sample.opcode);
    }
    for opcode in Opcode::ALL {
        assert!(samples.iter().any(|sample| sample.opcode == *opcode), "{opcode:?} was not tried");
    }
}

#[test]
fn an_opcode_that_is_not_known_is_told_by_its_number() {
    for opcode in [0, 7, 19, 54, 4096, u32::MAX] {
        assert_eq!(asked(&request_extended(opcode, b"anything", &[]), NONE), Operation::Other(opcode));
    }
}

#[test]
fn names_are_bytes_up_to_the_first_zero() {
    let name = |bytes: &[u8]| match decode(&request(Opcode::Lookup, bytes), NONE).expect("a request").operation {
        Operation::Lookup { name } => name.to_vec(),
        other => panic!("{other:?}"),
    };
    let all: Vec<u8> = (1..=255).collect();
    assert_eq!(name(&[&all[..], b"\0"].concat()), all);
    assert_eq!(name(b"\0"), b"");
    assert_eq!(name(b"a\0b\0"), b"a");
    assert_eq!(refused(&request(Opcode::Lookup, ODD_NAME), NONE), "a name has no end");
    assert_eq!(refused(&request(Opcode::Lookup, &[]), NONE), "a name has no end");
}

#[test]
fn the_group_of_a_new_file_comes_as_an_extension() {
    let new = |group| Operation::Make { name: b"dir", new: Creation { mode: 0o040_755, umask: 2, rdev: 0, group } };
    let mkdir = body(&abi::MkdirIn { mode: 0o755, umask: 2 }, b"dir\0");
    let made = |extensions: &[u8]| request_extended(Opcode::Mkdir as u32, &mkdir, extensions);
    assert_eq!(asked(&made(&groups(&[50])), NONE), new(Some(50)));
    assert_eq!(asked(&made(&groups(&[])), NONE), new(None));
    // Of other kinds nothing is known.
    let label = extension(1, b"security.selinux\0label");
    assert_eq!(asked(&made(&label), NONE), new(None));
    assert_eq!(asked(&made(&[label, groups(&[51])].concat()), NONE), new(Some(51)));
    assert_eq!(asked(&made(&[groups(&[52]), groups(&[53])].concat()), NONE), new(Some(52)));
}

#[test]
fn every_file_that_is_made_has_the_group() {
    let made = [Opcode::Symlink, Opcode::Mknod, Opcode::Mkdir, Opcode::Create, Opcode::Tmpfile];
    for sample in samples::all() {
        let extended = [sample.bytes, groups(&[50])].concat();
        let bytes = with_header(&extended, |header| (header.len, header.total_extlen) = (header.len + 16, 2));
        let group = match asked(&bytes, sample.taken) {
            Operation::Symlink { group, .. } => group,
            Operation::Make { new, .. } | Operation::Create { new, .. } => new.group,
            Operation::Tmpfile(unnamed) => unnamed.new.group,
            same => {
                assert_eq!(same, sample.asks);
                None
            }
        };
        assert_eq!(group.is_some(), made.contains(&sample.opcode), "{:?}", sample.opcode);
    }
}

#[test]
fn extensions_that_do_not_fit_are_refused() {
    let made = |extensions: &[u8]| request_extended(Opcode::Symlink as u32, b"a\0b\0", extensions);
    let header = |size, kind| abi::ExtHeader { size, kind }.as_bytes().to_vec();
    assert_eq!(refused(&made(&header(0, 1)), NONE), "an extension is shorter than its header");
    assert_eq!(refused(&made(&header(7, abi::EXT_GROUPS)), NONE), "an extension is shorter than its header");
    assert_eq!(refused(&made(&header(9, 1)), NONE), "an extension is longer than all of them");
    assert_eq!(refused(&made(&header(u32::MAX, 1)), NONE), "an extension is longer than all of them");
    // No room for how many groups there are, and for the one that it has.
    assert_eq!(refused(&made(&header(8, abi::EXT_GROUPS)), NONE), "it ends too early");
    let one = [header(12, abi::EXT_GROUPS), 1u32.as_bytes().to_vec(), 7u32.as_bytes().to_vec()].concat();
    assert_eq!(refused(&made(&one), NONE), "it ends too early");
    // What is behind the last one is one more.
    let cut = [extension(1, &[0; 5]), vec![0; 8]].concat();
    assert_eq!(refused(&made(&cut), NONE), "an extension is shorter than its header");
    let more = with_header(&made(&groups(&[1])), |header| header.total_extlen = 3);
    assert_eq!(refused(&more, NONE), "it is shorter than its extensions");
}

#[test]
fn a_batch_forgets_no_more_than_there_is_in_it() {
    let batch =
        |count, of: &[u64]| request(Opcode::BatchForget, &body(&abi::BatchForgetIn { count, dummy: 0 }, of.as_bytes()));
    assert_eq!(asked(&batch(0, &[]), NONE), Operation::Forget(vec![]));
    assert_eq!(asked(&batch(1, &[2, 3, 4, 5]), NONE), Operation::Forget(vec![(2, 3)]));
    for (count, of) in [(1, &[][..]), (2, &[2, 3, 4]), (u32::MAX, &[2, 3])] {
        assert_eq!(refused(&batch(count, of), NONE), "it forgets less than it says");
    }
}

#[test]
fn an_attribute_is_set_in_either_form() {
    let set = |size, rest: &[u8]| request(Opcode::Setxattr, &body(&abi::SetxattrIn { size, flags: 2 }, rest));
    let asks = |name, value, kill_set_gid| Operation::Setxattr { name, value, flags: 2, kill_set_gid };
    // The same bytes, which mean something else.
    let bytes = set(2, b"\x01\0\0\0\0\0\0\0n\0ab");
    assert_eq!(asked(&bytes, InitFlags::SETXATTR_EXT), asks(b"n", b"ab", true));
    assert_eq!(asked(&bytes, InitFlags(!InitFlags::SETXATTR_EXT.0)), asks(b"\x01", b"\0\0", false));
    assert_eq!(asked(&set(0, b"\0\0\0\0\0\0\0\0n\0"), InitFlags::SETXATTR_EXT), asks(b"n", b"", false));
    assert_eq!(refused(&set(3, b"n\0ab"), NONE), "it has less data than it says");
    assert_eq!(refused(&set(u32::MAX, b"n\0ab"), NONE), "it has less data than it says");
    assert_eq!(refused(&set(0, b"n\0"), InitFlags::SETXATTR_EXT), "it ends too early");
}

#[test]
fn each_attribute_is_set_by_a_flag_of_its_own() {
    let all = abi::SetattrIn {
        fh: 1,
        size: 2,
        lock_owner: 3,
        atime: i64::MIN.cast_unsigned(),
        mtime: (-1i64).cast_unsigned(),
        atimensec: 5,
        mtimensec: 6,
        mode: 7,
        uid: 8,
        gid: 9,
        ..abi::SetattrIn::default()
    };
    let none = SetAttributes::default();
    let expected = [
        (0, none),
        (fattr::MODE, SetAttributes { mode: Some(7), ..none }),
        (fattr::UID, SetAttributes { uid: Some(8), ..none }),
        (fattr::GID, SetAttributes { gid: Some(9), ..none }),
        (fattr::SIZE, SetAttributes { size: Some(2), ..none }),
        (fattr::ATIME, SetAttributes { atime: Some(SetTime::At(i64::MIN, 5)), ..none }),
        (fattr::MTIME, SetAttributes { mtime: Some(SetTime::At(-1, 6)), ..none }),
        (fattr::ATIME | fattr::ATIME_NOW, SetAttributes { atime: Some(SetTime::Now), ..none }),
        (fattr::MTIME | fattr::MTIME_NOW, SetAttributes { mtime: Some(SetTime::Now), ..none }),
        (fattr::FH, SetAttributes { handle: Some(1), ..none }),
        (fattr::KILL_SUIDGID, SetAttributes { kill_set_id: true, ..none }),
        (fattr::LOCKOWNER | fattr::CTIME, none),
    ];
    for (valid, expected) in expected {
        let set = abi::SetattrIn { valid, ..all };
        assert_eq!(asked(&request(Opcode::Setattr, set.as_bytes()), NONE), Operation::Setattr(expected), "{valid:#x}");
    }
}

#[test]
fn an_inode_is_looked_at_by_a_handle_only_if_that_is_said() {
    let statx = abi::StatxIn { getattr_flags: abi::GETATTR_FH, reserved: 0, fh: 9, sx_flags: 0, sx_mask: 1 };
    let get = abi::GetattrIn { getattr_flags: 0, dummy: 0, fh: 9 };
    let by_handle = Operation::Statx { handle: Some(9), mask: 1 };
    assert_eq!(asked(&request(Opcode::Statx, statx.as_bytes()), NONE), by_handle);
    assert_eq!(asked(&request(Opcode::Getattr, get.as_bytes()), NONE), Operation::Getattr { handle: None });
}

#[test]
fn a_kernel_offers_32_flags_or_64() {
    let init = |flags: InitFlags, rest: &[u8]| {
        let init = abi::InitIn { major: 7, minor: 45, max_readahead: 1, flags: flags.0 as u32 };
        request(Opcode::Init, &body(&init, rest))
    };
    let hello = |offered| Operation::Init(Hello { major: 7, minor: 45, max_readahead: 1, offered });
    let ext = InitFlags::INIT_EXT.and(InitFlags::MAX_PAGES);
    let second = (InitFlags::PASSTHROUGH.0 >> 32) as u32;
    let rest = [second.as_bytes(), &[0; 44]].concat();
    assert_eq!(asked(&init(ext, &rest), NONE), hello(ext.and(InitFlags::PASSTHROUGH)));
    assert_eq!(asked(&init(InitFlags::MAX_PAGES, &rest), NONE), hello(InitFlags::MAX_PAGES));
    assert_eq!(asked(&init(InitFlags::MAX_PAGES, &[]), NONE), hello(InitFlags::MAX_PAGES));
    assert_eq!(refused(&init(ext, &[]), NONE), "it ends too early");
}

#[test]
fn a_lock_of_no_kind_is_refused() {
    let asked = abi::LkIn { lk: abi::FileLock { kind: 3, ..Default::default() }, ..Default::default() };
    assert_eq!(refused(&request(Opcode::Getlk, asked.as_bytes()), NONE), "it is about a lock of no kind");
}

#[test]
fn a_request_is_as_long_as_it_says() {
    let bytes = request(Opcode::Lookup, b"name\0");
    for wrong in [0, bytes.len() as u32 - 1, bytes.len() as u32 + 1, u32::MAX] {
        assert_eq!(refused(&with_header(&bytes, |header| header.len = wrong), NONE), "it is not as long as it says");
    }
    assert_eq!(refused(&bytes[..common::HEADER_BYTES - 1], NONE), "it is shorter than its header");
    assert_eq!(refused(&[], NONE), "it is shorter than its header");
}

#[test]
fn what_is_malformed_is_told_with_its_number() {
    let refused = decode(&request(Opcode::Forget, &[]), NONE).expect_err("it forgets nothing");
    assert_eq!(
        refused.to_string(),
        format!("request {} of the kernel is malformed: it ends too early", common::UNIQUE)
    );
    let refused = decode(b"too short", NONE).expect_err("it is no request");
    assert_eq!(refused.to_string(), "what the kernel has sent is no request: it is shorter than its header");
    assert_ne!(NODE, common::UNIQUE);
}
