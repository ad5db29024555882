//! One client of a listening server.

use super::sink::RemoteSink;
use super::{Connected, Host, may_enter};
use crate::limits::ANSWER_ALL_TIME_MAX;
use mojavefs::limits::{
    ALIVE_INTERVAL, ANSWER_BYTES_MAX, FRAME_TIME_MAX, FRAMES_WAITING_MAX, HANDSHAKE_TIME_MAX, REQUEST_BYTES_MAX,
    REQUESTS_UNDER_WAY_MAX, SILENCE_TIME_MAX,
};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, Reply, Request, SpecOp, ViewOp, codec};
use mojavefs_net::hello::{self, Verdict};
use mojavefs_net::{Frame, FrameKind, Stream, read_frame, write_frame};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

const BUFFER_BYTES: usize = 64 * 1024;
/// How often a server that ends looks whether all is answered.
const ANSWERS_LOOK_INTERVAL: Duration = Duration::from_millis(2);

type Incoming = BufReader<ReadHalf<Box<dyn Stream>>>;

fn garbage(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

fn slow<T>(what: &str) -> impl FnOnce(T) -> io::Error {
    let text = format!("{what} took too long");
    move |_| io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Greets whoever has connected, and serves it until it is gone.
pub(super) async fn meet(connected: Connected, host: Arc<Host>) {
    let mut stopping = host.stopping.clone();
    let turn = host.handshakes.arrive();
    let met = tokio::select! {
        met = timeout(HANDSHAKE_TIME_MAX, shake_hands(connected, &host.sessions)) => met,
        () = turn.sent_away() => Ok(Err(io::Error::other("too many came after it"))),
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    drop(turn);
    match met.unwrap_or_else(|late| Err(slow("the handshake")(late))) {
        Ok(Met::Welcome(stream, place)) => {
            let served = serve(stream, host).await;
            if let Err(error) = served {
                tracing::warn!("a client was dropped: {error}");
            }
            drop(place);
        }
        Ok(Met::Refused(verdict)) => tracing::warn!("a client was sent away: {verdict:?}"),
        Ok(Met::Foreign) => tracing::warn!("a client was sent away: it does not speak the protocol of MojaveFS"),
        Err(error) => tracing::warn!("a client did not get through the handshake: {error}"),
    }
}

/// What came of a handshake.
enum Met {
    /// A client, with one of the places for sessions.
    Welcome(Box<dyn Stream>, OwnedSemaphorePermit),
    Refused(Verdict),
    Foreign,
}

/// A place is taken when it is certain that whoever has connected may have one.
async fn shake_hands(connected: Connected, places: &Arc<Semaphore>) -> io::Result<Met> {
    let (mut stream, may_enter): (Box<dyn Stream>, bool) = match connected {
        Connected::Unix(stream) => {
            let uid = stream.peer_cred()?.uid();
            (Box::new(stream), may_enter(uid))
        }
        Connected::Tcp(stream, tls) => {
            stream.set_nodelay(true)?;
            (Box::new(tls.accept(stream).await?), true)
        }
    };
    let place = if may_enter { places.clone().try_acquire_owned().ok() } else { None };
    let verdict = match &place {
        Some(_) => Verdict::Welcome,
        None if may_enter => Verdict::Full,
        None => Verdict::Denied,
    };
    Ok(match (hello::welcome(&mut stream, verdict).await?, place) {
        (Some(Verdict::Welcome), Some(place)) => Met::Welcome(stream, place),
        (Some(verdict), _) => Met::Refused(verdict),
        (None, _) => Met::Foreign,
    })
}

async fn serve(stream: Box<dyn Stream>, host: Arc<Host>) -> io::Result<()> {
    let (incoming, outgoing) = tokio::io::split(stream);
    let (frames, to_write) = mpsc::channel(FRAMES_WAITING_MAX);
    let sink = Arc::new(RemoteSink::new(frames.clone()));
    let session = host.server.connect(false);
    session.set_notice_sink(sink.clone());
    let (end, ended) = oneshot::channel();
    let mut writing = tokio::spawn(write(outgoing, to_write, sink.clone(), ended));
    let client = Client { session, frames, under_way: Arc::default(), answers: Arc::default(), sink: sink.clone() };
    let (result, orderly) = tokio::select! {
        result = client.read(BufReader::with_capacity(BUFFER_BYTES, incoming)) => (result, false),
        () = sink.hung_up() => (Ok(()), false),
        () = client.answer_all(host.stopping.clone()) => (Ok(()), true),
    };
    sink.close();
    drop(end);
    if !orderly || timeout(FRAME_TIME_MAX, &mut writing).await.is_err() {
        writing.abort();
    }
    // Closing a session undoes what its client left undecided, which takes locks and the disk. It counts as one of the
    // server's sessions until then.
    let closed = tokio::task::spawn_blocking(move || drop(client)).await;
    result.and(closed.map_err(io::Error::other))
}

/// Writes frames as they come, and a word now and then when none come. At the end, those that have come before.
async fn write(
    outgoing: WriteHalf<Box<dyn Stream>>,
    mut frames: mpsc::Receiver<Frame>,
    sink: Arc<RemoteSink>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut outgoing = BufWriter::with_capacity(BUFFER_BYTES, outgoing);
    loop {
        let next = tokio::select! {
            biased;
            next = timeout(ALIVE_INTERVAL, frames.recv()) => next,
            _ = &mut ended => return,
        };
        let frame = match next {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(_) => Frame::bare(FrameKind::Alive, 0),
        };
        let written = timeout(FRAME_TIME_MAX, async {
            write_frame(&mut outgoing, &frame).await?;
            if frames.is_empty() { outgoing.flush().await } else { Ok(()) }
        });
        if !matches!(written.await, Ok(Ok(()))) {
            return sink.hang_up();
        }
    }
}

/// What the threads that answer share.
#[derive(Clone)]
struct Client {
    session: Arc<dyn Connection>,
    frames: mpsc::Sender<Frame>,
    under_way: Arc<AtomicUsize>,
    answers: Arc<Answers>,
    sink: Arc<RemoteSink>,
}

/// The answers that a client waits for.
#[derive(Default)]
struct Answers {
    /// Those that are to be given before the server ends.
    due: AtomicUsize,
    /// The server ends: nothing more is begun.
    ending: AtomicBool,
}

impl Client {
    async fn read(&self, mut incoming: Incoming) -> io::Result<()> {
        loop {
            let first = match timeout(SILENCE_TIME_MAX, incoming.read_u8()).await {
                Ok(Ok(byte)) => byte,
                Ok(Err(end)) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(late) => return Err(slow("the next word")(late)),
            };
            let frame = timeout(FRAME_TIME_MAX, read_frame(&mut incoming, first, REQUEST_BYTES_MAX));
            let frame = frame.await.unwrap_or_else(|late| Err(slow("a frame")(late)))?;
            match frame.kind {
                FrameKind::Request => self.start(frame)?,
                FrameKind::Ack => self.sink.acknowledge(frame.number),
                FrameKind::Alive => {}
                FrameKind::Reply | FrameKind::Notice => return Err(garbage("only a server answers")),
            }
        }
    }

    /// Returns once the server is to end and what was asked before is answered.
    async fn answer_all(&self, mut stopping: watch::Receiver<bool>) {
        let _ = stopping.wait_for(|stop| *stop).await;
        self.answers.ending.store(true, Ordering::SeqCst);
        let all = async {
            while self.answers.due.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(ANSWERS_LOOK_INTERVAL).await;
            }
        };
        if timeout(ANSWER_ALL_TIME_MAX, all).await.is_err() {
            tracing::error!("a client was not answered: what it has asked takes too long");
        }
    }

    /// Answers on another thread. The number of these is the client's to keep to: waiting here would keep acknowledgements
    /// back that requests under way wait for.
    fn start(&self, frame: Frame) -> io::Result<()> {
        if self.under_way.fetch_add(1, Ordering::SeqCst) >= REQUESTS_UNDER_WAY_MAX {
            return Err(garbage(format!("more than {REQUESTS_UNDER_WAY_MAX} requests at once")));
        }
        self.answers.due.fetch_add(1, Ordering::SeqCst);
        if self.answers.ending.load(Ordering::SeqCst) {
            self.answers.due.fetch_sub(1, Ordering::SeqCst);
            return Ok(());
        }
        let client = self.clone();
        let answer = move || {
            let _in_panic = HangUp(&client.sink);
            let (reply, due) = client.answer(&frame);
            client.under_way.fetch_sub(1, Ordering::SeqCst);
            // Nobody is left to be told when this fails.
            drop(client.frames.blocking_send(reply));
            if due {
                client.answers.due.fetch_sub(1, Ordering::SeqCst);
            }
        };
        drop(tokio::task::spawn_blocking(answer));
        Ok(())
    }

    /// The reply, and whether it is still due.
    fn answer(&self, frame: &Frame) -> (Frame, bool) {
        let mut due = true;
        let result = match codec::decode::<Request<'_>>(&frame.body) {
            Ok(request) => {
                if is_a_wait(&request) {
                    // It waits for what does not come once the server ends.
                    self.answers.due.fetch_sub(1, Ordering::SeqCst);
                    due = false;
                }
                self.session.call(request)
            }
            Err(error) => Err(Fault::new(FaultKind::Protocol, format!("the server cannot read the request: {error}"))),
        };
        let body = encode(&result).unwrap_or_else(|fault| encode(&Err(fault)).unwrap_or_default());
        (Frame { kind: FrameKind::Reply, number: frame.number, body }, due)
    }
}

fn encode(result: &Result<Reply, Fault>) -> Result<Vec<u8>, Fault> {
    let body = codec::encode(result).map_err(|e| Fault::new(FaultKind::Protocol, e.to_string()))?;
    match body.len() <= ANSWER_BYTES_MAX {
        true => Ok(body),
        false => Err(Fault::new(FaultKind::TooLarge, format!("the answer has {} bytes, too many to send", body.len()))),
    }
}

/// Ends the connection of a request whose answer panics: a client must not wait for it for ever.
struct HangUp<'a>(&'a RemoteSink);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.hang_up();
        }
    }
}

/// Whether it is answered only when others have done something.
fn is_a_wait(request: &Request<'_>) -> bool {
    match request {
        Request::Speculation { op, .. } => matches!(op, SpecOp::Await { .. }),
        Request::View(op) => matches!(op, ViewOp::AwaitRound { .. }),
        Request::Fs { .. } | Request::Admin(_) => false,
    }
}
