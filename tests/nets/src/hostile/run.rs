//! Runs a program over a directory of the host.

use super::judge::{Late, difference};
use super::model::{Change, Tree};
use super::watch::{self, Seen, Site};
use super::{Decision, Line, Mode, When, outcome, real};
use crate::net::Failure;
use mojavefs_harness::disk::Disk;
use mojavefs_harness::host::OverHost;
use mojavefs_harness::{is_running, sh, text, until};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

/// How often it is looked whether what could not be applied is, and after how long: it is tried once a second.
const RECOVERIES_MAX: usize = 4;
const AGAIN: Duration = Duration::from_millis(1100);

/// A program, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// How that is made which is there at first.
    was: Vec<Change>,
    /// That, and what the job makes of it.
    pub(super) old: Tree,
    pub(super) job: Tree,
    /// What the job does.
    pub(super) changes: Vec<Change>,
    pub(super) mode: Mode,
    /// What others do, and when.
    hosts: Vec<(When, Change)>,
    blow: Option<(When, Blow)>,
    pub(super) decision: Decision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    Cut,
}

/// What came of running it, before anything is looked at.
pub(super) struct Played {
    /// The directory as others have made it before the decision, and their changes.
    pub(super) host: Tree,
    pub(super) early: Vec<Late>,
    /// How the command that decides has ended, and what it has said.
    pub(super) code: Option<i32>,
    pub(super) said: String,
    /// What was seen of the daemon meanwhile.
    pub(super) seen: Seen,
}

/// How a program has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How many calls about the host the apply has made.
    pub calls: usize,
    /// Whether the daemon was struck.
    pub is_struck: bool,
    /// How many changes of others came after the host was compared.
    pub late: usize,
}

/// Runs a program over a directory of its own.
pub fn run(lines: &[Line]) -> Result<(), Failure> {
    on(&OverHost::new(), None, lines).map(drop)
}

/// The same over this directory, which lies on this disk if the program cuts its power.
pub fn on(host: &OverHost, disk: Option<&Disk>, lines: &[Line]) -> Result<Ended, Failure> {
    let program = Program::of(lines);
    let stage = Stage { host, disk, site: Site { project: host.path(), state: host.state() } };
    let played = stage.play(&program)?;
    stage.recover(&program, &played).and_then(|()| outcome::judge(host, &program, &played)).map_err(|what| {
        let Seen { is_recorded, is_struck, ref calls, ref late } = played.seen;
        let late: Vec<String> = late.iter().map(|late| late.change.to_string()).collect();
        let calls = calls.iter().enumerate().map(|(number, call)| format!("  {} {call}", number + 1));
        let calls = calls.collect::<Vec<_>>().join("\n");
        let (code, said) = (played.code, &played.said);
        let how = format!("recorded: {is_recorded}, struck: {is_struck}, exit status: {code:?}, late: {late:?}");
        Failure::new("host", format!("{what}\n{how}\n{said}calls:\n{calls}"))
    })?;
    let Seen { calls, late, is_struck, .. } = &played.seen;
    Ok(Ended { calls: calls.len(), is_struck: *is_struck, late: late.len() })
}

impl Program {
    fn of(lines: &[Line]) -> Program {
        let (mut old, mut was, mut changes) = (Tree::default(), Vec::new(), Vec::new());
        let (mut mode, mut decision, mut hosts, mut blow) = (Mode::Plain, Decision::Abort, Vec::new(), None);
        // What can't be done is not tried.
        for line in lines.iter().filter(|line| matches!(line, Line::Was { .. })) {
            was.extend(line.change().filter(|change| old.change(change)));
        }
        let mut job = old.clone();
        for line in lines {
            match line {
                Line::Was { .. } => {}
                Line::Job { .. } => changes.extend(line.change().filter(|change| job.change(change))),
                Line::Mode { mode: is } => mode = *is,
                Line::Host { when, .. } => hosts.extend(line.change().map(|change| (*when, change))),
                Line::Kill { when } => blow = Some((*when, Blow::Kill)),
                Line::Cut { when } => blow = Some((*when, Blow::Cut)),
                Line::InConflict { decision: is } => decision = *is,
            }
        }
        Program { was, old, job, changes, mode, hosts, blow, decision }
    }

    fn script(&self) -> String {
        let changes = self.changes.iter().map(|change| format!("{{ {}; }} || exit 9\n", change.script()));
        let changes: String = changes.collect();
        format!("umask 022\n{changes}touch ../halfway; until [ -e ../go ]; do sleep 0.01; done")
    }
}

struct Stage<'a> {
    host: &'a OverHost,
    disk: Option<&'a Disk>,
    site: Site,
}

impl Stage<'_> {
    fn play(&self, program: &Program) -> Result<Played, Failure> {
        self.make(program)?;
        let (host, seen) = (program.old.clone(), Seen::default());
        let mut played = Played { host, early: Vec::new(), code: None, said: String::new(), seen };
        let mut words = vec!["--retries", "0"];
        words.extend((program.mode == Mode::Apart).then_some("--isolate"));
        let is_held = matches!(program.mode, Mode::Hold | Mode::HoldAgain);
        words.extend(is_held.then_some("--hold"));
        self.host.run("true");
        let job = self.host.job(&words, &program.script()).stderr(Stdio::piped()).spawn().expect("specrun runs");
        let pid = Pid::from_raw(job.id().cast_signed());
        until("the job is halfway, or over", || self.host.aside("halfway").exists() || !is_running(pid));
        if let Err(failure) = self.early(program, When::Running, &mut played) {
            self.go(job);
            return Err(failure);
        }
        let output = if is_held {
            let held = self.go(job);
            if held.status.code() != Some(0) {
                return Err(Failure::new("hold", format!("a job that is held ends with {held:?}")));
            }
            self.early(program, When::Held, &mut played)?;
            if program.mode == Mode::HoldAgain {
                self.host.end(Signal::SIGKILL);
            }
            let id = outcome::held(self.host).ok_or_else(|| Failure::new("hold", "nothing is held"))?;
            self.watched(program, &mut played, || self.host.mojavefs(&["commit", &id]))?
        } else {
            self.watched(program, &mut played, || self.go(job))?
        };
        (played.code, played.said) = (output.status.code(), text(&output.stderr));
        Ok(played)
    }

    /// Makes what is there at first.
    fn make(&self, program: &Program) -> Result<(), Failure> {
        for change in &program.was {
            if !real::change(&self.site.project, &change.script()) {
                return Err(Failure::new("model", format!("`{change}` can't be done")));
            }
        }
        // What nobody has synced may be lost with the power on any filesystem.
        if self.disk.is_some() {
            sh(&self.site.project, "sync -f .");
        }
        self.is(&program.old)
    }

    /// The model of it is what is there.
    fn is(&self, tree: &Tree) -> Result<(), Failure> {
        let is = difference(&real::read(&self.site.project, false), tree);
        is.map_err(|what| Failure::new("model", format!("the model is another: {what}")))
    }

    /// Makes others' changes of a moment at which nothing is decided.
    fn early(&self, program: &Program, when: When, played: &mut Played) -> Result<(), Failure> {
        for (_, change) in program.hosts.iter().filter(|(of, _)| *of == when) {
            let late = self.site.change(change);
            if late.is_some() != played.host.change(change) {
                return Err(Failure::new("model", format!("the model says otherwise of `{change}`")));
            }
            played.early.extend(late);
        }
        self.is(&played.host)
    }

    fn go(&self, job: Child) -> Output {
        fs::write(self.host.aside("go"), "").expect("go");
        job.wait_with_output().expect("it ends")
    }

    /// Decides, with the daemon watched.
    fn watched(
        &self,
        program: &Program,
        played: &mut Played,
        decide: impl FnOnce() -> Output,
    ) -> Result<Output, Failure> {
        let daemon = self.host.daemon().ok_or_else(|| Failure::new("daemon", "there is no daemon"))?;
        let point = self.disk.map(|disk| disk.point.clone());
        let strike = move |blow| -> watch::Blow {
            Box::new(move || {
                if let (Blow::Cut, Some(point)) = (blow, &point) {
                    Disk::cut_power(point);
                }
            })
        };
        let blow = program.blow.map(|(when, blow)| (when, strike(blow)));
        let watched = self.site.watch(daemon, program.hosts.clone(), blow);
        let (traced, seen) = watched.map_err(|errno| Failure::new("trace", format!("{daemon}: {errno}")))?;
        let output = decide();
        traced.end();
        played.seen = std::mem::take(&mut *seen.lock().expect("nobody has panicked"));
        if played.seen.is_struck {
            until("the daemon has ended", || !is_running(daemon));
        }
        Ok(output)
    }

    /// Whoever works here next finds all of it done, or nothing.
    fn recover(&self, program: &Program, played: &Played) -> Result<(), String> {
        if let (true, Some((_, Blow::Cut)), Some(disk)) = (played.seen.is_struck, program.blow, self.disk) {
            until("the disk can be taken off", || disk.detach());
            disk.attach();
        }
        for _ in 0..RECOVERIES_MAX {
            let next = self.host.specrun(&[], "true");
            if !next.status.success() {
                return Err(format!("the next job ends with {next:?}"));
            }
            let names = real::read(&self.site.project, true).names;
            if !names.keys().any(|name| name.contains(real::OWN_PREFIX)) {
                return Ok(());
            }
            std::thread::sleep(AGAIN);
        }
        let left = real::read(&self.site.project, true);
        let left: Vec<_> = left.names.keys().filter(|name| name.contains(real::OWN_PREFIX)).collect();
        Err(format!("{left:?} are left"))
    }
}
