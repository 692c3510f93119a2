//! What each event does to its connection, and whose process it names.
//!
//! Must not know: when a connection is printed.

use upstream_trace_common::event::{Base, Packet, Stats, kind, present};

use super::{
    connection::{Closed, Sent, Slot, seen},
    engine::Engine,
    translated::Sender,
    tuple::Tuple,
};
use crate::{
    decode::Event,
    process::Describe,
    record::{Attribution, Role, Step, StepKind},
    tcp::State,
    verdict::way::Arrival,
};

/// So many SYNs sent again are in the timeline for certain; more than the kernel sends by default.
const SYNS_KEPT: u32 = 32;

impl Engine {
    pub(super) fn state(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Option<Slot> {
        let base = event.base;
        let (old, new) = (State::from_kernel(base.old)?, State::from_kernel(base.new)?);
        match (old, new) {
            (State::Close, State::SynSent) => {
                let slot = self.begin(base, Role::Client, seen::BIRTH | seen::ACCEPTED);
                self.connecting(slot, event, describe);
                Some(slot)
            }
            (State::Close, State::Listen) => {
                self.is_local(base);
                let (first, _) = self.listened_at.unwrap_or((base.ktime, 0));
                self.listened_at = Some((first, base.ktime));
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
                self.transition(slot, base);
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
    pub(super) fn connecting(
        &mut self,
        slot: Slot,
        event: Event<'_>,
        describe: &mut impl Describe,
    ) {
        let base = event.base;
        let owner = self.actor(event, describe);
        if let Some(connection) = self.table.get_mut(slot) {
            connection.state = base.new;
            connection.step(base.ktime, StepKind::Connect);
            if let Some(owner) = owner {
                connection.owned_by(owner, Attribution::Exact);
            }
        }
    }

    /// Any other change of state of a connection.
    pub(super) fn changed(&mut self, slot: Slot, event: Event<'_>, describe: &mut impl Describe) {
        match State::from_kernel(event.base.new) {
            Some(State::Close) => self.closed(slot, event, describe),
            Some(State::FinWait1 | State::LastAck) => {
                let closer = self.closer(event, describe);
                self.transition(slot, event.base);
                if let Some(connection) = self.table.get_mut(slot) {
                    connection.closed_by(closer);
                    connection.exits(event.exit());
                }
            }
            _ => self.transition(slot, event.base),
        }
    }

    pub(super) fn transition(&mut self, slot: Slot, base: &Base) {
        let connection = self.table.get_mut(slot);
        if connection.is_some_and(|connection| connection.moves(base)) {
            self.missing(slot, base.ktime);
        }
    }

    pub(super) fn owned_by_listener(&mut self, slot: Slot) {
        let Some(connection) = self.table.get(slot) else {
            return;
        };
        let owner = self
            .listeners
            .owner(connection.netns, &connection.tuple, connection.first)
            .cloned();
        if let (Some(owner), Some(connection)) = (owner, self.table.get_mut(slot)) {
            connection.owned_by(owner, Attribution::Listener);
        }
    }

    fn closed(&mut self, slot: Slot, event: Event<'_>, describe: &mut impl Describe) {
        let (base, Some(stats)) = (event.base, event.stats) else {
            return;
        };
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        let with_socket = stats.has_socket != 0;
        if stats.err != 0 {
            let at_us = connection.at_us(base.ktime);
            connection.steps.push(Step::error(at_us, stats.err));
        }
        if with_socket {
            connection.seen |= seen::ACCEPTED;
        }
        let finished = connection.saw(seen::END);
        self.transition(slot, base);
        if finished {
            return;
        }
        let connecting = base.old == State::SynSent as u8;
        if connecting {
            self.compare_syns(slot, base.ktime, stats);
        }
        if let Some(end) = self.table.end(slot) {
            end.closed = Some(Closed {
                from: base.old,
                stats: *stats,
            });
        }
        if with_socket {
            // In the closer's own context: an abort, or connect(AF_UNSPEC). Nobody's where both ends had shut down.
            let aborted = stats.err == 0 && !connecting && event.actor.is_some();
            let closer = aborted.then(|| self.closer(event, describe)).flatten();
            if let Some(connection) = self.table.get_mut(slot) {
                connection.closed_by(closer);
                if stats.err == 0 {
                    connection.exits(event.exit());
                }
                let attribution = connection.owner.as_ref().map(|owner| owner.attribution);
                let unowned = matches!(attribution, None | Some(Attribution::Listener));
                self.owner_missing |= unowned && !aborted;
            }
        }
        self.mark_ended(slot, base.ktime);
    }

    /// A SYN that was sent again and not seen to be: the kernel kept its hook from running.
    fn compare_syns(&mut self, slot: Slot, ktime: u64, stats: &Stats) {
        let Some(connection) = self.table.get(slot) else {
            return;
        };
        let seen_to_be = connection.steps.count(StepKind::SynRetransmit);
        // Of very many not all are kept.
        let sent = stats.total_retrans.min(SYNS_KEPT) as usize;
        let known = self.context.counts_syn_retransmits
            && stats.present & present::RETRANS != 0
            && connection.saw(seen::BIRTH)
            && !connection.saw(seen::LOSS);
        if known && seen_to_be < sent {
            self.missing(slot, ktime);
        }
    }

    pub(super) fn progress(&mut self, base: &Base) -> Slot {
        let slot = self.find_or_begin(base);
        self.progressed(slot, base);
        slot
    }

    pub(super) fn progressed(&mut self, slot: Slot, base: &Base) {
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        if base.kind == kind::SYN_RETRANSMIT {
            connection.step(base.ktime, StepKind::SynRetransmit);
        }
    }

    pub(super) fn accept(
        &mut self,
        event: Event<'_>,
        describe: &mut impl Describe,
    ) -> Option<Slot> {
        let slot = self.find_or_over(event.base)?;
        self.accepted(slot, event, describe);
        Some(slot)
    }

    /// The connection of an event that may come after its end was told: that one begins no other.
    fn find_or_over(&mut self, base: &Base) -> Option<Slot> {
        if base.old == State::Close as u8 {
            self.find(base)
        } else {
            Some(self.find_or_begin(base))
        }
    }

    pub(super) fn accepted(&mut self, slot: Slot, event: Event<'_>, describe: &mut impl Describe) {
        let process = self.actor(event, describe);
        let Some(connection) = self.table.get_mut(slot) else {
            return;
        };
        connection.accepted();
        connection.step(event.base.ktime, StepKind::Accept);
        if let Some(process) = process {
            connection.owned_by(process, Attribution::Exact);
        }
    }

    pub(super) fn reset_received(&mut self, event: Event<'_>) -> Option<Slot> {
        let (base, stats) = (event.base, event.stats?);
        let slot = self.find_or_begin(base);
        let connection = self.table.get_mut(slot)?;
        if stats.has_socket != 0 {
            connection.seen |= seen::ACCEPTED;
        }
        if connection.state == State::SynSent as u8 {
            connection.implied(base.old);
        }
        connection.step(base.ktime, StepKind::ResetReceived);
        self.table.end(slot)?.received = Some(*stats);
        Some(slot)
    }

    pub(super) fn reset_packet(&mut self, packet: &Packet) -> Option<Slot> {
        let slot = self.find_or_begin(&packet.base);
        let expects = packet.has_ahead != 0 && packet.base.old != State::SynSent as u8;
        self.table.end(slot)?.arrival = Some(Arrival {
            reset: packet.reset,
            handshake: packet.handshake,
            ahead: expects.then_some(packet.ahead),
        });
        Some(slot)
    }

    pub(super) fn reset_sent(
        &mut self,
        event: Event<'_>,
        describe: &mut impl Describe,
    ) -> Option<Slot> {
        let (base, stats) = (event.base, event.stats?);
        let actor = self.closer(event, describe);
        let Some(slot) = self.find_or_over(base) else {
            // Its sender slept after its change to CLOSE: the other end can still learn who that was.
            self.strays.remember(base, Sender::of(stats));
            return None;
        };
        let sent = Sent {
            kind: base.kind,
            state: base.old,
            reason: base.new,
            actor,
        };
        let connection = self.table.get_mut(slot)?;
        // No stack answers a reset with a reset: what came was data after a shutdown.
        let was_data = base.kind == kind::RESET_SENT_REPLY;
        if was_data && base.old == State::SynSent as u8 {
            // The answer to a segment of an earlier connection, one in TIME_WAIT for instance: this one goes on, and
            // sends its SYN again. What it hits is that earlier one's other end.
            connection.step(base.ktime, StepKind::ResetSent);
            self.strays.remember(base, None);
            return Some(slot);
        }
        if was_data {
            connection.steps.retract(StepKind::ResetReceived);
        }
        connection.step(base.ktime, StepKind::ResetSent);
        if !was_data && base.old == State::Close as u8 {
            // Its closer's doing.
            connection.exits(event.exit());
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

    pub(super) fn destroy(
        &mut self,
        event: Event<'_>,
        describe: &mut impl Describe,
    ) -> Option<Slot> {
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
            let closer = self.closer(event, describe);
            self.table.get_mut(slot)?.closed_by(closer);
        }
        Some(slot)
    }

    pub(super) fn held(&mut self, event: Event<'_>, describe: &mut impl Describe) -> Option<Slot> {
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
                self.is_local(base);
                self.listeners.held(base.sk, base.netns, &tuple, &process);
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
                connection.owned_by(process, attribution);
                Some(slot)
            }
            (None, State::Close | State::TimeWait | State::NewSynRecv) => None,
            (None, _) if self.snapshot && base.remote_port != 0 => {
                let slot = self.find_or_begin(base);
                let connection = self.table.get_mut(slot)?;
                connection.seen |= seen::ACCEPTED;
                connection.owned_by(process, Attribution::Snapshot);
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
            connection.role =
                self.listeners
                    .role(netns, tuple.local_port, tuple.remote_port, connection.first);
        }
    }
}
