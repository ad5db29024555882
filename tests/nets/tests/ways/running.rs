//! Runs cells of the table: those with the same end look at one job's changes, each in a directory of its own.

use super::cells::{Cell, End, Moment, Reader, Shown, must};
use mojavefs_harness::{MOJAVEFS, Mount, SPECRUN, text, until};
use mojavefs_nets::net::Failure;
use mojavefs_nets::worker::{self, Worker};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How many look at once.
const AT_ONCE_MAX: usize = 40;
/// How long a reader may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(60);
/// Of those that should go back to the read, one in so many may go to its start: a checkpoint has a time limit.
const FROM_START_SHARE: usize = 3;

/// Runs them on a mount of their own.
pub(super) fn run(cells: &[Cell]) -> Result<(), Failure> {
    let mount = Mount::new();
    fs::create_dir(mount.at("cells")).expect("a directory");
    let mut by_end: BTreeMap<End, Vec<&Cell>> = BTreeMap::new();
    cells.iter().for_each(|cell| by_end.entry(cell.end).or_default().push(cell));
    let mut number = 0;
    let mut from_start = (0, 0);
    let mut wrong = Vec::new();
    for (end, cells) in by_end {
        for cells in cells.chunks(AT_ONCE_MAX) {
            let mut batch = Batch::new(&mount, number, end, cells);
            wrong.extend(batch.run());
            from_start = (from_start.0 + batch.from_start.0, from_start.1 + batch.from_start.1);
            number += 1;
        }
    }
    if let Some(first) = wrong.first() {
        let all: Vec<&str> = wrong.iter().map(|failure| failure.what.as_str()).collect();
        return Err(Failure::new(first.kind.clone(), format!("{} cells are wrong:\n{}", all.len(), all.join("\n"))));
    }
    let (went, of) = from_start;
    if went * FROM_START_SHARE > of {
        return Err(Failure::new("from the start", format!("{went} of {of} that could go back to the read did not")));
    }
    mount.check();
    Ok(())
}

/// Lines of a reader's program, by number from 1.
#[derive(Clone, Copy)]
struct Place {
    first: usize,
    length: usize,
}

/// Who looks at one cell.
struct Looking<'a> {
    cell: &'a Cell,
    child: Child,
    program: PathBuf,
    /// What it answers is here, each answer with the number of its line.
    answers: PathBuf,
    said: PathBuf,
    first: Place,
    second: Place,
}

struct Batch<'a> {
    mount: &'a Mount,
    cells: &'a [&'a Cell],
    end: End,
    number: usize,
    looking: Vec<Looking<'a>>,
    /// Who went back to the start though it could have gone back to the read, and how many could.
    from_start: (usize, usize),
}

/// The job, or the held work, in which everything was changed.
enum Changed {
    Running(Worker),
    Held(String),
    /// And the one from which it had read.
    Chained(Worker, Worker),
}

impl<'a> Batch<'a> {
    fn new(mount: &'a Mount, number: usize, end: End, cells: &'a [&'a Cell]) -> Self {
        Batch { mount, cells, end, number, looking: Vec::new(), from_start: (0, 0) }
    }

    fn here(&self, cell: usize) -> String {
        format!("/cells/{}.{cell}", self.number)
    }

    /// A file of the host by which the readers and the test wait for each other.
    fn sign(&self, name: &str) -> PathBuf {
        self.mount.beside(&format!("{}.{name}", self.number))
    }

    fn give(&self, name: &str) {
        fs::write(self.sign(name), "").expect("a sign");
    }

    fn until_all(&self, name: &str, who: impl Fn(&Cell) -> bool) {
        let all = || self.looking.iter().enumerate().filter(|(_, looking)| who(looking.cell));
        let missing = || all().find(|(at, _)| !self.sign(&format!("{name}.{at}")).exists());
        let deadline = Instant::now() + END_TIME_MAX;
        while let Some((_, looking)) = missing() {
            assert!(Instant::now() < deadline, "it never comes to its {name}: {}", looking.tells());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is wrong.
    fn run(&mut self) -> Vec<Failure> {
        let mut wrong = Vec::new();
        self.prepare();
        self.looking = (0..self.cells.len()).map(|at| self.start(at)).collect();
        self.until_all("up", |_| true);
        for round in 0..self.end.rounds() {
            let changed = self.change(round);
            self.give(&format!("go{round}"));
            self.until_all(&format!("looked{round}"), |cell| cell.reader != Reader::Wait || !cell.joins());
            if round == 0 {
                wrong.extend(self.looking.iter().filter_map(|looking| looking.check_undecided().err()));
            }
            self.until_done();
            self.decide(changed, round);
            if round + 1 < self.end.rounds() {
                self.until_back();
            }
        }
        self.give(&format!("go{}", self.end.rounds()));
        for mut looking in std::mem::take(&mut self.looking) {
            let said = match looking.end() {
                Ok(said) => said,
                Err(failure) => {
                    wrong.push(failure);
                    continue;
                }
            };
            if looking.cell.goes_back_to_the_read() && !self.end.is_committed(0) {
                self.from_start.1 += 1;
                self.from_start.0 += usize::from(!said.contains("going on from the read"));
            }
        }
        wrong
    }

    fn prepare(&self) {
        let mut worker = Worker::start(&self.mount.path());
        must(&mut worker, vec!["put marker 1 1"], "");
        for (at, cell) in self.cells.iter().enumerate() {
            let here = self.here(at);
            must(&mut worker, vec!["mkdir {here} 0755", "chdir {here}"], &here);
            must(&mut worker, cell.subject.prepare.to_vec(), &here);
        }
        worker.exit(0);
    }

    /// The program of a reader: looks, waits for the next sign, and looks again.
    fn start(&self, at: usize) -> Looking<'a> {
        let (cell, here) = (self.cells[at], self.here(at));
        let reach = |name: &str| format!("reach {}", self.sign(&format!("{name}.{at}")).display());
        let mut lines: Vec<String> = vec![format!("chdir {here}")];
        let add = |lines: &mut Vec<String>, more: &[&str]| {
            let first = lines.len() + 1;
            lines.extend(more.iter().map(|line| line.replace("{here}", &here)));
            Place { first, length: more.len() }
        };
        add(&mut lines, cell.look.before);
        if cell.cache == super::cells::Cache::Warm {
            add(&mut lines, &["lstat it", "list .", "list it", "cat it", "listxattr it", "lstat to", "lstat it/one"]);
            let is_harmless = cell.look.changes.is_empty();
            add(&mut lines, if is_harmless { cell.look.look } else { &[] });
        }
        lines.push(reach("up"));
        lines.push(format!("await {}", self.sign("go0").display()));
        let first = add(&mut lines, cell.look.look);
        lines.push(reach("looked0"));
        let mut second = Place { first: 0, length: 0 };
        if cell.moment == Moment::Working {
            lines.push(format!("await {}", self.sign("go1").display()));
            second = add(&mut lines, cell.look.look);
            lines.push(reach("looked1"));
        }
        if self.end.rounds() == 2 {
            lines.push(format!("await {}", self.sign("go2").display()));
        }
        if cell.reader != Reader::Trunk {
            lines.push("put done 5 5".to_owned());
        }
        let [program, answers, said] = ["program", "answers", "said"].map(|name| self.sign(&format!("{name}.{at}")));
        fs::write(&program, lines.join("\n")).expect("the program");
        let mut command = match options(cell.reader) {
            None => Command::new(worker::program()),
            Some(options) => {
                let mut specrun = Command::new(SPECRUN);
                specrun.args(["--retries", "10"]).args(options).arg("--").arg(worker::program());
                specrun
            }
        };
        let file = |path| File::options().create(true).append(true).open(path).expect("a file of the host");
        command.arg("--program").arg(&program).current_dir(self.mount.path()).stdin(Stdio::null());
        let child = command.stdout(file(&answers)).stderr(file(&said)).spawn().expect("it runs");
        Looking { cell, child, program, answers, said, first, second }
    }

    fn change(&self, round: usize) -> Changed {
        let start = |options: &[&str]| {
            let mut worker = Worker::start_in_job(&self.mount.path(), &[&["--retries", "0"], options].concat());
            must(&mut worker, vec!["stat ."], "");
            worker
        };
        let change = |worker: &mut Worker| {
            for (at, cell) in self.cells.iter().enumerate() {
                let here = self.here(at);
                must(worker, vec!["chdir {here}"], &here);
                must(worker, cell.subject.change.to_vec(), &here);
            }
        };
        match self.end {
            End::HeldCommit | End::HeldAbort => {
                let mut worker = start(&["--hold", "--json"]);
                change(&mut worker);
                let ended = worker.exit(0);
                let json: serde_json::Value = serde_json::from_str(&ended.stderr).expect("--json says JSON");
                assert_eq!((ended.code, &json["state"]), (Some(0), &"held".into()), "{}", ended.stderr);
                Changed::Held(json["id"].to_string())
            }
            End::ChainCommit | End::ChainUndo => {
                let mut first = start(&[]);
                must(&mut first, vec!["put marker 2 2"], "");
                let mut worker = start(&[]);
                must(&mut worker, vec!["cat marker"], "");
                change(&mut worker);
                Changed::Chained(first, worker)
            }
            End::Commit | End::Undo | End::TwiceUndo | End::TwiceCommit => {
                let mut worker = start(&[]);
                change(&mut worker);
                println!("batch {}: changed, round {round}", self.number);
                Changed::Running(worker)
            }
        }
    }

    /// Waits until those that are done when it is decided have ended.
    fn until_done(&self) {
        let done = self.looking.iter().filter(|looking| looking.cell.moment == Moment::Done);
        let programs: Vec<String> = done.map(|looking| looking.program.display().to_string()).collect();
        let runs = |job: &serde_json::Value| {
            let command = job["command"].as_str().unwrap_or_default();
            job["state"] == "running" && programs.iter().any(|program| command.ends_with(program.as_str()))
        };
        if !programs.is_empty() {
            until("those that are to be done are", || !self.mount.status().iter().any(runs));
        }
    }

    /// Waits until those that have fallen have looked again.
    fn until_back(&self) {
        for looking in &self.looking {
            let again = || looking.answers_to(looking.first).is_some_and(|answers| answers.len() > 1);
            until(&format!("it is back: {}", looking.cell), again);
        }
    }

    fn decide(&self, changed: Changed, round: usize) {
        let commits = self.end.is_committed(round);
        let code = u8::from(!commits);
        let ends = |worker: Worker, code: u8, expected: i32| {
            let ended = worker.exit(code);
            assert_eq!(ended.code, Some(expected), "who has changed something ends: {}", ended.stderr);
        };
        match changed {
            Changed::Running(worker) => ends(worker, code, code.into()),
            Changed::Held(id) => {
                let output = self.mount.mojavefs(&[if commits { "commit" } else { "abort" }, &id]);
                assert!(output.status.success(), "{MOJAVEFS} of {id}: {}", text(&output.stderr));
            }
            Changed::Chained(first, mut worker) => {
                worker.say("exit 0");
                ends(first, code, code.into());
                let ended = worker.end();
                assert_eq!(ended.code, Some(if commits { 0 } else { 75 }), "{}", ended.stderr);
            }
        }
    }
}

/// Of `specrun`; nothing for who looks outside of every job.
fn options(reader: Reader) -> Option<&'static [&'static str]> {
    Some(match reader {
        Reader::Trunk => return None,
        Reader::Join => &[],
        Reader::FromStart => &["--from-start"],
        Reader::Wait => &["--on-read", "wait"],
        Reader::Committed => &["--on-read", "committed"],
        Reader::Fail => &["--on-read", "fail"],
        Reader::Isolate => &["--isolate"],
    })
}

impl Looking<'_> {
    fn tells(&self) -> String {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        format!("{}\n  answers: {:?}\n  specrun: {}", self.cell, read(&self.answers), read(&self.said))
    }

    /// Every time that it has looked: what it saw. Nothing if it has not yet.
    fn answers_to(&self, place: Place) -> Option<Vec<String>> {
        let text = fs::read_to_string(&self.answers).unwrap_or_default();
        let numbered = text.lines().filter_map(|line| line.split_once(' '));
        let numbered = numbered.filter_map(|(number, said)| Some((number.parse::<usize>().ok()?, said)));
        let mut all: Vec<String> = Vec::new();
        let mut parts: Vec<&str> = Vec::new();
        for (number, said) in numbered.filter(|(number, _)| (place.first..place.first + place.length).contains(number))
        {
            // It went back to the middle of a look.
            parts.truncate(number - place.first);
            parts.push(said);
            if parts.len() == place.length {
                all.push(self.cell.look.told(&parts));
            }
        }
        (!all.is_empty()).then_some(all)
    }

    fn failure(&self, what: &str) -> Failure {
        Failure::new(self.cell.to_string(), format!("{}\n  {what}", self.tells()))
    }

    /// What was seen while it was undecided.
    fn check_undecided(&self) -> Result<(), Failure> {
        let seen = self.answers_to(self.first);
        let seen = seen.as_ref().map(|seen| seen[0].as_str());
        let is_right = match (self.cell.undecided(), seen) {
            (Some("EBUSY"), Some(seen)) => seen.contains("EBUSY"),
            (expected, seen) => expected == seen,
        };
        let expected = self.cell.undecided();
        is_right.then_some(()).ok_or_else(|| self.failure(&format!("undecided: {seen:?}, must be {expected:?}")))
    }

    /// Waits for the end, which must be right.
    fn end(&mut self) -> Result<String, Failure> {
        let deadline = Instant::now() + END_TIME_MAX;
        let status = loop {
            match self.child.try_wait().expect("wait") {
                Some(status) => break status,
                None if Instant::now() > deadline => return Err(self.failure("it does not end")),
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        if !status.success() {
            return Err(self.failure(&format!("it ends with {status}")));
        }
        let last = |place: Place| self.answers_to(place).and_then(|mut answers| answers.pop());
        let seen = Shown { first: last(self.first).unwrap_or_default(), second: last(self.second) };
        let expected = self.cell.in_the_end();
        let is_right = seen == expected
            || expected.first == "EBUSY" && seen.first.contains("EBUSY") && seen.second == expected.second;
        match is_right {
            true => Ok(fs::read_to_string(&self.said).unwrap_or_default()),
            false => Err(self.failure(&format!("in the end: {seen:?}, must be {expected:?}"))),
        }
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
