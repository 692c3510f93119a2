//! In which network namespace of this node a destination is: learned from connections whose both ends were seen, for those that never get
//! there.
//!
//! The kernel side only looks where it was last told; whether that can be relied on is asked here ([`Routes::lead_to`]). Must not know:
//! connections.

use std::collections::VecDeque;

use hashbrown::HashMap;
use upstream_trace_common::{
    route::{self, Destination},
    setting,
};

use super::tuple::Tuple;

/// The network namespace that a destination is in; `None`: it is remembered no longer.
pub type News = (Destination, Option<u32>);

/// For so long a destination is where a connection last found it: addresses move. `CLOCK_MONOTONIC` nanoseconds.
const FRESH_NS: u64 = 600_000_000_000;
/// So many that have been confirmed since they were put in line are put there again to make room for one.
const SECOND_CHANCES: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Route {
    netns: u32,
    /// When the last connection began that it led to there.
    at: u64,
    /// The same of the last one that it led to somewhere else, where somebody listened on.
    elsewhere: Option<u64>,
}

/// Where destinations lead.
#[derive(Debug, Default)]
pub struct Routes {
    known: HashMap<Destination, Route>,
    /// Each of them once, with the time by which it was known when it was put in line.
    line: VecDeque<(Destination, u64)>,
    news: Vec<News>,
}

/// Where a client in this network namespace, with these ends, connects to; `None` where that can only be in the same one: a loopback address
/// or its own. The kernel side knows these by itself.
fn destination(netns: u32, tuple: &Tuple) -> Option<Destination> {
    let elsewhere = !tuple.is_loopback() && tuple.local != tuple.remote;
    elsewhere.then(|| route::destination(netns, tuple.family, tuple.remote, tuple.remote_port))
}

impl Routes {
    /// The server of a client in this network namespace, with these ends, is in that one, and its end began at `at`. `listens` says in which
    /// ones somebody still listens on the port: what nobody does was replaced (a container that was started again).
    pub fn learn(
        &mut self,
        netns: u32,
        tuple: &Tuple,
        leads_to: u32,
        at: u64,
        listens: impl Fn(u32) -> bool,
    ) {
        let Some(destination) = destination(netns, tuple) else {
            return;
        };
        // Not read.
        if netns == 0 || leads_to == 0 {
            return;
        }
        if let Some(route) = self.known.get_mut(&destination) {
            if route.netns == leads_to {
                route.at = route.at.max(at);
            } else if at < route.at {
                let elsewhere = Some(at).filter(|_| listens(leads_to));
                route.elsewhere = route.elsewhere.max(elsewhere);
            } else {
                let elsewhere = Some(route.at).filter(|_| listens(route.netns));
                *route = Route {
                    netns: leads_to,
                    at,
                    elsewhere,
                };
                self.news.push((destination, Some(leads_to)));
            }
        } else if self.has_room(at) {
            let route = Route {
                netns: leads_to,
                at,
                elsewhere: None,
            };
            self.known.insert(destination, route);
            self.line.push_back((destination, at));
            self.news.push((destination, Some(leads_to)));
        }
    }

    /// Whether there is room for one more, if need be in the place of one that is not fresh.
    fn has_room(&mut self, now: u64) -> bool {
        if self.known.len() < setting::ROUTES_MAX as usize {
            return true;
        }
        for _ in 0..SECOND_CHANCES {
            let Some((first, queued)) = self.line.pop_front() else {
                break;
            };
            let at = self.known.get(&first).map_or(0, |route| route.at);
            if now.saturating_sub(at) > FRESH_NS {
                self.known.remove(&first);
                self.news.push((first, None));
                return true;
            }
            if at == queued {
                self.line.push_front((first, queued));
                break;
            }
            self.line.push_back((first, at));
        }
        false
    }

    /// Whether a client in a network namespace, with these ends, connects to that one, where somebody has listened since then, for all that is
    /// known at `now`: not long ago a connection came to there, and none to somewhere else.
    ///
    /// A namespace's number is used again. Whoever listens there only since the last connection came, or nobody knows since when, is not who
    /// took that.
    pub fn lead_to(
        &self,
        (netns, tuple): (u32, &Tuple),
        there: u32,
        since: Option<u64>,
        now: u64,
    ) -> bool {
        let Some(destination) = destination(netns, tuple) else {
            return netns == there;
        };
        let is_fresh = |then: u64, now: u64| now.saturating_sub(then) <= FRESH_NS;
        self.known.get(&destination).is_some_and(|route| {
            let Route { at, elsewhere, .. } = *route;
            route.netns == there
                && since.is_some_and(|since| since < at)
                && is_fresh(at, now)
                && !elsewhere.is_some_and(|then| is_fresh(then, at))
        })
    }

    /// What was learned and forgotten since this was last asked, in that order.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use upstream_trace_common::event::{Base, IPV4};

    use super::*;

    const PORT: u16 = 8443;
    const THERE: u32 = 0x0a00_0002;

    fn to(remote: u32) -> Tuple {
        Tuple::of(&Base {
            family: IPV4,
            local: [0x0a00_0001_u32.to_be().into(), 0],
            remote: [remote.to_be().into(), 0],
            remote_port: PORT,
            ..Base::default()
        })
    }

    fn destination_of(netns: u32, remote: u32) -> Destination {
        route::destination(netns, IPV4, to(remote).remote, PORT)
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut routes = Routes::default();
        for netns in [7, 7, 8] {
            routes.learn(1, &to(THERE), netns, 1, |_| true);
        }
        routes.learn(2, &to(THERE), 7, 1, |_| true);
        let here = destination_of(1, THERE);
        let other = (destination_of(2, THERE), Some(7));
        assert_eq!(
            routes.take_news(),
            [(here, Some(7)), (here, Some(8)), other]
        );
        assert_eq!(routes.take_news(), []);
    }

    #[test]
    fn each_client_namespace_address_and_port_is_one() {
        let keys = [
            route::destination(1, IPV4, [1, 2], 3),
            route::destination(2, IPV4, [1, 2], 3),
            route::destination(1, 6, [1, 2], 3),
            route::destination(1, IPV4, [9, 2], 3),
            route::destination(1, IPV4, [1, 9], 3),
            route::destination(1, IPV4, [1, 2], u16::MAX),
        ];
        assert_eq!(keys.iter().collect::<hashbrown::HashSet<_>>().len(), 6);
    }

    #[test]
    fn what_can_only_be_here_is_not_learned_nor_what_was_not_read() {
        let mut routes = Routes::default();
        let (loopback, own) = (to(0x7f00_0002), to(0x0a00_0001));
        for (netns, tuple, leads_to) in [
            (1, loopback, 1),
            (1, own, 1),
            (0, to(THERE), 7),
            (1, to(THERE), 0),
        ] {
            routes.learn(netns, &tuple, leads_to, 1, |_| true);
        }
        assert_eq!(routes.take_news(), []);
        for tuple in [loopback, own] {
            assert!(routes.lead_to((1, &tuple), 1, None, 5));
            assert!(!routes.lead_to((1, &tuple), 7, Some(0), 5));
        }
    }

    #[test]
    fn it_leads_there_for_a_while() {
        let mut routes = Routes::default();
        let lead =
            |routes: &Routes, there, since, now| routes.lead_to((1, &to(THERE)), there, since, now);
        assert!(!lead(&routes, 7, Some(0), 5));
        for at in [10, 20, 15] {
            routes.learn(1, &to(THERE), 7, at, |_| true);
        }
        assert!(lead(&routes, 7, Some(19), 30));
        assert!(!lead(&routes, 7, Some(20), 30), "a later listener");
        assert!(!lead(&routes, 7, None, 30), "nobody knows which");
        assert!(!lead(&routes, 8, Some(0), 30));
        assert!(lead(&routes, 7, Some(0), 20 + FRESH_NS));
        assert!(!lead(&routes, 7, Some(0), 21 + FRESH_NS));
    }

    #[test]
    fn where_it_led_to_two_it_is_neither_until_one_stays() {
        for elsewhere in [[(7, 10), (8, 20)], [(8, 20), (7, 10)]] {
            let mut routes = Routes::default();
            for (netns, at) in elsewhere {
                routes.learn(1, &to(THERE), netns, at, |_| true);
            }
            let lead =
                |routes: &Routes, there, now| routes.lead_to((1, &to(THERE)), there, Some(0), now);
            assert!(!lead(&routes, 7, 30) && !lead(&routes, 8, 30));
            let later = 11 + FRESH_NS;
            routes.learn(1, &to(THERE), 8, later, |_| true);
            assert!(lead(&routes, 8, later));
            assert!(!lead(&routes, 7, later));
        }
    }

    #[test]
    fn where_nobody_listens_any_more_was_replaced() {
        for elsewhere in [[(7, 10), (8, 20)], [(8, 20), (7, 10)]] {
            let mut routes = Routes::default();
            for (netns, at) in elsewhere {
                routes.learn(1, &to(THERE), netns, at, |netns| netns == 8);
            }
            assert!(routes.lead_to((1, &to(THERE)), 8, Some(15), 30));
            assert!(!routes.lead_to((1, &to(THERE)), 7, Some(0), 30));
        }
    }

    #[test]
    fn room_is_made_only_of_what_is_not_fresh() {
        let mut routes = Routes::default();
        let most = setting::ROUTES_MAX;
        for number in 0..=most {
            routes.learn(1, &to(0x0b00_0000 + number), 7, 10, |_| true);
        }
        let told = usize::try_from(most).unwrap();
        assert_eq!(routes.take_news().len(), told);
        // The first one goes on being used.
        let later = 20 + FRESH_NS;
        routes.learn(1, &to(0x0b00_0000), 7, later, |_| true);
        routes.learn(1, &to(0x0c00_0000), 7, later, |_| true);
        let second = (destination_of(1, 0x0b00_0001), None);
        let new = (destination_of(1, 0x0c00_0000), Some(7));
        assert_eq!(routes.take_news(), [second, new]);
        assert_eq!(routes.known.len(), told);
        assert_eq!(routes.line.len(), told);
    }
}
