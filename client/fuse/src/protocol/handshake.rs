//! Agreeing with a kernel on what is spoken: INIT and its answer.

use super::abi::{self, MAJOR, MINOR};
use super::flags::InitFlags;
use zerocopy::IntoBytes;

/// The oldest second version number that is spoken: 7.34, as of Linux 5.15.
pub const MINOR_MIN: u32 = 34;
/// How many bytes a page has at least.
const PAGE_BYTES: u32 = 4096;
/// Background requests beyond this part of the most count as too many, which slows down who makes them.
const CONGESTED_PART: (u16, u16) = (3, 4);

/// INIT: what a kernel says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its version.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// How far it reads ahead at most, in bytes.
    pub max_readahead: u32,
    /// What it can do.
    pub offered: InitFlags,
}

/// What we want of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Without these there is no talking.
    pub required: InitFlags,
    /// These are taken where they are to be had.
    pub wanted: InitFlags,
    /// How much is written or read at once, in bytes.
    pub io_bytes: u32,
    /// How many requests of the kernel's own may be under way.
    pub background: u16,
}

/// What comes of INIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// We agree on this.
    Agreed {
        /// What both have.
        taken: InitFlags,
        /// The second version number.
        minor: u32,
        /// The answer's bytes, header included.
        answer: Vec<u8>,
    },
    /// It speaks a later major version: told ours, it asks again.
    Again(Vec<u8>),
    /// There is no talking, for this reason.
    Refused {
        /// Why, for people.
        why: String,
        /// The answer's bytes.
        answer: Vec<u8>,
    },
}

fn answered(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let len = (size_of::<abi::OutHeader>() + body.len()) as u32;
    [abi::OutHeader { len, error, unique }.as_bytes(), body].concat()
}

/// Answers INIT.
pub fn accept(unique: u64, hello: &Hello, offer: &Offer) -> Handshake {
    let refused = |why: String| Handshake::Refused { why, answer: answered(unique, -nix::libc::EPROTO, &[]) };
    if hello.major > MAJOR {
        let ours = abi::InitOut { major: MAJOR, minor: MINOR, ..abi::InitOut::default() };
        return Handshake::Again(answered(unique, 0, ours.as_bytes()));
    }
    if hello.major < MAJOR || hello.minor < MINOR_MIN {
        let (major, minor) = (hello.major, hello.minor);
        return refused(format!(
            "the kernel speaks FUSE {major}.{minor}, and {MAJOR}.{MINOR_MIN} is needed (Linux 5.15)"
        ));
    }
    let missing = offer.required.without(hello.offered);
    if missing != InitFlags::NONE {
        return refused(format!("the kernel lacks what is needed of FUSE: flags {:#x}", missing.0));
    }
    let taken = offer.required.and(offer.wanted).shared_with(hello.offered).and(InitFlags::INIT_EXT);
    let taken = taken.shared_with(hello.offered);
    let minor = hello.minor.min(MINOR);
    let congested = u32::from(offer.background) * u32::from(CONGESTED_PART.0) / u32::from(CONGESTED_PART.1);
    let out = abi::InitOut {
        major: MAJOR,
        minor,
        max_readahead: hello.max_readahead.min(offer.io_bytes),
        flags: taken.0 as u32,
        max_background: offer.background,
        congestion_threshold: congested as u16,
        max_write: offer.io_bytes,
        time_gran: 1,
        max_pages: offer.io_bytes.div_ceil(PAGE_BYTES) as u16,
        flags2: (taken.0 >> 32) as u32,
        // Without it passthrough is not taken.
        max_stack_depth: u32::from(taken.has(InitFlags::PASSTHROUGH)),
        ..abi::InitOut::default()
    };
    Handshake::Agreed { taken, minor, answer: answered(unique, 0, out.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    const OFFER: Offer = Offer {
        required: InitFlags::PARALLEL_DIROPS.and(InitFlags::MAX_PAGES),
        wanted: InitFlags::PASSTHROUGH.and(InitFlags::SETXATTR_EXT),
        io_bytes: 1 << 20,
        background: 64,
    };

    fn hello(minor: u32, offered: InitFlags) -> Hello {
        Hello { major: 7, minor, max_readahead: 128 << 10, offered }
    }

    #[test]
    fn what_both_have_is_taken() {
        let offered = OFFER.required.and(InitFlags::INIT_EXT).and(InitFlags::PASSTHROUGH).and(InitFlags::POSIX_ACL);
        let Handshake::Agreed { taken, minor, answer } = accept(1, &hello(40, offered), &OFFER) else {
            panic!("there is nothing to refuse")
        };
        assert_eq!((taken, minor), (offered.without(InitFlags::POSIX_ACL), 40));
        let (header, body) = abi::OutHeader::read_from_prefix(&answer).expect("a header");
        let out = abi::InitOut::read_from_bytes(body).expect("all of it");
        assert_eq!((header.len as usize, header.error, header.unique), (answer.len(), 0, 1));
        assert_eq!((out.flags, out.flags2), (taken.0 as u32, (taken.0 >> 32) as u32));
        assert_eq!((out.max_write, out.max_pages, out.congestion_threshold), (1 << 20, 256, 48));
    }

    #[test]
    fn without_what_is_needed_there_is_no_talking() {
        let refused = |hello| matches!(accept(1, &hello, &OFFER), Handshake::Refused { .. });
        assert!(refused(hello(40, InitFlags::MAX_PAGES)));
        assert!(refused(hello(MINOR_MIN - 1, OFFER.required)));
        assert!(!refused(hello(MINOR_MIN, OFFER.required)));
        assert!(!refused(hello(u32::MAX, OFFER.required)));
    }

    #[test]
    fn a_kernel_of_a_later_major_version_asks_again() {
        let later = Hello { major: 8, ..hello(0, InitFlags::NONE) };
        assert!(matches!(accept(1, &later, &OFFER), Handshake::Again(_)));
    }
}
