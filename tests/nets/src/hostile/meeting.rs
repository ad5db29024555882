//! Whether what a job has changed and what others have changed meanwhile is a conflict, as far as the plain model can say.

use super::model::{Id, Object, Tree, is_within};
use std::collections::BTreeSet;

/// Whether it is a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Both have changed the same.
    Conflict,
    /// One has changed what has to do with what the other has changed.
    Near,
    /// They have nothing to do with each other.
    Apart,
}

/// A file as it is told from what it was; nothing if it has no name.
fn object(tree: &Tree, id: Id) -> Option<&Object> {
    tree.names_of(id).next().and_then(|_| tree.objects.get(&id))
}

fn changed_objects<'a>(old: &'a Tree, new: &'a Tree) -> impl Iterator<Item = Id> + 'a {
    let ids: BTreeSet<Id> = old.names.values().copied().collect();
    ids.into_iter().filter(|id| object(old, *id) != object(new, *id))
}

/// Names that lead elsewhere than they did.
fn changed_names<'a>(old: &'a Tree, new: &'a Tree) -> BTreeSet<&'a String> {
    let all = old.names.keys().chain(new.names.keys());
    all.filter(|path| old.names.get(*path) != new.names.get(*path)).collect()
}

/// Names that lead elsewhere than they did, or to what has changed.
fn changed_paths<'a>(old: &'a Tree, new: &'a Tree) -> BTreeSet<&'a String> {
    let all = old.names.keys().chain(new.names.keys());
    all.filter(|path| old.names.get(*path) != new.names.get(*path) || old.shown(path) != new.shown(path)).collect()
}

/// What was, what the job has made of it, and what others have.
pub fn meeting(old: &Tree, job: &Tree, host: &Tree) -> Meeting {
    let by_host: BTreeSet<Id> = changed_objects(old, host).collect();
    let objects = changed_objects(old, job).any(|id| by_host.contains(&id));
    // In a directory that is what it was to both.
    let stays = |path: &str| match path.rsplit_once('/') {
        None => true,
        Some((above, _)) => {
            old.names.get(above).is_some_and(|id| [job, host].iter().all(|tree| tree.names.get(above) == Some(id)))
        }
    };
    let names = &changed_names(old, job) & &changed_names(old, host);
    if objects || names.into_iter().any(|path| stays(path)) {
        return Meeting::Conflict;
    }
    let (of_job, of_host) = (changed_paths(old, job), changed_paths(old, host));
    let is_near = |job: &String| of_host.iter().any(|host| is_within(host, job) || is_within(job, host));
    if of_job.into_iter().any(is_near) { Meeting::Near } else { Meeting::Apart }
}

#[cfg(test)]
mod tests {
    use super::super::model::Change;
    use super::*;

    #[test]
    fn who_changes_the_same_is_in_conflict() {
        let was = ["write f old", "write g old", "mkdir d -", "write d/x old"];
        for (job, host, meets) in [
            ("append f job", "append f host", Meeting::Conflict),
            ("append f job", "remove f -", Meeting::Conflict),
            ("write n job", "mkdir n -", Meeting::Conflict),
            ("chmod f 600", "append f host", Meeting::Conflict),
            ("remove-tree d -", "append d/x host", Meeting::Conflict),
            ("remove-tree d -", "write d/n host", Meeting::Near),
            ("move f n", "append f host", Meeting::Near),
            ("append f job", "append g host", Meeting::Apart),
            ("write d/n job", "write d/m host", Meeting::Apart),
        ] {
            let change = |line: &str| {
                let words: Vec<&str> = line.split(' ').collect();
                let kind = words[0].parse().expect("a kind");
                Change { kind, path: words[1].to_owned(), with: words[2].to_owned() }
            };
            let mut old = Tree::default();
            was.iter().for_each(|line| assert!(old.change(&change(line))));
            let [of_job, of_host] = [job, host].map(|line| {
                let mut tree = old.clone();
                assert!(tree.change(&change(line)), "{line}");
                tree
            });
            assert_eq!(meeting(&old, &of_job, &of_host), meets, "{job} beside {host}");
        }
    }
}
