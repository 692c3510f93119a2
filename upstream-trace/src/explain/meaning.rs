//! What a proxy's words mean for the kernel: which verdicts a connection can have behind them, or that there is none.
//!
//! Sources: Envoy's response flags (`docs/root/configuration/observability/access_log`), the messages of
//! `ngx_http_upstream.c`, HAProxy's `configuration.txt`, "Session state at disconnection", gRPC's `statuscodes.md` and what its
//! clients in C++, Python and Go said to upstreams that failed.
//! Must not know: how a log line is spelled, lines that are printed.

use crate::{
    record::Verdict::{
        self, ClosedBeforeResponse, ConnectCanceled, ConnectTimeout, LocalAbort, NeverAccepted,
        NoLocalPort, Ok, Probe, Refused, ResetBeforePayload, ResetBeforeResponse, ResetIdle,
        ResetMidStream, Timeout, Unreachable,
    },
    verdict::playbook,
};

/// How a connection ended, as far as a proxy's words can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// This end closed or reset it before the other one did.
    pub ended_here: bool,
}

/// A set of outcomes: a bit for each verdict where this end ended the connection, above those where it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdicts(u32);

/// Bits above which this end ended the connection.
const HERE: u32 = u16::BITS;

impl Verdicts {
    const fn of(verdicts: &[Verdict]) -> Self {
        let mut bits = 0;
        let mut rest = verdicts;
        while let [first, others @ ..] = rest {
            bits |= 1 << *first as u16;
            rest = others;
        }
        Self(bits | bits << HERE)
    }

    /// Only where it was not this end that ended the connection.
    const fn by_upstream(self) -> Self {
        Self(self.0 & u16::MAX as u32)
    }

    /// Only where this end ended the connection.
    const fn here(self) -> Self {
        Self(self.0 & !(u16::MAX as u32))
    }

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Without those of healthy connections.
    #[must_use]
    pub const fn failed(self) -> Self {
        Self(self.0 & !Self::of(&[Ok]).0)
    }

    /// Whether this is one of them, whoever ended it.
    pub const fn has(self, verdict: Verdict) -> bool {
        (self.0 | self.0 >> HERE) >> (verdict as u16) & 1 != 0
    }

    /// Whether this is one of them.
    pub const fn fits(self, outcome: Outcome) -> bool {
        let half = if outcome.ended_here { HERE } else { 0 };
        self.0 >> half >> (outcome.verdict as u16) & 1 != 0
    }
}

/// What became of the connection, as far as the proxy's words tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Expected {
    /// What the words say.
    pub likely: Verdicts,
    /// What they can mean besides; looked at only where nothing likely is found.
    pub possible: Verdicts,
    /// What they say of the bytes on the connection, which the kernel does not look at.
    pub talk: Option<Talk>,
}

/// What is said of the bytes on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Talk {
    pub hint: &'static str,
    /// The line quotes the upstream, so it is true however the connection ended.
    pub is_quoted: bool,
}

impl Expected {
    /// Whatever either means.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            likely: self.likely.or(other.likely),
            possible: self.possible.or(other.possible),
            talk: None,
        }
    }

    /// The proxy waited no longer: its connection ends when it pleases, and as a healthy one does.
    pub const fn is_timeout(self) -> bool {
        self.likely.has(Timeout)
    }
}

/// Where the reason lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// In a connection that the tracer has seen.
    Connection(Expected),
    /// Not in an upstream connection: what to look at instead.
    Elsewhere(&'static str),
}

impl Nature {
    /// The same where a connection that seems to be fine has ended as well as one that does not: whoever speaks HTTP/2 has few, and keeps them.
    const fn as_likely(self) -> Self {
        match self {
            Self::Connection(expected) => Self::Connection(Expected {
                likely: expected.likely.or(expected.possible),
                possible: NONE,
                talk: expected.talk,
            }),
            Self::Elsewhere(_) => self,
        }
    }
}

const NONE: Verdicts = Verdicts::of(&[]);
const SYN_UNANSWERED: Verdicts = Verdicts::of(&[ConnectTimeout, ConnectCanceled]);
const CONNECTING: Verdicts = Verdicts::of(&[Refused, Unreachable, NoLocalPort]).or(SYN_UNANSWERED);
const RESETS: Verdicts = Verdicts::of(&[
    ResetBeforePayload,
    ResetBeforeResponse,
    ResetMidStream,
    ResetIdle,
    NeverAccepted,
]);
const CLOSED: Verdicts = Verdicts::of(&[ClosedBeforeResponse, NeverAccepted]);
/// The proxy itself closes after its own timeout, in order or by a reset, unless the kernel does. It had sent a request, so it was no health
/// check.
const GAVE_UP: Verdicts = Verdicts::of(&[
    NeverAccepted,
    LocalAbort,
    ResetBeforeResponse,
    ResetBeforePayload,
])
.here()
.or(Verdicts::of(&[Timeout]));
/// The same where all went well as far as the kernel sees.
const GAVE_UP_IN_ORDER: Verdicts = Verdicts::of(&[Ok, ClosedBeforeResponse]).here();
const FINE: Verdicts = Verdicts::of(&[Ok, LocalAbort]);
/// Fine, or given up by the kernel, which proxies tell like an end by the upstream.
const FINE_OR_LOST: Verdicts = FINE.or(Verdicts::of(&[Timeout]));

const fn connection(likely: Verdicts, possible: Verdicts) -> Nature {
    Nature::Connection(Expected {
        likely,
        possible,
        talk: None,
    })
}

const fn talk(likely: Verdicts, possible: Verdicts, hint: &'static str, is_quoted: bool) -> Nature {
    Nature::Connection(Expected {
        likely,
        possible,
        talk: Some(Talk { hint, is_quoted }),
    })
}

/// The upstream ended it.
const fn by_upstream(likely: Verdicts, possible: Verdicts) -> Nature {
    connection(likely.by_upstream(), possible.by_upstream())
}

/// A reset answered the SYN.
pub const REFUSED: Nature = connection(Verdicts::of(&[Refused]), Verdicts::of(&[Unreachable]));
/// The connection was not made in time.
pub const CONNECT_TIMEOUT: Nature = connection(SYN_UNANSWERED, Verdicts::of(&[Unreachable]));
/// HAProxy's, which includes the TLS handshake, and lasts although the kernel has an ICMP error for it.
pub const HANDSHAKE_TIMEOUT: Nature = connection(
    SYN_UNANSWERED.or(Verdicts::of(&[Unreachable])),
    GAVE_UP
        .or(RESETS)
        .or(CLOSED)
        .or(FINE)
        .or(Verdicts::of(&[Probe])),
);
/// ICMP or routing.
pub const UNREACHABLE: Nature = connection(Verdicts::of(&[Unreachable]), NONE);
/// The kernel gave up an established connection, with the error that it keeps for that or with one that an ICMP message had left.
pub const KERNEL_GAVE_UP: Nature = connection(Verdicts::of(&[Timeout]), NONE);
/// No SYN left.
pub const NO_LOCAL_PORT: Nature = connection(Verdicts::of(&[NoLocalPort]), NONE);
/// The connection was not made; the words do not say why. With TLS it was made, but not the handshake on it.
pub const CONNECT_FAILED: Nature = connection(CONNECTING.or(RESETS).or(CLOSED), FINE);
/// The TLS handshake failed.
pub const HANDSHAKE_FAILED: Nature = talk(
    RESETS.or(CLOSED),
    FINE,
    "TCP worked and bytes went both ways, so the failure lies in TLS: look for a plaintext port, the server name (SNI), the protocols offered (ALPN), certificates and versions, here and in the upstream's log.",
    false,
);
/// The upstream ended TLS by an alert.
pub const ALERT: Nature = talk(
    RESETS.or(CLOSED),
    FINE,
    "The upstream ended TLS by an alert, which the line quotes: look at certificates (one of the client's that it asks for), versions, ciphers, the server name (SNI) and the protocols offered (ALPN), and in the upstream's log.",
    true,
);
/// A reset, wherever in the exchange.
pub const RESET: Nature = by_upstream(RESETS, CLOSED.or(Verdicts::of(&[Timeout])));
/// Closed in order without an answer.
pub const CLOSED_UNANSWERED: Nature = by_upstream(CLOSED, FINE);
/// Ended without an answer or inside it, by a reset or in order.
pub const TERMINATED: Nature = by_upstream(RESETS.or(CLOSED), FINE_OR_LOST);
/// Closed in order inside the response, which to the kernel is as good an end as any.
pub const CLOSED_INSIDE: Nature = by_upstream(CLOSED.or(FINE), RESETS.or(Verdicts::of(&[Timeout])));
/// The same over TLS, where NGINX tells a reset like that (`ngx_ssl_handle_recv`).
pub const ENDED_INSIDE: Nature = by_upstream(RESETS.or(CLOSED).or(FINE), Verdicts::of(&[Timeout]));
/// The proxy waited no longer.
pub const NO_ANSWER: Nature = connection(GAVE_UP, GAVE_UP_IN_ORDER);
/// The same over TCP, where the client may have said nothing that it could send on: what it ends then looks like a health check.
pub const NO_ANSWER_ON_TUNNEL: Nature =
    connection(GAVE_UP.or(Verdicts::of(&[Probe]).here()), GAVE_UP_IN_ORDER);
/// Ended inside an answer whose headers had come.
pub const CUT_ANSWER: Nature =
    by_upstream(Verdicts::of(&[ResetMidStream, ResetIdle]), FINE_OR_LOST);
/// Anything that makes a proxy answer 502. What it ended itself was a timeout, or a client's that had gone.
pub const BAD_GATEWAY: Nature =
    connection(CONNECTING.or(RESETS.or(CLOSED).by_upstream()), FINE_OR_LOST);
/// Anything that makes a proxy answer 504.
pub const GATEWAY_TIMEOUT: Nature = connection(GAVE_UP.or(SYN_UNANSWERED), GAVE_UP_IN_ORDER);
/// Closed in order below a call. What HTTP/2 then says of itself may be the last on the connection: it looks like an answer as well as like a
/// request, and may still be answered by a reset.
pub const CLOSED_BELOW: Nature = connection(RESETS.or(CLOSED).or(FINE), Verdicts::of(&[Timeout]));
/// A call on a connection that either end closed or lost below it.
pub const DRAINED: Nature = connection(RESETS.or(CLOSED), FINE_OR_LOST);
/// A call that waited no longer, for a connection or for an answer on it. Then the connection goes on, or ends as the client pleases.
pub const DEADLINE: Nature = connection(GAVE_UP.or(SYN_UNANSWERED), GAVE_UP_IN_ORDER);

/// Nothing came back on a connection that had been made: the kernel gave it up, or a client whose ping had no answer.
pub const NO_SIGN_OF_LIFE: Nature = connection(
    Verdicts::of(&[Timeout, LocalAbort, Ok]),
    Verdicts::of(&[ResetBeforeResponse]),
);

/// The upstream itself answered with an error.
pub const ANSWERED: Nature = Nature::Elsewhere(
    "The upstream answered the request with this status itself, over a connection that worked: look in the upstream's own log.",
);
/// The client has gone.
pub const CLIENT_GONE: Nature = Nature::Elsewhere(
    "The client closed or reset its connection to the proxy before the answer was complete: look at the client's timeout, and at the record of the proxy's own downstream connection (role server).",
);
/// HAProxy's timeout of the client's side.
pub const CLIENT_SILENT: Nature = Nature::Elsewhere(
    "HAProxy's own timeout for the client expired (timeout client, http-request, http-keep-alive): the client neither sent nor took anything; over TCP that may be because the server left both waiting, so look at its record as well.",
);
/// A call that was given up.
pub const CALL_CANCELED: Nature = Nature::Elsewhere(
    "The call was canceled, by the program that made it or by the server: look in the program for a caller's deadline, a shutdown or a user who left, then in the server's log.",
);
/// A status that the server may have given, or the library that either end uses.
pub const SAID_BY_EITHER: Nature = Nature::Elsewhere(
    "The server said this, or gRPC's library at either end: look in the server's log, then at sizes of messages, compression and credentials. A connection that the words name may be the server's own, to somebody else.",
);
/// The upstream is no TCP address.
pub const NOT_TCP: Nature = Nature::Elsewhere(
    "The upstream is not reached over TCP (a Unix socket or an internal listener): look in the log of the program behind it.",
);
/// The proxy could not understand the upstream.
pub const BAD_RESPONSE: Nature = talk(RESETS.or(CLOSED), FINE, playbook::NOT_UNDERSTOOD, false);
/// The same once the proxy had passed the headers on: the rest did not come, or was not what they promised.
pub const BAD_BODY: Nature = connection(RESETS.or(CLOSED).or(FINE), Verdicts::of(&[Timeout]));
/// A proxy on the way answered in the upstream's place.
pub const BEHIND_PROXY: Nature = Nature::Elsewhere(
    "A proxy between this client and the server said this, about its own connection to the server: explain the proxy's log instead.",
);
/// `connect()` failed by itself.
pub const NO_ROUTE: Nature = Nature::Elsewhere(
    "connect() failed at once, before any SYN and so without a connection: this host has no route to that address, or its routing table forbids it (ip route get).",
);
/// `connect()` was not allowed.
pub const FORBIDDEN: Nature = Nature::Elsewhere(
    "This host forbade connect(), before any SYN and so without a connection: look for SELinux (httpd_can_network_connect, ausearch -m avc), a route that prohibits (ip route get), or a BPF program of the cgroup.",
);
/// The words fit a client's connection as well as an upstream's, and no upstream is named.
pub const NO_UPSTREAM: Nature = Nature::Elsewhere(
    "The line names no upstream, so it tells of no connection to one: where a client's TLS handshake or request failed, look at the client, and at the record of the proxy's own downstream connection (role server).",
);
/// No server was to be had, maybe behind others that the same request had tried.
pub const NO_SERVER: Nature = Nature::Elsewhere(
    "No server was left to try: look at health checks, outlier detection or max_fails, and at the failures before this one that took the servers out.",
);
/// The upstream has no address.
pub const UNRESOLVED: Nature = Nature::Elsewhere(
    "The upstream's name could not be resolved, so no connection was made: look at the name, and at DNS as the proxy sees it (NGINX's resolver).",
);
/// A queue or limit in the proxy.
pub const QUEUED_TOO_LONG: Nature = Nature::Elsewhere(
    "The request waited in the proxy's own queue until a limit was reached, and no connection was made: look at the limits of connections per server.",
);
/// Denied by a rule of the proxy.
pub const DENIED: Nature = Nature::Elsewhere(
    "The proxy itself refused the request by a rule or a rate limit: look in its configuration; no upstream connection was involved.",
);
/// HAProxy's, for more reasons than a rule.
pub const ENDED_BY_PROXY: Nature = Nature::Elsewhere(
    "HAProxy itself ended the request: a rule denied it, a limit of connections was reached, its syntax is wrong (400) or a header could not be rewritten (500). Look at its rules (deny, reject, tarpit), its limits, and the client.",
);
/// HAProxy's, which made no connection for that.
pub const NO_SOCKET_LEFT: Nature = Nature::Elsewhere(
    "HAProxy did not connect to the server, because its process had reached its limit of sockets: look at the global maxconn and at ulimit-n.",
);
/// NGINX's for `EMFILE`.
pub const NO_FILE_LEFT: Nature = Nature::Elsewhere(
    "NGINX did not connect to the upstream, because its worker process had reached its limit of open files: raise worker_rlimit_nofile to more than worker_connections, or look for what is never closed.",
);
/// NGINX's for `ENFILE`.
pub const NO_FILE_LEFT_ON_HOST: Nature = Nature::Elsewhere(
    "NGINX did not connect to the upstream, because this host had reached its limit of open files: look for the process that holds so many (/proc/sys/fs/file-nr has their number), or raise fs.file-max.",
);
/// NGINX's own limit.
pub const NO_CONNECTION_LEFT: Nature = Nature::Elsewhere(
    "NGINX did not connect to the upstream, because its worker process had reached its limit of connections: raise worker_connections, which counts those to clients and those to upstreams.",
);
/// Answered by the proxy itself.
pub const OWN_ANSWER: Nature = Nature::Elsewhere(
    "The proxy made this answer itself: look in its configuration and error log.",
);
/// Answered by NGINX or by the upstream.
pub const SOMEBODYS_ANSWER: Nature = Nature::Elsewhere(
    "The log does not tell whether the upstream or NGINX itself made this answer: log upstream_addr and upstream_status, and look in NGINX's error log.",
);
/// Envoy's UR, of a request.
pub const STREAM_RESET: Nature = Nature::Elsewhere(
    "The upstream reset one HTTP/2 or HTTP/3 stream; the connection went on, so the kernel saw nothing: look in the upstream's log for that request (GOAWAY, a canceled or refused stream).",
);
/// Inside the proxy.
pub const INTERNAL: Nature = Nature::Elsewhere(
    "An error or a limit inside the proxy itself: look in its own error log, and at memory and file descriptors.",
);

/// What one of Envoy's response flags says, with the details beside it.
pub fn envoy(flag: &str, details: &str) -> Option<Nature> {
    Some(match flag {
        "UF" => upstream_failure(details),
        "UC" => TERMINATED,
        "UPE" => BAD_RESPONSE,
        "UT" | "UMSDR" | "SI" | "LR" => NO_ANSWER,
        "UR" => STREAM_RESET,
        "UH" => Nature::Elsewhere(playbook::NO_HEALTHY_HOST),
        "UO" => Nature::Elsewhere(playbook::BREAKER_OPEN),
        "NR" => Nature::Elsewhere(
            "No route or filter chain matched the request, so no upstream was chosen: look at the route table, the host name and, with TLS, the SNI.",
        ),
        "NC" => Nature::Elsewhere(
            "The route names a cluster that does not exist: look at the cluster discovery (/clusters).",
        ),
        "DF" => Nature::Elsewhere(
            "The upstream's name could not be resolved: look at DNS as Envoy sees it.",
        ),
        "DC" | "DR" => CLIENT_GONE,
        "DT" => Nature::Elsewhere(
            "The client's connection reached the longest duration that Envoy allows it (max_connection_duration, max_downstream_connection_duration), and Envoy ended it: no upstream connection failed.",
        ),
        "DPE" => Nature::Elsewhere(
            "Envoy did not understand what the client sent (a protocol error downstream): look at the client, and at the details of the response code; no upstream connection failed.",
        ),
        "RL" | "RLSE" => Nature::Elsewhere(
            "A rate limit refused the request, or the rate limit service failed: no upstream connection was involved.",
        ),
        "UAEX" => Nature::Elsewhere(
            "The external authorization service denied the request: look in its log; no upstream connection was involved.",
        ),
        "FI" | "DI" => Nature::Elsewhere(
            "A fault was injected on purpose: look for the fault filter in the route; no upstream connection failed.",
        ),
        "IH" => Nature::Elsewhere(
            "Envoy rejected the request for a header with an invalid value: look at the client.",
        ),
        "OM" | "DO" => Nature::Elsewhere(
            "Envoy shed load to protect itself: look at the overload manager's actions and at memory and connections.",
        ),
        "LH" => {
            Nature::Elsewhere("Envoy's own health check is set to fail: it is draining on purpose.")
        }
        "NFCF" | "RFCF" => Nature::Elsewhere(
            "Envoy was waiting for configuration that did not come: look at the connection to the control plane.",
        ),
        _ => return None,
    })
}

/// `UF`: a connection that was never ready for a request.
fn upstream_failure(details: &str) -> Nature {
    let says = |words: &[&str]| words.iter().any(|word| details.contains(word));
    if says(&["TLS_error", "TLS error", "SSL"]) {
        HANDSHAKE_FAILED
    } else if says(&[
        "Connection_refused",
        "Connection refused",
        "delayed_connect_error:_111",
    ]) {
        REFUSED
    } else if says(&["Connection_reset", "Connection reset", "connect_error:_104"]) {
        // Established and reset before Envoy had looked.
        RESET
    } else if says(&[
        "connection_timeout",
        "connection timeout",
        "Connection_timed_out",
        "Connection timed out",
        "delayed_connect_error:_110",
    ]) {
        CONNECT_TIMEOUT
    } else if says(&[
        "Cannot_assign",
        "Cannot assign",
        "immediate_connect_error:_99",
    ]) {
        NO_LOCAL_PORT
    } else if says(&["immediate_connect_error", "immediate connect error"]) {
        NO_ROUTE
    } else if says(&[
        "unreachable",
        "No_route",
        "No route",
        "connect_error:_113",
        "connect_error:_101",
    ]) {
        UNREACHABLE
    } else {
        CONNECT_FAILED
    }
}

/// What a message of the NGINX error log says; `None` for one that is not about a failed request.
pub fn nginx(message: &str) -> Option<Nature> {
    // In quotes stands what others said: a client's path, a program's error output.
    let message = message.split_once('"').map_or(message, |(own, _)| own);
    let says = |words: &str| message.contains(words);
    let starts = |words: &[&str]| words.iter().any(|words| message.starts_with(words));
    // Only what connect() itself returned names the address here.
    let at_once = starts(&["connect() to "]);
    let socket = starts(&["socket() failed "]);
    let connecting = says("connect() ") || says("while connecting");
    // Also what an ICMP message had left, where it was no answer to a SYN.
    let no_answer = ["(110: ", "(111: ", "(112: ", "(113: ", "(101: "];
    let given_up = says("() failed ") && no_answer.iter().any(|error| says(error));
    Some(match () {
        // A connection of a client that asked for nothing.
        () if says("while waiting for request") => return None,
        () if says("while keepalive") || says("closed keepalive connection") => return None,
        () if says(" could not be resolved (") || starts(&["no resolver defined "]) => UNRESOLVED,
        () if says("no live upstreams") => NO_SERVER,
        () if says("limiting requests") || says("limiting connections") => DENIED,
        () if says("access forbidden") => DENIED,
        () if starts(&["client "]) && says("closed connection") => CLIENT_GONE,
        () if says("client prematurely closed connection") => CLIENT_GONE,
        () if says("from client") => CLIENT_GONE,
        // What is read meanwhile comes from the upstream.
        () if says("to client") && starts(&["writev() ", "send", "SSL_write() "]) => CLIENT_GONE,
        () if starts(&["connect() to unix:"]) => NOT_TCP,
        () if given_up && !connecting => KERNEL_GAVE_UP,
        () if says("(111: ") => REFUSED,
        () if says("(99: ") => NO_LOCAL_PORT,
        () if at_once && (says("(101: ") || says("(113: ") || says("(22: ")) => NO_ROUTE,
        () if at_once && (says("(13: ") || says("(1: ")) => FORBIDDEN,
        () if at_once => INTERNAL,
        () if socket && says("(24: ") => NO_FILE_LEFT,
        () if socket && says("(23: ") => NO_FILE_LEFT_ON_HOST,
        () if socket => INTERNAL,
        () if says("worker_connections are not enough") => NO_CONNECTION_LEFT,
        () if says("(112: ") || says("(113: ") || says("(101: ") => UNREACHABLE,
        () if given_up || says("upstream timed out") && connecting => CONNECT_TIMEOUT,
        () if says("upstream timed out") => NO_ANSWER,
        () if says("SSL alert number ") && says("upstream") => ALERT,
        () if says("SSL handshak") || says("upstream SSL certificate") => HANDSHAKE_FAILED,
        () if says("(104: ") || says("(32: ") => RESET,
        // An error like that of an ICMPv6 message that prohibits (13).
        () if starts(&["connect() failed "]) => CONNECT_FAILED,
        // In TLS 1.3 the upstream's no to a certificate comes behind the handshake. SSL_shutdown() fails behind the answer.
        () if starts(&["SSL_read() ", "SSL_write() "]) && says("upstream") => HANDSHAKE_FAILED,
        () if starts(&["SSL_read() "]) && says("to client") => HANDSHAKE_FAILED,
        () if says("prematurely closed connection while reading upstream") => CLOSED_INSIDE,
        () if says("upstream prematurely closed") => CLOSED_UNANSWERED,
        () if says("upstream sent") => BAD_RESPONSE,
        () => return None,
    })
}

/// What the first two characters of HAProxy's termination state say, over HTTP with the status that the client got; `None` where
/// nothing failed.
pub fn haproxy(state: &str, is_http: bool, status: Option<u16>) -> Option<Nature> {
    // Behind 101 either end says what it pleases.
    let is_answered = status.is_some_and(|status| status >= 200);
    Some(match state.as_bytes() {
        [b'C', ..] => CLIENT_GONE,
        [b'c', ..] => CLIENT_SILENT,
        [b'S', b'C', ..] => CONNECT_FAILED,
        [b's', b'C', ..] => HANDSHAKE_TIMEOUT,
        [b'S', b'D', ..] if is_answered => CUT_ANSWER,
        [b'S', b'H' | b'D' | b'L', ..] => TERMINATED,
        [b's', b'D', ..] if !is_http => NO_ANSWER_ON_TUNNEL,
        [b's', b'H' | b'D' | b'L', ..] => NO_ANSWER,
        [b'S' | b's', b'Q', ..] => QUEUED_TOO_LONG,
        [b'P', b'H' | b'D', ..] => BAD_RESPONSE,
        [b'P', b'C', ..] => NO_SOCKET_LEFT,
        [b'P', ..] => ENDED_BY_PROXY,
        [b'R', b'C', ..] => NO_LOCAL_PORT,
        [b'R' | b'I', ..] => INTERNAL,
        [b'D' | b'U', ..] => Nature::Elsewhere(
            "HAProxy itself ended the session, because the server was marked down, or a better one up: look at the health checks.",
        ),
        [b'K', ..] => Nature::Elsewhere(
            "HAProxy itself ended the session: an administrator did it, or a process that was to stop waited no longer (a reload with hard-stop-after). Look at the command socket, and at what reloads HAProxy.",
        ),
        _ => return None,
    })
}

/// What a call's status says, with the words behind it.
pub fn grpc(status: &str, words: &str) -> Nature {
    let words = words.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    match status {
        // Never the library's own, by grpc.io/docs/guides/status-codes.
        "INVALID_ARGUMENT"
        | "NOT_FOUND"
        | "ALREADY_EXISTS"
        | "FAILED_PRECONDITION"
        | "ABORTED"
        | "OUT_OF_RANGE"
        | "DATA_LOSS" => ANSWERED,
        _ if says(&[
            "upstream connect error",
            "upstream request timeout",
            "no healthy upstream",
        ]) =>
        {
            BEHIND_PROXY
        }
        "CANCELLED" => CALL_CANCELED,
        "DEADLINE_EXCEEDED" => DEADLINE,
        "UNAVAILABLE" => unavailable(&words),
        // The core's. Whatever else these say of a connection, a server may say of one of its own.
        "INTERNAL" | "UNKNOWN" if says(&UNREADABLE) => BAD_RESPONSE.as_likely(),
        "INTERNAL" | "UNKNOWN" if words.starts_with("stream removed") => CLOSED_BELOW,
        _ => SAID_BY_EITHER,
    }
}

/// No HTTP/2, in the core's words.
const UNREADABLE: [&str; 3] = ["parsing http/2", "http1.x", "http2 frame"];

/// Of a connection that was not made; Java says the same of one that broke.
const CONNECTING_WORDS: [&str; 6] = [
    "failed to connect",
    "connect failed",
    "connection error",
    "dialing",
    "no connection established",
    "io exception",
];

/// Of one that was: a server that drains it, or one that is gone.
const BELOW_WORDS: [&str; 10] = [
    "goaway",
    "connection age",
    "connection closed",
    "connection dropped",
    "connection is draining",
    "cancelling all calls",
    "stream removed",
    "network closed",
    "subchannel shutdown",
    "transport",
];

/// What the words of this status say, in which clients tell of their connections.
fn unavailable(words: &str) -> Nature {
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let mut single = words.split(|letter: char| !letter.is_alphanumeric());
    match () {
        () if says(&[
            "tls handshake failed",
            "ssl handshake",
            "authentication handshake failed",
        ]) =>
        {
            HANDSHAKE_FAILED.as_likely()
        }
        () if says(&UNREADABLE) => BAD_RESPONSE.as_likely(),
        () if says(&["connection reset", "broken pipe"]) => RESET,
        // The core's and Go's for what the kernel said of an established connection.
        () if says(&["recvmsg:", ": read: ", ": write: "]) => NO_SIGN_OF_LIFE,
        () if says(&[
            "keepalive watchdog timeout",
            "keepalive ping failed",
            "keepalive failed",
            "ping timeout",
        ]) =>
        {
            NO_SIGN_OF_LIFE
        }
        () if says(&["connection refused"]) => REFUSED,
        () if says(&["cannot assign requested address"]) => NO_LOCAL_PORT,
        // Only what connect() itself returned is said so.
        () if says(&["connect failed: addr: "]) => NO_ROUTE,
        () if says(&["no route to host", "unreachable"]) => UNREACHABLE,
        () if says(&["before receiving settings"]) => HANDSHAKE_TIMEOUT,
        () if says(&["timed out", "timeout", "handshaker shutdown"]) => CONNECT_TIMEOUT,
        () if says(&["socket closed", "transport is closing"]) => CLOSED_BELOW,
        () if single.any(|word| word == "eof") => CLOSED_BELOW,
        () if says(&["resolution failed", "name resolution", "no such host"]) => UNRESOLVED,
        () if words.is_empty() || says(&CONNECTING_WORDS) => BAD_GATEWAY,
        () if says(&BELOW_WORDS) => DRAINED,
        // Those of a handler, about anything.
        () => SAID_BY_EITHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn likely(nature: Nature) -> Verdicts {
        match nature {
            Nature::Connection(expected) => expected.likely,
            Nature::Elsewhere(hint) => panic!("{hint}"),
        }
    }

    #[test]
    fn a_connection_without_a_word_is_left_only_by_who_had_none_to_pass_on() {
        let probe = |ended_here| Outcome {
            verdict: Probe,
            ended_here,
        };
        let tunnel = likely(NO_ANSWER_ON_TUNNEL);
        assert!(tunnel.fits(probe(true)) && !tunnel.fits(probe(false)));
        assert!(!likely(NO_ANSWER).has(Probe));
        let Nature::Connection(cut) = CUT_ANSWER else {
            panic!("no connection");
        };
        assert!(!cut.likely.or(cut.possible).has(ClosedBeforeResponse));
    }

    #[test]
    fn a_set_has_what_it_was_made_of() {
        let set = Verdicts::of(&[Refused, LocalAbort]);
        for &verdict in Verdict::ALL {
            let inside = matches!(verdict, Refused | LocalAbort);
            assert_eq!(set.has(verdict), inside, "{verdict:?}");
        }
    }

    #[test]
    fn what_the_kernel_gave_up_may_be_told_as_an_end() {
        for nature in [TERMINATED, CLOSED_INSIDE, RESET, BAD_GATEWAY, CLOSED_BELOW] {
            let Nature::Connection(expected) = nature else {
                panic!("{nature:?}");
            };
            assert!(expected.possible.has(Timeout), "{nature:?}");
            // Nobody waits for its record.
            assert!(!expected.is_timeout(), "{nature:?}");
        }
    }

    #[test]
    fn a_request_is_no_health_check() {
        let allowed = |nature| match nature {
            Nature::Connection(expected) => expected.likely.or(expected.possible),
            Nature::Elsewhere(hint) => panic!("{hint}"),
        };
        for nature in [NO_ANSWER, GATEWAY_TIMEOUT, DEADLINE, TERMINATED] {
            assert!(!allowed(nature).has(Probe), "{nature:?}");
        }
        // On one that waits for the other's first bytes nothing may have been sent.
        assert!(allowed(HANDSHAKE_TIMEOUT).has(Probe));
    }

    #[test]
    fn details_narrow_a_failure_to_connect() {
        for (details, verdict) in [
            (
                "x{remote_connection_failure|delayed_connect_error:_Connection_refused}",
                Refused,
            ),
            ("x{connection_failure,delayed_connect_error:_111}", Refused),
            ("x{connection_timeout}", ConnectCanceled),
            (
                "x{local_connection_failure|immediate_connect_error:_Cannot_assign_requested_address}",
                NoLocalPort,
            ),
            (
                "x{remote_connection_failure|delayed_connect_error:_No_route_to_host}",
                Unreachable,
            ),
            (
                "x{remote_connection_failure|delayed_connect_error:_Connection_reset_by_peer}",
                ResetBeforePayload,
            ),
            ("TLS_error:_WRONG_VERSION_NUMBER", ClosedBeforeResponse),
            ("", Refused),
        ] {
            let set = likely(envoy("UF", details).unwrap());
            assert!(set.has(verdict) && !set.has(Ok), "{details}");
        }
    }

    /// Words of gRPC 1.85 in Python and of grpc-go.
    #[test]
    fn words_of_a_call() {
        for (status, words, verdict) in [
            (
                "UNAVAILABLE",
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused",
                Refused,
            ),
            (
                "UNAVAILABLE",
                "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:127.0.0.1:1: recvmsg:Connection reset by peer (104)",
                ResetBeforePayload,
            ),
            (
                "UNAVAILABLE",
                "Stream removed (recvmsg:Connection reset by peer (104))",
                ResetBeforeResponse,
            ),
            (
                "UNAVAILABLE",
                "Stream removed (Socket closed)",
                ClosedBeforeResponse,
            ),
            ("UNAVAILABLE", "Stream removed (Socket closed)", Ok),
            (
                "UNAVAILABLE",
                "Stream removed (Socket closed)",
                ResetBeforeResponse,
            ),
            (
                "UNAVAILABLE",
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: tcp handshaker shutdown",
                ConnectCanceled,
            ),
            (
                "UNAVAILABLE",
                "failed to connect to all addresses; last error: INTERNAL: ipv4:127.0.0.1:1: Failed parsing HTTP/2",
                ResetBeforeResponse,
            ),
            ("DEADLINE_EXCEEDED", "Deadline Exceeded", ConnectCanceled),
            (
                "DEADLINE_EXCEEDED",
                "Stream removed (Deadline Exceeded)",
                Timeout,
            ),
            (
                "UNAVAILABLE",
                "connection error: desc = \"transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused\"",
                Refused,
            ),
            (
                "UNAVAILABLE",
                "error reading from server: EOF",
                ClosedBeforeResponse,
            ),
            ("UNAVAILABLE", "io exception", Refused),
        ] {
            assert!(
                likely(grpc(status, words)).has(verdict),
                "{status}: {words}"
            );
        }
    }

    #[test]
    fn nothing_came_back_below_a_call() {
        for (words, verdict) in [
            ("recvmsg:Connection timed out (110)", Timeout),
            ("Stream removed (recvmsg:No route to host (113))", Timeout),
            (
                "error reading from server: read tcp 10.0.0.9:41000->10.0.0.1:8443: read: connection timed out",
                Timeout,
            ),
            ("keepalive watchdog timeout", Ok),
            (
                "keepalive ping failed to receive ACK within timeout",
                LocalAbort,
            ),
            ("Keepalive failed. The connection is likely gone", Timeout),
            ("ping timeout", Timeout),
        ] {
            let nature = grpc("UNAVAILABLE", words);
            assert_eq!(nature, NO_SIGN_OF_LIFE, "{words}");
            assert!(likely(nature).has(verdict), "{words}");
        }
    }

    #[test]
    fn who_said_it() {
        for (status, words, nature) in [
            (
                "UNAVAILABLE",
                "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
                BEHIND_PROXY,
            ),
            (
                "UNAVAILABLE",
                "failed to connect to all addresses; last error: FAILED_PRECONDITION: ipv4:127.0.0.1:1: connect failed: addr: ipv4:127.0.0.1:1 error: Network is unreachable",
                NO_ROUTE,
            ),
            ("NOT_FOUND", "no such order", ANSWERED),
            ("ABORTED", "connection reset by another edit", ANSWERED),
            (
                "CANCELLED",
                "Locally cancelled by application!",
                CALL_CANCELED,
            ),
            // A server's own connections.
            (
                "UNKNOWN",
                "dial tcp 10.1.1.1:5432: connect: connection refused",
                SAID_BY_EITHER,
            ),
            (
                "INTERNAL",
                "read tcp 10.1.1.2:40000->10.1.1.1:5432: read: connection reset by peer",
                SAID_BY_EITHER,
            ),
            (
                "INTERNAL",
                "rpc error: code = Unavailable desc = transport is closing",
                SAID_BY_EITHER,
            ),
            ("UNKNOWN", "Stream removed", CLOSED_BELOW),
            (
                "INTERNAL",
                "Failed parsing HTTP/2",
                BAD_RESPONSE.as_likely(),
            ),
            (
                "INTERNAL",
                "HTTP/2 error code: INTERNAL_ERROR Received Rst Stream",
                SAID_BY_EITHER,
            ),
            (
                "RESOURCE_EXHAUSTED",
                "Received message larger than max (5000000 vs. 4194304)",
                SAID_BY_EITHER,
            ),
            (
                "UNAUTHENTICATED",
                "Getting metadata from plugin failed with error: connection refused",
                SAID_BY_EITHER,
            ),
            ("UNAVAILABLE", "geofence is off", SAID_BY_EITHER),
            ("UNAVAILABLE", "overloaded", SAID_BY_EITHER),
            (
                "UNAVAILABLE",
                "DNS resolution failed for nowhere:443: C-ares",
                UNRESOLVED,
            ),
            ("UNAVAILABLE", "", BAD_GATEWAY),
            ("UNAVAILABLE", "Cancelling all calls", DRAINED),
            ("UNAVAILABLE", "max connection age", DRAINED),
            (
                "UNAVAILABLE",
                "Connection closed after GOAWAY. HTTP/2 error code: NO_ERROR",
                DRAINED,
            ),
            ("UNAVAILABLE", "unexpected EOF", CLOSED_BELOW),
        ] {
            assert_eq!(grpc(status, words), nature, "{status}: {words}");
        }
    }

    #[test]
    fn the_words_of_the_playbook_mean_its_verdicts() {
        for (verdict, words) in playbook::spoken() {
            let envoy_says = |flag, reason: &str| {
                let in_log = reason.replace(' ', "_");
                [reason, &in_log].map(|reason| envoy(flag, reason))
            };
            let mut natures = Vec::new();
            natures.extend(envoy_says(words.envoy_flag, words.envoy_reason));
            natures.extend(envoy_says(words.envoy_flag, words.envoy_reason_old));
            if let (Some(flag), Some(reason)) = (words.envoy_flag_other, words.envoy_reason_other) {
                natures.extend(envoy_says(flag, reason));
            }
            natures.push(nginx(words.nginx_error));
            natures.extend(words.nginx_error_other.map(nginx));
            for nature in natures {
                // A client that has gone is no failed upstream connection.
                if let Nature::Connection(expected) = nature.expect("known") {
                    let possible = expected.likely.or(expected.possible);
                    assert!(possible.has(verdict), "{verdict:?}: {words:?}");
                }
            }
        }
    }

    #[test]
    fn what_envoy_ended_itself_is_no_client_that_went() {
        assert_eq!(envoy("DC", ""), Some(CLIENT_GONE));
        for flag in ["DT", "DPE"] {
            let nature = envoy(flag, "");
            assert!(
                matches!(nature, Some(Nature::Elsewhere(_))) && nature != Some(CLIENT_GONE),
                "{flag}"
            );
        }
    }

    #[test]
    fn every_hint_is_short() {
        let flags = [
            "UR", "UH", "UO", "NR", "NC", "DF", "DC", "DT", "DPE", "RL", "UAEX", "FI", "IH", "OM",
            "LH", "NFCF",
        ];
        let states = ["CD", "sQ", "PH", "PR", "PC", "RC", "IH", "DH", "KH"];
        let messages = [
            "no live upstreams while connecting to upstream",
            "upstream sent no valid HTTP/1.0 header",
            "a could not be resolved (3: Host not found)",
            "socket() failed (23: Too many open files in system) while connecting to upstream",
            "socket() failed (24: Too many open files) while connecting to upstream",
            "8 worker_connections are not enough while connecting to upstream",
        ];
        let natures = flags
            .iter()
            .map(|flag| envoy(flag, ""))
            .chain(states.iter().map(|state| haproxy(state, true, None)))
            .chain(messages.iter().map(|message| nginx(message)));
        let statuses = ["CANCELLED", "UNKNOWN", "NOT_FOUND"];
        let natures = natures.chain(statuses.iter().map(|status| Some(grpc(status, ""))));
        for nature in natures {
            if let Nature::Elsewhere(hint) = nature.expect("known") {
                assert!(hint.ends_with('.') && hint.len() < 300, "{hint}");
            }
        }
        assert!(envoy("XX", "").is_none() && nginx("signal").is_none());
        assert!(haproxy("--", true, None).is_none());
    }
}
