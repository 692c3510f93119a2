//! The kernel side at work, and all that a run asks of it.
//!
//! Must not know: how it was loaded, what its records say.

use std::{
    fmt, fs,
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray},
    programs::{Iter, Program},
};
use upstream_trace_common::{counter, kept::KeptReset, route::Destination, story::Place};

use super::{ladder::chain, places::Places, ring::Ring};
use crate::exit::{Code, Failure};

/// Dropping it detaches everything.
pub struct Loaded {
    /// `None` once detached.
    pub(super) ebpf: Option<Ebpf>,
    /// The events.
    pub ring: Ring,
    /// The connections that are open.
    pub stories: Places<Place>,
    /// Resets of those that were not asked for.
    pub resets: Places<KeptReset>,
    /// Where connections lead.
    pub(super) routes: HashMap<MapData, Destination, u32>,
    pub(super) counters: PerCpuArray<MapData, [u64; counter::COUNT]>,
    /// Open files can be scanned.
    pub(super) scans: bool,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("scans", &self.scans)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Whether all that a run reads can be read as things are.
    pub fn is_readable(&mut self) -> bool {
        self.stories.is_readable()
            && self.resets.is_readable()
            && self.counters().is_ok()
            && (!self.scans || self.holders().is_some())
    }

    /// Whether open files can be scanned for sockets.
    pub const fn scans(&self) -> bool {
        self.scans
    }

    /// Tells the kernel side in which network namespace a destination is, or that it is to forget that. Where that fails, less is said of
    /// connections to there.
    pub fn route(&mut self, destination: Destination, netns: Option<u32>) {
        let _untold = match netns {
            Some(netns) => self.routes.insert(destination, netns, 0),
            None => self.routes.remove(&destination),
        };
    }

    /// Takes every program out of the kernel, one after the other; what is in the ring and the counters stays.
    pub fn detach(&mut self) {
        self.ebpf = None;
    }

    /// A run of the iterator over open files: reading the returned file drives it, one byte for each open file.
    pub fn holders(&mut self) -> Option<fs::File> {
        let program: &mut Iter = self
            .ebpf
            .as_mut()?
            .program_mut("task_file")?
            .try_into()
            .ok()?;
        let link = program.attach().ok()?;
        program.take_link(link).ok()?.into_file().ok()
    }

    /// How often the kernel skipped a hook because it was interrupted by its own event: a program does
    /// not nest on one CPU (`__bpf_trace_run`). `/proc/self/fdinfo` has the number since 5.12.
    /// `None` where it cannot be read.
    pub fn missed(&self) -> Option<u64> {
        let misses = |program: &Program| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("recursion_misses:"))?;
            line.trim().parse::<u64>().ok()
        };
        let programs = self.ebpf.as_ref()?.programs();
        programs
            .filter_map(|(_, program)| misses(program))
            .reduce(|sum, more| sum + more)
    }

    /// The kernel side's account of itself, by [`counter`] index, all CPUs together.
    pub fn counters(&self) -> Result<[u64; counter::COUNT], Failure> {
        let of_cpus = self.counters.get(&0, 0).map_err(|error| {
            let message = format!("cannot read the kernel side's counters: {}", chain(&error));
            Failure::new(Code::Failure, message)
        })?;
        let mut sums = [0; counter::COUNT];
        for values in of_cpus.iter() {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value;
            }
        }
        Ok(sums)
    }
}
