//! A connection to a kernel: threads that read requests, and whatever answers them.
//!
//! No thread that reads waits for anything but the kernel: who has to wait keeps the [`Replier`] and answers from elsewhere.

use crate::protocol::{
    Answer, HEAD_BYTES_MAX, Handshake, InitFlags, Notice, Offer, Operation, Request, accept, decode, encode,
    encode_notice,
};
use crate::sys;
use nix::errno::Errno;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many interrupts are remembered of requests that are not known yet.
const EARLY_MAX: usize = 4096;

/// Whoever carries out requests.
pub trait Handler: Send + Sync + 'static {
    /// Carries out a request, now or later; must not wait. What has no answer (FORGET) comes with one that says nothing.
    fn handle(&self, request: Request<'_>, reply: Replier);
}

/// How a connection is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is wanted of the kernel.
    pub offer: Offer,
    /// How many threads read.
    pub threads: usize,
    /// What they are called.
    pub name: &'static str,
}

/// A connection.
pub struct Connection {
    readers: Arc<Readers>,
    notifier: Notifier,
    taken: InitFlags,
    minor: u32,
}

/// Tells the kernel something by itself.
#[derive(Clone)]
pub struct Notifier(Arc<File>);

/// The threads that read.
#[derive(Default)]
struct Readers {
    state: Mutex<State>,
    one_has_ended: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    /// What has ended one of them, but for the end of the mount.
    failure: Option<io::Error>,
}

/// Whom to tell of signals to callers, by request. One that is answered at once is never in it.
#[derive(Default)]
struct Interrupts(Mutex<InterruptsState>);

#[derive(Default)]
struct InterruptsState {
    waiting: HashMap<u64, Box<dyn FnOnce() + Send>>,
    /// The last ones of requests that nobody waits for by now, or was about to: a kernel tells once, and gives no number out twice.
    early: VecDeque<u64>,
}

impl Interrupts {
    /// The caller of this request has got a signal.
    fn interrupt(&self, unique: u64) {
        let tell = {
            let mut state = self.0.lock();
            let tell = state.waiting.remove(&unique);
            if tell.is_none() {
                if state.early.len() == EARLY_MAX {
                    state.early.pop_front();
                }
                state.early.push_back(unique);
            }
            tell
        };
        if let Some(tell) = tell {
            tell();
        }
    }

    /// Calls `tell` when that happens, or at once if it has.
    fn wait(&self, unique: u64, tell: Box<dyn FnOnce() + Send>) {
        {
            let mut state = self.0.lock();
            match state.early.iter().position(|other| *other == unique) {
                Some(place) => _ = state.early.remove(place),
                None => {
                    state.waiting.insert(unique, tell);
                    return;
                }
            }
        }
        tell();
    }

    fn is_answered(&self, unique: u64) {
        self.0.lock().waiting.remove(&unique);
    }
}

/// Answers one request, once. If it is dropped without an answer, that is `EIO`.
pub struct Replier {
    unique: u64,
    /// Nothing for requests without an answer.
    device: Option<Arc<File>>,
    interrupts: Arc<Interrupts>,
    /// Somebody is to be told of a signal.
    waits: AtomicBool,
}

impl Replier {
    /// Answers; an error as the kernel numbers it.
    pub fn reply(mut self, answer: Result<Answer, i32>) {
        self.give(&answer);
    }

    /// Calls `tell` when nobody waits for the answer any more, since the caller got a signal: at once, if that has happened. It need not
    /// happen for a later signal.
    pub fn when_interrupted(&self, tell: impl FnOnce() + Send + 'static) {
        self.waits.store(true, Ordering::SeqCst);
        self.interrupts.wait(self.unique, Box::new(tell));
    }

    fn give(&mut self, answer: &Result<Answer, i32>) {
        let Some(device) = self.device.take() else { return };
        if self.waits.load(Ordering::SeqCst) {
            self.interrupts.is_answered(self.unique);
        }
        let (head, body) = encode(self.unique, answer);
        let length = head.bytes().len() + body.len();
        let pieces = [IoSlice::new(head.bytes()), IoSlice::new(body)];
        let pieces = if body.is_empty() { &pieces[..1] } else { &pieces[..] };
        match (&*device).write_vectored(pieces) {
            Ok(written) if written == length => {}
            Ok(written) => tracing::error!("the kernel took {written} of {length} bytes of an answer"),
            // Nobody waits for it any more, or the mount is gone.
            Err(error) if matches!(errno_of(&error), Errno::ENOENT | Errno::ENODEV) => {}
            Err(error) => {
                tracing::error!("the kernel does not take the answer to request {}: {error}", self.unique);
                let (head, _) = encode(self.unique, &Err(nix::libc::EIO));
                drop((&*device).write(head.bytes()));
            }
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if self.device.is_some() {
            self.give(&Err(nix::libc::EIO));
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

impl Notifier {
    /// Of the kernel behind a descriptor of a connection, whoever reads from that.
    pub fn of(device: File) -> Self {
        Notifier(Arc::new(device))
    }

    /// Tells the kernel. Blocks as the notice does (the project's `docs/views.md`); must not be called by a thread that reads, unless only
    /// attributes are told.
    ///
    /// # Errors
    /// `ENOENT` if it knows nothing of that, `ENODEV` if the mount is gone, `EINVAL` if it knows no such notice.
    pub fn tell(&self, notice: &Notice<'_>) -> io::Result<()> {
        (&*self.0).write_all(&encode_notice(notice))
    }
}

impl Connection {
    /// Agrees with the kernel behind `device`, whose mount exists, on how to talk, and has `handler` answer it, on threads of its own, until the
    /// mount is gone.
    ///
    /// # Errors
    /// The kernel lacks what is needed, the mount is gone already, or no thread can be started.
    pub fn start(device: OwnedFd, settings: &Settings, handler: Arc<impl Handler>) -> io::Result<Connection> {
        let device = Arc::new(File::from(device));
        let room = (settings.offer.io_bytes as usize).max(HEAD_BYTES_MAX) + HEAD_BYTES_MAX;
        let (taken, minor) = shake_hands(&device, &settings.offer, room)?;
        let readers = Arc::new(Readers::default());
        let interrupts = Arc::new(Interrupts::default());
        for number in 0..settings.threads.max(1) {
            let device = if number == 0 { device.clone() } else { Arc::new(sys::clone_device(&device)?) };
            let reader = Reader { device, interrupts: interrupts.clone(), handler: handler.clone(), taken };
            let all = readers.clone();
            all.state.lock().running += 1;
            let read = move || {
                let ended = Ended(all);
                if let Err(failure) = reader.run(room) {
                    tracing::error!("reading what a kernel asks: {failure}");
                    ended.0.state.lock().failure.get_or_insert(failure);
                }
            };
            mojavefs_threads::detached(settings.name, read)?;
        }
        Ok(Connection { readers, notifier: Notifier(device), taken, minor })
    }

    /// By which the kernel is told something.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// What was agreed on.
    pub fn taken(&self) -> InitFlags {
        self.taken
    }

    /// The second number of the version that is spoken; the first is 7.
    pub fn minor(&self) -> u32 {
        self.minor
    }

    /// Waits until the mount is gone.
    ///
    /// # Errors
    /// What else has ended the reading.
    pub fn join(&self) -> io::Result<()> {
        let mut state = self.readers.state.lock();
        self.readers.one_has_ended.wait_while(&mut state, |state| state.running > 0);
        state.failure.take().map_or(Ok(()), Err)
    }
}

/// One of the threads is no more when this is dropped, also if it panics.
struct Ended(Arc<Readers>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.one_has_ended.notify_all();
    }
}

fn shake_hands(device: &File, offer: &Offer, room: usize) -> io::Result<(InitFlags, u32)> {
    let gone = || io::Error::new(io::ErrorKind::NotConnected, "the mount is gone already");
    let mut buffer = vec![0; room];
    loop {
        let Some(length) = read_request(device, &mut buffer)? else { return Err(gone()) };
        let request = decode(&buffer[..length], InitFlags::NONE).map_err(io::Error::other)?;
        let Operation::Init(hello) = request.operation else {
            return Err(io::Error::other("the kernel asks for something before it has said what it can do"));
        };
        match accept(request.unique, &hello, offer) {
            Handshake::Agreed { taken, minor, answer } => {
                (&mut &*device).write_all(&answer)?;
                return Ok((taken, minor));
            }
            Handshake::Again(answer) => (&mut &*device).write_all(&answer)?,
            Handshake::Refused { why, answer } => {
                drop((&mut &*device).write_all(&answer));
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
        }
    }
}

/// The length of the next request; nothing if the mount is gone.
fn read_request(mut device: &File, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match device.read(buffer) {
            Ok(0) => return Ok(None),
            Ok(length) => return Ok(Some(length)),
            Err(error) => match errno_of(&error) {
                // One that was interrupted before it was read.
                Errno::ENOENT | Errno::EINTR | Errno::EAGAIN => {}
                Errno::ENODEV | Errno::ECONNABORTED => return Ok(None),
                _ => return Err(error),
            },
        }
    }
}

/// One of the threads.
struct Reader<H> {
    device: Arc<File>,
    interrupts: Arc<Interrupts>,
    handler: Arc<H>,
    taken: InitFlags,
}

impl<H: Handler> Reader<H> {
    fn run(&self, room: usize) -> io::Result<()> {
        let mut buffer = vec![0; room];
        while let Some(length) = read_request(&self.device, &mut buffer)? {
            match decode(&buffer[..length], self.taken) {
                Ok(request) => self.carry_out(request),
                Err(malformed) => {
                    tracing::error!("{malformed}");
                    if let Some(unique) = malformed.unique {
                        self.replier(unique).reply(Err(nix::libc::EIO));
                    }
                }
            }
        }
        Ok(())
    }

    fn carry_out(&self, request: Request<'_>) {
        if let Operation::Interrupt { unique } = request.operation {
            return self.interrupts.interrupt(unique);
        }
        let mut reply = self.replier(request.unique);
        if matches!(request.operation, Operation::Forget(_)) {
            reply.device = None;
        }
        self.handler.handle(request, reply);
    }

    fn replier(&self, unique: u64) -> Replier {
        let (device, interrupts) = (Some(self.device.clone()), self.interrupts.clone());
        Replier { unique, device, interrupts, waits: AtomicBool::new(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn an_interrupt_reaches_its_request_before_and_after_that_waits() {
        let interrupts = Arc::new(Interrupts::default());
        for is_early in [true, false] {
            let unique = 2 + u64::from(is_early) * 2;
            if is_early {
                interrupts.interrupt(unique);
            }
            let told = Arc::new(AtomicBool::new(false));
            let tell = told.clone();
            interrupts.wait(unique, Box::new(move || tell.store(true, Ordering::SeqCst)));
            assert_eq!(told.load(Ordering::SeqCst), is_early);
            interrupts.interrupt(unique);
            assert!(told.load(Ordering::SeqCst));
        }
        interrupts.wait(6, Box::new(|| panic!("it is answered")));
        interrupts.is_answered(6);
        interrupts.interrupt(6);
        assert!(interrupts.0.lock().waiting.is_empty());
    }

    #[test]
    fn interrupts_of_what_was_answered_are_forgotten() {
        let interrupts = Interrupts::default();
        (0..10 * EARLY_MAX as u64).for_each(|unique| interrupts.interrupt(unique));
        assert_eq!(interrupts.0.lock().early.len(), EARLY_MAX);
    }
}
