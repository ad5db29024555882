//! Contents that lie in the host's files, below everything that is recorded (`crate::origin`).

use super::db::Family;
use super::engine::{Uncached, is_cached_only, refuse};
use super::keys::{self, Key};
use super::{Batch, Inode, Reading, Sight, Store, StoreError, meta, record};
use mojavefs::id::{ContentId, Ino, IntervalId, Seq};
use mojavefs::limits::FILE_BYTES_MAX;
use mojavefs::protocol::file::{FileKind, Name};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// How deep a directory of the host's may lie.
const DEPTH_MAX: usize = 4096;

/// What has the bytes of the host's files.
pub trait HostContents: Send + Sync {
    /// Fills a buffer from a file's bytes; less only at its end. Returns how many. Blocks for the host's disk, unless only what is in memory is
    /// to be read: then nothing if that is not.
    fn read(&self, ino: Ino, bytes: HostBytes<'_>) -> Result<Option<usize>, StoreError>;

    /// Waits until nothing is being applied to the host.
    fn await_applied(&self);
}

/// Bytes of a file of the host's that are to be read.
pub struct HostBytes<'a> {
    /// Where they begin.
    pub offset: u64,
    /// Where they go to.
    pub buffer: &'a mut [u8],
    /// Only what is in memory.
    pub is_cached_only: bool,
}

impl Store {
    /// Contents that are the host's are read there from now on.
    pub(crate) fn stands_on(&self, host: Arc<dyn HostContents>) {
        let _ = self.host.set(host);
    }

    /// Where a file lies on the host, as far as is recorded: the names that lead there from its root. Nothing if it has no name any
    /// more.
    pub(crate) fn host_path(&self, sight: &Sight, ino: Ino) -> Result<Option<Vec<Name>>, StoreError> {
        let names = self.names_to(sight, ino)?;
        Ok(names.map(|names| names.into_iter().map(|(_, name)| name).collect()))
    }

    /// The same as trunk shows it, each name with the directory that it is in.
    pub(crate) fn host_names(&self, ino: Ino) -> Result<Option<Vec<(Ino, Name)>>, StoreError> {
        self.names_to(&Sight::trunk(), ino)
    }

    fn names_to(&self, sight: &Sight, ino: Ino) -> Result<Option<Vec<(Ino, Name)>>, StoreError> {
        let (mut names, mut at) = (Vec::new(), ino);
        for _ in 0..DEPTH_MAX {
            if at == Ino::ROOT {
                names.reverse();
                return Ok(Some(names));
            }
            let Some(home) = self.home(sight, at)? else { return Ok(None) };
            at = home.0;
            names.push(home);
        }
        Ok(None)
    }

    /// The directory in which a file is, and its name there.
    fn home(&self, sight: &Sight, ino: Ino) -> Result<Option<(Ino, Name)>, StoreError> {
        let changes = match sight.shows_what_is_final() {
            true => match self.homes.get(ino) {
                Ok(home) => return Ok(Some(home)),
                Err(changes) => Some(changes),
            },
            false => None,
        };
        let Some(inode) = self.inode(sight, ino)?.found.filter(|inode| inode.nlink > 0) else { return Ok(None) };
        if let Some(changes) = changes.filter(|_| inode.kind == FileKind::Directory) {
            self.homes.found(ino, &inode.home, changes);
        }
        Ok(Some(inode.home))
    }

    /// Bytes of a content that is the host's, of which `inode` says how long it is.
    pub(super) fn read_host(
        &self,
        (ino, sight): (Ino, &Sight),
        inode: &Inode,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        if let Some((content, blocks)) = self.pinned(ino)? {
            let pinned = Inode { content: Some(content), blocks, ..inode.clone() };
            let bytes = self.read_content(sight, &pinned, offset, buffer.len())?;
            buffer[..bytes.len()].copy_from_slice(&bytes);
            return Ok(());
        }
        let (len, is_cached_only) = (buffer.len(), is_cached_only());
        // What is missing at the end was cut off on the host, and is told with its next look.
        match self.host()?.read(ino, HostBytes { offset, buffer, is_cached_only })? {
            Some(_) => Ok(()),
            None => Err(refuse(Uncached::OfHost { ino, offset, len }).into()),
        }
    }

    /// Reads what was refused because it was not in memory, or because the file was being put somewhere else.
    pub(super) fn fetch_host(&self, what: &Uncached) -> Result<(), StoreError> {
        let Uncached::OfHost { ino, offset, len } = *what else { return Ok(()) };
        let host = self.host()?;
        host.await_applied();
        let mut buffer = vec![0; len];
        host.read(ino, HostBytes { offset, buffer: &mut buffer, is_cached_only: false }).map(drop)
    }

    fn host(&self) -> Result<&Arc<dyn HostContents>, StoreError> {
        self.host.get().ok_or_else(|| StoreError::corrupt("a content is a host's, and this store stands on none"))
    }

    /// The content of the store's own that has the bytes of a file of the host's, and the space that it takes, if there is one: then trunk's
    /// record refers to it.
    pub(crate) fn pinned(&self, host: Ino) -> Result<Option<(ContentId, u64)>, StoreError> {
        let inode = self.inode(&Sight::trunk(), host)?.found;
        Ok(inode.and_then(|inode| Some((inode.stored_content()?, inode.blocks))))
    }

    /// A file whose bytes are about to change has them in the store. Errors: `Changed` if they were not [pinned](Store::pin) before.
    pub(crate) fn own_content(&self, inode: &mut Inode) -> Result<(), StoreError> {
        let Some(host) = inode.content.and_then(ContentId::host) else { return Ok(()) };
        let pinned = self.pinned(host)?;
        let (content, blocks) =
            pinned.ok_or_else(|| StoreError::changed("the host's file was changed just now".into()))?;
        inode.content = Some(content);
        inode.blocks = blocks;
        Ok(())
    }

    /// Writes down what a host's file has, `size` bytes, as it comes from `read` in order; `is_still` says at the end whether that is all of
    /// one state. Then trunk's record of the file refers to it, which is no change to anybody. Whether that came to be.
    pub(crate) fn pin(
        &self,
        (host, size): (Ino, u64),
        read: impl Fn(u64, &mut [u8]) -> Result<usize, StoreError>,
        is_still: impl FnOnce() -> bool,
    ) -> Result<bool, StoreError> {
        if size > self.file_bytes_max().min(FILE_BYTES_MAX) {
            return Err(StoreError::changed("the host's file is longer than one can be here".into()));
        }
        let content = ContentId(self.next_id()?);
        let mut copy = Inode::new(FileKind::Regular, 0, (0, 0), (Ino::ROOT, Name::new()), super::now());
        copy.content = Some(content);
        let is_whole =
            self.copy_in(&mut copy, size, read)? && is_still() && self.refer_to(host, size, (content, copy.blocks))?;
        if !is_whole {
            // Nobody refers to it.
            let db = self.db()?;
            let mut writes = db.writes();
            writes.wait(meta::discarded(content, host));
            writes.apply(false)?;
        }
        Ok(is_whole)
    }

    /// Whether there was all of it.
    fn copy_in(
        &self,
        copy: &mut Inode,
        size: u64,
        read: impl Fn(u64, &mut [u8]) -> Result<usize, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut piece = vec![0; crate::limits::COPY_PIECE_BYTES.min(size) as usize];
        let mut at = 0;
        while at < size {
            let want = (size - at).min(piece.len() as u64) as usize;
            if read(at, &mut piece[..want])? < want {
                return Ok(false);
            }
            let mut batch = Batch::of_old(self);
            self.write_content(&Sight::trunk(), &mut batch, copy, at, &piece[..want])?;
            self.apply(batch)?;
            at += want as u64;
        }
        Ok(true)
    }

    /// Has the record of a file, as trunk shows it, refer to a content with the same bytes. Not if it says another size.
    fn refer_to(&self, host: Ino, size: u64, (content, blocks): (ContentId, u64)) -> Result<bool, StoreError> {
        let _writers = self.final_writes.lock();
        let Reading { found, order, .. } = self.inode(&Sight::trunk(), host)?;
        let is_it = |inode: &Inode| inode.size == size && inode.content == Some(ContentId::of_host(host));
        let (Some(inode), Some(order)) = (found.filter(is_it), order) else { return Ok(false) };
        let db = self.db()?;
        let mut writes = db.writes();
        let stored = record::encode(&Inode { content: Some(content), blocks, ..inode })?;
        writes.put(Family::Data, &keys::version(&Key::Inode(host).prefix(), order), &stored);
        writes.apply(false)?;
        Ok(true)
    }

    /// The decisions that the host has, of those whose versions still carry their intervals' numbers.
    pub(crate) fn applied(&self) -> Result<HashSet<Seq>, StoreError> {
        let db = self.db()?;
        let mut applied = HashSet::new();
        let mut scan = db.scan(Family::Meta, &[meta::APPLIED], &[meta::APPLIED]);
        while let Some((key, _)) = scan.item()? {
            applied.extend(meta::numbers(key).map(|[seq]| Seq(seq)));
            scan.next();
        }
        Ok(applied)
    }

    /// The host has this decision, and files are there what is said of them. On disk when this returns, if it is to be durable. Of
    /// decisions that are `merged` nobody asks any more.
    pub(crate) fn has_applied(
        &self,
        seq: Seq,
        signatures: &[(Ino, Vec<u8>)],
        (merged, is_durable): (&[Seq], bool),
    ) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut writes = db.writes();
        for (ino, signature) in signatures {
            writes.put(Family::Meta, &meta::key(meta::SIGNATURE, [ino.0]), signature);
        }
        merged.iter().for_each(|seq| writes.delete(Family::Meta, &meta::key(meta::APPLIED, [seq.0])));
        writes.put(Family::Meta, &meta::key(meta::APPLIED, [seq.0]), &[]);
        writes.apply(is_durable)
    }

    /// What was said of a file when something was applied to it.
    pub(crate) fn signature(&self, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
        self.db()?.get(Family::Meta, &meta::key(meta::SIGNATURE, [ino.0]))
    }

    /// The records of files say what they are on the host.
    pub(crate) fn forget_signatures(&self, files: &[Ino]) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut writes = db.writes();
        files.iter().for_each(|ino| writes.delete(Family::Meta, &meta::key(meta::SIGNATURE, [ino.0])));
        writes.apply(false)
    }

    /// What is committed and still carries the numbers of its intervals, by when it became final.
    pub(crate) fn committed(&self) -> BTreeMap<Seq, Vec<IntervalId>> {
        let mut by_seq = BTreeMap::<Seq, Vec<IntervalId>>::new();
        for (interval, committed) in &self.decided.read().committed {
            by_seq.entry(committed.seq).or_default().push(*interval);
        }
        by_seq
    }
}
