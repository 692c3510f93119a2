//! Access logs of NGINX: `combined`, and behind it what tells of the upstream.
//!
//! Two ways to log upstreams are known: Kubernetes' `ingress-nginx`, whose default format goes on with fields in a fixed order, and
//! `name=value` with NGINX's own names of its variables (`upstream_addr="$upstream_addr"`).
//! Must not know: what a status means.

use std::net::SocketAddr;

use super::{Failed, Format, Reading, Span, address, cut, known, number, time};
use crate::explain::meaning::{self, Nature};

const SECOND: u64 = 1_000_000_000;

pub(super) fn line(line: &str) -> Option<Reading> {
    // ADDRESS - USER [TIME] "REQUEST" STATUS BYTES "REFERER" "AGENT" ...
    let mut rest = line;
    let client = cut(&mut rest, " ")?;
    if client.is_empty() {
        return None;
    }
    let _user = cut(&mut rest, " [")?;
    let at = time::common_log(cut(&mut rest, "] \"")?)?;
    let request = cut(&mut rest, "\" ")?;
    let (status, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let status: u16 = status.parse().ok().filter(|status| *status < 1_000)?;
    if status < 499 {
        return Some(Reading::Fine(at));
    }
    let upstream = Upstream::read(rest);
    let (address, name) = (upstream.address(), upstream.name());
    let nature = upstream.nature(status);
    let took = upstream.took.unwrap_or(0);
    Some(Reading::failed(Failed {
        format: Format::NginxAccess,
        began: at.saturating_sub(took),
        ended: Span::new(at, SECOND),
        is_untimed: false,
        connected: None,
        request: request.to_owned(),
        status: Some(status),
        flags: None,
        said: None,
        upstream: address,
        name: name.map(str::to_owned),
        local: None,
        pid: upstream.pid,
        nature,
    }))
}

/// What a line tells of the upstream, where it lists all attempts: of the last one.
#[derive(Debug, Default)]
struct Upstream<'a> {
    address: Option<&'a str>,
    status: Option<&'a str>,
    /// It sent a header, so the status is its own.
    spoke: bool,
    /// Nanoseconds.
    took: Option<u64>,
    pid: Option<u32>,
}

impl<'a> Upstream<'a> {
    /// Reads what stands behind the status.
    fn read(rest: &'a str) -> Self {
        Self::ingress(rest).unwrap_or_else(|| Self::named(rest))
    }

    /// `... "AGENT" REQUEST_LENGTH REQUEST_TIME [SERVICE] [ALTERNATIVE] ADDRESSES LENGTHS TIMES STATUSES ID`
    fn ingress(rest: &'a str) -> Option<Self> {
        let (_, behind) = rest.rsplit_once('"')?;
        let (numbers, behind) = behind.split_once(" [")?;
        let (_service, behind) = behind.split_once("] [")?;
        let (_alternative, behind) = behind.split_once("] ")?;
        // A list of several attempts has spaces in it, the same number in each field.
        let words: Vec<_> = behind.split(' ').collect();
        let (_id, lists) = words.split_last()?;
        let size = lists.len() / 4;
        if size == 0 || lists.len() % 4 != 0 {
            return None;
        }
        let last = |list: usize| lists.get(size * (list + 1) - 1).copied();
        Some(Self {
            address: last(0),
            status: last(3),
            spoke: last(1).is_some_and(is_positive),
            took: numbers.split(' ').next_back().and_then(seconds),
            pid: None,
        })
    }

    fn named(rest: &'a str) -> Self {
        let mut upstream = Self::default();
        let (mut addresses, mut statuses) = (None, None);
        let (mut lengths, mut header_times) = (None, None);
        let mut rest = rest;
        while let Some(at) = rest.find(['=', '"']) {
            let (before, behind) = rest.split_at(at);
            // The referrer or another string without a name. NGINX escapes quotes in what a client sends.
            if let Some(text) = behind.strip_prefix('"') {
                rest = text.split_once('"').map_or("", |(_, behind)| behind);
                continue;
            }
            let behind = behind.strip_prefix('=').unwrap_or_default();
            let name = before.rsplit([' ', ',']).next().unwrap_or_default();
            let (value, behind) = match behind.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
                None => unquoted(behind),
            };
            match name {
                "upstream_addr" => addresses = Some(value),
                "upstream_status" => statuses = Some(value),
                "upstream_response_length" => lengths = Some(value),
                "upstream_header_time" => header_times = Some(value),
                "request_time" | "rt" => upstream.took = seconds(value),
                "pid" => upstream.pid = value.parse().ok(),
                _ => {}
            }
            rest = behind;
        }
        // Behind servers that failed stands the name of their group, where none was left to try.
        let tried = |entry| address(entry).is_some() || is_socket(entry);
        let untried = addresses.and_then(|list| attempts(list).position(tried));
        let of = |list| attempts(list).nth(untried.unwrap_or(0));
        upstream.address = addresses.and_then(of);
        upstream.status = statuses.and_then(of);
        // It is `-` without a header since NGINX 1.15.7.
        let timed = header_times.and_then(of).and_then(seconds).is_some();
        upstream.spoke = timed || lengths.and_then(of).is_some_and(is_positive);
        upstream
    }

    fn address(&self) -> Option<SocketAddr> {
        self.address.and_then(address)
    }

    fn name(&self) -> Option<&'a str> {
        let unknown = self.address().is_none();
        self.address.and_then(known).filter(|_| unknown)
    }

    fn nature(&self, status: u16) -> Nature {
        let written: Option<u16> = self.status.and_then(|status| status.parse().ok());
        // NGINX writes its own 502 and 504 as the upstream's status where it got none.
        let theirs = written.filter(|written| self.spoke || !matches!(written, 502 | 504));
        match (status, theirs) {
            (499, _) => meaning::CLIENT_GONE,
            _ if self.name().is_some_and(is_socket) => meaning::NOT_TCP,
            (_, Some(theirs)) if theirs == status => meaning::ANSWERED,
            (_, Some(_)) => meaning::OWN_ANSWER,
            _ if self.address == Some("-") => meaning::OWN_ANSWER,
            (502, _) if self.name().is_some() => meaning::NO_SERVER,
            (502, _) if written != Some(504) => meaning::BAD_GATEWAY,
            (502 | 504, _) => meaning::GATEWAY_TIMEOUT,
            _ if self.status.is_some() => meaning::OWN_ANSWER,
            _ => meaning::SOMEBODYS_ANSWER,
        }
    }
}

/// The entries of `a, b : c`, last first.
fn attempts(list: &str) -> impl Iterator<Item = &str> {
    list.rsplit(", ").flat_map(|part| part.rsplit(" : "))
}

/// A value without quotes, a list up to its end, and what stands behind it.
fn unquoted(text: &str) -> (&str, &str) {
    let ends = |at: &usize| {
        let (list, behind) = text.split_at(*at);
        let goes_on = list.ends_with(',') || list.ends_with(" :") || behind.starts_with(" : ");
        let next = behind.trim_start().split(' ').next();
        !goes_on || next.is_some_and(|next| next.contains('='))
    };
    let mut spaces = text.match_indices(' ').map(|(at, _)| at);
    let (list, behind) = text.split_at(spaces.find(ends).unwrap_or(text.len()));
    (list.trim_end_matches([',', ':', ' ']), behind)
}

fn is_socket(entry: &str) -> bool {
    entry.starts_with("unix:")
}

fn is_positive(text: &str) -> bool {
    number(text).is_some_and(|number| number > 0)
}

/// `0.001` to nanoseconds.
fn seconds(text: &str) -> Option<u64> {
    let (whole, thousandths) = text.split_once('.')?;
    let thousandths = number(thousandths).filter(|_| thousandths.len() == 3)?;
    number(whole)?
        .checked_mul(SECOND)?
        .checked_add(thousandths * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{failed, read},
        *,
    };

    const COMBINED: &str =
        r#"127.0.0.1 - - [21/Nov/2026:15:20:14 +0000] "GET /a HTTP/1.1" 502 157 "-" "curl/7.88.1""#;

    #[test]
    fn combined_names_no_upstream() {
        let line = failed(COMBINED);
        assert_eq!((line.status, line.upstream), (Some(502), None));
        assert_eq!(line.nature, meaning::BAD_GATEWAY);
        assert_eq!(line.ended, Span::new(1_795_274_414_000_000_000, SECOND));
        assert_eq!(
            read(&COMBINED.replace(" 502 ", " 200 ")),
            Reading::Fine(1_795_274_414_000_000_000)
        );
        assert_eq!(
            failed(&COMBINED.replace(" 502 ", " 499 ")).nature,
            meaning::CLIENT_GONE
        );
        assert_eq!(
            failed(&COMBINED.replace(" 502 ", " 504 ")).nature,
            meaning::GATEWAY_TIMEOUT
        );
    }

    #[test]
    fn named_fields_behind_it() {
        let line = failed(&format!(
            r#"{COMBINED} upstream_addr="127.0.0.1:81, [::1]:82" upstream_status="502, 502" request_time=1.250 pid=77"#
        ));
        assert_eq!(line.upstream, "[::1]:82".parse().ok());
        assert_eq!(
            (line.ended.from - line.began, line.pid),
            (1_250_000_000, Some(77))
        );
        assert_eq!(line.nature, meaning::BAD_GATEWAY);
        let answered = failed(&format!(
            r#"{} upstream_addr="127.0.0.1:81" upstream_status="500""#,
            COMBINED.replace(" 502 ", " 500 ")
        ));
        assert_eq!(answered.nature, meaning::ANSWERED);
        let none = failed(&format!(
            r#"{COMBINED} upstream_addr="backend" upstream_status="502""#
        ));
        assert_eq!(
            (none.nature, none.name.as_deref()),
            (meaning::NO_SERVER, Some("backend"))
        );
    }

    /// `COMBINED` with another status, and this behind it.
    fn with(status: u16, fields: &str) -> String {
        let line = COMBINED.replace(" 502 ", &format!(" {status} "));
        format!("{line} {fields}")
    }

    #[test]
    fn whose_answer_it_was() {
        for (status, fields, nature) in [
            (500, "", meaning::SOMEBODYS_ANSWER),
            (503, "", meaning::SOMEBODYS_ANSWER),
            (503, "upstream_addr=10.0.0.9:80", meaning::SOMEBODYS_ANSWER),
            (
                503,
                "upstream_addr=- upstream_status=-",
                meaning::OWN_ANSWER,
            ),
            (
                502,
                "upstream_addr=- upstream_status=-",
                meaning::OWN_ANSWER,
            ),
            (
                503,
                "upstream_addr=10.0.0.9:80 upstream_status=200",
                meaning::OWN_ANSWER,
            ),
            (
                500,
                "upstream_addr=10.0.0.9:80 upstream_status=-",
                meaning::OWN_ANSWER,
            ),
            (
                503,
                "upstream_addr=10.0.0.9:80 upstream_status=503",
                meaning::ANSWERED,
            ),
            (
                502,
                "upstream_addr=unix:/a upstream_status=502",
                meaning::NOT_TCP,
            ),
            (
                503,
                "352 0.003 [default-web-80] [] - - - - 2f0b",
                meaning::OWN_ANSWER,
            ),
        ] {
            let line = with(status, fields);
            assert_eq!(failed(&line).nature, nature, "{line}");
        }
    }

    /// An upstream that is a proxy itself answers with 502 and 504, too.
    #[test]
    fn a_bad_gateway_behind_a_good_connection() {
        for (status, unheard) in [(502, meaning::BAD_GATEWAY), (504, meaning::GATEWAY_TIMEOUT)] {
            let ingress = |length| {
                format!("352 0.003 [default-web-80] [] 10.0.0.9:80 {length} 0.003 {status} 2f0b")
            };
            let named = |more| format!("upstream_addr=10.0.0.9:80 upstream_status={status} {more}");
            for (fields, nature) in [
                (ingress("157"), meaning::ANSWERED),
                (ingress("0"), unheard),
                (ingress("-"), unheard),
                (named("upstream_response_length=157"), meaning::ANSWERED),
                (named("upstream_header_time=0.000"), meaning::ANSWERED),
                (named("upstream_header_time=\"-\""), unheard),
                (
                    named("upstream_response_length=0 upstream_header_time=-"),
                    unheard,
                ),
            ] {
                let line = with(status, &fields);
                assert_eq!(failed(&line).nature, nature, "{line}");
            }
        }
    }

    #[test]
    fn lists_without_quotes() {
        for fields in [
            "upstream_addr=10.0.0.8:80, 10.0.0.9:80 upstream_status=502, 502 pid=7",
            "upstream_addr=10.0.0.8:80 : 10.0.0.9:80 upstream_status=502 : 502 pid=7",
            "upstream_addr=10.0.0.9:80, upstream_status=502, pid=7",
            "upstream_addr=10.0.0.9:80 : upstream_status=502 : pid=7",
            "pid=7 upstream_status=502, 502 upstream_addr=10.0.0.8:80, 10.0.0.9:80",
        ] {
            let line = failed(&with(502, fields));
            assert_eq!(line.upstream, "10.0.0.9:80".parse().ok(), "{fields}");
            assert_eq!(
                (line.pid, line.nature),
                (Some(7), meaning::BAD_GATEWAY),
                "{fields}"
            );
        }
    }

    #[test]
    fn when_no_server_is_left() {
        for (addresses, statuses, nature) in [
            ("10.0.0.9:80, backend", "502, 502", meaning::BAD_GATEWAY),
            (
                "10.0.0.8:80, 10.0.0.9:80, backend",
                "502, 504, 502",
                meaning::GATEWAY_TIMEOUT,
            ),
            // Neither is this status its own.
            ("10.0.0.9:80, backend", "500, 502", meaning::OWN_ANSWER),
        ] {
            let fields = format!("upstream_addr=\"{addresses}\" upstream_status=\"{statuses}\"");
            let line = failed(&with(502, &fields));
            assert_eq!(line.upstream, "10.0.0.9:80".parse().ok(), "{fields}");
            assert_eq!((line.name, line.nature), (None, nature), "{fields}");
        }
        let socket = "upstream_addr=\"10.0.0.9:80, unix:/a\" upstream_status=\"502, 502\"";
        assert_eq!(failed(&with(502, socket)).nature, meaning::NOT_TCP);
    }

    #[test]
    fn names_in_what_a_client_sends() {
        let forged = COMBINED.replace(
            r#""-" "curl/7.88.1""#,
            r#""x upstream_addr=9.9.9.9:1 y" "a=""#,
        );
        assert_eq!(failed(&forged).upstream, None);
        let named = failed(&format!(
            r#"{forged} "pid=7" upstream_addr="10.0.0.9:8080",upstream_status=502"#
        ));
        assert_eq!(named.upstream, "10.0.0.9:8080".parse().ok());
        assert_eq!((named.pid, named.nature), (None, meaning::BAD_GATEWAY));
    }

    #[test]
    fn ingress() {
        let one = failed(&format!(
            "{COMBINED} 352 0.003 [default-web-80] [] 10.0.0.9:8080 0 0.003 502 2f0b"
        ));
        assert_eq!(one.upstream, "10.0.0.9:8080".parse().ok());
        assert_eq!(one.ended.from - one.began, 3_000_000);
        let three = failed(&format!(
            "{COMBINED} 352 0.003 [default-web-80] [] 10.0.0.9:80, 10.0.0.8:80, 10.0.0.7:80 0, 0, 0 0.001, 0.001, 0.001 502, 502, 502 2f0b"
        ));
        assert_eq!(three.upstream, "10.0.0.7:80".parse().ok());
    }
}
