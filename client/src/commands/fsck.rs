//! `mojavefs fsck`

use super::place::{self, Found};
use super::progress::Progress;
use super::{Embedded, count};
use crate::limits::MEMORY_BYTES;
use crate::output::out;
use clap::Args;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "Exit status: 0 the store is sound, 1 it could not be checked, 4 something is wrong with it.")]
pub(super) struct Fsck {
    /// The store's directory
    store: PathBuf,
}

const EXIT_PROBLEMS: u8 = 4;

impl Fsck {
    pub(super) fn run(&self, embedded: &dyn Embedded) -> Result<ExitCode, Fault> {
        let missing = |what: &str| {
            let text = format!("{} {what}: there is no store to check", self.store.display());
            Err(Fault::new(FaultKind::NotFound, text))
        };
        match place::look(&self.store)? {
            Found::Nothing => return missing("does not exist"),
            Found::Empty => return missing("is an empty directory"),
            Found::Something => {}
        }
        let progress = Progress::new("checked", "records");
        let checked = embedded.fsck(&self.store, MEMORY_BYTES, &mut |seen| progress.at(seen));
        progress.end();
        let checked = checked?;
        let counts: Vec<String> = checked.counts.iter().map(|(thing, number)| format!("{number} {thing}")).collect();
        out!("{}: {}", self.store.display(), counts.join(", "));
        if checked.problems.is_empty() {
            checked.notes.iter().for_each(|note| out!("note: {note}"));
            out!("the store is sound");
            return Ok(ExitCode::SUCCESS);
        }
        checked.problems.iter().for_each(|problem| out!("problem: {problem}"));
        out!("{} found", count(checked.problems.len() as u64, "problem"));
        Ok(ExitCode::from(EXIT_PROBLEMS))
    }
}
