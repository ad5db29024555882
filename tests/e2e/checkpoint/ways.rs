//! Every way of looking at what another job has undecided: who goes back from that has seen nothing of it.

use super::Job;
use crate::harness::served::Server;
use crate::harness::{Mount, sh, text};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many ways are tried at once.
const AT_ONCE: usize = 4;

/// What there is to look at; $NAMES names in one directory.
const PREPARE: &str = "
echo old > f; echo g > gone; ln -s first link; setfattr -n user.k -v old f; : > mode; chmod 644 mode; mkdir d; echo 1 > d/one
echo 1 > from; printf xxxxxxxxxxxxxxxxxxxx > long; mkdir many; (cd many; seq -f 'name-of-a-file-%04g' $NAMES | xargs touch)";

/// What another changes of it.
const CHANGE: &str = "
echo newer > f; echo 1 > new; rm -f gone; ln -sfn second link; setfattr -n user.k -v new f; chmod 600 mode; mkdir d/sub; echo 2 > d/more
mv from to; truncate -s 9 long; ln f hard; rm many/name-of-a-file-2*; touch many/name-of-a-file-0001.5 many/name-of-a-file-2999.5";

/// Looks twice, each time when it is let, and notes what it has seen. The other's changes may be there each time.
const LOOKER: &str = "
import os, sys, json, mmap, subprocess, shutil, time
way, gate, place = sys.argv[1:]
os.chdir(place)
FD = os.open('f', os.O_RDONLY); DIR = os.open('d', os.O_RDONLY); LONG = os.open('long', os.O_RDONLY)
BEGUN = [os.scandir('many') for _ in range(2)]
BEGUN = [(listing, next(listing).name) for listing in BEGUN]
def rest(listing, first): return sorted([first] + [entry.name for entry in listing])
def made(name):
    try: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)); return 'made'
    except OSError as error: return error.strerror
def append(name): open(name, 'a').write('+'); return open(name).read()
def renamed(a, b):
    try: os.rename(a, b); return 'renamed'
    except OSError as error: return error.strerror
def inside(name):
    try: os.chdir(name); os.chdir('../..'); return 'there'
    except OSError as error: return error.strerror
def copied(): shutil.copy('f', 'copy'); return open('copy').read()
def moved():
    out = os.open('copied', os.O_RDWR | os.O_CREAT)
    os.lseek(LONG, 0, 0)
    return [os.copy_file_range(LONG, out, 99), os.pread(out, 99, 0).decode()]
seen = []
for number in range(2):
    while gate != '-' and not os.path.exists(f'{gate}.{number}'): time.sleep(.005)
    seen.append(eval(way))
    if gate != '-': open(f'{gate}.{number}.seen', 'w').close()
open('log', 'w').write(json.dumps(seen))
";

/// Each way.
const WAYS: [(&str, &str); 35] = [
    ("list", "sorted(os.listdir('.'))"),
    ("list below", "sorted(os.listdir('d'))"),
    ("list with attributes", "sorted((e.name, e.stat(follow_symlinks=False).st_size) for e in os.scandir('d'))"),
    ("list an open directory", "sorted(os.listdir(DIR))"),
    ("list on", "rest(*BEGUN.pop())"),
    ("list much", "sorted(os.listdir('many'))"),
    ("walk", "sorted(n for _, d, f in os.walk('d') for n in d + f)"),
    ("glob", "sorted(__import__('glob').glob('d/*'))"),
    ("there", "os.path.exists('new')"),
    ("absent", "os.path.exists('gone')"),
    ("size", "os.stat('f').st_size"),
    ("mode", "oct(os.stat('mode').st_mode)"),
    ("links", "os.stat('f').st_nlink"),
    ("link", "os.readlink('link')"),
    ("attribute", "os.getxattr('f', 'user.k').decode()"),
    ("attributes", "os.listxattr('f')"),
    ("read", "open('f').read()"),
    ("read an open file", "os.pread(FD, 99, 0).decode()"),
    ("size of an open file", "os.fstat(FD).st_size"),
    ("end of an open file", "os.lseek(FD, 0, 2)"),
    ("hole of an open file", "os.lseek(FD, 0, os.SEEK_HOLE)"),
    ("copy in the kernel", "moved()"),
    ("map", "mmap.mmap(os.open('f', os.O_RDONLY), 0, prot=mmap.PROT_READ)[:].decode()"),
    ("map a shorter one", "mmap.mmap(os.open('long', os.O_RDONLY), 0, prot=mmap.PROT_READ)[:].decode()"),
    ("may read", "os.access('new', os.R_OK)"),
    ("make", "made('new')"),
    ("append and read", "append('f')"),
    ("open or make", "os.fstat(os.open('new', os.O_RDWR | os.O_CREAT)).st_size"),
    ("rename", "renamed('from', 'x')"),
    ("rename over", "(open('y', 'w').close(), renamed('y', 'gone'))[1]"),
    ("link it", "(os.link('f', 'hard') if not os.path.exists('hard') else None, os.stat('f').st_nlink)[1]"),
    ("enter", "inside('d/sub')"),
    ("copy", "copied()"),
    ("read by another", "subprocess.run(['cat', 'f'], capture_output=True, text=True).stdout"),
    ("list by another", "subprocess.run(['ls'], capture_output=True, text=True).stdout.split()"),
];

/// What there is to look at in one of the ways: a listing that comes in pieces only where it is looked at.
fn prepare(way: &str) -> String {
    let names = if way.contains("many") || way.contains("BEGUN") { 3000 } else { 3 };
    format!("NAMES={names}; {PREPARE}")
}

/// One who looks, in a directory of its own, and one who changes what is looked at and fails: through the same mount or not.
struct Trial<'a> {
    looker: &'a Mount,
    other: &'a Mount,
    number: usize,
}

impl Trial<'_> {
    fn place(&self) -> String {
        format!("way{}", self.number)
    }

    fn gate(&self, look: usize) -> String {
        format!("gate{}.{look}", self.number)
    }

    fn prepare(&self, way: &str) {
        sh(&self.looker.path(), &format!("mkdir {0}; cd {0}; {1}", self.place(), prepare(way)));
    }

    /// Lets it look for the first or the second time; it waits for that.
    fn let_look(&self, look: usize) {
        fs::write(self.looker.beside(&self.gate(look)), "look").expect("the gate");
    }

    fn start(&self, options: &[&str], way: &str) -> Job {
        let script = self.looker.beside("looker.py");
        let gate = self.looker.beside(&format!("gate{}", self.number));
        let words = ["python3", "-SE", path(&script), way, path(&gate), &self.place()];
        Job::start(self.looker, options, &words)
    }

    /// What it sees with nobody else there.
    fn natively(&self, way: &str) -> String {
        let dir = self.looker.beside(&format!("native{}", self.number));
        fs::create_dir(&dir).expect("a directory");
        sh(&dir, &prepare(way));
        let mut python = Command::new("python3");
        python.arg("-SE").arg(self.looker.beside("looker.py")).args([way, "-", "."]).current_dir(&dir);
        let output = python.stdin(Stdio::null()).output().expect("python runs");
        assert!(output.status.success(), "{way}: {}", text(&output.stderr));
        fs::read_to_string(dir.join("log")).expect("what it has seen")
    }

    fn depends(&self, job: &Job) -> bool {
        let mine = |status: &serde_json::Value| status["pid"] == job.id();
        let status = self.looker.status().into_iter().find(mine);
        status.is_some_and(|status| status["depends_on"].as_array().is_some_and(|on| !on.is_empty()))
    }

    /// Twice it sees what another has changed, who then fails.
    fn run(&self, options: &[&str], (name, way): (&str, &str)) {
        self.prepare(way);
        let mut job = self.start(options, way);
        let mut falls = 0;
        for look in 0..2 {
            let change = format!("cd {}; {CHANGE}", self.place());
            let other = self.other.start(&format!("other{}.{look}", self.number), &["--retries", "0"], &change);
            self.let_look(look);
            let seen = self.looker.beside(&format!("{}.seen", self.gate(look)));
            job.until(&format!("{name}: it has looked"), || seen.exists());
            // What it has changed itself it need not see again.
            let depends = self.depends(&job);
            assert!(depends || look > 0, "{name}: it has not joined");
            if depends {
                fs::remove_file(&seen).expect("it has looked");
            }
            assert_eq!(other.exit(1).status.code(), Some(1), "{name}");
            if depends {
                falls += 1;
                job.until_said(&format!("({falls} of 3)"));
                // It must not look while the next one has cut off a file and not written it yet: that would be a fault of memory anywhere.
                job.until(&format!("{name}: it has looked again"), || seen.exists());
            }
        }
        let (code, said) = job.end();
        assert_eq!(code, Some(0), "{name}: {said}");
        let seen = self.looker.read(&format!("{}/log", self.place()));
        assert_eq!(seen, self.natively(way), "{name}: {said}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Each of the ways, some at a time.
fn each_way(looker: &Mount, other: &Mount, options: &[&str], ways: &[(&str, &str)]) {
    fs::write(looker.beside("looker.py"), LOOKER).expect("write");
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(way) = ways.get(next.fetch_add(1, Ordering::SeqCst)) {
            let number = ways.iter().position(|other| other == way).expect("it is one of them");
            Trial { looker, other, number }.run(options, *way);
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
}

#[test]
fn who_goes_back_to_a_read_has_seen_nothing_of_what_is_undone() {
    require_root!();
    let mount = Mount::new();
    each_way(&mount, &mount, &[], &WAYS);
    mount.check();
}

#[test]
fn who_goes_back_to_the_start_has_seen_nothing_of_what_is_undone() {
    require_root!();
    let mount = Mount::new();
    each_way(&mount, &mount, &["--from-start"], &WAYS);
    mount.check();
}

#[test]
fn who_goes_back_has_seen_nothing_of_what_was_undone_through_another_mount() {
    require_root!();
    let server = Server::new();
    let (looker, other) = (server.mount(), server.mount_tcp());
    each_way(&looker, &other, &[], &WAYS);
}
