//! Many jobs, and jobs inside of jobs, do random things to the same files, one after the other, through real mounts; a model
//! says what each must see, who falls with whom, and what is final.

mod model;

use crate::harness::{Mount, SPECRUN, until};
use model::{Job, Model, Name, Op};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const JOBS_MAX: usize = 20;
/// How many jobs may be around one.
const DEPTH_MAX: usize = 3;
const STEPS: usize = 400;
const DIRS: u8 = 3;
const NAMES: u8 = 5;

/// Does in a job what it is told on its standard input, a line each. While there is a job inside of it, that one does.
const WORKER: &str = r#"
import os, signal, sys

def nest(job):
    import select, subprocess
    words = [os.environ["SPECRUN"], *os.environ["OPTIONS"].split(), "--", "python3", "-u", "../worker.py", job]
    inner = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    inner.stdin.write(b"list 0\n"); inner.stdin.flush()
    while True:
        if inner.stdout in select.select([sys.stdin, inner.stdout], [], [])[0]:
            line = inner.stdout.readline()
            if not line: break
            print(line.decode(), end="", flush=True)
        else:
            line = sys.stdin.readline()
            if not line: break
            try: inner.stdin.write(line.encode()); inner.stdin.flush()
            except BrokenPipeError: pass
    try: inner.stdin.close()
    except BrokenPipeError: pass
    return f"ended {inner.wait()}"

while line := sys.stdin.readline():
    what, *words = line.rstrip("\n").split(" ")
    try:
        if what == "read":
            with open(words[0]) as f: said = "=" + f.read()
        elif what == "stat": said = str(os.stat(words[0]).st_size)
        elif what == "list": said = ",".join(sorted(os.listdir(words[0])))
        elif what == "write":
            with open(words[0], "w") as f: f.write(words[1])
            said = "ok"
        elif what == "append":
            fd = os.open(words[0], os.O_WRONLY | os.O_APPEND); os.write(fd, words[1].encode()); os.close(fd)
            said = "ok"
        elif what == "remove": os.unlink(words[0]); said = "ok"
        elif what == "rename": os.rename(words[0], words[1]); said = "ok"
        elif what == "nest": said = nest(words[0])
        elif what == "exit": sys.exit(int(words[0]))
        elif what == "die": os.kill(os.getpid(), signal.SIGTERM)
    except FileNotFoundError: said = "-"
    print(said, flush=True)
"#;

/// Numbers that repeat for a seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    fn name(&mut self) -> Name {
        (self.below(DIRS.into()) as u8, self.below(NAMES.into()) as u8)
    }

    fn op(&mut self, step: usize) -> Op {
        let name = self.name();
        // Large ones lie in content files, small ones in records.
        let text = if self.below(4) == 0 { format!("{step}-").repeat(8000) } else { format!("{step};") };
        match self.below(12) {
            0..3 => Op::Read(name),
            3 => Op::Stat(name),
            4 => Op::List(name.0),
            5..8 => Op::Write(name, text),
            8 => Op::Append(name, text),
            9 => Op::Remove(name),
            _ => Op::Rename(name, self.name()),
        }
    }
}

/// A worker, in a job or outside.
struct Worker {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Worker {
    fn start(mut command: Command, mount: &Mount) -> Self {
        command.current_dir(mount.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("it runs");
        let (to, from) = (child.stdin.take(), child.stdout.take().expect("its output"));
        Worker { child, to, from: BufReader::new(from) }
    }

    fn say(&mut self, line: &str) {
        // One that has fallen hears nothing any more.
        let _ = self.to.as_mut().map(|to| writeln!(to, "{line}"));
    }

    fn ask(&mut self, op: &Op) -> String {
        self.say(&line(op));
        self.hear()
    }

    fn hear(&mut self) -> String {
        let mut said = String::new();
        self.from.read_line(&mut said).expect("read its answer");
        said.trim_end_matches('\n').to_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn path(name: &Name) -> String {
    format!("{}/{}", name.0, name.1)
}

fn line(op: &Op) -> String {
    match op {
        Op::Read(name) => format!("read {}", path(name)),
        Op::Stat(name) => format!("stat {}", path(name)),
        Op::List(dir) => format!("list {dir}"),
        Op::Write(name, text) => format!("write {} {text}", path(name)),
        Op::Append(name, text) => format!("append {} {text}", path(name)),
        Op::Remove(name) => format!("remove {}", path(name)),
        Op::Rename(from, to) => format!("rename {} {}", path(from), path(to)),
    }
}

fn short(op: &Op) -> String {
    line(op).chars().take(40).collect()
}

/// What there is in one history. Where jobs go back to reads, what is inside of those that fail can't be foretold: one of which
/// only a part falls is given up a moment later, and who comes to depend on it in between falls with it.
#[derive(Clone, Copy)]
enum Histories {
    /// Jobs that can go back to reads, none inside of another.
    Flat,
    /// Jobs inside of jobs that go back to their start.
    Nested,
    /// Jobs inside of jobs that can go back to reads, and all are committed.
    Committed,
}

impl Histories {
    fn of(seed: u64) -> Self {
        [Histories::Flat, Histories::Nested, Histories::Committed][(seed % 3) as usize]
    }

    fn options(self) -> &'static str {
        match self {
            Histories::Nested => "--retries 0 --quiet --from-start",
            Histories::Flat | Histories::Committed => "--retries 0 --quiet",
        }
    }

    fn nest(self) -> bool {
        !matches!(self, Histories::Flat)
    }

    fn fail(self) -> bool {
        !matches!(self, Histories::Committed)
    }
}

struct Run<'a> {
    mount: &'a Mount,
    kind: Histories,
    model: Model,
    /// The outermost jobs; those inside do what these pass on to them.
    jobs: BTreeMap<Job, Worker>,
    trunk: Worker,
    next: Job,
}

impl Run<'_> {
    fn step(&mut self, random: &mut Random, step: usize) {
        let running = self.model.running();
        let undecided = self.model.undecided();
        match random.below(20) {
            0..2 if undecided.len() < JOBS_MAX => {
                let around = running.get(random.below(2 * running.len() + 1)).copied();
                self.begin(around.filter(|around| self.kind.nest() && self.model.depth(*around) < DEPTH_MAX));
            }
            2 if !running.is_empty() => self.vote(running[random.below(running.len())]),
            3 if !running.is_empty() && self.kind.fail() && random.below(2) == 0 => {
                self.abort(running[random.below(running.len())], false)
            }
            4 if !running.is_empty() && self.kind.fail() && random.below(3) == 0 => {
                self.abort(running[random.below(running.len())], true)
            }
            5 => {
                // What it changes can make jobs fail.
                let op = if self.kind.fail() { random.op(step) } else { Op::Read(random.name()) };
                println!("{step}: trunk {}", short(&op));
                let (expected, losers) = self.model.act_on_trunk(&op);
                assert_eq!(self.trunk.ask(&op), expected, "trunk: {}", short(&op));
                losers.into_iter().for_each(|job| self.lose(job));
            }
            _ if !running.is_empty() => {
                let (job, op) = (running[random.below(running.len())], random.op(step));
                println!("{step}: job {job} {}", short(&op));
                let said = self.worker(job).ask(&op);
                assert_eq!(said, self.model.act(job, &op), "job {job}: {}", short(&op));
            }
            _ => self.begin(None),
        }
    }

    /// Who is told what a job does.
    fn worker(&mut self, job: Job) -> &mut Worker {
        let outermost = self.model.outermost(job);
        self.jobs.get_mut(&outermost).expect("it runs")
    }

    fn begin(&mut self, around: Option<Job>) {
        let job = self.next;
        self.next += 1;
        match around {
            Some(around) => {
                println!("job {job} begins inside of {around}");
                self.worker(around).say(&format!("nest {job}"));
                self.worker(around).hear();
            }
            None => self.start(job),
        }
        self.model.begin(job, around);
        // What it looked at to say that it has begun counts.
        self.model.act(job, &Op::List(0));
    }

    fn start(&mut self, job: Job) {
        println!("job {job} begins");
        let mut command = Command::new(SPECRUN);
        command.args(self.kind.options().split(' '));
        command.args(["--", "python3", "-u", "../worker.py", &job.to_string()]);
        command.env("SPECRUN", SPECRUN).env("OPTIONS", self.kind.options());
        let mut worker = Worker::start(command, self.mount);
        // It has begun when it answers.
        worker.ask(&Op::List(0));
        self.jobs.insert(job, worker);
    }

    fn vote(&mut self, job: Job) {
        println!("job {job} votes");
        self.worker(job).say("exit 0");
        if self.model.around(job).is_some() {
            assert_eq!(self.worker(job).hear(), "ended 0", "job {job} becomes part of the one around it");
            self.model.fold(job);
            return self.compare();
        }
        let finals = self.model.vote(job);
        println!("final: {finals:?}");
        match finals.contains(&job) {
            true => finals.into_iter().for_each(|job| self.ended(job, Some(0))),
            false => until(&format!("job {job} has voted"), || {
                self.state_of(job).as_deref().is_some_and(|state| state == "voted" || state == "done")
            }),
        }
        self.compare();
    }

    /// What a job changed was changed outside: it can't commit any more.
    fn lose(&mut self, job: Job) {
        if !self.model.is_undecided(job) {
            return;
        }
        while self.model.is_undecided(job) && self.model.innermost(job) != job {
            self.abort(self.model.innermost(job), false);
        }
        if !self.model.is_undecided(job) {
            return;
        }
        println!("job {job} is in conflict");
        match self.model.has_voted(job) {
            // Its supervisor may find out by itself, and be faster.
            true => {
                if let Some(status) = self.status_of(job) {
                    self.mount.mojavefs(&["abort", &status["id"].to_string()]);
                }
            }
            false => self.worker(job).say("exit 0"),
        }
        self.fallen(job, 75);
    }

    fn abort(&mut self, job: Job, by_force: bool) {
        // Only the outermost can be reached from outside.
        let job = if by_force { self.model.outermost(job) } else { job };
        println!("job {job} {}", if by_force { "is killed" } else { "aborts" });
        let worker = self.worker(job);
        if by_force {
            worker.child.kill().expect("kill");
            return self.fallen(job, -1);
        }
        // One that failed by itself would wait for those that it depends on.
        worker.say("die");
        self.fallen(job, 128 + 15);
    }

    /// A job is undone, and with it whoever depends on it.
    fn fallen(&mut self, job: Job, code: i32) {
        println!("depend: {}", self.model.dependencies());
        let around: BTreeMap<Job, Option<Job>> =
            self.model.undecided().into_iter().map(|job| (job, self.model.around(job))).collect();
        let fallen = self.model.abort(job);
        println!("fallen: {fallen:?}");
        for other in &fallen {
            let code = if *other == job { Some(code).filter(|code| *code >= 0) } else { Some(75) };
            match around[other] {
                None => self.ended(*other, code),
                // The command of the one around it goes on.
                Some(around) if !fallen.contains(&around) => {
                    let code = code.expect("only the outermost is killed");
                    assert_eq!(self.worker(around).hear(), format!("ended {code}"), "job {other} inside of {around}");
                }
                Some(_) => {}
            }
        }
        self.compare();
    }

    fn ended(&mut self, job: Job, code: Option<i32>) {
        let mut worker = self.jobs.remove(&job).expect("it was there");
        worker.to = None;
        let ended = std::cell::Cell::new(None);
        let child = std::cell::RefCell::new(&mut worker.child);
        until(&format!("job {job} has ended"), || {
            ended.set(child.borrow_mut().try_wait().expect("wait"));
            ended.get().is_some()
        });
        assert_eq!(ended.get().expect("it has ended").code(), code, "job {job}");
        until(&format!("job {job} is decided"), || self.state_of(job).is_none());
    }

    fn status_of(&self, job: Job) -> Option<serde_json::Value> {
        let ends = format!("worker.py {job}");
        self.mount.status().into_iter().find(|s| s["command"].as_str().is_some_and(|c| c.ends_with(&ends)))
    }

    fn state_of(&self, job: Job) -> Option<String> {
        self.status_of(job).and_then(|status| Some(status["state"].as_str()?.to_owned()))
    }

    /// Trunk shows what is final, and nothing else; those that should be undecided are.
    fn compare(&self) {
        let mut found = BTreeMap::new();
        for dir in 0..DIRS {
            for entry in fs::read_dir(self.mount.at(dir.to_string())).expect("list") {
                let entry = entry.expect("an entry");
                let name = entry.file_name().to_string_lossy().parse().expect("a number");
                found.insert((dir, name), fs::read_to_string(entry.path()).expect("read"));
            }
        }
        assert!(found == self.model.base.all(), "trunk is {:?}", found.keys());
        // One that is committed into the one around it is listed with that.
        let is_part = |status: &serde_json::Value| status["state"] == "voted" && !status["parent"].is_null();
        let undecided = self.mount.status().into_iter().filter(|status| !is_part(status)).count();
        assert_eq!(undecided, self.model.undecided().len());
    }
}

fn run(seed: u64) {
    println!("repeat with MOJAVEFS_SEED={seed}");
    let mount = Mount::new();
    (0..DIRS).for_each(|dir| fs::create_dir(mount.at(dir.to_string())).expect("mkdir"));
    fs::write(mount.beside("worker.py"), WORKER).expect("write");
    let mut outside = Command::new("python3");
    outside.args(["-u", "../worker.py"]);
    let trunk = Worker::start(outside, &mount);
    let kind = Histories::of(seed);
    let mut run = Run { mount: &mount, kind, model: Model::default(), jobs: BTreeMap::new(), trunk, next: 0 };
    let mut random = Random(seed);
    (0..STEPS).for_each(|step| run.step(&mut random, step));
    while let Some(job) = run.model.running().first().copied() {
        if random.below(2) == 0 || !kind.fail() { run.vote(job) } else { run.abort(job, false) }
    }
    drop(run);
    until("everything is decided", || mount.status().is_empty());
    mount.check();
}

#[test]
fn random_jobs_see_and_leave_what_the_rules_say() {
    let given = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    match given {
        Some(seed) => run(seed),
        None => (1..=if soak { 200 } else { 6 }).for_each(run),
    }
}
