//! Who listens where: the owner of a connection that nobody has accepted yet.
//!
//! Must not know: connections.

use std::{collections::VecDeque, rc::Rc};

use hashbrown::HashMap;

use super::tuple::Tuple;
use crate::{process::Process, record::Role};

/// One listening socket.
#[derive(Debug)]
struct Listener {
    sk: u64,
    family: u8,
    local: [u64; 2],
    process: Rc<Process>,
    /// Who the scan that is going on finds with it.
    found: Option<Rc<Process>>,
    /// When it began to listen, `CLOCK_MONOTONIC` nanoseconds; 0: before the tracer.
    since: u64,
    /// When it stopped; `u64::MAX`: not yet.
    until: u64,
}

/// Those that stopped are remembered for the connections that they took, whose stories may still be to
/// come; no more than this many.
const STOPPED: usize = 4096;
/// By then a process that ends has closed all that it had.
const LATELY_NS: u64 = 1_000_000_000;

/// Every listening socket that is known, by network namespace and port.
#[derive(Debug, Default)]
pub struct Listeners {
    known: HashMap<(u32, u16), Vec<Listener>>,
    /// Those that stopped, the first one first.
    stopped: VecDeque<(u32, u16, u64)>,
}

impl Listeners {
    /// `process` begins to listen with the socket at `sk`.
    pub fn insert(
        &mut self,
        sk: u64,
        netns: u32,
        tuple: &Tuple,
        process: &Rc<Process>,
        since: u64,
    ) {
        if let Some(known) = self.listening(sk, netns, tuple.local_port) {
            known.process = Rc::clone(process);
            return;
        }
        let here = self.known.entry((netns, tuple.local_port)).or_default();
        here.push(Listener {
            sk,
            family: tuple.family,
            local: tuple.local,
            process: Rc::clone(process),
            found: None,
            since,
            until: u64::MAX,
        });
    }

    /// A scan of open sockets finds that `process` has the listening one at `sk`. Of several one counts ([`serves`]).
    pub fn held(&mut self, sk: u64, netns: u32, tuple: &Tuple, process: &Rc<Process>) {
        if self.listening(sk, netns, tuple.local_port).is_none() {
            self.insert(sk, netns, tuple, process, 0);
        }
        if let Some(known) = self.listening(sk, netns, tuple.local_port)
            && known
                .found
                .as_ref()
                .is_none_or(|found| serves(process, found))
        {
            known.found = Some(Rc::clone(process));
        }
    }

    /// The scan is over. Who it has not found any more is gone, as a daemon's parent is.
    pub fn scanned(&mut self) {
        for listener in self.known.values_mut().flatten() {
            if let Some(found) = listener.found.take() {
                listener.process = found;
            }
        }
    }

    /// The socket at `sk`, which listens.
    fn listening(&mut self, sk: u64, netns: u32, port: u16) -> Option<&mut Listener> {
        let mut here = self.known.get_mut(&(netns, port))?.iter_mut();
        here.find(|listener| listener.sk == sk && listener.until == u64::MAX)
    }

    /// The socket at `sk` listens no more.
    pub fn remove(&mut self, sk: u64, netns: u32, port: u16, until: u64) {
        if let Some(listener) = self.listening(sk, netns, port) {
            listener.until = until;
            self.stopped.push_back((netns, port, until));
        }
        if self.stopped.len() > STOPPED
            && let Some((netns, port, until)) = self.stopped.pop_front()
            && let Some(here) = self.known.get_mut(&(netns, port))
        {
            here.retain(|listener| listener.until != until);
            if here.is_empty() {
                self.known.remove(&(netns, port));
            }
        }
    }

    /// Whether anybody listens on this port now.
    pub fn any(&self, netns: u32, port: u16) -> bool {
        let here = self.known.get(&(netns, port));
        here.is_some_and(|here| here.iter().any(|listener| listener.until == u64::MAX))
    }

    /// Which end a socket with these ports is, as far as somebody listens on one of them, or did a moment before: a process that ends closes
    /// what it listens with first.
    pub fn role(&self, netns: u32, local: u16, remote: u16, at: u64) -> Role {
        let lately = |port| {
            let here = self.known.get(&(netns, port));
            let lately = |listener: &Listener| listener.until.saturating_add(LATELY_NS) >= at;
            here.is_some_and(|here| here.iter().any(lately))
        };
        match () {
            () if self.any(netns, local) => Role::Server,
            () if self.any(netns, remote) => Role::Client,
            () if lately(local) => Role::Server,
            () if lately(remote) => Role::Client,
            () => Role::Unknown,
        }
    }

    /// Whether anybody listens on this port, or did as far as is remembered.
    pub fn ever(&self, netns: u32, port: u16) -> bool {
        self.known.contains_key(&(netns, port))
    }

    /// Whether anybody listened on this port at that time.
    pub fn listened(&self, netns: u32, port: u16, at: u64) -> bool {
        let here = self.known.get(&(netns, port));
        here.is_some_and(|here| {
            here.iter()
                .any(|listener| (listener.since..=listener.until).contains(&at))
        })
    }

    /// The process that listens with the socket at `sk`, and since when it does.
    pub fn of_socket(&self, netns: u32, port: u16, sk: u64) -> Option<(&Rc<Process>, u64)> {
        let here = self.known.get(&(netns, port))?;
        let listener = here
            .iter()
            .find(|listener| listener.sk == sk && listener.until == u64::MAX)?;
        Some((&listener.process, listener.since))
    }

    /// The process that listened where a connection with this tuple arrived at that time; `None` where
    /// it could be one of several.
    pub fn owner(&self, netns: u32, tuple: &Tuple, at: u64) -> Option<&Rc<Process>> {
        let here = self.known.get(&(netns, tuple.local_port))?;
        let here = || {
            here.iter()
                .filter(|listener| (listener.since..=listener.until).contains(&at))
        };
        let exact =
            |listener: &&Listener| listener.family == tuple.family && listener.local == tuple.local;
        // A wildcard address takes what no exact one does, on IPv6 also IPv4's.
        let wildcard = |listener: &&Listener| listener.local == [0; 2];
        only(here().filter(exact)).or_else(|| {
            let none_exact = !here().any(|listener| exact(&listener));
            only(here().filter(wildcard)).filter(|_| none_exact)
        })
    }
}

/// Whether `process` rather than `other` serves the socket that both have: the older one opened it, the other inherited
/// it. But systemd opens sockets for others, and accepts nothing where one of them is there.
fn serves(process: &Process, other: &Process) -> bool {
    let opens_for_others = |process: &Process| process.details.comm.as_deref() == Some("systemd");
    match (opens_for_others(process), opens_for_others(other)) {
        (false, true) => true,
        (true, false) => false,
        _ => process.start < other.start,
    }
}

/// The process of these listeners, if it is one and the same.
fn only<'a>(mut listeners: impl Iterator<Item = &'a Listener>) -> Option<&'a Rc<Process>> {
    let first = &listeners.next()?.process;
    listeners
        .all(|other| other.process.pid == first.pid)
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use upstream_trace_common::event::{IPV4, IPV6};

    use super::*;
    use crate::process::Details;

    fn process(pid: u32, start: u64) -> Rc<Process> {
        Rc::new(Process {
            pid,
            start,
            wanted: true,
            details: Details::default(),
            spelled: Default::default(),
        })
    }

    fn tuple(family: u8, local: u64) -> Tuple {
        Tuple {
            local: [local, 0],
            remote: [9, 0],
            local_port: 80,
            remote_port: 0,
            family,
        }
    }

    fn owner(listeners: &Listeners, family: u8, local: u64) -> Option<u32> {
        listeners
            .owner(1, &tuple(family, local), 50)
            .map(|process| process.pid)
    }

    #[test]
    fn an_exact_address_comes_before_a_wildcard() {
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV6, 0), &process(10, 0), 0);
        listeners.insert(2, 1, &tuple(IPV4, 7), &process(20, 0), 0);
        assert_eq!(owner(&listeners, IPV4, 7), Some(20));
        assert_eq!(owner(&listeners, IPV4, 8), Some(10));
        listeners.remove(1, 1, 80, 40);
        listeners.remove(2, 1, 80, 40);
        assert_eq!(owner(&listeners, IPV4, 8), None);
        assert!(!listeners.any(1, 80));
    }

    #[test]
    fn who_listened_until_a_moment_ago_is_the_server() {
        const SECOND: u64 = 1_000_000_000;
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV4, 7), &process(10, 0), 0);
        listeners.remove(1, 1, 80, SECOND);
        let role = |at| listeners.role(1, 80, 45_000, at);
        assert_eq!(role(SECOND + 1), Role::Server);
        assert_eq!(role(3 * SECOND), Role::Unknown);
        assert_eq!(listeners.role(1, 45_000, 80, SECOND + 1), Role::Client);
    }

    #[test]
    fn several_processes_on_one_port_are_no_answer() {
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(10, 0), 0);
        listeners.insert(2, 1, &tuple(IPV4, 0), &process(10, 0), 0);
        assert_eq!(owner(&listeners, IPV4, 7), Some(10));
        listeners.insert(3, 1, &tuple(IPV4, 0), &process(11, 0), 0);
        assert_eq!(owner(&listeners, IPV4, 7), None);
    }

    #[test]
    fn of_those_who_share_a_socket_the_oldest_counts() {
        let mut listeners = Listeners::default();
        for (pid, start) in [(12, 50), (10, 5), (13, 60)] {
            listeners.held(1, 1, &tuple(IPV4, 0), &process(pid, start));
        }
        listeners.scanned();
        assert_eq!(owner(&listeners, IPV4, 7), Some(10));
    }

    #[test]
    fn who_is_not_found_again_listens_no_more() {
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(10, 5), 20);
        for (found, owns) in [([10, 11], 10), ([12, 11], 11), ([11, 12], 11)] {
            let before = owner(&listeners, IPV4, 7);
            for pid in found {
                listeners.held(1, 1, &tuple(IPV4, 0), &process(pid, u64::from(pid)));
                // It may find the one who serves last.
                assert_eq!(owner(&listeners, IPV4, 7), before);
            }
            listeners.scanned();
            assert_eq!(owner(&listeners, IPV4, 7), Some(owns));
        }
        assert_eq!(listeners.of_socket(1, 80, 1).unwrap().1, 20);
    }

    #[test]
    fn systemd_opens_sockets_for_others() {
        let systemd = Rc::new(Process {
            pid: 1,
            start: 1,
            wanted: true,
            details: Details {
                comm: Some("systemd".to_owned()),
                ..Details::default()
            },
            spelled: Default::default(),
        });
        let service = process(10, 5);
        for both in [[&systemd, &service], [&service, &systemd]] {
            let mut listeners = Listeners::default();
            listeners.held(1, 1, &tuple(IPV4, 0), &systemd);
            assert_eq!(owner(&listeners, IPV4, 7), Some(1));
            for process in both {
                listeners.held(1, 1, &tuple(IPV4, 0), process);
            }
            listeners.scanned();
            assert_eq!(owner(&listeners, IPV4, 7), Some(10));
        }
    }

    #[test]
    fn one_that_stopped_still_owns_what_it_took() {
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(10, 0), 20);
        listeners.remove(1, 1, 80, 40);
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(11, 0), 60);
        let at = |at| {
            let owner = listeners.owner(1, &tuple(IPV4, 7), at);
            owner.map(|process| process.pid)
        };
        assert_eq!([10, 30, 50, 70].map(at), [None, Some(10), None, Some(11)]);
    }

    #[test]
    fn those_that_stopped_are_bounded() {
        let mut listeners = Listeners::default();
        for at in 1..=2 * STOPPED as u64 {
            listeners.insert(1, 1, &tuple(IPV4, 0), &process(10, 0), at);
            listeners.remove(1, 1, 80, at);
        }
        assert!(!listeners.any(1, 80));
        assert_eq!(
            listeners.known.values().map(Vec::len).sum::<usize>(),
            STOPPED
        );
    }
}
