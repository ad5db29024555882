//! `mojavefs gc`

use super::progress::Progress;
use super::status::to_merge;
use super::{Where, count};
use crate::control::{ask, unexpected};
use crate::output::out;
use clap::Args;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Admin, Reply};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

#[derive(Args)]
#[command(
    after_help = "Frees what the background would free by and by, then looks through the whole store for what no view can \
reach and nothing names (there should be none), and frees that, too."
)]
pub(super) struct Gc {
    #[command(flatten)]
    filesystem: Where,
}

impl Gc {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let stream = self.filesystem.connect()?;
        let mut total = reclaim(&stream)?;
        let found = search(&stream)?;
        if found > 0 {
            total += reclaim(&stream)?;
            out!("found {} that no view can reach and nothing named", count(found, "record"));
        }
        out!("reclaimed {}", count(total, "record"));
        Ok(ExitCode::SUCCESS)
    }
}

/// Has everything reclaimed that is noted. Returns how much that was.
fn reclaim(stream: &UnixStream) -> Result<u64, Fault> {
    let progress = Progress::new("reclaimed", "records");
    let mut total = 0;
    let mut more = true;
    while more {
        let (removed, unmerged);
        (removed, more, unmerged) = step(stream, &Ask::Admin(Admin::Reclaim))?;
        total += removed;
        progress.at(total);
        progress.left(to_merge(unmerged).unwrap_or_default());
    }
    progress.end();
    Ok(total)
}

/// Has the store looked through. Returns how much was found.
fn search(stream: &UnixStream) -> Result<u64, Fault> {
    let (mut total, mut more) = (0, true);
    let mut anew = true;
    while more {
        let found;
        (found, more, _) = step(stream, &Ask::Admin(Admin::Search { anew }))?;
        total += found;
        anew = false;
    }
    Ok(total)
}

fn step(stream: &UnixStream, what: &Ask) -> Result<(u64, bool, u64), Fault> {
    match ask(stream, what, None)?.0 {
        Answer::Reply(Reply::Reclaimed { removed, more, unmerged }) => Ok((removed, more, unmerged)),
        other => Err(unexpected(&other)),
    }
}
