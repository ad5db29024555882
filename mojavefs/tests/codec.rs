//! Bytes that others send: whatever they are, they are a message or refused, and take no memory that they do not fill.
//!
//! `PROPTEST_CASES=10000000 cargo nextest run --release -p mojavefs --test codec` goes on for hours.

#![allow(clippy::unwrap_used)]

use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::codec::{self, CodecError};
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{
    Admin, Caller, FsOp, Invalidation, JobInfo, Notice, OnRead, Reads, RenameMode, Reply, Request, Resolution, SpecOp,
    ViewKind, ViewOp,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Decoded, and encoded again: the same value has the same bytes.
fn again<'a, T: Deserialize<'a> + Serialize>(bytes: &'a [u8]) -> Result<(), CodecError> {
    let value: T = codec::decode(bytes)?;
    let first = codec::encode(&value).expect("what was decoded can be encoded");
    assert!(first.len() <= bytes.len(), "{} bytes became {}", bytes.len(), first.len());
    Ok(())
}

fn each(bytes: &[u8]) {
    // Refused or not, it comes back.
    let _ = again::<Request<'_>>(bytes);
    let _ = again::<Result<Reply, Fault>>(bytes);
    let _ = again::<Notice>(bytes);
    let _ = again::<Ask>(bytes);
    let _ = again::<Result<Answer, Fault>>(bytes);
}

/// Messages of every shape.
fn messages() -> Vec<Vec<u8>> {
    let (view, ino, spec) = (ViewId(1), Ino(300), SpecId(70_000));
    let kind = ViewKind::Job {
        parent: view,
        info: JobInfo::default(),
        on_read: OnRead::Join,
        own: Some(spec),
        restarts: None,
    };
    let requests = [
        ViewOp::Open(kind).into(),
        ViewOp::Undo { view, spec, actor: 7, drained: true }.into(),
        Admin::Search { anew: true }.into(),
        Admin::Identity.into(),
        SpecOp::Commit { spec, resolutions: vec![Resolution::Ours(b"a/b".to_vec())], touch: true }.by(0),
        FsOp::Lookup { parent: ino, name: b"name" }.on(view),
        FsOp::SetAttr { ino, set: SetAttr { mode: Some(0o600), size: Some(1 << 40), ..SetAttr::default() } }.on(view),
        FsOp::Create {
            parent: ino,
            name: b"new",
            kind: FileKind::Symlink,
            mode: 0o777,
            umask: 0o22,
            rdev: 3,
            target: b"to",
        }
        .of(view, Caller { pid: 0, uid: 1, gid: 2 }),
        FsOp::Rename { parent: ino, name: b"a", new_parent: ino, new_name: b"b", mode: RenameMode::Exchange }.on(view),
        FsOp::Read { ino, offset: 1 << 50, size: 4096, reads: Reads::Mapped }.on(view),
        FsOp::Write { ino, offset: 7, data: &[9; 300], append: true, clear_set_id: false, mapped: false }.on(view),
        FsOp::Forget { inos: vec![ino; 40] }.on(view),
    ];
    let replies =
        [Ok(Reply::Data(vec![7; 300])), Ok(Reply::Specs(vec![spec; 9])), Err(Fault::new(FaultKind::Io, "why"))];
    let entry = Invalidation::Entry { parent: ino, name: b"name".to_vec() };
    let notice = Notice::Forget { view, what: vec![entry, Invalidation::Inode(ino)], all_names: true };
    let ask =
        Ask::Speculation(SpecOp::Commit { spec, resolutions: vec![Resolution::Theirs(b"c".to_vec())], touch: false });
    let requests = requests.iter().map(|request| codec::encode(request).unwrap());
    let replies = replies.iter().map(|reply| codec::encode(reply).unwrap());
    requests.chain(replies).chain([codec::encode(&notice).unwrap(), codec::encode(&ask).unwrap()]).collect()
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        each(&bytes);
    }

    #[test]
    fn messages_that_were_changed_on_their_way_are_others_or_refused(
        which: prop::sample::Index,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut: prop::sample::Index,
    ) {
        let messages = messages();
        let mut bytes = which.get(&messages).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        each(&bytes);
        each(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn a_length_that_nothing_follows_takes_no_memory() {
    // Each byte of each message in turn says that eight bytes of a length follow.
    for message in messages() {
        for at in 0..message.len() {
            for length in [u64::MAX, 1 << 40, 1 << 33] {
                let mut bytes = message[..at].to_vec();
                bytes.push(253);
                bytes.extend(length.to_le_bytes());
                each(&bytes);
                bytes.extend_from_slice(&message[at..]);
                each(&bytes);
            }
        }
    }
}
