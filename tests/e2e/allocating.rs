//! Space that `fallocate` has promised, on small disks.

use crate::disk::{OnDisk, in_memory};
use crate::harness::{Mount, run, sh, text, until};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::ENOSPC;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// Writes random bytes to all of a file through a mapping, as often as it is said, and says their checksum.
const WRITE_MAPPED: &str = r#"
import hashlib, mmap, os, random, sys
f = os.open(sys.argv[1], os.O_RDWR)
data = random.Random(sys.argv[2]).randbytes(os.fstat(f).st_size)
m = mmap.mmap(f, len(data))
m[:] = data
m.flush()
os.fsync(f)
print(hashlib.sha256(data).hexdigest())
"#;

fn write_mapped(mount: &Mount) -> String {
    fs::write(mount.beside("write.py"), WRITE_MAPPED).expect("write");
    mount.beside("write.py").to_string_lossy().into_owned()
}

fn sum(mount: &Mount, name: &str) -> String {
    sh(&mount.path(), &format!("sha256sum {name} | cut -d' ' -f1")).trim().to_owned()
}

/// Others take what is left of the disk, to the last byte.
fn fill(disk: &Path) {
    run(
        disk,
        "sh",
        &["-c", "dd if=/dev/zero of=taken bs=64k 2>/dev/null; dd if=/dev/zero bs=512 2>/dev/null >> taken; true"],
    );
}

fn make_space(disk: &Path) {
    fs::remove_file(disk.join("taken")).expect("remove");
}

fn allocate(mount: &Mount, name: &str, bytes: u64) -> Result<u64, i32> {
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(mount.at(name)).expect("open");
    fallocate(&file, FallocateFlags::empty(), 0, bytes.cast_signed()).map_err(|errno| errno as i32)?;
    Ok(file.metadata().expect("stat").blocks() * 512)
}

#[test]
fn more_space_than_there_is_is_not_promised() {
    require_root!();
    let on = in_memory(96);
    let mount = &on.mount;
    assert_eq!(allocate(mount, "a", 50 * MIB), Ok(50 * MIB));
    fs::write(mount.at("b"), "small").expect("write");
    for bytes in [50 * MIB, 200 * MIB, 10 << 40] {
        assert_eq!(allocate(mount, "b", bytes), Err(ENOSPC), "{bytes} bytes");
    }
    let said = fs::metadata(mount.at("b")).expect("stat");
    assert_eq!((mount.read("b").as_str(), said.blocks()), ("small", 1), "it is as it was");
    // What is long and empty needs no space.
    sh(&mount.path(), "truncate -s 10T c; rm a");
    assert!(mount.mojavefs(&["gc"]).status.success());
    until("the space has come back", || allocate(mount, "b", 50 * MIB).is_ok());
    mount.check();
    assert!(mount.read("b").starts_with("small\0"));
}

#[test]
fn what_was_promised_can_be_written_when_others_have_filled_the_disk() {
    require_root!();
    for on in [in_memory(160), OnDisk::new("ext4", 200), OnDisk::new("xfs", 400)] {
        let (mount, disk) = (&on.mount, &on.disk.point);
        let program = write_mapped(mount);
        assert_eq!(allocate(mount, "a", 60 * MIB), Ok(60 * MIB));
        assert!(allocate(mount, "small", 5000).is_ok_and(|bytes| bytes >= 5000));
        fill(disk);
        assert!(fs::write(mount.at("new"), vec![7; MIB as usize]).is_err(), "there is no space");
        let write = |name: &str| run(&mount.path(), "python3", &[&program, name, name]).trim().to_owned();
        let written = ["a", "small", "a"].map(write);
        make_space(disk);
        mount.check();
        assert_eq!([sum(mount, "small"), sum(mount, "a")], written[1..]);
    }
}

#[test]
fn a_job_writes_what_it_was_promised_and_an_aborted_one_gives_it_back() {
    require_root!();
    let on = in_memory(160);
    let (mount, disk) = (&on.mount, &on.disk.point);
    let program = write_mapped(mount);
    // All of what was there before is promised to the job anew.
    sh(&mount.path(), "head -c 10M /dev/urandom > changed; sync changed");
    let before = sum(mount, "changed");
    let fill = format!("dd if=/dev/zero of={}/taken bs=64k 2>/dev/null", disk.display());
    let script = format!(
        "set -e; fallocate -l 40M new; fallocate -l 10M changed; test $(stat -c %b new) -ge 81920; {fill} || true; \
         python3 {program} new 1 > ../new; python3 {program} changed 2 > ../changed; rm {}/taken",
        disk.display()
    );
    let free =
        || nix::sys::statvfs::statvfs(disk).map(|disk| disk.blocks_free() * disk.fragment_size()).expect("statvfs");
    let at_first = free();
    let undone = mount.specrun(&[], &format!("{script}; exit 3"));
    assert_eq!(undone.status.code(), Some(3), "{}", text(&undone.stderr));
    assert!(!mount.exists("new") && sum(mount, "changed") == before);
    let is_back = || mount.mojavefs(&["gc"]).status.success() && free() + 4 * MIB > at_first;
    until("the space has come back", is_back);
    let done = mount.specrun(&[], &script);
    assert!(done.status.success(), "{}", text(&done.stderr));
    mount.check();
    for name in ["new", "changed"] {
        let said = fs::read_to_string(mount.beside(name)).expect("read");
        assert_eq!(sum(mount, name), said.trim(), "{name}");
    }
    sh(&mount.path(), "rm new changed");
    until("the space has come back", is_back);
}

#[test]
fn space_behind_the_end_is_kept_until_the_file_is_cut_off() {
    require_root!();
    let on = in_memory(96);
    let mount = &on.mount;
    sh(&mount.path(), "printf begin > f; fallocate -n -l 20M f");
    let look = || fs::metadata(mount.at("f")).map(|said| (said.len(), said.blocks() * 512)).expect("stat");
    assert_eq!(look(), (5, 20 * MIB));
    fill(&on.disk.point);
    sh(&mount.path(), "seq 200000 >> f; sync f");
    let (len, taken) = look();
    assert_eq!(taken, 20 * MIB);
    make_space(&on.disk.point);
    mount.check();
    let text = mount.read("f");
    assert!(text.len() as u64 == len && text.starts_with("begin1\n2\n") && text.ends_with("200000\n"));
    // What lies there comes up as zeros only.
    let file = fs::OpenOptions::new().write(true).open(mount.at("f")).expect("open");
    file.write_all_at(b"x", 10 * MIB).expect("write");
    let bytes = fs::read(mount.at("f")).expect("read");
    assert!(bytes[len as usize..10 * MIB as usize].iter().all(|byte| *byte == 0));
    file.set_len(len).expect("cut off");
    assert_eq!(look(), (len, len.next_multiple_of(65536)));
    drop(file);
    mount.check();
    assert_eq!(mount.read("f"), text);
}
