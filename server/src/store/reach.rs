//! Which versions some view can reach: said from what views see, and not from how the rest is removed, so that a check finds
//! what was forgotten.

use super::record::{self, Inode};
use super::versions::Version;
use super::{Decided, Key, StoreError};
use mojavefs::id::{IntervalId, Seq};
use std::cmp::Reverse;

/// Who looks at a store.
pub(super) struct Reach<'a> {
    pub(super) decided: &'a Decided,
    /// Whether an interval that is not committed is undecided.
    pub(super) is_live: &'a dyn Fn(IntervalId) -> bool,
    /// Up to where views see what is final, besides those of all of it.
    pub(super) snapshots: &'a [Seq],
}

/// The versions of one key, newest first, by whether a view can reach them.
#[derive(Default)]
pub(super) struct Sorted<'v> {
    pub(super) reached: Vec<&'v Version>,
    /// No view can reach them any more.
    pub(super) unreachable: Vec<&'v Version>,
}

impl Reach<'_> {
    pub(super) fn sort<'v>(&self, key: &Key, versions: &'v [Version]) -> Result<Sorted<'v>, StoreError> {
        let mut sorted = Sorted::default();
        let mut last: Vec<(Seq, &Version)> = Vec::new();
        let mut undecided = false;
        for version in versions {
            let interval = version.order.interval();
            let seq = interval.map_or(version.order.seq(), |interval| {
                self.decided.committed.get(&interval).map(|committed| committed.seq)
            });
            match (seq, interval) {
                (Some(seq), _) => last.push((seq, version)),
                (None, Some(interval)) if (self.is_live)(interval) => {
                    undecided = true;
                    sorted.reached.push(version);
                }
                (None, _) => sorted.unreachable.push(version),
            }
        }
        // The newest of one commit stays the first.
        last.sort_by_key(|(seq, _)| Reverse(*seq));
        let mut newer: Option<Seq> = None;
        for (seq, version) in last {
            // Of a directory's record it holds a part only.
            let is_part = matches!(key, Key::DirStat(_)) && version.order.interval().is_some();
            let is_reached = match newer {
                _ if is_part => true,
                // What is gone must be hidden from nobody, and nobody is to be told that it was there.
                None => record::payload(&version.stored)?.is_some() || undecided || self.is_any_before(seq),
                Some(newer) => self.snapshots.iter().any(|at| seq <= *at && *at < newer),
            };
            match is_reached {
                true => sorted.reached.push(version),
                false => sorted.unreachable.push(version),
            }
            if !is_part {
                newer = Some(seq);
            }
        }
        Ok(sorted)
    }

    fn is_any_before(&self, seq: Seq) -> bool {
        self.snapshots.iter().any(|at| *at < seq)
    }
}

/// The inodes among versions of one that are there.
pub(super) fn inodes(versions: &[&Version]) -> Result<Vec<Inode>, StoreError> {
    let payloads = versions.iter().filter_map(|version| record::payload(&version.stored).transpose());
    payloads.map(|payload| record::decode(payload?)).collect()
}
