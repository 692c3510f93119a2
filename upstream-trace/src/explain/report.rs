//! The answer about one failed request, and the account of a run, as records of their own.
//!
//! Must not know: how an answer was found, how it is spelled.

use std::{borrow::Cow, net::SocketAddr};

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    join::{Answer, By, Sureness},
    log::{Failed, Format},
    meaning::Nature,
};
use crate::{
    record::{
        Connection, Direction, Endpoint, Origin, Process, Role, Schema, Timestamp, Verdict,
        constant,
    },
    tcp::State,
};

constant!(
    /// `type` of an [`Explanation`] line.
    ExplanationType = "explanation"
);
constant!(
    /// `type` of an [`Explained`] line.
    ExplainedType = "explained"
);

/// One failed request of a proxy's log, and the connection behind it. Printed by `upstream-trace explain`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Explanation<'a> {
    pub schema: Schema,
    #[serde(rename = "type")]
    pub kind: ExplanationType,
    /// When the request failed, by the proxy's clock and to its precision.
    pub time: Timestamp,
    /// Number of this line in this run.
    pub seq: u64,
    /// Name of the log; `-` is standard input.
    pub log: &'a str,
    /// Number of the line in it.
    pub line: u64,
    pub format: Format,
    /// Method, path and protocol; null where there are none.
    pub request: Option<&'a str>,
    /// What the proxy answered.
    pub status: Option<u16>,
    /// Envoy's response flags, HAProxy's termination state, gRPC's status.
    pub flags: Option<&'a str>,
    /// The proxy's own words.
    pub said: Option<&'a str>,
    pub upstream: Option<Endpoint>,
    /// The upstream where the log has a name instead of an address.
    pub upstream_name: Option<&'a str>,
    /// The proxy's own end of the upstream connection, where the log has it.
    pub local: Option<Endpoint>,
    /// How the connection was found.
    pub sureness: Sureness,
    /// By what its owner was known; null where none was found.
    pub by: Option<By>,
    /// How many connections fit.
    pub candidates: u64,
    /// What became of the connection; null where none was found, where those that fit do not agree, or where it lived on when the
    /// request was over. Where this end closed in order, it is the other end's verdict, if that says more.
    pub verdict: Option<Verdict>,
    /// Whose stack sent the reset; null where there was none, or where those that fit do not agree.
    pub origin: Option<Origin>,
    /// The process that sent it.
    pub sender: Option<Process<'a>>,
    /// What it means and the next thing to check.
    pub hint: Cow<'a, str>,
    /// The connection's record; the nearest of several.
    pub records: &'a [Connection<'a>],
    /// The record of the connection's other end, where that is on this node.
    pub other_end: Option<Connection<'a>>,
}

/// How many lines were explained how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Found {
    pub exact: u64,
    pub unique: u64,
    pub nearest: u64,
    pub order: u64,
    pub ambiguous: u64,
    pub none: u64,
    pub elsewhere: u64,
}

impl Found {
    /// Counts one.
    pub const fn count(&mut self, sureness: Sureness) {
        *match sureness {
            Sureness::Exact => &mut self.exact,
            Sureness::Unique => &mut self.unique,
            Sureness::Nearest => &mut self.nearest,
            Sureness::Order => &mut self.order,
            Sureness::Ambiguous => &mut self.ambiguous,
            Sureness::None => &mut self.none,
            Sureness::Elsewhere => &mut self.elsewhere,
        } += 1;
    }
}

/// The account of a run of `upstream-trace explain`, its last line.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub struct Explained {
    pub schema: Schema,
    #[serde(rename = "type")]
    pub kind: ExplainedType,
    /// The time of the last line of a log.
    pub time: Timestamp,
    pub seq: u64,
    /// Lines of logs: `failed`, `fine`, `other` and `unknown`.
    pub lines: u64,
    /// Failed requests, each with a line of its own.
    pub failed: u64,
    /// Requests that did not fail.
    pub fine: u64,
    /// Lines of known formats that are about no request.
    pub other: u64,
    /// Lines of unknown formats, and broken ones.
    pub unknown: u64,
    pub found: Found,
    /// Connections that were read.
    pub records: u64,
    /// Lines of the records that are none of the tracer's.
    pub records_unknown: u64,
    /// Connections given up for want of memory.
    pub records_given_up: u64,
}

/// What an explanation is made of besides the answer.
#[derive(Debug)]
pub struct About<'a> {
    pub log: &'a str,
    pub seq: u64,
    pub records: &'a [Connection<'a>],
    pub other_end: Option<Connection<'a>>,
    /// The connection's record was found, and cannot be read.
    pub unreadable: bool,
    /// The connection went on when the request was over.
    pub lived_on: bool,
    /// Records of that time are forgotten.
    pub forgotten: bool,
}

/// Makes the record.
pub fn explanation<'a>(answer: &'a Answer, about: &About<'a>) -> Explanation<'a> {
    let failed = &answer.asked.failed;
    let (verdict, hint) = judgement(answer, about);
    let reset = agreed(about.records, |record| {
        let reset = record.reset?;
        Some((reset.origin, reset.sender.map(|sender| sender.pid)))
    });
    // Those that are not shown may differ, and without a verdict it is no reason.
    let told = verdict.is_some() && answer.candidates <= about.records.len();
    let reset = reset.filter(|_| told);
    let sender = about
        .records
        .first()
        .and_then(|record| record.reset?.sender);
    Explanation {
        schema: Schema,
        kind: ExplanationType,
        time: Timestamp(failed.ended.from),
        seq: about.seq,
        log: about.log,
        line: answer.asked.line,
        format: failed.format,
        request: Some(failed.request.as_str()).filter(|request| !request.is_empty()),
        status: failed.status,
        flags: failed.flags.as_deref(),
        said: failed.said.as_deref(),
        upstream: failed.upstream.map(endpoint),
        upstream_name: failed.name.as_deref(),
        local: failed.local.map(endpoint),
        sureness: answer.sureness,
        by: answer.by,
        candidates: answer.candidates as u64,
        verdict,
        origin: reset.flatten().map(|(origin, _)| origin),
        sender: sender.filter(|_| reset.is_some()),
        hint,
        records: about.records,
        other_end: about.other_end,
    }
}

const fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: address.ip(),
        port: address.port(),
    }
}

/// What all have in common; `None` where they differ or there are none.
fn agreed<'a, T: PartialEq>(
    records: &[Connection<'a>],
    of: impl Fn(&Connection<'a>) -> T,
) -> Option<T> {
    let (first, rest) = records.split_first()?;
    let first = of(first);
    rest.iter()
        .all(|record| of(record) == first)
        .then_some(first)
}

fn judgement<'a>(answer: &'a Answer, about: &About<'a>) -> (Option<Verdict>, Cow<'a, str>) {
    let failed = &answer.asked.failed;
    if let Nature::Elsewhere(hint) = failed.nature {
        return (None, hint.into());
    }
    if about.unreadable {
        return (None, UNREADABLE.into());
    }
    let Some(record) = about.records.first() else {
        return (None, nothing(answer, about.forgotten));
    };
    let end = match about.other_end {
        Some(other) if record.verdict == Verdict::Ok && other.verdict != Verdict::Ok => other,
        _ => *record,
    };
    let talk = match failed.nature {
        Nature::Connection(expected) => expected.talk,
        Nature::Elsewhere(_) => None,
    };
    let talk = talk.filter(|talk| talk.is_quoted || was_talk(&end));
    let talk = talk.map(|talk| talk.hint);
    if about.lived_on {
        return (None, talk.unwrap_or(LIVED_ON).into());
    }
    if answer.sureness == Sureness::Ambiguous {
        return ambiguous(answer, about.records);
    }
    let hint = talk.or(end.hint).unwrap_or_else(|| in_order(&end));
    let hint = if failed.upstream.is_some() {
        hint.into()
    } else {
        format!(
            "{hint} Another server's connection may be meant: the line has no address.{}",
            advice(failed)
        )
        .into()
    };
    (Some(end.verdict), hint)
}

const UNREADABLE: &str = "The connection was found, but this version cannot read its record: explain with the upstream-trace that wrote it.";
const LIVED_ON: &str = "This connection lived on when the request was over, so how it ended later is not the reason: look in the upstream's log for what it did with the request, and at the proxy's own timeout.";

/// What is said of a connection of which the record has no hint.
fn in_order(end: &Connection<'_>) -> &'static str {
    const KILLED: &str = "A signal killed the process that closed this connection first (evidence.exit), and what was asked of it may be unanswered: look there for the OOM killer (dmesg), a supervisor or a crash.";
    const BY_UPSTREAM: &str = "To the kernel this connection ended in order, and the upstream closed it first: if its answer was not whole by then, look in the upstream's log for a worker that gave up, a limit (age, requests), a shutdown or a TLS alert.";
    const BY_PROXY: &str = "To the kernel this connection ended in order, closed by the proxy or after its last answer: look at the proxy's own timeouts, and in the upstream's log for what it sent.";
    let is_killed = end.evidence.is_some_and(|found| found.exit.is_some());
    let first = first_close(end);
    match first {
        _ if is_killed => KILLED,
        Some(State::CloseWait) if end.role == Role::Client => BY_UPSTREAM,
        _ => BY_PROXY,
    }
}

/// Whose FIN came first: the other end's leads to `CLOSE_WAIT`, this one's to `FIN_WAIT1`.
fn first_close(end: &Connection<'_>) -> Option<State> {
    let changes = end.timeline.iter().filter_map(|step| step.change());
    let mut states = changes.map(|(_, after)| after);
    states.find(|state| matches!(state, State::CloseWait | State::FinWait1))
}

/// What would make the answer surer.
fn advice(failed: &Failed) -> String {
    let advice = failed.format.advice(failed.upstream.is_some());
    advice.map_or_else(String::new, |advice| format!(" To be sure, {advice}."))
}

/// Bytes went both ways, and the connection was not cut off by a reset before either end had closed it.
fn was_talk(end: &Connection<'_>) -> bool {
    let both_ways = end.bytes.sent > Some(0) && end.bytes.received > Some(0);
    let cut = end
        .reset
        .is_some_and(|reset| reset.direction == Direction::Received);
    both_ways && (first_close(end).is_some() || !cut)
}

fn ambiguous<'a>(answer: &Answer, records: &[Connection<'a>]) -> (Option<Verdict>, Cow<'a, str>) {
    let advice = advice(&answer.asked.failed);
    let several = answer.candidates > 1;
    if !several && !answer.of_others {
        let text = if answer.asked.failed.upstream.is_some() {
            format!("One connection is near, but other lines may have it as well.{advice}")
        } else {
            format!(
                "One connection is near, but it may be another line's or another server's: the line has no address.{advice}"
            )
        };
        return (None, text.into());
    }
    let all = answer.candidates == records.len();
    let verdict = agreed(records, |record| record.verdict).filter(|_| all || answer.alike);
    let hint = agreed(records, |record| record.hint).filter(|_| all);
    let mut text = if several {
        format!("Any of {} connections", answer.candidates)
    } else {
        "Perhaps one connection".to_owned()
    };
    if answer.of_others {
        text += " that other lines have already, because requests can share one";
    }
    if several && verdict.is_some() {
        text += ", all with the same verdict";
    }
    match hint.flatten().filter(|_| verdict.is_some()) {
        Some(hint) => text = format!("{text}. {hint}"),
        None if several => text += "; the nearest in time are shown.",
        None => text += ".",
    }
    (verdict, (text + &advice).into())
}

fn nothing<'a>(answer: &Answer, forgotten: bool) -> Cow<'a, str> {
    let failed = &answer.asked.failed;
    if answer.ahead {
        "The line's time is in the future, or far ahead of the line behind it, so nothing was looked for: the log's time zone (TZ) or clock differs.".into()
    } else if failed.is_untimed {
        "The line does not say how long the request took, so which connection ended with it cannot be told: log %DURATION%, or %UPSTREAM_LOCAL_ADDRESS% beside %UPSTREAM_REMOTE_ADDRESS%.".into()
    } else if failed.upstream.is_none() && failed.format.names_servers() {
        "The line has no server's address, so no connection can be told to be its own: its name did not resolve, the line was cut off (NGINX's error log: 2,048 bytes), or the log lacks the address (ipv4:10.0.0.1:80).".into()
    } else if answer.of_others {
        "Each connection that fits is another line's, as far as can be told: this one's is not among the records, or requests shared one (HTTP/2).".into()
    } else if forgotten {
        "Records of that time are forgotten already, because the log is written late (Envoy holds its lines back for up to 10 s) or its lines are not in order of time: raise --window.".into()
    } else if failed.upstream.is_none() {
        format!("No record is close, and the line has no server's address by which one could be looked for further.{}", advice(failed)).into()
    } else {
        "No record fits: the tracer did not run then, its filters left the connection out, the log's time zone (TZ), clock or process name (--process) differs, it is still open, or connect() failed without one for want of a route (ip route get).".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explain::{join::Asked, log::Span, meaning},
        output::samples::{healthy, process},
        record::{Attribution, Evidence, Exit, ReasonSource, Reset, Step},
    };

    const HINT: &str = "look there.";

    fn reset() -> Connection<'static> {
        Connection {
            verdict: Verdict::ResetBeforeResponse,
            hint: Some(HINT),
            reset: Some(Reset {
                direction: Direction::Received,
                reason: None,
                reason_source: ReasonSource::Unknown,
                origin: Origin::OffNode,
                confidence: None,
                evidence: None,
                sender: Some(process(7, "server", Attribution::Exact)),
            }),
            ..healthy()
        }
    }

    fn answer(sureness: Sureness, format: Format, upstream: Option<&str>) -> Answer {
        Answer {
            asked: Asked {
                log: 0,
                line: 1,
                failed: Box::new(Failed {
                    format,
                    began: 5,
                    ended: Span::new(5, 1),
                    is_untimed: false,
                    connected: None,
                    request: String::new(),
                    status: None,
                    flags: None,
                    said: None,
                    upstream: upstream.map(|upstream| upstream.parse().unwrap()),
                    name: None,
                    local: None,
                    pid: None,
                    nature: meaning::NO_ANSWER,
                }),
            },
            sureness,
            by: Some(By::Name),
            found: vec![0],
            candidates: 1,
            alike: true,
            of_others: false,
            ahead: false,
        }
    }

    fn about<'a>(records: &'a [Connection<'a>]) -> About<'a> {
        About {
            log: "log",
            seq: 0,
            records,
            other_end: None,
            unreadable: false,
            lived_on: false,
            forgotten: false,
        }
    }

    const SERVER: Option<&str> = Some("10.0.0.2:80");

    #[test]
    fn how_a_connection_ended_that_lived_on_is_not_the_reason() {
        let records = [reset()];
        let exact = answer(Sureness::Exact, Format::Istio, SERVER);
        let mut about = about(&records);
        let said = explanation(&exact, &about);
        assert_eq!(
            (said.verdict, &*said.hint),
            (Some(Verdict::ResetBeforeResponse), HINT)
        );
        assert!(said.origin.is_some() && said.sender.is_some());
        about.lived_on = true;
        let said = explanation(&exact, &about);
        assert_eq!((said.verdict, &*said.hint), (None, LIVED_ON));
        assert!(said.origin.is_none() && said.sender.is_none());
        assert_eq!(said.records.len(), 1);
    }

    /// How the connection ended says less than an alert that the proxy read from it.
    #[test]
    fn an_alert_in_the_line_is_the_reason() {
        let records = [reset()];
        let mut exact = answer(Sureness::Exact, Format::NginxError, SERVER);
        let mut hint = |nature| {
            exact.asked.failed.nature = nature;
            explanation(&exact, &about(&records)).hint.into_owned()
        };
        let Nature::Connection(alert) = meaning::ALERT else {
            panic!("no connection");
        };
        assert_eq!(hint(meaning::ALERT), alert.talk.unwrap().hint);
        assert_eq!(hint(meaning::HANDSHAKE_FAILED), HINT);
    }

    /// A connection that ended in order is looked into where it was closed first.
    #[test]
    fn whoever_closed_first_is_asked_first() {
        let closing = |state| {
            let old = State::Established as u8;
            [Step::state(5, old, state as u8)]
        };
        let [by_proxy, by_upstream] = [State::FinWait1, State::CloseWait].map(closing);
        let exact = answer(Sureness::Exact, Format::Istio, SERVER);
        let said = |timeline, signal| {
            let evidence = Evidence {
                exit: Some(Exit { signal }),
                ..Evidence::default()
            };
            let record = Connection {
                timeline,
                evidence: signal.map(|_| evidence),
                ..healthy()
            };
            explanation(&exact, &about(&[record])).hint.into_owned()
        };
        assert!(said(&by_proxy, None).contains("the proxy's own timeouts"));
        assert!(said(&by_upstream, None).contains("the upstream closed it first"));
        assert!(said(&by_upstream, Some("SIGKILL")).contains("evidence.exit"));
    }

    #[test]
    fn a_record_that_cannot_be_read_was_there_all_the_same() {
        let exact = answer(Sureness::Exact, Format::Istio, SERVER);
        let mut about = about(&[]);
        assert!(
            explanation(&exact, &about)
                .hint
                .starts_with("No record fits")
        );
        let hint = explanation(&exact, &about).hint;
        assert!(
            hint.contains("time zone (TZ)") && hint.len() < 250,
            "{hint}"
        );
        about.unreadable = true;
        assert_eq!(explanation(&exact, &about).hint, UNREADABLE);
    }

    #[test]
    fn a_line_without_an_address_says_what_it_lacks() {
        let records = [reset()];
        let said = |sureness, upstream, records| {
            let answer = answer(sureness, Format::HaproxyHttp, upstream);
            let said = explanation(&answer, &about(records));
            let advice = said.hint.contains("--server NAME=ADDRESS");
            (said.verdict.is_some(), said.origin.is_some(), advice)
        };
        assert_eq!(
            said(Sureness::Nearest, SERVER, &records),
            (true, true, false)
        );
        assert_eq!(said(Sureness::Nearest, None, &records), (true, true, true));
        // It may be another line's as well.
        assert_eq!(
            said(Sureness::Ambiguous, None, &records),
            (false, false, true)
        );
        assert_eq!(said(Sureness::None, None, &[]), (false, false, true));
        assert_eq!(said(Sureness::None, SERVER, &[]), (false, false, false));
    }

    #[test]
    fn connections_of_other_lines() {
        let records = [reset()];
        let mut shared = answer(Sureness::Ambiguous, Format::Grpc, SERVER);
        shared.of_others = true;
        let said = explanation(&shared, &about(&records));
        assert_eq!(said.verdict, Some(Verdict::ResetBeforeResponse));
        assert_eq!(
            said.hint,
            "Perhaps one connection that other lines have already, because requests can share one. look there."
        );
        let mut none = answer(Sureness::None, Format::Envoy, SERVER);
        none.of_others = true;
        let said = explanation(&none, &about(&[]));
        assert!(
            said.hint
                .starts_with("Each connection that fits is another line's")
        );
        assert!(!said.hint.contains("did not run"), "{}", said.hint);
        none.ahead = true;
        let said = explanation(&none, &about(&[]));
        assert!(said.hint.contains("in the future"), "{}", said.hint);
    }
}
