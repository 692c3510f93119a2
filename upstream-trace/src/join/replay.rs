//! A story that the kernel side kept, into its connection.
//!
//! Must not know: the ring, what is printed.

use upstream_trace_common::{
    event::{Base, kind},
    story::{Ended, Story},
};

use super::{
    connection::{Slot, seen},
    engine::{Engine, Sink, WallClock},
    story,
    tuple::Tuple,
};
use crate::{decode::Event, process::Describe, record::Role, tcp::State};

impl Engine {
    /// Takes a socket's life so far; returns how many of its events are new.
    pub fn story(&mut self, story: &Story, describe: &mut impl Describe) -> u64 {
        if !self.wants(story) {
            return story.events().into();
        }
        let (slot, known) = self.replay(story, describe);
        self.table.index(slot);
        self.pair(slot, u64::MAX);
        let new = self.count(slot, story.events(), known);
        if story.over != 0 {
            // Perhaps nothing more is told of the address: the port of the socket that has it now may not be wanted.
            self.abandon(slot, story.born);
        }
        new
    }

    /// Takes a socket's whole life; returns how many of its events are new. Prints both ends of a
    /// connection at once where nothing more can come, while they are at hand.
    pub fn ended_story(
        &mut self,
        ended: &Ended,
        describe: &mut impl Describe,
        clock: &impl WallClock,
        sink: &mut impl Sink,
    ) -> u64 {
        if !self.wants(&ended.story) {
            return ended.events().into();
        }
        let (slot, known) = self.replay(&ended.story, describe);
        self.pair(slot, ended.ktime);
        self.end_story(slot, ended, describe);
        let new = self.count(slot, ended.events(), known);
        self.finish_if_both_parted(slot, clock, sink);
        // Most of those that end second are gone by now, and never had to be found.
        self.table.index(slot);
        new
    }

    /// The transition to `CLOSE`.
    fn end_story(&mut self, slot: Slot, ended: &Ended, describe: &mut impl Describe) {
        let old = u8::try_from(ended.old).unwrap_or(0);
        if ended.late != 0 {
            self.missing(slot, ended.ktime);
            // tcp_disconnect() has cleared the counters by now, or who was told of the error has cleared that: nothing is left to
            // judge by. What was on its way to an orderly end can still be taken to have come to it.
            let is_orderly = State::from_kernel(old).is_some_and(State::has_sent_fin);
            if ended.stats.segs_out == 0 || ended.stats.err == 0 && !is_orderly {
                self.mark_ended(slot, ended.ktime);
                return;
            }
        }
        let base = Base {
            ktime: ended.ktime,
            kind: kind::STATE,
            old,
            new: State::Close as u8,
            ..ended.story.base()
        };
        let event = Event {
            base: &base,
            actor: None,
            stats: Some(&ended.stats),
        };
        self.changed(slot, event, describe);
    }

    /// A connect whose local port was not known had to pass the kernel's filter; now it is known.
    fn wants(&self, story: &Story) -> bool {
        story.local_port == 0
            || self
                .context
                .wanted
                .port(story.local_port, story.remote_port)
    }

    /// Joins those events of a story that are not known yet; where all are new, nothing finds the connection yet.
    fn replay(&mut self, story: &Story, describe: &mut impl Describe) -> (Slot, u32) {
        let mut base = story.base();
        let before = self.table.by_sk(story.sk);
        let known = before.filter(|&slot| {
            let connection = self.table.get(slot);
            connection.is_some_and(|connection| connection.first == base.ktime)
        });
        let slot = known.unwrap_or_else(|| {
            if let Some(before) = before {
                self.abandon(before, base.ktime);
            }
            self.born(story, describe)
        });
        self.table.complete_tuple(slot, Tuple::of(&base));
        let events = self.table.get(slot).map_or(0, |known| known.events);
        let skip = usize::try_from(events).unwrap_or(0).saturating_sub(1);
        for step in story::steps(story).skip(skip) {
            base.ktime = step.ktime;
            base.kind = step.kind;
            (base.old, base.new) = (step.change.before(), step.change.after());
            let event = Event {
                base: &base,
                actor: step.actor,
                stats: None,
            };
            match step.kind {
                kind::STATE => self.changed(slot, event, describe),
                kind::ACCEPT => self.accepted(slot, event, describe),
                _ => self.progressed(slot, &base),
            }
        }
        if let Some(connection) = self.table.get_mut(slot) {
            connection.exits(story.exit);
        }
        (slot, events)
    }

    /// Begins the connection of a story.
    fn born(&mut self, story: &Story, describe: &mut impl Describe) -> Slot {
        let base = &story.base();
        self.is_local(base);
        let event = Event {
            base,
            actor: story::connector(story),
            stats: None,
        };
        if base.old == State::Close as u8 {
            let slot = self.insert(base, Role::Client, seen::BIRTH | seen::ACCEPTED);
            self.connecting(slot, event, describe);
            slot
        } else {
            let slot = self.insert(base, Role::Server, seen::BIRTH);
            self.owned_by_listener(slot);
            self.transition(slot, base);
            slot
        }
    }

    /// Counts a connection's events; returns those beyond the known ones.
    fn count(&mut self, slot: Slot, events: u32, known: u32) -> u64 {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.events = connection.events.max(events);
        }
        events.saturating_sub(known).into()
    }
}
