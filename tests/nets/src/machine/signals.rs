//! Signals as the kernel has them.

use super::{Order, What};
use std::collections::VecDeque;

pub(super) const SIGNALS: usize = 4;
/// Those before it can be on their way but once.
const QUEUED_FROM: usize = 2;

/// What a signal does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Count,
    CountThousandfold,
    Ignore,
}

/// One signal: who waits for it, and what has come of it.
#[derive(Clone, Debug)]
struct Signal {
    blocked: bool,
    action: Action,
    /// The values of those on their way.
    to_thread: VecDeque<u8>,
    to_process: VecDeque<u8>,
    hits: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Signals([Signal; SIGNALS]);

impl Signal {
    fn next(&mut self) -> Option<u8> {
        self.to_thread.pop_front().or_else(|| self.to_process.pop_front())
    }

    fn handle(&mut self, value: u8) {
        let factor = match self.action {
            Action::Count => 1,
            Action::CountThousandfold => 1000,
            Action::Ignore => 0,
        };
        self.hits += factor * (1 + i64::from(value));
    }

    fn send(&mut self, queues: bool, to_thread: bool, value: u8) {
        if !self.blocked {
            return self.handle(value);
        }
        let queue = if to_thread { &mut self.to_thread } else { &mut self.to_process };
        if queues || queue.is_empty() {
            queue.push_back(value);
        }
    }
}

impl Signals {
    pub(super) fn new() -> Self {
        let (to_thread, to_process) = Default::default();
        let one = Signal { blocked: false, action: Action::Count, to_thread, to_process, hits: 0 };
        Signals([one.clone(), one.clone(), one.clone(), one])
    }

    /// Does it, and returns the result.
    pub(super) fn obey(&mut self, order: &Order) -> i32 {
        let number = usize::from(order.a) % SIGNALS;
        let (signal, queues) = (&mut self.0[number], number >= QUEUED_FROM);
        match order.what {
            What::Block => signal.blocked = true,
            What::Unblock => {
                signal.blocked = false;
                while let Some(value) = signal.next() {
                    signal.handle(value);
                }
            }
            What::Raise => signal.send(queues, true, 0),
            What::Send => signal.send(queues, false, 0),
            What::Queue => signal.send(queues, false, order.b),
            What::Take => return signal.next().map_or(0, |value| 1 + i32::from(value)),
            _ => {
                signal.action = [Action::Count, Action::CountThousandfold, Action::Ignore][usize::from(order.b) % 3];
                if signal.action == Action::Ignore {
                    (signal.to_thread, signal.to_process) = Default::default();
                }
            }
        }
        0
    }

    pub(super) fn tell(&self) -> String {
        let bits = |is: fn(&Signal) -> bool| self.0.iter().map(|s| if is(s) { '1' } else { '0' }).collect::<String>();
        let thread = bits(|signal| !signal.to_thread.is_empty());
        let process = bits(|signal| !signal.to_process.is_empty());
        let hits: Vec<String> = self.0.iter().map(|signal| signal.hits.to_string()).collect();
        format!(" signals {thread} {process} {} {}", bits(|signal| signal.blocked), hits.join(" "))
    }
}
