//! The faults: what the upstream does, and which verdicts are right about it.
//!
//! Must not know: proxies, how a server does it.

/// A way for an upstream to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// None at all.
    Healthy,
    Refused,
    QueueFull,
    ResetAfterAccept,
    ResetAfterRequest,
    CloseUnread,
    ClosedUnanswered,
    ResetInBody,
    NoAnswer,
}

use Fault::{
    CloseUnread, ClosedUnanswered, Healthy, NoAnswer, QueueFull, Refused, ResetAfterAccept,
    ResetAfterRequest, ResetInBody,
};

impl Fault {
    /// All that fail.
    pub const BAD: [Self; 8] = [
        Refused,
        QueueFull,
        ResetAfterAccept,
        ResetAfterRequest,
        CloseUnread,
        ClosedUnanswered,
        ResetInBody,
        NoAnswer,
    ];

    /// A word for paths and names.
    pub const fn name(self) -> &'static str {
        match self {
            Healthy => "healthy",
            Refused => "refused",
            QueueFull => "queue_full",
            ResetAfterAccept => "reset_after_accept",
            ResetAfterRequest => "reset_after_request",
            CloseUnread => "close_unread",
            ClosedUnanswered => "closed_unanswered",
            ResetInBody => "reset_in_body",
            NoAnswer => "no_answer",
        }
    }

    /// What the upstream does, for a person.
    pub const fn story(self) -> &'static str {
        match self {
            Healthy => "answers",
            Refused => "nothing listens",
            QueueFull => "accept queue full",
            ResetAfterAccept => "resets right after accept()",
            ResetAfterRequest => "reads the request, resets",
            CloseUnread => "closes with the request unread",
            ClosedUnanswered => "reads the request, closes in order",
            ResetInBody => "resets inside the body",
            NoAnswer => "never answers",
        }
    }

    /// The right verdicts; several where it depends on which end is faster.
    pub const fn verdicts(self) -> &'static [&'static str] {
        match self {
            Healthy => &["ok"],
            Refused => &["refused"],
            QueueFull => &["connect_canceled"],
            // The request is on its way before the reset arrives, or it is not.
            ResetAfterAccept => &["reset_before_payload", "reset_before_response"],
            ResetAfterRequest | CloseUnread => &["reset_before_response"],
            ClosedUnanswered => &["closed_before_response"],
            ResetInBody => &["reset_mid_stream"],
            // The proxy closes in order, or by a reset of its own.
            NoAnswer => &["ok", "reset_before_response"],
        }
    }

    /// Whether the upstream's process has to be named as the sender of a reset.
    pub const fn upstream_resets(self) -> bool {
        matches!(
            self,
            ResetAfterAccept | ResetAfterRequest | CloseUnread | ResetInBody
        )
    }
}
