//! Faults that can be planted, to see that the tests find them. Only in programs that are built with the feature `planted`,
//! which nobody ships: `mojavefs-planted` and `specrun-planted`. Everywhere else [`is_planted`] is always false.

macro_rules! faults {
    ($($(#[$of:meta])* $variant:ident $name:literal),* $(,)?) => {
        /// A mistake that the code could have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Planted { $($(#[$of])* $variant),* }

        impl Planted {
            /// Every one.
            pub const ALL: &[Planted] = &[$(Planted::$variant),*];

            /// What it is called in [`VARIABLE`].
            pub const fn name(self) -> &'static str {
                match self { $(Planted::$variant => $name),* }
            }
        }
    };
}

faults! {
    /// Undecided work of others is shown to a job without its becoming part of it.
    DeliverWithoutJoining "deliver-without-joining",
    /// A kernel keeps the pages of a file that others have changed.
    StalePage "stale-page",
    /// A kernel keeps a file's attributes that others have changed.
    SizeKept "size-kept",
    /// A kernel keeps names that others have changed.
    NameKept "name-kept",
    /// An open directory that is read from its beginning again is not read anew.
    ListingKept "listing-kept",
    /// The attributes of what was undone stay in the store.
    VersionKept "version-kept",
    /// A file that is cut loses all of its last block.
    WriteLostAtTruncate "write-lost-at-truncate",
    /// `SEEK_DATA` finds nothing in a small file.
    HoleOverData "hole-over-data",
    /// Who changes what another, whom it does not follow, has read or changed is in no conflict.
    ConflictUnnoticed "conflict-unnoticed",
    /// A job does not depend on what a job inside it depends on.
    DependencyForgottenAtFold "dependency-forgotten-at-fold",
    /// A job that was undone with another ends as if it were committed.
    UndoneToldAsCommitted "undone-told-as-committed",
    /// A further owner of a speculation is none.
    FurtherOwnerForgotten "further-owner-forgotten",
    /// A job whose fate is open ends as if it were committed.
    AnswerBeforeDecision "answer-before-decision",
    /// Who should wait for others' decisions joins them.
    JoinInsteadOfWaiting "join-instead-of-waiting",
    /// What an inner context has changed is nobody's once it is folded.
    NumberLostAtFold "number-lost-at-fold",
    /// Of every second context it is not noted what it uses.
    UseForgotten "use-forgotten",
    /// What is taken up after a restart has lost its conflicts, those that stand and those that may come.
    ConflictsLostAtRestart "conflicts-lost-at-restart",
    /// A job that stays with what it found sees what those around it have changed since.
    SightTooNew "sight-too-new",
    /// Trunk changes what is just being committed.
    ChangeBesideTheSeal "change-beside-the-seal",
    /// A job changes more while it is being committed.
    ChangeAfterTheSeal "change-after-the-seal",
    /// A commit keeps its first place among what is final, whoever has begun to stay with that since.
    PlaceOfTheSeal "place-of-the-seal",
    /// A job is held by what it found, to which a commit comes later of which the record does not say so yet.
    HoldBeforeThePlace "hold-before-the-place",
    /// What has to do with a commit is written down while that is.
    RecordBesideTheRound "record-beside-the-round",
    /// A commit is decided beside another one that it has to do with.
    RoundBesideItsRival "round-beside-its-rival",
    /// What is about to change is provisional only once kernels have forgotten what they were told before.
    ProvisionalTooLate "provisional-too-late",
    /// Kernels keep over a commit what they have read while it was recorded.
    ReadKeptOverTheCommit "read-kept-over-the-commit",
    /// Kernels keep over a commit what they were told before it.
    NothingForgotten "nothing-forgotten",
    /// Who writes old pages over what others have written is in no conflict.
    OldPagesUnnoticed "old-pages-unnoticed",
    /// A decision over several shards is handed to the log when the first one is ready.
    DecidedByTheFirst "decided-by-the-first",
    /// Shards are told of a decision before it is in the log.
    ToldBeforeTheRecord "told-before-the-record",
    /// A shard hears a coordinator that has been superseded.
    StaleTermAccepted "stale-term-accepted",
    /// A shard listens to a coordinator that has been superseded once it has started again.
    TermForgotten "term-forgotten",
    /// One of the shards that a decision is about is not asked.
    ParticipantForgotten "participant-forgotten",
    /// A shard comes to take part in what is being decided.
    EnrolledAfterTheSeal "enrolled-after-the-seal",
    /// Owners are answered before all shards show what was decided.
    AnsweredBeforeApplied "answered-before-applied",
    /// Owners are answered while shards have yet to take a cut that comes before the decision.
    AnsweredBeforeTheCut "answered-before-the-cut",
    /// A decision leaves the log before its owner knows of it.
    TrimmedBeforeHeard "trimmed-before-heard",
    /// A snapshot lies at a cut that not all shards have taken.
    CutNotTakenByAll "cut-not-taken-by-all",
    /// Who knows of a cut does not tell the next shard.
    CutsNotCarried "cuts-not-carried",
    /// A shard decides more than what was gathered.
    MoreThanGathered "more-than-gathered",
    /// Two decisions about the same are sealed at a shard.
    BothSealed "both-sealed",
    /// A shard says that it is ready before that is durable.
    ReadyBeforeDurable "ready-before-durable",
    /// Who knows of a decision is shown what was so before it.
    KnownIgnored "known-ignored",
    /// A round goes on though clients have not forgotten what they were told.
    GatheredAtOnce "gathered-at-once",
    /// What a round is about is told to stay until it is sealed.
    ProvisionalFromTheSeal "provisional-from-the-seal",
    /// What is said again on a new connection counts again.
    HeardTwice "heard-twice",
    /// What was lost with a connection is not said again.
    SaidOnce "said-once",
    /// What is just being decided is told to stay.
    ToldToLast "told-to-last",
    /// What is sealed is changed as if it were not.
    SealIgnored "seal-ignored",
    /// What a context changes lies below what it saw.
    ChangedBelow "changed-below",
    /// Whether what is around a context has changed what it used is not asked before it becomes part of that.
    FoldNotJudged "fold-not-judged",
    /// A context that takes another one in takes part where it took part itself only.
    ShardsLostAtFold "shards-lost-at-fold",
    /// A record does not name what had become part of what it decides.
    FoldedNotNamed "folded-not-named",
    /// What a context changes after another has begun inside of it is not told apart from what that has found.
    FoundNotToldApart "found-not-told-apart",
    /// What is held is undone with a shard of it.
    HeldWithItsShard "held-with-its-shard",
    /// A shard says that it keeps something before that is durable.
    KeptBeforeDurable "kept-before-durable",
    /// What was held is told to be undone before that is in the log.
    DroppedBeforeTheRecord "dropped-before-the-record",
    /// What is in the log of what is held does not follow what it depends on.
    HeldNotRewritten "held-not-rewritten",
    /// One part of a change of several shards is seen before the others.
    StepSeenInParts "step-seen-in-parts",
    /// A change of several shards that is asked for again is made again.
    StepMadeTwice "step-made-twice",
}

impl Planted {
    /// Those that take a disk which answers late: the server's own random histories find them, the nets through a kernel do not.
    pub const OF_ROUNDS: &[Planted] = &[
        Planted::ChangeBesideTheSeal,
        Planted::ChangeAfterTheSeal,
        Planted::PlaceOfTheSeal,
        Planted::HoldBeforeThePlace,
        Planted::RecordBesideTheRound,
        Planted::RoundBesideItsRival,
    ];
}

impl Planted {
    /// Those that show in what a kernel keeps: the simulator finds them.
    pub const OF_KERNELS: &[Planted] = &[
        Planted::ProvisionalTooLate,
        Planted::ReadKeptOverTheCommit,
        Planted::NothingForgotten,
        Planted::OldPagesUnnoticed,
    ];
}

impl Planted {
    /// Those of several servers: the simulator of a cluster finds them.
    pub const OF_CLUSTERS: &[Planted] = &[
        Planted::DecidedByTheFirst,
        Planted::ToldBeforeTheRecord,
        Planted::StaleTermAccepted,
        Planted::TermForgotten,
        Planted::ParticipantForgotten,
        Planted::EnrolledAfterTheSeal,
        Planted::AnsweredBeforeApplied,
        Planted::AnsweredBeforeTheCut,
        Planted::TrimmedBeforeHeard,
        Planted::CutNotTakenByAll,
        Planted::CutsNotCarried,
        Planted::MoreThanGathered,
        Planted::BothSealed,
        Planted::ReadyBeforeDurable,
        Planted::KnownIgnored,
        Planted::GatheredAtOnce,
        Planted::ProvisionalFromTheSeal,
        Planted::HeardTwice,
        Planted::SaidOnce,
        Planted::ToldToLast,
        Planted::SealIgnored,
        Planted::ChangedBelow,
        Planted::FoldNotJudged,
        Planted::ShardsLostAtFold,
        Planted::FoldedNotNamed,
        Planted::FoundNotToldApart,
        Planted::HeldWithItsShard,
        Planted::KeptBeforeDurable,
        Planted::DroppedBeforeTheRecord,
        Planted::HeldNotRewritten,
        Planted::StepSeenInParts,
        Planted::StepMadeTwice,
    ];
}

/// The variable of the environment that names the fault.
pub const VARIABLE: &str = "MOJAVEFS_PLANTED";

/// Whether this program has this fault.
#[cfg(feature = "planted")]
pub fn is_planted(fault: Planted) -> bool {
    static NAME: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var_os(VARIABLE)).as_ref().is_some_and(|name| name == fault.name())
}

/// Whether this program has this fault.
#[cfg(not(feature = "planted"))]
pub const fn is_planted(_fault: Planted) -> bool {
    false
}
