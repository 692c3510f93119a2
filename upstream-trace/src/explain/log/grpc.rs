//! A gRPC client's own log: lines that begin with a time and hold the status of a call that failed, in the words of gRPC's C core and the
//! languages over it (`UNAVAILABLE: failed to connect ...`), of Java, or of Go (`rpc error: code = Unavailable desc = ...`).
//!
//! The server is the first `ipv4:ADDRESS:PORT` in the line, or what Go's words name. Many programs write such words in capitals, so a line
//! has to name a server, a method or gRPC as well. Must not know: what a status means.

use std::net::SocketAddr;

use super::{Failed, Format, Reading, Span, address, time};
use crate::explain::meaning::{self, Nature};

/// A status in all spellings: the C core's and Java's, Go's.
const STATUSES: [[&str; 2]; 16] = [
    ["CANCELLED", "Canceled"],
    ["UNKNOWN", "Unknown"],
    ["INVALID_ARGUMENT", "InvalidArgument"],
    ["DEADLINE_EXCEEDED", "DeadlineExceeded"],
    ["NOT_FOUND", "NotFound"],
    ["ALREADY_EXISTS", "AlreadyExists"],
    ["PERMISSION_DENIED", "PermissionDenied"],
    ["RESOURCE_EXHAUSTED", "ResourceExhausted"],
    ["FAILED_PRECONDITION", "FailedPrecondition"],
    ["ABORTED", "Aborted"],
    ["OUT_OF_RANGE", "OutOfRange"],
    ["UNIMPLEMENTED", "Unimplemented"],
    ["INTERNAL", "Internal"],
    ["UNAVAILABLE", "Unavailable"],
    ["DATA_LOSS", "DataLoss"],
    ["UNAUTHENTICATED", "Unauthenticated"],
];

pub(super) fn line(line: &str, zone: &mut time::Zone) -> Option<Reading> {
    let (at, precision, rest) = time::leading(line, zone)?;
    let (status, before, said) = status(rest)?;
    let nature = meaning::grpc(status, said);
    // Words that are not about the call's connection may name one of the server's.
    let (local, remote) = match nature {
        Nature::Connection(_) => ends(said),
        Nature::Elsewhere(_) => (None, None),
    };
    let (method, upstream) = (method(before), core_address(rest).or(remote));
    let named = ["rpc", "Rpc", "RPC", "StatusCode."]
        .iter()
        .any(|name| rest.contains(name));
    if method.is_none() && upstream.is_none() && !named {
        return None;
    }
    Some(Reading::failed(Failed {
        format: Format::Grpc,
        began: at,
        ended: Span::new(at, precision),
        is_untimed: false,
        connected: None,
        request: method.unwrap_or_default().to_owned(),
        status: None,
        flags: Some(status.to_owned()),
        said: Some(said.to_owned()).filter(|said| !said.is_empty()),
        upstream,
        name: None,
        local,
        pid: None,
        nature,
    }))
}

/// The status, what stands before it, and the words behind it.
fn status(text: &str) -> Option<(&'static str, &str, &str)> {
    if let Some((before, behind)) = text.split_once("rpc error: code = ") {
        let (word, said) = behind.split_once(" desc = ").unwrap_or((behind, ""));
        let [status, _] = STATUSES.iter().find(|[_, go]| *go == word)?;
        return Some((status, before, said));
    }
    // The first one, because the words behind it may hold another.
    let colons = text.match_indices(':').map(|(at, _)| at);
    colons.into_iter().find_map(|at| {
        let before = text.get(..at)?;
        let [status, _] = STATUSES
            .iter()
            .find(|[status, _]| before.ends_with(status))?;
        let before = before.strip_suffix(status)?;
        let whole = !before.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        whole.then_some((*status, before, text.get(at + 1..)?.trim_start()))
    })
}

/// `/package.Service/Method`
fn method(text: &str) -> Option<&str> {
    let mut words = text.split(|separator: char| separator.is_whitespace() || separator == '"');
    words.find(|word| word.starts_with('/') && word.matches('/').count() == 2)
}

/// `ipv4:10.0.0.1:80`, `ipv6:%5B::1%5D:80`
fn core_address(text: &str) -> Option<SocketAddr> {
    let (_, behind) = text
        .split_once("ipv4:")
        .or_else(|| text.split_once("ipv6:"))?;
    let word = behind.split_whitespace().next()?;
    let word = word.trim_end_matches([',', ';', ':', '"']);
    address(&word.replace("%5B", "[").replace("%5D", "]"))
}

/// Go's `read tcp LOCAL->REMOTE: ...` and `dial tcp REMOTE: ...`: this end, the other end.
fn ends(said: &str) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let word = said
        .split_once(" tcp ")
        .and_then(|(_, behind)| behind.split_once(": "))
        .map_or("", |(word, _)| word);
    match word.split_once("->") {
        Some((local, remote)) => (address(local), address(remote)),
        None => (None, address(word)),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{failed, read},
        *,
    };

    const SECOND: u64 = 1_000_000_000;
    const AT: u64 = 1_795_274_414 * SECOND;

    #[test]
    fn words_of_the_core() {
        let line = failed(
            "2026-11-21 15:20:14,655 ERROR orders: /shop.Orders/Get: UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN: \
             ipv4:10.0.0.1:8443: Failed to connect to remote host: Connection refused",
        );
        assert_eq!(line.format, Format::Grpc);
        assert_eq!(line.ended, Span::new(AT + 655_000_000, 1_000_000));
        assert_eq!(line.flags.as_deref(), Some("UNAVAILABLE"));
        assert_eq!(line.upstream, "10.0.0.1:8443".parse().ok());
        assert_eq!((line.local, line.nature), (None, meaning::REFUSED));
        assert!(line.said.unwrap().starts_with("failed to connect to all"));
        let line = failed(
            "2026-11-21T15:20:14Z ipv6:%5B::1%5D:80 StatusCode.UNAVAILABLE: Stream removed (Socket closed)",
        );
        assert_eq!(line.upstream, "[::1]:80".parse().ok());
        assert_eq!(
            (line.request.as_str(), line.nature),
            ("", meaning::CLOSED_BELOW)
        );
    }

    #[test]
    fn words_of_go() {
        let line = failed(
            "2026/11/21 15:20:14 could not greet: rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: \
             dial tcp 10.0.0.1:8443: connect: connection refused\"",
        );
        assert_eq!(line.ended, Span::new(AT, SECOND));
        assert_eq!(line.flags.as_deref(), Some("UNAVAILABLE"));
        assert_eq!(line.upstream, "10.0.0.1:8443".parse().ok());
        assert_eq!((line.local, line.nature), (None, meaning::REFUSED));
        let line = failed(
            "2026/11/21 15:20:14.000250 rpc error: code = Unavailable desc = error reading from server: read tcp 10.0.0.9:41000->10.0.0.1:8443: \
             read: connection reset by peer",
        );
        assert_eq!(line.ended, Span::new(AT + 250_000, 1_000));
        assert_eq!(line.upstream, "10.0.0.1:8443".parse().ok());
        assert_eq!(line.local, "10.0.0.9:41000".parse().ok());
        assert_eq!(line.nature, meaning::RESET);
    }

    #[test]
    fn one_that_names_grpc_alone() {
        let line =
            failed("2026-11-21 15:20:14,655 ERROR gRPC call failed: UNAVAILABLE: Socket closed");
        assert_eq!((line.upstream, line.nature), (None, meaning::CLOSED_BELOW));
    }

    #[test]
    fn words_of_java() {
        let line = failed(
            "2026-11-21T15:20:14.655+00:00 WARN io.grpc.StatusRuntimeException: UNAVAILABLE: io exception",
        );
        assert_eq!((line.upstream, line.nature), (None, meaning::BAD_GATEWAY));
    }

    /// Go's status for an error without one: here that of a handler that did not reach its database.
    #[test]
    fn a_servers_own_connection() {
        let line = failed(
            "2026/11/21 15:20:14 rpc error: code = Unknown desc = dial tcp 10.1.1.1:5432: connect: connection refused",
        );
        assert_eq!(
            (line.upstream, line.nature),
            (None, meaning::SAID_BY_EITHER)
        );
    }

    #[test]
    fn other_lines() {
        for line in [
            "2026-11-21 15:20:14,655 INFO Transaction 17 ABORTED: user pressed escape",
            "2026-11-21 15:20:14,655 WARN INTERNAL: /a/b/c is gone",
            "2026-11-21 15:20:14,655 INFO hello",
            "2026-11-21 15:20:14,655 SERVICE_UNAVAILABLE: no",
            "2026/11/21 15:20:14 rpc error: code = Strange desc = no",
            "UNAVAILABLE: no time",
        ] {
            assert_eq!(read(line), Reading::Unknown, "{line}");
        }
    }
}
