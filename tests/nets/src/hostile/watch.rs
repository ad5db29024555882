//! The daemon while it decides and applies: at which of its calls what happens.

use super::judge::Late;
use super::model::{Change, is_within};
use super::{When, real};
use mojavefs_harness::traced::{Call, Edge, Then, Traced};
use nix::unistd::Pid;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Where the daemon's files are, and those of the jobs.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The directory that jobs are over.
    pub(super) project: PathBuf,
    /// The daemon's.
    pub(super) state: PathBuf,
}

/// What is to be done to the daemon.
pub(super) type Blow = Box<dyn FnMut() + Send>;

/// What was seen of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The decision is on disk.
    pub(super) is_recorded: bool,
    /// Its calls from then on, as far as they are about the host.
    pub(super) calls: Vec<String>,
    /// Changes that were made meanwhile.
    pub(super) late: Vec<Late>,
    /// The daemon was struck.
    pub(super) is_struck: bool,
}

/// What a thread has done to the log of the records last, since it has made something durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    Synced,
    Written,
    Recorded,
}

struct Watch {
    site: Site,
    threads: HashMap<Pid, Log>,
    changes: Vec<(When, Change)>,
    blow: Option<(When, Blow)>,
    seen: Arc<Mutex<Seen>>,
}

impl Site {
    /// Watches the daemon, makes these changes at their moments, and strikes it at one.
    pub(super) fn watch(
        &self,
        daemon: Pid,
        changes: Vec<(When, Change)>,
        blow: Option<(When, Blow)>,
    ) -> nix::Result<(Traced, Arc<Mutex<Seen>>)> {
        let seen = Arc::<Mutex<Seen>>::default();
        let below = self.project.parent().expect("it lies somewhere").to_owned();
        let mut watch = Watch { site: self.clone(), threads: HashMap::new(), changes, blow, seen: seen.clone() };
        Ok((Traced::seize(daemon, &below, move |call| watch.at(call))?, seen))
    }

    /// Makes a change. Nothing if it can't be made.
    pub(super) fn change(&self, change: &Change) -> Option<Late> {
        let contents = |with_own| real::read(&self.project, with_own).contents();
        let before = [contents(false), contents(true)];
        if !real::change(&self.project, &change.script()) {
            return None;
        }
        let after = real::read(&self.project, false);
        let is_about = |path: &str| change.paths().any(|about| is_within(path, about));
        let about: BTreeSet<String> =
            after.names.keys().filter(|path| is_about(path)).filter_map(|path| after.content(path)).collect();
        let [seen, all] = before;
        let (seen, all) = ([seen, after.contents()], [all, contents(true)]);
        Some(Late { change: change.clone(), seen, all, about })
    }
}

impl Watch {
    fn at(&mut self, call: &Call) -> Then {
        let Some(when) = self.when(call) else { return Then::Goes };
        let due: Vec<Change> =
            self.changes.iter().filter(|(of, _)| *of == when).map(|(_, change)| change.clone()).collect();
        for change in due {
            // A file with several names is written where it is, and what is written to it in that moment is documented to be lost.
            let is_step = matches!(when, When::Before(_) | When::After(_));
            if is_step && change.writes_to_several_names(&self.site.project) {
                continue;
            }
            let late = self.site.change(&change);
            self.seen.lock().expect("nobody has panicked").late.extend(late);
        }
        match &mut self.blow {
            Some((at, blow)) if *at == when => {
                blow();
                self.seen.lock().expect("nobody has panicked").is_struck = true;
                Then::IsKilled
            }
            _ => Then::Goes,
        }
    }

    /// Which moment this is.
    fn when(&mut self, call: &Call) -> Option<When> {
        let log = self.site.state.join("store/records");
        let is_of_log = |path: &PathBuf| path.parent() == Some(&log) && path.extension().is_some_and(|e| e == "log");
        let was = self.threads.get(&call.thread).copied();
        let mut seen = self.seen.lock().expect("nobody has panicked");
        if was == Some(Log::Recorded) {
            let is_of_apply = |path: &PathBuf| {
                path.starts_with(&self.site.project)
                    || path.starts_with(self.site.state.join("displaced"))
                    || *path == self.site.state.join("numbers")
                    || is_of_log(path)
            };
            if !call.paths.iter().any(is_of_apply) {
                return None;
            }
            if call.edge == Edge::Before {
                seen.calls.push(call.to_string());
                return Some(When::Before(seen.calls.len()));
            }
            return Some(When::After(seen.calls.len()));
        }
        if !call.paths.iter().any(is_of_log) {
            return None;
        }
        let (is, when) = match (call.edge, call.name, was) {
            (Edge::Before, "write", Some(Log::Synced)) => (Log::Written, Some(When::Prepare)),
            (Edge::After, "fdatasync", Some(Log::Written)) => (Log::Recorded, Some(When::Recorded)),
            (Edge::After, "fdatasync", _) => (Log::Synced, None),
            _ => return None,
        };
        seen.is_recorded |= is == Log::Recorded;
        self.threads.insert(call.thread, is);
        when
    }
}

impl Change {
    fn writes_to_several_names(&self, dir: &Path) -> bool {
        use super::model::Kind;
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(dir.join(&self.path));
        matches!(self.kind, Kind::Write | Kind::Append) && found.is_ok_and(|is| is.is_file() && is.nlink() > 1)
    }
}
