//! What the kernel side is to do on this kernel: the roles to fill and the hooks that cannot, the object's globals, the sizes of its
//! maps; and what is seen by the hooks that were taken.
//!
//! Pure. Must not know: how anything is loaded or attached, aya.

use upstream_trace_common::setting;

use super::{
    catalog::{CATALOG, Entry, Role, Rung},
    ladder::Filled,
};
use crate::{
    exit::{Code, Failure},
    kernel::{btf, host::Lockdown, offsets::Offsets, reasons::Reasons},
    settings::Wanted,
};

const HEADERS_HIDDEN: &str = "lockdown keeps packet headers from being read";

/// The helper that leads from an open file to its socket, 5.11 and later.
const SOCK_FROM_FILE: &str = "BPF_FUNC_sock_from_file";
/// The one that tells the current task as a pointer with a type, 5.11 and later.
const CURRENT_TASK_BTF: &str = "BPF_FUNC_get_current_task_btf";

/// What was asked for, and what the kernel has and forbids: all the rest follows from these.
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

/// What was asked for, and this kernel.
impl Plan<'_> {
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

    /// Whether `kfree_skb` carries the socket that a packet came for.
    fn drop_has_socket(&self) -> bool {
        self.btf.tracepoint_args("kfree_skb") >= Some(4)
    }

    /// Whether the kernel has this BPF helper, by its name in `enum bpf_func_id`.
    fn has_helper(&self, name: &str) -> bool {
        let helpers = self.btf.enumerators("bpf_func_id").unwrap_or_default();
        helpers.iter().any(|(helper, _)| helper == name)
    }

    /// Why what was asked for cannot be had here, whatever is loaded.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let reads_current = self.reads_untyped() || self.has_helper(CURRENT_TASK_BTF);
        if self.wanted.cgroups.is_empty() || reads_current {
            return Ok(());
        }
        let message = "under lockdown=confidentiality this kernel (before 5.11) does not tell the cgroup of a process: trace without --cgroup and --container";
        Err(Failure::new(Code::Kernel, message))
    }
}

/// The hooks.
impl Plan<'_> {
    /// The roles that are to be filled on this kernel.
    pub(super) fn entries(&self) -> impl Iterator<Item = &'static Entry> {
        let traced = self.tracepoint_has_reason();
        CATALOG.iter().filter(move |entry| match entry.role {
            Role::UntracedResetsV4 | Role::UntracedResetsV6 => !traced,
            _ => true,
        })
    }

    /// Why this hook cannot fill this role here, although the kernel would take it.
    pub(super) fn unfit(&self, role: Role, rung: &Rung) -> Option<&'static str> {
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
}

/// What is seen by those that were taken.
impl Plan<'_> {
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
}

/// The object.
impl Plan<'_> {
    /// Name and value of every read-only global of 32 bits that is not a field's offset.
    pub(super) fn globals(&self) -> [(&'static str, u32); 16] {
        let flag = u32::from;
        let wanted = self.wanted;
        let accept_has_struct = self.btf.function_args("inet_csk_accept") == Some(2);
        [
            (setting::FILTER_PORTS, flag(wanted.ports.is_some())),
            (setting::FILTER_PORTS_EPHEMERAL, flag(self.ephemeral)),
            (setting::FILTER_NETS, flag(!wanted.networks.is_empty())),
            (setting::FILTER_PIDS, flag(!wanted.pids.is_empty())),
            (setting::FILTER_CGROUPS, flag(!wanted.cgroups.is_empty())),
            (setting::CAN_PROBE_READ, flag(self.reads_untyped())),
            (
                setting::SEND_RESET_HAS_REASON,
                flag(self.tracepoint_has_reason()),
            ),
            (
                setting::RETRANSMIT_HAS_ERROR,
                flag(self.retransmit_has_error()),
            ),
            (
                setting::HAS_CURRENT_TASK_BTF,
                flag(self.has_helper(CURRENT_TASK_BTF)),
            ),
            (
                setting::HAS_SOCK_FROM_FILE,
                flag(self.has_helper(SOCK_FROM_FILE)),
            ),
            (setting::ACCEPT_HAS_ARG_STRUCT, flag(accept_has_struct)),
            (setting::DROP_HAS_SOCKET, flag(self.drop_has_socket())),
            (setting::NO_SOCKET_DROP, self.drop_reasons.no_socket()),
            (setting::EACH_EVENT, flag(self.events)),
            (setting::STORY_PLACES, self.story_places()),
            (setting::WAKE_AT, wake_at(self.ring_size)),
        ]
    }

    /// Name and value of those that say which drops of packets are looked at, a bit each.
    pub(super) fn drops(&self) -> [(&'static str, u64); 4] {
        let [low, high] = self.drop_reasons.filters(self.drop_has_socket());
        let [reset_low, reset_high] = self.drop_reasons.resets(self.drop_has_socket());
        [
            (setting::DROPS_LOW, low),
            (setting::DROPS_HIGH, high),
            (setting::RESET_DROPS_LOW, reset_low),
            (setting::RESET_DROPS_HIGH, reset_high),
        ]
    }

    /// Name and size of every map that has not always the same.
    pub(super) fn map_sizes(&self) -> Vec<(&'static str, u32)> {
        let mut sizes = vec![
            ("EVENTS", self.ring_size),
            ("STORIES", self.story_places()),
            ("RESETS", self.reset_places()),
        ];
        // One that is not used has room for one entry: the kernel would make that for all of them.
        if self.wanted.by_owner() {
            sizes.push(("OWNED", self.max_connections));
        } else {
            sizes.extend([("OWNED", 1), ("OWNED_PORTS", 1)]);
        }
        if self.no_packets().is_some() {
            sizes.push(("HANDSHAKES", 1));
        }
        sizes
    }

    /// Places of stories, about one for each connection.
    pub(super) fn story_places(&self) -> u32 {
        self.max_connections
            .min(setting::STORY_PLACES_MAX)
            .next_power_of_two()
    }

    /// Places of resets that were not asked for: where all are, there are none.
    pub(super) const fn reset_places(&self) -> u32 {
        if self.wanted.is_everything() {
            1
        } else {
            setting::RESET_PLACES
        }
    }
}

/// How many bytes may wait in the ring before the agent is woken. A quarter leaves time to be scheduled before the rest fills up. More
/// than this many make four times as much output at once, which then waits in memory to be written.
fn wake_at(ring_size: u32) -> u32 {
    const MOST: u32 = 128 << 10;
    MOST.min(ring_size / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::saved;

    /// What a plan borrows.
    struct Host {
        btf: btf::Btf,
        offsets: Offsets,
        drop_reasons: Reasons,
        wanted: Wanted,
    }

    impl Host {
        fn new(kernel: &str) -> Self {
            let btf = saved::btf(kernel);
            Self {
                offsets: Offsets::resolve(&btf),
                drop_reasons: Reasons::of_drops(&btf),
                wanted: Wanted::default(),
                btf,
            }
        }

        /// Where nothing is forbidden, and everything wanted.
        const fn plan(&self) -> Plan<'_> {
            Plan {
                btf: &self.btf,
                offsets: &self.offsets,
                drop_reasons: &self.drop_reasons,
                lockdown: Lockdown::None,
                runs_function_hooks: true,
                wanted: &self.wanted,
                ephemeral: false,
                ring_size: 4 << 20,
                events: false,
                max_connections: 262_144,
            }
        }
    }

    /// From the oldest on.
    const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

    /// Each role by its best hook, but for these.
    fn filled(plan: &Plan<'_>, but: &[Role]) -> Vec<Filled> {
        let fill = |entry: &'static Entry| Filled {
            entry,
            by: (!but.contains(&entry.role)).then_some(entry.rungs[0]),
            refused: Vec::new(),
        };
        plan.entries().map(fill).collect()
    }

    /// The value of one global.
    fn global(plan: &Plan<'_>, name: &str) -> u32 {
        let globals = plan.globals();
        let (_, value) = globals.iter().find(|(known, _)| *known == name).unwrap();
        *value
    }

    #[test]
    fn programs_are_told_what_each_kernel_has() {
        for (name, on) in [
            (setting::CAN_PROBE_READ, [1, 1, 1, 1]),
            (setting::HAS_CURRENT_TASK_BTF, [0, 1, 1, 1]),
            (setting::HAS_SOCK_FROM_FILE, [0, 1, 1, 1]),
            (setting::SEND_RESET_HAS_REASON, [0, 0, 1, 1]),
            (setting::ACCEPT_HAS_ARG_STRUCT, [0, 0, 1, 1]),
            (setting::DROP_HAS_SOCKET, [0, 0, 1, 1]),
            (setting::RETRANSMIT_HAS_ERROR, [0, 0, 0, 1]),
        ] {
            let told = KERNELS.map(|kernel| global(&Host::new(kernel).plan(), name));
            assert_eq!(told, on, "{name}");
        }
    }

    #[test]
    fn resets_without_a_tracepoint_have_hooks_of_their_own() {
        for (kernel, apart) in KERNELS.into_iter().zip([true, true, false, false]) {
            let host = Host::new(kernel);
            let plan = host.plan();
            let found = plan
                .entries()
                .any(|entry| entry.role == Role::UntracedResetsV6);
            assert_eq!(found, apart, "{kernel}");
        }
    }

    #[test]
    fn all_resets_are_seen_where_no_hook_that_sees_one_sent_has_a_loss() {
        for kernel in KERNELS {
            let host = Host::new(kernel);
            let plan = host.plan();
            assert!(plan.sees_all_resets(&filled(&plan, &[])), "{kernel}");
            let others = filled(&plan, &[Role::ResetsReceived, Role::Drops]);
            assert!(plan.sees_all_resets(&others), "{kernel}");
            let none_sent = filled(&plan, &[Role::ResetsSent]);
            assert!(!plan.sees_all_resets(&none_sent), "{kernel}");
        }
        let host = Host::new("6.1");
        let plan = host.plan();
        let mut by_kprobe = filled(&plan, &[]);
        let untraced = by_kprobe
            .iter_mut()
            .find(|one| one.entry.role == Role::UntracedResetsV4)
            .unwrap();
        untraced.by = Some(untraced.entry.rungs[1]);
        assert!(!plan.sees_all_resets(&by_kprobe));
        let confidential = Plan {
            lockdown: Lockdown::Confidentiality,
            ..plan
        };
        assert!(!confidential.sees_all_resets(&filled(&confidential, &[])));
    }

    #[test]
    fn what_a_hook_tells_is_told_only_where_it_was_taken() {
        for (kernel, lack, count) in [
            ("6.1", true, false),
            ("6.12", false, false),
            ("7.2", false, true),
        ] {
            let host = Host::new(kernel);
            let plan = host.plan();
            let all = filled(&plan, &[]);
            assert_eq!(plan.drops_lack_sockets(&all), lack, "{kernel}");
            assert_eq!(plan.counts_syn_retransmits(&all), count, "{kernel}");
            let neither = filled(&plan, &[Role::Drops, Role::SynRetransmits]);
            assert!(!plan.drops_lack_sockets(&neither), "{kernel}");
            assert!(!plan.counts_syn_retransmits(&neither), "{kernel}");
        }
    }

    #[test]
    fn hooks_that_would_see_nothing_are_unfit() {
        /// Those of the roles that none of its hooks can fill.
        fn unfit(plan: &Plan<'_>) -> Vec<Role> {
            let no_hook = |entry: &&Entry| {
                let mut rungs = entry.rungs.iter();
                rungs.all(|rung| plan.unfit(entry.role, rung).is_some())
            };
            plan.entries()
                .filter(no_hook)
                .map(|entry| entry.role)
                .collect()
        }
        let headers = [
            Role::ResetPackets,
            Role::HandshakePackets,
            Role::IcmpV4,
            Role::IcmpV6,
            Role::Drops,
        ];
        let host = Host::new("7.2");
        let plan = host.plan();
        assert_eq!(unfit(&plan), []);
        let confidential = Plan {
            lockdown: Lockdown::Confidentiality,
            ..plan
        };
        assert_eq!(unfit(&confidential), headers);
        let no_ftrace = Plan {
            runs_function_hooks: false,
            ..plan
        };
        let by_function = unfit(&no_ftrace);
        assert!(by_function.contains(&Role::Connects), "{by_function:?}");
        assert!(!by_function.contains(&Role::States), "{by_function:?}");
        // That kernel tells neither why it drops a packet nor which one a reset was.
        let host = Host::new("5.10");
        let packets = [Role::ResetPackets, Role::HandshakePackets, Role::Drops];
        assert_eq!(unfit(&host.plan()), packets);
        let confidential = Plan {
            lockdown: Lockdown::Confidentiality,
            ..host.plan()
        };
        let with_holders = unfit(&confidential);
        assert!(with_holders.contains(&Role::Holders), "{with_holders:?}");
    }

    #[test]
    fn cgroups_are_not_asked_for_where_no_process_tells_its_own() {
        for (kernel, lockdown, can) in [
            ("5.10", Lockdown::None, true),
            ("5.10", Lockdown::Confidentiality, false),
            ("6.1", Lockdown::Confidentiality, true),
        ] {
            let mut host = Host::new(kernel);
            host.wanted.cgroups.push(1);
            let plan = Plan {
                lockdown,
                ..host.plan()
            };
            assert_eq!(plan.check().is_ok(), can, "{kernel} {lockdown:?}");
        }
    }

    #[test]
    fn only_maps_that_are_used_are_large() {
        let mut host = Host::new("7.2");
        let sizes = |host: &Host| host.plan().map_sizes();
        let nothing_by_owner = [
            ("EVENTS", 4 << 20),
            ("STORIES", setting::STORY_PLACES_MAX),
            ("RESETS", 1),
            ("OWNED", 1),
            ("OWNED_PORTS", 1),
        ];
        assert_eq!(sizes(&host), nothing_by_owner);
        host.wanted.pids.push(7);
        let by_owner = [
            ("EVENTS", 4 << 20),
            ("STORIES", setting::STORY_PLACES_MAX),
            ("RESETS", setting::RESET_PLACES),
            ("OWNED", 262_144),
        ];
        assert_eq!(sizes(&host), by_owner);
        let few = Plan {
            max_connections: 1000,
            ..host.plan()
        };
        assert_eq!(few.story_places(), 1024);
        let old = Host::new("5.10");
        assert!(sizes(&old).contains(&("HANDSHAKES", 1)));
    }

    #[test]
    fn the_agent_is_woken_in_time() {
        assert_eq!(wake_at(64 << 10), 16 << 10);
        assert_eq!(wake_at(1 << 30), 128 << 10);
    }
}
