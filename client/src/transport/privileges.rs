//! Whether who asks may keep the set-id bits of what it changes. Some requests of a kernel don't say so.

use mojavefs::protocol::Caller;
use std::fs;
use std::path::Path;

/// The bit of `CAP_FSETID`.
const FSETID: u32 = 4;
/// The user namespace that every kernel begins with (`PROC_USER_INIT_INO`). Capabilities in others don't count.
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// Whether the caller may keep set-id bits; of one that can't be seen from here only root may. It waits in its call, so it is who has
/// asked.
pub(super) fn keeps_set_ids(caller: Caller) -> bool {
    let of = |what: &str| format!("/proc/{}/{what}", caller.pid);
    let (status, namespace) = (fs::read_to_string(of("status")), fs::read_link(of("ns/user")));
    match (status, namespace) {
        (Ok(status), Ok(namespace)) if acts_as(&status) == Some(caller.uid) => {
            namespace == Path::new(FIRST_USER_NAMESPACE) && capabilities(&status) & 1 << FSETID != 0
        }
        // A thread may act as another user for a while, of whose capabilities `/proc` says nothing.
        _ => caller.uid == 0,
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// The user as whom a thread uses files.
fn acts_as(status: &str) -> Option<u32> {
    field(status, "Uid")?.split_whitespace().nth(3)?.parse().ok()
}

/// Those that count.
fn capabilities(status: &str) -> u64 {
    field(status, "CapEff").and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_acts_by_its_fourth_user_and_its_effective_capabilities() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000000011\n";
        assert_eq!((acts_as(status), capabilities(status)), (Some(4), 0x11));
        assert_eq!((acts_as("Name:\tUid:\n"), capabilities("")), (None, 0));
    }

    #[test]
    fn of_who_can_t_be_seen_root_keeps_them() {
        let unseen = Caller { pid: u32::MAX, uid: 0, gid: 0 };
        assert!(keeps_set_ids(unseen) && !keeps_set_ids(Caller { uid: 1000, ..unseen }));
    }
}
