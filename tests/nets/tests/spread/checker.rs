//! Decides whether what was seen can have been: from what each process wrote down, the exit statuses, and what is there in the
//! end.
//!
//! Files that are only appended to carry the order: what anybody whose work is final has seen of one is a beginning of what is in
//! it in the end.

use super::history::Did;
use super::program::FIRST;
use super::running::{Job, Seen};
use mojavefs_nets::known;
use mojavefs_nets::net::Failure;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Undone because of others.
const TRY_AGAIN: i32 = 75;
/// Not known whether it was committed.
const UNKNOWN: i32 = 76;

/// What all that was seen came to.
struct Verdict<'a> {
    seen: &'a Seen,
    /// The jobs whose work is final.
    committed: BTreeSet<u8>,
    /// Every line that they wrote.
    written: HashSet<&'a str>,
    last: BTreeMap<&'a str, &'a Did>,
}

/// Checks all of it.
pub(super) fn check(seen: &Seen) -> Result<(), Failure> {
    let last = seen.last.iter().map(|did| (did.what.as_str(), did)).collect();
    let mut verdict = Verdict { seen, committed: BTreeSet::new(), written: HashSet::from([FIRST]), last };
    verdict.decide()?;
    verdict.exit_statuses()?;
    verdict.owners()?;
    verdict.nothing_undone_was_seen()?;
    verdict.appended()?;
    verdict.replaced()?;
    verdict.names()
}

fn fail<T>(kind: &str, what: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::new(kind, what))
}

/// Whether it can be that somebody saw this much of a file to which lines were only added.
fn is_beginning(seen: &[&str], all: &[&str]) -> bool {
    all.starts_with(seen)
}

impl<'a> Verdict<'a> {
    /// Who is committed: who has left in the end what is done last.
    fn decide(&mut self) -> Result<(), Failure> {
        for (number, job) in &self.seen.jobs {
            let path = format!("lines out/{number}");
            let found = self.last.get(path.as_str()).and_then(|did| did.lines());
            let mine = job.did.iter().rev().find_map(|did| did.put().filter(|(file, _)| file.starts_with("out/")));
            match (found, mine) {
                (None, _) => {}
                (Some((_, lines)), Some((_, mine))) if lines == [mine] => {
                    self.committed.insert(*number);
                }
                (Some((_, lines)), mine) => {
                    let what = format!("job {number} left {lines:?} and says that it left {mine:?}: {job:#?}");
                    return fail("another's end", what);
                }
            }
        }
        let jobs = self.seen.jobs.iter().filter(|(number, _)| self.committed.contains(number));
        let did = jobs.flat_map(|(_, job)| &job.did);
        self.written.extend(did.filter_map(|did| did.added().or(did.put())).map(|(_, line)| line));
        Ok(())
    }

    fn final_jobs(&self) -> impl Iterator<Item = &'a Job> {
        let seen = self.seen;
        let committed = self.committed.clone();
        seen.jobs.values().filter(move |job| committed.contains(&job.number))
    }

    fn exit_statuses(&self) -> Result<(), Failure> {
        for job in self.seen.jobs.values() {
            let is_committed = self.committed.contains(&job.number);
            if let Some(outer) = job.outer {
                let happened = job.code == Some(0) && self.committed.contains(&outer);
                if is_committed != happened {
                    return fail("inner", format!("committed: {is_committed}, its job: {happened}: {job:#?}"));
                }
                continue;
            }
            let held = job.is("--hold") || job.is("--keep-going");
            let right = match (job.code, &job.decided) {
                (Some(_), _) if job.is_on_trunk() => is_committed,
                (Some(0), Some((how, 0))) if how == "abort" => !is_committed,
                // One that waits for others is committed with them, or not.
                (Some(0), Some(_)) => true,
                (Some(0), None) if held => !is_committed,
                (Some(0), None) if job.is("--no-wait") => true,
                (Some(0), None) => is_committed && job.own_code == 0,
                (Some(UNKNOWN), _) => true,
                (Some(TRY_AGAIN), _) => !is_committed && !self.seen.peaceful,
                // The other has been decided meanwhile.
                (Some(125), _) if job.owns.is_some() => !is_committed,
                (Some(code), _) => !is_committed && code == job.own_code,
                (None, _) => false,
            };
            if !right {
                return fail("exit status", format!("committed: {is_committed}: {job:#?}"));
            }
        }
        Ok(())
    }

    fn owners(&self) -> Result<(), Failure> {
        let owners = self.seen.jobs.values().filter_map(|job| Some((job, job.owns?)));
        for (job, owned) in owners.filter(|(job, _)| job.code != Some(125)) {
            let both = [job.number, owned].map(|number| self.committed.contains(&number));
            let owned_job = self.seen.jobs.get(&owned);
            // Numbers are given in order: one that began later is the same work run again, of which it never was an owner.
            let is_later =
                owned_job.and_then(Job::speculation).is_none_or(|id| job.speculation().is_some_and(|own| own < id));
            // An owner that is run again may be too late: it is none of the other any more.
            if both[1] && !both[0] && !is_later && job.code == Some(job.own_code) {
                return fail(
                    "owners",
                    format!("job {owned} is committed without an owner: {job:#?} of {owned_job:#?}"),
                );
            }
        }
        Ok(())
    }

    /// All that was looked at by those whose work is final, and on trunk.
    fn looks(&self) -> impl Iterator<Item = (String, &'a Did)> {
        let jobs = self.final_jobs().flat_map(|job| job.did.iter().map(|did| (format!("job {}", job.number), did)));
        let watched = self.seen.watched.iter().enumerate();
        let watched = watched.flat_map(|(at, dids)| dids.iter().map(move |did| (format!("trunk of mount {at}"), did)));
        jobs.chain(watched).chain(self.seen.last.iter().map(|did| ("trunk, in the end".to_owned(), did)))
    }

    fn nothing_undone_was_seen(&self) -> Result<(), Failure> {
        for (who, did) in self.looks() {
            let Some((file, lines)) = did.lines() else { continue };
            let is_known = |line: &str| self.is_half(&who, file, line, did);
            let line = lines.into_iter().find(|line| !self.written.contains(line) && !is_known(line));
            if let Some(line) = line {
                return fail(
                    "undone was seen",
                    format!("{who} saw `{line}`, which nobody wrote: {did:?}{}", self.tell()),
                );
            }
        }
        Ok(())
    }

    /// What is known to be seen of a line that is being written, or committed, at the time.
    fn is_half(&self, who: &str, file: &str, line: &str, look: &Did) -> bool {
        let dids = self.final_jobs().flat_map(|job| job.did.iter().map(move |did| (job, did)));
        let at_the_time = |job: &Job, did: &Did| did.start < look.end && look.start < job.ended.max(did.end);
        let halves = |(job, did): (&Job, &Did)| {
            let written = did.added().or(did.put());
            written.is_some_and(|(of, whole)| of == file && known::is_half(whole, line)) && at_the_time(job, did)
        };
        let cuts =
            |did: &Did| did.put().is_some_and(|(of, _)| of == file) && did.start < look.end && look.start < did.end;
        let is_cut = || self.seen.jobs.values().any(|job| job.did.iter().any(cuts));
        dids.into_iter().any(halves) || !who.starts_with("trunk") && known::is_zeros(line) && is_cut()
    }

    fn appended(&self) -> Result<(), Failure> {
        let logs = self.last.values().filter_map(|did| did.lines()).filter(|(file, _)| file.starts_with('l'));
        let logs: BTreeMap<&str, Vec<&str>> = logs.collect();
        for job in self.final_jobs() {
            for (file, line) in job.did.iter().filter_map(Did::added) {
                let times = logs.get(file).map_or(0, |lines| lines.iter().filter(|other| **other == line).count());
                if times != 1 {
                    let what = format!("job {} added `{line}` to {file}, where it is {times} times", job.number);
                    return fail("a line is lost", format!("{what}: {:?}{}", logs.get(file), self.tell()));
                }
            }
        }
        for (who, did) in self.looks() {
            let Some((file, lines)) = did.lines().filter(|(file, _)| logs.contains_key(file)) else { continue };
            let torn = lines.last().is_some_and(|line| self.is_half(&who, file, line, did));
            let lines = &lines[..lines.len() - usize::from(torn)];
            if !is_beginning(lines, &logs[file]) {
                let what = format!("{who} saw {lines:?} in {file}, which ends as {:?}", logs[file]);
                return fail("no order", format!("{what}{}", self.tell()));
            }
        }
        self.own_lines_are_seen()
    }

    /// Whoever looks sees what it has added itself, and never less than before.
    fn own_lines_are_seen(&self) -> Result<(), Failure> {
        for job in self.final_jobs() {
            let mut least: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
            for did in &job.did {
                if let Some((file, line)) = did.added() {
                    least.entry(file).or_default().1.push(line);
                }
                let Some((file, lines)) = did.lines().filter(|(file, _)| file.starts_with('l')) else { continue };
                let (length, own) = least.entry(file).or_default();
                if lines.len() < *length || own.iter().any(|line| !lines.contains(line)) {
                    return fail("less than before", format!("job {} saw {did:?} after {own:?}", job.number));
                }
                *length = lines.len();
            }
        }
        Ok(())
    }

    /// What is there in the end was not written before something else was begun.
    fn replaced(&self) -> Result<(), Failure> {
        let puts = || {
            self.final_jobs().flat_map(|job| {
                job.did.iter().filter_map(move |did| did.put().map(|(file, line)| (file, line, did, job)))
            })
        };
        let registers = self.last.values().filter_map(|did| did.lines()).filter(|(file, _)| file.starts_with('r'));
        for (file, lines) in registers {
            let of_file = || puts().filter(|(other, ..)| *other == file);
            let stands = match lines[..] {
                [line] => of_file().find(|(_, other, ..)| *other == line).map(|(.., did, job)| (did, job)),
                _ => return fail("not whole", format!("{file} is {lines:?} in the end{}", self.tell())),
            };
            let Some((did, job)) = stands else {
                match of_file().next() {
                    None => continue,
                    Some((_, line, ..)) => {
                        return fail("overwritten by nobody", format!("{file} lacks `{line}`{}", self.tell()));
                    }
                }
            };
            // What a job writes counts from its writing, to others at the latest from its commit.
            let later = of_file().find(|(.., other, _)| other.start > did.end.max(job.ended));
            if let Some((_, line, ..)) = later {
                return fail("overwritten by nobody", format!("{file} is {did:?}, not `{line}`{}", self.tell()));
            }
        }
        Ok(())
    }

    fn names(&self) -> Result<(), Failure> {
        let final_did = || self.final_jobs().flat_map(|job| &job.did);
        let made: BTreeSet<(&str, &str)> = final_did().filter_map(Did::made).collect();
        let removed: Vec<(&str, &str)> = final_did().filter_map(Did::removed).collect();
        let once: BTreeSet<_> = removed.iter().copied().collect();
        if once.len() != removed.len() {
            return fail("removed twice", format!("{removed:?}{}", self.tell()));
        }
        for (who, did) in self.looks() {
            let Some((dir, names)) = did.listed().filter(|(dir, _)| *dir != "v") else { continue };
            if let Some(name) = names.iter().find(|name| !made.contains(&(dir, name))) {
                return fail(
                    "undone was seen",
                    format!("{who} saw the name `{name}`, which nobody made: {did:?}{}", self.tell()),
                );
            }
        }
        let last = self.last.values().filter_map(|did| did.listed());
        for (dir, names) in last {
            let missing = made.iter().find(|(other, name)| *other == dir && !names.contains(name));
            let left = removed.iter().find(|(other, name)| *other == dir && names.contains(name));
            if let Some((_, name)) = missing.or(left) {
                return fail("names", format!("{dir} is {names:?} in the end; and `{name}`?{}", self.tell()));
            }
        }
        self.what_is_committed_is_seen(&made)
    }

    /// A commit is seen by everybody outside of jobs when it returns.
    fn what_is_committed_is_seen(&self, made: &BTreeSet<(&str, &str)>) -> Result<(), Failure> {
        let ended =
            |job: &Job| job.code == Some(0) && job.outer.is_none() && job.decided.is_none() && !job.is("--no-wait");
        for job in self.final_jobs().filter(|job| ended(job)) {
            let looks = || self.seen.watched.iter().flatten().filter(|did| did.start > job.ended);
            for (file, line) in job.did.iter().filter_map(Did::added) {
                let missing =
                    |did: &&Did| did.lines().is_some_and(|(other, lines)| other == file && !lines.contains(&line));
                if let Some(did) = looks().find(missing) {
                    return fail(
                        "a commit is not seen",
                        format!("`{line}` of job {}: {did:?}{}", job.number, self.tell()),
                    );
                }
            }
            for (dir, name) in job.did.iter().filter_map(Did::made).filter(|name| made.contains(name)) {
                let missing =
                    |did: &&Did| did.listed().is_some_and(|(other, names)| other == dir && !names.contains(&name));
                if let Some(did) = looks().find(missing) {
                    return fail(
                        "a commit is not seen",
                        format!("`{name}` of job {}: {did:?}{}", job.number, self.tell()),
                    );
                }
            }
        }
        Ok(())
    }

    /// Every job, in short.
    fn tell(&self) -> String {
        let told = self.seen.jobs.values().map(|job| {
            let state = if self.committed.contains(&job.number) { "committed" } else { "undone" };
            let did = job.did.iter().map(|did| format!("\n    {} {} -> {}", did.start, did.what, did.answer));
            let (number, options, code, said) = (job.number, &job.options, job.code, job.said.trim());
            format!(
                "\n  job {number} {options:?} ended with {code:?}, {state} {:?} {said}{}",
                job.decided,
                did.collect::<String>()
            )
        });
        told.collect()
    }
}
