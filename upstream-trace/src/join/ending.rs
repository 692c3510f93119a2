//! A connection that is about to be printed, what surrounds it, and what follows from both at once.
//!
//! Must not know: the order in which events came, who sent a reset, how a record looks.

use std::rc::Rc;

use upstream_trace_common::event::{Base, Stats, kind};

use super::{
    connection::{Connection, End, Named, PeerSent, Sent, seen},
    engine::Engine,
    note::Fact,
    tuple::Tuple,
};
use crate::{
    process::Process,
    record::{Attribution, Direction, ResetEvidence, Role},
    tcp::{State, errno::ECONNABORTED},
    verdict::{
        facts::{Counters, TOGETHER_US},
        way,
    },
};

/// A reset that was sent on this node longer ago than this has arrived, through whatever queues.
const ARRIVED_NS: u64 = 1_000_000_000;
/// A FIN later than this after the last payload means that the client waited and gave up.
const TOGETHER_NS: i64 = TOGETHER_US.cast_signed() * 1000;

/// A connection that is about to be printed.
pub(super) struct Ending<'a> {
    pub(super) engine: &'a Engine,
    pub(super) connection: &'a Connection,
    pub(super) end: &'a End,
    /// The socket's counters at the end, as they were read.
    pub(super) stats: &'a Stats,
    /// The same without the kernel's arithmetic.
    pub(super) counters: Counters,
    /// The reset that it was sent by no connection's socket.
    pub(super) stray: Option<&'a Base>,
    /// Whose the other end is.
    pub(super) peer: Option<Named<'a>>,
    /// All of it was seen.
    pub(super) complete: bool,
}

impl<'a> Ending<'a> {
    pub(super) fn new(
        engine: &'a Engine,
        connection: &'a Connection,
        (end, stats): (&'a End, &'a Stats),
        stray: Option<&'a Base>,
    ) -> Self {
        let tick_ns = engine.context.tick_ns;
        let born = connection.saw(seen::BIRTH);
        Self {
            engine,
            connection,
            end,
            stats,
            counters: Counters {
                lived_us: born.then(|| connection.at_us(end.at)),
                ..counters(connection, stats, tick_ns)
            },
            stray,
            peer: other_end(engine, connection, stray),
            complete: is_complete(connection, engine.lost_at),
        }
    }

    /// Whether every reset that could have reached it was seen where it was sent.
    pub(super) fn saw_all_resets(&self) -> bool {
        let Engine {
            context,
            strays,
            counted_at,
            skipped_at,
            ..
        } = self.engine;
        let at = self.end.at;
        let too_early = |skipped: u64| {
            skipped < self.connection.first || skipped.saturating_add(ARRIVED_NS) < at
        };
        let none_skipped = *counted_at >= at && skipped_at.is_none_or(too_early);
        context.sees_all_resets && self.complete && none_skipped && strays.knew_all(at)
    }

    /// Whether a process had it; `None` where that would have been seen only by luck.
    pub(super) fn accepted(&self) -> Option<bool> {
        accepted(self.connection, self.end, self.complete)
    }

    /// What its socket's own clock tells of its last payloads and of the first FIN.
    pub(super) fn closing(&self) -> Closing<'a> {
        Closing {
            connection: self.connection,
            stats: self.stats,
            counters: self.counters,
            tick_ns: self.engine.context.tick_ns,
        }
    }

    /// The reset that the other end sent, unless it must have arrived long before: then it was lost, and this end got another. So
    /// it was where that end's host answered what came more than a round trip later.
    pub(super) fn peer_sent(&self) -> Option<&'a PeerSent> {
        let sent = self.end.peer_sent.as_ref()?;
        let within = |ns: u64, at: u64| at <= sent.at.saturating_add(ns);
        let rtt_ns = self.counters.rtt_us.map(|us| us.saturating_mul(1000));
        let on_its_way_ns = rtt_ns.map_or(ARRIVED_NS, |ns| {
            ns.saturating_add(TOGETHER_NS.cast_unsigned())
        });
        let is_other = self
            .stray
            .is_some_and(|stray| !within(on_its_way_ns, stray.ktime));
        (within(ARRIVED_NS, self.end.at) && !is_other).then_some(sent)
    }

    /// Whether the other end's host reset it for want of such a connection, and not its socket.
    pub(super) fn is_reset_by_stranger(&self) -> bool {
        self.peer_sent().is_none() && self.stray.is_some_and(is_strangers)
    }

    /// Whether somebody destroyed this end's socket or the other's (`tcp_abort`).
    pub(super) fn is_destroyed(&self) -> bool {
        let peer = self.peer_sent();
        self.end.err() == ECONNABORTED || peer.is_some_and(|peer| peer.err == ECONNABORTED)
    }

    /// Whether the listener that answered for the other end was not there when the connection began: another server's, by now.
    pub(super) fn has_new_listener(&self, stray: &Base) -> bool {
        let (now, then) = listeners(self.engine, self.connection, stray);
        let is_other = |now: &Rc<Process>| then.is_none_or(|then| then.pid != now.pid);
        stray.kind == kind::RESET_SENT_LISTEN && now.is_some_and(is_other)
    }

    /// What the kernel side noted of it, of this kind.
    pub(super) fn note(&self, kind: u8) -> Option<&'a Fact> {
        let Connection {
            netns,
            tuple,
            first,
            ..
        } = self.connection;
        self.engine.notes.of(*netns, tuple, kind, *first)
    }

    /// What the packet of the reset tells that it received.
    pub(super) fn packet(&self) -> Option<ResetEvidence> {
        let arrival = self.end.arrival.as_ref()?;
        let tick_us = self.engine.context.tick_ns / 1000;
        Some(way::evidence(arrival, &self.counters, tick_us))
    }
}

/// What the kernel's clock for payload tells of how a connection was closed.
pub(super) struct Closing<'a> {
    connection: &'a Connection,
    stats: &'a Stats,
    counters: Counters,
    tick_ns: u64,
}

impl Closing<'_> {
    /// Whether payload certainly went either way after the first FIN. What is sent again is no later for that.
    pub(super) fn has_payload_after_fin(&self) -> bool {
        let after = |last| self.ns_until_fin(last).is_some_and(|ns| ns < 0);
        let counters = &self.counters;
        let has_sent = counters.since_sent_us.is_some() && !counters.is_sent_again();
        has_sent && after(self.stats.last_sent)
            || counters.since_received_us.is_some() && after(self.stats.last_received)
    }

    /// Whether the client had been silent before the first FIN, as whoever gives up has been; what is sent together comes together.
    pub(super) fn has_waited(&self) -> Option<bool> {
        let last = match self.connection.role {
            Role::Client => self.stats.last_sent,
            Role::Server => self.stats.last_received,
            Role::Unknown => return None,
        };
        Some(self.ns_until_fin(last)? > TOGETHER_NS)
    }

    /// Whether the first FIN came right behind payload of the server's: a server that closes an idle connection has been silent.
    pub(super) fn is_behind_payload(&self) -> bool {
        let (since, last) = match self.connection.role {
            Role::Client => (self.counters.since_received_us, self.stats.last_received),
            Role::Server => (self.counters.since_sent_us, self.stats.last_sent),
            Role::Unknown => return false,
        };
        let ns = since.and_then(|_| self.ns_until_fin(last));
        ns.is_some_and(|ns| (0..=TOGETHER_NS).contains(&ns))
    }

    /// Whether the server closed first, with a request unanswered: by its own end's clock, or because the client, of whose payload some was
    /// acknowledged, never got a byte.
    pub(super) fn has_left_unanswered(&self) -> bool {
        let (connection, counters) = (self.connection, &self.counters);
        match connection.role {
            Role::Server => {
                connection.saw(seen::CLOSED_FIRST)
                    && counters.last_payload() == Some(Direction::Received)
                    && !self.has_payload_after_fin()
                    && !self.is_behind_payload()
            }
            Role::Client => {
                let never_answered =
                    counters.received_any == Some(false) && counters.bytes.acked > Some(0);
                connection.saw(seen::PEER_CLOSED_FIRST)
                    && (never_answered || connection.saw(seen::PEER_OWED))
            }
            Role::Unknown => false,
        }
    }

    /// From payload at that jiffy to the first FIN; negative where the payload came later.
    fn ns_until_fin(&self, last: u32) -> Option<i64> {
        let ticks = self.connection.fin?.wrapping_sub(last).cast_signed();
        Some(i64::from(ticks).saturating_mul(self.tick_ns.cast_signed()))
    }
}

fn counters(connection: &Connection, stats: &Stats, tick_ns: u64) -> Counters {
    let fin_sent = connection.saw(seen::FIN_SENT);
    Counters::new(stats, connection.role, fin_sent, tick_ns)
}

/// Whether all of it was seen, where events were lost last at `lost_at`.
fn is_complete(connection: &Connection, lost_at: Option<u64>) -> bool {
    let lost = connection.saw(seen::LOSS) || lost_at.is_some_and(|lost| lost >= connection.first);
    connection.saw(seen::BIRTH) && !lost
}

fn accepted(connection: &Connection, end: &End, complete: bool) -> Option<bool> {
    if connection.saw(seen::ACCEPTED) {
        Some(true)
    } else if end.closed.is_some() && complete && !is_detached(end) {
        Some(false)
    } else {
        None
    }
}

/// The [`seen`] bits that a connection which came to its end leaves its other end.
pub(super) fn seen_by_peer(connection: &Connection, tick_ns: u64, lost_at: Option<u64>) -> u32 {
    let Some(end) = connection.end.as_deref() else {
        return 0;
    };
    let mut bits = 0;
    if let Some(stats) = end.stats() {
        let closing = Closing {
            connection,
            stats,
            counters: counters(connection, stats, tick_ns),
            tick_ns,
        };
        if closing.counters.last_payload() == Some(Direction::Sent) {
            bits |= seen::PEER_UNANSWERED;
        }
        if connection.role == Role::Server && closing.has_left_unanswered() {
            bits |= seen::PEER_OWED;
        }
        if connection.role == Role::Client && closing.counters.ends_in_alert() {
            bits |= seen::PEER_SAID_GOODBYE;
        }
        if connection.role == Role::Server && closing.counters.has_sent_in_vain() {
            bits |= seen::PEER_SENT_IN_VAIN;
        }
    }
    let complete = is_complete(connection, lost_at);
    if connection.role == Role::Server && accepted(connection, end, complete) == Some(false) {
        bits |= seen::PEER_UNACCEPTED;
    }
    bits
}

/// Whether no socket sent it, or one that had begun to connect from the same port: neither ever had the connection.
pub(super) fn is_strangers(stray: &Base) -> bool {
    let connects_anew = stray.kind == kind::RESET_SENT_REPLY && stray.old == State::SynSent as u8;
    stray.kind == kind::RESET_SENT_NO_SOCKET || connects_anew
}

/// Whose the other end is: who had it or, where a listener answered for it, who listens.
fn other_end<'a>(
    engine: &'a Engine,
    ended: &'a Connection,
    stray: Option<&Base>,
) -> Option<Named<'a>> {
    if let Some(owner) = &ended.peer_owner {
        return Some(owner.named());
    }
    let stray = stray.filter(|stray| stray.kind == kind::RESET_SENT_LISTEN)?;
    let (now, then) = listeners(engine, ended, stray);
    // Who began to listen later never had the connection.
    let (now, then) = now.zip(then.filter(|_| ended.saw(seen::BIRTH)))?;
    (then.pid == now.pid).then_some((&**now, Attribution::Listener))
}

/// Who listened where a listener answered for the other end: then, and when the connection began.
fn listeners<'a>(
    engine: &'a Engine,
    ended: &Connection,
    stray: &Base,
) -> (Option<&'a Rc<Process>>, Option<&'a Rc<Process>>) {
    let tuple = Tuple::of(stray);
    let owner = |at| engine.listeners.owner(stray.netns, &tuple, at);
    (owner(stray.ktime), owner(ended.first))
}

/// Whether the socket was taken from its process before it was reset, as MPTCP does with those that it has below one of
/// its own: any other is reset after its change to `CLOSE`, or for an error.
fn is_detached(end: &End) -> bool {
    let before_close = |sent: &Sent| sent.kind == kind::RESET_SENT_ACTIVE && !sent.is_by_close();
    end.sent.as_ref().is_some_and(before_close) && end.err() == 0
}
