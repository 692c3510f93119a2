//! What several may write at a time: additions to a word, and places that one of them takes.
//!
//! Must not know: what is kept there.

use core::{arch::asm, hint::cold_path, ptr};

/// Adds to a word of a map, atomically; it wraps. `BPF_XADD` by hand, because the target's `AtomicU64` has no
/// read-modify-write.
#[inline(always)]
pub fn add(word: *mut u64, by: u64) {
    // SAFETY: the verifier accepts it only within an element of a map.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) word, in(reg) by) };
}

/// Takes a place, unless another has it or is about to. Of two that come at once at most one succeeds, and neither may: each
/// counts itself, then reads whether it is alone. The additions to one address have an order, and each reads its own or what came later.
#[inline(always)]
pub fn claim(claims: &mut u64) -> bool {
    if *claims != 0 {
        return false;
    }
    add(claims, 1);
    // SAFETY: a reference is valid for reads. Volatile, so that it comes after the addition.
    let is_alone = unsafe { ptr::read_volatile(claims) } == 1;
    if !is_alone {
        cold_path();
        release(claims);
    }
    is_alone
}

/// Gives a place back, after whatever was written there. Not by a 0: another may just have counted itself.
#[inline(always)]
pub fn release(claims: &mut u64) {
    add(claims, u64::MAX);
}
