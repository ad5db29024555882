//! `mojavefs serve`

use super::mount::{log_to, parse_size};
use super::{Embedded, harmless, host_fault, keygen, place};
use crate::daemon::{ending_signals, make_all_private};
use crate::output::{err, out};
use clap::Args;
use mojavefs::protocol::fault::Fault;
use mojavefs_net::Address;
use nix::unistd::{getegid, geteuid};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
#[command(
    after_help = "Stays in the foreground until SIGTERM, SIGINT or SIGHUP; says `ready` and where it listens once \
clients can connect. Clients: `mojavefs mount ADDRESS MOUNTPOINT`."
)]
pub(super) struct Serve {
    /// The store's directory; an empty or missing one becomes a new store
    store: PathBuf,
    /// Where to listen: unix:PATH (for this user and root) or tcp:HOST:PORT (for whoever has the key); may be repeated
    #[arg(long, value_name = "ADDRESS", required = true)]
    listen: Vec<Address>,
    /// The key that clients must have for tcp: (`mojavefs keygen`)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Memory for buffers and caches
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    memory: usize,
}

impl Serve {
    pub(super) fn run(&self, embedded: &dyn Embedded) -> Result<ExitCode, Fault> {
        let key = self.key.as_deref().map(keygen::read_key).transpose()?;
        log_to(std::io::stderr);
        place::warn_of_others("the store", &self.store);
        self.key.iter().for_each(|key| place::warn_of_others("the key file", key));
        for socket in self.listen.iter().filter_map(Address::path) {
            place::warn_of_others("the socket", socket);
        }
        make_all_private();
        // Blocked before the first thread starts, so that only this one gets them.
        let signals = ending_signals();
        signals.thread_block().map_err(|e| host_fault("block signals")(e.into()))?;
        let owner = (geteuid().as_raw(), getegid().as_raw());
        let new = place::look(&self.store)?.becomes_new();
        let serving = embedded.serve(&self.store, self.memory, owner, &self.listen, key.as_ref())?;
        if new {
            err!("created {}", self.store.display());
        }
        serving.notes.iter().for_each(|note| err!("mojavefs: {}", harmless(note)));
        let addresses: Vec<String> = serving.addresses.iter().map(Address::to_string).collect();
        out!("ready: {}", addresses.join(" "));
        drop(std::io::stdout().flush());
        signals.wait().map_err(|e| host_fault("wait for a signal")(e.into()))?;
        Ok(ExitCode::SUCCESS)
    }
}
