//! Once warm, the join allocates nothing, however many events come.

mod healthy;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicU64, Ordering},
};

use healthy::{EVENTS, Healthy};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn the_join_allocates_nothing_once_warm() {
    let mut healthy = Healthy::new();
    healthy.play(4 * 5_000);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let connections = 10_000;
    healthy.play(connections);
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    let events = connections * EVENTS;
    assert_eq!(after - before, 0, "allocations for {events} events");
}
