//! From a connection that ended to the record that is printed.
//!
//! What is known of it beyond its own end is put together in `ending`, who sent a reset is found in [`reset`], what else is
//! known and said of a failure in [`evidence`].
//! Must not know: the order in which events came.

use upstream_trace_common::event::{Stats, exit};

use super::{
    connection::{Connection, End, Named, Owner, Slot, seen},
    ending::{self, Ending},
    engine::{Context, Engine, Sink, WallClock},
    evidence,
    reset::{self, ResetFound},
};
use crate::{
    record::{self, ConnectionType, Evidence, Id, Role, Schema, Verdict},
    tcp::State,
    verdict::{
        facts::{self, Facts},
        rules::{self, Judgement},
    },
};

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
        && let Some(end) = wanted(&engine.context, ended)
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
            let ending = Ending::new(engine, ended, end, stray.as_ref());
            print(&ending, id, clock, sink);
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
    // Most are told no more.
    if !(ended.has_parted() && peer.has_parted()) {
        let (tick_ns, lost_at) = (engine.context.tick_ns, engine.lost_at);
        peer.seen |= ending::seen_by_peer(ended, tick_ns, lost_at);
        ended.seen |= ending::seen_by_peer(peer, tick_ns, lost_at);
    }
    peer.peer_received = received(ended);
    ended.peer_received = ended.peer_received.or_else(|| received(peer));
    peer.peer_exit = exit_before(ended, peer);
    if ended.peer_exit == exit::NONE {
        ended.peer_exit = exit_before(peer, ended);
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
    let sent_by = |connection: &Connection| connection.end.as_deref().and_then(reset::sent);
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

/// How the owner came to its end, unless the other end was over before that.
fn exit_before(connection: &Connection, other: &Connection) -> u8 {
    if connection.exit == exit::NONE {
        return exit::NONE;
    }
    let over = other.ended_at().unwrap_or(u64::MAX);
    let closed = connection.closed_at().unwrap_or(0);
    if closed <= over {
        connection.exit
    } else {
        exit::NONE
    }
}

/// Whether its owner ended it from where only an abort leads at once to `CLOSE`, without an error, and no reset that it sent is known.
fn is_aborted_unseen(connection: &Connection) -> bool {
    const OPEN: [u8; 2] = [State::Established as u8, State::CloseWait as u8];
    connection.end.as_deref().is_some_and(|end| {
        let closed = end.closed.as_ref();
        let is_abort = closed.is_some_and(|closed| OPEN.contains(&closed.from));
        is_abort && end.sent.is_none() && end.received.is_none() && end.err() == 0
    })
}

fn print(ending: &Ending<'_>, id: Id, clock: &impl WallClock, sink: &mut impl Sink) {
    let reset = reset::found(ending);
    let orderly = is_orderly(ending, reset.as_ref());
    // No more is said of how full a queue was, or of what was dropped, where all went well in the end.
    let noted = (!orderly).then(|| evidence::noted(ending));
    let facts = facts(ending, reset.as_ref(), noted.as_ref());
    let judgement = rules::judge(&facts, ending.engine.context.idle_after_us);
    let mut record = record(ending, judgement, id, clock);
    if !orderly || judgement.verdict != Verdict::Ok {
        let noted = noted.unwrap_or_default();
        evidence::explain(ending, &mut record, &facts, reset.as_ref(), noted);
    } else {
        record.evidence = evidence::of_kill(ending.connection);
    }
    sink.connection(&mut record, ending.connection.events);
}

/// Whether nothing failed on the way: neither the network nor whoever was to have it.
fn is_orderly(ending: &Ending<'_>, reset: Option<&ResetFound<'_>>) -> bool {
    ending.connection.saw(seen::ESTABLISHED)
        && ending.accepted() != Some(false)
        && reset.is_none()
        && ending.end.err() == 0
}

/// What is judged.
fn facts(
    ending: &Ending<'_>,
    reset: Option<&ResetFound<'_>>,
    noted: Option<&Evidence<'_>>,
) -> Facts {
    let connection = ending.connection;
    let closing = ending.closing();
    let waited = closing.has_waited();
    let is_open = ending.end.is_open() && !connection.saw(seen::LEFT);
    Facts {
        role: connection.role,
        established: connection.saw(seen::ESTABLISHED),
        accepted: ending.accepted(),
        closed_first: connection.saw(seen::CLOSED_FIRST),
        peer_closed_first: connection.saw(seen::PEER_CLOSED_FIRST),
        payload_after_fin: closing.has_payload_after_fin(),
        half_closed: is_open && waited == Some(false),
        has_waited: waited == Some(true),
        closed_behind_payload: closing.is_behind_payload(),
        left_unanswered: closing.has_left_unanswered(),
        is_open,
        peer_unanswered: connection.saw(seen::PEER_UNANSWERED),
        peer_unaccepted: connection.saw(seen::PEER_UNACCEPTED),
        peer_said_goodbye: connection.saw(seen::PEER_SAID_GOODBYE),
        peer_sent_in_vain: connection.saw(seen::PEER_SENT_IN_VAIN),
        peer_seen: connection.is_paired(),
        err: ending.end.err(),
        destroyed: ending.is_destroyed(),
        reset: reset.map(|reset| reset.direction),
        reset_in_path: reset.is_some_and(ResetFound::is_certainly_in_path),
        reset_by_stranger: ending.is_reset_by_stranger(),
        reset_unseen: !ending.complete,
        has_local_port: connection.tuple.local_port != 0,
        icmp: noted.is_some_and(|noted| noted.icmp.is_some()),
        peer_received_payload: connection.peer_received.map(|bytes| bytes > 0),
        counters: ending.counters,
    }
}

/// The record of a connection that went well; [`evidence::explain`] adds the rest.
fn record<'a>(
    ending: &Ending<'a>,
    judgement: Judgement,
    id: Id,
    clock: &impl WallClock,
) -> record::Connection<'a> {
    let connection = ending.connection;
    let owner = connection.owner.as_ref().map(Owner::named);
    let process = |named: Option<Named<'a>>| named.map(|(process, how)| process.record(how));
    record::Connection {
        schema: Schema,
        kind: ConnectionType,
        time: clock.at(ending.end.at),
        seq: 0,
        id,
        netns: (connection.netns != 0).then_some(connection.netns),
        family: connection.tuple.family(),
        local: connection.tuple.local(),
        remote: connection.tuple.remote(),
        role: connection.role,
        process: process(owner),
        peer: process(ending.peer),
        started: connection
            .saw(seen::BIRTH)
            .then(|| clock.at(connection.first)),
        duration_us: connection.at_us(ending.end.at),
        timeline: connection.steps.as_slice(),
        bytes: ending.counters.bytes,
        idle_us: ending.counters.idle_us(),
        rtt_us: ending.counters.rtt_us,
        retransmits: ending.counters.retransmits,
        errno: None,
        reset: None,
        verdict: judgement.verdict,
        flag: judgement.flag,
        cause: None,
        layer: None,
        evidence: None,
        proxy: None,
        hint: None,
        complete: ending.complete,
    }
}
