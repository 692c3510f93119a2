//! Takes events in kernel order and finds the connection that each belongs to.
//!
//! Identity: a socket's address names a connection only from one birth to the next, so each birth
//! (`CLOSE -> SYN_SENT`, `SYN_RECV -> ESTABLISHED`) begins a new one, also where the same socket
//! connects again. A connection that ended waits [`HOLD_NS`] for what the kernel reports after its end.
//! Must not know: what an event does to its connection, what is printed of one.

use std::{collections::VecDeque, ops::RangeInclusive, rc::Rc};

use hashbrown::HashSet;
use upstream_trace_common::event::{Actor, Answer, Base, Packet, exit, kind};

use super::{
    connection::{Connection, NONE, Slot, Steps, seen},
    finish,
    listener::Listeners,
    note::Notes,
    raw_event,
    route::{News, Routes},
    stray::{self, Strays},
    table::Table,
    translated::Sender,
    tuple::Tuple,
};
use crate::{
    decode::Event,
    kernel::reasons::Reasons,
    process::{Describe, Process, Processes},
    record::{self, Direction, Role},
    settings::Wanted,
    tcp::State,
    verdict::playbook::StrayKind,
};

/// How long a connection that ended waits for the rest of its story: the reset that is reported after
/// the state change, the other end's side of it, the owner's close. Well within the 100 ms in which its
/// record has to appear.
pub const HOLD_NS: u64 = 20_000_000;
/// So much of the time for which a reset that belongs to no connection is held may pass after the end of a connection that waits to be
/// told: one that was sent shortly before that end, or later, is left for it to claim.
const WAITED_NS: u64 = 30_000_000;

/// By then a daemon has forked, and its parent, which opened the listening socket, has gone.
const SETTLED_NS: u64 = 1_000_000_000;

/// What the engine has to know of the host and the run.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Context {
    /// Random for each run.
    pub run: u64,
    /// Name of the tracer's own process, as of [`Actor`]; zeros where it is not known.
    pub own_comm: [u64; 2],
    /// Length of a jiffy.
    pub tick_ns: u64,
    /// `--idle-after`.
    pub idle_after_us: u64,
    /// Names of `enum sk_rst_reason`; none where the kernel has none.
    pub reasons: Reasons,
    /// Names of `enum skb_drop_reason`; none where the kernel has none.
    pub drop_reasons: Reasons,
    /// Every SYN that is sent again is seen, so that the kernel's own count of them has to agree.
    pub counts_syn_retransmits: bool,
    /// Every reset that a stack sends is seen, also those without a full socket.
    pub sees_all_resets: bool,
    /// Both ends of a connection pass the filters, so that a missing peer is one that is not here.
    pub sees_both_ends: bool,
    /// Open sockets are scanned, and no filter hides a listener: where none is known, none was.
    pub knows_listeners: bool,
    /// Ports that the kernel gives to clients (`net.ipv4.ip_local_port_range`); `None`: not known.
    pub local_ports: Option<RangeInclusive<u16>>,
    /// When the last hook was in its place, `CLOCK_MONOTONIC` nanoseconds: what of a connection that was seen before is missing was never to be
    /// seen.
    pub since: u64,
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
    /// Resets that this node sent without a connection's socket.
    pub(super) strays: Strays,
    /// Resets that it received and that ended no connection.
    pub(super) dropped: Strays,
    pub(super) notes: Notes,
    pub(super) routes: Routes,
    /// Connections that ended and wait for [`HOLD_NS`], by their end, with the serial that tells a reused slot.
    pub(super) on_hold: VecDeque<(u64, Slot, u64)>,
    /// So many of them, the first ones, were looked up by their sequence numbers.
    pub(super) sought_by_seq: usize,
    pub(super) serial: u64,
    /// When events were last lost.
    pub(super) lost_at: Option<u64>,
    /// When the kernel was last asked how many hooks it skipped.
    pub(super) counted_at: u64,
    /// When a hook was last found to have been skipped.
    pub(super) skipped_at: Option<u64>,
    /// A snapshot of open sockets is being taken: what it finds is older than the tracer.
    pub(super) snapshot: bool,
    /// What happened later is not told.
    pub(super) until: u64,
    /// Local addresses of sockets on this node: an end there may be found.
    pub(super) locals: HashSet<(u8, [u64; 2])>,
    /// Others, which an end was looked for at.
    pub(super) strangers: HashSet<(u8, [u64; 2])>,
    /// Connections that wait for their other end to be looked for among the open ones.
    pub(super) asking: Vec<(u64, Slot, u64)>,
    /// The other ends that are looked for, as they see themselves.
    pub(super) asked: HashSet<Tuple>,
    /// Some connection that ended is still held by a process that is not known.
    pub(super) owner_missing: bool,
    /// When the first and the last of those sockets began to listen whose processes were not looked up since.
    pub(super) listened_at: Option<(u64, u64)>,
    /// Events of connections that were put out of the table.
    pub(super) evicted_events: u64,
    /// Changes of state that must have happened unseen.
    pub(super) unseen: u64,
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
            dropped: Strays::received(),
            notes: Notes::default(),
            routes: Routes::default(),
            on_hold: VecDeque::new(),
            sought_by_seq: 0,
            serial: 0,
            lost_at: None,
            counted_at: 0,
            skipped_at: None,
            snapshot: false,
            until: u64::MAX,
            locals: HashSet::new(),
            strangers: HashSet::new(),
            asking: Vec::new(),
            asked: HashSet::new(),
            owner_missing: false,
            listened_at: None,
            evicted_events: 0,
            unseen: 0,
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

    /// The kernel was asked at `ktime` how many hooks it skipped.
    pub const fn counted(&mut self, ktime: u64) {
        self.counted_at = ktime;
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

    /// Tells of nothing that ended after `ktime`: the hooks are being taken out, so that of the rest only parts are seen.
    pub const fn stop(&mut self, ktime: u64) {
        self.until = ktime;
    }

    /// Whether a scan of open files could name an owner that nothing else has named, or who has a socket by now that began to
    /// listen; asks once.
    pub fn take_owner_missing(&mut self, now: u64) -> bool {
        let settled = |at: u64| at.saturating_add(SETTLED_NS) <= now;
        let looks = self.listened_at.filter(|&(first, _)| settled(first));
        if let Some((_, last)) = looks {
            // Too early for the last one.
            self.listened_at = (!settled(last)).then_some((last, last));
        }
        std::mem::replace(&mut self.owner_missing, false) || looks.is_some()
    }

    /// All that a scan of open files found was taken.
    pub fn scanned(&mut self) {
        self.listeners.scanned();
    }

    /// What the kernel side has to be told of where connections lead.
    pub fn take_routes(&mut self) -> Vec<News> {
        self.routes.take_news()
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
            kind::ACCEPT => self.accept(event, describe),
            kind::RESET_RECEIVED => self.reset_received(event),
            kind::RESET_SENT_ACTIVE | kind::RESET_SENT_REPLY => self.reset_sent(event, describe),
            kind::RESET_SENT_NO_SOCKET
            | kind::RESET_SENT_TIME_WAIT
            | kind::RESET_SENT_LISTEN
            | kind::RESET_DROPPED => {
                self.stray(base, None, clock, sink);
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
        self.joined(event, slot, clock, sink);
    }

    /// Takes the packet of a reset.
    pub fn packet(&mut self, packet: &Packet, clock: &impl WallClock, sink: &mut impl Sink) {
        let slot = self.reset_packet(packet);
        let event = Event {
            base: &packet.base,
            actor: None,
            stats: None,
        };
        self.joined(event, slot, clock, sink);
    }

    /// Takes a reset that answered a packet.
    pub fn answer(&mut self, answer: &Answer, clock: &impl WallClock, sink: &mut impl Sink) {
        let Answer { base, seq, ack } = answer;
        self.stray(base, Some(Sender::answering(*seq, *ack)), clock, sink);
        let event = Event {
            base,
            actor: None,
            stats: None,
        };
        self.joined(event, None, clock, sink);
    }

    fn joined(
        &mut self,
        event: Event<'_>,
        slot: Option<Slot>,
        clock: &impl WallClock,
        sink: &mut impl Sink,
    ) {
        if let Some(connection) = slot.and_then(|slot| self.table.get_mut(slot)) {
            connection.events = connection.events.saturating_add(1);
        }
        if self.context.events {
            raw_event::print(self, event, slot, clock, sink);
        }
    }

    pub(super) fn finish(
        &mut self,
        slot: Slot,
        serial: u64,
        clock: &impl WallClock,
        sink: &mut impl Sink,
    ) {
        let connection = self.table.get(slot);
        if connection.is_some_and(|connection| connection.serial == serial) {
            finish::connection(self, slot, clock, sink);
        }
    }

    /// Prints both ends of a connection if both have parted: it need not be held.
    pub(super) fn finish_if_both_parted(
        &mut self,
        slot: Slot,
        clock: &impl WallClock,
        sink: &mut impl Sink,
    ) {
        let parted = |slot| self.table.get(slot).filter(|end| end.has_parted());
        let Some(peer) = parted(slot).map(|end| end.peer) else {
            return;
        };
        // Each names the other, or its address belongs to another by now.
        if parted(peer).is_some_and(|other| other.peer == slot) {
            finish::connection(self, peer, clock, sink);
            finish::connection(self, slot, clock, sink);
        }
    }

    /// Prints whatever is due at `now`, `CLOCK_MONOTONIC` nanoseconds read before the ring was drained.
    pub fn finish_due(&mut self, now: u64, clock: &impl WallClock, sink: &mut impl Sink) {
        self.pair_translated();
        while let Some(&(at, slot, serial)) = self.on_hold.front()
            && at.saturating_add(HOLD_NS) <= now
        {
            self.on_hold.pop_front();
            self.sought_by_seq = self.sought_by_seq.saturating_sub(1);
            let due = self.table.get(slot);
            if due.is_none_or(|due| due.serial != serial) {
                continue;
            }
            let asks = self.asks_for_end(slot);
            if asks || self.asks_for_sender(slot) || self.asks_for_count(slot) {
                self.asking.push((at, slot, serial));
            } else {
                self.finish(slot, serial, clock, sink);
            }
        }
        // However late this thread comes to it. On a busy node there always is a connection that waits.
        let oldest = self.asking.iter().map(|&(at, ..)| at).min();
        let waits = oldest.map(|at| at.saturating_add(WAITED_NS));
        self.strays_due(waits.map_or(now, |until| now.min(until)), clock, sink);
    }

    /// One more reset that belongs to no connection.
    fn stray(
        &mut self,
        base: &Base,
        by: Option<Sender>,
        clock: &impl WallClock,
        sink: &mut impl Sink,
    ) {
        let strays = match stray::kind_of(&self.context, base).map(StrayKind::direction) {
            None => return,
            Some(Direction::Sent) => &mut self.strays,
            Some(Direction::Received) => &mut self.dropped,
        };
        if let Some(stray) = strays.insert(base, by) {
            stray::print(self, &stray, clock, sink);
        }
    }

    pub(super) fn strays_due(&mut self, now: u64, clock: &impl WallClock, sink: &mut impl Sink) {
        let next = |engine: &mut Self| {
            let sent = engine.strays.due(now);
            sent.or_else(|| engine.dropped.due(now))
        };
        while let Some(stray) = next(self) {
            stray::print(self, &stray, clock, sink);
        }
    }

    /// The connection that the socket has, if its addresses agree; after lost events they may not, and
    /// the address of one that ended may be another socket's by now.
    pub(super) fn find(&mut self, base: &Base) -> Option<Slot> {
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
    pub(super) fn find_or_begin(&mut self, base: &Base) -> Slot {
        if let Some(slot) = self.find(base) {
            return slot;
        }
        let role = match State::from_kernel(base.old) {
            Some(State::SynSent) => Role::Client,
            Some(State::SynRecv) => Role::Server,
            _ => self
                .listeners
                .role(base.netns, base.local_port, base.remote_port, base.ktime),
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
        if let Some(connection) = self.table.get_mut(slot) {
            connection.implied(base.old);
        }
        slot
    }

    pub(super) fn begin(&mut self, base: &Base, role: Role, seen: u32) -> Slot {
        // The same socket connects again, or its address belongs to another one now.
        if let Some(before) = self.table.by_sk(base.sk) {
            self.abandon(before, base.ktime);
        }
        let slot = self.insert(base, role, seen);
        self.table.index(slot);
        self.pair(slot, u64::MAX);
        slot
    }

    /// Adds a connection that nothing finds yet.
    pub(super) fn insert(&mut self, base: &Base, role: Role, seen: u32) -> Slot {
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
            indexed: false,
            peer: NONE,
            next_same_tuple: NONE,
            events: 0,
            fin: None,
            exit: exit::NONE,
            peer_exit: exit::NONE,
            owner: None,
            peer_owner: None,
            peer_received: None,
            steps: Steps::default(),
            end: None,
        });
        self.evicted_events += u64::from(evicted);
        slot
    }

    /// The socket's address is no longer this connection's. If its end was not seen, that was lost.
    pub(super) fn abandon(&mut self, slot: Slot, ktime: u64) {
        self.table.forget_sk(slot);
        let Some(connection) = self.table.get(slot) else {
            return;
        };
        if connection.saw(seen::END) {
            return;
        }
        // One without a local port was let go by the filter, not lost.
        if connection.tuple.is_whole() {
            self.missing(slot, ktime);
        }
        self.mark_ended(slot, ktime);
    }

    /// A change of state of this connection was not reported, as was found at `ktime`.
    pub(super) fn missing(&mut self, slot: Slot, ktime: u64) {
        if let Some(connection) = self.table.get_mut(slot) {
            connection.seen |= seen::LOSS;
            // Otherwise it may be counted among those that were lost on the way.
            let is_lost = self.lost_at.is_some_and(|lost| lost >= connection.first);
            let was_hooked = connection.first >= self.context.since && ktime <= self.until;
            self.unseen += u64::from(!is_lost && was_hooked);
        }
    }

    pub(super) fn mark_ended(&mut self, slot: Slot, ktime: u64) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if connection.saw(seen::END) {
            return;
        }
        connection.seen |= seen::END;
        self.on_hold.push_back((ktime, slot, connection.serial));
        if let Some(end) = self.table.end(slot) {
            end.at = ktime;
        }
    }

    pub(super) fn actor(
        &mut self,
        event: Event<'_>,
        describe: &mut impl Describe,
    ) -> Option<Rc<Process>> {
        self.processes.seen(event.actor?, describe)
    }

    /// The process that closes a socket. The kernel closes a file where the last reference to it is let go: by a
    /// kernel thread where its owner's last one was in flight, by a tracer that looked at open files at that very
    /// moment. Neither wanted it closed.
    pub(super) fn closer(
        &mut self,
        event: Event<'_>,
        describe: &mut impl Describe,
    ) -> Option<Rc<Process>> {
        let Actor { comm, kthread, .. } = *event.actor?;
        let is_tracer = comm != [0; 2] && comm == self.context.own_comm;
        if kthread != 0 || is_tracer {
            return None;
        }
        self.actor(event, describe)
    }
}
