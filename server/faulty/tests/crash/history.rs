//! Histories: what is done to a store, step by step. Some are written down, others come from a seed.

use mojavefs::limits::BLOCK_BYTES;
use mojavefs_faulty::Random;
use mojavefs_server::limits::INLINE_BYTES_MAX;

/// So many names are used.
pub(crate) const FILES: usize = 4;
/// So many jobs may be undecided at once.
pub(crate) const JOBS: usize = 3;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// By a job, or on trunk.
    Change(Option<usize>, usize, Change),
    Begin {
        job: usize,
        isolated: bool,
    },
    /// The job goes on in a further interval.
    Enter(usize),
    /// What the job has changed in its last interval is the one's before.
    Reassign(usize),
    /// Most of what a commit must have on the disk goes there.
    Early(usize),
    /// Together.
    Commit(Vec<usize>),
    Abort(usize),
    Hold(usize),
    Fsync(usize),
    Sync,
    SyncLog,
    /// All that there is to do in the background.
    Reclaim,
    /// A reader that is not a job begins, or ends.
    Snapshot,
    EndSnapshot,
    Restart,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write {
        at: u64,
        len: u64,
        seed: u8,
    },
    Resize(u64),
    Punch {
        at: u64,
        len: u64,
    },
    Allocate {
        at: u64,
        len: u64,
        keep_size: bool,
    },
    Remove,
    /// To another name, which loses what it named.
    Rename(usize),
}

/// The bytes that a write writes.
pub(crate) fn pattern(at: u64, len: u64, seed: u8) -> Vec<u8> {
    (at..at + len).map(|at| (at / 97) as u8 ^ (seed | 0x40)).collect()
}

const B: u64 = BLOCK_BYTES;
const SMALL: u64 = 100;

fn write(who: Option<usize>, file: usize, at: u64, len: u64, seed: u8) -> Step {
    Step::Change(who, file, Change::Write { at, len, seed })
}

fn change(who: Option<usize>, file: usize, how: Change) -> Step {
    Step::Change(who, file, how)
}

/// What people do, each with what leads to it: by name.
pub(crate) fn written_down() -> Vec<(&'static str, Vec<Step>)> {
    let begin = |job| Step::Begin { job, isolated: true };
    let (one, two) = (Some(0), Some(1));
    vec![
        (
            "trunk",
            vec![
                write(None, 0, 0, 2 * B, 1),
                write(None, 1, 0, SMALL, 2),
                Step::Fsync(0),
                write(None, 0, B, 3 * B, 3),
                change(None, 0, Change::Resize(B + 1000)),
                Step::Fsync(0),
                change(None, 0, Change::Resize(INLINE_BYTES_MAX)),
                write(None, 1, 50, INLINE_BYTES_MAX, 4),
                Step::Fsync(1),
                change(None, 1, Change::Punch { at: 0, len: B }),
                Step::Reclaim,
                change(None, 0, Change::Rename(1)),
                write(None, 2, B / 2, B, 5),
                Step::Sync,
                change(None, 2, Change::Remove),
                Step::Sync,
                Step::Reclaim,
                write(None, 2, 0, 2 * B, 6),
                Step::Fsync(2),
            ],
        ),
        (
            "commit",
            vec![
                write(None, 0, 0, 2 * B, 1),
                write(None, 1, 0, SMALL, 2),
                Step::Sync,
                begin(0),
                write(one, 0, 100, 200, 3),
                write(one, 0, B, 2 * B, 4),
                write(one, 1, 0, 3 * B, 5),
                write(one, 2, 0, B, 6),
                change(one, 1, Change::Punch { at: B, len: B }),
                Step::Early(0),
                change(one, 0, Change::Resize(B + 10)),
                Step::Commit(vec![0]),
                write(None, 3, 0, B, 7),
                Step::Fsync(3),
                Step::Reclaim,
                begin(1),
                change(two, 2, Change::Remove),
                change(two, 0, Change::Rename(3)),
                Step::Commit(vec![1]),
                Step::Reclaim,
                Step::Sync,
            ],
        ),
        (
            "abort",
            vec![
                write(None, 0, 0, 3 * B, 1),
                Step::Fsync(0),
                begin(0),
                write(one, 0, 0, B, 2),
                write(one, 1, 0, 2 * B, 3),
                change(one, 0, Change::Resize(0)),
                write(one, 0, 10, B, 4),
                Step::SyncLog,
                Step::Abort(0),
                Step::Reclaim,
                begin(0),
                write(one, 0, B, B, 5),
                Step::Commit(vec![0]),
                write(None, 2, 0, SMALL, 6),
                Step::Fsync(2),
            ],
        ),
        (
            "hold",
            vec![
                write(None, 0, 0, 2 * B, 1),
                Step::Sync,
                begin(0),
                write(one, 0, 0, B, 2),
                write(one, 1, 0, 2 * B, 3),
                Step::Hold(0),
                begin(1),
                write(two, 2, 0, B, 4),
                Step::Hold(1),
                Step::Reclaim,
                Step::Restart,
                Step::Commit(vec![0]),
                Step::Abort(1),
                Step::Reclaim,
                begin(0),
                write(one, 3, 0, B, 5),
                Step::Hold(0),
                Step::Hold(0),
                Step::Commit(vec![0]),
                Step::Sync,
            ],
        ),
        (
            "hand over",
            vec![
                write(None, 0, 0, 2 * B, 1),
                Step::Sync,
                begin(0),
                write(one, 0, 0, B, 2),
                Step::Enter(0),
                write(one, 0, 0, SMALL, 3),
                write(one, 1, 0, 2 * B, 4),
                Step::Reassign(0),
                write(one, 1, B, B, 5),
                Step::Enter(0),
                change(one, 1, Change::Remove),
                write(one, 2, 0, B, 6),
                Step::Early(0),
                Step::Reassign(0),
                Step::Commit(vec![0]),
                Step::Reclaim,
                Step::Sync,
            ],
        ),
        (
            "together",
            vec![
                begin(0),
                begin(1),
                write(one, 0, 0, 2 * B, 1),
                write(two, 1, 0, 2 * B, 2),
                write(one, 2, 0, SMALL, 3),
                Step::Hold(0),
                Step::Commit(vec![0, 1]),
                Step::Snapshot,
                change(None, 0, Change::Resize(B)),
                change(None, 1, Change::Punch { at: 0, len: 2 * B }),
                write(None, 0, 0, 100, 4),
                Step::Fsync(0),
                Step::Reclaim,
                Step::EndSnapshot,
                Step::Reclaim,
                write(None, 1, 0, B, 5),
                Step::Sync,
            ],
        ),
    ]
}

/// One from a seed. What a job has touched nobody else changes before it is decided: conflicts are not the store's matter.
pub(crate) fn random(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let mut owner: [Option<usize>; FILES] = [None; FILES];
    // Whether each job is undecided, and whether it is held: then nothing of it changes any more.
    let mut jobs: [Option<bool>; JOBS] = [None; JOBS];
    let mut depth = [0; JOBS];
    // Files that others have changed since the job began.
    let mut missed = [[false; FILES]; JOBS];
    let mut steps = Vec::new();
    while steps.len() < 30 {
        let job = random.below(JOBS as u64) as usize;
        match (random.below(20), jobs[job]) {
            (0..=8, _) => {
                let who = Some(job).filter(|job| jobs[*job] == Some(false) && random.below(3) > 0);
                let seen = |file: &usize| who.is_none_or(|job| !missed[job][*file]);
                let free = |file: &usize| (owner[*file].is_none() || owner[*file] == who) && seen(file);
                let files: Vec<usize> = (0..FILES).filter(free).collect();
                if files.is_empty() {
                    continue;
                }
                let mut file = || files[random.below(files.len() as u64) as usize];
                let (file, other) = (file(), file());
                let how = any_change(&mut random, other);
                let concerned = if matches!(how, Change::Rename(_)) { vec![file, other] } else { vec![file] };
                for file in concerned {
                    owner[file] = owner[file].or(who);
                    (0..JOBS).filter(|job| Some(*job) != who).for_each(|job| missed[job][file] = true);
                }
                steps.push(change(who, file, how));
            }
            (9, _) => steps.push(Step::Fsync(random.below(FILES as u64) as usize)),
            (10, _) => steps.push([Step::Sync, Step::SyncLog, Step::Reclaim][random.below(3) as usize].clone()),
            (11, _) => steps.push(if random.coin() { Step::Snapshot } else { Step::EndSnapshot }),
            (12 | 13, None) => {
                jobs[job] = Some(false);
                depth[job] = 0;
                missed[job] = std::array::from_fn(|file| owner[file].is_some());
                steps.push(Step::Begin { job, isolated: random.coin() });
            }
            (14, Some(false)) => {
                depth[job] += 1;
                steps.push(Step::Enter(job));
            }
            (15, Some(false)) if depth[job] > 0 => {
                depth[job] -= 1;
                steps.push(Step::Reassign(job));
            }
            (16, Some(false)) => {
                jobs[job] = Some(true);
                steps.push(Step::Hold(job));
            }
            (17, Some(_)) => steps.push(Step::Early(job)),
            (18, Some(_)) => {
                let all: Vec<usize> =
                    (0..JOBS).filter(|other| *other == job || jobs[*other].is_some() && random.coin()).collect();
                for job in &all {
                    jobs[*job] = None;
                    owner.iter_mut().for_each(|owner| *owner = owner.filter(|owner| owner != job));
                }
                steps.push(Step::Commit(all));
            }
            (19, Some(_)) => {
                jobs[job] = None;
                owner.iter_mut().for_each(|owner| *owner = owner.filter(|owner| *owner != job));
                steps.push(Step::Abort(job));
            }
            _ => {}
        }
    }
    steps
}

fn any_change(random: &mut Random, other: usize) -> Change {
    let at = [0, 0, 1, INLINE_BYTES_MAX - 1, B - 10, B, 2 * B][random.below(7) as usize];
    let len = [1, SMALL, INLINE_BYTES_MAX, B, 2 * B][random.below(5) as usize];
    match random.below(14) {
        0 => Change::Remove,
        1 => Change::Rename(other),
        2 | 3 => Change::Resize([0, 1, INLINE_BYTES_MAX, B + 1, 3 * B][random.below(5) as usize]),
        4 | 5 => Change::Punch { at, len },
        6 | 7 => Change::Allocate { at, len, keep_size: random.coin() },
        _ => Change::Write { at, len, seed: random.below(64) as u8 },
    }
}
