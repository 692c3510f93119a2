//! Healthy connections as the kernel side reports them, played into the join from memory.

use upstream_trace::{
    decode::decode,
    join::engine::{Context, Engine, Sink, WallClock},
    kernel::reasons::ResetReasons,
    process::{Describe, Details},
    record::{Connection, Event, StrayReset, Timestamp, Verdict},
    settings::Wanted,
    tcp::State,
};
use upstream_trace_common::event::{Acted, Actor, Base, Full, IPV4, Stats, kind};
use zerocopy::IntoBytes as _;

/// Events of one connection, both ends.
pub(crate) const EVENTS: u64 = 9;

struct Nobody;

impl Describe for Nobody {
    fn describe(&mut self, _pid: u32, _start: u64) -> Details {
        Details::default()
    }
}

struct Epoch;

impl WallClock for Epoch {
    fn at(&self, ktime: u64) -> Timestamp {
        Timestamp(ktime)
    }
}

/// Counts what comes out.
#[derive(Debug, Default)]
struct Count {
    ok: u64,
    other: u64,
}

impl Sink for Count {
    fn connection(&mut self, record: &mut Connection<'_>, _events: u32) {
        let counter = if record.verdict == Verdict::Ok {
            &mut self.ok
        } else {
            &mut self.other
        };
        *counter += 1;
    }

    fn reset(&mut self, _record: &mut StrayReset<'_>, _events: u32) {
        self.other += 1;
    }

    fn event(&mut self, _record: &mut Event<'_>) {}
}

/// The join and a kernel that plays to it.
pub(crate) struct Healthy {
    engine: Engine,
    count: Count,
    now: u64,
    serial: u64,
}

impl Healthy {
    /// An empty join.
    pub(crate) fn new() -> Self {
        let context = Context {
            run: 1,
            tick_ns: 4_000_000,
            idle_after_us: 250_000,
            reasons: ResetReasons::default(),
            sees_all_resets: true,
            sees_both_ends: true,
            events: false,
            wanted: Wanted::default(),
        };
        Self {
            engine: Engine::new(context, 1 << 18),
            count: Count::default(),
            now: 1 << 30,
            serial: 0,
        }
    }

    /// Plays so many connections, one every 50 microseconds, each judged while others go on.
    pub(crate) fn play(&mut self, connections: u64) {
        let before = self.count.ok;
        for number in 0..connections {
            self.connection();
            if number % 256 == 0 {
                self.engine.finish_due(self.now, &Epoch, &mut self.count);
            }
        }
        self.engine.finish_due(u64::MAX, &Epoch, &mut self.count);
        assert_eq!(
            (self.count.ok - before, self.count.other),
            (2 * connections, 0)
        );
    }

    fn feed(&mut self, bytes: &[u8]) {
        let event = decode(bytes).expect("a record");
        self.engine
            .event(event, &mut Nobody, &Epoch, &mut self.count);
    }

    fn connection(&mut self) {
        use State::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent};
        self.serial += 1;
        let ephemeral = 32_768 + u16::try_from(self.serial % 28_000).expect("below 2^16");
        // Slab addresses: few, and used again at once.
        let [client, server] = [1, 2].map(|end| (self.serial % 997) << 12 | end << 8);
        let both = Stats {
            present: u32::MAX,
            bytes_received: 64,
            bytes_acked: 65,
            bytes_sent: 64,
            data_segs_in: 1,
            data_segs_out: 1,
            segs_out: 5,
            flags: 1 << 1,
            ..Stats::default()
        };
        let script = [
            (client, Close, SynSent, 100),
            (client, SynSent, Established, 0),
            (server, SynRecv, Established, 0),
            (client, Established, FinWait1, 100),
            (server, Established, CloseWait, 0),
            (client, FinWait1, FinWait2, 0),
            (server, CloseWait, LastAck, 200),
            (client, FinWait2, Close, 0),
            (server, LastAck, Close, 0),
        ];
        for (sk, old, new, tgid) in script {
            self.now += 5_500;
            let (local_port, remote_port) = if sk == client {
                (ephemeral, 8443)
            } else {
                (8443, ephemeral)
            };
            let local_port = if new == SynSent { 0 } else { local_port };
            let base = Base {
                ktime: self.now,
                sk,
                kind: kind::STATE,
                family: IPV4,
                old: old as u8,
                new: new as u8,
                local_port,
                remote_port,
                netns: 1,
                local: [0x0100_007f, 0],
                remote: [0x0100_007f, 0],
                ..Base::default()
            };
            let actor = Actor {
                tgid,
                start: tgid.into(),
                ..Actor::default()
            };
            match (new, tgid) {
                (Close, _) => self.feed(
                    Full {
                        base,
                        actor,
                        stats: both,
                    }
                    .as_bytes(),
                ),
                (_, 0) => self.feed(base.as_bytes()),
                _ => self.feed(Acted { base, actor }.as_bytes()),
            }
        }
    }
}
