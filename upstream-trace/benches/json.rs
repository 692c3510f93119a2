//! What one healthy record costs as JSON: our encoder beside `serde_json` on the same types.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use upstream_trace::{
    output::{Batch, Format, Weight},
    record::{
        Attribution, Bytes, Connection, ConnectionType, Endpoint, Family, Id, Process, Role,
        Schema, Step, StepKind, Timestamp, Verdict,
    },
    tcp::State,
};

const TIMELINE: [Step; 6] = [
    Step::new(0, StepKind::Connect),
    Step::state(41, State::SynSent as u8, State::Established as u8),
    Step::state(12_345, State::Established as u8, State::FinWait1 as u8),
    Step::state(12_390, State::FinWait1 as u8, State::FinWait2 as u8),
    Step::state(12_411, State::FinWait2 as u8, State::TimeWait as u8),
    Step::state(12_412, State::TimeWait as u8, State::Close as u8),
];

const fn process(pid: u32, comm: &'static str, exe: &'static str) -> Process<'static> {
    Process {
        pid,
        comm: Some(comm),
        exe: Some(exe),
        uid: Some(1000),
        cgroup_id: Some(28_743),
        container_id: None,
        pod_uid: None,
        attribution: Attribution::Exact,
        spelled: None,
    }
}

fn healthy(family: Family, address: &str) -> Connection<'static> {
    let address = address.parse().expect("an address");
    Connection {
        schema: Schema,
        kind: ConnectionType,
        time: Timestamp(1_795_347_243_123_456_789),
        seq: 123_456,
        id: Id {
            run: 0x8f3a_62c1_09de_7b54,
            serial: 98_765,
        },
        netns: Some(4_026_531_840),
        family,
        local: Endpoint {
            address,
            port: 43_210,
        },
        remote: Endpoint {
            address,
            port: 8443,
        },
        role: Role::Client,
        process: Some(process(123_456, "envoy", "/usr/local/bin/envoy")),
        peer: Some(process(99_321, "upstream", "/srv/app/bin/upstream")),
        started: Some(Timestamp(1_795_347_243_111_044_789)),
        duration_us: 12_412,
        timeline: &TIMELINE,
        bytes: Bytes {
            sent: Some(512),
            received: Some(16_384),
            acked: Some(512),
        },
        idle_us: Some(8_000),
        rtt_us: Some(38),
        retransmits: Some(0),
        errno: None,
        reset: None,
        verdict: Verdict::Ok,
        flag: None,
        cause: None,
        layer: None,
        evidence: None,
        proxy: None,
        hint: None,
        complete: true,
    }
}

fn lines(criterion: &mut Criterion) {
    let mut batch = Batch::default();
    let mut out = Vec::with_capacity(1 << 16);
    for (name, family, address) in [
        ("v4", Family::V4, "10.128.14.207"),
        ("v6", Family::V6, "2001:db8:85a3::8a2e:370:7334"),
    ] {
        let record = healthy(family, address);
        batch.clear();
        let unwritten = Format::Json.connection(&mut batch, 6, &record);
        assert_eq!(unwritten, Weight::default());
        let mut group = criterion.benchmark_group(format!("healthy_{name}"));
        group.throughput(Throughput::Bytes(batch.len().try_into().expect("a length")));
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                batch.clear();
                let _none = Format::Json.connection(&mut batch, 6, black_box(&record));
                black_box(batch.len())
            });
        });
        group.bench_function("serde_json", |bencher| {
            bencher.iter(|| {
                out.clear();
                serde_json::to_writer(&mut out, black_box(&record)).expect("a line");
                black_box(out.len())
            });
        });
        group.finish();
    }
}

criterion_group!(benches, lines);
criterion_main!(benches);
