//! The space of the disk under a directory. A file in it reserves some.

use super::{EngineError, Result, Space, SpaceInfo, private};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The disk, and the file that reserves space on it.
pub(super) struct Disk {
    dir: PathBuf,
    reserve: PathBuf,
}

impl Disk {
    pub(super) fn under(dir: &Path) -> Self {
        Disk { dir: dir.to_owned(), reserve: dir.join("reserve") }
    }

    fn fill(&self, bytes: u64) -> Result<()> {
        let named = |error: io::Error| EngineError::io(format!("keep space back in {}", self.reserve.display()), error);
        let file = private::options().create(true).write(true).truncate(true).open(&self.reserve).map_err(named)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes as i64) {
            // Such a disk can't promise space, so nothing is reserved.
            Err(nix::errno::Errno::EOPNOTSUPP) => file.set_len(bytes).map_err(named),
            result => result.map_err(|errno| named(errno.into())),
        }
    }
}

impl Space for Disk {
    fn info(&self) -> Result<SpaceInfo> {
        let disk = nix::sys::statvfs::statvfs(&self.dir)
            .map_err(|errno| EngineError::io(format!("statvfs {}", self.dir.display()), errno.into()))?;
        let unit = disk.fragment_size();
        Ok(SpaceInfo {
            total_bytes: disk.blocks() * unit,
            free_bytes: disk.blocks_free() * unit,
            available_bytes: disk.blocks_available() * unit,
            files: disk.files() - disk.files_free(),
            files_free: disk.files_available(),
        })
    }

    fn reserved(&self) -> Result<u64> {
        match fs::metadata(&self.reserve) {
            Ok(found) => Ok(found.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(EngineError::io(format!("look at {}", self.reserve.display()), e)),
        }
    }

    fn reserve(&self, bytes: u64) -> Result<()> {
        self.fill(bytes).inspect_err(|_| {
            if let Err(error) = self.release() {
                tracing::error!("{error}");
            }
        })
    }

    fn release(&self) -> Result<bool> {
        match fs::remove_file(&self.reserve) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(EngineError::io(format!("remove {}", self.reserve.display()), e)),
        }
    }
}
