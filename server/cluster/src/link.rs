//! A session between two that outlives its connections: what one says arrives at the other once, and in order.
//!
//! Each end keeps what it has said until the other has confirmed it, and says it again on the next connection. A connection may lose what
//! was said last, and nothing else.

use mojavefs::planted::{Planted, is_planted};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What goes over a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame<M> {
    /// How many messages of the other end have arrived.
    pub confirms: u64,
    /// A message, and its number: they are counted from 1. Nothing where something is only confirmed.
    pub message: Option<(u64, M)>,
}

/// One end of a session.
#[derive(Clone, Debug)]
pub struct Link<M> {
    /// What was said, and not confirmed.
    unconfirmed: VecDeque<(u64, M)>,
    said: u64,
    heard: u64,
}

impl<M> Default for Link<M> {
    fn default() -> Self {
        Link { unconfirmed: VecDeque::new(), said: 0, heard: 0 }
    }
}

impl<M: Clone> Link<M> {
    /// Says something.
    pub fn say(&mut self, message: M) -> Frame<M> {
        self.said += 1;
        self.unconfirmed.push_back((self.said, message.clone()));
        Frame { confirms: self.heard, message: Some((self.said, message)) }
    }

    /// Confirms what has arrived, for one who has nothing to say.
    pub fn confirm(&self) -> Frame<M> {
        Frame { confirms: self.heard, message: None }
    }

    /// A frame has arrived. Nothing if it says nothing new.
    pub fn hear(&mut self, frame: Frame<M>) -> Option<M> {
        self.unconfirmed.retain(|(number, _)| *number > frame.confirms);
        let (number, message) = frame.message?;
        if number != self.heard + 1 && !(is_planted(Planted::HeardTwice) && number <= self.heard) {
            return None;
        }
        self.heard = number.max(self.heard);
        Some(message)
    }

    /// There is a new connection: what has not been confirmed is said again.
    pub fn again(&self) -> impl Iterator<Item = Frame<M>> + '_ {
        let confirms = self.heard;
        let all = self.unconfirmed.iter().filter(|_| !is_planted(Planted::SaidOnce));
        all.map(move |message| Frame { confirms, message: Some(message.clone()) })
    }

    /// How much is kept.
    pub fn kept(&self) -> usize {
        self.unconfirmed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_with_a_connection_is_said_again_and_nothing_is_heard_twice() {
        let (mut one, mut other) = (Link::default(), Link::default());
        let frames: Vec<Frame<u32>> = (0..4).map(|message| one.say(message)).collect();
        let heard: Vec<u32> = frames[..2].iter().filter_map(|frame| other.hear(frame.clone())).collect();
        assert_eq!(heard, [0, 1]);
        // The rest is lost, and so is what would have confirmed the first.
        let again: Vec<Frame<u32>> = one.again().collect();
        let heard: Vec<u32> = again.into_iter().filter_map(|frame| other.hear(frame)).collect();
        assert_eq!(heard, [2, 3]);
        assert_eq!((one.kept(), one.hear(other.confirm()), one.kept()), (4, None, 0));
    }
}
