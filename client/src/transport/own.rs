//! Our own transport.

use super::requests::Requests;
use crate::limits::FUSE_THREADS;
use mojavefs_fuse::protocol::Request;
use mojavefs_fuse::{Connection, Handler, Replier, Settings};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Handler for Requests {
    fn handle(&self, request: Request<'_>, reply: Replier) {
        self.carry_out(request, reply);
    }
}

/// Answers the kernel behind `device`, on threads of its own.
pub(super) fn start(device: OwnedFd, requests: Requests) -> io::Result<Connection> {
    let settings = Settings { offer: super::OFFER, threads: FUSE_THREADS, name: "mojavefs-fuse" };
    Connection::start(device, &settings, Arc::new(requests))
}
