//! An open directory: what has been read of it so far, so that every offset keeps its meaning.

use super::View;
use mojavefs::error::Fault;
use mojavefs::file::FileKind;
use mojavefs::id::Ino;
use mojavefs::limits::LISTING_ENTRIES_MAX;
use mojavefs::wire::DirEntry;

/// The entries of one open directory, `.` and `..` first.
pub(crate) struct Listing {
    ino: Ino,
    entries: Vec<DirEntry>,
    complete: bool,
}

impl Listing {
    pub(super) fn new(ino: Ino) -> Self {
        Listing { ino, entries: Vec::new(), complete: false }
    }

    /// Starts over: the directory is read anew.
    pub(crate) fn rewind(&mut self) {
        self.entries.clear();
        self.complete = false;
    }

    /// The entry at a position, reading on as needed; nothing at the end.
    pub(crate) fn entry(&mut self, view: &View, position: usize) -> Result<Option<&DirEntry>, Fault> {
        if self.entries.is_empty() {
            self.entries.extend([b".".as_slice(), b".."].map(|name| DirEntry {
                name: name.to_vec(),
                ino: self.ino,
                kind: FileKind::Directory,
                attr: None,
            }));
        }
        while position >= self.entries.len() && !self.complete {
            let after = self.entries.get(2..).and_then(<[DirEntry]>::last).map(|entry| entry.name.clone());
            let (page, end) = view.page(self.ino, after.as_deref(), LISTING_ENTRIES_MAX as u32, false)?;
            self.complete = end || page.is_empty();
            self.entries.extend(page);
        }
        Ok(self.entries.get(position))
    }

    /// The directory.
    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }
}
