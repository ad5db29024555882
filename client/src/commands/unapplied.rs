//! What is committed over directories of the host, and waits to be applied to them.

use super::json::with_paths;
use super::silence::Silence;
use super::{count, escaped, shown};
use crate::control::{self, unexpected};
use crate::job::find::Filesystem;
use crate::output::err;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Admin, Reply, Unapplied};
use serde_json::json;

/// Asks for it; with `again` it is tried once more before. What was displaced by that is told.
pub(super) fn ask(filesystem: &Filesystem, again: bool) -> Result<Vec<Unapplied>, Fault> {
    let _silence = Silence::begin();
    match control::ask(&filesystem.connect()?, &Ask::Admin(Admin::Unapplied { again }), None)?.0 {
        Answer::Reply(Reply::Unapplied { waiting, displaced }) => {
            displaced.iter().for_each(|line| err!("mojavefs: {line}"));
            Ok(waiting)
        }
        other => Err(unexpected(&other)),
    }
}

/// One of them, for people.
pub(super) fn lines(waits: &Unapplied) -> Vec<String> {
    let head = format!("committed, and not on the host yet: {}", escaped(&waits.why));
    let paths = waits.paths.iter().map(|path| format!("  {}", shown(&absolute(path))));
    let more = (waits.paths_more > 0).then(|| format!("  and {} more", count(waits.paths_more, "path")));
    [head].into_iter().chain(paths).chain(more).collect()
}

/// The same for programs.
pub(super) fn as_json(waits: &Unapplied) -> serde_json::Value {
    let object =
        json!({"state": "unapplied", "decision": waits.decision, "why": waits.why, "paths_more": waits.paths_more});
    let paths: Vec<Vec<u8>> = waits.paths.iter().map(|path| absolute(path)).collect();
    with_paths(object, "paths", &paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}
