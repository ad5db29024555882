//! The users and groups that an ordinary user's jobs know besides the user's own: those that `/etc/subuid` and `/etc/subgid` give
//! to that user (`subuid(5)`), each as itself. Only `newuidmap` and `newgidmap`, which have the rights for it, can map them.

use nix::sched::{CloneFlags, setns};
use nix::unistd::{Gid, Uid, User};
use std::fs::{self, File};
use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

/// How many ranges the kernel takes, but for the user's own id.
const RANGES_MAX: usize = 339;

/// A first id, and how many follow it.
type Range = (u32, u32);

/// Enters a user namespace in which these are known. False if there are none, or the programs for it: then nothing was done.
///
/// # Errors
/// The namespace was made, and can't be entered.
pub(crate) fn enter(uid: Uid, gid: Gid) -> io::Result<bool> {
    let [users, groups] = [("/etc/subuid", uid.as_raw()), ("/etc/subgid", gid.as_raw())]
        .map(|(path, own)| (own, fs::read_to_string(path).map_or_else(|_| Vec::new(), |text| given(&text, uid, own))));
    if users.1.is_empty() && groups.1.is_empty() {
        return Ok(false);
    }
    // It is not entered before its ids are mapped, so somebody else has to hold it until then.
    let Some(mut holder) = hold() else { return Ok(false) };
    let mapped = [("newuidmap", users), ("newgidmap", groups)].iter().all(|(program, (own, given))| {
        let ranges = [(*own, 1)].into_iter().chain(given.iter().copied());
        let words = ranges.flat_map(|(first, count)| [first, first, count]).map(|number| number.to_string());
        let mut command = Command::new(program);
        command
            .arg(holder.id().to_string())
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    });
    // What the programs found on the way are is the user's matter.
    let map = fs::read_to_string(format!("/proc/{}/uid_map", holder.id()));
    let mapped = mapped && map.is_ok_and(|map| map.split_whitespace().next() == Some(&uid.to_string()));
    let namespace = File::open(format!("/proc/{}/ns/user", holder.id()));
    drop(holder.stdin.take());
    holder.wait()?;
    if mapped {
        setns(namespace?, CloneFlags::CLONE_NEWUSER)?;
    }
    Ok(mapped)
}

/// A process in a user namespace of its own, which lasts until its standard input is closed.
fn hold() -> Option<Child> {
    let mut command = Command::new("unshare");
    command.args(["--user", "sh", "-c", "echo; read _"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let is_there = child.stdout.take().is_some_and(|mut output| output.read_exact(&mut [0]).is_ok());
    if !is_there {
        // It has ended, or ends now; what it would have said is said by who tries it without these ids.
        drop(child.stdin.take());
        let _ = child.wait();
        return None;
    }
    Some(child)
}

/// What a file gives to a user, without the user's own id.
fn given(text: &str, user: Uid, own: u32) -> Vec<Range> {
    let name = User::from_uid(user).ok().flatten().map(|user| user.name);
    let mut ranges = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [who, first, count] = fields[..] else { continue };
        let is_meant = Some(who) == name.as_deref() || who.parse() == Ok(user.as_raw());
        if let (true, Ok(first), Ok(count)) = (is_meant, first.parse::<u32>(), count.trim().parse::<u32>()) {
            ranges.extend(without(own, first, count));
        }
    }
    apart(ranges)
}

/// The same ids, each once: the kernel takes no map in which one is there twice.
fn apart(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_unstable();
    let mut apart: Vec<Range> = Vec::new();
    for (first, count) in ranges {
        match apart.last_mut() {
            Some((before, length)) if first <= *before + *length => *length = (first + count - *before).max(*length),
            _ => apart.push((first, count)),
        }
    }
    apart.truncate(RANGES_MAX);
    apart
}

/// A range without one id: up to two ranges. One that goes beyond what ids there are is none.
fn without(own: u32, first: u32, count: u32) -> impl Iterator<Item = Range> {
    let end = first.checked_add(count);
    let parts = match end {
        Some(end) if (first..end).contains(&own) => [(first, own - first), (own + 1, end - own - 1)],
        Some(_) => [(first, count), (0, 0)],
        None => [(0, 0); 2],
    };
    parts.into_iter().filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_given_what_stands_beside_name_or_number() {
        let text = "# comment\nroot:100000:65536\n0:5:2\nnobody:1:1\nroot:x:1\nroot:4294967295:2\nroot:7:0\n";
        assert_eq!(given(text, Uid::from_raw(0), 0), [(5, 2), (100_000, 65_536)]);
        assert_eq!(given(text, Uid::from_raw(0), 5), [(6, 1), (100_000, 65_536)]);
        assert_eq!(given(text, Uid::from_raw(0), 100_001), [(5, 2), (100_000, 1), (100_002, 65_534)]);
    }

    #[test]
    fn what_is_given_twice_is_mapped_once() {
        assert_eq!(apart(vec![(5, 10), (8, 1), (5, 10), (15, 2), (20, 1)]), [(5, 12), (20, 1)]);
    }
}
