//! Checks a closed store: what is written must hang together. Nothing is changed.

use super::engine::Engine;
use super::reach::{self, Reach};
use super::record::{self, BlockRecord, Inode};
use super::search::each_key;
use super::{Key, Order, Sight, Store, StoreError, StoreOptions, WHOLE_FILES_SINCE, db::Family, keys, meta};
use crate::limits::{PARENTS_MAX, UNREACHABLE_NAMED_MAX};
use mojavefs::id::{BlockNo, ContentId, Ino, IntervalId, LayerId, Seq};
use mojavefs::protocol::file::FileKind;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What is wrong; nothing if the store is sound.
    pub problems: Vec<Problem>,
    /// Final inodes.
    pub inodes: u64,
    /// Final names.
    pub names: u64,
    /// Blocks of all versions.
    pub blocks: u64,
    /// Speculations held.
    pub held: u64,
    /// Versions of all sorts that no view can reach any more: no damage, but garbage.
    pub unreachable: u64,
    /// What the first of them are versions of.
    pub unreachable_named: Vec<String>,
    /// Those of them that are blocks of content files.
    pub unreachable_blocks: u64,
    /// Content files of contents that no view can reach any more.
    pub unreachable_files: u64,
}

/// Checks the store that lies in `engine`, as it lies there; nothing is written into it. `progress` is told how many records were looked
/// at.
///
/// # Errors
/// When it could not be checked: in use, no store, of another format, or the disk fails. Damage is no error: it is reported.
pub fn fsck(engine: &dyn Engine, options: StoreOptions, progress: &mut dyn FnMut(u64)) -> Result<Report, StoreError> {
    let opened = Store::open_to_check(engine, options).and_then(|(store, format)| {
        let held = store.held()?;
        Ok((store, format, held))
    });
    let (store, format, held) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(Report { problems: vec![damage(error)?], ..Report::default() }),
    };
    let mut check = Check {
        store: &store,
        whole_files: format >= WHOLE_FILES_SINCE,
        kept: held.iter().flat_map(|held| held.intervals.iter().copied()).collect(),
        report: Report { held: held.len() as u64, ..Report::default() },
        seen: 0,
    };
    let records = check.records(progress);
    check.note(records)?;
    let snapshots: Vec<Seq> = held.iter().map(|held| held.snapshot).collect();
    let garbage = check.garbage(&snapshots);
    check.note(garbage)?;
    for step in [Check::tree, Check::layers, Check::index] {
        let result = step(&mut check);
        check.note(result)?;
    }
    Ok(check.report)
}

/// What an error says of the store; an error again if it says nothing of it.
fn damage(error: StoreError) -> Result<Problem, StoreError> {
    match error {
        StoreError::Corrupt(what) => Ok(Problem(what)),
        error => Err(error),
    }
}

struct Check<'a> {
    store: &'a Store,
    /// Content files are whole blocks long.
    whole_files: bool,
    /// Intervals of what is held.
    kept: HashSet<IntervalId>,
    report: Report,
    seen: u64,
}

impl Check<'_> {
    fn problem(&mut self, text: String) {
        self.report.problems.push(Problem(text));
    }

    /// A check that came to no end because of damage: it is told once, and the others go on.
    fn note(&mut self, result: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error) = result {
            let problem = damage(error)?;
            if !self.report.problems.contains(&problem) {
                self.report.problems.push(problem);
            }
        }
        Ok(())
    }

    /// A version of an interval that is neither committed nor held: it is nobody's, and goes when the store is next opened.
    fn is_dead(&self, order: Order) -> bool {
        order.interval().is_some_and(|interval| {
            !self.kept.contains(&interval) && !self.store.decided.read().committed.contains_key(&interval)
        })
    }

    /// Every record has a known key and a readable value, and every version of an interval that is not merged is in the
    /// index by which it is merged or removed.
    fn records(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let db = self.store.db()?;
        let mut scan = db.scan(Family::Data, &[], &[]);
        while let Some((stored, value)) = scan.item()? {
            self.seen += 1;
            if self.seen.is_multiple_of(4096) {
                progress(self.seen);
            }
            match keys::split(stored).and_then(|(prefix, order)| Some((prefix, Key::parse(prefix)?, order))) {
                None => self.problem(format!("a record has the unknown key {}", stored.escape_ascii())),
                Some((prefix, key, order)) => {
                    if let Some(interval) = order.interval()
                        && !db.contains(Family::Changes, &meta::change(interval, prefix))?
                    {
                        self.problem(format!(
                            "{key:?} has a version of interval {interval} which the index of changes does not know"
                        ));
                    }
                    self.value(&key, value);
                }
            }
            scan.next();
        }
        Ok(())
    }

    /// Counts what no view can reach any more. Most of it is freed in the background when the store is next mounted.
    fn garbage(&mut self, snapshots: &[Seq]) -> Result<(), StoreError> {
        let db = self.store.db()?;
        let decided = self.store.decided.read();
        let is_live = |interval| self.kept.contains(&interval);
        let reach = Reach { decided: &decided, is_live: &is_live, snapshots };
        let (mut inodes, mut contents) = (HashSet::new(), HashSet::new());
        each_key(&db, &[], |prefix, versions| {
            match Key::parse(prefix) {
                Some(key @ Key::Inode(ino)) => {
                    for inode in reach::inodes(&reach.sort(&key, versions)?.reached)? {
                        inodes.insert(ino);
                        contents.extend(inode.stored_content());
                    }
                }
                // What undecided work has cut off again goes when that is decided.
                Some(Key::Inline(content) | Key::Block(content, _))
                    if versions.iter().filter_map(|version| version.order.interval()).any(is_live) =>
                {
                    contents.insert(content);
                }
                _ => {}
            }
            Ok(true)
        })?;
        let report = &mut self.report;
        each_key(&db, &[], |prefix, versions| {
            let Some(key) = Key::parse(prefix) else { return Ok(true) };
            let is_gone = match &key {
                Key::Inode(_) => false,
                Key::Inline(content) | Key::Block(content, _) => !contents.contains(content),
                Key::Entry(ino, _) | Key::DirStat(ino) | Key::Xattr(ino, _) => !inodes.contains(ino),
            };
            let found = match is_gone {
                true => versions.iter().collect(),
                false => reach.sort(&key, versions)?.unreachable,
            };
            for version in found {
                let is_block = matches!(key, Key::Block(..)) && record::payload(&version.stored)?.is_some();
                report.unreachable_blocks += u64::from(is_block);
                report.unreachable += 1;
                if report.unreachable_named.len() < UNREACHABLE_NAMED_MAX {
                    report.unreachable_named.push(format!("{key:?}"));
                }
            }
            Ok(true)
        })?;
        let files = self.recorded_layers()?;
        self.report.unreachable_files = files.values().filter(|content| !contents.contains(content)).count() as u64;
        Ok(())
    }

    /// Everything else that is recorded can be read.
    fn index(&mut self) -> Result<(), StoreError> {
        let db = self.store.db()?;
        for family in [Family::Changes, Family::Meta] {
            let mut scan = db.scan(family, &[], &[]);
            while scan.item()?.is_some() {
                scan.next();
            }
        }
        Ok(())
    }

    fn value(&mut self, key: &Key, stored: &[u8]) {
        let payload = match record::payload(stored) {
            Ok(Some(payload)) => payload,
            Ok(None) => return,
            Err(error) => return self.problem(format!("{key:?}: {error}")),
        };
        let result = match key {
            Key::Inode(_) => record::decode::<Inode>(payload).map(drop),
            Key::Entry(..) => record::decode::<super::Entry>(payload).map(drop),
            Key::DirStat(_) => record::decode::<super::DirStat>(payload).map(drop),
            Key::Block(..) => {
                self.report.blocks += 1;
                record::decode::<BlockRecord>(payload).map(drop)
            }
            Key::Xattr(..) | Key::Inline(_) => Ok(()),
        };
        if let Err(error) = result {
            self.problem(format!("{key:?}: {error}"));
        }
    }

    /// On trunk every name has an inode, every inode its names, every directory one parent and the right counts.
    fn tree(&mut self) -> Result<(), StoreError> {
        let trunk = Sight::trunk();
        let mut links: HashMap<Ino, u32> = HashMap::new();
        let mut todo = vec![Ino::ROOT];
        let mut dirs = HashSet::from([Ino::ROOT]);
        while let Some(dir) = todo.pop() {
            let mut subdirs = 0;
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = self.store.entries(&trunk, dir, after.as_deref(), 1024)?.found;
                for (name, entry) in &page {
                    self.report.names += 1;
                    *links.entry(entry.ino).or_default() += 1;
                    let shown = name.escape_ascii().to_string();
                    match self.store.inode(&trunk, entry.ino)?.found {
                        None => self.problem(format!(
                            "`{shown}` in directory {dir} names inode {}, which does not exist",
                            entry.ino
                        )),
                        Some(inode) if inode.kind != entry.kind => {
                            self.problem(format!(
                                "`{shown}` in directory {dir} and inode {} differ in type",
                                entry.ino
                            ));
                        }
                        Some(inode) if inode.kind == FileKind::Directory => {
                            subdirs += 1;
                            if inode.home != (dir, name.clone()) {
                                self.problem(format!(
                                    "directory {} does not know that it is `{shown}` in {dir}",
                                    entry.ino
                                ));
                            }
                            match dirs.insert(entry.ino) {
                                true => todo.push(entry.ino),
                                false => self.problem(format!("directory {} has two names", entry.ino)),
                            }
                        }
                        Some(_) => {}
                    }
                }
                match page.last() {
                    Some((name, _)) => after = Some(name.clone()),
                    None => break,
                }
            }
            let stat = self.store.dir_stat(&trunk, dir)?;
            if stat.subdirs != subdirs {
                self.problem(format!("directory {dir} has {subdirs} subdirectories and says {}", stat.subdirs));
            }
        }
        self.inodes(&trunk, &links, &dirs)
    }

    fn inodes(&mut self, trunk: &Sight, links: &HashMap<Ino, u32>, dirs: &HashSet<Ino>) -> Result<(), StoreError> {
        let db = self.store.db()?;
        let mut inos = Vec::new();
        let mut scan = db.scan(Family::Data, b"I", b"I");
        while let Some((key, _)) = scan.item()? {
            if let Some(Key::Inode(ino)) = keys::split(key).and_then(|(prefix, _)| Key::parse(prefix)) {
                inos.push(ino);
            }
            scan.next();
        }
        inos.dedup();
        for ino in inos {
            let reading = self.store.inode(trunk, ino)?;
            let Some(inode) = reading.found else { continue };
            self.report.inodes += 1;
            let count = links.get(&ino).copied().unwrap_or(0);
            // It is noted as an orphan when the commit that took its last name is merged.
            let unmerged = inode.nlink == 0 && reading.order.is_some_and(|order| order.interval().is_some());
            let orphan = unmerged || db.contains(Family::Meta, &meta::orphan(ino))?;
            match inode.kind {
                FileKind::Directory if !dirs.contains(&ino) && !orphan => {
                    self.problem(format!("directory {ino} has no name"));
                }
                FileKind::Directory => {}
                _ if inode.nlink != count => {
                    self.problem(format!("inode {ino} has {count} names and says {}", inode.nlink));
                }
                _ if count == 0 && !orphan => {
                    self.problem(format!("inode {ino} has no name and is not known to be an orphan"))
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every block that somebody may see lies in a content file of its content.
    fn layers(&mut self) -> Result<(), StoreError> {
        let layers = self.recorded_layers()?;
        let live = self.live_contents()?;
        let mut used: BTreeMap<LayerId, (ContentId, BlockNo)> = BTreeMap::new();
        let db = self.store.db()?;
        let mut scan = db.scan(Family::Data, b"B", b"B");
        while let Some((key, value)) = scan.item()? {
            let place = record::payload(value).ok().flatten().and_then(|p| record::decode::<BlockRecord>(p).ok());
            let key = keys::split(key).and_then(|(prefix, order)| Some((Key::parse(prefix)?, order)));
            if let (Some((Key::Block(content, block), order)), Some(BlockRecord { layer })) = (key, place)
                && live.contains_key(&content)
                && !self.is_dead(order)
            {
                if layers.get(&layer) != Some(&content) {
                    self.problem(format!(
                        "block {} of content {content} lies in content file {layer}, which is not its own",
                        block.0
                    ));
                }
                let (_, last) = used.entry(layer).or_insert((content, block));
                *last = block.max(*last);
            }
            scan.next();
        }
        drop(scan);
        for (layer, (content, last)) in used {
            if let Some(lost) = self.store.content.lost(layer, last, self.whole_files)? {
                self.problem(format!("{lost}; it belongs to {}", self.path_of(live[&content])?));
            }
        }
        Ok(())
    }

    fn recorded_layers(&self) -> Result<HashMap<LayerId, ContentId>, StoreError> {
        let db = self.store.db()?;
        let mut layers = HashMap::new();
        let mut scan = db.scan(Family::Meta, &[meta::LAYER], &[meta::LAYER]);
        while let Some((key, _)) = scan.item()? {
            if let Some([content, layer]) = meta::numbers(key) {
                layers.insert(LayerId(layer), ContentId(content));
            }
            scan.next();
        }
        Ok(layers)
    }

    /// The contents that a version of an inode refers to, with the inode. What refers to no other is garbage, and its
    /// content file may be gone before its records.
    fn live_contents(&self) -> Result<HashMap<ContentId, Ino>, StoreError> {
        let db = self.store.db()?;
        let mut live = HashMap::new();
        let mut scan = db.scan(Family::Data, b"I", b"I");
        while let Some((key, value)) = scan.item()? {
            let inode = record::payload(value).ok().flatten().and_then(|p| record::decode::<Inode>(p).ok());
            let key = keys::split(key).and_then(|(prefix, order)| Some((Key::parse(prefix)?, order)));
            if let (Some((Key::Inode(ino), order)), Some(Inode { content: Some(content), .. })) = (key, inode)
                && !self.is_dead(order)
            {
                live.insert(content, ino);
            }
            scan.next();
        }
        Ok(live)
    }

    /// A path of an inode where trunk has one, for people.
    fn path_of(&self, ino: Ino) -> Result<String, StoreError> {
        let mut path = String::new();
        let mut at = ino;
        for _ in 0..PARENTS_MAX {
            if at == Ino::ROOT {
                return Ok(format!("`{path}`"));
            }
            let trunk = Sight::trunk();
            let Some(inode) = self.store.inode(&trunk, at)?.found else { break };
            // The name that it had may be another's by now.
            if self.store.entry(&trunk, inode.home.0, &inode.home.1)?.found.is_none_or(|entry| entry.ino != at) {
                break;
            }
            path = format!("/{}{path}", inode.home.1.escape_ascii());
            at = inode.home.0;
        }
        Ok(format!("inode {ino}"))
    }
}
