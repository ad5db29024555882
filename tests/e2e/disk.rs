//! Disks that are full, fail, or lose their power.

use crate::harness::digest::exact;
use crate::harness::disk::Disk;
use crate::harness::{MOJAVEFS, Mount, SPECRUN, run, sh, text, until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A mount whose store lies on a disk of its own. The mount goes before the disk.
pub(crate) struct OnDisk {
    pub(crate) mount: Mount,
    pub(crate) disk: Disk,
}

impl OnDisk {
    pub(crate) fn new(kind: &str, mebibytes: u64) -> Self {
        let root: TempDir = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory");
        let disk = Disk::new(root.path(), kind, mebibytes);
        let store = disk.point.join("store");
        OnDisk { mount: Mount::with_store(root, store), disk }
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = Command::new(MOJAVEFS).args(["umount", "--force"]).arg(self.mount.path()).output();
        for _ in 0..200 {
            if self.disk.detach() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = Command::new("umount").arg("-l").arg(&self.disk.point).status();
    }
}

#[test]
fn a_full_disk_is_told_and_the_job_can_be_undone() {
    require_root!();
    let on = OnDisk::new("ext4", 300);
    let mount = &on.mount;
    mount.write("kept", "kept\n");
    let before = exact(&mount.path());
    let output = mount.specrun(&[], "dd if=/dev/urandom of=big bs=1M count=400");
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("No space left on device"), "{}", text(&output.stderr));
    assert!(mount.status().is_empty() && exact(&mount.path()) == before);
    until("the space has come back", || fs::write(mount.at("after"), vec![7; 10 << 20]).is_ok());
    mount.check();
    assert_eq!((mount.read("kept"), fs::read(mount.at("after")).expect("read").len()), ("kept\n".into(), 10 << 20));
}

/// A mount whose store lies on a file system in memory.
pub(crate) fn in_memory(mebibytes: u64) -> OnDisk {
    let root: TempDir = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory");
    let (image, point) = (root.path().join("image"), root.path().join("disk"));
    fs::create_dir(&point).expect("mkdir");
    let size = format!("size={mebibytes}m");
    run(root.path(), "mount", &["-t", "tmpfs", "-o", &size, "none", &point.to_string_lossy()]);
    let store = point.join("store");
    OnDisk { mount: Mount::with_store(root, store), disk: Disk { point, image } }
}

/// Writes until nothing more goes in, large files and small ones.
fn fill(mount: &Mount) {
    let script =
        "dd if=/dev/urandom of=big bs=1M count=300; for i in $(seq 20000); do echo $i > s$i || break; done; true";
    let said = run(&mount.path(), "sh", &["-c", &format!("{{ {script}; }} 2>&1")]);
    assert!(said.contains("No space left on device") && !said.contains("Input/output"), "{said}");
}

#[test]
fn what_is_on_a_full_disk_can_be_removed() {
    require_root!();
    let on = in_memory(48);
    let mount = &on.mount;
    sh(&mount.path(), "seq 10000 > keep; sync");
    let id = mount.held("seq 200000 > held");
    let last = |point: &Path| {
        // Somebody else takes what is left, as far as it goes.
        run(point, "sh", &["-c", "dd if=/dev/zero bs=64k 2>&1 >> taken || true"]);
    };
    let append = || {
        let mut file = fs::OpenOptions::new().append(true).open(mount.at("keep"))?;
        std::io::Write::write_all(&mut file, &[b'x'; 200_000])?;
        file.sync_all()
    };
    for how in ["rm big", ": > big", "truncate -s 100000 big", "specrun"] {
        fill(mount);
        // What the store clears away in the background gives some space back.
        until("nothing more goes in", || {
            last(&on.disk.point);
            append().is_err_and(|error| {
                assert_eq!(error.raw_os_error(), Some(nix::libc::ENOSPC), "{how}");
                true
            })
        });
        match how {
            "specrun" => assert!(mount.specrun(&[], "rm big").status.success()),
            how => drop(sh(&mount.path(), how)),
        }
        assert!(mount.mojavefs(&["gc"]).status.success(), "{how}");
        sh(&mount.path(), "rm -f s* big");
        fs::remove_file(on.disk.point.join("taken")).expect("remove");
        until("there is space again", || fs::write(mount.at("after"), vec![7; 1 << 20]).is_ok());
        assert!(mount.read("keep").starts_with("1\n2\n"), "{how}");
    }
    fill(mount);
    last(&on.disk.point);
    let aborted = mount.mojavefs(&["abort", &id]);
    assert!(aborted.status.success(), "{}", text(&aborted.stderr));
    sh(&mount.path(), "rm -f s* big");
    fs::remove_file(on.disk.point.join("taken")).expect("remove");
    until("there is space again", || mount.specrun(&[], "seq 20000 > new").status.success());
    mount.check();
    assert_eq!(mount.read("new").lines().count(), 20_000);
}

#[test]
fn many_writers_on_a_full_disk_do_not_stop_each_other() {
    require_root!();
    let on = in_memory(48);
    let mount = &on.mount;
    let script = |number| {
        format!(
            "i=0; while [ ! -e ../stop ]; do i=$((i+1)); : > w{number}.$((i % 50)); rm -f w{number}.$(((i + 25) % 50)); done 2>&1 \
             | sed 's/.*: //' | sort -u"
        )
    };
    let writer = |number| {
        let mut writer = Command::new("sh");
        writer.args(["-c", &script(number)]).current_dir(mount.path()).stdout(Stdio::piped());
        writer.spawn().expect("sh runs")
    };
    let writers: Vec<_> = (0..10).map(writer).collect();
    let taken = on.disk.point.join("taken");
    for _ in 0..4 {
        run(&on.disk.point, "sh", &["-c", "dd if=/dev/zero of=taken bs=64k 2>&1 || true"]);
        until("there is no space left", || fs::write(mount.at("mine"), vec![7; 100_000]).is_err());
        fs::remove_file(&taken).expect("remove");
        until("there is space again", || fs::write(mount.at("mine"), vec![7; 100_000]).is_ok());
    }
    fs::write(mount.beside("stop"), "").expect("write");
    for writer in writers {
        let said = text(&writer.wait_with_output().expect("it ends").stdout);
        assert!(!said.contains("Input/output"), "{said}");
    }
    mount.check();
}

#[test]
fn a_write_that_failed_leaves_nothing_behind() {
    require_root!();
    let on = in_memory(48);
    let mount = &on.mount;
    sh(&mount.path(), "seq 9000 | head -c 10000 > grows; seq 90000 | head -c 200000 > sparse; cp sparse ends; sync");
    let (grows, sparse) = (mount.read("grows"), mount.read("sparse"));
    let append = || fs::OpenOptions::new().append(true).open(mount.at("grows")).expect("open");
    let write = |name: &str, at: u64, bytes: &[u8]| {
        let file = fs::OpenOptions::new().write(true).open(mount.at(name)).expect("open");
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at)
    };
    // Two pages are left, so that a part of what does not fit is written.
    sh(&on.disk.point, "dd if=/dev/zero of=taken bs=4k 2>&1 || true; truncate -s -8192 taken");
    let appended = std::io::Write::write_all(&mut append(), &[b'x'; 20_000]);
    let failed = [appended, write("sparse", 655_360, &[b'x'; 40_000]), write("ends", 210_000, &[b'x'; 40_000])];
    for error in failed.map(|result| result.expect_err("there is no space").raw_os_error()) {
        assert_eq!(error, Some(nix::libc::ENOSPC));
    }
    // The kernel may have written a part of it by itself.
    let said = fs::metadata(mount.at("ends")).expect("stat").len();
    fs::remove_file(on.disk.point.join("taken")).expect("remove");
    let again = || std::io::Write::write_all(&mut append(), &[b'y'; 20_000]);
    until("there is space again", || again().is_ok());
    write("sparse", 700_000, b"z").expect("write");
    sh(&mount.path(), "truncate -s 250000 ends; sync grows sparse ends");
    mount.check();
    assert!(mount.read("grows") == grows + &"y".repeat(20_000), "what was there before, and what was written since");
    let zeros = |count| "\0".repeat(count);
    let ends = mount.read("ends");
    assert!(
        ends.starts_with(&sparse) && ends[said as usize..] == zeros(250_000 - said as usize),
        "nothing behind the end"
    );
    assert!(mount.read("sparse") == sparse + &zeros(500_000) + "z", "nothing of what failed");
}

#[test]
fn a_small_disk_is_enough_and_a_smaller_one_is_left_as_it_was() {
    require_root!();
    let on = OnDisk::new("ext4", 64);
    sh(&on.mount.path(), "seq 20000 > file");
    on.mount.check();
    assert_eq!(on.mount.read("file").lines().count(), 20_000);

    let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory");
    let point = root.path().join("disk");
    fs::create_dir(&point).expect("mkdir");
    run(root.path(), "mount", &["-t", "tmpfs", "-o", "size=16k", "none", &point.to_string_lossy()]);
    let mnt = root.path().join("mnt");
    fs::create_dir(&mnt).expect("mkdir");
    let output = Command::new(MOJAVEFS).arg("mount").args([&point.join("store"), &mnt]).output();
    let left = fs::read_dir(&point).expect("list").count();
    run(root.path(), "umount", &[&point.to_string_lossy()]);
    let output = output.expect("mojavefs runs");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("full"), "{said}");
    assert_eq!(left, 0, "something of the store is left behind");
}

#[test]
fn a_power_cut_on_xfs_leaves_commits_whole() {
    require_root!();
    power_cut("xfs");
}

#[test]
fn a_power_cut_on_ext4_leaves_commits_whole() {
    require_root!();
    power_cut("ext4");
}

fn power_cut(kind: &str) {
    let rounds = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 50 } else { 3 };
    let on = OnDisk::new(kind, 400);
    let mount = &on.mount;
    let mut last = 0;
    for round in 0..rounds {
        let jobs = 3 + round % 4;
        for number in last + 1..=last + jobs {
            let script = format!("echo {number} > small; seq {number} {} > large", number + 20_000);
            assert!(mount.specrun(&["--quiet"], &script).status.success());
        }
        last += jobs;
        // Not synced, not committed: it may be lost, the rest may not.
        let id = mount.held("echo held > held");
        let undecided = mount.specrun_command(&["--quiet"], "echo x > small; touch ../written; sleep 100").spawn();
        until("the job has written", || mount.beside("written").exists());
        Disk::cut_power(&on.disk.point);
        mount.crash();
        undecided.expect("specrun runs").wait().expect("it ends");
        fs::remove_file(mount.beside("written")).expect("remove");
        until("the disk can be taken off", || on.disk.detach());
        on.disk.attach();
        mount.fsck();
        mount.mount();
        assert_eq!(mount.read("small"), format!("{last}\n"));
        assert_eq!(mount.read("large").lines().count(), 20_001);
        assert_eq!(mount.status()[0]["state"], "held");
        assert!(mount.mojavefs(&["abort", &id]).status.success());
    }
    mount.check();
}

impl OnDisk {
    /// Whatever the disk's file system knows of names, lengths and holes is on disk, and then the power is cut: what was not
    /// synced otherwise is lost. The store is checked and mounted again.
    fn cut_power(&self) {
        fs::write(self.disk.point.join("other"), "x").expect("write");
        fs::File::open(self.disk.point.join("other")).and_then(|file| file.sync_all()).expect("sync");
        Disk::cut_power(&self.disk.point);
        self.mount.crash();
        until("the disk can be taken off", || self.disk.detach());
        self.disk.attach();
        self.mount.fsck();
        self.mount.mount();
    }
}

#[test]
fn what_a_lost_change_took_away_is_there_after_a_power_cut() {
    require_root!();
    for (kind, change) in [
        ("ext4", "mv f.tmp f"),
        ("xfs", "rm f"),
        ("ext4", ": > f"),
        ("xfs", "fallocate -p -o 65536 -l 131072 f"),
        ("ext4", "truncate -s 10000 f"),
        ("xfs", "specrun truncate -s 70000 f"),
    ] {
        taken_away(kind, change);
    }
}

/// What the change of a synced file replaces is given back only once the change is on disk.
fn taken_away(kind: &str, change: &str) {
    let on = OnDisk::new(kind, 400);
    let mount = &on.mount;
    sh(&mount.path(), "seq 50000 > f; seq 50001 100000 > f.tmp; sync f f.tmp; sync .");
    let (before, other) = (mount.read("f"), mount.read("f.tmp"));
    let used = || fs_bytes(&mount.store().join("content"));
    let all = used();
    let change = change.replace("specrun", SPECRUN);
    sh(&mount.path(), &change);
    let after = fs::read_to_string(mount.at("f")).ok();
    until("the space is given back", || mount.mojavefs(&["gc"]).status.success() && used() < all);
    on.cut_power();
    let there = fs::read_to_string(mount.at("f")).map_err(|error| error.raw_os_error());
    let there = there.or_else(|why| if why == Some(nix::libc::ENOENT) { Ok(String::new()) } else { Err(why) });
    let there = there.unwrap_or_else(|why| panic!("{kind}, {change}: f can't be read: {why:?}"));
    assert!(there == before || there == after.unwrap_or_default(), "{kind}, {change}: f is neither old nor new");
    if change != "mv f.tmp f" {
        assert_eq!(mount.read("f.tmp"), other);
    }
}

/// A commit makes the log durable, with the records of what was written outside jobs: their bytes are there, too.
#[test]
fn a_commit_leaves_no_zeros_of_what_was_written_outside_jobs() {
    require_root!();
    for kind in ["ext4", "xfs"] {
        let on = OnDisk::new(kind, 400);
        let mount = &on.mount;
        sh(&mount.path(), "seq 1000 > grown; sync grown; seq 200000 > changed; seq 300000 > other; seq 9000 >> grown");
        let job = "printf x | dd of=changed bs=1 seek=500000 conv=notrunc status=none";
        assert!(mount.specrun(&["--quiet"], job).status.success());
        let names = ["grown", "changed", "other"];
        let before = names.map(|name| mount.read(name));
        on.cut_power();
        let after = names.map(|name| mount.read(name));
        for (name, (before, after)) in names.iter().zip(before.iter().zip(after)) {
            assert!(*before == after, "{kind}: {name} is not what it was");
        }
    }
}

/// The space that the files in a directory take, in bytes.
fn fs_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry").path());
    // One that goes while it is looked at takes none.
    entries.filter_map(|path| fs::metadata(path).ok()).map(|found| found.blocks() * 512).sum()
}

/// The k-th sync of the daemon fails: whatever `specrun` says of its commit is what is there, and the next one works.
#[test]
fn a_failed_sync_is_answered_with_what_is_there() {
    require_root!();
    let most = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 40 } else { 8 };
    for error in ["EIO", "ENOSPC"] {
        for k in 1..=most {
            failing("fsync,fdatasync,syncfs,sync_file_range", false, error, k);
        }
    }
}

/// The same for the k-th write to the log of the records, and to a content file.
#[test]
fn a_failed_write_is_answered_with_what_is_there() {
    require_root!();
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    for error in ["EIO", "ENOSPC"] {
        for k in (1..=60).step_by(if soak { 1 } else { 11 }) {
            failing("write", true, error, k);
            failing("pwrite64", false, error, k);
        }
    }
}

/// What a disk refuses has not happened: the status says so, and what is asked for again once the disk works is done.
#[test]
fn an_abort_that_the_disk_refuses_leaves_the_speculation_undecided() {
    require_root!();
    let mount = Mount::new();
    let id = mount.held("echo held > h");
    let on_it = mount.held("cat h > copy");
    let calls = "fsync,fdatasync,syncfs,sync_file_range";
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error=EIO"));
    let mut strace = mount.strace(&["-e", &trace, "-e", &inject]);
    for _ in 0..2 {
        let refused = mount.mojavefs(&["abort", &id]);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("speculation {id} can't be undone now")) && said.contains("failed"), "{said}");
        let status = mount.status();
        assert_eq!([&status[0]["state"], &status[1]["state"]], ["held"; 2]);
    }
    let commit = mount.mojavefs(&["commit", &id]);
    let said = text(&commit.stderr);
    assert!(commit.status.code() == Some(1) && said.contains("the store has stopped after an error"), "{said}");
    assert_eq!(mount.status()[0]["state"], "held");
    let _ =
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(strace.id().cast_signed()), nix::sys::signal::Signal::SIGINT);
    strace.wait().expect("strace ends");
    let undone = mount.mojavefs(&["abort", &id]);
    assert!(undone.status.success(), "{}", text(&undone.stderr));
    assert!(text(&undone.stderr).contains(&format!("also undone, as depending on {id}: {on_it}")));
    assert!(mount.status().is_empty());
    mount.check();
    assert!(mount.status().is_empty() && !mount.exists("h") && !mount.exists("copy"));
}

/// The k-th of these system calls of the daemon fails; if `log_only`, of those on the log of the records.
fn failing(calls: &str, log_only: bool, error: &str, k: usize) {
    let mount = Mount::new();
    mount.write("a", "old\n");
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}:when={k}"));
    let records = fs::read_dir(mount.store().join("records")).expect("list");
    let logs = records
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "log"));
    let logs: Vec<_> = logs.filter(|_| log_only).flat_map(|path| ["-P".into(), path.into_os_string()]).collect();
    let words = [&["-e".into(), trace.into(), "-e".into(), inject.into()], &logs[..]].concat();
    let mut strace = mount.strace(&words);
    let mut there = "old\n".to_owned();
    for number in 0..4 {
        let script = format!("set -e; echo {number} > a; seq 20000 > large; mkdir d{number}; touch d{number}/f");
        let output = mount.specrun_command(&["--quiet"], &script).output().expect("specrun runs");
        if output.status.success() {
            there = format!("{number}\n");
        }
        let what = format!("{error} at {calls} {k}: {}", text(&output.stderr));
        assert_eq!(mount.read("a"), there, "{what}");
        assert_eq!(mount.exists(&format!("d{number}/f")), output.status.success(), "{what}");
    }
    let _ =
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(strace.id().cast_signed()), nix::sys::signal::Signal::SIGINT);
    strace.wait().expect("strace ends");
    let last =
        Command::new(SPECRUN).args(["--quiet", "--", "sh", "-c", "echo last > a"]).current_dir(mount.path()).output();
    let last = last.expect("specrun runs");
    assert!(last.status.success(), "{error} at {calls} {k}: {}", text(&last.stderr));
    mount.crash();
    mount.fsck();
    mount.mount();
    assert_eq!(mount.read("a"), "last\n", "{error} at {calls} {k}");
}

#[test]
fn a_file_is_as_long_as_the_disk_allows_one_to_be() {
    require_root!();
    let on = OnDisk::new("ext4", 300);
    let native = on.disk.point.join("native");
    let try_at = |path: &Path, terabytes: u64| {
        let file = fs::File::create(path).expect("a file");
        let at = terabytes << 40;
        let errno = |result: std::io::Result<usize>| result.err().and_then(|error| error.raw_os_error());
        let made = [
            file.set_len(at).map(|()| 0),
            std::os::unix::fs::FileExt::write_at(&file, &[0; 4096], at),
            std::os::unix::fs::FileExt::write_at(&file, b"x", at),
        ];
        let length = file.metadata().expect("its length").len();
        (made.map(errno), length)
    };
    let mut refused = 0;
    for terabytes in [0, 1, 2, 3, 5, 7, 9, 15, 17, 100, 1 << 20] {
        let (there, here) = (try_at(&native, terabytes), try_at(&on.mount.at("file"), terabytes));
        assert_eq!(here, there, "at {terabytes} TiB");
        refused += u32::from(there.0 == [Some(nix::libc::EFBIG); 3]);
    }
    assert!(refused > 2, "nothing is too long here");
    on.mount.check();
}
