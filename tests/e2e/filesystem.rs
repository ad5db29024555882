//! What programs use of a filesystem, through the kernel.

use crate::harness::{Mount, SPECRUN, run, sh, text, until};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Stdio;

#[test]
fn an_unlinked_file_stays_usable_while_open() {
    let mount = Mount::new();
    mount.write("a", "before");
    let mut file = OpenOptions::new().read(true).write(true).open(mount.at("a")).expect("open");
    fs::remove_file(mount.at("a")).expect("unlink");
    file.write_all(b"after!").expect("write");
    file.seek(SeekFrom::Start(0)).expect("seek");
    let mut content = String::new();
    file.read_to_string(&mut content).expect("read");
    assert_eq!((content.as_str(), file.metadata().expect("stat").nlink()), ("after!", 0));
    drop(file);
    mount.check();
}

#[test]
fn a_file_open_on_trunk_shows_what_a_job_committed() {
    let mount = Mount::new();
    mount.write("a", "old content");
    mount.write("gone", "still here");
    let file = File::open(mount.at("a")).expect("open");
    let mut gone = File::open(mount.at("gone")).expect("open");
    let mut buffer = [0; 11];
    file.read_exact_at(&mut buffer, 0).expect("read");
    assert!(mount.specrun(&[], "printf 'new, and longer' > a; rm gone").status.success());
    let mut buffer = [0; 15];
    file.read_exact_at(&mut buffer, 0).expect("the new content is longer");
    assert_eq!(&buffer, b"new, and longer");
    assert_eq!(file.metadata().expect("stat").len(), 15);
    let mut content = String::new();
    gone.read_to_string(&mut content).expect("read");
    assert_eq!(content, "still here");
    assert!(!mount.exists("gone"));
}

#[test]
fn trunk_forgets_absent_names_and_listings_when_a_job_commits() {
    let mount = Mount::new();
    assert!(!mount.exists("a") && fs::read_dir(mount.path()).expect("list").next().is_none());
    assert!(mount.specrun(&[], "echo x > a").status.success());
    assert!(mount.exists("a"));
    assert_eq!(fs::read_dir(mount.path()).expect("list").count(), 1);
    let many = "i=0; while [ $i -lt 3000 ]; do : > m$i; i=$((i+1)); done; rm a";
    assert!(mount.specrun(&[], many).status.success());
    assert!(!mount.exists("a") && mount.exists("m2999"));
    assert_eq!(fs::read_dir(mount.path()).expect("list").count(), 3000);
}

#[test]
fn names_are_any_bytes_up_to_255() {
    use std::os::unix::ffi::OsStrExt;
    let mount = Mount::new();
    let odd = std::ffi::OsStr::from_bytes(b"\xff\x01\n \\\"'");
    fs::write(mount.at(odd), "x").expect("write");
    let long = "n".repeat(255);
    mount.write(&long, "y");
    let error = fs::write(mount.at("n".repeat(256)), "").expect_err("too long");
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENAMETOOLONG));
    mount.check();
    assert_eq!((fs::read_to_string(mount.at(odd)).expect("read"), mount.read(&long)), ("x".into(), "y".into()));
}

#[test]
fn holes_are_kept_and_found() {
    let mount = Mount::new();
    let script = "import os
f = os.open('f', os.O_RDWR | os.O_CREAT)
os.pwrite(f, b'x' * 70000, 0)
os.pwrite(f, b'end', 10 << 20)
assert os.lseek(f, 0, os.SEEK_HOLE) == 131072, os.lseek(f, 0, os.SEEK_HOLE)
assert os.lseek(f, 131072, os.SEEK_DATA) == 10 << 20
assert os.fstat(f).st_blocks < 1000
os.ftruncate(f, 65000); os.ftruncate(f, 80000)
assert os.pread(f, 80000, 0) == b'x' * 65000 + bytes(15000)
os.ftruncate(f, 5)
assert os.pread(f, 100, 0) == b'xxxxx'
os.ftruncate(f, 1 << 40)
assert os.pread(f, 4, (1 << 40) - 4) == bytes(4)
";
    run(&mount.path(), "python3", &["-c", script]);
    mount.check();
}

#[test]
fn a_shared_mapping_and_the_file_agree() {
    let mount = Mount::new();
    let script = "import mmap, os
f = os.open('f', os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 300000)
m = mmap.mmap(f, 300000)
m[100000:100005] = b'hello'
m.flush()
assert os.pread(f, 5, 100000) == b'hello'
os.pwrite(f, b'HELLO', 200000)
assert m[200000:200005] == b'HELLO'
m.close()
";
    run(&mount.path(), "python3", &["-c", script]);
    run(&mount.path(), "python3", &["-c", &script.replace("'f'", "'g'")]);
    mount.check();
    assert_eq!(sh(&mount.path(), "cmp f g && echo same").trim(), "same");
}

#[test]
fn one_byte_of_a_large_file_costs_one_block() {
    let mount = Mount::new();
    sh(&mount.path(), "head -c 67108864 /dev/urandom > big");
    let used = || run(mount.beside("").as_path(), "du", &["-s", "-B1", "store/content"]);
    let bytes = |text: String| text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("du");
    sh(&mount.path(), "sync big");
    let before = bytes(used());
    let id = mount.held("printf x | dd of=big conv=notrunc bs=1 seek=30000000 2>/dev/null");
    let after = bytes(used());
    assert!(after - before <= 256 * 1024, "{before} -> {after}");
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    mount.check();
}

#[test]
fn the_space_of_what_is_removed_comes_back() {
    let mount = Mount::new();
    let used = || {
        let text = run(&mount.beside(""), "du", &["-s", "-B1", "store/content"]);
        text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).expect("du")
    };
    let empty = used();
    sh(&mount.path(), "head -c 8000000 /dev/urandom > a; cp a b; cp a c; rm a");
    let output = mount.specrun(&[], "rm b; head -c 5000000 /dev/urandom > d; cp d e; rm d");
    assert!(output.status.success());
    assert!(!mount.specrun(&[], "cp c f; echo x >> c; exit 1").status.success());
    sh(&mount.path(), ": > c; rm e");
    mount.check();
    assert!(mount.mojavefs(&["gc"]).status.success());
    assert!(used() <= empty + 65536, "{} bytes are still in use, {empty} were at first", used());
    mount.check();
}

#[test]
fn the_space_of_what_trunk_and_an_undone_job_have_both_changed_comes_back() {
    let mount = Mount::new();
    for how in [": > c", "rm c", "mv d c"] {
        sh(&mount.path(), "head -c 8000000 /dev/urandom > c; echo 1 > d");
        let script = "echo x >> c; : > ../ready; until [ -e ../go ]; do sleep 0.01; done; exit 1";
        let mut job = mount.specrun_command(&["--quiet", "--retries", "0"], script);
        let mut job = job.stderr(Stdio::null()).spawn().expect("specrun runs");
        until("the job has changed it", || mount.beside("ready").exists());
        sh(&mount.path(), how);
        fs::write(mount.beside("go"), "").expect("the job goes on");
        assert!(!job.wait().expect("it ends").success(), "{how}");
        sh(&mount.path(), "rm -f c d; rm ../ready ../go");
        mount.assert_store_is_empty();
    }
}

#[test]
fn the_memory_limit_holds_through_large_writes_and_many_jobs() {
    let mount = Mount::new();
    for _ in 0..10 {
        assert!(mount.specrun(&["--quiet"], "for i in 1 2 3 4 5 6 7 8 9; do seq 10000 > f$i; done").status.success());
    }
    sh(&mount.path(), "head -c 600000000 /dev/urandom > big; cat big > /dev/null");
    let status = fs::read_to_string(format!("/proc/{}/status", mount.daemon())).expect("status");
    let used = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    let used: u64 = used.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(used < 256 * 1024, "{used} KiB are in use");
}

/// Makes so many directories of so many files.
const MANY: &str = "import os
for d in range(20):
    os.makedirs('big/d%d' % d)
    for n in range(200): open('big/d%d/%d' % (d, n), 'w').write('x' * 1000)";

#[test]
fn gc_leaves_nothing_of_many_files_that_only_a_remount_would_free() {
    let mount = Mount::new();
    let gc = || text(&mount.mojavefs(&["gc"]).stdout);
    let make = format!("python3 -c \"{MANY}\"; ls -lR > /dev/null");
    for removes in ["rm -r big", &format!("{SPECRUN} --quiet -- rm -r big")] {
        for _ in 0..2 {
            assert!(mount.specrun(&["--quiet"], &make).status.success());
            sh(&mount.path(), &format!("ls -lR > /dev/null; {removes}"));
        }
        // The kernel forgets what it knows by and by.
        until("nothing is left", || gc() == "reclaimed 0 records\n");
        mount.umount();
        mount.mount();
        assert_eq!(gc(), "reclaimed 0 records\n", "{removes}");
    }
    mount.assert_store_is_empty();
}
