//! Does what is to be done in turns, and looks after each whether all is as the model says.

use super::model::{Job, Model};
use super::program::{DIRS, Histories, Line};
use mojavefs_harness::{Mount, until};
use mojavefs_nets::net::Failure;
use mojavefs_nets::op::Op;
use mojavefs_nets::worker::Worker;
use std::collections::BTreeMap;
use std::fs;

/// How many jobs are undecided at most.
pub(super) const JOBS_MAX: usize = 20;
/// How many jobs may be around one.
const DEPTH_MAX: usize = 3;
/// Undone because of others.
const TRY_AGAIN: i32 = 75;
/// What a shell says of one that `SIGTERM` has ended.
const TERMINATED: i32 = 128 + 15;
/// How much of what was done before is told with a failure.
const TOLD: usize = 40;

struct Run<'a> {
    mount: &'a Mount,
    kind: Histories,
    model: Model,
    /// The outermost jobs; those inside do what these pass on to them.
    jobs: BTreeMap<Job, Worker>,
    trunk: Worker,
    next: Job,
    /// What was done, for people.
    done: Vec<String>,
}

/// Runs a program on a mount of its own.
pub(super) fn run(program: &[Line]) -> Result<(), Failure> {
    let mount = Mount::new();
    (0..DIRS).for_each(|dir| fs::create_dir(mount.at(dir.to_string())).expect("mkdir"));
    let kind = match program.first() {
        Some(Line::Kind(kind)) => *kind,
        _ => Histories::Flat,
    };
    let (trunk, model, jobs, done) = (Worker::start(&mount.path()), Model::default(), BTreeMap::new(), Vec::new());
    let mut run = Run { mount: &mount, kind, model, jobs, trunk, next: 0, done };
    program.iter().try_for_each(|line| run.line(line)).map_err(|failure| run.told(failure))?;
    while let Some(job) = run.model.running().first().copied() {
        run.vote(job).map_err(|failure| run.told(failure))?;
    }
    drop(run);
    until("everything is decided", || mount.status().is_empty());
    mount.check();
    Ok(())
}

fn same<T: PartialEq + std::fmt::Debug>(kind: &str, what: &str, found: &T, wanted: &T) -> Result<(), Failure> {
    match found == wanted {
        true => Ok(()),
        false => Err(Failure::new(kind, format!("{what}: {found:?}, not {wanted:?}"))),
    }
}

/// Who does not go on, or does not end, is no failure like others, but what was done before is told all the same.
impl Drop for Run<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\ndepend: {}", self.done.join("\n"), self.model.dependencies());
            println!("{}", serde_json::Value::from(self.mount.status()));
        }
    }
}

impl Run<'_> {
    fn told(&self, failure: Failure) -> Failure {
        let last = self.done.len().saturating_sub(TOLD);
        Failure { what: format!("{}\nafter\n  {}", failure.what, self.done[last..].join("\n  ")), ..failure }
    }

    /// The job at a place among those that work.
    fn at(&self, place: usize) -> Option<Job> {
        let running = self.model.running();
        running.get(place % running.len().max(1)).copied()
    }

    fn line(&mut self, line: &Line) -> Result<(), Failure> {
        match line {
            Line::Kind(_) => Ok(()),
            Line::Begin(_) if self.model.undecided().len() == JOBS_MAX => Ok(()),
            Line::Begin(place) => {
                let running = self.model.running();
                let around = running.get(place % (2 * running.len() + 1)).copied();
                self.begin(around.filter(|around| self.kind.nest() && self.model.depth(*around) < DEPTH_MAX))
            }
            Line::Trunk(op) => self.on_trunk(op),
            Line::Do(place, op) => self.at(*place).map_or(Ok(()), |job| self.act(job, op)),
            Line::Vote(place) => self.at(*place).map_or(Ok(()), |job| self.vote(job)),
            Line::Fail(place) => self.at(*place).map_or(Ok(()), |job| self.fail(job)),
            Line::Kill(place) => self.at(*place).map_or(Ok(()), |job| self.kill(job)),
        }
    }

    fn on_trunk(&mut self, op: &Op) -> Result<(), Failure> {
        self.done.push(format!("trunk: {op}"));
        let (expected, losers) = self.model.act_on_trunk(op);
        let said = self.trunk.ask(&op.to_string()).unwrap_or_default();
        same(op.word(), &format!("trunk is answered to {op}"), &said, &expected)?;
        losers.into_iter().try_for_each(|job| self.lose(job))
    }

    fn act(&mut self, job: Job, op: &Op) -> Result<(), Failure> {
        self.done.push(format!("job {job}: {op}"));
        self.worker(job).say(&op.to_string());
        let (said, expected) = (self.hear(job), self.model.act(job, op));
        same(op.word(), &format!("job {job} is answered to {op}"), &said, &expected)
    }

    /// Who is told what a job does.
    fn worker(&mut self, job: Job) -> &mut Worker {
        let outermost = self.model.outermost(job);
        self.jobs.get_mut(&outermost).expect("it runs")
    }

    /// What a job says, or the command of the one around it.
    fn hear(&mut self, job: Job) -> String {
        self.worker(job).answer().unwrap_or_else(|| "nothing: it has ended".to_owned())
    }

    fn begin(&mut self, around: Option<Job>) -> Result<(), Failure> {
        let (job, options) = (self.next, self.kind.options());
        self.next += 1;
        match around {
            Some(around) => {
                self.done.push(format!("job {job} begins inside of {around}"));
                self.worker(around).begin_inner(options).map_err(|what| Failure::new("inner", what))?;
            }
            None => {
                self.done.push(format!("job {job} begins"));
                self.jobs.insert(job, Worker::start_in_job(&self.mount.path(), options));
            }
        }
        self.model.begin(job, around);
        Ok(())
    }

    fn vote(&mut self, job: Job) -> Result<(), Failure> {
        self.done.push(format!("job {job} votes"));
        self.worker(job).say("exit 0");
        if self.model.around(job).is_some() {
            let said = self.hear(job);
            same("inner", &format!("job {job}, which becomes part of the one around it"), &&said[..], &"ended 0")?;
            self.model.fold(job);
            return self.compare();
        }
        let pid = self.worker(job).pid();
        let finals = self.model.vote(job);
        self.done.push(format!("final: {finals:?}"));
        match finals.contains(&job) {
            true => finals.into_iter().try_for_each(|job| self.ended(job, Some(0)))?,
            false => until(&format!("job {job} has voted"), || {
                self.state_of(pid).is_some_and(|state| state == "voted" || state == "done")
            }),
        }
        self.compare()
    }

    /// What a job changed was changed outside: it can't commit any more.
    fn lose(&mut self, job: Job) -> Result<(), Failure> {
        while self.model.is_undecided(job) && self.model.innermost(job) != job {
            self.fail(self.model.innermost(job))?;
        }
        if !self.model.is_undecided(job) {
            return Ok(());
        }
        self.done.push(format!("job {job} is in conflict"));
        if self.model.has_voted(job) {
            // Its supervisor may find out by itself, and be faster.
            let pid = self.worker(job).pid();
            if let Some(status) = self.status_of(pid) {
                self.mount.mojavefs(&["abort", &status["id"].to_string()]);
            }
        } else {
            self.worker(job).say("exit 0");
        }
        self.fallen(job, Some(TRY_AGAIN))
    }

    /// Ends by a signal: one that failed by itself would wait for those that it depends on.
    fn fail(&mut self, job: Job) -> Result<(), Failure> {
        self.done.push(format!("job {job} ends by a signal"));
        self.worker(job).say("die");
        self.fallen(job, Some(TERMINATED))
    }

    /// Only the outermost can be reached from outside.
    fn kill(&mut self, job: Job) -> Result<(), Failure> {
        let job = self.model.outermost(job);
        self.done.push(format!("job {job} is killed"));
        self.worker(job).kill();
        self.fallen(job, None)
    }

    /// A job is undone, and with it whoever depends on it.
    fn fallen(&mut self, job: Job, code: Option<i32>) -> Result<(), Failure> {
        self.done.push(format!("depend: {}", self.model.dependencies()));
        let around: BTreeMap<Job, Option<Job>> =
            self.model.undecided().into_iter().map(|job| (job, self.model.around(job))).collect();
        let fallen = self.model.abort(job);
        self.done.push(format!("fallen: {fallen:?}"));
        for other in &fallen {
            let code = if *other == job { code } else { Some(TRY_AGAIN) };
            match around[other] {
                None => self.ended(*other, code)?,
                // The command of the one around it goes on.
                Some(around) if !fallen.contains(&around) => {
                    let code = code.expect("only the outermost is killed");
                    let said = self.hear(around);
                    same("inner", &format!("job {other} inside of {around}"), &said, &format!("ended {code}"))?;
                }
                Some(_) => {}
            }
        }
        self.compare()
    }

    fn ended(&mut self, job: Job, code: Option<i32>) -> Result<(), Failure> {
        let mut worker = self.jobs.remove(&job).expect("it was there");
        let pid = worker.pid();
        same("exit status", &format!("job {job} has ended"), &worker.end().code, &code)?;
        until(&format!("job {job} is decided"), || self.state_of(pid).is_none());
        Ok(())
    }

    fn status_of(&self, pid: u32) -> Option<serde_json::Value> {
        self.mount.status().into_iter().find(|status| status["pid"] == pid)
    }

    fn state_of(&self, pid: u32) -> Option<String> {
        self.status_of(pid).and_then(|status| Some(status["state"].as_str()?.to_owned()))
    }

    /// Trunk shows what is final, and nothing else; those that should be undecided are.
    fn compare(&self) -> Result<(), Failure> {
        let mut found = BTreeMap::new();
        for dir in 0..DIRS {
            for entry in fs::read_dir(self.mount.at(dir.to_string())).expect("list") {
                let entry = entry.expect("an entry");
                let name = format!("{dir}/{}", entry.file_name().to_string_lossy());
                found.insert(name, fs::read(entry.path()).expect("read"));
            }
        }
        let wanted = self.model.base.all();
        if found != wanted {
            let differs = |name: &&String| found.get(*name) != wanted.get(*name);
            let names: Vec<_> = found.keys().chain(wanted.keys()).filter(differs).collect();
            return Err(Failure::new("trunk", format!("trunk shows otherwise than what is final: {names:?}")));
        }
        // One that is committed into the one around it is listed with that.
        let is_part = |status: &serde_json::Value| status["state"] == "voted" && !status["parent"].is_null();
        let undecided = self.mount.status().into_iter().filter(|status| !is_part(status)).count();
        same("undecided", "as many jobs are undecided", &undecided, &self.model.undecided().len())
    }
}
