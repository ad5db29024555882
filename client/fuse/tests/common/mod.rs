//! Requests as a kernel writes them.

// Each test is a program of its own and uses a part of this.
#![allow(dead_code)]

pub(crate) mod samples;

use mojavefs_fuse::protocol::abi::{EXT_GROUPS, ExtHeader, InHeader, Opcode, SuppGroups};
use mojavefs_fuse::protocol::{InitFlags, Operation, Request, decode};
use proptest::test_runner::Config;
use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) const UNIQUE: u64 = 0x8877_6655_4433_2210;
pub(crate) const NODE: u64 = 0x1234_5678_9abc_def0;
pub(crate) const UID: u32 = 1001;
pub(crate) const GID: u32 = 1002;
pub(crate) const PID: u32 = 1003;
/// How long a request is before what it says.
pub(crate) const HEADER_BYTES: usize = size_of::<InHeader>();

/// How many cases are tried: with `MOJAVEFS_SOAK`, many times more.
pub(crate) fn config(cases: u32) -> Config {
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    let cases = if soak { cases * 50 } else { cases };
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// A request whose header fits what is behind it. The extensions must be as long as a multiple of 8 bytes.
pub(crate) fn request_extended(opcode: u32, body: &[u8], extensions: &[u8]) -> Vec<u8> {
    assert!(extensions.len().is_multiple_of(8));
    let header = InHeader {
        len: (HEADER_BYTES + body.len() + extensions.len()) as u32,
        opcode,
        unique: UNIQUE,
        nodeid: NODE,
        uid: UID,
        gid: GID,
        pid: PID,
        total_extlen: (extensions.len() / 8) as u16,
        padding: 0,
    };
    [header.as_bytes(), body, extensions].concat()
}

pub(crate) fn request(opcode: Opcode, body: &[u8]) -> Vec<u8> {
    request_extended(opcode as u32, body, &[])
}

/// A structure and what is behind it.
pub(crate) fn body(head: &(impl IntoBytes + Immutable), rest: &[u8]) -> Vec<u8> {
    [head.as_bytes(), rest].concat()
}

/// `FUSE_EXT_GROUPS`, as a kernel pads it.
pub(crate) fn groups(groups: &[u32]) -> Vec<u8> {
    let numbers = SuppGroups { nr_groups: groups.len() as u32 };
    extension(EXT_GROUPS, &[numbers.as_bytes(), groups.as_bytes()].concat())
}

pub(crate) fn extension(kind: u32, content: &[u8]) -> Vec<u8> {
    let length = (size_of::<ExtHeader>() + content.len()).next_multiple_of(8);
    let mut bytes = [ExtHeader { size: length as u32, kind }.as_bytes(), content].concat();
    bytes.resize(length, 0);
    bytes
}

/// The same request with the header changed.
pub(crate) fn with_header(bytes: &[u8], change: impl FnOnce(&mut InHeader)) -> Vec<u8> {
    let (mut header, rest) = InHeader::read_from_prefix(bytes).expect("a request has a header");
    change(&mut header);
    [header.as_bytes(), rest].concat()
}

/// What is asked for, of a request made by [`request`].
pub(crate) fn asked(bytes: &[u8], taken: InitFlags) -> Operation<'_> {
    let Request { unique, node, uid, gid, pid, operation } = decode(bytes, taken).expect("a request");
    assert_eq!((unique, node, uid, gid, pid), (UNIQUE, NODE, UID, GID, PID));
    operation
}

/// Why it is none.
pub(crate) fn refused(bytes: &[u8], taken: InitFlags) -> &'static str {
    let malformed = decode(bytes, taken).expect_err("no request");
    assert_eq!(malformed.unique, (bytes.len() >= HEADER_BYTES).then_some(UNIQUE));
    malformed.what
}
