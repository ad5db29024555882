//! `mojavefs keygen`

use super::host_fault;
use super::place::{has_parent, warn_of_others};
use crate::output::out;
use clap::Args;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_net::Key;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// More than any key file has, in bytes.
const KEY_BYTES_MAX: u64 = 64 << 10;
/// Everything for others than the owner.
const OTHERS: u32 = 0o077;

#[derive(Args)]
pub(super) struct Keygen {
    /// The file to make; give it to the server and to every client
    file: PathBuf,
}

impl Keygen {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        has_parent(&self.file)?;
        warn_of_others("the key file", &self.file);
        let text = Key::generate().map_err(|e| Fault::new(FaultKind::Io, e.to_string()))?;
        let shown = self.file.display();
        let cannot = |e: std::io::Error| match e.kind() {
            ErrorKind::AlreadyExists => {
                Fault::new(FaultKind::Exists, format!("{shown} is there already; remove it or name another file"))
            }
            _ => host_fault(format!("make the key file {shown}"))(e),
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file).map_err(cannot)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(cannot)?;
        out!("{shown}: whoever has this file may do everything to the store that is served with it");
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads a key file, which nobody but its owner may read.
pub(super) fn read_key(path: &Path) -> Result<Key, Fault> {
    let shown = path.display();
    let cannot = |e| host_fault(format!("read the key file {shown}"))(e);
    let found = fs::metadata(path).map_err(cannot)?;
    if found.mode() & OTHERS != 0 {
        let text = format!("others may use the key file {shown}: `chmod 600 {shown}`, or make a new key if they have");
        return Err(Fault::new(FaultKind::AccessDenied, text));
    }
    if found.len() > KEY_BYTES_MAX {
        return Err(Fault::new(FaultKind::Invalid, format!("{shown} is no key file: it has {} bytes", found.len())));
    }
    let text = fs::read(path).map_err(cannot)?;
    Key::parse(&text).map_err(|why| Fault::new(FaultKind::Invalid, format!("{shown}: {why}")))
}
