//! The files of a process: in a job, its changes to them are undone with it.
//!
//! At its first speculation the process gets a view of its own over the filesystem's path, in a mount namespace of its own,
//! as `specrun` gives one to its job. From then on the server is told of each level as it is entered and decided.

#![allow(unsafe_code)]

use crate::arena::{self, Arena};
use crate::level;
use crate::sys::{self, Errno, Mask};
use crate::vote;
use mojavefs::id::SpecId;
use mojavefs::protocol::codec;
use mojavefs::protocol::control::{Answer, Ask, Start, WATCHED_CONFLICT};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_attach::control::{answer, ask, put, unexpected};
use mojavefs_attach::find::Filesystem;
use mojavefs_attach::places::Table;
use mojavefs_attach::{Opened, cover, descriptors, namespace};
use std::ffi::{CStr, OsStr};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// [`mojavefs_attach::MOUNTPOINT_VARIABLE`], for C.
const MOUNTPOINT_NAME: &CStr = c"MOJAVEFS_MOUNTPOINT";

/// The code of a speculation that was undone because it depended on another's that was.
pub(crate) const FELL: i32 = 255;
/// The code of a speculation that can't be committed: somebody else changed what it changed.
pub(crate) const CONFLICT: i32 = 254;

/// Sent by the kernel when others have undone something. It must be one that does nothing by default: it may come when the
/// process has just begun to run another program. Its own use is with connections, which a speculating process has none of.
pub(crate) const SIGNAL: i32 = libc::SIGURG;

/// A question to undo something, with its length before it.
const UNDO_BYTES_MAX: usize = 64;

/// What keeps a process from having its files undone.
#[derive(Debug)]
pub(crate) struct Refused {
    why: String,
    errno: i32,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

fn errno_of(fault: &Fault) -> i32 {
    match fault.kind {
        FaultKind::Unsupported => libc::ENOTSUP,
        _ => libc::EIO,
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Refused { why: fault.to_string(), errno: errno_of(&fault) }
    }
}

impl Refused {
    /// What `errno` says of it.
    pub(crate) fn errno(&self) -> i32 {
        self.errno
    }
}

fn fault(what: &str) -> impl FnOnce(Fault) -> Refused {
    move |fault| Refused { why: format!("{what}: {fault}"), errno: errno_of(&fault) }
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Refused {
    move |error| Refused { why: format!("{what}: {error}"), errno: libc::EIO }
}

/// The connection to the daemon, once there is a view. It is noted where no abort takes it back, and no `fork` has it copied.
pub(crate) fn daemon() -> Option<ManuallyDrop<UnixStream>> {
    let fd = arena::existing()?.daemon;
    // SAFETY: one of the library's descriptors, which is never closed while it is noted there.
    (fd != 0).then(|| ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(fd) }))
}

/// A further connection to the daemon.
pub(crate) fn connect() -> Option<UnixStream> {
    let mountpoint = std::env::var_os(mojavefs_attach::MOUNTPOINT_VARIABLE)?;
    Filesystem::find(Some(Path::new(&mountpoint))).ok()?.connect().ok()
}

/// Whether the process has a view of its own.
pub(crate) fn attached() -> bool {
    daemon().is_some()
}

/// Where the filesystem is mounted, in a process that is to have a view of it and has none yet.
fn mountpoint() -> Option<&'static Path> {
    if attached() {
        return None;
    }
    // SAFETY: the process has one thread, which changes no environment meanwhile. Rust's own way takes a lock, in memory of
    // which each `fork` would have a copy made.
    let value = unsafe { libc::getenv(MOUNTPOINT_NAME.as_ptr()) };
    // SAFETY: it ends with a NUL, and stays until the environment is changed.
    (!value.is_null()).then(|| Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(value) }.to_bytes())))
}

/// Signals by which a program is ended that does not handle them.
const ENDING: [i32; 5] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGALRM, libc::SIGTERM];

/// Runs what may have to wait for the daemon. As in any call on the filesystem, it is waited for as long as it takes, but a
/// signal ends the program if that would end it elsewhere: one that `mask`, the program's own, lets through, and that has
/// no handler. All others are blocked.
pub(crate) fn mortally<T>(mask: Mask, wait: impl FnOnce() -> T) -> T {
    let blocked = sys::set_mask(all_but_ending(mask));
    let done = wait();
    sys::set_mask(blocked);
    done
}

/// All signals but those that end a program which lets these through and has no handler for them.
pub(crate) fn all_but_ending(mask: Mask) -> Mask {
    !sys::unhandled(&ENDING, mask)
}

/// Gives the process a view of its own, if `specrun` started it and it has none yet.
pub(crate) fn attach(arena: &mut Arena) -> Result<(), Refused> {
    match mountpoint() {
        Some(mountpoint) => mortally(arena.mask, || attach_to(mountpoint, arena)),
        None => Ok(()),
    }
}

/// The descriptors that a process without a view has on the filesystem, which are opened again when it gets one.
pub(crate) fn on_the_filesystem() -> Vec<i32> {
    mountpoint().map_or_else(Vec::new, opened_below)
}

/// Apart from the above for its room on the stack, of which each `fork` would have a copy made.
#[inline(never)]
fn opened_below(mountpoint: &Path) -> Vec<i32> {
    let device = |path: &Path| mojavefs_attach::sys::cached_stat(path).map(|stat| stat.device);
    let Ok(here) = device(mountpoint) else { return Vec::new() };
    // Whatever the path: the filesystem may be mounted in other places, too.
    let there = |entry: &std::fs::DirEntry| device(&entry.path()).is_ok_and(|there| there == here);
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().filter(there);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn attach_to(mountpoint: &Path, arena: &mut Arena) -> Result<(), Refused> {
    let filesystem = match Filesystem::find(Some(mountpoint)) {
        Ok(filesystem) => filesystem,
        // The variable was passed on from a job to where its filesystem is not.
        Err(why) if why.kind == FaultKind::NotFound => return Ok(()),
        Err(why) => return Err(fault("a view of its own")(why)),
    };
    let inherited = descriptors::on(&Table::of(&filesystem).map_err(fault("a view of its own"))?);
    namespace::enter().map_err(fault("a view of its own"))?;
    let Opened { stream, view, mount, .. } =
        mojavefs_attach::open(&filesystem, Start::Process { parent: filesystem.view })
            .map_err(fault("a view of its own"))?;
    let tell = |what: &Ask| ask(&stream, what, None).map(drop);
    let cover = cover::cover(&filesystem, &mount, &tell).map_err(fault("a view of its own"))?;
    arena.view_device = Some(cover.device);
    inherited.reopen(&mount).map_err(fault("its descriptors"))?;
    let watch = filesystem.connect().map_err(fault("the daemon"))?;
    match ask(&watch, &Ask::Watch { view }, None).map_err(fault("the daemon"))?.0 {
        Answer::Done => {}
        other => return Err(fault("the daemon")(unexpected(&other))),
    }
    let stream = keep(arena, stream)?;
    arena.watch = keep(arena, watch)?.into_raw_fd();
    listen(arena.watch).map_err(failed("listen to the daemon"))?;
    arena.daemon = stream.into_raw_fd();
    Ok(())
}

/// Moves a descriptor out of the program's way, and notes it as the library's.
fn keep(arena: &mut Arena, fd: impl Into<OwnedFd>) -> Result<OwnedFd, Refused> {
    let fd = fd.into();
    let moved = arena.out_of_the_way(fd.into_raw_fd());
    let noted = moved.and_then(|moved| arena.note_own(moved).map(|()| moved));
    let moved = noted.map_err(|Errno(errno)| failed("a descriptor")(io::Error::from_raw_os_error(errno)))?;
    // SAFETY: the kernel has just given us this number.
    Ok(unsafe { OwnedFd::from_raw_fd(moved) })
}

/// The kernel sends a signal whenever something comes.
fn listen(fd: i32) -> io::Result<()> {
    // SAFETY: plain system calls; the handler may run at any time.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = hear as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigfillset(&raw mut action.sa_mask);
        let flags = libc::fcntl(fd, libc::F_GETFL);
        let done = libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut()) == 0
            && libc::fcntl(fd, libc::F_SETOWN, libc::getpid()) == 0
            && libc::fcntl(fd, F_SETSIG, SIGNAL) == 0
            && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_ASYNC | libc::O_NONBLOCK) == 0;
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

const F_SETSIG: i32 = 10;

/// Others have undone something: if it was a level of this process, it goes back to where it entered that.
extern "C" fn hear(_signal: i32) {
    let Some(arena) = arena::existing() else { return };
    let mut outermost: Option<(usize, i32)> = None;
    let mut number = [0u8; 8];
    while let Ok(8) = sys::read(arena.watch, &mut number) {
        let number = u64::from_le_bytes(number);
        let code = if number & WATCHED_CONFLICT == 0 { FELL } else { CONFLICT };
        let found = arena.undecided().position(|level| level.spec == number & !WATCHED_CONFLICT);
        outermost = match (outermost, found.map(|at| (at, code))) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    if let Some((at, code)) = outermost {
        // The program was interrupted anywhere: nothing is said to the daemon before memory is put back.
        level::fall(arena, at, code)
    }
}

/// Tells the server that a level is entered, if there is a view. [`entered`] waits for what it says to that: what has to be
/// done here goes on meanwhile.
pub(crate) fn announce(own: Option<SpecId>) -> Result<(), Refused> {
    daemon().map_or(Ok(()), |daemon| put(&daemon, &Ask::Enter { own }).map_err(Refused::from))
}

/// The number that the speculation has there which was announced, if there is a view.
pub(crate) fn entered(mask: Mask) -> Result<Option<SpecId>, Refused> {
    let Some(daemon) = daemon() else { return Ok(None) };
    match mortally(mask, || answer(&daemon)) {
        Ok((Answer::Started { spec, .. }, _)) => Ok(Some(spec)),
        Ok((other, _)) => Err(fault("the daemon")(unexpected(&other))),
        Err(why) => Err(why.into()),
    }
}

/// Both in one.
pub(crate) fn enter(mask: Mask) -> Result<Option<SpecId>, Refused> {
    mortally(mask, drain)?;
    announce(None)?;
    entered(mask)
}

/// Has a level undone, or says that the process has left one that was. None of the children started in it is left, so
/// nothing more comes from it.
pub(crate) fn undo(mask: Mask, spec: u64) {
    ask_to_undo(mask, spec);
    undone(mask);
}

/// Has a level undone. [`undone`] takes the answer: what has to be put back here, other than files, is meanwhile.
pub(crate) fn ask_to_undo(mask: Mask, spec: u64) {
    let asked = mortally(mask, || {
        let drained = drain().is_ok();
        let daemon = daemon()?;
        Some(vote::forget_asked(&daemon).and_then(|()| put(&daemon, &Ask::Undo { spec: SpecId(spec), drained })))
    });
    if let Some(Err(fault)) = asked {
        not_taken_back(&fault.to_string());
    }
}

/// Has a level undone, or says that the process leaves one that was, without any memory of the program's.
pub(crate) fn ask_to_undo_in_place(arena: &mut Arena, spec: u64) {
    let mut message = [0u8; UNDO_BYTES_MAX];
    let (length, body) = message.split_at_mut(size_of::<u32>());
    let Ok(bytes) = codec::encode_to(&Ask::Undo { spec: SpecId(spec), drained: false }, body) else {
        not_taken_back("the question is too long")
    };
    length.copy_from_slice(&(bytes as u32).to_le_bytes());
    let daemon = arena.daemon;
    let asked = mortally(arena.mask, || {
        vote::discard_asked(arena)?;
        sys::send(daemon, &message[..size_of::<u32>() + bytes])
    });
    if asked.is_err() {
        not_taken_back("the daemon has gone");
    }
}

/// Waits until the level is undone, without any memory of the program's.
pub(crate) fn await_undone(daemon: i32, mask: Mask) {
    let begins = || loop {
        match sys::peek(daemon) {
            Err(Errno(libc::EINTR)) => {}
            other => break other == Ok(1),
        }
    };
    if !mortally(mask, begins) {
        not_taken_back("the daemon has gone");
    }
}

/// The answer to [`ask_to_undo`].
pub(crate) fn undone(mask: Mask) {
    if let Some(Err(fault)) = daemon().map(|daemon| mortally(mask, || answer(&daemon))) {
        not_taken_back(&fault.to_string());
    }
}

/// Runs what looks names up without acting on them: what others have undecided there is not looked at. Where the daemon does not
/// take that for it, nothing is looked up.
pub(crate) fn glancing(mask: Mask, look: impl FnOnce()) {
    let Some(daemon) = daemon() else { return };
    let tell = |on| mortally(mask, || ask(&daemon, &Ask::Glancing { on }, None));
    if tell(true).is_ok() {
        look();
        // What can't be told is over with the daemon.
        drop(tell(false));
    }
}

/// Whatever the process did from here on would be on top of what is undone.
fn not_taken_back(why: &str) -> ! {
    let lost = arena::existing().and_then(|arena| arena.lost().ok().flatten());
    let why = if lost.is_some() { "the program has closed the library's connection to the daemon" } else { why };
    let what = b"libmojave: the filesystem does not take the process back from what is undone; it ends: ";
    sys::die(&[what, why.as_bytes()])
}

/// Where `specrun` says which speculation its command runs in.
const SPEC_VARIABLE: &str = "MOJAVEFS_SPEC";

/// Whether the process's outermost levels are decided by themselves: those of a job's processes are with the job, after their
/// end.
pub(crate) fn decides_alone() -> bool {
    std::env::var_os(SPEC_VARIABLE).is_none()
}

/// Said where that is not so.
pub(crate) const UNWRITTEN: &str = "what was written to mapped files can't be written out";

/// Files that are mapped belong to the level in which they are written: what the kernel holds is written out before it ends.
pub(crate) fn drain() -> Result<(), Refused> {
    let unwritten = |arena: &mut Arena| {
        arena.look_at_kept();
        attached() && arena.look_at_shared().map_or(true, |shared| shared.unwritten)
    };
    match arena::existing().is_some_and(unwritten) {
        true => Err(Refused { why: UNWRITTEN.to_owned(), errno: libc::EIO }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_called_alike_everywhere() {
        assert_eq!(MOUNTPOINT_NAME.to_str(), Ok(mojavefs_attach::MOUNTPOINT_VARIABLE));
    }
}
