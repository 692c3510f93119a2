//! What a row of the playbook asks for besides the verdict: in words, and as code.
//!
//! Must not know: what follows from it.

use super::{About, End};
use crate::{
    record::{AcceptQueue, Bytes, Direction, Evidence, Exit, Icmp, Origin, Role, Verdict},
    verdict::facts::TOGETHER_US,
};

/// What has to be known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    words: &'static str,
    test: fn(&About<'_>) -> bool,
    /// The reset was for one of these reasons; none of them, if any or none will do.
    reasons: &'static [&'static str],
}

const fn when(words: &'static str, test: fn(&About<'_>) -> bool) -> Condition {
    Condition {
        words,
        test,
        reasons: &[],
    }
}

impl Condition {
    pub(super) fn holds(&self, about: &About<'_>) -> bool {
        (self.test)(about) && (self.reasons.is_empty() || about.is_for(self.reasons))
    }

    /// The same of a reset that the kernel gives one of these reasons for.
    pub(super) const fn because(self, reasons: &'static [&'static str]) -> Self {
        Self { reasons, ..self }
    }

    /// As docs/output.md has it.
    pub(super) fn words(&self) -> String {
        if self.reasons.is_empty() {
            self.words.to_owned()
        } else {
            format!("{}: {}", self.words, self.reasons.join(", "))
        }
    }
}

pub(super) const ALWAYS: Condition = when("-", |_| true);

pub(super) const IN_PATH: Condition = when("the reset came from neither end", |it| {
    it.is_in_path() && !it.likely
});
pub(super) const LIKELY_IN_PATH: Condition = when(
    "the reset's packet came from nearer than the peer's",
    |it| it.is_in_path() && it.likely,
);
/// Likely, because a filter dropped a SYN, perhaps a copy.
pub(super) const DROPPED_COPY: Condition = when(
    "the reset likely came from neither end: a filter of this node dropped what may be a copy of the SYN",
    |it| LIKELY_IN_PATH.holds(it) && DROPPED.holds(it),
);

pub(super) const BY_AN_END_HERE: Condition = when("reset by an end, which is on this node", |it| {
    matches!(it.reset, Some((_, Origin::Local | Origin::PeerOnNode, _)))
});
pub(super) const BY_CLIENT_HERE: Condition =
    when("reset by the client, which is on this node", |it| {
        it.is_by_here(End::Client)
    });
pub(super) const BY_SERVER_HERE: Condition =
    when("reset by the server, which is on this node", |it| {
        it.is_by_here(End::Server)
    });
pub(super) const ABORTED_HERE: Condition = when(
    "reset by an end, which is on this node, with SO_LINGER 0",
    |it| BY_AN_END_HERE.holds(it) && it.evidence.abort == Some(true),
);
pub(super) const ABORTED_BY_SERVER: Condition = when(
    "reset by the server, which is on this node, with SO_LINGER 0",
    |it| it.sender() == Some(End::Server) && ABORTED_HERE.holds(it),
);
pub(super) const BY_SERVER_AFTER_PAYLOAD: Condition = when(
    "reset by the server, which is on this node and had sent payload",
    |it| {
        let [_, by_server] = it.payload();
        it.is_by_here(End::Server) && by_server > Some(0)
    },
);
pub(super) const UNACCEPTED_BY_SERVER: Condition = when(
    "reset by the server, which is on this node and had not accepted the connection",
    |it| it.is_by_here(End::Server) && it.facts.peer_unaccepted,
);
pub(super) const LEFT_UNACCEPTED: Condition = when(
    "reset by the server, which is on this node and had not accepted the connection, after the client's FIN",
    |it| UNACCEPTED_BY_SERVER.holds(it) && it.has_closed_first(End::Client),
);
/// It is translated on the way (NAT).
pub(super) const TRANSLATED: Condition = when(
    "reset by an end, which is on this node and has another address",
    |it| BY_AN_END_HERE.holds(it) && it.evidence.peer_address.is_some(),
);
/// And answered by a reset that tells nobody of anything.
pub(super) const GOODBYE_UNREAD: Condition = when(
    "reset by this end, which had left only as much unread as an encrypted TLS alert has",
    |it| {
        let is_sent = matches!(it.reset, Some((Direction::Sent, ..)));
        is_sent && it.facts.counters.leaves_alert()
    },
);
pub(super) const ABORTED_BY_CLIENT: Condition = when(
    "reset by the client, which is on this node, with SO_LINGER 0",
    |it| it.sender() == Some(End::Client) && ABORTED_HERE.holds(it),
);
pub(super) const BY_CLIENT: Condition =
    when("reset by the client", |it| it.sender() == Some(End::Client));
pub(super) const BY_THIS_END: Condition =
    when("reset by this end; which it is is not known", |it| {
        it.facts.role == Role::Unknown && matches!(it.reset, Some((Direction::Sent, ..)))
    });
/// `ss -K`, or a tool that does the same (`tcp_abort`).
pub(super) const DESTROYED: Condition =
    when("somebody destroyed the socket that sent the reset", |it| {
        it.facts.destroyed && BY_AN_END_HERE.holds(it)
    });

pub(super) const EITHER_END: Condition = when("which end this is is not known", |it| {
    it.facts.role == Role::Unknown
});
pub(super) const CLOSED_FIRST: Condition = when("after this end's FIN, its socket closed", |it| {
    it.facts.closed_first && !it.facts.is_open
});
pub(super) const PEER_CLOSED_FIRST: Condition =
    when("after the other end's FIN", |it| it.facts.peer_closed_first);
/// Who closes so throws away what it has not read, which the other end cannot see.
pub(super) const ABORTED_AFTER_FIN: Condition = when(
    "reset with SO_LINGER 0 by an end, which is on this node, after the other one's FIN, with nothing on its way",
    |it| {
        let facts = &it.facts;
        let after_others_fin = match it.reset {
            Some((Direction::Sent, ..)) => facts.peer_closed_first,
            _ => facts.closed_first && !facts.is_open,
        };
        ABORTED_HERE.holds(it) && after_others_fin && facts.counters.unacked == Some(false)
    },
);
/// Nobody here is told.
pub(super) const BOTH_CLOSED: Condition = when(
    "received after both ends had closed, with nothing on its way",
    |it| {
        let facts = &it.facts;
        let is_received = matches!(it.reset, Some((Direction::Received, ..)));
        let is_over = facts.peer_closed_first && !facts.is_open;
        is_received && is_over && facts.counters.unacked == Some(false)
    },
);
/// A reset that answers something leaves that unacknowledged; who closes with data unread sends one of its own.
pub(super) const CLOSED_UNREAD: Condition = when(
    "received after the other end's FIN, and sent for data that it had not read (TCP_ABORT_ON_CLOSE) or, where no reason is known, with nothing on its way and no FIN of this end",
    |it| {
        let facts = &it.facts;
        let is_own = match it.reset {
            Some((Direction::Received, _, Some(reason))) => reason == "TCP_ABORT_ON_CLOSE",
            Some((Direction::Received, _, None)) => {
                facts.is_open && facts.counters.unacked == Some(false)
            }
            _ => false,
        };
        is_own && facts.peer_closed_first && !it.is_in_path()
    },
);
/// Whatever is sent to a socket that was closed is reset for another reason.
pub(super) const CLOSED_AND_ABORTED: Condition = when(
    "reset with SO_LINGER 0 by the other end, which is on this node, after its own FIN",
    |it| ABORTED_HERE.holds(it) && it.facts.peer_closed_first,
);
pub(super) const BY_CLIENT_AFTER_ITS_FIN: Condition =
    when("reset by the client, after the client's FIN", |it| {
        it.is_after_clients_fin(End::Client)
    });
/// A reset that answers something leaves that unacknowledged.
pub(super) const LEFT_BEHIND_ITS_FIN: Condition = when(
    "reset by the client, after the client's FIN, though nothing of the server's was on its way",
    |it| {
        let is_servers = it.facts.role == Role::Server;
        let is_delivered = it.facts.counters.unacked == Some(false);
        is_servers && is_delivered && it.is_after_clients_fin(End::Client)
    },
);
pub(super) const BY_SERVER_AFTER_CLIENTS_FIN: Condition =
    when("reset by the server, after the client's FIN", |it| {
        it.is_after_clients_fin(End::Server)
    });
/// A goodbye comes with the FIN, and who has an answer has nothing to give up.
pub(super) const STOPPED_WAITING: Condition = when(
    "reset by the client, which is on this node and knew the connection, after its FIN, before which it had waited for an answer",
    |it| {
        let facts = &it.facts;
        let had_waited = facts.has_waited && facts.peer_unanswered;
        let is_its_own = it.is_by_here(End::Client) && !it.is_for(UNKNOWN_THERE);
        had_waited && is_its_own && it.is_after_clients_fin(End::Client)
    },
);
/// Which it had not asked for all of, or it asked for more than it wanted.
pub(super) const RESET_BEHIND_ANSWER: Condition = when(
    "reset by the client, which is on this node, within 50 ms after payload of the server's",
    |it| it.is_by_here(End::Client) && it.is_behind_payload_of(End::Server),
);
/// A timeout is no shorter.
pub(super) const DID_NOT_WAIT: Condition = when(
    "reset by the client, which is on this node, within 50 ms after its last payload",
    |it| {
        let counters = &it.facts.counters;
        let at_once = it.is_behind_payload_of(End::Client) && !counters.is_sent_again();
        let lived = counters.lived_us;
        let is_young = lived.is_some_and(|lived| lived <= TOGETHER_US);
        it.is_by_here(End::Client) && (at_once || is_young)
    },
);
pub(super) const STILL_ASKED: Condition = when(
    "reset by the client, which is on this node, and payload of its was still on its way",
    |it| {
        let on_its_way = it.facts.counters.unacked == Some(true);
        it.facts.role == Role::Client && it.is_by_here(End::Client) && on_its_way
    },
);
pub(super) const NOT_GREETED: Condition = when(
    "reset by the client, though not with SO_LINGER 0, after its FIN, which came a second after the start or later",
    |it| {
        let is_abort = it.evidence.abort == Some(true);
        it.is_after_clients_fin(End::Client) && !it.is_closed_at_once && !is_abort
    },
);
/// And not behind an early answer, which what was still to come would meet. One that was sent again long ago says nothing.
pub(super) const LOST_REQUEST: Condition = when(
    "reset by the server, which had been silent and closed, and payload of the client's was still on its way and sent again: three times or, where none had come, once",
    |it| {
        let by_server = it.sender() == Some(End::Server);
        let is_closed = it.has_closed_first(End::Server) || it.met_a_closed_server();
        let often = if it.came() == Some(0) { 1 } else { 3 };
        let counters = &it.facts.counters;
        let is_lost = counters.is_sent_again() && counters.retransmits >= Some(often);
        let had_been_silent = is_closed && !it.facts.closed_behind_payload;
        it.facts.role == Role::Client && by_server && had_been_silent && is_lost
    },
);
pub(super) const LOST_ANSWER: Condition = when(
    "reset by the client, and payload of the server's had been sent again, of which nothing was acknowledged",
    |it| {
        let is_lost = match it.end() {
            Some(End::Server) => it.facts.counters.has_sent_in_vain(),
            Some(End::Client) => it.facts.peer_sent_in_vain,
            None => false,
        };
        is_lost && it.sender() == Some(End::Client)
    },
);
/// And the client sent something after that.
pub(super) const LEFT_UNANSWERED: Condition = when(
    "the server had closed with a request unanswered, and what the client sent last met that",
    |it| it.facts.left_unanswered && it.met_a_closed_server(),
);
pub(super) const NOT_READ: Condition = when(
    "this end had not read all that had come when the other one reset the connection",
    |it| {
        let is_received = matches!(it.reset, Some((Direction::Received, ..)));
        is_received && it.facts.counters.unread > Some(0)
    },
);
/// And reset by whoever is left of the server.
pub(super) const LATE: Condition = when("the request was sent after the server's FIN", |it| {
    it.facts.payload_after_fin && it.has_closed_first(End::Server) && !it.is_in_path()
});
pub(super) const MET_A_CLOSED_SERVER: Condition = when(
    "what the client sent last met a connection that the server had closed",
    |it| {
        let by_closed_socket = it.is_by_here(End::Server) && it.is_for(&BY_A_CLOSED_SOCKET);
        by_closed_socket || LATE.holds(it)
    },
);
pub(super) const CLOSED_BEHIND_PAYLOAD: Condition = when(
    "what the client sent last met a connection that the server had closed right behind payload of its own",
    |it| it.facts.closed_behind_payload && it.met_a_closed_server(),
);
/// Its own host, or one that has its address by now.
pub(super) const UNKNOWN_TO_SERVER: Condition = when(
    "reset by the server, which is on this node and does not know the connection",
    |it| it.is_by_here(End::Server) && it.is_for(UNKNOWN_THERE) && !it.met_a_closed_server(),
);
/// And had not been killed.
pub(super) const GREETED: Condition = when(
    "reset by the client, which had sent nothing, and knew the connection, the server 4096 bytes at the most",
    |it| {
        let [by_client, by_server] = it.payload();
        let is_greeting = by_client == Some(0) && by_server <= Some(GREETING_BYTES);
        let is_its_own = it.evidence.exit.is_none() && !it.is_for(UNKNOWN_THERE);
        is_greeting && is_its_own && it.sender() == Some(End::Client)
    },
);
const GREETING_BYTES: u64 = 4096;
/// A server that reset it would have had no room for it.
pub(super) const NO_ROOM_TO_ACCEPT: Condition = when(
    "reset by the server, which is on this node and does not know the connection; no socket of its was seen",
    |it| UNKNOWN_TO_SERVER.holds(it) && !it.facts.peer_seen,
);
pub(super) const MISSED_FIRST_PAYLOAD: Condition = when(
    "the client's first payload was sent after the server's FIN, or met its closed end",
    |it| {
        let met = BY_AN_END_HERE.holds(it) && it.is_for(&BY_A_CLOSED_SOCKET);
        met || LATE.holds(it)
    },
);
pub(super) const TURNED_AWAY: Condition = when(
    "the server had closed it at once, before anything came",
    |it| {
        let at_once = it.is_closed_at_once && it.has_closed_first(End::Server);
        at_once && it.came() == Some(0) && it.evidence.exit.is_none() && it.met_a_closed_server()
    },
);
pub(super) const ENDED_BEFORE: Condition = when(
    "the server had closed it as its process came to its end, before the request came",
    |it| {
        let [_, by_server] = it.payload();
        let request_has_begun = by_server == Some(0) && it.came() > Some(0);
        !request_has_begun && it.is_ended_with(End::Server) && it.met_a_closed_server()
    },
);

pub(super) const CLIENT_SENT: Condition = when("the client sent payload", |it| {
    let [by_client, _] = it.payload();
    by_client > Some(0)
});
/// Within so short a time no acknowledgement was due.
pub(super) const CLIENT_SENT_AND_LEFT: Condition = when(
    "the client, which is on this node, sent payload and reset the connection within 50 ms",
    |it| CLIENT_SENT.holds(it) && DID_NOT_WAIT.holds(it),
);
pub(super) const SERVER_SENT_NOTHING: Condition = when("the server sent nothing at all", |it| {
    let [_, by_server] = it.payload();
    by_server == Some(0)
});
pub(super) const UNDELIVERED: Condition = when("payload of this end was still on its way", |it| {
    it.facts.counters.unacked == Some(true)
});
pub(super) const SENT_AGAIN: Condition = when(
    "reset by the server, which had not closed, payload of the client's was still on its way, and some had been sent again",
    |it| {
        let by_server = it.sender() == Some(End::Server) && !it.met_a_closed_server();
        it.facts.role == Role::Client && by_server && it.facts.counters.is_sent_again()
    },
);
/// Each segment counts as sent again once IP has taken it.
pub(super) const NOTHING_LEFT: Condition = when(
    "payload of this end was still on its way, and nothing could be sent again",
    |it| {
        let counters = &it.facts.counters;
        counters.unacked == Some(true) && counters.retransmits == Some(0)
    },
);
/// Not all that was written, for the other end has no room.
pub(super) const WINDOW_CLOSED: Condition = when(
    "all that this end had sent was acknowledged, and more waited to be sent",
    |it| it.facts.counters.is_held_back(),
);
pub(super) const WINDOW_STAYED_CLOSED: Condition = when(
    "all that this end had sent was acknowledged, and more had waited to be sent for more than 50 ms",
    |it| {
        let counters = &it.facts.counters;
        counters.is_held_back() && counters.idle_us() > Some(TOGETHER_US)
    },
);
pub(super) const MISSED_FIRST_REQUEST: Condition = when(
    "reset by the server, which is on this node and did not receive the first request",
    |it| it.has_crossed() && it.facts.counters.bytes.received == Some(0),
);
pub(super) const MISSED_NEXT_REQUEST: Condition = when(
    "reset by the server, which is on this node and did not receive the next request",
    |it| it.has_crossed() && it.facts.counters.bytes.received != Some(0),
);
/// A TLS alert that is not encrypted (a record's header, the level, the description), after as much as a TLS client opens with.
pub(super) const ALERT: Condition = when(
    "ended by the server within 50 ms after payload of its own, which sent 7 bytes in all, the client 64 to 4096",
    |it| {
        let [by_client, by_server] = it.payload();
        let by_size = by_server == Some(ALERT_BYTES)
            && by_client.is_some_and(|bytes| HELLO_BYTES.contains(&bytes));
        by_size && it.is_ended_by_what_the_server_sent()
    },
);
pub(super) const ALERT_BYTES: u64 = 7;
/// Also what an HTTP request opens with; a shorter exchange may be any protocol's.
pub(super) const HELLO_BYTES: std::ops::RangeInclusive<u64> = 64..=4096;

pub(super) const CLIENT_LEFT_WITHOUT_A_WORD: Condition = when(
    "the client, which had sent nothing, closed first or reset",
    |it| {
        let [by_client, _] = it.payload();
        let has_left = CLIENT_CLOSED_FIRST.holds(it) || BY_CLIENT.holds(it);
        has_left && by_client == Some(0)
    },
);
pub(super) const CLIENT_CLOSED_FIRST: Condition = when("the client closed first", |it| {
    it.has_closed_first(End::Client)
});
pub(super) const EXITED: Condition = when(
    "the process of the end that ended it came to its end",
    |it| it.evidence.exit.is_some() && !it.is_closer_killed,
);
pub(super) const CLOSER_KILLED: Condition = when(
    "a signal killed the process of the end that closed first, and the other one reset",
    |it| it.is_closer_killed && BY_AN_END_HERE.holds(it),
);
pub(super) const SERVER_KILLED_FIRST: Condition = when(
    "a signal killed the process of the server, which closed first, and the client reset",
    |it| it.is_closer_killed && it.is_by_here(End::Client),
);
pub(super) const CLIENT_ENDED: Condition =
    when("the process of the client came to its end", |it| {
        it.is_ended_with(End::Client)
    });
pub(super) const SERVER_ENDED: Condition =
    when("the process of the server came to its end", |it| {
        it.is_ended_with(End::Server)
    });
pub(super) const CLIENT_KILLED: Condition =
    when("a signal killed the process of the client", |it| {
        it.is_killed_with(End::Client)
    });
pub(super) const SERVER_KILLED: Condition =
    when("a signal killed the process of the server", |it| {
        it.is_killed_with(End::Server)
    });

pub(super) const TOLD_ABORTED: Condition =
    when("told ECONNABORTED", |it| it.errno == Some("ECONNABORTED"));
pub(super) const TOLD_NO_NETWORK: Condition =
    when("told ENETUNREACH", |it| it.errno == Some("ENETUNREACH"));
pub(super) const TOLD_UNREACHABLE: Condition =
    when("told EHOSTUNREACH, ENETUNREACH or ECONNREFUSED", |it| {
        let errnos = ["EHOSTUNREACH", "ENETUNREACH", "ECONNREFUSED"];
        it.errno.is_some_and(|errno| errnos.contains(&errno))
    });
pub(super) const PORT_UNREACHABLE: Condition = when(
    "ICMP port unreachable answered the SYN, or told ECONNREFUSED",
    |it| it.errno == Some("ECONNREFUSED") || it.has_icmp(&PORT_UNREACHABLES),
);
/// By which firewalls and access lists refuse.
pub(super) const PROHIBITED: Condition = when(
    "an ICMP error that says prohibited answered the SYN",
    |it| it.has_icmp(&PROHIBITIONS),
);
pub(super) const NO_NEIGHBOUR: Condition = when(
    "this node's own ICMP host unreachable answered the SYN",
    |it| {
        let from = it.evidence.icmp.and_then(|icmp| icmp.from);
        from == Some(it.local) && it.has_icmp(&HOST_UNREACHABLES)
    },
);
pub(super) const DROPPED: Condition = when(
    "a filter of this node dropped the SYN or its answer",
    |it| it.evidence.drop_reason.is_some(),
);
pub(super) const HAS_LOCAL_PORT: Condition = when("a local port was chosen or bound", |it| {
    it.facts.has_local_port
});

pub(super) const QUEUE_FULL: Condition = when(
    "the accept queue at the server, on this node, was full",
    |it| it.evidence.has_full_queue(),
);
pub(super) const NO_DESCRIPTOR: Condition = when(
    "the process that listens, on this node, had no file descriptor left",
    |it| it.evidence.has_no_descriptor(),
);
pub(super) const QUEUE_FULL_NO_DESCRIPTOR: Condition = when(
    "the accept queue at the server, on this node, was full, and its process had no file descriptor left",
    |it| it.evidence.has_full_queue() && it.evidence.has_no_descriptor(),
);

/// Kinds and codes of ICMP errors, over IPv4 and over IPv6.
struct Errors {
    v4: &'static [(u8, u8)],
    v6: &'static [(u8, u8)],
}

/// `ICMP_PORT_UNREACH`, `ICMPV6_PORT_UNREACH`.
const PORT_UNREACHABLES: Errors = Errors {
    v4: &[(3, 3)],
    v6: &[(1, 4)],
};
/// `ICMP_HOST_UNREACH`, `ICMPV6_ADDR_UNREACH`.
const HOST_UNREACHABLES: Errors = Errors {
    v4: &[(3, 1)],
    v6: &[(1, 3)],
};
/// `ICMP_NET_ANO`, `ICMP_HOST_ANO`, `ICMP_PKT_FILTERED`; `ICMPV6_ADM_PROHIBITED`, `ICMPV6_POLICY_FAIL`, `ICMPV6_REJECT_ROUTE`.
const PROHIBITIONS: Errors = Errors {
    v4: &[(3, 9), (3, 10), (3, 13)],
    v6: &[(1, 1), (1, 5), (1, 6)],
};

/// A host has no such connection, or another one between the same ends that connects (`tcp_rcv_synsent_state_process`).
pub(super) const UNKNOWN_THERE: &[&str] = &["NO_SOCKET", "TCP_FLAGS", "TCP_INVALID_ACK_SEQUENCE"];

/// What the kernel says that met a socket whose owner had closed it.
const BY_A_CLOSED_SOCKET: [&str; 2] = ["TCP_TIMEWAIT_SOCKET", "TCP_ABORT_ON_DATA"];

impl Evidence<'_> {
    fn has_full_queue(&self) -> bool {
        self.accept_queue.is_some_and(AcceptQueue::is_full)
    }

    fn has_no_descriptor(&self) -> bool {
        self.descriptors.is_some_and(|held| held.open >= held.limit)
    }
}

impl About<'_> {
    /// Which end this is, if that is known.
    fn end(&self) -> Option<End> {
        match self.facts.role {
            Role::Server => Some(End::Server),
            Role::Client => Some(End::Client),
            Role::Unknown => None,
        }
    }

    /// What the client sent and what the server sent.
    fn payload(&self) -> [Option<u64>; 2] {
        let Bytes { sent, received, .. } = self.facts.counters.bytes;
        match self.facts.role {
            Role::Server => [received, sent],
            _ => [sent, received],
        }
    }

    /// Payload of the client's that had come to the server.
    fn came(&self) -> Option<u64> {
        let bytes = &self.facts.counters.bytes;
        match self.end()? {
            End::Client => bytes.acked,
            End::Server => bytes.received,
        }
    }

    fn has_icmp(&self, errors: &Errors) -> bool {
        let errors = if self.local.is_ipv4() {
            errors.v4
        } else {
            errors.v6
        };
        let is_one = |Icmp { kind, code, .. }| errors.contains(&(kind, code));
        self.evidence.icmp.is_some_and(is_one)
    }

    /// Whether the kernel gives one of these reasons for the reset.
    fn is_for(&self, reasons: &[&str]) -> bool {
        let reason = self.reset.and_then(|(_, _, reason)| reason);
        reason.is_some_and(|reason| reasons.contains(&reason))
    }

    fn is_in_path(&self) -> bool {
        matches!(self.reset, Some((_, Origin::InPath, _)))
    }

    fn is_by_here(&self, end: End) -> bool {
        BY_AN_END_HERE.holds(self) && self.sender() == Some(end)
    }

    /// Which end sent the reset; `None` where there was none, neither did, or it is not known which this end is.
    fn sender(&self) -> Option<End> {
        match (self.reset?, self.end()?) {
            _ if self.is_in_path() => None,
            ((Direction::Sent, ..), end) => Some(end),
            ((Direction::Received, ..), End::Client) => Some(End::Server),
            ((Direction::Received, ..), End::Server) => Some(End::Client),
        }
    }

    /// Whether that end sent the first FIN.
    fn has_closed_first(&self, end: End) -> bool {
        self.end().is_some_and(|this| {
            if this == end {
                self.facts.closed_first
            } else {
                self.facts.peer_closed_first
            }
        })
    }

    /// Whether the client had sent its FIN when that end reset the connection.
    fn is_after_clients_fin(&self, end: End) -> bool {
        self.has_closed_first(End::Client) && self.sender() == Some(end)
    }

    /// Whether the server had sent its FIN when what the client sent last was reset for that.
    fn met_a_closed_server(&self) -> bool {
        MET_A_CLOSED_SERVER.holds(self)
    }

    /// Whether what the client sent last met a connection that the server had reset.
    fn has_crossed(&self) -> bool {
        self.facts.role == Role::Client && self.undelivered && self.is_by_here(End::Server)
    }

    /// Whether it ended right behind the last payload of that end.
    fn is_behind_payload_of(&self, end: End) -> bool {
        let counters = &self.facts.counters;
        if self.end().unwrap_or(End::Client) == end {
            counters.has_just_sent()
        } else {
            counters.has_just_received()
        }
    }

    /// Whether the server ended it, by itself and not because its process came to its end.
    fn is_ended_by_what_the_server_sent(&self) -> bool {
        let at_once = match self.reset {
            None => self.facts.closed_behind_payload,
            Some(_) => self.is_behind_payload_of(End::Server),
        };
        let by_server = self.reset.is_none() || self.sender() == Some(End::Server);
        at_once && by_server && self.evidence.exit.is_none() && !self.met_a_closed_server()
    }

    /// Whether that end, on this node, brought the connection to its end, as its process came to its own.
    fn is_ended_with(&self, end: End) -> bool {
        let is_by = match self.reset {
            None if self.verdict == Verdict::ConnectCanceled => end == End::Client,
            None => end == End::Server,
            Some(_) => self.is_by_here(end),
        };
        is_by && EXITED.holds(self)
    }

    /// The same where a signal killed it.
    fn is_killed_with(&self, end: End) -> bool {
        let by_signal = |exit: Exit<'_>| exit.signal.is_some();
        self.is_ended_with(end) && self.evidence.exit.is_some_and(by_signal)
    }
}
