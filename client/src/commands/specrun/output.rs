//! What a command says, held back until it is certain that it happened (`--output hold`).

use std::fs::File;
use std::io::{self, BufReader, PipeReader, Read, Seek, SeekFrom, Write};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

/// The largest piece that is kept as one, in bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// How many pieces may be on their way to the disk: then the command has to wait, as before a full pipe.
const PIECES_MAX: usize = 16;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;

/// The output of one attempt, in the order in which it was said, in a file without a name.
pub(super) struct Held {
    /// The file, once all of it was said.
    kept: Receiver<io::Result<File>>,
}

type Piece = (u8, Vec<u8>);

impl Held {
    /// Begins to hold back; the two ends are the command's standard output and error.
    pub(super) fn start() -> io::Result<(Held, Stdio, Stdio)> {
        let file = tempfile::tempfile()?;
        let (sender, pieces) = sync_channel(PIECES_MAX);
        let (stdout, stderr) = (listen(STDOUT, sender.clone())?, listen(STDERR, sender)?);
        let (sender, kept) = channel();
        mojavefs_threads::detached("specrun-output", move || drop(sender.send(keep(file, &pieces))))?;
        Ok((Held { kept }, stdout, stderr))
    }

    /// Says all of it. The command and all that it started must have ended.
    pub(super) fn release(self) -> io::Result<()> {
        let mut file = self.kept.recv().map_err(|_| io::Error::other("keeping the output failed"))??;
        file.seek(SeekFrom::Start(0))?;
        let mut file = BufReader::new(file);
        let mut head = [0u8; 5];
        loop {
            match file.read_exact(&mut head) {
                Err(end) if end.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                read => read?,
            }
            let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
            let mut piece = vec![0; length as usize];
            file.read_exact(&mut piece)?;
            match head[0] {
                STDOUT => io::stdout().write_all(&piece).and_then(|()| io::stdout().flush())?,
                _ => io::stderr().write_all(&piece)?,
            }
        }
    }
}

fn listen(from: u8, pieces: SyncSender<Piece>) -> io::Result<Stdio> {
    let (reader, writer) = io::pipe()?;
    mojavefs_threads::detached("specrun-output", move || hear(reader, from, &pieces))?;
    Ok(Stdio::from(writer))
}

fn hear(mut reader: PipeReader, from: u8, pieces: &SyncSender<Piece>) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = reader.read(&mut buffer) {
        if pieces.send((from, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn keep(mut file: File, pieces: &Receiver<Piece>) -> io::Result<File> {
    for (from, piece) in pieces {
        file.write_all(&[from])?;
        file.write_all(&(piece.len() as u32).to_le_bytes())?;
        file.write_all(&piece)?;
    }
    Ok(file)
}
