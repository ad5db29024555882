//! A page of a directory.

use super::abi;
use super::answer::{Entry, entry};
use zerocopy::{FromBytes, IntoBytes};

/// The names of a page start at multiples of so many bytes.
const ALIGNED_BYTES: usize = 8;

/// As many entries as a kernel has room for, as it reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    bytes: Vec<u8>,
    room: usize,
    attributes: bool,
}

/// One entry of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its inode.
    pub ino: u64,
    /// Where the next one begins.
    pub next: u64,
    /// The upper four of its mode's 16 bits.
    pub kind: u32,
    /// Its name.
    pub name: &'a [u8],
}

impl Page {
    /// An empty one of so many bytes, whose entries have attributes or not.
    pub fn new(room: u32, attributes: bool) -> Self {
        Page { bytes: Vec::new(), room: room as usize, attributes }
    }

    /// Adds one without attributes, unless there is no room for it.
    pub fn add(&mut self, listed: &Listed<'_>) -> bool {
        self.add_behind(&[], listed)
    }

    /// Adds one with what it is, unless there is no room for it.
    pub fn add_with(&mut self, listed: &Listed<'_>, given: &Entry) -> bool {
        self.add_behind(entry(given).as_bytes(), listed)
    }

    fn add_behind(&mut self, given: &[u8], listed: &Listed<'_>) -> bool {
        let namelen = listed.name.len();
        let length = given.len() + (size_of::<abi::Dirent>() + namelen).next_multiple_of(ALIGNED_BYTES);
        if self.bytes.len() + length > self.room {
            return false;
        }
        let end = self.bytes.len() + length;
        let (ino, off, kind) = (listed.ino, listed.next, listed.kind);
        self.bytes.extend_from_slice(given);
        self.bytes.extend_from_slice(abi::Dirent { ino, off, namelen: namelen as u32, kind }.as_bytes());
        self.bytes.extend_from_slice(listed.name);
        self.bytes.resize(end, 0);
        true
    }

    /// What is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is in it, each with what it is if that is told.
    pub fn entries(&self) -> impl Iterator<Item = (Listed<'_>, Option<abi::EntryOut>)> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let given = match self.attributes {
                true => Some(take::<abi::EntryOut>(&mut rest)?),
                false => None,
            };
            let dirent = take::<abi::Dirent>(&mut rest)?;
            let (name, behind) = rest.split_at_checked(dirent.namelen as usize)?;
            let padding = (size_of::<abi::Dirent>() + name.len()).next_multiple_of(ALIGNED_BYTES)
                - size_of::<abi::Dirent>()
                - name.len();
            rest = behind.get(padding..)?;
            Some((Listed { ino: dirent.ino, next: dirent.off, kind: dirent.kind, name }, given))
        })
    }
}

fn take<T: FromBytes>(rest: &mut &[u8]) -> Option<T> {
    let (value, behind) = T::read_from_prefix(rest).ok()?;
    *rest = behind;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_what_was_added_as_long_as_there_is_room() {
        for attributes in [false, true] {
            let mut page = Page::new(400, attributes);
            let names: [&[u8]; 6] =
                [b"a", b"seven..", b"eight...", b"nine.....", b"", b"and much more than there is room for"];
            let added: Vec<Listed<'_>> = (0..6u64)
                .map(|at| Listed { ino: at + 1, next: at + 1, kind: 8, name: names[at as usize] })
                .take_while(|listed| match attributes {
                    true => page.add_with(listed, &Entry { node: listed.ino, ..Entry::default() }),
                    false => page.add(listed),
                })
                .collect();
            assert!(page.bytes().len() <= 400 && page.bytes().len().is_multiple_of(8));
            assert_eq!(page.entries().map(|(listed, _)| listed).collect::<Vec<_>>(), added);
            assert_eq!(added.len(), if attributes { 2 } else { 6 });
            assert!(page.entries().all(|(listed, given)| given.map(|g| g.nodeid) == attributes.then_some(listed.ino)));
        }
    }
}
