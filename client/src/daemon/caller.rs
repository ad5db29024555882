//! Who is at the other end of a control connection, by the kernel's word.

use crate::job::namespace::{self, MountNamespace};
use crate::sys;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials, sockopt::PeerPidfd};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The user and the process that connected, as they were then.
pub(super) struct Caller {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The other groups that the user is in.
    pub(super) groups: Vec<u32>,
    pub(super) pid: u32,
    /// Stands for the process: its number may come to mean another one.
    process: OwnedFd,
}

impl Caller {
    /// Whoever connected.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Caller> {
        let peer = getsockopt(stream, PeerCredentials)?;
        let process = getsockopt(stream, PeerPidfd)?;
        let groups = sys::peer_groups(stream.as_fd())?;
        Ok(Caller { uid: peer.uid(), gid: peer.gid(), groups, pid: peer.pid().cast_unsigned(), process })
    }

    /// A descriptor that stands for the process.
    pub(super) fn process(&self) -> io::Result<OwnedFd> {
        self.process.try_clone()
    }

    /// The mount namespace that the process is in, if it lives.
    pub(super) fn namespace(&self) -> Option<MountNamespace> {
        let namespace = namespace::of(self.pid).ok()?;
        // Nobody else had its number while that was looked up.
        (!sys::has_ended(&self.process)).then_some(namespace)
    }

    /// Whether the user is in a group.
    pub(super) fn is_in(&self, group: u32) -> bool {
        self.gid == group || self.groups.contains(&group)
    }
}
