//! The machine's registers: what `fork`, going back and changing stacks are made of.

use super::{Result, checked};
use core::arch::global_asm;

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
    // rdi: where registers are saved, rsi: top of the child's stack, rdx: what the child runs.
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
    "mov r15, [r15 + 40]",
    "ret",
    // The child leaves the stack that it holds a copy of alone.
    "2:",
    "mov rsp, r12",
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
    fn mojave_sys_checkpoint(registers: *mut Registers, stack_top: *mut u8, child: extern "C" fn() -> !) -> isize;
    fn mojave_sys_resume(registers: *const Registers, value: isize) -> !;
    fn mojave_sys_on_stack(stack_top: *mut u8, run: extern "C" fn(*mut u8) -> !, argument: *mut u8) -> !;
}

/// Forks. The child runs `child` on a stack of its own, so that all its memory stays as it was at the fork. Returns the
/// child's process id, and once more for each [`resume`]: to its caller as to that of `fork`, with memory as it is then.
pub(crate) fn checkpoint(registers: *mut Registers, stack_top: *mut u8, child: extern "C" fn() -> !) -> Result<isize> {
    // SAFETY: the pointers are into the arena, which is mapped for the life of the process; the stack is the level's own.
    let returned = unsafe { mojave_sys_checkpoint(registers, stack_top, child) };
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
