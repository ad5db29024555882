//! Kernel requests <-> the operations of [`mojavefs_fs`], and nothing else.
//!
//! A transport brings requests ([`mojavefs_fuse::protocol::Request`]) and takes their answers ([`reply::Reply`]): our own ([`own`]), or
//! the crate fuser ([`fuser`]). Both lead to the same [`requests`], and through the same [`door`].

mod answers;
mod convert;
mod door;
mod fuser;
mod insiders;
mod listing;
mod own;
mod owners;
mod privileges;
mod reply;
mod requests;
mod serve;
mod signals;
mod slow;

pub(crate) use convert::believe_for;
pub(crate) use insiders::Insiders;
pub(crate) use serve::{Kernel, serve, serve_at};

use clap::ValueEnum;
use mojavefs::limits::IO_BYTES_MAX;
use mojavefs_fuse::protocol::{InitFlags, Offer};

/// By what kernels are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// Our own.
    #[default]
    Own,
    /// The crate fuser, which does not pass on all that kernels say.
    Fuser,
}

/// What is wanted of a kernel.
const OFFER: Offer = Offer {
    required: InitFlags::ASYNC_READ
        .and(InitFlags::BIG_WRITES)
        .and(InitFlags::PARALLEL_DIROPS)
        .and(InitFlags::DO_READDIRPLUS)
        .and(InitFlags::READDIRPLUS_AUTO)
        .and(InitFlags::CACHE_SYMLINKS)
        .and(InitFlags::HANDLE_KILLPRIV_V2)
        .and(InitFlags::POSIX_ACL)
        .and(InitFlags::DONT_MASK)
        .and(InitFlags::MAX_PAGES),
    wanted: InitFlags::EXPORT_SUPPORT
        .and(InitFlags::SETXATTR_EXT)
        .and(InitFlags::POSIX_LOCKS)
        .and(InitFlags::FLOCK_LOCKS),
    io_bytes: IO_BYTES_MAX as u32,
    background: crate::limits::BACKGROUND_REQUESTS_MAX,
};
