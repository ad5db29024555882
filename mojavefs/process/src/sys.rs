//! The system calls of checkpoint and restore, without the C library: it keeps state in the very memory that is put back.
//!
//! The only place that knows the machine's registers.

#![allow(unsafe_code)]

use core::arch::{asm, global_asm};

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!(
    "libmojave knows Linux on x86_64 only: src/sys.rs has the few lines of assembly that another machine needs"
);

/// What a system call failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) type Result<T> = core::result::Result<T, Errno>;

/// Registers that a function must keep for its caller (System V ABI), as [`checkpoint`] found them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Registers {
    kept: [u64; 6],
    stack: u64,
    resume: u64,
    mxcsr: u32,
    x87: u32,
}

global_asm!(
    // rdi: where registers are saved, rsi: top of the child's stack, rdx: what the child runs, rcx: its argument.
    ".globl mojave_sys_checkpoint",
    ".hidden mojave_sys_checkpoint",
    ".type mojave_sys_checkpoint, @function",
    "mojave_sys_checkpoint:",
    "mov [rdi], rbx",
    "mov [rdi + 8], rbp",
    "mov [rdi + 16], r12",
    "mov [rdi + 24], r13",
    "mov [rdi + 32], r14",
    "mov [rdi + 40], r15",
    "lea rax, [rsp + 8]",
    "mov [rdi + 48], rax",
    "mov rax, [rsp]",
    "mov [rdi + 56], rax",
    "stmxcsr [rdi + 64]",
    "fnstcw [rdi + 68]",
    "mov r12, rsi",
    "mov r13, rdx",
    "mov r14, rcx",
    "mov r15, rdi",
    // clone without a signal at its end: no wait of the program's finds the child.
    "xor edi, edi",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "mov eax, 56",
    "syscall",
    "test rax, rax",
    "jz 2f",
    "mov r12, [r15 + 16]",
    "mov r13, [r15 + 24]",
    "mov r14, [r15 + 32]",
    "mov r15, [r15 + 40]",
    "ret",
    // The child leaves the stack that it holds a copy of alone.
    "2:",
    "mov rsp, r12",
    "mov rdi, r14",
    "xor ebp, ebp",
    "call r13",
    "ud2",
    ".size mojave_sys_checkpoint, . - mojave_sys_checkpoint",
    // rdi: saved registers, rsi: what the checkpoint returns now.
    ".globl mojave_sys_resume",
    ".hidden mojave_sys_resume",
    ".type mojave_sys_resume, @function",
    "mojave_sys_resume:",
    "mov rax, rsi",
    "mov rbx, [rdi]",
    "mov rbp, [rdi + 8]",
    "mov r12, [rdi + 16]",
    "mov r13, [rdi + 24]",
    "mov r14, [rdi + 32]",
    "mov r15, [rdi + 40]",
    "ldmxcsr [rdi + 64]",
    "fldcw [rdi + 68]",
    "mov rsp, [rdi + 48]",
    "jmp [rdi + 56]",
    ".size mojave_sys_resume, . - mojave_sys_resume",
    // rdi: top of a stack, rsi: what to run on it, rdx: its argument.
    ".globl mojave_sys_on_stack",
    ".hidden mojave_sys_on_stack",
    ".type mojave_sys_on_stack, @function",
    "mojave_sys_on_stack:",
    "mov rsp, rdi",
    "mov rdi, rdx",
    "xor ebp, ebp",
    "call rsi",
    "ud2",
    ".size mojave_sys_on_stack, . - mojave_sys_on_stack",
);

unsafe extern "C" {
    fn mojave_sys_checkpoint(
        registers: *mut Registers,
        stack_top: *mut u8,
        child: extern "C" fn(*mut u8) -> !,
        argument: *mut u8,
    ) -> isize;
    fn mojave_sys_resume(registers: *const Registers, value: isize) -> !;
    fn mojave_sys_on_stack(stack_top: *mut u8, run: extern "C" fn(*mut u8) -> !, argument: *mut u8) -> !;
}

/// Forks. The child runs `child` on a stack of its own, so that all its memory stays as it was at the fork. Returns the
/// child's process id, and once more for each [`resume`]: to its caller as to that of `fork`, with memory as it is then.
pub(crate) fn checkpoint(
    registers: *mut Registers,
    stack_top: *mut u8,
    child: extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> Result<isize> {
    // SAFETY: the pointers are into the arena, which is mapped for the life of the process; the stack is the level's own.
    let returned = unsafe { mojave_sys_checkpoint(registers, stack_top, child, argument) };
    checked(returned).map(|value| value.cast_signed())
}

/// Goes back to where [`checkpoint`] returns, which returns `value` this time.
///
/// # Safety
/// Memory must be as it was when the registers were saved.
pub(crate) unsafe fn resume(registers: *const Registers, value: isize) -> ! {
    // SAFETY: as the caller promises.
    unsafe { mojave_sys_resume(registers, value) }
}

/// Runs something on another stack and never comes back.
pub(crate) fn on_stack(stack_top: *mut u8, run: extern "C" fn(*mut u8) -> !, argument: *mut u8) -> ! {
    // SAFETY: the stack lies in the arena, large enough and used by nobody else.
    unsafe { mojave_sys_on_stack(stack_top, run, argument) }
}

fn checked(returned: isize) -> Result<usize> {
    match returned {
        -4095..=-1 => Err(Errno(returned.unsigned_abs() as i32)),
        value => Ok(value.cast_unsigned()),
    }
}

/// A system call by its number.
///
/// # Safety
/// As the call's manual says of its arguments.
pub(crate) unsafe fn call(number: libc::c_long, args: [usize; 6]) -> Result<usize> {
    let returned: isize;
    // SAFETY: the arguments are the caller's promise; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => returned,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    checked(returned)
}

/// A system call whose arguments are plain numbers.
pub(crate) fn plain(number: libc::c_long, args: &[usize]) -> Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    // SAFETY: used in this crate for calls that neither read nor write memory, or whose pointers are of the arena.
    unsafe { call(number, all) }
}

fn fd_arg(fd: i32) -> usize {
    fd as isize as usize
}

/// Opens a path that ends with a NUL, close-on-exec.
pub(crate) fn open(path: &[u8], flags: i32) -> Result<i32> {
    debug_assert_eq!(path.last(), Some(&0));
    let flags = flags | libc::O_CLOEXEC;
    plain(libc::SYS_openat, &[fd_arg(libc::AT_FDCWD), path.as_ptr() as usize, flags as usize]).map(|fd| fd as i32)
}

pub(crate) fn close(fd: i32) {
    // A descriptor is gone after close, whatever that says.
    let _ = plain(libc::SYS_close, &[fd_arg(fd)]);
}

pub(crate) fn read(fd: i32, into: &mut [u8]) -> Result<usize> {
    plain(libc::SYS_read, &[fd_arg(fd), into.as_mut_ptr() as usize, into.len()])
}

/// Reads a file of `/proc` to its end; what does not fit is an error.
pub(crate) fn read_all<'a>(path: &[u8], into: &'a mut [u8]) -> Result<&'a [u8]> {
    let fd = open(path, libc::O_RDONLY)?;
    let mut filled = 0;
    let result = loop {
        match read(fd, &mut into[filled..]) {
            Ok(0) if filled == into.len() => break Err(Errno(libc::ENOMEM)),
            Ok(0) => break Ok(()),
            Ok(more) => filled += more,
            Err(Errno(libc::EINTR)) => {}
            Err(error) => break Err(error),
        }
    };
    close(fd);
    result.map(|()| &into[..filled])
}

/// Reads a file of `/proc` that the kernel writes in one piece.
pub(crate) fn read_once<'a>(path: &[u8], into: &'a mut [u8]) -> Result<&'a [u8]> {
    let fd = open(path, libc::O_RDONLY)?;
    let got = read(fd, into);
    close(fd);
    got.map(|bytes| &into[..bytes])
}

/// Reads page descriptors of `/proc/PID/pagemap` from the page numbered `page` on; returns how many.
pub(crate) fn page_descriptors(fd: i32, page: usize, into: &mut [u64]) -> Result<usize> {
    let bytes = plain(libc::SYS_pread64, &[fd_arg(fd), into.as_mut_ptr() as usize, into.len() * 8, page * 8])?;
    Ok(bytes / 8)
}

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    found: u64,
    found_max: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`: addresses, and what is found there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    categories: u64,
}

/// `PAGEMAP_SCAN`
const SCAN: usize = 0xC060_6610;
/// `PAGE_IS_PFNZERO`
const IS_ZERO_PAGE: u64 = 1 << 5;

/// Where from `start` to `end` the kernel has mapped its page of zeros, of which no memory is made before it is written to.
/// `fd` is a `/proc/PID/pagemap`. Returns how many regions, and where it has come to: before `end` if there are more.
pub(crate) fn zero_pages(fd: i32, start: usize, end: usize, into: &mut [Region]) -> Result<(usize, usize)> {
    let mut scan = Scan { start: start as u64, end: end as u64, ..Scan::default() };
    (scan.size, scan.found, scan.found_max) = (size_of::<Scan>() as u64, into.as_mut_ptr() as u64, into.len() as u64);
    (scan.category_mask, scan.return_mask) = (IS_ZERO_PAGE, IS_ZERO_PAGE);
    let count = plain(libc::SYS_ioctl, &[fd_arg(fd), SCAN, &raw mut scan as usize])?;
    Ok((count, scan.walk_end as usize))
}

/// A piece of memory, for the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) bytes: usize,
}

/// Copies pieces of another process's memory to where they are in this one.
///
/// # Safety
/// Nothing that runs meanwhile may rely on what these pieces held.
pub(crate) unsafe fn copy_from(pid: i32, pieces: &[Piece]) -> Result<usize> {
    let list = pieces.as_ptr() as usize;
    // SAFETY: as the caller promises; the kernel checks the addresses.
    unsafe { call(libc::SYS_process_vm_readv, [fd_arg(pid), list, pieces.len(), list, pieces.len(), 0]) }
}

/// Reads another process's memory.
pub(crate) fn read_other(pid: i32, at: usize, into: &mut [u8]) -> Result<usize> {
    let here = Piece { start: into.as_mut_ptr() as usize, bytes: into.len() };
    let there = Piece { start: at, ..here };
    let (here, there) = (&raw const here as usize, &raw const there as usize);
    plain(libc::SYS_process_vm_readv, &[fd_arg(pid), here, 1, there, 1, 0])
}

/// Whether this process's memory holds these bytes at an address.
///
/// # Safety
/// They must be mapped and readable, and nobody may write there meanwhile.
pub(crate) unsafe fn holds(at: usize, bytes: &[u8]) -> bool {
    // SAFETY: as the caller promises.
    (unsafe { core::slice::from_raw_parts(at as *const u8, bytes.len()) }) == bytes
}

/// Reads another process's memory as a debugger does, whatever its protection.
///
/// # Safety
/// As for [`copy_from`].
pub(crate) unsafe fn copy_by_file(memory: i32, piece: Piece) -> Result<usize> {
    // SAFETY: as the caller promises; the kernel checks the addresses.
    unsafe { call(libc::SYS_pread64, [fd_arg(memory), piece.start, piece.bytes, piece.start, 0, 0]) }
}

pub(crate) fn map(at: usize, bytes: usize, prot: i32, flags: i32, fd: i32, offset: u64) -> Result<usize> {
    plain(libc::SYS_mmap, &[at, bytes, prot as usize, flags as usize, fd_arg(fd), offset as usize])
}

pub(crate) fn unmap(at: usize, bytes: usize) -> Result<()> {
    plain(libc::SYS_munmap, &[at, bytes]).map(drop)
}

pub(crate) fn protect(at: usize, bytes: usize, prot: i32) -> Result<()> {
    plain(libc::SYS_mprotect, &[at, bytes, prot as usize]).map(drop)
}

pub(crate) fn advise(at: usize, bytes: usize, advice: i32) -> Result<()> {
    plain(libc::SYS_madvise, &[at, bytes, advice as usize]).map(drop)
}

/// Sets the end of the heap; returns where it is.
pub(crate) fn brk(end: usize) -> usize {
    plain(libc::SYS_brk, &[end]).unwrap_or(0)
}

pub(crate) fn pid() -> i32 {
    plain(libc::SYS_getpid, &[]).unwrap_or(0) as i32
}

pub(crate) fn parent() -> i32 {
    plain(libc::SYS_getppid, &[]).unwrap_or(0) as i32
}

pub(crate) fn kill(pid: i32, signal: i32) -> Result<()> {
    plain(libc::SYS_kill, &[fd_arg(pid), signal as usize]).map(drop)
}

/// Reaps one child of whatever kind, and says how many page faults are counted for it; nothing if it runs and `options` say
/// not to wait.
pub(crate) fn reap(pid: i32, options: i32) -> Result<Option<u64>> {
    let mut usage: libc::rusage = zeroed();
    let options = options | libc::__WALL;
    loop {
        match plain(libc::SYS_wait4, &[fd_arg(pid), 0, options as usize, &raw mut usage as usize]) {
            Err(Errno(libc::EINTR)) => {}
            other => return other.map(|reaped| (reaped != 0).then_some(usage.ru_minflt as u64)),
        }
    }
}

/// The page faults of all children of this process that were reaped, and of theirs.
pub(crate) fn faults_of_reaped() -> u64 {
    let usage = filled::<libc::rusage>(libc::SYS_getrusage, &[libc::RUSAGE_CHILDREN as isize as usize], 1, zeroed());
    usage.map_or(0, |usage| usage.ru_minflt as u64)
}

/// Waits until a process that was told to end has.
pub(crate) fn await_end(pid: i32) {
    let Ok(process) = plain(libc::SYS_pidfd_open, &[fd_arg(pid), 0]) else { return };
    let waited = libc::pollfd { fd: process as i32, events: libc::POLLIN, revents: 0 };
    while given(libc::SYS_poll, &[0, 1, usize::MAX], 0, &waited) == Err(Errno(libc::EINTR)) {}
    close(process as i32);
}

/// Whether this process has children other than checkpoints.
pub(crate) fn has_children() -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    plain(libc::SYS_waitid, &[libc::P_ALL as usize, 0, 0, options as usize, 0]) != Err(Errno(libc::ECHILD))
}

pub(crate) fn exit(code: i32) -> ! {
    loop {
        let _ = plain(libc::SYS_exit_group, &[code as usize]);
    }
}

/// The signals of a mask, one bit each.
pub(crate) type Mask = u64;

/// Sets the signal mask; returns the one before.
pub(crate) fn set_mask(mask: Mask) -> Mask {
    let mut before: Mask = 0;
    let (new, old) = (&raw const mask as usize, &raw mut before as usize);
    let _ = plain(libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK as usize, new, old, size_of::<Mask>()]);
    before
}

/// Signals that are on their way.
pub(crate) fn pending() -> Mask {
    filled(libc::SYS_rt_sigpending, &[0, size_of::<Mask>()], 0, 0).unwrap_or(0)
}

/// What a signal does, as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: Mask,
}

impl Action {
    pub(crate) fn is_ignored(&self) -> bool {
        self.handler == libc::SIG_IGN
    }

    /// For `SIGCHLD`: children are gone as soon as they end, and none of them is waited for.
    pub(crate) fn forgets_children(&self) -> bool {
        self.is_ignored() || self.flags & libc::SA_NOCLDWAIT as u64 != 0
    }
}

/// Those of `signals` that `mask` lets through and that do what they do by default.
pub(crate) fn unhandled(signals: &[i32], mask: Mask) -> Mask {
    let bits = signals.iter().filter(|signal| action(**signal).is_some_and(|action| action.handler == libc::SIG_DFL));
    bits.fold(0, |bits, signal| bits | 1 << (signal - 1)) & !mask
}

pub(crate) fn action(signal: i32) -> Option<Action> {
    let mut action = Action::default();
    let old = &raw mut action as usize;
    plain(libc::SYS_rt_sigaction, &[signal as usize, 0, old, size_of::<Mask>()]).ok().map(|_| action)
}

pub(crate) fn set_action(signal: i32, action: &Action) -> Result<()> {
    let new = core::ptr::from_ref(action) as usize;
    plain(libc::SYS_rt_sigaction, &[signal as usize, new, 0, size_of::<Mask>()]).map(drop)
}

/// Fills in a plain value by a call that takes its address as argument `at`.
pub(crate) fn filled<T: Copy>(number: libc::c_long, args: &[usize], at: usize, mut value: T) -> Result<T> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    all[at] = &raw mut value as usize;
    // SAFETY: used for calls that write one `T` at that argument.
    unsafe { call(number, all) }.map(|_| value)
}

/// Hands a plain value to a call that takes its address as argument `at`.
pub(crate) fn given<T>(number: libc::c_long, args: &[usize], at: usize, value: &T) -> Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    all[at] = core::ptr::from_ref(value) as usize;
    // SAFETY: used for calls that read one `T` at that argument.
    unsafe { call(number, all) }
}

/// A value of all zeros.
pub(crate) fn zeroed<T: Copy + Plain>() -> T {
    // SAFETY: `Plain` types are numbers all through.
    unsafe { core::mem::zeroed() }
}

/// Structures of the kernel's that are valid whatever bytes they hold.
pub(crate) trait Plain {}
impl Plain for libc::stat {}
impl Plain for libc::statx {}
impl Plain for libc::stack_t {}
impl Plain for libc::itimerval {}
impl Plain for libc::rlimit64 {}
impl Plain for libc::rusage {}
impl Plain for libc::sockaddr_storage {}

/// Has the kernel write out what was written to mapped files.
pub(crate) fn write_out(at: usize, bytes: usize) -> Result<()> {
    plain(libc::SYS_msync, &[at, bytes, libc::MS_SYNC as usize]).map(drop)
}

/// Device and inode, as far as the kernel knows by itself: it asks no filesystem. An empty path is the working directory.
pub(crate) fn identity(path: &[u8]) -> Result<(u32, u32, u64)> {
    // Device and inode are told without being asked for; asking could reach the filesystem.
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH;
    let args = [fd_arg(libc::AT_FDCWD), path.as_ptr() as usize, flags as usize, 0];
    let found: libc::statx = filled(libc::SYS_statx, &args, 4, zeroed())?;
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

/// Which kind of file a descriptor is of (`S_IFREG` and so on; 0: none), as far as the kernel knows by itself.
pub(crate) fn kind(fd: i32) -> Result<u32> {
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH;
    let args = [fd_arg(fd), c"".as_ptr() as usize, flags as usize, libc::STATX_TYPE as usize];
    let found: libc::statx = filled(libc::SYS_statx, &args, 4, zeroed())?;
    Ok(u32::from(found.stx_mode) & libc::S_IFMT)
}

/// Whether the kernel says at once that there is no other thread: leaving a group of threads does nothing if it has but one.
pub(crate) fn is_alone() -> bool {
    plain(libc::SYS_unshare, &[libc::CLONE_THREAD as usize]).is_ok()
}

/// Has the kernel ask the filesystem for a file's attributes.
pub(crate) fn refresh(fd: i32) {
    let flags = libc::AT_STATX_FORCE_SYNC | libc::AT_EMPTY_PATH;
    let args = [fd_arg(fd), c"".as_ptr() as usize, flags as usize, libc::STATX_SIZE as usize];
    // If that fails, so will whatever is done to the file.
    let _ = filled::<libc::statx>(libc::SYS_statx, &args, 4, zeroed());
}

pub(crate) fn stat(path: &[u8]) -> Result<libc::stat> {
    filled(libc::SYS_newfstatat, &[fd_arg(libc::AT_FDCWD), path.as_ptr() as usize, 0, 0], 2, zeroed())
}

pub(crate) fn fstat(fd: i32) -> Result<libc::stat> {
    filled(libc::SYS_fstat, &[fd_arg(fd)], 1, zeroed())
}

pub(crate) fn seek(fd: i32, offset: i64, whence: i32) -> Result<i64> {
    plain(libc::SYS_lseek, &[fd_arg(fd), offset as usize, whence as usize]).map(|at| at as i64)
}

pub(crate) fn fcntl(fd: i32, command: i32, argument: usize) -> Result<i32> {
    plain(libc::SYS_fcntl, &[fd_arg(fd), command as usize, argument]).map(|value| value as i32)
}

/// Ends this process with a last word: it can neither go on nor back.
pub(crate) fn die(words: &[&[u8]]) -> ! {
    for text in words.iter().chain([&b"\n"[..]].iter()) {
        let _ = plain(libc::SYS_write, &[2, text.as_ptr() as usize, text.len()]);
    }
    let _ = set_action(libc::SIGABRT, &Action::default());
    set_mask(0);
    let _ = kill(pid(), libc::SIGABRT);
    exit(125)
}
