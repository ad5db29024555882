//! Programs whose steps are done natively and on a mount, in scenes: on trunk, in jobs, in jobs within jobs.

use crate::generate::{Generator, Guess, Make};
use crate::net::Failure;
use crate::op::{Op, Step};
use crate::place::Place;
use crate::words::{lines, words};
use mojavefs_harness::text;
use std::fmt;
use std::str::FromStr;

words! {
    /// How a job ends.
    pub enum End {
        /// Its changes become permanent, or its outer job's.
        Commit "commit",
        /// It never happened.
        Fail "fail",
    }
}

words! {
    /// What a job does where it meets others' work (`--on-read`, `--isolate`, `--from-start`).
    pub enum Reads {
        /// Becomes part of it.
        Join "join",
        /// The same, without checkpoints.
        FromStart "from-start",
        /// Waits.
        Wait "wait",
        /// Does not see it.
        Committed "committed",
        /// Fails.
        Fail "busy",
        /// Sees nothing new at all.
        Isolated "isolated",
    }
}

impl Reads {
    /// The options of `specrun`.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Reads::Join => &[],
            Reads::FromStart => &["--from-start"],
            Reads::Wait => &["--on-read", "wait"],
            Reads::Committed => &["--on-read", "committed"],
            Reads::Fail => &["--on-read", "fail"],
            Reads::Isolated => &["--isolate"],
        }
    }
}

words! {
    /// What happens to a mount while something is held.
    pub enum Meanwhile {
        /// Nothing.
        Nothing "at-once",
        /// It is unmounted and mounted again.
        Remount "remounted",
    }
}

lines! {
    /// What changes who does the steps.
    pub enum Scene {
        /// All jobs end; the steps that follow are ordinary processes'.
        Trunk "trunk" { },
        Job "job" { reads: Reads, end: End },
        /// A job that is held and decided later.
        Hold "hold" { meanwhile: Meanwhile, end: End },
        /// A job within the job, or a job where there is none.
        Inner "inner" { reads: Reads, end: End },
        /// The innermost job ends.
        Leave "leave" { },
        /// Unmounts and mounts again; all jobs end before.
        Remount "remount" { },
        /// Trunk shows what it showed before the job.
        Outside "outside" { },
        /// The kernel drops its caches; the store reclaims.
        Pressure "pressure" { },
    }
}

/// A line of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Changes who does what follows.
    Scene(Scene),
    /// Is done natively and on the mount.
    Step(Step),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Scene(scene) => write!(f, "{scene}"),
            Line::Step(step) => write!(f, "{step}"),
        }
    }
}

impl FromStr for Line {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let step = || line.parse().map(Line::Step);
        line.parse().map(Line::Scene).or_else(|scene| step().map_err(|step| format!("{scene}; {step}")))
    }
}

fn end(generator: &mut Generator) -> End {
    generator.random.of(End::ALL)
}

fn scene(generator: &mut Generator, depth: usize) -> Scene {
    let reads = generator.random.of(Reads::ALL);
    match generator.random.below(10) {
        0..2 => Scene::Trunk {},
        2..4 => Scene::Job { reads, end: end(generator) },
        4 => Scene::Hold {
            meanwhile: generator.random.of(&[Meanwhile::Nothing, Meanwhile::Remount]),
            end: end(generator),
        },
        5..7 if depth < DEPTH_MAX => Scene::Inner { reads, end: end(generator) },
        7 => Scene::Remount {},
        8 if depth > 0 => Scene::Leave {},
        _ => Scene::Job { reads, end: end(generator) },
    }
}

/// How deep jobs are nested.
const DEPTH_MAX: usize = 3;
const SCENES: usize = 8;
const STEPS_MAX: usize = 16;

/// Makes a program.
struct Writer {
    generator: Generator,
    /// What was guessed before each open job, and how it ends.
    open: Vec<(End, Guess)>,
    lines: Vec<Line>,
}

impl Writer {
    fn leave_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            let Some((end, before)) = self.open.pop() else { return };
            let after = std::mem::take(&mut self.generator.guess);
            self.generator.guess = if end == End::Fail { before } else { before.back_to(after) };
        }
    }

    fn scene(&mut self) {
        let scene = scene(&mut self.generator, self.open.len());
        match scene {
            Scene::Leave {} => self.leave_to(self.open.len().saturating_sub(1)),
            Scene::Inner { .. } => {}
            _ => self.leave_to(0),
        }
        match scene {
            Scene::Job { end, .. } | Scene::Hold { end, .. } | Scene::Inner { end, .. } => {
                self.open.push((end, self.generator.guess.clone()));
                self.generator.guess.another_process();
            }
            Scene::Remount {} => self.generator.guess.another_process(),
            _ => {}
        }
        self.lines.push(Line::Scene(scene));
    }
}

/// A program of steps made by these, in scenes.
pub fn program(mut generator: Generator, makes: &[(usize, Make)]) -> Vec<Line> {
    // Looking at everything fills the kernel's caches, and hides what goes wrong without.
    let walks = generator.random.of(&[1, 5, 15]);
    let mut writer = Writer { generator, open: Vec::new(), lines: Vec::new() };
    for _ in 0..SCENES {
        writer.scene();
        for _ in 0..1 + writer.generator.random.below(STEPS_MAX) {
            writer.lines.push(Line::Step(writer.generator.step(makes)));
            if writer.generator.random.one_in(walks) {
                writer.lines.push(Line::Step(Op::Walk { path: "/".to_owned() }.into()));
            }
            match writer.generator.random.below(30) {
                0 => writer.lines.push(Line::Scene(Scene::Outside {})),
                1 => writer.lines.push(Line::Scene(Scene::Pressure {})),
                _ => {}
            }
        }
    }
    writer.lines
}

/// The kernel drops its caches, if it may be told to, and the store reclaims.
pub(crate) fn pressure(mount: &dyn Place) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        std::fs::write("/proc/sys/vm/drop_caches", "3").expect("drop caches");
    }
    let output = mount.mojavefs(&["gc"]);
    match output.status.success() {
        true => Ok(()),
        false => Err(Failure::new("gc", text(&output.stderr))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_read_back_as_it_was() {
        for seed in 1..200 {
            for line in program(Generator::new(seed), crate::generate::ALL) {
                assert_eq!(line.to_string().parse(), Ok(line));
            }
        }
    }
}
