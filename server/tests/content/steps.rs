//! What can happen in a history. Who does it, and to which file, is chosen by number among those there are.

use mojavefs::limits::BLOCK_BYTES;
use mojavefs::protocol::FallocateMode;
use mojavefs_server::limits::INLINE_BYTES_MAX;
use proptest::prelude::*;
use std::fmt;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// By `who`, on `file`.
    Change {
        who: u8,
        file: u8,
        how: Change,
    },
    Read {
        who: u8,
        file: u8,
    },
    Begin {
        parent: u8,
    },
    Commit {
        who: u8,
    },
    /// What a conflict refused is committed all the same: with the job's version, or without.
    Resolve {
        who: u8,
        ours: bool,
    },
    Abort {
        who: u8,
    },
    /// `close`: and nobody looks at it any more.
    Hold {
        who: u8,
        close: bool,
    },
    Reclaim {
        steps: u8,
    },
    Reopen,
}

/// Shown one step to a line.
#[derive(Clone)]
pub(crate) struct History(pub(crate) Vec<Step>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n{step:?}"))
    }
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    prop::collection::vec(step(), 1..80).prop_map(History)
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { at: u64, len: u64, seed: u8 },
    Resize { size: u64 },
    Fallocate { at: u64, len: u64, mode: FallocateMode },
    Copy { from: u8, at: u64, to: u64, len: u64 },
}

/// Places near which something changes, and any.
fn offset() -> impl Strategy<Value = u64> {
    let near = prop_oneof![
        4 => Just(0),
        3 => Just(INLINE_BYTES_MAX),
        6 => (1..4_u64).prop_map(|block| block * BLOCK_BYTES),
    ];
    prop_oneof![
        3 => (near, -3..4_i64).prop_map(|(near, by)| near.saturating_add_signed(by)),
        1 => 0..4 * BLOCK_BYTES,
    ]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1..100_u64, 2 => Just(BLOCK_BYTES), 2 => 1..3 * BLOCK_BYTES, 1 => 1..=INLINE_BYTES_MAX]
}

fn fallocate_mode() -> impl Strategy<Value = FallocateMode> {
    prop_oneof![
        3 => Just(FallocateMode::PunchHole),
        2 => any::<bool>().prop_map(|keep_size| FallocateMode::ZeroRange { keep_size }),
        3 => any::<bool>().prop_map(|keep_size| FallocateMode::Allocate { keep_size }),
    ]
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (offset(), length(), 0..8_u8).prop_map(|(at, len, seed)| Change::Write { at, len, seed }),
        3 => offset().prop_map(|size| Change::Resize { size }),
        3 => (offset(), length(), fallocate_mode()).prop_map(|(at, len, mode)| Change::Fallocate { at, len, mode }),
        1 => (any::<u8>(), offset(), offset(), length())
            .prop_map(|(from, at, to, len)| Change::Copy { from, at, to, len }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let who = any::<u8>;
    prop_oneof![
        24 => (who(), who(), change()).prop_map(|(who, file, how)| Step::Change { who, file, how }),
        2 => (who(), who()).prop_map(|(who, file)| Step::Read { who, file }),
        4 => who().prop_map(|parent| Step::Begin { parent }),
        3 => who().prop_map(|who| Step::Commit { who }),
        1 => (who(), any::<bool>()).prop_map(|(who, ours)| Step::Resolve { who, ours }),
        1 => who().prop_map(|who| Step::Abort { who }),
        1 => (who(), any::<bool>()).prop_map(|(who, close)| Step::Hold { who, close }),
        3 => (1..40_u8).prop_map(|steps| Step::Reclaim { steps }),
        1 => Just(Step::Reopen),
    ]
}
