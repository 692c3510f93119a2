//! Records for the tests of this folder: fixed ones, and any at all.

use std::net::IpAddr;

use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::{
    record::{
        AcceptQueue, Attribution, Bytes, Cause, Confidence, Connection, ConnectionType,
        Descriptors, Direction, Endpoint, Event, EventType, Evidence, Exit, Family, Flag, Icmp, Id,
        Layer, Lost, Origin, PortRange, Process, ProxyWords, ReasonSource, Reset, ResetEvidence,
        ResetType, Role, Schema, Stats, StatsType, Step, StepKind, StrayReset, Timestamp, Verdict,
    },
    tcp::State,
};

/// 2026-11-21T11:34:03.123456789Z
pub(crate) const TIME: Timestamp = Timestamp(1_795_260_843_123_456_789);

const HEALTHY: &[Step] = &[
    Step::new(0, StepKind::Connect),
    change(41, State::SynSent, State::Established),
    change(12_412, State::Established, State::Close),
];

pub(crate) const fn change(at_us: u64, before: State, after: State) -> Step {
    Step::state(at_us, before as u8, after as u8)
}

pub(crate) const fn process(pid: u32, comm: &str, attribution: Attribution) -> Process<'_> {
    Process {
        pid,
        comm: Some(comm),
        exe: None,
        uid: Some(0),
        cgroup_id: Some(1),
        container_id: None,
        pod_uid: None,
        attribution,
        spelled: None,
    }
}

pub(crate) fn endpoint(text: &str) -> Endpoint {
    let address: std::net::SocketAddr = text.parse().unwrap();
    Endpoint {
        address: address.ip(),
        port: address.port(),
    }
}

pub(crate) fn healthy() -> Connection<'static> {
    Connection {
        schema: Schema,
        kind: ConnectionType,
        time: TIME,
        seq: 7,
        id: Id { run: 10, serial: 3 },
        netns: Some(4_026_531_840),
        family: Family::V4,
        local: endpoint("10.0.0.1:43210"),
        remote: endpoint("10.0.0.2:8443"),
        role: Role::Client,
        process: Some(process(12, "envoy", Attribution::Exact)),
        peer: None,
        started: Some(Timestamp(TIME.0 - 12_412_000)),
        duration_us: 12_412,
        timeline: HEALTHY,
        bytes: Bytes {
            sent: Some(512),
            received: Some(16_384),
            acked: Some(512),
        },
        idle_us: Some(100),
        rtt_us: Some(41),
        retransmits: Some(0),
        errno: None,
        reset: None,
        verdict: Verdict::Ok,
        flag: None,
        cause: None,
        layer: None,
        evidence: None,
        proxy: None,
        hint: None,
        complete: true,
    }
}

pub(crate) fn stray() -> StrayReset<'static> {
    StrayReset {
        schema: Schema,
        kind: ResetType,
        time: TIME,
        seq: 8,
        peer_id: None,
        netns: None,
        family: Some(Family::V4),
        local: Some(endpoint("10.0.0.2:81")),
        remote: Some(endpoint("10.0.0.1:43210")),
        direction: Direction::Sent,
        reason: Some("NO_SOCKET"),
        reason_source: ReasonSource::Kernel,
        count: 1,
        flag: Some(Flag::ResetBeforePayload),
        cause: Some(Cause::NoListener),
        layer: Some(Layer::Tcp),
        hint: "nothing listens on this port",
    }
}

fn leaked(text: impl Strategy<Value = String>) -> impl Strategy<Value = &'static str> {
    text.prop_map(|text| &*text.leak())
}

/// Ordinary names, and any text with many of the characters that need an escape.
fn outside() -> impl Strategy<Value = Option<&'static str>> {
    let nasty = vec(
        prop_oneof![any::<char>(), (0_u8..=0xff).prop_map(char::from), Just('"')],
        0..40,
    );
    option::of(leaked(prop_oneof![
        "[a-z/._-]{0,40}",
        nasty.prop_map(String::from_iter)
    ]))
}

fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
}

fn endpoints() -> impl Strategy<Value = Endpoint> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(address, port)| Endpoint { address, port })
}

fn ids() -> impl Strategy<Value = Id> {
    (any::<u64>(), number()).prop_map(|(run, serial)| Id { run, serial })
}

fn times() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn states() -> impl Strategy<Value = State> {
    (1_u8..=12).prop_map(|number| State::from_kernel(number).unwrap())
}

fn errnos() -> impl Strategy<Value = Option<&'static str>> {
    option::of(select(vec!["ECONNREFUSED", "ETIMEDOUT"]))
}

fn processes() -> impl Strategy<Value = Process<'static>> {
    let kernel = (any::<u32>(), option::of(any::<u32>()), option::of(number()));
    (
        kernel,
        (outside(), outside()),
        (outside(), outside()),
        select(Attribution::ALL),
    )
        .prop_map(
            |((pid, uid, cgroup_id), (comm, exe), (container_id, pod_uid), attribution)| Process {
                pid,
                comm,
                exe,
                uid,
                cgroup_id,
                container_id,
                pod_uid,
                attribution,
                spelled: None,
            },
        )
        // On the heap: what proptest keeps of a whole record is too much for a test's stack.
        .boxed()
}

fn steps() -> impl Strategy<Value = Step> {
    let at_us = || number().prop_map(|number| number >> 16);
    // No state, and numbers that are none, among them.
    let state = || any::<u8>();
    prop_oneof![
        (at_us(), select(StepKind::ALL)).prop_map(|(at_us, event)| Step::new(at_us, event)),
        (at_us(), state(), state()).prop_map(|(at_us, from, to)| Step::state(at_us, from, to)),
        (at_us(), 0_u32..0x1000).prop_map(|(at_us, errno)| Step::error(at_us, errno)),
    ]
}

fn received() -> impl Strategy<Value = Reset<'static>> {
    let source = (select(ReasonSource::ALL), select(Origin::ALL));
    (
        select(Direction::ALL),
        outside(),
        source,
        option::of(processes()),
        (
            option::of(select(Confidence::ALL)),
            option::of(reset_evidence()),
        ),
    )
        .prop_map(
            |(direction, reason, (reason_source, origin), sender, (confidence, evidence))| Reset {
                direction,
                reason,
                reason_source,
                origin,
                confidence,
                evidence,
                sender,
            },
        )
        .boxed()
}

fn reset_evidence() -> impl Strategy<Value = ResetEvidence> {
    (
        any::<(u8, Option<u8>)>(),
        any::<[Option<u16>; 2]>(),
        any::<[Option<bool>; 2]>(),
    )
        .prop_map(
            |((ttl, handshake_ttl), [ip_id, handshake_ip_id], [sequence_exact, too_soon])| {
                ResetEvidence {
                    ttl,
                    handshake_ttl,
                    ip_id,
                    handshake_ip_id,
                    sequence_exact,
                    too_soon,
                }
            },
        )
}

const PROXY: ProxyWords<'_> = ProxyWords {
    envoy_flag: "UF",
    envoy_reason: "remote connection failure",
    envoy_reason_old: "connection failure",
    envoy_flag_other: None,
    envoy_reason_other: Some("remote reset"),
    nginx_error: "connect() failed (111: Connection refused)",
    nginx_error_other: Some("recv() failed (111: Connection refused)"),
};

/// Any connection.
pub(crate) fn connections() -> impl Strategy<Value = Connection<'static>> {
    let head = (times(), number(), ids(), option::of(any::<u32>()));
    let ends = (
        select(Family::ALL),
        endpoints(),
        endpoints(),
        select(Role::ALL),
    );
    let who = (option::of(processes()), option::of(processes()));
    let life = (option::of(times()), number(), vec(steps(), 0..8));
    let payload = (
        option::of(number()),
        option::of(number()),
        option::of(number()),
    );
    let kernel = (
        option::of(number()),
        option::of(number()),
        option::of(any::<u32>()),
        errnos(),
    );
    let end = (
        option::of(received()),
        select(Verdict::ALL),
        option::of(select(Flag::ALL)),
        (
            option::of(select(Cause::ALL)),
            option::of(select(Layer::ALL)),
            option::of(Just(PROXY)),
            option::of(evidences()),
        ),
        option::of(Just("check the \"backlog\"")),
        any::<bool>(),
    );
    (head, ends, who, life, payload, kernel, end).prop_map(
        |(head, ends, who, life, payload, kernel, end)| Connection {
            schema: Schema,
            kind: ConnectionType,
            time: head.0,
            seq: head.1,
            id: head.2,
            netns: head.3,
            family: ends.0,
            local: ends.1,
            remote: ends.2,
            role: ends.3,
            process: who.0,
            peer: who.1,
            started: life.0,
            duration_us: life.1,
            timeline: life.2.leak(),
            bytes: Bytes {
                sent: payload.0,
                received: payload.1,
                acked: payload.2,
            },
            idle_us: kernel.0,
            rtt_us: kernel.1,
            retransmits: kernel.2,
            errno: kernel.3,
            reset: end.0,
            verdict: end.1,
            flag: end.2,
            cause: end.3.0,
            layer: end.3.1,
            evidence: end.3.3,
            proxy: end.3.2,
            hint: end.4,
            complete: end.5,
        },
    )
}

fn evidences() -> impl Strategy<Value = Evidence<'static>> {
    let icmp = (any::<u8>(), any::<u8>(), option::of(any::<IpAddr>()));
    let descriptors = (any::<u32>(), number(), number());
    let all = (
        option::of(endpoints()),
        option::of(icmp),
        option::of(any::<(u16, u16)>()),
        option::of(any::<(u32, u32)>()),
        option::of(descriptors),
        outside(),
        option::of(outside()),
        any::<bool>(),
    );
    all.prop_map(
        |(peer_address, icmp, ports, queue, descriptors, drop_reason, exit, abort)| Evidence {
            peer_address,
            icmp: icmp.map(|(kind, code, from)| Icmp { kind, code, from }),
            local_ports: ports.map(|(first, last)| PortRange { first, last }),
            accept_queue: queue.map(|(length, limit)| AcceptQueue { length, limit }),
            descriptors: descriptors.map(|(pid, open, limit)| Descriptors { pid, open, limit }),
            drop_reason,
            exit: exit.map(|signal| Exit { signal }),
            abort: abort.then_some(true),
        },
    )
    // Its tree of values is large for a thread's stack.
    .boxed()
}

/// Any reset without a socket.
pub(crate) fn resets() -> impl Strategy<Value = StrayReset<'static>> {
    let head = (
        times(),
        number(),
        option::of(ids()),
        option::of(any::<u32>()),
    );
    let ends = (
        option::of(select(Family::ALL)),
        option::of(endpoints()),
        option::of(endpoints()),
        select(Direction::ALL),
    );
    let why = (
        outside(),
        select(ReasonSource::ALL),
        any::<u32>(),
        option::of(select(Flag::ALL)),
        option::of(select(Cause::ALL)),
        option::of(select(Layer::ALL)),
    );
    (head, ends, why).prop_map(|(head, ends, why)| StrayReset {
        schema: Schema,
        kind: ResetType,
        time: head.0,
        seq: head.1,
        peer_id: head.2,
        netns: head.3,
        family: ends.0,
        local: ends.1,
        remote: ends.2,
        direction: ends.3,
        reason: why.0,
        reason_source: why.1,
        count: why.2,
        flag: why.3,
        cause: why.4,
        layer: why.5,
        hint: "look there",
    })
}

/// Any event.
pub(crate) fn events() -> impl Strategy<Value = Event<'static>> {
    let head = (
        times(),
        number(),
        option::of(ids()),
        option::of(any::<u32>()),
    );
    let ends = (select(Family::ALL), endpoints(), endpoints());
    let what = (
        option::of(states()),
        option::of(states()),
        outside(),
        errnos(),
    );
    (head, ends, what, option::of(any::<u32>())).prop_map(|(head, ends, what, pid)| Event {
        schema: Schema,
        kind: EventType,
        time: head.0,
        seq: head.1,
        id: head.2,
        netns: head.3,
        family: ends.0,
        local: ends.1,
        remote: ends.2,
        event: "inet_sock_set_state",
        from: what.0,
        to: what.1,
        reason: what.2,
        errno: what.3,
        pid,
    })
}

/// Any account.
pub(crate) fn stats() -> impl Strategy<Value = Stats> {
    (times(), prop::array::uniform12(number())).prop_map(|(time, numbers)| {
        let [
            seq,
            seen,
            events,
            connections,
            resets,
            flagged,
            ring_full,
            table_full,
            read_fault,
            missed,
            output,
            lines_dropped,
        ] = numbers;
        Stats {
            schema: Schema,
            kind: StatsType,
            time,
            seq,
            seen,
            events,
            connections,
            resets,
            flagged,
            lost: Lost {
                ring_full,
                table_full,
                read_fault,
                missed,
                output,
            },
            lines_dropped,
        }
    })
}
