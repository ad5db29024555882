//! What may be found in a store, said as plainly as can be: for each view and name the states in which the file may be.

use super::history::{Change, FILES, pattern};
use mojavefs::id::SpecId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file's bytes; nothing if there is no such file.
pub(crate) type State = Option<Arc<Vec<u8>>>;

/// What is known of one name in one view.
#[derive(Clone, Debug)]
pub(crate) struct Track {
    /// It is one of these.
    states: Vec<State>,
    /// Something failed: it may be a mixture of these and of `states`.
    torn: Vec<State>,
    /// After a crash it may be a mixture of these, too: nobody has said that they are durable.
    unsynced: Vec<State>,
    /// Where something was not synced, what lay there before the last sync may show again, too.
    before: Vec<State>,
    /// A crash may have made of it what can't be read.
    is_lost: bool,
    /// A sync of it failed, which was said. Once the store was opened anew, no sync knows of that any more.
    is_told: bool,
    is_forgotten: bool,
}

impl Track {
    fn absent() -> Self {
        Track {
            states: vec![None],
            torn: Vec::new(),
            unsynced: Vec::new(),
            before: Vec::new(),
            is_lost: false,
            is_told: false,
            is_forgotten: false,
        }
    }

    fn of(&self, state: impl Fn(&State) -> State) -> Self {
        let mut states: Vec<State> = self.states.iter().map(state).collect();
        states.sort();
        states.dedup();
        Track { states, ..self.clone() }
    }

    /// What it is after a change that may have happened, partly or not.
    fn or(&self, after: &Track) -> Self {
        let mut both = self.clone();
        both.states.extend(after.states.iter().cloned());
        both.states.sort();
        both.states.dedup();
        both.torn.extend(both.states.iter().cloned());
        both.unsynced.extend(after.unsynced.iter().cloned());
        both.before.extend(after.before.iter().cloned());
        both
    }

    /// Whether this may be found; `after_crash`: what was not synced may be lost, and with it under which of the names in
    /// `all` it was written.
    fn allows(&self, found: &State, after_crash: bool, all: &[Track]) -> bool {
        if self.states.contains(found) {
            return true;
        }
        let is_unsynced = after_crash && !self.unsynced.is_empty();
        if self.torn.is_empty() && !is_unsynced {
            return false;
        }
        let lost = all.iter().flat_map(|track| track.states.iter().chain(&track.unsynced).chain(&track.before));
        let lost = lost.filter(|_| is_unsynced);
        let all: Vec<&State> = self.states.iter().chain(&self.torn).chain(lost).collect();
        let Some(found) = found else { return all.iter().any(|state| state.is_none()) };
        let bytes = || all.iter().filter_map(|state| state.as_deref());
        let len_fits = found.is_empty() || bytes().any(|state| state.len() == found.len());
        let fits = |at: usize| found[at] == 0 || bytes().any(|state| state.get(at) == Some(&found[at]));
        len_fits && (0..found.len()).all(fits)
    }

    fn shown(&self) -> String {
        let shown = |states: &[State]| states.iter().map(show).collect::<Vec<_>>().join(" or ");
        format!("{}; torn: {}; unsynced: {}", shown(&self.states), shown(&self.torn), shown(&self.unsynced))
    }
}

/// A file in few words.
fn show(state: &State) -> String {
    let Some(bytes) = state else { return "nothing".into() };
    let mut runs: Vec<(u8, usize)> = Vec::new();
    for byte in bytes.iter().map(|byte| if *byte == 0 { 0 } else { 1 }) {
        match runs.last_mut() {
            Some((same, count)) if *same == byte => *count += 1,
            _ => runs.push((byte, 1)),
        }
    }
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    let runs: Vec<String> =
        runs.iter().take(6).map(|(data, count)| format!("{}{count}", ["-", "+"][*data as usize])).collect();
    format!("{} bytes ({}, sum {sum:08x})", bytes.len(), runs.join(" "))
}

/// Whether a job is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    No,
    Yes,
    /// An error left that open.
    Perhaps,
}

#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) spec: SpecId,
    pub(crate) kept: Kept,
    /// The names that it has touched.
    pub(crate) files: BTreeMap<usize, Track>,
}

/// All of a store.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    trunk: Vec<Track>,
    pub(crate) jobs: BTreeMap<usize, Job>,
    pub(crate) committed: Vec<SpecId>,
    pub(crate) undone: Vec<SpecId>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Model { trunk: vec![Track::absent(); FILES], jobs: BTreeMap::new(), committed: vec![], undone: vec![] }
    }

    /// What is known: for trunk of every name, for jobs of those that they have touched.
    pub(crate) fn tracks(&self) -> Vec<(Option<usize>, usize)> {
        let jobs = self.jobs.iter().flat_map(|(job, known)| known.files.keys().map(|file| (Some(*job), *file)));
        (0..FILES).map(|file| (None, file)).chain(jobs).collect()
    }

    pub(crate) fn track(&self, who: Option<usize>, file: usize) -> &Track {
        let own = who.and_then(|job| self.jobs[&job].files.get(&file));
        own.unwrap_or(&self.trunk[file])
    }

    fn set(&mut self, who: Option<usize>, file: usize, track: Track) {
        match who {
            Some(job) => drop(self.jobs.get_mut(&job).expect("it is undecided").files.insert(file, track)),
            None => self.trunk[file] = track,
        }
    }

    /// A change that has happened.
    pub(crate) fn change(&mut self, who: Option<usize>, file: usize, how: &Change) {
        let before = self.track(who, file).clone();
        let makes = matches!(how, Change::Write { .. } | Change::Resize(_) | Change::Allocate { .. });
        if before.states == [None] && !makes {
            // There is nothing to change.
            return;
        }
        let mut after = before.of(|state| changed(state, how));
        if who.is_none() {
            after.unsynced.extend(before.states.iter().cloned());
        }
        if let Change::Rename(to) = how {
            if *to == file {
                return;
            }
            let mut there = before.clone();
            if who.is_none() {
                there.unsynced.extend(before.states.iter().cloned());
                let target = self.track(None, *to);
                there.unsynced.extend(target.states.iter().chain(&target.unsynced).cloned());
                there.before.extend(target.before.iter().cloned());
                there.is_told |= target.is_told;
            }
            if before.states.contains(&None) {
                // It may not have been there to be renamed.
                there = there.or(self.track(who, *to));
            }
            self.set(who, *to, there);
        }
        self.set(who, file, after);
    }

    /// One that failed: it may have happened or not, or partly.
    pub(crate) fn change_perhaps(&mut self, who: Option<usize>, file: usize, how: &Change) {
        let mut after = self.clone();
        after.change(who, file, how);
        let mut concerned = vec![file];
        if let Change::Rename(to) = how {
            concerned.push(*to);
        }
        for file in concerned {
            let track = self.track(who, file).or(after.track(who, file));
            self.set(who, file, track);
        }
    }

    /// Whether a crash may take the content of a file on trunk, or of one that a job has built on it.
    pub(crate) fn may_be_lost(&self, file: usize) -> bool {
        let jobs = self.jobs.values().filter_map(|job| job.files.get(&file));
        jobs.chain([&self.trunk[file]]).any(|track| track.is_lost || !track.unsynced.is_empty())
    }

    pub(crate) fn synced(&mut self, file: usize) {
        let track = &mut self.trunk[file];
        if !track.is_forgotten {
            track.before.append(&mut track.unsynced);
            track.is_told = false;
        }
    }

    /// Whoever has asked for a sync is told that it failed.
    pub(crate) fn sync_failed(&mut self) {
        self.trunk.iter_mut().for_each(|track| track.is_told |= !track.unsynced.is_empty());
    }

    pub(crate) fn all_synced(&mut self) {
        (0..FILES).for_each(|file| self.synced(file));
    }

    pub(crate) fn commit(&mut self, jobs: &[usize]) {
        for job in jobs {
            let job = self.jobs.remove(job).expect("it is undecided");
            // Where nothing was changed nothing is lost, and nothing is synced.
            self.committed.extend(Some(job.spec).filter(|_| !job.files.is_empty()));
            for (file, mut track) in job.files {
                let old = &self.trunk[file];
                track.before.extend(old.states.iter().chain(&old.unsynced).chain(&old.before).cloned());
                self.trunk[file] = track;
            }
        }
    }

    pub(crate) fn abort(&mut self, job: usize) {
        let job = self.jobs.remove(&job).expect("it is undecided");
        self.undone.push(job.spec);
    }

    /// What is held stays; `is_held` says so of what may be.
    pub(crate) fn restart(&mut self, is_held: impl Fn(SpecId) -> bool) {
        let tracks = self.jobs.values_mut().flat_map(|job| job.files.values_mut());
        tracks.chain(&mut self.trunk).for_each(|track| track.is_forgotten |= track.is_told);
        for (job, known) in self.jobs.clone() {
            let stays = known.kept == Kept::Yes || known.kept == Kept::Perhaps && is_held(known.spec);
            if stays {
                self.jobs.insert(job, Job { kept: Kept::Yes, ..known });
            } else {
                self.abort(job);
            }
        }
    }

    /// It was looked at: what was found is what is there. Nothing at all: its content is lost.
    pub(crate) fn know(&mut self, who: Option<usize>, file: usize, found: Option<State>) {
        let is_lost = found.is_none();
        let track = Track { states: vec![found.flatten()], is_lost, ..Track::absent() };
        self.set(who, file, track);
    }

    /// An error unless this may be found.
    pub(crate) fn check(
        &self,
        who: Option<usize>,
        file: usize,
        found: Option<&State>,
        after_crash: bool,
    ) -> Result<(), String> {
        let track = self.track(who, file);
        let Some(found) = found else {
            let may_be = track.is_lost || after_crash && !track.unsynced.is_empty();
            return if may_be { Ok(()) } else { Err(format!("file {file} as {who:?} sees it is lost")) };
        };
        if track.allows(found, after_crash, &self.trunk) {
            return Ok(());
        }
        Err(format!("file {file} as {who:?} sees it is {}, and should be {}", show(found), track.shown()))
    }
}

fn changed(state: &State, how: &Change) -> State {
    let mut bytes = state.as_deref().cloned();
    match how {
        Change::Write { at, len, seed } => {
            let bytes = bytes.get_or_insert_default();
            let end = (at + len) as usize;
            bytes.resize(bytes.len().max(end), 0);
            bytes[*at as usize..end].copy_from_slice(&pattern(*at, *len, *seed));
        }
        Change::Resize(size) => bytes.get_or_insert_default().resize(*size as usize, 0),
        Change::Punch { at, len } => {
            if let Some(bytes) = &mut bytes {
                let end = ((at + len) as usize).min(bytes.len());
                bytes[(*at as usize).min(end)..end].fill(0);
            }
        }
        Change::Allocate { at, len, keep_size } => {
            let bytes = bytes.get_or_insert_default();
            let end = if *keep_size { 0 } else { (at + len) as usize };
            bytes.resize(bytes.len().max(end), 0);
        }
        Change::Remove | Change::Rename(_) => return None,
    }
    bytes.map(Arc::new)
}
