//! Locks on files.

use super::{About, Requests};
use crate::transport::reply::Reply;
use crate::transport::{answers, owners};
use mojavefs::protocol::{LockAsked, LockClass, LockMode, LockOwner, Span};
use mojavefs_fs::Call;
use mojavefs_fuse::protocol::{Answer, Lock, LockKind};

/// A lock as a kernel asks for it: for whom, and through which open file.
#[derive(Clone, Copy)]
pub(super) struct Asking {
    pub(super) handle: u64,
    pub(super) owner: u64,
    pub(super) lock: Lock,
    pub(super) flock: bool,
}

impl Asking {
    fn asked(&self) -> LockAsked {
        let class = if self.flock { LockClass::Whole } else { LockClass::Range };
        // Of processes and open files a kernel takes the last byte that there can be for the end.
        let last = if self.lock.end >= i64::MAX as u64 { u64::MAX } else { self.lock.end };
        LockAsked {
            owner: LockOwner { class, number: self.owner },
            handle: self.handle,
            pid: self.lock.pid,
            span: if self.flock { Span::ALL } else { Span { first: self.lock.start, last } },
            mode: match self.lock.kind {
                LockKind::Shared => Some(LockMode::Shared),
                LockKind::Exclusive => Some(LockMode::Exclusive),
                LockKind::None => None,
            },
        }
    }
}

impl Requests {
    pub(super) fn lock(&self, about: About, asking: &Asking, waits: bool, reply: impl Reply) {
        let asked = asking.asked();
        let is_process = asked.owner.class == LockClass::Range && asked.mode.is_some();
        if is_process && owners::is_closed_silently(asked.handle) {
            self.owners.watch(self.door.view(), asked.pid, asked.owner, about.ino);
        }
        self.answer(about, reply, move |call: &Call<'_>| answers::done(call.lock(about.ino, &asked, waits)));
    }

    pub(super) fn test_lock(&self, about: About, asking: &Asking, reply: impl Reply) {
        let (asked, wanted) = (asking.asked(), asking.lock);
        self.answer(about, reply, move |call: &Call<'_>| {
            let found = call.test_lock(about.ino, &asked)?;
            Ok(Answer::Lock(found.map_or(Lock { kind: LockKind::None, ..wanted }, |held| Lock {
                start: held.span.first,
                end: held.span.last.min(i64::MAX as u64),
                kind: match held.mode {
                    LockMode::Shared => LockKind::Shared,
                    LockMode::Exclusive => LockKind::Exclusive,
                },
                pid: held.pid,
            })))
        });
    }
}
