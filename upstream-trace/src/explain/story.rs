//! A line of the tracer's own output, read back: in brief for each, in full for those that explain a request.
//!
//! Must not know: logs, how records are found.

use std::{borrow::Cow, net::SocketAddr, sync::LazyLock};

use memchr::memmem::Finder;
use serde::{Deserialize, Deserializer, de};

use super::{log::time, meaning::Outcome};
use crate::{
    record::{
        AcceptQueue, Attribution, Bytes, Cause, Confidence, Connection, ConnectionType,
        Descriptors, Direction, Endpoint, Evidence, Exit, Family, Flag, Icmp, Id, Layer, Origin,
        PortRange, Process, ProxyWords, ReasonSource, Reset, ResetEvidence, Role, Schema, Step,
        StepKind, Timestamp, Verdict,
    },
    tcp::{self, State},
};

/// What a record is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Brief {
    /// When the connection ended.
    pub ended: u64,
    /// When its owner was done with it: closed it in order, which may be long before its end, or saw or brought about its end.
    pub left: u64,
    pub started: Option<u64>,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub role: Role,
    pub owner: Option<Owner>,
    pub outcome: Outcome,
}

/// The process that a socket belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub pid: u32,
    comm: [u8; 16],
}

impl Owner {
    /// A process by its number and name.
    pub fn new(pid: u32, comm: &str) -> Self {
        let mut name = [0; 16];
        for (place, byte) in name.iter_mut().zip(comm.bytes()) {
            *place = byte;
        }
        Self { pid, comm: name }
    }

    /// Whether the process has this name, as the kernel cuts names off.
    pub fn is_called(&self, name: &str) -> bool {
        *self == Self::new(self.pid, name.get(..15).unwrap_or(name))
    }
}

/// The version of records that is read here.
pub const SCHEMA: &str = "upstream-trace/1";

/// What a line of the records is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Connection(Brief),
    /// Another line of the tracer.
    Other,
    /// A line of a tracer whose records have this other version.
    Foreign(String),
    Broken,
}

impl Kind {
    /// Looks at one line.
    pub fn read(line: &[u8]) -> Self {
        if let Some(brief) = glance(line) {
            return Self::Connection(brief);
        }
        let read = serde_json::from_slice::<Line<'_>>(line);
        let is_own = |line: &Line<'_>| line.schema.as_ref().is_none_or(|schema| schema == SCHEMA);
        let Some(line) = read.ok().filter(is_own) else {
            return foreign(line).map_or(Self::Broken, Self::Foreign);
        };
        match line.kind.as_ref() {
            "connection" => line.brief().map_or(Self::Broken, Self::Connection),
            "reset" | "event" | "stats" | "explanation" | "explained" => Self::Other,
            _ => Self::Broken,
        }
    }
}

/// The version, where it is another. Its other fields may be of any kind.
fn foreign(line: &[u8]) -> Option<String> {
    let schema = serde_json::from_slice::<Versioned<'_>>(line).ok()?.schema;
    (schema.starts_with("upstream-trace/") && schema != SCHEMA).then(|| schema.into_owned())
}

#[derive(Debug, Deserialize)]
struct Versioned<'a> {
    #[serde(borrow)]
    schema: Cow<'a, str>,
}

/// Reads a line that is spelled and ordered as the tracer does it, a few times faster than any parser of JSON; `None` for all others.
///
/// Keys are searched for with the quotes around them, which stand in no text: there they are escaped.
fn glance(line: &[u8]) -> Option<Brief> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('}')?;
    let text = text.strip_prefix(r#"{"schema":""#)?.strip_prefix(SCHEMA)?;
    let mut rest = text.strip_prefix(r#"","type":"connection","time":""#)?;
    let ended = time::rfc3339(until(&mut rest, b'"')?)?;
    until(&mut rest, b'{')?.strip_suffix(r#","local":"#)?;
    rest = rest.strip_prefix(r#""address":""#)?;
    let local = end(&mut rest)?;
    rest = rest.strip_prefix(r#","remote":{"address":""#)?;
    let remote = end(&mut rest)?;
    rest = rest.strip_prefix(r#","role":""#)?;
    let role = until(&mut rest, b'"')?;
    rest = rest.strip_prefix(r#","process":"#)?;
    let owner = if rest.starts_with("null") {
        None
    } else {
        rest = rest.strip_prefix(r#"{"pid":"#)?;
        let pid = until(&mut rest, b',')?.parse().ok()?;
        rest = rest.strip_prefix(r#""comm":""#)?;
        let comm = until(&mut rest, b'"')?;
        if comm.contains('\\') {
            return None;
        }
        Some(Owner::new(pid, comm))
    };
    skip(&mut rest, &STARTED)?;
    let started = if rest.starts_with("null") {
        None
    } else {
        rest = rest.strip_prefix('"')?;
        Some(time::rfc3339(until(&mut rest, b'"')?)?)
    };
    until(&mut rest, b'[')?.strip_suffix(r#","timeline":"#)?;
    let timeline = until(&mut rest, b']')?;
    let at = |key: &Key| key.find(timeline.as_bytes());
    let fin = at(&FIN_WAIT1);
    let closed = earlier(fin, at(&LAST_ACK)).and_then(|at| {
        let (_, step) = timeline.get(..at)?.rsplit_once(r#"{"at_us":"#)?;
        step.split_once(',')?.0.parse().ok()
    });
    let behind = rest;
    skip(&mut rest, &VERDICT)?;
    let between = behind.get(..behind.len() - rest.len())?;
    let value = |key: &Key| {
        let at = key.find(between.as_bytes())? + key.needle().len();
        until(&mut between.get(at..)?, b'"')
    };
    let stayed = stayed(value(&ERRNO), value(&RESET_FOR));
    let goodbye = fin.filter(|_| !stayed);
    let ended_here = earlier(goodbye, at(&RESET_SENT)).is_some_and(|at| {
        let before = timeline.as_bytes().get(..at).unwrap_or_default();
        let ends_there = [&CLOSE_WAIT, &RESET_RECEIVED];
        ends_there.iter().all(|end| end.find(before).is_none())
    });
    let verdict = until(&mut rest, b'"')?;
    Some(Brief {
        ended,
        left: left(ended, started, closed.filter(|_| !stayed)),
        started,
        local,
        remote,
        role: *Role::ALL.iter().find(|known| known.as_str() == role)?,
        owner,
        outcome: Outcome {
            verdict: *Verdict::ALL
                .iter()
                .find(|known| known.as_str() == verdict)?,
            ended_here,
        },
    })
}

fn earlier(one: Option<usize>, other: Option<usize>) -> Option<usize> {
    one.into_iter().chain(other).min()
}

/// What is searched for in each line is made ready once.
type Key = LazyLock<Finder<'static>>;
static STARTED: Key = LazyLock::new(|| Finder::new(r#","started":"#));
static VERDICT: Key = LazyLock::new(|| Finder::new(r#","verdict":""#));
/// The states into which an orderly close leads, first or second.
static FIN_WAIT1: Key = LazyLock::new(|| Finder::new(r#""to":"FIN_WAIT1""#));
static LAST_ACK: Key = LazyLock::new(|| Finder::new(r#""to":"LAST_ACK""#));
/// The one into which the other end's leads.
static CLOSE_WAIT: Key = LazyLock::new(|| Finder::new(r#""to":"CLOSE_WAIT""#));
static RESET_SENT: Key = LazyLock::new(|| Finder::new(r#""event":"reset_sent""#));
/// Only what is known has a quote.
static ERRNO: Key = LazyLock::new(|| Finder::new(r#","errno":""#));
static RESET_FOR: Key = LazyLock::new(|| Finder::new(r#","reset":{"direction":"sent","reason":""#));
static RESET_RECEIVED: Key = LazyLock::new(|| Finder::new(r#""event":"reset_received""#));

/// Whether the owner had the connection to its end: was told of that (`errno`), or sent its reset, for a reason other than that something
/// came after it had closed. Then a FIN before was no goodbye: a tunnel passes on one of its other side.
fn stayed(told: Option<&str>, sent_for: Option<&str>) -> bool {
    told.is_some() || sent_for.is_some_and(|reason| reason != "TCP_ABORT_ON_DATA")
}

/// `closed_us`: from the start to the close.
fn left(ended: u64, started: Option<u64>, closed_us: Option<u64>) -> u64 {
    let closed = started.zip(closed_us);
    let closed = closed.map(|(at, after)| at.saturating_add(after.saturating_mul(1_000)));
    closed.map_or(ended, |closed| closed.min(ended))
}

/// `10.0.0.1","port":80}`
fn end(rest: &mut &str) -> Option<SocketAddr> {
    let address = until(rest, b'"')?.parse().ok()?;
    *rest = rest.strip_prefix(r#","port":"#)?;
    Some(SocketAddr::new(address, until(rest, b'}')?.parse().ok()?))
}

/// Goes behind the first `key`.
fn skip(rest: &mut &str, key: &Finder<'_>) -> Option<()> {
    let at = key.find(rest.as_bytes())?;
    *rest = rest.get(at + key.needle().len()..)?;
    Some(())
}

/// What stands before `mark`, which is ASCII.
fn until<'a>(rest: &mut &'a str, mark: u8) -> Option<&'a str> {
    let at = memchr::memchr(mark, rest.as_bytes())?;
    let before = rest.get(..at)?;
    *rest = rest.get(at + 1..)?;
    Some(before)
}

/// Only the fields that [`Brief`] needs; the rest is skipped without being looked at.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    schema: Option<Cow<'a, str>>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    time: Time,
    #[serde(default)]
    started: Option<Time>,
    #[serde(borrow, default)]
    local: Option<End<'a>>,
    #[serde(borrow, default)]
    remote: Option<End<'a>>,
    #[serde(default)]
    role: Option<Role>,
    #[serde(borrow, default)]
    process: Option<Named<'a>>,
    #[serde(borrow, default)]
    timeline: Vec<Rung<'a>>,
    #[serde(borrow, default)]
    errno: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    reset: Option<Cut<'a>>,
    #[serde(default)]
    verdict: Option<Verdict>,
}

#[derive(Debug, Deserialize)]
struct Cut<'a> {
    direction: Direction,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct Named<'a> {
    pid: u32,
    #[serde(borrow)]
    comm: Option<Cow<'a, str>>,
}

impl Line<'_> {
    fn brief(&self) -> Option<Brief> {
        let owner = self.process.as_ref();
        let started = self.started.map(|time| time.0);
        let goodbye = |step: &&Rung<'_>| matches!(step.to, Some("FIN_WAIT1" | "LAST_ACK"));
        let closed = self.timeline.iter().find(goodbye).map(|step| step.at_us);
        let sent = |reset: &&Cut<'_>| reset.direction == Direction::Sent;
        let sent = self.reset.as_ref().filter(sent);
        let sent_for = sent.and_then(|reset| reset.reason.as_deref());
        let stayed = stayed(self.errno.as_deref(), sent_for);
        let ends_here = |step: &Rung<'_>| match (step.event, step.to) {
            (_, Some("FIN_WAIT1")) => (!stayed).then_some(true),
            (StepKind::ResetSent, _) => Some(true),
            (StepKind::ResetReceived, _) | (_, Some("CLOSE_WAIT")) => Some(false),
            _ => None,
        };
        Some(Brief {
            ended: self.time.0,
            left: left(self.time.0, started, closed.filter(|_| !stayed)),
            started,
            local: self.local.as_ref()?.address()?,
            remote: self.remote.as_ref()?.address()?,
            role: self.role?,
            owner: owner.map(|owner| Owner::new(owner.pid, owner.comm.as_deref().unwrap_or(""))),
            outcome: Outcome {
                verdict: self.verdict?,
                ended_here: self.timeline.iter().find_map(ends_here) == Some(true),
            },
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Time(u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        time::rfc3339(text)
            .map(Self)
            .ok_or_else(|| de::Error::custom("no time"))
    }
}

#[derive(Debug, Deserialize)]
struct End<'a> {
    address: &'a str,
    port: u16,
}

impl End<'_> {
    fn address(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address.parse().ok()?, self.port))
    }

    fn endpoint(&self) -> Option<Endpoint> {
        let address = self.address()?;
        Some(Endpoint {
            address: address.ip(),
            port: address.port(),
        })
    }
}

/// A whole record, its texts borrowed from the line where nothing in them was escaped.
#[derive(Debug, Deserialize)]
pub struct Story<'a> {
    time: Time,
    seq: u64,
    id: &'a str,
    netns: Option<u32>,
    family: Family,
    #[serde(borrow)]
    local: End<'a>,
    #[serde(borrow)]
    remote: End<'a>,
    role: Role,
    #[serde(borrow)]
    process: Option<Person<'a>>,
    #[serde(borrow)]
    peer: Option<Person<'a>>,
    started: Option<Time>,
    duration_us: u64,
    #[serde(borrow)]
    timeline: Vec<Rung<'a>>,
    bytes: Amounts,
    idle_us: Option<u64>,
    rtt_us: Option<u64>,
    retransmits: Option<u32>,
    #[serde(borrow)]
    errno: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reset: Option<Ending<'a>>,
    verdict: Verdict,
    flag: Option<Flag>,
    cause: Option<Cause>,
    layer: Option<Layer>,
    #[serde(borrow, default)]
    evidence: Option<Found<'a>>,
    #[serde(borrow)]
    proxy: Option<Words<'a>>,
    #[serde(borrow)]
    hint: Option<Cow<'a, str>>,
    complete: bool,
    #[serde(skip)]
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Found<'a> {
    #[serde(borrow, default)]
    peer_address: Option<End<'a>>,
    icmp: Option<Icmp>,
    local_ports: Option<PortRange>,
    accept_queue: Option<AcceptQueue>,
    descriptors: Option<Descriptors>,
    #[serde(borrow)]
    drop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    exit: Option<Passing<'a>>,
    #[serde(default)]
    abort: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Passing<'a> {
    #[serde(borrow)]
    signal: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
struct Person<'a> {
    pid: u32,
    #[serde(borrow)]
    comm: Option<Cow<'a, str>>,
    #[serde(borrow)]
    exe: Option<Cow<'a, str>>,
    uid: Option<u32>,
    cgroup_id: Option<u64>,
    #[serde(borrow)]
    container_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pod_uid: Option<Cow<'a, str>>,
    attribution: Attribution,
}

impl Person<'_> {
    fn process(&self) -> Process<'_> {
        Process {
            pid: self.pid,
            comm: self.comm.as_deref(),
            exe: self.exe.as_deref(),
            uid: self.uid,
            cgroup_id: self.cgroup_id,
            container_id: self.container_id.as_deref(),
            pod_uid: self.pod_uid.as_deref(),
            attribution: self.attribution,
            spelled: None,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Rung<'a> {
    at_us: u64,
    event: StepKind,
    #[serde(default)]
    from: Option<&'a str>,
    #[serde(default)]
    to: Option<&'a str>,
    #[serde(default)]
    errno: Option<&'a str>,
}

impl Rung<'_> {
    fn step(&self) -> Step {
        let state = |text| state(text).map_or(0, |state| state as u8);
        match (self.event, self.errno.and_then(errno)) {
            (StepKind::State, _) => {
                let [from, to] = [self.from, self.to].map(|text| text.map_or(0, state));
                Step::state(self.at_us, from, to)
            }
            (StepKind::Error, Some(errno)) => Step::error(self.at_us, errno),
            (event, _) => Step::new(self.at_us, event),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Amounts {
    sent: Option<u64>,
    received: Option<u64>,
    acked: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Ending<'a> {
    direction: Direction,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    reason_source: ReasonSource,
    origin: Origin,
    confidence: Option<Confidence>,
    evidence: Option<ResetEvidence>,
    #[serde(borrow)]
    sender: Option<Person<'a>>,
}

#[derive(Debug, Deserialize)]
struct Words<'a> {
    #[serde(borrow)]
    envoy_flag: Cow<'a, str>,
    #[serde(borrow)]
    envoy_reason: Cow<'a, str>,
    #[serde(borrow, default)]
    envoy_reason_old: Cow<'a, str>,
    #[serde(borrow)]
    envoy_flag_other: Option<Cow<'a, str>>,
    #[serde(borrow)]
    envoy_reason_other: Option<Cow<'a, str>>,
    #[serde(borrow)]
    nginx_error: Cow<'a, str>,
    #[serde(borrow)]
    nginx_error_other: Option<Cow<'a, str>>,
}

impl Words<'_> {
    fn proxy(&self) -> ProxyWords<'_> {
        ProxyWords {
            envoy_flag: &self.envoy_flag,
            envoy_reason: &self.envoy_reason,
            envoy_reason_old: &self.envoy_reason_old,
            envoy_flag_other: self.envoy_flag_other.as_deref(),
            envoy_reason_other: self.envoy_reason_other.as_deref(),
            nginx_error: &self.nginx_error,
            nginx_error_other: self.nginx_error_other.as_deref(),
        }
    }
}

fn state(text: &str) -> Option<State> {
    let mut states = State::ALL.into_iter();
    states.find(|state| state.as_str() == text)
}

fn errno(text: &str) -> Option<u32> {
    (1..=133).find(|&number| tcp::errno_name(number) == Some(text))
}

/// `<16 hexadecimal digits>-<serial>`
fn id(text: &str) -> Option<Id> {
    let (run, serial) = text.split_once('-')?;
    Some(Id {
        run: u64::from_str_radix(run, 16).ok()?,
        serial: serial.parse().ok()?,
    })
}

impl<'a> Story<'a> {
    /// Reads a whole connection; `None` where the line is not the tracer's.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        // Looked at once as a whole, instead of each text by itself.
        let mut story: Self = serde_json::from_str(str::from_utf8(line).ok()?).ok()?;
        story.steps = story.timeline.iter().map(Rung::step).collect();
        Some(story)
    }

    /// The record as it was printed.
    pub fn connection(&self) -> Option<Connection<'_>> {
        let reset = self.reset.as_ref().map(|reset| Reset {
            direction: reset.direction,
            reason: reset.reason.as_deref(),
            reason_source: reset.reason_source,
            origin: reset.origin,
            confidence: reset.confidence,
            evidence: reset.evidence,
            sender: reset.sender.as_ref().map(Person::process),
        });
        Some(Connection {
            schema: Schema,
            kind: ConnectionType,
            time: Timestamp(self.time.0),
            seq: self.seq,
            id: id(self.id)?,
            netns: self.netns,
            family: self.family,
            local: self.local.endpoint()?,
            remote: self.remote.endpoint()?,
            role: self.role,
            process: self.process.as_ref().map(Person::process),
            peer: self.peer.as_ref().map(Person::process),
            started: self.started.map(|time| Timestamp(time.0)),
            duration_us: self.duration_us,
            timeline: &self.steps,
            bytes: Bytes {
                sent: self.bytes.sent,
                received: self.bytes.received,
                acked: self.bytes.acked,
            },
            idle_us: self.idle_us,
            rtt_us: self.rtt_us,
            retransmits: self.retransmits,
            errno: self
                .errno
                .as_deref()
                .and_then(errno)
                .and_then(tcp::errno_name),
            reset,
            verdict: self.verdict,
            flag: self.flag,
            cause: self.cause,
            layer: self.layer,
            evidence: self.evidence.as_ref().map(|found| Evidence {
                peer_address: found.peer_address.as_ref().and_then(End::endpoint),
                icmp: found.icmp,
                local_ports: found.local_ports,
                accept_queue: found.accept_queue,
                descriptors: found.descriptors,
                drop_reason: found.drop_reason.as_deref(),
                exit: found.exit.as_ref().map(|exit| Exit {
                    signal: exit.signal.as_deref(),
                }),
                abort: found.abort,
            }),
            proxy: self.proxy.as_ref().map(Words::proxy),
            hint: self.hint.as_deref(),
            complete: self.complete,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::{json, samples};

    fn spelled(record: &Connection<'_>) -> Vec<u8> {
        let mut room = vec![0; 1 << 16];
        let len = json::connection(record, &mut room).unwrap();
        room.truncate(len - 1);
        room
    }

    #[test]
    fn a_record_is_known_by_a_glance() {
        let record = samples::healthy();
        assert!(
            glance(&spelled(&record)).is_some(),
            "the fast way is for the tracer's own lines"
        );
        let Kind::Connection(brief) = Kind::read(&spelled(&record)) else {
            panic!("no connection");
        };
        assert_eq!(brief.ended, record.time.0);
        assert_eq!(brief.remote, "10.0.0.2:8443".parse().unwrap());
        let outcome = (brief.role, brief.outcome.verdict);
        assert_eq!(outcome, (Role::Client, Verdict::Ok));
        let owner = brief.owner.unwrap();
        assert!(owner.pid == 12 && owner.is_called("envoy") && !owner.is_called("nginx"));
        for (line, kind) in [
            (
                &br#"{"type":"stats","time":"2026-11-21T11:34:03.123456789Z"}"#[..],
                Kind::Other,
            ),
            (
                br#"{"type":"connection","time":"2026-11-21T11:34:03.123456789Z"}"#,
                Kind::Broken,
            ),
            (b"{\"type\"", Kind::Broken),
            (b"\xff\0", Kind::Broken),
        ] {
            assert_eq!(Kind::read(line), kind);
        }
    }

    #[test]
    fn who_ended_it_is_who_said_so_first() {
        let state = |to| Step::state(1, State::Established as u8, to as u8);
        let (fin, peer_fin) = (state(State::FinWait1), state(State::CloseWait));
        let (sent, received) = [StepKind::ResetSent, StepKind::ResetReceived]
            .map(|kind| Step::new(2, kind))
            .into();
        for (timeline, ended_here) in [
            (vec![], false),
            (vec![fin], true),
            (vec![fin, received], true),
            (vec![peer_fin, sent], false),
            (vec![sent], true),
            (vec![received, state(State::Close)], false),
        ] {
            let record = Connection {
                timeline: &timeline,
                ..samples::healthy()
            };
            let brief = glance(&spelled(&record)).unwrap();
            assert_eq!(brief.outcome.ended_here, ended_here, "{timeline:?}");
        }
    }

    #[test]
    fn a_fin_is_no_goodbye_of_who_still_has_the_connection_at_its_end() {
        let fin = Step::state(1, State::Established as u8, State::FinWait1 as u8);
        let end = |errno, direction, reason| {
            let record = samples::healthy();
            let kind = match direction {
                Direction::Sent => StepKind::ResetSent,
                Direction::Received => StepKind::ResetReceived,
            };
            let record = Connection {
                timeline: &[fin, Step::new(2, kind)],
                errno,
                reset: Some(Reset {
                    direction,
                    reason,
                    reason_source: ReasonSource::Derived,
                    origin: Origin::Local,
                    confidence: None,
                    evidence: None,
                    sender: None,
                }),
                ..record
            };
            let brief = glance(&spelled(&record)).unwrap();
            (brief.left == brief.ended, brief.outcome.ended_here)
        };
        let (sent, received) = (Direction::Sent, Direction::Received);
        assert_eq!(end(None, sent, Some("TCP_STATE")), (true, true));
        assert_eq!(end(None, sent, Some("TCP_ABORT_ON_DATA")), (false, true));
        assert_eq!(end(None, sent, None), (false, true));
        assert_eq!(end(None, received, Some("TCP_STATE")), (false, true));
        // The socket was still there to be told.
        let told = Some("ECONNRESET");
        assert_eq!(end(told, received, Some("TCP_STATE")), (true, false));
        assert_eq!(end(told, received, None), (true, false));
    }

    #[test]
    fn records_of_another_version() {
        let own = String::from_utf8(spelled(&samples::healthy())).unwrap();
        // As the tracer spells it, and as any other program does.
        for own in [own.clone(), own.replacen("\":", "\": ", 2)] {
            assert!(matches!(Kind::read(own.as_bytes()), Kind::Connection(_)));
            let other = own.replace(SCHEMA, "upstream-trace/2");
            for other in [other.clone(), other.replace("\"time\":\"", "\"when\":\"")] {
                let kind = Kind::Foreign("upstream-trace/2".into());
                assert_eq!(Kind::read(other.as_bytes()), kind);
            }
        }
        let nobody = br#"{"schema":"other/2","type":"log"}"#;
        assert_eq!(Kind::read(nobody), Kind::Broken);
    }

    proptest! {
        #[test]
        fn a_glance_sees_what_a_parser_reads(record in samples::connections()) {
            let line = spelled(&record);
            let parsed: Line<'_> = serde_json::from_slice(&line).unwrap();
            if let Some(brief) = glance(&line) {
                prop_assert_eq!(Some(brief), parsed.brief());
            }
            prop_assert_eq!(Kind::read(&line), Kind::Connection(parsed.brief().unwrap()));
        }

        #[test]
        fn what_is_read_back_is_what_was_printed(record in samples::connections()) {
            let line = spelled(&record);
            let story = Story::read(&line).unwrap();
            let again = story.connection().unwrap();
            // An errno that TCP never reports does not come back; the samples make up any text.
            if record.errno.is_none_or(|name| errno(name).is_some()) {
                let (again, line) = (spelled(&again), line);
                prop_assert_eq!(String::from_utf8_lossy(&again), String::from_utf8_lossy(&line));
            }
        }
    }
}
