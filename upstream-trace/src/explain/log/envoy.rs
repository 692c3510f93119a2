//! Access logs of Envoy and Istio: the default text format of each, and JSON with Istio's keys.
//!
//! Text, up to the flags alike: `[START_TIME] "METHOD PATH PROTOCOL" CODE FLAGS ...`. Then Envoy has numbers, Istio the details; both
//! end with the upstream host in quotes, behind which Istio has the addresses. Whoever wants them of Envoy adds them there.
//! Must not know: what a flag means.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Failed, Format, Reading, Span, address, cut, known, number, time};
use crate::explain::meaning::{self, Nature};

const MILLISECOND: u64 = 1_000_000;

/// The text formats.
pub(super) fn text(line: &str) -> Option<Reading> {
    let mut rest = line.strip_prefix('[')?;
    let began = time::rfc3339(cut(&mut rest, "]")?)?;
    rest = rest.strip_prefix(" \"")?;
    let request = request(&mut rest)?;
    let status = status(cut(&mut rest, " ")?)?;
    let flags = cut(&mut rest, " ")?;
    if flags == "-" && status < 500 {
        return Some(fine(began, lasted(rest)));
    }
    // From behind, because what a client sends may hold quotes.
    let (front, behind) = rest.rsplit_once('"')?;
    let (front, host) = front.rsplit_once('"')?;
    let plain = front.starts_with(|first: char| first.is_ascii_digit());
    let (said, numbers) = if plain {
        (Cow::Borrowed(""), front)
    } else {
        details(front)?
    };
    let mut numbers = numbers.split(' ');
    let _bytes = (number(numbers.next()?)?, number(numbers.next()?)?);
    let duration = number(numbers.next()?);
    let answered_after = numbers.next().and_then(number);
    let (local, remote) = ends(behind, plain);
    let line = Line {
        format: if plain { Format::Envoy } else { Format::Istio },
        began,
        duration,
        request: request.into(),
        status,
        flags,
        said: &said,
        answered: answered_after.is_some() || is_answer(&said),
        host: remote.unwrap_or(host),
        local: local.unwrap_or("-"),
    };
    // Other formats have another field in quotes at the end.
    is_host(host, &line).then(|| reading(line))
}

/// Whether the last field in quotes can be the upstream host of such a line.
fn is_host(field: &str, line: &Line<'_>) -> bool {
    if known(field).is_some() {
        return address(field).is_some() || no_tcp(field);
    }
    // There is none where no upstream was chosen, or a time was over before one was connected.
    match nature(line) {
        Some(Nature::Connection(expected)) => expected.is_timeout(),
        _ => true,
    }
}

/// Behind the host: `LOCAL REMOTE` of the upstream connection, or `CLUSTER LOCAL ...`, as Istio has it.
fn ends(behind: &str, plain: bool) -> (Option<&str>, Option<&str>) {
    let mut words = behind.split_whitespace();
    let (first, second) = (words.next(), words.next());
    let is_address = |word: &str| address(word).is_some();
    // Without a connection there is no local address.
    let is_local = |word: &str| is_address(word) || plain && word == "-";
    match first {
        Some(word) if is_local(word) => (first, second.filter(|word| is_address(word))),
        _ => (second, None),
    }
}

/// Up to the quote that a status follows: a path may hold quotes as well.
fn request<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let end = memchr::memchr_iter(b'"', rest.as_bytes()).find(|&at| {
        let behind = rest.get(at + 1..).unwrap_or_default().as_bytes();
        matches!(
            behind,
            [b' ', b'0', b' ', ..] | [b' ', b'1'..=b'9', _, _, b' ', ..]
        )
    })?;
    let request = rest.get(..end)?;
    *rest = rest.get(end + 2..)?;
    Some(request)
}

/// Istio: `DETAILS TERMINATION "TRANSPORT FAILURE" BYTES ...`; before 1.7: `"..." "TRANSPORT FAILURE" BYTES ...`.
fn details(front: &str) -> Option<(Cow<'_, str>, &str)> {
    let (first, rest) = front.split_once('"')?;
    let (second, rest) = rest.split_once("\" ")?;
    let (second, rest) = match rest.strip_prefix('"') {
        Some(rest) => rest.split_once("\" ")?,
        None => (second, rest),
    };
    let mut said: Vec<_> = first.split(' ').filter_map(known).collect();
    said.extend(known(second));
    let said = match said.as_slice() {
        [] => Cow::Borrowed(""),
        [only] => Cow::Borrowed(*only),
        several => several.join("; ").into(),
    };
    Some((said, rest))
}

/// A status; 0 where none was sent.
fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| *status < 1_000)
}

/// What all formats have.
struct Line<'a> {
    format: Format,
    began: u64,
    duration: Option<u64>,
    request: Cow<'a, str>,
    status: u16,
    flags: &'a str,
    said: &'a str,
    /// The upstream sent headers, in the last attempt if there were several.
    answered: bool,
    host: &'a str,
    local: &'a str,
}

/// Envoy's details where the response is the upstream's own.
fn is_answer(said: &str) -> bool {
    said.contains("via_upstream")
}

/// Written when it was over: a stream may last for hours.
fn fine(began: u64, lasted: Option<u64>) -> Reading {
    let lasted = lasted.unwrap_or(0).saturating_mul(MILLISECOND);
    Reading::Fine(began.saturating_add(lasted))
}

/// Milliseconds; behind the flags come details, where the format has them, and two counts of bytes.
fn lasted(rest: &str) -> Option<u64> {
    let numbers = if rest.starts_with(|first: char| first.is_ascii_digit()) {
        rest
    } else {
        details(rest)?.1
    };
    number(numbers.split(' ').nth(2)?)
}

fn reading(line: Line<'_>) -> Reading {
    let Some(nature) = nature(&line) else {
        return fine(line.began, line.duration);
    };
    let duration = line.duration.unwrap_or(0).saturating_mul(MILLISECOND);
    let upstream = address(line.host);
    let name = known(line.host).filter(|_| upstream.is_none());
    Reading::failed(Failed {
        format: line.format,
        began: line.began,
        // Both the start and the duration are cut off to a millisecond.
        ended: Span::new(line.began.saturating_add(duration), 2 * MILLISECOND),
        is_untimed: line.duration.is_none(),
        connected: None,
        request: line.request.into_owned(),
        status: (line.status != 0).then_some(line.status),
        flags: known(line.flags).map(str::to_owned),
        said: known(line.said).map(str::to_owned),
        upstream,
        name: name.map(str::to_owned),
        local: address(line.local),
        pid: None,
        nature,
    })
}

/// `None` where the request did not fail.
fn nature(line: &Line<'_>) -> Option<Nature> {
    let meant = line
        .flags
        .split(',')
        .filter_map(|flag| meaning::envoy(flag, line.said));
    let mut elsewhere = None;
    for nature in meant {
        match nature {
            Nature::Connection(_) if no_tcp(line.host) => return Some(meaning::NOT_TCP),
            meaning::BAD_RESPONSE if has_begun(line) => return Some(meaning::BAD_BODY),
            meaning::STREAM_RESET if is_no_request(line) => return Some(meaning::RESET),
            Nature::Connection(_) => return Some(nature),
            Nature::Elsewhere(_) => elsewhere = elsewhere.or(Some(nature)),
        }
    }
    if elsewhere.is_some() {
        return elsewhere;
    }
    match (known(line.flags), known(line.host)) {
        // Flags that nobody knows, or only `URX`: the last attempt is what counts.
        (Some(_), Some(_)) if !line.answered => {
            (line.status >= 500).then_some(meaning::BAD_GATEWAY)
        }
        (_, Some(_)) => (line.status >= 500).then_some(meaning::ANSWERED),
        (Some(_), None) => Some(meaning::OWN_ANSWER),
        (None, None) => (line.status >= 500).then_some(meaning::OWN_ANSWER),
    }
}

/// Whether the headers of the response had been understood.
fn has_begun(line: &Line<'_>) -> bool {
    line.said.contains("after_response_started") || (200..500).contains(&line.status)
}

/// Whether it is the line of a connection that Envoy passed on as it came (`tcp_proxy`): that has neither a method nor a status.
fn is_no_request(line: &Line<'_>) -> bool {
    line.request == "- - -" && line.status == 0
}

fn no_tcp(host: &str) -> bool {
    let beginnings = ["/", "@", "unix:", "envoy://"];
    beginnings.iter().any(|begin| host.starts_with(begin))
}

/// The keys that Istio's JSON has, which Envoy's documentation uses as well; all may be missing, any may be null.
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    start_time: Cow<'a, str>,
    #[serde(borrow, default)]
    method: Loose<'a>,
    #[serde(borrow, default)]
    path: Loose<'a>,
    #[serde(borrow, default)]
    protocol: Loose<'a>,
    #[serde(borrow, default)]
    response_code: Loose<'a>,
    #[serde(borrow)]
    response_flags: Loose<'a>,
    #[serde(borrow, default)]
    response_code_details: Loose<'a>,
    #[serde(borrow, default)]
    connection_termination_details: Loose<'a>,
    #[serde(borrow, default)]
    upstream_transport_failure_reason: Loose<'a>,
    #[serde(borrow, default)]
    duration: Loose<'a>,
    #[serde(borrow, default)]
    upstream_service_time: Loose<'a>,
    #[serde(borrow, default)]
    upstream_host: Loose<'a>,
    #[serde(borrow, default)]
    upstream_local_address: Loose<'a>,
}

/// A text, a number or null, whatever the log's configuration made of it.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Loose<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Number(u64),
    #[default]
    Null,
    Other(serde::de::IgnoredAny),
}

impl Loose<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) if !text.is_empty() => text,
            _ => "-",
        }
    }

    fn number(&self) -> Option<u64> {
        match self {
            Self::Text(text) => number(text),
            Self::Number(number) => Some(*number),
            Self::Null | Self::Other(_) => None,
        }
    }
}

/// The JSON format.
pub(super) fn json(line: &str) -> Option<Reading> {
    let line: Json<'_> = serde_json::from_str(line).ok()?;
    let began = time::rfc3339(&line.start_time)?;
    let status = u16::try_from(line.response_code.number().unwrap_or(0)).ok()?;
    let flags = line.response_flags.text();
    if flags == "-" && status < 500 {
        return Some(fine(began, line.duration.number()));
    }
    let words = [
        &line.response_code_details,
        &line.connection_termination_details,
        &line.upstream_transport_failure_reason,
    ];
    let said: Vec<_> = words.iter().filter_map(|word| known(word.text())).collect();
    let request = [line.method.text(), line.path.text(), line.protocol.text()];
    let said = said.join("; ");
    Some(reading(Line {
        format: Format::EnvoyJson,
        began,
        duration: line.duration.number(),
        request: request.join(" ").into(),
        status,
        flags,
        answered: line.upstream_service_time.number().is_some() || is_answer(&said),
        said: &said,
        host: line.upstream_host.text(),
        local: line.upstream_local_address.text(),
    }))
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{failed, read},
        *,
    };

    /// Envoy's default, its own example with a failure in it.
    const ENVOY: &str = r#"[2026-11-21T15:20:14.314Z] "POST /api/v1/locations HTTP/2" 503 UF 154 91 226 - "10.0.35.28" "nsq2http" "cc21d9b0-cf5c-432b-8c7e-98aeb7988cd2" "locations" "127.0.0.1:18081""#;
    const ISTIO: &str = r#"[2026-11-21T15:20:14.314Z] "GET /status/418 HTTP/1.1" 503 UC upstream_reset_before_response_started{connection_termination} - "-" 0 95 1 - "-" "curl/7.73.0" "84961386-6d84-929d-98bd-c5aee93b5c88" "httpbin:8000" "10.44.1.27:80" outbound|8000||httpbin.foo.svc.cluster.local 10.44.1.23:37652 10.0.45.184:8000 10.44.1.23:46520 - default"#;

    #[test]
    fn envoys_default_text() {
        let line = failed(ENVOY);
        assert_eq!(line.format, Format::Envoy);
        assert_eq!(line.request, "POST /api/v1/locations HTTP/2");
        assert_eq!(
            (line.status, line.flags.as_deref()),
            (Some(503), Some("UF"))
        );
        assert_eq!(line.upstream, "127.0.0.1:18081".parse().ok());
        assert_eq!((line.local, line.said), (None, None));
        assert_eq!(line.ended.from - line.began, 226 * MILLISECOND);
        assert_eq!(line.nature, meaning::CONNECT_FAILED);
    }

    /// `tcp_proxy` has no streams.
    #[test]
    fn a_connection_without_a_request() {
        let line = r#"[2026-11-21T15:20:14.314Z] "- - -" 0 UR 61 0 12 - "-" "-" "-" "-" "127.0.0.1:18081""#;
        assert_eq!(failed(line).nature, meaning::RESET);
        let stream = line.replace("\"- - -\" 0", "\"GET / HTTP/2\" 503");
        assert_eq!(failed(&stream).nature, meaning::STREAM_RESET);
    }

    #[test]
    fn without_a_duration_the_end_is_not_known() {
        let line = failed(&ENVOY.replace(" 226 - ", " - - "));
        assert!(line.is_untimed && !failed(ENVOY).is_untimed);
        let json = r#"{"start_time":"2026-11-21T15:20:14.314Z","response_code":503,"response_flags":"UC","upstream_host":"127.0.0.1:18081"}"#;
        assert!(failed(json).is_untimed);
    }

    #[test]
    fn istios_default_text() {
        let line = failed(ISTIO);
        assert_eq!(line.format, Format::Istio);
        assert_eq!(
            line.said.as_deref(),
            Some("upstream_reset_before_response_started{connection_termination}")
        );
        assert_eq!(line.upstream, "10.44.1.27:80".parse().ok());
        assert_eq!(line.local, "10.44.1.23:37652".parse().ok());
        assert_eq!(line.nature, meaning::TERMINATED);
    }

    #[test]
    fn istios_failure_to_connect_has_no_local_address() {
        let line = failed(
            r#"[2026-11-21T15:20:14.314Z] "GET / HTTP/1.1" 503 UF,URX upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - "delayed_connect_error:_Connection_refused" 0 152 33 - "-" "c" "i" "h" "10.0.0.1:80" outbound|80||h - 10.0.45.184:80 10.44.1.23:46520 - default"#,
        );
        assert_eq!((line.local, line.nature), (None, meaning::REFUSED));
        assert_eq!(line.flags.as_deref(), Some("UF,URX"));
    }

    #[test]
    fn headers_that_were_passed_on_had_been_understood() {
        let nature = |from: &str, to: &str| failed(&from.replacen("503 UF", to, 1)).nature;
        assert_eq!(nature(ENVOY, "200 UPE"), meaning::BAD_BODY);
        assert_eq!(nature(ENVOY, "502 UPE"), meaning::BAD_RESPONSE);
        let istio = ISTIO.replace("connection_termination", "protocol_error");
        let nature = |line: &str| failed(&line.replacen("503 UC", "502 UPE", 1)).nature;
        assert_eq!(nature(&istio), meaning::BAD_RESPONSE);
        let begun = istio.replace("before_response", "after_response");
        assert_eq!(nature(&begun), meaning::BAD_BODY);
    }

    #[test]
    fn addresses_behind_envoys_default() {
        let (host, local) = ("127.0.0.1:18081", Some("10.0.0.9:41000"));
        for (behind, local, upstream) in [
            ("10.0.0.9:41000", local, host),
            ("10.0.0.9:41000 10.0.0.1:443", local, "10.0.0.1:443"),
            ("10.0.0.9:41000 - x", local, host),
            ("- 10.0.0.1:443 x", None, "10.0.0.1:443"),
            ("- -", None, host),
            ("-", None, host),
            ("cluster 10.0.0.9:41000", local, host),
            ("cluster 10.0.0.9:41000 10.0.0.1:443", local, host),
            ("cluster - 10.0.0.1:443", None, host),
        ] {
            let line = failed(&format!("{ENVOY} {behind}"));
            assert_eq!(
                line.local,
                local.and_then(|local| local.parse().ok()),
                "{behind}"
            );
            assert_eq!(line.upstream, upstream.parse().ok(), "{behind}");
        }
    }

    #[test]
    fn another_field_in_quotes_is_another_format() {
        for line in [ENVOY, ISTIO] {
            for field in ["trace-1", "id=1, 10.0.0.1:80", "-", ""] {
                let line = format!("{line} \"{field}\"");
                assert_eq!(read(&line), Reading::Unknown, "{line}");
            }
        }
        let waited = failed(&ENVOY.replace("UF", "UT").replace("127.0.0.1:18081", "-"));
        assert_eq!((waited.nature, waited.upstream), (meaning::NO_ANSWER, None));
    }

    #[test]
    fn istios_older_text() {
        let line = failed(
            r#"[2020-11-21T15:20:14.314Z] "GET / HTTP/1.1" 503 UF "-" "-" 0 91 12 - "-" "c" "i" "h" "10.0.0.1:80" outbound|80||h - 10.0.45.184:80 10.44.1.23:46520 - default"#,
        );
        assert_eq!(
            (line.ended.from - line.began, line.said),
            (12 * MILLISECOND, None)
        );
    }

    /// Each attempt of several, and so the last.
    #[test]
    fn what_the_upstream_answered_is_its_own_however_often_it_was_asked() {
        let nature = |line: &str| failed(line).nature;
        let istio = ISTIO.replace(
            "503 UC upstream_reset_before_response_started{connection_termination}",
            "503 URX via_upstream",
        );
        assert_eq!(nature(&istio), meaning::ANSWERED);
        let envoy = ENVOY.replace("503 UF 154 91 226 -", "503 URX 154 91 226 225");
        assert_eq!(nature(&envoy), meaning::ANSWERED);
        assert_eq!(nature(&envoy.replace(" 225 ", " - ")), meaning::BAD_GATEWAY);
        assert_eq!(nature(&envoy.replace("URX", "UC")), meaning::TERMINATED);
        let json = r#"{"start_time":"2026-11-21T15:20:14.314Z","response_code":503,"response_flags":"URX","duration":7,"upstream_service_time":"6","upstream_host":"127.0.0.1:18081"}"#;
        assert_eq!(nature(json), meaning::ANSWERED);
        assert_eq!(nature(&json.replace("\"6\"", "null")), meaning::BAD_GATEWAY);
    }

    #[test]
    fn istios_tcp() {
        let line = failed(
            r#"[2026-11-21T15:20:14.314Z] "- - -" 0 UF,URX - - "TLS_error:|33554536:system_library:OPENSSL_internal:Connection_reset_by_peer:TLS_error_end" 0 0 5 - "-" "-" "-" "-" "10.0.0.9:443" outbound|443||ext - 10.0.0.8:443 10.0.0.7:1 - -"#,
        );
        assert_eq!(
            (line.status, line.nature),
            (None, meaning::HANDSHAKE_FAILED)
        );
    }

    #[test]
    fn quotes_in_what_the_client_sent() {
        let line = failed(
            r#"[2026-11-21T15:20:14.314Z] "GET /"x" 1 HTTP/1.1" 503 UF 0 91 3 - "-" "my "agent" 5" "id" "h" "127.0.0.1:81""#,
        );
        assert_eq!(line.request, r#"GET /"x" 1 HTTP/1.1"#);
        assert_eq!(line.upstream, "127.0.0.1:81".parse().ok());
    }

    #[test]
    fn json_as_istio_writes_it() {
        let line = failed(
            r#"{"authority":"h","bytes_received":0,"bytes_sent":95,"connection_termination_details":null,"downstream_local_address":"10.0.45.184:8000","downstream_remote_address":"10.44.1.23:46520","duration":7,"method":"GET","path":"/a","protocol":"HTTP/1.1","request_id":"x","requested_server_name":null,"response_code":503,"response_code_details":"upstream_reset_before_response_started{connection_termination}","response_flags":"UC","route_name":"default","start_time":"2026-11-21T15:20:14.314Z","upstream_cluster":"outbound|80||h","upstream_host":"10.44.1.27:80","upstream_local_address":"10.44.1.23:37652","upstream_service_time":null,"upstream_transport_failure_reason":null,"user_agent":"curl","x_forwarded_for":null}"#,
        );
        assert_eq!(line.request, "GET /a HTTP/1.1");
        assert_eq!(line.local, "10.44.1.23:37652".parse().ok());
        assert_eq!(
            (line.ended.from - line.began, line.nature),
            (7 * MILLISECOND, meaning::TERMINATED)
        );
        let fine = r#"{"start_time":"2026-11-21T15:20:14.314Z","response_code":"200","response_flags":"-"}"#;
        assert_eq!(read(fine), Reading::Fine(1_795_274_414_314_000_000));
    }

    #[test]
    fn a_request_that_went_through_is_fine() {
        const BEGAN: u64 = 1_795_274_414_314_000_000;
        // It is written when it is over.
        for text in [ENVOY, ISTIO] {
            let read = |line: &str| failed(line).ended.from;
            let line = text.replace("503 UF", "200 -").replace("503 UC", "200 -");
            assert_eq!(self::read(&line), Reading::Fine(read(text)), "{line}");
        }
        let stream = r#"[2026-11-21T15:20:14.314Z] "GET /a HTTP/2" 200 - 0 91 2043000 - "-" "c" "i" "h" "127.0.0.1:80""#;
        assert_eq!(read(stream), Reading::Fine(BEGAN + 2_043_000 * MILLISECOND));
    }

    #[test]
    fn what_has_no_connection_says_so() {
        for (flags, host) in [
            ("UH", "-"),
            ("RL", "-"),
            ("UO", "-"),
            ("NR", "-"),
            ("UR", "10.0.0.1:80"),
            ("DC", "10.0.0.1:80"),
            ("UAEX", "-"),
        ] {
            let line = ENVOY.replace("UF", flags).replace("127.0.0.1:18081", host);
            assert!(
                matches!(failed(&line).nature, Nature::Elsewhere(_)),
                "{flags}"
            );
            // Nothing was sent to a client that has gone, and a refusal is no 5xx.
            for status in ["0", "403"] {
                let line = line.replace(" 503 ", &format!(" {status} "));
                assert!(
                    matches!(failed(&line).nature, Nature::Elsewhere(_)),
                    "{flags} {status}"
                );
            }
        }
        let answered = failed(&ENVOY.replace("UF", "-"));
        assert_eq!(answered.nature, meaning::ANSWERED);
        for host in ["/run/app.sock", "@app", "envoy://internal_listener/a"] {
            let socket = failed(&ENVOY.replace("127.0.0.1:18081", host));
            assert_eq!(
                (socket.nature, socket.name.as_deref()),
                (meaning::NOT_TCP, Some(host))
            );
        }
    }
}
