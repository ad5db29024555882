//! A disk in a file, whose power can be cut.

use super::{run, until};
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A disk in a file, mounted for the time of a test; for root only. Whoever has one takes it off in the end.
pub struct Disk {
    /// Where it is mounted.
    pub point: PathBuf,
    /// The file that it is in.
    pub image: PathBuf,
}

impl Disk {
    /// A new disk with a file system of this kind, both in a directory.
    pub fn new(root: &Path, kind: &str, mebibytes: u64) -> Self {
        let (image, point) = (root.join("image"), root.join("disk"));
        File::create(&image).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
        run(root, &format!("mkfs.{kind}"), &["-q", &image.to_string_lossy()]);
        fs::create_dir(&point).expect("mkdir");
        let disk = Disk { point, image };
        disk.attach();
        disk
    }

    /// Mounts it.
    pub fn attach(&self) {
        // Whoever has it still, in a mount namespace that is going, has it as it was.
        let used = || Command::new("losetup").arg("-j").arg(&self.image).output().expect("losetup runs").stdout;
        until("nobody has the disk any more", || used().is_empty());
        run(Path::new("/"), "mount", &["-o", "loop", &self.image.to_string_lossy(), &self.point.to_string_lossy()]);
    }

    /// Takes it off. Whether nobody was using it.
    pub fn detach(&self) -> bool {
        Command::new("umount").arg(&self.point).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// What has not reached the disk so far never does.
    pub fn cut_power(point: &Path) {
        run(Path::new("/"), "xfs_io", &["-x", "-c", "shutdown", &point.to_string_lossy()]);
    }
}
