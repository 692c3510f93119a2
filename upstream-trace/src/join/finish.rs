//! From a connection that ended to the record that is printed.
//!
//! Here it is decided who sent a reset and whose process is named; what it means is `verdict`'s.
//! Must not know: the order in which events came.

use upstream_trace_common::event::{Base, IPV4, NO_REASON, kind};

use super::{
    connection::{Connection, End, Owner, PackedStep, PeerSent, Sent, Slot, seen},
    engine::{Context, Engine, Sink, WallClock},
    note::Fact,
    stray::Stray,
    tuple::Tuple,
};
use crate::{
    decode::Event,
    process::Process,
    record::{
        self, Attribution, Confidence, ConnectionType, Direction, EventType, Evidence, Flag, Id,
        Origin, ReasonSource, ResetEvidence, ResetType, Role, Schema, StrayReset, Verdict,
    },
    tcp::{self, State},
    verdict::{
        facts::{self, Counters, Facts},
        playbook, rules,
        way::{self, Arrival},
    },
};

/// `ECONNABORTED`: `tcp_abort`, an administrator's kill.
const ECONNABORTED: u32 = libc::ECONNABORTED.cast_unsigned();
/// `ETIMEDOUT`: a timer's doing.
const ETIMEDOUT: u32 = libc::ETIMEDOUT.cast_unsigned();

/// Takes the connection in `slot` out of the table and prints it.
pub(super) fn connection(
    engine: &mut Engine,
    slot: Slot,
    clock: &impl WallClock,
    sink: &mut impl Sink,
) {
    let Some(mut ended) = engine.table.remove(slot) else {
        return;
    };
    leave_to_peer(engine, &mut ended);
    let owner = ended.owner.as_ref();
    let wanted = &engine.context.wanted;
    // Nothing is said of an end that was not seen: the loss is counted, a verdict would be invented.
    let end_seen = ended.end.as_ref().is_some_and(|end| end.stats().is_some());
    if end_seen
        && wanted.port(ended.tuple.local_port, ended.tuple.remote_port)
        && (!wanted.by_owner() || owner.is_some_and(|owner| owner.process.wanted))
    {
        print(engine, &ended, clock, sink);
    }
    engine.table.recycle(ended.end.take());
}

/// Each end's record needs something of the other, whichever is printed first.
fn leave_to_peer(engine: &mut Engine, ended: &mut Connection) {
    let got_payload = |connection: &Connection| {
        let stats = connection.end.as_ref().and_then(|end| end.stats());
        stats.and_then(facts::received) > Some(0)
    };
    let sent = |connection: &Connection| {
        let end = connection.end.as_ref()?;
        let sent = end.sent.clone()?;
        let derived = derived(end, &sent);
        let err = error(end);
        Some(PeerSent { sent, derived, err })
    };
    let Some(peer) = engine.table.get_mut(ended.peer) else {
        return;
    };
    peer.seen |= seen::PEER_ENDED;
    peer.peer_owner.clone_from(&ended.owner);
    if ended.peer_owner.is_none() {
        ended.peer_owner.clone_from(&peer.owner);
    }
    if got_payload(ended) {
        peer.seen |= seen::PEER_GOT_PAYLOAD;
    }
    if got_payload(peer) {
        ended.seen |= seen::PEER_GOT_PAYLOAD;
    }
    // Both are born within one round trip, so after the tracer: one birth was kept from its hook.
    let one_unborn = peer.saw(seen::BIRTH) != ended.saw(seen::BIRTH);
    let known_loss = (peer.seen | ended.seen) & seen::LOSS != 0;
    if let (Some(end), Some(sent)) = (&mut ended.end, sent(peer)) {
        end.peer_sent = Some(sent);
    }
    if let Some(sent) = sent(ended)
        && let Some(end) = engine.table.end(ended.peer)
    {
        end.peer_sent = Some(sent);
    }
    if one_unborn && !known_loss && engine.context.sees_both_ends {
        engine.unseen += 1;
    }
}

fn counters(ended: &Connection, tick_ns: u64) -> Counters {
    let end = ended.end.as_ref();
    let Some((end, stats)) = end.and_then(|end| Some((end, end.stats()?))) else {
        return Counters::default();
    };
    let lived = end.at.saturating_sub(ended.first) / 1000;
    Counters {
        lived_us: ended.saw(seen::BIRTH).then_some(lived),
        ..Counters::new(stats, ended.role, ended.saw(seen::FIN_SENT), tick_ns)
    }
}

/// `sk_err` at the end; 0: none.
fn error(end: &End) -> u32 {
    end.closed.map_or(0, |closed| closed.stats.err)
}

/// Who sent the reset, as far as the stacks on this node tell.
struct ResetFound<'a> {
    direction: Direction,
    reason: Option<&'a str>,
    reason_source: ReasonSource,
    origin: Origin,
    confidence: Option<Confidence>,
    evidence: Option<ResetEvidence>,
    sender: Option<(&'a Process, Attribution)>,
}

impl<'a> ResetFound<'a> {
    fn record(&self) -> record::Reset<'a> {
        record::Reset {
            direction: self.direction,
            reason: self.reason,
            reason_source: self.reason_source,
            origin: self.origin,
            confidence: self.confidence,
            evidence: self.evidence,
            sender: self
                .sender
                .map(|(process, attribution)| process.record(attribution)),
        }
    }

    fn is_certainly_in_path(&self) -> bool {
        self.origin == Origin::InPath && self.confidence == Some(Confidence::Certain)
    }

    fn is_likely(&self) -> bool {
        self.confidence == Some(Confidence::Likely)
    }
}

/// What is known of resets besides what the stacks on this node said.
#[derive(Clone, Copy)]
struct Known {
    /// Every reset that could have reached the connection was seen where it was sent.
    all: bool,
    /// What the packet tells.
    packet: Option<ResetEvidence>,
    lived_us: Option<u64>,
}

impl Known {
    /// Who sent one that came from beyond this node.
    fn beyond(&self) -> (Origin, Option<Confidence>) {
        self.packet.map_or((Origin::OffNode, None), |packet| {
            way::sender(&packet, self.lived_us)
        })
    }
}

fn print(engine: &mut Engine, ended: &Connection, clock: &impl WallClock, sink: &mut impl Sink) {
    let id = Id {
        run: engine.context.run,
        serial: ended.serial,
    };
    let no_end = End::default();
    let end = ended.end.as_deref().unwrap_or(&no_end);
    let before = |at: Option<u64>| at.is_none_or(|at| at < ended.first);
    let complete = ended.saw(seen::BIRTH) && !ended.saw(seen::LOSS) && before(engine.lost_at);
    let saw_all_resets = complete && before(engine.skipped_at) && engine.strays.knew_all(end.at);
    let counters = counters(ended, engine.context.tick_ns);
    // Looked up also where this end sent the reset itself: the other end's answer to it may be there.
    let stray = engine.strays.claim(ended.netns, &ended.tuple, id);
    let mut timeline = std::mem::take(&mut engine.scratch);
    timeline.clear();
    timeline.extend(ended.steps.iter().map(PackedStep::unpack));
    let context = &engine.context;
    let peer = other_end(engine, ended, stray.as_ref());
    let tick_us = context.tick_ns / 1000;
    let packet = |arrival: &Arrival| way::evidence(arrival, &counters, tick_us);
    let known = Known {
        all: saw_all_resets,
        packet: end.arrival.as_ref().map(packet),
        lived_us: counters.lived_us,
    };
    let reset = reset_found(engine, ended, end, stray.as_ref(), peer, &known);

    let closed = end.closed.as_ref();
    let err = error(end);
    let accepted = accepted(ended, closed.is_some(), complete);
    let broken = reset.is_some() || err != 0;
    let evidence = evidence(engine, ended, accepted, broken);
    let facts = Facts {
        role: (ended.role != Role::Unknown).then_some(ended.role),
        established: ended.saw(seen::ESTABLISHED),
        accepted,
        closed_first: ended.saw(seen::CLOSED_FIRST),
        peer_closed_first: ended.saw(seen::PEER_CLOSED_FIRST),
        since_fin_us: since_fin_us(ended, end.at),
        still_open: closed.is_some_and(|closed| closed.stats.has_socket != 0),
        err,
        reset: reset.as_ref().map(|reset| reset.direction),
        reset_in_path: reset.as_ref().is_some_and(ResetFound::is_certainly_in_path),
        tick_us,
        has_local_port: ended.tuple.local_port != 0,
        icmp: evidence.icmp.is_some(),
        peer_received_payload: ended.saw(seen::PEER_GOT_PAYLOAD),
        counters,
    };
    let judgement = rules::judge(&facts, context.idle_after_us);
    let errno = tcp::errno_name(err)
        .or((judgement.verdict == Verdict::NoLocalPort).then_some("EADDRNOTAVAIL"));

    let meaning = playbook::meaning(&playbook::About {
        verdict: judgement.verdict,
        role: ended.role,
        reset: reset
            .as_ref()
            .map(|reset| (reset.direction, reset.origin, reset.reason)),
        likely: reset.as_ref().is_some_and(ResetFound::is_likely),
        errno,
        bytes: counters.bytes,
        local: ended.tuple.local().address,
        evidence,
    });
    let owner = ended.owner.as_ref();
    let mut record = record::Connection {
        schema: Schema,
        kind: ConnectionType,
        time: clock.at(end.at),
        seq: 0,
        id,
        netns: (ended.netns != 0).then_some(ended.netns),
        family: ended.tuple.family(),
        local: ended.tuple.local(),
        remote: ended.tuple.remote(),
        role: ended.role,
        process: owner.map(|owner| owner.process.record(owner.attribution)),
        peer: peer.map(|(process, attribution)| process.record(attribution)),
        started: ended.saw(seen::BIRTH).then(|| clock.at(ended.first)),
        duration_us: end.at.saturating_sub(ended.first) / 1000,
        timeline: &timeline,
        bytes: counters.bytes,
        idle_us: counters.idle_us(),
        rtt_us: counters.rtt_us,
        retransmits: counters.retransmits,
        errno,
        reset: reset.as_ref().map(ResetFound::record),
        verdict: judgement.verdict,
        flag: judgement.flag,
        cause: meaning.and_then(|meaning| meaning.cause),
        layer: meaning.map(|meaning| meaning.layer),
        evidence: Some(evidence).filter(|found| *found != Evidence::default()),
        proxy: meaning.and_then(|meaning| meaning.proxy),
        hint: meaning.map(|meaning| meaning.hint),
        complete,
    };
    sink.connection(&mut record, ended.events);
    engine.scratch = timeline;
}

/// Whose the other end is: who had it or, where a listener answered for it, who listens.
fn other_end<'a>(
    engine: &'a Engine,
    ended: &'a Connection,
    stray: Option<&Base>,
) -> Option<(&'a Process, Attribution)> {
    if let Some(owner) = &ended.peer_owner {
        return Some((&owner.process, owner.attribution));
    }
    let stray = stray.filter(|stray| stray.kind == kind::RESET_SENT_LISTEN)?;
    let listeners = &engine.listeners;
    let process = listeners.owner(stray.netns, &Tuple::of(stray), stray.ktime)?;
    Some((process, Attribution::Listener))
}

/// What the kernel side noted of it. No more of an established connection than how full its accept queue was, and
/// that only where it failed.
fn evidence<'a>(
    engine: &'a Engine,
    ended: &Connection,
    accepted: Option<bool>,
    broken: bool,
) -> Evidence<'a> {
    if ended.saw(seen::ESTABLISHED) && accepted != Some(false) && !broken {
        return Evidence::default();
    }
    let of = |kind| {
        let notes = &engine.notes;
        notes.of(ended.netns, &ended.tuple, kind, ended.first)
    };
    let mut evidence = Evidence::default();
    if let Some(Fact::AcceptQueue(queue, descriptors)) = of(kind::ACCEPT_QUEUE) {
        evidence.accept_queue = Some(queue);
        evidence.descriptors = descriptors;
    }
    if ended.saw(seen::ESTABLISHED) {
        return evidence;
    }
    if let Some(Fact::Icmp(icmp)) = of(kind::SYN_ICMP) {
        evidence.icmp = Some(icmp);
    }
    if let Some(Fact::Dropped(reason)) = of(kind::SYN_DROPPED) {
        evidence.drop_reason = engine.context.drop_reasons.name(reason);
    }
    if ended.tuple.local_port == 0
        && let Some(Fact::LocalPorts(range)) = of(kind::PORT_RANGE)
    {
        evidence.local_ports = Some(range);
    }
    evidence
}

/// Time from the first FIN, either way, to the end.
fn since_fin_us(ended: &Connection, at: u64) -> Option<u64> {
    let fin = ended.steps.iter().find(|step| step.is_fin())?;
    Some((at.saturating_sub(ended.first) / 1000).saturating_sub(fin.at_us()))
}

/// Whether a process had the connection; `None` where that would have been seen only by luck.
fn accepted(ended: &Connection, saw_close: bool, complete: bool) -> Option<bool> {
    if ended.saw(seen::ACCEPTED) {
        Some(true)
    } else if saw_close && complete {
        Some(false)
    } else {
        None
    }
}

fn reset_found<'a>(
    engine: &'a Engine,
    ended: &'a Connection,
    end: &'a End,
    stray: Option<&Base>,
    peer: Option<(&'a Process, Attribution)>,
    known: &Known,
) -> Option<ResetFound<'a>> {
    let context = &engine.context;
    if let Some(sent) = &end.sent {
        let (reason, reason_source) = reason(context, sent.reason, || derived(end, sent));
        let owner = ended.owner.as_ref();
        return Some(ResetFound {
            direction: Direction::Sent,
            reason,
            reason_source,
            origin: Origin::Local,
            confidence: Some(Confidence::Certain),
            evidence: None,
            sender: sender(sent, error(end), owner),
        });
    }
    // Data after a shutdown looks like a received reset until the answer to it is reported.
    end.received?;
    let received = |(origin, confidence), (reason, reason_source), sender| {
        Some(ResetFound {
            direction: Direction::Received,
            reason,
            reason_source,
            origin,
            confidence,
            evidence: known.packet,
            sender,
        })
    };
    let by_peer = (Origin::PeerOnNode, Some(Confidence::Certain));
    let by_someone = (Origin::Unknown, None);
    if let Some(PeerSent { sent, derived, err }) = &end.peer_sent {
        let reason = reason(context, sent.reason, || *derived);
        let sender = sender(sent, *err, ended.peer_owner.as_ref());
        return received(by_peer, reason, sender);
    }
    let unknown = (None, ReasonSource::Unknown);
    if let Some(stray) = stray {
        let reason = stray_reason(context, stray);
        // Nobody has a port that nothing listens on; TIME_WAIT and LISTEN are somebody's.
        let sender = peer.filter(|_| stray.kind != kind::RESET_SENT_NO_SOCKET);
        return received(by_peer, reason, sender);
    }
    let peer_is_here = peer.is_some() || ended.tuple.is_loopback();
    if !peer_is_here {
        // Looked for in vain, at an address of this node.
        let origin = if ended.saw(seen::ASKED) {
            by_someone
        } else {
            known.beyond()
        };
        return received(origin, unknown, None);
    }
    if !context.sees_all_resets {
        // Such a host shows not all that its own stack sends. Only a port that nothing listens on is
        // certain to have refused a connection.
        let port = ended.tuple.remote_port;
        let listened = engine.listeners.listened(ended.netns, port, end.at);
        if ended.saw(seen::ESTABLISHED) || listened {
            return received(by_someone, unknown, None);
        }
        let reason = (Some("NO_SOCKET"), ReasonSource::Derived);
        let likely = (Origin::PeerOnNode, Some(Confidence::Likely));
        return received(likely, reason, None);
    }
    // Every reset that a stack on this node sends was seen, and this was none of them.
    let certain = known.all && (context.sees_both_ends || peer.is_none());
    let origin = if certain {
        (Origin::InPath, Some(Confidence::Certain))
    } else {
        by_someone
    };
    received(origin, unknown, None)
}

/// The process that caused a reset, where one did.
fn sender<'a>(
    sent: &'a Sent,
    err: u32,
    owner: Option<&'a Owner>,
) -> Option<(&'a Process, Attribution)> {
    let owner = owner.map(|owner| (&*owner.process, owner.attribution));
    if sent.kind == kind::RESET_SENT_REPLY {
        // The stack answered on behalf of whoever has, or had, the socket.
        return owner;
    }
    let actor = sent.actor.as_deref();
    // An abort by its closer comes after CLOSE; before it come the timers, in nobody's context, and
    // tcp_abort, in that of an administrator's tool.
    let acted = sent.state == State::Close as u8 || err == ECONNABORTED;
    let process = actor.filter(|_| acted)?;
    let attribution = match owner {
        Some((owner, attribution)) if owner.pid == process.pid => attribution,
        _ => Attribution::Closer,
    };
    Some((process, attribution))
}

/// The kernel's name of a reason, or what else tells it.
fn reason(
    context: &Context,
    value: u8,
    derived: impl FnOnce() -> Option<&'static str>,
) -> (Option<&str>, ReasonSource) {
    if value != NO_REASON {
        // 0 is NOT_SPECIFIED: the kernel's way to say that it does not know.
        let name = context.reasons.name(value).filter(|_| value != 0);
        return name.map_or((None, ReasonSource::Unknown), |name| {
            (Some(name), ReasonSource::Kernel)
        });
    }
    derived().map_or((None, ReasonSource::Unknown), |name| {
        (Some(name), ReasonSource::Derived)
    })
}

/// The reason of a reset sent by this end, on kernels that do not tell it (before 6.10).
fn derived(end: &End, sent: &Sent) -> Option<&'static str> {
    if sent.kind == kind::RESET_SENT_REPLY {
        let after_shutdown = sent.state == State::Close as u8;
        return after_shutdown.then_some("TCP_ABORT_ON_DATA");
    }
    // A child that nobody accepted goes with its listener, read or not, by way of tcp_disconnect.
    let was_held = end.closed.is_none_or(|closed| closed.stats.has_socket != 0);
    let unread = was_held && end.stats().is_some_and(|stats| stats.unread > 0);
    match error(end) {
        ETIMEDOUT => Some("TCP_KEEPALIVE_TIMEOUT"),
        ECONNABORTED => Some("TCP_STATE"),
        _ if unread => Some("TCP_ABORT_ON_CLOSE"),
        _ => Some("TCP_STATE"),
    }
}

/// The reason of a reset that no connection's socket sent. A listener's answer has several.
fn stray_reason<'a>(context: &'a Context, base: &Base) -> (Option<&'a str>, ReasonSource) {
    reason(context, base.new, || match base.kind {
        kind::RESET_SENT_NO_SOCKET => Some("NO_SOCKET"),
        kind::RESET_SENT_TIME_WAIT => Some("TCP_TIMEWAIT_SOCKET"),
        _ => None,
    })
}

/// `SYN` and `ACK` in the flags byte of a TCP header.
const SYN: u8 = 1 << 1;
const ACK: u8 = 1 << 4;

/// Prints a reset that no connection's socket sent. It is nobody's: where the owner matters, it is wanted
/// for the connection that it hit.
pub(super) fn stray(engine: &Engine, stray: &Stray, clock: &impl WallClock, sink: &mut impl Sink) {
    if engine.context.wanted.by_owner() && stray.peer.is_none() {
        return;
    }
    let base = &stray.base;
    let tuple = Tuple::of(base);
    let (reason, reason_source) = stray_reason(&engine.context, base);
    let syn = base.kind == kind::RESET_SENT_NO_SOCKET && base.old & (SYN | ACK) == SYN;
    let meaning = playbook::stray(base.kind, syn);
    let mut record = StrayReset {
        schema: Schema,
        kind: ResetType,
        time: clock.at(base.ktime),
        seq: 0,
        peer_id: stray.peer,
        netns: (base.netns != 0).then_some(base.netns),
        family: Some(tuple.family()),
        local: Some(tuple.local()),
        remote: Some(tuple.remote()),
        direction: Direction::Sent,
        reason,
        reason_source,
        count: stray.count,
        flag: syn.then_some(Flag::ResetBeforePayload),
        cause: meaning.cause,
        layer: Some(meaning.layer),
        hint: meaning.hint,
    };
    sink.reset(&mut record, stray.count);
}

/// Prints one event.
pub(super) fn event(
    engine: &Engine,
    event: Event<'_>,
    slot: Option<Slot>,
    clock: &impl WallClock,
    sink: &mut impl Sink,
) {
    let base = event.base;
    let tuple = Tuple::of(base);
    let connection = slot.and_then(|slot| engine.table.get(slot));
    let (reason, _) = match base.kind {
        kind::STATE => (None, ReasonSource::Unknown),
        kind::SYN_DROPPED => (
            engine.context.drop_reasons.name(base.new),
            ReasonSource::Kernel,
        ),
        _ => reason(&engine.context, base.new, || None),
    };
    let (name, acted) = match base.kind {
        // What the network ends runs in the context of whoever the packet met.
        kind::STATE => (
            "inet_sock_set_state",
            event.stats.is_none_or(|stats| stats.err == 0),
        ),
        kind::CONNECT => ("tcp_connect", true),
        kind::ACCEPT => ("inet_csk_accept", true),
        kind::RESET_RECEIVED => ("tcp_receive_reset", false),
        kind::SYN_RETRANSMIT => ("tcp_retransmit_skb", false),
        kind::SYN_ICMP if base.family == IPV4 => ("tcp_v4_err", false),
        kind::SYN_ICMP => ("tcp_v6_err", false),
        kind::SYN_DROPPED => ("kfree_skb", false),
        kind::RESET_PACKET => ("tcp_reset", false),
        kind::DESTROY => ("tcp_destroy_sock", false),
        kind::HELD => ("task_file", true),
        _ => ("tcp_send_reset", false),
    };
    let pid = event.actor.map_or(0, |actor| actor.tgid);
    let mut record = record::Event {
        schema: Schema,
        kind: EventType,
        time: clock.at(base.ktime),
        seq: 0,
        id: connection.map(|connection| Id {
            run: engine.context.run,
            serial: connection.serial,
        }),
        netns: (base.netns != 0).then_some(base.netns),
        family: tuple.family(),
        local: tuple.local(),
        remote: tuple.remote(),
        event: name,
        from: State::from_kernel(base.old).filter(|_| {
            !matches!(
                base.kind,
                kind::RESET_SENT_NO_SOCKET | kind::SYN_ICMP | kind::SYN_DROPPED
            )
        }),
        to: State::from_kernel(base.new).filter(|_| base.kind == kind::STATE),
        reason: reason.filter(|_| {
            (kind::RESET_SENT_ACTIVE..=kind::RESET_SENT_LISTEN).contains(&base.kind)
                || base.kind == kind::SYN_DROPPED
        }),
        errno: event.stats.and_then(|stats| tcp::errno_name(stats.err)),
        pid: (acted && pid != 0).then_some(pid),
    };
    sink.event(&mut record);
}
