//! HAProxy's `option httplog` and `option tcplog`, with or without the syslog header before them.
//!
//! `[HEADER haproxy[PID]: ]CLIENT [TIME] FRONTEND BACKEND/SERVER TIMERS ...`: five timers and a status in httplog, three and none in tcplog.
//! The time has no zone; the upstream has a name and no address. Must not know: what a termination state means.

use super::{Failed, Format, Reading, Span, cut, number, time};
use crate::explain::meaning;

const MILLISECOND: u64 = 1_000_000;
/// How lines begin that HAProxy writes about itself.
const OWN: [&str; 6] = [
    "Connect() failed for backend ",
    "Server ",
    "Backup Server ",
    "Health check for ",
    "Proxy ",
    "backend ",
];

pub(super) fn line(line: &str, zone: &mut time::Zone) -> Option<Reading> {
    let (mut rest, pid) = without_header(line);
    if OWN.iter().any(|words| rest.starts_with(words)) {
        return Some(Reading::Other);
    }
    let client = cut(&mut rest, " [")?;
    if client.contains(' ') || !client.contains(':') {
        return None;
    }
    let began = time::haproxy(cut(&mut rest, "] ")?)?.in_zone(zone)?;
    let _frontend = cut(&mut rest, " ")?;
    let server = cut(&mut rest, " ")?;
    let timers: Vec<_> = cut(&mut rest, " ")?.split('/').collect();
    // `+` where it was logged before the end.
    let total = number(timers.last()?.trim_start_matches('+'))?;
    let (format, status) = match timers.len() {
        5 => (Format::HaproxyHttp, Some(cut(&mut rest, " ")?)),
        3 => (Format::HaproxyTcp, None),
        _ => return None,
    };
    let _bytes = cut(&mut rest, " ")?;
    if format == Format::HaproxyHttp {
        let _cookies = (cut(&mut rest, " ")?, cut(&mut rest, " ")?);
    }
    let state = cut(&mut rest, " ")?;
    let status = status.and_then(|status| status.parse().ok());
    let ended = began.saturating_add(total.saturating_mul(MILLISECOND));
    let answered = (status >= Some(500) && server_named(server)).then_some(meaning::ANSWERED);
    let Some(nature) = meaning::haproxy(state).or(answered.filter(|_| state.starts_with("--")))
    else {
        return Some(Reading::Fine(ended));
    };
    let request = rest
        .rsplit_once(" \"")
        .and_then(|(_, request)| request.strip_suffix('"'));
    Some(Reading::failed(Failed {
        format,
        began,
        // Timers are rounded each by itself, and the clock is read once a round of the event loop.
        ended: Span::new(ended.saturating_sub(MILLISECOND), 2 * MILLISECOND),
        request: request.unwrap_or_default().to_owned(),
        status,
        flags: Some(state.to_owned()),
        said: None,
        upstream: None,
        name: Some(server.to_owned()),
        local: None,
        pid,
        nature,
    }))
}

/// Whether a server was chosen.
fn server_named(server: &str) -> bool {
    !server.ends_with("/<NOSRV>")
}

/// The line behind `haproxy[PID]: `, and the pid.
fn without_header(line: &str) -> (&str, Option<u32>) {
    let Some((header, message)) = line.split_once("]: ") else {
        return (line, None);
    };
    match header.rsplit_once('[') {
        Some((before, pid)) if before.ends_with("haproxy") => (message, pid.parse().ok()),
        _ => (line, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{failed, read},
        *,
    };

    /// The example of HAProxy's documentation.
    const HTTP: &str = r#"haproxy[14389]: 10.0.1.2:33317 [21/Nov/2026:15:20:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- 1/1/1/1/0 0/0 {1wt.eu} {} "GET /index.html HTTP/1.1""#;
    const TCP: &str = "haproxy[14387]: 10.0.1.2:33313 [21/Nov/2026:15:20:14.443] fnt bck/srv1 0/0/5007 212 -- 0/0/0/0/3 0/0";

    #[test]
    fn httplog() {
        assert!(matches!(
            read(HTTP),
            Reading::Fine(1_795_274_414_764_000_000)
        ));
        let line = failed(
            &HTTP
                .replace("----", "SC--")
                .replace(" 200 ", " 503 ")
                .replace("10/0/30/69/109", "10/0/-1/-1/109"),
        );
        assert_eq!(line.format, Format::HaproxyHttp);
        assert_eq!(
            (line.status, line.flags.as_deref()),
            (Some(503), Some("SC--"))
        );
        assert_eq!(line.request, "GET /index.html HTTP/1.1");
        assert_eq!(
            (line.pid, line.name.as_deref()),
            (Some(14389), Some("static/srv1"))
        );
        assert_eq!(line.ended.to, 1_795_274_414_765_000_000);
        assert_eq!(line.nature, meaning::CONNECT_FAILED);
    }

    #[test]
    fn tcplog() {
        assert!(matches!(read(TCP), Reading::Fine(_)));
        let line = failed(&TCP.replace(" -- ", " sC "));
        assert_eq!(
            (line.format, line.nature),
            (Format::HaproxyTcp, meaning::HANDSHAKE_TIMEOUT)
        );
    }

    #[test]
    fn headers_of_syslog() {
        for header in [
            "Nov 21 15:20:14 localhost ",
            "<134>Nov 21 15:20:14 ",
            "<134>1 2026-11-21T15:20:14+00:00 host ",
            "",
        ] {
            let line = failed(&format!("{header}{}", HTTP.replace("----", "SH--")));
            assert_eq!(
                (line.pid, line.nature),
                (Some(14389), meaning::TERMINATED),
                "{header}"
            );
        }
        let bare = HTTP
            .strip_prefix("haproxy[14389]: ")
            .unwrap()
            .replace("----", "SH--");
        assert_eq!(failed(&bare).pid, None);
    }

    #[test]
    fn words_about_itself() {
        for line in [
            "Connect() failed for backend b: no free ports.",
            "<134>Nov 21 15:20:14 haproxy[7]: Server b/s is DOWN, reason: Layer4 connection problem.",
        ] {
            assert_eq!(read(line), Reading::Other, "{line}");
        }
    }

    #[test]
    fn answers_of_the_proxy_itself() {
        assert_eq!(
            failed(&HTTP.replace(" 200 ", " 503 ")).nature,
            meaning::ANSWERED
        );
        assert!(matches!(
            read(&HTTP.replace("----", "LR--")),
            Reading::Fine(_)
        ));
        assert_eq!(
            failed(&HTTP.replace("----", "PR--")).nature,
            meaning::DENIED
        );
        assert_eq!(
            failed(&HTTP.replace("----", "CD--")).nature,
            meaning::CLIENT_GONE
        );
    }
}
