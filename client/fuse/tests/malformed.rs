//! Whatever is read from a device is a request or refused, and nothing that is said of it lies outside of what was read.

mod common;

use common::samples::{self, Sample};
use common::{HEADER_BYTES, config, request_extended, with_header};
use mojavefs_fuse::protocol::abi::{ForgetOne, Opcode};
use mojavefs_fuse::protocol::{InitFlags, Operation, Request, decode};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::LazyLock;

/// Made once: there are many cases.
static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(samples::all);

/// All bytes that are borrowed.
fn borrowed<'a>(operation: &Operation<'a>) -> Vec<&'a [u8]> {
    match *operation {
        Operation::Lookup { name }
        | Operation::Make { name, .. }
        | Operation::Unlink { name }
        | Operation::Rmdir { name }
        | Operation::Link { name, .. }
        | Operation::Getxattr { name, .. }
        | Operation::Removexattr { name }
        | Operation::Create { name, .. } => vec![name],
        Operation::Symlink { name, target, .. } => vec![name, target],
        Operation::Rename { name, new_name, .. } => vec![name, new_name],
        Operation::Write { data, .. } => vec![data],
        Operation::Setxattr { name, value, .. } => vec![name, value],
        _ => Vec::new(),
    }
}

/// Decodes them, and looks whether the result is made of them.
fn decoded(bytes: &[u8], taken: InitFlags) -> Option<Request<'_>> {
    let request = match decode(bytes, taken) {
        Ok(request) => request,
        Err(malformed) => {
            assert_eq!(malformed.unique.is_some(), bytes.len() >= HEADER_BYTES);
            return None;
        }
    };
    let mut at = HEADER_BYTES;
    for piece in borrowed(&request.operation) {
        let start = piece.as_ptr().addr() - bytes.as_ptr().addr();
        assert!(at <= start && start + piece.len() <= bytes.len(), "{piece:?} of {bytes:?}");
        at = start + piece.len();
    }
    if let Operation::Forget(forgotten) = &request.operation {
        assert!(forgotten.len() <= 1.max((bytes.len() - HEADER_BYTES) / size_of::<ForgetOne>()));
    }
    Some(request)
}

/// The same with a header that says how long it is.
fn of_its_length(bytes: &[u8]) -> Vec<u8> {
    with_header(bytes, |header| header.len = bytes.len() as u32)
}

/// Whether all that it has is looked at.
fn is_read_to_the_end(sample: &Sample) -> bool {
    !matches!(sample.asks, Operation::Other(_) | Operation::Syncfs | Operation::Tmpfile(_))
}

#[test]
fn a_request_that_is_cut_off_is_refused() {
    for sample in SAMPLES.iter() {
        for end in 0..sample.bytes.len() {
            let cut = &sample.bytes[..end];
            assert_eq!(decoded(cut, sample.taken), None);
            if end >= HEADER_BYTES {
                let cut = of_its_length(cut);
                let request = decoded(&cut, sample.taken);
                assert!(request.is_none() || !is_read_to_the_end(sample), "{:?}: {request:?}", sample.opcode);
            }
        }
    }
}

#[test]
fn what_is_behind_a_request_is_no_part_of_it() {
    for sample in SAMPLES.iter() {
        for more in 1..64 {
            let longer = of_its_length(&[&sample.bytes[..], &vec![0xff; more]].concat());
            let request = decoded(&longer, sample.taken).expect("a request");
            assert_eq!(request.operation, sample.asks, "{:?}", sample.opcode);
        }
    }
}

fn some_flags() -> impl Strategy<Value = InitFlags> {
    prop_oneof![Just(InitFlags::NONE), Just(InitFlags::SETXATTR_EXT), any::<u64>().prop_map(InitFlags)]
}

proptest! {
    #![proptest_config(config(20_000))]

    #[test]
    fn any_bytes_are_a_request_or_refused(bytes in vec(any::<u8>(), 0..300), taken in some_flags()) {
        decoded(&bytes, taken);
        if bytes.len() >= HEADER_BYTES {
            decoded(&of_its_length(&bytes), taken);
        }
    }

    #[test]
    fn any_body_of_any_opcode_is_a_request_or_refused(
        opcode in 0..Opcode::ALL.len(),
        // Many zeros: they end names, and numbers are small.
        body in vec(prop_oneof![Just(0), 0..8u8, any::<u8>()], 0..200),
        extensions in 0..4u16,
        taken in some_flags(),
    ) {
        let bytes = request_extended(Opcode::ALL[opcode] as u32, &body, &[]);
        decoded(&bytes, taken);
        decoded(&with_header(&bytes, |header| header.total_extlen = extensions), taken);
    }

    #[test]
    fn a_request_with_bytes_changed_is_a_request_or_refused(
        which in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in any::<prop::sample::Index>(),
        tail in vec(any::<u8>(), 0..40),
        fits in any::<bool>(),
    ) {
        let sample = which.get(&SAMPLES[..]);
        let mut bytes = sample.bytes.clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(HEADER_BYTES + length.index(bytes.len() + 1 - HEADER_BYTES));
        bytes.extend_from_slice(&tail);
        if fits {
            bytes = of_its_length(&bytes);
        }
        decoded(&bytes, sample.taken);
    }

    #[test]
    fn a_request_with_other_numbers_has_these(
        which in any::<prop::sample::Index>(), unique in any::<u64>(), node in any::<u64>(), ids in any::<[u32; 3]>(),
    ) {
        let sample = which.get(&SAMPLES[..]);
        let bytes = with_header(&sample.bytes, |header| {
            (header.unique, header.nodeid) = (unique, node);
            (header.uid, header.gid, header.pid) = (ids[0], ids[1], ids[2]);
        });
        let request = decoded(&bytes, sample.taken).expect("a request");
        prop_assert_eq!((request.unique, request.node, [request.uid, request.gid, request.pid]), (unique, node, ids));
        if sample.opcode != Opcode::Forget {
            prop_assert_eq!(&request.operation, &sample.asks);
        }
    }
}
