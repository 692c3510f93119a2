//! The reset that ended a connection: who sent it, as far as the stacks on this node and the packet tell, and why.
//!
//! Must not know: what it means (`verdict` does), how a record looks otherwise.

use std::rc::Rc;

use upstream_trace_common::event::{Full, NO_REASON, Stats, kind};

use super::{
    connection::{Connection, End, Named, Owner, PeerSent, Sent, seen},
    ending::Ending,
    engine::Context,
    note::Fact,
    stray,
};
use crate::{
    process::Process,
    record::{
        self, Attribution, Confidence, Direction, Origin, ReasonSource, ResetEvidence, StepKind,
    },
    tcp::State,
    verdict::way,
};

/// `ECONNABORTED`: `tcp_abort`, an administrator's kill.
const ECONNABORTED: u32 = libc::ECONNABORTED.cast_unsigned();
/// `ECONNREFUSED`
const ECONNREFUSED: u32 = libc::ECONNREFUSED.cast_unsigned();
/// `ETIMEDOUT`: a timer's doing.
const ETIMEDOUT: u32 = libc::ETIMEDOUT.cast_unsigned();

type Whence = (Origin, Option<Confidence>);
type Reason<'a> = (Option<&'a str>, ReasonSource);

/// Of a connection that a reset ended which its other end is not known to have sent: its counters when the reset came, and when it
/// ended.
pub(super) fn lacks_sender(ended: &Connection) -> Option<(&Stats, u64)> {
    let end = ended.end.as_deref()?;
    let unknown = end.peer_sent.is_none();
    Some((end.received.as_ref().filter(|_| unknown)?, end.at))
}

/// What the other end needs of a reset that this one sent.
pub(super) fn sent(end: &End) -> Option<PeerSent> {
    let sent = end.sent.clone()?;
    Some(PeerSent {
        derived: derived(end, &sent),
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
    let is_closed = sent.state == State::Close as u8;
    let by_close = sent.kind == kind::RESET_SENT_ACTIVE && is_closed;
    let derived = match sent.kind {
        kind::RESET_SENT_REPLY => by_reply(&sent),
        kind::RESET_SENT_ACTIVE if by_close => {
            Some(by_socket(0, stats.has_socket != 0, stats.unread))
        }
        // A timer's or an administrator's: which, only the socket's error tells, which is set later.
        kind::RESET_SENT_ACTIVE => None,
        kind => stray::implied(kind),
    };
    PeerSent {
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

/// Who sent one that came from beyond this node.
fn beyond(ending: &Ending<'_>) -> Whence {
    ending.packet().map_or((Origin::OffNode, None), |packet| {
        way::sender(&packet, ending.counters.lived_us)
    })
}

/// The reset that ended this connection, if one did.
pub(super) fn found<'a>(ending: &Ending<'a>) -> Option<ResetFound<'a>> {
    let (engine, ended, end) = (ending.engine, ending.connection, ending.end);
    let (context, stray, peer) = (&engine.context, ending.stray, ending.peer);
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
            sender: sender(sent, end.err(), owner),
            aborts: aborts(end, sent),
        });
    }
    // Data after a shutdown looks like a received reset until the answer to it is reported. Where a reset was sent and the
    // owner told that it was refused, only the hook's event is missing.
    if end.received.is_none() && (stray.is_none() || end.err() != ECONNREFUSED) {
        return None;
    }
    let received = |(origin, confidence), (reason, reason_source), sender| {
        Some(ResetFound {
            direction: Direction::Received,
            reason,
            reason_source,
            origin,
            confidence,
            evidence: ending.packet(),
            sender,
            aborts: end.peer_sent.as_ref().is_some_and(|peer| peer.aborts),
        })
    };
    let by_peer = (Origin::PeerOnNode, Some(Confidence::Certain));
    let by_likely_peer = (Origin::PeerOnNode, Some(Confidence::Likely));
    let by_someone = (Origin::Unknown, None);
    if let Some(PeerSent {
        sent, derived, err, ..
    }) = &end.peer_sent
    {
        let reason = reason(context, sent.reason, || *derived);
        let sender = sender(sent, *err, ended.peer_owner.as_ref());
        return received(by_peer, reason, sender);
    }
    let unknown = (None, ReasonSource::Unknown);
    if let Some(stray) = stray {
        let reason = stray::reason(context, stray);
        // Nobody has a port that nothing listens on; TIME_WAIT and LISTEN are somebody's.
        let sender = peer.filter(|_| stray.kind != kind::RESET_SENT_NO_SOCKET);
        return received(by_peer, reason, sender);
    }
    // The one SYN that was sent, or the answer to it, was dropped by a filter of this node, which also answered it: wherever
    // it was sent to. Of several another may have got through.
    let filtered = || {
        let noted = ending.note(kind::SYN_DROPPED);
        let only_one = ended.steps.count(StepKind::SynRetransmit) == 0;
        match noted? {
            Fact::Dropped(dropped) if only_one && !ended.saw(seen::ESTABLISHED) => Some(dropped),
            _ => None,
        }
    };
    let peer_is_here = peer.is_some() || ended.tuple.is_loopback();
    if !peer_is_here
        && ending.saw_all_resets()
        && let Some(dropped) = filtered()
    {
        // A copy that a rule sends another way may be dropped there, while the SYN goes on.
        let confidence = if dropped.is_own {
            Confidence::Certain
        } else {
            Confidence::Likely
        };
        return received((Origin::InPath, Some(confidence)), unknown, None);
    }
    if !peer_is_here {
        // Looked for in vain, where it may have been.
        let origin = if ended.saw(seen::ASKED) {
            by_someone
        } else {
            beyond(ending)
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
        return received(by_likely_peer, reason, None);
    }
    // Every reset that a stack on this node sends was seen, and this was none of them. But one that was sent from another
    // address, which was translated on its way (NAT), may look the same: so the other end has to be known, or a filter
    // of this node to have dropped the SYN that was answered so. Nor may it have been aborted, whose reset may be told late.
    let is_paired = ended.is_paired() && !ended.saw(seen::PEER_ABORTED);
    let certain = ending.saw_all_resets()
        && (context.sees_both_ends || peer.is_none())
        && (is_paired || filtered().is_some());
    let origin = if certain {
        (Origin::InPath, Some(Confidence::Certain))
    } else {
        by_someone
    };
    received(origin, unknown, None)
}

/// The process that caused a reset, where one did.
fn sender<'a>(sent: &'a Sent, err: u32, owner: Option<&'a Owner>) -> Option<Named<'a>> {
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
        // Where a bystander let go of it last, it was closed for whoever had it.
        return owner.filter(|_| closed);
    };
    let attribution = match owner {
        Some((owner, attribution)) if owner.pid == process.pid => attribution,
        _ => Attribution::Closer,
    };
    Some((process, attribution))
}

/// The kernel's name of a reason, or what else tells it.
pub(super) fn reason(
    context: &Context,
    value: u8,
    derived: impl FnOnce() -> Option<&'static str>,
) -> Reason<'_> {
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

/// Whether this end sent its reset by a close that was an abort on purpose.
fn aborts(end: &End, sent: &Sent) -> bool {
    let by_close = sent.kind == kind::RESET_SENT_ACTIVE && sent.state == State::Close as u8;
    by_close && end.err() == 0 && end.stats().is_some_and(|stats| stats.aborts != 0)
}

/// The reason of a reset sent by this end, on kernels that do not tell it (before 6.10).
fn derived(end: &End, sent: &Sent) -> Option<&'static str> {
    if sent.kind == kind::RESET_SENT_REPLY {
        return by_reply(sent);
    }
    let was_held = end.closed.is_none_or(|closed| closed.stats.has_socket != 0);
    let unread = end.stats().map_or(0, |stats| stats.unread);
    Some(by_socket(end.err(), was_held, unread))
}

fn by_reply(sent: &Sent) -> Option<&'static str> {
    let after_shutdown = sent.state == State::Close as u8;
    after_shutdown.then_some("TCP_ABORT_ON_DATA")
}

/// A child that nobody accepted goes with its listener, read or not, by way of `tcp_disconnect`.
const fn by_socket(err: u32, was_held: bool, unread: u32) -> &'static str {
    match err {
        ETIMEDOUT => "TCP_KEEPALIVE_TIMEOUT",
        ECONNABORTED => "TCP_STATE",
        _ if was_held && unread > 0 => "TCP_ABORT_ON_CLOSE",
        _ => "TCP_STATE",
    }
}
