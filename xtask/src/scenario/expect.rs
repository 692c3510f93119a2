//! What has to be reported about a scenario: stated once, as data, beside the scenario.
//!
//! Must not know: how a line of output is read (that is `check`).

use super::feature::Feature;

/// Somebody in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Client,
    Server,
    /// A process that the server forked, or one that is neither's.
    Worker,
}

/// Which process a record names.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// Not stated.
    Any,
    /// `null`.
    Nobody,
    /// This one, however it was found; one that connected itself has to be known exactly.
    Is(Who),
    /// The server, because it listens; `null` where accept queues are not told.
    Listener,
    /// Depends on how it was found: attribution, and who is right then.
    By(&'static [(&'static str, &'static [Who])]),
}

pub(super) const BY_SERVER: Owner = Owner::Is(Who::Server);

/// Reasons that nothing else tells: a listener answers in the same way to a segment of a connection that it
/// does not know and to one for which its queue has no room.
pub(super) const ONLY_THE_KERNEL_KNOWS: [&str; 2] = ["TCP_FLAGS", "INVALID_SYN"];

/// Every reset that this machine sends.
pub(super) const ALL_RESETS: &[Feature] = &[Feature::ClosedPortResets, Feature::CountedResets];

/// What the packet of a reset tells, where it is seen ([`Feature::ResetPackets`]).
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub ttl: u8,
    pub handshake_ttl: Option<u8>,
    /// Another origin than what the stacks on this machine tell.
    pub likely: Option<&'static str>,
}

/// The reset of a record.
#[derive(Clone, Copy, Debug)]
pub struct Reset {
    pub direction: &'static str,
    /// On kernels that do not name it, it has to be concluded, unless [`ONLY_THE_KERNEL_KNOWS`] it.
    /// `None`: not even the kernel knows.
    pub reason: Option<&'static str>,
    pub origin: &'static str,
    /// `None`: it came by loopback, or not at all.
    pub packet: Option<Packet>,
    pub sender: Owner,
}

impl Reset {
    /// Received, and sent by no stack of this machine.
    pub(super) const IN_PATH: Self = Self {
        direction: "received",
        reason: None,
        origin: "in_path",
        packet: None,
        sender: Owner::Nobody,
    };
    /// Received from another machine.
    pub(super) const OFF_NODE: Self = Self {
        origin: "off_node",
        ..Self::IN_PATH
    };
    /// Received, and nothing known about it.
    pub(super) const UNKNOWN: Self = Self {
        origin: "unknown",
        ..Self::IN_PATH
    };

    /// With a packet of this TTL, and one of the handshake.
    pub(super) const fn arrives(mut self, ttl: u8, handshake_ttl: Option<u8>) -> Self {
        self.packet = Some(Packet {
            ttl,
            handshake_ttl,
            likely: None,
        });
        self
    }

    /// So that this origin is likely.
    pub(super) const fn likely(mut self, origin: &'static str) -> Self {
        if let Some(packet) = &mut self.packet {
            packet.likely = Some(origin);
        }
        self
    }
}

/// `reset_sent` by this end.
pub(super) const fn sent(reason: &'static str, sender: Owner) -> Reset {
    Reset {
        direction: "sent",
        reason: Some(reason),
        origin: "local",
        packet: None,
        sender,
    }
}

/// `reset_received` from the other end, which is on this machine.
pub(super) const fn received(reason: &'static str, sender: Owner) -> Reset {
    Reset {
        direction: "received",
        reason: Some(reason),
        origin: "peer_on_node",
        packet: None,
        sender,
    }
}

/// A member of a record's `evidence`, and what it is.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// `icmp.type`
    pub member: &'static str,
    pub is: Is,
    /// Without it nothing is stated.
    pub needs: Option<Feature>,
}

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub enum Is {
    /// Not stated.
    Any,
    Number(u64),
    Text(&'static str),
    Pid(Who),
    /// The address and port of that end of a link.
    At(Who, usize),
    Null,
}

const fn found(member: &'static str, is: Is, needs: Option<Feature>) -> Found {
    Found { member, is, needs }
}

/// The other end is known by another address, and is that end of that link.
pub(super) const fn peer_at(end: Who, link: usize) -> Found {
    found("peer_address", Is::At(end, link), None)
}

/// The same of one that only a reset without a socket tells of.
pub(super) const fn stray_at(link: usize, needs: Feature) -> Found {
    found("peer_address", Is::At(Who::Server, link), Some(needs))
}

const HEADERS: Option<Feature> = Some(Feature::UntypedReads);

/// `dropped("NETFILTER_DROP")`: a filter of this machine dropped it.
pub(super) const fn dropped(reason: &'static str) -> Found {
    let needs = Some(Feature::DropReasons);
    found("drop_reason", Is::Text(reason), needs)
}

/// The listening socket's own filter did. Without its socket a raw one's filter, which drops copies, looks the same.
pub(super) const DEAF: Found = found(
    "drop_reason",
    Is::Text("SOCKET_FILTER"),
    Some(Feature::DropSockets),
);

/// The process was killed for which the kernel closed the socket.
pub(super) const KILLED: Found = found("exit.signal", Is::Text("SIGKILL"), HEADERS);

/// The same, or the kernel's worker closed it: as it comes.
pub(super) const KILLED_OR_NOT: Found = found("exit", Is::Any, None);

/// The same of one that ended by itself.
pub(super) const EXITED: Found = found("exit.signal", Is::Null, HEADERS);

/// The ICMP error, and who sent it.
pub(super) const fn icmp(kind: u64, code: u64, from: &'static str) -> [Found; 3] {
    icmp_that_needs(Some(Feature::IcmpErrors), kind, code, from)
}

/// The same of IPv6: the socket does not tell of it.
pub(super) const fn icmp_v6(kind: u64, code: u64, from: &'static str) -> [Found; 3] {
    icmp_that_needs(Some(Feature::FunctionHooks), kind, code, from)
}

const fn icmp_that_needs(
    needs: Option<Feature>,
    kind: u64,
    code: u64,
    from: &'static str,
) -> [Found; 3] {
    [
        found("icmp.type", Is::Number(kind), needs),
        found("icmp.code", Is::Number(code), needs),
        found("icmp.from", Is::Text(from), needs),
    ]
}

/// The accept queue. Whether its process is still there to be asked for descriptors is not stated.
pub(super) const fn queue(length: u64, limit: u64) -> [Found; 3] {
    [
        found("accept_queue.length", Is::Number(length), HEADERS),
        found("accept_queue.limit", Is::Number(limit), HEADERS),
        found("descriptors", Is::Any, HEADERS),
    ]
}

/// The same, and this process is.
pub(super) const fn queue_of(who: Who, length: u64, limit: u64) -> [Found; 3] {
    let [first, second, _] = queue(length, limit);
    [
        first,
        second,
        found("descriptors.pid", Is::Pid(who), HEADERS),
    ]
}

/// The range of local ports.
pub(super) const fn ports(first: u64, last: u64) -> [Found; 2] {
    [
        found("local_ports.first", Is::Number(first), None),
        found("local_ports.last", Is::Number(last), None),
    ]
}

/// One `connection` line.
#[derive(Clone, Copy, Debug)]
pub struct Expect {
    /// Which connection of the scenario.
    pub link: usize,
    /// Whose end of it: `Client` or `Server`.
    pub end: Who,
    /// The right verdict.
    pub verdict: &'static str,
    pub flag: Option<&'static str>,
    pub owner: Owner,
    pub peer: Owner,
    pub reset: Option<Reset>,
    /// The same without one of these, where that makes a difference: the reset itself is not seen then, and nothing is the
    /// kernel's own word.
    pub unseen: Option<(&'static [Feature], Reset)>,
    /// `None`: not stated.
    pub errno: Option<Option<&'static str>>,
    /// Payload sent and received; `None`: not stated.
    pub bytes: (Option<u64>, Option<u64>),
    /// All that `evidence` has, but for `abort`.
    pub evidence: &'static [Found],
    /// `evidence.abort`: the reset was sent on purpose, by `SO_LINGER` set to 0.
    pub aborted: bool,
    /// Steps that have to come in this order, others between them: a state's name is the
    /// transition to it.
    pub steps: &'static [&'static str],
}

impl Expect {
    const fn new(end: Who, verdict: &'static str) -> Self {
        let peer = match end {
            Who::Client => Who::Server,
            _ => Who::Client,
        };
        Self {
            link: 0,
            end,
            verdict,
            flag: None,
            owner: Owner::Is(end),
            peer: Owner::Is(peer),
            reset: None,
            unseen: None,
            errno: Some(None),
            bytes: (None, None),
            evidence: &[],
            aborted: false,
            steps: &[],
        }
    }

    /// Of the connection with this index, not of the first.
    pub(super) const fn of(mut self, link: usize) -> Self {
        self.link = link;
        self
    }

    pub(super) const fn flag(mut self, flag: &'static str) -> Self {
        self.flag = Some(flag);
        self
    }

    pub(super) const fn owner(mut self, owner: Owner) -> Self {
        self.owner = owner;
        self
    }

    pub(super) const fn peer(mut self, peer: Owner) -> Self {
        self.peer = peer;
        self
    }

    pub(super) const fn reset(mut self, reset: Reset) -> Self {
        self.reset = Some(reset);
        self
    }

    pub(super) const fn unseen(mut self, without: &'static [Feature], reset: Reset) -> Self {
        self.unseen = Some((without, reset));
        self
    }

    pub(super) const fn errno(mut self, errno: &'static str) -> Self {
        self.errno = Some(Some(errno));
        self
    }

    pub(super) const fn any_errno(mut self) -> Self {
        self.errno = None;
        self
    }

    pub(super) const fn bytes(mut self, sent: usize, received: usize) -> Self {
        self.bytes = (Some(sent as u64), Some(received as u64));
        self
    }

    pub(super) const fn evidence(mut self, evidence: &'static [Found]) -> Self {
        self.evidence = evidence;
        self
    }

    pub(super) const fn aborted(mut self) -> Self {
        self.aborted = true;
        self
    }

    /// The reset came of a close with data unread, not on purpose.
    pub(super) const fn by_chance(mut self) -> Self {
        self.aborted = false;
        self
    }

    pub(super) const fn steps(mut self, steps: &'static [&'static str]) -> Self {
        self.steps = steps;
        self
    }
}

/// The client's line; its peer is the server unless said otherwise.
pub(super) const fn client(verdict: &'static str) -> Expect {
    Expect::new(Who::Client, verdict)
}

/// The server's line; its peer is the client unless said otherwise.
pub(super) const fn server(verdict: &'static str) -> Expect {
    Expect::new(Who::Server, verdict)
}

/// One `reset` line: a reset that belongs to no connection.
#[derive(Clone, Copy, Debug)]
pub struct Stray {
    pub link: usize,
    pub direction: &'static str,
    pub reason: Option<&'static str>,
    pub flag: Option<&'static str>,
    /// Without it the reset is not seen.
    pub needs: Option<Feature>,
}

/// One of [`Scenario::strays`](super::Scenario::strays) that this machine sent, by a listener: its addresses are only in a packet.
pub(super) const fn stray(reason: &'static str) -> Stray {
    Stray {
        link: 0,
        direction: "sent",
        reason: Some(reason),
        flag: None,
        needs: Some(Feature::UntypedReads),
    }
}

/// From a closed port.
pub(super) const fn no_socket(flag: Option<&'static str>) -> Stray {
    Stray {
        flag,
        needs: Some(Feature::ClosedPortResets),
        ..stray("NO_SOCKET")
    }
}

/// One that it received, and that ended no connection.
pub(super) const fn ignored(reason: Option<&'static str>) -> Stray {
    Stray {
        link: 0,
        direction: "received",
        reason,
        flag: None,
        needs: Some(match reason {
            Some(_) => Feature::DropReasons,
            None => Feature::DropSockets,
        }),
    }
}
