//! Where the kernel believes directories of the filesystem to be: one that was moved in a level that is undone is believed to be
//! where it was moved to for as long as the process keeps it in use, and can't be moved from where it is before somebody has
//! looked that name up.

#![allow(unsafe_code)]

use crate::limits::PLACES_BYTES_MAX;
use crate::sys;
use mojavefs_procfs::process::ProcPath;

/// In the place of a descriptor: the working directory.
const WORKING_DIRECTORY: i32 = -1;
const FD_BYTES: usize = size_of::<i32>();

/// Directories of the process's view that it is in or has open, with their paths, one after the other: the descriptor, the path,
/// a NUL. Zeros are none.
#[repr(C)]
pub(crate) struct Places {
    bytes: [u8; PLACES_BYTES_MAX],
    used: usize,
}

impl Places {
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    pub(crate) fn note_working_directory(&mut self) {
        self.note(WORKING_DIRECTORY);
    }

    /// Notes where the directory of a descriptor is. One for which there is no room is left out.
    pub(crate) fn note(&mut self, fd: i32) {
        let Some(room) = self.bytes.get_mut(self.used + FD_BYTES..) else { return };
        let length = path_of(fd, room);
        // A path that fills the room may be cut.
        if length == 0 || length >= room.len() {
            return;
        }
        room[length] = 0;
        self.bytes[self.used..self.used + FD_BYTES].copy_from_slice(&fd.to_le_bytes());
        self.used += FD_BYTES + length + 1;
    }

    /// The paths, with a NUL each, of those that the kernel believes elsewhere now. `room` is for a path.
    pub(crate) fn moved<'a>(&'a self, room: &'a mut [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut left = &self.bytes[..self.used];
        core::iter::from_fn(move || {
            while let Some((fd, rest)) = left.split_first_chunk::<FD_BYTES>() {
                let length = rest.iter().position(|byte| *byte == 0)?;
                let (path, rest) = rest.split_at(length + 1);
                left = rest;
                let now = path_of(i32::from_le_bytes(*fd), room);
                if room[..now] != path[..length] {
                    return Some(path);
                }
            }
            None
        })
    }
}

/// Where the kernel believes a directory to be; 0 if it does not say.
fn path_of(fd: i32, into: &mut [u8]) -> usize {
    let process = ProcPath::of(0);
    let link = if fd == WORKING_DIRECTORY { process.then(b"/cwd") } else { process.then(b"/fd/").number(fd) };
    let args =
        [libc::AT_FDCWD as isize as usize, link.as_bytes().as_ptr() as usize, into.as_mut_ptr() as usize, into.len()];
    sys::plain(libc::SYS_readlinkat, &args).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_is_elsewhere_now_is_told_by_where_it_was() {
        let root = std::env::temp_dir().join(format!("mojave-places.{}", std::process::id()));
        let [dir, moved, other] = ["dir", "moved", "other"].map(|name| root.join(name));
        [&dir, &other].iter().for_each(|dir| std::fs::create_dir_all(dir).expect("mkdir"));
        let [dir_fd, other_fd] = [&dir, &other].map(|dir| std::fs::File::open(dir).expect("it is there"));
        let mut places = Places { bytes: [0; PLACES_BYTES_MAX], used: 0 };
        [&other_fd, &dir_fd].iter().for_each(|fd| places.note(fd.as_raw_fd()));
        places.note_working_directory();
        let mut room = [0; PLACES_BYTES_MAX];
        assert_eq!(places.moved(&mut room).count(), 0);
        std::fs::rename(&dir, &moved).expect("it is moved");
        let expected = [dir.as_os_str().as_encoded_bytes(), b"\0"].concat();
        let found: Vec<Vec<u8>> = places.moved(&mut room).map(<[u8]>::to_vec).collect();
        std::fs::remove_dir_all(&root).expect("removed");
        assert_eq!(found, [expected]);
        // What has no room is left out.
        (0..PLACES_BYTES_MAX).for_each(|_| places.note(other_fd.as_raw_fd()));
        assert!(places.used <= PLACES_BYTES_MAX);
    }
}
