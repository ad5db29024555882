//! Others change a directory of the host at each moment of a job over it, and the daemon is killed, or the power cut, before and after
//! each call of an apply: each file is what it was, what was committed, or what others have made of it; nothing is lost or mixed.

use mojavefs_harness::disk::Disk;
use mojavefs_harness::host::OverHost;
use mojavefs_harness::until;
use mojavefs_nets::hostile::{self, EVERYTHING, Ended, Line, When};
use mojavefs_nets::net::{Failure, Net};
use mojavefs_nets::random::Random;

/// How many moments of the applies are tried where not all are.
const CUTS: usize = 40;
const POWER_CUTS: usize = 10;
/// How large a disk is on which a store and a directory lie, in MiB.
const DISK_MEBIBYTES: u64 = 400;

#[test]
fn nothing_of_others_is_lost_whenever_they_change_it() {
    Net {
        name: "nothing_of_others_is_lost_whenever_they_change_it",
        program: hostile::program,
        run: hostile::run,
        seeds: 24,
    }
    .cast();
}

/// Before and after each call of an apply that makes so many, and around its record.
fn moments(calls: usize) -> Vec<When> {
    let around = (1..=calls).flat_map(|call| [When::Before(call), When::After(call)]);
    [When::Prepare, When::Recorded].into_iter().chain(around).collect()
}

fn is_soak() -> bool {
    std::env::var_os("MOJAVEFS_SOAK").is_some()
}

/// Strikes applies at each of their moments, or at some. `disturbs`: sometimes somebody else changes something, too.
fn strike(some: usize, disturbs: bool, blow: fn(When) -> Line, on: impl Fn(&[Line]) -> Result<Ended, Failure>) {
    let mut all = Vec::new();
    for program in EVERYTHING {
        let ended = on(&hostile::parse(program)).unwrap_or_else(|failure| panic!("{}", failure.what));
        assert!(ended.calls > 20, "an apply was seen: {ended:?}");
        all.extend(moments(ended.calls).into_iter().map(|when| (program, when)));
    }
    let seed = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("{} moments; MOJAVEFS_SEED={seed}", all.len());
    let mut random = Random(seed);
    let mut struck = 0;
    let tries = if is_soak() { all.len() } else { some };
    for _ in 0..tries {
        let (program, when) = all.swap_remove(random.below(all.len()));
        let mut lines = hostile::parse(program);
        lines.push(blow(when));
        if disturbs && random.one_in(2) {
            lines.extend(hostile::disturb(&mut random, &lines));
        }
        match on(&lines) {
            Ok(ended) => struck += usize::from(ended.is_struck),
            Err(failure) => {
                let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
                panic!("{}\nthe program:\n{lines}", failure.what);
            }
        }
    }
    // A call more or less may be made each time, and what others change may be a conflict.
    assert!(struck * 10 >= tries * 8, "only {struck} of {tries} were struck");
}

#[test]
fn an_apply_that_is_killed_before_or_after_any_call_is_all_there_or_not_at_all() {
    strike(CUTS, true, |when| Line::Kill { when }, |lines| hostile::on(&OverHost::new(), None, lines));
}

fn cut(kind: &str) {
    strike(
        POWER_CUTS,
        false,
        |when| Line::Cut { when },
        |lines| {
            let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory");
            let disk = Taken(Disk::new(root.path(), kind, DISK_MEBIBYTES));
            hostile::on(&OverHost::beside(&disk.0.point), Some(&disk.0), lines)
        },
    );
}

/// Takes a disk off however a test ends.
struct Taken(Disk);

impl Drop for Taken {
    fn drop(&mut self) {
        match std::thread::panicking() {
            true => drop(nix::mount::umount2(&self.0.point, nix::mount::MntFlags::MNT_DETACH)),
            false => until("the disk can be taken off", || self.0.detach()),
        }
    }
}

#[test]
fn an_apply_is_all_there_or_not_at_all_when_the_power_is_cut_on_ext4() {
    require_root!();
    cut("ext4");
}

#[test]
fn an_apply_is_all_there_or_not_at_all_when_the_power_is_cut_on_xfs() {
    require_root!();
    cut("xfs");
}
