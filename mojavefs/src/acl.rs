//! POSIX access control lists in the form the kernel gives them to a filesystem (`struct posix_acl_xattr_header`,
//! version 2): pure functions on their bytes.

/// The attribute that holds a file's access ACL.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds the ACL a directory gives to what is created in it.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// An entry that names nobody.
const NO_ID: u32 = u32::MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// An access control list, valid and in the kernel's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

impl Acl {
    /// Reads a list; `None` inside for an empty one, which stands for "no list". The error is for people.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>, &'static str> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let (header, entries) = bytes.split_at_checked(HEADER_BYTES).ok_or("it is too short")?;
        if header != VERSION.to_le_bytes() {
            return Err("its version is unknown");
        }
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err("its length is odd");
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Acl(entries.iter().map(Entry::parse).collect());
        acl.check().map(|()| Some(acl))
    }

    /// The rules of acl(5): the kernel's `posix_acl_valid`.
    fn check(&self) -> Result<(), &'static str> {
        let rank = |tag| [USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER].iter().position(|t| *t == tag);
        let mut last = None;
        for entry in &self.0 {
            let rank = rank(entry.tag).ok_or("an entry has an unknown tag")?;
            if entry.perm & !0o7 != 0 {
                return Err("an entry has unknown permissions");
            }
            let repeats = matches!(entry.tag, USER | GROUP);
            if last.is_some_and(|last| rank < last || (rank == last && !repeats)) {
                return Err("its entries are out of order");
            }
            last = Some(rank);
        }
        let has = |tag| self.0.iter().any(|e| e.tag == tag);
        if !(has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER)) {
            return Err("an entry for the owner, the group or others is missing");
        }
        if (has(USER) || has(GROUP)) && !has(MASK) {
            return Err("it names users or groups but has no mask");
        }
        Ok(())
    }

    /// The bytes of the list.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.perm.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// The permission bits that go with the list, and whether they say all that the list says.
    pub fn mode(&self) -> (u32, bool) {
        let perm = |tag| self.0.iter().find(|e| e.tag == tag).map(|e| u32::from(e.perm));
        let group = perm(MASK).or(perm(GROUP_OBJ)).unwrap_or(0);
        let bits = perm(USER_OBJ).unwrap_or(0) << 6 | group << 3 | perm(OTHER).unwrap_or(0);
        (bits, self.0.iter().all(|e| matches!(e.tag, USER_OBJ | GROUP_OBJ | OTHER)))
    }

    /// Whether the list gives all of `wanted` (bits of a mode, 0 to 7) to `user`, who is in the groups of which `is_in` says so, of a
    /// file of this owner and group: as the kernel goes through it (`posix_acl_permission`).
    pub fn allows(&self, user: u32, is_in: impl Fn(u32) -> bool, (owner, group): (u32, u32), wanted: u16) -> bool {
        let mask = self.0.iter().find(|e| e.tag == MASK).map_or(!0, |e| e.perm);
        let mut in_a_group = false;
        for Entry { tag, perm, id } in &self.0 {
            let gives = perm & wanted == wanted;
            match *tag {
                USER_OBJ if user == owner => return gives,
                USER if user == *id => return gives && mask & wanted == wanted,
                GROUP_OBJ | GROUP if is_in(if *tag == GROUP { *id } else { group }) => {
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

    /// What `chmod` to `mode` makes of an access list.
    pub fn set_mode(&mut self, mode: u32) {
        let group = self.group_tag();
        for entry in &mut self.0 {
            match entry.tag {
                USER_OBJ => entry.perm = bits(mode, 6),
                OTHER => entry.perm = bits(mode, 0),
                tag if tag == group => entry.perm = bits(mode, 3),
                _ => {}
            }
        }
    }

    /// Turns a directory's default list into the access list of a file created in it with `mode`; returns the file's mode.
    pub fn inherit(&mut self, mode: u32) -> u32 {
        let group = self.group_tag();
        let mut allowed = 0;
        for entry in &mut self.0 {
            let shift = match entry.tag {
                USER_OBJ => 6,
                OTHER => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            entry.perm &= bits(mode, shift);
            allowed |= u32::from(entry.perm) << shift;
        }
        mode & !0o777 | allowed
    }

    /// The entry that the group bits of a mode stand for.
    fn group_tag(&self) -> u16 {
        if self.0.iter().any(|e| e.tag == MASK) { MASK } else { GROUP_OBJ }
    }
}

/// Three permission bits of a mode.
fn bits(mode: u32, shift: u32) -> u16 {
    (mode >> shift & 0o7) as u16
}

impl Entry {
    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Entry {
        let [t0, t1, p0, p1, id @ ..] = *bytes;
        let tag = u16::from_le_bytes([t0, t1]);
        let id = if matches!(tag, USER | GROUP) { u32::from_le_bytes(id) } else { NO_ID };
        Entry { tag, perm: u16::from_le_bytes([p0, p1]), id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        Acl(entries.iter().map(|&(tag, perm, id)| Entry { tag, perm, id }).collect()).to_bytes()
    }

    fn parsed(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&acl(entries)).expect("it is valid").expect("it is not empty")
    }

    const SHORT: [(u16, u16, u32); 3] = [(USER_OBJ, 6, NO_ID), (GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)];
    const LONG: [(u16, u16, u32); 5] =
        [(USER_OBJ, 7, NO_ID), (USER, 7, 1000), (GROUP_OBJ, 5, NO_ID), (MASK, 7, NO_ID), (OTHER, 5, NO_ID)];

    #[test]
    fn bytes_survive_a_round_trip() {
        assert_eq!(parsed(&LONG).to_bytes(), acl(&LONG));
        assert_eq!(acl(&SHORT).len(), HEADER_BYTES + 3 * ENTRY_BYTES);
    }

    #[test]
    fn an_empty_list_is_none() {
        assert_eq!(Acl::parse(&[]), Ok(None));
        assert_eq!(Acl::parse(&VERSION.to_le_bytes()), Ok(None));
    }

    #[test]
    fn bad_lists_are_refused() {
        let mut old = acl(&SHORT);
        old[0] = 1;
        let no_mask: Vec<_> = LONG.into_iter().filter(|e| e.0 != MASK).collect();
        let twice = [SHORT[0], SHORT[0], SHORT[1], SHORT[2]];
        let disorder = [SHORT[1], SHORT[0], SHORT[2]];
        let bits = [(USER_OBJ, 8, NO_ID), SHORT[1], SHORT[2]];
        let tag = [SHORT[0], SHORT[1], SHORT[2], (0x40, 0, NO_ID)];
        for bad in
            [old, acl(&no_mask), acl(&twice), acl(&disorder), acl(&bits), acl(&tag), acl(&SHORT[..2]), vec![2, 0, 0]]
        {
            assert!(Acl::parse(&bad).is_err(), "{bad:?}");
        }
        assert!(Acl::parse(&[acl(&SHORT), vec![0]].concat()).is_err());
    }

    #[test]
    fn a_list_that_says_no_more_than_a_mode_is_known_as_such() {
        assert_eq!(parsed(&SHORT).mode(), (0o640, true));
        assert_eq!(parsed(&LONG).mode(), (0o775, false));
    }

    #[test]
    fn a_list_counts_as_in_the_kernel() {
        let named = [
            (USER_OBJ, 6, NO_ID),
            (USER, 4, 30),
            (GROUP_OBJ, 0, NO_ID),
            (GROUP, 4, 40),
            (MASK, 4, NO_ID),
            (OTHER, 4, NO_ID),
        ];
        let reads = |list: &[(u16, u16, u32)], user, group| parsed(list).allows(user, |id| id == group, (10, 20), 4);
        assert!(reads(&named, 30, 1));
        assert!(reads(&named, 31, 40));
        assert!(reads(&named, 31, 1), "everybody else");
        assert!(!reads(&named, 31, 20), "the file's group");
        assert!(reads(&named, 10, 1), "the owner");
        let masked = named.map(|(tag, perm, id)| (tag, if tag == MASK { 1 } else { perm }, id));
        assert!(!reads(&masked, 30, 1));
        assert!(!reads(&masked, 31, 40));
        assert!(reads(&masked, 10, 1), "no mask is before the owner");
    }

    #[test]
    fn chmod_changes_the_mask_where_there_is_one() {
        let mut long = parsed(&LONG);
        long.set_mode(0o640);
        assert_eq!(long.mode(), (0o640, false));
        assert_eq!(long.0.iter().find(|e| e.tag == GROUP_OBJ).expect("every list has one").perm, 5);
        let mut short = parsed(&SHORT);
        short.set_mode(0o751);
        assert_eq!(short.mode(), (0o751, true));
    }

    #[test]
    fn inheriting_masks_the_list_and_the_mode_by_each_other() {
        let mut long = parsed(&LONG);
        assert_eq!(long.inherit(0o4660), 0o4660);
        assert_eq!(long.mode(), (0o660, false));
        let mut short = parsed(&SHORT);
        assert_eq!(short.inherit(0o777), 0o640);
    }
}
