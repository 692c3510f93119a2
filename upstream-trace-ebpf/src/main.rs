//! The kernel side: hooks on TCP's state changes and resets that keep a story for each socket, and write it when it ends.
//!
//! `probe/` has one hook a file; `kernel/` has typed views of kernel structs, and in `mem` the only loads from kernel memory; `filter`
//! decides what passes; `actor` remembers who acts; `listener` knows who listens where; `story` keeps a socket's life until it ends; `emit` is the only writer of the
//! ring; `maps` holds every map and global.
//! Must not know: any kernel version or struct layout. Offsets and settings come as read-only
//! globals.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the hook macros hand the context over by value"
)]
#![expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "a field's global is read where it lies: its value is the agent's"
)]
#![expect(
    clippy::inline_always,
    reason = "a call costs stack and verifier time, and context references do not cross it"
)]
#![expect(
    unreachable_pub,
    reason = "a binary of its own; hooks are exported by name, not by path"
)]

mod actor;
mod atomic;
mod emit;
mod filter;
mod kept;
mod kernel;
mod listener;
mod maps;
mod probe;
mod story;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that could come here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
