//! The reset that ended a connection: who sent it, as far as the stacks on this node and the packet tell.
//!
//! Must not know: the kernel's words for a reason (`reason` does), what it means (`verdict` does), how a record looks otherwise.

use std::rc::Rc;

use upstream_trace_common::event::{Full, Stats, kind};

use super::{
    connection::{Connection, End, Named, Owner, PeerSent, Sent, seen},
    ending::{Ending, is_strangers},
    note::{Dropped, Fact},
    reason::{self, Reason, UNKNOWN},
};
use crate::{
    process::Process,
    record::{
        self, Attribution, Confidence, Direction, Origin, ReasonSource, ResetEvidence, StepKind,
    },
    tcp::{
        State,
        errno::{ECONNABORTED, ECONNREFUSED},
    },
    verdict::way,
};

type Whence = (Origin, Option<Confidence>);

const BY_SOMEONE: Whence = (Origin::Unknown, None);

/// If a reset of unknown sender ended the connection: its counters when the reset arrived, and when it ended.
pub(super) fn lacks_sender(ended: &Connection) -> Option<(&Stats, u64)> {
    let end = ended.end.as_deref()?;
    let unknown = end.peer_sent.is_none();
    Some((end.received.as_ref().filter(|_| unknown)?, end.at))
}

/// What the other end needs of a reset that this one sent.
pub(super) fn sent(end: &End) -> Option<PeerSent> {
    let sent = end.sent.clone()?;
    Some(PeerSent {
        at: end.at,
        derived: reason::by_end(end, &sent),
        err: end.err(),
        aborts: aborts(end, &sent),
        sent,
    })
}

/// One that was not asked for, as the kernel side kept it.
pub(super) fn kept(kept: &Full, actor: Option<Rc<Process>>) -> PeerSent {
    let Full { base, stats, .. } = kept;
    let sent = Sent {
        kind: base.kind,
        state: base.old,
        reason: base.new,
        actor,
    };
    let by_close = sent.is_by_close();
    let derived = match sent.kind {
        kind::RESET_SENT_REPLY => reason::by_reply(&sent),
        kind::RESET_SENT_ACTIVE if by_close => {
            Some(reason::by_socket(0, stats.has_socket != 0, stats.unread))
        }
        // A timer's or an administrator's: which, only the socket's error tells, which is set later.
        kind::RESET_SENT_ACTIVE => None,
        kind => reason::by_kind(kind),
    };
    PeerSent {
        at: base.ktime,
        sent,
        derived,
        err: 0,
        aborts: by_close && stats.aborts != 0,
    }
}

/// Who sent the reset, as far as the stacks on this node tell.
pub(super) struct ResetFound<'a> {
    pub(super) direction: Direction,
    pub(super) reason: Option<&'a str>,
    reason_source: ReasonSource,
    pub(super) origin: Origin,
    confidence: Option<Confidence>,
    evidence: Option<ResetEvidence>,
    sender: Option<Named<'a>>,
    aborts: bool,
}

impl<'a> ResetFound<'a> {
    pub(super) fn record(&self) -> record::Reset<'a> {
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

    pub(super) fn is_certainly_in_path(&self) -> bool {
        self.origin == Origin::InPath && self.confidence == Some(Confidence::Certain)
    }

    /// Whether it is known to have been sent on purpose.
    pub(super) fn abort(&self) -> Option<bool> {
        self.aborts.then_some(true)
    }

    pub(super) fn is_likely(&self) -> bool {
        self.confidence == Some(Confidence::Likely)
    }
}

/// The reset that ended this connection, if one did.
pub(super) fn found<'a>(ending: &Ending<'a>) -> Option<ResetFound<'a>> {
    if let Some(sent) = &ending.end.sent {
        return Some(by_this_end(ending, sent));
    }
    if !was_received(ending) {
        return None;
    }
    Some(told(ending).unwrap_or_else(|| concluded(ending)))
}

fn by_this_end<'a>(ending: &Ending<'a>, sent: &'a Sent) -> ResetFound<'a> {
    let Ending {
        engine,
        connection,
        end,
        ..
    } = *ending;
    let derived = || reason::by_end(end, sent);
    let (reason, reason_source) = reason::of_sent(&engine.context, sent.reason, derived);
    ResetFound {
        direction: Direction::Sent,
        reason,
        reason_source,
        origin: Origin::Local,
        confidence: Some(Confidence::Certain),
        evidence: None,
        sender: sender(
            sent,
            end.err(),
            connection.owner.as_ref(),
            connection.saw(seen::ACCEPTED),
        ),
        aborts: aborts(end, sent),
    }
}

fn received<'a>(
    ending: &Ending<'a>,
    (origin, confidence): Whence,
    (reason, reason_source): Reason<'a>,
    sender: Option<Named<'a>>,
) -> ResetFound<'a> {
    let peer_sent = ending.peer_sent();
    ResetFound {
        direction: Direction::Received,
        reason,
        reason_source,
        origin,
        confidence,
        evidence: ending.packet(),
        sender,
        aborts: peer_sent.is_some_and(|peer| peer.aborts),
    }
}

/// Data after a shutdown looks like a received reset until the answer to it is reported. Where a reset was sent and the
/// owner told that it was refused, only the hook's event is missing.
fn was_received(ending: &Ending<'_>) -> bool {
    let was_refused = ending.end.err() == ECONNREFUSED;
    ending.end.received.is_some() || ending.stray.is_some() && was_refused
}

/// One that a stack of this node told that it sent, from the other end's socket or without one.
fn told<'a>(ending: &Ending<'a>) -> Option<ResetFound<'a>> {
    let context = &ending.engine.context;
    let by_peer = (Origin::PeerOnNode, Some(Confidence::Certain));
    if let Some(peer) = ending.peer_sent() {
        let owner = ending.connection.peer_owner.as_ref();
        let reason = reason::of_sent(context, peer.sent.reason, || peer.derived);
        let accepted = !ending.connection.saw(seen::PEER_UNACCEPTED);
        let sender = sender(&peer.sent, peer.err, owner, accepted);
        return Some(received(ending, by_peer, reason, sender));
    }
    let stray = ending.stray?;
    // TIME_WAIT and LISTEN are somebody's.
    let is_peers = !is_strangers(stray) && !ending.has_new_listener(stray);
    let sender = ending.peer.filter(|_| is_peers);
    let reason = reason::of_stray(context, stray);
    Some(received(ending, by_peer, reason, sender))
}

/// One that none told: who sent it follows from what else is known, or not at all.
fn concluded<'a>(ending: &Ending<'a>) -> ResetFound<'a> {
    let Ending {
        engine,
        connection,
        peer,
        ..
    } = *ending;
    let is_known = peer.is_some() || connection.is_paired();
    let peer_is_here = is_known || connection.tuple.is_loopback();
    let (whence, reason) = match (peer_is_here, engine.context.sees_all_resets) {
        (false, _) => (by_a_filter_or_beyond(ending), UNKNOWN),
        (true, false) => on_a_host_that_hides(ending),
        (true, true) => (in_path_or_unknown(ending), UNKNOWN),
    };
    received(ending, whence, reason, None)
}

/// Of a connection to somewhere else, or so it seems.
fn by_a_filter_or_beyond(ending: &Ending<'_>) -> Whence {
    if ending.saw_all_resets()
        && let Some(dropped) = dropped_syn(ending)
    {
        // A copy that a rule sends another way may be dropped there, while the SYN goes on.
        let confidence = if dropped.is_own {
            Confidence::Certain
        } else {
            Confidence::Likely
        };
        return (Origin::InPath, Some(confidence));
    }
    if ending.connection.saw(seen::ASKED) {
        // Looked for in vain, where it may have been.
        return BY_SOMEONE;
    }
    ending.packet().map_or((Origin::OffNode, None), |packet| {
        way::sender(&packet, ending.counters.lived_us)
    })
}

/// Such a host shows not all that its own stack sends. Only a port that nothing listens on is certain to have refused a connection.
fn on_a_host_that_hides(ending: &Ending<'_>) -> (Whence, Reason<'static>) {
    let Connection { netns, tuple, .. } = ending.connection;
    let listeners = &ending.engine.listeners;
    let listened = listeners.listened(*netns, tuple.remote_port, ending.end.at);
    if ending.connection.saw(seen::ESTABLISHED) || listened {
        return (BY_SOMEONE, UNKNOWN);
    }
    let by_likely_peer = (Origin::PeerOnNode, Some(Confidence::Likely));
    let no_socket = reason::by_kind(kind::RESET_SENT_NO_SOCKET);
    (by_likely_peer, reason::inferred(no_socket))
}

/// Every reset that a stack on this node sends was seen, and this was none of them. But one that was sent from another
/// address, which was translated on its way (NAT), may look the same: so the other end has to be known, or a filter
/// of this node to have dropped the SYN that was answered so. Nor may it have been aborted, whose reset may be told late.
fn in_path_or_unknown(ending: &Ending<'_>) -> Whence {
    let Ending {
        engine,
        connection,
        peer,
        ..
    } = *ending;
    let is_paired = connection.is_paired() && !connection.saw(seen::PEER_ABORTED);
    let certain = ending.saw_all_resets()
        && (engine.context.sees_both_ends || peer.is_none())
        && (is_paired || dropped_syn(ending).is_some());
    if certain {
        (Origin::InPath, Some(Confidence::Certain))
    } else {
        BY_SOMEONE
    }
}

/// The one SYN that was sent, or the answer to it, where a filter of this node dropped that: the filter also answered it, wherever
/// it was sent to. Of several another may have got through.
fn dropped_syn<'a>(ending: &Ending<'a>) -> Option<&'a Dropped> {
    let connection = ending.connection;
    let only_one = || connection.steps.count(StepKind::SynRetransmit) == 0;
    match ending.note(kind::SYN_DROPPED)? {
        Fact::Dropped(dropped) if !connection.saw(seen::ESTABLISHED) && only_one() => Some(dropped),
        _ => None,
    }
}

/// The process that caused a reset, where one did. `accepted`: a process had taken the socket from the listener.
fn sender<'a>(
    sent: &'a Sent,
    err: u32,
    owner: Option<&'a Owner>,
    accepted: bool,
) -> Option<Named<'a>> {
    let owner = owner.map(Owner::named);
    if sent.kind == kind::RESET_SENT_REPLY {
        // The stack answered on behalf of whoever has, or had, the socket.
        return owner;
    }
    let actor = sent.actor.as_deref();
    // An abort by its closer comes after CLOSE; before it come the timers, in nobody's context, and
    // tcp_abort, in that of an administrator's tool.
    let closed = sent.state == State::Close as u8;
    let Some(process) = actor.filter(|_| closed || err == ECONNABORTED) else {
        // Where a bystander let go of it last, it was closed for whoever had it: not for who listens, once it was accepted, perhaps by another.
        let has = |how| !accepted || how != Attribution::Listener;
        return owner.filter(|&(_, how)| closed && has(how));
    };
    let attribution = match owner {
        Some((owner, attribution)) if owner.pid == process.pid => attribution,
        _ => Attribution::Closer,
    };
    Some((process, attribution))
}

/// Whether this end sent its reset by a close that was an abort on purpose.
fn aborts(end: &End, sent: &Sent) -> bool {
    sent.is_by_close() && end.err() == 0 && end.stats().is_some_and(|stats| stats.aborts != 0)
}
