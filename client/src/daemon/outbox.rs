//! What is said on a control connection. Answers wait for their reader, on the thread that has them; notices come from threads
//! on which all of the filesystem may wait, and never do.

use crate::control::{encode, send};
use crate::limits::NOTICES_UNREAD_MAX;
use mojavefs::protocol::control::Answer;
use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// One connection's.
pub(super) struct Outbox {
    stream: UnixStream,
    notices: Mutex<Notices>,
    /// Held by whoever writes, for whole messages.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Notices {
    /// In order; of the first one a part may be sent.
    unsent: VecDeque<Vec<u8>>,
    /// There is a thread that waits for the reader.
    waits: bool,
    /// The reader was cut off.
    over: bool,
}

impl Outbox {
    pub(super) fn new(stream: &UnixStream) -> io::Result<Arc<Outbox>> {
        Ok(Arc::new(Outbox { stream: stream.try_clone()?, notices: Mutex::default(), writing: Mutex::default() }))
    }

    /// Says what was asked for, after the notices that came before.
    pub(super) fn answer(self: &Arc<Self>, answer: &Answer, fd: Option<&OwnedFd>) -> io::Result<()> {
        {
            let _whole = self.writing.lock();
            self.write_out(MsgFlags::empty())?;
            send(&self.stream, answer, fd)?;
        }
        self.go_on();
        Ok(())
    }

    /// Says what was not asked for, without waiting for anybody; whether it will be said.
    pub(super) fn notice(self: &Arc<Self>, answer: &Answer) -> bool {
        encode(answer).is_ok_and(|bytes| self.say(bytes))
    }

    /// The same, with these bytes. A reader that has left too many unread is cut off, and so its lease ends.
    pub(super) fn say(self: &Arc<Self>, bytes: Vec<u8>) -> bool {
        {
            let mut notices = self.notices.lock();
            if notices.unsent.len() >= NOTICES_UNREAD_MAX {
                notices.over = true;
                notices.unsent.clear();
                self.hang_up();
            }
            if notices.over {
                return false;
            }
            notices.unsent.push_back(bytes);
        }
        self.go_on();
        true
    }

    /// Nothing more is said or heard.
    pub(super) fn hang_up(&self) {
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// Sends what can be sent at once. Whoever writes now does the same afterwards.
    fn go_on(self: &Arc<Self>) {
        while !self.notices.lock().unsent.is_empty() {
            let Some(whole) = self.writing.try_lock() else { return };
            let sent = self.write_out(MsgFlags::MSG_DONTWAIT);
            drop(whole);
            match sent {
                Ok(()) => {}
                Err(Errno::EAGAIN) => return self.wait_for_reader(),
                // Whoever reads from the connection finds its end.
                Err(_) => return self.notices.lock().unsent.clear(),
            }
        }
    }

    /// Sends the rest on a thread of its own, which waits.
    fn wait_for_reader(self: &Arc<Self>) {
        if std::mem::replace(&mut self.notices.lock().waits, true) {
            return;
        }
        let outbox = self.clone();
        let wait = move || {
            let sent = {
                let _whole = outbox.writing.lock();
                outbox.write_out(MsgFlags::empty())
            };
            outbox.notices.lock().waits = false;
            match sent {
                Ok(()) => outbox.go_on(),
                Err(_) => outbox.notices.lock().unsent.clear(),
            }
        };
        if mojavefs_threads::detached("mojavefs-tell", wait).is_err() {
            self.hang_up();
        }
    }

    /// Sends notices until there are none, by whoever has `writing`.
    fn write_out(&self, flags: MsgFlags) -> nix::Result<()> {
        loop {
            let Some(mut bytes) = self.notices.lock().unsent.pop_front() else { return Ok(()) };
            while !bytes.is_empty() {
                match socket::send(self.stream.as_raw_fd(), &bytes, flags | MsgFlags::MSG_NOSIGNAL) {
                    Ok(sent) => drop(bytes.drain(..sent)),
                    Err(Errno::EINTR) => {}
                    Err(errno) => {
                        self.notices.lock().unsent.push_front(bytes);
                        return Err(errno);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::receive;
    use mojavefs::id::SpecId;
    use mojavefs::protocol::SpecState;

    fn decided(number: u64) -> Answer {
        Answer::Decided { spec: SpecId(number), state: SpecState::Aborted, why: None }
    }

    fn fill(outbox: &Arc<Outbox>) -> u64 {
        let mut told = 0;
        while outbox.notice(&decided(told)) {
            told += 1;
            assert!(told < 1 << 20, "it takes everything");
        }
        told
    }

    #[test]
    fn a_reader_that_does_not_read_is_waited_for_by_nobody_and_cut_off() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let outbox = Outbox::new(&near).expect("a outbox");
        assert!(fill(&outbox) >= NOTICES_UNREAD_MAX as u64);
        // All that it was sent is whole but for the last.
        let mut heard = 0;
        while let Ok(Some((answer, _))) = receive::<Answer>(&far) {
            assert_eq!(answer, decided(heard));
            heard += 1;
        }
        assert!(heard > 0);
    }

    #[test]
    fn a_reader_that_does_not_take_its_answers_is_cut_off_by_notices() {
        let (near, _far) = UnixStream::pair().expect("a pair");
        let outbox = Outbox::new(&near).expect("a outbox");
        let answering = outbox.clone();
        let answers = std::thread::spawn(move || while answering.answer(&Answer::Done, None).is_ok() {});
        while outbox.writing.try_lock().is_some() {
            std::thread::yield_now();
        }
        fill(&outbox);
        answers.join().expect("they come to an end");
    }

    #[test]
    fn everything_is_heard_in_its_order_by_one_who_reads_late() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let outbox = Outbox::new(&near).expect("a outbox");
        let most = NOTICES_UNREAD_MAX as u64;
        (0..most).for_each(|number| assert!(outbox.notice(&decided(number))));
        for number in 0..most {
            let (answer, _) = receive::<Answer>(&far).expect("whole").expect("more");
            assert_eq!(answer, decided(number));
        }
        outbox.answer(&Answer::Done, None).expect("said");
        assert_eq!(receive::<Answer>(&far).expect("whole").expect("more").0, Answer::Done);
    }
}
