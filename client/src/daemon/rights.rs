//! What a user may do with a file: the kernel's rules (`acl_permission_check`), for what is not read through a mount.

use super::caller::Caller;
use mojavefs::error::Fault;
use mojavefs::file::Attr;

/// To read a file, or to list a directory.
pub(super) const READ: u16 = 4;
/// To look names up in a directory.
pub(super) const SEARCH: u16 = 1;
/// The attribute that holds a file's access ACL.
pub(super) const ACL: &[u8] = b"system.posix_acl_access";

const ACL_HEADER_BYTES: usize = 4;
const ACL_ENTRY_BYTES: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

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
        return Ok(acl_allows(caller, attr, &list, wanted));
    }
    Ok(class(if caller.is_in(attr.gid) { 3 } else { 0 }))
}

/// What a list says, as the kernel goes through it; the server has seen to its order and form.
fn acl_allows(caller: &Caller, attr: &Attr, list: &[u8], wanted: u16) -> bool {
    let (entries, _) = list.get(ACL_HEADER_BYTES..).unwrap_or_default().as_chunks::<ACL_ENTRY_BYTES>();
    let entries = entries.iter().map(|[t0, t1, p0, p1, id @ ..]| {
        (u16::from_le_bytes([*t0, *t1]), u16::from_le_bytes([*p0, *p1]), u32::from_le_bytes(*id))
    });
    let mask = entries.clone().find(|(tag, ..)| *tag == MASK).map_or(!0, |(_, perm, _)| perm);
    let mut in_a_group = false;
    for (tag, perm, id) in entries {
        let gives = perm & wanted == wanted;
        match tag {
            USER_OBJ if caller.uid == attr.uid => return gives,
            USER if caller.uid == id => return gives && mask & wanted == wanted,
            GROUP_OBJ | GROUP if caller.is_in(if tag == GROUP { id } else { attr.gid }) => {
                in_a_group = true;
                if gives {
                    return mask & wanted == wanted;
                }
            }
            OTHER => return gives && !in_a_group,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::file::{FileKind, Time};
    use mojavefs::id::Ino;
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
        Attr { ino, kind, mode, nlink, uid: 10, gid: 20, rdev, size, blocks, atime: time, mtime: time, ctime: time }
    }

    fn may(caller: &Caller, mode: u32, entries: &[(u16, u16, u32)]) -> bool {
        let bytes = |(tag, perm, id): &(u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list = [2u32.to_le_bytes().to_vec(), entries.iter().flat_map(bytes).collect()].concat();
        let acl = || Ok((!entries.is_empty()).then_some(list));
        allow(caller, &file(mode), acl, READ).expect("nothing fails")
    }

    #[test]
    fn each_class_of_a_mode_counts_for_its_own() {
        let (owner, member, other) = (caller(10, 1, &[20]), caller(11, 1, &[3, 20]), caller(11, 1, &[]));
        for (mode, expected) in
            [(0o400, [true, false, false]), (0o040, [false, true, false]), (0o004, [false, false, true])]
        {
            assert_eq!([&owner, &member, &other].map(|who| may(who, mode, &[])), expected, "{mode:o}");
        }
        assert!(may(&caller(0, 0, &[]), 0, &[]));
    }

    #[test]
    fn a_list_counts_as_in_the_kernel() {
        let named =
            [(USER_OBJ, 6, !0), (USER, 4, 30), (GROUP_OBJ, 0, !0), (GROUP, 4, 40), (MASK, 4, !0), (OTHER, 4, !0)];
        assert!(may(&caller(30, 1, &[]), 0o644, &named));
        assert!(may(&caller(31, 40, &[]), 0o644, &named));
        assert!(may(&caller(31, 1, &[]), 0o644, &named), "everybody else");
        assert!(!may(&caller(31, 20, &[]), 0o644, &named), "the file's group");
        let masked = named.map(|(tag, perm, id)| (tag, if tag == MASK { 1 } else { perm }, id));
        assert!(!may(&caller(30, 1, &[]), 0o614, &masked));
        assert!(!may(&caller(31, 40, &[]), 0o614, &masked));
    }
}
