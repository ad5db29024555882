//! Whether a server checks itself, and what it does when it is wrong.

use std::fmt::Display;
use std::sync::OnceLock;

/// With this in its environment a server checks itself as it runs, as debug builds and its own tests do.
const VARIABLE: &str = "MOJAVEFS_CHECK";

/// Whether this server checks itself.
pub(crate) fn are_made() -> bool {
    static ARE_MADE: OnceLock<bool> = OnceLock::new();
    *ARE_MADE.get_or_init(|| cfg!(debug_assertions) || cfg!(test) || std::env::var_os(VARIABLE).is_some())
}

/// Ends the process: whatever is decided from here on would be wrong, so nobody may be answered any more.
pub(crate) fn fail(what: impl Display) -> ! {
    tracing::error!("{what}");
    match cfg!(test) {
        true => panic!("{what}"),
        false => std::process::abort(),
    }
}
