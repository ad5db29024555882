//! Checks a closed store: what is written must hang together.

use super::record::{self, Inode};
use super::{Key, Sight, Store, StoreError, StoreOptions, db::Family, keys, meta};
use mojavefs::file::FileKind;
use mojavefs::id::{BlockNo, ContentId, Ino, LayerId};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;

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
}

/// Opens the store in `dir`, finishes the background work left over, and checks it. `progress` is told how many records
/// were looked at.
///
/// # Errors
/// As [`Store::open`]: in use, no store, of another format, or too damaged to open.
pub fn fsck(dir: &Path, options: StoreOptions, progress: &mut dyn FnMut(u64)) -> Result<Report, StoreError> {
    if !dir.join("records").exists() {
        return Err(StoreError::NotAStore(dir.to_owned()));
    }
    let store = Store::open(dir, options)?;
    let snapshots: Vec<_> = store.held()?.iter().map(|held| store.adopt_snapshot(held.snapshot)).collect();
    while store.reclaim(&|_| false)?.more {}
    let mut check = Check { store: &store, report: Report::default(), seen: 0 };
    check.report.held = snapshots.len() as u64;
    check.records(progress)?;
    check.tree()?;
    check.layers()?;
    Ok(check.report)
}

struct Check<'a> {
    store: &'a Store,
    report: Report,
    seen: u64,
}

impl Check<'_> {
    fn problem(&mut self, text: String) {
        self.report.problems.push(Problem(text));
    }

    /// Every record has a known key, a readable value, and an owner: merged, or of a held interval.
    fn records(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        let held: HashSet<_> = self.store.held()?.into_iter().flat_map(|held| held.intervals).collect();
        let db = self.store.db()?;
        let mut scan = db.scan(Family::Data, &[], &[]);
        while let Some((key, value)) = scan.item()? {
            self.seen += 1;
            if self.seen.is_multiple_of(4096) {
                progress(self.seen);
            }
            match keys::split(key).and_then(|(prefix, order)| Some((Key::parse(prefix)?, order))) {
                None => self.problem(format!("a record has the unknown key {}", key.escape_ascii())),
                Some((key, order)) => {
                    if let Some(interval) = order.interval().filter(|interval| !held.contains(interval)) {
                        self.problem(format!(
                            "{key:?} has a version of interval {interval}, which is neither held nor decided"
                        ));
                    }
                    self.value(&key, value);
                }
            }
            scan.next();
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
                record::decode::<super::BlockRecord>(payload).map(drop)
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
            let Some(inode) = self.store.inode(trunk, ino)?.found else { continue };
            self.report.inodes += 1;
            let count = links.get(&ino).copied().unwrap_or(0);
            let orphan = db.contains(Family::Meta, &meta::orphan(ino))?;
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

    /// Every block's layer has a record and a file, and every file a record.
    fn layers(&mut self) -> Result<(), StoreError> {
        let db = self.store.db()?;
        let mut layers: HashMap<LayerId, ContentId> = HashMap::new();
        let mut scan = db.scan(Family::Meta, &[meta::LAYER], &[meta::LAYER]);
        while let Some((key, _)) = scan.item()? {
            if let Some([content, layer]) = meta::numbers(key) {
                layers.insert(LayerId(layer), ContentId(content));
            }
            scan.next();
        }
        drop(scan);
        let dir = self.store.dir().join("content");
        for layer in layers.keys() {
            if !dir.join(layer.to_string()).exists() {
                self.problem(format!("content file {layer} is missing"));
            }
        }
        let mut scan = db.scan(Family::Data, b"B", b"B");
        while let Some((key, value)) = scan.item()? {
            let place =
                record::payload(value).ok().flatten().and_then(|p| record::decode::<super::BlockRecord>(p).ok());
            let key = keys::split(key).and_then(|(prefix, _)| Key::parse(prefix));
            if let (Some(Key::Block(content, BlockNo(block))), Some(place)) = (key, place)
                && layers.get(&place.layer) != Some(&content)
            {
                self.problem(format!(
                    "block {block} of content {content} lies in content file {}, which is not its own",
                    place.layer
                ));
            }
            scan.next();
        }
        Ok(())
    }
}
