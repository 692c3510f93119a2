//! Which two ends of this node are one connection: by their addresses as soon as both are known, else by their sequence numbers once
//! both have ended.
//!
//! Must not know: events.

use super::{
    connection::{Connection, NONE, Slot, seen},
    engine::Engine,
    translated::FirstSeqs,
};
use crate::record::Role;

/// Whether the two may have made one handshake: a client sends its SYN before the server's end is born. A transparent proxy that speaks to
/// the server from the client's own address has two sockets that look like each other's ends, and first the one that it accepted.
fn in_order(one: &Connection, other: &Connection) -> bool {
    let both_born = one.saw(seen::BIRTH) && other.saw(seen::BIRTH);
    let (client, server) = match (one.role, other.role) {
        (Role::Client, Role::Server) => (one, other),
        (Role::Server, Role::Client) => (other, one),
        _ => return true,
    };
    !both_born || client.first <= server.first
}

impl Engine {
    /// Finds the socket of the other end of a connection that lived until then, if it is on this node.
    pub(super) fn pair(&mut self, slot: Slot, until: u64) {
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
            other != slot
                && candidate.peer == NONE
                && !ended_before
                && candidate.first <= until
                && in_order(connection, candidate)
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
            self.link(slot, peer);
            self.learn_route(slot, peer);
        }
    }

    /// Of two ends that know each other by their addresses: where the client's connections to the other one's lead.
    fn learn_route(&mut self, one: Slot, other: Slot) {
        let (Some(one), Some(other)) = (self.table.get(one), self.table.get(other)) else {
            return;
        };
        let (client, server) = match (one.role, other.role) {
            (Role::Client, Role::Server) => (one, other),
            (Role::Server, Role::Client) => (other, one),
            _ => return,
        };
        let listens = |netns| self.listeners.any(netns, client.tuple.remote_port);
        let (netns, tuple, began) = (client.netns, &client.tuple, server.first);
        self.routes
            .learn(netns, tuple, server.netns, began, listens);
    }

    fn link(&mut self, one: Slot, other: Slot) {
        for (this, peer) in [(one, other), (other, one)] {
            if let Some(connection) = self.table.get_mut(this) {
                connection.peer = peer;
            }
        }
    }

    /// Pairs those ends that do not know each other by their addresses, once both have ended.
    pub(super) fn pair_translated(&mut self) {
        let single = |connection: &Connection| !connection.is_paired();
        let seqs = |connection: &Connection| {
            let known = single(connection) && connection.saw(seen::ESTABLISHED);
            let stats = connection.end.as_ref().and_then(|end| end.stats());
            FirstSeqs::of(connection.role, stats.filter(|_| known)?)
        };
        for index in self.sought_by_seq..self.on_hold.len() {
            if let Some(&(_, slot, serial)) = self.on_hold.get(index)
                && let Some(ended) = self.table.get(slot)
                && ended.serial == serial
                && let Some(seqs) = seqs(ended)
                && let Some(other) = self.table.match_seqs(slot, seqs)
                && self.table.get(other).is_some_and(single)
            {
                self.link(slot, other);
                self.know_by_address(slot, other);
                self.know_by_address(other, slot);
            }
        }
        self.sought_by_seq = self.on_hold.len();
    }

    /// Tells one end what the other's addresses are.
    fn know_by_address(&mut self, slot: Slot, other: Slot) {
        let tuple = self.table.get(other).map(|other| other.tuple);
        if let Some(end) = self.table.end(slot) {
            end.peer_tuple = tuple;
        }
    }
}
