//! What programs say: lines on standard output and error, where writing may fail.

use crate::limits::{REPEATED_INTERVAL, WORDS_BYTES_MAX};
use std::fmt::Arguments;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;
use std::time::Instant;

/// What a program that wrote into a closed pipe ends with, as the shell names that signal.
const EXIT_PIPE: i32 = 128 + nix::libc::SIGPIPE;

static STDERR: OnceLock<File> = OnceLock::new();

/// A failure that may repeat itself without end: it is told once, and again when it still happens after a while.
#[derive(Default)]
pub(crate) struct Repeated {
    told: Option<Instant>,
}

impl Repeated {
    /// It has happened (again).
    pub(crate) fn tell(&mut self, tell: impl FnOnce()) {
        if self.told.is_none_or(|told| told.elapsed() >= REPEATED_INTERVAL) {
            self.told = Some(Instant::now());
            tell();
        }
    }
}

/// From now on error lines go there: standard error itself belongs to a job.
pub(crate) fn set_stderr(file: File) {
    let _ = STDERR.set(file);
}

/// Writes to standard output; a program whose output can't be written ends.
pub(crate) fn say(text: Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    let Err(error) = stdout.write_fmt(text).and_then(|()| stdout.flush()) else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(EXIT_PIPE);
    }
    complain(format_args!("cannot write to standard output: {error}\n"));
    std::process::exit(1);
}

/// Writes to standard error. If that fails there is nobody left to tell.
pub(crate) fn complain(text: Arguments<'_>) {
    // One write a message, so that those of several programs don't mix.
    let text = text.to_string();
    let _ = match STDERR.get() {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => io::stderr().write_all(text.as_bytes()),
    };
}

/// A command line or a reason, cut where it is longer than anybody would read.
pub(crate) fn shortened(mut words: String) -> String {
    if words.len() > WORDS_BYTES_MAX {
        words.truncate(words.floor_char_boundary(WORDS_BYTES_MAX));
        words.push('…');
    }
    words
}

/// Writes to the job's own standard error.
pub(crate) fn complain_inside(text: Arguments<'_>) {
    let _ = io::stderr().write_all(text.to_string().as_bytes());
}

/// A line on standard output.
macro_rules! out {
    ($($text:tt)*) => { $crate::output::say(format_args!("{}\n", format_args!($($text)*))) };
}

/// A line on standard error.
macro_rules! err {
    ($($text:tt)*) => { $crate::output::complain(format_args!("{}\n", format_args!($($text)*))) };
}

pub(crate) use {err, out};
