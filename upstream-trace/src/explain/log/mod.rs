//! What a line of a proxy's log says: [`Reader::read`] finds the format by the line itself.
//!
//! [`envoy`] are Envoy's and Istio's access logs, text and JSON; [`nginx`] its error log and access log;
//! [`haproxy`] its httplog and tcplog; [`grpc`] the log of a program that calls a server itself; [`pod`] what stands before the lines of a
//! container, which may be in parts; [`time`] the times in all of them. A line of no known format is [`Reading::Unknown`], never an error. Must not know: the tracer's records, where a line came from.

mod envoy;
mod grpc;
mod haproxy;
mod nginx;
mod nginx_access;
mod pod;
pub mod time;

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use jiff::tz::TimeZone;

use self::pod::{Joined, Mark, Parts};
use super::meaning::Nature;
use crate::record::words;

words!(
    /// Format of a log line.
    Format {
        Envoy = "envoy",
        Istio = "istio",
        EnvoyJson = "envoy_json",
        NginxError = "nginx_error",
        NginxAccess = "nginx_access",
        HaproxyHttp = "haproxy_http",
        HaproxyTcp = "haproxy_tcp",
        Grpc = "grpc",
    }
);

impl Format {
    /// The name of the process that writes it, where it is always the same.
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::Envoy | Self::Istio | Self::EnvoyJson => Some("envoy"),
            Self::NginxError | Self::NginxAccess => Some("nginx"),
            Self::HaproxyHttp | Self::HaproxyTcp => Some("haproxy"),
            Self::Grpc => None,
        }
    }

    /// Whether each line about a server has its address: one without is about none, or about one that is not understood.
    pub const fn names_servers(self) -> bool {
        match self {
            Self::NginxAccess | Self::HaproxyHttp | Self::HaproxyTcp => false,
            Self::Envoy | Self::Istio | Self::EnvoyJson | Self::NginxError | Self::Grpc => true,
        }
    }

    /// Whether each connection that failed has a line, as far as the log's clock tells. Without one is an attempt behind which another server was
    /// tried, and in a second there are many.
    pub const fn tells_of_each_connection(self) -> bool {
        !matches!(self, Self::NginxAccess)
    }

    /// What makes a connection surer to find: the log with both addresses, or at least the server's where the line has it not (`addressed`);
    /// `None` where the proxy cannot log more.
    pub const fn advice(self, addressed: bool) -> Option<&'static str> {
        match (self, addressed) {
            (Self::Envoy | Self::EnvoyJson, _) => {
                Some("log %UPSTREAM_LOCAL_ADDRESS% and %UPSTREAM_REMOTE_ADDRESS%")
            }
            (Self::HaproxyHttp | Self::HaproxyTcp, false) => {
                Some("give --server NAME=ADDRESS for each of its servers")
            }
            (Self::NginxAccess, false) => Some("log $upstream_addr"),
            (
                Self::Istio
                | Self::NginxError
                | Self::NginxAccess
                | Self::HaproxyHttp
                | Self::HaproxyTcp
                | Self::Grpc,
                _,
            ) => None,
        }
    }
}

/// When a request failed, as exactly as the log's clock says it: nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u64,
    pub to: u64,
}

impl Span {
    /// The moment `at`, written down to `precision`.
    pub const fn new(at: u64, precision: u64) -> Self {
        Self {
            from: at,
            to: at.saturating_add(precision),
        }
    }

    /// How exactly the clock says it.
    pub const fn width(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// The line of a failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub format: Format,
    /// When the request began; as far as the log does not say it, when it failed.
    pub began: u64,
    pub ended: Span,
    /// The log does not say when it failed: `ended` is when it began.
    pub is_untimed: bool,
    /// When its connection began, where that was its own.
    pub connected: Option<Span>,
    /// `GET /path HTTP/1.1`; empty where there is none.
    pub request: String,
    pub status: Option<u16>,
    /// Envoy's response flags, HAProxy's termination state, gRPC's status.
    pub flags: Option<String>,
    /// The proxy's own words.
    pub said: Option<String>,
    pub upstream: Option<SocketAddr>,
    /// The upstream where the log has a name instead of an address.
    pub name: Option<String>,
    /// The proxy's own end of the upstream connection.
    pub local: Option<SocketAddr>,
    /// The process that wrote the line.
    pub pid: Option<u32>,
    pub nature: Nature,
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Failed(Box<Failed>),
    /// A request that did not fail, and when it began or ended.
    Fine(u64),
    /// A known format, but not about a request.
    Other,
    /// Nothing is in the line.
    Empty,
    /// The beginning of a line whose end comes in another.
    Part,
    Unknown,
}

impl Reading {
    fn failed(failed: Failed) -> Self {
        Self::Failed(Box::new(failed))
    }
}

/// Reads the lines of one log.
#[derive(Debug)]
pub struct Reader {
    zone: time::Zone,
    parts: Parts,
}

impl Reader {
    /// `zone`: of logs that do not name theirs.
    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone: time::Zone::new(zone),
            parts: Parts::default(),
        }
    }

    /// Reads the next line, without its end.
    pub fn read(&mut self, line: &[u8]) -> Reading {
        let Some(mark) = Mark::of(line) else {
            return self.whole(line, None);
        };
        match self.parts.join(line, mark) {
            Joined::Whole(line) => self.whole(&line, Some(mark.end)),
            Joined::Part => Reading::Part,
            Joined::TooLong => Reading::Unknown,
        }
    }

    /// How many lines have begun whose end does not come, where no more lines do.
    pub fn unfinished(&self) -> usize {
        self.parts.unfinished()
    }

    /// `mark`: where the mark before the line ends, if it has one.
    fn whole(&mut self, line: &[u8], mark: Option<usize>) -> Reading {
        // The lossy way is slow, even where nothing is lost.
        let text = str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::from);
        let text = text.trim_end();
        let inner = mark.map(|end| text.get(end..).unwrap_or_default().trim_start());
        if inner.unwrap_or(text).is_empty() {
            return Reading::Empty;
        }
        let inner = inner.and_then(|inner| self.line(inner));
        // The only time may be the runtime's.
        inner
            .or_else(|| self.line(text))
            .unwrap_or(Reading::Unknown)
    }

    fn line(&mut self, text: &str) -> Option<Reading> {
        let read = match text.as_bytes() {
            [b'{', ..] => envoy::json(text),
            [b'[', ..] => envoy::text(text),
            [_, _, _, _, b'/', ..] => nginx::error(text, &mut self.zone),
            _ => haproxy::line(text, &mut self.zone).or_else(|| nginx_access::line(text)),
        };
        read.or_else(|| grpc::line(text, &mut self.zone))
    }
}

/// The number, where the field is one.
fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

/// `-` and nothing mean that there is none.
fn known(text: &str) -> Option<&str> {
    (!matches!(text, "" | "-")).then_some(text)
}

/// `10.0.0.1:80`, `[::1]:80`, also `::1:80` as HAProxy and some logs write it.
fn address(text: &str) -> Option<SocketAddr> {
    let parsed = text.parse().ok().or_else(|| {
        let (host, port) = text.rsplit_once(':')?;
        let host: IpAddr = host.parse().ok()?;
        Some(SocketAddr::new(host, port.parse().ok()?))
    });
    parsed.map(canonical)
}

/// The tracer calls a v4-mapped address IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What stands before `mark`, and what behind it.
fn cut<'a>(rest: &mut &'a str, mark: &str) -> Option<&'a str> {
    let at = memchr::memmem::find(rest.as_bytes(), mark.as_bytes())?;
    let before = rest.get(..at)?;
    *rest = rest.get(at + mark.len()..)?;
    Some(before)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn read(line: &str) -> Reading {
        Reader::new(TimeZone::UTC).read(line.as_bytes())
    }

    /// The failure that the line tells of.
    pub(super) fn failed(line: &str) -> Failed {
        match read(line) {
            Reading::Failed(failed) => *failed,
            other => panic!("{other:?}: {line}"),
        }
    }

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            ("::1:80", Some("[::1]:80")),
            ("[::ffff:10.0.0.1]:80", Some("10.0.0.1:80")),
            ("-", None),
            ("unix:/run/app.sock", None),
            ("10.0.0.1", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(address(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_log_is_unknown() {
        for line in [
            "hello",
            "[hello] \"",
            "{\"a\":1}",
            "{",
            "2026/11/21",
            "1.2.3.4 - - [x]",
            "\u{0}\u{0}",
            "[2026-11-21T11:34:03.123Z] \"GET / HTTP/1.1\" 503",
            "127.0.0.1:1 [21/Nov/2026:11:34:03.123] a b/c 1/2/3/4",
        ] {
            assert_eq!(read(line), Reading::Unknown, "{line}");
        }
        assert_eq!(read(" \r"), Reading::Empty);
    }

    /// Lines that are nearly right are where parsers break.
    pub(super) const SEEDS: &[&str] = &[
        r#"[2026-11-21T11:34:03.123Z] "GET /a HTTP/1.1" 503 UF 0 91 3 - "-" "curl/8" "id" "host" "127.0.0.1:81""#,
        r#"[2026-11-21T11:34:03.123Z] "GET /a HTTP/1.1" 503 UC upstream_reset{connection_termination} - "-" 0 95 1 - "-" "c" "i" "h" "10.0.0.2:80" outbound|80||a 10.0.0.1:41000 10.0.0.3:80 10.0.0.4:50 - default"#,
        r#"2026/11/21 15:08:06 [error] 12#12: *1 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:81/", host: "h""#,
        r#"127.0.0.1 - - [21/Nov/2026:15:08:06 +0000] "GET / HTTP/1.1" 502 157 "-" "curl/8" 70 0.001 [a-80] [] 127.0.0.1:81 0 0.001 502 id"#,
        r#"Nov 21 15:08:06 host haproxy[14389]: 10.0.1.2:33317 [21/Nov/2026:15:08:06.655] http-in static/srv1 10/0/-1/-1/109 503 275 - - SC-- 1/1/1/1/3 0/0 "GET /i HTTP/1.1""#,
        "haproxy[1]: 10.0.1.2:33313 [21/Nov/2026:15:08:06.443] fnt bck/srv1 0/-1/5007 212 SC 0/0/0/0/3 0/0",
        "2026-11-21 11:34:03,123 ERROR /a/b: UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:81: Connection refused",
        r#"2026/11/21 11:34:03 rpc error: code = Unavailable desc = connection error: desc = "error reading server preface: read tcp 127.0.0.1:50->127.0.0.1:81: read: connection reset by peer""#,
        r#"{"start_time":"2026-11-21T11:34:03.123Z","response_code":503,"response_flags":"UF","duration":3,"upstream_host":"127.0.0.1:81"}"#,
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn any_bytes_and_any_damage_are_read(
            seed in 0..SEEDS.len(),
            cut in 0.0..1.0_f64,
            noise in prop::collection::vec(any::<u8>(), 0..8),
        ) {
            let whole = SEEDS[seed].as_bytes();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a short line")]
            let at = (cut * whole.len() as f64) as usize;
            let mut reader = Reader::new(TimeZone::UTC);
            let inserted = [&whole[..at], &noise, &whole[at..]].concat();
            for line in [&whole[..at], &whole[at..], &inserted, &noise] {
                for mark in ["stdout P", "stderr P", "stdout F"] {
                    let _ = reader.read(line);
                    let marked = format!("2026-11-29T14:00:00Z {mark} ");
                    let _ = reader.read(&[marked.as_bytes(), line].concat());
                }
            }
        }
    }

    #[test]
    fn lines_of_a_pod() {
        for seed in SEEDS {
            for before in [
                "2026-11-29T14:00:00.123456789Z stdout F ",
                "2026-11-29T14:00:00.1+01:00 stderr F ",
            ] {
                assert_eq!(failed(&format!("{before}{seed}")), failed(seed), "{seed}");
            }
        }
        let envoy = SEEDS[0];
        for before in [
            "2026-11-29T14:00:00.123456789Z stdout X ",
            "2026-11-29T14:00:00.123456789Z stdout PF ",
            "2026-11-29 stdout P ",
            "2026-11-29 stdout F ",
            "stdout F ",
        ] {
            assert_eq!(
                read(&format!("{before}{envoy}")),
                Reading::Unknown,
                "{before}"
            );
        }
        // The only time is the runtime's.
        let words = "ERROR /a/b: UNAVAILABLE: ipv4:127.0.0.1:81: Connection refused";
        let call = failed(&format!("2026-11-29T14:00:00Z stdout F {words}"));
        assert_eq!(call.format, Format::Grpc);
    }

    #[test]
    fn seeds_are_failures() {
        for seed in SEEDS {
            failed(seed);
        }
    }
}
