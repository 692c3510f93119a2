//! What this host lets the tracer see: found out by loading and attaching, as every run does.
//!
//! A run goes on with what was attached and says in short what a survey found; `doctor` drops it and tells
//! all. Must not know: how it is told, what becomes of the events.

use std::{fs, io, path::Path};

use upstream_trace_common::field::ABSENT;

use crate::{
    clock,
    exit::{Code, Failure},
    kernel::{
        btf::{Btf, Bytes},
        host::{self, Host, Lockdown},
        offsets::Offsets,
        reasons::Reasons,
    },
    limits::spare_descriptors,
    privilege::{self, Capabilities, Capability},
    probe::{ladder::Filled, load, loaded::Loaded, loader, own_types, plan::Plan},
    settings::Settings,
};

/// What was found out.
#[derive(Debug)]
pub struct Survey {
    pub host: Host,
    /// At the start.
    pub capabilities: Capabilities,
    /// The file that the kernel's types were read from; `None`: they could not be.
    pub types: Option<String>,
    /// Where its fields are; `None` without types.
    pub offsets: Option<Offsets>,
    /// The kernel's own names of reset reasons.
    pub reasons: Reasons,
    /// The same of reasons for dropping a packet.
    pub drop_reasons: Reasons,
    /// What came of each role; empty where none was tried.
    pub roles: Vec<Filled>,
    /// `None`: the hooks are not attached.
    pub attached: Option<Attached>,
    /// Why nothing can be traced, first what a run stops at.
    pub obstacles: Vec<Failure>,
    /// Taken once hooks are attached.
    btf: Option<Btf>,
}

/// What is known once the hooks are attached.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Attached {
    /// What was not given up.
    pub kept: Capabilities,
    /// Every reset that this node sends passes the hook.
    pub sees_all_resets: bool,
    /// Every SYN that is sent again passes the hook.
    pub counts_syn_retransmits: bool,
    /// The kernel tells how often it skipped a hook.
    counts_skipped: bool,
    /// The kernel does not tell what a dropped packet came for.
    drops_lack_sockets: bool,
}

impl Survey {
    /// What can be told without loading a program.
    pub fn look(settings: &Settings) -> Result<Self, Failure> {
        let failed = |error: String| Failure::new(Code::Failure, error);
        let host = Host::read().map_err(|error| failed(error.to_string()))?;
        clock::is_ahead_by(host.clock_ahead_ns);
        let capabilities = Capabilities::effective()
            .map_err(|error| failed(format!("cannot read my capabilities: {error}")))?;
        let mut obstacles: Vec<_> = lack(capabilities).into_iter().collect();
        let file = settings.btf.as_deref();
        let btf = match types(file, capabilities) {
            Ok(btf) => Some(btf),
            Err(failure) => {
                obstacles.push(failure);
                None
            }
        };
        let offsets = btf.as_ref().map(Offsets::resolve);
        obstacles.extend(offsets.as_ref().and_then(lacks_fields));
        obstacles.extend(btf.as_ref().and_then(sleeps_at_the_ring));
        Ok(Self {
            host,
            capabilities,
            types: btf.as_ref().map(|_| {
                let file = file.unwrap_or(Path::new(host::BTF));
                file.display().to_string()
            }),
            offsets,
            reasons: btf.as_ref().map(Reasons::of_resets).unwrap_or_default(),
            drop_reasons: btf.as_ref().map(Reasons::of_drops).unwrap_or_default(),
            roles: Vec::new(),
            attached: None,
            obstacles,
            btf,
        })
    }

    /// Whether there is no obstacle, as far as is known by now.
    pub fn check(&self) -> Result<(), Failure> {
        self.obstacles.first().cloned().map_or(Ok(()), Err)
    }

    /// Loads, attaches, and gives up every privilege that is no longer needed; so no other thread may have
    /// been started.
    pub fn attach(&mut self, settings: &Settings) -> Result<(Loaded, Attached), Failure> {
        self.check()?;
        let attached = self.load(settings);
        match &attached {
            Ok((_, attached)) => self.attached = Some(*attached),
            Err(failure) => self.obstacles.push(failure.clone()),
        }
        attached
    }

    fn load(&mut self, settings: &Settings) -> Result<(Loaded, Attached), Failure> {
        let (Some(btf), Some(offsets)) = (self.btf.take(), &self.offsets) else {
            let message = "the kernel's types are not at hand";
            return Err(Failure::new(Code::Kernel, message));
        };
        if self.host.lockdown == Lockdown::Unknown && load::forbids_reads() {
            self.host.lockdown = Lockdown::Confidentiality;
        }
        let ephemeral = settings.wanted.ports.as_ref().is_some_and(|ports| {
            let range = self.host.local_ports.clone().unwrap_or(1..=u16::MAX);
            range.into_iter().any(|port| ports.contains(port))
        });
        let plan = Plan {
            btf: &btf,
            offsets,
            drop_reasons: &self.drop_reasons,
            lockdown: self.host.lockdown,
            runs_function_hooks: self.host.runs_function_hooks,
            wanted: &settings.wanted,
            ephemeral,
            ring_size: settings.ring_size,
            events: settings.events,
            max_connections: settings.max_connections,
        };
        let loader = loader::without_types()?;
        let mut loaded = load::load(&plan, loader, &mut self.roles)?;
        // What a run opens later it does without where it cannot, and says nothing.
        spare_descriptors()?;
        let attached = Attached {
            sees_all_resets: plan.sees_all_resets(&self.roles),
            counts_syn_retransmits: plan.counts_syn_retransmits(&self.roles),
            drops_lack_sockets: plan.drops_lack_sockets(&self.roles),
            kept: give_up(self.capabilities, &mut loaded)?,
            counts_skipped: loaded.missed().is_some(),
        };
        Ok((loaded, attached))
    }

    /// What will be invisible or less precise, a line each.
    pub fn limits(&self) -> Vec<String> {
        let unseen = self.roles.iter().filter_map(Filled::loss);
        let unseen = unseen.chain(self.unseen_otherwise());
        let mut limits: Vec<_> = unseen
            .map(|what| format!("not seen on this host: {what}"))
            .collect();
        let missing = self.offsets.iter().flat_map(Offsets::missing);
        limits.extend(missing.filter_map(|field| {
            let loss = field.loss?;
            let (of, path) = (field.of, field.path);
            Some(format!(
                "this kernel has no {of}.{path}: {loss} may be missing"
            ))
        }));
        limits
    }

    fn has_mptcp(&self) -> bool {
        let mut found = self.offsets.iter().flat_map(Offsets::iter);
        found.any(|(field, &offset)| field.global == "MPTCP_FIRST" && offset != ABSENT)
    }

    /// What is not for want of a hook or a field.
    fn unseen_otherwise(&self) -> impl Iterator<Item = &'static str> {
        let attached = |holds: fn(&Attached) -> bool| self.attached.as_ref().is_some_and(holds);
        let limits = [
            (
                self.types.is_some() && self.reasons.is_empty(),
                "the kernel's own reasons of resets; they are derived or null",
            ),
            (
                self.host.lockdown == Lockdown::Confidentiality,
                "resets sent from closed ports and by listeners, and who sent an ICMP error, because lockdown \
                 keeps packet headers from being read",
            ),
            (
                self.host.lockdown == Lockdown::Confidentiality && self.has_mptcp(),
                "owners of MPTCP's sockets that are older than the tracer, because lockdown keeps from being read what leads to them",
            ),
            (
                attached(|attached| attached.drops_lack_sockets),
                "resets that reach TIME_WAIT or a half-open request",
            ),
            (
                !self.host.has_proc,
                "executables, containers and pods of processes, and names of some: /proc is not mounted: mount it (mount -t proc proc /proc)",
            ),
            (
                attached(|attached| !attached.counts_skipped),
                "the kernel's own count of hooks that it skipped; only what follows from others tells",
            ),
            (
                !self.host.is_in_first_pid_namespace,
                "executables, containers and pods of processes, and who had the sockets that are older than the tracer: this is not \
                 the host's pid namespace (hostPID)",
            ),
            (
                !self.capabilities.has(Capability::SysPtrace),
                "the executables of processes of other users, or with more capabilities (that takes CAP_SYS_PTRACE)",
            ),
        ];
        limits
            .into_iter()
            .filter_map(|(holds, what)| holds.then_some(what))
    }
}

/// The capabilities that are missing.
fn lack(capabilities: Capabilities) -> Option<Failure> {
    let missing: Vec<_> = capabilities.missing().map(Capability::name).collect();
    if missing.is_empty() {
        return None;
    }
    let them = if missing.len() == 1 { "it" } else { "them" };
    let message = format!(
        "{} missing: run as root or grant {them}",
        missing.join(" and ")
    );
    Some(Failure::new(Code::Privilege, message))
}

/// The fields that the tracer cannot do without and this kernel lacks.
fn lacks_fields(offsets: &Offsets) -> Option<Failure> {
    let needed: Vec<_> = offsets
        .missing_required()
        .map(|field| format!("{}.{}", field.of, field.path))
        .collect();
    if needed.is_empty() {
        return None;
    }
    let message = format!("this kernel lacks {}", needed.join(", "));
    Some(Failure::new(Code::Kernel, message))
}

/// With `PREEMPT_RT` a `spinlock_t` is an `rt_mutex` and sleeps, and the ring had one until 6.12 (`__bpf_ringbuf_reserve`), which
/// a program of a tracepoint may not take. There is none with this member where the lock only spins.
fn sleeps_at_the_ring(btf: &Btf) -> Option<Failure> {
    btf.member("bpf_ringbuf", "spinlock.lock.wait_lock")?;
    let message = "this kernel is a real-time one (PREEMPT_RT) in whose ring for BPF a program would have to sleep: it takes 6.12 or later";
    Some(Failure::new(Code::Kernel, message))
}

/// The kernel's types: its own file, or one that is the same byte for byte.
fn types(file: Option<&Path>, capabilities: Capabilities) -> Result<Btf, Failure> {
    let unusable = |message: String| Failure::new(Code::Kernel, message);
    let Some(file) = file else {
        return host::btf().map_err(|error| {
            unusable(format!(
                "{error}: a kernel with CONFIG_DEBUG_INFO_BTF is needed; where its types are only hidden, \
                 --btf takes a copy"
            ))
        });
    };
    let name = file.display();
    let is_file = fs::metadata(file).map(|data| data.is_file());
    let bytes = match is_file {
        // Whoever reads a pipe may wait for ever.
        Ok(false) => Err(io::Error::other("it is no regular file")),
        Ok(true) => fs::read(file),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| unusable(format!("cannot read {name}: {error}")))?;
    let btf = Btf::parse(bytes).map_err(|error| {
        unusable(format!(
            "cannot use {name}: {error}: --btf takes a copy of the running kernel's {}",
            host::BTF
        ))
    })?;
    // Hooks are attached by the ids that the kernel's own types have, and BTF does not say whose it is.
    match own_types(capabilities) {
        Ok(Some(own)) if *own == *btf.bytes() => Ok(btf),
        Ok(Some(_)) => Err(unusable(format!(
            "{name} is not a copy of the running kernel's {}",
            host::BTF
        ))),
        Ok(None) => Err(unusable(format!(
            "the running kernel tells no types of its own, and hooks are attached by those: {name} does \
             not help (CONFIG_DEBUG_INFO_BTF is needed, and 5.11 where /sys/kernel/btf is hidden)"
        ))),
        Err(failure) => Err(Failure::new(
            failure.code,
            format!("cannot tell whether {name} is of the running kernel: {failure}"),
        )),
    }
}

/// The types that the running kernel goes by; `None` where it does not tell.
fn own_types(capabilities: Capabilities) -> Result<Option<Bytes>, Failure> {
    if let Ok(shown) = host::btf_bytes() {
        return Ok(Some(shown));
    }
    if !capabilities.has(Capability::SysAdmin) {
        let needed = Capability::SysAdmin;
        return Err(Failure::new(
            Code::Privilege,
            format!("that takes {needed}"),
        ));
    }
    match own_types::read() {
        Ok(told) => Ok(told.map(Bytes::from)),
        Err(error) => Err(Failure::new(Code::Kernel, error.to_string())),
    }
}

/// `CAP_SYS_PTRACE` lets a run read whose executable a process is. Reading maps takes `CAP_BPF`, or what
/// stands for it, before 5.19 where unprivileged BPF is off (`__sys_bpf`; c8644cd0efe7).
fn give_up(held: Capabilities, loaded: &mut Loaded) -> Result<Capabilities, Failure> {
    let bpf = if held.has(Capability::Bpf) {
        Capability::Bpf
    } else {
        Capability::SysAdmin
    };
    privilege::give_up(&[Capability::SysPtrace], &[bpf], || loaded.is_readable()).map_err(|error| {
        let message = format!("cannot give up capabilities: {error}");
        Failure::new(Code::Failure, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sample::Sample;

    /// `struct bpf_ringbuf`, whose lock has this member.
    fn ring(member: &str) -> Btf {
        let mut types = Sample::default();
        let int = types.int("u32", 4);
        let inner = types.structure("inner", 4, &[("wait_lock", int, 0)]);
        let lock = types.structure("spinlock", 4, &[(member, inner, 0)]);
        types.structure("bpf_ringbuf", 4, &[("spinlock", lock, 0)]);
        Btf::parse(types.finish()).unwrap()
    }

    #[test]
    fn a_ring_with_a_lock_that_sleeps_is_not_used() {
        assert_eq!(
            sleeps_at_the_ring(&ring("lock")).map(|failure| failure.code),
            Some(Code::Kernel)
        );
        assert!(sleeps_at_the_ring(&ring("rlock")).is_none());
    }
}
