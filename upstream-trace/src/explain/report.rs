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
        Connection, Direction, Endpoint, Origin, Process, Schema, Timestamp, Verdict, constant,
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
    /// What became of the connection; null where none was found, or where those that fit do not agree. Where this end closed in order, it
    /// is the other end's verdict, if that says more.
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
    // Those that are not shown may differ.
    let reset = reset.filter(|_| answer.candidates <= about.records.len());
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
    if answer.sureness == Sureness::Ambiguous {
        return ambiguous(answer, about.records);
    }
    let Some(record) = about.records.first() else {
        return (None, nothing(failed, about.forgotten).into());
    };
    let end = match about.other_end {
        Some(other) if record.verdict == Verdict::Ok && other.verdict != Verdict::Ok => other,
        _ => *record,
    };
    let talk = match failed.nature {
        Nature::Connection(expected) => expected.talk,
        Nature::Elsewhere(_) => None,
    };
    let talk = talk.filter(|_| was_talk(&end));
    let hint = talk.or(end.hint).unwrap_or(
        "To the kernel this connection ended in order, closed by the proxy or after its last answer: look at the proxy's own timeouts, and in the upstream's log for what it sent.",
    );
    (Some(end.verdict), hint.into())
}

/// Bytes went both ways, and the connection was not cut off by a reset before either end had closed it.
fn was_talk(end: &Connection<'_>) -> bool {
    let both_ways = end.bytes.sent > Some(0) && end.bytes.received > Some(0);
    let cut = end
        .reset
        .is_some_and(|reset| reset.direction == Direction::Received);
    let changes = end.timeline.iter().filter_map(|step| step.change());
    let mut states = changes.map(|(_, after)| after);
    let closed = states.any(|state| matches!(state, State::CloseWait | State::FinWait1));
    both_ways && (closed || !cut)
}

fn ambiguous<'a>(answer: &Answer, records: &[Connection<'a>]) -> (Option<Verdict>, Cow<'a, str>) {
    let all = answer.candidates == records.len();
    let verdict = agreed(records, |record| record.verdict).filter(|_| all || answer.alike);
    let advice = answer.asked.failed.format.advice();
    let advice = advice.map_or_else(String::new, |advice| format!(" To be sure, {advice}."));
    let hint = agreed(records, |record| record.hint).filter(|_| all);
    let text = match (verdict, hint.flatten()) {
        (Some(_), Some(hint)) => format!(
            "Any of {} connections, all with the same verdict. {hint}{advice}",
            answer.candidates
        ),
        (Some(_), None) => format!(
            "Any of {} connections, all with the same verdict; the nearest in time are shown.{advice}",
            answer.candidates
        ),
        _ => format!(
            "Any of {} connections; the nearest in time are shown.{advice}",
            answer.candidates
        ),
    };
    (verdict, text.into())
}

const fn nothing(failed: &Failed, forgotten: bool) -> &'static str {
    if failed.upstream.is_none() && failed.format.names_servers() {
        "The line has no server's address, so no connection can be told to be its own: its name did not resolve, or the log lacks the address (ipv4:10.0.0.1:80)."
    } else if forgotten {
        "Records of that time are forgotten already, because the log is written late (Envoy holds its lines back for up to 10 s) or its lines are not in order of time: raise --window."
    } else {
        "No record fits: the tracer did not run then, its filters left the connection out, the proxy's clock or process name differs (--process), the connection is still open, or connect() failed without one for want of a route (ip route get)."
    }
}
