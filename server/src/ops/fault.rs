//! Refusals, in words for people; the one place where the store's errors become faults.

use crate::store::StoreError;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};

pub(super) fn no_name(parent: Ino, name: &[u8]) -> Fault {
    Fault::new(FaultKind::NotFound, format!("no `{}` in directory {parent}", name.escape_ascii()))
}

pub(super) fn exists(parent: Ino, name: &[u8]) -> Fault {
    Fault::new(FaultKind::Exists, format!("directory {parent} has `{}` already", name.escape_ascii()))
}

pub(super) fn gone(ino: Ino) -> Fault {
    Fault::new(FaultKind::Stale, format!("inode {ino} is gone"))
}

pub(super) fn is_directory(ino: Ino) -> Fault {
    Fault::new(FaultKind::IsDirectory, format!("inode {ino} is a directory"))
}

pub(super) fn not_directory(ino: Ino) -> Fault {
    Fault::new(FaultKind::NotDirectory, format!("inode {ino} is no directory"))
}

pub(super) fn not_regular(ino: Ino) -> Fault {
    Fault::new(FaultKind::Invalid, format!("inode {ino} is no regular file"))
}

pub(super) fn no_attribute(ino: Ino, name: &[u8]) -> Fault {
    Fault::new(FaultKind::NoAttribute, format!("inode {ino} has no attribute `{}`", name.escape_ascii()))
}

pub(super) fn too_large(ino: Ino, end: u128) -> Fault {
    Fault::new(FaultKind::FileTooLarge, format!("inode {ino} can't reach to byte {end}"))
}

pub(super) fn bad_acl(ino: Ino, why: &str) -> Fault {
    Fault::new(FaultKind::Invalid, format!("the access control list of inode {ino} is not valid: {why}"))
}

/// What an error of the store is to whoever asked.
pub(crate) fn store(error: StoreError) -> Fault {
    let kind = match &error {
        StoreError::NoSpace(_) => FaultKind::NoSpace,
        StoreError::InUse(_) | StoreError::Ending(_) | StoreError::Changed(_) => FaultKind::Busy,
        _ => FaultKind::Io,
    };
    // What is not in memory is read, and asked for again.
    if kind == FaultKind::Io && !matches!(error, StoreError::Uncached) {
        tracing::error!("{error}");
    }
    Fault::new(kind, error.to_string())
}
