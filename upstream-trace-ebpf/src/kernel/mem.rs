//! The only place that loads from kernel memory: an offset from BTF, a pointer, a value or nothing.
//!
//! Two ways to read: [`Direct`] through a pointer whose type the verifier knows (cheap,
//! allowed under lockdown=confidentiality) and [`Copied`] through `bpf_probe_read_kernel` for
//! pointers that are only numbers (kprobe arguments, packet headers). [`Number`] is the latter without an answer
//! whether it could be read, for the one place where the verifier would pay for that.

use core::{
    arch::asm,
    hint::{black_box, cold_path},
    marker::PhantomData,
};

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};
use upstream_trace_common::field::ABSENT;

use crate::maps::set;

macro_rules! globals {
    ($($global:ident: $size:literal = $of:literal, $path:literal, $loss:expr;)*) => {
        $(
            #[doc = concat!("Offset of `", $of, ".", $path, "`.")]
            #[unsafe(no_mangle)]
            pub static $global: u32 = ABSENT;
        )*
    };
}
upstream_trace_common::kernel_fields!(globals);

/// The byte offset of a field in the running kernel.
#[inline(always)]
fn offset(global: &'static u32) -> Option<usize> {
    // SAFETY: a reference is valid for reads; volatile because the agent replaces the value at load,
    // which the compiler cannot see.
    let offset = unsafe { core::ptr::read_volatile(global) };
    if offset == ABSENT {
        cold_path();
        return None;
    }
    Some(offset as usize)
}

/// Whether the running kernel has a field.
#[inline(always)]
pub fn is_present(field: &'static u32) -> bool {
    offset(field).is_some()
}

/// A way to read kernel memory.
pub trait Memory: Copy {
    /// Whether this host allows it. Asked where a [`Struct`] begins, so that not each read has to.
    fn is_allowed() -> bool;

    /// The value at `address`, or nothing where it cannot be read.
    fn read<T: Copy>(address: *const T) -> Option<T>;
}

/// Through a pointer that the verifier knows the type of.
#[derive(Clone, Copy)]
pub struct Direct;

impl Memory for Direct {
    #[inline(always)]
    fn is_allowed() -> bool {
        true
    }

    #[inline(always)]
    fn read<T: Copy>(address: *const T) -> Option<T> {
        // SAFETY: the verifier accepts this load only within the pointer's BTF type, and whoever holds the
        // pointer has looked whether it is NULL (`Struct::follow`). Volatile keeps it a single load of this
        // size at this offset.
        Some(unsafe { core::ptr::read_volatile(address) })
    }
}

/// Through `bpf_probe_read_kernel`.
#[derive(Clone, Copy)]
pub struct Copied;

impl Memory for Copied {
    #[inline(always)]
    fn is_allowed() -> bool {
        set::CAN_PROBE_READ() != 0
    }

    #[inline(always)]
    fn read<T: Copy>(address: *const T) -> Option<T> {
        // SAFETY: the helper checks the address itself and fails on a bad one; `T` is plain data.
        unsafe { bpf_probe_read_kernel(address) }.ok()
    }
}

/// The address of a kernel struct that is only a number, or 0, where [`Copied`] is allowed.
#[derive(Clone, Copy)]
pub struct Number(pub u64);

impl Number {
    /// A struct at this address, where that may be read.
    #[inline(always)]
    pub fn new(address: u64) -> Option<Self> {
        Copied::is_allowed().then_some(Self(address))
    }

    /// The word that begins `skip` bytes into a member, be that shorter; 0 where it cannot be read.
    #[inline(always)]
    pub fn word_at(self, field: &'static u32, skip: u64) -> u64 {
        let mut word = [0];
        Self(self.0.wrapping_add(skip)).copy(field, &mut word);
        word[0]
    }

    /// Copies the words of a member; zeros where it cannot be read. The helper makes them so, and without a
    /// branch: the verifier would walk all that follows once more.
    #[inline(always)]
    pub fn copy<const N: usize>(self, field: &'static u32, words: &mut [u64; N]) {
        let Some(offset) = offset(field) else {
            for word in words {
                // SAFETY: a reference is valid for writes. Volatile as in `copy_words`.
                unsafe { core::ptr::write_volatile(word, 0) };
            }
            return;
        };
        let address = (self.0 as *const u8).wrapping_add(offset);
        #[expect(clippy::cast_possible_truncation, reason = "a few words")]
        let size = size_of::<[u64; N]>() as u32;
        let words: *mut [u64; N] = words;
        // SAFETY: so many bytes may be written; the helper checks the address itself.
        unsafe { generated::bpf_probe_read_kernel(words.cast(), size, address.cast()) };
    }
}

/// A pointer to a kernel struct, and how it may be read.
pub struct Struct<M> {
    address: *const u8,
    memory: PhantomData<M>,
}

impl<M> Clone for Struct<M> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Struct<M> {}

/// Whether it is one, which NULL is not: asked so that the verifier does not decide it ([`Struct::doubtful`]).
#[inline(always)]
pub fn is_address(address: *const u8) -> bool {
    const FIRST_PAGE: usize = 0xfff;
    address.addr() > FIRST_PAGE
}

impl<M: Memory> Struct<M> {
    /// A struct at `address`, unless that is NULL or may not be read.
    #[inline(always)]
    pub fn new(address: *const u8) -> Option<Self> {
        if !M::is_allowed() {
            cold_path();
            return None;
        }
        Self::unless_null(address)
    }

    /// The same of an argument of a raw tracepoint that may be NULL. Since 6.5 the verifier holds most of them to be never NULL and
    /// removes a comparison with 0 as decided (`reg_not_null`, `is_branch_taken`); one with another number it leaves alone. Where it
    /// knows better (`raw_tp_null_args`, 6.12.5) it demands the comparison with 0.
    #[inline(always)]
    pub fn doubtful(address: *const u8) -> Option<Self> {
        if !is_address(address) {
            return None;
        }
        // Or LLVM would take the second comparison for needless.
        Self::new(black_box(address))
    }

    #[inline(always)]
    fn unless_null(address: *const u8) -> Option<Self> {
        (!address.is_null()).then_some(Self {
            address,
            memory: PhantomData,
        })
    }

    /// The address, an identity.
    #[inline(always)]
    pub fn address(self) -> *const u8 {
        self.address
    }

    /// A scalar member; the caller names its type, the agent has checked its size.
    #[inline(always)]
    pub fn get<T: Copy>(self, field: &'static u32) -> Option<T> {
        self.get_at(field, 0)
    }

    /// A scalar `skip` bytes into a member that is an array.
    #[inline(always)]
    pub fn get_at<T: Copy>(self, field: &'static u32, skip: usize) -> Option<T> {
        let offset = offset(field)?;
        // No bounds are known here: the verifier (Direct) or the helper (Copied) checks them.
        M::read(self.address.wrapping_add(offset + skip).cast())
    }

    /// A scalar of a struct that is kept in a member of another type, as `skb->cb` keeps several.
    #[inline(always)]
    pub fn get_in<T: Copy>(self, field: &'static u32, inner: &'static u32) -> Option<T> {
        self.get_at(field, offset(inner)?)
    }

    /// A pointer member that is never NULL while its struct lives; spares the verifier two ways through
    /// everything that comes after. One that may be NULL is for [`Self::follow`]: a load that faults is
    /// not always harmless. Before 6.4, unless fixed since, the kernel may look in the wrong place for how to go on,
    /// where a program has functions, and panic: `jit_subprogs` gave the exception table to a copy of it (0108a4e9f358,
    /// "bpf: ensure main program has an extable").
    #[inline(always)]
    pub fn by_way_of(self, field: &'static u32) -> Option<Self> {
        Some(Self {
            address: self.get(field)?,
            memory: PhantomData,
        })
    }

    /// A pointer member that is not NULL.
    #[inline(always)]
    pub fn follow(self, field: &'static u32) -> Option<Self> {
        Self::unless_null(self.get(field)?)
    }
}

/// Bytes that have no type, as those of a packet's headers.
impl Struct<Copied> {
    /// What is so many bytes further.
    #[inline(always)]
    pub fn after(self, distance: usize) -> Self {
        Self {
            address: self.address.wrapping_add(distance),
            memory: PhantomData,
        }
    }

    /// What is here.
    #[inline(always)]
    pub fn read<T: Copy>(self) -> Option<T> {
        Copied::read(self.address.cast())
    }
}

/// The low half of an address, as a number. Taken by a 32-bit move, the one thing that the verifier lets
/// make a number of a pointer.
#[inline(always)]
fn low(address: *const u8) -> u32 {
    let low: u64;
    // SAFETY: from one register into another; the upper half becomes 0.
    unsafe { asm!("w0 = w1", in("r1") address as u64, out("r0") low, options(pure, nomem)) };
    #[expect(clippy::cast_possible_truncation, reason = "it is no longer")]
    let low = low as u32;
    low
}

/// Which of `places`, a power of two, the socket at this address leads to. No two TCP sockets are within 2 KiB: each is
/// an object of a slab of its kind (`tcp_prot`, `tcpv6_prot`), and `struct tcp_sock` has 2,216 bytes in 5.10 and more since.
/// Neighbours in memory stay neighbours, which spares the CPU most of the pages that places spread by a hash
/// would lie in.
#[inline(always)]
pub fn place(sk: *const u8, places: u32) -> u32 {
    (low(sk) / 2048) & (places - 1)
}

/// Writes two words into a record. Volatile, because LLVM makes one `memset` or `memcpy` of two plain
/// stores, and those are loops over bytes here.
#[inline(always)]
pub fn put_words(place: &mut [u64; 2], words: [u64; 2]) {
    let [first, second] = place;
    // SAFETY: a reference is valid for writes.
    unsafe { core::ptr::write_volatile(first, words[0]) };
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(second, words[1]) };
}

/// Copies `N` words. Volatile for the same reason.
#[inline(always)]
pub fn copy_words<const N: usize>(from: &[u64; N], to: &mut [u64; N]) {
    for (from, to) in from.iter().zip(to) {
        // SAFETY: a reference is valid for reads.
        let word = unsafe { core::ptr::read_volatile(from) };
        // SAFETY: a reference is valid for writes.
        unsafe { core::ptr::write_volatile(to, word) };
    }
}
