//! The rows of the playbook.
//!
//! Sources of the proxies' words: Envoy 1.40 `source/common/router/router.cc` (streamResetReasonToResponseFlag)
//! and `source/common/http/utility.cc` (resetReasonToString), and the strings of releases before these were
//! split; nginx `src/os/unix/ngx_errno.c` and `src/http/ngx_http_upstream.c`. Must not know: whether a row holds.

use super::{
    Meaning, Row,
    Shown::{self, FromData, Played},
    StrayKind, StrayRow, UnseenRow,
    condition::{self as when, Condition, UNKNOWN_THERE},
};
use crate::record::{
    Cause, Layer, ProxyWords,
    Verdict::{
        self, ClosedBeforeResponse, ConnectCanceled, ConnectTimeout, LocalAbort, NeverAccepted,
        NoLocalPort, Probe, Refused, ResetBeforePayload, ResetBeforeResponse, ResetIdle,
        ResetMidStream, Timeout, Unreachable,
    },
};

const fn words(
    envoy_flag: &'static str,
    envoy_reason: &'static str,
    envoy_reason_old: &'static str,
    nginx_error: &'static str,
) -> ProxyWords<'static> {
    ProxyWords {
        envoy_flag,
        envoy_reason,
        envoy_reason_old,
        envoy_flag_other: None,
        envoy_reason_other: None,
        nginx_error,
        nginx_error_other: None,
    }
}

/// Whatever ended it, Envoy has the same words.
const fn terminated(nginx_error: &'static str) -> ProxyWords<'static> {
    let reason = "connection termination";
    words("UC", reason, reason, nginx_error)
}

/// Where a proxy may come out with the words of another failure as well, depending on what it sees first.
const fn or(
    words: Option<ProxyWords<'static>>,
    other: Option<ProxyWords<'static>>,
) -> Option<ProxyWords<'static>> {
    match (words, other) {
        (Some(words), Some(other)) => Some(ProxyWords {
            envoy_flag_other: Some(other.envoy_flag),
            envoy_reason_other: Some(other.envoy_reason),
            nginx_error_other: Some(other.nginx_error),
            ..words
        }),
        _ => words,
    }
}

const REFUSED: Option<ProxyWords<'_>> = Some(words(
    "UF",
    "remote connection failure, delayed connect error: Connection refused",
    "connection failure, delayed connect error: 111",
    "connect() failed (111: Connection refused) while connecting to upstream",
));
/// The proxy gave up.
const CONNECT_CANCELED: Option<ProxyWords<'_>> = Some(words(
    "UF",
    "connection timeout",
    "connection failure",
    "upstream timed out (110: Connection timed out) while connecting to upstream",
));
/// The kernel did.
const CONNECT_TIMEOUT: Option<ProxyWords<'_>> = Some(words(
    "UF",
    "remote connection failure, delayed connect error: Connection timed out",
    "connection failure, delayed connect error: 110",
    "connect() failed (110: Connection timed out) while connecting to upstream",
));
/// Either did.
const SYN_UNANSWERED: Option<ProxyWords<'_>> = or(CONNECT_CANCELED, CONNECT_TIMEOUT);
const NO_ROUTE: Option<ProxyWords<'_>> = Some(words(
    "UF",
    "remote connection failure, delayed connect error: No route to host",
    "connection failure, delayed connect error: 113",
    "connect() failed (113: No route to host) while connecting to upstream",
));
const NO_NETWORK: Option<ProxyWords<'_>> = Some(words(
    "UF",
    "remote connection failure, delayed connect error: Network is unreachable",
    "connection failure, delayed connect error: 101",
    "connect() failed (101: Network is unreachable) while connecting to upstream",
));
const NO_PORT: Option<ProxyWords<'_>> = Some(words(
    "UF",
    "remote connection failure, immediate connect error: Cannot assign requested address",
    "connection failure, immediate connect error: 99",
    "connect() failed (99: Cannot assign requested address) while connecting to upstream",
));
const NO_ANSWER: Option<ProxyWords<'_>> = Some(words(
    "UT",
    "upstream request timeout",
    "upstream request timeout",
    "upstream timed out (110: Connection timed out) while reading response header from upstream",
));
/// The kernel gave up, or the proxy before it.
const GAVE_UP_WAITING: Option<ProxyWords<'_>> = or(
    Some(terminated(
        "recv() failed (110: Connection timed out) while reading response header from upstream",
    )),
    NO_ANSWER,
);
/// The same where the kernel told what an ICMP error had said.
const GAVE_UP_REACHING: Option<ProxyWords<'_>> = or(
    Some(terminated(
        "recv() failed (113: No route to host) while reading response header from upstream",
    )),
    NO_ANSWER,
);
const TERMINATED: Option<ProxyWords<'_>> = Some(terminated(
    "recv() failed (104: Connection reset by peer) while reading response header from upstream",
));
/// The reset may beat the proxy's own look at the connection; with TLS it is not connected before its handshake.
const TERMINATED_EARLY: Option<ProxyWords<'_>> = or(
    TERMINATED,
    Some(words(
        "UF",
        "remote connection failure, delayed connect error: Connection reset by peer",
        "connection failure, delayed connect error: 104",
        "connect() failed (104: Connection reset by peer) while connecting to upstream",
    )),
);
const CLOSED: Option<ProxyWords<'_>> = Some(terminated(
    "upstream prematurely closed connection while reading response header from upstream",
));
/// NGINX reads into several buffers, unless it passes on at once what it reads (`proxy_buffering off`).
const BROKEN: Option<ProxyWords<'_>> = Some(ProxyWords {
    nginx_error_other: Some("recv() failed (104: Connection reset by peer) while reading upstream"),
    ..words(
        "UPE",
        "protocol error",
        "protocol error",
        "readv() failed (104: Connection reset by peer) while reading upstream",
    )
});
const CLIENT_GONE: Option<ProxyWords<'_>> = Some(words(
    "DC",
    "downstream disconnected",
    "downstream disconnected",
    "client prematurely closed connection",
));
/// After a failed TLS handshake.
const TLS: Option<ProxyWords<'_>> = Some(words(
    "UF",
    "remote connection failure, TLS error",
    "connection failure, TLS error",
    "SSL_do_handshake() failed while SSL handshaking to upstream",
));

const fn row(
    condition: Condition,
    (cause, layer): (Option<Cause>, Layer),
    proxy: Option<ProxyWords<'static>>,
    shown: Shown,
    hint: &'static str,
) -> Row {
    Row {
        condition,
        meaning: Meaning {
            cause,
            layer,
            hint,
            proxy,
        },
        shown,
    }
}

const NO_LISTENER: (Option<Cause>, Layer) = (Some(Cause::NoListener), Layer::Tcp);
const FIREWALL: (Option<Cause>, Layer) = (Some(Cause::Firewall), Layer::Tcp);
const TLS_MISMATCH: (Option<Cause>, Layer) = (Some(Cause::TlsMismatch), Layer::Tls);
const EXHAUSTION: (Option<Cause>, Layer) = (Some(Cause::Exhaustion), Layer::Tcp);
const UNHEALTHY: (Option<Cause>, Layer) = (Some(Cause::UnhealthyEndpoint), Layer::Http);
const NETWORK: (Option<Cause>, Layer) = (Some(Cause::Network), Layer::Tcp);
const IDLE_CLOSE: (Option<Cause>, Layer) = (Some(Cause::IdleClose), Layer::Http);
const GAVE_UP: (Option<Cause>, Layer) = (Some(Cause::ClientGaveUp), Layer::Http);
const OPEN_TCP: (Option<Cause>, Layer) = (None, Layer::Tcp);
const OPEN_HTTP: (Option<Cause>, Layer) = (None, Layer::Http);
const OPEN: (Option<Cause>, Layer) = (None, Layer::None);

/// In groups, by verdicts: a verdict's rows are those of the groups that name it. The first of them that holds counts, so what is more
/// special stands above what is less; between rows of different verdicts the order means nothing.
pub(super) const ROWS: &[(&[Verdict], &[Row])] = &[
    (
        &[Refused],
        &[
            row(
                when::IN_PATH,
                FIREWALL,
                REFUSED,
                Played(&["firewall_resets"]),
                "A firewall rule answered the SYN with a reset, not the server: look for REJECT rules on the way (nft list ruleset).",
            ),
            row(
                when::DROPPED_COPY,
                OPEN_TCP,
                REFUSED,
                FromData,
                "A filter of this node dropped the SYN (evidence.drop_reason), so most likely a rule answered it, not the server: look for REJECT rules (nft list ruleset); where a rule only copies packets to another place, check that the server listens.",
            ),
            row(
                when::TRANSLATED,
                NO_LISTENER,
                REFUSED,
                Played(&["refused_by_translation"]),
                "The SYN was sent on to another address (a Service, a published port, a redirect to a sidecar), and nothing accepts connections there: check that the server at evidence.peer_address runs (ss -ltn).",
            ),
            row(
                when::BY_AN_END_HERE,
                NO_LISTENER,
                REFUSED,
                Played(&["refused", "refused_v6", "retry_same_fd"]),
                "Nothing accepts connections on the remote port: check that the server runs and on which address and port it listens (ss -ltn).",
            ),
            row(
                when::ALWAYS,
                OPEN_TCP,
                REFUSED,
                FromData,
                "A reset answered the SYN: check on the server's host that it listens on this address and port (ss -ltn); if it does, a firewall on the way answers for it.",
            ),
        ],
    ),
    (
        &[ConnectTimeout, ConnectCanceled],
        &[
            row(
                when::DROPPED,
                FIREWALL,
                SYN_UNANSWERED,
                Played(&["firewall_drops_in"]),
                "A filter of this node dropped the SYN or its answer (evidence.drop_reason): NETFILTER_DROP is a rule (nft list ruleset) or full connection tracking (conntrack -S), TC_ a program at an interface (tc filter, a CNI), SOCKET_FILTER one at a socket.",
            ),
            row(
                when::QUEUE_FULL_NO_DESCRIPTOR,
                EXHAUSTION,
                SYN_UNANSWERED,
                Played(&["queue_full_no_descriptor"]),
                "The process that listens has as many file descriptors open as it may (evidence.descriptors), so it accepts nothing and its queue is full: raise its limit (LimitNOFILE, ulimit -n) or look for a leak (/proc/PID/fd).",
            ),
            row(
                when::QUEUE_FULL,
                EXHAUSTION,
                SYN_UNANSWERED,
                Played(&[
                    "connect_timeout",
                    "connect_canceled",
                    "queue_full_on_another_machine",
                ]),
                "The server's accept queue was longer than its limit (evidence.accept_queue), so its kernel dropped the SYN: the server accepts too slowly or is stuck, or its backlog is too small (listen(), net.core.somaxconn).",
            ),
        ],
    ),
    (
        &[ConnectTimeout],
        &[row(
            when::ALWAYS,
            NETWORK,
            CONNECT_TIMEOUT,
            FromData,
            "No SYN was answered until the kernel gave up: look for a firewall that drops, a wrong address, or a full accept queue at the server (ss -ltn, Recv-Q against Send-Q).",
        )],
    ),
    (
        &[ConnectCanceled],
        &[
            row(
                when::TOLD_ABORTED,
                OPEN_TCP,
                None,
                FromData,
                "Somebody destroyed the socket while its SYN was unanswered (ss -K, or a tool that does the same): look for an administrator or an agent that acted at that time.",
            ),
            row(
                when::CLIENT_KILLED,
                OPEN_TCP,
                None,
                FromData,
                "A signal killed the connecting process while its SYN was unanswered (evidence.exit): look for the OOM killer (dmesg), a supervisor or a crash, and for why the answer took so long.",
            ),
            row(
                when::ALWAYS,
                OPEN_TCP,
                CONNECT_CANCELED,
                Played(&["connect_canceled_far"]),
                "The connecting process gave up while its SYN was unanswered: its connect timeout, if it waited for long (duration_us; look for packet drops or a full accept queue on the way), else a cancelled request or the loser of two parallel attempts.",
            ),
        ],
    ),
    (
        &[Unreachable],
        &[
            row(
                when::PROHIBITED,
                FIREWALL,
                NO_ROUTE,
                Played(&["firewall_prohibits"]),
                "An ICMP error that says prohibited answered the SYN: evidence.icmp.from has a firewall rule or an access list that rejects the connection.",
            ),
            row(
                when::PORT_UNREACHABLE,
                FIREWALL,
                REFUSED,
                Played(&["firewall_unreachable"]),
                "An ICMP port unreachable answered the SYN, where a server without a listener resets: a firewall rejects the connection (REJECT), as Kubernetes does for a Service without ready endpoints (kubectl get endpointslices).",
            ),
            row(
                when::DROPPED,
                FIREWALL,
                NO_ROUTE,
                Played(&["firewall_says_no_host"]),
                "A filter of this node dropped the SYN (evidence.drop_reason) and told the owner that there is no way: look for rules that reject with an ICMP error (nft list ruleset).",
            ),
            row(
                when::NO_NEIGHBOUR,
                NETWORK,
                NO_ROUTE,
                Played(&["unreachable_host"]),
                "The next host on the way did not answer when this node asked for its hardware address: it is down, or not in this network (ip neigh, ip route get); or a firewall of this node rejects with host unreachable.",
            ),
            row(
                when::TOLD_NO_NETWORK,
                NETWORK,
                NO_NETWORK,
                Played(&["unreachable_net"]),
                "A router answered the SYN with an ICMP error (evidence.icmp.from), or there is no route: check the routes on the way (ip route get, traceroute -T).",
            ),
            row(
                when::ALWAYS,
                NETWORK,
                NO_ROUTE,
                FromData,
                "Routing failed or a router answered the SYN with an ICMP error: check the route (ip route get), ARP or neighbour entries, and REJECT rules of firewalls.",
            ),
        ],
    ),
    (
        &[NoLocalPort],
        &[
            row(
                when::HAS_LOCAL_PORT,
                OPEN_TCP,
                NO_PORT,
                FromData,
                "connect() came to nothing before any SYN left, although there was a local port: it was bound and a connection between the same addresses and ports exists, or its owner closed a Fast Open connection before it wrote.",
            ),
            row(
                when::ALWAYS,
                EXHAUSTION,
                NO_PORT,
                Played(&["no_local_port"]),
                "connect() failed before any SYN left, for want of a local port: check net.ipv4.ip_local_port_range (evidence.local_ports) and how many connections to this destination are open or in TIME_WAIT.",
            ),
        ],
    ),
    (
        &[NeverAccepted],
        &[
            row(
                when::NO_DESCRIPTOR,
                EXHAUSTION,
                NO_ANSWER,
                Played(&["descriptors_exhausted"]),
                "The kernel completed the handshake, but the process that listens has as many file descriptors open as it may (evidence.descriptors) and accepts nothing: raise its limit (LimitNOFILE, ulimit -n) or look for a leak (/proc/PID/fd).",
            ),
            row(
                when::QUEUE_FULL,
                EXHAUSTION,
                NO_ANSWER,
                FromData,
                "The accept queue was full (evidence.accept_queue) and no process accepted the connection before it ended: the server accepts too slowly or is stuck, or its backlog is too small (listen(), net.core.somaxconn).",
            ),
            row(
                when::CLIENT_LEFT_WITHOUT_A_WORD,
                OPEN_TCP,
                None,
                Played(&["unaccepted_reset"]),
                "The client left without a word before any process accepted the connection: harmless if it lasted only microseconds (a health check, a port scan), else the server is stuck, its accept queue is long, or it is out of file descriptors.",
            ),
            row(
                when::CLIENT_CLOSED_FIRST,
                OPEN_TCP,
                NO_ANSWER,
                FromData,
                "The client had closed before any process accepted the connection, and what became of the listener later is not why: the server is stuck, its accept queue is long, or it accepts too slowly (compare the timeline with the client's timeouts).",
            ),
            row(
                when::EXITED,
                (Some(Cause::UnhealthyEndpoint), Layer::Tcp),
                TERMINATED_EARLY,
                FromData,
                "The process that listens came to its end (evidence.exit) before it had accepted the connection, whose handshake the kernel had completed: look for the OOM killer (dmesg), a crash, or a stop without draining.",
            ),
            row(
                when::BY_CLIENT,
                OPEN_TCP,
                NO_ANSWER,
                Played(&["unaccepted_request_reset"]),
                "The other end gave up before any process accepted the connection: harmless if it lasted only microseconds (a health check), else the server is stuck, its accept queue is long, or it is out of file descriptors.",
            ),
            row(
                when::ALWAYS,
                (Some(Cause::UnhealthyEndpoint), Layer::Tcp),
                TERMINATED_EARLY,
                Played(&["listener_closed", "listener_closed_request"]),
                "The kernel completed the handshake but no process accepted the connection before it ended: the server stopped listening, is stuck, or is out of file descriptors (ss -ltn, Recv-Q).",
            ),
        ],
    ),
    (
        &[ResetBeforePayload, ResetBeforeResponse, ResetMidStream],
        &[
            row(
                when::DESTROYED,
                OPEN_TCP,
                TERMINATED,
                Played(&["destroyed"]),
                "Somebody destroyed the socket of the end that sent the reset (ss -K, or a tool that does the same): look for an administrator or an agent that acted there at that time (reset.sender).",
            ),
            row(
                when::BY_AN_END_HERE.because(&["TCP_ABORT_ON_MEMORY"]),
                EXHAUSTION,
                TERMINATED,
                FromData,
                "The kernel of the end that sent the reset had too many closed sockets that still had to send, or no memory for TCP: check there net.ipv4.tcp_max_orphans and tcp_mem, and dmesg (too many orphaned sockets, out of memory).",
            ),
            row(
                when::BY_AN_END_HERE.because(&["TCP_KEEPALIVE_TIMEOUT"]),
                NETWORK,
                TERMINATED,
                FromData,
                "The kernel of the end that sent the reset had asked whether the other one is alive (keep-alive), heard nothing, and gave up: look for packets that are lost one way, a firewall or NAT that forgot the connection, or a host that stood still.",
            ),
        ],
    ),
    (
        &[ResetIdle, LocalAbort],
        &[row(
            when::DESTROYED,
            OPEN_TCP,
            None,
            Played(&["destroyed_idle"]),
            "Somebody destroyed the socket of the end that sent the reset (ss -K, or a tool that does the same) with nothing unanswered: harmless for a pool that retries; look for an administrator or an agent that acted there at that time (reset.sender).",
        )],
    ),
    (
        &[ResetBeforeResponse],
        &[row(
            when::SERVER_KILLED_FIRST,
            UNHEALTHY,
            TERMINATED,
            FromData,
            "A signal killed the server's process (evidence.exit) with the request unanswered, and the client reset what was left of the connection: look for the OOM killer (dmesg), a supervisor, or a crash.",
        )],
    ),
    (
        &[
            ResetBeforePayload,
            ResetBeforeResponse,
            ResetMidStream,
            ResetIdle,
            LocalAbort,
        ],
        &[row(
            when::CLOSER_KILLED,
            OPEN_HTTP,
            None,
            Played(&["killed_then_aborted"]),
            "A signal killed the process of the end that closed first (evidence.exit), and the other one answered by a reset: look for the OOM killer (dmesg), a supervisor or a crash there, and for what it has left unfinished.",
        )],
    ),
    (
        &[ResetBeforePayload],
        &[
            row(
                when::IN_PATH,
                NETWORK,
                TERMINATED_EARLY,
                FromData,
                "Neither end's stack sent this reset: a firewall or middlebox between them did, before any payload.",
            ),
            row(
                when::LIKELY_IN_PATH,
                OPEN_TCP,
                TERMINATED_EARLY,
                FromData,
                "The reset came from nearer than the other end's part of the handshake: likely a firewall or middlebox on the way sent it, before any payload; look there first.",
            ),
            row(
                when::BY_AN_END_HERE.because(&["INVALID_SYN"]),
                EXHAUSTION,
                TERMINATED_EARLY,
                Played(&["overflow_reset"]),
                "The server's accept queue was full and net.ipv4.tcp_abort_on_overflow made its kernel reset the connection: the server accepts too slowly or its backlog is too small.",
            ),
            row(
                when::NO_ROOM_TO_ACCEPT.because(&["TCP_FLAGS"]),
                OPEN_TCP,
                TERMINATED_EARLY,
                FromData,
                "The server's kernel has no such connection: most likely its accept queue was full until it gave the half-open one up (ss -ltn, Recv-Q against Send-Q); or the server restarted, or a NAT on the way forgot the connection (conntrack -S).",
            ),
            row(
                when::UNKNOWN_TO_SERVER,
                OPEN_TCP,
                TERMINATED_EARLY,
                FromData,
                "The server's host does not know the connection any more: the server stopped or restarted after the handshake (ss -ltn), a reset from elsewhere had ended it there (see its record), or the address moved to another host.",
            ),
            row(
                when::QUEUE_FULL,
                EXHAUSTION,
                TERMINATED_EARLY,
                FromData,
                "The server's accept queue was full (evidence.accept_queue) and it seems net.ipv4.tcp_abort_on_overflow made its kernel reset the connection: the server accepts too slowly or its backlog is too small.",
            ),
        ],
    ),
    (
        &[ResetBeforePayload, ResetBeforeResponse],
        &[
            row(
                when::LEFT_UNACCEPTED,
                OPEN_TCP,
                NO_ANSWER,
                FromData,
                "The client had closed before any process accepted the connection, and what was left of it was reset when the server stopped listening: the server is stuck, its accept queue is long, or it accepts too slowly (compare with the client's timeouts).",
            ),
            row(
                when::UNACCEPTED_BY_SERVER,
                (Some(Cause::UnhealthyEndpoint), Layer::Tcp),
                TERMINATED_EARLY,
                Played(&["listener_closed", "listener_closed_request"]),
                "The server's kernel completed the handshake, but the connection was still in the accept queue when the server stopped listening: a restart, a stop without draining, or the end of its process (evidence.exit).",
            ),
            row(
                when::ENDED_BEFORE,
                OPEN_HTTP,
                TERMINATED,
                FromData,
                "The server's process had come to its end (evidence.exit) before the client's last payload came (a request, its rest, a goodbye), and earlier ones may be unanswered: a crash, a restart, a stop or, with a process for each connection, its idle timeout.",
            ),
            row(
                when::LOST_REQUEST,
                OPEN_TCP,
                TERMINATED,
                FromData,
                "The client's payload was sent again and never acknowledged until the server, which had closed meanwhile, reset it: most likely lost on the way (a firewall, large packets: MTU), so that the server waited in vain; else it came too late.",
            ),
            row(
                when::TURNED_AWAY,
                OPEN_HTTP,
                TERMINATED_EARLY,
                Played(&["data_after_shutdown_first"]),
                "The server had closed the connection as soon as it was made, before anything came: look there for connection limits, access lists or overload protection, or for an idle timeout that is shorter than a second.",
            ),
        ],
    ),
    (
        &[ResetBeforePayload],
        &[
            row(
                when::MISSED_FIRST_PAYLOAD,
                IDLE_CLOSE,
                TERMINATED_EARLY,
                FromData,
                "The server had closed the connection before the client's first payload arrived: make the client's idle timeouts shorter than the server's.",
            ),
            row(
                when::SERVER_KILLED,
                UNHEALTHY,
                TERMINATED_EARLY,
                FromData,
                "A signal killed the server's process (evidence.exit) before any payload came: look for the OOM killer (dmesg), a supervisor, a crash, or a stop without draining.",
            ),
            row(
                when::SERVER_ENDED,
                OPEN_HTTP,
                TERMINATED_EARLY,
                FromData,
                "The server's process came to its end by itself (evidence.exit) before any payload came: a restart, a stop without draining, a fatal error, or a worker that ends with its connection and wanted no more of it; look in its log.",
            ),
            row(
                when::SENT_AGAIN,
                OPEN_TCP,
                TERMINATED_EARLY,
                FromData,
                "The server reset the connection before it had anything of what the client sent, and packets had been sent again: most likely they are lost on the way (large ones: MTU), and the server waited in vain; else look there for connection limits.",
            ),
            row(
                when::BY_CLIENT_AFTER_ITS_FIN.because(UNKNOWN_THERE),
                OPEN_TCP,
                None,
                FromData,
                "The client had closed its side, and its host had forgotten the connection when this end's next packet came: harmless there; look at the server for sockets that are closed late or never (ss -tn state close-wait).",
            ),
            row(
                when::BY_CLIENT_HERE.because(UNKNOWN_THERE),
                OPEN_TCP,
                TERMINATED_EARLY,
                FromData,
                "The client's host does not know the connection any more: it had ended there, perhaps by a reset that a firewall sent (see the client's record), its address is another's by now, or a NAT on the way forgot it.",
            ),
            row(
                when::BY_CLIENT_HERE,
                OPEN,
                TERMINATED_EARLY,
                FromData,
                "This connection was reset from the client's end before any payload, by someone other than its owner: look at who the sender is.",
            ),
            row(
                when::ABORTED_BY_SERVER,
                OPEN_HTTP,
                TERMINATED_EARLY,
                Played(&["reset_after_accept", "reset_after_accept_v6"]),
                "The server accepted the connection and aborted it on purpose (SO_LINGER 0, evidence.abort) before any payload: look in its log for connection limits, access lists, overload protection, a TLS or protocol mismatch, or a timeout for the first request.",
            ),
            row(
                when::BY_SERVER_HERE,
                OPEN_HTTP,
                TERMINATED_EARLY,
                FromData,
                "The server completed the handshake and reset before any payload: look in its log for connection limits, access lists, a TLS or protocol mismatch, or a crash right after accept.",
            ),
            row(
                when::BY_THIS_END,
                OPEN,
                TERMINATED_EARLY,
                FromData,
                "This end reset the connection before any payload: its process was killed (evidence.exit), closed it unaccepted, or aborted it on purpose (evidence.abort); look at the sender.",
            ),
            row(
                when::ALWAYS,
                OPEN,
                TERMINATED_EARLY,
                FromData,
                "The other end, or a middlebox in its name, completed the handshake and reset before any payload: look there for connection limits, access lists, a TLS or protocol mismatch, or a crash right after accept.",
            ),
        ],
    ),
    (
        &[Probe],
        &[
            row(
                when::CLIENT_SENT_AND_LEFT,
                OPEN_TCP,
                None,
                FromData,
                "The client sent payload and reset the connection within 50 ms, before any of it was acknowledged: a canceled request, a very short timeout, or a health check; look in its log. Where the path is longer than that, nothing could come back.",
            ),
            row(
                when::CLIENT_SENT,
                OPEN_TCP,
                None,
                FromData,
                "The client sent payload that was never acknowledged, and then reset the connection: it gave up; look for a full accept queue at the server, a firewall, or large packets that are lost (MTU).",
            ),
            row(
                when::NOT_GREETED,
                OPEN_HTTP,
                None,
                FromData,
                "The client had closed the connection, in order and without a word, before the server's first payload came, which its host then reset: most likely it had waited for a greeting in vain; compare the duration with its timeouts.",
            ),
            row(
                when::ALWAYS,
                OPEN,
                None,
                Played(&["health_check"]),
                "The end that connected reset its own connection before any payload arrived: a TCP health check of a load balancer or a port scan; harmless unless unexpected.",
            ),
        ],
    ),
    (
        &[ResetMidStream, ResetIdle, LocalAbort],
        &[row(
            when::GREETED,
            OPEN_TCP,
            None,
            FromData,
            "The client sent nothing, and reset the connection after the server had spoken first (a greeting): a TCP health check of a load balancer, a port scan, or a client that was put off; harmless unless unexpected.",
        )],
    ),
    (
        &[
            ResetBeforeResponse,
            ResetMidStream,
            ClosedBeforeResponse,
            LocalAbort,
        ],
        &[row(
            when::ALERT,
            TLS_MISMATCH,
            TLS,
            Played(&["alert_then_reset"]),
            "Likely TLS: the handshake of TCP completed, bytes went both ways, the server sent just 7, the size of a TLS alert, and it ended. Not decoded; check SNI, ALPN, versions, certificates, and plaintext to a TLS port.",
        )],
    ),
    (
        &[ResetBeforeResponse],
        &[
            row(
                when::IN_PATH,
                NETWORK,
                TERMINATED,
                Played(&["injected_reset"]),
                "Neither end's stack sent this reset: a firewall or middlebox between them killed the connection while a request was unanswered.",
            ),
            row(
                when::LIKELY_IN_PATH,
                OPEN_TCP,
                TERMINATED,
                FromData,
                "The reset came from nearer than the other end's part of the handshake: likely a firewall or middlebox on the way sent it, with the request unanswered; look there first.",
            ),
            row(
                when::UNKNOWN_TO_SERVER,
                OPEN_TCP,
                TERMINATED,
                Played(&["half_open"]),
                "What the client sent last reached a host that does not know the connection: the server's end had gone, the address moved to another host, or a NAT on the way forgot it (conntrack -S, nf_conntrack_tcp_timeout_established).",
            ),
            row(
                when::LOST_ANSWER,
                OPEN_TCP,
                NO_ANSWER,
                FromData,
                "The server answered, and sent its answer again until the client reset the connection, but nothing of it was acknowledged: most likely lost on the way (a firewall, one direction, large packets: MTU), so that the client waited in vain.",
            ),
            row(
                when::BY_SERVER_AFTER_CLIENTS_FIN,
                OPEN_HTTP,
                TERMINATED,
                FromData,
                "The client had shut its side down before the server reset: harmless if it had its answer, be it an early one (413) or a TLS alert; if it had given up, look at its timeout; if it still waited (a half-close), look in the server's log.",
            ),
            row(
                when::SERVER_KILLED,
                UNHEALTHY,
                TERMINATED,
                Played(&["killed_unread"]),
                "A signal killed the server's process (evidence.exit) with the request unanswered: SIGKILL is the OOM killer's (dmesg) or a supervisor's, SIGSEGV and SIGABRT are crashes, SIGTERM is a stop without draining.",
            ),
            row(
                when::SERVER_ENDED,
                OPEN_HTTP,
                TERMINATED,
                Played(&["exit_unread"]),
                "The server's process came to its end by itself (evidence.exit) before it had read or answered all: a restart, a stop without draining, a fatal error (see its log), a protocol mismatch, or a worker that ends with its connection.",
            ),
            row(
                when::LEFT_UNANSWERED,
                OPEN_HTTP,
                TERMINATED,
                Played(&["left_unanswered"]),
                "The server had closed in order with the client's last payload unanswered, and what came after that (a goodbye, the rest) was reset: look in its log for a worker that gave up, a shutdown or, if that payload wants no answer, an idle timeout.",
            ),
            row(
                when::CLOSED_BEHIND_PAYLOAD,
                OPEN_HTTP,
                TERMINATED,
                Played(&["late_request_v6"]),
                "The server had closed right behind its last payload (Connection: close, a refusal, or an idle timeout's TLS close_notify: make the client's shorter), and what the client sent then was reset: a request, the rest of one, or a goodbye.",
            ),
            row(
                when::BY_SERVER_HERE.because(&["TCP_TIMEWAIT_SOCKET"]),
                IDLE_CLOSE,
                TERMINATED,
                Played(&["late_request"]),
                "The request, or its rest, was sent after the server had closed the connection (keep-alive race, a stop, an early answer): retry, or make the client's idle timeout shorter than the server's; a late goodbye (TLS close_notify, GOAWAY) is harmless.",
            ),
            row(
                when::ABORTED_BY_SERVER.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                TERMINATED,
                Played(&["abort_unread"]),
                "The server aborted the connection on purpose (SO_LINGER 0, evidence.abort) without reading the whole request: look in its log for limits, access lists, overload protection, or a protocol mismatch (plain HTTP to a TLS port).",
            ),
            row(
                when::BY_SERVER_AFTER_PAYLOAD.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                TERMINATED,
                Played(&["pooled_close_unread"]),
                "The server had sent payload, and closed the connection without reading all of the client's: an early answer (413, 401, a limit, another protocol), which may be lost with it, or the next request of a pooled connection; look in its log.",
            ),
            row(
                when::BY_SERVER_HERE.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                TERMINATED,
                Played(&["close_unread"]),
                "The server closed the connection without reading the whole request: look in its log for limits, rejected requests, a shutdown, a crash, or a protocol mismatch (plain HTTP to a TLS port, HTTP/2 to HTTP/1).",
            ),
            row(
                when::SENT_AGAIN,
                OPEN_TCP,
                TERMINATED,
                FromData,
                "The client's last payload was not acknowledged, and packets had been sent again: most likely they are lost on the way (large ones: MTU) and the server waited in vain; else the request met a connection that the server had just reset.",
            ),
            row(
                when::MISSED_FIRST_REQUEST,
                OPEN_HTTP,
                TERMINATED_EARLY,
                FromData,
                "The server had reset the connection when its first request arrived: look there for connection limits, access lists or overload protection right after accept.",
            ),
            row(
                when::BY_SERVER_HERE.because(&["TCP_ABORT_ON_DATA"]),
                IDLE_CLOSE,
                TERMINATED,
                Played(&["data_after_shutdown"]),
                "The server had shut the connection down before the client's last words arrived: a request (look there for a stop, or timeouts shorter than the client's), or a goodbye (TLS close_notify, GOAWAY; harmless, unless what came before it had no answer).",
            ),
            row(
                when::LATE,
                IDLE_CLOSE,
                TERMINATED,
                Played(&["late_request_forgotten"]),
                "The server had closed the connection, and forgotten it, before the request was sent (keep-alive race): make the client's idle timeout shorter than the server's, or let it drop pooled connections that the server has closed.",
            ),
            row(
                when::MISSED_NEXT_REQUEST,
                IDLE_CLOSE,
                TERMINATED,
                FromData,
                "The server had reset the idle connection when the request arrived (keep-alive race): make the client's idle timeout shorter than the server's; or it aborted while a long request was still being sent.",
            ),
            row(
                when::ABORTED_BY_SERVER,
                UNHEALTHY,
                TERMINATED,
                Played(&["reset_after_request", "pooled_reset_new_request"]),
                "The server took the request and then aborted the connection on purpose (SO_LINGER 0, evidence.abort): look in its log for an error path, a worker's timeout, a shutdown, or a request that did not come whole in time.",
            ),
            row(
                when::BY_SERVER_HERE,
                UNHEALTHY,
                TERMINATED,
                FromData,
                "The server's end was reset with the request unanswered: look for who did it in its log, or an administrator's kill (ss -K) at that time.",
            ),
            row(
                when::CLIENT_ENDED,
                OPEN_HTTP,
                TERMINATED,
                Played(&["client_killed_unread"]),
                "The client's process came to its end (evidence.exit) while the answer was outstanding: look for the OOM killer (dmesg), a crash or a restart of the client.",
            ),
            row(
                when::BY_CLIENT_HERE.because(UNKNOWN_THERE),
                OPEN_TCP,
                TERMINATED,
                FromData,
                "The client's host does not know the connection: it had ended there, the address is another's by now, or a NAT on the way forgot it (conntrack -S, nf_conntrack_tcp_timeout_established).",
            ),
            row(
                when::BY_CLIENT_HERE.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                TERMINATED,
                Played(&["canceled_unread"]),
                "The client closed the connection without reading what had come: a canceled request, a crash, or it did not accept what it got (a certificate, a TLS or protocol mismatch); look in its log.",
            ),
            row(
                when::RESET_BEHIND_ANSWER,
                OPEN_HTTP,
                TERMINATED,
                FromData,
                "The client reset the connection right behind payload of the server's, with more of its own sent after that or still to go: an early answer (413, 401, a limit), a canceled request, a goodbye, or it did not accept what it got (a certificate).",
            ),
            row(
                when::DID_NOT_WAIT,
                OPEN_HTTP,
                TERMINATED,
                Played(&["client_aborts_unanswered"]),
                "The client ended the connection within 50 ms after its last payload, and reset it: a canceled request, a very short timeout, a goodbye, a health check, or it did not accept what it got (a certificate, a TLS or protocol mismatch); look in its log.",
            ),
            row(
                when::STILL_ASKED,
                OPEN_HTTP,
                TERMINATED,
                FromData,
                "The client reset the connection with payload of its own still on its way: a server that does not read it, an early answer (413), packets that are lost (retransmits, MTU), or a canceled request; compare the duration with its timeouts.",
            ),
            row(
                when::BY_CLIENT_HERE,
                GAVE_UP,
                NO_ANSWER,
                Played(&["client_times_out"]),
                "The client (a proxy, on its way upstream) reset the connection before the response came: its timeout or a canceled request; compare the duration with its timeouts, and look why the server had not answered by then, or had not got all of the request.",
            ),
            row(
                when::ALWAYS,
                OPEN,
                TERMINATED,
                FromData,
                "The other end, or a middlebox in its name, reset the connection with the request unanswered: look there for a crash, a shutdown, a timeout or a deliberate abort at that time.",
            ),
        ],
    ),
    (
        &[ResetMidStream],
        &[
            row(
                when::IN_PATH,
                NETWORK,
                BROKEN,
                FromData,
                "Neither end's stack sent this reset: a firewall or middlebox between them killed the connection in mid-stream.",
            ),
            row(
                when::LIKELY_IN_PATH,
                OPEN_TCP,
                BROKEN,
                FromData,
                "The reset came from nearer than the other end's part of the handshake: likely a firewall or middlebox on the way sent it, in mid-stream; look there first.",
            ),
            row(
                when::EXITED,
                OPEN_HTTP,
                BROKEN,
                FromData,
                "The process at the other end came to its end (evidence.exit) in mid-exchange or right after: look for the OOM killer (dmesg), a crash or a restart over there, or for a worker that ends with its connection.",
            ),
            row(
                when::LOST_ANSWER,
                OPEN_TCP,
                None,
                FromData,
                "The server's answer was sent again, and nothing of it acknowledged until the client's end reset it: most likely lost on the way (a firewall, one direction, large packets: MTU), so that the client waited in vain and gave up.",
            ),
            row(
                when::STOPPED_WAITING,
                GAVE_UP,
                None,
                Played(&["answered_too_late"]),
                "The client had waited, and closed the connection before the answer came, which its host then reset: its request timeout or a canceled request; compare the duration with the client's timeouts.",
            ),
            row(
                when::CLOSED_AND_ABORTED,
                OPEN_HTTP,
                BROKEN,
                FromData,
                "The other end closed its side and then aborted the connection on purpose (SO_LINGER 0, evidence.abort), shortly after payload: a canceled transfer, an error path, a timeout or a shutdown; look in its log.",
            ),
            row(
                when::CLOSED_UNREAD,
                OPEN_HTTP,
                None,
                Played(&["shut_unread"]),
                "The other end closed its side and reset the connection behind that, most likely with data unread: a canceled transfer, an early answer (413), a refused certificate, or a goodbye of this end's (TLS close_notify; harmless); look there.",
            ),
            row(
                when::BOTH_CLOSED,
                OPEN_TCP,
                None,
                FromData,
                "Both ends had closed and all payload had arrived when the reset came: the other end's host answered the last FIN so, because it had forgotten the connection already (net.ipv4.tcp_max_tw_buckets, TCP_LINGER2) or was in haste; harmless.",
            ),
            row(
                when::LEFT_BEHIND_ITS_FIN,
                OPEN_TCP,
                None,
                FromData,
                "The client had closed its side, and its host reset the rest with nothing of the server's on its way: it had given the connection up (TCP_LINGER2), or has a new one from the same port; harmless, unless it still waited for more (see its log).",
            ),
            row(
                when::BY_CLIENT_AFTER_ITS_FIN,
                OPEN_HTTP,
                None,
                Played(&["goodbye_answered", "goodbye_to_nobody"]),
                "The client had closed its side, and what was sent to it after that was reset: a goodbye after the last answer (TLS close_notify, GOAWAY; harmless), or it had given up waiting (compare the duration with its timeouts) or refused a certificate.",
            ),
            row(
                when::MET_A_CLOSED_SERVER,
                OPEN_HTTP,
                None,
                FromData,
                "The server had closed when the client's last words came, most likely a goodbye (TLS close_notify) or the rest of what was answered early (413), and its host reset them: harmless, unless a request before that had no answer (see the client's log).",
            ),
            row(
                when::BY_AN_END_HERE.because(UNKNOWN_THERE),
                OPEN_TCP,
                BROKEN,
                FromData,
                "The host that reset does not know the connection: it had ended there, its address is another's by now, or a NAT on the way forgot it (conntrack -S, nf_conntrack_tcp_timeout_established).",
            ),
            row(
                when::ABORTED_AFTER_FIN,
                OPEN_HTTP,
                None,
                FromData,
                "This end had closed the connection, all that it had sent had arrived, and the other one closed its side by an abort (SO_LINGER 0, evidence.abort): harmless, unless it had not yet read what this end sent last.",
            ),
            row(
                when::ABORTED_HERE,
                OPEN_HTTP,
                BROKEN,
                Played(&[
                    "client_aborts_answered",
                    "reset_mid_response",
                    "reset_after_response",
                ]),
                "The other end aborted the connection on purpose (SO_LINGER 0, evidence.abort) shortly after payload: a pool that drops its connections, an error path, a timeout or a shutdown; look in its log.",
            ),
            row(
                when::BY_AN_END_HERE.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                BROKEN,
                Played(&["reader_stuck"]),
                "The other end closed the connection without reading all that was sent to it: a goodbye (TLS close_notify), a canceled transfer, a refused certificate, an early answer (413, a limit), a reader that was stuck, or a crash; look there (reset.sender).",
            ),
            row(
                when::BY_AN_END_HERE,
                OPEN_HTTP,
                BROKEN,
                FromData,
                "The other end reset the connection shortly after payload: look there for a crash, a canceled stream, or a close with data unread.",
            ),
            row(
                when::UNDELIVERED,
                OPEN,
                BROKEN,
                FromData,
                "The other end, or a middlebox in its name, reset the connection with payload still on its way to it: a canceled transfer, a reader that was stuck or killed, or packets that were lost (MTU).",
            ),
            row(
                when::ALWAYS,
                OPEN,
                BROKEN,
                FromData,
                "The other end, or a middlebox in its name, reset the connection shortly after payload: look there for a crash, a canceled stream, or a close with data unread.",
            ),
        ],
    ),
    (
        &[ResetIdle],
        &[
            row(
                when::IN_PATH,
                NETWORK,
                None,
                FromData,
                "Neither end's stack sent this reset: a firewall or middlebox dropped the idle connection; make keep-alives more frequent than its idle timeout.",
            ),
            row(
                when::LIKELY_IN_PATH,
                OPEN_TCP,
                None,
                FromData,
                "The reset came from nearer than the other end's part of the handshake: likely a firewall or middlebox on the way dropped the idle connection; make keep-alives more frequent than its idle timeout.",
            ),
            row(
                when::EXITED,
                OPEN_HTTP,
                None,
                FromData,
                "The process at the other end came to its end (evidence.exit) while the connection was idle: harmless for a pool that retries; if nobody restarted it, look for the OOM killer (dmesg) or a crash over there.",
            ),
            row(
                when::CLOSED_FIRST,
                OPEN_HTTP,
                None,
                FromData,
                "This end had closed the connection already, and its last words, or what came late, ended in a reset: nobody here waits for it, so it is harmless.",
            ),
            row(
                when::CLOSED_AND_ABORTED,
                IDLE_CLOSE,
                None,
                Played(&["idle_closed_then_aborted"]),
                "The other end closed the idle connection and then aborted it (SO_LINGER 0, evidence.abort), by its idle timeout, a limit or a shutdown: harmless for a pool that retries; make the idle timeout here shorter than over there.",
            ),
            row(
                when::PEER_CLOSED_FIRST.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                None,
                Played(&["shut_never_read"]),
                "The other end closed its side, and the connection behind that, without reading what had come long before: it had no use for it any more, was stuck, or came to its end; look there.",
            ),
            row(
                when::PEER_CLOSED_FIRST,
                OPEN_HTTP,
                None,
                Played(&["left_in_close_wait"]),
                "The other end had closed its side before this one did, and reset what came later: harmless for a pool; where it happens often, look here for sockets that are closed late or never (ss -tn state close-wait).",
            ),
            row(
                when::NOT_READ,
                OPEN_HTTP,
                None,
                FromData,
                "This end had not read all that had come when the other one reset the connection: its process was stuck or slow until the other end gave up sending (a send timeout), or had no use for it; look at the process here first.",
            ),
            row(
                when::BY_AN_END_HERE.because(UNKNOWN_THERE),
                OPEN_TCP,
                None,
                FromData,
                "The other end's kernel no longer knew the idle connection: it had ended there and this end was never told, or its network namespace or address is another's by now; make keep-alives more frequent than idle timeouts on the way.",
            ),
            row(
                when::BY_AN_END_HERE.because(&["TCP_KEEPALIVE_TIMEOUT"]),
                NETWORK,
                None,
                FromData,
                "Keep-alive probes of the end that sent the reset went unanswered while the connection was idle: look for packets that are lost one way, a firewall or NAT that forgot the connection, or a host that stood still.",
            ),
            row(
                when::BY_AN_END_HERE.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                None,
                Played(&["never_read"]),
                "The end that sent the reset closed the connection without reading what had come long before: it gave up on it, was stuck, or came to its end; look there.",
            ),
            row(
                when::EITHER_END,
                OPEN_TCP,
                None,
                FromData,
                "The other end, or a middlebox in its name, reset a silent connection that is older than the tracer, so whether a request was unanswered is not known: harmless for a pool that retries if none was, else look there.",
            ),
            row(
                when::BY_AN_END_HERE,
                IDLE_CLOSE,
                None,
                Played(&["pooled_reset_idle", "client_aborts_idle"]),
                "The other end dropped the idle connection (its idle timeout, a limit, a shutdown): harmless for a pool that retries; make the idle timeout here shorter than over there. With TLS, a first request that was never answered can look the same.",
            ),
            row(
                when::ALWAYS,
                IDLE_CLOSE,
                None,
                FromData,
                "The other end, or a middlebox in its name, dropped the idle connection: harmless for a pool that retries; make the idle timeout here shorter than over there. With TLS, a first request that was never answered can look the same.",
            ),
        ],
    ),
    (
        &[ClosedBeforeResponse],
        &[
            row(
                when::SERVER_KILLED,
                UNHEALTHY,
                CLOSED,
                Played(&["killed_unanswered"]),
                "A signal killed the server's process (evidence.exit) with the client's last payload, a request or a pong, unanswered: look for the OOM killer (dmesg), a crash, or a stop without draining.",
            ),
            row(
                when::SERVER_ENDED,
                OPEN_HTTP,
                CLOSED,
                FromData,
                "The server's process came to its end by itself (evidence.exit) with the client's last payload unanswered: look in its log for a restart, a stop without draining or a fatal error; a goodbye, or a cancel (PostgreSQL), needs no answer.",
            ),
            row(
                when::SERVER_SENT_NOTHING,
                OPEN_HTTP,
                CLOSED,
                Played(&["closed_without_answer"]),
                "The server took the first request, then closed in order without one byte: look in its log for a worker that gave up, a request that did not come whole in time, a shutdown, or a protocol mismatch; what only takes (an upload, a log) never answers.",
            ),
            row(
                when::ALWAYS,
                OPEN_HTTP,
                CLOSED,
                Played(&["pooled_closed_without_answer"]),
                "The server closed in order without answering the client's last payload: look there for a worker that gave up, a shutdown, or an idle timeout that raced with the request; a goodbye, a refused certificate or the rest after an early answer needs none.",
            ),
        ],
    ),
    (
        &[Timeout],
        &[
            row(
                when::TOLD_UNREACHABLE,
                NETWORK,
                GAVE_UP_REACHING,
                FromData,
                "ICMP errors answered what this end sent again and again, until the kernel gave up (errno): a router has no way to the other end any more, its host is gone, or a firewall rejects what it let through before (ip route get, conntrack, nft list ruleset).",
            ),
            row(
                when::WINDOW_CLOSED,
                OPEN_HTTP,
                GAVE_UP_WAITING,
                Played(&["reader_stopped"]),
                "All that this end had sent was acknowledged, and the rest waited in vain: the other end had no room for it, as a process over there does not read (stuck, stopped; ss -tn, Recv-Q), or it was gone before it had room again.",
            ),
            row(
                when::NOTHING_LEFT,
                NETWORK,
                GAVE_UP_WAITING,
                FromData,
                "What this end had sent could not be sent again: this node itself did not let it out. Look here for a route that is gone or a blackhole (ip route get), a filter of what goes out (nft list ruleset), or an address that was removed (ip addr).",
            ),
            row(
                when::ALWAYS,
                NETWORK,
                GAVE_UP_WAITING,
                Played(&["user_timeout", "keepalive_timeout"]),
                "The other end stopped answering and the kernel gave up: look for a dead host, a dropped route, large packets that are lost (MTU), a firewall that forgot the connection, or (TCP_USER_TIMEOUT) a process over there that does not read.",
            ),
        ],
    ),
    (
        &[LocalAbort],
        &[
            row(
                when::EXITED,
                OPEN_HTTP,
                None,
                FromData,
                "The process of this end came to its end (evidence.exit) with nothing unanswered, as far as payload shows (calls over HTTP/2 may have been): harmless for a pool that retries; if nobody restarted it, look for the OOM killer (dmesg) or a crash.",
            ),
            row(
                when::WINDOW_STAYED_CLOSED,
                OPEN_HTTP,
                None,
                FromData,
                "This end reset the connection while more of its payload waited to be sent, for which the other end had no room: a process over there does not read (stuck, slow, stopped), and a send timeout, an abort or a shutdown here cut it off.",
            ),
            row(
                when::TURNED_AWAY,
                OPEN_HTTP,
                None,
                FromData,
                "This end had closed the connection as soon as it was made, before anything came, and what the client sent was reset: its limits of connections, access lists or overload protection turned the client away.",
            ),
            row(
                when::ABORTED_AFTER_FIN,
                OPEN_HTTP,
                None,
                Played(&["fin_aborted"]),
                "The other end had closed the connection, all that this one had sent had arrived, and this one closed its side by an abort (SO_LINGER 0, evidence.abort): harmless, where it had read all that it was sent.",
            ),
            row(
                when::ABORTED_BY_CLIENT,
                OPEN_HTTP,
                CLIENT_GONE,
                Played(&["client_aborts_answered"]),
                "The client aborted the connection on purpose (SO_LINGER 0, evidence.abort) with nothing unanswered, as far as payload shows: a pool that drops its connections, a canceled transfer, an error path, a timeout or a shutdown; look at the sender.",
            ),
            row(
                when::ABORTED_HERE,
                OPEN_HTTP,
                None,
                Played(&["reset_mid_response"]),
                "This end aborted the connection on purpose (SO_LINGER 0, evidence.abort) with nothing unanswered, as far as payload shows: an error path in the middle of an answer, a timeout, a limit or a shutdown; look at the sender.",
            ),
            row(
                when::GOODBYE_UNREAD.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                None,
                FromData,
                "This end closed the connection with nothing unanswered and a few bytes of the other end's unread, as many as a goodbye of TLS has (close_notify): most likely harmless.",
            ),
            row(
                when::BY_CLIENT_HERE.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                CLIENT_GONE,
                Played(&["never_read"]),
                "The client closed the connection without reading all that had come, with nothing unanswered: a goodbye (TLS close_notify; harmless), a canceled transfer, a refused certificate, or something else that it did not wait for; look at the sender.",
            ),
            row(
                when::BY_AN_END_HERE.because(&["TCP_ABORT_ON_CLOSE"]),
                OPEN_HTTP,
                None,
                FromData,
                "This end closed the connection without reading all that had come, with nothing unanswered: the rest of what it had answered early (413), a goodbye (TLS close_notify; harmless), or something else that it did not wait for; look at the sender.",
            ),
            row(
                when::BY_AN_END_HERE.because(&["TCP_ABORT_ON_DATA"]),
                OPEN_HTTP,
                None,
                FromData,
                "This end had closed, and what came then was reset: a goodbye (TLS; harmless), the rest of what it had answered early (413), a request that raced with an idle timeout, a late answer, a word about a certificate, or a mere ACK (TCP_LINGER2).",
            ),
            row(
                when::ALWAYS,
                OPEN_HTTP,
                None,
                FromData,
                "This end reset the connection with nothing unanswered, but not by an abort or with data unread: a close with TCP_LINGER2, connect() to nowhere (AF_UNSPEC), or a timer of its kernel (reset.reason); look at the sender.",
            ),
        ],
    ),
];

const fn stray_row(
    (stray, words): (StrayKind, &'static str),
    (cause, layer): (Option<Cause>, Layer),
    shown: Shown,
    hint: &'static str,
) -> StrayRow {
    StrayRow {
        stray,
        words,
        meaning: Meaning {
            cause,
            layer,
            hint,
            proxy: None,
        },
        shown,
    }
}

pub(super) const STRAY_ROWS: &[StrayRow] = &[
    stray_row(
        (StrayKind::NoListener, "sent without a socket, to a SYN"),
        NO_LISTENER,
        Played(&["refused"]),
        "Nothing listens on this local port: start the server or correct the client's address and port (ss -ltn).",
    ),
    stray_row(
        (StrayKind::FromTimeWait, "sent from TIME_WAIT"),
        OPEN_HTTP,
        Played(&["late_request"]),
        "Data arrived for a connection that this end had closed already: a request that raced with its idle timeout (make the client's shorter), one that met a process that was turning it away or had come to its end, or a goodbye, which is harmless.",
    ),
    stray_row(
        (
            StrayKind::FromClosedClient,
            "sent from TIME_WAIT, by a client's port",
        ),
        OPEN_HTTP,
        FromData,
        "Data arrived for a connection that this end, the client, had closed already: it had given up waiting for the answer (compare its timeout with the time that the server takes), had come to its end, or needed no more (a goodbye).",
    ),
    stray_row(
        (StrayKind::FromListener, "sent by a listening socket"),
        OPEN_TCP,
        Played(&["half_open", "overflow_reset"]),
        "A segment reached the listening socket without a valid handshake: a full accept queue with tcp_abort_on_overflow, a stale connection, what came behind one that had just been reset (peer_id), or a scan.",
    ),
    NO_SOCKET,
    stray_row(
        (
            StrayKind::NoSocketClient,
            "sent without a socket, by a client's port",
        ),
        OPEN_TCP,
        FromData,
        "A segment came for no connection of this end, most likely a client's: it had given up (compare its timeout with the server's time), it had been reset (look for its record), or an answer was not translated back to its address (conntrack -S, invalid).",
    ),
    stray_row(
        (StrayKind::InTimeWait, "received in TIME_WAIT"),
        OPEN_TCP,
        Played(&["reset_in_time_wait"]),
        "A reset came for a connection that both ends had closed and this one still remembered (TIME_WAIT): the other end aborted late, closed with data unread, or connects from the same port again; nobody waits for the old one any more.",
    ),
    stray_row(
        (StrayKind::HalfOpen, "received by a half-open request"),
        OPEN_TCP,
        Played(&["half_open_reset"]),
        "The answer to a SYN was reset: a health check that goes no further, a client that had given up connecting, or one that never sent that SYN (a forged address, a scan).",
    ),
    stray_row(
        (StrayKind::AtListener, "received by a listening socket"),
        OPEN_TCP,
        Played(&["reset_to_listener"]),
        "A reset came for a connection that this server does not have, and changed nothing: a second one for what has just been reset, a stale connection, or a scan.",
    ),
    stray_row(
        (
            StrayKind::Unexpected,
            "received by a connection, out of sequence",
        ),
        OPEN_TCP,
        Played(&["challenged_reset"]),
        "A reset did not have the expected sequence number, so the kernel did not obey it (RFC 5961) and the connection went on: a middlebox, a guess, or the other end's, where payload before it was lost or both ends were closing at once.",
    ),
    stray_row(
        (
            StrayKind::Ignored,
            "received by a listening socket, or by a connection out of sequence",
        ),
        OPEN_TCP,
        FromData,
        "A reset came and changed nothing: for a listening socket, or for a connection without the expected sequence number (RFC 5961). A stale connection, a scan, a middlebox or a guess.",
    ),
];
/// Whatever else it is.
pub(super) const NO_SOCKET: StrayRow = stray_row(
    (StrayKind::NoSocket, "sent without a socket"),
    OPEN_TCP,
    FromData,
    "A segment came for a connection that this host does not know: it had given it up or reset it (look for its record), a NAT here forgot it (conntrack), the host restarted, or the address moved here from another one.",
);

/// Envoy's UH.
pub const NO_HEALTHY_HOST: &str = "Envoy had no healthy host to try, so no connection was made: look at /clusters for failed health checks and outlier ejections, and at the failures before this one.";
/// Envoy's UO.
pub const BREAKER_OPEN: &str = "A circuit breaker was open (too many connections, requests, pending requests or retries), so no connection was made: look at the cluster's upstream_rq_pending_overflow and upstream_cx_overflow.";
/// A response that a proxy could not read.
pub const NOT_UNDERSTOOD: &str = "The connection worked, but the proxy did not understand what the upstream sent: look for HTTP/1 against HTTP/2, plaintext against TLS, or headers beyond the proxy's limits.";

pub(super) const UNSEEN_ROWS: &[UnseenRow] = &[
    UnseenRow {
        words: "no host was healthy",
        meaning: Meaning {
            cause: Some(Cause::UnhealthyEndpoint),
            layer: Layer::None,
            hint: NO_HEALTHY_HOST,
            proxy: Some(words(
                "UH",
                "no healthy upstream",
                "no healthy upstream",
                "no live upstreams while connecting to upstream",
            )),
        },
    },
    UnseenRow {
        words: "the pool was full",
        meaning: Meaning {
            cause: Some(Cause::Exhaustion),
            layer: Layer::None,
            hint: BREAKER_OPEN,
            proxy: Some(words(
                "UO",
                "overflow",
                "overflow",
                "no live upstreams while connecting to upstream",
            )),
        },
    },
    UnseenRow {
        words: "the answer was not understood",
        meaning: Meaning {
            cause: Some(Cause::ProtocolMismatch),
            layer: Layer::Http,
            hint: NOT_UNDERSTOOD,
            proxy: Some(words(
                "UPE",
                "protocol error",
                "protocol error",
                "upstream sent invalid header while reading response header from upstream",
            )),
        },
    },
];
