//! A filesystem as one view has it, naively: copied whole, changed one operation at a time.

use super::op::{Answer, Op, Shown};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::FaultKind;
use mojavefs::protocol::file::{FileKind, Name};
use mojavefs::protocol::{RenameMode, XattrMode};
use std::collections::BTreeMap;

const DIRECTORY_BYTES: u64 = 4096;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    kind: FileKind,
    mode: u32,
    size: u64,
    target: Vec<u8>,
    xattrs: BTreeMap<Name, Vec<u8>>,
    pub(crate) entries: BTreeMap<Name, Ino>,
}

#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: BTreeMap<Ino, Node>,
}

type Found = Result<Answer, FaultKind>;

fn node(kind: FileKind) -> Node {
    let (mode, size, target) = match kind {
        FileKind::Directory => (0o644, DIRECTORY_BYTES, &b""[..]),
        FileKind::Symlink => (0o777, 10, &b"some/where"[..]),
        _ => (0o644, 0, &b""[..]),
    };
    Node { kind, mode, size, target: target.to_vec(), xattrs: BTreeMap::new(), entries: BTreeMap::new() }
}

impl Tree {
    pub(crate) fn new() -> Self {
        let root = Node { mode: 0o755, ..node(FileKind::Directory) };
        Tree { nodes: BTreeMap::from([(Ino::ROOT, root)]) }
    }

    pub(crate) fn dirs(&self) -> Vec<Ino> {
        self.nodes.iter().filter(|(_, node)| node.kind == FileKind::Directory).map(|(ino, _)| *ino).collect()
    }

    /// What `stat` shows as the number of links.
    pub(crate) fn links(&self, ino: Ino) -> u32 {
        let named =
            |ino: Ino| self.nodes.values().flat_map(|node| node.entries.values()).filter(|i| **i == ino).count();
        let node = &self.nodes[&ino];
        match node.kind {
            FileKind::Directory => {
                2 + node.entries.values().filter(|i| self.nodes[*i].kind == FileKind::Directory).count() as u32
            }
            _ => named(ino) as u32,
        }
    }

    /// Does what `op` does, or says why not. `answer` is the server's: it chose the number of a new file.
    pub(crate) fn play(&mut self, op: &Op, answer: &Answer) -> Answer {
        let new = match answer {
            Answer::Shown(shown) => shown.ino,
            _ => Ino(0),
        };
        self.apply(op, new).unwrap_or_else(Answer::Refused)
    }

    fn node(&mut self, ino: Ino) -> Result<&mut Node, FaultKind> {
        self.nodes.get_mut(&ino).ok_or(FaultKind::NotFound)
    }

    fn entry(&mut self, dir: Ino, name: &[u8]) -> Result<Option<Ino>, FaultKind> {
        Ok(self.node(dir)?.entries.get(name).copied())
    }

    fn is_dir(&self, ino: Ino) -> bool {
        self.nodes.get(&ino).is_some_and(|node| node.kind == FileKind::Directory)
    }

    fn shown(&self, ino: Ino) -> Answer {
        let node = &self.nodes[&ino];
        let links = (node.kind != FileKind::Directory).then(|| self.links(ino));
        Answer::Shown(Shown { ino, kind: node.kind, mode: node.mode, size: node.size, links })
    }

    fn apply(&mut self, op: &Op, new: Ino) -> Found {
        match op {
            Op::Create { dir, name, kind } => {
                self.require_free(*dir, name)?;
                self.nodes.insert(new, node(*kind));
                self.node(*dir)?.entries.insert(name.clone(), new);
                Ok(self.shown(new))
            }
            Op::CreateAndName { dir, name } => {
                let created = Op::Create { dir: *dir, name: name.clone(), kind: FileKind::Regular };
                self.apply(&created, new)
            }
            Op::Link { ino, dir, name } => {
                self.node(*ino)?;
                if self.is_dir(*ino) {
                    return Err(FaultKind::NotPermitted);
                }
                self.require_free(*dir, name)?;
                self.node(*dir)?.entries.insert(name.clone(), *ino);
                Ok(self.shown(*ino))
            }
            Op::Unlink { dir, name } | Op::RemoveDir { dir, name } => {
                let ino = self.entry(*dir, name)?.ok_or(FaultKind::NotFound)?;
                match (op, self.is_dir(ino)) {
                    (Op::Unlink { .. }, true) => return Err(FaultKind::IsDirectory),
                    (Op::RemoveDir { .. }, false) => return Err(FaultKind::NotDirectory),
                    _ => self.require_empty(ino)?,
                }
                self.node(*dir)?.entries.remove(name);
                self.forget(ino);
                Ok(Answer::Done)
            }
            Op::Rename { dir, name, to, new, mode } => self.rename((*dir, name), (*to, new), *mode),
            Op::List { dir } => {
                let entries = self.node(*dir)?.entries.clone();
                Ok(Answer::Entries(entries.into_iter().map(|(n, i)| (n, (i, self.nodes[&i].kind))).collect()))
            }
            Op::Lookup { dir, name } => {
                let found = self.entry(*dir, name)?.ok_or(FaultKind::NotFound)?;
                Ok(self.shown(found))
            }
            _ => self.attributes(op),
        }
    }

    fn attributes(&mut self, op: &Op) -> Found {
        match op {
            Op::Chmod { ino, mode } => {
                self.node(*ino)?.mode = *mode;
                Ok(self.shown(*ino))
            }
            Op::Resize { ino, size } => {
                let node = self.node(*ino)?;
                match node.kind {
                    FileKind::Regular => node.size = *size,
                    FileKind::Directory => return Err(FaultKind::IsDirectory),
                    _ => return Err(FaultKind::Invalid),
                }
                Ok(self.shown(*ino))
            }
            Op::SetXattr { ino, name, value, mode } => {
                let xattrs = &mut self.node(*ino)?.xattrs;
                match (mode, xattrs.contains_key(name)) {
                    (XattrMode::Create, true) => return Err(FaultKind::Exists),
                    (XattrMode::Replace, false) => return Err(FaultKind::NoAttribute),
                    _ => xattrs.insert(name.clone(), value.clone()),
                };
                Ok(Answer::Done)
            }
            Op::RemoveXattr { ino, name } => {
                self.node(*ino)?.xattrs.remove(name).map(|_| Answer::Done).ok_or(FaultKind::NoAttribute)
            }
            Op::GetXattr { ino, name } => {
                let found = self.node(*ino)?.xattrs.get(name).cloned();
                found.map(Answer::Bytes).ok_or(FaultKind::NoAttribute)
            }
            Op::ListXattr { ino } => Ok(Answer::Names(self.node(*ino)?.xattrs.keys().cloned().collect())),
            Op::ReadLink { ino } => {
                let node = self.node(*ino)?;
                let is_link = node.kind == FileKind::Symlink;
                is_link.then(|| Answer::Bytes(node.target.clone())).ok_or(FaultKind::Invalid)
            }
            Op::Stat { ino } => self.node(*ino).map(drop).map(|()| self.shown(*ino)),
            _ => unreachable!("it is about names"),
        }
    }

    fn require_free(&mut self, dir: Ino, name: &[u8]) -> Result<(), FaultKind> {
        match self.entry(dir, name)? {
            Some(_) => Err(FaultKind::Exists),
            None => Ok(()),
        }
    }

    fn require_empty(&self, ino: Ino) -> Result<(), FaultKind> {
        match self.nodes[&ino].entries.is_empty() {
            true => Ok(()),
            false => Err(FaultKind::NotEmpty),
        }
    }

    /// Refuses a directory above `dir`, or `dir` itself.
    fn require_outside(&self, moved: Ino, dir: Ino) -> Result<(), FaultKind> {
        let mut below = vec![moved];
        while let Some(at) = below.pop() {
            if at == dir {
                return Err(FaultKind::Invalid);
            }
            below.extend(self.nodes[&at].entries.values());
        }
        Ok(())
    }

    /// A file goes with its last name.
    fn forget(&mut self, ino: Ino) {
        if !self.nodes.values().any(|node| node.entries.values().any(|named| *named == ino)) {
            self.nodes.remove(&ino);
        }
    }

    fn rename(&mut self, from: (Ino, &Name), to: (Ino, &Name), mode: RenameMode) -> Found {
        let source = self.entry(from.0, from.1)?.ok_or(FaultKind::NotFound)?;
        let target = self.entry(to.0, to.1)?;
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(FaultKind::Exists),
            (RenameMode::Exchange, None) => return Err(FaultKind::NotFound),
            (_, Some(target)) if target == source => return Ok(Answer::Done),
            _ => {}
        }
        self.require_outside(source, to.0)?;
        match target {
            Some(target) if mode == RenameMode::Exchange => {
                self.require_outside(target, from.0)?;
                self.node(from.0)?.entries.insert(from.1.clone(), target);
            }
            target => {
                if let Some(target) = target {
                    match (self.is_dir(source), self.is_dir(target)) {
                        (true, false) => return Err(FaultKind::NotDirectory),
                        (false, true) => return Err(FaultKind::IsDirectory),
                        _ => self.require_empty(target)?,
                    }
                }
                self.node(from.0)?.entries.remove(from.1);
            }
        }
        self.node(to.0)?.entries.insert(to.1.clone(), source);
        target.into_iter().for_each(|target| self.forget(target));
        Ok(Answer::Done)
    }
}
