//! Looks at a store and compares it with the model, and goes on with it.

use super::history::{Change, FILES};
use super::model::State;
use super::world::{OPTIONS, World, file_name};
use mojavefs::id::{Ino, SpecId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_faulty::Faulty;
use mojavefs_server::store::{Remembered, Report, StoreError, fsck};
use std::sync::Arc;

/// Whether it says that content is lost.
fn is_loss(text: &str) -> bool {
    text.contains("the content file ") && (text.contains(" is missing") || text.contains(" ends at byte "))
}

impl World {
    /// What is read of a file; nothing at all if its content is said to be lost.
    fn found(&self, who: Option<usize>, file: usize) -> Result<Option<State>, String> {
        let scope = self.scope(who);
        let failed = |fault: Fault| format!("file {file} as {who:?} sees it: {fault}");
        match self.ops().lookup(&scope, Ino::ROOT, &file_name(file)) {
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(Some(None)),
            Err(fault) => Err(failed(fault)),
            Ok(found) => match self.ops().read(&scope, found.ino, 0, found.size as u32) {
                Ok(bytes) => Ok(Some(Some(Arc::new(bytes)))),
                Err(fault) if is_loss(&fault.to_string()) => Ok(None),
                Err(fault) => Err(failed(fault)),
            },
        }
    }

    /// Compares all that is seen with the model.
    pub(crate) fn compare(&mut self, after_crash: bool) -> Result<(), String> {
        let model = self.model().clone();
        for (who, file) in model.tracks() {
            model.check(who, file, self.found(who, file)?.as_ref(), after_crash)?;
        }
        let committed = |spec: &&SpecId| self.store().remembers(**spec) == Remembered::Committed;
        if let Some(spec) = model.committed.iter().find(|spec| !committed(spec)) {
            return Err(format!("speculation {spec} was committed, and is not remembered"));
        }
        if let Some(spec) = model.undone.iter().find(committed) {
            return Err(format!("speculation {spec} was undone, and is remembered as committed"));
        }
        Ok(())
    }

    /// What is found now is what is there.
    fn know_all(&mut self) -> Result<(), String> {
        for (who, file) in self.models[0].tracks() {
            let found = self.found(who, file)?;
            self.model().know(who, file, found);
        }
        Ok(())
    }

    /// Whether the store says that it has stopped.
    pub(crate) fn has_stopped(&self) -> bool {
        matches!(self.store().has_unused(), Err(StoreError::Stopped(_)))
    }

    /// Nothing may be wrong with a closed store, but that content may be lost which nobody has said to be durable.
    fn check(&self, what: &str, after_crash: bool) -> Result<Report, String> {
        let report = fsck(&self.place, OPTIONS, &mut |_| {}).map_err(|error| format!("fsck {what}: {error}"))?;
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        let may_be_lost = |problem: &String| {
            let mut files = (0..FILES).filter(|file| self.models[0].may_be_lost(*file));
            let belongs =
                |file: usize| problem.ends_with(&format!("it belongs to `/{}`", file_name(file).escape_ascii()));
            // One that was removed belongs to no name.
            let is_unnamed = problem.contains("it belongs to inode ");
            after_crash && is_loss(problem) && (is_unnamed || files.any(belongs))
        };
        if problems.iter().all(may_be_lost) { Ok(report) } else { Err(format!("fsck {what}: {problems:#?}")) }
    }

    /// Whether what is found on `place` may be there, and can be gone on with.
    pub(crate) fn examine(self, place: &Faulty, after_crash: bool) -> Result<(), String> {
        if !self.has_opened && matches!(fsck(place, OPTIONS, &mut |_| {}), Err(StoreError::NoStore(_))) {
            let mut world = World::new(place.clone());
            world.take_up()?;
            return world.go_on(&Report::default());
        }
        let mut reasons = Vec::new();
        for model in self.models {
            let mut world = World::new(place.clone());
            world.models = vec![model];
            let found = world.check("as it was found", after_crash);
            let compare = |report| {
                world.take_up()?;
                world.compare(after_crash).map(|()| report)
            };
            match found.and_then(compare) {
                Ok(report) => {
                    world.know_all()?;
                    place.grow(1 << 30);
                    return world.go_on(&report);
                }
                Err(why) => reasons.push(why),
            }
            world.close();
        }
        Err(reasons.join("\nor "))
    }

    /// Decides what is held, changes something, and looks whether all of that holds. `found`: what `fsck` had to say.
    fn go_on(mut self, found: &Report) -> Result<(), String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what}, going on: {error}");
        for job in self.model().jobs.keys().copied().collect::<Vec<_>>() {
            let decided = if job % 2 == 0 { self.commit(&[job]) } else { self.abort(job) };
            if decided.is_err() || self.running.contains_key(&job) {
                return Err(format!("job {job} can't be decided, going on"));
            }
        }
        for file in 0..FILES {
            // What is lost can be removed, also where nobody reads it: behind the end of a file.
            let name = format!("it belongs to `/{}`", file_name(file).escape_ascii());
            let is_lost = found.problems.iter().any(|problem| problem.to_string().ends_with(&name));
            if is_lost || self.found(None, file)?.is_none() {
                self.change(None, file, &Change::Remove).map_err(|fault| failed("a removal", &fault))?;
                self.model().change(None, file, &Change::Remove);
            }
        }
        let how = Change::Write { at: 10, len: 100_000, seed: 60 };
        self.change(None, 3, &how).map_err(|fault| failed("a write", &fault))?;
        self.model().change(None, 3, &how);
        self.store().sync().map_err(|error| failed("a sync", &error))?;
        self.model().all_synced();
        self.reclaim().map_err(|error| failed("the background", &error))?;
        self.compare(false)?;
        self.close();
        let report = self.check("in the end", false)?;
        let garbage = (report.unreachable, report.unreachable_files);
        if garbage != (0, 0) {
            return Err(format!("no view can reach {garbage:?} versions and files: {:?}", report.unreachable_named));
        }
        self.take_up()?;
        self.compare(false)?;
        self.close();
        Ok(())
    }
}
