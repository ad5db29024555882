//! A session with the server, as whoever asks sees it.

use super::decision::{DiffPage, Outcome, SpecStatus};
use super::fault::{Fault, FaultKind};
use super::file::{Attr, Changed, Name};
use super::lock::LockHeld;
use super::message::{DirEntry, Reply, Request, SpaceInfo};
use super::notice::NoticeSink;
use super::view::OpenedView;
use crate::id::SpecId;
use std::sync::Arc;

/// A session with the server: requests out, answers back. Blocks until the answer is there, which waits for nobody else but where
/// a request says so: what would have to is refused ([`FaultKind::Sealed`], [`FaultKind::Undecided`], [`FaultKind::Checkpoint`])
/// and asked again later, by [`super::Rounds`] for one.
pub trait Connection: Send + Sync {
    /// Asks one thing.
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault>;

    /// Where notices for this session's views go from now on.
    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>);

    /// The only other party to this session's store is its own process: no other client can change it behind its back.
    fn is_embedded(&self) -> bool;
}

macro_rules! expect_reply {
    ($($(#[$doc:meta])* $method:ident -> $pattern:pat => $value:expr, $type:ty;)*) => {
        /// Typed answers: an answer of another kind than the request's is a protocol fault.
        pub trait ConnectionExt: Connection {
            $($(#[$doc])*
            fn $method<'a>(&self, request: impl Into<Request<'a>>) -> Result<$type, Fault> {
                match self.call(request.into())? {
                    $pattern => Ok($value),
                    other => Err(unexpected(&other)),
                }
            })*
        }
    };
}

expect_reply! {
    /// Asks for something that has no answer but success.
    done -> Reply::Done => (), ();
    /// Asks for attributes.
    attr -> Reply::Attr { attr, .. } => attr, Attr;
    /// Asks for attributes, and whether a kernel may keep them.
    given -> Reply::Attr { attr, lasts } => (attr, lasts), (Attr, bool);
    /// Asks for what names of a listing lead to.
    glanced -> Reply::Glanced(found) => found, Vec<Option<(Attr, bool)>>;
    /// Asks for bytes.
    data -> Reply::Data(data) => data, Vec<u8>;
    /// Asks for an offset or a count.
    offset -> Reply::Offset(offset) => offset, u64;
    /// Asks for a change of content.
    changed -> Reply::Changed(changed) => changed, Changed;
    /// Asks for a page of a directory, and whether it is the last.
    entries -> Reply::Entries { entries, end, .. } => (entries, end), (Vec<DirEntry>, bool);
    /// Asks for names.
    names -> Reply::Names(names) => names, Vec<Name>;
    /// Asks for space.
    space -> Reply::Space(space) => space, SpaceInfo;
    /// Asks for a view.
    view -> Reply::View(view) => view, OpenedView;
    /// Asks what is undecided.
    status -> Reply::Status(status) => status, Vec<SpecStatus>;
    /// Asks for a decision.
    outcome -> Reply::Outcome(outcome) => outcome, Outcome;
    /// Waits for something, for some time.
    ended -> Reply::Ended(ended) => ended, bool;
    /// Asks for a count.
    number -> Reply::Number(number) => number, u64;
    /// Asks for a lock; whether the view knows all that those who had it before have done.
    locked -> Reply::Locked { current } => current, bool;
    /// Asks what is in the way of a lock.
    obstacle -> Reply::Obstacle(held) => held, Option<LockHeld>;
    /// Asks for speculations.
    specs -> Reply::Specs(specs) => specs, Vec<SpecId>;
    /// Asks for changes.
    diff -> Reply::Diff(page) => page, DiffPage;
}

impl<C: Connection + ?Sized> ConnectionExt for C {}

fn unexpected(reply: &Reply) -> Fault {
    let text = format!("{reply:?}");
    let kind = text.split(['(', ' ', '{']).next().unwrap_or_default();
    Fault::new(FaultKind::Protocol, format!("the server answered with {kind}, which does not fit the request"))
}
