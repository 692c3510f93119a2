//! Every role a hook can have, the hooks that can fill it, best first, and what is lost without.
//!
//! Must not know: aya, how a hook is attached.

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// BTF raw tracepoint.
    Tracepoint,
    /// Trampoline at a function's entry.
    Fentry,
    /// Trampoline at a function's return.
    Fexit,
    /// Breakpoint or ftrace at a function's entry.
    Kprobe,
    /// The same at its return.
    Kretprobe,
    /// Iterator, run when asked.
    Iterator,
}

impl Kind {
    /// Whether it is a kernel function that is hooked.
    pub const fn is_of_a_function(self) -> bool {
        matches!(
            self,
            Self::Fentry | Self::Fexit | Self::Kprobe | Self::Kretprobe
        )
    }

    /// Whether it takes a trampoline.
    pub const fn is_of_a_trampoline(self) -> bool {
        matches!(self, Self::Fentry | Self::Fexit)
    }
}

/// One hook that can fill a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// Name of the program in the object.
    pub program: &'static str,
    /// How it is attached.
    pub kind: Kind,
    /// Kernel function, tracepoint or iterator.
    pub target: &'static str,
    /// What a better one would see that this does not.
    pub loss: Option<&'static str>,
}

impl Rung {
    /// As a person would name it: `fentry tcp_connect`.
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Tracepoint => "tp_btf",
            Kind::Fentry => "fentry",
            Kind::Fexit => "fexit",
            Kind::Kprobe => "kprobe",
            Kind::Kretprobe => "kretprobe",
            Kind::Iterator => "iter",
        };
        format!("{kind} {}", self.target)
    }
}

/// Something that has to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Births, deaths and every step between.
    States,
    /// Resets received.
    ResetsReceived,
    /// How the packets of resets came.
    ResetPackets,
    /// How those of handshakes came, to hold the others against.
    HandshakePackets,
    /// Resets sent.
    ResetsSent,
    /// Those that no full socket sends, over IPv4, where [`Self::ResetsSent`] is not told of them.
    UntracedResetsV4,
    /// The same over IPv6.
    UntracedResetsV6,
    /// Sockets given back.
    Destroyed,
    /// Errors that a socket's owner is told of.
    Errors,
    /// ICMP errors about what this node sent over IPv4.
    IcmpV4,
    /// The same over IPv6.
    IcmpV6,
    /// Packets that this node drops: SYNs by a filter, resets that end no connection.
    Drops,
    /// SYNs sent again.
    SynRetransmits,
    /// The moment a SYN leaves.
    Connects,
    /// The process that accepts.
    Accepts,
    /// Who holds which socket.
    Holders,
}

impl Role {
    /// As `doctor` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::States => "states",
            Self::ResetsReceived => "resets_received",
            Self::ResetPackets => "reset_packets",
            Self::HandshakePackets => "handshake_packets",
            Self::ResetsSent => "resets_sent",
            Self::UntracedResetsV4 => "untraced_resets_v4",
            Self::UntracedResetsV6 => "untraced_resets_v6",
            Self::Destroyed => "destroyed",
            Self::Errors => "errors",
            Self::IcmpV4 => "icmp_v4",
            Self::IcmpV6 => "icmp_v6",
            Self::Drops => "drops",
            Self::SynRetransmits => "syn_retransmits",
            Self::Connects => "connects",
            Self::Accepts => "accepts",
            Self::Holders => "holders",
        }
    }
}

/// A role and what fills it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What has to be seen.
    pub role: Role,
    /// By what, best first.
    pub rungs: &'static [Rung],
    /// What is lost without; `None` where the tracer cannot work without.
    pub loss: Option<&'static str>,
}

const fn rung(program: &'static str, kind: Kind, target: &'static str) -> Rung {
    Rung {
        program,
        kind,
        target,
        loss: None,
    }
}

const fn tracepoint(name: &'static str) -> Rung {
    rung(name, Kind::Tracepoint, name)
}

/// What is skipped while another program of its kind runs on the same CPU (`bpf_prog_active`), and says so of none before 6.7.
const fn uncounted(program: &'static str, target: &'static str, loss: &'static str) -> Rung {
    Rung {
        loss: Some(loss),
        ..rung(program, Kind::Kprobe, target)
    }
}

/// Packets that no socket waited for, when they are dropped: by then they were answered with a reset.
const fn unanswerable(program: &'static str, loss: &'static str) -> Rung {
    Rung {
        loss: Some(loss),
        ..rung(program, Kind::Tracepoint, "kfree_skb")
    }
}

/// The hooks, in the order in which they are attached.
pub const CATALOG: &[Entry] = &[
    Entry {
        role: Role::Destroyed,
        rungs: &[tracepoint("tcp_destroy_sock")],
        loss: Some("the process that closes a connection that was reset"),
    },
    Entry {
        role: Role::ResetsSent,
        rungs: &[tracepoint("tcp_send_reset")],
        loss: Some("resets sent by this node, and so who sent those that it received"),
    },
    Entry {
        role: Role::UntracedResetsV4,
        rungs: &[
            rung(
                "tcp_v4_send_reset_fentry",
                Kind::Fentry,
                "tcp_v4_send_reset",
            ),
            uncounted(
                "tcp_v4_send_reset_kprobe",
                "tcp_v4_send_reset",
                "resets sent over IPv4 that a kprobe misses, which nobody counts: none is told to be a middlebox's for certain",
            ),
            unanswerable(
                "tcp_v4_send_reset_drop",
                "resets sent over IPv4 from TIME_WAIT",
            ),
        ],
        loss: Some("resets sent over IPv4 from closed ports and from TIME_WAIT"),
    },
    Entry {
        role: Role::UntracedResetsV6,
        rungs: &[
            rung(
                "tcp_v6_send_reset_fentry",
                Kind::Fentry,
                "tcp_v6_send_reset",
            ),
            uncounted(
                "tcp_v6_send_reset_kprobe",
                "tcp_v6_send_reset",
                "resets sent over IPv6 that a kprobe misses, which nobody counts: none is told to be a middlebox's for certain",
            ),
            unanswerable(
                "tcp_v6_send_reset_drop",
                "resets sent over IPv6 from TIME_WAIT",
            ),
        ],
        loss: Some("resets sent over IPv6 from closed ports and from TIME_WAIT"),
    },
    Entry {
        role: Role::ResetsReceived,
        rungs: &[tracepoint("tcp_receive_reset")],
        loss: Some("resets received, except by what the application was told"),
    },
    Entry {
        role: Role::ResetPackets,
        rungs: &[
            rung("tcp_reset_fentry", Kind::Fentry, "tcp_reset"),
            rung("tcp_reset_kprobe", Kind::Kprobe, "tcp_reset"),
        ],
        loss: Some("the packets of resets, which may tell a middlebox from the other end"),
    },
    Entry {
        role: Role::HandshakePackets,
        rungs: &[
            rung(
                "tcp_init_transfer_fentry",
                Kind::Fentry,
                "tcp_init_transfer",
            ),
            rung(
                "tcp_init_transfer_kprobe",
                Kind::Kprobe,
                "tcp_init_transfer",
            ),
        ],
        loss: Some("the packets of handshakes, to hold those of resets against"),
    },
    Entry {
        role: Role::Errors,
        rungs: &[tracepoint("inet_sk_error_report")],
        loss: Some("a second look at connections that failed, for where the first was missed"),
    },
    Entry {
        role: Role::IcmpV4,
        rungs: &[
            rung("tcp_v4_err_fentry", Kind::Fentry, "tcp_v4_err"),
            rung("tcp_v4_err_kprobe", Kind::Kprobe, "tcp_v4_err"),
        ],
        loss: Some(
            "ICMP errors over IPv4 that answer a SYN, where the socket does not tell of them (before 5.18)",
        ),
    },
    Entry {
        role: Role::IcmpV6,
        rungs: &[
            rung("tcp_v6_err_fentry", Kind::Fentry, "tcp_v6_err"),
            rung("tcp_v6_err_kprobe", Kind::Kprobe, "tcp_v6_err"),
        ],
        loss: Some("ICMP errors over IPv6 that answer a SYN, but for what the owner is told"),
    },
    Entry {
        role: Role::Drops,
        rungs: &[tracepoint("kfree_skb")],
        loss: Some("which filter of this node dropped a SYN, and resets that ended no connection"),
    },
    Entry {
        role: Role::SynRetransmits,
        rungs: &[tracepoint("tcp_retransmit_skb")],
        loss: Some("how often a SYN was sent"),
    },
    Entry {
        role: Role::Connects,
        rungs: &[
            rung("tcp_connect_fentry", Kind::Fentry, "tcp_connect"),
            rung("tcp_connect_kprobe", Kind::Kprobe, "tcp_connect"),
        ],
        loss: Some("the local port of a connect before its first answer"),
    },
    Entry {
        role: Role::Accepts,
        rungs: &[
            rung("inet_csk_accept_fexit", Kind::Fexit, "inet_csk_accept"),
            Rung {
                // As many returns are awaited as the kernel has prepared for (`maxactive`), on some one for each CPU.
                loss: Some(
                    "the accepting process by itself, where many threads wait in accept() at once",
                ),
                ..rung(
                    "inet_csk_accept_kretprobe",
                    Kind::Kretprobe,
                    "inet_csk_accept",
                )
            },
        ],
        loss: Some("the accepting process by itself; it is found as holder, closer or listener"),
    },
    Entry {
        role: Role::Holders,
        rungs: &[rung("task_file", Kind::Iterator, "task_file")],
        loss: Some("owners of sockets that are older than the tracer"),
    },
    // Last: it lets connections in, and whatever belongs to them should be seen by then.
    Entry {
        role: Role::States,
        rungs: &[tracepoint("inet_sock_set_state")],
        loss: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_states_are_indispensable() {
        let needed: Vec<_> = CATALOG
            .iter()
            .filter(|entry| entry.loss.is_none())
            .collect();
        assert_eq!(needed.len(), 1);
        assert_eq!(needed[0].role, Role::States);
        assert!(CATALOG.iter().all(|entry| !entry.rungs.is_empty()));
    }
}
