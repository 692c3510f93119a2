//! Takes events in kernel order and keeps each connection's story.
//!
//! Identity: a socket's address names a connection only from one birth to the next, so each birth
//! (`CLOSE -> SYN_SENT`, `SYN_RECV -> ESTABLISHED`) begins a new one, also where the same socket
//! connects again. A connection that ended waits [`HOLD_NS`] for what the kernel reports after its end.
//! Must not know: how a record looks.

use std::{collections::VecDeque, rc::Rc};

use hashbrown::HashSet;
use upstream_trace_common::{
    event::{Base, kind},
    story::{Ended, Story},
};

use super::{
    connection::{Closed, Connection, NONE, PackedStep, Sent, Slot, Steps, seen},
    finish,
    listener::Listeners,
    story,
    stray::Strays,
    table::Table,
    tuple::Tuple,
};
use crate::{
    decode::Event,
    kernel::reasons::ResetReasons,
    process::{Describe, Process, Processes},
    record::{self, Attribution, Role, StepKind},
    settings::Wanted,
    tcp::State,
};

/// How long a connection that ended waits for the rest of its story: the reset that is reported after
/// the state change, the other end's side of it, the owner's close. Well within the 100 ms in which its
/// record has to appear.
pub const HOLD_NS: u64 = 20_000_000;

/// How long after its end a connection waits at most for its other end to be looked for.
const PATIENCE_NS: u64 = 60_000_000;
/// Addresses of this node that are remembered.
const LOCALS: usize = 65_536;

/// What the engine has to know of the host and the run.
#[derive(Clone, Debug)]
pub struct Context {
    /// Random for each run.
    pub run: u64,
    /// Length of a jiffy.
    pub tick_ns: u64,
    /// `--idle-after`.
    pub idle_after_us: u64,
    /// Names of `enum sk_rst_reason`; none where the kernel has none.
    pub reasons: ResetReasons,
    /// Every reset that a stack sends is seen, also those without a full socket.
    pub sees_all_resets: bool,
    /// Both ends of a connection pass the filters, so that a missing peer is one that is not here.
    pub sees_both_ends: bool,
    /// `--events`: each event comes by itself. Otherwise the kernel keeps the stories of connections until
    /// they end, so that open ones are not known here.
    pub events: bool,
    /// What was asked for, for what the kernel could not decide.
    pub wanted: Wanted,
}

/// Where finished records go; `seq` is the sink's.
pub trait Sink {
    /// A connection that ended, and how many events made it.
    fn connection(&mut self, record: &mut record::Connection<'_>, events: u32);
    /// A reset without a connection, and how many events made it.
    fn reset(&mut self, record: &mut record::StrayReset<'_>, events: u32);
    /// One event.
    fn event(&mut self, record: &mut record::Event<'_>);
}

/// Turns kernel time into wall-clock time.
pub trait WallClock {
    /// The time of day at `ktime`, `CLOCK_MONOTONIC` nanoseconds.
    fn at(&self, ktime: u64) -> record::Timestamp;
}

/// The join.
#[derive(Debug)]
pub struct Engine {
    pub(super) context: Context,
    pub(super) table: Table,
    pub(super) processes: Processes,
    pub(super) listeners: Listeners,
    pub(super) strays: Strays,
    /// Ended connections by their end, with the serial that tells a reused slot.
    ended: VecDeque<(u64, Slot, u64)>,
    serial: u64,
    /// When events were last lost.
    pub(super) lost_at: Option<u64>,
    /// When a hook was last found to have been skipped.
    pub(super) skipped_at: Option<u64>,
    /// A snapshot of open sockets is being taken: what it finds is older than the tracer.
    snapshot: bool,
    /// Local addresses of sockets on this node: an end there may be found.
    locals: HashSet<(u8, [u64; 2])>,
    /// Connections that wait for their other end to be looked for among the open ones.
    asking: Vec<(u64, Slot, u64)>,
    /// The other ends that are looked for, as they see themselves.
    asked: HashSet<Tuple>,
    /// Some connection that ended is still held by a process that is not known.
    owner_missing: bool,
    /// Events of connections that were put out of the table.
    evicted_events: u64,
    /// Changes of state that must have happened unseen.
    pub(super) unseen: u64,
    pub(super) scratch: Vec<record::Step>,
}

impl Engine {
    /// An engine that keeps at most `limit` connections.
    pub fn new(context: Context, limit: usize) -> Self {
        Self {
            context,
            table: Table::new(limit),
            processes: Processes::default(),
            listeners: Listeners::default(),
            strays: Strays::default(),
            ended: VecDeque::new(),
            serial: 0,
            lost_at: None,
            skipped_at: None,
            snapshot: false,
            locals: HashSet::new(),
            asking: Vec::new(),
            asked: HashSet::new(),
            owner_missing: false,
            evicted_events: 0,
            unseen: 0,
            scratch: Vec::new(),
        }
    }

    /// Connections in the table.
    pub fn open(&self) -> usize {
        self.table.len()
    }

    /// Events of connections that were put out of the full table.
    pub const fn evicted_events(&self) -> u64 {
        self.evicted_events
    }

    /// Changes of state that no hook reported, although nothing was lost on the way: the kernel kept the
    /// hook from running. What follows them tells.
    pub const fn unseen(&self) -> u64 {
        self.unseen
    }

    /// Events were lost not later than `ktime`: whatever lived then may have missed some.
    pub fn lost(&mut self, ktime: u64) {
        self.lost_at = Some(ktime);
    }

    /// A hook was skipped not later than `ktime`. A connection whose change of state that was is found by
    /// what follows; a reset may have been sent unseen.
    pub fn skipped(&mut self, ktime: u64) {
        self.skipped_at = Some(ktime);
    }

    /// Begins or ends the time in which sockets found are older than the tracer.
    pub const fn set_snapshot(&mut self, on: bool) {
        self.snapshot = on;
    }

    /// Whether a scan of open files could name an owner that nothing else has named; asks once.
    pub const fn take_owner_missing(&mut self) -> bool {
        std::mem::replace(&mut self.owner_missing, false)
    }

    /// Takes one event.
    pub fn event(
        &mut self,
        event: Event<'_>,
        describe: &mut impl Describe,
        clock: &impl WallClock,
        sink: &mut impl Sink,
    ) {
        let base = event.base;
        let slot = match base.kind {
            kind::STATE => self.state(event, describe),
            kind::CONNECT | kind::SYN_RETRANSMIT => Some(self.progress(base)),
            kind::ACCEPT => Some(self.accept(event, describe)),
            kind::RESET_RECEIVED => self.reset_received(event),
            kind::RESET_SENT_ACTIVE | kind::RESET_SENT_REPLY => self.reset_sent(event, describe),
            kind::RESET_SENT_NO_SOCKET | kind::RESET_SENT_TIME_WAIT | kind::RESET_SENT_LISTEN => {
                if let Some(stray) = self.strays.insert(base) {
                    finish::stray(self, &stray, clock, sink);
                }
                None
            }
            kind::DESTROY => self.destroy(event, describe),
            kind::HELD => self.held(event, describe),
            kind::PROCESS => {
                self.actor(event, describe);
                None
            }
            _ => None,
        };
        if let Some(connection) = slot.and_then(|slot| self.table.get_mut(slot)) {
            connection.events = connection.events.saturating_add(1);
        }
        if self.context.events {
            finish::event(self, event, slot, clock, sink);
        }
    }

    /// Takes a socket's life so far; returns how many of its events are new.
    pub fn story(&mut self, story: &Story, describe: &mut impl Describe) -> u64 {
        if !self.wants(story) {
            return story::events(story).into();
        }
        let (slot, known) = self.replay(story, describe);
        self.pair(slot, u64::MAX);
        self.count(slot, story::events(story), known)
    }

    /// Takes a socket's whole life; returns how many of its events are new.
    pub fn ended_story(&mut self, ended: &Ended, describe: &mut impl Describe) -> u64 {
        if !self.wants(&ended.story) {
            return u64::from(story::events(&ended.story)) + 1;
        }
        let (slot, known) = self.replay(&ended.story, describe);
        self.pair(slot, ended.ktime);
        if ended.late != 0 {
            self.missing(slot);
            // tcp_disconnect() has cleared the counters by now: nothing is left to judge by.
            if ended.stats.segs_out == 0 {
                self.ended(slot, ended.ktime);
                return self.count(slot, story::events(&ended.story) + 1, known);
            }
        }
        let base = Base {
            ktime: ended.ktime,
            kind: kind::STATE,
            old: u8::try_from(ended.old).unwrap_or(0),
            new: State::Close as u8,
            ..ended.story.base
        };
        let event = Event {
            base: &base,
            actor: None,
            stats: Some(&ended.stats),
        };
        self.changed(slot, event, describe);
        self.count(slot, story::events(&ended.story) + 1, known)
    }

    /// A connect whose local port was not known had to pass the kernel's filter; now it is known.
    fn wants(&self, story: &Story) -> bool {
        let base = &story.base;
        base.local_port == 0 || self.context.wanted.port(base.local_port, base.remote_port)
    }

    /// Joins those events of a story that are not known yet.
    fn replay(&mut self, story: &Story, describe: &mut impl Describe) -> (Slot, u32) {
        let base = &story.base;
        let known = self.table.by_sk(base.sk).filter(|&slot| {
            let connection = self.table.get(slot);
            connection.is_some_and(|connection| connection.first == base.ktime)
        });
        let slot = known.unwrap_or_else(|| self.born(story, describe));
        self.table.complete_tuple(slot, Tuple::of(base));
        let events = self.table.get(slot).map_or(0, |known| known.events);
        let skip = usize::try_from(events).unwrap_or(0).saturating_sub(1);
        for (base, actor) in story::steps(story).skip(skip) {
            let event = Event {
                base: &base,
                actor,
                stats: None,
            };
            match base.kind {
                kind::STATE => self.changed(slot, event, describe),
                kind::ACCEPT => self.accepted(slot, event, describe),
                _ => self.progressed(slot, &base),
            }
        }
        (slot, events)
    }

    /// Begins the connection of a story.
    fn born(&mut self, story: &Story, describe: &mut impl Describe) -> Slot {
        let base = &story.base;
        let here = (base.family, base.local);
        if self.locals.len() < LOCALS {
            self.locals.insert(here);
        }
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
            self.transition(slot, base, seen::ESTABLISHED);
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

    /// Whether the other end of a connection that is due may be among those that are still open, so that
    /// [`Self::offer`] should be called for each of these.
    pub const fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Takes the story of a connection that is still open, if it is one that is looked for; returns how
    /// many of its events are new.
    pub fn offer(&mut self, story: &Story, describe: &mut impl Describe) -> u64 {
        if self.asked.contains(&Tuple::of(&story.base)) {
            self.story(story, describe)
        } else {
            0
        }
    }

    /// All that are open were offered: prints what waited for that, at `now` as for
    /// [`Self::finish_due`].
    pub fn answered(&mut self, now: u64, clock: &impl WallClock, sink: &mut impl Sink) {
        self.asked.clear();
        let mut waiting = std::mem::take(&mut self.asking);
        for (_, slot, serial) in waiting.drain(..) {
            self.finish(slot, serial, clock, sink);
        }
        self.asking = waiting;
        self.strays_due(now, clock, sink);
    }

    fn finish(&mut self, slot: Slot, serial: u64, clock: &impl WallClock, sink: &mut impl Sink) {
        let connection = self.table.get(slot);
        if connection.is_some_and(|connection| connection.serial == serial) {
            finish::connection(self, slot, clock, sink);
        }
    }

    /// Whether the other end of this connection may be open on this node, unknown because its story is
    /// still in the kernel.
    fn should_ask(&self, slot: Slot, serial: u64) -> bool {
        let Some(connection) = self.table.get(slot) else {
            return false;
        };
        let tuple = &connection.tuple;
        connection.serial == serial
            && connection.peer == NONE
            && connection.saw(seen::ESTABLISHED)
            && connection.seen & (seen::PEER_ENDED | seen::ASKED) == 0
            && tuple.is_whole()
            && (tuple.is_loopback() || self.locals.contains(&(tuple.family, tuple.remote)))
    }

    /// Prints whatever is due at `now`, `CLOCK_MONOTONIC` nanoseconds read before the ring was drained.
    pub fn finish_due(&mut self, now: u64, clock: &impl WallClock, sink: &mut impl Sink) {
        // Asked in vain since the last time.
        if let Some(&(at, ..)) = self.asking.first()
            && at.saturating_add(PATIENCE_NS) <= now
        {
            self.answered(now, clock, sink);
        }
        while let Some(&(at, slot, serial)) = self.ended.front()
            && at.saturating_add(HOLD_NS) <= now
        {
            self.ended.pop_front();
            if !self.context.events && self.should_ask(slot, serial) {
                if let Some(connection) = self.table.get_mut(slot) {
                    connection.seen |= seen::ASKED;
                    self.asked.insert(connection.tuple.reversed());
                }
                self.asking.push((at, slot, serial));
            } else {
                self.finish(slot, serial, clock, sink);
            }
        }
        // A connection that waits for its other end may still claim one.
        if self.asking.is_empty() {
            self.strays_due(now, clock, sink);
        }
    }

    fn strays_due(&mut self, now: u64, clock: &impl WallClock, sink: &mut impl Sink) {
        while let Some(stray) = self.strays.due(now) {
            finish::stray(self, &stray, clock, sink);
        }
    }

    /// The connection that the socket has, if its addresses agree; after lost events they may not, and
    /// the address of one that ended may be another socket's by now.
    fn find(&mut self, base: &Base) -> Option<Slot> {
        let slot = self.table.by_sk(base.sk)?;
        let connection = self.table.get(slot)?;
        let (known, tuple) = (connection.tuple, Tuple::of(base));
        // A connect that turned out not to be wanted leaves nothing but its birth behind.
        let goes_on = known.is_whole() || connection.state == base.old;
        let differs = known != tuple && (known.is_whole() || connection.saw(seen::END)) || !goes_on;
        if differs && tuple.is_whole() {
            self.abandon(slot, base.ktime);
            return None;
        }
        self.table.complete_tuple(slot, tuple);
        self.pair(slot, u64::MAX);
        Some(slot)
    }

    /// As [`Self::find`], or a connection that began unseen.
    fn find_or_begin(&mut self, base: &Base) -> Slot {
        if let Some(slot) = self.find(base) {
            return slot;
        }
        let role = match State::from_kernel(base.old) {
            Some(State::SynSent) => Role::Client,
            Some(State::SynRecv) => Role::Server,
            _ if self.listeners.any(base.netns, base.local_port) => Role::Server,
            _ if self.listeners.any(base.netns, base.remote_port) => Role::Client,
            _ => Role::Unknown,
        };
        // A child in SYN_RECV was born a moment ago, in the same packet.
        let born = if role == Role::Server && base.old == State::SynRecv as u8 {
            seen::BIRTH
        } else {
            0
        };
        let established = if base.old == State::SynSent as u8 || born != 0 {
            0
        } else {
            seen::ESTABLISHED
        };
        let slot = self.begin(base, role, born | established);
        self.implied(slot, base.old);
        slot
    }

    fn begin(&mut self, base: &Base, role: Role, seen: u16) -> Slot {
        let slot = self.insert(base, role, seen);
        self.pair(slot, u64::MAX);
        slot
    }

    fn insert(&mut self, base: &Base, role: Role, seen: u16) -> Slot {
        // The same socket connects again, or its address belongs to another one now.
        if let Some(before) = self.table.by_sk(base.sk) {
            self.abandon(before, base.ktime);
        }
        self.serial += 1;
        let (slot, evicted) = self.table.insert(Connection {
            sk: base.sk,
            serial: self.serial,
            first: base.ktime,
            tuple: Tuple::of(base),
            netns: base.netns,
            role,
            state: base.old,
            seen,
            touched: true,
            peer: NONE,
            next_same_tuple: NONE,
            events: 0,
            owner: None,
            peer_owner: None,
            steps: Steps::default(),
            end: None,
        });
        if let Some(evicted) = evicted {
            self.evicted_events += u64::from(evicted.events);
        }
        slot
    }

    /// The socket's address is no longer this connection's. If its end was not seen, that was lost.
    fn abandon(&mut self, slot: Slot, ktime: u64) {
        self.table.forget_sk(slot);
        let Some(connection) = self.table.get(slot) else {
            return;
        };
        if connection.saw(seen::END) {
            return;
        }
        // One without a local port was let go by the filter, not lost.
        if connection.tuple.is_whole() {
            self.missing(slot);
        }
        self.ended(slot, ktime);
    }

    /// The socket is in this state, whether or not the way there was seen.
    fn implied(&mut self, slot: Slot, state: u8) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        connection.seen |= match State::from_kernel(state) {
            Some(State::Established) => seen::ESTABLISHED,
            Some(State::CloseWait) => seen::ESTABLISHED | seen::PEER_CLOSED_FIRST,
            Some(State::LastAck) => seen::ESTABLISHED | seen::PEER_CLOSED_FIRST | seen::FIN_SENT,
            Some(State::FinWait1 | State::FinWait2 | State::Closing) => {
                seen::ESTABLISHED | seen::CLOSED_FIRST | seen::FIN_SENT
            }
            _ => 0,
        };
    }

    /// A change of state of this connection was not reported.
    fn missing(&mut self, slot: Slot) {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.seen |= seen::LOSS;
            // Otherwise it may be counted among those that were lost on the way.
            self.unseen += u64::from(self.lost_at.is_none_or(|lost| lost < connection.first));
        }
    }

    /// Finds the socket of the other end of a connection that lived until then, if it is on this node.
    fn pair(&mut self, slot: Slot, until: u64) {
        let Some(connection) = self.table.get(slot) else {
            return;
        };
        if connection.peer != NONE || !connection.tuple.is_whole() {
            return;
        }
        let reversed = connection.tuple.reversed();
        let (here, first) = (connection.netns, connection.first);
        let single = |&(other, candidate): &(Slot, &Connection)| {
            let end = candidate.end.as_ref().map_or(0, |end| end.at);
            let ended_before = candidate.saw(seen::END) && end < first;
            // A connection to itself is its own other end; one of another time has its own peer.
            other != slot && candidate.peer == NONE && !ended_before && candidate.first <= until
        };
        let same_netns = self
            .table
            .by_tuple(&reversed)
            .find(|candidate| single(candidate) && candidate.1.netns == here);
        let found = same_netns.or_else(|| {
            if connection.tuple.is_loopback() {
                return None;
            }
            // The same pair of addresses in several namespaces: no telling which.
            let mut others = self.table.by_tuple(&reversed).filter(single);
            let only = others.next()?;
            others.next().is_none().then_some(only)
        });
        if let Some((peer, _)) = found {
            for (this, other) in [(slot, peer), (peer, slot)] {
                if let Some(connection) = self.table.get_mut(this) {
                    connection.peer = other;
                }
            }
        }
    }

    fn ended(&mut self, slot: Slot, ktime: u64) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if connection.saw(seen::END) {
            return;
        }
        connection.seen |= seen::END;
        self.ended.push_back((ktime, slot, connection.serial));
        if let Some(end) = self.table.end(slot) {
            end.at = ktime;
        }
    }

    fn actor(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Option<Rc<Process>> {
        self.processes.seen(event.actor?, describe)
    }

    fn state(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Option<Slot> {
        let base = event.base;
        let (old, new) = (State::from_kernel(base.old)?, State::from_kernel(base.new)?);
        match (old, new) {
            (State::Close, State::SynSent) => {
                let slot = self.begin(base, Role::Client, seen::BIRTH | seen::ACCEPTED);
                self.connecting(slot, event, describe);
                Some(slot)
            }
            (State::Close, State::Listen) => {
                let process = self.actor(event, describe)?;
                self.listeners
                    .insert(base.sk, base.netns, &Tuple::of(base), &process, base.ktime);
                None
            }
            (State::Listen, _) => {
                self.listeners
                    .remove(base.sk, base.netns, base.local_port, base.ktime);
                None
            }
            (State::SynRecv, State::Established) => {
                // A simultaneous open, or a connection to itself, is known already.
                let known = self.find(base).filter(|&slot| {
                    let connection = self.table.get(slot);
                    connection.is_some_and(|connection| connection.state == base.old)
                });
                let slot = known.unwrap_or_else(|| {
                    let slot = self.begin(base, Role::Server, seen::BIRTH);
                    self.owned_by_listener(slot);
                    slot
                });
                self.transition(slot, base, seen::ESTABLISHED);
                Some(slot)
            }
            _ => {
                let slot = self.find_or_begin(base);
                self.changed(slot, event, describe);
                Some(slot)
            }
        }
    }

    /// A socket begins to connect.
    fn connecting(&mut self, slot: Slot, event: Event<'_>, describe: &mut impl Describe) {
        let base = event.base;
        let owner = self.actor(event, describe);
        if let Some(connection) = self.table.get_mut(slot) {
            connection.state = base.new;
            connection.step(base.ktime, StepKind::Connect, 0);
            if let Some(owner) = owner {
                connection.owned_by(&owner, Attribution::Exact);
            }
        }
    }

    /// Any other change of state of a connection.
    fn changed(&mut self, slot: Slot, event: Event<'_>, describe: &mut impl Describe) {
        let base = event.base;
        let states = (State::from_kernel(base.old), State::from_kernel(base.new));
        match states {
            (_, Some(State::Close)) => self.closed(slot, event, describe),
            (_, Some(new @ (State::FinWait1 | State::LastAck))) => {
                let first = if new == State::FinWait1 {
                    seen::CLOSED_FIRST
                } else {
                    0
                };
                self.transition(slot, base, seen::ACCEPTED | seen::FIN_SENT | first);
                let closer = self.actor(event, describe);
                self.closed_by(slot, closer.as_ref());
            }
            (Some(State::Established), Some(State::CloseWait)) => {
                self.transition(slot, base, seen::PEER_CLOSED_FIRST);
            }
            (_, Some(State::Established)) => self.transition(slot, base, seen::ESTABLISHED),
            _ => self.transition(slot, base, 0),
        }
    }

    fn transition(&mut self, slot: Slot, base: &Base, bits: u16) {
        let skipped =
            |connection: &Connection| connection.state != base.old && !connection.saw(seen::END);
        if self.table.get(slot).is_some_and(skipped) {
            self.missing(slot);
            self.implied(slot, base.old);
        }
        if let Some(connection) = self.table.get_mut(slot) {
            connection.state = base.new;
            connection.seen |= bits;
            let states = PackedStep::states(base.old, base.new);
            connection.step(base.ktime, StepKind::State, states);
        }
    }

    fn owned_by_listener(&mut self, slot: Slot) {
        let Some(connection) = self.table.get(slot) else {
            return;
        };
        let owner = self
            .listeners
            .owner(connection.netns, &connection.tuple, connection.first)
            .cloned();
        if let (Some(owner), Some(connection)) = (owner, self.table.get_mut(slot)) {
            connection.owned_by(&owner, Attribution::Listener);
        }
    }

    /// A process closes the connection: its owner, unless a better witness says otherwise. A kernel
    /// thread only finishes what a process began.
    fn closed_by(&mut self, slot: Slot, closer: Option<&Rc<Process>>) {
        if let (Some(connection), Some(closer)) = (self.table.get_mut(slot), closer) {
            connection.owned_by(closer, Attribution::Closer);
        }
    }

    fn closed(&mut self, slot: Slot, event: Event<'_>, describe: &mut impl Describe) {
        let (base, Some(stats)) = (event.base, event.stats) else {
            return;
        };
        let with_socket = stats.has_socket != 0;
        if stats.err != 0
            && let Some(connection) = self.table.get_mut(slot)
        {
            let errno = u16::try_from(stats.err).unwrap_or(0);
            connection.step(base.ktime, StepKind::Error, errno);
        }
        let bits = if with_socket { seen::ACCEPTED } else { 0 };
        let finished = self
            .table
            .get(slot)
            .is_some_and(|connection| connection.saw(seen::END));
        self.transition(slot, base, bits);
        if finished {
            return;
        }
        if let Some(end) = self.table.end(slot) {
            end.closed = Some(Closed {
                from: base.old,
                stats: *stats,
            });
        }
        if with_socket {
            if stats.err == 0 && base.old != State::SynSent as u8 {
                // In the closer's own context: an abort, or connect(AF_UNSPEC).
                let closer = self.actor(event, describe);
                self.closed_by(slot, closer.as_ref());
            } else {
                let unowned = self.table.get(slot).is_some_and(|connection| {
                    let attribution = connection.owner.as_ref().map(|owner| owner.attribution);
                    matches!(attribution, None | Some(Attribution::Listener))
                });
                self.owner_missing |= unowned;
            }
        }
        self.ended(slot, base.ktime);
    }

    fn progress(&mut self, base: &Base) -> Slot {
        let slot = self.find_or_begin(base);
        self.progressed(slot, base);
        slot
    }

    fn progressed(&mut self, slot: Slot, base: &Base) {
        if base.kind == kind::SYN_RETRANSMIT
            && let Some(connection) = self.table.get_mut(slot)
        {
            connection.step(base.ktime, StepKind::SynRetransmit, 0);
        }
    }

    fn accept(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Slot {
        let slot = self.find_or_begin(event.base);
        self.accepted(slot, event, describe);
        slot
    }

    fn accepted(&mut self, slot: Slot, event: Event<'_>, describe: &mut impl Describe) {
        let process = self.actor(event, describe);
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        connection.accepted();
        connection.step(event.base.ktime, StepKind::Accept, 0);
        if let Some(process) = process {
            connection.owned_by(&process, Attribution::Exact);
        }
    }

    fn reset_received(&mut self, event: Event<'_>) -> Option<Slot> {
        let (base, stats) = (event.base, event.stats?);
        let slot = self.find_or_begin(base);
        let connection = self.table.get_mut(slot)?;
        if stats.has_socket != 0 {
            connection.seen |= seen::ACCEPTED;
        }
        if connection.state == State::SynSent as u8 {
            self.implied(slot, base.old);
        }
        let connection = self.table.get_mut(slot)?;
        connection.step(base.ktime, StepKind::ResetReceived, 0);
        self.table.end(slot)?.received = Some(*stats);
        Some(slot)
    }

    fn reset_sent(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Option<Slot> {
        let (base, stats) = (event.base, event.stats?);
        let actor = self.actor(event, describe);
        let slot = self.find_or_begin(base);
        let sent = Sent {
            kind: base.kind,
            state: base.old,
            reason: base.new,
            actor,
        };
        let connection = self.table.get_mut(slot)?;
        // No stack answers a reset with a reset: what came was data after a shutdown.
        let was_data = base.kind == kind::RESET_SENT_REPLY;
        if was_data {
            connection.steps.retract(StepKind::ResetReceived);
        }
        connection.step(base.ktime, StepKind::ResetSent, 0);
        if was_data && base.old == State::SynSent as u8 {
            // The answer to a segment of an earlier connection, one in TIME_WAIT for instance: this one
            // goes on, and sends its SYN again.
            return Some(slot);
        }
        let end = self.table.end(slot)?;
        if was_data && let Some(received) = end.received.take() {
            end.sent_stats = Some(received);
        } else {
            end.sent_stats = Some(*stats);
        }
        end.sent = Some(sent);
        Some(slot)
    }

    fn destroy(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Option<Slot> {
        let base = event.base;
        let slot = self.table.by_sk(base.sk)?;
        let connection = self.table.get(slot)?;
        if !connection.saw(seen::END) {
            // It cannot be destroyed in any other state: the event of its end was lost.
            self.abandon(slot, base.ktime);
            return Some(slot);
        }
        if connection.tuple != Tuple::of(base) {
            // Another socket at the same address, one that never connected; or this one, after its
            // closer was seen.
            return None;
        }
        let end = connection.end.as_ref()?.closed?;
        let was_held = end.stats.has_socket != 0;
        // Whoever closes a child that ended unaccepted has accepted it since, or closes the listener.
        let listening = self
            .listeners
            .any(connection.netns, connection.tuple.local_port);
        if end.stats.err != 0 && (was_held || listening) {
            // The network ended it; the current task is the one that closes what is left.
            let closer = self.actor(event, describe);
            self.closed_by(slot, closer.as_ref());
        }
        Some(slot)
    }

    fn held(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Option<Slot> {
        let base = event.base;
        let process = self.actor(event, describe)?;
        let tuple = Tuple::of(base);
        let known = self.table.by_sk(base.sk).filter(|&slot| {
            let connection = self.table.get(slot);
            connection.is_some_and(|connection| {
                connection.tuple == tuple
                    || !connection.tuple.is_whole() && !connection.saw(seen::END)
            })
        });
        match (known, State::from_kernel(base.old)?) {
            (_, State::Listen) => {
                self.listeners
                    .insert(base.sk, base.netns, &tuple, &process, 0);
                None
            }
            (Some(slot), _) => {
                let connection = self.table.get_mut(slot)?;
                connection.accepted();
                let attribution = if self.snapshot && !connection.saw(seen::BIRTH) {
                    Attribution::Snapshot
                } else {
                    Attribution::Inode
                };
                connection.owned_by(&process, attribution);
                Some(slot)
            }
            (None, State::Close | State::TimeWait | State::NewSynRecv) => None,
            (None, _) if self.snapshot && base.remote_port != 0 => {
                let slot = self.find_or_begin(base);
                let connection = self.table.get_mut(slot)?;
                connection.seen |= seen::ACCEPTED;
                connection.owned_by(&process, Attribution::Snapshot);
                Some(slot)
            }
            (None, _) => None,
        }
    }

    /// The snapshot is complete: sockets found before their listener get their role.
    pub fn snapshot_done(&mut self) {
        self.snapshot = false;
        let unknown: Vec<Slot> = self
            .table
            .slots()
            .filter(|(_, connection)| connection.role == Role::Unknown)
            .map(|(slot, _)| slot)
            .collect();
        for slot in unknown {
            let Some(connection) = self.table.get_mut(slot) else {
                continue;
            };
            let (netns, tuple) = (connection.netns, connection.tuple);
            connection.role = if self.listeners.any(netns, tuple.local_port) {
                Role::Server
            } else if self.listeners.any(netns, tuple.remote_port) {
                Role::Client
            } else {
                Role::Unknown
            };
        }
    }
}
