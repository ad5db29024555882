//! How many connections each user has to the control socket: they cost the daemon threads and descriptors.

use crate::limits::{CONNECTIONS_PER_USER_MAX, CONNECTIONS_SHARE};
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Who has how many.
pub(super) struct Quota {
    taken: Mutex<HashMap<u32, u64>>,
    most: u64,
}

/// One connection's, given back when it is dropped.
pub(super) struct Share {
    quota: Arc<Quota>,
    uid: u32,
}

impl Quota {
    /// As many as the descriptors of this process allow.
    pub(super) fn new() -> Arc<Self> {
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(now, _)| now);
        let most = (descriptors / CONNECTIONS_SHARE).clamp(1, CONNECTIONS_PER_USER_MAX);
        Arc::new(Quota { taken: Mutex::default(), most })
    }

    /// One more for a user; root may have any number.
    pub(super) fn take(self: &Arc<Self>, uid: u32) -> Result<Share, Fault> {
        let mut taken = self.taken.lock();
        let count = taken.entry(uid).or_insert(0);
        if uid != 0 && *count >= self.most {
            let text = format!(
                "user {uid} has {count} connections to the daemon, the most that it allows; try again when some of the \
                 user's jobs have ended"
            );
            return Err(Fault::new(FaultKind::Busy, text));
        }
        *count += 1;
        Ok(Share { quota: self.clone(), uid })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.quota.taken.lock();
        if let Some(count) = taken.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

/// Lets this process have as many descriptors as it may.
pub(super) fn raise_descriptors() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
