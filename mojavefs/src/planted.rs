//! Faults that can be planted, to see that the tests find them. Only in programs that are built with the feature `planted`,
//! which nobody ships: `mojavefs-planted` and `specrun-planted`. Everywhere else [`is_planted`] is always false.

/// A mistake that the code could have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Undecided work of others is shown to a job without its becoming part of it.
    DeliverWithoutJoining,
}

impl Planted {
    /// Every one.
    pub const ALL: [Planted; 1] = [Planted::DeliverWithoutJoining];

    /// What it is called in [`VARIABLE`].
    pub const fn name(self) -> &'static str {
        match self {
            Planted::DeliverWithoutJoining => "deliver-without-joining",
        }
    }
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
