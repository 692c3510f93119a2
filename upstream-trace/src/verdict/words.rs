//! What a verdict means in plain words, and what the common proxies call it.
//!
//! Sources: Envoy 1.40 `source/common/router/router.cc` (streamResetReasonToResponseFlag) and
//! `source/common/http/utility.cc` (resetReasonToString); nginx `src/os/unix/ngx_errno.c` and
//! `src/http/ngx_http_upstream.c`. Must not know: how a verdict is reached.

use crate::record::{Direction, ProxyWords, Role, Verdict};

/// What a verdict's words depend on besides the verdict.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// What became of the connection.
    pub verdict: Verdict,
    /// Which end this socket was.
    pub role: Role,
    /// Which way the reset went.
    pub reset: Option<Direction>,
    /// The kernel's reason for it.
    pub reason: Option<&'a str>,
    /// It came from neither end.
    pub in_path: bool,
    /// What the application was told.
    pub errno: Option<&'static str>,
}

const fn words(
    envoy_flag: &'static str,
    envoy_reason: &'static str,
    nginx_error: &'static str,
) -> ProxyWords {
    ProxyWords {
        envoy_flag,
        envoy_reason,
        nginx_error,
    }
}

/// What a proxy reports whose upstream connection (or that of whose client's) ended this way.
pub const fn proxy(verdict: Verdict) -> Option<ProxyWords> {
    Some(match verdict {
        Verdict::Ok | Verdict::Probe | Verdict::ResetIdle => return None,
        Verdict::Refused => words(
            "UF",
            "remote connection failure, delayed connect error: Connection refused",
            "connect() failed (111: Connection refused) while connecting to upstream",
        ),
        Verdict::ConnectTimeout | Verdict::ConnectCanceled => words(
            "UF",
            "connection timeout",
            "upstream timed out (110: Connection timed out) while connecting to upstream",
        ),
        Verdict::Unreachable => words(
            "UF",
            "remote connection failure, delayed connect error: No route to host",
            "connect() failed (113: No route to host) while connecting to upstream",
        ),
        Verdict::NoLocalPort => words(
            "UF",
            "local connection failure, immediate connect error: Cannot assign requested address",
            "connect() failed (99: Cannot assign requested address) while connecting to upstream",
        ),
        Verdict::NeverAccepted | Verdict::Timeout => words(
            "UT",
            "upstream request timeout",
            "upstream timed out (110: Connection timed out) while reading response header from upstream",
        ),
        Verdict::ResetBeforePayload | Verdict::ResetBeforeResponse => words(
            "UC",
            "connection termination",
            "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        ),
        Verdict::ResetMidStream => words(
            "UPE",
            "protocol error",
            "recv() failed (104: Connection reset by peer) while reading upstream",
        ),
        Verdict::ClosedBeforeResponse => words(
            "UC",
            "connection termination",
            "upstream prematurely closed connection while reading response header from upstream",
        ),
        Verdict::LocalAbort => words(
            "DC",
            "downstream disconnected",
            "client prematurely closed connection",
        ),
    })
}

/// What it means and the next thing to check; `None` for `ok`.
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn hint(about: &About<'_>) -> Option<&'static str> {
    let server = about.role == Role::Server;
    let sent = about.reset == Some(Direction::Sent);
    let reason = about.reason.unwrap_or("");
    let text = match about.verdict {
        Verdict::Ok => return None,
        Verdict::Refused if about.in_path => {
            "A firewall rule answered the SYN with a reset, not the server: look for REJECT rules on the way (nft list ruleset)."
        }
        Verdict::Refused => {
            "Nothing accepts connections on the remote port: check that the server runs and on which address and port it listens (ss -ltn)."
        }
        Verdict::ConnectTimeout => {
            "No SYN was answered until the kernel gave up: look for a firewall that drops, a wrong address, or a full accept queue at the server (ss -ltn, Recv-Q against Send-Q)."
        }
        Verdict::ConnectCanceled => {
            "The connecting process gave up while its SYN was unanswered: its own connect timeout; look for packet drops or a full accept queue on the way to the server."
        }
        Verdict::Unreachable if about.errno == Some("ECONNREFUSED") => {
            "An ICMP port unreachable answered the SYN: a firewall rejects the connection, because a server without a listener would have sent a reset."
        }
        Verdict::Unreachable => {
            "Routing failed or a router answered the SYN with an ICMP error: check the route (ip route get), ARP or neighbour entries, and REJECT rules of firewalls."
        }
        Verdict::NoLocalPort => {
            "connect() failed before any SYN left, for want of a local port: check net.ipv4.ip_local_port_range and how many connections to this destination are open or in TIME_WAIT."
        }
        Verdict::NeverAccepted if about.reset == Some(Direction::Received) => {
            "The other end gave up before any process accepted the connection: harmless if it lasted only microseconds (a health check), else the server is stuck, its accept queue is long, or it is out of file descriptors."
        }
        Verdict::NeverAccepted => {
            "The kernel completed the handshake but no process accepted the connection before it ended: the server stopped listening, is stuck, or is out of file descriptors (ss -ltn, Recv-Q)."
        }
        Verdict::ResetBeforePayload if about.in_path => {
            "Neither end's stack sent this reset: a firewall or middlebox between them did, before any payload."
        }
        Verdict::ResetBeforePayload if reason == "INVALID_SYN" => {
            "The server's accept queue was full and net.ipv4.tcp_abort_on_overflow made its kernel reset the connection: the server accepts too slowly or its backlog is too small."
        }
        Verdict::ResetBeforePayload if reason == "TCP_TIMEWAIT_SOCKET" => {
            "The server had closed the connection before this end sent anything: make idle timeouts here shorter than over there."
        }
        Verdict::ResetBeforePayload if sent && !server => {
            "This connection was reset from this end before any payload, by someone other than its owner: look at who the sender is."
        }
        Verdict::ResetBeforePayload if sent => {
            "This server reset the connection before reading anything: look for connection limits, access lists or a crash right after accept in its log."
        }
        Verdict::ResetBeforePayload => {
            "The other end completed the handshake and reset before any payload: look there for connection limits, access lists, a TLS or protocol mismatch, or a crash right after accept."
        }
        Verdict::Probe => {
            "The end that connected reset its own connection without sending anything: a TCP health check of a load balancer or a port scan; harmless unless unexpected."
        }
        Verdict::ResetBeforeResponse if about.in_path => {
            "Neither end's stack sent this reset: a firewall or middlebox between them killed the connection while a request was unanswered."
        }
        Verdict::ResetBeforeResponse if reason == "TCP_TIMEWAIT_SOCKET" => {
            "The request was sent after the server had closed the connection (keep-alive race): make the client's idle timeout shorter than the server's keep-alive timeout, or retry."
        }
        Verdict::ResetBeforeResponse if matches!(reason, "NO_SOCKET" | "TCP_FLAGS") => {
            "The request reached a host that no longer knows the connection: the server restarted, or the address moved to another host."
        }
        Verdict::ResetBeforeResponse if reason == "TCP_ABORT_ON_CLOSE" => {
            "The server closed the connection without reading the whole request: look in its log for limits, rejected requests, a shutdown or a crash."
        }
        Verdict::ResetBeforeResponse if reason == "TCP_ABORT_ON_DATA" => {
            "The server had shut the connection down before the request arrived: look there for timeouts that are shorter than the client's."
        }
        Verdict::ResetBeforeResponse if sent && !server => {
            "This client reset its connection before the response came: look for its request timeout or a canceled request."
        }
        Verdict::ResetBeforeResponse if sent => {
            "This server reset the connection with a request unanswered: look in its log for a crash, a shutdown, or a deliberate abort (SO_LINGER 0)."
        }
        Verdict::ResetBeforeResponse if server => {
            "The client reset the connection before it was answered: its timeout or a canceled request; compare the duration with the client's timeouts."
        }
        Verdict::ResetBeforeResponse => {
            "The other end reset the connection with the request unanswered: look in its log for a crash, a shutdown, or a deliberate abort at that time."
        }
        Verdict::ResetMidStream if about.in_path => {
            "Neither end's stack sent this reset: a firewall or middlebox between them killed the connection in mid-stream."
        }
        Verdict::ResetMidStream => {
            "The other end reset the connection shortly after payload: look there for a crash, a canceled stream, or a close with data unread."
        }
        Verdict::ResetIdle if about.in_path => {
            "Neither end's stack sent this reset: a firewall or middlebox dropped the idle connection; make keep-alives more frequent than its idle timeout."
        }
        Verdict::ResetIdle => {
            "The other end, or a middlebox in its name, dropped the idle connection: harmless for a pool that retries; make the idle timeout here shorter than over there."
        }
        Verdict::ClosedBeforeResponse if server => {
            "This server closed the connection in order without answering the request: look in its log for a worker that gave up, a shutdown, or a protocol mismatch."
        }
        Verdict::ClosedBeforeResponse => {
            "The other end closed the connection in order without answering the request: look there for a shutdown, an idle timeout that raced with the request, or a protocol mismatch."
        }
        Verdict::Timeout => {
            "The other end stopped answering and the kernel gave up: look for a dead host, a dropped route, or a firewall that forgot the connection."
        }
        Verdict::LocalAbort => {
            "This end reset the connection after an answered exchange: a close with data unread, SO_LINGER 0, or a killed process; look at the sender."
        }
    };
    Some(text)
}

/// What a reset without a connection's socket means; `syn` where it answered a SYN.
pub const fn stray_hint(kind: u8, syn: bool) -> &'static str {
    use upstream_trace_common::event::kind;
    match (kind, syn) {
        (kind::RESET_SENT_NO_SOCKET, true) => {
            "Nothing listens on this local port: start the server or correct the client's address and port (ss -ltn)."
        }
        (kind::RESET_SENT_TIME_WAIT, _) => {
            "Data arrived for a connection that this end had closed already (keep-alive race): make the client's idle timeout shorter than this server's keep-alive timeout."
        }
        (kind::RESET_SENT_LISTEN, _) => {
            "A segment reached the listening socket without a valid handshake: a full accept queue with tcp_abort_on_overflow, a stale connection, or a scan."
        }
        _ => {
            "A segment arrived for a connection that this host does not know: it restarted, or the address moved here from another host."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_but_ok_has_a_hint_that_is_one_sentence_to_read() {
        for &verdict in Verdict::ALL {
            for role in [Role::Client, Role::Server, Role::Unknown] {
                for reset in [None, Some(Direction::Sent), Some(Direction::Received)] {
                    for in_path in [false, true] {
                        let about = About {
                            verdict,
                            role,
                            reset,
                            reason: None,
                            in_path,
                            errno: None,
                        };
                        let hint = hint(&about);
                        assert_eq!(hint.is_none(), verdict == Verdict::Ok);
                        assert!(hint.is_none_or(|text| text.ends_with('.') && text.len() < 250));
                    }
                }
            }
        }
    }
}
