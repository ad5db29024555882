//! What things are called, for people.

use super::Coordinator;
use super::conflicts::Standing;
use crate::access::AccessKey;
use crate::store::{Sight, Store, StoreError};
use mojavefs::id::Ino;
use mojavefs::protocol::Conflict;
use std::collections::HashSet;

/// A path of an inode in a sight, from the root, without a leading slash; `None` if it has none there.
pub(super) fn path_of(store: &Store, sight: &Sight, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = ino;
    let mut seen = HashSet::new();
    while seen.insert(at) {
        if at == Ino::ROOT {
            names.reverse();
            return Ok(Some(names.join(&b'/')));
        }
        let Some(inode) = store.inode(sight, at)?.found else { return Ok(None) };
        let (parent, name) = inode.home;
        match store.entry(sight, parent, &name)?.found {
            Some(entry) if entry.ino == at => names.push(name),
            _ => match name_in(store, sight, parent, at)? {
                Some(name) => names.push(name),
                None => return Ok(None),
            },
        }
        at = parent;
    }
    // Two have moved directories into each other, and the sight shows both moves: they conflict.
    Ok(None)
}

/// The path by which the sight last knew an inode that somebody else removed, or moved away.
pub(super) fn last_path_of(store: &Store, sight: &Sight, ino: Ino) -> Vec<u8> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = ino;
    let mut seen = HashSet::new();
    while seen.insert(at) {
        if let Ok(Some(dir)) = path_of(store, sight, at) {
            names.reverse();
            return names.into_iter().fold(dir, |dir, name| join(&dir, &name));
        }
        let Ok(Some(inode)) = store.inode(sight, at).map(|inode| inode.found) else { break };
        names.push(inode.home.1);
        at = inode.home.0;
    }
    names.reverse();
    names.into_iter().fold(lost(at), |dir, name| join(&dir, &name))
}

impl Coordinator {
    /// The path of a directory, for people.
    pub(crate) fn directory_for_people(&self, sight: &Sight, ino: Ino) -> String {
        format!("/{}", String::from_utf8_lossy(&last_path_of(&self.store, sight, ino)))
    }
}

/// What stands for the path of a directory that is gone.
fn lost(ino: Ino) -> Vec<u8> {
    format!("(inode {ino})").into_bytes()
}

/// Whether nobody can say any more where a path was.
pub(super) fn is_lost(path: &[u8]) -> bool {
    path.starts_with(b"(inode ")
}

/// Another name of a file in the directory where it was last called something.
fn name_in(store: &Store, sight: &Sight, parent: Ino, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.entries(sight, parent, after.as_deref(), 1024)?.found;
        if let Some((name, _)) = page.iter().find(|(_, entry)| entry.ino == ino) {
            return Ok(Some(name.clone()));
        }
        match page.into_iter().last() {
            Some((name, _)) => after = Some(name),
            None => return Ok(None),
        }
    }
}

/// A name below a directory's path.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir.is_empty() {
        true => name.to_vec(),
        false => [dir, b"/", name].concat(),
    }
}

impl Coordinator {
    /// Conflicts with the paths of what they are about: as the speculation calls it, else as trunk does.
    pub(super) fn named(&self, sight: &Sight, standing: &Standing) -> Vec<Conflict> {
        let sights = [sight.clone(), Sight::trunk()];
        let mut conflicts: Vec<Conflict> = standing
            .clashes
            .iter()
            .map(|(key, changed)| {
                let (ino, name, what) = describe(key);
                let path = sights.iter().find_map(|sight| path_of(&self.store, sight, ino).ok().flatten());
                let path = path.unwrap_or_else(|| last_path_of(&self.store, sight, ino));
                let path = name.map_or_else(|| path.clone(), |name| join(&path, name));
                Conflict { path, what: what.to_owned(), changed: *changed, in_use: None }
            })
            .collect();
        conflicts.sort();
        conflicts.dedup();
        conflicts
    }
}

/// What is said of a conflict about what a name stands for.
pub(super) const NAME: &str = "name";

pub(super) fn describe(key: &AccessKey) -> (Ino, Option<&[u8]>, &'static str) {
    match key {
        AccessKey::Inode(ino) => (*ino, None, "content or attributes"),
        AccessKey::Entry(parent, name) => (*parent, Some(name), NAME),
        AccessKey::Listing(ino) => (*ino, None, "listing"),
        AccessKey::Place(ino) => (*ino, None, "place in the tree"),
        AccessKey::Xattr(ino, _) | AccessKey::XattrList(ino) => (*ino, None, "extended attributes"),
    }
}
