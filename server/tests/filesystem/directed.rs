//! Histories that once went wrong, in their shortest form.

use super::play;
use super::world::Step;

/// `who`: 0 is trunk, then the jobs in the order in which they began. The name is always the same.
fn act(who: u8, what: u8, dir: u8) -> Step {
    Step::Do { who, what, dir, name: 0, to: 0, new: 0 }
}

const CREATE: u8 = 0;
const MAKE_DIR: u8 = 4;
const REMOVE_DIR: u8 = 12;
const LIST: u8 = 23;
const BEGIN: Step = Step::Begin { parent: 0 };
const HELD_THROUGH_A_RESTART: [Step; 2] = [Step::Hold { who: 0 }, Step::Reopen];

#[test]
fn who_listed_a_directory_conflicts_with_a_held_job_that_made_a_name() {
    let [hold, reopen] = HELD_THROUGH_A_RESTART;
    let commits = [Step::Commit { who: 0 }, Step::Commit { who: 0 }];
    let [first, second] = commits;
    play(&[BEGIN, act(1, CREATE, 0), hold, reopen, BEGIN, act(2, LIST, 0), first, second]);
}

#[test]
fn a_held_job_does_not_remove_a_directory_that_is_not_empty_any_more() {
    let [hold, reopen] = HELD_THROUGH_A_RESTART;
    let commits = [Step::Commit { who: 1 }, Step::Commit { who: 0 }];
    let [first, second] = commits;
    let removed = [act(0, MAKE_DIR, 0), BEGIN, act(1, REMOVE_DIR, 0), hold, reopen];
    play(&[&removed[..], &[BEGIN, act(2, CREATE, 1), first, second]].concat());
}

#[test]
fn a_commit_right_after_trunk_counts_its_directories() {
    let reclaim = Step::Reclaim { steps: 40 };
    let made = [
        act(0, MAKE_DIR, 0),
        BEGIN,
        act(1, MAKE_DIR, 1),
        Step::Do { who: 0, what: CREATE, dir: 1, name: 1, to: 0, new: 0 },
    ];
    play(&[&made[..], &[Step::Commit { who: 0 }, reclaim]].concat());
}

#[test]
fn a_job_that_listed_a_directory_and_made_a_name_conflicts_with_who_made_another() {
    let other = Step::Do { who: 2, what: CREATE, dir: 0, name: 1, to: 0, new: 0 };
    let commits = [Step::Commit { who: 1 }, Step::Commit { who: 0 }];
    let [first, second] = commits;
    play(&[BEGIN, BEGIN, act(1, LIST, 0), act(1, CREATE, 0), other, first, second]);
}

#[test]
fn what_an_inner_job_commits_into_a_held_one_survives_a_restart() {
    let [hold, reopen] = HELD_THROUGH_A_RESTART;
    play(&[BEGIN, Step::Begin { parent: 1 }, hold, act(2, CREATE, 0), Step::Commit { who: 1 }, reopen]);
}

#[test]
fn whoever_saw_an_attribute_of_a_file_that_is_removed_is_in_conflict() {
    let act = |who, what, dir, name, to, new| Step::Do { who, what, dir, name, to, new };
    let made = [77, 2, 83, 17].map(|name| act(0, 0, 0, name, 0, 0));
    let jobs = [Step::Begin { parent: 55 }, Step::Begin { parent: 32 }];
    let removed = [act(144, 10, 167, 142, 69, 131), Step::Abort { who: 211 }, act(235, 21, 244, 112, 212, 90)];
    play(&[&made[..], &jobs, &removed, &[Step::Commit { who: 21 }]].concat());
}
