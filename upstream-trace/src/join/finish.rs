//! From a connection that ended to the record that is printed.
//!
//! Whose process is named is decided here, who sent a reset in [`reset`], what else is known and said of a failure in [`evidence`].
//! Must not know: the order in which events came.

use upstream_trace_common::event::{Base, IPV4, Stats, exit, kind};

use super::{
    connection::{Connection, End, PeerSent, Slot, seen},
    engine::{Context, Engine, Sink, WallClock},
    evidence,
    reset::{self, Known, ResetFound, aborts, derived, error, reason},
    stray::{self, Stray},
    tuple::Tuple,
};
use crate::{
    decode::Event,
    process::Process,
    record::{
        self, Attribution, ConnectionType, EventType, Flag, Id, ResetType, Role, Schema,
        StrayReset, Verdict,
    },
    tcp::{self, State},
    verdict::{
        facts::{self, Counters, Facts},
        playbook::{self, StrayKind},
        rules,
        way::{self, Arrival},
    },
};

/// A reset that was sent on this node longer ago than this has arrived, through whatever queues.
const ARRIVED_NS: u64 = 1_000_000_000;
/// How long after its last payload a client's FIN may come and still belong to it: none gives up waiting as soon.
const TOGETHER_NS: u64 = 50_000_000;

/// Takes the connection in `slot` out of the table and prints it.
pub(super) fn connection(
    engine: &mut Engine,
    slot: Slot,
    clock: &impl WallClock,
    sink: &mut impl Sink,
) {
    let is_late = is_late(engine, slot);
    if !is_late {
        leave_to_peer(engine, slot);
    }
    if let Some(ended) = engine.table.get(slot)
        && let Some((end, stats)) = wanted(&engine.context, ended)
    {
        let id = Id {
            run: engine.context.run,
            serial: ended.serial,
        };
        // Looked up also where this end sent the reset itself: the other end's answer to it may be there.
        // None that was sent before this connection was there.
        let strays = &mut engine.strays;
        let stray = strays.claim(ended.netns, &ended.tuple, ended.lived(), id);
        let stray = stray.or_else(|| {
            let (received, at) = reset::lacks_sender(ended)?;
            strays.claim_translated(received, at, id)
        });
        if !is_late {
            print(engine, ended, (end, stats), id, stray.as_ref(), clock, sink);
        }
    }
    engine.table.remove(slot);
}

/// Whether it ended when the hooks were to be taken out: it is not told, only that its reset was.
fn is_late(engine: &Engine, slot: Slot) -> bool {
    let ended = engine.table.get(slot);
    let end = ended.and_then(|ended| ended.end.as_ref());
    end.is_some_and(|end| end.at > engine.until)
}

/// The end of a connection that was asked for, and its socket's counters then. Nothing is said of an end that was not seen: the loss
/// is counted, a verdict would be invented.
fn wanted<'a>(context: &Context, ended: &'a Connection) -> Option<(&'a End, &'a Stats)> {
    let wanted = &context.wanted;
    let end = ended.end.as_deref()?;
    let stats = end.stats()?;
    let is_wanted = wanted.port(ended.tuple.local_port, ended.tuple.remote_port)
        && (!wanted.by_owner() || ended.saw(seen::WANTED));
    is_wanted.then_some((end, stats))
}

/// Each end's record needs something of the other, whichever is printed first.
fn leave_to_peer(engine: &mut Engine, slot: Slot) {
    let received = |connection: &Connection| {
        let stats = connection.end.as_ref().and_then(|end| end.stats());
        stats.and_then(facts::received)
    };
    let Some((ended, peer)) = engine.table.with_peer(slot) else {
        return;
    };
    peer.seen |= seen::PEER_ENDED;
    match (ended.role, peer.role) {
        (Role::Unknown, known) => ended.role = known.opposite(),
        (known, Role::Unknown) => peer.role = known.opposite(),
        _ => {}
    }
    peer.peer_owner.clone_from(&ended.owner);
    if ended.peer_owner.is_none() {
        ended.peer_owner.clone_from(&peer.owner);
    }
    peer.peer_received = received(ended);
    ended.peer_received = ended.peer_received.or_else(|| received(peer));
    peer.peer_exit = ended.exit;
    if ended.peer_exit == exit::NONE {
        ended.peer_exit = peer.exit;
    }
    // Both are born within one round trip, so after the tracer: one birth was kept from its hook.
    let one_unborn = peer.saw(seen::BIRTH) != ended.saw(seen::BIRTH)
        && ended.first.min(peer.first) >= engine.context.since;
    let known_loss = (peer.seen | ended.seen) & seen::LOSS != 0;
    if is_aborted_unseen(peer) {
        ended.seen |= seen::PEER_ABORTED;
    }
    if is_aborted_unseen(ended) {
        peer.seen |= seen::PEER_ABORTED;
    }
    let sent_by = |connection: &Connection| connection.end.as_deref().and_then(sent);
    let (by_peer, by_ended) = (sent_by(peer), sent_by(ended));
    if let (Some(end), Some(sent)) = (&mut ended.end, by_peer) {
        end.peer_sent = Some(sent);
    }
    let peer = ended.peer;
    if let Some(sent) = by_ended
        && let Some(end) = engine.table.end(peer)
    {
        end.peer_sent = Some(sent);
    }
    if one_unborn && !known_loss && engine.context.sees_both_ends {
        engine.unseen += 1;
    }
}

/// Whether its owner ended it from where only an abort leads at once to `CLOSE`, without an error, and no reset that it sent is known.
fn is_aborted_unseen(connection: &Connection) -> bool {
    const OPEN: [u8; 2] = [State::Established as u8, State::CloseWait as u8];
    connection.end.as_deref().is_some_and(|end| {
        let closed = end.closed.as_ref();
        let is_abort = closed.is_some_and(|closed| OPEN.contains(&closed.from));
        is_abort && end.sent.is_none() && end.received.is_none() && error(end) == 0
    })
}

/// What the other end needs of a reset that this one sent.
fn sent(end: &End) -> Option<PeerSent> {
    let sent = end.sent.clone()?;
    let derived = derived(end, &sent);
    let err = error(end);
    let aborts = aborts(end, &sent);
    Some(PeerSent {
        sent,
        derived,
        err,
        aborts,
    })
}

fn counters(ended: &Connection, end: &End, stats: &Stats, tick_ns: u64) -> Counters {
    let lived = end.at.saturating_sub(ended.first) / 1000;
    Counters {
        lived_us: ended.saw(seen::BIRTH).then_some(lived),
        ..Counters::new(stats, ended.role, ended.saw(seen::FIN_SENT), tick_ns)
    }
}

/// `stray` is the reset that the other end was sent without a socket.
fn print(
    engine: &Engine,
    ended: &Connection,
    (end, stats): (&End, &Stats),
    id: Id,
    stray: Option<&Base>,
    clock: &impl WallClock,
    sink: &mut impl Sink,
) {
    let before = |at: Option<u64>| at.is_none_or(|at| at < ended.first);
    let complete = ended.saw(seen::BIRTH) && !ended.saw(seen::LOSS) && before(engine.lost_at);
    let long_before = |at: u64| at.saturating_add(ARRIVED_NS) < end.at;
    let none_skipped = engine.counted_at >= end.at
        && (before(engine.skipped_at) || engine.skipped_at.is_some_and(long_before));
    let saw_all_resets = complete && none_skipped && engine.strays.knew_all(end.at);
    let counters = counters(ended, end, stats, engine.context.tick_ns);
    let context = &engine.context;
    let peer = other_end(engine, ended, stray);
    let tick_us = context.tick_ns / 1000;
    let packet = |arrival: &Arrival| way::evidence(arrival, &counters, tick_us);
    let known = Known {
        all: saw_all_resets,
        packet: end.arrival.as_ref().map(packet),
        lived_us: counters.lived_us,
    };
    let reset = reset::found(engine, ended, end, stray, peer, &known);

    let err = error(end);
    let accepted = accepted(ended, end, complete);
    let orderly =
        ended.saw(seen::ESTABLISHED) && accepted != Some(false) && reset.is_none() && err == 0;
    // No more is said of how full a queue was, or of what was dropped, where all went well in the end.
    let noted = (!orderly).then(|| evidence::noted(engine, ended));
    let waited = has_waited(engine, ended, stats);
    let facts = Facts {
        role: ended.role,
        established: ended.saw(seen::ESTABLISHED),
        accepted,
        closed_first: ended.saw(seen::CLOSED_FIRST),
        peer_closed_first: ended.saw(seen::PEER_CLOSED_FIRST),
        payload_after_fin: payload_after_fin(ended, stats, &counters),
        half_closed: end.is_open() && waited == Some(false),
        has_waited: waited == Some(true),
        err,
        reset: reset.as_ref().map(|reset| reset.direction),
        reset_in_path: reset.as_ref().is_some_and(ResetFound::is_certainly_in_path),
        reset_unseen: !complete,
        has_local_port: ended.tuple.local_port != 0,
        icmp: noted.as_ref().is_some_and(|noted| noted.icmp.is_some()),
        peer_received_payload: ended.peer_received.map(|bytes| bytes > 0),
        counters,
    };
    let judgement = rules::judge(&facts, context.idle_after_us);
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
        timeline: ended.steps.as_slice(),
        bytes: facts.counters.bytes,
        idle_us: facts.counters.idle_us(),
        rtt_us: facts.counters.rtt_us,
        retransmits: facts.counters.retransmits,
        errno: None,
        reset: None,
        verdict: judgement.verdict,
        flag: judgement.flag,
        cause: None,
        layer: None,
        evidence: None,
        proxy: None,
        hint: None,
        complete,
    };
    if !orderly || judgement.verdict != Verdict::Ok {
        let found = noted.unwrap_or_default();
        evidence::explain(
            engine,
            &mut record,
            ended,
            &facts,
            (reset.as_ref(), stray),
            found,
        );
    }
    sink.connection(&mut record, ended.events);
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
    let owner = |at| listeners.owner(stray.netns, &Tuple::of(stray), at);
    let process = owner(stray.ktime)?;
    // Who began to listen later never had the connection.
    let then = owner(ended.first).filter(|_| ended.saw(seen::BIRTH))?;
    (then.pid == process.pid).then_some((&**process, Attribution::Listener))
}

/// Whether payload certainly went either way after the first FIN, by the kernel's own clock for both.
fn payload_after_fin(ended: &Connection, stats: &Stats, counters: &Counters) -> bool {
    let Some(fin) = ended.fin else {
        return false;
    };
    let after = |jiffies: u32| jiffies.wrapping_sub(fin).cast_signed() > 0;
    counters.since_sent_us.is_some() && after(stats.last_sent)
        || counters.since_received_us.is_some() && after(stats.last_received)
}

/// Whether the client had been silent before the first FIN: whoever gives up has waited, what is sent together comes together.
fn has_waited(engine: &Engine, ended: &Connection, stats: &Stats) -> Option<bool> {
    let last = match ended.role {
        Role::Client => stats.last_sent,
        Role::Server => stats.last_received,
        Role::Unknown => return None,
    };
    let ticks = ended.fin?.wrapping_sub(last);
    let ns = u64::from(ticks).saturating_mul(engine.context.tick_ns);
    // Sent after the FIN, it wraps.
    Some(ns > TOGETHER_NS && ticks.cast_signed() > 0)
}

/// Whether a process had the connection; `None` where that would have been seen only by luck.
fn accepted(ended: &Connection, end: &End, complete: bool) -> Option<bool> {
    if ended.saw(seen::ACCEPTED) {
        Some(true)
    } else if end.closed.is_some() && complete && !reset::detached(end) {
        Some(false)
    } else {
        None
    }
}

/// Prints a reset that belongs to no connection of this node. It is nobody's: where the owner matters, it is wanted
/// for the connection that it hit.
pub(super) fn stray(engine: &Engine, stray: &Stray, clock: &impl WallClock, sink: &mut impl Sink) {
    let base = &stray.base;
    let is_unwanted = engine.context.wanted.by_owner() && stray.peer.is_none();
    if is_unwanted || base.ktime > engine.until {
        return;
    }
    let tuple = Tuple::of(base);
    let Some(what) = stray::kind_of(&engine.context, base) else {
        return;
    };
    let Context {
        knows_listeners,
        local_ports,
        ..
    } = &engine.context;
    let is_a_clients = local_ports
        .as_ref()
        .is_some_and(|ports| ports.contains(&base.local_port));
    let is_clients =
        *knows_listeners && is_a_clients && !engine.listeners.ever(base.netns, base.local_port);
    let what = if is_clients { what.of_client() } else { what };
    let (reason, reason_source) = stray::reason(&engine.context, base);
    let meaning = playbook::stray(what);
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
        direction: what.direction(),
        reason,
        reason_source,
        count: stray.count,
        flag: (what == StrayKind::NoListener).then_some(Flag::ResetBeforePayload),
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
    let reason = match base.kind {
        kind::RESET_SENT_ACTIVE..=kind::RESET_SENT_LISTEN => {
            reason(&engine.context, base.new, || None).0
        }
        kind::SYN_DROPPED | kind::RESET_DROPPED => engine.context.drop_reasons.name(base.new),
        _ => None,
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
        kind::SYN_DROPPED | kind::RESET_DROPPED => ("kfree_skb", false),
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
        reason,
        errno: event.stats.and_then(|stats| tcp::errno_name(stats.err)),
        pid: (acted && pid != 0).then_some(pid),
    };
    sink.event(&mut record);
}
