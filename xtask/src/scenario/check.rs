//! Holds a scenario's expectation against the lines that were printed.

use std::fmt::{self, Display, Formatter, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::expect::{
    ALL_RESETS, Expect, Found, Is, ONLY_THE_KERNEL_KNOWS, Owner, Packet, Reset, Stray,
};
use super::feature::{Feature, Features};
use super::{Link, Played, Scenario, Who};

/// How far the kernel's clock, as the tracer converts it, and ours may be apart.
const CLOCK_SLACK: Duration = Duration::from_millis(5);

/// How much later than the play's last call a connection may end: on a busy machine the last acknowledgement waits its turn, or is
/// lost and the FIN sent again.
const LATE: Duration = Duration::from_secs(1);

/// The kernel tells of payload to one of its clock's ticks, at 100 Hz as well.
const TICK: Duration = Duration::from_millis(10);

/// One thing that is not as expected.
#[derive(Clone, Debug)]
pub struct Complaint {
    pub what: String,
    pub expected: String,
    pub got: String,
}

impl Display for Complaint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            expected,
            got,
        } = self;
        write!(f, "{what:<28} expected {expected:<40} got {got}")
    }
}

/// One line with the time that it gives.
#[derive(Clone, Debug)]
pub struct Line {
    pub time: SystemTime,
    pub value: Value,
}

impl Line {
    /// Reads a line of output.
    pub fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let time = timestamp(value["time"].as_str()?)?;
        Some(Self { time, value })
    }

    pub fn is(&self, kind: &str) -> bool {
        self.value["type"] == kind
    }
}

/// Reads `2026-01-31T12:00:00.123456789Z`.
pub fn timestamp(text: &str) -> Option<SystemTime> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    let nanos = u64::try_from(timestamp.as_nanosecond()).ok()?;
    Some(UNIX_EPOCH + Duration::from_nanos(nanos))
}

/// The lines that belong to a scenario, by what they are.
#[derive(Debug)]
struct Lines<'a> {
    /// For each of the scenario's records.
    records: Vec<Vec<&'a Value>>,
    /// For each link: its `reset` lines.
    strays: Vec<Vec<&'a Value>>,
    /// Lines about the scenario's links that no record expects.
    surplus: Vec<&'a Value>,
}

/// The lines of `sorted`, which is in order of time, that can be about `played`.
pub fn within<'a>(sorted: &'a [Line], played: &Played) -> &'a [Line] {
    let first = sorted.partition_point(|line| line.time < played.began - CLOCK_SLACK);
    let last = sorted.partition_point(|line| line.time <= played.ended + LATE);
    &sorted[first..last]
}

/// What is wrong with one play, told at length, of all that was printed in order of time.
pub fn wrong(
    scenario: &Scenario,
    played: &Played,
    sorted: &[Line],
    kernel: Features,
) -> Option<String> {
    let near = within(sorted, played);
    let complaints = check(scenario, played, near, kernel);
    (!complaints.is_empty()).then(|| describe(scenario, played, near, &complaints))
}

/// Everything that is wrong with what was printed about one play; nothing is the aim.
pub fn check(
    scenario: &Scenario,
    played: &Played,
    lines: &[Line],
    kernel: Features,
) -> Vec<Complaint> {
    let found = find(scenario, played, lines);
    let mut complaints = Vec::new();
    for (expect, records) in scenario.records.iter().zip(&found.records) {
        let mut checker = Checker {
            at: format!("{}[{}]", end_name(expect.end), expect.link),
            played,
            kernel,
            complaints: &mut complaints,
        };
        match records[..] {
            [record] => checker.record(expect, record),
            _ => checker.same("lines", &1, &records.len()),
        }
    }
    let expected = |index| -> Vec<_> {
        let strays = scenario.strays.iter();
        let of_link = strays.filter(|stray| stray.link == index);
        of_link
            .filter(|stray| stray.needs.is_none_or(|feature| kernel.has(feature)))
            .collect()
    };
    // Where addresses are translated, it is sent on one link and received on another.
    let unexpected = || {
        let strays = found.strays.iter().enumerate();
        let of_none = strays.filter(|(index, _)| expected(*index).is_empty());
        of_none.flat_map(|(_, lines)| lines.iter().copied())
    };
    let sent = unexpected().filter(|line| line["direction"] == "sent");
    let one_came_late =
        sent.count() == 1 && unexpected().all(|line| is_late_segment(line, &found.records));
    for (index, lines) in found.strays.iter().enumerate() {
        let expected = expected(index);
        let mut checker = Checker {
            at: format!("reset[{index}]"),
            played,
            kernel,
            complaints: &mut complaints,
        };
        if expected.is_empty() && (lines.is_empty() || one_came_late) {
            continue;
        }
        let of_port_before = |line: &&Value| is_of_port_before(line, &found.records);
        let lines = lines.iter().copied().filter(|line| !of_port_before(line));
        let lines: Vec<&Value> = lines.collect();
        checker.same("lines", &expected.len(), &lines.len());
        for stray in expected {
            let goes_its_way = |line: &&&Value| line["direction"] == stray.direction;
            match lines.iter().find(goes_its_way) {
                Some(line) => checker.stray(index, stray, line),
                None => checker.same(stray.direction, &1, &0),
            }
        }
    }
    complaints.extend(found.surplus.iter().map(|line| Complaint {
        what: "line".into(),
        expected: "no such".into(),
        got: format!("{} at {}", line["verdict"], line["role"]),
    }));
    complaints
}

/// Two CPUs may deliver an acknowledgement after the FIN that was sent behind it, and a full `TIME_WAIT`
/// table forgets a connection too early: a last segment then meets the listener or nobody. The kernel does
/// reset it, and if the other end is in `TIME_WAIT`, that is where the reset arrives; nobody is accused, and both ends are
/// over. Old kernels give no reason where a listener sends it.
fn is_late_segment(line: &Value, records: &[Vec<&Value>]) -> bool {
    let reason = &line["reason"];
    let after_the_end = |record: &&Value| record["time"].as_str() < line["time"].as_str();
    line["flag"].is_null()
        && (reason == "TCP_FLAGS" || reason == "NO_SOCKET" || reason.is_null())
        && records.iter().flatten().all(after_the_end)
}

/// A port may be taken again while the other end still remembers its last connection: that answers the SYN with an
/// acknowledgement, which is reset, and the SYN is sent again.
fn is_of_port_before(line: &Value, records: &[Vec<&Value>]) -> bool {
    let resets = |record: &&Value| {
        let timeline = record["timeline"].as_array().into_iter().flatten();
        let mut events = timeline.map(|step| &step["event"]);
        events.any(|event| event == "reset_sent") && events.any(|event| event == "syn_retransmit")
    };
    line["direction"] == "received"
        && line["reason"].is_null()
        && records.iter().flatten().any(resets)
}

/// The lines that [`check`] looked at, to be shown when it complains, or to a person.
pub fn lines_of<'a>(scenario: &Scenario, played: &Played, lines: &'a [Line]) -> Vec<&'a Value> {
    let found = find(scenario, played, lines);
    let expected = found.records.into_iter().chain(found.strays).flatten();
    expected.chain(found.surplus).collect()
}

/// A mismatch, readable: what differs, then the lines as they were printed.
pub fn describe(
    scenario: &Scenario,
    played: &Played,
    lines: &[Line],
    complaints: &[Complaint],
) -> String {
    let mut text = format!("{}: {}\n", scenario.name, scenario.story);
    for complaint in complaints {
        writeln!(text, "  {complaint}").expect("a String takes all");
    }
    writeln!(text, "  processes {:?}", played.processes).expect("a String takes all");
    for line in lines_of(scenario, played, lines) {
        writeln!(text, "  {line}").expect("a String takes all");
    }
    text
}

fn find<'a>(scenario: &Scenario, played: &Played, printed: &'a [Line]) -> Lines<'a> {
    let mut links = played.links.clone();
    // A port that nobody could ask the kernel for is on the record of the process that connected.
    for at in 0..links.len() {
        if links[at].client.is_none() {
            let claimed = |local| links.iter().any(|link| link.client == Some(local));
            links[at].client = printed.iter().find_map(|line| {
                let local = endpoint(&line.value["local"])?;
                let ours = line.is("connection")
                    && line.value["netns"] == links[at].client_netns
                    && endpoint(&line.value["remote"]) == Some(links[at].server)
                    && played
                        .process(Who::Client)
                        .is_some_and(|client| line.value["process"]["pid"] == client.pid);
                (ours && !claimed(local)).then_some(local)
            });
        }
    }
    let mut found = Lines {
        records: vec![Vec::new(); scenario.records.len()],
        strays: vec![Vec::new(); links.len()],
        surplus: Vec::new(),
    };
    for line in printed {
        let Some((link, end)) = belongs(&line.value, &links) else {
            continue;
        };
        if is_of_later_play(line, played) {
            continue;
        }
        if line.is("reset") {
            found.strays[link].push(&line.value);
        } else if line.is("connection") {
            let expected = scenario
                .records
                .iter()
                .position(|expect| expect.link == link && expect.end == end);
            match expected {
                Some(at) => found.records[at].push(&line.value),
                None => found.surplus.push(&line.value),
            }
        }
    }
    found
}

/// Whether a line about the same addresses is about a connection that began after the play, or a reset sent then.
fn is_of_later_play(line: &Line, played: &Played) -> bool {
    let began = line.value["started"].as_str().and_then(timestamp);
    began.unwrap_or(line.time) > played.ended + CLOCK_SLACK
}

/// Which connection a line is about, seen from which end.
fn belongs(line: &Value, links: &[Link]) -> Option<(usize, Who)> {
    // Not always told of a packet; of a connection it has to be.
    let netns = line["netns"].as_u64();
    if netns.is_none() && line["type"] != "reset" {
        return None;
    }
    let is_in = |other| netns.is_none_or(|netns| netns == other);
    let ends = (endpoint(&line["local"])?, endpoint(&line["remote"])?);
    links.iter().enumerate().find_map(|(index, link)| {
        let client = link.client?;
        if ends == (client, link.server) && is_in(link.client_netns) {
            Some((index, Who::Client))
        } else if ends == (link.server, client) && is_in(link.server_netns) {
            Some((index, Who::Server))
        } else {
            None
        }
    })
}

fn endpoint(value: &Value) -> Option<SocketAddr> {
    let ip: IpAddr = value["address"].as_str()?.parse().ok()?;
    Some(SocketAddr::new(
        ip,
        u16::try_from(value["port"].as_u64()?).ok()?,
    ))
}

fn end_name(end: Who) -> &'static str {
    match end {
        Who::Client => "client",
        Who::Server => "server",
        Who::Worker => "worker",
    }
}

struct Checker<'a> {
    at: String,
    played: &'a Played,
    kernel: Features,
    complaints: &'a mut Vec<Complaint>,
}

impl Checker<'_> {
    /// Whether every reset that this machine sends is seen.
    fn sees_all_resets(&self) -> bool {
        ALL_RESETS.iter().all(|&feature| self.kernel.has(feature))
    }

    fn record(&mut self, expect: &Expect, record: &Value) {
        let Expect {
            link,
            end,
            verdict,
            flag,
            owner,
            peer,
            reset,
            unseen,
            errno,
            bytes,
            evidence,
            aborted,
            steps,
        } = *expect;
        let has = |feature: &Feature| self.kernel.has(*feature);
        let unseen = unseen.filter(|(without, _)| !without.iter().all(has));
        let unseen = unseen.map(|(_, reset)| reset);
        let named = self.kernel.has(Feature::ResetReasons) && unseen.is_none();
        self.word("verdict", Some(verdict), &record["verdict"]);
        self.word("flag", flag, &record["flag"]);
        self.word("role", Some(end_name(end)), &record["role"]);
        self.family(link, record);
        self.process("process", owner, &record["process"]);
        // Where the hook of accept() runs, it says who accepted.
        let accepted = end == Who::Server && verdict != "never_accepted";
        if accepted && self.kernel.has(Feature::FunctionHooks) {
            self.word(
                "attribution",
                Some("exact"),
                &record["process"]["attribution"],
            );
        }
        self.process("peer", peer, &record["peer"]);
        match unseen.or(reset) {
            None => self.same("reset", &Value::Null, &record["reset"]),
            Some(reset) if record["reset"].is_object() => {
                self.reset(link, &reset, named, &record["reset"]);
            }
            Some(reset) => self.same("reset", &reset.direction, &"null"),
        }
        if let Some(errno) = errno {
            self.word("errno", errno, &record["errno"]);
        }
        for (name, count) in [("sent", bytes.0), ("received", bytes.1)] {
            if let Some(count) = count {
                self.same(
                    &format!("bytes.{name}"),
                    &count.into(),
                    &record["bytes"][name],
                );
            }
        }
        self.evidence(evidence, aborted, &record["evidence"]);
        self.timeline(steps, &record["timeline"]);
        self.figures(verdict, record);
        self.same("complete", &Value::Bool(true), &record["complete"]);
        self.that(
            "started",
            "a time",
            record["started"].is_string(),
            &record["started"],
        );
        let explained = record["hint"].is_string() != (verdict == "ok");
        self.that("hint", "one, but for ok", explained, &record["hint"]);
        let packet = reset.and_then(|reset| self.packet(&reset));
        let is_accused = packet.is_some_and(|packet| packet.likely == Some("in_path"));
        let hint = record["hint"].as_str().unwrap_or_default();
        let accuses = hint.contains("likely a firewall or middlebox");
        self.same("hint accuses a middlebox", &is_accused, &accuses);
        let has_port = record["local"]["port"] != 0 || verdict == "no_local_port";
        self.that("local.port", "a port", has_port, &record["local"]["port"]);
    }

    fn stray(&mut self, link: usize, stray: &Stray, line: &Value) {
        self.family(link, line);
        self.word("flag", stray.flag, &line["flag"]);
        let named = stray.direction == "received" || self.kernel.has(Feature::ResetReasons);
        self.reason(stray.reason, named, line);
    }

    fn reset(&mut self, link: usize, expect: &Reset, named: bool, reset: &Value) {
        self.word(
            "reset.direction",
            Some(expect.direction),
            &reset["direction"],
        );
        self.origin(link, expect, reset);
        self.process("reset.sender", expect.sender, &reset["sender"]);
        self.reason(expect.reason, named, reset);
    }

    fn family(&mut self, link: usize, line: &Value) {
        let is_ipv4 = self.played.links[link].server.is_ipv4();
        let family = if is_ipv4 { "ipv4" } else { "ipv6" };
        self.word("family", Some(family), &line["family"]);
    }

    /// What has to be known of the packet, where this kernel shows it.
    fn packet(&self, expect: &Reset) -> Option<Packet> {
        expect
            .packet
            .filter(|_| self.kernel.has(Feature::ResetPackets))
    }

    fn origin(&mut self, link: usize, expect: &Reset, reset: &Value) {
        let packet = self.packet(expect);
        let likely = packet.and_then(|packet| packet.likely);
        let confidence = match expect.origin {
            _ if likely.is_some() => Some("likely"),
            // Concluded, where a reset without a socket is not seen.
            "peer_on_node" if !self.sees_all_resets() => reset["confidence"].as_str(),
            "local" | "peer_on_node" | "in_path" => Some("certain"),
            _ => None,
        };
        let origin = likely.unwrap_or(expect.origin);
        self.word("reset.origin", Some(origin), &reset["origin"]);
        self.word("reset.confidence", confidence, &reset["confidence"]);
        let evidence = &reset["evidence"];
        let Some(packet) = packet else {
            return self.same("reset.evidence", &Value::Null, evidence);
        };
        // Before the handshake nothing is expected that could be hit exactly.
        let exact = packet.handshake_ttl.map(|_| true);
        for (name, expected) in [
            ("ttl", packet.ttl.into()),
            ("handshake_ttl", packet.handshake_ttl.into()),
            ("sequence_exact", exact.into()),
        ] {
            self.same(&format!("evidence.{name}"), &expected, &evidence[name]);
        }
        let has_ids = self.played.links[link].server.is_ipv4();
        let ids = evidence["ip_id"].is_u64() == has_ids
            && evidence["handshake_ip_id"].is_u64() == (has_ids && packet.handshake_ttl.is_some());
        self.that("evidence.ip_id", "numbers of IPv4", ids, evidence);
    }

    /// A kernel that names reasons is quoted; on another one the reason is concluded.
    fn reason(&mut self, expected: Option<&'static str>, named: bool, holder: &Value) {
        let known = expected.filter(|reason| named || !ONLY_THE_KERNEL_KNOWS.contains(reason));
        let source = match known {
            None => "unknown",
            Some(_) if named => "kernel",
            Some(_) => "derived",
        };
        self.word("reset.reason", known, &holder["reason"]);
        self.word(
            "reset.reason_source",
            Some(source),
            &holder["reason_source"],
        );
    }

    fn process(&mut self, name: &str, owner: Owner, process: &Value) {
        let attribution = process["attribution"].as_str().unwrap_or("nothing");
        let allowed: &[Who] = match owner {
            Owner::Any => return,
            Owner::Nobody => return self.same(name, &Value::Null, process),
            Owner::Listener if !self.kernel.has(Feature::UntypedReads) => {
                return self.same(name, &Value::Null, process);
            }
            Owner::Listener if attribution == "listener" => &[Who::Server],
            Owner::Is(Who::Client) if attribution == "exact" => &[Who::Client],
            Owner::Is(Who::Server) if KNOWN.contains(&attribution) => &[Who::Server],
            Owner::Is(Who::Worker) if KNOWN.contains(&attribution) => &[Who::Worker],
            Owner::Is(_) | Owner::Listener => &[],
            Owner::By(cases) => cases
                .iter()
                .find(|(how, _)| *how == attribution)
                .map_or(&[], |(_, who)| *who),
        };
        let nameless = process["comm"].is_null() && !self.kernel.has(Feature::CurrentTask);
        let right = allowed
            .iter()
            .filter_map(|who| self.played.process(*who))
            .any(|right| {
                process["pid"] == right.pid && (nameless || process["comm"] == *right.name)
            });
        if !right {
            let processes = &self.played.processes;
            let got = format!("{} {} by {attribution}", process["pid"], process["comm"]);
            self.complain(name, format!("{owner:?} of {processes:?}"), got);
        }
    }

    /// What is stated is there, and nothing else is.
    fn evidence(&mut self, stated: &[Found], aborted: bool, evidence: &Value) {
        for found in stated {
            let kernel_has_it = found.needs.is_none_or(|feature| self.kernel.has(feature));
            let mut path = found.member.split('.');
            let got = path.try_fold(evidence, |value, name| value.get(name));
            let expected = match found.is {
                Is::Any => continue,
                _ if !kernel_has_it => continue,
                Is::Number(number) => number.into(),
                Is::Text(text) => text.into(),
                Is::Null => Value::Null,
                Is::At(end, link) => {
                    let link = &self.played.links[link];
                    let at = match end {
                        Who::Client => link.client,
                        _ => Some(link.server),
                    };
                    at.map(|at| json!({"address": at.ip(), "port": at.port()}))
                        .into()
                }
                Is::Pid(who) => self.played.process(who).map(|process| process.pid).into(),
            };
            self.same(found.member, &expected, got.unwrap_or(&Value::Null));
        }
        let abort = evidence.get("abort").unwrap_or(&Value::Null);
        let expected = if aborted { true.into() } else { Value::Null };
        self.same("abort", &expected, abort);
        let members = evidence.as_object().into_iter().flatten();
        for (member, value) in members.filter(|(member, _)| *member != "abort") {
            let names = |found: &Found| found.member.split('.').next() == Some(member);
            if !stated.iter().any(names) {
                self.same(member, &Value::Null, value);
            }
        }
    }

    fn timeline(&mut self, steps: &[&str], timeline: &Value) {
        let none = Vec::new();
        let got: Vec<&str> = timeline
            .as_array()
            .unwrap_or(&none)
            .iter()
            .filter_map(|step| step["to"].as_str().or_else(|| step["event"].as_str()))
            .collect();
        let mut rest = got.iter();
        let all = steps.iter().all(|step| rest.any(|other| other == step));
        self.that("timeline", &format!("{steps:?}"), all, &got);
        let late = |step: &&str| *step == "ESTABLISHED" || *step == "FIN_WAIT1";
        let begun = got.iter().position(late).unwrap_or(got.len());
        let again = got[begun..].contains(&"syn_retransmit");
        self.that("timeline", "no SYN after the handshake", !again, &got);
    }

    /// Numbers of which no scenario says how large they are, but that have to fit each other and the clock.
    fn figures(&mut self, verdict: &str, record: &Value) {
        let number = |value: &Value| value.as_u64();
        let steps = record["timeline"].as_array().map_or(&[][..], Vec::as_slice);
        let times: Vec<_> = steps.iter().map(|step| number(&step["at_us"])).collect();
        let in_order = times.is_sorted() && times.first() == Some(&Some(0));
        self.that("at_us", "from 0 on, in order", in_order, &times);
        let lived = self.played.ended.duration_since(self.played.began);
        let counted = number(&record["retransmits"]);
        let late = if counted > Some(0) {
            LATE
        } else {
            Duration::ZERO
        };
        let lived = lived.unwrap_or_default() + 2 * CLOCK_SLACK + late;
        let duration = number(&record["duration_us"]);
        let possible = duration.is_some_and(|us| Duration::from_micros(us) <= lived);
        self.that(
            "duration_us",
            &format!("at most {lived:?}"),
            possible,
            &duration,
        );
        if let Some(end) = steps.iter().find(|step| step["to"] == "CLOSE") {
            self.same("duration_us", &end["at_us"], &record["duration_us"]);
        }
        let idle = number(&record["idle_us"]);
        let possible = idle.is_none_or(|us| Duration::from_micros(us) <= lived + TICK);
        self.that("idle_us", &format!("at most {lived:?}"), possible, &idle);

        let bytes = &record["bytes"];
        if verdict == "ok" {
            self.same("bytes.acked", &bytes["sent"], &bytes["acked"]);
        } else {
            let most = number(&bytes["sent"]);
            let possible = number(&bytes["acked"]) <= most;
            self.that("bytes.acked", &format!("at most {most:?}"), possible, bytes);
        }
        let has = |name: &str| {
            steps
                .iter()
                .any(|step| step["to"] == name || step["event"] == name)
        };
        if has("ESTABLISHED") {
            let rtt = number(&record["rtt_us"]);
            let possible = rtt.is_some_and(|us| Duration::from_micros(us) <= lived);
            self.that("rtt_us", &format!("at most {lived:?}"), possible, &rtt);
        }
        let again = steps
            .iter()
            .filter(|step| step["event"] == "syn_retransmit")
            .count() as u64;
        let possible = counted.is_some_and(|counted| counted >= again);
        self.that(
            "retransmits",
            &format!("at least {again}"),
            possible,
            &counted,
        );
    }

    fn word(&mut self, name: &str, expected: Option<&str>, got: &Value) {
        self.same(name, &expected.map_or(Value::Null, Into::into), got);
    }

    fn same<T: PartialEq + Display>(&mut self, name: &str, expected: &T, got: &T) {
        if expected != got {
            self.complain(name, expected.to_string(), got.to_string());
        }
    }

    fn that(&mut self, name: &str, expected: &str, holds: bool, got: &impl fmt::Debug) {
        if !holds {
            self.complain(name, expected.to_owned(), format!("{got:?}"));
        }
    }

    fn complain(&mut self, name: &str, expected: String, got: String) {
        self.complaints.push(Complaint {
            what: format!("{}.{name}", self.at),
            expected,
            got,
        });
    }
}

/// Ways to know the owner of a socket that did not connect itself.
const KNOWN: [&str; 4] = ["exact", "inode", "closer", "listener"];

#[cfg(test)]
mod tests {
    use super::*;

    /// The client as it knows itself and its server, and as its server knows both.
    const ENDS: [[&str; 2]; 2] = [
        ["10.77.0.4:45759", "10.77.0.3:18440"],
        ["10.77.0.1:45759", "10.77.0.2:18440"],
    ];

    const ENDED: &str = "2026-11-29T07:30:56.617272747Z";
    const NOTHING: Scenario = Scenario {
        name: "nothing",
        story: "",
        slow: false,
        needs: None,
        play: |_| anyhow::bail!("it is not played"),
        records: &[],
        strays: &[],
    };

    fn reset(direction: &str, [local, remote]: [&str; 2]) -> Line {
        let end = |text: &str| {
            let end: SocketAddr = text.parse().unwrap();
            json!({"address": end.ip(), "port": end.port()})
        };
        let line = json!({
            "type": "reset", "time": ENDED, "netns": 1, "local": end(local), "remote": end(remote),
            "direction": direction, "reason": null, "flag": null,
        });
        Line::parse(&line.to_string()).unwrap()
    }

    /// Both ends of a play that ended when [`reset`]s come, with its links' addresses.
    fn played(links: &[[&str; 2]]) -> Played {
        let link = |&[client, server]: &[&str; 2]| Link {
            client: client.parse().ok(),
            server: server.parse().unwrap(),
            client_netns: 1,
            server_netns: 1,
        };
        let ended = timestamp(ENDED).unwrap();
        Played {
            began: ended,
            ended,
            links: links.iter().map(link).collect(),
            processes: Vec::new(),
        }
    }

    #[test]
    fn what_began_in_time_may_end_late() {
        let [_, [client, server]] = ENDS;
        let played = played(&[[client, server]]);
        let mut line = reset("sent", [client, server]);
        line.value["type"] = "connection".into();
        line.value["role"] = "client".into();
        for (started, waited, is_found) in [
            (Some(ENDED), Duration::from_millis(415), true),
            (Some(ENDED), LATE * 2, false),
            (
                Some("2026-11-29T07:30:56.700000000Z"),
                Duration::from_millis(415),
                false,
            ),
            (None, Duration::ZERO, true),
            (None, Duration::from_millis(415), false),
        ] {
            line.value["started"] = started.into();
            line.time = played.ended + waited;
            let lines = [line.clone()];
            let found = find(&NOTHING, &played, within(&lines, &played));
            assert_eq!(
                found.surplus.len(),
                usize::from(is_found),
                "{started:?} {waited:?}"
            );
        }
    }

    #[test]
    fn one_late_segment_may_meet_nobody_also_where_addresses_are_translated() {
        let played = played(&ENDS);
        let [here, [client, server]] = ENDS;
        let complaints = |lines: &[Line]| check(&NOTHING, &played, lines, Features::default());
        let sent = || reset("sent", here);
        let one = [sent(), reset("received", [server, client])];
        assert!(complaints(&one).is_empty());
        assert!(!complaints(&[sent(), sent()]).is_empty());
        assert!(!complaints(&one[1..]).is_empty());
    }
}
