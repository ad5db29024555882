//! Every limit of the client, in one place. Units stand last in the names.

use std::time::Duration;

/// How long a kernel may believe what it was told: as good as for ever, since it is told of changes.
pub const CACHE_TIME: Duration = Duration::from_secs(1 << 30);
/// How much of a command line or a reason is kept and shown, in bytes.
pub const WORDS_BYTES_MAX: usize = 4096;
/// How many threads answer one kernel.
pub const FUSE_THREADS: usize = 3;
/// How many requests of the kernel's own (read-ahead, write-out) may be under way.
pub const BACKGROUND_REQUESTS_MAX: u16 = 64;
/// How many threads wait for the disk in the place of those that answer the kernel.
pub const SLOW_THREADS: usize = 4;
/// How many slow requests may wait; beyond it they are answered on the kernel's thread.
pub const SLOW_QUEUE_MAX: usize = 1024;
/// How many notices of decisions may wait for one program to read them: more than the levels of one process.
pub const NOTICES_UNREAD_MAX: usize = 4096;
/// How long a daemon may take to start.
pub const START_TIME_MAX: Duration = Duration::from_secs(120);
/// After how long somebody who waits for a daemon is told that it does not answer.
pub const SILENCE_TIME: Duration = Duration::from_secs(3);
/// How long a daemon may take to end after its mount is gone.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(60);
/// How long somebody whose question was answered may take to read the answer, once the daemon ends.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// How long after an unmount copies of the mount in other namespaces may keep it alive.
pub const LINGER_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a failure that repeats itself is not told again.
pub const REPEATED_INTERVAL: Duration = Duration::from_secs(60);
/// How long after a failure the mounts are read again.
pub const MOUNTS_PAUSE: Duration = Duration::from_millis(200);
/// The most connections of one ordinary user to a control socket.
pub const CONNECTIONS_PER_USER_MAX: u64 = 512;
/// They are also no more than one for so many descriptors that the daemon may have: an idle one takes four.
pub const CONNECTIONS_SHARE: u64 = 8;
/// How long accepting rests after an error: most of them are for want of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a thread that was found to be a job's counts as one: its number can't come to mean another so soon.
pub const INSIDER_KNOWN_TIME: Duration = Duration::from_millis(500);
/// The most threads of a job that are remembered as such.
pub const INSIDERS_KNOWN_MAX: usize = 4096;
/// How many ancestors of a process are looked at.
pub const ANCESTORS_MAX: usize = 1024;
/// How long after the end of a job's processes the kernel may take to say that their files are closed.
pub const OPEN_TIME_MAX: Duration = Duration::from_millis(50);
/// How often something that gives no signal is looked at again.
pub const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How long a process of a job waits to open a fifo until that is said.
pub const FIFO_WAIT: Duration = Duration::from_secs(5);
/// How often it is looked whether one does.
pub const FIFO_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the processes of a job may take to end after `SIGKILL`.
pub const KILL_TIME_MAX: Duration = Duration::from_secs(10);
/// The most memory for buffers and caches unless told otherwise, in bytes.
pub const MEMORY_BYTES: usize = 256 << 20;
/// The largest file whose difference is shown line by line, and whose content is given out for it, in bytes.
pub const PATCH_BYTES_MAX: u64 = 4 << 20;
/// How long a kernel may take to drop something from its caches until it counts as held up by a program that waits.
pub const HELD_UP_TIME: Duration = Duration::from_millis(20);
/// The most requests of one kernel that may wait for others at once, each on a thread of its own.
pub const PARKED_MAX: usize = 1024;
/// How long a process may take to stop, once its call was answered.
pub const STOP_CALL_TIME_MAX: Duration = Duration::from_secs(1);
/// The most checkpoints of one job: each is a process that sleeps.
pub const CHECKPOINTS_MAX: usize = 16;
/// How long `specrun` waits until what its command has left behind, and was killed, is undone.
pub const LEFT_BEHIND_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a job that is run again, or goes on from a read, waits for older ones that are run again (rule 16).
pub const ATTEMPTS_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long `specrun` waits for others before it says so.
pub const QUIET_WAIT: Duration = Duration::from_millis(500);
/// How much of a directory is listed with attributes at once, in bytes. A kernel asks for attributes with the first page only, and by name after it.
pub const LISTING_BYTES_MAX: u32 = 32 << 10;
/// The same while its kernel is told of names: it has the directory locked while it is listed, and is told of none of its names.
pub const SHORT_LISTING_BYTES_MAX: u32 = 4 << 10;
/// How often a thread that waits and has got a signal is looked at, whether it has got one that ends it.
pub const SIGNAL_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long whoever is about to have a kernel forget something waits until it has got the answers that were found before.
pub const GIVE_TIME_MAX: Duration = Duration::from_secs(10);
/// Over a host, how long a kernel believes what it was told: others change it, and do not tell.
pub const HOST_BELIEVED_TIME: Duration = Duration::from_secs(1);
/// How long the daemon over the host stays when there is nothing to do.
pub const HOST_IDLE_TIME: Duration = Duration::from_secs(20);
/// How often it looks whether there is.
pub const HOST_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The most that `status` names of what was displaced on the host.
pub const DISPLACED_MAX: usize = 1000;
/// How long a daemon over the host that a newer program has asked to end may take until it counts as one that stays.
pub const MAKE_WAY_TIME_MAX: Duration = Duration::from_secs(2);
