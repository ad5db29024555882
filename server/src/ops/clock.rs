//! Where times come from.

use mojavefs::protocol::file::Time;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time; tests bring their own.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Time;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Time { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos() },
            // Set before 1970: whole seconds are near enough.
            Err(before) => Time { seconds: -before.duration().as_secs().cast_signed(), nanos: 0 },
        }
    }
}
