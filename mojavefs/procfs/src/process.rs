//! What `/proc` says of processes.

use crate::call::{Result, plain};
use crate::files::{close, open, read_all, read_once, seek};

/// A path of `/proc`, built in place.
pub struct ProcPath {
    bytes: [u8; 64],
    len: usize,
}

impl ProcPath {
    /// `/proc/PID`, or `/proc/self` for 0.
    pub fn of(pid: i32) -> Self {
        let mut path = ProcPath { bytes: [0; 64], len: 0 };
        path.push(b"/proc/");
        match pid {
            0 => path.push(b"self"),
            pid => path.push_number(u64::from(pid.unsigned_abs()), 10),
        }
        path
    }

    /// Where the processes are listed.
    fn list() -> Self {
        let mut path = ProcPath { bytes: [0; 64], len: 0 };
        path.push(b"/proc");
        path
    }

    /// Followed by this.
    pub fn then(mut self, text: &[u8]) -> Self {
        self.push(text);
        self
    }

    /// Followed by a number.
    pub fn number(mut self, number: i32) -> Self {
        self.push_number(u64::from(number.unsigned_abs()), 10);
        self
    }

    /// Followed by an address, as the kernel writes it.
    pub fn address(mut self, address: usize) -> Self {
        self.push_number(address as u64, 16);
        self
    }

    fn push(&mut self, text: &[u8]) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }

    fn push_number(&mut self, number: u64, radix: u64) {
        let mut digits = [0u8; 20];
        let (mut at, mut rest) = (digits.len(), number);
        loop {
            at -= 1;
            digits[at] = b"0123456789abcdef"[(rest % radix) as usize];
            rest /= radix;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    /// With the NUL that ends it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..=self.len]
    }
}

fn digit(byte: u8) -> Option<u64> {
    match byte {
        b'0'..=b'9' => Some(u64::from(byte - b'0')),
        b'a'..=b'f' => Some(u64::from(byte - b'a') + 10),
        _ => None,
    }
}

/// A number at the start of a text, and what follows it.
#[inline]
pub fn leading(text: &[u8], radix: u64) -> (u64, &[u8]) {
    let mut value = 0u64;
    let mut at = 0;
    while let Some(digit) = text.get(at).and_then(|byte| digit(*byte)).filter(|digit| *digit < radix) {
        value = value.wrapping_mul(radix).wrapping_add(digit);
        at += 1;
    }
    (value, &text[at..])
}

/// Calls `each` with every process.
///
/// # Errors
/// The kernel's error number.
pub fn each_process(buffer: &mut [u8], each: impl FnMut(i32)) -> Result<()> {
    let dir = open(ProcPath::list().as_bytes(), libc::O_RDONLY | libc::O_DIRECTORY)?;
    let result = each_number(dir, buffer, each);
    close(dir);
    result
}

/// Calls `each` with the numbers that an open directory of `/proc` lists.
///
/// # Errors
/// The kernel's error number.
pub fn each_number(dir: i32, buffer: &mut [u8], mut each: impl FnMut(i32)) -> Result<()> {
    seek(dir, 0, libc::SEEK_SET)?;
    loop {
        let args = [dir as usize, buffer.as_mut_ptr() as usize, buffer.len()];
        let got = match plain(libc::SYS_getdents64, &args)? {
            0 => return Ok(()),
            got => got,
        };
        let mut rest = &buffer[..got];
        while rest.len() > 19 {
            let length = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let (number, after) = leading(&rest[19..length], 10);
            let is_number = rest[19].is_ascii_digit() && after.first() == Some(&0);
            if is_number {
                each(number as i32);
            }
            rest = &rest[length..];
        }
    }
}

/// The children of a process's first thread.
///
/// # Errors
/// The kernel's error number.
pub fn each_child(pid: i32, buffer: &mut [u8], each: impl FnMut(i32)) -> Result<()> {
    let path = ProcPath::of(pid).then(b"/task/").number(pid).then(b"/children");
    each_listed(read_all(path.as_bytes(), buffer)?, each);
    Ok(())
}

/// Calls `each` with the numbers of a list.
pub fn each_listed(mut rest: &[u8], mut each: impl FnMut(i32)) {
    while rest.first().is_some_and(u8::is_ascii_digit) {
        let (child, after) = leading(rest, 10);
        each(child as i32);
        rest = after.strip_prefix(b" ").unwrap_or(after);
    }
}

/// Who started a process, as far as that is still known, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The process.
    pub pid: i32,
    /// Its parent: the one that started it, or that it came to when that died.
    pub parent: i32,
    tick: u64,
}

impl Birth {
    /// Nothing if the process is gone.
    pub fn of(pid: i32) -> Option<Birth> {
        let mut buffer = [0u8; 1024];
        Birth::read(pid, read_once(ProcPath::of(pid).then(b"/stat").as_bytes(), &mut buffer).ok()?)
    }

    /// What the name of the program in parentheses is followed by: its state, its parent … the tick as the 20th.
    fn read(pid: i32, text: &[u8]) -> Option<Birth> {
        let after = text.iter().rposition(|byte| *byte == b')')? + 2;
        let mut words = text.get(after..)?.split(|byte| *byte == b' ').map(|word| leading(word, 10).0);
        Some(Birth { pid, parent: words.nth(1)? as i32, tick: words.nth(17)? })
    }

    /// Whether it began after another.
    pub fn is_after(&self, other: &Birth) -> bool {
        (self.tick, self.pid) > (other.tick, other.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_was_put_together() {
        let path = ProcPath::of(0).then(b"/task/").number(40_123).then(b"/children");
        assert_eq!(path.as_bytes(), b"/proc/self/task/40123/children\0");
        assert_eq!(ProcPath::of(7).as_bytes(), b"/proc/7\0");
        let largest =
            ProcPath::of(i32::MAX).then(b"/map_files/").address(0x7fff_ffff_f000).then(b"-").address(usize::MAX);
        assert_eq!(largest.as_bytes(), b"/proc/2147483647/map_files/7ffffffff000-ffffffffffffffff\0");
    }

    #[test]
    fn a_birth_is_found_behind_whatever_a_program_is_called() {
        let text = b"7 (a) b) S 3 7 7 0 -1 4194304 85 0 0 0 0 0 0 0 20 0 1 0 6127 2609152 218 18446744073709551615";
        let birth = Birth::read(7, text).expect("a birth");
        assert_eq!(birth, Birth { pid: 7, parent: 3, tick: 6127 });
        assert!(Birth { pid: 8, ..birth }.is_after(&birth) && !birth.is_after(&birth));
        assert!(!Birth { pid: 8, tick: 6126, ..birth }.is_after(&birth));
    }

    #[test]
    fn numbers_are_read_in_their_radix() {
        assert_eq!(leading(b"7f00-8000", 16), (0x7f00, &b"-8000"[..]));
        assert_eq!(leading(b"x", 10), (0, &b"x"[..]));
    }
}
