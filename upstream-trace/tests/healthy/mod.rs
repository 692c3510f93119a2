//! Healthy connections as the kernel side reports them, played into the join from memory.

use upstream_trace::{
    decode::{Record, decode},
    join::engine::{Context, Engine, Sink, WallClock},
    kernel::reasons::Reasons,
    process::{Describe, Details},
    record::{Connection, Descriptors, Event, StrayReset, Timestamp, Verdict},
    settings::Wanted,
    tcp::State,
};
use upstream_trace_common::{
    event::{Actor, IPV4, Stats},
    story::{AT_BIRTH, Change, Ended, Story},
};
use zerocopy::IntoBytes as _;

/// Events of one connection, both ends.
pub(crate) const EVENTS: u64 = 9;

struct Nobody;

impl Describe for Nobody {
    fn describe(&mut self, _pid: u32, _start: u64) -> Details {
        Details::default()
    }

    fn descriptors(&mut self, _pid: u32, _start: u64) -> Option<Descriptors> {
        None
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
    /// Events that the join says it was told.
    taken: u64,
}

impl Healthy {
    /// An empty join.
    pub(crate) fn new() -> Self {
        let context = Context {
            run: 1,
            own_comm: [0; 2],
            tick_ns: 4_000_000,
            idle_after_us: 250_000,
            reasons: Reasons::default(),
            drop_reasons: Reasons::default(),
            counts_syn_retransmits: true,
            sees_all_resets: true,
            local_ports: Some(32_768..=60_999),
            since: 0,
            sees_both_ends: true,
            knows_listeners: true,
            events: false,
            wanted: Wanted::default(),
        };
        Self {
            engine: Engine::new(context, 1 << 18),
            count: Count::default(),
            now: 1 << 30,
            serial: 0,
            taken: 0,
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
        assert_eq!(self.taken, EVENTS * self.serial);
    }

    fn feed(&mut self, bytes: &[u8]) {
        let Some(Record::Ended(ended)) = decode(bytes) else {
            panic!("no story");
        };
        let Self { engine, count, .. } = self;
        self.taken += engine.ended_story(ended, &mut Nobody, &Epoch, count);
    }

    fn connection(&mut self) {
        use State::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent};
        self.serial += 1;
        self.now += 50_000;
        let ephemeral = 32_768 + u16::try_from(self.serial % 28_000).expect("below 2^16");
        // Slab addresses: few, and used again at once.
        let [client, server] = [1, 2].map(|end| (self.serial % 997) << 12 | end << 8);
        let connects = [
            (SynSent, Established),
            (Established, FinWait1),
            (FinWait1, FinWait2),
        ];
        let accepts = [(Established, CloseWait), (CloseWait, LastAck)];
        let ends = [
            self.story(
                client,
                (ephemeral, 8443),
                (Close, SynSent),
                &connects,
                FinWait2,
            ),
            self.story(
                server,
                (8443, ephemeral),
                (SynRecv, Established),
                &accepts,
                LastAck,
            ),
        ];
        for ended in ends {
            self.feed(ended.as_bytes());
        }
    }

    /// One end's life, as its hooks tell it.
    fn story(
        &self,
        sk: u64,
        (local_port, remote_port): (u16, u16),
        birth: (State, State),
        steps: &[(State, State)],
        last: State,
    ) -> Ended {
        let by_connect = birth.1 == State::SynSent;
        let pid = if by_connect { 100 } else { 200 };
        let mut story = Story {
            sk,
            local_port,
            remote_port,
            born: self.now,
            netns: 1,
            family: IPV4,
            birth: Change::of(birth.0 as u8, birth.1 as u8),
            local: [0x0100_007f, 0],
            remote: [0x0100_007f, 0],
            actor: Actor {
                tgid: pid,
                start: pid.into(),
                ..Actor::default()
            },
            // The one who connects, or the one who closes.
            acted: if by_connect { AT_BIRTH } else { 1 },
            state: last as u8,
            len: u8::try_from(steps.len()).expect("a few"),
            ..Story::default()
        };
        for (at, &(old, new)) in steps.iter().enumerate() {
            story.at[at] = self.now + 5_500 * (at as u64 + 1);
            story.what[at] = Change::of(old as u8, new as u8);
        }
        Ended {
            story,
            ktime: self.now + 40_000,
            old: last as u32,
            stats: Stats {
                present: u32::MAX,
                bytes_received: 64,
                bytes_acked: 65,
                bytes_sent: 64,
                segs_out: 5,
                flags: 1 << 1,
                ..Stats::default()
            },
            ..Ended::default()
        }
    }
}
