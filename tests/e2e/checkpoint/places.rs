//! Where directories are: the kernel moves one only from where it knows it to be, also after going back.

use super::sizes::after_going_back;
use super::{Job, let_go, mounted};
use crate::harness::{sh, until};

/// How a process keeps a directory in use, and where it is itself.
const USES: [(&str, &str); 4] = [
    ("used = os.open('from/dir', os.O_RDONLY)", "."),
    ("used = open('from/dir/file')", "."),
    ("import mmap\nwith open('from/dir/file') as file: used = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)", "."),
    ("os.chdir('from/dir')", "from/dir"),
];

/// Moves it when the other's work is read, and once more when it is not there any more.
const MOVES: &str = "
text = open(here + '/data').read()
place = os.path.relpath(os.getcwd(), here)
os.rename(here + '/from/dir', here + '/to/dir')
if 'new' in text:
    open(here + '/../done', 'w').close()
else:
    open(here + '/result', 'w').write(f\"{place} {os.listdir(here + '/from')} {os.listdir(here + '/to/dir')}\")
";

#[test]
fn a_directory_in_use_that_was_moved_in_what_is_undone_can_be_moved_again() {
    require_root!();
    for (begin, place) in USES {
        let mount = mounted();
        sh(&mount.path(), "mkdir -p from/dir to; echo x > from/dir/file");
        let found = after_going_back(&mount, "echo new > data", begin, MOVES);
        assert_eq!(found, format!("{place} [] ['file']"), "{begin}");
        mount.check();
    }
}

/// It depends on nobody by the way back.
#[test]
fn a_name_that_others_have_moved_and_not_committed_is_not_looked_at_on_the_way_back() {
    require_root!();
    let mount = mounted();
    sh(&mount.path(), "mkdir -p from/dir");
    let script = "
import os
used = os.open('from/dir', os.O_RDONLY)
open('../up', 'w').close()
open('../fifo').read()
text = open('data').read()
if 'new' in text: open('../done', 'w').close()
open('result', 'w').write(text)
";
    let mut job = Job::python(&mount, &[], script);
    until("it has begun", || mount.beside("up").exists());
    let first = mount.start("first", &[], "echo new > data");
    let_go(&mount);
    until("it has read that", || mount.beside("done").exists());
    assert_eq!(job.joined(&mount, "data")["back_to"], "read");
    let mover = mount.start("mover", &[], "mv from/dir from/other");
    first.exit(1);
    job.until_said("going on from the read (1 of 3)");
    // It waits for nobody.
    let (code, said) = job.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(mount.read("result"), "old\n");
    assert!(mover.exit(0).status.success());
    mount.check();
}
