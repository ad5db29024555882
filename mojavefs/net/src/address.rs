//! Where a server listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the filesystem of the host: `unix:PATH`.
    Unix(PathBuf),
    /// A host and port, with TLS: `tcp:HOST:PORT`.
    Tcp(String),
}

impl Address {
    /// Whether `text` means an address (else a directory): it begins with a scheme.
    pub fn is_meant_by(text: &str) -> bool {
        text.starts_with("unix:") || text.starts_with("tcp:")
    }

    /// The path of a socket in the filesystem of the host.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Address::Unix(path) => Some(path),
            Address::Tcp(_) => None,
        }
    }

    /// The same with a path that does not depend on the working directory.
    pub fn absolute(self) -> std::io::Result<Self> {
        Ok(match self {
            Address::Unix(path) => Address::Unix(std::path::absolute(path)?),
            tcp @ Address::Tcp(_) => tcp,
        })
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address; write unix:PATH or tcp:HOST:PORT");
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Address::Unix(PathBuf::from(path)));
        }
        let target = text.strip_prefix("tcp:").ok_or_else(wrong)?;
        let (host, port) = target.rsplit_once(':').ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match !bare.is_empty() && (bare.len() != host.len() || !host.contains(':')) && port.parse::<u16>().is_ok() {
            true => Ok(Address::Tcp(target.to_owned())),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tcp(target) => write!(f, "tcp:{target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_address_and_what_is_not() {
        for good in ["unix:/run/m.sock", "unix:m", "tcp:localhost:80", "tcp:10.0.0.1:0", "tcp:[::1]:9"] {
            assert_eq!(good.parse::<Address>().expect(good).to_string(), good);
        }
        for bad in
            ["", "/run/m.sock", "unix:", "tcp:", "tcp:host", "tcp::80", "tcp:host:port", "tcp:host:99999", "tcp:::1:9"]
        {
            assert!(bad.parse::<Address>().expect_err(bad).contains("is no address"));
        }
    }
}
