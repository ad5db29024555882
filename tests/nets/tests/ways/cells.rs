//! The cells of the table, and what each must show: from the rules in `docs/semantics.md`, and from what the host shows of the
//! same change.

use super::table::{Kind, LOOKS, Look, SUBJECTS, Subject};
use mojavefs_nets::worker::Worker;
use std::fmt;
use std::str::FromStr;
use tempfile::TempDir;

/// Declares an enum whose variants are words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$of:meta])* $variant:ident $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum $name { $($(#[$of])* $variant),* }

        impl $name {
            pub(super) const ALL: &[$name] = &[$($name::$variant),*];

            pub(super) fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }

            fn of(word: &str) -> Result<Self, String> {
                let found = Self::ALL.iter().find(|value| value.word() == word);
                found.copied().ok_or_else(|| format!("`{word}` is none of {:?}", [$($word),*]))
            }
        }
    };
}

words! {
    /// Who looks.
    Reader {
        Trunk "trunk",
        Join "join",
        FromStart "from-start",
        Wait "wait",
        Committed "committed",
        Fail "fail",
        Isolate "isolate",
    }
}

words! {
    /// What becomes of the change that is looked at.
    End {
        Commit "commit",
        Undo "undo",
        HeldCommit "held-commit",
        HeldAbort "held-abort",
        /// Who changes has read from one who commits.
        ChainCommit "chain-commit",
        /// Who changes has read from one who is undone.
        ChainUndo "chain-undo",
        /// It is undone, and so is the same change of another, who is looked at when the reader is back.
        TwiceUndo "twice-undo",
        /// The second time it is committed.
        TwiceCommit "twice-commit",
    }
}

words! {
    /// Where the reader is when that happens.
    Moment {
        /// It goes on, and looks once more when it is decided.
        Working "working",
        /// It has ended, and waits.
        Done "done",
    }
}

words! {
    /// What the reader's kernel knows.
    Cache {
        Cold "cold",
        /// It has looked before anything was changed.
        Warm "warm",
    }
}

/// One cell.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) subject: &'static Subject,
    pub(super) look: &'static Look,
    pub(super) reader: Reader,
    pub(super) end: End,
    pub(super) moment: Moment,
    pub(super) cache: Cache,
    seen: Seen,
}

/// What the host shows, at first and at the second look: without the change, after it, and to who began after it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    old: [String; 2],
    new: [String; 2],
    anew: [String; 2],
}

/// What a cell must show in the end: the answers of each look; nothing where there is no second one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) first: String,
    pub(super) second: Option<String>,
}

impl End {
    /// How often something is changed.
    pub(super) fn rounds(self) -> usize {
        if matches!(self, End::TwiceUndo | End::TwiceCommit) { 2 } else { 1 }
    }

    /// Whether the change of a round becomes final.
    pub(super) fn is_committed(self, round: usize) -> bool {
        match self {
            End::Commit | End::HeldCommit | End::ChainCommit => true,
            End::TwiceCommit => round == 1,
            _ => false,
        }
    }
}

impl Cell {
    fn new(
        (subject, look, seen): (&'static Subject, &'static Look, Seen),
        reader: Reader,
        end: End,
        moment: Moment,
        cache: Cache,
    ) -> Option<Cell> {
        let cell = Cell { subject, look, reader, end, moment, cache, seen };
        cell.is_one().then_some(cell)
    }

    /// Whether there is such a cell.
    fn is_one(&self) -> bool {
        let changes = !self.look.changes.is_empty();
        let follows = matches!(self.reader, Reader::Join | Reader::FromStart);
        match () {
            // It would be one that changes, and decides who is in conflict: other tests are about that.
            () if changes && self.reader == Reader::Trunk => false,
            () if changes && self.moment == Moment::Done && !follows && self.reader != Reader::Wait => false,
            // What was made at the first look is there at the second.
            () if self.end.rounds() == 2 => follows && self.joins() && !changes && self.moment == Moment::Working,
            // It can't have ended before what it waits for.
            () if self.reader == Reader::Wait => self.moment == Moment::Working,
            () if self.reader == Reader::Trunk => self.moment == Moment::Working,
            // What is mapped can't answer that it is undecided, other than by a signal.
            () if self.reader == Reader::Fail => !self.look.name.starts_with("map"),
            () => true,
        }
    }

    /// A directory's link count is nobody's work: it follows from the names that one sees.
    pub(super) fn joins(&self) -> bool {
        !(self.subject.name == "directory-in-it" && self.look.tells_links())
    }

    /// Whether the reader may be led to the read, and must be.
    pub(super) fn goes_back_to_the_read(&self) -> bool {
        self.reader == Reader::Join && self.look.kind == Kind::Path && self.joins()
    }

    /// What is seen while it is undecided; nothing where the reader waits.
    pub(super) fn undecided(&self) -> Option<&str> {
        match self.reader {
            Reader::Trunk | Reader::Committed | Reader::Isolate => Some(&self.seen.old[0]),
            _ if !self.joins() => Some(&self.seen.old[0]),
            Reader::Join | Reader::FromStart => Some(&self.seen.new[0]),
            Reader::Fail => Some("EBUSY"),
            Reader::Wait => None,
        }
    }

    /// What was seen by one whose work is final.
    pub(super) fn in_the_end(&self) -> Shown {
        let [old, old_again] = self.seen.old.each_ref().map(String::as_str);
        let [new, new_again] = self.seen.new.each_ref().map(String::as_str);
        let [anew, anew_again] = self.seen.anew.each_ref().map(String::as_str);
        let committed = self.end.is_committed(self.end.rounds() - 1);
        let follows = matches!(self.reader, Reader::Join | Reader::FromStart | Reader::Wait) && self.joins();
        let (first, second) = match self.reader {
            _ if self.end.rounds() == 2 => (old, if committed { new } else { old }),
            _ if follows && committed => (new, new_again),
            _ if follows => (old, old_again),
            // It is in conflict, and runs again.
            Reader::Isolate if committed && self.moment == Moment::Working && self.joins() => (anew, anew_again),
            Reader::Isolate => (old, old_again),
            Reader::Committed if committed && self.conflicts() => (anew, anew_again),
            Reader::Fail if committed => (self.undecided().unwrap_or(old), new),
            Reader::Fail => (self.undecided().unwrap_or(old), old),
            _ if committed => (old, new),
            _ => (old, old_again),
        };
        let second = (self.moment == Moment::Working).then(|| second.to_owned());
        Shown { first: first.to_owned(), second }
    }

    /// Whether the reader has changed what the other has.
    fn conflicts(&self) -> bool {
        let finds_it = self.look.name == "open-or-make" && !self.subject.prepare.is_empty();
        let succeeds = !self.seen.old[0].starts_with('E') && !finds_it;
        let by_its_name = |key: &&str| ["remove", "link"].contains(key) || key.starts_with("rename");
        // Then what the link leads to is changed, and the link is not.
        let through_a_link = self.subject.name == "link-turned" && Some(self.look.name).filter(by_its_name).is_none();
        succeeds && !through_a_link && self.look.changes.iter().any(|key| self.subject.concerns.contains(key))
    }
}

impl Look {
    /// Whether it is about the links of a directory. Where it is about anything else, too, its parts may see different states:
    /// looking at a directory's attributes does not join.
    fn tells_links(&self) -> bool {
        let names = ["stat", "lstat", "statx", "stat-at", "fstat", "fstat-path", "stat-by-a-child", "open-path"];
        names.contains(&self.name)
    }

    /// What its answers tell, in one line.
    pub(super) fn told<S: AsRef<str>>(&self, answers: &[S]) -> String {
        let all = answers.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" | ");
        if self.tells_links() { all } else { without_links_of_directories(&all) }
    }

    /// A copy made by the kernel from a descriptor that was open before the file was longer may stop at the old length
    /// (`docs/semantics.md`).
    fn may_stop_early(&self, subject: &Subject) -> bool {
        self.name == "copy-of-open" && matches!(subject.name, "replaced-content" | "appended")
    }
}

fn without_links_of_directories(text: &str) -> String {
    let is_directory = |word: &str| word.len() == 5 && word.starts_with('4');
    let words: Vec<&str> = text.split(' ').collect();
    let of_directory = |at: usize| at >= 2 && is_directory(words[at - 2]);
    let kept = words.iter().enumerate().filter(|(at, word)| !(word.starts_with("links=") && of_directory(*at)));
    kept.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cell { subject, look, reader, end, moment, cache, .. } = self;
        let words = [subject.name, look.name, reader.word(), end.word(), moment.word(), cache.word()];
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Cell {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [subject, look, reader, end, moment, cache] = words[..] else {
            return Err(format!("`{line}` is not: change, look, reader, end, moment, cache"));
        };
        let subject = SUBJECTS.iter().find(|s| s.name == subject).ok_or(format!("there is no change {subject}"))?;
        let look = LOOKS.iter().find(|l| l.name == look).ok_or(format!("there is no look {look}"))?;
        let seen = Host::new().seen(subject, look);
        let (moment, cache) = (Moment::of(moment)?, Cache::of(cache)?);
        let cell = Cell::new((subject, look, seen), Reader::of(reader)?, End::of(end)?, moment, cache);
        cell.ok_or_else(|| format!("there is no cell {line}"))
    }
}

/// Every cell.
pub(super) fn all() -> Vec<Cell> {
    let mut host = Host::new();
    let pairs = SUBJECTS.iter().flat_map(|subject| LOOKS.iter().map(move |look| (subject, look)));
    let pairs = pairs.map(|(subject, look)| (subject, look, host.seen(subject, look)));
    // A look that can't see the change tells nothing.
    let tells =
        |(subject, look, seen): &(&Subject, &Look, Seen)| seen.old[0] != seen.new[0] && !look.may_stop_early(subject);
    let pairs: Vec<_> = pairs.filter(tells).collect();
    let mut cells = Vec::new();
    for reader in Reader::ALL {
        for end in End::ALL {
            for moment in Moment::ALL {
                for cache in Cache::ALL {
                    let of = |pair: &_| Cell::new(Clone::clone(pair), *reader, *end, *moment, *cache);
                    cells.extend(pairs.iter().filter_map(of));
                }
            }
        }
    }
    cells
}

/// Looks on the host's own filesystem.
struct Host {
    dir: TempDir,
    changes: Worker,
    looks: Worker,
    number: usize,
}

/// What a way of looking may leave open; what it maps it maps as the first.
const LEFT_OPEN: [&str; 5] = ["close 1", "close 2", "close 4", "close 5", "unmap 1"];

impl Host {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory");
        let [changes, looks] = [dir.path(); 2].map(Worker::start);
        Host { dir, changes, looks, number: 0 }
    }

    fn seen(&mut self, subject: &Subject, look: &Look) -> Seen {
        let old = self.look(subject.prepare, &[], look);
        let new = self.look(subject.prepare, subject.change, look);
        let anew = self.look(&[subject.prepare, subject.change].concat(), &[], look);
        Seen { old, new, anew }
    }

    /// What is seen when `change` is made between what comes before a look and the look.
    fn look(&mut self, prepare: &[&str], change: &[&str], look: &Look) -> [String; 2] {
        self.number += 1;
        let here = format!("/{}", self.number);
        std::fs::create_dir(self.dir.path().join(&here[1..])).expect("a directory");
        let chdir = &["chdir {here}"][..];
        must(&mut self.changes, [chdir, prepare].concat(), &here);
        told(&mut self.looks, [chdir, look.before].concat(), &here);
        must(&mut self.changes, change.to_vec(), &here);
        let seen = [(); 2].map(|()| look.told(&told(&mut self.looks, look.look.to_vec(), &here)));
        told(&mut self.looks, LEFT_OPEN.to_vec(), &here);
        seen
    }
}

/// What a worker answers to lines in the directory of a cell.
pub(super) fn told(worker: &mut Worker, lines: Vec<&str>, here: &str) -> Vec<String> {
    lines.iter().for_each(|line| worker.say(&line.replace("{here}", here)));
    let answers = lines.iter().map(|line| worker.answer().ok_or_else(|| format!("no answer to `{line}`")));
    answers.collect::<Result<_, _>>().unwrap_or_else(|what| panic!("{what}: {:?}", worker.end()))
}

/// Tells a worker lines that succeed.
pub(super) fn must(worker: &mut Worker, lines: Vec<&str>, here: &str) {
    for (line, said) in lines.iter().zip(told(worker, lines.clone(), here)) {
        assert!(!said.starts_with('E'), "`{line}` in {here}: {said}");
    }
}
