//! The record of a connection's other end, where that is on this node.
//!
//! Must not know: logs, which answer asks for it.

use super::{
    story::{Brief, Story},
    window::Window,
};

/// How far apart both ends are when they end, nanoseconds.
const APART: u64 = 1_000_000_000;

/// The record of the other end: the same addresses the other way round at the same time, ended the nearest. Each network namespace has
/// loopback addresses of its own.
pub fn other_end(window: &Window, brief: &Brief, netns: Option<u32>) -> Option<Vec<u8>> {
    let began = |brief: &Brief| brief.started.unwrap_or(0);
    let there = window.between(brief.remote, brief.local).into_iter();
    let mut there: Vec<_> = there
        .filter_map(|number| window.get(number))
        .filter(|held| held.brief.ended.abs_diff(brief.ended) <= APART)
        .filter(|held| began(&held.brief) <= brief.ended && began(brief) <= held.brief.ended)
        .collect();
    there.sort_by_key(|held| held.brief.ended.abs_diff(brief.ended));
    let is_here = |line: &Vec<u8>| {
        let story = Story::read(line);
        let there = story.as_ref().and_then(Story::connection);
        there.is_some_and(|there| there.netns == netns)
    };
    let local = brief.local.ip().is_loopback();
    let mut lines = there.iter().map(|held| held.text.line());
    lines.find(|line| !local || is_here(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        explain::story::Kind,
        output::{
            json,
            samples::{TIME, endpoint, healthy},
        },
        record::{Connection, Role, Timestamp, Verdict},
    };

    const MILLISECOND: u64 = 1_000_000;

    /// The end that the server has of the connection in [`healthy`], between these addresses.
    fn there(from: u64, to: u64, netns: u32, addresses: [&str; 2]) -> Connection<'static> {
        Connection {
            local: endpoint(addresses[1]),
            remote: endpoint(addresses[0]),
            role: Role::Server,
            netns: Some(netns),
            started: Some(Timestamp(from)),
            time: Timestamp(to),
            verdict: Verdict::ResetMidStream,
            ..healthy()
        }
    }

    /// Which of these is the other end of a connection in the network namespace 1.
    fn found(addresses: [&str; 2], others: &[Connection<'_>]) -> Option<u64> {
        let mut window = Window::default();
        let mut room = vec![0; 1 << 16];
        let mut brief = None;
        let here = Connection {
            local: endpoint(addresses[0]),
            remote: endpoint(addresses[1]),
            ..healthy()
        };
        for record in [&here].into_iter().chain(others) {
            let len = json::connection(record, &mut room).unwrap();
            let line = &room[..len - 1];
            let Kind::Connection(read) = Kind::read(line) else {
                panic!("no connection");
            };
            brief.get_or_insert(read);
            window.insert(read, line);
        }
        let other = other_end(&window, &brief.unwrap(), Some(1));
        other.map(|line| Story::read(&line).unwrap().connection().unwrap().time.0)
    }

    #[test]
    fn the_other_end_lived_at_the_same_time_in_the_same_place() {
        let began = TIME.0 - 12 * MILLISECOND;
        for (addresses, is_local) in [
            (["10.0.0.1:1", "10.0.0.2:80"], false),
            (["127.0.0.1:1", "127.0.0.1:80"], true),
            (["[::1]:1", "[::1]:80"], true),
        ] {
            let own = there(began, TIME.0, 1, addresses);
            assert_eq!(found(addresses, &[own]), Some(TIME.0));
            // The ports were used before.
            let before = there(
                began - 100 * MILLISECOND,
                began - 50 * MILLISECOND,
                1,
                addresses,
            );
            assert_eq!(found(addresses, &[before]), None, "{addresses:?}");
            // Another namespace's, and nearer.
            let other = there(began, TIME.0, 2, addresses);
            let own = there(began, TIME.0 + MILLISECOND, 1, addresses);
            let expected = if is_local { own.time } else { other.time };
            assert_eq!(found(addresses, &[other, own]), Some(expected.0));
        }
    }
}
