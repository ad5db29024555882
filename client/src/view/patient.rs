//! A session for a view whose programs wait for decisions (`--on-read wait`).

use crate::limits::AWAIT_STEP;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::SpecId;
use mojavefs::wire::{Connection, ConnectionExt, NoticeSink, Reply, Request};
use std::sync::Arc;

/// Repeats a request that met another's undecided work once something was decided.
pub(crate) struct Patient {
    server: Arc<dyn Connection>,
    spec: SpecId,
}

impl Patient {
    /// For the view of `spec`.
    pub(crate) fn new(server: Arc<dyn Connection>, spec: SpecId) -> Self {
        Patient { server, spec }
    }
}

impl Connection for Patient {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        loop {
            match self.server.call(request.clone()) {
                Err(fault) if fault.kind == FaultKind::Undecided => {
                    let millis = AWAIT_STEP.as_millis() as u32;
                    self.server.specs(Request::Await { specs: Vec::new(), millis, behind: Some(self.spec) })?;
                }
                result => return result,
            }
        }
    }

    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>) {
        self.server.set_notice_sink(sink);
    }

    fn is_embedded(&self) -> bool {
        self.server.is_embedded()
    }

    fn is_patient(&self) -> bool {
        true
    }
}
