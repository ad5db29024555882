//! Why a process can't be brought back to the call in which it waits. Then its job goes back to its start, which is always right.

use super::locks::{self, Locks};
use crate::sys;
use nix::libc;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Either lets a process choose the number of another: `CAP_SYS_ADMIN`, `CAP_CHECKPOINT_RESTORE`.
const CAPABILITIES: u64 = 1 << 21 | 1 << 40;
/// Devices without a state of their own, by major and minor number: `null`, `zero`, `full`, `random`, `urandom`; `tty`,
/// `console`.
const PLAIN_DEVICES: [(u32, u32); 7] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1)];
/// Those of terminals (`/dev/pts`).
const TERMINAL_MAJORS: RangeInclusive<u32> = 136..=143;

/// What stands in the way for the main process of a job, but for `checkpoints` of its own; nothing if there is no obstacle.
pub(super) fn find(main: Pid, caller: u32, checkpoints: &[Pid], mount: &File) -> io::Result<Option<String>> {
    let status = fs::read_to_string(format!("/proc/{main}/status"))?;
    if let Some(obstacle) = in_status(&status) {
        return Ok(Some(obstacle));
    }
    if main.as_raw().cast_unsigned() != caller {
        return Ok(Some("another process of the job has read it, not the command itself".to_owned()));
    }
    if others(main, checkpoints)? {
        return Ok(Some("the job has more than one process".to_owned()));
    }
    let inside = sys::cached_stat(&Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()))?.device;
    let checks = [in_stat(main)?, in_descriptors(main, inside)?, in_timers(main)?, in_memory(main, inside)?];
    Ok(checks.into_iter().flatten().next())
}

/// Whether the job has processes beside its main one.
fn others(main: Pid, checkpoints: &[Pid]) -> io::Result<bool> {
    let me = std::process::id();
    let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let known = |pid: &i32| *pid == main.as_raw() || checkpoints.contains(&Pid::from_raw(*pid));
    let stranger = |list: &str| list.split_whitespace().filter_map(|pid| pid.parse().ok()).any(|pid| !known(&pid));
    Ok(stranger(&children(me)?) || !children(main.as_raw().cast_unsigned())?.trim().is_empty())
}

fn in_status(status: &str) -> Option<String> {
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).unwrap_or_default()
    };
    let capabilities = u64::from_str_radix(field("CapEff"), 16).unwrap_or(0);
    let obstacle = match () {
        () if field("Threads") != "1" => "the process has several threads",
        () if field("TracerPid") != "0" => "the process is being debugged",
        () if !matches!(field("VmLck"), "" | "0 kB") => "the process has memory that it has locked",
        () if field("Seccomp") != "0" => "the process may make some system calls only (seccomp)",
        () if capabilities & CAPABILITIES == 0 => "the process has given up the rights that bring its number back",
        () => return None,
    };
    Some(obstacle.to_owned())
}

/// A number that is still a group's or session's can't be given to a process.
fn in_stat(pid: Pid) -> io::Result<Option<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let leads = fields.get(2..4).is_some_and(|ids| ids.iter().any(|id| *id == pid.to_string()));
    Ok(leads.then(|| "the process leads a process group or session of its own".to_owned()))
}

/// `inside` is the device of the job's own files.
fn in_descriptors(pid: Pid, inside: (u32, u32)) -> io::Result<Option<String>> {
    let process = sys::pidfd_open(pid.as_raw().cast_unsigned())?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let number: u32 = entry.file_name().to_string_lossy().parse().unwrap_or(0);
        let target = fs::read_link(entry.path())?;
        let name = target.to_string_lossy();
        // The filesystem itself would have to ask the one who asks this.
        let stat = sys::cached_stat(&entry.path())?;
        let has_state = match stat.kind {
            libc::S_IFIFO | libc::S_IFSOCK => number > 2 && !is_inherited(number, &target),
            libc::S_IFCHR => !PLAIN_DEVICES.contains(&stat.stands_for) && !TERMINAL_MAJORS.contains(&stat.stands_for.0),
            libc::S_IFREG | libc::S_IFDIR => {
                ["/memfd:", "/proc/", "anon_inode:"].iter().any(|start| name.starts_with(start))
            }
            _ => true,
        };
        if matches!(stat.kind, libc::S_IFREG | libc::S_IFDIR) && stat.device != inside {
            let number = number.cast_signed();
            let locks = Locks::note(number, &locks::info(pid, number)?, true)?;
            if locks.are_shared() && !locks::is_given(&process, number)? {
                let held = format!("descriptor {number} ({name}) is locked, and a checkpoint would keep it so");
                return Ok(Some(held));
            }
        }
        if has_state {
            return Ok(Some(format!("what descriptor {number} ({name}) has done can't be undone")));
        }
    }
    Ok(None)
}

/// This process has it, too, and has given it to the job: it leads to the outside, as the standard ones do.
fn is_inherited(number: u32, target: &Path) -> bool {
    fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|mine| mine == target)
}

fn in_timers(pid: Pid) -> io::Result<Option<String>> {
    let timers = fs::read_to_string(format!("/proc/{pid}/timers"))?;
    Ok((!timers.trim().is_empty()).then(|| "the process has POSIX timers".to_owned()))
}

/// Memory that a fork shares or leaves out. What is mapped of the job's own files goes back with these.
fn in_memory(pid: Pid, (major, minor): (u32, u32)) -> io::Result<Option<String>> {
    let inside = format!("{major:02x}:{minor:02x}");
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    for line in maps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if flags.split_whitespace().any(|flag| flag == "dc" || flag == "wf") {
                return Ok(Some("the process has memory that a fork does not copy".to_owned()));
            }
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        if !range.contains('-') || !rights.starts_with("rw") || !rights.ends_with('s') {
            continue;
        }
        if words.nth(1) != Some(&inside) {
            let name = words.nth(1).unwrap_or("no name");
            return Ok(Some(format!("the process shares memory with others ({name})")));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcat\nThreads:\t1\nTracerPid:\t0\nSeccomp:\t0\nCapEff:\t000001ffffffffff\n";

    #[test]
    fn an_ordinary_process_has_no_obstacle_in_its_status() {
        assert_eq!(in_status(STATUS), None);
    }

    #[test]
    fn threads_debuggers_seccomp_and_rights_given_up_are_obstacles() {
        for (from, to, word) in [
            ("Threads:\t1", "Threads:\t2", "threads"),
            ("TracerPid:\t0", "TracerPid:\t7", "debugged"),
            ("Seccomp:\t0", "Seccomp:\t2", "seccomp"),
            ("000001ffffffffff", "0000000000000000", "rights"),
        ] {
            let obstacle = in_status(&STATUS.replace(from, to));
            assert!(obstacle.as_ref().is_some_and(|text| text.contains(word)), "{to}: {obstacle:?}");
        }
    }
}
