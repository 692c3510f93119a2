//! The other end of a connection that ended, looked for among those that are still open: their stories
//! are in the kernel.
//!
//! Must not know: where the open ones are read.

use upstream_trace_common::{event::Base, story::Story};

use super::{
    connection::{NONE, Slot, seen},
    engine::{Engine, Sink, WallClock},
    tuple::Tuple,
};
use crate::process::Describe;

/// How long after its end a connection waits at most for its other end to be looked for.
const PATIENCE_NS: u64 = 70_000_000;
/// The same where a reset came that nobody is known to have sent: only if the other end is found, and has not sent it, it is certain that
/// neither did.
const RESET_PATIENCE_NS: u64 = 1_000_000_000;
/// Addresses of this node that are remembered.
const LOCALS: usize = 65_536;

impl Engine {
    /// Whether the other end of a connection that is due may be among those that are still open, so that
    /// [`Self::offer`] should be called for each of these.
    pub const fn is_asking(&self) -> bool {
        !self.asking.is_empty()
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
    /// still in the kernel.
    pub(super) fn should_ask(&self, slot: Slot) -> bool {
        let Some(connection) = self.table.get(slot) else {
            return false;
        };
        let tuple = &connection.tuple;
        connection.peer == NONE
            && connection.saw(seen::ESTABLISHED)
            && connection.seen & (seen::PEER_ENDED | seen::ASKED) == 0
            && tuple.is_whole()
            && (tuple.is_loopback() || self.locals.contains(&(tuple.family, tuple.remote)))
    }
}
