//! Runs jobs at the same time, and keeps what they, and others who look on, have seen.

use super::checker;
use super::history::{self, Did};
use super::program::{FIRST, LOGS, Line, REGISTERS, VICTIMS};
use mojavefs_harness::served::Server;
use mojavefs_harness::{Mount, SPECRUN, text};
use mojavefs_nets::net::Failure;
use mojavefs_nets::worker::{self, Worker, now};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Who looks on ends, whatever has happened.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How long all of it may take.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks of who looks on.
const PAUSE: Duration = Duration::from_millis(3);
/// Longer than anybody who decides held work takes for that.
const TIDY_AFTER: Duration = Duration::from_secs(1);

/// What became of a job that was begun.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) number: u8,
    pub(super) options: Vec<String>,
    /// The job of which it is a further owner.
    pub(super) owns: Option<u8>,
    /// The job that it was run in.
    pub(super) outer: Option<u8>,
    /// When it was begun, and when it was known to have ended.
    pub(super) began: u64,
    pub(super) ended: u64,
    /// The exit status of `specrun`; of one in no job, of its process.
    pub(super) code: Option<i32>,
    /// What its process exits with, where nothing else happens.
    pub(super) own_code: i32,
    pub(super) did: Vec<Did>,
    pub(super) said: String,
    /// What `mojavefs` answered to the decision of held work: `commit` or `abort`, and its exit status.
    pub(super) decided: Option<(String, i32)>,
}

/// All that was seen.
pub(super) struct Seen {
    pub(super) peaceful: bool,
    pub(super) jobs: BTreeMap<u8, Job>,
    /// What was seen on trunk, by one who looks on, in order.
    pub(super) watched: Vec<Vec<Did>>,
    /// What is on trunk in the end, by what was asked.
    pub(super) last: Vec<Did>,
}

/// The last that was said as JSON.
fn last_json(said: &str) -> Option<serde_json::Value> {
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).next_back()
}

impl Job {
    /// The number of its speculation, the last of those that it began.
    pub(super) fn speculation(&self) -> Option<u64> {
        last_json(&self.said)?["id"].as_u64()
    }

    pub(super) fn is(&self, option: &str) -> bool {
        self.options.iter().any(|word| word == option)
    }

    /// It is in no speculation: what it does is final at once.
    pub(super) fn is_on_trunk(&self) -> bool {
        self.is("trunk")
    }
}

/// What is on each file system at first, by the one who makes it.
struct World {
    mounts: Vec<Mount>,
    // Dropped after its mounts.
    server: Option<Server>,
}

impl World {
    fn new(served: bool) -> World {
        let server = served.then(Server::new);
        let mounts = match &server {
            Some(server) => vec![server.mount(), server.mount()],
            None => vec![Mount::new()],
        };
        World { mounts, server }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.mounts[0].beside(name)
    }

    fn mount(&self, number: usize) -> &Mount {
        &self.mounts[number.min(self.mounts.len() - 1)]
    }

    fn prepare(&self) {
        let mut worker = Worker::start(&self.mounts[0].path());
        let dirs = ["n", "v", "h", "out"].map(|dir| format!("mkdir {dir} 0755"));
        let logs = (0..LOGS).map(|file| format!("put-line l{file} {FIRST}"));
        let registers = (0..REGISTERS).map(|file| format!("put-line r{file} {FIRST}"));
        let victims = (0..VICTIMS).map(|file| format!("put-line v/{file} {FIRST}"));
        let all = dirs.into_iter().chain(logs).chain(registers).chain(victims);
        for line in all.chain([format!("put-line base {FIRST}")]) {
            let said = worker.ask(&line);
            assert_eq!(said.as_deref(), Some("ok").filter(|_| line.starts_with("mkdir")).or(said.as_deref()), "{line}");
        }
        worker.exit(0);
    }

    fn remount(&self) {
        self.mounts[0].umount();
        self.mounts[0].mount();
    }

    fn check(&self) {
        match &self.server {
            None => self.mounts[0].check(),
            Some(_) => self.mounts.iter().for_each(|mount| assert!(mount.status().is_empty())),
        }
    }
}

/// The lines of each job, by number.
type Programs<'a> = BTreeMap<u8, Vec<&'a Line>>;

/// A job as it runs.
struct Running {
    job: Job,
    program: Vec<String>,
    process: Process,
    mount: usize,
    then: Option<(String, Duration)>,
    /// When its process ended.
    over: Option<Instant>,
}

/// Runs them, and checks what was seen.
pub(super) fn run(lines: &[Line]) -> Result<(), Failure> {
    let mut programs = Programs::new();
    lines.iter().for_each(|line| programs.entry(line.job).or_default().push(line));
    let world_lines = programs.remove(&0).unwrap_or_default();
    let is = |word: &str| world_lines.iter().any(|line| line.word == word);
    let world = World::new(is("served"));
    world.prepare();
    let deadline = Instant::now() + TIME_MAX;
    let mut running = Vec::new();
    let (mut ran, mut watched) = watched(&world, || {
        begin_jobs(&world, &programs, &mut running);
        await_jobs(&world, &mut running, deadline, !is("remounted"))
    });
    if is("remounted") && ran.is_ok() {
        world.remount();
        let (then, more) = self::watched(&world, || await_jobs(&world, &mut running, deadline, true));
        ran = then;
        watched.extend(more);
    }
    ran.inspect_err(|_| lines.iter().for_each(|line| println!("{line}")))?;
    let jobs = told(&world, &programs, running);
    let mut worker = Worker::start(&world.mounts[0].path());
    let last = look_at_all(&mut worker);
    worker.exit(0);
    let seen = Seen { peaceful: is("peaceful"), jobs, watched, last };
    checker::check(&seen)?;
    world.check();
    Ok(())
}

fn asked(worker: &mut Worker, what: String) -> Did {
    let start = now();
    let answer = worker.ask(&what).unwrap_or_else(|| panic!("nobody answers `{what}`: {:?}", worker.end()));
    Did { what, start, end: now(), answer }
}

fn look_at_all(worker: &mut Worker) -> Vec<Did> {
    let files = (0..LOGS).map(|file| format!("lines l{file}"));
    let files = files.chain((0..REGISTERS).map(|file| format!("lines r{file}")));
    let looks: Vec<String> = files.chain(["n", "v", "h", "out"].map(|dir| format!("list {dir}"))).collect();
    let mut seen: Vec<Did> = looks.into_iter().map(|look| asked(worker, look)).collect();
    let paths = |did: &Did| {
        let listed = did.listed().filter(|(dir, _)| *dir != "h");
        let names =
            listed.map(|(dir, names)| names.into_iter().map(|name| format!("{dir}/{name}")).collect::<Vec<_>>());
        names.unwrap_or_default()
    };
    let named: Vec<String> = seen.iter().flat_map(paths).collect();
    seen.extend(named.into_iter().map(|path| asked(worker, format!("lines {path}"))));
    seen
}

/// Does something while somebody looks on at every mount, and returns what those have seen.
fn watched<T>(world: &World, what: impl FnOnce() -> T) -> (T, Vec<Vec<Did>>) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watchers: Vec<_> = world.mounts.iter().map(|mount| scope.spawn(|| watch(mount, &over))).collect();
        let ends = Ends(&over);
        let done = what();
        drop(ends);
        (done, watchers.into_iter().map(|watcher| watcher.join().expect("it looks on")).collect())
    })
}

/// Looks at everything on trunk, again and again.
fn watch(mount: &Mount, over: &AtomicBool) -> Vec<Did> {
    let mut worker = Worker::start(&mount.path());
    let mut seen: Vec<Did> = Vec::new();
    while !over.load(Ordering::SeqCst) {
        for did in look_at_all(&mut worker) {
            // What is as before tells nothing new.
            let before = seen.iter().rev().find(|before| before.what == did.what);
            if before.is_none_or(|before| before.answer != did.answer) {
                seen.push(did);
            }
        }
        std::thread::sleep(PAUSE);
    }
    worker.exit(0);
    seen
}

fn begin_jobs(world: &World, programs: &Programs<'_>, running: &mut Vec<Running>) {
    let mut waiting: Vec<(u64, u8)> = Vec::new();
    for (number, lines) in programs {
        let begin = lines.iter().find(|line| line.word == "begin");
        let delay = begin.and_then(|line| line.rest.split(' ').next()).and_then(|delay| delay.parse().ok());
        waiting.extend(delay.map(|delay| (delay, *number)));
    }
    waiting.sort_unstable();
    let mut passed = 0;
    for (delay, number) in waiting {
        std::thread::sleep(Duration::from_millis(delay - passed));
        passed = delay;
        let new = begin(world, programs, number, running);
        running.push(new);
    }
}

/// Waits until the processes of all jobs have ended; or, with decisions, until nothing is undecided.
fn await_jobs(world: &World, running: &mut [Running], deadline: Instant, decides: bool) -> Result<(), Failure> {
    let until = if decides { Running::is_over } else { Running::has_ended };
    let mut tidied = Instant::now();
    while !running.iter().all(until) {
        if Instant::now() > deadline {
            return Err(hangs(world, running));
        }
        running.iter_mut().for_each(|running| running.look(world, decides));
        if Instant::now() > tidied + TIDY_AFTER {
            tidied = Instant::now();
            abort_what_nobody_decides(world);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    while decides && world.mounts.iter().any(|mount| !mount.status().is_empty()) {
        if Instant::now() > deadline {
            return Err(hangs(world, running));
        }
        abort_what_nobody_decides(world);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What became of the jobs, and of those inside of them.
fn told(world: &World, programs: &Programs<'_>, running: Vec<Running>) -> BTreeMap<u8, Job> {
    let mut jobs = BTreeMap::new();
    for Running { mut job, program, .. } in running {
        job.did = history::read(&world.file(&format!("answers.{}", job.number)), &program);
        job.said = fs::read_to_string(world.file(&format!("said.{}", job.number))).unwrap_or_default();
        inner_jobs(world, programs, &job, &mut jobs);
        jobs.insert(job.number, job);
    }
    jobs
}

/// One that waits for nobody (`--no-wait`) and is in conflict after its end is left held, and others wait for that.
fn abort_what_nobody_decides(world: &World) {
    for mount in &world.mounts {
        let is_left = |job: &serde_json::Value| {
            job["state"] == "held" && job["conflicts"].as_array().is_some_and(|conflicts| !conflicts.is_empty())
        };
        for job in mount.status().iter().filter(|job| is_left(job)) {
            mount.mojavefs(&["abort", &job["id"].to_string()]);
        }
    }
}

fn hangs(world: &World, running: &mut [Running]) -> Failure {
    let status = world.mounts[0].mojavefs(&["status", "--graph"]);
    let open: Vec<u8> = running.iter().filter(|running| !running.is_over()).map(|running| running.job.number).collect();
    let inner = |job: &u8| [*job].into_iter().chain((1..9).map(|at| job * 10 + at)).collect::<Vec<_>>();
    let told = |job: u8| {
        let read = |name: &str| fs::read_to_string(world.file(&format!("{name}.{job}"))).ok();
        read("answers").map(|answers| format!("job {job}:\n{answers}{}", read("said").unwrap_or_default()))
    };
    let told = open.iter().flat_map(inner).filter_map(told).collect::<Vec<_>>().join("\n");
    for running in running {
        // What they leave undecided ends with the mount.
        running.process.kill();
    }
    Failure::new("does not end", format!("jobs {open:?} do not end:\n{}\n{told}", text(&status.stdout)))
}

/// The lines that a process does, and the code that it exits with.
fn worker_lines(world: &World, programs: &Programs<'_>, number: u8) -> (Vec<String>, i32) {
    let mut lines = Vec::new();
    let mut code = 0;
    for line in programs.get(&number).into_iter().flatten() {
        match line.word.as_str() {
            "do" => lines.push(line.rest.clone()),
            "pause" => lines.push(format!("pause {}", line.rest)),
            "exit" => code = line.rest.parse().unwrap_or(1),
            "inner" => {
                let (inner, options) = line.rest.split_once(' ').unwrap_or((&line.rest, ""));
                let Ok(inner) = inner.parse::<u8>() else { continue };
                write_program(world, programs, inner);
                let [program, answers] = ["program", "answers"].map(|name| world.file(&format!("{name}.{inner}")));
                lines.push(format!("inner-program {} {} {options}", program.display(), answers.display()));
            }
            _ => {}
        }
    }
    lines.push(format!("put-line out/{number} {number}.out.%"));
    lines.push(format!("exit {code}"));
    (lines, code)
}

fn write_program(world: &World, programs: &Programs<'_>, number: u8) -> (Vec<String>, i32) {
    let (lines, code) = worker_lines(world, programs, number);
    fs::write(world.file(&format!("program.{number}")), lines.join("\n")).expect("the program");
    (lines, code)
}

fn begin(world: &World, programs: &Programs<'_>, number: u8, running: &[Running]) -> Running {
    let lines = &programs[&number];
    let rest_of = |word: &str| lines.iter().find(|line| line.word == word).map(|line| line.rest.as_str());
    let mut words = rest_of("begin").unwrap_or_default().split_whitespace().skip(1);
    let mount = words.next().and_then(|mount| mount.parse().ok()).unwrap_or(0);
    let options: Vec<String> = words.map(str::to_owned).collect();
    let owns = rest_of("own").and_then(|other| other.parse().ok());
    let (program, own_code) = write_program(world, programs, number);
    let then = rest_of("then").map(|then| then.split_once(' ').unwrap_or((then, "0")));
    let then = then.map(|(how, delay)| (how.to_owned(), Duration::from_millis(delay.parse().unwrap_or(0))));
    let mut job = Job {
        number,
        options,
        owns: None,
        outer: None,
        began: now(),
        ended: 0,
        code: None,
        own_code,
        did: Vec::new(),
        said: String::new(),
        decided: None,
    };
    let mut command = match job.is_on_trunk() {
        true => Command::new(worker::program()),
        false => {
            let mut command = Command::new(SPECRUN);
            command.arg("--json").args(&job.options);
            let owned =
                owns.and_then(|owns| Some((owns, spec_of(running.iter().find(|r| r.job.number == owns)?, world)?)));
            if let Some((owns, spec)) = owned {
                command.args(["--own", &spec]);
                job.owns = Some(owns);
            }
            command.arg("--").arg(worker::program());
            command
        }
    };
    let file = |name: &str| {
        let path = world.file(&format!("{name}.{number}"));
        File::options().create(true).append(true).open(path).expect("a file of the host")
    };
    command.arg("--timed").arg(world.file(&format!("program.{number}")));
    command.current_dir(world.mount(mount).path()).stdin(Stdio::null()).stdout(file("answers")).stderr(file("said"));
    let process = Process(Some(command.spawn().expect("it runs")));
    Running { job, program, process, mount, then, over: None }
}

/// The number under which a job is undecided.
fn spec_of(running: &Running, world: &World) -> Option<String> {
    let pid = running.process.0.as_ref()?.id();
    let status = world.mount(running.mount).status();
    let found = status.iter().find(|job| job["pid"] == pid && job["state"] == "running");
    found.map(|job| job["id"].to_string())
}

impl Running {
    /// Its process has.
    fn has_ended(&self) -> bool {
        self.over.is_some()
    }

    /// That, and it is decided if it was to be.
    fn is_over(&self) -> bool {
        self.has_ended() && self.then.is_none()
    }

    fn look(&mut self, world: &World, may_decide: bool) {
        if let Some(status) = self.process.0.as_mut().and_then(|child| child.try_wait().expect("wait")) {
            self.process.0 = None;
            (self.job.code, self.job.ended, self.over) = (status.code(), now(), Some(Instant::now()));
            if status.code() != Some(0) {
                self.then = None;
            }
        }
        let is_due = |(_, delay): &(String, Duration)| self.over.is_some_and(|over| over.elapsed() > *delay);
        if !may_decide || !self.then.as_ref().is_some_and(is_due) {
            return;
        }
        let Some((how, _)) = self.then.take() else { return };
        let said = fs::read_to_string(world.file(&format!("said.{}", self.job.number))).unwrap_or_default();
        let Some(id) = last_json(&said).filter(|json| json["state"] == "held").map(|json| json["id"].to_string())
        else {
            return;
        };
        let output = world.mount(self.mount).mojavefs(&[&how, &id]);
        // What is in conflict stays held: it is in the way of the others.
        if how == "commit" && !output.status.success() {
            world.mount(self.mount).mojavefs(&["abort", &id]);
        }
        (self.job.decided, self.job.ended) = (Some((how, output.status.code().unwrap_or(-1))), now());
    }
}

/// Killed when it is dropped.
struct Process(Option<Child>);

impl Process {
    fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The jobs that a job ran inside, the last time.
fn inner_jobs(world: &World, programs: &Programs<'_>, outer: &Job, jobs: &mut BTreeMap<u8, Job>) {
    let numbers: BTreeSet<u8> = programs[&outer.number]
        .iter()
        .filter(|line| line.word == "inner")
        .filter_map(|line| line.rest.split(' ').next()?.parse().ok())
        .collect();
    for number in numbers {
        let (program, own_code) = worker_lines(world, programs, number);
        let answers = world.file(&format!("answers.{number}"));
        let marker = answers.display().to_string();
        let run = outer.did.iter().find(|did| did.what.split(' ').any(|word| word == marker));
        let ended = run.and_then(|run| run.answer.strip_prefix("ended ")).and_then(|code| code.parse().ok());
        let inner = Job {
            number,
            options: outer.options.clone(),
            owns: None,
            outer: Some(outer.number),
            began: run.map_or(outer.began, |run| run.start),
            ended: outer.ended,
            code: ended,
            own_code,
            did: history::read(&answers, &program),
            said: String::new(),
            decided: None,
        };
        jobs.insert(number, inner);
    }
}
