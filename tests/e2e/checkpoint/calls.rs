//! A job changes something, another builds on that, the first goes on: whatever the call in which it joins, neither falls for it.

use super::Job;
use crate::harness::{Mount, sh, text, until};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many calls are tried at once.
const AT_ONCE: usize = 4;

const PREPARE: &str = "
echo 0 > base; ln base one; ln base two; ln base three; mkdir h k empty; echo 0 > f; echo 0 > a; ln -s base link; setfattr -n user.k -v 0 f
echo some > from";

/// What the first does and does again, and what the other does in between. `f` is open in both.
const CALLS: [(&str, &str, &str, &str); 27] = [
    ("link", "os.link('base', 'h/y')", "os.link('base', 'h/x')", "os.link('base', 'h/y2')"),
    ("unlink", "os.unlink('one')", "os.unlink('two')", "os.unlink('three')"),
    ("rename", "os.rename('a', 'b')", "os.rename('b', 'c')", "os.rename('c', 'd')"),
    ("rename over", "os.rename('one', 'a')", "os.rename('two', 'x')", "os.rename('three', 'x')"),
    ("rename a directory", "os.rename('k', 'i')", "os.rename('i', 'j')", "os.rename('j', 'empty')"),
    ("create", "open('new', 'x').close()", "os.unlink('new')", "open('new', 'x').close()"),
    ("mkdir", "os.mkdir('m')", "os.rmdir('m')", "os.mkdir('m')"),
    ("rmdir", "os.rmdir('empty')", "os.mkdir('empty')", "os.rmdir('empty')"),
    ("symlink", "os.symlink('t', 's')", "os.unlink('s')", "os.symlink('t', 's')"),
    ("mkfifo", "os.mkfifo('p')", "os.unlink('p')", "os.mkfifo('p')"),
    ("open for writing", "open('f', 'w').write('1')", "open('f', 'w').write('2')", "open('f', 'w').write('3')"),
    ("append", "open('f', 'a').write('1')", "open('f', 'a').write('2')", "open('f', 'a').write('3')"),
    ("write", "os.pwrite(F, b'1', 0)", "os.pwrite(F, b'2', 1)", "os.pwrite(F, b'3', 2)"),
    ("read", "os.pwrite(F, b'1', 0)", "os.pwrite(F, b'2', 1)", "os.pread(F, 9, 0)"),
    ("chmod", "os.chmod('f', 0o600)", "os.chmod('f', 0o640)", "os.chmod('f', 0o644)"),
    ("fchmod", "os.fchmod(F, 0o600)", "os.fchmod(F, 0o640)", "os.fchmod(F, 0o644)"),
    ("chown", "os.chown('f', 1, 1)", "os.chown('f', 2, 2)", "os.chown('f', 3, 3)"),
    ("utime", "os.utime('f', (1, 1))", "os.utime('f', (2, 2))", "os.utime('f', (3, 3))"),
    ("truncate", "os.truncate('f', 10)", "os.truncate('f', 20)", "os.truncate('f', 5)"),
    ("fallocate", "os.posix_fallocate(F, 0, 10)", "os.posix_fallocate(F, 0, 20)", "os.posix_fallocate(F, 0, 30)"),
    ("copy", "copied(9)", "copied(7)", "copied(5)"),
    (
        "setxattr",
        "os.setxattr('f', 'user.k', b'1')",
        "os.setxattr('f', 'user.k', b'2')",
        "os.setxattr('f', 'user.k', b'3')",
    ),
    (
        "removexattr",
        "os.removexattr('f', 'user.k')",
        "os.setxattr('f', 'user.k', b'2')",
        "os.removexattr('f', 'user.k')",
    ),
    ("stat", "os.utime('f', (1, 1))", "os.utime('f', (2, 2))", "os.stat('f')"),
    ("access", "os.chmod('f', 0o600)", "os.chmod('f', 0o640)", "os.access('f', os.R_OK)"),
    (
        "readlink",
        "(os.unlink('link'), os.symlink('1', 'link'))",
        "(os.unlink('link'), os.symlink('2', 'link'))",
        "os.readlink('link')",
    ),
    ("list", "open('h/y', 'x').close()", "open('h/x', 'x').close()", "os.listdir('h')"),
];

/// It knows all names before.
const BEGIN: &str = "
import os
for dir in ('.', 'h'):
    for name in os.listdir(dir): os.lstat(os.path.join(dir, name))
F = os.open('f', os.O_RDWR)
def copied(length):
    out = os.open('out', os.O_RDWR | os.O_CREAT)
    os.copy_file_range(os.open('from', os.O_RDONLY), out, length)
    os.close(out)
";

fn nobody_falls(mount: &Mount, number: usize, (name, first, other, second): (&str, &str, &str, &str)) {
    let (dir, gate, done) = (format!("call{number}"), format!("gate{number}"), format!("done{number}"));
    sh(&mount.path(), &format!("mkdir {dir}; cd {dir}; {PREPARE}"));
    sh(&mount.beside(""), &format!("mkfifo {gate}"));
    let beside = mount.beside("").display().to_string();
    let script = format!(
        "import os\nos.chdir('{dir}')\n{BEGIN}\n{first}\nopen('{beside}/{gate}').read()\n{second}\nopen('{beside}/{done}', 'w').close()\n"
    );
    let job = Job::start(mount, &["--retries", "0"], &["python3", "-SE", "-c", &script]);
    let has_changed = |status: &serde_json::Value| status["pid"] == job.id() && status["changes"].as_u64() > Some(0);
    until(&format!("{name}: it has changed something"), || mount.status().iter().any(has_changed));
    let script = mount.beside(&format!("other{number}.py"));
    fs::write(&script, format!("{BEGIN}\n{other}\n")).expect("write");
    let other = format!("cd {dir}; python3 -SE {}", script.display());
    let other = mount.start(&format!("other{number}"), &["--retries", "0"], &other);
    fs::write(mount.beside(&gate), "go").expect("the fifo");
    until(&format!("{name}: it has gone on"), || mount.beside(&done).exists());
    let output = other.exit(0);
    let (code, said) = job.end();
    assert_eq!((code, output.status.code()), (Some(0), Some(0)), "{name}: {said}{}", text(&output.stderr));
}

#[test]
fn nobody_falls_for_the_call_in_which_it_joins() {
    require_root!();
    let mount = Mount::new();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            let Some(call) = CALLS.get(number) else { return };
            nobody_falls(&mount, number, *call);
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    assert!(mount.status().is_empty());
    mount.check();
}
