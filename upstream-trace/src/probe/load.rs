//! Puts the BPF object into the kernel: globals, maps, and for each role the best hook that the kernel
//! takes. Each rung is tried; no version is compared.
//!
//! What is to be set and tried is the [`Plan`]'s. Must not know: why, what is seen by it.

use std::{
    collections, io,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, LpmTrie, Map, MapError, PerCpuArray, RingBuf, lpm_trie::Key},
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
    util::nr_cpus,
};

use super::{
    beside::beside,
    catalog::Role,
    ladder::{Climb, Filled, Trampolines, chain, os_error},
    loaded::Loaded,
    object::OBJECT,
    places::Places,
    plan::Plan,
    ring::Ring,
    targets::Targets,
};
use crate::{
    exit::{Code, Failure},
    settings::{Network, Wanted},
};

/// Loads and attaches. `filled` becomes what came of each role, also where that is not enough.
pub fn load(
    plan: &Plan<'_>,
    loader: EbpfLoader<'static>,
    filled: &mut Vec<Filled>,
) -> Result<Loaded, Failure> {
    plan.check()?;
    cpus_are_known()?;
    let rungs = plan.entries().flat_map(|entry| entry.rungs);
    let look_up = || {
        let targets = Targets::new(plan.btf, rungs);
        // Meanwhile the kernel makes the maps.
        targets.types();
        targets
    };
    let open = || open(plan, loader);
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

/// Without how many CPUs there can be, what each of them has counted cannot be read later.
fn cpus_are_known() -> Result<(), Failure> {
    let unknown = |(path, error)| {
        let message = format!(
            "cannot read {path}, which says for how many CPUs the counters are: {error}: mount /sys (mount -t sysfs sysfs /sys)"
        );
        Failure::new(Code::Failure, message)
    };
    nr_cpus().map(drop).map_err(unknown)
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

fn open(plan: &Plan<'_>, loader: EbpfLoader<'static>) -> Result<Ebpf, Failure> {
    let (globals, drops, sizes) = (plan.globals(), plan.drops(), plan.map_sizes());
    // One that may borrow these.
    let mut loader: EbpfLoader<'_> = loader;
    // Only of the second try, which aya makes with a log where the first one failed: it needs one that is not empty, and
    // succeeds where only a signal had interrupted the first.
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for (name, size) in sizes {
        loader.map_max_entries(name, size);
    }
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    for (name, bits) in &drops {
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
    let trampolines = Trampolines::default();
    let mut climbs: Vec<_> = plan
        .entries()
        .map(|entry| Climb::new(entry, &mut programs, &trampolines))
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
}
