//! Planted faults: each is found by a net, within a bounded number of seeds. Takes the programs that have them (`make planted`).

use mojavefs::planted::{Planted, VARIABLE};
use mojavefs_harness::SPECRUN;
use mojavefs_nets::net::{SEED, SEEDS};
use std::process::Command;

const SPREAD: &str = "spread::who_is_committed_has_seen_what_is_and_left_what_it_did";
const APART: &str = "apart::who_stays_with_what_it_found_sees_that_whatever_becomes_part_of_what_is_around_it";
const WAYS: &str = "ways::every_way_of_looking_shows_what_is_and_after_a_fall_what_was";

/// The net that must find a fault, and within how many seeds; nothing if none does.
const fn net(fault: Planted) -> Option<(&'static str, u64)> {
    Some(match fault {
        Planted::DeliverWithoutJoining => (SPREAD, 20),
        Planted::StalePage => ("same::work_on_a_mount_is_as_on_the_host", 180),
        Planted::SizeKept => ("same::work_on_a_mount_is_as_on_the_host", 20),
        Planted::NameKept => ("same::work_on_a_mount_is_as_on_the_host", 20),
        Planted::ListingKept => (WAYS, 1),
        Planted::VersionKept => ("same::work_on_a_mount_is_as_on_the_host", 10),
        Planted::WriteLostAtTruncate => ("bytes::bytes_are_as_on_the_host", 40),
        Planted::HoleOverData => ("bytes::bytes_are_as_on_the_host", 20),
        Planted::ConflictUnnoticed => (SPREAD, 60),
        Planted::DependencyForgottenAtFold => (SPREAD, 60),
        Planted::UndoneToldAsCommitted => (SPREAD, 20),
        Planted::FurtherOwnerForgotten => (SPREAD, 60),
        Planted::AnswerBeforeDecision => (SPREAD, 60),
        Planted::JoinInsteadOfWaiting => (WAYS, 1),
        Planted::UseForgotten => (SPREAD, 120),
        Planted::ConflictsLostAtRestart => (SPREAD, 200),
        Planted::SightTooNew => (APART, 3),
        Planted::NumberLostAtFold => ("levels::levels_keep_all_of_a_process_together", 10),
        // Those of rounds, and of what kernels keep.
        _ => return None,
    })
}

/// Runs a net in a process of its own, since the programs are chosen once for each: whether it passes, and what it said.
fn cast(net: &str, (variable, value): (&str, u64), fault: Option<Planted>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its program"));
    command.args(["--exact", net, "--nocapture", "--include-ignored"]);
    command.env_remove(SEED).env_remove(SEEDS).env_remove(VARIABLE).env(variable, value.to_string());
    let output = command.envs(fault.map(|fault| (VARIABLE, fault.name()))).output().expect("the net runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The seed that failed.
fn failed(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("seed ")?.split_whitespace().next()?.parse().ok())
}

fn is_found(fault: Planted) {
    let (net, seeds) = net(fault).expect("a net finds it");
    let planted = SPECRUN.path().with_file_name("specrun-planted");
    assert!(planted.is_file(), "there is no {}: make planted", planted.display());
    let (passes, said) = cast(net, (SEEDS, seeds), Some(fault));
    let seed = failed(&said).filter(|_| !passes);
    let seed =
        seed.unwrap_or_else(|| panic!("{net} does not find the fault `{}` in {seeds} seeds:\n{said}", fault.name()));
    println!("{}: {net} finds it with seed {seed} of {seeds}", fault.name());
    let (passes, said) = cast(net, (SEED, seed), None);
    assert!(passes, "{net} fails with seed {seed} without the fault `{}`, too:\n{said}", fault.name());
}

/// A test for each, so that they run side by side and have the time of one each.
macro_rules! each_is_found {
    ($($test:ident $fault:ident),* $(,)?) => {
        $(
            #[test]
            #[ignore = "takes the programs with planted faults: make planted"]
            fn $test() {
                is_found(Planted::$fault);
            }
        )*

        #[test]
        fn every_planted_fault_has_a_test() {
            for fault in Planted::ALL {
                let is_tried = [$(Planted::$fault),*].contains(fault);
                let is_elsewhere = [Planted::OF_ROUNDS, Planted::OF_KERNELS, Planted::OF_CLUSTERS].iter().any(|those| those.contains(fault));
                assert!(is_tried != is_elsewhere, "{} has none, or two", fault.name());
                assert_eq!(net(*fault).is_some(), is_tried, "{}", fault.name());
            }
        }
    };
}

each_is_found! {
    delivering_without_joining_is_found DeliverWithoutJoining,
    a_stale_page_is_found StalePage,
    a_size_kept_is_found SizeKept,
    a_name_kept_is_found NameKept,
    a_listing_kept_is_found ListingKept,
    a_version_kept_is_found VersionKept,
    a_write_lost_at_truncate_is_found WriteLostAtTruncate,
    a_hole_over_data_is_found HoleOverData,
    a_conflict_unnoticed_is_found ConflictUnnoticed,
    a_dependency_forgotten_at_a_fold_is_found DependencyForgottenAtFold,
    one_undone_that_is_told_as_committed_is_found UndoneToldAsCommitted,
    a_further_owner_forgotten_is_found FurtherOwnerForgotten,
    an_answer_before_the_decision_is_found AnswerBeforeDecision,
    joining_instead_of_waiting_is_found JoinInsteadOfWaiting,
    a_number_lost_at_a_fold_is_found NumberLostAtFold,
    a_use_forgotten_is_found UseForgotten,
    conflicts_lost_at_a_restart_are_found ConflictsLostAtRestart,
    a_sight_that_is_too_new_is_found SightTooNew,
}
