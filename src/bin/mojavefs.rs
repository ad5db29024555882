//! The command line of MojaveFS: a client with a server built in.

use mojavefs::id::SpecId;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_client::{Backend, Checked, Embedded, Keep, Serving, next_speculation};
use mojavefs_net::{Address, Key};
use mojavefs_server::Server;
use mojavefs_server::net;
use mojavefs_server::origin::Host;
use mojavefs_server::store::engine::Directory;
use mojavefs_server::store::{self, StoreError, StoreOptions};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

struct BuiltIn;

struct Kept(Server);

impl Keep for Kept {
    fn discard_if_new(&self) {
        self.0.discard_if_new();
    }

    fn ends(&self) {
        self.0.ends();
    }

    fn rests(&self) -> Option<u64> {
        self.0.rests()
    }
}

fn fault(error: StoreError) -> Fault {
    Fault::new(FaultKind::Io, error.to_string())
}

impl Embedded for BuiltIn {
    fn open(&self, store: &Path, memory_bytes: usize, owner: (u32, u32)) -> Result<Backend, Fault> {
        let server = Server::open(&Directory::at(store), StoreOptions { memory_bytes, owner }).map_err(fault)?;
        let notes = server.notes().to_vec();
        Ok(Backend { connection: server.connect(true), notes, keep: Box::new(Kept(server)) })
    }

    fn open_over_host(&self, state: &Path, memory_bytes: usize, owner: (u32, u32)) -> Result<Backend, Fault> {
        let host = Host::here(state).map_err(|e| Fault::new(FaultKind::Io, format!("look at the host: {e}")))?;
        let store = Directory::at(&state.join("store"));
        let options = StoreOptions { memory_bytes, owner };
        let server = Server::open_over(&store, options, Some(Arc::new(host))).map_err(fault)?;
        if let Some(next) = next_speculation(state) {
            server.go_on_from(SpecId(next)).map_err(fault)?;
        }
        let notes = server.notes().to_vec();
        Ok(Backend { connection: server.connect(true), notes, keep: Box::new(Kept(server)) })
    }

    fn serve(
        &self,
        store: &Path,
        memory_bytes: usize,
        owner: (u32, u32),
        listen: &[Address],
        key: Option<&Key>,
    ) -> Result<Serving, Fault> {
        let server = Server::open(&Directory::at(store), StoreOptions { memory_bytes, owner }).map_err(fault)?;
        let notes = server.notes().to_vec();
        let listening = net::listen(Arc::new(server), listen, key)?;
        Ok(Serving { addresses: listening.addresses().to_vec(), notes, keep: Box::new(listening) })
    }

    fn fsck(&self, dir: &Path, memory_bytes: usize, progress: &mut dyn FnMut(u64)) -> Result<Checked, Fault> {
        let report = store::fsck(&Directory::at(dir), StoreOptions { memory_bytes, owner: (0, 0) }, progress).map_err(
            |error| match error {
                StoreError::NotAStore(dir) => {
                    let text = format!("{dir} is no MojaveFS store; name the directory of one");
                    Fault::new(FaultKind::NotFound, text)
                }
                error => fault(error),
            },
        )?;
        let counts = vec![
            ("inodes", report.inodes),
            ("names", report.names),
            ("blocks", report.blocks),
            ("held speculations", report.held),
            ("unreachable versions", report.unreachable),
        ];
        let problems = report.problems.iter().map(ToString::to_string).collect();
        Ok(Checked { problems, counts, notes: garbage(&report) })
    }
}

/// What is no damage, and what to do about it.
fn garbage(report: &store::Report) -> Vec<String> {
    if report.unreachable + report.unreachable_files == 0 {
        return Vec::new();
    }
    let mut notes = vec![format!(
        "no view can reach {} versions of what is recorded any more, {} of them blocks, and {} content files; work that a \
         crash has undone is freed by the next mount, everything by `mojavefs gc` there",
        report.unreachable, report.unreachable_blocks, report.unreachable_files
    )];
    notes.extend(report.unreachable_named.iter().map(|name| format!("no view can reach a version of {name}")));
    if report.unreachable > report.unreachable_named.len() as u64 {
        notes.push(format!("and {} more", report.unreachable - report.unreachable_named.len() as u64));
    }
    notes
}

pub(crate) fn main() -> ExitCode {
    mojavefs_client::mojavefs_main(&BuiltIn)
}
