//! What the kernel is asked before a connection that ended is printed: for its other end among those that are still open, for who
//! sent it a reset among those that were not asked for, and whether it skipped hooks, before a middlebox is accused.
//!
//! Must not know: where these are read.

use upstream_trace_common::{
    event::{Base, Full, Stats, exit, kind},
    setting::RESET_PLACES,
    story::Story,
};

use super::{
    connection::{Connection, Slot, seen},
    engine::{Engine, Sink, WallClock},
    reset,
    translated::{Sender, was_sent_until},
    tuple::Tuple,
};
use crate::{decode::Event, process::Describe};

/// A reset that was kept longer than this before the first of those that wait ended is none of theirs.
const KEPT_NS: u64 = 200_000_000;
/// Where there are more resets than this of that time, the one that is looked for may have been put out: one in ten is.
const CROWD: usize = RESET_PLACES as usize / 8;
/// Addresses of this node that are remembered, and of others.
const ADDRESSES: usize = 65_536;

impl Engine {
    /// Whether a connection that is due waits for [`Self::answered`].
    pub const fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Whether its other end may be among those that are still open, so that [`Self::offer`] should be called for each of these.
    pub fn seeks_ends(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Whether a reset that it received may be among those that were not asked for, so that [`Self::offer_resets`] should be called
    /// with these.
    pub fn seeks_senders(&self) -> bool {
        let mut asking = self.asking.iter();
        asking.any(|&(_, slot, _)| self.asks_for_sender(slot))
    }

    /// Whether [`Self::counted`] should be called, since what is said of one that ended depends on it.
    pub fn seeks_count(&self) -> bool {
        let mut asking = self.asking.iter();
        asking.any(|&(_, slot, _)| self.asks_for_count(slot))
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

    /// Takes the resets that were not asked for, as many as are kept, and finds those that connections received that wait.
    pub fn offer_resets(&mut self, resets: &[Full], describe: &mut impl Describe) {
        let sought = |&(_, slot, _): &(u64, Slot, u64)| {
            let (received, at) = self.seeks_sender(slot)?;
            Some((slot, at, *received))
        };
        let mut sought: Vec<_> = self.asking.iter().filter_map(sought).collect();
        let earliest = sought.iter().map(|&(_, at, _)| at).min().unwrap_or(0);
        let since = earliest.saturating_sub(KEPT_NS);
        let recent = || resets.iter().filter(|reset| reset.base.ktime >= since);
        for reset in recent() {
            let Some(sender) = Sender::of(&reset.stats) else {
                continue;
            };
            let hit = sought.iter().position(|(_, at, received)| {
                sender.reaches(received) && was_sent_until(*at, &reset.base)
            });
            if let Some(hit) = hit {
                let (slot, ..) = sought.swap_remove(hit);
                self.sent_by(reset, slot, describe);
            }
        }
        // So many take each other's places: the one that is missed may have been among them.
        if recent().count() > CROWD {
            for (slot, ..) in sought {
                if let Some(connection) = self.table.get_mut(slot) {
                    connection.seen |= seen::ASKED;
                }
            }
        }
    }

    fn sent_by(&mut self, reset: &Full, slot: Slot, describe: &mut impl Describe) {
        let event = Event {
            base: &reset.base,
            actor: Some(&reset.actor),
            stats: None,
        };
        let sent = reset::kept(reset, self.closer(event, describe));
        if let Some(end) = self.table.end(slot) {
            end.peer_sent = Some(sent);
            end.peer_tuple = Some(Tuple::of(&reset.base));
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

    /// Notes that the address at this end is one of this node's.
    pub(super) fn is_local(&mut self, base: &Base) {
        // A loopback address is known to be without that.
        if !Tuple::of(base).is_loopback() && self.locals.len() < ADDRESSES {
            self.locals.insert((base.family, base.local));
        }
    }

    /// Whether the other end of this connection may be open on this node, unknown because its story is
    /// still in the kernel; it is looked for from now on. At an address that is not known as one of this node's, only the first time
    /// that a reset comes from there, or that a process comes to its end which was connected to it: the address may not have been met yet,
    /// and who is told of that end has to know why.
    pub(super) fn asks_for_end(&mut self, slot: Slot) -> bool {
        let Some(ended) = self.table.get(slot) else {
            return false;
        };
        let tuple = ended.tuple;
        if self.context.events
            || ended.is_paired()
            || !ended.saw(seen::ESTABLISHED)
            || ended.saw(seen::ASKED)
            || !tuple.is_whole()
        {
            return false;
        }
        let there = (tuple.family, tuple.remote);
        if tuple.is_loopback() || self.locals.contains(&there) {
            if let Some(ended) = self.table.get_mut(slot) {
                ended.seen |= seen::ASKED;
            }
        } else if self.unexplained(ended).is_none() && ended.exit < exit::ENDS
            || self.strangers.len() >= ADDRESSES
            || !self.strangers.insert(there)
        {
            return false;
        }
        self.asked.insert(tuple.reversed());
        true
    }

    /// Whether an end that was not asked for may have sent this connection the reset that ended it.
    pub(super) fn asks_for_sender(&self, slot: Slot) -> bool {
        self.seeks_sender(slot).is_some()
    }

    /// Whether a middlebox may have to be named as who reset this connection, which requires that no hook was skipped until then; and
    /// that is not known yet.
    pub(super) fn asks_for_count(&self, slot: Slot) -> bool {
        let Some(ended) = self.table.get(slot) else {
            return false;
        };
        let Some((_, at)) = self.unexplained(ended) else {
            return false;
        };
        let dropped = || {
            self.notes
                .of(ended.netns, &ended.tuple, kind::SYN_DROPPED, ended.first)
        };
        let peer = self.table.get(ended.peer);
        let by_peer = peer.and_then(|peer| peer.end.as_deref()?.sent.as_ref());
        self.context.sees_all_resets
            && self.counted_at < at
            && by_peer.is_none()
            && (ended.is_paired() || ended.tuple.is_loopback() || dropped().is_some())
    }

    /// Its counters when that reset came, and when it ended.
    fn seeks_sender(&self, slot: Slot) -> Option<(&Stats, u64)> {
        let ended = self.table.get(slot).filter(|ended| !ended.is_paired())?;
        let may_be_hidden = !self.context.wanted.is_everything();
        may_be_hidden.then(|| self.unexplained(ended)).flatten()
    }

    /// The same of any that ended, where no reset without a connection is known that may be the one.
    fn unexplained<'a>(&self, ended: &'a Connection) -> Option<(&'a Stats, u64)> {
        let is_known = || self.strays.knows(ended.netns, &ended.tuple, &ended.lived());
        reset::lacks_sender(ended).filter(|_| !is_known())
    }
}
