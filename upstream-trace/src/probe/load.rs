//! Puts the BPF object into the kernel: globals, maps, and for each role the best hook that the kernel
//! takes. Each rung is tried; no version is compared.

use std::{
    collections, io,
    net::IpAddr,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::{Iter, Program, ProgramType},
    sys::{BpfHelper, is_helper_supported},
};
use upstream_trace_common::{counter, kept::KeptReset, route::Destination, setting, story::Place};

use super::{
    beside::beside,
    catalog::{CATALOG, Entry, Role, Rung},
    ladder::{Climb, Filled, chain, os_error},
    places::Places,
    ring::Ring,
    targets::Targets,
};
use crate::{
    exit::{Code, Failure},
    kernel::{btf, host::Lockdown, offsets::Offsets, reasons::Reasons},
    settings::{Network, Wanted},
};

const HEADERS_HIDDEN: &str = "lockdown keeps packet headers from being read";

/// The helper that leads from an open file to its socket, 5.11 and later.
const SOCK_FROM_FILE: &str = "BPF_FUNC_sock_from_file";

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/upstream-trace.bpf.o"));

/// What the kernel side is to do and may do.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The running kernel's types.
    pub btf: &'a btf::Btf,
    /// Which fields it has.
    pub offsets: &'a Offsets,
    /// The names of the reasons for which it drops packets.
    pub drop_reasons: &'a Reasons,
    /// What it forbids.
    pub lockdown: Lockdown,
    /// It runs hooks of functions.
    pub runs_function_hooks: bool,
    /// What was asked for.
    pub wanted: &'a Wanted,
    /// A wanted port may be an ephemeral one.
    pub ephemeral: bool,
    /// Bytes of the ring, a power of two.
    pub ring_size: u32,
    /// Each event is wanted as it happens.
    pub events: bool,
    /// Connections to follow at most.
    pub max_connections: u32,
}

impl Plan<'_> {
    /// Places of stories, about one for each connection.
    fn story_places(&self) -> u32 {
        self.max_connections
            .min(setting::STORY_PLACES_MAX)
            .next_power_of_two()
    }

    /// Places of resets that were not asked for: where all are, there are none.
    const fn reset_places(&self) -> u32 {
        if self.wanted.is_everything() {
            1
        } else {
            setting::RESET_PLACES
        }
    }

    /// Whether programs may read memory that no type leads to, as packet headers are.
    fn reads_untyped(&self) -> bool {
        self.lockdown != Lockdown::Confidentiality
    }

    /// Whether `tcp_send_reset` carries a reason: such kernels also call it for every reset, others only
    /// where a full socket sends it.
    fn tracepoint_has_reason(&self) -> bool {
        self.btf.tracepoint_args("tcp_send_reset") >= Some(3)
    }

    /// Whether `tcp_retransmit_skb` carries how that went: such kernels also call it where it went wrong.
    fn retransmit_has_error(&self) -> bool {
        self.btf.tracepoint_args("tcp_retransmit_skb") >= Some(3)
    }

    /// Whether the kernel has this BPF helper, by its name in `enum bpf_func_id`.
    fn has_helper(&self, name: &str) -> bool {
        let helpers = self.btf.enumerators("bpf_func_id").unwrap_or_default();
        helpers.iter().any(|(helper, _)| helper == name)
    }

    /// Whether `kfree_skb` carries the socket that a packet came for.
    fn drop_has_socket(&self) -> bool {
        self.btf.tracepoint_args("kfree_skb") >= Some(4)
    }

    /// Why the packets of resets cannot be seen here, and those of handshakes need not.
    fn no_packets(&self) -> Option<&'static str> {
        if !self.reads_untyped() {
            Some(HEADERS_HIDDEN)
        } else if self.btf.function_args("tcp_reset") < Some(2) {
            Some("tcp_reset of this kernel is not given the packet")
        } else {
            None
        }
    }

    /// Why this hook cannot fill this role here, although the kernel would take it.
    fn unfit(&self, role: Role, rung: &Rung) -> Option<&'static str> {
        if rung.kind.is_of_a_function() && !self.runs_function_hooks {
            return Some("kernel.ftrace_enabled is 0, so the kernel would never run it");
        }
        if rung.target == "kfree_skb" {
            if !self.reads_untyped() {
                return Some(HEADERS_HIDDEN);
            }
            if self.drop_reasons.is_empty() {
                return Some("this kernel tells no reasons for which it drops a packet");
            }
        }
        match role {
            Role::IcmpV4 | Role::IcmpV6 if !self.reads_untyped() => Some(HEADERS_HIDDEN),
            Role::ResetPackets | Role::HandshakePackets => self.no_packets(),
            Role::Holders if !self.reads_untyped() && !self.has_helper(SOCK_FROM_FILE) => {
                Some("lockdown keeps the way from a file to its socket from being read")
            }
            _ => None,
        }
    }

    /// Whether every reset that a stack on this node sends is seen, also those of no full socket.
    pub fn sees_all_resets(&self, filled: &[Filled]) -> bool {
        let sent = [
            Role::ResetsSent,
            Role::UntracedResetsV4,
            Role::UntracedResetsV6,
        ];
        let mut filled = filled.iter();
        self.reads_untyped()
            && filled.all(|filled| filled.loss().is_none() || !sent.contains(&filled.entry.role))
    }

    /// Whether resets that end no connection are seen, but not what they came for (before 6.11).
    pub fn drops_lack_sockets(&self, filled: &[Filled]) -> bool {
        !self.drop_has_socket() && filled.iter().any(|one| one.fills(Role::Drops))
    }

    /// Whether every SYN that is sent again is seen. Before 6.16 not one that this node itself drops.
    pub fn counts_syn_retransmits(&self, filled: &[Filled]) -> bool {
        self.retransmit_has_error() && filled.iter().any(|one| one.fills(Role::SynRetransmits))
    }

    /// The roles that are to be filled on this kernel.
    fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        let traced = self.tracepoint_has_reason();
        CATALOG.iter().filter(move |entry| match entry.role {
            Role::UntracedResetsV4 | Role::UntracedResetsV6 => !traced,
            _ => true,
        })
    }
}

/// The kernel side at work. Dropping it detaches everything.
pub struct Loaded {
    /// `None` once detached.
    ebpf: Option<Ebpf>,
    /// The events.
    pub ring: Ring,
    /// The connections that are open.
    pub stories: Places<Place>,
    /// Resets of those that were not asked for.
    pub resets: Places<KeptReset>,
    /// Where connections lead.
    routes: HashMap<MapData, Destination, u32>,
    counters: PerCpuArray<MapData, [u64; counter::COUNT]>,
    /// Open files can be scanned.
    scans: bool,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("scans", &self.scans)
            .finish_non_exhaustive()
    }
}

/// Loads and attaches. `filled` becomes what came of each role, also where that is not enough.
pub fn load(
    plan: &Plan<'_>,
    loader: EbpfLoader<'static>,
    filled: &mut Vec<Filled>,
) -> Result<Loaded, Failure> {
    let (globals, reasons) = (globals(plan), drop_reasons(plan));
    let reads_current = plan.lockdown != Lockdown::Confidentiality
        || globals.contains(&(setting::HAS_CURRENT_TASK_BTF, 1));
    if !plan.wanted.cgroups.is_empty() && !reads_current {
        let message = "under lockdown=confidentiality this kernel (before 5.11) does not tell the cgroup of a process: trace without --cgroup and --container";
        return Err(Failure::new(Code::Kernel, message));
    }
    let rungs = plan.entries().flat_map(|entry| entry.rungs);
    let look_up = || {
        let targets = Targets::new(plan.btf, rungs);
        // Meanwhile the kernel makes the maps.
        targets.types();
        targets
    };
    let open = || open(plan, &globals, &reasons, loader);
    let (targets, ebpf) = beside(look_up, open).map_err(|error| no_thread(&error))?;
    let mut ebpf = ebpf?;
    filter(&mut ebpf, plan.wanted).map_err(|error| {
        Failure::new(
            Code::Failure,
            format!("cannot set the filters: {}", chain(&error)),
        )
    })?;
    // The maps first: an event must find the agent able to read it.
    let mut take = |name| ebpf.take_map(name).ok_or_else(|| missing_map(name));
    let ring = RingBuf::try_from(take("EVENTS")?).map_err(|error| map_failure("EVENTS", &error))?;
    let counters = PerCpuArray::try_from(take("COUNTERS")?)
        .map_err(|error| map_failure("COUNTERS", &error))?;
    let routes =
        HashMap::try_from(take("ROUTES")?).map_err(|error| map_failure("ROUTES", &error))?;
    let mut array = |name| match take(name)? {
        Map::Array(map) => Ok(map),
        _ => Err(missing_map(name)),
    };
    let stories = Places::new(array("STORIES")?, plan.story_places() as usize);
    let resets = Places::new(array("RESETS")?, plan.reset_places() as usize);
    *filled = fill(&mut ebpf, &targets, plan).map_err(|error| no_thread(&error))?;
    if let Some(failure) = filled.iter().find_map(Filled::failure) {
        return Err(failure);
    }
    Ok(Loaded {
        ebpf: Some(ebpf),
        ring: Ring::new(ring),
        stories,
        resets,
        routes,
        counters,
        scans: filled.iter().any(|one| one.fills(Role::Holders)),
    })
}

/// Whether the kernel keeps programs from reading memory that no type leads to, as lockdown=confidentiality does: asked by one that
/// would. Where that cannot be asked, loading the hooks says why.
pub fn forbids_reads() -> bool {
    let helper = BpfHelper::BPF_FUNC_probe_read_kernel;
    is_helper_supported(ProgramType::RawTracePoint, helper).is_ok_and(|is_supported| !is_supported)
}

fn no_thread(error: &io::Error) -> Failure {
    let message = format!(
        "cannot start a thread: {error}; three are needed (ulimit -u, TasksMax=, a container's limit of pids)"
    );
    Failure::new(Code::Failure, message)
}

fn missing_map(name: &str) -> Failure {
    let message = format!("the BPF object lacks the map {name}");
    Failure::new(Code::Failure, message)
}

fn map_failure(name: &str, error: &MapError) -> Failure {
    let message = format!("cannot use the map {name}: {}", chain(error));
    short_of(os_error(error), message)
}

/// A failure, with what to do where the system is only short of something.
fn short_of(errno: Option<i32>, message: String) -> Failure {
    let remedy = match errno {
        Some(libc::ENOMEM) => "; lower --ring-size or --max-connections",
        _ => "",
    };
    Failure::no_descriptor(errno).unwrap_or_else(|| Failure::new(Code::Failure, message + remedy))
}

/// Name and value of every read-only global that is not a field's offset.
fn globals(plan: &Plan<'_>) -> [(&'static str, u32); 16] {
    let flag = u32::from;
    [
        (setting::FILTER_PORTS, flag(plan.wanted.ports.is_some())),
        (setting::FILTER_PORTS_EPHEMERAL, flag(plan.ephemeral)),
        (setting::FILTER_NETS, flag(!plan.wanted.networks.is_empty())),
        (setting::FILTER_PIDS, flag(!plan.wanted.pids.is_empty())),
        (
            setting::FILTER_CGROUPS,
            flag(!plan.wanted.cgroups.is_empty()),
        ),
        (setting::CAN_PROBE_READ, flag(plan.reads_untyped())),
        (
            setting::SEND_RESET_HAS_REASON,
            flag(plan.tracepoint_has_reason()),
        ),
        (
            setting::RETRANSMIT_HAS_ERROR,
            flag(plan.retransmit_has_error()),
        ),
        (
            setting::HAS_CURRENT_TASK_BTF,
            flag(plan.has_helper("BPF_FUNC_get_current_task_btf")),
        ),
        (
            setting::HAS_SOCK_FROM_FILE,
            flag(plan.has_helper(SOCK_FROM_FILE)),
        ),
        (
            setting::ACCEPT_HAS_ARG_STRUCT,
            flag(plan.btf.function_args("inet_csk_accept") == Some(2)),
        ),
        (setting::DROP_HAS_SOCKET, flag(plan.drop_has_socket())),
        (setting::NO_SOCKET_DROP, plan.drop_reasons.no_socket()),
        (setting::EACH_EVENT, flag(plan.events)),
        (setting::STORY_PLACES, plan.story_places()),
        (setting::WAKE_AT, wake_at(plan.ring_size)),
    ]
}

/// How many bytes may wait in the ring before the agent is woken. A quarter leaves time to be scheduled before the rest fills up. More
/// than this many make four times as much output at once, which then waits in memory to be written.
fn wake_at(ring_size: u32) -> u32 {
    const MOST: u32 = 128 << 10;
    MOST.min(ring_size / 4)
}

/// Name and value of those that say which drops of packets are looked at, a bit each.
fn drop_reasons(plan: &Plan<'_>) -> [(&'static str, u64); 4] {
    let [low, high] = plan.drop_reasons.filters(plan.drop_has_socket());
    let [reset_low, reset_high] = plan.drop_reasons.resets(plan.drop_has_socket());
    [
        (setting::DROPS_LOW, low),
        (setting::DROPS_HIGH, high),
        (setting::RESET_DROPS_LOW, reset_low),
        (setting::RESET_DROPS_HIGH, reset_high),
    ]
}

fn open<'a>(
    plan: &'a Plan<'_>,
    globals: &'a [(&'static str, u32)],
    reasons: &'a [(&'static str, u64)],
    mut loader: EbpfLoader<'a>,
) -> Result<Ebpf, Failure> {
    loader
        // Only of the second try, which aya makes with a log where the first one failed: it needs one that is not empty, and
        // succeeds where only a signal had interrupted the first.
        .verifier_log_level(VerifierLogLevel::STATS)
        .map_max_entries("EVENTS", plan.ring_size)
        .map_max_entries("STORIES", plan.story_places())
        .map_max_entries("RESETS", plan.reset_places());
    if plan.wanted.by_owner() {
        loader.map_max_entries("OWNED", plan.max_connections);
    } else {
        // Not used: the kernel would make room for their buckets all the same.
        loader
            .map_max_entries("OWNED", 1)
            .map_max_entries("OWNED_PORTS", 1);
    }
    if plan.no_packets().is_some() {
        loader.map_max_entries("HANDSHAKES", 1);
    }
    for (name, value) in globals {
        loader.override_global(name, value, true);
    }
    for (name, bits) in reasons {
        loader.override_global(name, bits, true);
    }
    for (field, offset) in plan.offsets.iter() {
        loader.override_global(field.global, offset, true);
    }
    loader.load(OBJECT).map_err(|error| {
        let text = chain(&error);
        match os_error(&error) {
            Some(libc::EPERM | libc::EACCES) => Failure::new(
                Code::Privilege,
                "the kernel does not let this process use BPF: capabilities do not count in a user \
                 namespace, and before 5.11 maps take unlimited locked memory (ulimit -l, or \
                 CAP_SYS_RESOURCE)",
            ),
            Some(libc::EINVAL) if text.contains("map") => Failure::new(
                Code::Kernel,
                format!(
                    "the kernel lacks a map type that is needed (5.8 or later has all): {text}"
                ),
            ),
            errno => short_of(errno, format!("cannot load the BPF object: {text}")),
        }
    })
}

fn filter(ebpf: &mut Ebpf, wanted: &Wanted) -> Result<(), MapError> {
    // Borrowed, not taken: the programs need the maps open until they are loaded.
    fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, MapError> {
        ebpf.map_mut(name).ok_or_else(|| MapError::InvalidName {
            name: name.to_owned(),
        })
    }
    if let Some(ports) = &wanted.ports {
        let mut words: Array<_, u64> = map(ebpf, "PORTS")?.try_into()?;
        for (index, &word) in (0..).zip(ports.words()) {
            if word != 0 {
                words.set(index, word, 0)?;
            }
        }
    }
    for &Network { address, prefix } in &wanted.networks {
        match address {
            IpAddr::V4(address) => {
                let mut networks: LpmTrie<_, [u8; 4], u8> = map(ebpf, "NETS_V4")?.try_into()?;
                networks.insert(&Key::new(prefix.into(), address.octets()), 1, 0)?;
            }
            IpAddr::V6(address) => {
                let mut networks: LpmTrie<_, [u8; 16], u8> = map(ebpf, "NETS_V6")?.try_into()?;
                networks.insert(&Key::new(prefix.into(), address.octets()), 1, 0)?;
            }
        }
    }
    for pid in &wanted.pids {
        let mut pids: HashMap<_, u32, u8> = map(ebpf, "PIDS")?.try_into()?;
        pids.insert(pid, 1, 0)?;
    }
    for id in &wanted.cgroups {
        let mut cgroups: HashMap<_, u64, u8> = map(ebpf, "CGROUPS")?.try_into()?;
        cgroups.insert(id, 1, 0)?;
    }
    Ok(())
}

/// Loads side by side, since verifying takes most of the time, then attaches in the order of the catalog.
fn fill(ebpf: &mut Ebpf, targets: &Targets, plan: &Plan<'_>) -> io::Result<Vec<Filled>> {
    let mut programs: collections::HashMap<_, _> = ebpf.programs_mut().collect();
    let mut climbs: Vec<_> = plan
        .entries()
        .map(|entry| Climb::new(entry, &mut programs))
        .collect();
    // What takes longest first, so that neither thread waits long for the other.
    let mut queue: Vec<_> = climbs.iter_mut().rev().collect();
    queue.sort_by_key(|climb| !matches!(climb.entry.role, Role::States | Role::ResetsSent));
    let queue = Mutex::new(queue.into_iter());
    let work = || {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(climb) = next() {
            climb.load(targets, |role, rung| plan.unfit(role, rung));
        }
    };
    let work_and_forget = || {
        work();
        targets.forget_types();
    };
    beside(work_and_forget, work)?;
    let filled = climbs.into_iter().map(|climb| climb.attach(targets));
    Ok(filled.collect())
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
    pub fn holders(&mut self) -> Option<std::fs::File> {
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
            let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asked_for_too_much_memory_is_told_what_to_lower() {
        let said = |errno| short_of(Some(errno), "no".to_owned()).to_string();
        assert_eq!(said(libc::EINVAL), "no");
        assert!(said(libc::ENOMEM).contains("--ring-size"));
        assert!(said(libc::EMFILE).contains("ulimit -n"));
    }

    /// The little that is asked of a 64-bit ELF file: name, flags and content of each section.
    fn sections(file: &[u8]) -> Vec<(&str, u64, &[u8])> {
        let number = |at: usize, size: usize| {
            let bytes = file[at..at + size].iter().rev();
            bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        let place = |at, size| usize::try_from(number(at, size)).unwrap();
        let headers: Vec<_> = (0..place(0x3c, 2))
            .map(|index| place(0x28, 8) + index * place(0x3a, 2))
            .collect();
        let content = |header: usize| {
            let (from, size) = (place(header + 0x18, 8), place(header + 0x20, 8));
            // `SHT_NOBITS` has none.
            file.get(from..from + size).unwrap_or_default()
        };
        let names = content(headers[place(0x3e, 2)]);
        let name = |header: usize| {
            let name = &names[place(header, 4)..];
            std::ffi::CStr::from_bytes_until_nul(name).unwrap()
        };
        let section = |&header: &usize| {
            let name = name(header).to_str().unwrap();
            (name, number(header + 8, 8), content(header))
        };
        headers.iter().map(section).collect()
    }

    /// Before 6.4 a program that calls a function of its own has no table of the loads that may fault, and the first
    /// one that does takes the machine down (`Struct::by_way_of` on the kernel side names the fix).
    #[test]
    fn no_program_calls_a_function_of_its_own() {
        const EXECUTABLE: u64 = 4;
        const CALL: u8 = 0x85;
        const PSEUDO_CALL: u8 = 1;
        let mut hooks = 0;
        for (name, flags, code) in sections(OBJECT) {
            if flags & EXECUTABLE == 0 || name == ".text" {
                continue;
            }
            hooks += 1;
            let calls = code
                .chunks_exact(8)
                .filter(|insn| insn[0] == CALL && insn[1] >> 4 == PSEUDO_CALL);
            assert_eq!(calls.count(), 0, "{name}");
        }
        // Programs with the same hook share a section.
        let rungs = CATALOG.iter().flat_map(|entry| entry.rungs);
        let names: collections::HashSet<_> = rungs.map(Rung::name).collect();
        assert_eq!(hooks, names.len());
    }

    /// What may be NULL there is compared with another number than 0 first, which no verifier takes for decided.
    #[test]
    fn null_arguments_are_doubted() {
        const GREATER: (u8, i32) = (0x25, 0xfff);
        const LESS: (u8, i32) = (0xa5, 0x1000);
        let sections = sections(OBJECT);
        let mut found = sections
            .iter()
            .filter(|(name, ..)| name.ends_with("/tcp_send_reset"));
        let (_, _, code) = found.next().unwrap();
        let compared = code.chunks_exact(8).filter(|insn| {
            let number = i32::from_le_bytes([insn[4], insn[5], insn[6], insn[7]]);
            [GREATER, LESS].contains(&(insn[0], number))
        });
        assert_eq!(compared.count(), 2, "the socket and the packet");
    }
}
