//! One operation, and asking the server for it.

use super::common::Client;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind, Name, SetAttr};
use mojavefs::protocol::{ConnectionExt, FsOp, RenameMode, Request, XattrMode};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Create {
        dir: Ino,
        name: Name,
        kind: FileKind,
    },
    /// Makes a file without a name, and gives it one, if that is free.
    CreateAndName {
        dir: Ino,
        name: Name,
    },
    Link {
        ino: Ino,
        dir: Ino,
        name: Name,
    },
    Unlink {
        dir: Ino,
        name: Name,
    },
    RemoveDir {
        dir: Ino,
        name: Name,
    },
    Rename {
        dir: Ino,
        name: Name,
        to: Ino,
        new: Name,
        mode: RenameMode,
    },
    Chmod {
        ino: Ino,
        mode: u32,
    },
    Resize {
        ino: Ino,
        size: u64,
    },
    SetXattr {
        ino: Ino,
        name: Name,
        value: Vec<u8>,
        mode: XattrMode,
    },
    RemoveXattr {
        ino: Ino,
        name: Name,
    },
    GetXattr {
        ino: Ino,
        name: Name,
    },
    ListXattr {
        ino: Ino,
    },
    List {
        dir: Ino,
    },
    Lookup {
        dir: Ino,
        name: Name,
    },
    Stat {
        ino: Ino,
    },
    ReadLink {
        ino: Ino,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    Refused(FaultKind),
    Bytes(Vec<u8>),
    Names(BTreeSet<Name>),
    Entries(BTreeMap<Name, (Ino, FileKind)>),
    Shown(Shown),
}

/// Of what `stat` shows, that which a job depends on: not how many subdirectories a directory has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) ino: Ino,
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) links: Option<u32>,
}

impl From<Attr> for Shown {
    fn from(attr: Attr) -> Self {
        let links = (attr.kind != FileKind::Directory).then_some(attr.nlink);
        Shown { ino: attr.ino, kind: attr.kind, mode: attr.mode, size: attr.size, links }
    }
}

impl Op {
    pub(crate) fn ask(&self, client: &Client, view: ViewId) -> Answer {
        self.request(client, view).unwrap_or_else(|fault| Answer::Refused(fault.kind))
    }

    fn request(&self, client: &Client, view: ViewId) -> Result<Answer, Fault> {
        let ask = client.ask();
        let shown = |attr: Attr| Answer::Shown(attr.into());
        match self {
            Op::Create { dir, name, kind } => client.create(view, *dir, name, *kind).map(shown),
            Op::CreateAndName { dir, name } => {
                let made = ask.attr(FsOp::CreateUnnamed { parent: *dir, mode: 0o666, umask: 0o022 }.on(view))?;
                assert_eq!(made.nlink, 0);
                ask.attr(FsOp::Link { ino: made.ino, parent: *dir, name }.on(view)).map(shown)
            }
            Op::Link { ino, dir, name } => ask.attr(FsOp::Link { ino: *ino, parent: *dir, name }.on(view)).map(shown),
            Op::Unlink { dir, name } => done(client, FsOp::Unlink { parent: *dir, name }.on(view)),
            Op::RemoveDir { dir, name } => done(client, FsOp::RemoveDir { parent: *dir, name }.on(view)),
            Op::Rename { dir, name, to, new, mode } => {
                let request = FsOp::Rename { parent: *dir, name, new_parent: *to, new_name: new, mode: *mode }.on(view);
                done(client, request)
            }
            Op::Chmod { ino, mode } => {
                let set = SetAttr { mode: Some(*mode), ..SetAttr::default() };
                ask.attr(FsOp::SetAttr { ino: *ino, set }.on(view)).map(shown)
            }
            Op::Resize { ino, size } => {
                let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                ask.attr(FsOp::SetAttr { ino: *ino, set }.on(view)).map(shown)
            }
            Op::SetXattr { ino, name, value, mode } => {
                done(client, FsOp::SetXattr { ino: *ino, name, value, mode: *mode, clear_set_gid: false }.on(view))
            }
            Op::RemoveXattr { ino, name } => done(client, FsOp::RemoveXattr { ino: *ino, name }.on(view)),
            Op::GetXattr { ino, name } => ask.data(FsOp::GetXattr { ino: *ino, name }.on(view)).map(Answer::Bytes),
            Op::ListXattr { ino } => {
                let names = ask.names(FsOp::ListXattr { ino: *ino }.on(view))?;
                Ok(Answer::Names(names.into_iter().collect()))
            }
            Op::List { dir } => list(client, view, *dir),
            Op::Lookup { dir, name } => ask.attr(FsOp::Lookup { parent: *dir, name }.on(view)).map(shown),
            Op::Stat { ino } => ask.attr(FsOp::GetAttr { ino: *ino }.on(view)).map(shown),
            Op::ReadLink { ino } => ask.data(FsOp::ReadLink { ino: *ino }.on(view)).map(Answer::Bytes),
        }
    }
}

fn done(client: &Client, request: Request<'_>) -> Result<Answer, Fault> {
    client.ask().done(request).map(|()| Answer::Done)
}

/// A whole directory, in small pages.
fn list(client: &Client, view: ViewId, ino: Ino) -> Result<Answer, Fault> {
    let mut all = BTreeMap::new();
    let mut after: Option<Name> = None;
    loop {
        let request = FsOp::ReadDir { ino, after: after.as_deref(), limit: 2 }.on(view);
        let (entries, end) = client.ask().entries(request)?;
        for entry in entries {
            after = Some(entry.name.clone());
            let twice = all.insert(entry.name, (entry.ino, entry.kind));
            assert_eq!(twice, None, "a name is listed twice");
        }
        if end {
            return Ok(Answer::Entries(all));
        }
    }
}
