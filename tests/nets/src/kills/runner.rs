//! One who does one thing after the other, and remembers what was said of each.

use super::{How, Line};
use mojavefs_harness::{Mount, SPECRUN, text};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// How many lines the larger of a job's files has.
pub(super) const LINES: usize = 5_000;
/// Where held work is done: whoever looked there would wait for its decision.
pub(super) const HELD: &str = "held";
/// The exit status of what is not known.
const UNKNOWN: i32 = 76;

/// What was said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is done for good.
    Acknowledged,
    /// It is held under this number.
    Held(String),
    /// It did not happen.
    Refused(String),
    /// Nothing is known of it.
    Unknown(String),
}

/// Something that a runner did.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) number: usize,
    pub(super) how: How,
    pub(super) said: Said,
}

/// The process of what a runner does at the moment.
pub(super) type Now = Arc<Mutex<Option<Pid>>>;

pub(super) struct Runner {
    pub(super) dir: PathBuf,
    /// Where its held work is.
    pub(super) held: PathBuf,
    jobs: Vec<(usize, How)>,
    pub(super) done: Vec<Done>,
    now: Now,
}

/// What replaces all that a runner has; what another number left is gone.
fn replace(number: usize) -> String {
    format!(
        "rm -f name.*; echo {number} > small; seq {number} {} > large; echo {number} > name.{number}",
        number + LINES
    )
}

impl Runner {
    /// A runner in a directory of its own, which does its part of a program.
    pub(super) fn new(mount: &Mount, number: usize, lines: &[Line]) -> Runner {
        let dir = mount.at(format!("r{number}"));
        let held = mount.at(HELD);
        fs::create_dir(&dir).and_then(|()| fs::create_dir_all(&held)).expect("mkdir");
        // It must survive.
        fs::File::open(mount.path()).and_then(|top| top.sync_all()).expect("sync");
        let mine = |(at, line): (usize, &Line)| match line {
            Line::Job { runner, how } if *runner == number => Some((at + 1, *how)),
            _ => None,
        };
        let jobs = lines.iter().enumerate().filter_map(mine).collect();
        Runner { dir, held, jobs, done: Vec::new(), now: Now::default() }
    }

    pub(super) fn now(&self) -> Now {
        self.now.clone()
    }

    pub(super) fn run(&mut self) {
        for (number, how) in std::mem::take(&mut self.jobs) {
            let said = self.perform(number, how);
            self.done.push(Done { number, how, said });
        }
    }

    fn perform(&self, number: usize, how: How) -> Said {
        let job = replace(number);
        let specrun = |options: &[&str], script: &str| {
            let mut specrun = Command::new(SPECRUN);
            specrun.args(options).args(["--", "sh", "-ec", script]);
            specrun
        };
        let mut command = match how {
            How::Plain => specrun(&["--quiet"], &job),
            How::Apart => specrun(&["--quiet", "--isolate"], &job),
            How::FromStart => specrun(&["--quiet", "--from-start"], &job),
            How::Nested => specrun(&["--quiet"], &format!("{SPECRUN} --quiet -- sh -ec '{job}'")),
            How::Fails => specrun(&["--quiet"], &format!("{job}; exit 7")),
            How::Hold => {
                let last = number + LINES;
                let script =
                    format!("cd ../{HELD}; echo {number} > held.{number}; seq {number} {last} > more.{number}");
                specrun(&["--hold", "--json"], &script)
            }
            How::Synced => {
                let mut sh = Command::new("sh");
                sh.args(["-ec", &format!("echo {number} > synced.{number}; sync synced.{number}")]);
                sh
            }
        };
        match self.output(&mut command) {
            // The place is gone: it has not even begun.
            Err(error) => Said::Refused(error.to_string()),
            Ok(output) => judge(how, &output),
        }
    }

    fn output(&self, command: &mut Command) -> std::io::Result<Output> {
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn()?;
        *self.now.lock().expect("nobody panics with it") = Some(Pid::from_raw(child.id().cast_signed()));
        let output = child.wait_with_output();
        *self.now.lock().expect("nobody panics with it") = None;
        output
    }

    /// Nothing was refused that should not be.
    pub(super) fn all_went_well(&self) -> Result<(), String> {
        let bad = |done: &&Done| match &done.said {
            Said::Refused(_) => done.how != How::Fails,
            Said::Unknown(_) => true,
            Said::Acknowledged | Said::Held(_) => false,
        };
        match self.done.iter().find(bad) {
            None => Ok(()),
            Some(done) => Err(format!("{done:?}, although nothing was in its way")),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What was said of what it did.
    pub(super) fn tell(&self) -> String {
        let tell = |done: &Done| format!("{} {} {:?}", done.number, done.how, done.said);
        let done: Vec<String> = self.done.iter().map(tell).collect();
        format!("{}: {}", self.dir.file_name().unwrap_or(Path::new("").as_os_str()).display(), done.join(", "))
    }
}

/// What its end says of it.
fn judge(how: How, output: &Output) -> Said {
    let said = text(&output.stderr);
    match (output.status.code(), how) {
        (Some(0), How::Hold) => {
            let json: Option<serde_json::Value> = serde_json::from_str(&said).ok();
            match json.filter(|json| json["state"] == "held") {
                Some(json) => Said::Held(json["id"].to_string()),
                None => Said::Unknown(format!("exit 0, and {said}")),
            }
        }
        (Some(0), _) => Said::Acknowledged,
        (None | Some(UNKNOWN), _) => Said::Unknown(said),
        (Some(code), _) => Said::Refused(format!("exit {code}: {said}")),
    }
}
