//! The kernels of the matrix: where each comes from and what is to be seen on it.
//!
//! Every difference between kernels stands here or beside a scenario, as data with its reason; what
//! plays and what judges asks no version.

use super::refusal;
use crate::{doctor, scenario::feature::Feature};

/// One kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel {
    /// As it is asked for: `--kernels 6.12`.
    pub(super) name: &'static str,
    /// The suite of Debian's archive.
    pub(super) suite: &'static str,
    /// Beginnings of the names of the packages that hold it: the kernel, its modules, and the list of what
    /// needs no module, where those are apart.
    pub(super) packages: &'static [&'static str],
    /// What forbids things there even to root, as parameters of the kernel.
    pub(super) forbids: Option<&'static str>,
    /// The suite whose systemd starts the tracer on it, as a service; without one, scenarios are played.
    pub(super) systemd: Option<&'static str>,
    /// Which of the features that scenarios ask for it has. What is played and what is skipped
    /// follows from it.
    pub(super) features: &'static [Feature],
    /// Of [`HOOKS`], those that the tracer does not attach on it.
    pub(super) without: &'static [&'static [&'static str]],
    /// Of the same, those in whose place it attaches another.
    pub(super) instead: &'static [(&'static str, &'static str)],
    /// What it says that this kernel lacks or hides.
    pub(super) limits: &'static [&'static str],
}

impl Kernel {
    /// What the tracer says that it attached, in its order.
    pub(super) fn hooks(&self) -> Vec<&'static str> {
        let attached = |hook: &&&str| !self.without.iter().any(|some| some.contains(hook));
        let best = HOOKS.iter().filter(attached).copied();
        let instead = |hook: &'static str| {
            let mut instead = self.instead.iter();
            let found = instead.find(|(better, _)| *better == hook);
            found.map_or(hook, |(_, other)| *other)
        };
        best.map(instead).collect()
    }

    /// What it says that is not seen, by the kernel's fault or as a service.
    pub(super) fn limits(&self) -> Vec<&'static str> {
        let as_service = self.systemd.map(|_| doctor::NO_EXECUTABLES);
        self.limits.iter().copied().chain(as_service).collect()
    }
}

const CONFIDENTIALITY: &str = "lockdown=confidentiality";
/// Hooks of functions never run.
const NO_FTRACE: &str = "sysctl.kernel.ftrace_enabled=0";

/// Every hook at its best, in the tracer's order. Each kernel is without some.
const HOOKS: &[&str] = &[
    "tp_btf tcp_destroy_sock",
    "tp_btf tcp_send_reset",
    "fentry tcp_v4_send_reset",
    "fentry tcp_v6_send_reset",
    "tp_btf tcp_receive_reset",
    "fentry tcp_reset",
    "fentry tcp_init_transfer",
    "tp_btf inet_sk_error_report",
    "fentry tcp_v4_err",
    "fentry tcp_v6_err",
    "tp_btf kfree_skb",
    "tp_btf tcp_retransmit_skb",
    "fentry tcp_connect",
    "fexit inet_csk_accept",
    "iter task_file",
    "tp_btf inet_sock_set_state",
];

/// Not asked for where `tcp_send_reset` is told of every reset, since 6.10.
const UNTRACED_RESETS: &[&str] = &["fentry tcp_v4_send_reset", "fentry tcp_v6_send_reset"];
/// Of no use where packet headers cannot be read.
const HEADERS: &[&str] = &[
    "fentry tcp_reset",
    "fentry tcp_init_transfer",
    "fentry tcp_v4_err",
    "fentry tcp_v6_err",
    "tp_btf kfree_skb",
];
/// `tcp_reset` is given the packet since 5.11, a socket reports its error to a tracepoint since 5.14, and a
/// packet is dropped for a reason since 5.17.
const SINCE_5_17: &[&str] = &[
    "fentry tcp_reset",
    "fentry tcp_init_transfer",
    "tp_btf inet_sk_error_report",
    "tp_btf kfree_skb",
];
/// Hooks of functions for which nothing stands in, or only a kprobe.
const FUNCTIONS: &[&str] = &[
    "fentry tcp_reset",
    "fentry tcp_init_transfer",
    "fentry tcp_v4_err",
    "fentry tcp_v6_err",
    "fentry tcp_connect",
    "fexit inet_csk_accept",
];
/// The scan of open files finds sockets since 5.11, or where untyped memory can be read.
const SCAN: &[&str] = &["iter task_file"];

/// What lockdown=confidentiality hides on every kernel.
const NO_HEADERS: &str = "not seen on this host: resets sent from closed ports and by listeners, and who sent an ICMP error, because lockdown keeps packet headers from being read";
/// Where there is MPTCP.
const NO_MPTCP_OWNERS: &str = "not seen on this host: owners of MPTCP's sockets that are older than the tracer, because lockdown keeps from being read what leads to them";
/// Before 6.10.
const NO_REASONS: &str =
    "not seen on this host: the kernel's own reasons of resets; they are derived or null";
/// Before 5.12.
const NO_COUNT: &str = "not seen on this host: the kernel's own count of hooks that it skipped; only what follows from others tells";
const NO_ICMP_V4: &str = "not seen on this host: ICMP errors over IPv4 that answer a SYN, where the socket does not tell of them (before 5.18)";
const NO_ICMP_V6: &str = "not seen on this host: ICMP errors over IPv6 that answer a SYN, but for what the owner is told";
/// Before 5.17, or without packet headers.
const NO_DROPS: &str = "not seen on this host: which filter of this node dropped a SYN, and resets that ended no connection";
/// Before 6.11.
const NO_SMALL_RESETS: &str =
    "not seen on this host: resets that reach TIME_WAIT or a half-open request";
/// Under lockdown=confidentiality, and before 5.11.
const NO_RESET_PACKETS: &str =
    "not seen on this host: the packets of resets, which may tell a middlebox from the other end";
const NO_HANDSHAKE_PACKETS: &str =
    "not seen on this host: the packets of handshakes, to hold those of resets against";
const SOME_ACCEPTS: &str = "not seen on this host: the accepting process by itself, where many threads wait in accept() at once";
const NO_ERRORS: &str = "not seen on this host: a second look at connections that failed, for where the first was missed";

const NO_CONNECTS: &str =
    "not seen on this host: the local port of a connect before its first answer";
const NO_ACCEPTS: &str = "not seen on this host: the accepting process by itself; it is found as holder, closer or listener";

const V5_10: Kernel = Kernel {
    name: "5.10",
    suite: "bullseye-security",
    packages: &["linux-image-5.10."],
    forbids: None,
    systemd: None,
    features: &[
        Feature::UntypedReads,
        Feature::FunctionHooks,
        Feature::TimeWaitResets,
        Feature::CountedResets,
        Feature::ClosedPortResets,
        Feature::AnsweredPackets,
        Feature::IcmpErrors,
        Feature::SocketScan,
        Feature::CurrentTask,
        Feature::IoUring,
    ],
    without: &[SINCE_5_17],
    instead: &[],
    limits: &[
        NO_RESET_PACKETS,
        NO_HANDSHAKE_PACKETS,
        NO_ERRORS,
        NO_DROPS,
        NO_REASONS,
        NO_COUNT,
    ],
};
const V6_1: Kernel = Kernel {
    name: "6.1",
    suite: "bookworm-security",
    packages: &["linux-image-6.1."],
    forbids: None,
    systemd: None,
    features: &[
        Feature::Mptcp,
        Feature::UntypedReads,
        Feature::DropReasons,
        Feature::FunctionHooks,
        Feature::TimeWaitResets,
        Feature::CountedResets,
        Feature::ClosedPortResets,
        Feature::AnsweredPackets,
        Feature::IcmpErrors,
        Feature::ResetPackets,
        Feature::SocketScan,
        Feature::MptcpScan,
        Feature::CurrentTask,
        Feature::IoUring,
    ],
    without: &[],
    instead: &[],
    limits: &[NO_REASONS, NO_SMALL_RESETS],
};
const V6_12: Kernel = Kernel {
    name: "6.12",
    suite: "bookworm-security",
    packages: &["linux-image-6.12."],
    forbids: None,
    systemd: None,
    features: &[
        Feature::ResetReasons,
        Feature::Mptcp,
        Feature::UntypedReads,
        Feature::DropReasons,
        Feature::DropSockets,
        Feature::FunctionHooks,
        Feature::TimeWaitResets,
        Feature::CountedResets,
        Feature::ClosedPortResets,
        Feature::AnsweredPackets,
        Feature::IcmpErrors,
        Feature::ResetPackets,
        Feature::SocketScan,
        Feature::MptcpScan,
        Feature::CurrentTask,
        Feature::IoUring,
    ],
    without: &[UNTRACED_RESETS],
    instead: &[],
    limits: &[],
};
const V6_12_CONFIDENTIALITY: Kernel = Kernel {
    name: "6.12-confidentiality",
    forbids: Some(CONFIDENTIALITY),
    features: &[
        Feature::ResetReasons,
        Feature::TimeWaitResets,
        Feature::CountedResets,
        Feature::Mptcp,
        Feature::SocketScan,
        Feature::CurrentTask,
        Feature::IoUring,
    ],
    without: &[UNTRACED_RESETS, HEADERS],
    limits: &[
        NO_RESET_PACKETS,
        NO_HANDSHAKE_PACKETS,
        NO_ICMP_V4,
        NO_ICMP_V6,
        NO_DROPS,
        NO_HEADERS,
        NO_MPTCP_OWNERS,
    ],
    ..V6_12
};
const V7_2: Kernel = Kernel {
    name: "7.2",
    suite: "trixie-backports",
    packages: &["linux-binary-7.2.", "linux-modules-7.2.", "linux-base-7.2."],
    ..V6_12
};

/// The kernel with lockdown=integrity, which hides nothing.
const fn integrity(name: &'static str, kernel: Kernel) -> Kernel {
    Kernel {
        name,
        forbids: Some("lockdown=integrity"),
        ..kernel
    }
}

/// The kernel where it refuses fentry and fexit, so that kprobes stand in for them.
const fn kprobes(name: &'static str, kernel: Kernel, limits: &'static [&'static str]) -> Kernel {
    Kernel {
        name,
        limits,
        forbids: Some(refusal::PARAMETER),
        instead: &[
            ("fentry tcp_v4_send_reset", "kprobe tcp_v4_send_reset"),
            ("fentry tcp_v6_send_reset", "kprobe tcp_v6_send_reset"),
            ("fentry tcp_reset", "kprobe tcp_reset"),
            ("fentry tcp_init_transfer", "kprobe tcp_init_transfer"),
            ("fentry tcp_v4_err", "kprobe tcp_v4_err"),
            ("fentry tcp_v6_err", "kprobe tcp_v6_err"),
            ("fentry tcp_connect", "kprobe tcp_connect"),
            ("fexit inet_csk_accept", "kretprobe inet_csk_accept"),
        ],
        ..kernel
    }
}

/// The kernel with this suite's systemd, which starts the tracer.
const fn service(name: &'static str, suite: &'static str, kernel: Kernel) -> Kernel {
    Kernel {
        name,
        systemd: Some(suite),
        ..kernel
    }
}

/// Oldest first, then the oldest and the newest as a service.
pub(super) const KERNELS: &[Kernel] = &[
    V5_10,
    integrity("5.10-integrity", V5_10),
    Kernel {
        name: "5.10-confidentiality",
        forbids: Some(CONFIDENTIALITY),
        features: &[
            Feature::TimeWaitResets,
            Feature::CountedResets,
            Feature::IoUring,
        ],
        without: &[SINCE_5_17, HEADERS, SCAN],
        limits: &[
            NO_RESET_PACKETS,
            NO_HANDSHAKE_PACKETS,
            NO_ERRORS,
            NO_ICMP_V4,
            NO_ICMP_V6,
            NO_DROPS,
            "not seen on this host: owners of sockets that are older than the tracer",
            NO_REASONS,
            NO_HEADERS,
            NO_COUNT,
        ],
        ..V5_10
    },
    kprobes(
        "5.10-kprobes",
        Kernel {
            features: &[
                Feature::UntypedReads,
                Feature::FunctionHooks,
                Feature::TimeWaitResets,
                Feature::ClosedPortResets,
                Feature::AnsweredPackets,
                Feature::IcmpErrors,
                Feature::SocketScan,
                Feature::CurrentTask,
                Feature::IoUring,
            ],
            ..V5_10
        },
        &[
            "not seen on this host: resets sent over IPv4 that a kprobe misses, which nobody counts: none is told to be a middlebox's for certain",
            "not seen on this host: resets sent over IPv6 that a kprobe misses, which nobody counts: none is told to be a middlebox's for certain",
            NO_RESET_PACKETS,
            NO_HANDSHAKE_PACKETS,
            NO_ERRORS,
            NO_DROPS,
            SOME_ACCEPTS,
            NO_REASONS,
            NO_COUNT,
        ],
    ),
    Kernel {
        name: "5.10-noftrace",
        forbids: Some(NO_FTRACE),
        features: &[
            Feature::UntypedReads,
            Feature::SocketScan,
            Feature::CurrentTask,
            Feature::IoUring,
        ],
        without: &[SINCE_5_17, UNTRACED_RESETS, FUNCTIONS],
        limits: &[
            "not seen on this host: resets sent over IPv4 from closed ports and from TIME_WAIT",
            "not seen on this host: resets sent over IPv6 from closed ports and from TIME_WAIT",
            NO_RESET_PACKETS,
            NO_HANDSHAKE_PACKETS,
            NO_ERRORS,
            NO_ICMP_V4,
            NO_ICMP_V6,
            NO_DROPS,
            NO_CONNECTS,
            NO_ACCEPTS,
            NO_REASONS,
            NO_COUNT,
        ],
        ..V5_10
    },
    V6_1,
    integrity("6.1-integrity", V6_1),
    Kernel {
        name: "6.1-confidentiality",
        forbids: Some(CONFIDENTIALITY),
        features: &[
            Feature::TimeWaitResets,
            Feature::CountedResets,
            Feature::Mptcp,
            Feature::SocketScan,
            Feature::CurrentTask,
            Feature::IoUring,
        ],
        without: &[HEADERS],
        limits: &[
            NO_RESET_PACKETS,
            NO_HANDSHAKE_PACKETS,
            NO_ICMP_V4,
            NO_ICMP_V6,
            NO_DROPS,
            NO_REASONS,
            NO_HEADERS,
            NO_MPTCP_OWNERS,
        ],
        ..V6_1
    },
    Kernel {
        name: "6.1-noftrace",
        forbids: Some(NO_FTRACE),
        features: &[
            Feature::Mptcp,
            Feature::UntypedReads,
            Feature::DropReasons,
            Feature::ClosedPortResets,
            Feature::IcmpErrors,
            Feature::SocketScan,
            Feature::MptcpScan,
            Feature::CurrentTask,
            Feature::IoUring,
        ],
        without: &[FUNCTIONS],
        instead: &[
            ("fentry tcp_v4_send_reset", "tp_btf kfree_skb"),
            ("fentry tcp_v6_send_reset", "tp_btf kfree_skb"),
        ],
        limits: &[
            "not seen on this host: resets sent over IPv4 from TIME_WAIT",
            "not seen on this host: resets sent over IPv6 from TIME_WAIT",
            NO_RESET_PACKETS,
            NO_HANDSHAKE_PACKETS,
            NO_ICMP_V4,
            NO_ICMP_V6,
            NO_CONNECTS,
            NO_ACCEPTS,
            NO_REASONS,
            NO_SMALL_RESETS,
        ],
        ..V6_1
    },
    V6_12,
    integrity("6.12-integrity", V6_12),
    V6_12_CONFIDENTIALITY,
    V7_2,
    kprobes("7.2-kprobes", V7_2, &[SOME_ACCEPTS]),
    integrity("7.2-integrity", V7_2),
    Kernel {
        name: "7.2-confidentiality",
        suite: V7_2.suite,
        packages: V7_2.packages,
        ..V6_12_CONFIDENTIALITY
    },
    service("5.10-systemd", "bullseye", V5_10),
    service("7.2-systemd", "trixie", V7_2),
];

/// Of packages, the build without drivers for hardware: it boots in a second.
pub(super) const FLAVOUR: &str = "-cloud-amd64";

/// Modules that scenarios need, and those of a guest's disk. What they need in turn is found in them.
pub(super) const MODULES: &[&str] = &[
    "veth",
    "virtio_pci",
    "virtio_blk",
    "nft_reject_ipv4",
    "nft_reject_ipv6",
    "nft_chain_nat",
    "nft_redir",
    "nft_masq",
    "tcp_diag",
];

/// Those that a list such as `5.10,6.12` names; `all` is every one.
pub(super) fn named(list: &str) -> Result<Vec<&'static Kernel>, String> {
    if list == "all" {
        return Ok(KERNELS.iter().collect());
    }
    list.split(',')
        .map(|name| {
            let found = KERNELS.iter().find(|kernel| kernel.name == name);
            found.ok_or_else(|| {
                let known: Vec<_> = KERNELS.iter().map(|kernel| kernel.name).collect();
                format!("no kernel {name:?}: there are {} and all", known.join(", "))
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_names_kernels() {
        let names =
            |list| named(list).map(|all| all.iter().map(|one| one.name).collect::<Vec<_>>());
        assert_eq!(names("all").map(|all| all.len()), Ok(KERNELS.len()));
        assert_eq!(
            names("7.2,5.10-integrity"),
            Ok(vec!["7.2", "5.10-integrity"])
        );
        for wrong in ["", "6", "6.1,", "5.10 6.1"] {
            assert!(names(wrong).is_err(), "{wrong:?}");
        }
    }
}
