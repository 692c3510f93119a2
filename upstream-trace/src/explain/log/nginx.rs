//! The error log of NGINX: `DATE TIME [LEVEL] PID#TID: *CONNECTION MESSAGE, client: ..., upstream: "...", ...`.
//!
//! Its time has no zone and no fraction. Must not know: what a message means.

use super::{Failed, Format, Reading, Span, address, cut, number, time};
use crate::explain::meaning::{self, Nature};

const SECOND: u64 = 1_000_000_000;

pub(super) fn error(line: &str, zone: &mut time::Zone) -> Option<Reading> {
    let mut rest = line;
    let at = time::slashed(cut(&mut rest, " [")?)?.in_zone(zone)?;
    let _level = cut(&mut rest, "] ")?;
    let pid = number(cut(&mut rest, "#")?)?;
    let _thread = number(cut(&mut rest, ": ")?)?;
    // A message without a connection is the program's own.
    let Some(rest) = rest.strip_prefix('*') else {
        return Some(Reading::Other);
    };
    let (_connection, message) = rest.split_once(' ')?;
    let said = message
        .split_once(", client: ")
        .map_or(message, |(said, _)| said);
    let Some(nature) = meaning::nginx(said) else {
        return Some(Reading::Other);
    };
    let url = field(message, ", upstream: \"");
    let upstream = url.and_then(upstream);
    let name = url.filter(|_| upstream.is_none());
    let nature = match nature {
        Nature::Connection(_) if url.is_some_and(|url| url.contains("://unix:")) => {
            meaning::NOT_TCP
        }
        nature => nature,
    };
    Some(Reading::failed(Failed {
        format: Format::NginxError,
        began: at,
        ended: Span::new(at, SECOND),
        request: field(message, ", request: \"")
            .unwrap_or_default()
            .to_owned(),
        status: None,
        flags: None,
        said: Some(said.to_owned()),
        upstream,
        name: name.map(str::to_owned),
        local: None,
        pid: u32::try_from(pid).ok(),
        nature,
    }))
}

/// What stands in quotes behind `mark`; the last, because a request comes from outside and may hold anything.
fn field<'a>(message: &'a str, mark: &str) -> Option<&'a str> {
    let (_, behind) = message.rsplit_once(mark)?;
    Some(behind.split_once('"').map_or(behind, |(value, _)| value))
}

/// `http://127.0.0.1:81/path`, or `127.0.0.1:81` of the stream module.
fn upstream(url: &str) -> Option<std::net::SocketAddr> {
    let behind = url.split_once("://").map_or(url, |(_, behind)| behind);
    address(behind.split('/').next()?)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{failed, read},
        *,
    };

    fn line(message: &str) -> String {
        format!(
            "2026/11/21 15:20:14 [error] 4242#4242: *7 {message}, client: 127.0.0.1, server: _, request: \"GET /a?b HTTP/1.1\", \
             upstream: \"http://127.0.0.1:18081/a?b\", host: \"127.0.0.1:8080\""
        )
    }

    #[test]
    fn a_refused_connection() {
        let line = failed(&line(
            "connect() failed (111: Connection refused) while connecting to upstream",
        ));
        assert_eq!(line.pid, Some(4242));
        assert_eq!(line.request, "GET /a?b HTTP/1.1");
        assert_eq!(line.upstream, "127.0.0.1:18081".parse().ok());
        assert_eq!(
            line.said.as_deref(),
            Some("connect() failed (111: Connection refused) while connecting to upstream")
        );
        assert_eq!(line.ended, Span::new(1_795_274_414_000_000_000, SECOND));
        assert_eq!(line.nature, meaning::REFUSED);
    }

    #[test]
    fn every_message_has_its_meaning() {
        for (message, nature) in [
            (
                "recv() failed (104: Connection reset by peer) while reading response header from upstream",
                meaning::RESET,
            ),
            (
                "recv() failed (104: Connection reset by peer) while reading upstream",
                meaning::RESET,
            ),
            (
                "writev() failed (32: Broken pipe) while sending request to upstream",
                meaning::RESET,
            ),
            (
                "upstream prematurely closed connection while reading response header from upstream",
                meaning::CLOSED_UNANSWERED,
            ),
            (
                "upstream prematurely closed connection while reading upstream",
                meaning::BROKEN_RESPONSE,
            ),
            (
                "upstream timed out (110: Connection timed out) while connecting to upstream",
                meaning::CONNECT_TIMEOUT,
            ),
            (
                "upstream timed out (110: Connection timed out) while reading response header from upstream",
                meaning::NO_ANSWER,
            ),
            (
                "peer closed connection in SSL handshake (104: Connection reset by peer) while SSL handshaking to upstream",
                meaning::HANDSHAKE_FAILED,
            ),
            (
                "connect() failed (113: No route to host) while connecting to upstream",
                meaning::UNREACHABLE,
            ),
            (
                "connect() to 127.0.0.1:18081 failed (99: Cannot assign requested address) while connecting to upstream",
                meaning::NO_LOCAL_PORT,
            ),
            (
                "connect() to 10.99.0.1:81 failed (101: Network is unreachable) while connecting to upstream",
                meaning::NO_ROUTE,
            ),
            (
                "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too (104: Connection reset by peer) while sending request to upstream",
                meaning::CLIENT_GONE,
            ),
            (
                "no live upstreams while connecting to upstream",
                meaning::NO_SERVER,
            ),
            (
                "limiting requests, excess: 0.5 by zone \"one\"",
                meaning::DENIED,
            ),
        ] {
            assert_eq!(failed(&line(message)).nature, nature, "{message}");
        }
    }

    #[test]
    fn what_is_no_failure_is_left_alone() {
        for text in [
            "2026/11/21 15:20:14 [notice] 4242#4242: signal process started".to_owned(),
            line("an upstream response is buffered to a temporary file"),
            line("client closed connection while waiting for request"),
            line("recv() failed (104: Connection reset by peer) while waiting for request"),
        ] {
            assert_eq!(read(&text), Reading::Other, "{text}");
        }
    }

    #[test]
    fn other_upstreams() {
        let socket = line("connect() failed (111: Connection refused)")
            .replace("127.0.0.1:18081", "unix:/run/a.sock:");
        assert_eq!(failed(&socket).nature, meaning::NOT_TCP);
        let stream = line("connect() failed (111: Connection refused)")
            .replace("http://127.0.0.1:18081/a?b", "[::1]:81");
        assert_eq!(failed(&stream).upstream, "[::1]:81".parse().ok());
    }
}
