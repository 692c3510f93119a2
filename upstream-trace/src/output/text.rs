//! One record for people: what became of which connection, then its steps like the rungs of a ladder, who ended it, what to do next.
//!
//! Must not know: whether anybody sees it on a terminal ([`Style`] is decided by the caller), where it is written to.

mod pieces;

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
};

pub(crate) use self::pieces::{Address, BOLD, Clock, Harmless, Painted, RED, YELLOW};
use self::pieces::{Amount, GREEN, Known, Milliseconds, Owner, Reason};
use crate::record::{
    AcceptQueue, Cause, Confidence, Connection, Descriptors, Direction, Endpoint, Event, Evidence,
    Exit, Flag, Icmp, Lost, PortRange, Process, ResetEvidence, Role, Stats, Step, StrayReset,
    Verdict,
};

/// How a text looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Use ANSI colours.
    pub colour: bool,
}

/// Writes a finished connection; the length, or `None` where `room` is too small.
pub fn connection(record: &Connection<'_>, style: Style, room: &mut [u8]) -> Option<usize> {
    Page::fill(room, style, |page| page.connection(record))
}

/// Writes a reset that belongs to no connection.
pub fn reset(record: &StrayReset<'_>, style: Style, room: &mut [u8]) -> Option<usize> {
    Page::fill(room, style, |page| page.reset(record))
}

/// Writes a kernel event.
pub fn event(record: &Event<'_>, style: Style, room: &mut [u8]) -> Option<usize> {
    Page::fill(room, style, |page| page.event(record))
}

/// Writes the tracer's own account.
pub fn stats(record: &Stats, style: Style, room: &mut [u8]) -> Option<usize> {
    Page::fill(room, style, |page| page.stats(record))
}

/// The room for a text, and how much of it is used. An error means that it is too small.
struct Page<'a> {
    room: &'a mut [u8],
    used: usize,
    style: Style,
}

impl fmt::Write for Page<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let place = self.room.get_mut(self.used..).unwrap_or_default();
        let place = place.get_mut(..text.len()).ok_or(fmt::Error)?;
        place.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}

impl Page<'_> {
    fn fill(
        room: &mut [u8],
        style: Style,
        write: impl FnOnce(&mut Page<'_>) -> fmt::Result,
    ) -> Option<usize> {
        let mut page = Page {
            room,
            used: 0,
            style,
        };
        write(&mut page).ok()?;
        Some(page.used)
    }

    fn paint<'t>(&self, ansi: &'static str, text: &'t str) -> Painted<'t> {
        Painted {
            ansi: if self.style.colour { ansi } else { "" },
            text,
        }
    }

    fn connection(&mut self, record: &Connection<'_>) -> fmt::Result {
        let verdict = self.paint(
            verdict_colour(record.verdict, record.flag),
            record.verdict.as_str(),
        );
        write!(self, "{}  {verdict}", Clock(record.time))?;
        if let Some(flag) = record.flag.map(Flag::as_str)
            && flag != record.verdict.as_str()
        {
            write!(self, " ({flag})")?;
        }

        let (here, there) = (Owner(record.process), Owner(record.peer));
        let (local, remote) = (Address(record.local), Address(record.remote));
        match record.role {
            Role::Client => write!(self, "  {local} -> {remote}  {here} -> {there}")?,
            Role::Server => write!(self, "  {remote} -> {local}  {there} -> {here}")?,
            Role::Unknown => write!(self, "  {local} <-> {remote}  {here} <-> {there}")?,
        }
        if record.verdict == Verdict::Ok {
            return writeln!(
                self,
                "  {}, sent {}, received {}",
                Milliseconds(record.duration_us),
                Amount(record.bytes.sent),
                Amount(record.bytes.received),
            );
        }
        self.write_char('\n')?;

        for step in record.timeline {
            self.step(*step)?;
        }
        if let Some(reset) = record.reset {
            write!(self, "  reset: {}", reset.direction.as_str())?;
            if reset.sender.is_some() {
                write!(self, ", by {}", Owner(reset.sender))?;
            }
            let reason = Reason(reset.reason, reset.reason_source.as_str());
            write!(self, ", {reason}, origin {}", reset.origin.as_str())?;
            // What is certain is not said to be.
            if reset.confidence == Some(Confidence::Likely) {
                self.write_str(" (likely)")?;
            }
            self.write_char('\n')?;
            if let Some(evidence) = reset.evidence {
                self.packet(&evidence)?;
            }
        }
        if let Some(errno) = record.errno {
            writeln!(self, "  told:  {errno}")?;
        }
        if let Some(proxy) = record.proxy {
            let (flag, reason) = (Harmless(proxy.envoy_flag), Harmless(proxy.envoy_reason));
            write!(self, "  proxy: envoy {flag} \"{reason}\"")?;
            if let (Some(flag), Some(reason)) = (proxy.envoy_flag_other, proxy.envoy_reason_other) {
                write!(self, " or {} \"{}\"", Harmless(flag), Harmless(reason))?;
            }
            write!(self, "; nginx \"{}\"", Harmless(proxy.nginx_error))?;
            if let Some(other) = proxy.nginx_error_other {
                write!(self, " or \"{}\"", Harmless(other))?;
            }
            self.write_char('\n')?;
        }
        if let Some(layer) = record.layer {
            let cause = record.cause.map_or("unknown", Cause::as_str);
            writeln!(self, "  cause: {cause} (layer {})", layer.as_str())?;
        }
        if let Some(evidence) = record.evidence {
            self.evidence(&evidence)?;
        }
        for process in [record.process, record.peer].into_iter().flatten() {
            self.place(&process)?;
        }
        if !record.complete {
            writeln!(
                self,
                "  note:  not complete: events were lost, or it began before the tracer"
            )?;
        }
        self.next(record.hint)
    }

    fn step(&mut self, step: Step) -> fmt::Result {
        let at_us = step.at_us();
        write!(self, "{:>+7}.{:03} ms  ", at_us / 1_000, at_us % 1_000)?;
        match step.change() {
            Some((from, to)) => write!(self, "{} -> {}", from.as_str(), to.as_str())?,
            None => self.write_str(step.event().as_str())?,
        }
        if let Some(errno) = step.errno() {
            write!(self, " {errno}")?;
        }
        self.write_char('\n')
    }

    /// What else is known, a line each.
    fn evidence(&mut self, evidence: &Evidence<'_>) -> fmt::Result {
        let Evidence {
            peer_address,
            icmp,
            local_ports,
            accept_queue,
            descriptors,
            drop_reason,
            exit,
            abort,
        } = *evidence;
        if let Some(Endpoint { address, port }) = peer_address {
            let end = SocketAddr::from((address, port));
            writeln!(
                self,
                "  found: the other end is at {end}, translated on the way"
            )?;
        }
        if let Some(Icmp { kind, code, from }) = icmp {
            write!(self, "  found: ICMP type {kind} code {code}")?;
            if let Some(from) = from {
                write!(self, " from {from}")?;
            }
            self.write_char('\n')?;
        }
        if let Some(PortRange { first, last }) = local_ports {
            writeln!(self, "  found: local ports {first} to {last}, none left")?;
        }
        if let Some(AcceptQueue { length, limit }) = accept_queue {
            writeln!(self, "  found: accept queue {length} of {limit}")?;
        }
        if let Some(Descriptors { pid, open, limit }) = descriptors {
            writeln!(
                self,
                "  found: file descriptors {open} of {limit} in process {pid}"
            )?;
        }
        if let Some(reason) = drop_reason {
            writeln!(self, "  found: dropped on this node, {}", Harmless(reason))?;
        }
        match exit {
            Some(Exit {
                signal: Some(signal),
            }) => writeln!(
                self,
                "  found: its process was killed by {}",
                Harmless(signal)
            )?,
            Some(Exit { signal: None }) => writeln!(self, "  found: its process ended")?,
            None => {}
        }
        if abort == Some(true) {
            writeln!(self, "  found: aborted on purpose, SO_LINGER is 0")?;
        }
        Ok(())
    }

    /// The container and pod that a process is in; nothing where it is in none.
    fn place(&mut self, process: &Process<'_>) -> fmt::Result {
        let (container, pod) = (process.container_id, process.pod_uid);
        if container.is_none() && pod.is_none() {
            return Ok(());
        }
        let comm = Harmless(process.comm.unwrap_or("?"));
        write!(self, "  in:    {comm}[{}]", process.pid)?;
        if let Some(id) = container {
            // As much of it as the runtimes' tools print.
            write!(self, " container {}", Harmless(id.get(..12).unwrap_or(id)))?;
        }
        if let Some(uid) = pod {
            write!(self, " pod {}", Harmless(uid))?;
        }
        self.write_char('\n')
    }

    fn next(&mut self, hint: Option<&str>) -> fmt::Result {
        let Some(hint) = hint else {
            return Ok(());
        };
        let label = self.paint(BOLD, "next:");
        writeln!(self, "  {label}  {hint}")
    }

    /// The reset's packet beside that of the handshake.
    fn packet(&mut self, evidence: &ResetEvidence) -> fmt::Result {
        write!(self, "  packet: ttl {}", evidence.ttl)?;
        if let Some(id) = evidence.ip_id {
            write!(self, ", id {id}")?;
        }
        if evidence.sequence_exact == Some(false) {
            self.write_str(", sequence not exact")?;
        }
        if evidence.too_soon == Some(true) {
            self.write_str(", too soon for an answer")?;
        }
        match evidence.handshake_ttl {
            Some(ttl) => write!(self, "; handshake: ttl {ttl}")?,
            None => self.write_str("; handshake not seen")?,
        }
        if let Some(id) = evidence.handshake_ip_id {
            write!(self, ", id {id}")?;
        }
        self.write_char('\n')
    }

    fn reset(&mut self, record: &StrayReset<'_>) -> fmt::Result {
        let ansi = if record.flag.is_some() { RED } else { YELLOW };
        // Not the flag alone: it would read as a connection's verdict.
        let word = self.paint(ansi, "reset");
        write!(self, "{}  {word}", Clock(record.time))?;
        if let Some(flag) = record.flag {
            write!(self, " ({})", flag.as_str())?;
        }
        let direction = record.direction.as_str();
        let (from, to) = match record.direction {
            Direction::Sent => (record.local, record.remote),
            Direction::Received => (record.remote, record.local),
        };
        write!(self, "  {} -> {}", Known(from), Known(to))?;
        let reason = Reason(record.reason, record.reason_source.as_str());
        write!(self, "  {direction}, for no connection, {reason}")?;
        if record.count != 1 {
            write!(self, ", {} times", record.count)?;
        }
        self.write_char('\n')?;
        self.next(Some(record.hint))
    }

    fn event(&mut self, record: &Event<'_>) -> fmt::Result {
        let (local, remote) = (Address(record.local), Address(record.remote));
        let time = Clock(record.time);
        write!(self, "{time}  {}  {local} <-> {remote}", record.event)?;
        match (record.from, record.to) {
            (Some(from), Some(to)) => write!(self, "  {} -> {}", from.as_str(), to.as_str())?,
            (Some(state), None) | (None, Some(state)) => write!(self, "  {}", state.as_str())?,
            (None, None) => {}
        }
        if let Some(reason) = record.reason {
            write!(self, "  {}", Harmless(reason))?;
        }
        if let Some(errno) = record.errno {
            write!(self, "  {errno}")?;
        }
        if let Some(pid) = record.pid {
            write!(self, "  pid {pid}")?;
        }
        self.write_char('\n')
    }

    fn stats(&mut self, record: &Stats) -> fmt::Result {
        let Lost {
            ring_full,
            table_full,
            read_fault,
            missed,
            output,
        } = record.lost;
        write!(
            self,
            "{}  stats  {} events, {} connections, {} resets, {} flagged",
            Clock(record.time),
            record.events,
            record.connections,
            record.resets,
            record.flagged
        )?;
        if ring_full + table_full + read_fault + missed + output + record.lines_dropped > 0 {
            let lost = self.paint(RED, "lost");
            write!(
                self,
                "; {lost}: ring_full {ring_full}, table_full {table_full}, read_fault {read_fault}, missed {missed}, output {output} \
                 ({} lines)",
                record.lines_dropped
            )?;
        }
        self.write_char('\n')
    }
}

const fn verdict_colour(verdict: Verdict, flag: Option<Flag>) -> &'static str {
    match (verdict, flag) {
        (_, Some(_)) => RED,
        (Verdict::Ok, None) => GREEN,
        (_, None) => YELLOW,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        output::samples::{self, endpoint, process},
        record::{Attribution, Layer, Origin, ProxyWords, ReasonSource, Reset, StepKind},
        tcp::State,
    };

    const PLAIN: Style = Style { colour: false };
    const COLOUR: Style = Style { colour: true };

    fn text<T>(
        record: &T,
        style: Style,
        spell: fn(&T, Style, &mut [u8]) -> Option<usize>,
    ) -> String {
        let mut room = vec![0; 1 << 16];
        let len = spell(record, style, &mut room).unwrap();
        room.truncate(len);
        String::from_utf8(room).unwrap()
    }

    fn failed() -> Connection<'static> {
        const TIMELINE: &[Step] = &[
            Step::new(0, StepKind::Connect),
            samples::change(41, State::SynSent, State::Established),
            Step::new(1_204_017, StepKind::ResetReceived),
            Step::error(1_204_019, libc::ECONNRESET.cast_unsigned()),
        ];
        Connection {
            peer: Some(process(34, "nginx\x1b[2J", Attribution::Listener)),
            timeline: TIMELINE,
            errno: Some("ECONNRESET"),
            reset: Some(Reset {
                direction: Direction::Received,
                reason: Some("TCP_ABORT_ON_CLOSE"),
                reason_source: ReasonSource::Kernel,
                origin: Origin::PeerOnNode,
                confidence: Some(Confidence::Certain),
                evidence: None,
                sender: Some(process(34, "nginx", Attribution::Closer)),
            }),
            verdict: Verdict::ResetBeforeResponse,
            flag: Some(Flag::ResetBeforeResponse),
            proxy: Some(ProxyWords {
                envoy_flag: "UC",
                envoy_reason: "connection termination",
                envoy_reason_old: "connection termination",
                envoy_flag_other: Some("UF"),
                envoy_reason_other: Some("remote reset"),
                nginx_error: "recv() failed (104: Connection reset by peer)",
                nginx_error_other: Some("readv() failed (104: Connection reset by peer)"),
            }),
            cause: Some(Cause::UnhealthyEndpoint),
            layer: Some(Layer::Http),
            hint: Some("The server closed with the request unread."),
            ..samples::healthy()
        }
    }

    #[test]
    fn healthy_is_one_line() {
        assert_eq!(
            text(&samples::healthy(), PLAIN, connection),
            "2026-11-21 11:34:03.123Z  ok  10.0.0.1:43210 -> 10.0.0.2:8443  envoy[12] -> ?  12.412 ms, sent 512 B, \
             received 16384 B\n"
        );
    }

    #[test]
    fn failed_is_a_ladder() {
        assert_eq!(
            text(&failed(), PLAIN, connection),
            r#"2026-11-21 11:34:03.123Z  reset_before_response  10.0.0.1:43210 -> 10.0.0.2:8443  envoy[12] -> nginx\u001b[2J[34] (listener)
     +0.000 ms  connect
     +0.041 ms  SYN_SENT -> ESTABLISHED
  +1204.017 ms  reset_received
  +1204.019 ms  error ECONNRESET
  reset: received, by nginx[34] (closer), TCP_ABORT_ON_CLOSE (kernel), origin peer_on_node
  told:  ECONNRESET
  proxy: envoy UC "connection termination" or UF "remote reset"; nginx "recv() failed (104: Connection reset by peer)" or "readv() failed (104: Connection reset by peer)"
  cause: unhealthy_endpoint (layer http)
  next:  The server closed with the request unread.
"#
        );
    }

    #[test]
    fn what_a_packet_tells_is_one_line() {
        let told = |evidence| {
            let mut record = failed();
            record.reset = record.reset.map(|reset| Reset {
                reason: None,
                reason_source: ReasonSource::Unknown,
                origin: Origin::InPath,
                confidence: Some(Confidence::Likely),
                evidence: Some(evidence),
                sender: None,
                ..reset
            });
            let text = text(&record, PLAIN, connection);
            let lines = text
                .lines()
                .skip_while(|line| !line.starts_with("  reset:"));
            lines.take(2).collect::<Vec<_>>().join("\n")
        };
        let evidence = ResetEvidence {
            ttl: 64,
            handshake_ttl: Some(57),
            ip_id: Some(0),
            handshake_ip_id: Some(41_234),
            sequence_exact: Some(true),
            too_soon: Some(false),
        };
        assert_eq!(
            told(evidence),
            "  reset: received, reason unknown, origin in_path (likely)\n  \
               packet: ttl 64, id 0; handshake: ttl 57, id 41234"
        );
        let evidence = ResetEvidence {
            ttl: 60,
            sequence_exact: Some(false),
            too_soon: Some(true),
            ..ResetEvidence::default()
        };
        assert_eq!(
            told(evidence).lines().last(),
            Some(
                "  packet: ttl 60, sequence not exact, too soon for an answer; handshake not seen"
            )
        );
    }

    #[test]
    fn containers_and_pods_are_named() {
        let mut record = failed();
        record.process = record.process.map(|process| Process {
            container_id: Some("3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00998877665544332211"),
            pod_uid: Some("2fc932ce-fdcc-454b-97bd-aadfdeb4c340"),
            ..process
        });
        record.peer = record.peer.map(|process| Process {
            pod_uid: Some("\u{7f}"),
            ..process
        });
        let text = text(&record, PLAIN, connection);
        let lines: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("  in:"))
            .collect();
        assert_eq!(
            lines,
            [
                "  in:    envoy[12] container 3f4e5d6c7b8a pod 2fc932ce-fdcc-454b-97bd-aadfdeb4c340",
                "  in:    nginx\\u001b[2J[34] pod \\u007f",
            ]
        );
    }

    #[test]
    fn evidence_is_a_line_each() {
        let evidence = Evidence {
            peer_address: Some(endpoint("[fd00::2]:8443")),
            icmp: Some(Icmp {
                kind: 3,
                code: 13,
                from: "10.0.0.254".parse().ok(),
            }),
            local_ports: Some(PortRange {
                first: 32_768,
                last: 60_999,
            }),
            accept_queue: Some(AcceptQueue {
                length: 129,
                limit: 128,
            }),
            descriptors: Some(Descriptors {
                pid: 7,
                open: 1024,
                limit: 1024,
            }),
            drop_reason: Some("NETFILTER_DROP"),
            exit: Some(Exit {
                signal: Some("SIGKILL"),
            }),
            abort: Some(true),
        };
        let record = Connection {
            evidence: Some(evidence),
            ..failed()
        };
        let text = text(&record, PLAIN, connection);
        let found: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("  found: "))
            .collect();
        assert_eq!(
            found,
            [
                "the other end is at [fd00::2]:8443, translated on the way",
                "ICMP type 3 code 13 from 10.0.0.254",
                "local ports 32768 to 60999, none left",
                "accept queue 129 of 128",
                "file descriptors 1024 of 1024 in process 7",
                "dropped on this node, NETFILTER_DROP",
                "its process was killed by SIGKILL",
                "aborted on purpose, SO_LINGER is 0",
            ]
        );
    }

    #[test]
    fn a_server_is_on_the_right_and_unknown_is_said() {
        let record = Connection {
            role: Role::Server,
            local: endpoint("[::1]:8443"),
            remote: endpoint("[::1]:43210"),
            process: None,
            timeline: &[],
            verdict: Verdict::NeverAccepted,
            flag: Some(Flag::ResetBeforePayload),
            complete: false,
            ..samples::healthy()
        };
        assert_eq!(
            text(&record, PLAIN, connection),
            "2026-11-21 11:34:03.123Z  never_accepted (reset_before_payload)  [::1]:43210 -> [::1]:8443  ? -> ?\n  \
             note:  not complete: events were lost, or it began before the tracer\n"
        );
    }

    #[test]
    fn colour_only_where_told() {
        let coloured = text(&failed(), COLOUR, connection);
        assert!(coloured.contains("  \x1b[31mreset_before_response\x1b[0m  "));
        assert!(coloured.contains("\n  \x1b[1mnext:\x1b[0m  The server"));
        assert!(text(&samples::healthy(), COLOUR, connection).contains("\x1b[32mok\x1b[0m"));
    }

    #[test]
    fn stray_reset() {
        assert_eq!(
            text(&samples::stray(), PLAIN, reset),
            "2026-11-21 11:34:03.123Z  reset (reset_before_payload)  10.0.0.2:81 -> 10.0.0.1:43210  sent, for no connection, \
             NO_SOCKET (kernel)\n  next:  nothing listens on this port\n"
        );
        let bare = StrayReset {
            local: None,
            direction: Direction::Received,
            reason: None,
            flag: None,
            count: 3,
            ..samples::stray()
        };
        assert_eq!(
            text(&bare, PLAIN, reset),
            "2026-11-21 11:34:03.123Z  reset  10.0.0.1:43210 -> ?  received, for no connection, reason unknown, 3 times\n  \
             next:  nothing listens on this port\n"
        );
    }

    #[test]
    fn event_and_stats() {
        let healthy = samples::healthy();
        let record = Event {
            schema: healthy.schema,
            kind: crate::record::EventType,
            time: healthy.time,
            seq: 1,
            id: None,
            netns: None,
            family: healthy.family,
            local: healthy.local,
            remote: healthy.remote,
            event: "inet_sock_set_state",
            from: Some(State::SynSent),
            to: Some(State::Close),
            reason: None,
            errno: Some("ECONNREFUSED"),
            pid: Some(12),
        };
        assert_eq!(
            text(&record, PLAIN, event),
            "2026-11-21 11:34:03.123Z  inet_sock_set_state  10.0.0.1:43210 <-> 10.0.0.2:8443  SYN_SENT -> CLOSE  \
             ECONNREFUSED  pid 12\n"
        );
        let mut account = Stats {
            schema: healthy.schema,
            kind: crate::record::StatsType,
            time: healthy.time,
            seq: 9,
            seen: 10,
            events: 10,
            connections: 3,
            resets: 2,
            flagged: 1,
            lost: Lost::default(),
            lines_dropped: 0,
        };
        assert_eq!(
            text(&account, PLAIN, stats),
            "2026-11-21 11:34:03.123Z  stats  10 events, 3 connections, 2 resets, 1 flagged\n"
        );
        account.lost.output = 4;
        account.lines_dropped = 2;
        assert_eq!(
            text(&account, PLAIN, stats),
            "2026-11-21 11:34:03.123Z  stats  10 events, 3 connections, 2 resets, 1 flagged; lost: ring_full 0, \
             table_full 0, read_fault 0, missed 0, output 4 (2 lines)\n"
        );
    }

    proptest! {
        #[test]
        fn no_control_character_but_the_ends_of_lines(record in samples::connections()) {
            let text = text(&record, PLAIN, connection);
            prop_assert!(!text.replace('\n', "").contains(crate::output::is_control));
            prop_assert_eq!(connection(&record, PLAIN, &mut vec![0; text.len() - 1]), None);
        }
    }
}
