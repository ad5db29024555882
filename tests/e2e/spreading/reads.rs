//! Every way in which state is observed counts, and nothing else does.

use crate::harness::jobs::depends_on;
use crate::harness::{Mount, sh, text};
use std::fs;

const TRUNK: &str = "mkdir d full moved; echo f > f; echo gone > gone; echo d > d/f; echo m > moved/f; ln f hard; ln -s f soft; \
    echo x > attr; setfattr -n user.a -v 1 attr; echo s > other; echo deep > full/f; chmod 644 other; head -c 100000 /dev/zero > large";
const CHANGES: &str = "echo F >> f; rm gone; touch new d/new; ln -sf other soft; setfattr -n user.a -v 2 attr; \
    setfattr -n user.new -v 2 attr; mv moved elsewhere; rm full/f; chmod 600 other; printf y | dd of=large conv=notrunc seek=70000 bs=1 2>/dev/null";

/// Each reads in just one way something that the changes above concern.
const READS: &[&str] = &[
    "cat f >/dev/null",
    "stat -c %s f >/dev/null",
    "stat -c %Y f >/dev/null",
    "cat hard >/dev/null",
    "stat hard >/dev/null",
    "test -e new",
    "! test -e gone",
    "ls d | grep -q new",
    "! ls full | grep -q f",
    "test $(readlink soft) = other",
    "getfattr -n user.a attr >/dev/null",
    "getfattr -d attr | grep -q new",
    "! test -e moved/f",
    "cat elsewhere/f >/dev/null",
    "stat -c %a other >/dev/null",
    "python3 -c 'import mmap,os; f=os.open(\"f\",os.O_RDONLY); m=mmap.mmap(f,0,prot=mmap.PROT_READ); assert m[:]==b\"f\\nF\\n\"'",
    "test $(tail -c +70001 large | head -c 1) = y",
    "head -c 10 large >/dev/null",
    "echo more >> f",
    "echo again > gone",
    "rm new",
    "mv d/new d/newer",
    "mkdir moved",
    "rmdir full",
    "ln other linked",
    "chmod 755 f",
    "setfattr -x user.new attr",
    "truncate -s 1 large",
    "cp --reflink=never f copied",
];

/// None of these depends on what was changed.
const UNRELATED: &[&str] = &[
    "true",
    "ls . full/.. >/dev/null; stat full d >/dev/null",
    "cat d/f > elsewhere-mine",
    "echo mine > d/mine; mkdir d/sub; rm d/mine",
    "! test -e nothing; ! test -e d/nothing",
    "stat -c %Y . d full >/dev/null",
    "find d/f full -maxdepth 0 >/dev/null",
    "getfattr -n user.none d 2>/dev/null; true",
];

#[test]
fn each_way_of_reading_joins() {
    let mount = Mount::new();
    sh(&mount.path(), TRUNK);
    for read in READS {
        let writer = mount.start("writer", &[], CHANGES);
        assert_eq!(depends_on(&mount, read), [writer.spec()], "{read}");
        assert_eq!(writer.exit(1).status.code(), Some(1));
        assert!(mount.status().is_empty(), "{read}: it fell with the writer");
    }
    mount.check();
}

#[test]
fn what_is_unrelated_does_not_join() {
    let mount = Mount::new();
    sh(&mount.path(), TRUNK);
    // Listing the root would join: a name is new in it. So everything happens one level down.
    let changes = CHANGES.replace("touch new d/new", "touch d/new");
    let writer = mount.start("writer", &[], &changes);
    for read in UNRELATED.iter().filter(|read| !read.contains("ls .")) {
        assert_eq!(depends_on(&mount, read), [0; 0], "{read}");
    }
    assert!(writer.exit(0).status.success());
    mount.check();
}

#[test]
fn trunk_sees_and_waits_for_nothing() {
    let mount = Mount::new();
    sh(&mount.path(), TRUNK);
    let writer = mount.start("writer", &[], CHANGES);
    let read = "test $(cat f) = f && test -e gone && ! test -e new && test $(readlink soft) = f && cat moved/f full/f >/dev/null";
    sh(&mount.path(), read);
    assert!(writer.exit(0).status.success());
    sh(&mount.path(), "grep -q F f && ! test -e gone && test -e new && cat elsewhere/f >/dev/null");
}

/// What a kernel has cached, and what is open or mapped, when it becomes undecided.
#[test]
fn what_was_read_before_is_read_again() {
    let reads = [
        ("cached", "cat f >/dev/null; ls d >/dev/null; test -e new", "cat f >/dev/null"),
        ("attributes", "stat f >/dev/null", "stat f >/dev/null"),
        ("absent", "test -e new", "test -e new"),
        ("present", "test -e gone", "test -e gone"),
        ("listed", "ls d >/dev/null; ls d > /dev/null", "ls d >/dev/null"),
        ("open", "exec 3<f; cat <&3 >/dev/null", "cat <&3 >/dev/null"),
        ("link", "readlink soft >/dev/null", "readlink soft >/dev/null"),
    ];
    let mount = Mount::new();
    sh(&mount.path(), TRUNK);
    for (what, before, after) in reads {
        let beside = mount.beside("");
        let beside = beside.display();
        let script = format!(
            "{before}; touch {beside}/before; until [ -e {beside}/changed ]; do sleep 0.005; done; {after}; true"
        );
        let reader = mount.start_freely("reader", &["--no-wait", "--json"], &script);
        crate::harness::until("it has read", || mount.beside("before").exists());
        let writer = mount.start("writer", &[], CHANGES);
        fs::write(mount.beside("changed"), "").expect("go");
        crate::harness::until("it has read again", || mount.beside("reader.through").exists());
        let output = reader.exit(0);
        let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
        assert_eq!(said["waits_for"][0], writer.spec(), "{what}");
        writer.exit(1);
        assert!(mount.status().is_empty(), "{what}");
        for left in ["before", "changed"] {
            fs::remove_file(mount.beside(left)).expect("remove");
        }
    }
}

/// A mapping made before shows what it maps as it is now.
#[test]
fn how_many_names_a_file_has_is_seen_at_once() {
    let mount = Mount::new();
    sh(&mount.path(), "echo a > x; ln x z");
    let script =
        "stat -c %h x > ../before; touch ../looked; until [ -e ../go ]; do sleep 0.005; done; stat -c %h x > ../after";
    let looks = mount.start_freely("looks", &[], script);
    crate::harness::until("it has looked", || mount.beside("looked").exists());
    let removes = mount.start("removes", &[], "rm z");
    fs::write(mount.beside("go"), "").expect("go");
    crate::harness::until("it has looked again", || mount.beside("looks.through").exists());
    let seen = ["before", "after"].map(|name| fs::read_to_string(mount.beside(name)).expect("a number"));
    assert_eq!(seen, ["2\n", "1\n"]);
    assert!(removes.exit(0).status.success() && looks.exit(0).status.success());
}

#[test]
fn a_mapping_made_before_is_joined_through() {
    let mount = Mount::new();
    mount.write("f", &"a".repeat(10_000));
    let script = "python3 -c '\nimport mmap,os,time\nf=os.open(\"f\",os.O_RDONLY)\nm=mmap.mmap(f,0,prot=mmap.PROT_READ)\n\
        assert m[5000]==97\nopen(\"../before\",\"w\")\n\
        while not os.path.exists(\"../changed\"): time.sleep(0.005)\n\
        open(\"../seen\",\"w\").write(chr(m[5000]))\n'";
    let reader = mount.start_freely("reader", &["--no-wait", "--json"], script);
    crate::harness::until("it has mapped", || mount.beside("before").exists());
    let writer = mount.start("writer", &[], "printf b | dd of=f conv=notrunc seek=5000 bs=1 2>/dev/null");
    fs::write(mount.beside("changed"), "").expect("go");
    let output = reader.exit(0);
    assert_eq!(fs::read_to_string(mount.beside("seen")).expect("seen"), "b");
    let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(said["waits_for"][0], writer.spec());
    writer.exit(0);
}

#[test]
fn an_inherited_descriptor_counts() {
    let mount = Mount::new();
    mount.write("f", "f\n");
    let writer = mount.start("writer", &[], "echo F > f");
    let script = format!("exec 3<f; {} --no-wait --json -- sh -c 'cat <&3 > copy' 2>&1", crate::harness::SPECRUN);
    let said: serde_json::Value = serde_json::from_str(&sh(&mount.path(), &script)).expect("JSON");
    assert_eq!(said["waits_for"][0], writer.spec());
    assert!(writer.exit(0).status.success());
    assert_eq!(mount.read("copy"), "F\n");
}

/// The design's exception: a descriptor passed in from outside leads outside the view, and what is read through it is
/// what is final.
#[test]
fn a_descriptor_passed_in_later_leads_outside() {
    let mount = Mount::new();
    mount.write("f", "f\n");
    let writer = mount.start("writer", &[], "echo F > f");
    let sender = "import socket,os\ns=socket.socket(socket.AF_UNIX); s.bind('../passing'); s.listen(1); c,_=s.accept()\n\
        socket.send_fds(c,[b'x'],[os.open('f',os.O_RDONLY)]); c.recv(1)";
    let mut passing =
        std::process::Command::new("python3").args(["-c", sender]).current_dir(mount.path()).spawn().expect("python3");
    crate::harness::until("somebody listens", || mount.beside("passing").exists());
    let receiver = "import socket,os,time\ns=socket.socket(socket.AF_UNIX)\n\
        for _ in range(500):\n  try: s.connect('../passing'); break\n  except OSError: time.sleep(0.01)\n\
        _,f,_,_=socket.recv_fds(s,1,1); assert os.read(f[0],9)==b'f\\n'; s.send(b'x')";
    fs::write(mount.beside("receiver.py"), receiver).expect("write");
    assert_eq!(depends_on(&mount, "python3 ../receiver.py"), [0; 0]);
    assert!(passing.wait().expect("wait").success());
    writer.exit(0);
}

/// Names are listed without looking at the files, whether or not the kernel asks for their attributes as well.
#[test]
fn listing_names_does_not_look_at_the_files() {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir d; for i in 1 2 3 4 5 6 7 8; do echo $i > d/$i; done");
    let writer = mount.start("writer", &[], "for i in 1 2 3; do echo more >> d/$i; done");
    let list =
        "for i in 1 2 3; do ls -f d >/dev/null; stat d/8 >/dev/null; done; ls -l d/8 >/dev/null; ls -f d > /dev/null";
    assert_eq!(depends_on(&mount, list), [0; 0]);
    assert_eq!(depends_on(&mount, "ls -l d >/dev/null"), [writer.spec()]);
    writer.exit(1);
}

/// Entries that others change while a directory is being read.
#[test]
fn a_listing_leaves_out_nothing_that_every_version_has() {
    // The kernel asks for these in two pieces, and for the attributes as well since the program has looked at some.
    const FILES: usize = 600;
    let script = "import os, time
entries = os.scandir('d')
names = [next(entries).name]
os.stat('d/' + names[0])
open('../started', 'w')
while not os.path.exists('../moved'): time.sleep(0.005)
try: names += [entry.name for entry in entries]
except OSError as error: names += ['refused']
open('../names', 'w').write('\\n'.join(names))";
    for options in [&["--no-wait"][..], &["--from-start", "--no-wait"], &["--on-read", "fail"]] {
        let mount = Mount::new();
        sh(&mount.path(), &format!("mkdir d; cd d; seq -f f%g {FILES} | xargs touch; touch tmp"));
        let mut command = mount.specrun_command(options, "exec python3 -c \"$SCRIPT\"");
        let mut reader = command.env("SCRIPT", script).spawn().expect("specrun runs");
        crate::harness::until("it has begun to read", || mount.beside("started").exists());
        let last = sh(&mount.path(), "ls -U d | grep -v tmp | tail -1");
        let writer = mount.start("writer", &[], &format!("mv d/tmp d/{}", last.trim()));
        fs::write(mount.beside("moved"), "").expect("go");
        assert!(reader.wait().expect("it ends").success());
        let names = fs::read_to_string(mount.beside("names")).expect("names");
        let files = names.lines().filter(|name| name.starts_with('f')).count();
        assert!(files == FILES || names.ends_with("refused"), "{options:?}: {files} files of {FILES}");
        assert!(writer.exit(0).status.success());
    }
}

#[test]
fn a_shell_in_a_job_that_could_make_checkpoints_reads_what_is_undecided() {
    // Only root's jobs go back to a read.
    require_root!();
    let mount = Mount::new();
    let first = mount.start("first", &[], "echo new > data");
    let running = mount.start("running", &[], "echo 1 > mine");
    let held = mount.held("echo 1 > held");
    for id in [running.spec().to_string(), held.clone()] {
        let shell = mount.mojavefs(&["shell", &id, "--", "cat", "data"]);
        assert_eq!(text(&shell.stdout), "new\n", "{}", text(&shell.stderr));
        let why = text(&mount.mojavefs(&["why", &id]).stdout);
        assert!(why.contains("go back to its start (it was read from outside of the job"), "{why}");
    }
    assert!(first.exit(0).status.success());
    assert!(running.exit(0).status.success());
    assert!(mount.mojavefs(&["commit", &held]).status.success());
    mount.check();
}
