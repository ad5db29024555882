//! Speculations of several owners: what one process tells another so that it can own one of its own.

use crate::{Branch, entered, level};
use mojavefs::id::SpecId;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// Names a speculation to other processes: as text, it goes wherever text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub(crate) SpecId);

/// What the text of a token begins with.
const PREFIX: &str = "mojave:";

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// A text that is no [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no token of a shared speculation")]
pub struct NoToken;

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let number = text.strip_prefix(PREFIX).and_then(|number| number.parse().ok());
        number.map(|number| Token(SpecId(number))).ok_or(NoToken)
    }
}

/// A token by which another process can [`own`] the innermost speculation, too: it is final when all its owners have
/// committed, and undone when one aborts.
///
/// # Errors
/// `Unsupported` outside of speculations, or of `specrun`.
pub fn share() -> io::Result<Token> {
    let spec = level::shared().ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "no speculation is open here whose files the filesystem undoes")
    })?;
    Ok(Token(SpecId(spec)))
}

/// Enters a speculation that owns another's beside itself: each is final only with the other.
///
/// # Errors
/// As for [`enter`](crate::enter); `Unsupported` outside of `specrun`, too.
pub fn own(token: Token) -> io::Result<Branch> {
    entered(level::speculate(Some(token.0)))
}

/// Returns when nothing that this process did can be undone any more: output to the world belongs behind it. Waits no longer
/// than `limit`, if there is one.
///
/// # Errors
/// `Deadlock` inside a speculation of its own or its job's: that is decided later. `TimedOut` at the limit.
pub fn barrier(limit: Option<Duration>) -> io::Result<()> {
    level::barrier(limit).map_err(|crate::sys::Errno(errno)| io::Error::from_raw_os_error(errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = Token(SpecId(77));
        assert_eq!(token.to_string().parse(), Ok(token));
        for odd in ["", "mojave:", "mojave:x", "77", "mojave:-1", "mojave:77 "] {
            assert_eq!(odd.parse::<Token>(), Err(NoToken), "{odd}");
        }
    }
}
