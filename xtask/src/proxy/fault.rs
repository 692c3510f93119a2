//! The faults: what goes wrong between a proxy and its upstream, and what is right to be said of it.
//!
//! Must not know: proxies, how a server or a network does it.

use Fault::{
    ClosedInBody, ClosedInHeaders, ForgottenInPath, Healthy, Http2ToHttp1, LostInPath, NoAnswer,
    RacedByClose, RacedByReset, ResetIdle, Restarted, TlsName, TlsProtocol, TlsToPlain,
};

/// Where the upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the proxy's own loopback.
    Here,
    /// Behind the middle host.
    Behind,
    /// Where no route leads.
    Nowhere,
}

/// Who sent the reset that ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Nobody, or the proxy itself, which ends as it pleases what it has given up.
    Nobody,
    /// The upstream's host, whose processes had nothing to do with it.
    Host,
    /// A process of the upstream.
    Upstream,
    /// Neither end.
    Path,
    /// Nobody, or somebody at the upstream's end: it depends on the moment.
    Perhaps,
}

/// What the proxy speaks to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    Plain,
    Tls,
    /// HTTP/2 in plaintext, without asking first.
    Http2,
}

/// A fault in words and what has to be said of it.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// A word for paths and names.
    pub name: &'static str,
    /// What happens, for a person.
    pub story: &'static str,
    pub place: Place,
    /// The right verdicts; several where it depends on which end is faster. None where no connection of the kernel's failed.
    pub verdicts: &'static [&'static str],
    pub by: By,
}

/// One end does not understand the other and closes, in order or by a reset; what the other still says may meet a closed connection.
const TALK: &[&str] = &[
    "ok",
    "reset_mid_stream",
    "reset_before_response",
    "local_abort",
];

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal, $story:literal, $place:ident, $verdicts:expr, $by:ident;)*) => {
        /// A way for a request to fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            const ALL: &[Self] = &[$(Self::$fault),*];

            /// Its row of the table.
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$fault => Row {
                        name: $name,
                        story: $story,
                        place: Place::$place,
                        verdicts: $verdicts,
                        by: By::$by,
                    },)*
                }
            }
        }
    };
}

faults! {
    /// None at all.
    Healthy = "healthy", "answers", Here, &["ok"], Nobody;
    Refused = "refused", "nothing listens", Here, &["refused"], Host;
    QueueFull = "queue_full", "accept queue full", Here, &["connect_canceled"], Nobody;
    SynDropped = "syn_dropped", "a firewall drops the SYN", Behind, &["connect_canceled"], Nobody;
    RejectedByReset = "rejected_by_reset", "a firewall answers the SYN with a reset", Here, &["refused"], Path;
    RejectedByIcmp = "rejected_by_icmp", "a firewall answers the SYN with ICMP", Behind, &["unreachable"], Nobody;
    NoRoute = "no_route", "no route leads there", Nowhere, &[], Nobody;
    NoLocalPort = "no_local_port", "no local port is left", Here, &["no_local_port"], Nobody;
    // The request is on its way before the reset arrives, or it is not.
    ResetAfterAccept = "reset_after_accept", "resets right after accept()", Here, &["reset_before_payload", "reset_before_response"], Upstream;
    ResetAfterRequest = "reset_after_request", "reads the request, resets", Here, &["reset_before_response"], Upstream;
    CloseUnread = "close_unread", "closes with the request unread", Here, &["reset_before_response"], Upstream;
    ClosedUnanswered = "closed_unanswered", "reads the request, closes in order", Here, &["closed_before_response"], Nobody;
    ResetInHeaders = "reset_in_headers", "resets inside the headers", Here, &["reset_mid_stream"], Upstream;
    ClosedInHeaders = "closed_in_headers", "closes inside the headers", Here, &["ok"], Nobody;
    ResetInBody = "reset_in_body", "resets inside the body", Here, &["reset_mid_stream"], Upstream;
    ClosedInBody = "closed_in_body", "closes inside the body", Here, &["ok"], Nobody;
    ResetIdle = "reset_idle", "resets an idle connection of the pool", Here, &["reset_idle"], Upstream;
    RacedByClose = "raced_by_close", "closes a pooled connection as the next request is sent", Behind, &["reset_before_response"], Upstream;
    RacedByReset = "raced_by_reset", "resets a pooled connection as the next request is sent", Behind, &["reset_before_response"], Upstream;
    WorkerKilled = "worker_killed", "worker killed, the request unread", Here, &["reset_before_response"], Upstream;
    Restarted = "restarted", "restarted while busy", Here, &["refused", "reset_before_payload", "reset_before_response", "closed_before_response"], Perhaps;
    // The proxy closes in order, or by a reset of its own.
    NoAnswer = "no_answer", "never answers", Here, &["ok", "reset_before_response"], Nobody;
    ClientGone = "client_gone", "answers too late for the client", Here, &[], Nobody;
    PlainToTls = "plain_to_tls", "expects TLS, the proxy speaks plaintext", Here, TALK, Perhaps;
    TlsToPlain = "tls_to_plain", "expects plaintext, the proxy speaks TLS", Here, TALK, Perhaps;
    TlsName = "tls_name", "TLS alert unrecognized_name (SNI)", Here, TALK, Perhaps;
    TlsProtocol = "tls_protocol", "TLS alert no_application_protocol (ALPN)", Here, TALK, Perhaps;
    Http2ToHttp1 = "http2_to_http1", "speaks HTTP/1, the proxy HTTP/2", Here, TALK, Perhaps;
    // The request never arrives.
    ResetInPath = "reset_in_path", "a middlebox resets the connection", Behind, &["reset_before_payload", "reset_before_response"], Path;
    // The proxy closes in order, which is not answered either, or by a reset of its own.
    LostInPath = "lost_in_path", "a middlebox drops everything after a while", Behind, &["timeout", "reset_before_response"], Nobody;
    ForgottenInPath = "forgotten_in_path", "a middlebox forgets an idle connection, then resets it", Behind, &["reset_before_response"], Path;
}

impl Fault {
    /// All but none.
    pub fn bad() -> impl Iterator<Item = Self> {
        let all = Self::ALL.iter().copied();
        all.filter(|fault| *fault != Healthy)
    }

    /// What is as right where both ends speak HTTP/2: it has words for giving up a request, which may be the last on the connection. gRPC shuts
    /// a connection down before it closes it, and then the other end is the first to have closed it.
    pub const fn right_in_http2(self) -> &'static [&'static str] {
        match self {
            ClosedInHeaders | ClosedInBody | NoAnswer => &["closed_before_response"],
            Restarted => &["ok"],
            _ => &[],
        }
    }

    /// What the proxy speaks to this upstream.
    pub const fn speech(self) -> Speech {
        match self {
            TlsToPlain | TlsName | TlsProtocol => Speech::Tls,
            Http2ToHttp1 => Speech::Http2,
            _ => Speech::Plain,
        }
    }

    /// Milliseconds between a request that is answered and the one that fails on the same connection, where that is how it goes.
    pub const fn pause_ms(self) -> Option<u64> {
        match self {
            RacedByClose | RacedByReset | LostInPath => Some(500),
            ResetIdle => Some(1_000),
            // The middlebox remembers for one second.
            ForgottenInPath => Some(2_300),
            _ => None,
        }
    }

    /// Whether every request fails; `None` where it depends on the moment.
    pub const fn fails(self) -> Option<bool> {
        match self {
            // The proxy has noticed, and makes a new connection.
            Healthy | ResetIdle => Some(false),
            Restarted => None,
            _ => Some(true),
        }
    }
}
