//! Resets between two ends of this node that do not know each other by their addresses, because one is translated on the way: a
//! client speaks to a Service of a cluster, or to a port that is redirected, and its server has another address. Both know the client by
//! the same.
//!
//! Must not know: the table of connections.

use std::collections::VecDeque;

use super::{
    connection::{Owner, PeerSent},
    tuple::Tuple,
};
use crate::record::Role;

/// The most nanoseconds from a reset's sending to its arrival. Between two sockets of one node it waits for nothing but a CPU.
const APART_NS: u64 = 20_000_000;
/// How long one is kept, nanoseconds: longer than a connection waits for what is known of its end.
const KEPT_NS: u64 = 2_000_000_000;
/// The most that are kept.
const LIMIT: usize = 4096;

/// The end that both know by the same address: family, address, port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client(u8, [u64; 2], u16);

impl Client {
    /// Of a connection of which this is the end with that role.
    pub const fn of(tuple: &Tuple, role: Role) -> Option<Self> {
        match role {
            Role::Client => Some(Self(tuple.family, tuple.local, tuple.local_port)),
            Role::Server => Some(Self(tuple.family, tuple.remote, tuple.remote_port)),
            Role::Unknown => None,
        }
    }
}

/// Whether a reset that was sent then may have arrived then.
pub const fn is_near(sent: u64, received: u64) -> bool {
    sent.abs_diff(received) <= APART_NS
}

/// A reset of a socket whose other end was not found.
#[derive(Debug)]
pub struct Translated {
    /// When the socket ended, `CLOCK_MONOTONIC` nanoseconds.
    pub at: u64,
    /// Of its connection.
    pub client: Client,
    /// The socket's own role.
    pub role: Role,
    /// The reset.
    pub reset: PeerSent,
    /// Who had the socket.
    pub owner: Option<Owner>,
}

/// Those of the last moments, the oldest first but for those that waited for their other end.
#[derive(Debug, Default)]
pub struct Resets {
    kept: VecDeque<Translated>,
}

impl Resets {
    /// One more; the oldest go.
    pub fn insert(&mut self, reset: Translated) {
        let oldest = reset.at.saturating_sub(KEPT_NS);
        while self.kept.len() >= LIMIT || self.kept.front().is_some_and(|kept| kept.at < oldest) {
            self.kept.pop_front();
        }
        self.kept.push_back(reset);
    }

    /// Those that the other end of this client's connection may have sent, to be received then by the end with this role.
    pub fn near(&self, client: Client, role: Role, at: u64) -> impl Iterator<Item = &Translated> {
        self.kept
            .iter()
            .filter(move |kept| kept.client == client && kept.role != role && is_near(kept.at, at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::connection::Sent;

    fn tuple(local: u64, local_port: u16, remote: u64, remote_port: u16) -> Tuple {
        Tuple {
            local: [local, 0],
            remote: [remote, 0],
            local_port,
            remote_port,
            family: 4,
        }
    }

    fn reset(at: u64, tuple: &Tuple, role: Role) -> Translated {
        Translated {
            at,
            client: Client::of(tuple, role).unwrap(),
            role,
            reset: PeerSent {
                sent: Sent {
                    kind: 0,
                    state: 0,
                    reason: 0,
                    actor: None,
                },
                derived: None,
                err: 0,
                aborts: false,
            },
            owner: None,
        }
    }

    #[test]
    fn both_know_the_client_by_the_same_address() {
        const CLIENT: u64 = 1;
        const SERVICE: u64 = 2;
        const SERVER: u64 = 3;
        let here = tuple(CLIENT, 40_000, SERVICE, 80);
        let there = tuple(SERVER, 8080, CLIENT, 40_000);
        let at = 10 * APART_NS;
        for (sender, role, receiver) in
            [(&there, Role::Server, &here), (&here, Role::Client, &there)]
        {
            let mut resets = Resets::default();
            resets.insert(reset(at, sender, role));
            let other = if role == Role::Server {
                Role::Client
            } else {
                Role::Server
            };
            let count = |tuple: &Tuple, role, at| {
                let client = Client::of(tuple, role).unwrap();
                resets.near(client, role, at).count()
            };
            assert_eq!(count(receiver, other, at + APART_NS), 1);
            assert_eq!(count(receiver, other, at + APART_NS + 1), 0, "too late");
            assert_eq!(count(receiver, other, at - APART_NS - 1), 0, "too early");
            assert_eq!(count(sender, role, at), 0, "its own");
            let another = tuple(CLIENT, 40_001, SERVICE, 80);
            assert_eq!(count(&another, Role::Client, at), 0, "another client's");
        }
        assert_eq!(Client::of(&here, Role::Unknown), None);
    }

    #[test]
    fn few_are_kept_and_not_for_long() {
        let tuple = tuple(1, 1, 2, 2);
        let mut resets = Resets::default();
        for at in 0..2 * LIMIT as u64 {
            resets.insert(reset(at, &tuple, Role::Client));
        }
        assert_eq!(resets.kept.len(), LIMIT);
        resets.insert(reset(2 * KEPT_NS, &tuple, Role::Client));
        assert_eq!(resets.kept.len(), 1);
    }
}
