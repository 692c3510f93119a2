//! The stories of open connections, read where the kernel keeps them.
//!
//! Must not know: what a story means.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::maps::MapData;
use upstream_trace_common::story::Story;
use zerocopy::FromZeros as _;

use super::syscall::bpf;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`, `include/uapi/linux/bpf.h`; since 5.6.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// Stories asked for at a time; a chain of the kernel's table that is longer makes it refuse, and none is
/// expected to come near.
const AT_ONCE: u32 = 1024;

/// `struct { … } batch` of `union bpf_attr`.
#[derive(Debug, Default)]
#[repr(C)]
#[expect(clippy::struct_field_names, reason = "the kernel's own names")]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The kernel's table of stories.
#[derive(Debug)]
pub struct Stories {
    map: MapData,
    keys: Box<[u64]>,
    values: Box<[Story]>,
}

impl Stories {
    pub(super) fn new(map: MapData) -> Self {
        let at_once = AT_ONCE as usize;
        Self {
            map,
            keys: vec![0; at_once].into(),
            values: vec![Story::new_zeroed(); at_once].into(),
        }
    }

    /// Hands over every story. One that begins or ends meanwhile may be missing.
    pub fn each(&mut self, mut take: impl FnMut(&Story)) -> io::Result<()> {
        // The kernel's position, in and out.
        let mut place = 0_u32;
        let mut begun = false;
        loop {
            let at = &raw mut place as u64;
            let mut batch = Batch {
                in_batch: if begun { at } else { 0 },
                out_batch: at,
                keys: self.keys.as_mut_ptr() as u64,
                values: self.values.as_mut_ptr() as u64,
                count: AT_ONCE,
                map_fd: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
                ..Batch::default()
            };
            // SAFETY: `batch` is what this command takes; its pointers lead to a `u32` that outlives the
            // call and to `AT_ONCE` keys and values of the map's own sizes.
            let last = match unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) } {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            for story in self.values.iter().take(batch.count as usize) {
                take(story);
            }
            if last {
                return Ok(());
            }
            begun = true;
        }
    }
}
