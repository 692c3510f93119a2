//! What is known of a connection that did not go well beside its counters and its reset, and what the playbook says of it.
//!
//! Must not know: how it was judged.

use upstream_trace_common::event::{Base, exit, kind};

use super::{
    connection::{Connection, seen},
    engine::Engine,
    note::{Fact, Queue},
    reset::{ResetFound, error},
    tuple::Tuple,
};
use crate::{
    process::Process,
    record::{self, Attribution, Direction, Endpoint, Evidence, Origin, Role, Verdict},
    tcp::{self, State},
    verdict::{facts::Facts, playbook},
};

/// A server that closes a connection sooner than this, before anything came, does not want it; no idle timeout is as short.
const AT_ONCE_US: u64 = 1_000_000;

/// What the kernel side noted of it. No more of an established connection than how full its accept queue was.
pub(super) fn noted<'a>(engine: &'a Engine, ended: &Connection) -> Evidence<'a> {
    let of = |kind| {
        let notes = &engine.notes;
        notes.of(ended.netns, &ended.tuple, kind, ended.first)
    };
    let mut evidence = Evidence::default();
    if let Some(queue) = accept_queue(engine, ended) {
        evidence.accept_queue = Some(queue.is);
        evidence.descriptors = queue.descriptors;
    }
    if ended.saw(seen::ESTABLISHED) {
        return evidence;
    }
    if let Some(&Fact::Icmp(icmp)) = of(kind::SYN_ICMP) {
        evidence.icmp = Some(icmp);
    }
    if let Some(Fact::Dropped(dropped)) = of(kind::SYN_DROPPED) {
        evidence.drop_reason = engine.context.drop_reasons.name(dropped.reason);
    }
    if ended.tuple.local_port == 0
        && let Some(&Fact::LocalPorts(range)) = of(kind::PORT_RANGE)
    {
        evidence.local_ports = Some(range);
    }
    evidence
}

/// Adds what is said of a connection that did not go well.
/// `stray` is the reset that the other end was sent without a socket, `evidence` what was [`noted`].
pub(super) fn explain<'a>(
    engine: &'a Engine,
    record: &mut record::Connection<'a>,
    ended: &Connection,
    facts: &Facts,
    (reset, stray): (Option<&ResetFound<'a>>, Option<&Base>),
    mut evidence: Evidence<'a>,
) {
    let end = ended.end.as_deref();
    let peer = end.and_then(|end| end.peer_tuple);
    let peer = peer.or_else(|| stray.map(Tuple::of));
    evidence.peer_address = peer.and_then(|peer| own_address(ended, peer));
    match record.verdict {
        Verdict::ConnectTimeout | Verdict::ConnectCanceled => {
            let listener = without_room(engine, ended, &evidence);
            let listener = listener.map(|(process, how)| process.record(how));
            record.peer = record.peer.or(listener);
        }
        // An answer came, or no SYN left: that there was no room is by the way.
        _ if !ended.saw(seen::ESTABLISHED) && ended.role == Role::Client => {
            (evidence.accept_queue, evidence.descriptors) = (None, None);
        }
        _ => {}
    }
    evidence.exit = exit_of(ended, reset, record.verdict);
    evidence.abort = reset.and_then(ResetFound::abort);
    let lacks_port = record.verdict == Verdict::NoLocalPort && record.local.port == 0;
    let told = end.filter(|end| end.is_open());
    record.errno = told
        .and_then(|end| tcp::errno_name(error(end)))
        .or(lacks_port.then_some("EADDRNOTAVAIL"));
    let meaning = playbook::meaning(&playbook::About {
        verdict: record.verdict,
        facts: *facts,
        reset: reset.map(|reset| (reset.direction, reset.origin, reset.reason)),
        undelivered: ended.peer_received.is_some() && ended.peer_received < record.bytes.sent,
        likely: reset.is_some_and(ResetFound::is_likely),
        errno: record.errno,
        local: record.local.address,
        is_closed_at_once: was_closed_at_once(ended),
        is_open: told.is_some(),
        evidence,
    });
    record.reset = reset.map(ResetFound::record);
    record.cause = meaning.and_then(|meaning| meaning.cause);
    record.layer = meaning.map(|meaning| meaning.layer);
    record.evidence = Some(evidence).filter(|found| *found != Evidence::default());
    record.proxy = meaning.and_then(|meaning| meaning.proxy);
    record.hint = meaning.map(|meaning| meaning.hint);
}

/// Whether the first FIN came at once.
fn was_closed_at_once(ended: &Connection) -> bool {
    const FIN: [State; 2] = [State::CloseWait, State::FinWait1];
    let is_fin = |step: &&record::Step| step.change().is_some_and(|(_, to)| FIN.contains(&to));
    // Of one that is older the first step may be the FIN.
    let fin = ended.steps.as_slice().iter().find(is_fin);
    fin.is_some_and(|step| ended.saw(seen::BIRTH) && step.at_us() < AT_ONCE_US)
}

/// Where the other end is, as that knows itself, if this one knows it by another address or port.
fn own_address(ended: &Connection, peer: Tuple) -> Option<Endpoint> {
    let known = ended.tuple;
    let differs = (peer.family, peer.local, peer.local_port)
        != (known.family, known.remote, known.remote_port);
    differs.then(|| peer.local())
}

/// Who listens where a SYN was not answered because the accept queue was full, and nothing else is known to have been why.
fn without_room<'a>(
    engine: &'a Engine,
    ended: &Connection,
    evidence: &Evidence<'_>,
) -> Option<(&'a Process, Attribution)> {
    evidence.accept_queue.filter(|queue| queue.is_full())?;
    let process = accept_queue(engine, ended)?.process.as_ref()?;
    let alone = evidence.icmp.is_none() && evidence.drop_reason.is_none();
    alone.then_some((process, Attribution::Listener))
}

/// The accept queue that it was to go through, as far as that was noted.
fn accept_queue<'a>(engine: &'a Engine, ended: &Connection) -> Option<&'a Queue> {
    let (netns, tuple) = (ended.netns, &ended.tuple);
    let notes = &engine.notes;
    match notes.of(netns, tuple, kind::ACCEPT_QUEUE, ended.first)? {
        Fact::AcceptQueue(queue) => Some(queue),
        _ => None,
    }
}

/// How the process came to its end for whom the kernel ended the connection.
fn exit_of(
    ended: &Connection,
    reset: Option<&ResetFound<'_>>,
    verdict: Verdict,
) -> Option<record::Exit<'static>> {
    let by_this_end = match (reset.map(|reset| (reset.direction, reset.origin)), verdict) {
        (Some((Direction::Sent, _)), _) | (None, Verdict::ConnectCanceled) => true,
        (Some((Direction::Received, Origin::PeerOnNode)), _) => false,
        (None, Verdict::ClosedBeforeResponse) => ended.role == Role::Server,
        _ => return None,
    };
    let exit = if by_this_end {
        ended.exit
    } else {
        ended.peer_exit
    };
    let signal = exit.checked_sub(exit::ENDS)?;
    Some(record::Exit {
        signal: tcp::signal_name(signal.into()),
    })
}
