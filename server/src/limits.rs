//! Every limit of the server, in one place. Units stand last in the names.

use std::time::Duration;

/// The part of the memory limit that RocksDB's write buffers may take: one in so many.
pub const WRITE_BUFFER_SHARE: usize = 4;
/// The part of the memory limit that RocksDB's block cache may take: one in so many.
pub const BLOCK_CACHE_SHARE: usize = 4;
/// How large RocksDB's log may grow before buffers are written out, in bytes.
pub const LOG_BYTES_MAX: u64 = 256 << 20;
/// How many table files RocksDB keeps open.
pub const OPEN_TABLES_MAX: i32 = 256;
/// Numbers reserved at once by a counter.
pub const ID_RUN: u64 = 4096;
/// Epochs reserved at once.
pub const EPOCH_RUN: u64 = 256;
/// The longest content that lies in the record store, in bytes.
pub const INLINE_BYTES_MAX: u64 = 16 * 1024;
/// How many content files are kept open.
pub const OPEN_LAYERS_MAX: usize = 512;
/// How much is written to a content file before write-out begins, in bytes.
pub const DIRTY_LAYER_BYTES: u64 = 16 << 20;
/// From how many content files on the whole disk is synced instead of each of them.
pub const SYNC_ALL_LAYERS: usize = 64;
/// The most records that one step of background work handles.
pub const RECLAIM_STEP: usize = 1024;
/// The most records that one step of a search through the store looks at.
pub const SEARCH_STEP: usize = 16 * 1024;
/// The most contents that one walk of such a search keeps in memory; with more, it walks again.
pub const SEARCH_CONTENTS_MAX: usize = 1 << 20;
/// The most records that are handed over at once from a level to what is around it.
pub const REASSIGNED_MAX: usize = 1024;
/// So many are handed over even to an interval that has fewer.
pub const REASSIGNED_ALWAYS: usize = 64;
/// How often an operation tries again to lock names that change under it.
pub const NAME_TRIES_MAX: usize = 1000;
/// How many versions that no view can reach are named by a check.
pub const UNREACHABLE_NAMED_MAX: usize = 16;
/// How many changes of what is held are read at once when it is taken up.
pub const CHANGES_READ_MAX: usize = 4096;
/// How deep directories may nest.
pub const PARENTS_MAX: usize = 100_000;
/// How many locks all inodes share.
pub const STRIPES: usize = 64;
/// How much one copy between files moves at most, in bytes: a longer one is asked for again.
pub const COPY_BYTES_MAX: u64 = 64 << 20;
/// How much of a copy is moved at once, in bytes.
pub const COPY_PIECE_BYTES: u64 = 1 << 20;
/// For how many blocks space is allocated at once, before others have their turn.
pub const ALLOCATED_AT_ONCE: u64 = 1024;
/// How many blocks of others, or of before, are copied at once for that.
pub const COPIED_AT_ONCE: usize = 16;
/// How long a commit waits, before it is sealed, for a kernel to forget what it changes: after that it is refused.
pub const KERNEL_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a commit that is on record waits until no kernel knows anything older: after that it takes effect all the same.
pub const FORGET_TIME_MAX: Duration = Duration::from_secs(1);
/// How long who waits for a commit that is not sealed yet waits before it asks again.
pub const UPCOMING_STEP: Duration = Duration::from_millis(10);
/// How many of the last rounds are known by what they have changed, for who lists a directory page by page meanwhile.
pub const ENDED_KEPT_MAX: usize = 32;
/// How long a commit lets those read first that have waited for another one.
pub const LATE_READS_TIME_MAX: Duration = Duration::from_millis(20);
/// How long background work rests when there is nothing to do.
pub const KEEPER_IDLE: Duration = Duration::from_secs(5);
/// How often the log is written to disk while something is undecided.
pub const LOG_SYNC_INTERVAL: Duration = Duration::from_millis(100);
/// How often what was written outside jobs is written to disk while nothing is undecided.
pub const WRITE_OUT_INTERVAL: Duration = Duration::from_secs(5);
/// How often a change is tried again because of what has gone wrong for others, or for want of space.
pub const APPLY_TRIES_MAX: usize = 10;
/// How long opening the records again waits for those who still read them.
pub const REOPEN_TIME_MAX: Duration = Duration::from_secs(10);
/// How often opening the records again is tried at once.
pub const REOPEN_TRIES_MAX: usize = 10;
/// How long to wait between these tries.
pub const REOPEN_PAUSE: Duration = Duration::from_millis(20);
/// How much of the disk is kept back for removing and undoing when it is full at most, in bytes.
pub const RESERVE_BYTES_MAX: u64 = 16 << 20;
/// How much of that is given to removing at once, in bytes.
pub const REMOVING_BYTES: u64 = 1 << 20;
/// The part of a small disk that is kept back: one in so many.
pub const RESERVE_SHARE: u64 = 16;
/// How often one operation is tried again because others change what it looks at.
pub const OPERATION_TRIES_MAX: usize = 1000;
/// How many clients may be in their handshakes: one more, and the one that is longest in it is dropped.
pub const HANDSHAKES_MAX: usize = 256;
/// How many decisions are on record, to say after a restart what they came to: the last ones.
pub const OUTCOMES_RECORDED_MAX: usize = 4096;
/// In how many ranges the numbers of what one decision has committed are recorded at most.
pub const OUTCOME_RANGES_MAX: usize = 256;
/// How long a server that ends goes on answering what it was asked before.
pub const ANSWER_ALL_TIME_MAX: Duration = Duration::from_secs(60);
/// The most files changed of which it is counted how many changes a diff shows.
pub const COUNTED_CHANGES_MAX: u64 = 10_000;
/// How long one request waits for decisions at most: whoever waits longer asks again.
pub const AWAIT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a wait for any decision lasts at most.
pub const ANY_DECISION_WAIT: Duration = Duration::from_millis(200);
/// How long it counts that somebody waited for a decision, if nothing is heard of it any more.
pub const WAIT_NOTED_TIME: Duration = Duration::from_millis(500);
/// How often attributes are read again because something changed meanwhile, before the kernel is told to ask again.
pub const GIVE_TRIES_MAX: usize = 8;
/// How long a process counts as alive that was asked.
pub const PROBE_TIME: Duration = Duration::from_millis(1);
/// How long the end of a level whose process is dead is waited for.
pub const DOOM_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a commit waits for others to let go of what they have locked of what it changes, after it was changed.
pub const LOCKED_TIME_MAX: Duration = Duration::from_secs(5);
/// How long one question waits for a lock at most.
pub const LOCK_WAIT_STEP_MAX: Duration = Duration::from_secs(10);
/// How often what a hold or a vote stands for is written to disk before it is recorded, while others go on; the last time they wait.
pub const GATHER_TURNS_MAX: usize = 3;
/// How long the answer to a process that was rolled back may wait for it to be told so.
pub const TELL_TIME_MAX: Duration = Duration::from_millis(500);
/// How long a job's request waits for its process to be taken back or ended, once what it is in was undone.
pub const GO_BACK_TIME_MAX: Duration = Duration::from_secs(2);
/// How many names of one directory are noted for each kernel that has asked for them: beyond it any name counts as asked for.
pub const NAMES_PER_DIRECTORY_MAX: usize = 1 << 14;
/// The same for all directories of a view.
pub const NAMES_MAX: usize = 1 << 18;
/// How long a call that changes a name waits until other jobs' kernels were told of it.
pub const NAMES_TOLD_TIME_MAX: Duration = Duration::from_millis(100);
/// The most changed names kept for a kernel that does not take them: beyond it, it looks all names up again.
pub const INVALIDATED_NAMES_MAX: usize = 1 << 16;

/// How many removed records a reading walks through before they are cleared away.
pub(crate) const WALKED_MAX: usize = 512;
/// How long the opening of a store waits for another process that has it: a daemon whose mount has gone may not have noticed yet.
pub const LOCK_WAIT: Duration = Duration::from_secs(2);
/// The same where that process has said that it is ending.
pub const LOCK_ENDING_WAIT: Duration = Duration::from_secs(60);
/// How often it is tried meanwhile.
pub const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// How often an operation begins again to have something read from the disk, before it waits for that where it is.
pub const FETCHES_MAX: usize = 64;
