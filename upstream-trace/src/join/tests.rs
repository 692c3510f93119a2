//! The join, tested from data: sequences of events as kernels 5.10 to 7.2 were seen to send them.

use std::{net::Ipv4Addr, rc::Rc};

use upstream_trace_common::{
    event::{
        Acted, Actor, Answer, Base, Full, IPV4, NO_REASON, NO_UID, Note, Packet, Stats, Way, exit,
        kind,
    },
    story::{self, AT_BIRTH, Change, NOBODY, Story},
};

use super::{
    engine::{Context, Engine, HOLD_NS, Sink, WallClock},
    keeper::{Keeper, Told},
    stray,
};
use crate::{
    decode::Event,
    kernel::{btf::Btf, reasons::Reasons, sample::Sample},
    process::{Describe, Details},
    record::{
        self, AcceptQueue, Attribution, Confidence, Descriptors, Direction, Endpoint, Flag, Icmp,
        Origin, ReasonSource, Role, StepKind, Timestamp, Verdict,
    },
    settings::{Ports, Wanted},
    tcp::State,
    verdict::playbook::{self, StrayKind},
};

/// /proc where nobody can be described, and everybody has all descriptors in use.
struct Nobody;

impl Describe for Nobody {
    fn describe(&mut self, _pid: u32, _start: u64) -> Details {
        Details::default()
    }

    fn descriptors(&mut self, pid: u32, _start: u64) -> Option<Descriptors> {
        let (open, limit) = (1024, 1024);
        Some(Descriptors { pid, open, limit })
    }
}

/// Kernel time is the time of day.
struct Epoch;

impl WallClock for Epoch {
    fn at(&self, ktime: u64) -> Timestamp {
        Timestamp(ktime)
    }
}

/// What a test looks at of a record.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    serial: u64,
    role: Role,
    verdict: Verdict,
    flag: Option<Flag>,
    owner: Option<(u32, Attribution)>,
    peer: Option<u32>,
    reset: Option<(Direction, Origin, Option<u32>)>,
    confidence: Option<Confidence>,
    /// Of the reset's packet and the handshake's.
    ttls: Option<(u8, Option<u8>)>,
    /// Reason of the reset.
    why: Option<(Option<String>, ReasonSource)>,
    local_port: u16,
    steps: Vec<StepKind>,
    evidence: Option<record::Evidence<'static>>,
    complete: bool,
    events: u32,
}

#[derive(Default)]
struct Records {
    connections: Vec<Seen>,
    strays: Vec<(u32, Option<u64>, Option<Flag>)>,
    /// Of the same.
    hints: Vec<&'static str>,
}

impl Sink for Records {
    fn connection(&mut self, record: &mut record::Connection<'_>, events: u32) {
        self.connections.push(Seen {
            serial: record.id.serial,
            role: record.role,
            verdict: record.verdict,
            flag: record.flag,
            owner: record
                .process
                .map(|process| (process.pid, process.attribution)),
            peer: record.peer.map(|process| process.pid),
            reset: record.reset.map(|reset| {
                (
                    reset.direction,
                    reset.origin,
                    reset.sender.map(|process| process.pid),
                )
            }),
            confidence: record.reset.and_then(|reset| reset.confidence),
            ttls: record
                .reset
                .and_then(|reset| reset.evidence)
                .map(|evidence| (evidence.ttl, evidence.handshake_ttl)),
            why: record
                .reset
                .map(|reset| (reset.reason.map(str::to_owned), reset.reason_source)),
            local_port: record.local.port,
            steps: record.timeline.iter().map(|step| step.event()).collect(),
            evidence: record.evidence.map(|evidence| record::Evidence {
                drop_reason: evidence
                    .drop_reason
                    .map(|reason| &*reason.to_owned().leak()),
                exit: evidence.exit.map(|exit| record::Exit {
                    signal: exit.signal.map(|signal| &*signal.to_owned().leak()),
                }),
                ..evidence
            }),
            complete: record.complete,
            events,
        });
    }

    fn reset(&mut self, record: &mut record::StrayReset<'_>, _events: u32) {
        let peer = record.peer_id.map(|id| id.serial);
        self.strays.push((record.count, peer, record.flag));
        self.hints.push(record.hint);
    }

    fn event(&mut self, _record: &mut record::Event<'_>) {}
}

/// The kernel, played: to one join event by event, and to another as stories. Both must say the same.
struct Play {
    engine: Engine,
    records: Records,
    keeper: Keeper,
    by_stories: Engine,
    told: Records,
    /// Events that the second join was told.
    taken: u64,
    now: u64,
    /// Later than any payload of [`counted`].
    jiffies: u32,
    /// How whoever acts comes to its end.
    exit: u8,
    /// Where no end has the address that the other knows: by how much the client's numbers are changed on the way.
    hidden: Option<u32>,
    /// The ends are in namespaces of their own.
    apart: bool,
    /// Resets that were not asked for.
    kept: Vec<Full>,
}

const CLIENT: u64 = 0xc11e;
const SERVER: u64 = 0x5e4e;
const LISTENER: u64 = 0x1157;
const CLIENT_PID: u32 = 100;
const SERVER_PID: u32 = 200;
const HELPER_PID: u32 = 300;
const TRACER_PID: u32 = 400;
/// Its name.
const TRACER: [u64; 2] = [7, 7];
const KWORKER_PID: u32 = 500;
const LOOPBACK: u64 = u32::from_ne_bytes([127, 0, 0, 1]) as u64;
const ELSEWHERE: u64 = elsewhere(7);
/// Addresses beside it.
const fn elsewhere(last: u8) -> u64 {
    u32::from_ne_bytes([192, 0, 2, last]) as u64
}

const PORT: u16 = 8443;
const EPHEMERAL: u16 = 45_000;

fn context() -> Context {
    Context {
        run: 1,
        own_comm: TRACER,
        tick_ns: 4_000_000,
        idle_after_us: 250_000,
        reasons: Reasons::default(),
        drop_reasons: Reasons::default(),
        counts_syn_retransmits: true,
        sees_all_resets: true,
        local_ports: Some(32_768..=60_999),
        since: 0,
        sees_both_ends: true,
        knows_listeners: true,
        events: false,
        wanted: Wanted::default(),
    }
}

impl Play {
    fn new() -> Self {
        Self::with(context(), 1024)
    }

    fn with(context: Context, limit: usize) -> Self {
        let mut play = Self {
            engine: Engine::new(context.clone(), limit),
            records: Records::default(),
            keeper: Keeper::default(),
            by_stories: Engine::new(context, limit),
            told: Records::default(),
            taken: 0,
            now: 1_000_000_000,
            jiffies: 2,
            exit: exit::NONE,
            hidden: None,
            apart: false,
            kept: Vec::new(),
        };
        play.state(LISTENER, State::Close, State::Listen, SERVER_PID);
        play
    }

    fn base(&mut self, sk: u64, kind: u8, old: u8, new: u8) -> Base {
        self.now += 1000;
        let (local_port, remote_port) = match sk {
            CLIENT => (EPHEMERAL, PORT),
            LISTENER => (PORT, 0),
            _ => (PORT, EPHEMERAL),
        };
        let (local, remote) = match (self.hidden, sk) {
            (None, CLIENT) if self.apart => (elsewhere(8), elsewhere(9)),
            (None, _) if self.apart => (elsewhere(9), elsewhere(8)),
            (None, _) => (LOOPBACK, LOOPBACK),
            (_, CLIENT) => (elsewhere(8), elsewhere(9)),
            _ => (elsewhere(10), elsewhere(11)),
        };
        Base {
            ktime: self.now,
            sk,
            kind,
            family: IPV4,
            old,
            new,
            local_port,
            remote_port,
            netns: if self.apart && sk == CLIENT { 2 } else { 1 },
            jiffies: self.jiffies,
            local: [local, 0],
            remote: [remote, 0],
        }
    }

    fn feed(&mut self, event: Event<'_>) {
        self.engine
            .event(event, &mut Nobody, &Epoch, &mut self.records);
        for told in self.keeper.event(event) {
            self.taken += match told {
                Told::Event(event) => {
                    self.by_stories
                        .event(event, &mut Nobody, &Epoch, &mut self.told);
                    1
                }
                Told::Story(story) => self.by_stories.story(&story, &mut Nobody),
                Told::Ended(ended) => {
                    self.by_stories
                        .ended_story(&ended, &mut Nobody, &Epoch, &mut self.told)
                }
            };
        }
    }

    fn lost(&mut self) {
        self.engine.lost(self.now);
        self.by_stories.lost(self.now);
    }

    /// The kernel side notes something of why the connection of the client fails.
    fn note(&mut self, netns: u32, kind: u8, (old, new): (u8, u8), detail: [u64; 5]) {
        let base = self.base(CLIENT, kind, old, new);
        self.noted(Note {
            base: Base {
                sk: 0,
                netns,
                ..base
            },
            detail,
        });
    }

    /// The same of the accept queue of a listener that takes connections to any address.
    fn queue(&mut self, sk: u64, queue: [u64; 2]) {
        self.queue_at(0, sk, queue);
    }

    /// The same, to this IPv4 address.
    fn queue_at(&mut self, bound: u64, sk: u64, [length, limit]: [u64; 2]) {
        let old = State::SynSent as u8;
        let base = self.base(CLIENT, kind::ACCEPT_QUEUE, old, 0);
        self.noted(Note {
            base: Base { sk, ..base },
            detail: [limit << 32 | length, 1, bound, 0, 0],
        });
    }

    fn noted(&mut self, note: Note) {
        self.engine
            .note(&note, &mut Nobody, &Epoch, &mut self.records);
        self.by_stories
            .note(&note, &mut Nobody, &Epoch, &mut self.told);
    }

    fn snapshot(&mut self, on: bool) {
        for engine in [&mut self.engine, &mut self.by_stories] {
            if on {
                engine.set_snapshot(true);
            } else {
                engine.snapshot_done();
            }
        }
    }

    fn due(&mut self, now: u64) {
        self.engine.finish_due(now, &Epoch, &mut self.records);
        self.engine.offer_resets(&self.kept, &mut Nobody);
        self.engine.counted(now);
        self.engine.answered(&Epoch, &mut self.records);
        self.engine.finish_due(now, &Epoch, &mut self.records);
        self.by_stories.finish_due(now, &Epoch, &mut self.told);
        for story in self.keeper.open() {
            self.taken += self.by_stories.offer(story, &mut Nobody);
        }
        self.by_stories.offer_resets(&self.kept, &mut Nobody);
        self.by_stories.counted(now);
        self.by_stories.answered(&Epoch, &mut self.told);
        self.by_stories.finish_due(now, &Epoch, &mut self.told);
    }

    fn plain(&mut self, base: Base) {
        self.feed(Event {
            base: &base,
            actor: None,
            stats: None,
        });
    }

    fn acted(&mut self, base: Base, tgid: u32) {
        let exit = self.exit;
        let acted = Acted {
            base,
            actor: Actor {
                exit,
                ..actor(tgid)
            },
        };
        self.feed(Event {
            base: &acted.base,
            actor: Some(&acted.actor),
            stats: None,
        });
    }

    fn full(&mut self, base: Base, tgid: u32, mut stats: Stats) {
        let exit = self.exit;
        if base.sk == CLIENT {
            stats.snd_una += self.hidden.unwrap_or(0);
        }
        let full = Full {
            base,
            actor: Actor {
                exit,
                ..actor(tgid)
            },
            stats,
        };
        self.feed(Event {
            base: &full.base,
            actor: Some(&full.actor),
            stats: Some(&full.stats),
        });
    }

    fn state(&mut self, sk: u64, old: State, new: State, tgid: u32) {
        let base = self.base(sk, kind::STATE, old as u8, new as u8);
        self.acted(base, tgid);
    }

    /// Its process closes it, as it comes to its end like this.
    fn closes_as_it_exits(&mut self, sk: u64, exit: u8) {
        let owner = if sk == CLIENT { CLIENT_PID } else { SERVER_PID };
        self.exit = exit;
        self.state(sk, State::Established, State::FinWait1, owner);
        self.exit = exit::NONE;
    }

    fn step(&mut self, sk: u64, old: State, new: State) {
        let base = self.base(sk, kind::STATE, old as u8, new as u8);
        self.plain(base);
    }

    fn close(&mut self, sk: u64, old: State, tgid: u32, stats: Stats) {
        let base = self.base(sk, kind::STATE, old as u8, State::Close as u8);
        self.full(base, tgid, stats);
    }

    fn reset_received(&mut self, sk: u64, state: State, stats: Stats) {
        let base = self.base(sk, kind::RESET_RECEIVED, state as u8, NO_REASON);
        self.full(base, 0, stats);
    }

    /// The packet of a reset, which came by way of a router or from this link.
    fn reset_packet(&mut self, base: Base, ttl: u8, handshake_ttl: Option<u8>) {
        let way = |ttl| Way {
            id: 0,
            ttl,
            family: IPV4,
        };
        let packet = Packet {
            base,
            reset: way(ttl),
            handshake: handshake_ttl.map(way).unwrap_or_default(),
            ahead: 0,
            has_ahead: 1,
        };
        self.engine.packet(&packet, &Epoch, &mut self.records);
        if let Some(story) = self.keeper.interrupt(base.sk) {
            self.taken += self.by_stories.story(&story, &mut Nobody);
        }
        self.by_stories.packet(&packet, &Epoch, &mut self.told);
        self.taken += 1;
    }

    /// A stack answers a packet with these numbers by a reset.
    fn answer(&mut self, base: Base, seq: u32, ack: u32) {
        let answer = Answer { base, seq, ack };
        self.engine.answer(&answer, &Epoch, &mut self.records);
        self.by_stories.answer(&answer, &Epoch, &mut self.told);
        self.taken += 1;
    }

    fn reset_sent(&mut self, sk: u64, kind: u8, state: State, tgid: u32, stats: Stats) {
        let base = self.base(sk, kind, state as u8, NO_REASON);
        self.full(base, tgid, stats);
    }

    fn destroy(&mut self, sk: u64, tgid: u32) {
        let base = self.base(sk, kind::DESTROY, State::Close as u8, 0);
        self.acted(base, tgid);
    }

    /// `connect()`: the local port is not known yet.
    fn connect(&mut self) {
        let base = self.base(
            CLIENT,
            kind::STATE,
            State::Close as u8,
            State::SynSent as u8,
        );
        self.acted(
            Base {
                local_port: 0,
                ..base
            },
            CLIENT_PID,
        );
    }

    fn handshake(&mut self) {
        self.connect();
        self.step(CLIENT, State::SynSent, State::Established);
        self.step(SERVER, State::SynRecv, State::Established);
    }

    /// The client receives a reset that no stack here sent, before any payload.
    fn reset_by_nobody(&mut self) {
        let stats = mirrored(&counted(0, 0));
        self.reset_received(CLIENT, State::Established, stats);
        self.close(CLIENT, State::Established, HELPER_PID, failed(104, stats));
    }

    /// The open connections are offered to what is told by stories.
    fn offer_open(&mut self) {
        for story in self.keeper.open() {
            let _new = self.by_stories.offer(story, &mut Nobody);
        }
        self.by_stories.counted(self.now + HOLD_NS);
        self.by_stories.answered(&Epoch, &mut self.told);
    }

    fn accept(&mut self) {
        let base = self.base(SERVER, kind::ACCEPT, State::Established as u8, 0);
        self.acted(base, SERVER_PID);
    }

    /// The client's SYN is answered by a reset.
    fn refused(&mut self) {
        let stats = Stats {
            present: u32::MAX,
            segs_out: 1,
            ..Stats::default()
        };
        let held = Stats {
            has_socket: 1,
            ..stats
        };
        self.reset_received(CLIENT, State::SynSent, held);
        self.close(CLIENT, State::SynSent, CLIENT_PID, failed(111, stats));
    }

    /// The server aborts: its own end first, then the client's, then the report of the reset.
    fn server_aborts(&mut self, stats: Stats) {
        self.server_aborts_in([State::Established; 2], stats);
    }

    /// The same, with its end and the client's in these states.
    fn server_aborts_in(&mut self, [server, client]: [State; 2], stats: Stats) {
        self.close(
            SERVER,
            server,
            SERVER_PID,
            Stats {
                has_socket: 1,
                ..stats
            },
        );
        self.reset_received(CLIENT, client, mirrored(&stats));
        self.close(CLIENT, client, SERVER_PID, failed(104, mirrored(&stats)));
        self.reset_sent(
            SERVER,
            kind::RESET_SENT_ACTIVE,
            State::Close,
            SERVER_PID,
            stats,
        );
    }

    /// The server aborts, and its reset has yet to arrive.
    fn server_sends_reset(&mut self, stats: Stats) {
        let open = Stats {
            has_socket: 1,
            ..stats
        };
        self.close(SERVER, State::Established, SERVER_PID, open);
        let active = kind::RESET_SENT_ACTIVE;
        self.reset_sent(SERVER, active, State::Close, SERVER_PID, stats);
    }

    /// What is printed in the end, the same by both ways.
    fn finish(&mut self) -> Vec<Seen> {
        self.due(self.now + HOLD_NS);
        self.due(u64::MAX);
        let sorted = |records: &Records| {
            // The order in which they began is not known to the second one.
            let unnumbered = |seen: &Seen| Seen {
                serial: 0,
                ..seen.clone()
            };
            let mut all: Vec<_> = records.connections.iter().map(unnumbered).collect();
            all.sort_by_key(|seen| format!("{seen:?}"));
            all
        };
        assert_eq!(sorted(&self.told), sorted(&self.records));
        assert_eq!(self.told.strays.len(), self.records.strays.len());
        self.told.connections.clear();
        let mut seen = std::mem::take(&mut self.records.connections);
        seen.sort_by_key(|seen| seen.serial);
        seen
    }
}

fn of_client(seen: &[Seen]) -> &Seen {
    let mut seen = seen.iter();
    seen.find(|seen| seen.role == Role::Client).unwrap()
}

/// A reason that the kernel did not give.
fn concluded(reason: &str) -> (Option<String>, ReasonSource) {
    (Some(reason.to_owned()), ReasonSource::Derived)
}

fn actor(tgid: u32) -> Actor {
    Actor {
        tgid,
        start: u64::from(tgid),
        uid: NO_UID,
        wanted: u32::from(tgid == CLIENT_PID),
        comm: if tgid == TRACER_PID { TRACER } else { [0; 2] },
        kthread: u16::from(tgid == KWORKER_PID),
        ..Actor::default()
    }
}

/// A server's counters after `received` and `sent` bytes of payload.
fn counted(received: u64, sent: u64) -> Stats {
    Stats {
        present: u32::MAX,
        bytes_received: received,
        bytes_sent: sent,
        bytes_acked: sent,
        segs_out: 1,
        last_sent: u32::from(sent > 0),
        ..Stats::default()
    }
}

/// The same as the client has them: its SYN counts.
fn mirrored(stats: &Stats) -> Stats {
    let mirrored = counted(stats.bytes_sent, stats.bytes_received);
    Stats {
        bytes_acked: mirrored.bytes_acked + 1,
        has_socket: 1,
        snd_una: stats.rcv_nxt,
        rcv_nxt: stats.snd_una,
        ..mirrored
    }
}

fn failed(err: u32, stats: Stats) -> Stats {
    Stats {
        err,
        has_socket: 1,
        ..stats
    }
}

#[test]
fn the_end_of_a_process_is_evidence_at_both_ends() {
    let evidence = |play: &mut Play| {
        let [client, server] = play.finish().try_into().unwrap();
        assert_eq!(client.evidence, server.evidence);
        client.evidence
    };
    let killed = |signal| {
        Some(record::Evidence {
            exit: Some(record::Exit { signal }),
            ..record::Evidence::default()
        })
    };
    for (signal, name) in [(9, Some("SIGKILL")), (0, None)] {
        let mut play = Play::new();
        play.handshake();
        play.exit = exit::ENDS + signal;
        play.server_aborts(counted(64, 0));
        assert_eq!(evidence(&mut play), killed(name), "by a reset");

        let mut play = Play::new();
        play.handshake();
        play.closes_as_it_exits(SERVER, exit::ENDS + signal);
        play.step(CLIENT, State::Established, State::CloseWait);
        play.state(CLIENT, State::CloseWait, State::LastAck, CLIENT_PID);
        play.step(SERVER, State::FinWait1, State::FinWait2);
        let stats = counted(64, 0);
        play.close(SERVER, State::FinWait2, 0, stats);
        let stats = Stats {
            has_socket: 0,
            ..mirrored(&stats)
        };
        play.close(CLIENT, State::LastAck, 0, stats);
        assert_eq!(evidence(&mut play), killed(name), "in order");
    }
}

/// More may have been asked than is seen.
#[test]
fn that_a_process_was_killed_is_evidence_where_all_went_well() {
    for (signal, name) in [(9, Some("SIGKILL")), (0, None)] {
        let mut play = Play::new();
        play.handshake();
        play.accept();
        play.closes_as_it_exits(SERVER, exit::ENDS + signal);
        play.step(CLIENT, State::Established, State::CloseWait);
        play.state(CLIENT, State::CloseWait, State::LastAck, CLIENT_PID);
        play.step(SERVER, State::FinWait1, State::FinWait2);
        let stats = Stats {
            last_sent: 0,
            last_received: 1,
            ..counted(64, 64)
        };
        play.close(SERVER, State::FinWait2, 0, stats);
        play.close(CLIENT, State::LastAck, 0, mirrored(&stats));
        for seen in play.finish() {
            assert_eq!(seen.verdict, Verdict::Ok);
            let exit = seen.evidence.and_then(|evidence| evidence.exit);
            assert_eq!(exit.and_then(|exit| exit.signal), name, "{:?}", seen.role);
        }
    }
}

/// The client is gone, and the server answers its FIN by an abort.
#[test]
fn who_was_killed_first_is_evidence_where_the_other_end_resets() {
    for (signal, name) in [(9, Some("SIGKILL")), (0, None)] {
        let mut play = Play::new();
        play.handshake();
        play.accept();
        play.closes_as_it_exits(CLIENT, exit::ENDS + signal);
        play.step(SERVER, State::Established, State::CloseWait);
        play.server_aborts_in(
            [State::CloseWait, State::FinWait1],
            Stats {
                aborts: 1,
                ..counted(64, 64)
            },
        );
        for seen in play.finish() {
            let evidence = seen.evidence.unwrap();
            assert_eq!(evidence.exit.and_then(|exit| exit.signal), name);
            assert_eq!(evidence.abort, Some(true), "by the other end, on purpose");
        }
    }
}

/// Their addresses have not been met before, and the client closes long after the server's record.
#[test]
fn a_client_in_another_namespace_learns_late_that_its_first_server_was_killed() {
    for (exit, peer) in [(exit::ENDS + 9, Some(SERVER_PID)), (exit::NONE, None)] {
        let mut play = Play::new();
        play.apart = true;
        play.handshake();
        play.accept();
        play.closes_as_it_exits(SERVER, exit);
        play.step(CLIENT, State::Established, State::CloseWait);
        play.step(SERVER, State::FinWait1, State::FinWait2);
        let stats = counted(0, 64);
        play.close(SERVER, State::FinWait2, 0, stats);
        play.due(play.now + HOLD_NS);
        play.now += 10 * HOLD_NS;
        play.state(CLIENT, State::CloseWait, State::LastAck, CLIENT_PID);
        play.close(CLIENT, State::LastAck, 0, mirrored(&stats));
        play.due(play.now + HOLD_NS);
        let [_, client] = play.told.connections.as_slice() else {
            panic!("{:?}", play.told.connections);
        };
        assert_eq!(client.role, Role::Client);
        assert_eq!(client.peer, peer);
        let exit = client.evidence.and_then(|evidence| evidence.exit);
        assert_eq!(exit.is_some(), peer.is_some());
    }
}

/// Nothing answers its FIN.
#[test]
fn that_a_process_was_killed_is_evidence_where_its_last_words_are_lost() {
    let mut play = Play::new();
    play.handshake();
    play.accept();
    play.closes_as_it_exits(SERVER, exit::ENDS + 9);
    let lost = Stats {
        err: 110,
        has_socket: 0,
        ..counted(64, 64)
    };
    play.close(SERVER, State::FinWait1, 0, lost);
    let server = &play.finish()[0];
    assert_eq!(server.verdict, Verdict::Timeout);
    let exit = server.evidence.and_then(|evidence| evidence.exit);
    assert_eq!(exit.and_then(|exit| exit.signal), Some("SIGKILL"));
}

/// The server's host does not know the client's connection any more (NAT), but the server still has its own.
#[test]
fn who_is_killed_when_the_other_end_is_over_is_not_why() {
    for kills_first in [true, false] {
        let mut play = Play::new();
        play.handshake();
        play.accept();
        let kill = |play: &mut Play| play.closes_as_it_exits(SERVER, exit::ENDS + 9);
        if kills_first {
            kill(&mut play);
        }
        play.now += 1_000_000;
        let base = play.base(SERVER, kind::RESET_SENT_NO_SOCKET, 0, NO_REASON);
        play.plain(base);
        let stats = counted(64, 64);
        play.reset_received(CLIENT, State::Established, stats);
        play.close(CLIENT, State::Established, 0, Stats { err: 104, ..stats });
        play.now += 1_000_000;
        if !kills_first {
            kill(&mut play);
        }
        play.close(SERVER, State::FinWait1, 0, mirrored(&stats));
        let client = play
            .finish()
            .into_iter()
            .find(|seen| seen.role == Role::Client);
        let evidence = client.unwrap().evidence;
        let exit = evidence.and_then(|evidence| evidence.exit);
        assert_eq!(exit.is_some(), kills_first);
    }
}

#[test]
fn an_abort_on_purpose_is_evidence_at_both_ends() {
    for aborts in [0, 1] {
        let mut play = Play::new();
        play.handshake();
        play.server_aborts(Stats {
            aborts,
            ..counted(64, 0)
        });
        let [client, server] = play.finish().try_into().unwrap();
        let abort = client.evidence.and_then(|evidence| evidence.abort);
        assert_eq!(abort, (aborts == 1).then_some(true));
        assert_eq!(client.evidence, server.evidence);
    }
}

#[test]
fn payload_and_fin_are_held_against_each_other_by_the_kernels_clock() {
    let verdict_of_payload_sent_at = |jiffies: u32| {
        let mut play = Play::new();
        play.handshake();
        play.step(CLIENT, State::Established, State::CloseWait);
        // The clock of the events goes on where a machine's jiffies stand still.
        play.now += 100_000_000;
        play.state(CLIENT, State::CloseWait, State::LastAck, CLIENT_PID);
        let stats = Stats {
            last_sent: jiffies,
            jiffies: play.jiffies.max(jiffies),
            ..counted(64, 64)
        };
        play.close(CLIENT, State::LastAck, CLIENT_PID, stats);
        let records = play.finish();
        records.first().map(|record| record.verdict)
    };
    assert_eq!(
        verdict_of_payload_sent_at(2),
        Some(Verdict::ClosedBeforeResponse),
        "it may have crossed the FIN"
    );
    assert_eq!(verdict_of_payload_sent_at(3), Some(Verdict::Ok));
}

#[test]
fn a_reset_that_is_reported_after_it_arrived_is_the_peers() {
    let mut play = Play::new();
    play.handshake();
    play.server_aborts(counted(64, 0));
    let [client, server] = play.finish().try_into().unwrap();
    assert_eq!(client.verdict, Verdict::ResetBeforeResponse);
    assert_eq!(
        client.reset,
        Some((Direction::Received, Origin::PeerOnNode, Some(SERVER_PID)))
    );
    assert_eq!(client.owner, Some((CLIENT_PID, Attribution::Exact)));
    assert_eq!(client.peer, Some(SERVER_PID));
    assert_eq!(client.local_port, EPHEMERAL);
    assert_eq!(
        client.steps,
        [
            StepKind::Connect,
            StepKind::State,
            StepKind::ResetReceived,
            StepKind::Error,
            StepKind::State
        ]
    );
    assert_eq!(
        server.reset,
        Some((Direction::Sent, Origin::Local, Some(SERVER_PID)))
    );
    assert_eq!((server.role, server.peer), (Role::Server, Some(CLIENT_PID)));
    assert!(client.complete && server.complete);
    assert_eq!((client.events, server.events), (4, 3));
}

#[test]
fn the_current_task_of_a_received_reset_is_never_blamed() {
    let mut play = Play::new();
    play.handshake();
    play.reset_received(CLIENT, State::Established, mirrored(&counted(0, 0)));
    // On loopback `current` is whoever sent the packet.
    play.close(
        CLIENT,
        State::Established,
        HELPER_PID,
        failed(104, mirrored(&counted(0, 0))),
    );
    let seen = play.finish();
    assert_eq!(seen[0].owner, Some((CLIENT_PID, Attribution::Exact)));
    assert_eq!(
        seen[0].reset,
        Some((Direction::Received, Origin::InPath, None))
    );
    assert_eq!(seen[0].verdict, Verdict::ResetBeforePayload);
}

/// A reset that was sent from another address and translated on its way looks like one that nobody sent.
#[test]
fn an_end_whose_other_is_not_known_accuses_nobody() {
    let mut play = Play::new();
    play.connect();
    play.step(CLIENT, State::SynSent, State::Established);
    play.reset_by_nobody();
    assert_eq!(
        play.finish()[0].reset,
        Some((Direction::Received, Origin::Unknown, None))
    );
}

/// The kernel tells of it when it has been delivered, which may take longer than the other end is held.
#[test]
fn where_the_other_end_was_aborted_no_middlebox_is_accused() {
    let mut play = Play::new();
    play.handshake();
    let stats = counted(64, 0);
    let aborts = Stats {
        has_socket: 1,
        ..stats
    };
    play.close(SERVER, State::Established, SERVER_PID, aborts);
    play.reset_received(CLIENT, State::Established, mirrored(&stats));
    let told = failed(104, mirrored(&stats));
    play.close(CLIENT, State::Established, CLIENT_PID, told);
    let seen = play.finish();
    let client = of_client(&seen);
    let reset = client.reset.unwrap();
    assert_eq!(reset, (Direction::Received, Origin::Unknown, None));
}

/// It was lost on its way: what came later is another's.
#[test]
fn a_reset_that_must_have_arrived_long_ago_is_not_the_one_that_came() {
    for (later, origin) in [
        (900_000_000, Origin::PeerOnNode),
        (3_000_000_000, Origin::Unknown),
    ] {
        let mut play = Play::new();
        play.handshake();
        let stats = counted(64, 64);
        play.server_sends_reset(stats);
        play.now += later;
        play.reset_received(CLIENT, State::Established, mirrored(&stats));
        let told = failed(104, mirrored(&stats));
        play.close(CLIENT, State::Established, CLIENT_PID, told);
        let seen = play.finish();
        let client = of_client(&seen);
        assert_eq!(client.reset.map(|reset| reset.1), Some(origin), "{later}");
    }
}

/// The other end's host answers later that it knows no such connection, and this answer came first.
#[test]
fn a_reset_that_another_one_overtook_was_lost() {
    let sender_where = |srtt: u32, later: u64| {
        let mut play = Play::new();
        play.handshake();
        let stats = Stats {
            srtt,
            ..counted(64, 64)
        };
        play.server_sends_reset(stats);
        play.now += later;
        let base = play.base(SERVER, kind::RESET_SENT_NO_SOCKET, 0, NO_REASON);
        play.plain(base);
        let stats = Stats {
            srtt,
            ..mirrored(&stats)
        };
        play.reset_received(CLIENT, State::Established, stats);
        play.close(CLIENT, State::Established, CLIENT_PID, failed(104, stats));
        let seen = play.finish();
        let (direction, origin, sender) = of_client(&seen).reset.unwrap();
        assert_eq!(
            (direction, origin),
            (Direction::Received, Origin::PeerOnNode)
        );
        sender
    };
    let rtt_10_ms = 80_000;
    // The answer to what had crossed it.
    assert_eq!(sender_where(rtt_10_ms, 55_000_000), Some(SERVER_PID));
    assert_eq!(sender_where(rtt_10_ms, 65_000_000), None);
    let unknown = 0;
    assert_eq!(sender_where(unknown, 65_000_000), Some(SERVER_PID));
}

#[test]
fn a_refusal_that_nobody_sent_is_a_firewalls_only_where_one_dropped_the_syn() {
    for (dropped, origin) in [(false, Origin::Unknown), (true, Origin::InPath)] {
        let mut play = Play::new();
        play.connect();
        if dropped {
            play.note(1, kind::SYN_DROPPED, (0, 12), [0; 5]);
        }
        play.refused();
        let reset = play.finish()[0].reset;
        assert_eq!(reset, Some((Direction::Received, origin, None)));
    }
}

/// A rule that copies packets to another place (a mirror) may have the copy dropped there, and the server has refused the SYN itself.
#[test]
fn of_a_syn_for_elsewhere_only_the_sockets_own_packet_is_certain_to_be_the_one() {
    for (is_own, confidence) in [(1, Confidence::Certain), (0, Confidence::Likely)] {
        let mut play = Play::new();
        play.apart = true;
        play.connect();
        play.note(2, kind::SYN_DROPPED, (0, 12), [is_own, 0, 0, 0, 0]);
        play.refused();
        let seen = &play.finish()[0];
        assert_eq!(
            (seen.reset, seen.confidence),
            (
                Some((Direction::Received, Origin::InPath, None)),
                Some(confidence)
            )
        );
    }
}

/// A client's end that was reset by nobody, `then` before it is printed.
fn reset_by_nobody(then: impl FnOnce(&mut Engine, u64)) -> Option<Origin> {
    let mut play = Play::new();
    play.handshake();
    play.now += 3_000_000_000;
    play.reset_by_nobody();
    let (engine, told, ended) = (&mut play.engine, &mut play.records, play.now);
    engine.finish_due(ended + HOLD_NS, &Epoch, told);
    assert!(told.connections.is_empty() && engine.seeks_count());
    then(engine, ended);
    engine.answered(&Epoch, told);
    Some(told.connections[0].reset?.1)
}

/// A reset that the other end sent may have been what the kernel kept from its hook.
#[test]
fn a_middlebox_is_accused_only_when_the_kernel_has_told_what_it_skipped() {
    let counted = |engine: &mut Engine, ended| engine.counted(ended + 1);
    assert_eq!(reset_by_nobody(counted), Some(Origin::InPath));
    assert_eq!(reset_by_nobody(|_, _| ()), Some(Origin::Unknown));
    let before = |engine: &mut Engine, ended| engine.counted(ended - 1);
    assert_eq!(reset_by_nobody(before), Some(Origin::Unknown));
    for (ago, origin) in [
        (-1, Origin::Unknown),
        (900_000_000, Origin::Unknown),
        (1_100_000_000, Origin::InPath),
        (4_000_000_000, Origin::InPath),
    ] {
        let skipped = |engine: &mut Engine, ended: u64| {
            engine.counted(ended + 1);
            engine.skipped(ended.saturating_sub_signed(ago));
        };
        assert_eq!(reset_by_nobody(skipped), Some(origin), "{ago}");
    }
}

/// Its other end's story is still in the kernel, and is read only now and then.
#[test]
fn a_reset_that_nobody_sent_waits_for_the_other_end() {
    let mut play = Play::new();
    play.handshake();
    play.reset_by_nobody();
    let (join, told) = (&mut play.by_stories, &mut play.told);
    for later in [HOLD_NS, 100_000_000, 10_000_000_000] {
        join.finish_due(play.now + later, &Epoch, told);
        assert!(told.connections.is_empty() && join.is_asking());
    }
    play.offer_open();
    assert_eq!(
        play.told.connections[0].reset,
        Some((Direction::Received, Origin::InPath, None))
    );
}

/// It is in a namespace that no connection has told of, so its address is not known as one of this node's.
#[test]
fn an_end_at_an_address_not_met_yet_is_looked_for() {
    for (is_here, origin) in [(true, Origin::InPath), (false, Origin::OffNode)] {
        let mut play = Play::new();
        play.apart = true;
        // In vain once, no more after that.
        for (is_here, asks) in [(is_here, true), (false, is_here)] {
            play.connect();
            play.step(CLIENT, State::SynSent, State::Established);
            if is_here {
                play.step(SERVER, State::SynRecv, State::Established);
            }
            play.reset_by_nobody();
            let (join, due) = (&mut play.by_stories, play.now + HOLD_NS);
            join.finish_due(due, &Epoch, &mut play.told);
            assert_eq!(join.seeks_ends(), asks);
            play.offer_open();
        }
        let first = &play.told.connections[0];
        assert_eq!(first.reset, Some((Direction::Received, origin, None)));
    }
}

#[test]
fn data_after_a_shutdown_is_a_sent_reset() {
    let mut play = Play::new();
    play.handshake();
    play.state(SERVER, State::Established, State::FinWait1, SERVER_PID);
    play.step(CLIENT, State::Established, State::CloseWait);
    play.step(SERVER, State::FinWait1, State::FinWait2);
    play.reset_received(SERVER, State::FinWait2, counted(0, 0));
    play.close(
        SERVER,
        State::FinWait2,
        CLIENT_PID,
        failed(104, counted(0, 0)),
    );
    play.reset_sent(
        SERVER,
        kind::RESET_SENT_REPLY,
        State::Close,
        0,
        counted(0, 0),
    );
    play.reset_received(CLIENT, State::CloseWait, mirrored(&counted(0, 0)));
    play.close(
        CLIENT,
        State::CloseWait,
        CLIENT_PID,
        failed(32, mirrored(&counted(0, 0))),
    );
    let [client, server] = play.finish().try_into().unwrap();
    assert_eq!(
        server.reset,
        Some((Direction::Sent, Origin::Local, Some(SERVER_PID)))
    );
    assert!(!server.steps.contains(&StepKind::ResetReceived));
    assert_eq!(
        client.reset,
        Some((Direction::Received, Origin::PeerOnNode, Some(SERVER_PID)))
    );
    assert_eq!(server.why, Some(concluded("TCP_ABORT_ON_DATA")));
    assert_eq!(client.why, server.why);
}

#[test]
fn the_end_that_was_reset_gives_the_reason_of_the_one_that_did_it() {
    for (unread, reason) in [(0, "TCP_STATE"), (64, "TCP_ABORT_ON_CLOSE")] {
        let mut play = Play::new();
        play.handshake();
        play.accept();
        play.server_aborts(Stats {
            unread,
            ..counted(64, 0)
        });
        let [client, server] = play.finish().try_into().unwrap();
        assert_eq!(server.why, Some(concluded(reason)));
        assert_eq!(client.why, server.why);
    }
}

#[test]
fn a_reset_from_time_wait_has_the_sender_that_closed() {
    let mut play = Play::new();
    play.handshake();
    play.accept();
    play.state(SERVER, State::Established, State::FinWait1, SERVER_PID);
    play.step(CLIENT, State::Established, State::CloseWait);
    play.step(SERVER, State::FinWait1, State::FinWait2);
    play.close(SERVER, State::FinWait2, 0, counted(64, 64));
    let time_wait = State::TimeWait as u8;
    let base = play.base(0x7171, kind::RESET_SENT_TIME_WAIT, time_wait, NO_REASON);
    play.plain(base);
    let stats = mirrored(&counted(64, 64));
    play.reset_received(CLIENT, State::CloseWait, stats);
    play.close(CLIENT, State::CloseWait, 0, failed(32, stats));
    let [client, _] = play.finish().try_into().unwrap();
    assert_eq!(
        client.reset,
        Some((Direction::Received, Origin::PeerOnNode, Some(SERVER_PID)))
    );
    assert_eq!(client.why, Some(concluded("TCP_TIMEWAIT_SOCKET")));
}

#[test]
fn a_reset_that_arrives_long_after_it_was_told_is_still_this_nodes() {
    let mut play = Play::new();
    play.connect();
    let base = play.base(0, kind::RESET_SENT_NO_SOCKET, 1 << 1, NO_REASON);
    play.plain(base);
    play.now += 70_000_000;
    play.due(play.now);
    assert_eq!(play.records.strays.len(), 1);
    play.refused();
    assert_eq!(
        play.finish()[0].reset,
        Some((Direction::Received, Origin::PeerOnNode, None))
    );
}

/// `NOT_SPECIFIED` is 2, `TCP_RESET` 45.
fn with_drop_reasons() -> Context {
    let mut sample = Sample::default();
    let values = [
        ("SKB_DROP_REASON_NOT_SPECIFIED", 2),
        ("SKB_DROP_REASON_TCP_OLD_SEQUENCE", 41),
        ("SKB_DROP_REASON_TCP_RESET", 45),
    ];
    sample.enumeration("skb_drop_reason", false, &values);
    let btf = Btf::parse(sample.finish()).unwrap();
    Context {
        drop_reasons: Reasons::of_drops(&btf),
        ..context()
    }
}

#[test]
fn a_reset_that_ended_no_connection_is_known_by_what_it_met() {
    let context = with_drop_reasons();
    let kind_of = |state, reason| {
        let base = Base {
            kind: kind::RESET_DROPPED,
            old: state,
            new: reason,
            ..Base::default()
        };
        stray::kind_of(&context, &base)
    };
    let (established, time_wait, listen) = (1, 6, 10);
    assert_eq!(kind_of(time_wait, 2), Some(StrayKind::InTimeWait));
    assert_eq!(kind_of(listen, 2), Some(StrayKind::HalfOpen));
    assert_eq!(kind_of(listen, 45), Some(StrayKind::AtListener));
    assert_eq!(kind_of(established, 45), Some(StrayKind::Unexpected));
    assert_eq!(kind_of(0, 41), Some(StrayKind::Unexpected));
    assert_eq!(kind_of(0, 45), Some(StrayKind::Ignored));
    for state in [0, established] {
        assert_eq!(kind_of(state, 2), None, "it may be a copy");
    }
}

#[test]
fn a_reset_that_ended_no_connection_is_told_once_and_is_nobodys_end() {
    let mut play = Play::with(with_drop_reasons(), 1024);
    play.connect();
    play.step(CLIENT, State::SynSent, State::Established);
    play.step(SERVER, State::SynRecv, State::Established);
    for _ in 0..2 {
        let base = play.base(SERVER, kind::RESET_DROPPED, State::Established as u8, 45);
        play.plain(Base { sk: 0, ..base });
    }
    let copy = play.base(CLIENT, kind::RESET_DROPPED, 0, 2);
    play.plain(Base { sk: 0, ..copy });
    play.server_aborts(counted(64, 0));
    let seen = play.finish();
    assert_eq!(play.records.strays, [(2, None, None)]);
    let senders: Vec<_> = seen.iter().map(|end| end.reset).collect();
    assert!(
        senders.contains(&Some((Direction::Sent, Origin::Local, Some(SERVER_PID)))),
        "{senders:?}"
    );
}

#[test]
fn what_a_clients_port_resets_is_the_clients_doing() {
    for (port, knows_listeners, hint) in [
        (PORT, true, StrayKind::FromTimeWait),
        (PORT + 1, true, StrayKind::FromTimeWait),
        (EPHEMERAL, true, StrayKind::FromClosedClient),
        (EPHEMERAL, false, StrayKind::FromTimeWait),
    ] {
        let context = Context {
            knows_listeners,
            ..context()
        };
        let mut play = Play::with(context, 1024);
        let base = play.base(0, kind::RESET_SENT_TIME_WAIT, 0, NO_REASON);
        play.plain(Base {
            local_port: port,
            ..base
        });
        play.due(u64::MAX);
        assert_eq!(play.records.hints, [playbook::stray(hint).hint]);
    }
}

#[test]
fn an_icmp_error_that_the_kernel_kept_for_the_owner_is_seen() {
    let mut play = Play::new();
    play.connect();
    play.note(1, kind::SYN_ICMP, (3, 13), [ELSEWHERE, 0, 0, 0, 0]);
    // The owner reads the soft error, which clears it, and closes.
    let stats = Stats {
        present: u32::MAX,
        has_socket: 1,
        segs_out: 1,
        ..Stats::default()
    };
    play.close(CLIENT, State::SynSent, CLIENT_PID, stats);
    let seen = play.finish();
    assert_eq!(
        (seen[0].verdict, seen[0].flag),
        (Verdict::Unreachable, None)
    );
    let icmp = seen[0].evidence.and_then(|evidence| evidence.icmp);
    let from = Some([192, 0, 2, 7].into());
    assert_eq!(
        icmp,
        Some(Icmp {
            kind: 3,
            code: 13,
            from
        })
    );
}

/// The owner gives up while its SYN is unanswered.
fn canceled(play: &mut Play) -> Seen {
    let stats = Stats {
        present: u32::MAX,
        has_socket: 1,
        segs_out: 1,
        ..Stats::default()
    };
    play.close(CLIENT, State::SynSent, CLIENT_PID, stats);
    let seen = play.finish().pop().unwrap();
    assert_eq!(seen.verdict, Verdict::ConnectCanceled);
    seen
}

#[test]
fn a_full_accept_queue_is_told_with_its_process() {
    let mut play = Play::new();
    play.connect();
    play.queue(LISTENER, [129, 128]);
    let seen = canceled(&mut play);
    assert_eq!(seen.peer, Some(SERVER_PID));
    let evidence = seen.evidence.unwrap();
    let queue = AcceptQueue {
        length: 129,
        limit: 128,
    };
    assert_eq!(evidence.accept_queue, Some(queue));
    let pid = evidence.descriptors.map(|descriptors| descriptors.pid);
    assert_eq!(pid, Some(SERVER_PID));

    // One that is bound to another address.
    let mut elsewhere = Play::new();
    elsewhere.connect();
    elsewhere.queue_at(ELSEWHERE, LISTENER, [129, 128]);
    let seen = canceled(&mut elsewhere);
    assert_eq!((seen.peer, seen.evidence), (None, None));

    // Where there is room, it may be somebody else who did not answer.
    let mut nearly = Play::new();
    nearly.connect();
    nearly.queue(LISTENER, [128, 128]);
    assert_eq!(canceled(&mut nearly).peer, None);

    // One that nobody waits in is not why, however many descriptors its process has.
    let mut empty = Play::new();
    empty.connect();
    empty.queue(LISTENER, [0, 128]);
    let seen = canceled(&mut empty);
    assert_eq!(seen.peer, None);
    assert_eq!(seen.evidence.unwrap().descriptors, None);

    // As where something else is known to have kept the answer.
    let mut dropped = Play::with(with_drop_reasons(), 1024);
    dropped.connect();
    dropped.queue(LISTENER, [129, 128]);
    dropped.note(1, kind::SYN_DROPPED, (0, 41), [0; 5]);
    assert_eq!(canceled(&mut dropped).peer, None);

    let mut unknown = Play::new();
    unknown.connect();
    unknown.queue(SERVER, [129, 128]);
    let seen = canceled(&mut unknown);
    assert_eq!(seen.peer, None);
    let evidence = seen.evidence.unwrap();
    assert_eq!(evidence.accept_queue, Some(queue));
    assert_eq!(evidence.descriptors, None);
}

#[test]
fn a_full_queue_is_not_why_a_connect_was_answered() {
    let mut play = Play::new();
    play.connect();
    play.queue(LISTENER, [129, 128]);
    play.refused();
    let refused = play.finish().pop().unwrap();
    assert_eq!(refused.verdict, Verdict::Refused);
    assert_eq!((refused.peer, refused.evidence), (None, None));
}

#[test]
fn a_full_queue_in_another_namespace_is_told_where_connections_came_to_it() {
    let cancel = |play: &mut Play| {
        play.connect();
        play.queue(LISTENER, [129, 128]);
        let seen = canceled(play);
        (seen.peer, seen.evidence)
    };
    let mut play = Play::new();
    play.apart = true;
    assert_eq!(cancel(&mut play), (None, None));

    play.handshake();
    play.server_aborts(counted(64, 0));
    let [_, _] = play.finish().try_into().unwrap();
    let [(_, there)] = play.engine.take_routes().try_into().unwrap();
    assert_eq!(there, Some(1));
    let (peer, evidence) = cancel(&mut play);
    assert_eq!(peer, Some(SERVER_PID));
    assert!(evidence.unwrap().accept_queue.is_some());

    // Another listener, which took none of them.
    play.state(LISTENER, State::Listen, State::Close, SERVER_PID);
    play.state(LISTENER, State::Close, State::Listen, SERVER_PID);
    assert_eq!(cancel(&mut play), (None, None));
}

#[test]
fn a_note_is_of_the_connection_that_lived_then_and_there() {
    let mut play = Play::new();
    // Of one before with the same ends, and of one on another loopback.
    play.queue(LISTENER, [129, 128]);
    play.connect();
    play.note(2, kind::SYN_DROPPED, (0, 12), [0; 5]);
    let seen = canceled(&mut play);
    assert_eq!((seen.peer, seen.evidence), (None, None));
}

#[test]
fn what_met_the_syn_of_an_established_connection_is_not_why_it_failed() {
    let mut play = Play::new();
    play.connect();
    play.note(1, kind::SYN_ICMP, (3, 1), [ELSEWHERE, 0, 0, 0, 0]);
    play.step(CLIENT, State::SynSent, State::Established);
    play.step(SERVER, State::SynRecv, State::Established);
    play.server_aborts(counted(64, 0));
    let seen = play.finish();
    assert!(seen.iter().all(|seen| seen.evidence.is_none()), "{seen:?}");
}

#[test]
fn a_syn_that_was_sent_again_unseen_is_counted_once() {
    let timed_out = Stats {
        present: u32::MAX,
        has_socket: 1,
        segs_out: 3,
        total_retrans: 2,
        err: 110,
        ..Stats::default()
    };
    let play = |sent_again: u32| {
        let mut play = Play::new();
        play.connect();
        for _ in 0..sent_again {
            let syn_sent = State::SynSent as u8;
            let base = play.base(CLIENT, kind::SYN_RETRANSMIT, syn_sent, syn_sent);
            play.plain(base);
        }
        play.close(CLIENT, State::SynSent, CLIENT_PID, timed_out);
        let complete = play.finish()[0].complete;
        assert_eq!(play.engine.unseen(), play.by_stories.unseen());
        (play.engine.unseen(), complete)
    };
    assert_eq!(play(2), (0, true));
    assert_eq!(play(1), (1, false));
    assert_eq!(play(0), (1, false));
}

#[test]
fn a_refused_connect_finds_the_reset_sent_before_its_port_was_known() {
    let mut play = Play::new();
    play.connect();
    let syn = 1 << 1;
    let base = play.base(0, kind::RESET_SENT_NO_SOCKET, syn, NO_REASON);
    play.plain(base);
    let mut again = base;
    again.ktime += 10;
    play.plain(again);
    play.refused();
    let seen = play.finish();
    assert_eq!(
        (seen[0].verdict, seen[0].flag),
        (Verdict::Refused, Some(Flag::ResetBeforePayload))
    );
    assert_eq!(
        seen[0].reset,
        Some((Direction::Received, Origin::PeerOnNode, None))
    );
    assert_eq!(seen[0].why, Some(concluded("NO_SOCKET")));
    assert_eq!(
        play.records.strays,
        [(2, Some(seen[0].serial), Some(Flag::ResetBeforePayload))]
    );
}

#[test]
fn a_reset_sent_while_connecting_is_not_the_end() {
    let mut play = Play::new();
    play.connect();
    let syn_sent = Stats {
        present: u32::MAX,
        segs_out: 1,
        ..Stats::default()
    };
    // The SYN met a TIME_WAIT of the same addresses, whose answer is reset; the next SYN is refused.
    play.reset_sent(CLIENT, kind::RESET_SENT_REPLY, State::SynSent, 0, syn_sent);
    play.reset_received(CLIENT, State::SynSent, syn_sent);
    play.close(CLIENT, State::SynSent, CLIENT_PID, failed(111, syn_sent));
    let seen = play.finish();
    assert_eq!(seen[0].verdict, Verdict::Refused);
    assert_eq!(
        seen[0].reset.map(|(direction, ..)| direction),
        Some(Direction::Received)
    );
    assert!(seen[0].steps.contains(&StepKind::ResetSent));
}

#[test]
fn a_second_connect_of_the_same_socket_is_a_second_connection() {
    let mut play = Play::new();
    play.connect();
    play.reset_received(CLIENT, State::SynSent, Stats::default());
    play.close(
        CLIENT,
        State::SynSent,
        CLIENT_PID,
        failed(
            111,
            Stats {
                present: u32::MAX,
                segs_out: 1,
                ..Stats::default()
            },
        ),
    );
    play.handshake();
    play.state(CLIENT, State::Established, State::FinWait1, CLIENT_PID);
    play.step(CLIENT, State::FinWait1, State::FinWait2);
    play.close(CLIENT, State::FinWait2, 0, mirrored(&counted(64, 64)));
    let seen = play.finish();
    assert_eq!(
        (seen[0].verdict, seen[1].verdict),
        (Verdict::Refused, Verdict::Ok)
    );
    assert!(seen[0].complete && seen[1].complete);
}

#[test]
fn a_reused_address_is_another_connection() {
    let mut play = Play::new();
    play.handshake();
    play.server_aborts(counted(0, 0));
    play.destroy(SERVER, SERVER_PID);
    play.destroy(CLIENT, CLIENT_PID);
    play.handshake();
    play.server_aborts(counted(64, 0));
    let verdicts: Vec<_> = play
        .finish()
        .iter()
        .map(|seen| (seen.verdict, seen.complete))
        .collect();
    let [before, after] = [Verdict::ResetBeforePayload, Verdict::ResetBeforeResponse];
    assert_eq!(
        verdicts,
        [(before, true), (before, true), (after, true), (after, true)]
    );
}

#[test]
fn an_end_that_was_lost_is_not_invented() {
    let mut play = Play::new();
    play.handshake();
    // Both ends and both closes are lost; the addresses are used again by another pair.
    play.handshake();
    assert_eq!(play.finish(), []);
}

#[test]
fn an_end_that_was_lost_is_counted_where_nothing_more_is_told_of_the_address() {
    let mut play = Play::new();
    play.handshake();
    // A port that is not wanted: the birth there tells of the story only.
    let story = play.keeper.interrupt(SERVER).unwrap();
    let story = Story { over: 1, ..story };
    play.by_stories.story(&story, &mut Nobody);
    assert_eq!(play.by_stories.unseen(), 1);
    let later = play.now + HOLD_NS;
    play.by_stories.finish_due(later, &Epoch, &mut play.told);
    play.by_stories.answered(&Epoch, &mut play.told);
    assert!(play.by_stories.table.is_empty());
    assert_eq!(play.told.connections, []);
}

#[test]
fn without_accept_the_owner_is_the_closer_then_the_listener() {
    let mut play = Play::new();
    play.handshake();
    play.state(SERVER, State::Established, State::FinWait1, HELPER_PID);
    play.step(SERVER, State::FinWait1, State::FinWait2);
    play.close(SERVER, State::FinWait2, 0, counted(64, 64));
    assert_eq!(
        play.finish()[0].owner,
        Some((HELPER_PID, Attribution::Closer))
    );

    let mut play = Play::new();
    play.handshake();
    play.accept();
    play.server_aborts(counted(0, 0));
    assert_eq!(
        play.finish()[1].owner,
        Some((SERVER_PID, Attribution::Exact))
    );
}

#[test]
fn the_closer_of_what_the_network_ended_is_its_owner() {
    let mut play = Play::new();
    play.handshake();
    let nothing = mirrored(&counted(0, 0));
    play.close(CLIENT, State::Established, CLIENT_PID, nothing);
    play.reset_received(
        SERVER,
        State::Established,
        Stats {
            has_socket: 1,
            ..counted(0, 0)
        },
    );
    play.close(
        SERVER,
        State::Established,
        CLIENT_PID,
        failed(104, counted(0, 0)),
    );
    assert!(play.engine.take_owner_missing(0));
    play.reset_sent(
        CLIENT,
        kind::RESET_SENT_ACTIVE,
        State::Close,
        CLIENT_PID,
        nothing,
    );
    play.destroy(SERVER, SERVER_PID);
    let [client, server] = play.finish().try_into().unwrap();
    assert_eq!(server.owner, Some((SERVER_PID, Attribution::Closer)));
    assert_eq!(
        (client.verdict, server.verdict),
        (Verdict::Probe, Verdict::Probe)
    );
}

/// A second after one began to listen, also where another had begun a moment before.
#[test]
fn who_listens_is_looked_up_once_they_have_settled() {
    const MS: u64 = 1_000_000;
    let mut play = Play::new();
    let first = play.engine.listened_at.unwrap().0;
    play.now = first + 950 * MS;
    play.state(LISTENER, State::Close, State::Listen, SERVER_PID);
    let last = play.engine.listened_at.unwrap().1;
    let looks = [
        first + 999 * MS,
        first + 1_000 * MS,
        last + 999 * MS,
        last + 1_000 * MS,
        last + 9_000 * MS,
    ]
    .map(|now| play.engine.take_owner_missing(now));
    assert_eq!(looks, [false, true, false, true, false]);
}

#[test]
fn nobody_accepted_and_the_listener_is_named() {
    let mut play = Play::new();
    play.handshake();
    play.state(LISTENER, State::Listen, State::Close, SERVER_PID);
    play.close(SERVER, State::Established, SERVER_PID, counted(0, 0));
    play.reset_sent(
        SERVER,
        kind::RESET_SENT_ACTIVE,
        State::Close,
        SERVER_PID,
        counted(0, 0),
    );
    play.destroy(SERVER, SERVER_PID);
    let seen = play.finish();
    assert_eq!(seen[0].verdict, Verdict::NeverAccepted);
    assert_eq!(seen[0].owner, Some((SERVER_PID, Attribution::Listener)));
    assert_eq!(
        seen[0].reset,
        Some((Direction::Sent, Origin::Local, Some(SERVER_PID)))
    );
}

#[test]
fn a_socket_below_one_of_mptcp_may_have_been_accepted() {
    let mut play = Play::new();
    play.state(LISTENER, State::Close, State::Listen, SERVER_PID);
    play.handshake();
    let (kind, stats) = (kind::RESET_SENT_ACTIVE, counted(64, 0));
    play.reset_sent(SERVER, kind, State::Established, SERVER_PID, stats);
    play.close(SERVER, State::Established, 0, stats);
    let seen = &play.finish()[0];
    assert_eq!(seen.verdict, Verdict::ResetBeforeResponse);
    assert_eq!(seen.owner, Some((SERVER_PID, Attribution::Listener)));
}

#[test]
fn whoever_only_let_go_of_it_last_is_neither_owner_nor_sender() {
    for bystander in [TRACER_PID, KWORKER_PID] {
        // In order.
        let mut play = Play::new();
        play.state(LISTENER, State::Close, State::Listen, SERVER_PID);
        play.handshake();
        play.state(SERVER, State::Established, State::FinWait1, bystander);
        play.step(SERVER, State::FinWait1, State::FinWait2);
        play.close(SERVER, State::FinWait2, 0, counted(64, 64));
        let listener = Some((SERVER_PID, Attribution::Listener));
        assert_eq!(play.finish()[0].owner, listener);

        // With data unread: accepted by somebody, or with its listener by nobody.
        for accepted in [true, false] {
            let mut play = Play::new();
            play.state(LISTENER, State::Close, State::Listen, SERVER_PID);
            play.handshake();
            let held = Stats {
                has_socket: u16::from(accepted),
                ..counted(64, 0)
            };
            if accepted {
                play.accept();
            } else {
                play.state(LISTENER, State::Listen, State::Close, bystander);
            }
            play.close(SERVER, State::Established, bystander, held);
            let (kind, state) = (kind::RESET_SENT_ACTIVE, State::Close);
            play.reset_sent(SERVER, kind, state, bystander, held);
            play.destroy(SERVER, bystander);
            let seen = &play.finish()[0];
            let by = if accepted {
                Attribution::Exact
            } else {
                Attribution::Listener
            };
            assert_eq!(seen.owner, Some((SERVER_PID, by)));
            let reset = (Direction::Sent, Origin::Local, Some(SERVER_PID));
            assert_eq!(seen.reset, Some(reset));
        }
    }
}

/// Accepted by somebody who was not seen to, perhaps not by whoever listened.
#[test]
fn of_what_a_bystander_let_go_of_last_no_listener_is_the_sender() {
    let mut play = Play::new();
    play.state(LISTENER, State::Close, State::Listen, SERVER_PID);
    play.handshake();
    let held = Stats {
        has_socket: 1,
        ..counted(64, 0)
    };
    play.close(SERVER, State::Established, KWORKER_PID, held);
    let (kind, state) = (kind::RESET_SENT_ACTIVE, State::Close);
    play.reset_sent(SERVER, kind, state, KWORKER_PID, held);
    play.destroy(SERVER, KWORKER_PID);
    let seen = &play.finish()[0];
    assert_eq!(seen.owner, Some((SERVER_PID, Attribution::Listener)));
    assert_eq!(seen.reset, Some((Direction::Sent, Origin::Local, None)));
}

#[test]
fn a_killer_is_the_sender_and_a_timer_is_nobody() {
    for (err, actor, sender, verdict) in [
        (
            103,
            HELPER_PID,
            Some(HELPER_PID),
            Verdict::ResetBeforePayload,
        ),
        (103, KWORKER_PID, None, Verdict::ResetBeforePayload),
        (110, HELPER_PID, None, Verdict::Timeout),
    ] {
        let mut play = Play::new();
        play.handshake();
        let stats = mirrored(&counted(0, 0));
        play.reset_sent(
            CLIENT,
            kind::RESET_SENT_ACTIVE,
            State::Established,
            actor,
            stats,
        );
        play.close(CLIENT, State::Established, actor, failed(err, stats));
        play.reset_received(SERVER, State::Established, counted(0, 0));
        play.close(SERVER, State::Established, 0, failed(104, counted(0, 0)));
        let seen = play.finish();
        assert_eq!(
            seen[0].reset,
            Some((Direction::Sent, Origin::Local, sender))
        );
        assert_eq!(seen[0].verdict, verdict);
        assert_eq!(
            seen[1].reset,
            Some((Direction::Received, Origin::PeerOnNode, sender))
        );
    }
}

#[test]
fn a_reset_from_elsewhere_is_off_node() {
    let mut play = Play::new();
    let abroad = |base: Base| Base {
        remote: [ELSEWHERE, 0],
        local: [LOOPBACK + 1, 0],
        ..base
    };
    let base = play.base(
        CLIENT,
        kind::STATE,
        State::Close as u8,
        State::SynSent as u8,
    );
    play.acted(abroad(base), CLIENT_PID);
    let base = play.base(
        CLIENT,
        kind::RESET_RECEIVED,
        State::SynSent as u8,
        NO_REASON,
    );
    play.full(abroad(base), 0, Stats::default());
    let base = play.base(
        CLIENT,
        kind::STATE,
        State::SynSent as u8,
        State::Close as u8,
    );
    play.full(
        abroad(base),
        0,
        failed(
            111,
            Stats {
                present: u32::MAX,
                segs_out: 1,
                ..Stats::default()
            },
        ),
    );
    assert_eq!(
        play.finish()[0].reset,
        Some((Direction::Received, Origin::OffNode, None))
    );
}

#[test]
fn two_ends_that_translation_hides_from_each_other_are_known_by_their_numbers() {
    let stats = Stats {
        snd_una: 7_000,
        rcv_nxt: u32::MAX - 200,
        ..counted(100, 0)
    };
    for (changed, known) in [(0, true), (1, false)] {
        let mut play = Play::new();
        play.hidden = Some(changed);
        play.handshake();
        play.accept();
        play.server_aborts(stats);
        let seen = play.finish();
        let peers = [seen[0].peer, seen[1].peer];
        if known {
            assert_eq!(peers, [Some(SERVER_PID), Some(CLIENT_PID)]);
            let by_server = Some((Direction::Received, Origin::PeerOnNode, Some(SERVER_PID)));
            assert_eq!(seen[0].reset, by_server);
            assert_eq!(seen[0].confidence, Some(Confidence::Certain));
            let at = |seen: &Seen| seen.evidence.and_then(|found| found.peer_address);
            let address = |last, port| {
                let address = Ipv4Addr::new(192, 0, 2, last).into();
                Some(Endpoint { address, port })
            };
            assert_eq!(at(&seen[0]), address(10, PORT));
            assert_eq!(at(&seen[1]), address(8, EPHEMERAL));
        } else {
            assert_eq!(peers, [None, None]);
            let by_nobody = Some((Direction::Received, Origin::OffNode, None));
            assert_eq!(seen[0].reset, by_nobody);
        }
    }
}

#[test]
fn who_sent_a_reset_from_a_port_that_was_not_asked_for_is_named() {
    let stats = Stats {
        snd_una: 7_000,
        rcv_nxt: 9_000,
        ..counted(100, 0)
    };
    let unread = Stats {
        unread: 1,
        has_socket: 1,
        ..stats
    };
    let mut ports = Ports::default();
    ports.insert(PORT, PORT);
    let by_ports = Wanted {
        ports: Some(ports),
        ..Wanted::default()
    };
    let known = Some((Origin::PeerOnNode, Some(SERVER_PID), "TCP_ABORT_ON_CLOSE"));
    for (wanted, ahead, found) in [
        (&by_ports, 0, known),
        (&by_ports, 2, None),
        (&Wanted::default(), 0, None),
    ] {
        let context = Context {
            wanted: wanted.clone(),
            ..context()
        };
        let mut play = Play::with(context, 1024);
        play.hidden = Some(ahead);
        play.connect();
        play.step(CLIENT, State::SynSent, State::Established);
        let base = play.base(
            SERVER,
            kind::RESET_SENT_ACTIVE,
            State::Close as u8,
            NO_REASON,
        );
        play.kept.push(Full {
            base,
            actor: actor(SERVER_PID),
            stats: unread,
        });
        play.reset_received(CLIENT, State::Established, mirrored(&stats));
        let failed = failed(104, mirrored(&stats));
        play.close(CLIENT, State::Established, SERVER_PID, failed);
        let seen = play.finish();
        let (origin, sender, reason) = found.map_or(
            (Origin::OffNode, None, (None, ReasonSource::Unknown)),
            |(origin, sender, reason)| (origin, sender, concluded(reason)),
        );
        assert_eq!(seen[0].reset, Some((Direction::Received, origin, sender)));
        assert_eq!(seen[0].why, Some(reason));
    }
}

#[test]
fn a_reset_from_time_wait_behind_a_translation_is_no_middlebox_s() {
    for (late, origin, sender) in [
        (false, Origin::PeerOnNode, Some(SERVER_PID)),
        (true, Origin::InPath, None),
    ] {
        let mut play = Play::new();
        play.hidden = Some(0);
        play.handshake();
        play.accept();
        play.state(SERVER, State::Established, State::FinWait1, SERVER_PID);
        play.step(CLIENT, State::Established, State::CloseWait);
        play.step(SERVER, State::FinWait1, State::FinWait2);
        let counted = Stats {
            snd_una: 700,
            rcv_nxt: 900,
            ..counted(64, 64)
        };
        play.close(SERVER, State::FinWait2, 0, counted);
        // Its next request, not acknowledged.
        let stats = Stats {
            unacked: 64,
            ..mirrored(&counted)
        };
        let answer = |play: &mut Play| {
            let time_wait = State::TimeWait as u8;
            let base = play.base(0x7171, kind::RESET_SENT_TIME_WAIT, time_wait, NO_REASON);
            play.answer(base, stats.snd_una, stats.rcv_nxt);
        };
        if !late {
            answer(&mut play);
        }
        play.reset_received(CLIENT, State::CloseWait, stats);
        play.close(CLIENT, State::CloseWait, 0, failed(32, stats));
        if late {
            answer(&mut play);
        }
        let [client, _] = play.finish().try_into().unwrap();
        assert_eq!(client.reset, Some((Direction::Received, origin, sender)));
    }
}

#[test]
fn a_refusal_that_was_asked_for_is_claimed_although_its_sender_is_looked_for() {
    let mut ports = Ports::default();
    ports.insert(PORT, PORT);
    let mut context = context();
    context.wanted.ports = Some(ports);
    for hidden in [None, Some(0)] {
        let mut play = Play::with(context.clone(), 1024);
        play.hidden = hidden;
        play.connect();
        let base = play.base(SERVER, kind::RESET_SENT_NO_SOCKET, 1 << 1, NO_REASON);
        play.answer(Base { sk: 0, ..base }, 0, 0);
        play.refused();
        let seen = play.finish();
        let by_node = Some((Direction::Received, Origin::PeerOnNode, None));
        assert_eq!(seen[0].reset, by_node);
        assert!(play.records.strays[0].1.is_some());
    }
}

#[test]
fn of_resets_that_were_not_asked_for_none_is_blamed_without_need() {
    let stats = Stats {
        unread: 1,
        has_socket: 1,
        ..counted(100, 0)
    };
    let ended = |kept: &dyn Fn(&mut Play) -> Vec<Full>| {
        let mut ports = Ports::default();
        ports.insert(PORT, PORT);
        let mut context = context();
        context.wanted.ports = Some(ports);
        let mut play = Play::with(context, 1024);
        play.hidden = Some(0);
        play.connect();
        play.step(CLIENT, State::SynSent, State::Established);
        play.reset_received(CLIENT, State::Established, mirrored(&stats));
        let failed = failed(104, mirrored(&stats));
        play.close(CLIENT, State::Established, 0, failed);
        play.kept = kept(&mut play);
        let seen = play.finish();
        let (_, origin, _) = seen[0].reset.unwrap();
        (origin, seen[0].why.clone().unwrap().0)
    };
    let kept = |play: &mut Play, kind, state: State, after: u64| {
        let mut base = play.base(SERVER, kind, state as u8, NO_REASON);
        base.ktime += after;
        let actor = actor(SERVER_PID);
        Full { base, actor, stats }
    };
    let (active, nobody) = (kind::RESET_SENT_ACTIVE, kind::RESET_SENT_NO_SOCKET);
    // Told late, because its process was interrupted, or because it is another.
    let told = |kind, state, after| ended(&|play| vec![kept(play, kind, state, after)]);
    let by_close = told(active, State::Close, 1000);
    let reason = Some("TCP_ABORT_ON_CLOSE".to_owned());
    assert_eq!(by_close, (Origin::PeerOnNode, reason));
    assert_eq!(told(active, State::Close, 20_000_000).0, Origin::OffNode);
    assert_eq!(told(nobody, State::Close, 0).0, Origin::OffNode);
    // A timer's: of which, nothing tells before its socket has the error.
    assert_eq!(
        told(active, State::Established, 0),
        (Origin::PeerOnNode, None)
    );
    // Where there were too many, the one may be gone.
    let crowd = |play: &mut Play| {
        let mut other = kept(play, active, State::Close, 0);
        other.stats.rcv_nxt += 1 << 20;
        vec![other; 200]
    };
    assert_eq!(ended(&crowd).0, Origin::Unknown);
}

#[test]
fn a_refusal_behind_a_translation_is_known_by_the_number_of_its_syn() {
    const ISN: u32 = u32::MAX;
    for (seq, known) in [(ISN, true), (ISN - 2, false)] {
        let mut play = Play::new();
        play.hidden = Some(0);
        play.connect();
        let base = play.base(SERVER, kind::RESET_SENT_NO_SOCKET, 1 << 1, NO_REASON);
        play.answer(Base { sk: 0, ..base }, seq, 0);
        let connecting = Stats {
            snd_una: ISN,
            unacked: 1,
            ..counted(0, 0)
        };
        play.reset_received(CLIENT, State::SynSent, failed(0, connecting));
        play.close(CLIENT, State::SynSent, CLIENT_PID, failed(111, connecting));
        let seen = play.finish();
        let (origin, confidence) = if known {
            (Origin::PeerOnNode, Some(Confidence::Certain))
        } else {
            (Origin::OffNode, None)
        };
        assert_eq!(seen[0].reset, Some((Direction::Received, origin, None)));
        assert_eq!(seen[0].confidence, confidence);
        let claimed = play.records.strays[0].1;
        assert_eq!(claimed.is_some(), known);
    }
}

/// One end's record of a connection with another machine that a reset ended before any payload.
fn reset_from_elsewhere(sk: u64, ttls: Option<(u8, Option<u8>)>) -> Seen {
    let mut play = Play::new();
    let abroad = |base: Base| Base {
        remote: [ELSEWHERE, 0],
        local: [LOOPBACK + 1, 0],
        ..base
    };
    let stats = if sk == CLIENT {
        let base = play.base(sk, kind::STATE, State::Close as u8, State::SynSent as u8);
        play.acted(abroad(base), CLIENT_PID);
        let old = State::SynSent as u8;
        let base = play.base(sk, kind::STATE, old, State::Established as u8);
        play.plain(abroad(base));
        mirrored(&counted(0, 0))
    } else {
        let old = State::SynRecv as u8;
        let base = play.base(sk, kind::STATE, old, State::Established as u8);
        play.plain(abroad(base));
        let base = play.base(sk, kind::ACCEPT, State::Established as u8, 0);
        play.acted(abroad(base), SERVER_PID);
        counted(0, 0)
    };
    let established = State::Established as u8;
    if let Some((ttl, handshake_ttl)) = ttls {
        let base = play.base(sk, kind::RESET_PACKET, established, 0);
        play.reset_packet(abroad(base), ttl, handshake_ttl);
    }
    let base = play.base(sk, kind::RESET_RECEIVED, established, NO_REASON);
    play.full(abroad(base), 0, stats);
    let base = play.base(sk, kind::STATE, established, State::Close as u8);
    play.full(abroad(base), 0, failed(104, stats));
    let (taken, seen) = (play.taken, play.finish());
    assert!(taken >= 3, "{taken}");
    seen[0].clone()
}

#[test]
fn a_reset_from_elsewhere_is_judged_by_its_packet() {
    let likely = Some(Confidence::Likely);
    for (ttls, origin, confidence) in [
        (None, Origin::OffNode, None),
        (Some((64, None)), Origin::OffNode, None),
        (Some((57, Some(57))), Origin::OffNode, likely),
        (Some((59, Some(57))), Origin::OffNode, None),
        (Some((64, Some(57))), Origin::InPath, likely),
    ] {
        for sk in [CLIENT, SERVER] {
            let seen = reset_from_elsewhere(sk, ttls);
            assert_eq!(seen.reset, Some((Direction::Received, origin, None)));
            assert_eq!((seen.confidence, seen.ttls), (confidence, ttls));
            assert!(seen.complete, "{seen:?}");
        }
    }
}

#[test]
fn what_is_likely_leaves_a_health_check_one() {
    let seen = reset_from_elsewhere(SERVER, Some((64, Some(57))));
    assert_eq!(seen.reset.map(|reset| reset.1), Some(Origin::InPath));
    assert_eq!(seen.verdict, Verdict::Probe);
}

#[test]
fn what_a_stack_here_told_needs_no_evidence() {
    let mut play = Play::new();
    play.handshake();
    play.accept();
    let base = play.base(CLIENT, kind::RESET_PACKET, State::Established as u8, 0);
    play.reset_packet(base, 64, Some(63));
    play.server_aborts(counted(0, 0));
    let seen = play.finish();
    let client = of_client(&seen);
    let origin = client.reset.map(|reset| reset.1);
    assert_eq!(origin, Some(Origin::PeerOnNode));
    assert_eq!(client.confidence, Some(Confidence::Certain));
    assert_eq!(client.ttls, Some((64, Some(63))));
    let server = seen.iter().find(|seen| seen.role == Role::Server).unwrap();
    assert_eq!(server.confidence, Some(Confidence::Certain));
    assert_eq!(server.ttls, None);
}

#[test]
fn no_firewall_is_accused_where_resets_may_be_missed() {
    for context in [
        Context {
            sees_all_resets: false,
            ..context()
        },
        Context {
            sees_both_ends: false,
            ..context()
        },
    ] {
        let mut play = Play::with(context, 1024);
        play.handshake();
        play.reset_received(CLIENT, State::Established, mirrored(&counted(0, 0)));
        play.close(
            CLIENT,
            State::Established,
            0,
            failed(104, mirrored(&counted(0, 0))),
        );
        let (_, origin, sender) = play.finish()[0].reset.unwrap();
        assert_eq!(origin, Origin::Unknown);
        assert_eq!(sender, None);
    }
    let mut play = Play::new();
    play.handshake();
    play.lost();
    play.reset_received(CLIENT, State::Established, mirrored(&counted(0, 0)));
    play.close(
        CLIENT,
        State::Established,
        0,
        failed(104, mirrored(&counted(0, 0))),
    );
    let seen = play.finish();
    assert_eq!(
        (seen[0].reset.unwrap().1, seen[0].complete),
        (Origin::Unknown, false)
    );
}

#[test]
fn a_refusal_that_was_not_seen_is_a_closed_port_only_where_nothing_listens() {
    for listens in [false, true] {
        let blind = Context {
            sees_all_resets: false,
            ..context()
        };
        let mut play = Play::with(blind, 1024);
        if !listens {
            play.state(LISTENER, State::Listen, State::Close, SERVER_PID);
        }
        play.connect();
        let syn_sent = Stats {
            present: u32::MAX,
            segs_out: 1,
            ..Stats::default()
        };
        play.reset_received(CLIENT, State::SynSent, syn_sent);
        play.close(CLIENT, State::SynSent, CLIENT_PID, failed(111, syn_sent));
        // What listens when the record is made is another matter.
        let (old, new) = if listens {
            (State::Listen, State::Close)
        } else {
            (State::Close, State::Listen)
        };
        play.state(LISTENER, old, new, SERVER_PID);
        let seen = play.finish();
        let (origin, why) = if listens {
            (Origin::Unknown, (None, ReasonSource::Unknown))
        } else {
            (Origin::PeerOnNode, concluded("NO_SOCKET"))
        };
        assert_eq!(seen[0].reset, Some((Direction::Received, origin, None)));
        assert_eq!(seen[0].why, Some(why));
    }
}

#[test]
fn where_the_owner_matters_other_ends_are_not_printed() {
    let wanted = Wanted {
        cgroups: vec![7],
        ..Wanted::default()
    };
    let mut play = Play::with(
        Context {
            sees_both_ends: false,
            wanted,
            ..context()
        },
        1024,
    );
    play.handshake();
    play.accept();
    play.server_aborts(counted(64, 0));
    let foreign = play.base(0, kind::RESET_SENT_NO_SOCKET, 0, NO_REASON);
    play.plain(Base {
        remote_port: 9,
        ..foreign
    });
    let [client] = play.finish().try_into().unwrap();
    assert_eq!(client.owner, Some((CLIENT_PID, Attribution::Exact)));
    assert!(play.records.strays.is_empty());
}

#[test]
fn an_end_that_a_wanted_process_had_is_printed_whoever_is_named() {
    let wanted = Wanted {
        pids: vec![CLIENT_PID],
        ..Wanted::default()
    };
    let mut play = Play::with(
        Context {
            wanted,
            ..context()
        },
        1024,
    );
    play.handshake();
    let held = play.base(SERVER, kind::HELD, State::Established as u8, 0);
    play.acted(held, CLIENT_PID);
    play.accept();
    play.server_aborts(counted(64, 0));
    // By stories a scan says nothing of it: whoever has it is in its story.
    play.due(u64::MAX);
    let printed = play.records.connections.iter();
    let owners: Vec<_> = printed.map(|end| end.owner).collect();
    assert!(
        owners.contains(&Some((SERVER_PID, Attribution::Exact))),
        "{owners:?}"
    );
}

#[test]
fn a_snapshot_names_what_is_older_than_the_tracer() {
    let mut play = Play::new();
    play.snapshot(true);
    for (sk, tgid) in [(SERVER, SERVER_PID), (CLIENT, CLIENT_PID)] {
        let base = play.base(sk, kind::HELD, State::Established as u8, 0);
        play.acted(base, tgid);
    }
    play.snapshot(false);
    play.server_aborts(counted(64, 64));
    let mut seen = play.finish();
    seen.sort_by_key(|seen| seen.local_port);
    let [server, client] = seen.try_into().unwrap();
    assert_eq!((server.role, client.role), (Role::Server, Role::Client));
    assert_eq!(server.owner, Some((SERVER_PID, Attribution::Snapshot)));
    assert_eq!(client.peer, Some(SERVER_PID));
    assert!(!client.complete);
    assert_eq!(client.verdict, Verdict::ResetMidStream);
}

#[test]
fn a_full_table_counts_what_it_gives_up() {
    let mut play = Play::with(context(), 2);
    for sk in 1..=10 {
        let base = play.base(
            CLIENT,
            kind::STATE,
            State::Close as u8,
            State::SynSent as u8,
        );
        let local_port = 20_000 + u16::try_from(sk).unwrap();
        play.acted(
            Base {
                sk,
                local_port,
                ..base
            },
            CLIENT_PID,
        );
    }
    assert_eq!(play.engine.open(), 2);
    assert_eq!(play.engine.evicted_events(), 8);
}

#[test]
fn a_record_waits_for_what_the_kernel_says_later_and_no_longer() {
    let mut play = Play::new();
    play.handshake();
    play.state(CLIENT, State::Established, State::FinWait1, CLIENT_PID);
    play.step(CLIENT, State::FinWait1, State::FinWait2);
    play.close(CLIENT, State::FinWait2, 0, mirrored(&counted(64, 64)));
    let ended = play.now;
    play.due(ended + HOLD_NS - 1);
    assert!(play.records.connections.is_empty());
    play.due(ended + HOLD_NS);
    assert_eq!(play.records.connections.len(), 1);
    assert_eq!(play.told.connections.len(), 1);
}

#[test]
fn two_ends_that_parted_are_printed_at_once() {
    let mut play = Play::new();
    play.handshake();
    play.state(CLIENT, State::Established, State::FinWait1, CLIENT_PID);
    play.step(SERVER, State::Established, State::CloseWait);
    play.step(CLIENT, State::FinWait1, State::FinWait2);
    play.state(SERVER, State::CloseWait, State::LastAck, SERVER_PID);
    let client = Stats {
        has_socket: 0,
        ..mirrored(&counted(64, 64))
    };
    play.close(CLIENT, State::FinWait2, 0, client);
    assert!(play.told.connections.is_empty());
    play.close(SERVER, State::LastAck, 0, counted(64, 64));
    assert_eq!(play.told.connections.len(), 2);
    assert!(play.by_stories.table.is_empty());
    assert_eq!(play.finish().len(), 2);
}

#[test]
fn processes_are_shared_not_copied() {
    let mut play = Play::new();
    play.handshake();
    let owner = |slot| {
        let connection = play.engine.table.get(slot).unwrap();
        Rc::clone(&connection.owner.as_ref().unwrap().process)
    };
    assert_eq!(owner(0).pid, CLIENT_PID);
}

/// Any bytes as events: nothing may panic, and the table stays within its bounds.
#[test]
fn no_sequence_of_events_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut play = Play::with(context(), 16);
    for round in 0..200_000_u64 {
        let small = |value: u64| u8::try_from(value).unwrap();
        let mut base = play.base(
            1 + next(24),
            small(next(14)),
            small(next(14)),
            small(next(14)),
        );
        base.local_port = [0, PORT, EPHEMERAL][usize::try_from(next(3)).unwrap()];
        base.remote_port = [0, PORT, EPHEMERAL][usize::try_from(next(3)).unwrap()];
        base.netns = u32::try_from(next(3)).unwrap();
        let stats = Stats {
            present: u32::try_from(next(1 << 20)).unwrap(),
            err: u32::try_from(next(140)).unwrap(),
            has_socket: u16::try_from(next(2)).unwrap(),
            bytes_received: next(3),
            bytes_acked: next(3),
            unacked: u32::try_from(next(3)).unwrap(),
            ..Stats::default()
        };
        match next(3) {
            0 => play.plain(base),
            1 => play.acted(base, u32::try_from(next(5)).unwrap()),
            _ => play.full(base, u32::try_from(next(5)).unwrap(), stats),
        }
        if round % 64 == 0 {
            let now = play.now;
            play.due(now);
        }
        assert!(play.engine.open() <= 16);
    }
    play.finish();
}

/// A `CLOSE_WAIT` that the server leaked, whose addresses the client uses again.
#[test]
fn a_connect_that_hits_an_older_connection_is_neither_its_client_nor_a_middlebox() {
    for (bytes, verdict) in [
        (0, Verdict::ResetBeforePayload),
        (64, Verdict::ResetMidStream),
    ] {
        let stats = Stats {
            has_socket: 1,
            jiffies: 2,
            ..counted(bytes, bytes)
        };
        let mut play = Play::new();
        play.handshake();
        play.accept();
        play.state(CLIENT, State::Established, State::FinWait1, CLIENT_PID);
        play.step(SERVER, State::Established, State::CloseWait);
        play.step(CLIENT, State::FinWait1, State::FinWait2);
        let gone = Stats {
            has_socket: 0,
            ..mirrored(&stats)
        };
        play.close(CLIENT, State::FinWait2, 0, gone);
        play.due(play.now + HOLD_NS);
        play.now += 60_000_000_000;
        play.connect();
        let syn_sent = Stats {
            present: u32::MAX,
            segs_out: 1,
            has_socket: 1,
            ..Stats::default()
        };
        play.reset_sent(CLIENT, kind::RESET_SENT_REPLY, State::SynSent, 0, syn_sent);
        play.reset_received(SERVER, State::CloseWait, stats);
        play.close(SERVER, State::CloseWait, 0, failed(32, stats));
        play.due(play.now + HOLD_NS);
        play.due(u64::MAX);
        for records in [&play.records, &play.told] {
            let mut all = records.connections.iter();
            let server = all.find(|seen| seen.role == Role::Server).unwrap();
            let reset = (Direction::Received, Origin::PeerOnNode, None);
            assert_eq!((server.reset, server.verdict), (Some(reset), verdict));
        }
    }
}

/// A child that was reset while it waited, and is accepted and closed later.
#[test]
fn a_child_that_ended_is_accepted_too_late_and_nothing_is_missing() {
    let mut play = Play::new();
    play.handshake();
    let nothing = mirrored(&counted(0, 0));
    play.close(CLIENT, State::Established, CLIENT_PID, nothing);
    play.reset_received(SERVER, State::Established, counted(0, 0));
    play.close(
        SERVER,
        State::Established,
        CLIENT_PID,
        Stats {
            err: 104,
            has_socket: 0,
            ..counted(0, 0)
        },
    );
    play.reset_sent(
        CLIENT,
        kind::RESET_SENT_ACTIVE,
        State::Close,
        CLIENT_PID,
        nothing,
    );
    play.due(play.now + HOLD_NS);
    assert_eq!(play.records.connections.len(), 2);
    assert_eq!((play.engine.open(), play.engine.unseen()), (0, 0));
    play.now += 200_000_000;
    let base = play.base(SERVER, kind::ACCEPT, State::Close as u8, 0);
    play.acted(base, SERVER_PID);
    play.destroy(SERVER, SERVER_PID);
    assert_eq!(
        (play.engine.unseen(), play.by_stories.unseen()),
        (0, 0),
        "nothing was missed"
    );
}

/// A Fast Open server that answers and closes before the handshake is done.
#[test]
fn a_fast_open_server_may_close_before_the_handshake_is_complete() {
    let mut play = Play::new();
    let base = play.base(SERVER, kind::ACCEPT, State::SynRecv as u8, 0);
    play.acted(base, SERVER_PID);
    play.state(SERVER, State::SynRecv, State::FinWait1, SERVER_PID);
    play.step(SERVER, State::FinWait1, State::FinWait2);
    let stats = Stats {
        jiffies: 2,
        ..counted(64, 64)
    };
    play.close(SERVER, State::FinWait2, 0, stats);
    let seen = play.finish();
    assert_eq!((seen[0].verdict, seen[0].role), (Verdict::Ok, Role::Server));
}

/// The event of the reset is lost; on this node, a closed port.
#[test]
fn a_refusal_whose_reset_was_lost_is_no_firewall_s() {
    let mut play = Play::new();
    play.connect();
    let base = play.base(0, kind::RESET_SENT_NO_SOCKET, 1 << 1, NO_REASON);
    play.plain(base);
    play.lost();
    let stats = Stats {
        present: u32::MAX,
        segs_out: 1,
        ..Stats::default()
    };
    play.close(CLIENT, State::SynSent, CLIENT_PID, failed(111, stats));
    let seen = play.finish();
    assert_eq!(seen[0].verdict, Verdict::Refused);
}

/// Connections that wait for their other end, at every look.
#[test]
fn resets_of_no_connection_are_told_on_a_busy_node() {
    let mut play = Play::new();
    let (join, told) = (&mut play.by_stories, &mut play.told);
    let stray = Base {
        ktime: play.now,
        kind: kind::RESET_SENT_NO_SOCKET,
        old: 1 << 1,
        new: NO_REASON,
        family: IPV4,
        local_port: 9,
        remote_port: 10,
        netns: 1,
        local: [LOOPBACK, 0],
        remote: [LOOPBACK, 0],
        ..Base::default()
    };
    join.event(
        Event {
            base: &stray,
            actor: None,
            stats: None,
        },
        &mut Nobody,
        &Epoch,
        told,
    );
    let mut now = play.now;
    for tick in 0..10_000_u64 {
        // A client that parted, whose server is open: as `Ended`.
        let change = |old: State, new: State| Change::of(old as u8, new as u8);
        let story = Story {
            sk: 100 + tick,
            born: now,
            local_port: 20_000 + (tick % 30_000) as u16,
            remote_port: PORT,
            netns: 1,
            family: IPV4,
            birth: change(State::Close, State::SynSent),
            local: [LOOPBACK, 0],
            remote: [LOOPBACK, 0],
            actor: actor(CLIENT_PID),
            acted: AT_BIRTH,
            state: State::FinWait2 as u8,
            at: [now, now, now, 0, 0],
            what: [
                change(State::SynSent, State::Established),
                change(State::Established, State::FinWait1),
                change(State::FinWait1, State::FinWait2),
                Change::default(),
                Change::default(),
            ],
            len: 3,
            ..Story::default()
        };
        let ended = story::Ended {
            story,
            ktime: now + 1,
            old: State::FinWait2 as u32,
            late: 0,
            stats: Stats {
                has_socket: 0,
                ..mirrored(&counted(64, 64))
            },
        };
        join.ended_story(&ended, &mut Nobody, &Epoch, told);
        // As the agent's loop does.
        now += 30_000_000;
        join.finish_due(now, &Epoch, told);
        if join.is_asking() {
            join.answered(&Epoch, told);
        }
        if !told.strays.is_empty() {
            break;
        }
    }
    assert!(
        !told.strays.is_empty(),
        "not told after {} s",
        (now - play.now) / 1_000_000_000
    );
}

/// The owner has taken the error that nobody saw happen.
#[test]
fn an_end_kept_from_its_hook_is_no_orderly_one() {
    for (old, err, is_told) in [
        (State::SynSent, 0, false),
        (State::Established, 0, false),
        (State::Established, 104, true),
        (State::CloseWait, 0, false),
        (State::FinWait2, 0, true),
        (State::LastAck, 0, true),
    ] {
        let mut play = Play::new();
        let (join, told) = (&mut play.by_stories, &mut play.told);
        let ended = story::Ended {
            story: Story {
                sk: CLIENT,
                born: play.now,
                local_port: 40_000,
                remote_port: PORT,
                netns: 1,
                family: IPV4,
                birth: Change::of(State::Close as u8, State::SynSent as u8),
                state: old as u8,
                acted: NOBODY,
                ..Story::default()
            },
            ktime: play.now + 1,
            old: old as u32,
            late: 1,
            stats: Stats {
                err,
                ..mirrored(&counted(64, 64))
            },
        };
        join.ended_story(&ended, &mut Nobody, &Epoch, told);
        for later in [HOLD_NS, 2_000_000_000] {
            join.finish_due(play.now + later, &Epoch, told);
            join.answered(&Epoch, told);
        }
        assert_eq!(!told.connections.is_empty(), is_told, "{old:?}, {err}");
    }
}

#[test]
fn resets_while_connecting_are_bounded() {
    let mut play = Play::new();
    play.connect();
    let syn_sent = Stats {
        present: u32::MAX,
        segs_out: 1,
        ..Stats::default()
    };
    for _ in 0..100_000 {
        play.reset_sent(CLIENT, kind::RESET_SENT_REPLY, State::SynSent, 0, syn_sent);
    }
    play.close(CLIENT, State::SynSent, CLIENT_PID, failed(110, syn_sent));
    let seen = play.finish();
    assert!(seen[0].steps.len() < 1000, "{}", seen[0].steps.len());
}

/// The closer sleeps between its change to CLOSE and its reset (memory is reclaimed, its CPU quota is used up).
#[test]
fn a_reset_that_comes_after_its_record_is_still_its_senders() {
    let mut play = Play::new();
    play.handshake();
    play.accept();
    let stats = Stats {
        unread: 64,
        has_socket: 1,
        ..counted(64, 0)
    };
    play.close(SERVER, State::Established, SERVER_PID, stats);
    play.now += 50_000_000;
    play.due(play.now);
    play.reset_received(CLIENT, State::Established, mirrored(&stats));
    play.close(
        CLIENT,
        State::Established,
        SERVER_PID,
        failed(104, mirrored(&stats)),
    );
    play.reset_sent(
        SERVER,
        kind::RESET_SENT_ACTIVE,
        State::Close,
        SERVER_PID,
        stats,
    );
    play.due(play.now + HOLD_NS);
    assert!(
        play.records
            .connections
            .iter()
            .all(|seen| seen.reset.is_none_or(|reset| reset.1 != Origin::InPath))
    );
}

/// A reset of before is not this connection's.
#[test]
fn a_reset_of_before_is_not_this_connection_s() {
    let mut play = Play::new();
    let time_wait = State::TimeWait as u8;
    let base = play.base(0x7171, kind::RESET_SENT_TIME_WAIT, time_wait, NO_REASON);
    play.plain(base);
    play.now += 3_000_000_000;
    play.due(play.now);
    play.handshake();
    play.accept();
    play.reset_received(CLIENT, State::Established, mirrored(&counted(64, 0)));
    play.close(
        CLIENT,
        State::Established,
        0,
        failed(104, mirrored(&counted(64, 0))),
    );
    play.state(SERVER, State::Established, State::FinWait1, SERVER_PID);
    let seen = &play.finish()[0];
    assert_ne!(seen.reset.unwrap().1, Origin::PeerOnNode);
}

/// A connection that waits for what the kernel is asked has the first claim, however late the agent comes to ask it.
#[test]
fn a_reset_is_left_to_the_connection_that_waits() {
    let mut play = Play::new();
    play.connect();
    play.step(CLIENT, State::SynSent, State::Established);
    let base = play.base(SERVER, kind::RESET_SENT_NO_SOCKET, 1 << 4, NO_REASON);
    play.plain(base);
    let stats = mirrored(&counted(64, 0));
    play.reset_received(CLIENT, State::Established, stats);
    play.close(CLIENT, State::Established, 0, failed(104, stats));
    let (join, told) = (&mut play.by_stories, &mut play.told);
    let late = play.now + 10 * HOLD_NS;
    join.finish_due(late, &Epoch, told);
    assert!(join.is_asking() && told.strays.is_empty());
    join.answered(&Epoch, told);
    join.finish_due(late, &Epoch, told);
    assert!(matches!(told.strays[..], [(1, Some(_), _)]));
}

/// Where it is known who sent the reset, it is not looked for among those that were not asked for.
#[test]
fn a_known_sender_is_not_looked_for() {
    let mut ports = Ports::default();
    ports.insert(PORT, PORT);
    let context = Context {
        wanted: Wanted {
            ports: Some(ports),
            ..Wanted::default()
        },
        ..context()
    };
    for is_known in [true, false] {
        let mut play = Play::with(context.clone(), 1024);
        play.connect();
        if is_known {
            let base = play.base(SERVER, kind::RESET_SENT_NO_SOCKET, 1 << 1, NO_REASON);
            play.plain(base);
        }
        play.refused();
        let (join, told) = (&mut play.by_stories, &mut play.told);
        join.finish_due(play.now + HOLD_NS, &Epoch, told);
        assert_eq!(join.seeks_senders(), !is_known);
        assert_eq!(told.connections.len(), usize::from(is_known));
    }
}

/// While hooks are taken out parts of a connection are seen: what ended before is told, of the rest nothing, and it is no loss.
#[test]
fn what_ends_after_a_stop_is_not_told() {
    let mut play = Play::new();
    for stops in [false, true] {
        play.connect();
        let base = play.base(SERVER, kind::RESET_SENT_NO_SOCKET, 1 << 1, NO_REASON);
        play.plain(base);
        if stops {
            play.engine.stop(play.now);
            play.by_stories.stop(play.now);
            play.now += 1;
        }
        play.refused();
        play.now += 2 * HOLD_NS;
        play.due(play.now);
    }
    play.connect();
    play.close(CLIENT, State::FinWait2, 0, mirrored(&counted(64, 64)));
    let base = play.base(0, kind::RESET_SENT_NO_SOCKET, 1 << 1, NO_REASON);
    play.plain(base);
    let seen = play.finish();
    let verdicts: Vec<_> = seen.iter().map(|seen| seen.verdict).collect();
    assert_eq!(verdicts, [Verdict::Refused]);
    assert_eq!((play.engine.unseen(), play.by_stories.unseen()), (0, 0));
    for records in [&play.records, &play.told] {
        let claimed = |(_, peer, _): &(_, Option<u64>, _)| peer.is_some();
        assert_eq!(records.strays.len(), 2);
        assert!(records.strays.iter().all(claimed));
    }
}

/// Who waits for an answer shuts its side down right behind the request; who gave up does it later (a proxy that passes the FIN on).
#[test]
fn only_a_prompt_half_close_waits_for_an_answer() {
    for (waited, leaves, verdict) in [
        (1, exit::NONE, Verdict::ClosedBeforeResponse),
        (20, exit::NONE, Verdict::Ok),
        // shutdown() for both ways, and the socket is closed later.
        (1, exit::LEAVES, Verdict::Ok),
    ] {
        let mut play = Play::new();
        play.handshake();
        play.accept();
        play.jiffies = 100;
        play.closes_as_it_exits(CLIENT, leaves);
        play.step(CLIENT, State::FinWait1, State::FinWait2);
        let stats = Stats {
            has_socket: 1,
            last_sent: 100 - waited,
            jiffies: 101,
            ..mirrored(&counted(64, 0))
        };
        play.close(CLIENT, State::FinWait2, 0, stats);
        assert_eq!(play.finish()[0].verdict, verdict, "{waited}");
    }
}

/// What had not arrived is no answered exchange, however long it stood still.
#[test]
fn a_connection_with_payload_on_its_way_is_not_idle() {
    let seconds = 1000;
    let verdict = |unacked, received_by_client: u64| {
        let mut play = Play::new();
        play.handshake();
        play.accept();
        play.now += 10_000_000_000;
        let server = Stats {
            unacked,
            last_sent: 1,
            jiffies: seconds,
            ..counted(64, 5000)
        };
        play.reset_received(SERVER, State::Established, server);
        play.close(SERVER, State::Established, 0, failed(104, server));
        let client = mirrored(&counted(64, received_by_client));
        play.close(CLIENT, State::Established, CLIENT_PID, client);
        let seen = play.finish();
        let server = seen.iter().find(|seen| seen.role == Role::Server);
        server.unwrap().verdict
    };
    assert_eq!(verdict(0, 5000), Verdict::ResetIdle);
    assert_eq!(verdict(900, 4100), Verdict::ResetMidStream);
    assert_eq!(verdict(5000, 0), Verdict::ResetBeforeResponse);
}

/// A proxy that takes what is not addressed to it and speaks to the server from the client's own address and port.
#[test]
fn two_sockets_of_a_transparent_proxy_are_not_each_others_ends() {
    for proxied in [false, true] {
        let mut play = Play::new();
        if proxied {
            play.step(SERVER, State::SynRecv, State::Established);
        }
        play.connect();
        play.step(CLIENT, State::SynSent, State::Established);
        if !proxied {
            play.step(SERVER, State::SynRecv, State::Established);
        }
        play.accept();
        let stats = mirrored(&counted(64, 0));
        play.reset_received(CLIENT, State::Established, stats);
        play.close(CLIENT, State::Established, 0, failed(104, stats));
        let seen = play.finish();
        let client = of_client(&seen);
        assert_eq!(client.peer, (!proxied).then_some(SERVER_PID));
    }
}

/// Another process listens there by now; the connection was its predecessor's.
#[test]
fn who_listens_later_never_had_the_connection() {
    for later in [false, true] {
        let mut play = Play::new();
        play.connect();
        play.step(CLIENT, State::SynSent, State::Established);
        if later {
            play.state(LISTENER, State::Listen, State::Close, SERVER_PID);
            play.state(LISTENER, State::Close, State::Listen, HELPER_PID);
        }
        let base = play.base(SERVER, kind::RESET_SENT_LISTEN, 0, NO_REASON);
        play.plain(Base {
            sk: LISTENER,
            ..base
        });
        let stats = mirrored(&counted(64, 0));
        play.reset_received(CLIENT, State::Established, stats);
        play.close(CLIENT, State::Established, 0, failed(104, stats));
        let seen = &play.finish()[0];
        let named = (!later).then_some(SERVER_PID);
        assert_eq!(seen.peer, named);
        assert_eq!(
            seen.reset,
            Some((Direction::Received, Origin::PeerOnNode, named))
        );
    }
}

/// The server was killed, and another has its address by now.
#[test]
fn who_listens_later_sent_no_reset_for_the_one_before() {
    for (later, named) in [(false, Some(SERVER_PID)), (true, None)] {
        let mut play = Play::new();
        play.handshake();
        play.accept();
        play.step(SERVER, State::Established, State::FinWait1);
        let stats = counted(64, 64);
        play.close(SERVER, State::FinWait2, 0, stats);
        if later {
            play.state(LISTENER, State::Listen, State::Close, SERVER_PID);
            play.state(LISTENER, State::Close, State::Listen, HELPER_PID);
        }
        let base = play.base(SERVER, kind::RESET_SENT_LISTEN, 0, NO_REASON);
        play.plain(Base {
            sk: LISTENER,
            ..base
        });
        play.reset_received(CLIENT, State::Established, mirrored(&stats));
        let told = failed(104, mirrored(&stats));
        play.close(CLIENT, State::Established, 0, told);
        let seen = play.finish();
        let client = of_client(&seen);
        let reset = (Direction::Received, Origin::PeerOnNode, named);
        assert_eq!(client.reset, Some(reset));
        assert_eq!(client.peer, Some(SERVER_PID));
    }
}

/// Of a connection that is older than the tracer, between two namespaces: who listens is known at one end only.
#[test]
fn an_end_whose_role_is_known_tells_the_others() {
    let mut play = Play::new();
    play.apart = true;
    play.step(SERVER, State::Established, State::CloseWait);
    play.step(CLIENT, State::Established, State::FinWait1);
    let stats = counted(64, 64);
    play.close(SERVER, State::LastAck, 0, stats);
    play.close(CLIENT, State::FinWait2, 0, mirrored(&stats));
    let roles: Vec<_> = play.finish().iter().map(|seen| seen.role).collect();
    assert_eq!(roles, [Role::Server, Role::Client]);
}

/// While hooks are put in, one after the other, parts of a connection are seen: what is missing of it was never to be seen.
#[test]
fn what_began_before_the_last_hook_was_there_is_not_missed() {
    for (since, missed) in [(0, true), (u64::MAX, false)] {
        let mut play = Play::with(Context { since, ..context() }, 1024);
        play.handshake();
        // Their ends were not seen.
        play.handshake();
        assert_eq!(play.engine.unseen() > 0, missed);
        assert_eq!(play.by_stories.unseen() > 0, missed);
    }
}
