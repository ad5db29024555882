//! Committing in spite of conflicts, once the owner has said whose version stands.

use super::{Aftermath, Coordinator, fault};
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::SpecId;
use mojavefs::wire::{Outcome, Resolution};

impl Coordinator {
    pub(super) fn commit_resolved(
        &self,
        _spec: SpecId,
        _uid: u32,
        _resolutions: &[Resolution],
    ) -> Result<(Outcome, Aftermath), Fault> {
        let _ = fault::store;
        Err(Fault::new(FaultKind::Unsupported, "unfinished"))
    }
}
