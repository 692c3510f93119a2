//! The kernel side's keeping of stories, played for tests: single events in, what the ring would hold
//! out. Follows `story.rs` of the eBPF crate.

use hashbrown::HashMap;
use upstream_trace_common::{
    event::{Actor, Base, Stats, exit, kind},
    story::{AT_ACCEPT, AT_BIRTH, Change, Ended, NOBODY, STEPS, Story},
};

use crate::{decode::Event, tcp::State};

/// What goes into the ring.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told<'a> {
    Event(Event<'a>),
    Story(Story),
    Ended(Ended),
}

/// The sockets' stories.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    stories: HashMap<u64, Story>,
}

impl Keeper {
    /// The stories of what is open.
    pub(super) fn open(&self) -> impl Iterator<Item = &Story> {
        self.stories.values()
    }

    /// Takes an event as a hook sees it.
    pub(super) fn event<'a>(&mut self, event: Event<'a>) -> Vec<Told<'a>> {
        let base = event.base;
        let born = |old: State, new: State| {
            base.kind == kind::STATE && base.old == old as u8 && base.new == new as u8
        };
        if born(State::Close, State::SynSent) || born(State::SynRecv, State::Established) {
            return self.birth(base, event.actor);
        }
        let Some(story) = self.stories.get_mut(&base.sk) else {
            return vec![Told::Event(event)];
        };
        if story.local_port == 0 {
            story.local_port = base.local_port;
        }
        match base.kind {
            kind::CONNECT | kind::HELD => vec![],
            kind::ACCEPT => {
                story.accepted = base.ktime;
                story.accepted_sk = base.sk;
                story.acted = AT_ACCEPT;
                story.actor = event.actor.copied().unwrap_or_default();
                vec![]
            }
            kind::STATE if base.new == State::Close as u8 => match event.stats {
                Some(stats) if stats.has_socket == 0 => self.end(base, *stats, base.old, 0),
                _ => self.tell(base.sk, event),
            },
            kind::STATE | kind::SYN_RETRANSMIT => self.step(event),
            kind::DESTROY => {
                let state = story.state;
                self.end(base, Stats::default(), state, 1)
            }
            _ => self.tell(base.sk, event),
        }
    }

    /// What is told of a socket before an event that is none of its story's.
    pub(super) fn interrupt(&mut self, sk: u64) -> Option<Story> {
        self.stories.remove(&sk)
    }

    fn birth<'a>(&mut self, base: &Base, actor: Option<&Actor>) -> Vec<Told<'a>> {
        let stale = self.stories.remove(&base.sk);
        let stale = stale.map(|story| Story { over: 1, ..story });
        let by_connect = base.new == State::SynSent as u8;
        let story = Story {
            sk: base.sk,
            jiffies: base.jiffies,
            local_port: base.local_port,
            remote_port: base.remote_port,
            born: base.ktime,
            netns: base.netns,
            family: base.family,
            birth: Change::of(base.old, base.new),
            local: base.local,
            remote: base.remote,
            actor: actor.filter(|_| by_connect).copied().unwrap_or_default(),
            acted: if by_connect { AT_BIRTH } else { NOBODY },
            state: base.new,
            ..Story::default()
        };
        self.stories.insert(base.sk, story);
        stale.map(Told::Story).into_iter().collect()
    }

    fn step<'a>(&mut self, event: Event<'a>) -> Vec<Told<'a>> {
        let (base, actor) = (event.base, event.actor);
        let Some(story) = self.stories.get_mut(&base.sk) else {
            return vec![Told::Event(event)];
        };
        let len = usize::from(story.len);
        if len == STEPS {
            return self.tell(base.sk, event);
        }
        story.at[len] = base.ktime;
        story.what[len] = Change::of(base.old, base.new);
        let closes = [State::FinWait1 as u8, State::LastAck as u8].contains(&base.new);
        if closes {
            story.exit = actor.map_or(exit::NONE, |actor| actor.exit);
        }
        if story.acted == NOBODY && closes {
            story.actor = actor.copied().unwrap_or_default();
            story.acted = story.len;
        }
        let is_fin = [State::FinWait1 as u8, State::CloseWait as u8].contains(&base.new);
        if base.kind == kind::STATE && is_fin {
            story.jiffies = base.jiffies;
        }
        story.len += 1;
        if base.kind == kind::STATE {
            story.state = base.new;
        }
        vec![]
    }

    fn tell<'a>(&mut self, sk: u64, event: Event<'a>) -> Vec<Told<'a>> {
        let story = self.interrupt(sk).map(Told::Story);
        story.into_iter().chain([Told::Event(event)]).collect()
    }

    fn end<'a>(&mut self, base: &Base, stats: Stats, old: u8, late: u32) -> Vec<Told<'a>> {
        let story = self.stories.remove(&base.sk);
        let ended = story.map(|story| {
            Told::Ended(Ended {
                story,
                ktime: base.ktime,
                old: old.into(),
                late,
                stats,
            })
        });
        ended.into_iter().collect()
    }
}
