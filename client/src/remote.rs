//! A session with a server in another process, over a socket.

use mojavefs::limits::{
    ALIVE_INTERVAL, ANSWER_BYTES_MAX, FRAME_TIME_MAX, FRAMES_WAITING_MAX, HANDSHAKE_TIME_MAX, REQUESTS_UNDER_WAY_MAX,
    SILENCE_TIME_MAX,
};
use mojavefs::protocol::codec;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, Notice, NoticeSink, Reply, Request};
use mojavefs_net::{Address, Frame, FrameKind, Key, Stream, hello, read_frame, write_frame};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const BUFFER_BYTES: usize = 64 * 1024;

type Answer = Result<Reply, Fault>;
type Sink = Arc<RwLock<Option<Arc<dyn NoticeSink>>>>;

/// A session with a remote server.
pub(crate) struct Remote {
    frames: mpsc::Sender<Frame>,
    waiting: Arc<Waiting>,
    sink: Sink,
    /// Dropped in another thread than its own.
    _runtime: Runtime,
}

/// Requests that have no answer yet.
#[derive(Default)]
struct Waiting {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Default)]
struct State {
    last: u64,
    open: HashMap<u64, oneshot::Sender<Answer>>,
    /// Why there is no connection any more.
    lost: Option<Fault>,
}

impl Remote {
    /// Connects to the server at `address`. Errors: `AccessDenied` for `tcp:` without a key or with another than the
    /// server's, `Protocol` for a peer that is no MojaveFS of this version, `Disconnected`.
    pub(crate) fn connect(address: &Address, key: Option<&Key>) -> Result<Self, Fault> {
        let broken = |e: io::Error| Fault::new(FaultKind::Io, format!("connect to {address}: {e}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("mojavefs-net")
            .enable_all()
            .build()
            .map_err(broken)?;
        let met = runtime.block_on(async { timeout(HANDSHAKE_TIME_MAX, meet(address, key)).await });
        let stream = met.unwrap_or_else(|_| {
            Err(Fault::new(FaultKind::TimedOut, format!("{address} does not answer the handshake")))
        })?;
        let (incoming, outgoing) = tokio::io::split(stream);
        let (frames, to_write) = mpsc::channel(FRAMES_WAITING_MAX);
        let (waiting, sink) = (Arc::new(Waiting::default()), Sink::default());
        let notices = apply_notices(sink.clone(), frames.clone(), waiting.clone()).map_err(broken)?;
        let (lost, name) = (waiting.clone(), address.to_string());
        runtime.spawn(async move {
            let ended = tokio::select! {
                ended = read(BufReader::with_capacity(BUFFER_BYTES, incoming), &lost, &notices) => ended,
                ended = write(outgoing, to_write) => ended,
            };
            let why = ended.map_or_else(|error| error.to_string(), |()| "it has ended".to_owned());
            tracing::error!("the server at {name} is gone: {why}");
            lost.lose(Fault::new(FaultKind::Disconnected, format!("the server at {name} is gone: {why}")));
        });
        Ok(Remote { frames, waiting, sink, _runtime: runtime })
    }
}

async fn meet(address: &Address, key: Option<&Key>) -> Result<Box<dyn Stream>, Fault> {
    let name = address.to_string();
    let unreachable = |e: io::Error| Fault::new(FaultKind::Disconnected, format!("cannot connect to {name}: {e}"));
    let mut stream: Box<dyn Stream> = match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(unreachable)?),
        Address::Tcp(target) => {
            let denied = |why: String| Fault::new(FaultKind::AccessDenied, why);
            let key = key.ok_or_else(|| denied(format!("{name} needs --key FILE, the file that its server has")))?;
            let unusable = |e: mojavefs_net::key::KeyError| denied(e.to_string());
            let tls = TlsConnector::from(key.client().map_err(unusable)?);
            let server = Key::server_name().map_err(unusable)?;
            let stream = TcpStream::connect(target).await.map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            let other = |e: io::Error| denied(format!("{name} does not have the same key: {e}"));
            Box::new(tls.connect(server, stream).await.map_err(other)?)
        }
    };
    hello::greet(&mut stream, &name).await.map_err(|fault| match (address, fault.kind) {
        // In TLS 1.3 a client learns only after its handshake that it was not let in.
        (Address::Tcp(_), FaultKind::Disconnected) => {
            Fault::new(FaultKind::AccessDenied, format!("{fault}; does --key name the file that the server has?"))
        }
        _ => fault,
    })?;
    Ok(stream)
}

/// Applies notices on a thread of its own, in their order: a kernel may be waiting for an answer that the reading task
/// brings. The last thing that it tells is that the server is gone.
fn apply_notices(
    sink: Sink,
    frames: mpsc::Sender<Frame>,
    waiting: Arc<Waiting>,
) -> io::Result<std::sync::mpsc::Sender<(u64, Notice)>> {
    let (sender, notices) = std::sync::mpsc::channel::<(u64, Notice)>();
    let apply = move || {
        for (number, notice) in notices {
            let to = sink.read().clone();
            if let Some(to) = to {
                to.deliver(notice);
            }
            // Nobody writes it when the server is gone; then this ends with the reading task.
            let _ = frames.blocking_send(Frame::bare(FrameKind::Ack, number));
        }
        let to = sink.read().clone();
        if let Some(to) = to {
            to.lost(&waiting.why_lost());
        }
    };
    mojavefs_threads::detached("mojavefs-notices", apply)?;
    Ok(sender)
}

fn wrong(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

async fn read(
    mut incoming: BufReader<ReadHalf<Box<dyn Stream>>>,
    waiting: &Waiting,
    notices: &std::sync::mpsc::Sender<(u64, Notice)>,
) -> io::Result<()> {
    loop {
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
        let first = match timeout(SILENCE_TIME_MAX, incoming.read_u8()).await.map_err(silent)? {
            Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            first => first?,
        };
        let frame = timeout(FRAME_TIME_MAX, read_frame(&mut incoming, first, ANSWER_BYTES_MAX)).await;
        let frame = frame.map_err(silent)??;
        match frame.kind {
            FrameKind::Reply => {
                let answer = codec::decode::<Answer>(&frame.body).map_err(|e| wrong(format!("its answer: {e}")))?;
                waiting.answer(frame.number, answer);
            }
            FrameKind::Notice => {
                let notice = codec::decode::<Notice>(&frame.body).map_err(|e| wrong(format!("its notice: {e}")))?;
                notices.send((frame.number, notice)).map_err(|_| wrong("nobody applies its notices"))?;
            }
            FrameKind::Alive => {}
            FrameKind::Request | FrameKind::Ack => return Err(wrong("it asks, which only clients do")),
        }
    }
}

async fn write(outgoing: WriteHalf<Box<dyn Stream>>, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut outgoing = BufWriter::with_capacity(BUFFER_BYTES, outgoing);
    loop {
        let frame = match timeout(ALIVE_INTERVAL, frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(_) => Frame::bare(FrameKind::Alive, 0),
        };
        let written = timeout(FRAME_TIME_MAX, async {
            write_frame(&mut outgoing, &frame).await?;
            if frames.is_empty() { outgoing.flush().await } else { Ok(()) }
        });
        written.await.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it takes nothing"))??;
    }
}

impl Waiting {
    /// A place for one more answer; waits while too many are under way.
    fn enter(&self) -> Result<(u64, oneshot::Receiver<Answer>), Fault> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        while state.open.len() >= REQUESTS_UNDER_WAY_MAX && state.lost.is_none() {
            self.answered.wait(&mut state);
        }
        if let Some(why) = &state.lost {
            return Err(why.clone());
        }
        state.last += 1;
        let number = state.last;
        state.open.insert(number, sender);
        Ok((number, receiver))
    }

    fn answer(&self, number: u64, answer: Answer) {
        let waiting = self.state.lock().open.remove(&number);
        self.answered.notify_one();
        if let Some(waiting) = waiting {
            drop(waiting.send(answer));
        }
    }

    fn lose(&self, why: Fault) {
        let mut state = self.state.lock();
        state.lost = Some(why.clone());
        let unanswered = Fault { kind: FaultKind::InDoubt, ..why };
        for (_, waiting) in state.open.drain() {
            drop(waiting.send(Err(unanswered.clone())));
        }
        self.answered.notify_all();
    }

    fn why_lost(&self) -> Fault {
        let lost = self.state.lock().lost.clone();
        lost.unwrap_or_else(|| Fault::new(FaultKind::Disconnected, "the server is gone"))
    }
}

impl Connection for Remote {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let body = codec::encode(&request).map_err(|e| Fault::new(FaultKind::Protocol, e.to_string()))?;
        let (number, answer) = self.waiting.enter()?;
        let frame = Frame { kind: FrameKind::Request, number, body };
        self.frames.blocking_send(frame).map_err(|_| self.waiting.why_lost())?;
        answer.blocking_recv().unwrap_or_else(|_| Err(Fault { kind: FaultKind::InDoubt, ..self.waiting.why_lost() }))
    }

    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>) {
        *self.sink.write() = Some(sink);
    }

    fn is_embedded(&self) -> bool {
        false
    }
}
