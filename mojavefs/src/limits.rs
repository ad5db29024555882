//! Every limit that client and server share, in one place. Units stand last in the names.

use std::time::Duration;

/// The length of a block, the unit of copy-on-write, in bytes.
pub const BLOCK_BYTES: u64 = 64 * 1024;
/// The longest name of a directory entry, in bytes (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// The longest name of an extended attribute, in bytes (`XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// The longest value of an extended attribute, in bytes (`XATTR_SIZE_MAX`).
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// The longest target of a symbolic link, in bytes (`PATH_MAX` less the terminator).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// The largest file, in bytes (`i64::MAX` rounded down to a block, so that offsets stay signed).
pub const FILE_BYTES_MAX: u64 = (i64::MAX as u64 / BLOCK_BYTES) * BLOCK_BYTES;
/// The most hard links to one file.
pub const LINKS_MAX: u32 = 65_000;
/// The largest read or write in one request, in bytes.
pub const IO_BYTES_MAX: usize = 1024 * 1024;
/// The largest request on a socket, in bytes: one write, or one forget, and what describes it.
pub const REQUEST_BYTES_MAX: usize = IO_BYTES_MAX + 64 * 1024;
/// The largest answer or notice on a socket, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many bytes a value may say that it has when it is decoded: more than any has. A length alone must not make anybody reserve
/// memory that there is not.
pub const DECODED_BYTES_MAX: usize = 1 << 30;
/// The most entries in one answer of a directory listing.
pub const LISTING_ENTRIES_MAX: usize = 1024;
/// The most names of a listing that are looked up at once: about as many as fit into a kernel's page.
pub const GLANCES_MAX: usize = 24;
/// The most changes in one page of a diff.
pub const DIFF_PAGE_MAX: usize = 512;
/// The most invalidations in one notice: more of them take several.
pub const INVALIDATIONS_MAX: usize = 4096;
/// The most conflicting paths kept and named for one speculation; further ones are only counted.
pub const CONFLICTS_MAX: usize = 1000;
/// The most decisions that are named of those which the host does not have yet.
pub const UNAPPLIED_MAX: usize = 1000;
/// The most paths that are named of each of them.
pub const UNAPPLIED_PATHS_MAX: usize = 20;
/// How deep jobs may nest.
pub const NESTING_MAX: usize = 64;
/// How deep the levels of processes may nest, with the jobs around them: as deep as one process can go in the deepest job.
pub const LEVELS_NESTING_MAX: usize = 1000 + NESTING_MAX;
/// How long a peer may take over the handshake.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the rest of a frame may take after its first byte, and the writing of one.
pub const FRAME_TIME_MAX: Duration = Duration::from_secs(30);
/// How often either side says that it is there.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// After how long without a word a peer counts as gone.
pub const SILENCE_TIME_MAX: Duration = Duration::from_secs(30);
/// How many frames wait to be written before whoever has more must wait.
pub const FRAMES_WAITING_MAX: usize = 64;
/// How long the server waits for a view to apply invalidations before it drops the view.
pub const NOTICE_TIME_MAX: Duration = Duration::from_secs(10);
/// The most requests one remote session may have under way.
pub const REQUESTS_UNDER_WAY_MAX: usize = 256;
/// How long something may be just being decided before requests that wait for it end in an error.
pub const ROUND_TIME_MAX: Duration = Duration::from_secs(30);
/// How long one question of who waits on waits for that before it is asked again.
pub const ROUND_STEP: Duration = Duration::from_secs(2);
/// The most sessions of one server.
pub const SESSIONS_MAX: usize = 1024;
/// How many decided speculations the graph remembers, to answer late decisions.
pub const OUTCOMES_KEPT_MAX: usize = 4096;
/// The most undecided intervals of one graph.
pub const GRAPH_INTERVALS_MAX: usize = 1 << 20;
/// The most contexts of one graph.
pub const GRAPH_CONTEXTS_MAX: usize = 1 << 16;
/// How many intervals the history of a graph's naive model holds before it is cut.
pub const NAIVE_INTERVALS_MAX: usize = 512;
/// With how many undecided intervals a graph's naive model gives up.
pub const NAIVE_LIVE_MAX: usize = 512;
/// Of which of all pairs of intervals it is compared whether one builds on the other: one in so many.
pub const NAIVE_PAIRS_SHARE: u64 = 4;
/// How many steps of comparing what is under undecided intervals are taken after an event: each that is asked about takes
/// as many as there are.
pub const NAIVE_STEPS_MAX: usize = 4096;
/// Up to how many undecided intervals it is compared for all contexts after an event what they see and carry; beyond, for one by
/// turns.
pub const NAIVE_NUMBERS_MAX: usize = 12;
/// How many events are told of when a graph and its naive model differ: the last ones.
pub const NAIVE_EVENTS_TOLD: usize = 64;
/// The most links of one explanation of a rollback.
pub const WHY_LINKS_MAX: usize = 64;
