//! Does the steps of a program natively and on a mount, side by side: every answer and every tree must be the same.

use crate::memory::Memory;
use crate::net::Failure;
use crate::op::{Op, Step};
use crate::perform::SLOTS;
use crate::place::Place;
use crate::scene::{End, Line, Meanwhile, Reads, Scene, pressure};
use crate::tree::{Times, walk};
use crate::worker::Worker;
use mojavefs_harness::{run, text};
use std::fs;
use std::path::PathBuf;

/// A job, or a job within one.
struct Level {
    scene: Scene,
    end: End,
    /// Does its steps natively.
    native: Worker,
    /// Where. Undone work is done in a copy, which is thrown away.
    dir: PathBuf,
}

/// What a job is begun with.
struct Before {
    /// What trunk shows, to the last nanosecond.
    exactly: Vec<String>,
    /// What a process there sees.
    seen: String,
}

/// One program's run.
pub struct Beside<'a> {
    mount: &'a dyn Place,
    memory: &'a Memory,
    dir: PathBuf,
    copies: usize,
    /// Outside of jobs: on the mount, and natively. They keep what they have open while jobs come and go.
    trunk: (Worker, Worker),
    /// Does the steps of the job, and of those within.
    job: Option<(Worker, Before)>,
    levels: Vec<Level>,
    done: Vec<String>,
}

/// Runs a program on a mount that has nothing in it. Those that work on it have this much memory.
pub fn run_on(mount: &dyn Place, memory: &Memory, program: &[Line]) -> Result<(), Failure> {
    let dir = mount.beside("native");
    fs::create_dir(&dir).expect("a directory for the native run");
    let trunk = (Worker::start_with(memory, &mount.path()), Worker::start(&dir));
    let mut beside = Beside { mount, memory, dir, copies: 0, trunk, job: None, levels: Vec::new(), done: Vec::new() };
    for line in program {
        beside.line(line).map_err(|failure| beside.told(failure))?;
    }
    beside.line(&Line::Scene(Scene::Trunk {})).map_err(|failure| beside.told(failure))
}

/// What differs between two answers that are lists.
pub(crate) fn difference(found: &str, wanted: &str) -> String {
    let (found, wanted): (Vec<_>, Vec<_>) = (found.split("; ").collect(), wanted.split("; ").collect());
    let only = |these: &[&str], those: &[&str]| {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| (*line).to_owned())
            .collect::<Vec<_>>()
            .join("\n    ")
    };
    format!("on the mount:\n    {}\n  natively:\n    {}", only(&found, &wanted), only(&wanted, &found))
}

fn ended(worker: Option<String>) -> String {
    worker.unwrap_or_else(|| "it has ended".to_owned())
}

impl Beside<'_> {
    fn told(&self, failure: Failure) -> Failure {
        let last = self.done.iter().rev().take(12).rev().map(|line| format!("  {line}\n")).collect::<String>();
        Failure { what: format!("{}\nafter\n{last}", failure.what), ..failure }
    }

    fn line(&mut self, line: &Line) -> Result<(), Failure> {
        self.done.push(line.to_string());
        match line {
            Line::Step(step) => self.step(step),
            Line::Scene(scene) => self.scene(scene),
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), Failure> {
        let (mounted, native) = match (self.job.as_mut(), self.levels.last_mut()) {
            (Some((job, _)), Some(level)) => (job, &mut level.native),
            _ => (&mut self.trunk.0, &mut self.trunk.1),
        };
        let line = step.to_string();
        mounted.say(&line);
        let (wanted, found) = (ended(native.ask(&line)), ended(mounted.answer()));
        match wanted == found {
            true => Ok(()),
            false => Err(Failure::new(step.op.word(), format!("{step}\n  {}", difference(&found, &wanted)))),
        }
    }

    /// First by names, of which a listing would tell the kernel anew.
    fn look(&mut self) -> Result<(), Failure> {
        self.step(&Op::Names {}.into())?;
        self.step(&Op::Walk { path: "/".to_owned() }.into())
    }

    fn scene(&mut self, scene: &Scene) -> Result<(), Failure> {
        match scene {
            Scene::Trunk {} => self.leave_to(0),
            Scene::Leave {} => self.leave_to(self.levels.len().saturating_sub(1)),
            Scene::Job { reads, end } => {
                self.leave_to(0)?;
                self.begin(scene, *end, reads.options())
            }
            Scene::Hold { end, .. } => {
                self.leave_to(0)?;
                self.begin(scene, *end, &["--hold", "--json"])
            }
            Scene::Inner { reads, end } => match self.job.is_some() {
                true => self.begin_inner(scene, *reads, *end),
                false => self.begin(scene, *end, reads.options()),
            },
            Scene::Remount {} => {
                self.leave_to(0)?;
                self.remount()
            }
            Scene::Outside {} => self.outside(),
            Scene::Pressure {} => pressure(self.mount),
        }
    }

    /// Where the native steps of a new job are done.
    fn native_dir(&mut self, end: End) -> PathBuf {
        let here = self.levels.last().map_or(&self.dir, |level| &level.dir).clone();
        if end == End::Commit {
            return here;
        }
        self.copies += 1;
        let copy = self.mount.beside(&format!("native-{}", self.copies));
        run(&self.mount.beside(""), "cp", &["-a", &here.to_string_lossy(), &copy.to_string_lossy()]);
        copy
    }

    /// What is written through a mapping is others' to see when it is written out.
    fn write_out(&mut self) -> Result<(), Failure> {
        (0..SLOTS).try_for_each(|map| self.step(&Op::Msync { map }.into()))
    }

    fn begin(&mut self, scene: &Scene, end: End, options: &[&str]) -> Result<(), Failure> {
        self.write_out()?;
        let dir = self.native_dir(end);
        let seen = ended(self.trunk.0.ask(&Op::Walk { path: "/".to_owned() }.to_string()));
        let before = Before { exactly: walk(&self.mount.path(), Times::All), seen };
        let options = [options, &["--retries", "0"]].concat();
        if !self.mount.keeps_files() {
            self.open_nothing();
        }
        let environment = self.mount.environment();
        let worker = Worker::start_in_job_among(self.memory, &self.mount.path(), &options, &environment);
        self.job = Some((worker, before));
        self.levels.push(Level { scene: scene.clone(), end, native: Worker::start(&dir), dir });
        self.look()
    }

    fn begin_inner(&mut self, scene: &Scene, reads: Reads, end: End) -> Result<(), Failure> {
        self.write_out()?;
        let dir = self.native_dir(end);
        let (job, _) = self.job.as_mut().expect("there is a job around");
        let options = [reads.options(), &["--quiet", "--retries", "0"]].concat();
        job.begin_inner(&options).map_err(|what| Failure::new("inner", what))?;
        self.levels.push(Level { scene: scene.clone(), end, native: Worker::start(&dir), dir });
        self.look()
    }

    fn leave_to(&mut self, depth: usize) -> Result<(), Failure> {
        while self.levels.len() > depth.max(1) {
            self.leave_inner()?;
        }
        if depth == 0 { self.leave_job() } else { Ok(()) }
    }

    fn leave_inner(&mut self) -> Result<(), Failure> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        let code = u8::from(level.end == End::Fail);
        level.native.exit(code);
        let (job, _) = self.job.as_mut().expect("there is a job around");
        let said = ended(job.end_inner(code));
        if said != format!("ended {code}") {
            return Err(Failure::new("inner", format!("`{}` must end with {code}: {said}", level.scene)));
        }
        self.look()
    }

    fn leave_job(&mut self) -> Result<(), Failure> {
        let (Some((job, before)), Some(level)) = (self.job.take(), self.levels.pop()) else { return self.look() };
        let is_held = matches!(level.scene, Scene::Hold { .. });
        let code = u8::from(level.end == End::Fail && !is_held);
        level.native.exit(code);
        let end = job.exit(code);
        if end.code != Some(code.into()) {
            return Err(Failure::new("exit status", format!("`{}` must end with {code}: {end:?}", level.scene)));
        }
        match level.scene {
            Scene::Hold { meanwhile, .. } => self.decide(&before, &end.stderr, meanwhile, level.end)?,
            _ if level.end == End::Fail => self.unchanged(&before, "an undone job")?,
            _ => {}
        }
        self.look()
    }

    fn decide(&mut self, before: &Before, said: &str, meanwhile: Meanwhile, end: End) -> Result<(), Failure> {
        // Over a directory of the host it says first what it covers.
        let said: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default())
            .map_err(|e| Failure::new("hold", format!("a held job says `{said}`, which is no JSON: {e}")))?;
        self.unchanged(before, "a held job")?;
        if meanwhile == Meanwhile::Remount {
            self.remount_only();
            self.unchanged(before, "a held job, after a remount,")?;
        }
        let word = if end == End::Commit { "commit" } else { "abort" };
        let decided = self.mount.mojavefs(&[word, &said["id"].to_string()]);
        if !decided.status.success() {
            return Err(Failure::new(word, format!("{word}: {}", text(&decided.stderr))));
        }
        if end == End::Fail { self.unchanged(before, "an aborted job") } else { Ok(()) }
    }

    fn unchanged(&self, before: &Before, who: &str) -> Result<(), Failure> {
        let now = walk(&self.mount.path(), Times::All);
        match now == before.exactly {
            true => Ok(()),
            false => {
                let what = difference(&now.join("; "), &before.exactly.join("; ")).replace("natively", "before");
                Err(Failure::new("changed outside", format!("{who} has changed what trunk shows\n  {what}")))
            }
        }
    }

    fn outside(&mut self) -> Result<(), Failure> {
        let Some((_, before)) = &self.job else { return self.look() };
        let now = ended(self.trunk.0.ask(&Op::Walk { path: "/".to_owned() }.to_string()));
        match now == before.seen {
            true => Ok(()),
            false => {
                let what = difference(&now, &before.seen).replace("natively", "before");
                Err(Failure::new("seen outside", format!("trunk shows what a job has not committed\n  {what}")))
            }
        }
    }

    fn remount(&mut self) -> Result<(), Failure> {
        self.remount_only();
        self.look()
    }

    /// Others are in the place of those outside of jobs, and have nothing open.
    fn open_nothing(&mut self) {
        let native = Worker::start(&self.dir);
        std::mem::replace(&mut self.trunk.1, native).exit(0);
        let other = Worker::start_with(self.memory, &self.mount.path());
        std::mem::replace(&mut self.trunk.0, other).exit(0);
    }

    /// Ends those that have something open, unmounts, mounts again.
    fn remount_only(&mut self) {
        let native = Worker::start(&self.dir);
        std::mem::replace(&mut self.trunk.1, native).exit(0);
        // One outside of the mount, until it is there again.
        let beside = Worker::start(&self.dir);
        std::mem::replace(&mut self.trunk.0, beside).exit(0);
        self.mount.again();
        self.trunk.0 = Worker::start_with(self.memory, &self.mount.path());
    }
}
