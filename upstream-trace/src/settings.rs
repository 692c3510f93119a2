//! What the command line means, validated: the filters, what is printed, where to.
//!
//! Must not know: clap, aya.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use upstream_trace_common::setting::PORT_WORDS;

use crate::output::Selection;

/// Everything that was asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which connections.
    pub wanted: Wanted,
    /// Directories of cgroups whose processes' connections are wanted.
    pub cgroups: Vec<PathBuf>,
    /// Ids of containers, or how they begin, whose processes' connections are wanted.
    pub containers: Vec<String>,
    /// Which of their records.
    pub selection: Selection,
    /// Each kernel event as well.
    pub events: bool,
    /// For people, not machines.
    pub text: bool,
    /// `None`: standard output.
    pub output: Option<PathBuf>,
    /// How often the tracer gives an account of itself.
    pub stats_interval: Option<Duration>,
    /// How long to run; `None`: until told to stop.
    pub duration: Option<Duration>,
    /// What parts a connection in mid-stream from an idle one.
    pub idle_after: Duration,
    /// Bytes, a power of two.
    pub ring_size: u32,
    /// Connections followed at once.
    pub max_connections: u32,
    /// A copy of the kernel's types; `None`: where the kernel shows them.
    pub btf: Option<PathBuf>,
}

/// What a run does where nothing is typed.
impl Default for Settings {
    fn default() -> Self {
        Self {
            wanted: Wanted::default(),
            cgroups: Vec::new(),
            containers: Vec::new(),
            selection: Selection::default(),
            events: false,
            text: false,
            output: None,
            stats_interval: None,
            duration: None,
            idle_after: Duration::from_millis(250),
            ring_size: 4 << 20,
            max_connections: 262_144,
            btf: None,
        }
    }
}

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(Vec<u64>);

impl Default for Ports {
    fn default() -> Self {
        Self(vec![0; PORT_WORDS as usize])
    }
}

impl Ports {
    /// Adds `first` to `last`, both included.
    pub fn insert(&mut self, first: u16, last: u16) {
        for port in first..=last {
            if let Some(word) = self.0.get_mut(usize::from(port) / 64) {
                *word |= 1 << (port % 64);
            }
        }
    }

    /// Whether `port` is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.0
            .get(usize::from(port) / 64)
            .is_some_and(|word| word >> (port % 64) & 1 != 0)
    }

    /// The bitmap, 64 ports a word.
    pub fn words(&self) -> &[u64] {
        &self.0
    }
}

/// A network, as `address/prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

/// Which connections are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Either end's port; `None`: any.
    pub ports: Option<Ports>,
    /// Either end's network; empty: any.
    pub networks: Vec<Network>,
    /// The owner; empty: any.
    pub pids: Vec<u32>,
    /// Ids of the owner's cgroup or of one above it; empty: any.
    pub cgroups: Vec<u64>,
}

impl Wanted {
    /// Whether either port is wanted.
    pub fn port(&self, local: u16, remote: u16) -> bool {
        let ports = self.ports.as_ref();
        ports.is_none_or(|ports| ports.contains(local) || ports.contains(remote))
    }

    /// Whether every connection is; else one end of one may be and the other not, by its owner, or where a port or an address is
    /// translated between them.
    pub const fn is_everything(&self) -> bool {
        self.ports.is_none() && self.networks.is_empty() && !self.by_owner()
    }

    /// Whether it matters whose a socket is.
    pub const fn by_owner(&self) -> bool {
        !self.pids.is_empty() || !self.cgroups.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_at_the_edges() {
        let mut ports = Ports::default();
        ports.insert(1, 1);
        ports.insert(65_000, u16::MAX);
        for (port, inside) in [
            (0, false),
            (1, true),
            (2, false),
            (64_999, false),
            (65_000, true),
            (65_535, true),
        ] {
            assert_eq!(ports.contains(port), inside, "{port}");
        }
    }

    #[test]
    fn nothing_asked_for_is_everything() {
        let wanted = Wanted::default();
        assert!(wanted.is_everything() && wanted.port(1, 2) && !wanted.by_owner());
        let mut ports = Ports::default();
        ports.insert(80, 80);
        let wanted = Wanted {
            ports: Some(ports),
            ..wanted
        };
        assert!(!wanted.is_everything());
    }
}
