//! A directory of the host, as plainly as can be: what is in it, and what each change makes of it.

use crate::words::words;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

words! {
    /// A kind of change.
    // Their names say what they do.
    #[allow(missing_docs)]
    pub enum Kind {
        /// The bytes of a file, which may be new: others than they were, or more.
        Write "write",
        Append "append",
        /// A new file is renamed over a name.
        Replace "replace",
        Remove "remove",
        RemoveTree "remove-tree",
        MakeDir "mkdir",
        Symlink "symlink",
        Fifo "fifo",
        HardLink "link",
        Move "move",
        Chmod "chmod",
        Attribute "attribute",
    }
}

/// A change of one name: with a text, a target, another name, permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it does.
    pub kind: Kind,
    /// To what.
    pub path: String,
    /// With what; `-` if that is nothing.
    pub with: String,
}

/// What a file is, but for its names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A regular file with this text.
    File(String),
    /// A directory.
    Directory,
    /// A link to this.
    Symlink(String),
    /// A fifo.
    Fifo,
}

/// A file of any kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// What it is.
    pub what: What,
    /// Its permissions; a link has none.
    pub mode: u32,
    /// The extended attribute `user.a`, if it has that.
    pub attribute: Option<String>,
}

/// Tells files apart, whatever their names.
pub type Id = u64;

/// All that is in a directory.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// What its names lead to.
    pub names: BTreeMap<String, Id>,
    /// What that is.
    pub objects: BTreeMap<Id, Object>,
}

/// The directory in which a name lies.
fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

/// Whether a path is another one, or lies below it.
pub fn is_within(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Tree {
    /// What a name leads to.
    pub fn at(&self, path: &str) -> Option<&Object> {
        self.objects.get(self.names.get(path)?)
    }

    /// The text of a file.
    pub fn text(&self, path: &str) -> Option<&str> {
        match &self.at(path)?.what {
            What::File(text) => Some(text),
            _ => None,
        }
    }

    /// What tells files apart by what is in them: texts, and where links lead.
    pub fn contents(&self) -> BTreeSet<String> {
        self.names.keys().filter_map(|path| self.content(path)).collect()
    }

    /// The same of one name.
    pub fn content(&self, path: &str) -> Option<String> {
        match &self.at(path)?.what {
            What::File(text) => Some(text.clone()),
            What::Symlink(target) => Some(format!("-> {target}")),
            What::Directory | What::Fifo => None,
        }
    }

    /// All names that lead to the same file.
    pub fn names_of(&self, id: Id) -> impl Iterator<Item = &String> {
        self.names.iter().filter(move |(_, other)| **other == id).map(|(path, _)| path)
    }

    /// A name in words; equal where all that can be seen is.
    pub fn shown(&self, path: &str) -> Option<String> {
        let id = self.names.get(path)?;
        let Object { what, mode, attribute } = &self.objects[id];
        let others: Vec<_> = self.names_of(*id).filter(|other| *other != path).collect();
        let others = if others.is_empty() { String::new() } else { format!(" same as {others:?}") };
        Some(format!("{what:?} {mode:o} {attribute:?}{others}"))
    }

    fn make(&mut self, path: &str, what: What) {
        let mode = match what {
            What::File(_) | What::Fifo => 0o644,
            What::Directory => 0o755,
            What::Symlink(_) => 0,
        };
        let id = self.objects.keys().last().map_or(1, |last| last + 1);
        self.objects.insert(id, Object { what, mode, attribute: None });
        self.names.insert(path.to_owned(), id);
    }

    fn is_directory(&self, path: &str) -> bool {
        path.is_empty() || self.at(path).is_some_and(|object| object.what == What::Directory)
    }

    /// Whether something can be made at a name, or put there in place of what is no directory.
    fn is_free(&self, path: &str, or_other: bool) -> bool {
        let is_free = self.at(path).is_none() || (or_other && !self.is_directory(path));
        is_free && self.is_directory(above(path))
    }

    /// Makes a change. Whether it could be made; else nothing has changed.
    pub fn change(&mut self, change: &Change) -> bool {
        let Change { kind, path, with } = change;
        let line = format!("{with}\n");
        let is_file = self.text(path).is_some();
        let can = match kind {
            Kind::Write => is_file || self.is_free(path, false),
            Kind::Append => is_file,
            Kind::Replace => self.is_free(path, true),
            Kind::Remove => self.at(path).is_some() && !self.is_directory(path),
            Kind::RemoveTree => self.at(path).is_some() && self.is_directory(path),
            Kind::MakeDir | Kind::Symlink | Kind::Fifo => self.is_free(path, false),
            Kind::HardLink => is_file && self.is_free(with, false),
            Kind::Move => self.can_move(path, with),
            Kind::Chmod => self.at(path).is_some_and(|object| !matches!(object.what, What::Symlink(_))),
            Kind::Attribute => is_file || (self.at(path).is_some() && self.is_directory(path)),
        };
        if !can {
            return false;
        }
        match kind {
            Kind::Write if is_file => self.object(path).what = What::File(line),
            Kind::Write | Kind::Replace => self.make(path, What::File(line)),
            Kind::Append => {
                let text = self.text(path).unwrap_or_default().to_owned() + &line;
                self.object(path).what = What::File(text);
            }
            Kind::Remove => drop(self.names.remove(path)),
            Kind::RemoveTree => self.names.retain(|name, _| !is_within(name, path)),
            Kind::MakeDir => self.make(path, What::Directory),
            Kind::Symlink => self.make(path, What::Symlink(with.clone())),
            Kind::Fifo => self.make(path, What::Fifo),
            Kind::HardLink => drop(self.names.insert(with.clone(), self.names[path])),
            Kind::Move => self.rename(path, with),
            Kind::Chmod => self.object(path).mode = u32::from_str_radix(with, 8).unwrap_or(0o644),
            Kind::Attribute => self.object(path).attribute = Some(with.clone()),
        }
        true
    }

    fn object(&mut self, path: &str) -> &mut Object {
        self.objects.get_mut(&self.names[path]).expect("a name leads to something")
    }

    fn can_move(&self, from: &str, to: &str) -> bool {
        let Some(id) = self.names.get(from) else { return false };
        let is_other = self.names.get(to) != Some(id);
        is_other && !is_within(to, from) && self.is_free(to, !self.is_directory(from))
    }

    fn rename(&mut self, from: &str, to: &str) {
        let moved: Vec<String> = self.names.keys().filter(|name| is_within(name, from)).cloned().collect();
        for name in moved {
            let id = self.names.remove(&name).expect("it was there just now");
            self.names.insert(format!("{to}{}", &name[from.len()..]), id);
        }
    }
}

impl Change {
    /// Every name that it is about.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let second = matches!(self.kind, Kind::HardLink | Kind::Move).then_some(self.with.as_str());
        std::iter::once(self.path.as_str()).chain(second)
    }

    /// Whether a name may be gone by it.
    pub fn takes_away(&self, path: &str) -> bool {
        matches!(self.kind, Kind::Remove | Kind::RemoveTree | Kind::Move) && is_within(path, &self.path)
    }

    /// The same for a shell, which changes nothing and fails where this can't be done.
    pub fn script(&self) -> String {
        let Change { kind, path, with } = self;
        match kind {
            Kind::Write => format!("[ ! -L {path} ] && [ ! -p {path} ] && echo {with} > {path}"),
            Kind::Append => format!("[ -f {path} ] && [ ! -L {path} ] && echo {with} >> {path}"),
            Kind::Replace => format!("echo {with} > .{with} && mv -fT .{with} {path} || {{ rm -f .{with}; false; }}"),
            Kind::Remove => format!("unlink {path}"),
            Kind::RemoveTree => format!("[ ! -L {path} ] && [ -d {path} ] && rm -r {path}"),
            Kind::MakeDir => format!("mkdir {path}"),
            Kind::Symlink => format!("ln -sT {with} {path}"),
            Kind::Fifo => format!("mkfifo {path}"),
            Kind::HardLink => format!("[ -f {path} ] && [ ! -L {path} ] && ln -T {path} {with}"),
            Kind::Move => format!("mv -fT {path} {with}"),
            Kind::Chmod => format!("[ ! -L {path} ] && chmod {with} {path}"),
            Kind::Attribute => format!("[ ! -p {path} ] && setfattr -h -n user.a -v {with} {path}"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.kind, self.path, self.with)
    }
}
