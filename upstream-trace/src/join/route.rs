//! In which network namespace of this node an address is: learned from connections whose both ends were seen, for those that never get
//! there.
//!
//! Must not know: connections.

use std::collections::VecDeque;

use hashbrown::HashMap;
use upstream_trace_common::{
    route::{self, Destination},
    setting,
};

use super::tuple::Tuple;

/// The network namespace that a destination is in; `None`: it is remembered no longer.
pub type News = (Destination, Option<u32>);

/// Where addresses lead, of each destination the last that was learned.
#[derive(Debug, Default)]
pub struct Routes {
    known: HashMap<Destination, u32>,
    /// The one learned first comes first.
    order: VecDeque<Destination>,
    news: Vec<News>,
}

impl Routes {
    /// A client in this network namespace, with these ends, has its server in that one.
    pub fn learn(&mut self, netns: u32, tuple: &Tuple, leads_to: u32) {
        // The kernel side knows by itself; 0: not read.
        if tuple.is_loopback() || tuple.local == tuple.remote || netns == 0 || leads_to == 0 {
            return;
        }
        let destination = route::destination(netns, tuple.family, tuple.remote);
        match self.known.insert(destination, leads_to) {
            Some(known) if known == leads_to => return,
            Some(_) => {}
            None => self.order.push_back(destination),
        }
        if self.order.len() > setting::ROUTES as usize
            && let Some(first) = self.order.pop_front()
        {
            self.known.remove(&first);
            self.news.push((first, None));
        }
        self.news.push((destination, Some(leads_to)));
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

    fn to(remote: u32) -> Tuple {
        Tuple::of(&Base {
            family: IPV4,
            local: [0x0a00_0001_u32.to_be().into(), 0],
            remote: [remote.to_be().into(), 0],
            ..Base::default()
        })
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut routes = Routes::default();
        let there = to(0x0a00_0002);
        let destination = |netns| route::destination(netns, IPV4, there.remote);
        for netns in [7, 7, 8] {
            routes.learn(1, &there, netns);
        }
        routes.learn(2, &there, 7);
        let [seven, eight] = [7, 8].map(|netns| (destination(1), Some(netns)));
        let other = (destination(2), Some(7));
        assert_eq!(routes.take_news(), [seven, eight, other]);
        assert_eq!(routes.take_news(), []);
    }

    #[test]
    fn what_the_kernel_side_knows_and_what_was_not_read_is_not_learned() {
        let mut routes = Routes::default();
        for (netns, tuple, leads_to) in [
            (1, to(0x7f00_0002), 1),
            (1, to(0x0a00_0001), 1),
            (0, to(0x0a00_0002), 7),
            (1, to(0x0a00_0002), 0),
        ] {
            routes.learn(netns, &tuple, leads_to);
        }
        assert_eq!(routes.take_news(), []);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut routes = Routes::default();
        for number in 0..=setting::ROUTES {
            routes.learn(1, &to(0x0b00_0000 + number), 7);
        }
        let news = routes.take_news();
        let first = route::destination(1, IPV4, to(0x0b00_0000).remote);
        let forgotten = news.iter().filter(|(_, netns)| netns.is_none());
        assert_eq!(forgotten.count(), 1);
        // Before what takes its place.
        assert_eq!(news[news.len() - 2], (first, None));
    }
}
