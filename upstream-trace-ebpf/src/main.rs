//! The kernel side: hooks on TCP's state changes and resets that write one record per event.
//!
//! `probe/` has one hook a file; `kernel/` is the only place that reads kernel memory; `filter`
//! decides what passes; `emit` is the only writer of the ring; `maps` holds every map and global.
//! Must not know: any kernel version or struct layout. Offsets and settings come as read-only
//! globals.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![allow(
    unreachable_pub,
    reason = "a binary of its own; hooks are exported by name, not by path"
)]

mod emit;
mod filter;
mod kernel;
mod maps;
mod probe;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that could come here.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
