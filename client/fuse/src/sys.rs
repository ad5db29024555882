//! System calls that the standard library has no words for.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

nix::ioctl_read!(
    /// `FUSE_DEV_IOC_CLONE`
    fuse_dev_ioc_clone,
    229,
    0,
    u32
);

/// One more descriptor of a connection, with requests of its own: what is read from it is answered by it.
pub(crate) fn clone_device(device: &impl AsFd) -> io::Result<File> {
    let clone = File::options().read(true).write(true).open("/dev/fuse")?;
    let mut of = device.as_fd().as_raw_fd().cast_unsigned();
    // SAFETY: the kernel reads the number of a descriptor, which is open, from where the pointer leads to.
    unsafe { fuse_dev_ioc_clone(clone.as_raw_fd(), &mut of) }?;
    Ok(clone)
}
