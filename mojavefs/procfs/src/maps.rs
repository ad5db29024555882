//! The mappings of a process, from its list in `/proc`.

use crate::call::{Errno, Result};
use crate::process::leading;

/// One mapping, a line of `/proc/PID/maps`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: usize,
    /// The first address after it.
    pub end: usize,
    /// What may be done with it: `PROT_READ` and so on.
    pub prot: i32,
    /// Changes are seen by others.
    pub shared: bool,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Major and minor number of the device; 0 if nothing is mapped but memory.
    pub device: (u32, u32),
    /// The inode; 0 if nothing is mapped but memory.
    pub ino: u64,
    /// Where the name is in the text.
    pub name: (usize, usize),
}

impl Mapping {
    /// Nothing is mapped but memory.
    pub fn is_memory(&self) -> bool {
        self.ino == 0
    }

    /// Its path or what else the kernel calls it; `text` is the list that it was read from.
    pub fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.name.0..self.name.1]
    }

    /// What the kernel maps for every process, outside its memory.
    pub fn is_kernels(&self, text: &[u8]) -> bool {
        [&b"[vdso]"[..], b"[vsyscall]"].contains(&self.name(text)) || self.name(text).starts_with(b"[vvar")
    }

    /// The same thing is mapped at this address by both.
    pub fn is_alike(&self, other: &Mapping) -> bool {
        let origin = |of: &Mapping| of.offset.wrapping_sub(of.start as u64);
        self.shared == other.shared
            && self.ino == other.ino
            && self.device == other.device
            && (self.is_memory() || origin(self) == origin(other))
    }
}

fn line(text: &[u8], from: usize, to: usize) -> Option<Mapping> {
    let line = &text[from..to];
    let (start, rest) = leading(line, 16);
    let (end, rest) = leading(rest.strip_prefix(b"-")?, 16);
    let rest = rest.strip_prefix(b" ")?;
    let flags = rest.get(..4)?;
    let flag = |at: usize, letter: u8, bit: i32| if flags[at] == letter { bit } else { 0 };
    let prot = flag(0, b'r', libc::PROT_READ) | flag(1, b'w', libc::PROT_WRITE) | flag(2, b'x', libc::PROT_EXEC);
    let (offset, rest) = leading(rest.get(5..)?, 16);
    let (major, rest) = leading(rest.strip_prefix(b" ")?, 16);
    let (minor, rest) = leading(rest.strip_prefix(b":")?, 16);
    let (ino, rest) = leading(rest.strip_prefix(b" ")?, 10);
    let name_len = rest.len() - rest.iter().take_while(|byte| **byte == b' ').count();
    Some(Mapping {
        start: start as usize,
        end: end as usize,
        prot,
        shared: flags[3] == b's',
        offset,
        device: (major as u32, minor as u32),
        ino,
        name: (to - name_len, to),
    })
}

/// What a list of mappings says, in order.
///
/// # Errors
/// `EPROTO` if it is no such list, `ENOMEM` if there are more than there is room for.
pub fn parse<'m>(text: &[u8], into: &'m mut [Mapping]) -> Result<&'m [Mapping]> {
    let (mut count, mut from) = (0, 0);
    while from < text.len() {
        let to = text[from..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |length| from + length);
        let mapping = line(text, from, to).ok_or(Errno(libc::EPROTO))?;
        *into.get_mut(count).ok_or(Errno(libc::ENOMEM))? = mapping;
        count += 1;
        from = to + 1;
    }
    Ok(&into[..count])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::read_all;

    #[test]
    fn a_line_of_the_list_is_understood() {
        let text = b"7ffd12340000-7ffd12361000 rw-p 00001000 fe:0a 1234                       /a b\n";
        let map = line(text, 0, text.len() - 1).expect("a mapping");
        assert_eq!((map.start, map.end), (0x7ffd_1234_0000, 0x7ffd_1236_1000));
        assert_eq!((map.prot, map.shared), (libc::PROT_READ | libc::PROT_WRITE, false));
        assert_eq!((map.offset, map.device, map.ino), (0x1000, (0xfe, 0x0a), 1234));
        assert_eq!(map.name(text), b"/a b");
    }

    #[test]
    fn mappings_of_this_process_are_in_order() {
        let (mut text, mut maps) = (vec![0; 1 << 20], vec![line(b"1-2 rw-p 0 0:0 0", 0, 16).expect("one"); 4096]);
        let text = read_all(b"/proc/self/maps\0", &mut text).expect("read");
        let maps = parse(text, &mut maps).expect("a list");
        assert!(maps.len() > 5 && maps.is_sorted_by(|a, b| a.end <= b.start));
    }
}
