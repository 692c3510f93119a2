//! HAProxy's `option httplog` and `option tcplog`, with or without the syslog header before them.
//!
//! `[HEADER haproxy[PID]: ]CLIENT [TIME] FRONTEND BACKEND/SERVER TIMERS ...`: five timers and a status in httplog, three and none in tcplog.
//! HAProxy's own `format rfc5424` has its name and pid in a header like `<134>1 TIME HOST haproxy PID - - `.
//! The time has no zone; the upstream has a name and no address. Must not know: what a termination state means.

use super::{Failed, Format, Reading, Span, cut, number, time};
use crate::explain::meaning::{self, Nature};

const MILLISECOND: u64 = 1_000_000;
/// How late a connection may begin for what no timer of tcplog tells: content switching, a busy process.
const LATE: u64 = 1_000 * MILLISECOND;
/// How lines begin that HAProxy writes about itself.
const OWN: [&str; 7] = [
    "Connect() failed for backend ",
    "Server ",
    "Backup Server ",
    "Health check for ",
    "Proxy ",
    "backend ",
    "soft-stop ",
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
    let (format, status, queued, connecting) = match timers.as_slice() {
        // Any request may have gone to a connection that was there.
        [_, queued, _, _, _] => (
            Format::HaproxyHttp,
            Some(cut(&mut rest, " ")?),
            *queued,
            None,
        ),
        [queued, connecting, _] => (Format::HaproxyTcp, None, *queued, number(connecting)),
        _ => return None,
    };
    let _bytes = cut(&mut rest, " ")?;
    if format == Format::HaproxyHttp {
        let _cookies = (cut(&mut rest, " ")?, cut(&mut rest, " ")?);
    }
    let state = cut(&mut rest, " ")?;
    let status = status.and_then(|status| status.parse().ok());
    let ended = began.saturating_add(total.saturating_mul(MILLISECOND));
    let connected = number(queued).zip(connecting).map(|(queued, connecting)| {
        let ready = queued
            .saturating_add(connecting)
            .saturating_mul(MILLISECOND);
        Span {
            from: began.saturating_sub(MILLISECOND),
            to: began.saturating_add(ready).saturating_add(LATE),
        }
    });
    let answered = (status >= Some(500) && server_named(server)).then_some(meaning::ANSWERED);
    let ended_as = meaning::haproxy(state, format == Format::HaproxyHttp, status);
    let Some(nature) = ended_as.or(answered.filter(|_| state.starts_with("--"))) else {
        return Some(Reading::Fine(ended));
    };
    let nature = match nature {
        // What was queued has gone to a server: to one that is down since, or by `dispatch` to one without a name.
        Nature::Connection(_) if !server_named(server) && queued == "-1" => meaning::NO_SERVER,
        nature => nature,
    };
    let request = rest
        .rsplit_once(" \"")
        .and_then(|(_, request)| request.strip_suffix('"'));
    Some(Reading::failed(Failed {
        format,
        began,
        // Timers are rounded each by itself, and the clock is read once a round of the event loop.
        ended: Span::new(ended.saturating_sub(MILLISECOND), 2 * MILLISECOND),
        is_untimed: false,
        connected,
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

/// The line behind its header, and the pid in that.
fn without_header(line: &str) -> (&str, Option<u32>) {
    if let Some(found) = rfc5424(line) {
        return found;
    }
    let Some((header, message)) = line.split_once("]: ") else {
        return (line, None);
    };
    match header.rsplit_once('[') {
        // A second bracket is that of the time: the rest is a client's.
        Some((before, pid)) if before.ends_with("haproxy") && !before.contains('[') => {
            (message, pid.parse().ok())
        }
        _ => (line, None),
    }
}

/// `<PRIORITY>1 TIME HOST NAME PID ID DATA MESSAGE`: the message and the pid.
fn rfc5424(line: &str) -> Option<(&str, Option<u32>)> {
    let mut rest = line.strip_prefix('<')?;
    let _priority = number(cut(&mut rest, ">1 ")?)?;
    let [_time, _host, _name] = [
        cut(&mut rest, " ")?,
        cut(&mut rest, " ")?,
        cut(&mut rest, " ")?,
    ];
    let pid = cut(&mut rest, " ")?.parse().ok();
    let _id = cut(&mut rest, " ")?;
    let message = match rest.strip_prefix("- ") {
        Some(message) => message,
        None => behind_data(rest)?,
    };
    // rsyslog leaves the space of the older header.
    Some((message.trim_start(), pid))
}

/// What is behind `[ID NAME="VALUE" ...] `. A bracket in a value has a backslash before it, as has a quote or a backslash (section 6.3.3).
fn behind_data(rest: &str) -> Option<&str> {
    let bytes = rest.strip_prefix('[')?.bytes().enumerate();
    let mut is_escaped = false;
    let mut ends = bytes.filter(|&(_, byte)| {
        let ends = byte == b']' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    // Several follow each other at once.
    ends.find_map(|(at, _)| rest.get(at + 2..)?.strip_prefix(' '))
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
        // Behind 30 ms in a queue and 7 for the connection.
        let late = failed(&TCP.replace(" -- ", " sD ").replace("0/0/5007", "30/7/5037"));
        let began = late.began;
        let connected = Span {
            from: began - MILLISECOND,
            to: began + 37 * MILLISECOND + LATE,
        };
        assert_eq!(late.connected, Some(connected));
        let never = failed(&TCP.replace(" -- ", " SC ").replace("0/0/5007", "0/-1/5007"));
        assert_eq!(never.connected, None);
        assert_eq!(failed(&HTTP.replace("----", "sH--")).connected, None);
    }

    /// Lines of HAProxy 2.6, `log stdout format rfc5424`.
    #[test]
    fn its_own_header() {
        let line = r#"<134>1 2026-11-28T20:11:03.196498+00:00 - haproxy 7100 - - 127.0.0.1:55434 [28/Nov/2026:20:11:03.196] web be/s1 0/0/-1/-1/0 503 217 - - SC-- 1/1/0/0/0 0/0 "GET /x HTTP/1.1""#;
        let data = line.replace("7100 - - ", r#"7100 - [a@1 b="c"][d@1] "#);
        // A client's header, as `log-format-sd` writes it.
        let theirs = line.replace("7100 - - ", r#"7100 - [a@1 b="c [d\] \"e\\"] "#);
        let rsyslog = line.replace("7100 - - ", "7100 - -  ");
        for line in [line, &data, &theirs, &rsyslog] {
            let line = failed(line);
            assert_eq!(
                (line.pid, line.name.as_deref(), line.nature),
                (Some(7100), Some("be/s1"), meaning::CONNECT_FAILED)
            );
        }
        let own = "<129>1 2026-11-28T20:11:00.741648+00:00 - haproxy 7100 - - Server be/s1 is DOWN, reason: Layer4 connection problem.";
        assert_eq!(read(own), Reading::Other);
        for broken in [line.replace(" - - ", " - "), line.replace("<134>", "<a>")] {
            assert_eq!(read(&broken), Reading::Unknown, "{broken}");
        }
    }

    /// Lines of HAProxy 2.6: all servers down, `dispatch`, the only server down after its connection failed.
    #[test]
    fn without_a_server() {
        let http = r#"127.0.0.1:5 [28/Nov/2026:20:55:38.769] web be/<NOSRV> 0/-1/-1/-1/0 503 217 - - SC-- 1/1/0/0/0 0/0 "GET /x HTTP/1.1""#;
        let tcp =
            "127.0.0.1:5 [28/Nov/2026:20:55:41.795] tcpf tbe/<NOSRV> 1/-1/1001 0 SC 1/1/0/0/+1 0/0";
        let dispatched = http.replace("0/-1/-1/-1/0", "0/0/-1/-1/3002");
        for (line, nature) in [
            (http, meaning::NO_SERVER),
            (&http.replace("SC", "sC"), meaning::NO_SERVER),
            (&tcp.replace("1/-1/1001", "-1/-1/0"), meaning::NO_SERVER),
            (&dispatched, meaning::CONNECT_FAILED),
            (tcp, meaning::CONNECT_FAILED),
            (&http.replace("SC", "sQ"), meaning::QUEUED_TOO_LONG),
        ] {
            assert_eq!(failed(line).nature, nature, "{line}");
        }
    }

    #[test]
    fn a_header_that_a_client_sent() {
        let line = HTTP
            .strip_prefix("haproxy[14389]: ")
            .unwrap()
            .replace("----", "SH--")
            .replace("{1wt.eu}", "{haproxy[7]: 9.9.9.9:9 [}");
        let line = failed(&line);
        assert_eq!(
            (line.pid, line.name.as_deref()),
            (None, Some("static/srv1"))
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
            "<132>Dec  1 05:02:11 haproxy[7]: soft-stop running for too long, performing a hard-stop.",
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
        for (state, nature) in [
            ("PR--", meaning::ENDED_BY_PROXY),
            ("PC--", meaning::NO_SOCKET_LEFT),
            // In most cases what the server had sent, by the manual.
            ("PD--", meaning::BAD_RESPONSE),
            ("PH--", meaning::BAD_RESPONSE),
        ] {
            let line = failed(&HTTP.replace("----", state));
            assert_eq!(line.nature, nature, "{state}");
        }
        for (state, nature) in [
            ("CD--", meaning::CLIENT_GONE),
            ("cD--", meaning::CLIENT_SILENT),
        ] {
            assert_eq!(failed(&HTTP.replace("----", state)).nature, nature);
        }
    }

    /// What ended behind the headers of an answer had been answered; behind 101, or over TCP, it may not have been.
    #[test]
    fn an_answer_that_was_cut_had_begun() {
        for (line, nature) in [
            (HTTP.replace("----", "SD--"), meaning::CUT_ANSWER),
            (
                HTTP.replace("----", "SD--").replace(" 200 ", " 101 "),
                meaning::TERMINATED,
            ),
            (HTTP.replace("----", "SH--"), meaning::TERMINATED),
            (TCP.replace(" -- ", " SD "), meaning::TERMINATED),
            // Over TCP a client may have waited without a word.
            (TCP.replace(" -- ", " sD "), meaning::NO_ANSWER_ON_TUNNEL),
            (HTTP.replace("----", "sD--"), meaning::NO_ANSWER),
        ] {
            assert_eq!(failed(&line).nature, nature, "{line}");
        }
    }
}
