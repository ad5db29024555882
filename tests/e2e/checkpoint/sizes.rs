//! How long files are: the kernel appends, copies and serves what is mapped by what it was told last, also after going back.

use super::{Job, let_go, mounted};
use crate::harness::{Mount, until};

/// A job that has begun, goes on when another has changed something, reads that, and goes back when the other fails; what it
/// says in the end.
pub(super) fn after_going_back(mount: &Mount, change: &str, begin: &str, script: &str) -> String {
    let begin = format!("import os\nhere = os.environ['HERE']\n{begin}\nopen(here + '/../up', 'w').close()");
    let script = format!("{begin}\nopen(here + '/../fifo').read()\n{script}");
    let mut job = Job::python(mount, &[], &script);
    until("it has begun", || mount.beside("up").exists());
    let first = mount.start("first", &[], change);
    let_go(mount);
    until("it has done all that", || mount.beside("done").exists());
    assert_eq!(job.joined(mount, "data")["back_to"], "read");
    first.exit(1);
    job.until_said("going on from the read (1 of 3)");
    let (code, said) = job.end();
    assert_eq!(code, Some(0), "{said}");
    mount.read("result")
}

#[test]
fn an_append_after_going_back_is_where_the_file_ends() {
    require_root!();
    for (cut, end) in [(100, 110), (40, 50)] {
        let mount = mounted();
        let begin =
            "import os\nfile = os.open('mine', os.O_RDWR | os.O_CREAT | os.O_APPEND)\nos.write(file, b'a' * 100)";
        let script = format!(
            "
text = open('data').read()
os.ftruncate(file, {cut})
os.write(file, b'b' * (400 if text == 'new\\n' else 10))
offset, size = os.lseek(file, 0, 1), os.fstat(file).st_size
open('../done', 'w').close()
open('result', 'w').write(f'{{offset}} {{size}}')
"
        );
        assert_eq!(after_going_back(&mount, "echo new > data", begin, &script), format!("{end} {end}"));
        assert_eq!(mount.read("mine"), "a".repeat(cut) + &"b".repeat(10));
        mount.check();
    }
}

#[test]
fn files_that_were_shorter_where_it_comes_back_from_are_copied_and_mapped_to_their_end() {
    require_root!();
    let mount = mounted();
    mount.write("long", &"x".repeat(5000));
    let begin = "
import ctypes, os
libc = ctypes.CDLL(None)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + 3 * [ctypes.c_int] + [ctypes.c_long]
def mapped(file): return libc.mmap(None, 5000, 1, 1, file, 0)
file, closed = os.open('long', os.O_RDONLY), os.open('closed', os.O_RDONLY)
maps = [mapped(file), mapped(closed)]
os.close(closed)";
    let script = "
text = open('data').read()
if 'new' in text:
    assert os.fstat(file).st_size == 0 and os.stat('closed').st_size == 0
    open('../done', 'w').close()
else:
    out = os.open('out', os.O_RDWR | os.O_CREAT)
    counts = [os.copy_file_range(file, out, 9999, 0), os.sendfile(out, file, 0, 9999)]
    counts += [ctypes.string_at(at, 5000).count(b'x') for at in maps]
    open('result', 'w').write(' '.join(map(str, counts)))
";
    mount.write("closed", &"x".repeat(5000));
    let change = "echo new > data; : > long; : > closed";
    assert_eq!(after_going_back(&mount, change, begin, script), "5000 5000 5000 5000");
    mount.check();
}
