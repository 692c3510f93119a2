//! The addresses of a connection as one comparable value.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use upstream_trace_common::event::{self, Base, IPV4};

use crate::record::{Endpoint, Family};

/// Both ends, as one socket sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Network order, as two words.
    pub local: [u64; 2],
    /// Network order, as two words.
    pub remote: [u64; 2],
    /// Host order; 0 while not chosen.
    pub local_port: u16,
    /// Host order.
    pub remote_port: u16,
    /// `event::IPV4` or `event::IPV6`.
    pub family: u8,
}

impl Hash for Tuple {
    /// Three words: the derived way would feed each field and length by itself, on every look-up.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let ports = u64::from(self.local_port) << 16 | u64::from(self.remote_port);
        state.write_u64(ports);
        state.write_u64(self.local[0] ^ self.local[1].rotate_left(32));
        state.write_u64(self.remote[0] ^ self.remote[1].rotate_left(32));
    }
}

impl Tuple {
    /// The tuple of a record.
    pub const fn of(base: &Base) -> Self {
        Self {
            local: base.local,
            remote: base.remote,
            local_port: base.local_port,
            remote_port: base.remote_port,
            family: base.family,
        }
    }

    /// As the other end sees it.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            local: self.remote,
            remote: self.local,
            local_port: self.remote_port,
            remote_port: self.local_port,
            family: self.family,
        }
    }

    /// Whether both ends are known, so that it can be looked up.
    pub const fn is_whole(self) -> bool {
        self.local_port != 0 && self.remote_port != 0
    }

    /// The local end as it is printed.
    pub fn local(self) -> Endpoint {
        Endpoint {
            address: address(self.family, self.local),
            port: self.local_port,
        }
    }

    /// The remote end as it is printed.
    pub fn remote(self) -> Endpoint {
        Endpoint {
            address: address(self.family, self.remote),
            port: self.remote_port,
        }
    }

    /// The family as it is printed.
    pub const fn family(self) -> Family {
        if self.family == IPV4 {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// Whether the remote end can only be in the same network namespace.
    pub fn is_loopback(self) -> bool {
        address(self.family, self.remote).is_loopback()
    }
}

/// An address from its words.
pub fn address(family: u8, words: [u64; 2]) -> IpAddr {
    let bytes = event::bytes(words);
    if family == IPV4 {
        let [a, b, c, d, ..] = bytes;
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from(bytes).into()
    }
}
