//! Keys of what is not versioned: decisions, counters, held speculations, what is to be reclaimed.

use super::Committed;
use super::db::{Family, Writes};
use mojavefs::id::{BlockNo, ContentId, Ino, IntervalId, LayerId, Seq};
use mojavefs::protocol::file::Time;

/// The format's version number.
pub(super) const FORMAT: &[u8] = b"format";
/// Interval: when it became final, until its versions are merged.
pub(super) const DECISION: u8 = b'd';
/// Number: a held speculation.
pub(super) const HELD: u8 = b'h';
/// Inode: it has no name and is final.
pub(super) const ORPHAN: u8 = b'o';
/// Prefix of a key: some of its final versions may be of no use any more.
pub(super) const GARBAGE: u8 = b'g';
/// Snapshot and prefix of a key: a final version of it is kept for this snapshot.
pub(super) const KEPT: u8 = b'k';
/// Content and inode: a version of the inode that referred to it is gone.
pub(super) const DISCARDED: u8 = b'c';
/// Layer and block: no record refers to it any more.
pub(super) const UNUSED_BLOCK: u8 = b'u';
/// Content and layer: a content file, with the interval that wrote it.
pub(super) const LAYER: u8 = b'l';
/// Interval and layer: a content file of an undecided interval, with its content.
pub(super) const INTERVAL_LAYER: u8 = b'i';
/// The last number of what one decision has committed: all of it.
pub(super) const OUTCOME: u8 = b's';
/// Number: what has become part of a held speculation.
pub(super) const PARTS: u8 = b'p';
/// Of speculations up to this number only what is on record is known.
pub(super) const FORGOTTEN: &[u8] = b"forgotten";
/// File: what it was on the host when something was applied to it, if its record does not say that.
pub(super) const SIGNATURE: u8 = b'j';
/// Decision: it was applied to the host.
pub(super) const APPLIED: u8 = b'q';
/// When the last decision was made.
pub(super) const LAST_DECISION: &[u8] = b"time";
/// Name of a counter: up to where its numbers are handed out.
pub(super) const COUNTER: u8 = b'n';

/// A key of a tag and numbers.
pub(super) fn key<const N: usize>(tag: u8, numbers: [u64; N]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 8 * N);
    key.push(tag);
    numbers.iter().for_each(|number| key.extend_from_slice(&number.to_be_bytes()));
    key
}

/// The numbers of such a key.
pub(super) fn numbers<const N: usize>(key: &[u8]) -> Option<[u64; N]> {
    let rest = key.get(1..).filter(|rest| rest.len() == 8 * N)?;
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(rest.chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

/// The record of when something became final.
pub(super) fn decision(committed: Committed) -> Vec<u8> {
    [&committed.seq.0.to_be_bytes()[..], &time(committed.at), &[u8::from(committed.marks_modified)]].concat()
}

/// What such a record says. Before format 5 it had no time.
pub(super) fn decided(record: &[u8]) -> Option<Committed> {
    let (seq, at) = record.split_first_chunk::<8>()?;
    let (at, marks_modified) = match at.split_last() {
        None => (Time::default(), false),
        Some((marks_modified, at)) => (decided_at(at)?, *marks_modified != 0),
    };
    Some(Committed { seq: Seq(u64::from_be_bytes(*seq)), at, marks_modified })
}

/// The record of a time.
pub(super) fn time(at: Time) -> Vec<u8> {
    [&at.seconds.to_be_bytes()[..], &at.nanos.to_be_bytes()].concat()
}

/// What such a record says.
pub(super) fn decided_at(record: &[u8]) -> Option<Time> {
    let (seconds, nanos) = record.split_first_chunk::<8>()?;
    Some(Time { seconds: i64::from_be_bytes(*seconds), nanos: u32::from_be_bytes(nanos.try_into().ok()?) })
}

pub(super) fn orphan(ino: Ino) -> Vec<u8> {
    key(ORPHAN, [ino.0])
}

pub(super) fn discarded(content: ContentId, ino: Ino) -> Vec<u8> {
    key(DISCARDED, [content.0, ino.0])
}

pub(super) fn unused_block(layer: LayerId, block: BlockNo) -> Vec<u8> {
    key(UNUSED_BLOCK, [layer.0, block.0])
}

pub(super) fn garbage(prefix: &[u8]) -> Vec<u8> {
    let mut key = vec![GARBAGE];
    key.extend_from_slice(prefix);
    key
}

pub(super) fn kept(snapshot: Seq, prefix: &[u8]) -> Vec<u8> {
    let mut key = key(KEPT, [snapshot.0]);
    key.extend_from_slice(prefix);
    key
}

/// The snapshot and the prefix of such a record.
pub(super) fn kept_for(key: &[u8]) -> Option<(Seq, &[u8])> {
    let (seq, prefix) = key.get(1..)?.split_first_chunk::<8>()?;
    Some((Seq(u64::from_be_bytes(*seq)), prefix))
}

/// The key of a change in the index of what intervals changed.
pub(super) fn change(interval: IntervalId, prefix: &[u8]) -> Vec<u8> {
    let mut key = interval.0.to_be_bytes().to_vec();
    key.extend_from_slice(prefix);
    key
}

/// Notes new content files and contents that lost a reference.
pub(super) fn note_content(
    writes: &mut Writes<'_>,
    layers: &[(ContentId, LayerId)],
    discards: &[(ContentId, Ino)],
    writer: IntervalId,
) {
    for (content, layer) in layers {
        writes.put(Family::Meta, &key(LAYER, [content.0, layer.0]), &writer.0.to_be_bytes());
        if writer != IntervalId::FINAL {
            writes.put(Family::Meta, &key(INTERVAL_LAYER, [writer.0, layer.0]), &content.0.to_be_bytes());
        }
    }
    for (content, ino) in discards {
        writes.wait(discarded(*content, *ino));
    }
}
