//! The error log of NGINX: `DATE TIME [LEVEL] PID#TID: *CONNECTION MESSAGE, client: ..., request: "...", upstream: "...", ...`.
//!
//! Its time has no zone and no fraction. The request and, behind the upstream, host and referrer are what a client sent, with quotes and
//! all. Must not know: what a message means.

use super::{Failed, Format, Reading, Span, address, cut, number, time};
use crate::explain::meaning::{self, Nature};

const SECOND: u64 = 1_000_000_000;
/// Bytes of a line at most, without its end (`NGX_MAX_ERROR_STR`): what would follow is cut off.
const LONGEST: usize = 2_047;

pub(super) fn error(line: &str, zone: &mut time::Zone) -> Option<Reading> {
    let mut rest = line;
    let at = time::slashed(cut(&mut rest, " [")?)?.in_zone(zone)?;
    let level = cut(&mut rest, "] ")?;
    let pid = number(cut(&mut rest, "#")?)?;
    let _thread = number(cut(&mut rest, ": ")?)?;
    // A message without a connection is the program's own.
    let Some(rest) = rest.strip_prefix('*') else {
        return Some(Reading::Other);
    };
    let (_connection, message) = rest.split_once(' ')?;
    let (said, fields) = message.split_once(", client: ").unwrap_or((message, ""));
    let Some(nature) = meaning::nginx(said) else {
        return Some(Reading::Other);
    };
    let (request, fields) = request(fields);
    let url = url(fields);
    let upstream = url.and_then(upstream);
    let name = url.filter(|_| upstream.is_none());
    let nature = match nature {
        Nature::Elsewhere(_) => nature,
        // What ends it is told as information of a client's connection, as an error of an upstream's.
        meaning::RESET | meaning::KERNEL_GAVE_UP if level == "info" => meaning::CLIENT_GONE,
        Nature::Connection(_) => match url {
            None if line.len() < LONGEST => meaning::NO_UPSTREAM,
            Some(url) if without_scheme(url).starts_with("unix:") => meaning::NOT_TCP,
            Some(url) if is_tls(url) => over_tls(nature),
            Some(_) | None => nature,
        },
    };
    Some(Reading::failed(Failed {
        format: Format::NginxError,
        began: at,
        ended: Span::new(at, SECOND),
        is_untimed: false,
        connected: None,
        request: request.to_owned(),
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

/// The request, and the fields behind it: none where it is so long that the line was cut off.
fn request(fields: &str) -> (&str, &str) {
    let Some((_, behind)) = fields.split_once(", request: \"") else {
        return ("", fields);
    };
    // A quote does not end it: since 1.21.1 NGINX takes no spaces in a path, and before none with a protocol behind them. Only HTTP/2
    // knew no such bounds then, so there a client may still name an upstream.
    let protocols = memchr::memmem::find_iter(behind.as_bytes(), " HTTP/");
    let mut ends = protocols.map(|at| at + " HTTP/1.1".len());
    let end = ends.find(|end| behind.as_bytes().get(*end) == Some(&b'"'));
    end.and_then(|end| behind.split_at_checked(end))
        .unwrap_or_else(|| (behind.split('"').next().unwrap_or(behind), ""))
}

/// The upstream as NGINX names it. What looks like one in host or referrer is the client's.
fn url(fields: &str) -> Option<&str> {
    let theirs = [", host: \"", ", referrer: \""].map(|mark| fields.find(mark));
    let own = theirs.into_iter().flatten().min().unwrap_or(fields.len());
    let (_, url) = fields.get(..own)?.split_once(", upstream: \"")?;
    match url.split_once('"') {
        Some((url, _)) => Some(url),
        // Cut off, but behind the address.
        None => Some(url).filter(|url| without_scheme(url).contains('/')),
    }
}

/// `http://127.0.0.1:81/path`, or `127.0.0.1:81` of the stream module.
fn upstream(url: &str) -> Option<std::net::SocketAddr> {
    address(without_scheme(url).split('/').next()?)
}

fn is_tls(url: &str) -> bool {
    ["https://", "grpcs://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
}

/// Over TLS a reset is told like an orderly close.
const fn over_tls(nature: Nature) -> Nature {
    match nature {
        meaning::CLOSED_UNANSWERED => meaning::TERMINATED,
        meaning::CLOSED_INSIDE => meaning::ENDED_INSIDE,
        other => other,
    }
}

fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, behind)| behind)
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
                meaning::CLOSED_INSIDE,
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
                "connect() to 127.0.0.1:18081 failed (13: Permission denied) while connecting to upstream",
                meaning::FORBIDDEN,
            ),
            (
                "connect() to 127.0.0.1:18081 failed (11: Resource temporarily unavailable) while connecting to upstream",
                meaning::INTERNAL,
            ),
            (
                "upstream SSL certificate does not match \"a\" while SSL handshaking to upstream",
                meaning::HANDSHAKE_FAILED,
            ),
            (
                "upstream prematurely closed connection while sending to client",
                meaning::CLOSED_UNANSWERED,
            ),
            (
                "api.example could not be resolved (3: Host not found)",
                meaning::UNRESOLVED,
            ),
            (
                "api.example could not be resolved (110: Operation timed out)",
                meaning::UNRESOLVED,
            ),
            (
                "no resolver defined to resolve api.example",
                meaning::UNRESOLVED,
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
    fn over_tls_a_reset_is_told_like_a_close() {
        for (message, nature) in [
            (
                "upstream prematurely closed connection while reading response header from upstream",
                meaning::TERMINATED,
            ),
            (
                "upstream prematurely closed connection while reading upstream",
                meaning::ENDED_INSIDE,
            ),
        ] {
            let line = line(message).replace("http://", "https://");
            assert_eq!(failed(&line).nature, nature, "{message}");
        }
    }

    #[test]
    fn a_connection_that_was_not_to_be_had() {
        for (message, nature) in [
            (
                "socket() failed (24: Too many open files) while connecting to upstream",
                meaning::NO_FILE_LEFT,
            ),
            (
                "socket() failed (23: Too many open files in system) while connecting to upstream",
                meaning::NO_FILE_LEFT_ON_HOST,
            ),
            (
                "socket() failed (97: Address family not supported by protocol) while connecting to upstream",
                meaning::INTERNAL,
            ),
            (
                "8 worker_connections are not enough while connecting to upstream",
                meaning::NO_CONNECTION_LEFT,
            ),
        ] {
            assert_eq!(failed(&line(message)).nature, nature, "{message}");
        }
    }

    #[test]
    fn what_the_kernel_or_tls_said() {
        for (message, nature) in [
            (
                "connect() failed (110: Connection timed out) while connecting to upstream",
                meaning::CONNECT_TIMEOUT,
            ),
            (
                "connect() failed (112: Host is down) while connecting to upstream",
                meaning::UNREACHABLE,
            ),
            (
                "connect() failed (13: Permission denied) while connecting to upstream",
                meaning::CONNECT_FAILED,
            ),
            (
                "connect() failed (104: Connection reset by peer) while connecting to upstream",
                meaning::RESET,
            ),
            (
                "recv() failed (110: Connection timed out) while reading response header from upstream",
                meaning::KERNEL_GAVE_UP,
            ),
            (
                "recv() failed (113: No route to host) while reading response header from upstream",
                meaning::KERNEL_GAVE_UP,
            ),
            (
                "writev() failed (111: Connection refused) while sending request to upstream",
                meaning::KERNEL_GAVE_UP,
            ),
            (
                "SSL_read() failed (SSL:) (110: Connection timed out) while reading upstream",
                meaning::KERNEL_GAVE_UP,
            ),
            (
                "SSL_do_handshake() failed (SSL:) (110: Connection timed out) while SSL handshaking to upstream",
                meaning::KERNEL_GAVE_UP,
            ),
            (
                "SSL_read() failed (SSL: error:0A00045C:SSL routines::tlsv13 alert certificate required:SSL alert number 116) while reading response header from upstream",
                meaning::ALERT,
            ),
            (
                "SSL_read() failed (SSL: error:0A000119:SSL routines::decryption failed or bad record mac) while sending to client",
                meaning::HANDSHAKE_FAILED,
            ),
            (
                "SSL_read() failed (SSL:) (104: Connection reset by peer) while reading response header from upstream",
                meaning::RESET,
            ),
        ] {
            assert_eq!(failed(&line(message)).nature, nature, "{message}");
        }
    }

    /// As NGINX 1.22 writes them, but for the path with spaces, which it took before 1.21.1.
    #[test]
    fn what_a_client_sends_names_no_upstream() {
        let refused = "connect() failed (111: Connection refused) while connecting to upstream";
        let forged = ", upstream: \"http://10.9.9.9:99/";
        let whole = line(refused);
        let with_path = whole.replace("/a?b", "/q\",x");
        let spaces = whole.replace("/a?b", &format!("/q\"{forged}"));
        for (line, request) in [
            (
                format!("{whole}, referrer: \"a{forged}\""),
                "GET /a?b HTTP/1.1",
            ),
            (with_path, "GET /q\",x HTTP/1.1"),
            (spaces, "GET /q\", upstream: \"http://10.9.9.9:99/ HTTP/1.1"),
        ] {
            let line = failed(&line);
            assert_eq!(line.upstream, "127.0.0.1:18081".parse().ok());
            assert_eq!(line.request, request);
        }
        let without = whole.replace(", upstream: \"http://127.0.0.1:18081/a?b\"", "");
        let host = without.replace("host: \"", &format!("host: \"a{forged}"));
        assert_eq!(failed(&host).nature, meaning::NO_UPSTREAM);
    }

    /// NGINX writes 2,048 bytes of a line.
    #[test]
    fn lines_that_were_cut_off() {
        let whole = line("connect() failed (111: Connection refused) while connecting to upstream");
        for (cut_at, request, upstream) in [
            ("?b HTTP", "GET /a", None),
            (":18081/", "GET /a?b HTTP/1.1", None),
            ("?b\", host", "GET /a?b HTTP/1.1", Some("127.0.0.1:18081")),
        ] {
            let line = failed(whole.split_once(cut_at).unwrap().0);
            assert_eq!(line.request, request);
            assert_eq!(
                line.upstream,
                upstream.and_then(|address| address.parse().ok())
            );
            let found = upstream.map_or(meaning::NO_UPSTREAM, |_| meaning::REFUSED);
            assert_eq!(line.nature, found, "{cut_at}");
        }
        // What it lacks was cut off.
        let mut long = whole.replace("?b", &"x".repeat(LONGEST));
        for (len, nature) in [
            (LONGEST, meaning::REFUSED),
            (LONGEST - 1, meaning::NO_UPSTREAM),
        ] {
            long.truncate(len);
            let line = failed(&long);
            assert_eq!((line.upstream, line.nature), (None, nature), "{len}");
        }
    }

    #[test]
    fn the_clients_side() {
        for message in [
            "writev() failed (32: Broken pipe) while sending to client",
            "SSL_write() failed (SSL:) (32: Broken pipe) while sending to client",
            "sendfile() failed (104: Connection reset by peer) while sending response to client",
            "recv() failed (104: Connection reset by peer) while proxying and reading from client",
        ] {
            assert_eq!(
                failed(&line(message)).nature,
                meaning::CLIENT_GONE,
                "{message}"
            );
        }
        // Here the level tells whose connection it was.
        for (message, nature) in [
            (
                "recv() failed (104: Connection reset by peer) while sending to client",
                meaning::RESET,
            ),
            (
                "recv() failed (104: Connection reset by peer) while proxying upgraded connection",
                meaning::RESET,
            ),
            (
                "recv() failed (110: Connection timed out) while proxying upgraded connection",
                meaning::KERNEL_GAVE_UP,
            ),
        ] {
            let line = line(message);
            assert_eq!(failed(&line).nature, nature, "{message}");
            let line = line.replace("[error]", "[info]");
            assert_eq!(failed(&line).nature, meaning::CLIENT_GONE, "{message}");
        }
    }

    #[test]
    fn without_an_upstream_there_is_no_connection_to_one() {
        for (level, message, nature) in [
            (
                "crit",
                "SSL_do_handshake() failed (SSL: error:0A00006C:SSL routines::bad key share) while SSL handshaking",
                meaning::NO_UPSTREAM,
            ),
            (
                "info",
                "peer closed connection in SSL handshake (104: Connection reset by peer) while SSL handshaking",
                meaning::NO_UPSTREAM,
            ),
            (
                "error",
                "connect() failed (111: Connection refused), context: ngx.timer",
                meaning::NO_UPSTREAM,
            ),
            (
                "info",
                "recv() failed (104: Connection reset by peer) while reading client request headers",
                meaning::CLIENT_GONE,
            ),
        ] {
            let line = format!(
                "2026/11/21 15:20:14 [{level}] 4242#4242: *7 {message}, client: 127.0.0.1, server: _"
            );
            assert_eq!(failed(&line).nature, nature, "{message}");
        }
    }

    #[test]
    fn what_is_no_failure_is_left_alone() {
        for text in [
            "2026/11/21 15:20:14 [notice] 4242#4242: signal process started".to_owned(),
            // Its clients are none yet.
            "2026/11/21 15:20:14 [crit] 4242#4242: accept4() failed (24: Too many open files)"
                .to_owned(),
            line("an upstream response is buffered to a temporary file"),
            line("client closed connection while waiting for request"),
            line("client timed out (110: Connection timed out) while reading client request body"),
            line("recv() failed (110: Connection timed out) while waiting for request"),
            line(
                "SSL_shutdown() failed (SSL: error:0A000197:SSL routines::shutdown while in init) while reading upstream",
            ),
            line("recv() failed (104: Connection reset by peer) while waiting for request"),
            line("client 127.0.0.1 closed keepalive connection (104: Connection reset by peer)"),
            // What stands in quotes others said.
            line(
                "FastCGI sent in stderr: \"PHP message: connect() failed (111: Connection refused)\" while reading response header from upstream",
            ),
            line("open() \"/srv/(111: x\" failed (2: No such file or directory)"),
        ] {
            assert_eq!(read(&text), Reading::Other, "{text}");
        }
    }

    #[test]
    fn other_upstreams() {
        let socket = line("connect() failed (111: Connection refused)")
            .replace("127.0.0.1:18081", "unix:/run/a.sock:");
        assert_eq!(failed(&socket).nature, meaning::NOT_TCP);
        let missing = line(
            "connect() to unix:/run/a.sock failed (2: No such file or directory) while connecting to upstream",
        );
        for upstream in ["http://unix:/run/a.sock:/a?b", "unix:/run/a.sock"] {
            let missing = missing.replace("http://127.0.0.1:18081/a?b", upstream);
            assert_eq!(failed(&missing).nature, meaning::NOT_TCP, "{upstream}");
        }
        let path = line("connect() failed (111: Connection refused)").replace("a?b", "a://unix:b");
        assert_eq!(failed(&path).nature, meaning::REFUSED);
        let stream = line("connect() failed (111: Connection refused)")
            .replace("http://127.0.0.1:18081/a?b", "[::1]:81");
        assert_eq!(failed(&stream).upstream, "[::1]:81".parse().ok());
    }
}
