//! What was undone does not make what comes after it slower.

mod common;

use common::Client;
use mojavefs::file::FileKind;
use mojavefs::id::Ino;
use mojavefs::wire::{ConnectionExt, Request};
use rocksdb::PerfStatsLevel;
use rocksdb::perf::{PerfContext, PerfMetric, set_perf_stats};
use std::time::{Duration, Instant};

const JOBS: usize = 4000;
/// How many removed records a reading may walk through.
const WALKED_MAX: u64 = 1000;
const LIMIT: Duration = Duration::from_secs(60);

/// Calls `look`, and says how many removed records it walked through.
fn walked(look: impl FnOnce()) -> u64 {
    let mut context = PerfContext::default();
    context.reset();
    look();
    context.metric(PerfMetric::InternalDeleteSkippedCount)
}

#[test]
fn a_file_changed_by_thousands_that_were_undone_is_read_as_fast_as_any() {
    set_perf_stats(PerfStatsLevel::EnableCount);
    let client = Client::new();
    let file = client.create(client.trunk, Ino::ROOT, b"file", FileKind::Regular).expect("a file").ino;
    let write = |view| {
        let request =
            Request::Write { view, ino: file, offset: 0, data: b"undone", append: false, clear_set_id: false };
        client.ask().offset(request).expect("a write");
    };
    let look = || {
        client.ask().attr(Request::GetAttr { view: client.trunk, ino: file }).expect("attributes");
    };
    let mut most = 0;
    for _ in 0..JOBS {
        let (view, spec) = client.begin(client.trunk);
        write(view);
        most = most.max(walked(look));
        client.abort(spec);
        client.ask().done(Request::CloseView(view)).expect("the view closes");
        while client.reclaim(1) {}
    }
    assert!(most > 0, "nothing is counted");
    let deadline = Instant::now() + LIMIT;
    // What is cleared away is cleared away in the background.
    while walked(look) > WALKED_MAX {
        assert!(Instant::now() < deadline, "{most} removed records are walked through");
    }
}
