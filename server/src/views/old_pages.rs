//! What a kernel may have of files as they were before others changed them. When it writes pages of these out, all but what programs have
//! stored there through mappings is old, and takes away what the others did: that must not pass without a word.

use mojavefs::id::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;

/// Parts of files that others have changed, or are changing, and of which the kernel has not been told yet.
#[derive(Default)]
pub(crate) struct OldPages {
    old: Mutex<HashMap<Ino, Old>>,
    /// What the kernel writes out and has to wait for, as it was when it first asked.
    waiting: Mutex<HashMap<Ino, Vec<Waiting>>>,
}

struct Waiting {
    range: Range<u64>,
    /// The last decision that had changed the file.
    decision: u64,
    /// Others have changed it since.
    changed: bool,
}

struct Old {
    /// All that was changed lies in here.
    range: Range<u64>,
    /// How many are changing it.
    changing: usize,
    /// It is told with what has this number.
    told_with: u64,
}

/// The kernel writes out whole pages.
const PAGE: u64 = 4096;

impl OldPages {
    /// Somebody is about to change a part of a file.
    pub(crate) fn begin(&self, ino: Ino, range: Range<u64>) {
        for waiting in self.waiting.lock().get_mut(&ino).into_iter().flatten() {
            waiting.changed |= overlap(&waiting.range, &range);
        }
        let mut all = self.old.lock();
        let old = all.entry(ino).or_insert(Old { range: range.clone(), changing: 0, told_with: 0 });
        old.range = old.range.start.min(range.start)..old.range.end.max(range.end);
        old.changing += 1;
    }

    /// It is changed, which the kernel is told with what has this number.
    pub(crate) fn end(&self, ino: Ino, told_with: u64) {
        if let Some(old) = self.old.lock().get_mut(&ino) {
            old.changing -= 1;
            old.told_with = old.told_with.max(told_with);
        }
    }

    /// Whether the kernel may have old pages of that part. `is_told` says whether what has a number was told.
    pub(crate) fn has(&self, ino: Ino, range: &Range<u64>, is_told: impl Fn(u64) -> bool) -> bool {
        let all = self.old.lock();
        let is_old = |old: &&Old| old.changing > 0 || !is_told(old.told_with);
        all.get(&ino).filter(is_old).is_some_and(|old| overlap(range, &old.range))
    }

    /// What the kernel writes out of a file has to wait for others: `decision` was the last one that has changed it.
    pub(crate) fn waits(&self, ino: Ino, range: &Range<u64>, decision: u64) {
        let mut all = self.waiting.lock();
        let waiting = all.entry(ino).or_default();
        if waiting.iter().all(|known| known.range != *range) {
            waiting.push(Waiting { range: range.clone(), decision, changed: false });
        }
    }

    /// What lies around this part, or is it, waits no more. Whether others have changed it meanwhile, where a later decision than that one
    /// may have.
    pub(crate) fn has_waited(&self, ino: Ino, range: &Range<u64>, is_later: impl Fn(u64) -> bool) -> bool {
        let mut all = self.waiting.lock();
        let Some(waiting) = all.remove(&ino) else { return false };
        let is_written = |one: &Waiting| one.range.start <= range.start && range.end <= one.range.end;
        let (written, left): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_written);
        if !left.is_empty() {
            all.insert(ino, left);
        }
        drop(all);
        written.iter().any(|one| one.changed || is_later(one.decision))
    }

    /// Forgets what was told.
    pub(crate) fn tidy(&self, is_told: impl Fn(u64) -> bool) {
        self.old.lock().retain(|_, old| old.changing > 0 || !is_told(old.told_with));
    }
}

/// Whether what is written out of a part, which is whole pages, reaches into another.
fn overlap(written: &Range<u64>, other: &Range<u64>) -> bool {
    let (start, end) = (written.start / PAGE * PAGE, written.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX));
    other.start < end && start < other.end
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(7);

    #[test]
    fn pages_are_old_from_before_the_change_until_it_is_told() {
        let old = OldPages::default();
        let has = |range: Range<u64>, told: u64| old.has(INO, &range, |number| number <= told);
        old.begin(INO, 5000..5001);
        assert!(has(4096..8192, 9) && !has(0..4096, 9) && !has(8192..9000, 9));
        old.end(INO, 3);
        assert!(has(8000..8001, 2) && !has(8000..8001, 3) && !old.has(Ino(8), &(5000..5001), |_| false));
        old.tidy(|number| number <= 3);
        assert!(old.old.lock().is_empty());
    }

    #[test]
    fn what_has_to_wait_is_old_if_others_have_changed_it_since() {
        let old = OldPages::default();
        let waited = |last: u64| old.has_waited(INO, &(0..10), |decision| last > decision);
        assert!(!waited(9));
        old.waits(INO, &(0..10), 3);
        old.waits(INO, &(0..10), 4);
        assert!(waited(4) && !waited(4));
        old.waits(INO, &(0..10), 3);
        old.begin(INO, 5000..5001);
        assert!(!waited(3));
        old.waits(INO, &(0..10), 3);
        old.begin(INO, 4000..4001);
        assert!(waited(3));
        // Each page for itself.
        old.waits(INO, &(0..10), 3);
        old.waits(INO, &(8192..9000), 3);
        old.begin(INO, 8200..8201);
        assert!(!waited(3) && old.has_waited(INO, &(8192..9000), |_| false) && !waited(9));
    }

    #[test]
    fn several_changes_are_old_until_all_are_told() {
        let old = OldPages::default();
        let has = |told: u64| old.has(INO, &(0..1), |number| number <= told);
        old.begin(INO, 0..1);
        old.begin(INO, 0..u64::MAX);
        old.end(INO, 1);
        assert!(has(1));
        old.end(INO, 2);
        assert!(has(1) && !has(2));
    }
}
