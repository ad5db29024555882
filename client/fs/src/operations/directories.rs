//! Open directories, and what is listed of them.

use super::Given;
use crate::call::Call;
use crate::listing::Reader;
use mojavefs::id::Ino;
use mojavefs::limits::GLANCES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{DirEntry, FsOp};
use std::collections::VecDeque;

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
        let (mut position, mut ahead) = (from, VecDeque::new());
        loop {
            if ahead.is_empty() {
                match self.look_ahead(&mut reader, position) {
                    Ok(found) => ahead.extend(found),
                    Err(_) if position > from => return Ok(()),
                    Err(fault) => return Err(fault),
                }
            }
            let Some((entry, given)) = ahead.pop_front() else { return Ok(()) };
            position += 1;
            let is_counted = !matches!(given, Listing::Named);
            let (name, ino) = (&entry.name[..], entry.ino);
            if !takes(Listed { name, ino, kind: entry.kind, next: position, given }) {
                let left = ahead.iter().map(|(entry, _)| entry.ino);
                let counted = is_counted.then_some(ino).into_iter().chain(left);
                self.view.forget(counted.map(|ino| (ino, 1)));
                return Ok(());
            }
        }
    }

    /// The entries from a position on, and what the kernel is given of each: about as many as it takes at once.
    fn look_ahead(&self, reader: &mut Reader<'_>, position: u64) -> Result<Vec<(DirEntry, Listing)>, Fault> {
        let at = position as usize;
        // The kernel does not count `.` and `..` as looked up.
        if at < 2 {
            return Ok(reader
                .entry(self.view, at)?
                .cloned()
                .map(|entry| (entry, Listing::Named))
                .into_iter()
                .collect());
        }
        let mut entries = Vec::new();
        while entries.len() < GLANCES_MAX {
            match reader.entry(self.view, at + entries.len()) {
                Ok(Some(entry)) => entries.push(entry.clone()),
                Ok(None) => break,
                Err(_) if !entries.is_empty() => break,
                Err(fault) => return Err(fault),
            }
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let names = entries.iter().map(|entry| entry.name.clone()).collect();
        let found = self.view.give_listed(self.asks(FsOp::Glance { parent: reader.ino(), names }))?;
        if found.is_empty() {
            return Err(Fault::new(FaultKind::Protocol, "the server says nothing of what is listed"));
        }
        Ok(entries.into_iter().zip(found).map(|(entry, found)| self.listed(entry, found)).collect())
    }

    /// What the kernel is given of a name that led to a file.
    fn listed(&self, entry: DirEntry, found: Option<Given>) -> (DirEntry, Listing) {
        match found {
            Some(given) if given.0.ino == entry.ino => return (entry, Listing::Given(given)),
            Some((other, _)) => self.view.take_back(other.ino),
            None => {}
        }
        self.view.is_given(entry.ino);
        (entry, Listing::Gone)
    }
}
