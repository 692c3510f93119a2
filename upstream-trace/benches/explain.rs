//! Log lines a second through the real `upstream-trace explain`: a million lines of Istio's access log, one in twenty failed, against
//! a million records, 20,000 of each a second. The bar is 200,000 lines a second; the time includes starting, reading and writing.
//!
//! And the worst that a log can be: an upstream that is down, 2,000 lines a second, each of them a failure that thousands of connections fit and
//! an answer with four records.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Result, Write as _},
    mem::MaybeUninit,
    net::IpAddr,
    path::Path,
    process::Command,
    time::Instant,
};

use upstream_trace::{
    output::json,
    record::{
        Attribution, Bytes, Connection, ConnectionType, Direction, Endpoint, Family, Flag, Id,
        Origin, Process, ReasonSource, Reset, Role, Schema, Step, StepKind, Timestamp, Verdict,
    },
    tcp::State,
    verdict::{facts::Facts, playbook},
};

const ROUNDS: u32 = 3;
/// 2026-11-21T11:34:03Z
const START: u64 = 1_795_260_843_000_000_000;
const FAILED: u64 = 20;

/// Requests, each with a line and a record.
struct Load {
    name: &'static str,
    count: u64,
    /// Nanoseconds from one to the next.
    apart: u64,
    failed: u64,
    request: fn(u64) -> Request,
    /// How a connection may be found.
    found: &'static [&'static str],
}

/// The connection of a request, and what Envoy says of it.
struct Request {
    verdict: Verdict,
    flag: Option<Flag>,
    said: &'static str,
    upstream: [u8; 4],
}

const OUTAGE: Load = Load {
    name: "one upstream is down",
    count: 100_000,
    apart: 500_000,
    failed: 100_000,
    request: |_| Request {
        upstream: [10, 1, 0, 0],
        ..request(FAILED)
    },
    found: &["nearest", "order", "ambiguous"],
};
const MANY: Load = Load {
    name: "one in twenty fails",
    count: 1_000_000,
    apart: 50_000,
    failed: 1_000_000 / FAILED,
    request,
    found: &["exact", "unique", "nearest"],
};

const TIMELINE: &[Step] = &[
    Step::new(0, StepKind::Connect),
    Step::state(41, State::SynSent as u8, State::Established as u8),
    Step::state(900, State::Established as u8, State::CloseWait as u8),
    Step::state(1_000, State::CloseWait as u8, State::Close as u8),
];

fn request(number: u64) -> Request {
    let (verdict, flag, said) = match number % (2 * FAILED) {
        0 => (
            Verdict::ResetBeforeResponse,
            Some(Flag::ResetBeforeResponse),
            "503 UC upstream_reset_before_response_started{connection_termination} - \"-\"",
        ),
        FAILED => (
            Verdict::Refused,
            Some(Flag::ResetBeforePayload),
            "503 UF upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - \"-\"",
        ),
        _ => (Verdict::Ok, None, "200 - via_upstream - \"-\""),
    };
    Request {
        verdict,
        flag,
        said,
        upstream: upstream(number),
    }
}

fn local_port(number: u64) -> u16 {
    u16::try_from(1_024 + number % 60_000).expect("below 65,536")
}

/// One of 2,000 upstreams, so that hardly any two fail at once: an address of the proxy's own is not logged for a refused connection.
fn upstream(number: u64) -> [u8; 4] {
    let upstream = number / FAILED % 2_000;
    let byte = |number| u8::try_from(number).expect("below 256");
    [10, 1, byte(upstream / 200), byte(upstream % 200)]
}

fn record(load: &Load, number: u64) -> Connection<'static> {
    let process = Process {
        pid: 4_242,
        comm: Some("envoy"),
        exe: Some("/usr/local/bin/envoy"),
        uid: Some(1_337),
        cgroup_id: Some(8_123),
        container_id: Some("3f4e5d6c7b8a99887766554433221100ffeeddccbbaa00998877665544332211"),
        pod_uid: Some("2fc932ce-fdcc-454b-97bd-aadfdeb4c340"),
        attribution: Attribution::Exact,
        spelled: None,
    };
    let Request {
        verdict,
        flag,
        upstream,
        ..
    } = (load.request)(number);
    let ended = START + number * load.apart + 1_000_000;
    let bytes = Bytes {
        sent: Some(512),
        received: Some(16_384),
        acked: Some(512),
    };
    let reset = flag.map(|_| Reset {
        direction: Direction::Received,
        reason: None,
        reason_source: ReasonSource::Unknown,
        origin: Origin::OffNode,
        confidence: None,
        evidence: None,
        sender: None,
    });
    let local = IpAddr::from([10, 0, 0, 1]);
    let mut facts = Facts {
        role: Role::Client,
        has_local_port: true,
        ..Facts::default()
    };
    facts.counters.bytes = bytes;
    let meaning = playbook::meaning(&playbook::About {
        reset: reset.map(|reset| (reset.direction, reset.origin, reset.reason)),
        ..playbook::About::new(verdict, facts, local)
    });
    Connection {
        schema: Schema,
        kind: ConnectionType,
        time: Timestamp(ended),
        seq: number,
        id: Id {
            run: 77,
            serial: number,
        },
        netns: Some(4_026_531_840),
        family: Family::V4,
        local: Endpoint {
            address: IpAddr::from([10, 0, 0, 1]),
            port: local_port(number),
        },
        remote: Endpoint {
            address: IpAddr::from(upstream),
            port: 8_080,
        },
        role: Role::Client,
        process: Some(process),
        peer: None,
        started: Some(Timestamp(ended - 1_000_000)),
        duration_us: 1_000,
        timeline: TIMELINE,
        bytes,
        idle_us: Some(100),
        rtt_us: Some(41),
        retransmits: Some(0),
        errno: None,
        reset,
        verdict,
        flag,
        cause: meaning.and_then(|meaning| meaning.cause),
        layer: meaning.map(|meaning| meaning.layer),
        evidence: None,
        proxy: meaning.and_then(|meaning| meaning.proxy),
        hint: meaning.map(|meaning| meaning.hint),
        complete: true,
    }
}

fn write_records(load: &Load, path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut room = vec![0; 1 << 16];
    for number in 0..load.count {
        let len = json::connection(&record(load, number), &mut room).expect("there is room");
        file.write_all(&room[..len])?;
    }
    file.flush()
}

fn write_log(load: &Load, path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for number in 0..load.count {
        let Request {
            verdict,
            said,
            upstream: [a, b, c, d],
            ..
        } = (load.request)(number);
        let at = Timestamp(START + number * load.apart).spell();
        let time = &at.as_str()[..23];
        let local = if verdict == Verdict::Refused {
            "-".to_owned()
        } else {
            format!("10.0.0.1:{}", local_port(number))
        };
        writeln!(
            file,
            "[{time}Z] \"GET /api/v1/items/{number} HTTP/1.1\" {said} 0 95 1 - \"10.9.8.7\" \"curl/7.88.1\" \
             \"84961386-6d84-929d-98bd-c5aee93b5c88\" \"items:8080\" \"{a}.{b}.{c}.{d}:8080\" \
             outbound|8080||items.default.svc.cluster.local {local} 10.0.0.1:8080 10.9.8.7:46520 - default"
        )?;
    }
    file.flush()
}

/// How many failed requests have a connection. Line by line: a child begins with the resident set of its parent, and would be
/// charged with what is kept here.
fn found(load: &Load, answers: &Path) -> Result<u64> {
    let mut count = 0;
    for line in BufReader::new(File::open(answers)?).lines() {
        let line = line?;
        let mut found = load.found.iter();
        count += u64::from(found.any(|word| line.contains(&format!("\"sureness\":\"{word}\""))));
    }
    Ok(count)
}

/// The largest resident set that any child had, in KiB.
fn peak() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` outlives the call, which writes one rusage there.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    // SAFETY: zeroed or written, it is a valid rusage.
    unsafe { usage.assume_init() }.ru_maxrss
}

fn main() -> Result<()> {
    // The smaller first: what is told of memory is the most that any round took.
    measure(&OUTAGE)?;
    measure(&MANY)
}

fn measure(load: &Load) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [records, log, answers] =
        ["records.json", "access.log", "answers.json"].map(|name| dir.path().join(name));
    write_records(load, &records)?;
    write_log(load, &log)?;
    let megabytes = (records.metadata()?.len() + log.metadata()?.len()) >> 20;
    let Load {
        name,
        count,
        failed,
        ..
    } = *load;
    for round in 1..=ROUNDS {
        let start = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_upstream-trace"))
            .args(["explain", "--format", "json", "--records"])
            .args([&records, &log])
            .stdout(File::create(&answers)?)
            .status()?;
        let seconds = start.elapsed().as_secs_f64();
        assert!(status.success(), "{status}");
        assert_eq!(found(load, &answers)?, failed);
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let rate = count as f64 / seconds;
        println!(
            "{name}, round {round}: {rate:.0} lines/s, {count} lines ({failed} failed, each with a connection) and as many records, \
             {megabytes} MiB in {seconds:.2} s, at most {} MiB resident",
            peak() >> 10
        );
    }
    Ok(())
}
