//! The limits of everything.

/// Speculations inside one another. Each has a process as its checkpoint.
pub(crate) const LEVELS_MAX: usize = 1000;
/// Bytes of what `/proc` says of a process in one piece, up to its signals and beyond.
pub(crate) const STATUS_BYTES: usize = 4096;
/// Bytes of a process's name, its end included.
pub(crate) const NAME_BYTES: usize = 16;
/// Descriptors that a speculating process may have open.
pub(crate) const DESCRIPTORS_MAX: usize = 1024;
/// Bytes of the paths of directories that a speculating process is in or has open, and of one such path.
pub(crate) const PLACES_BYTES_MAX: usize = 4096;
/// Locks that it may hold at the entry of a speculation.
pub(crate) const LOCKS_MAX: usize = 64;
/// Children that it may have at the entry of a speculation.
pub(crate) const CHILDREN_MAX: usize = 1024;
/// Signals that may be on their way to it then.
pub(crate) const PENDING_MAX: usize = 256;
/// Signals on their way, queued ones included, that are looked at in one step.
pub(crate) const SIGNALS_QUEUED_MAX: usize = 4096;
/// Decisions remembered.
pub(crate) const DECIDED_KEPT_MAX: usize = 1024;
/// Bytes of an explanation.
pub(crate) const WORDS_BYTES_MAX: usize = 512;
/// Where the library's own descriptors are put, if the limit on descriptors allows.
pub(crate) const OWN_DESCRIPTORS_FROM: usize = 900;
/// How many of these there are at most.
pub(crate) const OWN_DESCRIPTORS_MAX: usize = 32;
/// The stack on which an abort runs.
pub(crate) const LIBRARY_STACK_BYTES: usize = 256 << 10;
/// The stack of a sleeping checkpoint.
pub(crate) const CHECKPOINT_STACK_BYTES: usize = 16 << 10;
/// Bytes of a list of mappings or descriptors, as `/proc` gives it.
pub(crate) const TEXT_BYTES_MAX: usize = 8 << 20;
/// Mappings of a process (the kernel's own default limit).
pub(crate) const MAPPINGS_MAX: usize = 65_536;
/// Page descriptors looked at in one step.
pub(crate) const PAGES_STEP: usize = 8192;
/// Memory compared with the checkpoint's in one step, in bytes.
pub(crate) const BESIDE_BYTES: usize = 64 << 10;
/// Stretches of zeros found in one step.
pub(crate) const ZEROS_STEP: usize = 1024;
/// Pieces of memory copied in one step (`IOV_MAX`).
pub(crate) const PIECES_STEP: usize = 1024;
/// Checkpoints that may be on their way out before a new one waits for them.
pub(crate) const DYING_MAX: usize = 8;
/// Rounds of looking for children that an abort ends.
pub(crate) const CHILD_ROUNDS_MAX: usize = 1000;
