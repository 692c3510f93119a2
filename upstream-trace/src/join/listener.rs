//! Who listens where: the owner of a connection that nobody has accepted yet.
//!
//! Must not know: connections.

use std::rc::Rc;

use hashbrown::HashMap;

use super::tuple::Tuple;
use crate::process::Process;

/// One listening socket.
#[derive(Debug)]
struct Listener {
    sk: u64,
    family: u8,
    local: [u64; 2],
    process: Rc<Process>,
}

/// Every listening socket that is known, by network namespace and port.
#[derive(Debug, Default)]
pub struct Listeners {
    known: HashMap<(u32, u16), Vec<Listener>>,
}

impl Listeners {
    /// `process` listens with the socket at `sk`. Of several that share it the oldest counts: it
    /// opened the socket, the others inherited it.
    pub fn insert(&mut self, sk: u64, netns: u32, tuple: &Tuple, process: &Rc<Process>) {
        let here = self.known.entry((netns, tuple.local_port)).or_default();
        if let Some(known) = here.iter_mut().find(|listener| listener.sk == sk) {
            if process.start < known.process.start {
                known.process = Rc::clone(process);
            }
            return;
        }
        here.push(Listener {
            sk,
            family: tuple.family,
            local: tuple.local,
            process: Rc::clone(process),
        });
    }

    /// The socket at `sk` listens no more.
    pub fn remove(&mut self, sk: u64, netns: u32, port: u16) {
        if let Some(here) = self.known.get_mut(&(netns, port)) {
            here.retain(|listener| listener.sk != sk);
            if here.is_empty() {
                self.known.remove(&(netns, port));
            }
        }
    }

    /// Whether anybody listens on this port.
    pub fn any(&self, netns: u32, port: u16) -> bool {
        self.known.contains_key(&(netns, port))
    }

    /// The process that listens where a connection with this tuple arrived; `None` where it could be
    /// one of several.
    pub fn owner(&self, netns: u32, tuple: &Tuple) -> Option<&Rc<Process>> {
        let here = self.known.get(&(netns, tuple.local_port))?;
        let exact =
            |listener: &&Listener| listener.family == tuple.family && listener.local == tuple.local;
        // A wildcard address takes what no exact one does, on IPv6 also IPv4's.
        let wildcard = |listener: &&Listener| listener.local == [0; 2];
        only(here.iter().filter(exact)).or_else(|| {
            let none_exact = !here.iter().any(|listener| exact(&listener));
            only(here.iter().filter(wildcard)).filter(|_| none_exact)
        })
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
            details: Details::default(),
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
            .owner(1, &tuple(family, local))
            .map(|process| process.pid)
    }

    #[test]
    fn an_exact_address_comes_before_a_wildcard() {
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV6, 0), &process(10, 0));
        listeners.insert(2, 1, &tuple(IPV4, 7), &process(20, 0));
        assert_eq!(owner(&listeners, IPV4, 7), Some(20));
        assert_eq!(owner(&listeners, IPV4, 8), Some(10));
        listeners.remove(1, 1, 80);
        listeners.remove(2, 1, 80);
        assert_eq!(owner(&listeners, IPV4, 8), None);
        assert!(!listeners.any(1, 80));
    }

    #[test]
    fn several_processes_on_one_port_are_no_answer() {
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(10, 0));
        listeners.insert(2, 1, &tuple(IPV4, 0), &process(10, 0));
        assert_eq!(owner(&listeners, IPV4, 7), Some(10));
        listeners.insert(3, 1, &tuple(IPV4, 0), &process(11, 0));
        assert_eq!(owner(&listeners, IPV4, 7), None);
    }

    #[test]
    fn of_those_who_share_a_socket_the_oldest_counts() {
        let mut listeners = Listeners::default();
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(12, 50));
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(10, 5));
        listeners.insert(1, 1, &tuple(IPV4, 0), &process(13, 60));
        assert_eq!(owner(&listeners, IPV4, 7), Some(10));
    }
}
