//! What may be there in the end: each name is as it was, as it was committed, or what somebody else has made of it; what is none of these
//! in its place was put aside. Nothing that anybody else has made is lost, and nothing is mixed.

use super::model::{Change, Id, Tree, is_within};
use std::collections::BTreeSet;

/// A change by somebody outside of the job after the host was compared with what the job had found.
#[derive(Clone, Debug)]
pub struct Late {
    /// The change.
    pub change: Change,
    /// What is in the directory just before it and after it, under its names.
    pub seen: [BTreeSet<String>; 2],
    /// The same with what an apply has under names of its own.
    pub all: [BTreeSet<String>; 2],
    /// What is in the files that it is about, after it.
    pub about: BTreeSet<String>,
}

/// What has happened.
#[derive(Clone, Debug)]
pub struct History {
    /// The directory without the job, as it was compared.
    pub host: Tree,
    /// The same with the job.
    pub wanted: Tree,
    /// What others have changed afterwards.
    pub late: Vec<Late>,
}

/// Whose changes must be somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The job's, and others'.
    Both,
    /// The job's.
    Jobs,
    /// Others'.
    Hosts,
}

/// What is there in the end.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// In the directory.
    pub tree: Tree,
    /// What is put aside.
    pub displaced: Tree,
}

/// The difference of two trees, if there is one.
pub fn difference(found: &Tree, wanted: &Tree) -> Result<(), String> {
    let paths: BTreeSet<&String> = found.names.keys().chain(wanted.names.keys()).collect();
    let others = paths.into_iter().filter(|path| found.shown(path) != wanted.shown(path));
    let lines: Vec<String> =
        others.map(|path| format!("{path} is {:?}, not {:?}", found.shown(path), wanted.shown(path))).collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n  ")) }
}

impl History {
    /// The job is undone: what others have changed is there, and nothing else is.
    pub fn judge_undone(&self, found: &Found) -> Result<(), String> {
        let mut host = self.host.clone();
        for late in &self.late {
            host.change(&late.change);
        }
        difference(&found.tree, &host)?;
        match found.displaced.names.is_empty() {
            true => Ok(()),
            false => Err(format!("{:?} were put aside", found.displaced)),
        }
    }

    /// The job is committed, and is on the host.
    pub fn judge_committed(&self, found: &Found) -> Result<(), String> {
        let history = self.without_strangers();
        if history.late.is_empty() {
            difference(&found.tree, &history.wanted)?;
            return match found.displaced.names.is_empty() {
                true => Ok(()),
                false => Err(format!("{:?} were put aside, though nobody was in the way", found.displaced)),
            };
        }
        history.nothing_is_mixed(found)?;
        history.nothing_is_lost(found, Whose::Both)?;
        history.names_are_as_they_may_be(found)
    }

    /// The job is committed by somebody who has said whose stands where both have changed something.
    pub fn judge_resolved(&self, found: &Found, whose: Whose) -> Result<(), String> {
        self.nothing_is_mixed(found)?;
        self.nothing_is_lost(found, whose)
    }

    fn nothing_is_mixed(&self, found: &Found) -> Result<(), String> {
        let mut known: BTreeSet<String> = &self.host.contents() | &self.wanted.contents();
        known.extend(self.late.iter().flat_map(|late| &late.seen[1]).cloned());
        for tree in [&found.tree, &found.displaced] {
            for path in tree.names.keys() {
                let content = tree.content(path);
                if content.as_ref().is_some_and(|content| !known.contains(content)) {
                    return Err(format!("{path} has {content:?}, which nobody has written"));
                }
            }
        }
        Ok(())
    }

    /// What is in files, and was not removed by somebody outside, is somewhere.
    fn nothing_is_lost(&self, found: &Found, whose: Whose) -> Result<(), String> {
        let is_new: BTreeSet<String> = &self.wanted.contents() - &self.host.contents();
        let mut needed = match whose {
            Whose::Hosts => &self.wanted.contents() & &self.host.contents(),
            Whose::Both | Whose::Jobs => self.wanted.contents(),
        };
        for Late { seen, all, about, .. } in &self.late {
            if whose != Whose::Jobs {
                needed.extend(&seen[1] - &seen[0]);
                needed.extend(about.iter().cloned());
            }
            // What is made of the job's and has no name yet is nobody else's to remove.
            let is_gone = |content: &String| match is_new.contains(content) {
                true => seen[0].contains(content) && !seen[1].contains(content),
                false => all[0].contains(content) && !all[1].contains(content),
            };
            needed.retain(|content| !is_gone(content));
        }
        let there = &found.tree.contents() | &found.displaced.contents();
        match needed.iter().find(|content| !there.contains(*content)) {
            None => Ok(()),
            Some(lost) => Err(format!("{lost:?} is lost: neither in the directory nor put aside")),
        }
    }

    /// Files that others have to do with afterwards, by their names before or after the job.
    fn touched(&self) -> BTreeSet<Id> {
        let is_touched =
            |path: &String| self.late.iter().flat_map(|late| late.change.paths()).any(|late| is_within(path, late));
        let trees = [&self.host, &self.wanted];
        let named = trees.into_iter().flat_map(|tree| &tree.names);
        let mut touched: BTreeSet<Id> = named.filter(|(path, _)| is_touched(path)).map(|(_, id)| *id).collect();
        // What lies in a directory goes where that goes.
        for tree in trees {
            for (path, id) in &tree.names {
                let lies_in = |outer: &String| path != outer && is_within(path, outer);
                if touched.iter().any(|outer| tree.names_of(*outer).any(lies_in)) {
                    touched.insert(*id);
                }
            }
        }
        touched
    }

    /// Changes that have nothing to do with the job, nor with others that have, are as if they had been there before it.
    fn without_strangers(&self) -> History {
        let mut left = History { late: Vec::new(), ..self.clone() };
        let both: BTreeSet<&String> = self.host.names.keys().chain(self.wanted.names.keys()).collect();
        let is_other = |path: &&String| {
            self.host.shown(path) != self.wanted.shown(path)
                || self.host.names.get(*path) != self.wanted.names.get(*path)
        };
        let mut about: Vec<String> = both.into_iter().filter(is_other).cloned().collect();
        for late in &self.late {
            let meets = |path: &str| about.iter().any(|other| is_within(path, other) || is_within(other, path));
            let is_stranger = !late.change.paths().any(meets);
            if is_stranger && left.host.change(&late.change) && left.wanted.change(&late.change) {
                continue;
            }
            about.extend(late.change.paths().map(str::to_owned));
            left.late.push(late.clone());
        }
        left
    }

    /// A path, and the same without the job.
    fn paths(&self, path: &str) -> Vec<String> {
        let mut paths = vec![path.to_owned()];
        for (outer, id) in self.wanted.names.iter().filter(|(outer, _)| is_within(path, outer)) {
            paths.extend(self.host.names_of(*id).map(|before| format!("{before}{}", &path[outer.len()..])));
        }
        paths
    }

    fn names_are_as_they_may_be(&self, found: &Found) -> Result<(), String> {
        let touched = self.touched();
        // What lies in something that the job has moved has had another path before.
        let is_late = |path: &str| {
            let late = || self.late.iter().flat_map(|late| late.change.paths());
            self.paths(path).iter().any(|path| late().any(|late| is_within(path, late)))
        };
        let is_taken =
            |path: &str| self.paths(path).iter().any(|path| self.late.iter().any(|late| late.change.takes_away(path)));
        let is_gone = |path: &str| {
            let content = self.wanted.content(path);
            let is_of =
                |late: &Late| content.as_ref().is_some_and(|is| late.all[0].contains(is) && !late.all[1].contains(is));
            self.late.iter().any(is_of)
        };
        for (path, id) in &self.wanted.names {
            let (is, wanted) = (found.tree.shown(path), self.wanted.shown(path));
            if !touched.contains(id) && is != wanted {
                return Err(format!("{path} is {is:?}, not {wanted:?}, and nobody has touched it"));
            }
            if is.is_none() && !is_taken(path) && !is_gone(path) {
                return Err(format!("{path} is missing, and nobody has removed it"));
            }
        }
        for path in found.tree.names.keys().filter(|path| !self.wanted.names.contains_key(*path)) {
            if !is_late(path) {
                return Err(format!("{path} is there: {:?}", found.tree.shown(path)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Kind;
    use super::*;

    fn change(kind: Kind, path: &str, with: &str) -> Change {
        Change { kind, path: path.to_owned(), with: with.to_owned() }
    }

    fn tree(changes: &[Change]) -> Tree {
        let mut tree = Tree::default();
        changes.iter().for_each(|change| assert!(tree.change(change), "{change}"));
        tree
    }

    /// A job has written `f`, and somebody else has after the comparison.
    fn both_write() -> History {
        let host = tree(&[change(Kind::Write, "f", "old"), change(Kind::Write, "g", "other")]);
        let mut wanted = host.clone();
        assert!(wanted.change(&change(Kind::Write, "f", "job")));
        let [before, after] =
            [["old\n", "other\n"], ["host\n", "other\n"]].map(|texts| texts.map(str::to_owned).into());
        let [seen, all] = [(); 2].map(|()| [&before, &after].map(BTreeSet::clone));
        let late =
            Late { change: change(Kind::Write, "f", "host"), seen, all, about: BTreeSet::from(["host\n".into()]) };
        History { host, wanted, late: vec![late] }
    }

    fn found(tree: &[(&str, &str)], displaced: &[(&str, &str)]) -> Found {
        let [tree, displaced] = [tree, displaced].map(|files| {
            let changes: Vec<Change> = files.iter().map(|(path, text)| change(Kind::Write, path, text)).collect();
            super::tests::tree(&changes)
        });
        Found { tree, displaced }
    }

    #[test]
    fn what_is_displaced_or_in_place_is_not_lost() {
        let history = both_write();
        let one = found(&[("f", "job"), ("g", "other")], &[("f", "host")]);
        let other = found(&[("f", "host"), ("g", "other")], &[("f", "job")]);
        assert_eq!([history.judge_committed(&one), history.judge_committed(&other)], [Ok(()), Ok(())]);
        assert_eq!(history.judge_undone(&found(&[("f", "host"), ("g", "other")], &[])), Ok(()));
    }

    #[test]
    fn what_must_not_be_is_noticed() {
        let history = both_write();
        for (what, tree, displaced) in [
            ("is lost", &[("f", "job"), ("g", "other")][..], &[][..]),
            ("is lost", &[("f", "host"), ("g", "other")], &[]),
            ("nobody has written", &[("f", "jobhost"), ("g", "other")], &[("f", "host")]),
            ("nobody has written", &[("f", "job"), ("g", "other")], &[("f", "hos")]),
            ("is missing", &[("g", "other")], &[("f", "host"), ("f.1", "job")]),
            ("is lost", &[("f", "job")], &[("f", "host")]),
            ("is there", &[("f", "job"), ("g", "other"), ("h", "host")], &[]),
        ] {
            let judged = history.judge_committed(&found(tree, displaced));
            assert!(judged.as_ref().is_err_and(|said| said.contains(what)), "{what}: {judged:?}");
        }
        let undone = history.judge_undone(&found(&[("f", "old"), ("g", "other")], &[]));
        assert!(undone.is_err());
    }

    #[test]
    fn nothing_is_put_aside_where_nobody_was_in_the_way() {
        let history = History { late: Vec::new(), ..both_write() };
        let clean = found(&[("f", "job"), ("g", "other")], &[]);
        assert_eq!(history.judge_committed(&clean), Ok(()));
        let displaced = found(&[("f", "job"), ("g", "other")], &[("f", "old")]);
        assert!(history.judge_committed(&displaced).is_err());
    }

    #[test]
    fn a_change_that_has_nothing_to_do_with_the_job_is_in_place() {
        let mut history = both_write();
        history.late[0].change = change(Kind::Chmod, "g", "600");
        assert!(history.judge_committed(&found(&[("f", "job"), ("g", "other")], &[])).is_err());
        let mut is = found(&[("f", "job"), ("g", "other")], &[]);
        assert!(is.tree.change(&change(Kind::Chmod, "g", "600")));
        assert_eq!(history.judge_committed(&is), Ok(()));
    }
}
