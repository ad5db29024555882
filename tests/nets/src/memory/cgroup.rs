//! A memory cgroup, of either version.

use mojavefs_harness::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::ops::AddAssign;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

/// What our groups are called, before the number of the process that made them.
const PREFIX: &str = "mojavefs-nets.";

/// How often the kernel had to reclaim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// How often somebody was at the limit, and had to reclaim in the midst of what it did.
    pub at_the_limit: u64,
    /// Pages of files that were taken from those that work, and read again by them.
    pub read_again: u64,
}

impl AddAssign for Reclaimed {
    fn add_assign(&mut self, other: Self) {
        self.at_the_limit += other.at_the_limit;
        self.read_again += other.read_again;
    }
}

/// Where groups can be made.
#[derive(Debug)]
pub(super) struct Found {
    parent: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Found {
    /// Below the group that this process is in; in version 2 below the next one above it that may give memory to others.
    pub(super) fn here() -> Result<Found, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("{path}: {e}"));
        Self::of(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
    }

    fn of(mounts: &str, groups: &str) -> Result<Found, String> {
        let group = |of: &str| {
            let found = groups.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                controllers.split(',').any(|controller| controller == of).then_some(path)
            });
            found.map(str::to_owned)
        };
        if let (Some(own), Some((root, point))) = (group("memory"), mounted(mounts, Version::One)) {
            return Ok(Found { parent: place(&point, &root, &own), version: Version::One });
        }
        let (own, (root, point)) =
            group("").zip(mounted(mounts, Version::Two)).ok_or("there is no memory cgroup on this host")?;
        let own = place(&point, &root, &own);
        let gives = |dir: &&Path| {
            let given = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
            given.split_whitespace().any(|controller| controller == "memory")
        };
        let parent = own.ancestors().take_while(|dir| dir.starts_with(&point)).find(gives);
        let parent = parent.ok_or_else(|| format!("no cgroup at or above {} gives memory to others", own.display()))?;
        Ok(Found { parent: parent.to_owned(), version: Version::Two })
    }
}

/// What of the hierarchy is mounted, and where.
fn mounted(mounts: &str, version: Version) -> Option<(String, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, point) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (name, options) = (kind.next()?, kind.nth(1)?);
        let is_it = match version {
            Version::One => name == "cgroup" && options.split(',').any(|option| option == "memory"),
            Version::Two => name == "cgroup2",
        };
        is_it.then(|| (root.to_owned(), PathBuf::from(point)))
    })
}

/// Where a group lies if `root` of the hierarchy is mounted at `point`.
fn place(point: &Path, root: &str, group: &str) -> PathBuf {
    let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
    point.join(below)
}

/// Who is in a part of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Those that work.
    Work,
    /// Those that take memory from them.
    Beside,
}

impl Part {
    const ALL: [Part; 2] = [Part::Work, Part::Beside];

    fn name(self) -> &'static str {
        match self {
            Part::Work => "work",
            Part::Beside => "beside",
        }
    }
}

/// A group with a limit, in two parts, so that what is taken from each is counted. What is in it is killed, and it is removed,
/// when this is dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    dir: PathBuf,
    version: Version,
}

impl Cgroup {
    /// A new one whose processes have so many bytes together.
    pub(super) fn new(found: &Found, limit: u64) -> Result<Cgroup, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        remove_stale(&found.parent);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let dir = found.parent.join(format!("{PREFIX}{}.{number}", std::process::id()));
        fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let cgroup = Cgroup { dir, version: found.version };
        let limits = match cgroup.version {
            Version::One => vec![("memory.limit_in_bytes", limit.to_string())],
            Version::Two => vec![("memory.max", limit.to_string()), ("cgroup.subtree_control", "+memory".to_owned())],
        };
        for (file, what) in limits {
            cgroup.write(file, &what).map_err(|e| format!("{}/{file}: {e}", cgroup.dir.display()))?;
        }
        for part in Part::ALL {
            let dir = cgroup.dir.join(part.name());
            fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        Ok(cgroup)
    }

    fn write(&self, file: &str, what: &str) -> std::io::Result<()> {
        fs::write(self.dir.join(file), what)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    /// A command that is in a part of the group from its first instruction on.
    pub(super) fn command(&self, part: Part, program: impl AsRef<OsStr>) -> Command {
        let processes = self.dir.join(part.name()).join("cgroup.procs");
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ >\"$0\" && exec \"$@\""]).arg(processes).arg(program);
        command
    }

    /// Has the kernel take from those that work what it can, up to so many bytes, now.
    pub(super) fn reclaim(&self, bytes: u64) {
        // Less is free than was asked for: that is no failure.
        let _ = match self.version {
            Version::One => self.write("work/memory.force_empty", "0"),
            Version::Two => self.write("work/memory.reclaim", &bytes.to_string()),
        };
    }

    pub(super) fn reclaimed(&self) -> Reclaimed {
        let value = |text: &str, name: &str| {
            let values = text.lines().filter_map(|line| line.split_once(' '));
            values.filter(|(of, _)| *of == name).find_map(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
        };
        let read_again = value(&self.read("work/memory.stat"), "workingset_refault_file");
        let at_the_limit = match self.version {
            Version::One => self.read("memory.failcnt").trim().parse().unwrap_or(0),
            Version::Two => value(&self.read("memory.events"), "max"),
        };
        Reclaimed { at_the_limit, read_again }
    }

    /// Kills what is in it; whether nothing is any more.
    fn is_empty(&self) -> bool {
        let inside = Part::ALL.map(|part| self.read(&format!("{}/cgroup.procs", part.name()))).concat();
        for pid in inside.lines().filter_map(|line| line.parse().ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        inside.is_empty()
    }

    fn remove(&self) -> bool {
        remove(&self.dir);
        !self.dir.exists()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let removed = || self.is_empty() && self.remove();
        // A second panic would end the test without a word about the first.
        let in_time = std::panic::catch_unwind(|| until("the memory cgroup is empty and removed", removed));
        assert!(in_time.is_ok() || std::thread::panicking(), "{} is left behind", self.dir.display());
    }
}

/// Removes a group as far as nobody is in it.
fn remove(dir: &Path) {
    Part::ALL
        .iter()
        .map(|part| dir.join(part.name()))
        .chain([dir.to_owned()])
        .for_each(|dir| drop(fs::remove_dir(dir)));
}

/// Removes those of test programs that were killed.
fn remove_stale(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
        if maker.is_some_and(|maker| !Path::new(&format!("/proc/{maker}")).exists()) {
            // One in which processes are left stays until they have ended.
            remove(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_where_they_are_mounted() {
        let mounts = "25 20 0:22 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            26 20 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Found::of(mounts, "4:memory:/a/b\n0::/\n").expect("a group of version 1");
        assert_eq!((found.version, found.parent), (Version::One, "/sys/fs/cgroup/memory/a/b".into()));
        let in_container = "25 20 0:22 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = Found::of(in_container, "4:memory:/a/b\n").expect("a group of version 1");
        assert_eq!(found.parent, Path::new("/sys/fs/cgroup/memory/b"));
        assert!(Found::of("", "0::/\n").is_err());
    }

    #[test]
    fn in_version_2_a_group_that_gives_memory_is_looked_for_upwards() {
        let root = tempfile::tempdir().expect("a directory");
        let own = root.path().join("user/session");
        fs::create_dir_all(&own).expect("groups");
        let mounts = format!("26 20 0:23 / {} rw - cgroup2 cgroup2 rw\n", root.path().display());
        assert!(Found::of(&mounts, "0::/user/session\n").is_err());
        fs::write(root.path().join("user/cgroup.subtree_control"), "cpu memory\n").expect("write");
        let found = Found::of(&mounts, "0::/user/session\n").expect("a group of version 2");
        assert_eq!((found.version, found.parent), (Version::Two, root.path().join("user")));
    }
}
