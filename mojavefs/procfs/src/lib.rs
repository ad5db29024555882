//! Readers of `/proc` that allocate nothing, and the system calls under them.
//!
//! Who puts the memory of a process back can use neither an allocator nor the C library: both keep what they know in that memory. All
//! that is here works on the caller's buffers.

mod call;
pub mod files;
pub mod locks;
pub mod maps;
pub mod process;

pub use call::{Errno, Result, call, checked, fd_arg};
