//! What files were made on the host, and which of ours they are: on disk before they have their names, so that an apply that was
//! interrupted knows its own work, and so that files keep their numbers when another daemon takes over.

use super::super::HostFile;
use mojavefs::id::Ino;
use mojavefs::protocol::file::Time;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The first line: what it is, and its version.
const HEAD: &str = "mojavefs numbers 1";

/// A file that was made on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// By which apply.
    apply: u64,
    /// Our number.
    pub(crate) ours: Ino,
    /// The host's.
    pub(crate) host: Ino,
    /// When it was made, which tells it from what has its number later.
    pub(crate) born: Option<Time>,
}

/// All of them, in the order in which they were made.
pub(crate) struct Numbers {
    file: Mutex<File>,
    made: Mutex<Vec<Made>>,
    by_host: Mutex<HashMap<Ino, usize>>,
}

fn parse(line: &str) -> Option<Made> {
    let mut numbers = line.split(' ').map(str::parse::<i64>);
    let mut next = || numbers.next()?.ok();
    let (apply, ours, host, seconds, nanos) = (next()?, next()?, next()?, next()?, next()?);
    if next().is_some() {
        return None;
    }
    let born = u32::try_from(nanos).ok().map(|nanos| Time { seconds, nanos });
    Some(Made { apply: apply.cast_unsigned(), ours: Ino(ours.cast_unsigned()), host: Ino(host.cast_unsigned()), born })
}

impl Numbers {
    /// Those that lie in this file, which is made if it is missing. A last line that was cut off counts as not there: what it is about has
    /// no name but one of ours.
    pub(super) fn open(path: &Path) -> io::Result<Numbers> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).mode(0o600).open(path)?;
        let text = std::io::read_to_string(&file)?;
        let mut lines = text.lines();
        let mut made = Vec::new();
        match lines.next() {
            None => writeln!(file, "{HEAD}")?,
            Some(HEAD) => made.extend(lines.filter_map(parse)),
            Some(head) => {
                let text = format!("{} begins with `{head}`, and this program knows `{HEAD}`", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            // What comes next is a line of its own.
            writeln!(file)?;
        }
        let by_host = made.iter().enumerate().map(|(at, made)| (made.host, at)).collect();
        Ok(Numbers { file: Mutex::new(file), made: Mutex::new(made), by_host: Mutex::new(by_host) })
    }

    /// All, the last ones last.
    pub(super) fn all(&self) -> Vec<Made> {
        self.made.lock().clone()
    }

    /// A file was just made.
    pub(super) fn made(&self, apply: u64, ours: Ino, is: &HostFile) -> io::Result<()> {
        let made = Made { apply, ours, host: is.ino, born: is.inode.born };
        let (seconds, nanos) = made.born.map_or((0, -1), |born| (born.seconds, i64::from(born.nanos)));
        let line = format!("{} {} {} {seconds} {nanos}\n", apply, ours.0, is.ino.0);
        self.file.lock().write_all(line.as_bytes())?;
        let mut all = self.made.lock();
        self.by_host.lock().insert(made.host, all.len());
        all.push(made);
        Ok(())
    }

    /// Whether a file is one that this apply has made.
    pub(super) fn knows(&self, apply: u64, is: &HostFile) -> bool {
        let at = self.by_host.lock().get(&is.ino).copied();
        let made = at.and_then(|at| self.made.lock().get(at).copied());
        made.is_some_and(|made| made.apply == apply && made.born == is.inode.born)
    }

    /// What an apply has made: ours, and the host's numbers.
    pub(super) fn built_by(&self, apply: u64) -> HashMap<Ino, Ino> {
        let all = self.made.lock();
        all.iter().filter(|made| made.apply == apply).map(|made| (made.ours, made.host)).collect()
    }

    /// Makes all of it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.lock().sync_data()
    }
}
