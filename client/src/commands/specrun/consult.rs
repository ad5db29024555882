//! Asking the person at the terminal what is to become of a job (`--ask`).

use super::super::diff::{about_ring, all_changes, line};
use super::super::{count, host_fault};
use super::Scene;
use super::decide::Verdict;
use super::options::Cli;
use crate::job::JobView;
use crate::job::supervise::{Supervisor, Woken};
use mojavefs::protocol::fault::Fault;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;

/// The most that is read from the terminal at once, in bytes.
const INPUT_BYTES: usize = 4096;

/// What is said of an answer that is none.
const HELP: &str = "commit makes all of it permanent, abort undoes it, hold leaves it undecided (see `mojavefs diff`)";

/// What a wait for a line came to.
enum Heard {
    Line(String),
    /// Nobody is there any more.
    End,
    /// This signal asked for the end.
    Asked(i32),
}

impl Cli {
    /// Shows what changed and asks. Nothing is committed unasked if there is no terminal; a signal that asks for the end means
    /// to undo, and is the exit status.
    pub(super) fn consult(
        &self,
        scene: &Scene<'_>,
        view: &JobView,
        (code, verdict): (u8, Verdict),
    ) -> Result<(u8, Verdict), Fault> {
        let Ok(terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
            self.reporter().note("there is no terminal to ask on");
            return Ok((code, if let Verdict::Commit = verdict { Verdict::Hold } else { verdict }));
        };
        let (changes, with) = all_changes(&scene.filesystem.connect()?, view.spec)?;
        let mut lines: Vec<String> = about_ring(view.spec, &with).into_iter().chain(changes.iter().map(line)).collect();
        lines.push(count(changes.len() as u64, "change"));
        let mut prompt = Prompt { terminal, supervisor: scene.supervisor, heard: Vec::new() };
        let answer = prompt.answer(&lines).map_err(host_fault("the terminal"))?;
        Ok(answer.map_or_else(|signal| (128 + signal as u8, Verdict::Abort), |verdict| (code, verdict)))
    }
}

/// A terminal, and what was typed on it and not looked at yet.
struct Prompt<'a> {
    terminal: File,
    supervisor: &'a Supervisor,
    heard: Vec<u8>,
}

impl Prompt<'_> {
    /// What the person decides, or the signal that asked for the end instead.
    fn answer(&mut self, lines: &[String]) -> io::Result<Result<Verdict, i32>> {
        for line in lines {
            writeln!(self.terminal, "{line}")?;
        }
        loop {
            write!(self.terminal, "[c]ommit, [a]bort or [h]old? ")?;
            match self.line()? {
                Heard::Line(line) => match line.trim() {
                    "c" | "commit" => return Ok(Ok(Verdict::Commit)),
                    "a" | "abort" => return Ok(Ok(Verdict::Abort)),
                    "h" | "hold" => return Ok(Ok(Verdict::Hold)),
                    _ => writeln!(self.terminal, "{HELP}")?,
                },
                Heard::End => return Ok(Ok(Verdict::Abort)),
                Heard::Asked(signal) => {
                    // What is said next begins a line; the terminal may be what has gone.
                    let _ = writeln!(self.terminal);
                    return Ok(Err(signal));
                }
            }
        }
    }

    /// The next line. Signals are blocked, so it is waited for together with them.
    fn line(&mut self) -> io::Result<Heard> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(Heard::Line(String::from_utf8_lossy(&line).into_owned()));
            }
            if let Woken::Asked(signal) = self.supervisor.wait_for(&[self.terminal.as_fd()])? {
                return Ok(Heard::Asked(signal));
            }
            let mut piece = [0; INPUT_BYTES];
            match self.terminal.read(&mut piece)? {
                0 => return Ok(Heard::End),
                length => self.heard.extend(&piece[..length]),
            }
        }
    }
}
