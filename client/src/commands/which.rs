//! Which speculation a command is about, where none is named.

use super::silence::Silence;
use super::{Where, count, escaped, parse_spec, shown};
use crate::control::{self, unexpected};
use crate::job::find::Filesystem;
use crate::output::err;
use clap::Args;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Reply, SpecOp, SpecState, SpecStatus};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a command that takes one speculation exits with if it does not say which of several.
pub(super) const EXIT_USAGE: u8 = 2;

#[derive(Args)]
pub(super) struct Which {
    /// The speculation, as `mojavefs status` numbers it; without it the only one that is held on the mount, or over the directory
    /// of the host, where one stands
    #[arg(value_parser = parse_spec)]
    id: Option<SpecId>,
}

impl Which {
    /// The one that is meant. Nothing if it could be several, which is said: the command line is wrong.
    pub(super) fn find(&self, filesystem: &Filesystem) -> Result<Option<SpecId>, Fault> {
        if let Some(id) = self.id {
            return Ok(Some(id));
        }
        let all = match control::ask(&filesystem.connect()?, &Ask::Speculation(SpecOp::Status), None)?.0 {
            Answer::Reply(Reply::Status(all)) => all,
            other => return Err(unexpected(&other)),
        };
        let place = filesystem.host_dirs().next().unwrap_or(&filesystem.mountpoint);
        let is_here = |status: &&SpecStatus| !filesystem.is_host() || is_about(status, place);
        let (held, rest): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.state == SpecState::Held && is_here(one));
        let at = shown(place.as_os_str().as_bytes());
        match held[..] {
            [one] => Ok(Some(one.id)),
            [] => {
                let elsewhere = match rest.len() as u64 {
                    0 => String::new(),
                    some => format!("; {} elsewhere or not held: see `mojavefs status`", count(some, "speculation")),
                };
                Err(Fault::new(FaultKind::NotFound, format!("nothing is held {}{elsewhere}", over(filesystem, &at))))
            }
            _ => {
                err!("mojavefs: several speculations are held {}; say which:", over(filesystem, &at));
                for one in held {
                    err!("  {}  {}  {}", one.id, count(one.changes, "change"), escaped(&one.info.command));
                }
                Ok(None)
            }
        }
    }
}

impl Where {
    /// The filesystem, and the speculation of it that is meant; see [`Which::find`].
    pub(super) fn find_with(&self, which: &Which) -> Result<(Filesystem, Option<SpecId>), Fault> {
        let _silence = Silence::begin();
        let filesystem = self.find()?;
        let spec = which.find(&filesystem)?;
        Ok((filesystem, spec))
    }
}

fn over(filesystem: &Filesystem, at: &str) -> String {
    if filesystem.is_host() { format!("over {at}") } else { format!("on the filesystem mounted on {at}") }
}

/// Whether it is about the directories of the host in which this one lies.
fn is_about(status: &SpecStatus, dir: &Path) -> bool {
    let dirs = &status.info.dirs;
    dirs.is_empty() || dirs.iter().any(|of| dir.starts_with(OsStr::from_bytes(of)))
}
