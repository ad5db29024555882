//! Open directories, and what is listed of them.

use super::Given;
use crate::call::Call;
use mojavefs::id::Ino;
use mojavefs::protocol::FsOp;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;

/// An entry of a directory, for a kernel.
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// The file that it led to when the listing began.
    pub ino: Ino,
    /// What that is.
    pub kind: FileKind,
    /// The position of the entry behind it.
    pub next: u64,
    /// Where attributes were asked for: what the kernel is given of it.
    pub given: Listing,
}

/// What a kernel is given of a file that is listed.
pub enum Listing {
    /// Nothing but the name: `.` or `..`, or nothing was asked for.
    Named,
    /// Its attributes, as for a name that was looked up.
    Given(Given),
    /// The name does not lead there any more. It did when the listing began: it is listed, and the kernel keeps nothing of it.
    Gone,
}

impl Call<'_> {
    /// Lists names from a position on, until `takes` says that one has no room. An error if there is not even one to give: what comes
    /// before it is said first, and then it is met again.
    pub fn list_names(&self, dir: u64, from: u64, mut takes: impl FnMut(Listed<'_>) -> bool) -> Result<(), Fault> {
        let dir = self.view.dir(dir)?;
        let mut reader = dir.lock();
        if from == 0 {
            reader.rewind(self.view);
        }
        let mut position = from;
        loop {
            match reader.entry(self.view, position as usize) {
                Ok(Some(entry)) => {
                    position += 1;
                    let (name, given) = (&entry.name[..], Listing::Named);
                    if !takes(Listed { name, ino: entry.ino, kind: entry.kind, next: position, given }) {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(_) if position > from => return Ok(()),
                Err(fault) => return Err(fault),
            }
        }
    }

    /// The same with each file's attributes, as if each name were looked up.
    pub fn list_files(&self, dir: u64, from: u64, mut takes: impl FnMut(Listed<'_>) -> bool) -> Result<(), Fault> {
        let dir = self.view.dir(dir)?;
        let mut reader = dir.lock();
        if from == 0 {
            reader.rewind(self.view);
        }
        let (dir, mut position) = (reader.ino(), from);
        loop {
            let entry = match reader.entry(self.view, position as usize) {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(()),
                Err(_) if position > from => return Ok(()),
                Err(fault) => return Err(fault),
            };
            // The kernel does not count `.` and `..` as looked up.
            let given = match position {
                0 | 1 => Listing::Named,
                _ => match self.listed(dir, &entry.name, entry.ino) {
                    Ok(given) => given,
                    Err(_) if position > from => return Ok(()),
                    Err(fault) => return Err(fault),
                },
            };
            position += 1;
            let is_counted = !matches!(given, Listing::Named);
            let (name, ino) = (&entry.name[..], entry.ino);
            if !takes(Listed { name, ino, kind: entry.kind, next: position, given }) {
                if is_counted {
                    self.view.take_back(ino);
                }
                return Ok(());
            }
        }
    }

    /// What the kernel is given of a name that led to a file.
    fn listed(&self, parent: Ino, name: &[u8], ino: Ino) -> Result<Listing, Fault> {
        match self.view.give(self.asks(FsOp::Glance { parent, name })) {
            Ok(given) if given.0.ino == ino => return Ok(Listing::Given(given)),
            Ok((other, _)) => self.view.take_back(other.ino),
            Err(fault) if matches!(fault.kind, FaultKind::NotFound | FaultKind::NotFoundNow) => {}
            Err(fault) => return Err(fault),
        }
        self.view.is_given(ino);
        Ok(Listing::Gone)
    }
}
