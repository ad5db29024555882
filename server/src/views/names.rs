//! Which names a kernel may believe something about, whether they are there or not: those that it has asked for. A kernel
//! drops names without a word, so that some are noted for longer than needed.

use crate::limits::{NAMES_MAX, NAMES_PER_DIRECTORY_MAX};
use mojavefs::id::Ino;
use mojavefs::protocol::file::Name;
use std::collections::{HashMap, HashSet};

/// The names that one kernel has asked for.
#[derive(Default)]
pub(crate) struct Names {
    directories: HashMap<Ino, Asked>,
    /// How many are noted one by one.
    count: usize,
}

/// What a kernel has asked for in one directory.
#[derive(Clone)]
pub(crate) enum Asked {
    These(HashSet<Name>),
    /// Too many to note them: any name.
    Any,
}

impl Asked {
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        match self {
            Asked::These(names) => names.contains(name),
            Asked::Any => true,
        }
    }
}

impl Names {
    /// The kernel asks for a name, or gives it to something.
    pub(crate) fn note(&mut self, parent: Ino, name: &[u8]) {
        let asked = self.directories.entry(parent).or_insert_with(|| Asked::These(HashSet::new()));
        let Asked::These(names) = asked else { return };
        if names.contains(name) {
            return;
        }
        if names.len() >= NAMES_PER_DIRECTORY_MAX || self.count >= NAMES_MAX {
            self.count -= names.len();
            *asked = Asked::Any;
            return;
        }
        names.insert(name.to_vec());
        self.count += 1;
    }

    /// The kernel has taken a name away itself, and believes nothing about it any more.
    pub(crate) fn drop_one(&mut self, parent: Ino, name: &[u8]) {
        if let Some(Asked::These(names)) = self.directories.get_mut(&parent)
            && names.remove(name)
        {
            self.count -= 1;
        }
    }

    /// The kernel has forgotten a directory, and so every name in it.
    pub(crate) fn drop_all(&mut self, parent: Ino) {
        if let Some(Asked::These(names)) = self.directories.remove(&parent) {
            self.count -= names.len();
        }
    }

    /// Whether the kernel may believe something about a name.
    pub(crate) fn has(&self, parent: Ino, name: &[u8]) -> bool {
        self.directories.get(&parent).is_some_and(|asked| asked.has(name))
    }

    /// The directories in which it has asked for names.
    pub(crate) fn directories(&self) -> Vec<Ino> {
        self.directories.keys().copied().collect()
    }

    /// What it has asked for in a directory.
    pub(crate) fn asked_in(&self, parent: Ino) -> Option<Asked> {
        self.directories.get(&parent).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_from_when_they_are_asked_for_until_they_or_their_directory_go() {
        let (mut names, dir, other) = (Names::default(), Ino(7), Ino(8));
        names.note(dir, b"a");
        names.note(dir, b"b");
        names.note(other, b"a");
        assert!(names.has(dir, b"a") && names.has(dir, b"b") && !names.has(dir, b"c") && !names.has(other, b"b"));
        names.drop_one(dir, b"a");
        assert!(!names.has(dir, b"a") && names.has(other, b"a"));
        names.drop_all(dir);
        assert!(!names.has(dir, b"b"));
        assert_eq!((names.directories(), names.count), (vec![other], 1));
    }

    #[test]
    fn where_too_many_were_asked_for_any_may_be_known_and_none_takes_space() {
        let (mut names, dir, other) = (Names::default(), Ino(7), Ino(8));
        names.note(other, b"a");
        for number in 0..=NAMES_PER_DIRECTORY_MAX {
            names.note(dir, number.to_string().as_bytes());
        }
        assert!(names.has(dir, b"never asked for") && !names.has(other, b"never asked for"));
        assert_eq!(names.count, 1);
        names.drop_one(dir, b"1");
        assert!(names.has(dir, b"1"));
        names.drop_all(dir);
        assert!(!names.has(dir, b"1"));
        names.note(dir, b"1");
        assert!(names.has(dir, b"1") && !names.has(dir, b"2"));
    }
}
