//! Progress of long work: shown on a terminal, silent on a pipe.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Counts `things` that are being `done`.
    pub(super) fn new(done: &str, things: &str) -> Self {
        // Draws on standard error, and only if that is a terminal.
        let bar = ProgressBar::new_spinner();
        if let Ok(style) =
            ProgressStyle::with_template(&format!("{{spinner}} {done} {{pos}} {things}{{msg}} {{elapsed}}"))
        {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(bar)
    }

    pub(super) fn at(&self, count: u64) {
        self.0.set_position(count);
    }

    /// Says what is still to be done; nothing, if it is empty.
    pub(super) fn left(&self, what: String) {
        let what = if what.is_empty() { what } else { format!(", {what}") };
        self.0.set_message(what);
    }

    pub(super) fn add(&self, count: u64) {
        self.0.inc(count);
    }

    pub(super) fn end(self) {
        self.0.finish_and_clear();
    }
}
