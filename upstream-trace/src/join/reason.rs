//! Why a reset was sent, or dropped: in the kernel's words or, where it has none (of sent ones before 6.10), as its kind and its socket tell.
//!
//! Must not know: who sent it, connections beyond their ends.

use upstream_trace_common::event::{Base, NO_REASON, kind};

use super::{
    connection::{End, Sent},
    engine::Context,
};
use crate::{
    kernel::reasons::NOT_SPECIFIED,
    record::ReasonSource,
    tcp::{
        State,
        errno::{ECONNABORTED, ETIMEDOUT},
    },
};

/// Its name, and who says so.
pub(super) type Reason<'a> = (Option<&'a str>, ReasonSource);

/// None is known.
pub(super) const UNKNOWN: Reason<'static> = (None, ReasonSource::Unknown);

/// What the kernel does not tell, but something else.
pub(super) fn inferred(name: Option<&'static str>) -> Reason<'static> {
    name.map_or(UNKNOWN, |name| (Some(name), ReasonSource::Derived))
}

fn told(name: Option<&str>) -> Reason<'_> {
    name.map_or(UNKNOWN, |name| (Some(name), ReasonSource::Kernel))
}

/// Of an `enum sk_rst_reason` as it was told; `derived` is what else tells it.
pub(super) fn of_sent(
    context: &Context,
    value: u8,
    derived: impl FnOnce() -> Option<&'static str>,
) -> Reason<'_> {
    if value == NO_REASON {
        return inferred(derived());
    }
    // 0 is NOT_SPECIFIED: the kernel's way to say that it does not know.
    told(context.reasons.name(value).filter(|_| value != 0))
}

/// Of one that belongs to no connection. A listener's answer has several.
pub(super) fn of_stray<'a>(context: &'a Context, base: &Base) -> Reason<'a> {
    if base.kind == kind::RESET_DROPPED {
        let name = context.drop_reasons.name(base.new);
        return told(name.filter(|&name| name != NOT_SPECIFIED));
    }
    of_sent(context, base.new, || by_kind(base.kind))
}

/// What the kind alone tells.
pub(super) const fn by_kind(kind: u8) -> Option<&'static str> {
    match kind {
        kind::RESET_SENT_NO_SOCKET => Some("NO_SOCKET"),
        kind::RESET_SENT_TIME_WAIT => Some("TCP_TIMEWAIT_SOCKET"),
        _ => None,
    }
}

/// What the end of a connection tells that this reset was sent by.
pub(super) fn by_end(end: &End, sent: &Sent) -> Option<&'static str> {
    if sent.kind == kind::RESET_SENT_REPLY {
        return by_reply(sent);
    }
    let was_held = end.closed.is_none_or(|closed| closed.stats.has_socket != 0);
    let unread = end.stats().map_or(0, |stats| stats.unread);
    Some(by_socket(end.err(), was_held, unread))
}

/// What it tells that a socket answered a packet.
pub(super) fn by_reply(sent: &Sent) -> Option<&'static str> {
    let after_shutdown = sent.state == State::Close as u8;
    after_shutdown.then_some("TCP_ABORT_ON_DATA")
}

/// What the socket tells that sent it unasked. A child that nobody accepted goes with its listener, read or not, by way of
/// `tcp_disconnect`.
pub(super) const fn by_socket(err: u32, was_held: bool, unread: u32) -> &'static str {
    match err {
        ETIMEDOUT => "TCP_KEEPALIVE_TIMEOUT",
        ECONNABORTED => "TCP_STATE",
        _ if was_held && unread > 0 => "TCP_ABORT_ON_CLOSE",
        _ => "TCP_STATE",
    }
}
