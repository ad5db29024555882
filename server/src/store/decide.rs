//! Commit, abort, hold: each one record, whatever was changed.

use super::db::{Family, Writes};
use super::outcomes::Recorded;
use super::{Committed, Sight, Specs, Store, StoreError, meta, now};
use crate::store::Key;
use mojavefs::id::{Ino, IntervalId, Seq, SpecId};
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::codec;
use mojavefs::protocol::file::{Name, Time};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// A speculation that survives restarts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its number.
    pub spec: SpecId,
    /// The intervals whose versions must be kept.
    pub intervals: Vec<IntervalId>,
    /// The snapshot they are based on.
    pub snapshot: Seq,
    /// What the coordinator wants to know of it.
    pub payload: Vec<u8>,
    /// The speculations that have become part of it. On record beside it, if there are any.
    #[serde(skip)]
    pub parts: Specs,
}

fn put(writes: &mut Writes<'_>, held: &Held) -> Result<(), StoreError> {
    let record = codec::encode(held).map_err(|why| StoreError::corrupt(format!("a held speculation: {why}")))?;
    writes.put(Family::Meta, &meta::key(meta::HELD, [held.spec.0]), &record);
    if held.parts != Specs::default() {
        writes.put(Family::Meta, &meta::key(meta::PARTS, [held.spec.0]), &held.parts.encode()?);
    }
    Ok(())
}

/// The record of a held speculation as it is once something is committed.
#[derive(Clone, Debug)]
pub struct Rebased {
    /// The record.
    pub held: Held,
    /// Its snapshot is what is final by that commit.
    pub stays_with_it: bool,
}

impl Rebased {
    /// Adds it to a batch, for a commit that has this place among what is final.
    fn put(&self, writes: &mut Writes<'_>, seq: Seq) -> Result<(), StoreError> {
        match self.stays_with_it {
            true => put(writes, &Held { snapshot: seq, ..self.held.clone() }),
            false => put(writes, &self.held),
        }
    }
}

/// A commit that is written down and not seen by anybody yet.
pub struct Prepared {
    intervals: Vec<IntervalId>,
    /// Those of them whose changes count as modified by it.
    modified: Vec<IntervalId>,
    rebased: Vec<Rebased>,
    /// When it is to become final; its place among that is another if somebody begins to stay with what is final before it is
    /// confirmed.
    committed: Committed,
    recorded: Recorded,
    waits_for_disk: bool,
}

/// Says that these are final, and since when; of which of them the changes count as modified then.
fn stamp(writes: &mut Writes<'_>, (intervals, modified): (&[IntervalId], &[IntervalId]), committed: Committed) {
    for interval in intervals {
        let record = meta::decision(Committed { marks_modified: modified.contains(interval), ..committed });
        writes.put(Family::Meta, &meta::key(meta::DECISION, [interval.0]), &record);
    }
    writes.put(Family::Meta, meta::LAST_DECISION, &meta::time(committed.at));
}

fn remove(writes: &mut Writes<'_>, spec: SpecId) {
    writes.delete(Family::Meta, &meta::key(meta::HELD, [spec.0]));
    writes.delete(Family::Meta, &meta::key(meta::PARTS, [spec.0]));
}

impl Store {
    /// Writes to disk most of what a commit of these intervals must have there, while nobody is kept waiting. Blocks.
    pub fn sync_early(&self, intervals: &[IntervalId]) -> Result<(), StoreError> {
        if !self.have_changed_anything(intervals) {
            return Ok(());
        }
        self.content.sync_intervals(intervals)?;
        self.sync_records()
    }

    fn have_changed_anything(&self, intervals: &[IntervalId]) -> bool {
        intervals.iter().any(|interval| self.changes_count(*interval) > 0)
    }

    /// Writes down that the versions of these intervals are final, together, with what they stand for; nobody sees it before it is
    /// [durable](Store::make_durable) and [confirmed](Store::confirm). Blocks for the disk, which has to have their content. Until
    /// then the caller lets nobody change them, and nothing become final that conflicts with them.
    ///
    /// What the second intervals have changed counts as modified then. `specs` are the speculations that are committed by it: what is known of them later. `released` are held speculations that
    /// are so no more; `rebased` are the new records of those that stay.
    ///
    /// # Errors
    /// [`StoreError::NotCommitted`] if it is certain that nothing was committed; any other error leaves the store stopped.
    pub fn prepare(
        &self,
        (intervals, modified): (&[IntervalId], &[IntervalId]),
        specs: &Specs,
        released: &[SpecId],
        rebased: &[Rebased],
    ) -> Result<Prepared, StoreError> {
        let certain = |error: StoreError| StoreError::NotCommitted(error.to_string());
        self.content.sync_intervals(intervals).map_err(certain)?;
        let writers = self.final_writes.lock();
        // An epoch of its own: what trunk wrote up to now comes before it, what it writes from now on after it.
        self.end_epoch().map_err(certain)?;
        let seq = self.end_epoch().map_err(certain)?;
        let db = self.db().map_err(certain)?;
        let mut writes = db.writes();
        let committed = Committed { seq, at: self.time_of_decision(), marks_modified: false };
        stamp(&mut writes, (intervals, modified), committed);
        released.iter().for_each(|spec| remove(&mut writes, *spec));
        rebased.iter().try_for_each(|rebased| rebased.put(&mut writes, seq)).map_err(certain)?;
        let recorded = self.outcomes.lock().record(&mut writes, specs.clone()).map_err(certain)?;
        let result = writes.apply(false);
        drop((db, writers));
        // Where nothing was changed nothing can be lost.
        let waits_for_disk = !released.is_empty() || self.have_changed_anything(intervals);
        let (intervals, modified, rebased) = (intervals.to_vec(), modified.to_vec(), rebased.to_vec());
        let prepared = Prepared { intervals, modified, rebased, committed, recorded, waits_for_disk };
        if let Err(error) = result {
            self.settle_doubt(&prepared, error)?;
        }
        Ok(prepared)
    }

    /// Returns once what was prepared is on disk. Blocks for that; nobody else is held up.
    ///
    /// # Errors
    /// As of [`Store::prepare`].
    pub fn make_durable(&self, prepared: &Prepared) -> Result<(), StoreError> {
        if !prepared.waits_for_disk {
            return Ok(());
        }
        self.write_out();
        match self.db().and_then(|db| db.sync()) {
            Ok(()) => Ok(()),
            Err(error) => self.settle_doubt(prepared, error),
        }
    }

    /// Shows to everybody what was prepared and is durable; returns its place among what is final. In memory, but for a record
    /// that says so where somebody has begun to stay with what was final meanwhile: to him it comes later. The caller keeps every
    /// other operation out.
    pub fn confirm(&self, prepared: Prepared) -> Seq {
        let Prepared { intervals, modified, rebased, mut committed, recorded, .. } = prepared;
        let _writers = self.final_writes.lock();
        // Whoever has looked while it was written down has looked before it. On record it is a moment earlier, until it is merged.
        committed.at = self.time_of_decision();
        if self.epoch().0 != committed.seq.0 + 1 && !is_planted(Planted::PlaceOfTheSeal) {
            match self.stamp_later((&intervals, &modified), &rebased, committed.at) {
                Ok(seq) => committed.seq = seq,
                // It is committed. Where it was to stand is on disk, and nothing else may come to be there beside it.
                Err(error) => self.stop(&format!("a commit can't be given its place: {error}")),
            }
        }
        self.outcomes.lock().apply(recorded);
        let committed_by =
            |interval: &IntervalId| Committed { marks_modified: modified.contains(interval), ..committed };
        self.decided.write().committed.extend(intervals.iter().map(|interval| (*interval, committed_by(interval))));
        self.homes.decided();
        committed.seq
    }

    /// Now, but after the last decision.
    fn time_of_decision(&self) -> Time {
        let mut last = self.last_decision.lock();
        *last = now().max(last.next());
        *last
    }

    /// Prepares, makes durable and confirms, for who has nothing else to do meanwhile. Blocks for the disk.
    ///
    /// # Errors
    /// As of [`Store::prepare`] and [`Store::make_durable`].
    pub fn commit(
        &self,
        intervals: &[IntervalId],
        specs: &Specs,
        released: &[SpecId],
        rebased: &[Rebased],
    ) -> Result<Seq, StoreError> {
        let prepared = self.prepare((intervals, &[]), specs, released, rebased)?;
        self.make_durable(&prepared)?;
        Ok(self.confirm(prepared))
    }

    /// Gives a commit a place after all that was begun since it was prepared. The caller has `final_writes`.
    fn stamp_later(
        &self,
        intervals: (&[IntervalId], &[IntervalId]),
        rebased: &[Rebased],
        at: Time,
    ) -> Result<Seq, StoreError> {
        self.end_epoch()?;
        let seq = self.end_epoch()?;
        let db = self.db()?;
        let mut writes = db.writes();
        stamp(&mut writes, intervals, Committed { seq, at, marks_modified: false });
        rebased.iter().try_for_each(|rebased| rebased.put(&mut writes, seq))?;
        writes.apply(false)?;
        Ok(seq)
    }

    /// Writing or syncing failed: whether the record is on disk is known only once the store was read again.
    fn settle_doubt(&self, prepared: &Prepared, error: StoreError) -> Result<(), StoreError> {
        tracing::error!("a commit is in doubt, reading the store again: {error}");
        let found = self.read_decision(&prepared.intervals);
        if found.is_err() {
            self.in_doubt.store(true, Ordering::SeqCst);
        }
        match found? {
            true => Ok(()),
            false => Err(StoreError::NotCommitted(error.to_string())),
        }
    }

    /// Whether the decision is on disk, read from a store opened anew.
    fn read_decision(&self, intervals: &[IntervalId]) -> Result<bool, StoreError> {
        {
            let _writers = self.final_writes.lock();
            self.reopen()?;
        }
        let Some(interval) = intervals.first() else { return Ok(true) };
        self.db()?.contains(Family::Meta, &meta::key(meta::DECISION, [interval.0]))
    }

    /// Undoes everything of these intervals. Waits for no disk unless they were held. After an error the intervals are
    /// undone all the same, and the records of what was held may be left.
    pub fn abort(&self, intervals: &[IntervalId], held: &[SpecId]) -> Result<(), StoreError> {
        self.decided.write().dead.extend(intervals);
        self.forget_held(held)
    }

    /// These are held no more: with the next start everything of them is undone. Blocks for the disk, if there are any. After
    /// an error they are held still, as far as can be said.
    pub fn release(&self, held: &[SpecId]) -> Result<(), StoreError> {
        self.forget_held(held)?;
        if held.is_empty() { Ok(()) } else { self.sync_records() }
    }

    /// The same, on disk with what is made durable next.
    pub fn forget_held(&self, held: &[SpecId]) -> Result<(), StoreError> {
        if held.is_empty() {
            return Ok(());
        }
        let forget = || {
            self.with_room(|| {
                let db = self.db()?;
                let mut writes = db.writes();
                held.iter().for_each(|spec| remove(&mut writes, *spec));
                writes.apply(false)
            })
        };
        match forget() {
            // The record store refuses everything after an error: opened again, it may work.
            Err(StoreError::Records(why) | StoreError::Refused(why)) => {
                self.mend(&why)?;
                forget()
            }
            result => result,
        }
    }

    /// Keeps an undecided speculation through restarts, with the content it wrote. Blocks for the disk.
    ///
    /// # Errors
    /// [`StoreError::Stopped`] if it is not known whether it is held; after any other error it is not, or as it was before.
    pub fn hold(&self, held: &Held) -> Result<(), StoreError> {
        self.content.sync_intervals(&held.intervals)?;
        self.note_held(held)?;
        self.make_held_durable(held)
    }

    /// The same, on disk with what is made durable next; its content is there already.
    pub fn note_held(&self, held: &Held) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut writes = db.writes();
        put(&mut writes, held)?;
        let result = writes.apply(false);
        drop(db);
        match result {
            Err(error) if !self.has_held(held, &error)? => Err(error),
            _ => Ok(()),
        }
    }

    /// Returns once what was [noted](Store::note_held) is on disk. Blocks for that.
    ///
    /// # Errors
    /// As of [`Store::hold`].
    pub fn make_held_durable(&self, held: &Held) -> Result<(), StoreError> {
        match self.db().and_then(|db| db.sync()) {
            Err(error) if !self.has_held(held, &error)? => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the content of these intervals to disk. Blocks for that.
    pub fn write_out_content(&self, intervals: &[IntervalId]) -> Result<(), StoreError> {
        self.content.sync_intervals(intervals)
    }

    /// Whether all content of these intervals is on disk.
    pub fn is_written_out(&self, intervals: &[IntervalId]) -> bool {
        self.content.is_synced(intervals)
    }

    /// Writing down that something is held failed, and the record may be there all the same when the store is next read: then
    /// what was undone by then would be held again. So it is read now.
    fn has_held(&self, held: &Held, error: &StoreError) -> Result<bool, StoreError> {
        let found = self.mend(&error.to_string()).and_then(|()| self.held());
        match found {
            Ok(found) => Ok(found.contains(held)),
            Err(why) => {
                self.in_doubt.store(true, Ordering::SeqCst);
                Err(StoreError::Stopped(format!("{error}; {why}")))
            }
        }
    }

    /// Every held speculation.
    pub fn held(&self) -> Result<Vec<Held>, StoreError> {
        let db = self.db()?;
        let mut held: Vec<Held> = Vec::new();
        let mut scan = db.scan(Family::Meta, &[meta::HELD], &[meta::HELD]);
        while let Some((_, value)) = scan.item()? {
            held.push(codec::decode(value).map_err(|why| StoreError::corrupt(format!("a held speculation: {why}")))?);
            scan.next();
        }
        for one in &mut held {
            let parts = db.get(Family::Meta, &meta::key(meta::PARTS, [one.spec.0]))?;
            one.parts = parts.map_or(Ok(Specs::default()), |parts| Specs::decode(&parts))?;
        }
        Ok(held)
    }

    /// Up to `limit` objects that an undecided interval changed, after `after`.
    pub fn changes(&self, interval: IntervalId, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let db = self.db()?;
        let prefix = interval.0.to_be_bytes();
        let mut from = after.map_or_else(|| prefix.to_vec(), |key| meta::change(interval, &key.prefix()));
        if after.is_some() {
            from.push(0);
        }
        let mut keys = Vec::new();
        let mut scan = db.scan(Family::Changes, &prefix, &from);
        while keys.len() < limit {
            let Some((key, _)) = scan.item()? else { break };
            match Key::parse(&key[prefix.len()..]) {
                Some(key) => keys.push(key),
                None => return Err(StoreError::corrupt("the index of changes has an unknown key")),
            }
            scan.next();
        }
        Ok(keys)
    }

    /// The names in a directory that an undecided interval changed.
    pub fn names_changed(&self, interval: IntervalId, parent: Ino) -> Result<Vec<Name>, StoreError> {
        let db = self.db()?;
        let prefix = meta::change(interval, &Key::entries_of(parent));
        let mut names = Vec::new();
        let mut scan = db.scan(Family::Changes, &prefix, &prefix);
        while let Some((key, _)) = scan.item()? {
            match Key::parse(&key[size_of::<u64>()..]) {
                Some(Key::Entry(_, name)) => names.push(name),
                _ => return Err(StoreError::corrupt("the index of changes has an unknown key")),
            }
            scan.next();
        }
        Ok(names)
    }

    /// Whether an undecided interval changed the object.
    pub fn has_changed(&self, interval: IntervalId, key: &Key) -> Result<bool, StoreError> {
        self.db()?.contains(Family::Changes, &meta::change(interval, &key.prefix()))
    }

    /// Whether an undecided interval changed the bytes of a file that is there without it.
    pub fn has_changed_content(&self, interval: IntervalId, ino: Ino) -> Result<bool, StoreError> {
        if !self.has_changed(interval, &Key::Inode(ino))? {
            return Ok(false);
        }
        let sight = Sight { live: vec![interval].into(), ..Sight::trunk() };
        let (ours, theirs) = (self.inode(&sight, ino)?.found, self.inode(&Sight::trunk(), ino)?.found);
        // One that is removed keeps its bytes for who has it open.
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return Ok(false) };
        if (ours.content, ours.size) != (theirs.content, theirs.size) {
            return Ok(true);
        }
        let Some(content) = ours.content else { return Ok(false) };
        if self.has_changed(interval, &Key::Inline(content))? {
            return Ok(true);
        }
        let prefix = meta::change(interval, &Key::blocks_of(content));
        Ok(self.db()?.scan(Family::Changes, &prefix, &prefix).item()?.is_some())
    }

    /// Takes the store up after opening; content files that nobody knows go.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        self.read_decisions()?;
        let kept = self.kept()?;
        let known = |interval| interval == IntervalId::FINAL || self.is_known(interval, &kept);
        self.content.recover(&*self.db()?, known)
    }

    /// The intervals of what is held.
    fn kept(&self) -> Result<Vec<IntervalId>, StoreError> {
        Ok(self.held()?.into_iter().flat_map(|held| held.intervals).collect())
    }

    /// What is decided, held or dead: everything with versions that is neither committed nor held is dead.
    pub(super) fn read_decisions(&self) -> Result<(), StoreError> {
        let undecided = self.sort_intervals(&self.kept()?)?;
        undecided.into_iter().try_for_each(|interval| self.count_changes(interval))
    }

    /// Says of every interval with changes what it is. Returns those of them that are held.
    fn sort_intervals(&self, kept: &[IntervalId]) -> Result<Vec<IntervalId>, StoreError> {
        let db = self.db()?;
        if let Some(last) = db.get(Family::Meta, meta::LAST_DECISION)? {
            let last = meta::decided_at(&last).ok_or_else(|| StoreError::corrupt("the last decision has no time"))?;
            *self.last_decision.lock() = last;
        }
        let mut decided = self.decided.write();
        let mut scan = db.scan(Family::Meta, &[meta::DECISION], &[meta::DECISION]);
        while let Some((key, value)) = scan.item()? {
            let (Some([interval]), Some(committed)) = (meta::numbers(key), meta::decided(value)) else {
                return Err(StoreError::corrupt("a decision record is of a wrong length"));
            };
            decided.committed.insert(IntervalId(interval), committed);
            scan.next();
        }
        let mut held = Vec::new();
        let mut scan = db.scan(Family::Changes, &[], &[]);
        while let Some((key, _)) = scan.item()? {
            let Some(number) = key.first_chunk::<8>() else {
                return Err(StoreError::corrupt("the index of changes has a short key"));
            };
            let interval = IntervalId(u64::from_be_bytes(*number));
            if !decided.committed.contains_key(&interval) && !kept.contains(&interval) {
                decided.dead.push(interval);
            } else if kept.contains(&interval) {
                held.push(interval);
            }
            scan.seek(&(interval.0 + 1).to_be_bytes());
        }
        Ok(held)
    }

    fn is_known(&self, interval: IntervalId, kept: &[IntervalId]) -> bool {
        kept.contains(&interval) || self.decided.read().committed.contains_key(&interval)
    }

    /// Counts what an interval has changed as it is recorded. What can't be counted counts as something.
    pub(super) fn count_again(&self, interval: IntervalId) {
        self.changes.lock().remove(&interval);
        if let Err(error) = self.count_changes(interval) {
            tracing::error!("counting what interval {interval} has changed: {error}");
            self.note_changes(interval, 1);
        }
    }

    fn count_changes(&self, interval: IntervalId) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let keys = self.changes(interval, after.as_ref(), 4096)?;
            let inodes = keys.iter().filter(|key| matches!(key, Key::Inode(_))).count();
            self.note_changes(interval, inodes as u64);
            match keys.into_iter().last() {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }
}
