//! The playbook: what each failure means, where it lies, what to check next, and what the proxies call it.
//!
//! One table, top to bottom: the first row that fits what is known of a connection. Where the facts carry no
//! cause, none is named. A test holds each row against the scenarios that are played on real kernels.
//! Sources of the proxies' words: Envoy 1.40 `source/common/router/router.cc` (streamResetReasonToResponseFlag)
//! and `source/common/http/utility.cc` (resetReasonToString), and the strings of releases before these were
//! split; nginx `src/os/unix/ngx_errno.c` and `src/http/ngx_http_upstream.c`. Must not know: how a verdict is reached.

use std::fmt::Write as _;

use upstream_trace_common::event::kind;

use crate::record::{
    Bytes, Cause, Direction, Layer, Origin, ProxyWords, Role,
    Verdict::{
        self, ClosedBeforeResponse, ConnectCanceled, ConnectTimeout, LocalAbort, NeverAccepted,
        NoLocalPort, Probe, Refused, ResetBeforePayload, ResetBeforeResponse, ResetIdle,
        ResetMidStream, Timeout, Unreachable,
    },
};

/// What a row is chosen by.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// What became of the connection.
    pub verdict: Verdict,
    /// Which end this socket was.
    pub role: Role,
    /// Which way the reset went, whose stack sent it, and the kernel's reason for it.
    pub reset: Option<(Direction, Origin, Option<&'a str>)>,
    /// What the application was told.
    pub errno: Option<&'static str>,
    /// Payload.
    pub bytes: Bytes,
}

/// An end of the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

/// What has to be known besides the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence {
    /// Nothing.
    None,
    /// The reset came from neither end.
    InPath,
    /// The reset came from a stack on this node, for one of these reasons (empty: any or none), and this
    /// end sent it (`None`: either).
    OnNode(&'static [&'static str], Option<End>),
    /// That end's side sent the reset.
    SentBy(End),
    /// This end was told so.
    Errno(&'static str),
    /// In all the server sent [`ALERT`] bytes, after as much as a TLS client opens with, and ended it.
    Alert,
    /// The server sent nothing at all.
    FirstExchange,
}

/// A TLS alert that is not encrypted: a record's header, the level, the description.
const ALERT: u64 = 7;
/// What a TLS client or an HTTP request opens with; a shorter exchange may be any protocol's.
const HELLO: std::ops::RangeInclusive<u64> = 64..=4096;

impl Evidence {
    fn holds(self, about: &About<'_>) -> bool {
        let Bytes { sent, received, .. } = about.bytes;
        let (by_client, by_server) = match about.role {
            Role::Server => (received, sent),
            _ => (sent, received),
        };
        match self {
            Self::None => true,
            Self::InPath => matches!(about.reset, Some((_, Origin::InPath, _))),
            Self::OnNode(reasons, end) => about.reset.is_some_and(|(_, origin, reason)| {
                matches!(origin, Origin::Local | Origin::PeerOnNode)
                    && (reasons.is_empty() || reason.is_some_and(|known| reasons.contains(&known)))
                    && end.is_none_or(|end| about.sender() == Some(end))
            }),
            Self::SentBy(end) => about.sender() == Some(end),
            Self::Errno(name) => about.errno == Some(name),
            Self::Alert => {
                let ended_by_server = about.reset.is_none() || about.sender() == Some(End::Server);
                ended_by_server
                    && by_server == Some(ALERT)
                    && by_client.is_some_and(|bytes| HELLO.contains(&bytes))
            }
            Self::FirstExchange => by_server == Some(0),
        }
    }

    /// For the table in README.
    fn words(self) -> String {
        let name = |end| match end {
            End::Client => "the client",
            End::Server => "the server",
        };
        match self {
            Self::None => "-".to_owned(),
            Self::InPath => "the reset came from neither end".to_owned(),
            Self::OnNode(reasons, end) => {
                let end = end.map_or("an end", name);
                let mut text = format!("reset by {end}, which is on this node");
                for (index, reason) in reasons.iter().enumerate() {
                    let before = if index == 0 { ": " } else { ", " };
                    text += before;
                    text += reason;
                }
                text
            }
            Self::SentBy(end) => format!("reset by {}", name(end)),
            Self::Errno(errno) => format!("told {errno}"),
            Self::Alert => format!(
                "ended by the server, which sent {ALERT} bytes in all, the client {} to {}",
                HELLO.start(),
                HELLO.end()
            ),
            Self::FirstExchange => "the server sent nothing at all".to_owned(),
        }
    }
}

impl About<'_> {
    fn end(&self) -> End {
        match self.role {
            Role::Server => End::Server,
            Role::Client | Role::Unknown => End::Client,
        }
    }

    /// Which end sent the reset; `None` where there was none, or neither did.
    fn sender(&self) -> Option<End> {
        match (self.reset?, self.end()) {
            ((_, Origin::InPath, _), _) => None,
            ((Direction::Sent, ..), end) => Some(end),
            ((Direction::Received, ..), End::Client) => Some(End::Server),
            ((Direction::Received, ..), End::Server) => Some(End::Client),
        }
    }
}

/// What shows that the row is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// These scenarios end in it, one end or both.
    Played(&'static [&'static str]),
    /// It takes a firewall, another machine or an administrator, so it is tested from data only.
    FromData,
    /// Not visible in the kernel.
    NotInTheKernel,
}

/// What is said of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// The root cause; `None` where what is known carries none.
    pub cause: Option<Cause>,
    /// Where it lies.
    pub layer: Layer,
    /// What it means and the next thing to check.
    pub hint: &'static str,
    /// What a proxy reports whose upstream connection, or that of whose client's, ended this way.
    pub proxy: Option<ProxyWords<'static>>,
}

/// A row about connections.
#[derive(Clone, Copy, Debug)]
struct Row {
    verdicts: &'static [Verdict],
    evidence: Evidence,
    meaning: Meaning,
    shown: Shown,
}

const fn words(
    envoy_flag: &'static str,
    envoy_reason: &'static str,
    envoy_reason_old: &'static str,
    nginx_error: &'static str,
) -> Option<ProxyWords<'static>> {
    Some(ProxyWords {
        envoy_flag,
        envoy_reason,
        envoy_reason_old,
        envoy_flag_other: None,
        envoy_reason_other: None,
        nginx_error,
    })
}

const REFUSED: Option<ProxyWords<'_>> = words(
    "UF",
    "remote connection failure, delayed connect error: Connection refused",
    "connection failure, delayed connect error: 111",
    "connect() failed (111: Connection refused) while connecting to upstream",
);
const CONNECT_TIMEOUT: Option<ProxyWords<'_>> = words(
    "UF",
    "connection timeout",
    "connection failure",
    "upstream timed out (110: Connection timed out) while connecting to upstream",
);
const NO_ROUTE: Option<ProxyWords<'_>> = words(
    "UF",
    "remote connection failure, delayed connect error: No route to host",
    "connection failure, delayed connect error: 113",
    "connect() failed (113: No route to host) while connecting to upstream",
);
const NO_NETWORK: Option<ProxyWords<'_>> = words(
    "UF",
    "remote connection failure, delayed connect error: Network is unreachable",
    "connection failure, delayed connect error: 101",
    "connect() failed (101: Network is unreachable) while connecting to upstream",
);
const NO_PORT: Option<ProxyWords<'_>> = words(
    "UF",
    "local connection failure, immediate connect error: Cannot assign requested address",
    "connection failure, immediate connect error: 99",
    "connect() failed (99: Cannot assign requested address) while connecting to upstream",
);
const NO_ANSWER: Option<ProxyWords<'_>> = words(
    "UT",
    "upstream request timeout",
    "upstream request timeout",
    "upstream timed out (110: Connection timed out) while reading response header from upstream",
);
const TERMINATED: Option<ProxyWords<'_>> = words(
    "UC",
    "connection termination",
    "connection termination",
    "recv() failed (104: Connection reset by peer) while reading response header from upstream",
);
/// The reset may beat Envoy's own look at the connection; with TLS it is not connected before its handshake.
const TERMINATED_EARLY: Option<ProxyWords<'_>> = Some(ProxyWords {
    envoy_flag: "UC",
    envoy_reason: "connection termination",
    envoy_reason_old: "connection termination",
    envoy_flag_other: Some("UF"),
    envoy_reason_other: Some(
        "remote connection failure, delayed connect error: Connection reset by peer",
    ),
    nginx_error: "recv() failed (104: Connection reset by peer) while reading response header from upstream",
});
const CLOSED: Option<ProxyWords<'_>> = words(
    "UC",
    "connection termination",
    "connection termination",
    "upstream prematurely closed connection while reading response header from upstream",
);
const BROKEN: Option<ProxyWords<'_>> = words(
    "UPE",
    "protocol error",
    "protocol error",
    "recv() failed (104: Connection reset by peer) while reading upstream",
);
const CLIENT_GONE: Option<ProxyWords<'_>> = words(
    "DC",
    "downstream disconnected",
    "downstream disconnected",
    "client prematurely closed connection",
);
/// After a failed TLS handshake.
const TLS: Option<ProxyWords<'_>> = words(
    "UF",
    "remote connection failure, TLS error",
    "connection failure, TLS error",
    "SSL_do_handshake() failed while SSL handshaking to upstream",
);

const fn row(
    verdicts: &'static [Verdict],
    evidence: Evidence,
    (cause, layer): (Option<Cause>, Layer),
    proxy: Option<ProxyWords<'static>>,
    shown: Shown,
    hint: &'static str,
) -> Row {
    Row {
        verdicts,
        evidence,
        meaning: Meaning {
            cause,
            layer,
            hint,
            proxy,
        },
        shown,
    }
}

use Evidence::{Alert, Errno, FirstExchange, InPath, OnNode, SentBy};
use Shown::{FromData, NotInTheKernel, Played};

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

const ROWS: &[Row] = &[
    row(
        &[Refused],
        InPath,
        FIREWALL,
        REFUSED,
        FromData,
        "A firewall rule answered the SYN with a reset, not the server: look for REJECT rules on the way (nft list ruleset).",
    ),
    row(
        &[Refused],
        OnNode(&[], None),
        NO_LISTENER,
        REFUSED,
        Played(&["refused", "refused_v6", "retry_same_fd"]),
        "Nothing accepts connections on the remote port: check that the server runs and on which address and port it listens (ss -ltn).",
    ),
    row(
        &[Refused],
        Evidence::None,
        OPEN_TCP,
        REFUSED,
        FromData,
        "A reset answered the SYN: check on the server's host that it listens on this address and port (ss -ltn); if it does, a firewall on the way answers for it.",
    ),
    row(
        &[ConnectTimeout],
        Evidence::None,
        NETWORK,
        CONNECT_TIMEOUT,
        Played(&["connect_timeout", "connect_user_timeout"]),
        "No SYN was answered until the kernel gave up: look for a firewall that drops, a wrong address, or a full accept queue at the server (ss -ltn, Recv-Q against Send-Q).",
    ),
    row(
        &[ConnectCanceled],
        Evidence::None,
        NETWORK,
        CONNECT_TIMEOUT,
        Played(&["connect_canceled", "connect_canceled_lost"]),
        "The connecting process gave up while its SYN was unanswered: its own connect timeout; look for packet drops or a full accept queue on the way to the server.",
    ),
    row(
        &[Unreachable],
        Errno("ECONNREFUSED"),
        FIREWALL,
        REFUSED,
        FromData,
        "An ICMP port unreachable answered the SYN: a firewall rejects the connection, because a server without a listener would have sent a reset.",
    ),
    row(
        &[Unreachable],
        Errno("ENETUNREACH"),
        NETWORK,
        NO_NETWORK,
        Played(&["unreachable_net"]),
        "A router answered the SYN with an ICMP error, or there is no route: check the routes on the way (ip route get, traceroute -T).",
    ),
    row(
        &[Unreachable],
        Evidence::None,
        NETWORK,
        NO_ROUTE,
        Played(&["unreachable_host"]),
        "Routing failed or a router answered the SYN with an ICMP error: check the route (ip route get), ARP or neighbour entries, and REJECT rules of firewalls.",
    ),
    row(
        &[NoLocalPort],
        Evidence::None,
        EXHAUSTION,
        NO_PORT,
        Played(&["no_local_port"]),
        "connect() failed before any SYN left, for want of a local port: check net.ipv4.ip_local_port_range and how many connections to this destination are open or in TIME_WAIT.",
    ),
    row(
        &[NeverAccepted],
        SentBy(End::Client),
        OPEN_TCP,
        NO_ANSWER,
        Played(&["unaccepted_reset", "unaccepted_request_reset"]),
        "The other end gave up before any process accepted the connection: harmless if it lasted only microseconds (a health check), else the server is stuck, its accept queue is long, or it is out of file descriptors.",
    ),
    row(
        &[NeverAccepted],
        Evidence::None,
        (Some(Cause::UnhealthyEndpoint), Layer::Tcp),
        NO_ANSWER,
        Played(&["listener_closed", "listener_closed_request"]),
        "The kernel completed the handshake but no process accepted the connection before it ended: the server stopped listening, is stuck, or is out of file descriptors (ss -ltn, Recv-Q).",
    ),
    row(
        &[ResetBeforePayload],
        InPath,
        NETWORK,
        TERMINATED_EARLY,
        FromData,
        "Neither end's stack sent this reset: a firewall or middlebox between them did, before any payload.",
    ),
    row(
        &[ResetBeforePayload],
        OnNode(&["INVALID_SYN"], None),
        EXHAUSTION,
        TERMINATED_EARLY,
        Played(&["overflow_reset"]),
        "The server's accept queue was full and net.ipv4.tcp_abort_on_overflow made its kernel reset the connection: the server accepts too slowly or its backlog is too small.",
    ),
    row(
        &[ResetBeforePayload],
        OnNode(&["TCP_TIMEWAIT_SOCKET", "TCP_ABORT_ON_DATA"], None),
        IDLE_CLOSE,
        TERMINATED_EARLY,
        Played(&["data_after_shutdown_first"]),
        "The server had closed the connection before the client's first payload arrived: make the client's idle timeouts shorter than the server's.",
    ),
    row(
        &[ResetBeforePayload],
        OnNode(&[], Some(End::Client)),
        OPEN,
        TERMINATED_EARLY,
        FromData,
        "This connection was reset from the client's end before any payload, by someone other than its owner: look at who the sender is.",
    ),
    row(
        &[ResetBeforePayload],
        OnNode(&[], Some(End::Server)),
        OPEN_HTTP,
        TERMINATED_EARLY,
        Played(&["reset_after_accept", "reset_after_accept_v6"]),
        "The server completed the handshake and reset before any payload: look in its log for connection limits, access lists, a TLS or protocol mismatch, or a crash right after accept.",
    ),
    row(
        &[ResetBeforePayload],
        Evidence::None,
        OPEN,
        TERMINATED_EARLY,
        FromData,
        "The other end, or a middlebox in its name, completed the handshake and reset before any payload: look there for connection limits, access lists, a TLS or protocol mismatch, or a crash right after accept.",
    ),
    row(
        &[Probe],
        Evidence::None,
        OPEN,
        None,
        Played(&["health_check"]),
        "The end that connected reset its own connection without sending anything: a TCP health check of a load balancer or a port scan; harmless unless unexpected.",
    ),
    row(
        &[
            ResetBeforeResponse,
            ResetMidStream,
            ClosedBeforeResponse,
            LocalAbort,
        ],
        Alert,
        TLS_MISMATCH,
        TLS,
        Played(&["alert_then_reset"]),
        "Likely TLS: the handshake of TCP completed, bytes went both ways, the server sent just 7, the size of a TLS alert, and it ended. Not decoded; check SNI, ALPN, versions, certificates, and plaintext to a TLS port.",
    ),
    row(
        &[ResetBeforeResponse],
        InPath,
        NETWORK,
        TERMINATED,
        FromData,
        "Neither end's stack sent this reset: a firewall or middlebox between them killed the connection while a request was unanswered.",
    ),
    row(
        &[ResetBeforeResponse],
        OnNode(&["TCP_TIMEWAIT_SOCKET"], Some(End::Server)),
        IDLE_CLOSE,
        TERMINATED,
        Played(&["late_request", "late_request_v6"]),
        "The request was sent after the server had closed the connection (keep-alive race): make the client's idle timeout shorter than the server's keep-alive timeout, or retry.",
    ),
    row(
        &[ResetBeforeResponse],
        OnNode(&["NO_SOCKET", "TCP_FLAGS"], Some(End::Server)),
        (Some(Cause::UnhealthyEndpoint), Layer::Tcp),
        TERMINATED,
        Played(&["half_open"]),
        "The request reached a host that no longer knows the connection: the server restarted, or the address moved to another host.",
    ),
    row(
        &[ResetBeforeResponse],
        OnNode(&["TCP_ABORT_ON_CLOSE"], Some(End::Server)),
        UNHEALTHY,
        TERMINATED,
        Played(&["close_unread", "pooled_close_unread", "killed_unread"]),
        "The server closed the connection without reading the whole request: look in its log for limits, rejected requests, a shutdown or a crash.",
    ),
    row(
        &[ResetBeforeResponse],
        OnNode(&["TCP_ABORT_ON_DATA"], Some(End::Server)),
        IDLE_CLOSE,
        TERMINATED,
        Played(&["data_after_shutdown"]),
        "The server had shut the connection down before the request arrived: look there for timeouts that are shorter than the client's.",
    ),
    row(
        &[ResetBeforeResponse],
        OnNode(&[], Some(End::Server)),
        UNHEALTHY,
        TERMINATED,
        Played(&["reset_after_request", "pooled_reset_new_request"]),
        "The server reset the connection with the request unanswered: look in its log for a crash, a shutdown, or a deliberate abort (SO_LINGER 0) at that time.",
    ),
    row(
        &[ResetBeforeResponse],
        OnNode(&[], Some(End::Client)),
        GAVE_UP,
        TERMINATED,
        Played(&["client_aborts_unanswered"]),
        "The client reset the connection before the response came: its request timeout or a canceled request; compare the duration with the client's timeouts.",
    ),
    row(
        &[ResetBeforeResponse],
        Evidence::None,
        OPEN,
        TERMINATED,
        FromData,
        "The other end, or a middlebox in its name, reset the connection with the request unanswered: look there for a crash, a shutdown, a timeout or a deliberate abort at that time.",
    ),
    row(
        &[ResetMidStream],
        InPath,
        NETWORK,
        BROKEN,
        FromData,
        "Neither end's stack sent this reset: a firewall or middlebox between them killed the connection in mid-stream.",
    ),
    row(
        &[ResetMidStream],
        OnNode(&[], None),
        OPEN_HTTP,
        BROKEN,
        Played(&[
            "reset_mid_response",
            "reset_after_response",
            "client_aborts_answered",
        ]),
        "The other end reset the connection shortly after payload: look there for a crash, a canceled stream, or a close with data unread.",
    ),
    row(
        &[ResetMidStream],
        Evidence::None,
        OPEN,
        BROKEN,
        FromData,
        "The other end, or a middlebox in its name, reset the connection shortly after payload: look there for a crash, a canceled stream, or a close with data unread.",
    ),
    row(
        &[ResetIdle],
        InPath,
        NETWORK,
        None,
        FromData,
        "Neither end's stack sent this reset: a firewall or middlebox dropped the idle connection; make keep-alives more frequent than its idle timeout.",
    ),
    row(
        &[ResetIdle],
        Evidence::None,
        IDLE_CLOSE,
        None,
        Played(&["pooled_reset_idle", "client_aborts_idle"]),
        "The other end, or a middlebox in its name, dropped the idle connection: harmless for a pool that retries; make the idle timeout here shorter than over there.",
    ),
    row(
        &[ClosedBeforeResponse],
        FirstExchange,
        OPEN_HTTP,
        CLOSED,
        Played(&["closed_without_answer"]),
        "The handshake completed and the server took the first request, then closed in order without one byte: look in its log for a worker that gave up, a shutdown, or a protocol mismatch (HTTP/2 or TLS against plain HTTP/1).",
    ),
    row(
        &[ClosedBeforeResponse],
        Evidence::None,
        OPEN_HTTP,
        CLOSED,
        Played(&["pooled_closed_without_answer"]),
        "The server closed the connection in order without answering the last request: look there for a worker that gave up, a shutdown, or an idle timeout that raced with the request.",
    ),
    row(
        &[Timeout],
        Evidence::None,
        NETWORK,
        NO_ANSWER,
        Played(&["user_timeout", "keepalive_timeout"]),
        "The other end stopped answering and the kernel gave up: look for a dead host, a dropped route, large packets that are lost (MTU), or a firewall that forgot the connection.",
    ),
    row(
        &[LocalAbort],
        Evidence::None,
        OPEN_HTTP,
        CLIENT_GONE,
        Played(&["client_aborts_answered", "reset_mid_response"]),
        "This end reset the connection after an answered exchange: a close with data unread, SO_LINGER 0, or a killed process; look at the sender.",
    ),
];

/// A row about resets that no connection's socket sent.
#[derive(Clone, Copy, Debug)]
struct StrayRow {
    kind: Option<u8>,
    /// Whether it has to answer a SYN.
    syn: bool,
    words: &'static str,
    meaning: Meaning,
    shown: Shown,
}

const fn stray_row(
    (kind, syn, words): (Option<u8>, bool, &'static str),
    (cause, layer): (Option<Cause>, Layer),
    shown: Shown,
    hint: &'static str,
) -> StrayRow {
    StrayRow {
        kind,
        syn,
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

const STRAY_ROWS: &[StrayRow] = &[
    stray_row(
        (
            Some(kind::RESET_SENT_NO_SOCKET),
            true,
            "without a socket, to a SYN",
        ),
        NO_LISTENER,
        Played(&["refused"]),
        "Nothing listens on this local port: start the server or correct the client's address and port (ss -ltn).",
    ),
    stray_row(
        (Some(kind::RESET_SENT_TIME_WAIT), false, "from TIME_WAIT"),
        IDLE_CLOSE,
        Played(&["late_request"]),
        "Data arrived for a connection that this end had closed already (keep-alive race): make the client's idle timeout shorter than this server's keep-alive timeout.",
    ),
    stray_row(
        (
            Some(kind::RESET_SENT_LISTEN),
            false,
            "by a listening socket",
        ),
        OPEN_TCP,
        Played(&["half_open", "overflow_reset"]),
        "A segment reached the listening socket without a valid handshake: a full accept queue with tcp_abort_on_overflow, a stale connection, or a scan.",
    ),
    STRANGER,
];
/// Whatever else it is.
const STRANGER: StrayRow = stray_row(
    (None, false, "without a socket"),
    OPEN_TCP,
    FromData,
    "A segment arrived for a connection that this host does not know: it restarted, or the address moved here from another host.",
);

/// A row about what a proxy reports without a failed connection behind it.
#[derive(Clone, Copy, Debug)]
struct UnseenRow {
    words: &'static str,
    meaning: Meaning,
}

/// Envoy's UH.
pub const NO_HEALTHY_HOST: &str = "Envoy had no healthy host to try, so no connection was made: look at /clusters for failed health checks and outlier ejections, and at the failures before this one.";
/// Envoy's UO.
pub const BREAKER_OPEN: &str = "A circuit breaker was open (too many connections, requests, pending requests or retries), so no connection was made: look at the cluster's upstream_rq_pending_overflow and upstream_cx_overflow.";
/// A response that a proxy could not read.
pub const NOT_UNDERSTOOD: &str = "The connection worked, but the proxy did not understand what the upstream sent: look for HTTP/1 against HTTP/2, plaintext against TLS, or headers beyond the proxy's limits.";

const UNSEEN_ROWS: &[UnseenRow] = &[
    UnseenRow {
        words: "no host was healthy",
        meaning: Meaning {
            cause: Some(Cause::UnhealthyEndpoint),
            layer: Layer::None,
            hint: NO_HEALTHY_HOST,
            proxy: words(
                "UH",
                "no healthy upstream",
                "no healthy upstream",
                "no live upstreams while connecting to upstream",
            ),
        },
    },
    UnseenRow {
        words: "the pool was full",
        meaning: Meaning {
            cause: Some(Cause::Exhaustion),
            layer: Layer::None,
            hint: BREAKER_OPEN,
            proxy: words(
                "UO",
                "overflow",
                "overflow",
                "no live upstreams while connecting to upstream",
            ),
        },
    },
    UnseenRow {
        words: "the answer was not understood",
        meaning: Meaning {
            cause: Some(Cause::ProtocolMismatch),
            layer: Layer::Http,
            hint: NOT_UNDERSTOOD,
            proxy: words(
                "UPE",
                "protocol error",
                "protocol error",
                "upstream sent invalid header while reading response header from upstream",
            ),
        },
    },
];

/// What the playbook says; `None` for `ok`.
pub fn meaning(about: &About<'_>) -> Option<&'static Meaning> {
    let fits = |row: &&Row| row.verdicts.contains(&about.verdict) && row.evidence.holds(about);
    ROWS.iter().find(fits).map(|row| &row.meaning)
}

/// What it says of a reset without a connection's socket; `syn` where it answered a SYN.
pub fn stray(kind: u8, syn: bool) -> &'static Meaning {
    let fits = |row: &&StrayRow| row.kind.is_none_or(|of| of == kind) && (syn || !row.syn);
    STRAY_ROWS
        .iter()
        .find(fits)
        .map_or(&STRANGER.meaning, |row| &row.meaning)
}

/// Each verdict with the proxies' words that a row has for it.
#[cfg(test)]
pub(crate) fn spoken() -> impl Iterator<Item = (Verdict, ProxyWords<'static>)> {
    ROWS.iter().flat_map(|row| {
        let words = row.meaning.proxy;
        let verdicts = row.verdicts.iter();
        verdicts.filter_map(move |&verdict| Some((verdict, words?)))
    })
}

/// The whole table in Markdown, as README shows it.
pub fn table() -> String {
    let mut text = String::from(
        "| what became of it | what is known besides | `cause` | `layer` | Envoy | Envoy before | NGINX | `hint` | shown by |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let code = |text: &str| format!("`{text}`");
    for row in ROWS {
        let verdicts: Vec<_> = row
            .verdicts
            .iter()
            .map(|verdict| code(verdict.as_str()))
            .collect();
        let evidence = row.evidence.words();
        line(
            &mut text,
            &verdicts.join(", "),
            &evidence,
            &row.meaning,
            row.shown,
        );
    }
    for row in STRAY_ROWS {
        line(
            &mut text,
            "`reset` line",
            row.words,
            &row.meaning,
            row.shown,
        );
    }
    for row in UNSEEN_ROWS {
        line(&mut text, "-", row.words, &row.meaning, NotInTheKernel);
    }
    text
}

fn line(text: &mut String, what: &str, known: &str, meaning: &Meaning, shown: Shown) {
    let code = |text: &str| format!("`{text}`");
    let cause = meaning
        .cause
        .map_or("-".to_owned(), |cause| code(cause.as_str()));
    let [envoy, before, nginx] = meaning.proxy.map_or(["-"; 3].map(str::to_owned), |proxy| {
        let mut envoy = format!("{} {}", code(proxy.envoy_flag), proxy.envoy_reason);
        if let (Some(flag), Some(reason)) = (proxy.envoy_flag_other, proxy.envoy_reason_other) {
            envoy += &format!(", or {} {reason}", code(flag));
        }
        [
            envoy,
            proxy.envoy_reason_old.to_owned(),
            proxy.nginx_error.to_owned(),
        ]
    });
    let shown = match shown {
        Played(names) => names.join(", "),
        FromData => "data only".to_owned(),
        NotInTheKernel => "not visible in the kernel".to_owned(),
    };
    let layer = code(meaning.layer.as_str());
    let hint = meaning.hint;
    // Writing into a string cannot fail.
    let _ = writeln!(
        text,
        "| {what} | {known} | {cause} | {layer} | {envoy} | {before} | {nginx} | {hint} | {shown} |"
    );
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, env, fs, path::Path};

    use super::*;

    fn about(verdict: Verdict, role: Role) -> About<'static> {
        About {
            verdict,
            role,
            reset: None,
            errno: None,
            bytes: Bytes::default(),
        }
    }

    fn every(mut each: impl FnMut(&About<'_>)) {
        let reasons = [
            None,
            Some("NO_SOCKET"),
            Some("TCP_ABORT_ON_CLOSE"),
            Some("INVALID_SYN"),
            Some("TCP_TIMEWAIT_SOCKET"),
            Some("TCP_ABORT_ON_DATA"),
        ];
        let amounts = [None, Some(0), Some(ALERT), Some(*HELLO.start())];
        for &verdict in Verdict::ALL {
            for &role in Role::ALL {
                for errno in [None, Some("ECONNREFUSED"), Some("ENETUNREACH")] {
                    for (sent, received) in amounts
                        .iter()
                        .flat_map(|&sent| amounts.map(|received| (sent, received)))
                    {
                        let about = About {
                            errno,
                            bytes: Bytes {
                                sent,
                                received,
                                acked: None,
                            },
                            ..about(verdict, role)
                        };
                        each(&about);
                        for &direction in Direction::ALL {
                            for &origin in Origin::ALL {
                                for reason in reasons {
                                    each(&About {
                                        reset: Some((direction, origin, reason)),
                                        ..about
                                    });
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_failure_has_a_row_and_every_row_is_the_outcome_of_something() {
        let mut reached = HashSet::new();
        every(|about| {
            let meaning = meaning(about);
            assert_eq!(meaning.is_none(), about.verdict == Verdict::Ok, "{about:?}");
            reached.extend(meaning.map(|meaning| meaning.hint));
        });
        for row in ROWS {
            assert!(reached.contains(row.meaning.hint), "{row:?}");
        }
    }

    #[test]
    fn a_hint_belongs_to_one_row_and_is_one_sentence_to_read() {
        let connections = ROWS.iter().map(|row| row.meaning);
        let strays = STRAY_ROWS.iter().map(|row| row.meaning);
        let unseen = UNSEEN_ROWS.iter().map(|row| row.meaning);
        let mut hints = HashSet::new();
        for Meaning { hint, .. } in connections.chain(strays).chain(unseen) {
            assert!(hint.ends_with('.') && hint.len() < 250, "{hint}");
            assert!(!hint.contains('|'), "{hint}");
            assert!(hints.insert(hint), "{hint}");
        }
    }

    #[test]
    fn where_both_ends_are_not_known_no_end_is_accused() {
        every(|about| {
            let Some((_, Origin::OffNode | Origin::Unknown, _)) = about.reset else {
                return;
            };
            let cause = meaning(about).and_then(|meaning| meaning.cause);
            let accuses_server = cause == Some(Cause::UnhealthyEndpoint);
            let accuses_client = cause == Some(Cause::ClientGaveUp);
            let never_accepted = about.verdict == NeverAccepted;
            assert!(
                !accuses_client && (!accuses_server || never_accepted),
                "{about:?}"
            );
        });
    }

    #[test]
    fn tls_is_named_only_where_the_server_ended_it_after_an_alerts_bytes() {
        let alert = About {
            reset: Some((Direction::Received, Origin::OffNode, None)),
            bytes: Bytes {
                sent: Some(517),
                received: Some(ALERT),
                acked: Some(517),
            },
            ..about(ResetMidStream, Role::Client)
        };
        let cause = |about: &About<'_>| meaning(about).and_then(|meaning| meaning.cause);
        assert_eq!(cause(&alert), Some(Cause::TlsMismatch));
        let received = |bytes| About {
            bytes: Bytes {
                received: Some(bytes),
                ..alert.bytes
            },
            ..alert
        };
        // Redis answers a PING of 14 bytes by 7.
        let ping = About {
            bytes: Bytes {
                sent: Some(14),
                ..alert.bytes
            },
            ..alert
        };
        let by_client = About {
            reset: Some((Direction::Sent, Origin::Local, None)),
            ..alert
        };
        let in_path = About {
            reset: Some((Direction::Received, Origin::InPath, None)),
            ..alert
        };
        for other in [received(6), received(150), ping, by_client, in_path] {
            assert_ne!(cause(&other), Some(Cause::TlsMismatch), "{other:?}");
        }
        assert!(
            meaning(&About {
                verdict: Verdict::Ok,
                ..alert
            })
            .is_none()
        );
    }

    #[test]
    fn an_end_is_not_accused_of_what_the_other_did() {
        let unread = |role, direction, origin| About {
            reset: Some((direction, origin, Some("TCP_ABORT_ON_CLOSE"))),
            ..about(ResetBeforeResponse, role)
        };
        let hint = |about: &About<'_>| meaning(about).unwrap().hint;
        let by_server = [
            unread(Role::Client, Direction::Received, Origin::PeerOnNode),
            unread(Role::Server, Direction::Sent, Origin::Local),
        ];
        let by_client = [
            unread(Role::Client, Direction::Sent, Origin::Local),
            unread(Role::Server, Direction::Received, Origin::PeerOnNode),
        ];
        for about in by_server {
            assert!(hint(&about).starts_with("The server closed"), "{about:?}");
        }
        for about in by_client {
            assert!(hint(&about).starts_with("The client reset"), "{about:?}");
        }
    }

    /// `UPDATE_PLAYBOOK=1 cargo test -p upstream-trace --lib playbook` writes it.
    #[test]
    fn readme_has_the_table() {
        const BEGIN: &str = "<!-- playbook:begin -->\n";
        const END: &str = "<!-- playbook:end -->";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let readme = fs::read_to_string(&path).unwrap();
        let (before, rest) = readme.split_once(BEGIN).unwrap();
        let (shown, after) = rest.split_once(END).unwrap();
        if env::var_os("UPDATE_PLAYBOOK").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", table())).unwrap();
        } else {
            assert!(shown == table(), "UPDATE_PLAYBOOK=1 renews README.md");
        }
    }
}
