//! Every limit of the filesystem of a view, in one place. Units stand last in the names.

use std::time::Duration;

/// How many forgotten inodes are told to the server at once.
pub const FORGETS_MAX: usize = 256;
/// How often a hole is looked for again behind one that the kernel had something to write out for.
pub const HOLE_TRIES_MAX: usize = 64;
/// How long one question waits for a decision before it is asked again.
pub const AWAIT_STEP: Duration = Duration::from_secs(2);
/// How long one question waits for a lock that others have before it is asked again.
pub const OFFER_STEP: Duration = Duration::from_secs(2);
/// How often it is looked again whether a program runs, before who would write to it is refused.
pub const RUNS_TRIES_MAX: usize = 10;
/// How long between these.
pub const RUNS_INTERVAL: Duration = Duration::from_millis(5);
/// The most files that were refused to one view, and not decided yet, that are remembered.
pub const REFUSED_FILES_MAX: usize = 4096;
/// How long a call that reads others' undecided work may be kept waiting until its process is stopped for a checkpoint.
pub const CHECKPOINT_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a call is tried again for whose process there is no checkpoint.
pub const CHECKPOINT_TRIES_MAX: usize = 1000;
/// How long such a one waits for who reads a directory at that moment.
pub const LISTING_LOCK_TIME_MAX: Duration = Duration::from_secs(1);
/// How often a directory is read from its beginning because decisions changed it meanwhile.
pub const LISTING_TRIES_MAX: usize = 64;
