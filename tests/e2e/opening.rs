//! What becomes right since the kernel tells of every open file: files without a name, truncation, birth times, handles, groups.

use crate::harness::{Mount, sh, text};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{LinkatFlags, linkat};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

fn unnamed(dir: &Path) -> File {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR;
    File::from(open(dir, flags, Mode::from_bits_truncate(0o640)).expect("a file without a name"))
}

fn give_name(file: &File, path: &Path) {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(AT_FDCWD, &*own, AT_FDCWD, path, LinkatFlags::AT_SYMLINK_FOLLOW).expect("it gets a name");
}

#[test]
fn a_file_without_a_name_is_like_any_other_and_is_gone_unless_it_gets_one() {
    let mount = Mount::new();
    let mut file = unnamed(&mount.path());
    file.write_all(b"content").expect("write");
    let found = file.metadata().expect("stat");
    assert_eq!((found.nlink(), found.len(), found.mode() & 0o7777), (0, 7, 0o640));
    assert_eq!(sh(&mount.path(), "ls -A"), "");
    give_name(&file, &mount.at("named"));
    assert_eq!((mount.read("named"), file.metadata().expect("stat").nlink()), ("content".to_owned(), 1));
    let mut other = unnamed(&mount.path());
    other.write_all(&[1; 300_000]).expect("write");
    other.seek(SeekFrom::Start(100_000)).expect("seek");
    let mut part = [0; 4];
    other.read_exact(&mut part).expect("read");
    assert_eq!(part, [1; 4]);
    drop((file, other));
    fs::remove_file(mount.at("named")).expect("remove");
    mount.assert_store_is_empty();
    mount.check();
}

/// Makes two files without names, of which one gets one.
const UNNAMED: &str = "import ctypes, os
kept = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(kept, b'kept')
lost = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
os.write(lost, b'lost' * 100000)
FOLLOW, HERE = 0x400, -100
if ctypes.CDLL(None).linkat(HERE, b'/proc/self/fd/%d' % kept, HERE, b'named', FOLLOW): raise SystemExit('no name')
";

#[test]
fn a_job_s_files_without_names_go_with_it_and_get_names_by_it() {
    let mount = Mount::new();
    fs::write(mount.beside("unnamed.py"), UNNAMED).expect("write");
    let script = format!("python3 {}", mount.beside("unnamed.py").display());
    let undone = mount.specrun(&["--quiet"], &format!("{script}; exit 3"));
    assert_eq!((undone.status.code(), mount.exists("named")), (Some(3), false), "{}", text(&undone.stderr));
    mount.assert_store_is_empty();
    let done = mount.specrun(&["--quiet"], &script);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(mount.read("named"), "kept");
    fs::remove_file(mount.at("named")).expect("remove");
    mount.assert_store_is_empty();
    mount.check();
}

#[test]
fn a_crash_leaves_nothing_of_files_without_names() {
    let mount = Mount::new();
    let mut file = unnamed(&mount.path());
    file.write_all(&[1; 300_000]).expect("write");
    file.sync_all().expect("sync");
    mount.crash();
    drop(file);
    mount.mount();
    mount.assert_store_is_empty();
    mount.check();
}

fn born(path: &Path) -> SystemTime {
    fs::metadata(path).and_then(|found| found.created()).expect("it says when it was made")
}

#[test]
fn a_file_says_when_it_was_made_whatever_happens_to_it() {
    let mount = Mount::new();
    let before = SystemTime::now();
    mount.write("file", "old");
    sh(&mount.path(), "mkdir dir; ln -s file link");
    let made = born(&mount.at("file"));
    let second = std::time::Duration::from_secs(1);
    assert!(made + second > before && made < SystemTime::now() + second);
    sh(&mount.path(), "echo more >> file; touch -d 2001-01-01 file; chmod 600 file; ln file other; mv file dir/file");
    assert!(mount.specrun(&["--quiet"], "echo new > dir/file; touch new").status.success());
    assert_eq!((born(&mount.at("dir/file")), born(&mount.at("other"))), (made, made));
    assert!(born(&mount.at("new")) > made && born(&mount.at("dir")) > made);
    mount.check();
    assert_eq!(born(&mount.at("other")), made, "once it was mounted again");
}

#[test]
fn times_before_1970_and_after_2038_are_kept_to_the_nanosecond() {
    let mount = Mount::new();
    for time in ["1901-12-13 20:45:51.999999999", "1969-12-31 23:59:59.000000001", "2446-05-10 22:38:55.123456789"] {
        let script = format!("touch -d '{time}Z' file; TZ=UTC stat -c %y file");
        assert_eq!(sh(&mount.path(), &script), format!("{time} +0000\n"));
        let job = mount.specrun(&["--quiet"], &format!("touch -d '{time}Z' by-job"));
        assert!(job.status.success(), "{}", text(&job.stderr));
        assert_eq!(sh(&mount.path(), "TZ=UTC stat -c %y by-job"), format!("{time} +0000\n"));
    }
    mount.check();
}

/// Keeps handles of files, has the kernel forget them, and opens them.
const HANDLES: &str = "import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [('bytes', ctypes.c_uint), ('type', ctypes.c_int), ('data', ctypes.c_ubyte * 128)]
def of(path):
    handle, mount = Handle(bytes=128), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(handle), ctypes.byref(mount), 0): sys.exit('no handle')
    return handle
handles = [of('dir/file'), of('gone'), of('dir')]
os.unlink('gone')
os.sync()
open('/proc/sys/vm/drop_caches', 'w').write('2')
at = os.open('/', os.O_RDONLY) if len(sys.argv) > 1 else os.open('.', os.O_RDONLY)
for handle in handles:
    fd = libc.open_by_handle_at(at, ctypes.byref(handle), os.O_RDONLY)
    if fd < 0: print(os.strerror(ctypes.get_errno()))
    elif os.path.isdir('/proc/self/fd/%d' % fd): print(os.listdir(fd), os.readlink('/proc/self/fd/%d' % fd)[-4:])
    else: print(os.read(fd, 100).decode())
";

#[test]
fn files_are_opened_by_handle_also_when_the_kernel_has_forgotten_them() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "mkdir dir; echo -n content > dir/file; touch gone");
    let said = crate::harness::run(&mount.path(), "python3", &["-c", HANDLES]);
    assert_eq!(said, "content\nStale file handle\n['file'] /dir\n");
    // In a job what was removed is there until that is decided.
    mount.write("gone", "");
    let mut job = std::process::Command::new(crate::harness::SPECRUN);
    let job = job.args(["--", "python3", "-c", HANDLES]).current_dir(mount.path()).output().expect("specrun runs");
    assert_eq!(crate::harness::text(&job.stdout), said, "{}", crate::harness::text(&job.stderr));
    mount.check();
}

/// A process that ends when this is dropped.
struct Sleeper(std::process::Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_program_that_runs_is_not_truncated_by_who_opens_it() {
    let mount = Mount::new();
    let program = mount.at("program");
    fs::copy("/bin/sleep", &program).expect("copy");
    let content = fs::read(&program).expect("read");
    let mut sleeper = Sleeper(Command::new(&program).arg("1000").spawn().expect("it runs"));
    let truncate = nix::libc::O_TRUNC;
    for access in [nix::libc::O_RDONLY, nix::libc::O_WRONLY, nix::libc::O_RDWR] {
        let opened = open(&program, OFlag::from_bits_retain(access | truncate), Mode::empty());
        assert_eq!(opened.map(drop), Err(nix::errno::Errno::ETXTBSY));
    }
    assert!(fs::read(&program).expect("read") == content);
    assert!(sleeper.0.try_wait().expect("wait").is_none(), "it runs on");
    drop(sleeper);
    mount.check();
}

#[test]
fn opening_truncates_and_takes_set_id_bits_from_who_may_not_keep_them() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "chmod 777 .");
    for (by, mode) in [("65534", 0o777), ("0", 0o4777)] {
        mount.write("file", "old");
        fs::set_permissions(mount.at("file"), fs::Permissions::from_mode(0o4777)).expect("chmod");
        let mut truncate = Command::new("setpriv");
        truncate.args(["--reuid", by, "--clear-groups", "sh", "-c", ": > file"]).current_dir(mount.path());
        assert!(truncate.status().expect("setpriv runs").success());
        let found = fs::metadata(mount.at("file")).expect("stat");
        assert_eq!((found.len(), found.mode() & 0o7777), (0, mode), "by user {by}");
    }
    for how in ["-l 100", "-p -o 0 -l 1", "-z -o 0 -l 2"] {
        for (by, mode) in [("65534", 0o777), ("0", 0o6777)] {
            fs::set_permissions(mount.at("file"), fs::Permissions::from_mode(0o6777)).expect("chmod");
            let script = format!("setpriv --reuid {by} --clear-groups fallocate {how} file");
            sh(&mount.path(), &script);
            let found = fs::metadata(mount.at("file")).expect("stat").mode() & 0o7777;
            assert_eq!(found, mode, "{how} by user {by}");
        }
    }
    // It must not be there: nothing is truncated.
    mount.write("file", "kept");
    let refused =
        OpenOptions::new().write(true).create_new(true).custom_flags(nix::libc::O_TRUNC).open(mount.at("file"));
    refused.expect_err("it is there");
    assert_eq!(mount.read("file"), "kept");
    mount.check();
}

#[test]
fn who_is_no_member_of_a_file_s_group_takes_the_set_group_id_bit_away_by_an_access_list() {
    require_root!();
    let mount = Mount::new();
    let script = "touch f g; chown 65534:0 f; chown 65534:65534 g; chmod 2755 f g
        setpriv --reuid=65534 --regid=65534 --clear-groups setfacl -m u:1:rwx f g; stat -c %a f g";
    assert_eq!(sh(&mount.path(), script), "775\n2775\n");
    let groups = "mkdir -m 2777 d; chown 0:12 d; chmod 2777 d; umask 0
        by() { setpriv --reuid=65534 --regid=65534 --groups=$1 /usr/bin/python3 -c \"import os; os.open('d/'+'$2', os.O_CREAT, 0o2775); os.mkdir('d/d$2')\"; }
        by 12 member; by 13 other; cd d; stat -c '%n %a %g' member other dmember dother";
    let expected = "member 2775 12\nother 775 12\ndmember 2777 12\ndother 2777 12\n";
    assert_eq!(sh(&mount.path(), groups), expected);
    mount.check();
}

/// An overlayfs over a mount, taken away when this is dropped.
struct Overlay(std::path::PathBuf);

impl Overlay {
    fn over(mount: &Mount) -> Self {
        let [lower, merged] = ["lower", "merged"].map(|name| mount.beside(name));
        for dir in [&lower, &merged, &mount.at("upper"), &mount.at("work")] {
            fs::create_dir_all(dir).expect("a directory");
        }
        let (lower, upper, work) = (lower.display(), mount.at("upper"), mount.at("work"));
        let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
        let mut mounts = Command::new("mount");
        mounts.args(["-t", "overlay", "overlay", "-o", &options]).arg(&merged);
        let output = mounts.output().expect("mount runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        Overlay(merged)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_mount_is_the_upper_directory_of_an_overlayfs() {
    require_root!();
    let mount = Mount::new();
    fs::create_dir_all(mount.beside("lower/dir/sub")).expect("a directory");
    sh(&mount.beside("lower"), "echo old > file; echo gone > gone; echo moved > moved; echo below > dir/file");
    let overlay = Overlay::over(&mount);
    sh(
        &overlay.0,
        "echo new > file; rm gone; mv moved here; rm -r dir; mkdir dir; echo made > dir/made; ln -s file link",
    );
    let seen = "find . | sort; cat file here dir/made; readlink link";
    let expected = ".\n./dir\n./dir/made\n./file\n./here\n./link\nnew\nmoved\nmade\nfile\n";
    assert_eq!(sh(&overlay.0, seen), expected);
    assert_eq!(sh(&mount.at("upper"), "stat -c '%F %t,%T' gone moved"), "character special file 0,0\n".repeat(2));
    drop(overlay);
    // As it was, once all of it was unmounted.
    mount.check();
    let overlay = Overlay::over(&mount);
    assert_eq!(sh(&overlay.0, seen), expected);
    drop(overlay);
}

#[test]
fn attributes_of_the_host_s_filesystems_are_refused_in_words() {
    let mount = Mount::new();
    mount.write("file", "");
    let output = Command::new("chattr").args(["+i", "file"]).current_dir(mount.path()).output().expect("chattr runs");
    assert!(!output.status.success() && text(&output.stderr).contains("Operation not supported"));
    fs::remove_file(mount.at("file")).expect("nothing forbids that");
}
