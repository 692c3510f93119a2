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

/// What a line tells of the upstream; each may list all attempts.
#[derive(Debug, Default)]
struct Upstream<'a> {
    address: Option<&'a str>,
    status: Option<&'a str>,
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
            took: numbers.split(' ').next_back().and_then(seconds),
            pid: None,
        })
    }

    fn named(rest: &'a str) -> Self {
        let mut upstream = Self::default();
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
                None => behind.split_once(' ').unwrap_or((behind, "")),
            };
            match name {
                "upstream_addr" => upstream.address = Some(last_of(value)),
                "upstream_status" => upstream.status = Some(last_of(value)),
                "request_time" | "rt" => upstream.took = seconds(value),
                "pid" => upstream.pid = value.parse().ok(),
                _ => {}
            }
            rest = behind;
        }
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
        // NGINX writes its own 502 and 504 as the upstream's status where it got none.
        let own = matches!(status, 502 | 504);
        let answered = self.status.and_then(number) == Some(status.into()) && !own;
        match status {
            499 => meaning::CLIENT_GONE,
            _ if self.name().is_some_and(|name| name.starts_with("unix:")) => meaning::NOT_TCP,
            _ if answered => meaning::ANSWERED,
            502 if self.name().is_some() => meaning::NO_SERVER,
            502 => meaning::BAD_GATEWAY,
            504 => meaning::GATEWAY_TIMEOUT,
            _ => meaning::OWN_ANSWER,
        }
    }
}

/// The last attempt of `a, b : c`.
fn last_of(list: &str) -> &str {
    let last = list.rsplit(", ").next().unwrap_or(list);
    last.rsplit(" : ").next().unwrap_or(last)
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
