//! What a user may do with a file: the kernel's rules (`acl_permission_check`), for what is not read through a mount.

use super::caller::Caller;
use mojavefs::acl::Acl;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Attr;

/// To read a file, or to list a directory.
pub(super) const READ: u16 = 4;
/// To look names up in a directory.
pub(super) const SEARCH: u16 = 1;

/// Whether the caller may do all that is wanted. The ACL is asked for only where it counts.
pub(super) fn allow(
    caller: &Caller,
    attr: &Attr,
    acl: impl FnOnce() -> Result<Option<Vec<u8>>, Fault>,
    wanted: u16,
) -> Result<bool, Fault> {
    let class = |shift: u32| (attr.mode >> shift) as u16 & wanted == wanted;
    if caller.uid == 0 {
        return Ok(true);
    }
    if caller.uid == attr.uid {
        return Ok(class(6));
    }
    // The group's bits are the list's mask: without them it gives nobody anything.
    if attr.mode & 0o070 != 0
        && let Some(list) = acl()?
    {
        // The server has seen to its form.
        let list =
            Acl::parse(&list).map_err(|why| Fault::new(FaultKind::Io, format!("an access control list: {why}")))?;
        if let Some(list) = list {
            return Ok(list.allows(caller.uid, |group| caller.is_in(group), (attr.uid, attr.gid), wanted));
        }
    }
    Ok(class(if caller.is_in(attr.gid) { 3 } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::id::Ino;
    use mojavefs::protocol::file::{FileKind, Time};
    use std::os::unix::net::UnixStream;

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        let (near, _far) = UnixStream::pair().expect("a pair");
        let mut caller = Caller::of(&near).expect("this process");
        (caller.uid, caller.gid, caller.groups) = (uid, gid, groups.to_vec());
        caller
    }

    fn file(mode: u32) -> Attr {
        let (ino, kind, time) = (Ino::ROOT, FileKind::Regular, Time::default());
        let sizes = (1, 0, 0, 0);
        let (nlink, rdev, size, blocks) = sizes;
        let (atime, mtime, ctime, born) = (time, time, time, None);
        Attr { ino, kind, mode, nlink, uid: 10, gid: 20, rdev, size, blocks, atime, mtime, ctime, born }
    }

    fn may(caller: &Caller, mode: u32) -> bool {
        allow(caller, &file(mode), || Ok(None), READ).expect("nothing fails")
    }

    #[test]
    fn each_class_of_a_mode_counts_for_its_own() {
        let (owner, member, other) = (caller(10, 1, &[20]), caller(11, 1, &[3, 20]), caller(11, 1, &[]));
        for (mode, expected) in
            [(0o400, [true, false, false]), (0o040, [false, true, false]), (0o004, [false, false, true])]
        {
            assert_eq!([&owner, &member, &other].map(|who| may(who, mode)), expected, "{mode:o}");
        }
        assert!(may(&caller(0, 0, &[]), 0));
    }
}
