//! Who acts, and what is known of it.

use crate::jobs::Job;
use crate::mount::{Mount, Mounts, Names};
use crate::trunk::Listing;
use crate::{Counts, IS_DECIDING};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, ConnectionExt, ViewKind, ViewOp};
use mojavefs_faulty::Random;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

pub(crate) const COUNTERS: usize = 4;
/// Two files to which the same is written.
pub(crate) const TWINS: usize = 2;
/// How many bytes can be stored to the file of single bytes.
pub(crate) const CELLS: usize = 96;
/// How many may wait at a time.
const DEPTH_MAX: usize = 4;
/// How many act while one waits.
const BESIDE_MAX: u64 = 6;

/// A server's client, and all that it plays.
pub(crate) struct World {
    random: RefCell<Random>,
    /// The session; none while the store is opened again.
    ask: RefCell<Option<Arc<dyn Connection>>>,
    mounts: Arc<Mounts>,
    trunk: RefCell<Option<Arc<Mount>>>,
    pub(crate) files: Files,
    pub(crate) file_names: Arc<Names>,
    pub(crate) jobs: RefCell<Vec<Job>>,
    /// How often it was counted on trunk.
    pub(crate) on_trunk: RefCell<[u64; COUNTERS]>,
    /// The single bytes that were stored.
    pub(crate) stored: RefCell<HashMap<usize, Stored>>,
    /// How often the twins were written to; and whether two did so at a time, after which they may differ.
    pub(crate) twins_turn: Cell<u64>,
    pub(crate) twins_mixed: Cell<bool>,
    /// A listing of trunk's root that is under way.
    pub(crate) listing: RefCell<Option<Listing>>,
    pub(crate) depth: Cell<usize>,
    /// How many decisions are under way, and how many there were.
    pub(crate) deciding: Cell<u64>,
    pub(crate) decided: Cell<u64>,
    /// How many names were used.
    pub(crate) names: Cell<u64>,
    /// What has happened, for who looks for a fault.
    history: RefCell<Vec<String>>,
    pub(crate) counted: Cell<Counts>,
    /// Records of decisions fail now and then.
    pub(crate) fails: bool,
    /// The store has stopped: what can't be known is found out when it is opened again.
    pub(crate) is_stopped: Cell<bool>,
}

/// Who has stored a byte.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    /// A job, by its place, or trunk.
    pub(crate) by: Option<usize>,
    /// The kernel that had it may have lost it.
    pub(crate) may_be_lost: bool,
}

/// The files that are there from the beginning.
#[derive(Clone, Copy)]
pub(crate) struct Files {
    pub(crate) counters: [Ino; COUNTERS],
    pub(crate) twins: [Ino; TWINS],
    pub(crate) cells: Ino,
}

/// What a call that must not wait may be refused for, or because of what others have done meanwhile.
fn is_refusal(fault: &Fault) -> bool {
    use FaultKind::{Again, Busy, Conflict, Deadlock, Decided, NotFound, Sealed, Stale, Undecided};
    match fault.kind {
        Again | Busy | Conflict | Decided | Deadlock | Sealed | Stale | Undecided => true,
        NotFound => fault.message.starts_with("there is no"),
        _ => false,
    }
}

impl World {
    /// With a session of a new store; records of decisions fail now and then, if they are to.
    pub(crate) fn new(seed: u64, ask: Arc<dyn Connection>, fails: bool) -> Rc<World> {
        let mounts = Arc::new(Mounts::default());
        ask.set_notice_sink(mounts.clone());
        let trunk = mount_trunk(&ask, &mounts, &Arc::default());
        let file_names = RefCell::new(Names::new());
        let make = |name: String, content: &str| {
            let ino = trunk.make(&name).expect("a file");
            trunk.write(ino, 0, content.as_bytes()).expect("its content");
            file_names.borrow_mut().insert(ino, name);
            ino
        };
        let files = Files {
            counters: std::array::from_fn(|number| make(format!("counter {number}"), &text_of(0))),
            twins: std::array::from_fn(|number| make(format!("twin {number}"), &text_of(0))),
            cells: make("cells".to_owned(), &".".repeat(CELLS)),
        };
        Rc::new(World {
            random: RefCell::new(Random::new(seed)),
            ask: RefCell::new(Some(ask)),
            mounts,
            trunk: RefCell::new(Some(trunk)),
            files,
            file_names: Arc::new(file_names.into_inner()),
            jobs: RefCell::default(),
            on_trunk: RefCell::default(),
            stored: RefCell::default(),
            twins_turn: Cell::new(0),
            twins_mixed: Cell::new(false),
            listing: RefCell::default(),
            depth: Cell::new(0),
            deciding: Cell::new(0),
            decided: Cell::new(0),
            names: Cell::new(0),
            history: RefCell::default(),
            counted: Cell::default(),
            fails,
            is_stopped: Cell::new(false),
        })
    }

    /// From now on by this session: the store was opened again.
    pub(crate) fn goes_on(&self, ask: Arc<dyn Connection>) {
        ask.set_notice_sink(self.mounts.clone());
        self.trunk.replace(Some(mount_trunk(&ask, &self.mounts, &self.file_names)));
        self.ask.replace(Some(ask));
        self.is_stopped.set(false);
        // What began before and is undecided still has no view any more.
        self.jobs.borrow_mut().iter_mut().for_each(Job::is_left);
    }

    /// Lets go of the session, and of all mounts: what their kernels have not written out is lost.
    pub(crate) fn leaves(&self) -> Option<Arc<dyn Connection>> {
        let trunk = self.trunk.take();
        if let Some(trunk) = &trunk {
            self.count(|counts| counts.add(&trunk.counts()));
            self.note_lost_stores(trunk);
        }
        self.listing.take();
        let mounts: Vec<Arc<Mount>> = self.jobs.borrow_mut().iter_mut().filter_map(|job| job.mount.take()).collect();
        mounts.iter().for_each(|mount| self.count(|counts| counts.add(&mount.counts())));
        self.ask.take()
    }

    /// The kernel of trunk could not write something out, or has not and ends.
    pub(crate) fn note_lost_stores(&self, trunk: &Mount) {
        if trunk.has_unwritten(self.files.cells) || trunk.has_lost() {
            self.stored.borrow_mut().values_mut().filter(|stored| stored.by.is_none()).for_each(|stored| {
                stored.may_be_lost = true;
            });
            self.say(|| "what trunk has stored may be lost".to_owned());
        }
    }

    /// The mount of trunk.
    pub(crate) fn trunk(&self) -> Arc<Mount> {
        self.trunk.borrow().clone().expect("it is mounted")
    }

    pub(crate) fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// What has happened, for people.
    pub(crate) fn told(&self) -> String {
        self.history.borrow().join("\n")
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counted.get()
    }

    pub(crate) fn count(&self, what: impl FnOnce(&mut Counts)) {
        let mut counts = self.counted.get();
        what(&mut counts);
        self.counted.set(counts);
    }

    /// Others are in the way; or, where it may, the disk has failed: then the store may have stopped, and says no more.
    pub(crate) fn refused(&self, what: &str, fault: &Fault) {
        if !is_refusal(fault) {
            assert!(self.fails, "{what}: {fault}");
            self.look_whether_it_has_stopped();
        }
    }

    pub(crate) fn look_whether_it_has_stopped(&self) {
        self.is_stopped.set(self.fails && self.trunk().size_past(Ino::ROOT).is_err());
    }

    pub(crate) fn ask(&self) -> Arc<dyn Connection> {
        self.ask.borrow().clone().expect("the store is open")
    }

    /// A number that the seed chooses.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.random.borrow_mut().below(limit)
    }

    /// Notes what happens.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        self.history.borrow_mut().push(format!("{:indent$}{}", "", what(), indent = 2 * self.depth.get()));
    }

    /// The disk is waited for, or a kernel: others act.
    pub(crate) fn waits(&self) {
        if self.depth.get() >= DEPTH_MAX || self.trunk.borrow().is_none() {
            return;
        }
        let deciding = IS_DECIDING.replace(false);
        self.depth.set(self.depth.get() + 1);
        for _ in 0..self.below(BESIDE_MAX) {
            self.count(|counts| counts.beside += 1);
            self.act();
        }
        self.depth.set(self.depth.get() - 1);
        IS_DECIDING.set(deciding);
    }

    /// Somebody does something.
    pub(crate) fn act(&self) {
        if self.is_stopped.get() {
            return;
        }
        self.count(|counts| counts.steps += 1);
        match self.below(38) {
            0 | 1 => self.begin(),
            2..=4 => self.with_a_job(World::read),
            5..=8 => self.with_a_job(World::count_in),
            9 | 10 => self.with_a_job(World::make),
            11 => self.with_a_job(World::rename),
            12 => self.with_a_job(World::remove),
            13 | 14 => self.with_a_job(World::write_twins),
            15 => self.with_a_job(World::store_in),
            16..=18 => self.with_a_job(World::look_in),
            19..=21 => self.with_a_job(|world, job| world.decide(job, "commit")),
            22 => self.with_a_job(|world, job| world.decide(job, "hold")),
            23 => self.with_a_job(|world, job| world.decide(job, "abort")),
            24 => self.count_on_trunk(),
            25 | 26 => self.store_on_trunk(),
            27 => self.write_out(),
            34 | 35 => self.with_a_job(World::store_in),
            36 => self.with_a_job(World::write_out_in),
            28 | 29 => self.list_on_trunk(),
            _ => self.look_on_trunk(),
        }
    }

    /// A kernel writes out what programs have stored.
    fn write_out(&self) {
        let trunk = self.trunk();
        trunk.write_out(None);
        trunk.write_out_waiting();
    }
}

fn mount_trunk(ask: &Arc<dyn Connection>, mounts: &Mounts, names: &Arc<Names>) -> Arc<Mount> {
    let view = ask.view(ViewOp::Open(ViewKind::Trunk)).expect("trunk").view;
    let trunk = Mount::new(ask.clone(), view, None, names.clone());
    mounts.add(&trunk);
    trunk
}

/// How a number is written to a file.
pub(crate) fn text_of(number: u64) -> String {
    format!("{number:8}")
}

/// The number in a file.
pub(crate) fn number_in(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    text.trim().parse().unwrap_or_else(|why| panic!("`{text}` is no number: {why}"))
}
