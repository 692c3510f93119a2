//! What is looked for in the kernel before a connection that ended is printed: its other end among those that are still open, and
//! who sent it a reset among those that were not asked for.
//!
//! Must not know: where these are read.

use upstream_trace_common::{
    event::{Base, Full, kind},
    story::Story,
};

use super::{
    connection::{End, NONE, PeerSent, Sent, Slot, seen},
    engine::{Engine, Sink, WallClock},
    finish, reset, stray,
    translated::{self, Sender},
    tuple::Tuple,
};
use crate::{decode::Event, process::Describe};

/// How long after its end a connection waits at most for its other end to be looked for.
const PATIENCE_NS: u64 = 70_000_000;
/// The same where a reset came that nobody is known to have sent: only if the other end is found, and has not sent it, it is certain that
/// neither did.
const RESET_PATIENCE_NS: u64 = 1_000_000_000;
/// Addresses of this node that are remembered.
const LOCALS: usize = 65_536;

impl Engine {
    /// Whether a connection that is due waits for [`Self::answered`].
    pub const fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Whether its other end may be among those that are still open, so that [`Self::offer`] should be called for each of these.
    pub fn seeks_ends(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether a reset that it received may be among those that were not asked for, so that [`Self::offer_reset`] should be called
    /// for each of these.
    pub fn seeks_senders(&self) -> bool {
        let mut asking = self.asking.iter();
        asking.any(|&(_, slot, _)| self.asks_for_sender(slot))
    }

    /// Takes the story of a connection that is still open, if it is one that is looked for; returns how
    /// many of its events are new.
    pub fn offer(&mut self, story: &Story, describe: &mut impl Describe) -> u64 {
        if self.asked.contains(&Tuple::of(&story.base())) {
            self.story(story, describe)
        } else {
            0
        }
    }

    /// Takes a reset that was not asked for, if one of those that wait received it.
    pub fn offer_reset(&mut self, reset: &Full, describe: &mut impl Describe) {
        let Full { base, actor, stats } = reset;
        let Some(sender) = Sender::of(stats) else {
            return;
        };
        let is_hit = |slot| {
            let ended = self.table.get(slot).and_then(reset::lacks_sender);
            ended.is_some_and(|(received, at)| {
                translated::is_near(base.ktime, at) && sender.reaches(received)
            })
        };
        let mut asking = self.asking.iter().map(|&(_, slot, _)| slot);
        let Some(slot) = asking.find(|&slot| is_hit(slot)) else {
            return;
        };
        let event = Event {
            base,
            actor: Some(actor),
            stats: None,
        };
        let sent = Sent {
            kind: base.kind,
            state: base.old,
            reason: base.new,
            actor: self.closer(event, describe),
        };
        let has_socket = matches!(base.kind, kind::RESET_SENT_ACTIVE | kind::RESET_SENT_REPLY);
        let by_socket = finish::sent(&End {
            sent: Some(sent),
            sent_stats: has_socket.then_some(*stats),
            ..End::default()
        });
        let peer_sent = by_socket.map(|sent| PeerSent {
            derived: if has_socket {
                sent.derived
            } else {
                stray::derived(base.kind)
            },
            ..sent
        });
        if let Some(end) = self.table.end(slot) {
            end.peer_sent = peer_sent;
            end.peer_tuple = Some(Tuple::of(base));
        }
    }

    /// All that are open were offered: prints what waited for that. Resets of no connection wait for [`Self::finish_due`]: some that are due
    /// by now belong to connections that are as well.
    pub fn answered(&mut self, clock: &impl WallClock, sink: &mut impl Sink) {
        self.asked.clear();
        let mut waiting = std::mem::take(&mut self.asking);
        for (_, slot, serial) in waiting.drain(..) {
            self.finish(slot, serial, clock, sink);
        }
        self.asking = waiting;
    }

    /// Prints those that were not answered in time.
    pub(super) fn asked_in_vain(&mut self, now: u64, clock: &impl WallClock, sink: &mut impl Sink) {
        let mut waiting = std::mem::take(&mut self.asking);
        waiting.retain(|&(at, slot, serial)| {
            let waits = at.saturating_add(self.patience(slot)) > now;
            if !waits {
                self.finish(slot, serial, clock, sink);
            }
            waits
        });
        if waiting.is_empty() {
            self.asked.clear();
        }
        self.asking = waiting;
    }

    fn patience(&self, slot: Slot) -> u64 {
        let end = self.table.get(slot).and_then(|ended| ended.end.as_deref());
        let strange = end.is_some_and(|end| end.received.is_some() && end.peer_sent.is_none());
        if strange {
            RESET_PATIENCE_NS
        } else {
            PATIENCE_NS
        }
    }

    /// Notes that the address at this end is one of this node's.
    pub(super) fn is_local(&mut self, base: &Base) {
        // A loopback address is known to be without that.
        if !Tuple::of(base).is_loopback() && self.locals.len() < LOCALS {
            self.locals.insert((base.family, base.local));
        }
    }

    /// Whether the other end of this connection may be open on this node, unknown because its story is
    /// still in the kernel; it is looked for from now on.
    pub(super) fn asks_for_end(&mut self, slot: Slot) -> bool {
        let events = self.context.events;
        let Some(connection) = self.table.get_mut(slot) else {
            return false;
        };
        let tuple = &connection.tuple;
        let asks = !events
            && connection.peer == NONE
            && connection.saw(seen::ESTABLISHED)
            && connection.seen & (seen::PEER_ENDED | seen::ASKED) == 0
            && tuple.is_whole()
            && (tuple.is_loopback() || self.locals.contains(&(tuple.family, tuple.remote)));
        if asks {
            connection.seen |= seen::ASKED;
            self.asked.insert(tuple.reversed());
        }
        asks
    }

    /// Whether an end that was not asked for may have sent this connection the reset that ended it.
    pub(super) fn asks_for_sender(&self, slot: Slot) -> bool {
        let ended = self.table.get(slot);
        !self.context.wanted.is_everything() && ended.and_then(reset::lacks_sender).is_some()
    }
}
