//! A process that is stopped, and system calls made in its place (`ptrace(2)`).

use crate::limits::{POLL_INTERVAL, STOP_CALL_TIME_MAX};
use crate::sys;
use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::time::Instant;

/// `syscall`, in the machine's language.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Where a program with 64 bits runs.
const CODE_SEGMENT_64: u64 = 0x33;
/// What a call returns that has failed, with the kernel's own codes for "again" among them.
const FAILED: RangeInclusive<i64> = -4095..=-1;
/// How far below its stack a program may keep something, in bytes.
const RED_ZONE_BYTES: u64 = 128;
/// Room for what injected calls read and write, in bytes.
pub(super) const SCRATCH_BYTES: usize = 256;

/// A process that this thread stops and lets go. Dropping it lets it go as it is.
pub(super) struct Tracee {
    pid: Pid,
}

/// Where a process stands, and the signals that it has blocked.
#[derive(Clone, Copy)]
pub(super) struct Point {
    registers: user_regs_struct,
    mask: u64,
}

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACECLONE
}

impl Tracee {
    /// Takes hold of a process that waits in a system call; it stops on its way out of it.
    pub(super) fn seize(pid: Pid) -> io::Result<Tracee> {
        // In the midst of another's call it must not go on by itself.
        ptrace::seize(pid, options() | Options::PTRACE_O_EXITKILL)?;
        let tracee = Tracee { pid };
        ptrace::interrupt(pid)?;
        Ok(tracee)
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until it has stopped, and keeps signals from it until it is let go; nothing if that takes too long.
    pub(super) fn stopped(&self) -> io::Result<Option<Point>> {
        match self.first_stop()? {
            true => self.point(),
            false => Ok(None),
        }
    }

    /// Where it has stopped, if it has; signals are kept from it until it is let go.
    pub(super) fn point(&self) -> io::Result<Option<Point>> {
        let registers = match ptrace::getregs(self.pid) {
            Err(Errno::ESRCH) => return Ok(None),
            registers => registers?,
        };
        let point = Point { registers, mask: sys::ptrace_mask(self.pid)? };
        sys::ptrace_set_mask(self.pid, u64::MAX)?;
        Ok(Some(point))
    }

    /// Waits until it is out of the call that it is in, which others answer; false if that takes too long.
    fn first_stop(&self) -> io::Result<bool> {
        let deadline = Instant::now() + STOP_CALL_TIME_MAX;
        loop {
            match self.wait_with(WaitPidFlag::WNOHANG)? {
                WaitStatus::StillAlive if Instant::now() >= deadline => return Ok(false),
                WaitStatus::StillAlive => std::thread::sleep(POLL_INTERVAL / 100),
                _ => return Ok(true),
            }
        }
    }

    /// Waits for its next stop, which is near: it has nothing to wait for.
    fn wait(&self) -> io::Result<WaitStatus> {
        self.wait_with(WaitPidFlag::empty())
    }

    fn wait_with(&self, flags: WaitPidFlag) -> io::Result<WaitStatus> {
        match waitpid(self.pid, Some(flags | WaitPidFlag::__WALL))? {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                Err(io::Error::other(format!("process {} has ended", self.pid)))
            }
            status => Ok(status),
        }
    }

    /// Makes a system call in the place of the process, at `point`. Returns what it returns.
    pub(super) fn call(&self, point: &Point, number: i64, arguments: &[u64]) -> io::Result<i64> {
        self.call_with(point, number, arguments, |_| Ok(()))
    }

    /// The same for a call that makes a process, which is stopped where it begins.
    pub(super) fn call_clone(&self, point: &Point, number: i64, arguments: &[u64]) -> io::Result<Tracee> {
        let mut made = None;
        let result = self.call_with(point, number, arguments, |status| {
            if matches!(status, WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_CLONE)) {
                made = Some(Tracee { pid: Pid::from_raw(ptrace::getevent(self.pid)? as i32) });
            }
            Ok(())
        })?;
        let Some(made) = made else { return Err(io::Error::from_raw_os_error(-result as i32)) };
        made.wait()?;
        Ok(made)
    }

    fn call_with(
        &self,
        point: &Point,
        number: i64,
        arguments: &[u64],
        mut on_event: impl FnMut(WaitStatus) -> io::Result<()>,
    ) -> io::Result<i64> {
        let mut registers = point.registers;
        registers.rip = point.instruction();
        registers.rax = number.cast_unsigned();
        registers.orig_rax = u64::MAX;
        let places =
            [&mut registers.rdi, &mut registers.rsi, &mut registers.rdx, &mut registers.r10, &mut registers.r8];
        for (at, place) in places.into_iter().enumerate() {
            *place = arguments.get(at).copied().unwrap_or(0);
        }
        ptrace::setregs(self.pid, registers)?;
        // Into the call and out of it.
        let mut stops = 0;
        while stops < 2 {
            ptrace::syscall(self.pid, None)?;
            match self.wait()? {
                WaitStatus::PtraceSyscall(_) => stops += 1,
                status => on_event(status)?,
            }
        }
        Ok(ptrace::getregs(self.pid)?.rax.cast_signed())
    }

    /// Runs `work` with room in the memory of the process, at this address; it holds then what it held before.
    pub(super) fn with_scratch<T>(
        &self,
        point: &Point,
        work: impl FnOnce(&File, u64) -> io::Result<T>,
    ) -> io::Result<T> {
        let memory = File::options().read(true).write(true).open(format!("/proc/{}/mem", self.pid))?;
        let address = (point.registers.rsp - RED_ZONE_BYTES - SCRATCH_BYTES as u64) & !63;
        let mut before = [0u8; SCRATCH_BYTES];
        memory.read_exact_at(&mut before, address)?;
        let result = work(&memory, address);
        memory.write_all_at(&before, address)?;
        result
    }

    /// Puts the process where it is to go on, without letting it go.
    pub(super) fn put(&self, point: &Point) -> io::Result<()> {
        Ok(ptrace::setregs(self.pid, point.again())?)
    }

    /// It dies when this process does.
    pub(super) fn die_with_me(&self) -> io::Result<()> {
        Ok(ptrace::setoptions(self.pid, options() | Options::PTRACE_O_EXITKILL)?)
    }

    /// It goes on at `point`: makes a call again that was interrupted there.
    pub(super) fn let_go(self, point: &Point) -> io::Result<()> {
        self.put(point)?;
        sys::ptrace_set_mask(self.pid, point.mask)?;
        ptrace::detach(self.pid, None)?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        // One that has not stopped yet can't be let go before.
        if ptrace::detach(self.pid, None).is_err() && self.first_stop().is_ok() {
            let _ = ptrace::detach(self.pid, None);
        }
    }
}

impl Point {
    /// Where the call was made.
    fn instruction(&self) -> u64 {
        self.registers.rip - SYSCALL.len() as u64
    }

    /// Why no call can be made there, if so.
    pub(super) fn obstacle(&self, tracee: &Tracee) -> io::Result<Option<String>> {
        let mut code = [0u8; SYSCALL.len()];
        File::open(format!("/proc/{}/mem", tracee.pid))?.read_exact_at(&mut code, self.instruction())?;
        let in_call = self.registers.orig_rax.cast_signed() >= 0;
        let ordinary = in_call && self.registers.cs == CODE_SEGMENT_64 && code == SYSCALL;
        Ok((!ordinary).then(|| "it is no program of 64 bits in an ordinary system call".to_owned()))
    }

    /// The registers with which the interrupted call is made again; one that has come to an end stays ended. Not each call
    /// fails with the error of the request that was interrupted: `link` may say that it is not permitted. One that has failed
    /// has done nothing.
    fn again(&self) -> user_regs_struct {
        let mut registers = self.registers;
        if registers.orig_rax.cast_signed() >= 0 && FAILED.contains(&registers.rax.cast_signed()) {
            registers.rax = registers.orig_rax;
            registers.rip = self.instruction();
        }
        registers.orig_rax = u64::MAX;
        registers
    }
}
