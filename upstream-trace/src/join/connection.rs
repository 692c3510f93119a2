//! What is remembered of one connection while it lives, and of how it ended.
//!
//! The living part is small, because a node may have 100,000 of them; the ending part exists only
//! from the first sign of the end to the record.
//! Must not know: how another connection is found, what is printed.

use std::{ops::RangeInclusive, rc::Rc};

use upstream_trace_common::event::{Base, Stats, exit, kind};

use super::{translated::FirstSeqs, tuple::Tuple};
use crate::{
    process::Process,
    record::{Attribution, Role, Step, StepKind},
    tcp::State,
    verdict::way::Arrival,
};

/// The index of a connection in the table.
pub type Slot = u32;
/// No connection.
pub const NONE: Slot = Slot::MAX;

/// A process and how it was found.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Who.
    pub process: Rc<Process>,
    /// How.
    pub attribution: Attribution,
}

/// An [`Owner`], or whom else a record names.
pub type Named<'a> = (&'a Process, Attribution);

impl Owner {
    /// As it is named.
    pub fn named(&self) -> Named<'_> {
        (&self.process, self.attribution)
    }
}

/// Steps kept in place: a healthy connection has at most six.
const INLINE: usize = 6;

/// The steps of a connection, the first few without an allocation.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "8 bytes instead of 24 in each of 100,000 connections"
)]
pub struct Steps {
    /// All of them while they fit.
    inline: [Step; INLINE],
    len: u8,
    /// All of them once they do not.
    all: Option<Box<Vec<Step>>>,
}

/// SYNs sent again, and resets, beyond this many steps are not kept: whoever is connected to may provoke any number of
/// them. Everything else is, and is bounded by TCP's own states.
const STEPS_MAX: usize = 64;

impl Steps {
    /// Adds a step.
    pub fn push(&mut self, step: Step) {
        if self.all.is_none()
            && let Some(free) = self.inline.get_mut(usize::from(self.len))
        {
            *free = step;
            self.len += 1;
            return;
        }
        let all = self
            .all
            .get_or_insert_with(|| Box::new(self.inline.to_vec()));
        let may_repeat = matches!(
            step.event(),
            StepKind::SynRetransmit | StepKind::ResetSent | StepKind::ResetReceived
        );
        // Room for a last one of those that end it.
        let most = match step.event() {
            StepKind::SynRetransmit => STEPS_MAX,
            _ => 2 * STEPS_MAX,
        };
        if !may_repeat || all.len() < most {
            all.push(step);
        }
    }

    /// First to last.
    pub fn as_slice(&self) -> &[Step] {
        match &self.all {
            Some(all) => all,
            None => self.inline.get(..usize::from(self.len)).unwrap_or_default(),
        }
    }

    /// How many there are of this kind.
    pub fn count(&self, kind: StepKind) -> usize {
        let steps = self.as_slice().iter();
        steps.filter(|step| step.event() == kind).count()
    }

    /// Takes back the last step of this kind.
    pub fn retract(&mut self, kind: StepKind) {
        let last = |steps: &[Step]| steps.iter().rposition(|step| step.event() == kind);
        if let Some(all) = &mut self.all {
            if let Some(at) = last(all) {
                all.remove(at);
            }
        } else if let Some(used) = self.inline.get_mut(..usize::from(self.len))
            && let Some(at) = last(used)
        {
            used.get_mut(at..).unwrap_or_default().rotate_left(1);
            self.len -= 1;
        }
    }
}

/// What was seen of a connection, one bit each.
pub mod seen {
    /// Its beginning: it is not older than the tracer.
    pub const BIRTH: u32 = 1 << 0;
    /// `ESTABLISHED`.
    pub const ESTABLISHED: u32 = 1 << 1;
    /// That a process has it: accepted, or it connected.
    pub const ACCEPTED: u32 = 1 << 2;
    /// This end's FIN, sent before one was received.
    pub const CLOSED_FIRST: u32 = 1 << 3;
    /// The peer's FIN, received before one was sent.
    pub const PEER_CLOSED_FIRST: u32 = 1 << 4;
    /// The end: it waits to be printed and takes no further state.
    pub const END: u32 = 1 << 5;
    /// That a FIN of this end was sent at all.
    pub const FIN_SENT: u32 = 1 << 6;
    /// That events of it are missing.
    pub const LOSS: u32 = 1 << 7;
    /// That its other end had ended, so that it is not looked for any more.
    pub const PEER_ENDED: u32 = 1 << 8;
    /// That its other end was looked for among the connections that are still open, or who sent it a reset among more than are kept.
    pub const ASKED: u32 = 1 << 9;
    /// That somebody had it who is wanted, be it that another is named.
    pub const WANTED: u32 = 1 << 10;
    /// That its other end was aborted, and no reset is known that says so: the kernel tells of it when it has been delivered.
    pub const PEER_ABORTED: u32 = 1 << 11;
    /// That its owner, as it sent its FIN, waited for nothing more.
    pub const LEFT: u32 = 1 << 12;
    /// That the other end had no answer to what it had sent last, once that is gone.
    pub const PEER_UNANSWERED: u32 = 1 << 13;
    /// That no process had accepted the other end, once that is gone.
    pub const PEER_UNACCEPTED: u32 = 1 << 14;
    /// That the other end, a server's, closed with a request unanswered, once that is gone.
    pub const PEER_OWED: u32 = 1 << 15;
    /// That the last words of the other end, a client's, were most likely a goodbye, once that is gone.
    pub const PEER_SAID_GOODBYE: u32 = 1 << 16;
    /// That the other end, a server's, had sent its answer again and nothing of it was acknowledged, once that is gone.
    pub const PEER_SENT_IN_VAIN: u32 = 1 << 17;
}

/// One connection, as one socket sees it.
#[derive(Debug)]
pub struct Connection {
    /// Address of `struct sock`.
    pub sk: u64,
    /// Number within the run.
    pub serial: u64,
    /// First event, `CLOCK_MONOTONIC` nanoseconds.
    pub first: u64,
    /// Both ends.
    pub tuple: Tuple,
    /// Inode number of the network namespace; 0: not known.
    pub netns: u32,
    /// Which end of the handshake.
    pub role: Role,
    /// `enum tcp_state`.
    pub state: u8,
    /// [`seen`] bits.
    pub seen: u32,
    /// For the table's eviction: used since the hand passed.
    pub touched: bool,
    /// The table finds it by its socket's address and by its ends.
    pub indexed: bool,
    /// The socket of the other end, where it is tracked.
    pub peer: Slot,
    /// The next connection with the same tuple (another namespace), in the table's index.
    pub next_same_tuple: Slot,
    /// Events joined.
    pub events: u32,
    /// Jiffies, low 32 bits, at the first FIN, sent or received.
    pub fin: Option<u32>,
    /// How the process came to its end that closed it, as of `event::exit`.
    pub exit: u8,
    /// The same of the other end, on this node as well.
    pub peer_exit: u8,
    /// Who has it.
    pub owner: Option<Owner>,
    /// Who had the other end, once that is gone.
    pub peer_owner: Option<Owner>,
    /// How much payload the other end received, once that is gone.
    pub peer_received: Option<u64>,
    /// What happened.
    pub steps: Steps,
    /// How it ended; boxed because few connections are ending at a time.
    pub end: Option<Box<End>>,
}

impl Connection {
    /// Whether all these [`seen`] bits are set.
    pub const fn saw(&self, bits: u32) -> bool {
        self.seen & bits == bits
    }

    /// From its beginning, as far as that was seen, to its end.
    pub fn lived(&self) -> RangeInclusive<u64> {
        let since = if self.saw(seen::BIRTH) { self.first } else { 0 };
        since..=self.end.as_ref().map_or(u64::MAX, |end| end.at)
    }

    /// Whether its other end is known, be it gone.
    pub const fn is_paired(&self) -> bool {
        self.peer != NONE || self.saw(seen::PEER_ENDED)
    }

    /// Whether it ended as it should, by a FIN of its own and without a process that could still be told
    /// of an error, and all is known of it. If its other end has parted as well, both FINs were answered,
    /// so that neither has anything left to reset.
    pub fn has_parted(&self) -> bool {
        let all = seen::BIRTH | seen::ESTABLISHED | seen::FIN_SENT | seen::END;
        let end = self.end.as_deref();
        let closed = end.and_then(|end| end.closed.as_ref());
        let orderly = closed.is_some_and(|closed| {
            let from = State::from_kernel(closed.from);
            let parting = matches!(
                from,
                Some(State::FinWait2 | State::Closing | State::LastAck)
            );
            parting && closed.stats.err == 0 && closed.stats.has_socket == 0
        });
        let reset = end.is_some_and(|end| {
            end.received.is_some() || end.sent.is_some() || end.peer_sent.is_some()
        });
        self.saw(all)
            && !self.saw(seen::LOSS)
            && orderly
            && !reset
            && self.owner.is_some()
            && self.tuple.is_whole()
    }

    /// A process has it. One that gets it only after its end got nothing.
    pub const fn accepted(&mut self) {
        if !self.saw(seen::END) {
            self.seen |= seen::ACCEPTED;
        }
    }

    /// Adds a step at `ktime` that has no detail.
    pub fn step(&mut self, ktime: u64, event: StepKind) {
        self.steps.push(Step::new(self.at_us(ktime), event));
    }

    /// Microseconds from the start.
    pub const fn at_us(&self, ktime: u64) -> u64 {
        ktime.saturating_sub(self.first) / 1000
    }

    /// Takes a change of state; returns whether one before it was not reported.
    pub fn moves(&mut self, base: &Base) -> bool {
        let skipped = self.state != base.old && !self.saw(seen::END);
        if skipped {
            self.implied(base.old);
        }
        self.state = base.new;
        match State::from_kernel(base.new) {
            Some(State::Established) => self.seen |= seen::ESTABLISHED,
            // Also from SYN_RECV, by Fast Open, which exchanges payload before the handshake is complete.
            Some(State::CloseWait) => {
                self.seen |= seen::ESTABLISHED | seen::PEER_CLOSED_FIRST;
                self.fin = Some(base.jiffies);
            }
            Some(State::FinWait1) => {
                self.seen |=
                    seen::ESTABLISHED | seen::ACCEPTED | seen::FIN_SENT | seen::CLOSED_FIRST;
                self.fin = Some(base.jiffies);
            }
            Some(State::LastAck) => self.seen |= seen::ACCEPTED | seen::FIN_SENT,
            _ => {}
        }
        let at_us = self.at_us(base.ktime);
        self.steps.push(Step::state(at_us, base.old, base.new));
        skipped
    }

    /// The socket is in this state, whether or not the way there was seen.
    pub const fn implied(&mut self, state: u8) {
        self.seen |= match State::from_kernel(state) {
            Some(State::Established) => seen::ESTABLISHED,
            Some(State::CloseWait) => seen::ESTABLISHED | seen::PEER_CLOSED_FIRST,
            Some(State::LastAck) => seen::ESTABLISHED | seen::PEER_CLOSED_FIRST | seen::FIN_SENT,
            Some(State::FinWait1 | State::FinWait2 | State::Closing) => {
                seen::ESTABLISHED | seen::CLOSED_FIRST | seen::FIN_SENT
            }
            _ => 0,
        };
    }

    /// A process closes the connection: its owner, unless a better witness says otherwise.
    pub fn closed_by(&mut self, closer: Option<Rc<Process>>) {
        if let Some(closer) = closer {
            self.owned_by(closer, Attribution::Closer);
        }
    }

    /// How its owner leaves it, as of `event::exit`.
    pub const fn exits(&mut self, exit: u8) {
        if exit & exit::LEAVES != 0 {
            self.seen |= seen::LEFT;
        }
        let exit = exit & !exit::LEAVES;
        if exit != exit::NONE {
            self.exit = exit;
        }
    }

    /// When it came to its end, nanoseconds, if it did.
    pub fn ended_at(&self) -> Option<u64> {
        let end = self.end.as_deref()?;
        self.saw(seen::END).then_some(end.at)
    }

    /// When its owner closed it, nanoseconds, as exactly as its steps say it.
    pub fn closed_at(&self) -> Option<u64> {
        let is_fin = |step: &&Step| {
            let to = step.change().map(|(_, to)| to);
            matches!(to, Some(State::FinWait1 | State::LastAck))
        };
        let fin = self.steps.as_slice().iter().rfind(is_fin);
        let at = fin.map(|step| self.first.saturating_add(step.at_us().saturating_mul(1000)));
        at.or_else(|| self.ended_at())
    }

    /// Names a better owner; a worse one changes nothing. Of several that hold it the oldest made it, the others inherited it.
    pub fn owned_by(&mut self, process: Rc<Process>, attribution: Attribution) {
        if process.wanted {
            self.seen |= seen::WANTED;
        }
        let better = self.owner.as_ref().is_none_or(|owner| {
            let (new, old) = (rank(attribution), rank(owner.attribution));
            let is_older = (1..owner.process.start).contains(&process.start);
            new < old || new == old && new == HELD && is_older
        });
        if better {
            self.owner = Some(Owner {
                process,
                attribution,
            });
        }
    }
}

/// The rank of whoever holds a socket.
const HELD: u8 = 1;

/// Which attribution says more: the holder of a socket is its owner, a closer may be a helper.
const fn rank(attribution: Attribution) -> u8 {
    match attribution {
        Attribution::Exact => 0,
        Attribution::Inode | Attribution::Snapshot => HELD,
        Attribution::Closer => 2,
        Attribution::Listener => 3,
        Attribution::None => 4,
    }
}

/// A reset as the stack that sent it reported it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// `event::kind` of the record.
    pub kind: u8,
    /// `sk_state` at that moment.
    pub state: u8,
    /// `enum sk_rst_reason`, or `event::NO_REASON`.
    pub reason: u8,
    /// The process in whose context it was sent; only where that caused it.
    pub actor: Option<Rc<Process>>,
}

impl Sent {
    /// Whether a close sent it: of itself, and after the change to `CLOSE`.
    pub const fn is_by_close(&self) -> bool {
        self.kind == kind::RESET_SENT_ACTIVE && self.state == State::Close as u8
    }
}

/// A reset that the other end sent, and why, as far as that end's socket tells where the kernel does not.
#[derive(Clone, Debug)]
pub struct PeerSent {
    /// When.
    pub at: u64,
    /// The reset.
    pub sent: Sent,
    /// Its reason.
    pub derived: Option<&'static str>,
    /// `sk_err` of that end.
    pub err: u32,
    /// It was an abort on purpose.
    pub aborts: bool,
}

/// The transition to `CLOSE`.
#[derive(Clone, Copy, Debug)]
pub struct Closed {
    /// State before.
    pub from: u8,
    /// The socket then.
    pub stats: Stats,
}

/// How a connection ended.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// When, `CLOCK_MONOTONIC` nanoseconds; 0: not yet.
    pub at: u64,
    /// The transition to `CLOSE`.
    pub closed: Option<Closed>,
    /// A reset received: the socket at that moment, before anything changed.
    pub received: Option<Stats>,
    /// A reset sent by this socket.
    pub sent: Option<Sent>,
    /// The socket when it sent its reset, for one that never got to `CLOSE`.
    pub sent_stats: Option<Stats>,
    /// A reset that the other end's stack sent to this socket.
    pub peer_sent: Option<PeerSent>,
    /// The other end's own ends, where this one may know it by another address.
    pub peer_tuple: Option<Tuple>,
    /// The packet of a reset that was received.
    pub arrival: Option<Arrival>,
    /// The sequence numbers by which the table finds it.
    pub seqs: Option<FirstSeqs>,
}

impl End {
    /// Forgets everything, field by field: cheaper than to copy an empty one over it.
    pub fn clear(&mut self) {
        let Self {
            at,
            closed,
            received,
            sent,
            sent_stats,
            peer_sent,
            peer_tuple,
            arrival,
            seqs,
        } = self;
        *at = 0;
        *closed = None;
        *received = None;
        *sent = None;
        *sent_stats = None;
        *peer_sent = None;
        *peer_tuple = None;
        *arrival = None;
        *seqs = None;
    }

    /// `sk_err`; 0: none.
    pub fn err(&self) -> u32 {
        self.closed.map_or(0, |closed| closed.stats.err)
    }

    /// Whether a process still had the socket, so that somebody was told why it ended.
    pub fn is_open(&self) -> bool {
        self.closed
            .is_some_and(|closed| closed.stats.has_socket != 0)
    }

    /// The socket's counters at the end, the least disturbed ones.
    pub fn stats(&self) -> Option<&Stats> {
        self.received
            .as_ref()
            .or(self.closed.as_ref().map(|closed| &closed.stats))
            .or(self.sent_stats.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(steps: &Steps) -> Vec<StepKind> {
        steps.as_slice().iter().map(|step| step.event()).collect()
    }

    #[test]
    fn steps_keep_their_order_beyond_the_inline_ones_and_are_bounded() {
        let mut steps = Steps::default();
        steps.push(Step::new(0, StepKind::Connect));
        for _ in 0..1000 {
            steps.push(Step::new(0, StepKind::SynRetransmit));
        }
        assert_eq!(steps.as_slice().len(), STEPS_MAX);
        steps.push(Step::new(0, StepKind::ResetReceived));
        assert_eq!(kinds(&steps).last(), Some(&StepKind::ResetReceived));
        assert_eq!(kinds(&steps).first(), Some(&StepKind::Connect));
    }

    #[test]
    fn a_retracted_step_leaves_no_hole() {
        for before in 0..10 {
            let mut steps = Steps::default();
            let mut want = Vec::new();
            for _ in 0..before {
                steps.push(Step::new(0, StepKind::State));
                want.push(StepKind::State);
            }
            steps.push(Step::new(0, StepKind::ResetReceived));
            for _ in 0..3 {
                steps.push(Step::new(0, StepKind::Error));
                want.push(StepKind::Error);
            }
            steps.retract(StepKind::ResetReceived);
            assert_eq!(kinds(&steps), want);
        }
    }
}
