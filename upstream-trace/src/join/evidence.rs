//! What is known of a connection that did not go well beside its counters and its reset, and what the playbook says of it.
//!
//! Must not know: how it was judged.

use upstream_trace_common::event::{IPV4, exit, kind};

use super::{
    connection::{Connection, Named, seen},
    ending::Ending,
    note::{Fact, Queue},
    reset::ResetFound,
    tuple::Tuple,
};
use crate::{
    record::{self, Attribution, Direction, Endpoint, Evidence, Icmp, Origin, Role, Verdict},
    tcp::{self, State},
    verdict::{facts::Facts, playbook},
};

/// A server that closes a connection sooner than this, before anything came, does not want it; no idle timeout is as short.
const AT_ONCE_US: u64 = 1_000_000;

/// What the kernel side noted of it. No more of an established connection than how full its accept queue was.
pub(super) fn noted<'a>(ending: &Ending<'a>) -> Evidence<'a> {
    let Ending {
        engine, connection, ..
    } = *ending;
    let mut evidence = Evidence::default();
    if let Some(queue) = accept_queue(ending) {
        evidence.accept_queue = Some(queue.is);
        evidence.descriptors = queue.descriptors;
    }
    if connection.saw(seen::ESTABLISHED) {
        return evidence;
    }
    if let Some(&Fact::Icmp(icmp)) = ending.note(kind::SYN_ICMP) {
        evidence.icmp = Some(icmp);
    }
    if let Some(Fact::Dropped(dropped)) = ending.note(kind::SYN_DROPPED) {
        evidence.drop_reason = engine.context.drop_reasons.name(dropped.reason);
    }
    if connection.tuple.local_port == 0
        && let Some(&Fact::LocalPorts(range)) = ending.note(kind::PORT_RANGE)
    {
        evidence.local_ports = Some(range);
    }
    evidence
}

/// Adds what is said of a connection that did not go well; `evidence` is what was [`noted`].
pub(super) fn explain<'a>(
    ending: &Ending<'a>,
    record: &mut record::Connection<'a>,
    facts: &Facts,
    reset: Option<&ResetFound<'a>>,
    mut evidence: Evidence<'a>,
) {
    let connection = ending.connection;
    match record.verdict {
        Verdict::ConnectTimeout | Verdict::ConnectCanceled => {
            let listener = without_room(ending, &evidence);
            let listener = listener.map(|(process, how)| process.record(how));
            record.peer = record.peer.or(listener);
        }
        // An answer came, or no SYN left: that there was no room is by the way.
        _ if !connection.saw(seen::ESTABLISHED) && connection.role == Role::Client => {
            (evidence.accept_queue, evidence.descriptors) = (None, None);
        }
        _ => {}
    }
    evidence.peer_address = own_address_of_peer(ending);
    let (exit, is_closer_killed) = exit_of(connection, reset, record.verdict);
    evidence.exit = exit;
    // Who comes to its end closes all that it has, however it was to be closed.
    let on_purpose = reset.filter(|_| exit.is_none() || is_closer_killed);
    evidence.abort = on_purpose.and_then(ResetFound::abort);
    record.errno = errno(ending, record.verdict, evidence.icmp);
    record.evidence = Some(evidence).filter(|found| *found != Evidence::default());
    record.reset = reset.map(ResetFound::record);
    let about = about(ending, record, facts, reset, (evidence, is_closer_killed));
    let meaning = playbook::meaning(&about);
    record.cause = meaning.and_then(|meaning| meaning.cause);
    record.layer = meaning.map(|meaning| meaning.layer);
    record.proxy = meaning.and_then(|meaning| meaning.proxy);
    record.hint = meaning.map(|meaning| meaning.hint);
}

/// What is known of one that went well but was closed because a signal killed a process: more may have been asked of that than is seen.
pub(super) fn of_kill(ended: &Connection) -> Option<Evidence<'static>> {
    let exit = if ended.saw(seen::CLOSED_FIRST) {
        ended.exit
    } else {
        ended.peer_exit
    };
    Some(Evidence {
        exit: Some(by_signal(exit)?),
        ..Evidence::default()
    })
}

/// What the playbook asks for.
fn about<'a>(
    ending: &Ending<'_>,
    record: &record::Connection<'_>,
    facts: &Facts,
    reset: Option<&ResetFound<'a>>,
    (evidence, is_closer_killed): (Evidence<'a>, bool),
) -> playbook::About<'a> {
    let connection = ending.connection;
    let peer_received = connection.peer_received;
    playbook::About {
        verdict: record.verdict,
        facts: *facts,
        reset: reset.map(|reset| (reset.direction, reset.origin, reset.reason)),
        undelivered: peer_received.is_some() && peer_received < record.bytes.sent,
        likely: reset.is_some_and(ResetFound::is_likely),
        errno: record.errno,
        local: record.local.address,
        is_closed_at_once: was_closed_at_once(connection),
        is_closer_killed,
        evidence,
    }
}

/// What a process was told that still had the socket, or that asked for a port in vain; or would have been, had it asked: an
/// ICMP error that comes while it is still in `connect()` is noted in `sk_err_soft`, which leaves no trace (`tcp_v4_err`).
fn errno(ending: &Ending<'_>, verdict: Verdict, icmp: Option<Icmp>) -> Option<&'static str> {
    let end = Some(ending.end).filter(|end| end.is_open());
    let told = end.and_then(|end| tcp::errno_name(end.err()));
    let lacks_port = verdict == Verdict::NoLocalPort && ending.connection.tuple.local_port == 0;
    let softly = || {
        let icmp = icmp.filter(|_| verdict == Verdict::Unreachable)?;
        let is_v4 = ending.connection.tuple.family == IPV4;
        tcp::errno::of_unreachable(is_v4, icmp.kind, icmp.code)
    };
    told.or(lacks_port.then_some("EADDRNOTAVAIL"))
        .or_else(softly)
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
fn own_address_of_peer(ending: &Ending<'_>) -> Option<Endpoint> {
    let peer = ending.end.peer_tuple;
    let peer = peer.or_else(|| ending.stray.map(Tuple::of))?;
    let known = ending.connection.tuple;
    let differs = (peer.family, peer.local, peer.local_port)
        != (known.family, known.remote, known.remote_port);
    differs.then(|| peer.local())
}

/// Who listens where a SYN was not answered because the accept queue was full, and nothing else is known to have been why.
fn without_room<'a>(ending: &Ending<'a>, evidence: &Evidence<'_>) -> Option<Named<'a>> {
    evidence.accept_queue.filter(|queue| queue.is_full())?;
    let process = accept_queue(ending)?.process.as_ref()?;
    let alone = evidence.icmp.is_none() && evidence.drop_reason.is_none();
    alone.then_some((process, Attribution::Listener))
}

/// The accept queue that it was to go through, as far as that was noted.
fn accept_queue<'a>(ending: &Ending<'a>) -> Option<&'a Queue> {
    match ending.note(kind::ACCEPT_QUEUE)? {
        Fact::AcceptQueue(queue) => Some(queue),
        _ => None,
    }
}

/// How the process came to its end for whom the kernel ended the connection. Else how that was killed which had closed first, and whose
/// FIN the other end answered by a reset; whether it is that one.
fn exit_of(
    ended: &Connection,
    reset: Option<&ResetFound<'_>>,
    verdict: Verdict,
) -> (Option<record::Exit<'static>>, bool) {
    let by_this_end = match (reset.map(|reset| (reset.direction, reset.origin)), verdict) {
        (Some((Direction::Sent, _)), _) | (None, Verdict::ConnectCanceled | Verdict::Timeout) => {
            true
        }
        (Some((Direction::Received, Origin::PeerOnNode)), _) => false,
        (None, Verdict::ClosedBeforeResponse) => ended.role == Role::Server,
        _ => return (None, false),
    };
    let this = (ended.exit, seen::CLOSED_FIRST);
    let peer = (ended.peer_exit, seen::PEER_CLOSED_FIRST);
    let ((ender, _), (other, closed_first)) = if by_this_end {
        (this, peer)
    } else {
        (peer, this)
    };
    let exit = exit_as(ender);
    let is_answer = exit.is_none() && reset.is_some() && ended.saw(closed_first);
    let killed = by_signal(other).filter(|_| is_answer);
    (exit.or(killed), killed.is_some())
}

/// The same as [`exit_as`] where a signal killed it.
fn by_signal(exit: u8) -> Option<record::Exit<'static>> {
    exit_as(exit).filter(|exit| exit.signal.is_some())
}

/// As it is printed.
fn exit_as(exit: u8) -> Option<record::Exit<'static>> {
    let signal = exit.checked_sub(exit::ENDS)?;
    Some(record::Exit {
        signal: tcp::signal_name(signal.into()),
    })
}
