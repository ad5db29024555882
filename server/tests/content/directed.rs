//! Histories that once went wrong, in their shortest form.

use super::play;
use super::steps::{Change, Step};
use mojavefs::protocol::FallocateMode;

/// Something happens that changes nothing.
const PAUSE: Step = Step::Reclaim { steps: 1 };

/// `who`: 0 is trunk, then the jobs in the order in which they began.
fn change(who: u8, how: Change) -> Step {
    Step::Change { who, file: 0, how }
}

fn write(who: u8, at: u64) -> Step {
    change(who, Change::Write { at, len: 100_000, seed: 1 + who })
}

#[test]
fn an_inner_job_does_not_overwrite_what_its_sibling_committed() {
    let begin = [0, 1, 1].map(|parent| Step::Begin { parent });
    let [outer, first, second] = begin;
    // The second looks at the file only when the first is done.
    play(&[outer, first, second, write(2, 0), Step::Commit { who: 1 }, write(2, 50_000), Step::Commit { who: 1 }]);
}

#[test]
fn an_inner_job_does_not_overwrite_what_the_outer_one_wrote_out_of_its_sight() {
    let begin = [0, 1, 1].map(|parent| Step::Begin { parent });
    let [outer, first, second] = begin;
    play(&[outer, first, second, Step::Commit { who: 1 }, write(1, 0), write(2, 50_000), Step::Commit { who: 1 }]);
}

#[test]
fn a_held_job_writes_on_where_it_stopped() {
    let begin = [0, 1].map(|parent| Step::Begin { parent });
    let [outer, inner] = begin;
    let hold = Step::Hold { who: 0, close: true };
    play(&[outer, inner, write(2, 0), Step::Commit { who: 1 }, hold, Step::Reopen, write(1, 50_000)]);
}

#[test]
fn a_conflict_of_a_held_job_survives_a_restart() {
    let hold = Step::Hold { who: 0, close: true };
    // The pauses keep the comparison of every fourth step, which looks into the job, from coming in between.
    let held = [PAUSE, PAUSE, Step::Begin { parent: 0 }, write(1, 0), hold, write(0, 0)];
    play(&[&held[..], &[Step::Reopen, Step::Commit { who: 0 }]].concat());
}

#[test]
fn held_jobs_are_inside_each_other_as_before() {
    let begin = [0, 1, 2].map(|parent| Step::Begin { parent });
    let [outer, middle, inner] = begin;
    let hold = [0, 1, 2].map(|who| Step::Hold { who, close: true });
    let [first, second, third] = hold;
    let held = [outer, middle, inner, write(3, 0), first, second, third, Step::Reopen];
    let aborted = [Step::Commit { who: 2 }, Step::Read { who: 2, file: 0 }, Step::Abort { who: 1 }];
    play(&[&held[..], &aborted[..]].concat());
}

#[test]
fn what_a_job_cut_off_does_not_come_up_again() {
    let cut = change(1, Change::Resize { size: 3 });
    let beyond = change(0, Change::Write { at: 90_000, len: 45, seed: 3 });
    let reclaim = Step::Reclaim { steps: 40 };
    play(&[write(0, 0), Step::Begin { parent: 0 }, cut, Step::Commit { who: 0 }, beyond, reclaim]);
}

#[test]
fn what_trunk_cut_off_does_not_come_up_again() {
    let cut = change(0, Change::Resize { size: 16383 });
    let punch = change(0, Change::Fallocate { at: 0, len: 65536, mode: FallocateMode::PunchHole });
    let beyond = change(0, Change::Write { at: 16382, len: 165_618, seed: 3 });
    play(&[write(0, 2), Step::Begin { parent: 0 }, cut, punch, beyond]);
}

#[test]
fn a_snapshot_keeps_what_trunk_writes_anew() {
    let begin = [0, 0].map(|parent| Step::Begin { parent });
    let [reader, writer] = begin;
    let cut = change(0, Change::Resize { size: 0 });
    let hole = change(0, Change::Fallocate { at: 0, len: 65536, mode: FallocateMode::PunchHole });
    let done = [reader, writer, write(2, 0), Step::Commit { who: 1 }, hole, write(0, 7), Step::Abort { who: 0 }];
    play(&[&[write(0, 0)], &done[..], &[cut]].concat());
}

#[test]
fn zeroing_beyond_the_end_zeroes_a_small_file() {
    let zero = Change::Fallocate { at: 0, len: 2, mode: FallocateMode::ZeroRange { keep_size: false } };
    play(&[change(0, Change::Write { at: 0, len: 1, seed: 1 }), change(0, zero)]);
}

#[test]
fn a_copy_within_a_file_ends_where_the_file_did() {
    let copy = Change::Copy { from: 0, at: 0, to: 65536, len: 65536 };
    play(&[change(0, Change::Resize { size: 16384 }), change(0, copy)]);
}

#[test]
fn a_conflict_of_a_held_job_with_another_survives_a_restart() {
    let begin = [0, 0].map(|parent| Step::Begin { parent });
    let [first, second] = begin;
    let hold = Step::Hold { who: 0, close: true };
    let held = [PAUSE, first, second, write(1, 0), hold, write(2, 0), Step::Commit { who: 1 }];
    play(&[&held[..], &[Step::Reopen, Step::Commit { who: 0 }]].concat());
}

#[test]
fn what_is_copied_from_two_mixed_histories_is_mixed_too() {
    let [outer, inner] = [0, 1].map(|parent| Step::Begin { parent });
    let copy = Step::Change { who: 2, file: 1, how: Change::Copy { from: 0, at: 16386, to: 16386, len: 137_921 } };
    play(&[write(0, 0), outer, inner, change(2, Change::Write { at: 0, len: 1, seed: 0 }), write(1, 16381), copy]);
}

#[test]
fn what_an_inner_job_has_changed_is_refused_if_its_sibling_is_committed_with_the_outer_one() {
    let begin = [0, 1, 1].map(|parent| Step::Begin { parent });
    let [outer, first, second] = begin;
    let changed = [write(1, 0), outer, first, write(2, 50_000), second, change(3, Change::Resize { size: 200_000 })];
    // The first becomes part of the outer one, which is committed; the second stays, and sees bytes of both.
    let decided =
        [Step::Commit { who: 1 }, Step::Commit { who: 0 }, PAUSE, PAUSE, PAUSE, PAUSE, Step::Commit { who: 0 }];
    play(&[&changed[..], &decided[..]].concat());
}

#[test]
fn what_an_inner_job_reads_where_two_histories_are_mixed_counts_as_read() {
    let begin = [0, 1, 2].map(|parent| Step::Begin { parent });
    let [outer, middle, inner] = begin;
    let mixed = [outer, middle, write(2, 0), inner, write(1, 0), Step::Read { who: 3, file: 0 }];
    play(&[&mixed[..], &[write(0, 0), Step::Commit { who: 2 }]].concat());
}
