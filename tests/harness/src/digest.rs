//! A tree in words: everything that `stat`, `readlink`, `listxattr` and reading tell, in one order.

use std::path::Path;
use std::process::Command;

/// Walks a tree: a line for each file with type, mode, owner, links, size, times, link target, xattrs and a hash of its
/// content.
const SCRIPT: &str = r#"
import os, sys, stat, hashlib
root, times = sys.argv[1], sys.argv[2] == "times"
groups = {}
lines = []
def visit(path, name):
    s = os.lstat(path)
    what = [repr(name), oct(s.st_mode), str(s.st_uid), str(s.st_gid), str(s.st_nlink), str(s.st_rdev)]
    if not stat.S_ISDIR(s.st_mode):
        what.append(str(s.st_size))
        if s.st_nlink > 1:
            what.append("same-as:" + groups.setdefault(s.st_ino, repr(name)))
    if times:
        what += [str(s.st_mtime_ns), str(s.st_atime_ns if stat.S_ISREG(s.st_mode) and os.environ.get("ATIME") else 0)]
    if times and os.environ.get("CTIME"):
        what.append(str(s.st_ctime_ns))
    for attr in sorted(os.listxattr(path, follow_symlinks=False)):
        what.append("%s=%r" % (attr, os.getxattr(path, attr, follow_symlinks=False)))
    if stat.S_ISLNK(s.st_mode):
        what.append("->" + repr(os.readlink(path)))
    if stat.S_ISREG(s.st_mode):
        h = hashlib.sha256()
        with open(path, "rb") as f:
            for piece in iter(lambda: f.read(1 << 20), b""):
                h.update(piece)
        what.append(h.hexdigest())
    lines.append(" ".join(what))
    if stat.S_ISDIR(s.st_mode):
        for child in sorted(os.listdir(os.fsencode(path))):
            visit(os.path.join(os.fsencode(path), child), os.path.join(os.fsencode(name), child))
visit(os.fsencode(root), b"")
print("\n".join(lines))
"#;

fn digest(root: &Path, times: &str, environment: &[(&str, &str)]) -> String {
    let output =
        Command::new("python3").args(["-c", SCRIPT]).arg(root).arg(times).envs(environment.iter().copied()).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All of a tree, times to the nanosecond included: equal before and after what never happened.
pub fn exact(root: &Path) -> String {
    digest(root, "times", &[("ATIME", "1"), ("CTIME", "1")])
}

/// A tree without its times: equal for two runs of the same work.
pub fn content(root: &Path) -> String {
    digest(root, "no times", &[])
}

/// A tree with modification times: equal for a copy.
pub fn copied(root: &Path) -> String {
    digest(root, "times", &[])
}
