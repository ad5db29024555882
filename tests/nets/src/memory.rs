//! How much memory the processes have that work on a mount. Where it is short they are in a memory cgroup of their own, beside a
//! process that reads more than fits: the kernel takes pages from them while they work, and in the midst of their calls. Mapped
//! pages are dropped and read again, changed ones are written out when nobody asked for it.

mod cgroup;

use crate::worker;
pub use cgroup::Reclaimed;
use cgroup::{Cgroup, Found, Part};
use mojavefs_harness::Mount;
use nix::unistd::geteuid;
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// What all processes of a group have together, in bytes: enough for the nested jobs of a program, none of which can be killed.
const LIMIT: u64 = 32 << 20;
/// What is read again and again beside them: more than fits.
const READ_BESIDE: u64 = 2 * LIMIT;
/// Between two times that all is reclaimed that can be.
const PAUSE: Duration = Duration::from_millis(10);

/// How much memory those that work have.
#[derive(Debug)]
pub enum Memory {
    /// As much as there is.
    Ample,
    /// Too little for what they do.
    Short(Group),
    /// As much as there is, but what the kernel has cached is dropped all the time, as far as nobody has it mapped.
    Dropped(Repeated),
}

/// Processes that share too little memory. They are killed when this is dropped.
#[derive(Debug)]
pub struct Group {
    // Dropped in this order: who reclaims or reads must not outlast the group.
    _reclaims: Repeated,
    _reads: Reader,
    cgroup: Arc<Cgroup>,
}

impl Memory {
    /// Too little for what is done on this mount; where this host has no memory cgroup for us, says so and does what else it can.
    pub fn short(mount: &Mount) -> Memory {
        match Group::new(&mount.beside("read-beside")) {
            Ok(group) => Memory::Short(group),
            Err(why) if geteuid().is_root() => {
                println!("without memory pressure, caches are dropped only: {why}");
                Memory::Dropped(Repeated::new(|| std::fs::write("/proc/sys/vm/drop_caches", "1").expect("drop caches")))
            }
            Err(why) => {
                println!("without memory pressure: {why}");
                Memory::Ample
            }
        }
    }

    /// A command that has this much.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Memory::Ample | Memory::Dropped(_) => Command::new(program),
            Memory::Short(group) => group.cgroup.command(Part::Work, program),
        }
    }

    /// What was taken so far from those that work; nothing where there is no memory cgroup.
    pub fn reclaimed(&self) -> Option<Reclaimed> {
        match self {
            Memory::Ample | Memory::Dropped(_) => None,
            Memory::Short(group) => Some(group.cgroup.reclaimed()),
        }
    }
}

impl Group {
    fn new(file: &Path) -> Result<Group, String> {
        let cgroup = Arc::new(Cgroup::new(&Found::here()?, LIMIT)?);
        let reads = Reader::new(&cgroup, file);
        let reclaimed = cgroup.clone();
        Ok(Group { _reclaims: Repeated::new(move || reclaimed.reclaim(LIMIT)), _reads: reads, cgroup })
    }
}

/// Does something again and again, until it is dropped.
#[derive(Debug)]
pub struct Repeated {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Repeated {
    fn new(work: impl Fn() + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                work();
                std::thread::sleep(PAUSE);
            }
        });
        Repeated { over, thread: Some(thread) }
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking(), "who reclaims has failed");
    }
}

/// A process that reads a file again and again, until it is dropped.
#[derive(Debug)]
struct Reader(Child, PathBuf);

impl Reader {
    fn new(cgroup: &Cgroup, file: &Path) -> Self {
        File::create(file).and_then(|file| file.set_len(READ_BESIDE)).expect("a file of the host");
        let mut command = cgroup.command(Part::Beside, worker::program());
        command.arg("--read-for-ever").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        Reader(command.spawn().expect("nets-worker runs"), file.to_owned())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}
