//! Which inodes a kernel knows, and how often it was told of each.

use crate::deliveries::{self, Deliveries};
use crate::patience;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Connection, FsOp, NoticeSink, Reply, Request};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;

const SHARDS: usize = 16;

/// A session that counts what it gives to a kernel, as the kernel does. It lies below those that wait for others: what waits
/// there is in nobody's way here.
pub(crate) struct KernelCache {
    server: Arc<dyn Connection>,
    /// Held shared while a kernel is being given an inode, exclusively while one is forgotten: the server must not hear
    /// of a forget after a later lookup.
    giving: RwLock<()>,
    shards: [Mutex<HashMap<Ino, u64>>; SHARDS],
    deliveries: Arc<Deliveries>,
}

impl KernelCache {
    pub(crate) fn new(server: Arc<dyn Connection>) -> Self {
        KernelCache { server, giving: RwLock::default(), shards: Default::default(), deliveries: Arc::default() }
    }

    /// The answers that the kernel is about to be given.
    pub(crate) fn deliveries(&self) -> &Deliveries {
        &self.deliveries
    }

    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, u64>> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }

    pub(crate) fn add(&self, ino: Ino) {
        *self.shard(ino).lock().entry(ino).or_insert(0) += 1;
    }

    /// True if the kernel knows it no more.
    fn drop(&self, ino: Ino, times: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(count) = shard.get_mut(&ino) else { return false };
        *count = count.saturating_sub(times);
        let gone = *count == 0;
        if gone {
            shard.remove(&ino);
        }
        gone
    }

    /// All that the kernel knows.
    pub(crate) fn all(&self) -> Vec<Ino> {
        self.shards.iter().flat_map(|shard| shard.lock().keys().copied().collect::<Vec<Ino>>()).collect()
    }

    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.shard(ino).lock().contains_key(&ino)
    }

    /// The kernel has dropped inodes, each so many times: `tell` says so to the server of those that it knows no more, on
    /// this session.
    pub(crate) fn forget(&self, inos: impl Iterator<Item = (Ino, u64)>, tell: impl Fn(&dyn Connection, &[Ino])) {
        let _nobody_is_given = self.giving.write();
        let gone: Vec<Ino> = inos.filter(|(ino, times)| self.drop(*ino, *times)).map(|(ino, _)| ino).collect();
        tell(&*self.server, &gone);
    }

    /// Asks, for a kernel, for something that it may keep. Who is refused because it has to wait gives nothing of what it has found.
    fn ask(&self, request: Request<'_>) -> Result<Reply, Fault> {
        if patience::asks_for_kernel() && may_be_kept(&request) {
            self.deliveries.begin();
        }
        let reply = self.server.call(request);
        if reply.as_ref().is_err_and(has_to_wait) {
            deliveries::forget();
        }
        reply
    }
}

/// Whoever is refused so waits for others.
pub fn has_to_wait(fault: &Fault) -> bool {
    fault.kind.has_to_wait()
}

fn gives(request: &Request<'_>) -> bool {
    let Request::Fs { op, .. } = request else { return false };
    matches!(
        op,
        FsOp::Lookup { .. }
            | FsOp::LookupInode { .. }
            | FsOp::Glance { .. }
            | FsOp::GlanceNamed { .. }
            | FsOp::Create { .. }
            | FsOp::CreateUnnamed { .. }
            | FsOp::Link { .. }
    )
}

fn may_be_kept(request: &Request<'_>) -> bool {
    let Request::Fs { op, .. } = request else { return false };
    let is_kept = matches!(
        op,
        FsOp::GetAttr { .. }
            | FsOp::GlanceAt { .. }
            | FsOp::SetAttr { .. }
            | FsOp::Read { .. }
            | FsOp::ReadLink { .. }
            | FsOp::ReadDir { .. }
            | FsOp::GetXattr { .. }
    );
    is_kept || gives(request)
}

impl Connection for KernelCache {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        if !gives(&request) {
            return self.ask(request);
        }
        let _giving = self.giving.read();
        let reply = self.ask(request)?;
        match &reply {
            Reply::Attr { attr, .. } => self.add(attr.ino),
            Reply::Glanced(found) => found.iter().flatten().for_each(|(attr, _)| self.add(attr.ino)),
            _ => {}
        }
        Ok(reply)
    }

    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>) {
        self.server.set_notice_sink(sink);
    }

    fn is_embedded(&self) -> bool {
        self.server.is_embedded()
    }
}
