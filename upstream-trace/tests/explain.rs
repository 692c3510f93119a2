//! `upstream-trace explain` as a program: files in, lines and exit codes out. Needs no kernel.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_upstream-trace");
/// A connection that HAProxy's server refused, as the tracer prints it.
const RECORD: &str = r#"{"schema":"upstream-trace/1","type":"connection","time":"2026-11-21T15:20:14.500000000Z","seq":1,"id":"366b1ddda1e18291-1","netns":4026531833,"family":"ipv4","local":{"address":"127.0.0.1","port":50126},"remote":{"address":"127.0.0.1","port":8443},"role":"client","process":{"pid":30619,"comm":"envoy","exe":null,"uid":0,"cgroup_id":1,"container_id":null,"attribution":"exact"},"peer":null,"started":"2026-11-21T15:20:14.499000000Z","duration_us":1000,"timeline":[{"at_us":0,"event":"connect"},{"at_us":30,"event":"reset_received"},{"at_us":31,"event":"error","errno":"ECONNREFUSED"},{"at_us":31,"event":"state","from":"SYN_SENT","to":"CLOSE"}],"bytes":{"sent":0,"received":0,"acked":0},"idle_us":null,"rtt_us":null,"retransmits":0,"errno":"ECONNREFUSED","reset":{"direction":"received","reason":"NO_SOCKET","reason_source":"kernel","origin":"peer_on_node","sender":null},"verdict":"refused","flag":"reset_before_payload","proxy":null,"hint":"Nothing accepts connections on the remote port.","complete":true}"#;
const LINE: &str = r#"[2026-11-21T15:20:14.498Z] "GET /a HTTP/1.1" 503 UF 0 91 3 - "-" "curl/8" "id" "host" "127.0.0.1:8443""#;

/// For an answer, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the program sleeps between two looks.
const PAUSE: Duration = Duration::from_millis(200);

fn explain(dir: &Path, args: &[&str]) -> Output {
    explain_in("UTC0", dir, args)
}

/// `zone`: what `TZ` says. Its names are those of files in `zones` in `dir`.
fn explain_in(zone: &str, dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command
        .arg("explain")
        .args(args)
        .env("TZ", zone)
        .env("TZDIR", dir.join("zones"))
        .current_dir(dir)
        .stdin(Stdio::null());
    command.output().expect("the program starts")
}

fn files() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a place for files");
    fs::write(dir.path().join("run.json"), format!("{RECORD}\n")).expect("the records");
    fs::write(dir.path().join("access.log"), format!("{LINE}\n")).expect("the log");
    dir
}

#[test]
fn text_is_a_ladder_below_the_line() {
    let dir = files();
    let output = explain(dir.path(), &["--records", "run.json", "access.log"]);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "2026-11-21 15:20:14.501Z  503 UF  GET /a HTTP/1.1  to 127.0.0.1:8443  (access.log:1)
  found: unique, by name
  | 2026-11-21 15:20:14.500Z  refused (reset_before_payload)  127.0.0.1:50126 -> 127.0.0.1:8443  envoy[30619] -> ?
  |      +0.000 ms  connect
  |      +0.030 ms  reset_received
  |      +0.031 ms  error ECONNREFUSED
  |      +0.031 ms  SYN_SENT -> CLOSE
  |   reset: received, NO_SOCKET (kernel), origin peer_on_node
  |   told:  ECONNREFUSED
  next:  Nothing accepts connections on the remote port.
1 lines: 1 failed, 0 fine, 0 other; of 1 connections explained by exact 0, unique 1, nearest 0, order 0; ambiguous 0, none 0, elsewhere 0
"
    );
}

#[test]
fn text_of_a_line_without_a_status() {
    let dir = files();
    let line = r#"2026/11/21 15:20:14 [error] 30619#30619: *7 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: _, request: "GET /a HTTP/1.1", upstream: "http://127.0.0.1:8443/a", host: "h""#;
    fs::write(dir.path().join("error.log"), line).unwrap();
    let output = explain(dir.path(), &["--records", "run.json", "error.log"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said.lines().next(),
        Some("2026-11-21 15:20:14.000Z  GET /a HTTP/1.1  to 127.0.0.1:8443  (error.log:1)")
    );
}

#[test]
fn every_json_line_fits_the_schema() {
    let dir = files();
    let log = format!(
        "{LINE}\n\u{9b}nonsense\n{}\n{}\n",
        LINE.replace("UF", "UH"),
        LINE.replace("127.0.0.1:8443", "127.0.0.1:9")
    );
    fs::write(dir.path().join("access.log"), log).unwrap();
    let output = explain(
        dir.path(),
        &["--records", "run.json", "--format", "json", "access.log"],
    );
    let schema = Command::new(BINARY).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap();
    let lines: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    for line in &lines {
        let errors: Vec<_> = validator
            .iter_errors(line)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}\n{line}");
    }
    let sureness: Vec<_> = lines
        .iter()
        .map(|line| line["sureness"].as_str().unwrap_or("-"))
        .collect();
    assert_eq!(sureness, ["unique", "elsewhere", "none", "-"]);
    assert_eq!(
        (&lines[3]["unknown"], &lines[3]["found"]["none"]),
        (&1.into(), &1.into())
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        said,
        "upstream-trace: access.log:2 has no known format, or is broken; more such lines are only counted\n"
    );
}

/// A time zone's file: no transitions, one kind of time for old readers, and the rule.
fn zone_file(rule: &str) -> Vec<u8> {
    let counts: [u32; 6] = [0, 0, 0, 0, 1, 4];
    let mut part = b"TZif2".to_vec();
    part.extend([0; 15]);
    part.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    part.extend([0; 6]);
    part.extend(b"UTC\0");
    [&part, &part, format!("\n{rule}\n").as_bytes()].concat()
}

#[test]
fn times_without_a_zone() {
    let dir = files();
    let line = r#"2026/11/21 17:20:14 [error] 30619#30619: *7 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: _, request: "GET /a HTTP/1.1", upstream: "http://127.0.0.1:8443/a", host: "h""#;
    fs::write(dir.path().join("error.log"), line).unwrap();
    let zones = dir.path().join("zones/East");
    fs::create_dir_all(&zones).unwrap();
    fs::write(zones.join("Town"), zone_file("<+02>-2")).unwrap();
    for (zone, sureness, words) in [
        ("East/Town", "unique", ""),
        ("<+02>-2", "unique", ""),
        ("UTC0", "none", ""),
        ("West/Town", "none", "time zone is unknown"),
    ] {
        let args = ["--records", "run.json", "--format", "json", "error.log"];
        let output = explain_in(zone, dir.path(), &args);
        let answer: Value = serde_json::from_str(
            String::from_utf8(output.stdout)
                .unwrap()
                .lines()
                .next()
                .unwrap(),
        )
        .unwrap();
        assert_eq!(answer["sureness"], sureness, "{zone}: {answer}");
        let said = String::from_utf8(output.stderr).unwrap();
        let lines = usize::from(!words.is_empty());
        assert!(
            said.contains(words) && said.lines().count() == lines,
            "{zone}: {said}"
        );
    }
}

/// Nobody's connection is taken for that of a call whose server is not known.
#[test]
fn a_line_without_a_server() {
    let dir = files();
    let line = "2026-11-21T15:20:14.501Z ERROR /shop.Orders/Get: UNAVAILABLE: failed to connect to all addresses";
    fs::write(dir.path().join("access.log"), format!("{line}\n")).unwrap();
    fs::write(dir.path().join("run.json"), RECORD.replace("envoy", "curl")).unwrap();
    let args = ["--records", "run.json", "access.log"];
    let said = String::from_utf8(explain(dir.path(), &args).stdout).unwrap();
    let words = "found: none\n  next:  The line has no server's address";
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_line_whose_records_are_forgotten_says_so() {
    let dir = files();
    let later = LINE.replace("15:20:14", "15:20:20");
    fs::write(dir.path().join("access.log"), format!("{later}\n{LINE}\n")).unwrap();
    let args = ["--records", "run.json", "access.log"];
    let said = String::from_utf8(explain(dir.path(), &args).stdout).unwrap();
    let (first, second) = said.split_once("(access.log:2)").unwrap();
    assert!(first.contains("next:  No record fits"), "{said}");
    assert!(
        second.contains("next:  Records of that time are forgotten already"),
        "{said}"
    );
    let args = [&args[..], &["--window", "9s"]].concat();
    let said = String::from_utf8(explain(dir.path(), &args).stdout).unwrap();
    assert!(said.contains("unique 1"), "{said}");
}

#[test]
fn bad_input_is_one_line_and_a_code() {
    let dir = files();
    let other = RECORD.replace("trace/1", "trace/2");
    for (name, bytes) in [
        ("other.json", &b"hello\n{}\n"[..]),
        ("text.json", b"2026-11-21 15:20:14.500Z  refused\n"),
        ("array.json", format!("[{RECORD}]\n").as_bytes()),
        ("noise.json", &noise()),
        ("run.json.gz", b"\x1f\x8b\x08\0\n\n"),
        ("v2.json", format!("{RECORD}\n{other}\n").as_bytes()),
    ] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    for (args, code, words) in [
        (&["access.log"][..], 2, "--records"),
        (
            &["--records", "none.json", "access.log"],
            7,
            "cannot read none.json",
        ),
        (
            &["--records", "run.json", "none.log"],
            7,
            "cannot read none.log",
        ),
        (&["--records", "run.json", "."], 7, "cannot read ."),
        (
            &["--records", "other.json", "access.log"],
            7,
            "other.json has no record",
        ),
        (
            &["--records", "access.log", "access.log"],
            7,
            "access.log has no record",
        ),
        (
            &["--records", "text.json", "access.log"],
            7,
            "not with --format text",
        ),
        (
            &["--records", "array.json", "access.log"],
            7,
            "array.json has no record",
        ),
        (
            &["--records", "noise.json", "access.log"],
            7,
            "noise.json has no record",
        ),
        (
            &["--records", "run.json.gz", "access.log"],
            7,
            "cannot read run.json.gz: it is compressed: zcat it",
        ),
        (
            &["--records", "run.json", "access.log", "run.json.gz"],
            7,
            "cannot read run.json.gz: it is compressed: zcat it",
        ),
        (
            &["--records", "v2.json", "access.log"],
            7,
            "v2.json:2 is of upstream-trace/2, this upstream-trace reads upstream-trace/1",
        ),
        (
            &["--records", "/dev/zero", "access.log"],
            7,
            "cannot read /dev/zero: it is no file, pipe or terminal",
        ),
        (
            &["--records", "run.json", "--server", "x", "access.log"],
            2,
            "NAME=ADDRESS:PORT",
        ),
        (
            &["--records", "run.json", "--window", "x", "access.log"],
            2,
            "a time is a whole number",
        ),
    ] {
        let output = explain(dir.path(), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(
            said.contains(words) && said.lines().count() == 1,
            "{args:?}: {said}"
        );
        assert!(output.stdout.is_empty(), "{args:?}: an answer all the same");
    }
}

/// Bytes without any order, and many ends of lines among them.
fn noise() -> Vec<u8> {
    let mut state = 1_u32;
    let mut byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..300_000).map(|_| byte()).collect()
}

/// Some lines before the first record are those of a standard error.
#[test]
fn records_behind_other_lines() {
    let dir = files();
    let records = format!("upstream-trace: tracing\n{RECORD}\n");
    fs::write(dir.path().join("run.json"), records).unwrap();
    let (answers, account) =
        Running::start(dir.path(), &["--records", "run.json", "access.log"]).end();
    assert_eq!(answers[0]["sureness"], "unique", "{account}");
    assert_eq!(account["records_unknown"], 1);
}

#[test]
fn a_log_that_is_none() {
    let dir = files();
    let utf16 = LINE.encode_utf16().flat_map(u16::to_le_bytes);
    let utf16: Vec<u8> = b"\xff\xfe".iter().copied().chain(utf16).collect();
    let syslog = format!("Nov 21 15:20:14 host envoy[1]: {LINE}\n\n");
    let docker = r#"{"log":"hello\n","stream":"stdout","time":"2026-11-21T15:20:14.5Z"}"#;
    let part = format!("2026-11-29T14:00:00Z stdout P {LINE}\n");
    for (log, code, lines) in [
        (&noise()[..], 7, 2),
        (part.as_bytes(), 7, 2),
        (&utf16, 7, 2),
        (syslog.as_bytes(), 7, 2),
        (docker.as_bytes(), 7, 2),
        (format!("{syslog}{LINE}\n").as_bytes(), 0, 1),
        (b"\n", 0, 0),
        (b"", 0, 0),
    ] {
        fs::write(dir.path().join("access.log"), log).unwrap();
        let output = explain(dir.path(), &["--records", "run.json", "access.log"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.lines().count(), lines, "{said}");
        let refused = said.contains("access.log has no line that is understood");
        assert_eq!(refused, code == 7, "{said}");
    }
}

/// However much there is to read that is no use.
#[test]
fn told_to_stop_amid_much() {
    let dir = files();
    let size = 64 << 30;
    for (name, args) in [
        ("big.log", ["--records", "run.json", "big.log"]),
        ("big.json", ["--records", "big.json", "access.log"]),
    ] {
        let mut file = fs::File::create(dir.path().join(name)).unwrap();
        writeln!(file, "{RECORD}").unwrap();
        file.set_len(size).unwrap();
        let running = Running::start(dir.path(), &args);
        thread::sleep(PAUSE);
        let told = Instant::now();
        running.signal(libc::SIGINT);
        let (answers, _) = running.end();
        assert!(told.elapsed() < Duration::from_secs(1), "{args:?}");
        // Nobody has looked whether there is a record.
        assert_eq!(answers.len(), 0, "{args:?}");
    }
}

/// The program while it runs. Killed when dropped, and no answer is waited for longer than [`PATIENCE`].
struct Running {
    child: Child,
    answers: mpsc::Receiver<String>,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(BINARY)
            .args(["explain", "--format", "json"])
            .args(args)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, answers }
    }

    /// Writes `parts` to its standard input, some time apart, and closes that.
    fn feed(&mut self, parts: Vec<Vec<u8>>) {
        let mut input = self.child.stdin.take().expect("a pipe");
        thread::spawn(move || {
            for part in parts {
                // It may be gone.
                if input.write_all(&part).and_then(|()| input.flush()).is_err() {
                    break;
                }
                thread::sleep(PAUSE);
            }
        });
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.child.id()).expect("a process");
        // SAFETY: plain system call; the child has not been waited for.
        unsafe { libc::kill(pid, signal) };
    }

    fn answer(&self) -> Value {
        let answer = self.answers.recv_timeout(PATIENCE);
        serde_json::from_str(&answer.expect("an answer in time")).expect("an answer is JSON")
    }

    /// The rest of what it says: explanations, and the account.
    fn end(mut self) -> (Vec<Value>, Value) {
        let mut answers = vec![self.answer()];
        while answers
            .last()
            .is_some_and(|last| last["type"] != "explained")
        {
            answers.push(self.answer());
        }
        let account = answers.pop().expect("an account");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(status.code(), Some(0));
        (answers, account)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn output_that_cannot_be_written_to() {
    let dir = files();
    for refuses in ["/dev/full", "/dev/null"] {
        let writes = refuses == "/dev/full";
        let refuses = OpenOptions::new().read(true).write(writes).open(refuses);
        let output = Command::new(BINARY)
            .args(["explain", "--records", "run.json", "access.log"])
            .current_dir(dir.path())
            .stdout(refuses.unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(6), "{said}");
        assert!(said.contains("cannot write standard output"), "{said}");
    }
}

#[test]
fn standard_input_and_hostile_bytes() {
    let dir = files();
    let mut running = Running::start(dir.path(), &["--records", "run.json", "-"]);
    let huge = vec![b'x'; 3 << 20];
    running.feed(vec![
        [b"\0\0\xff\xfe\n", &huge[..], b"\n", LINE.as_bytes()].concat(),
    ]);
    let (_, account) = running.end();
    assert_eq!(
        (&account["unknown"], &account["found"]["unique"]),
        (&2.into(), &1.into())
    );
}

/// More connections fit than are shown: what is said of all has to be so of the others.
#[test]
fn what_is_not_shown_counts() {
    let dir = files();
    let record = |number: usize| {
        RECORD
            .replace("14.500000000Z", &format!("14.500{number}00000Z"))
            .replace("-1\",\"netns", &format!("-{number}\",\"netns"))
    };
    let mut records: Vec<_> = (0..6).map(record).collect();
    fs::write(dir.path().join("access.log"), format!("{LINE}\n{LINE}\n")).unwrap();
    let judged = |records: &[String]| {
        fs::write(dir.path().join("run.json"), records.join("\n")).unwrap();
        let args = ["--records", "run.json", "access.log"];
        let (answers, _) = Running::start(dir.path(), &args).end();
        let first = answers.into_iter().next().expect("an answer");
        assert_eq!(first["candidates"], records.len());
        (first["verdict"].clone(), first["origin"].clone())
    };
    let (refused, on_node) = (Value::from("refused"), Value::from("peer_on_node"));
    assert_eq!(judged(&records[..4]), (refused.clone(), on_node));
    // Nobody has looked who reset those that are not shown.
    assert_eq!(judged(&records), (refused, Value::Null));
    records[0] = records[0].replace("\"verdict\":\"refused\"", "\"verdict\":\"unreachable\"");
    assert_eq!(judged(&records), (Value::Null, Value::Null));
}

/// What was written down long ago and comes slowly by a pipe is explained as it is from a file.
#[test]
fn slow_pipes() {
    let dir = files();
    let halves = |text: &str| {
        let (one, other) = text.as_bytes().split_at(text.len() / 2);
        let rest = vec![other.to_vec(), b"\n".to_vec()];
        [vec![one.to_vec()], rest].concat()
    };
    let last = [b"nonsense\n".to_vec()];
    for (args, parts) in [
        (
            ["--records", "run.json", "-"],
            [&last[..], &halves(LINE)].concat(),
        ),
        (
            ["--records", "-", "access.log"],
            [&last[..], &halves(RECORD)].concat(),
        ),
    ] {
        let mut running = Running::start(dir.path(), &args);
        running.feed(parts);
        let (answers, account) = running.end();
        let sureness: Vec<_> = answers.iter().map(|answer| &answer["sureness"]).collect();
        assert_eq!(sureness, ["unique"], "{args:?}: {account}");
        assert_eq!(account["records"], 1, "{args:?}");
    }
}

/// Wherever a pipe pauses, the answers are those that the same records in a file get.
#[test]
fn records_in_parts() {
    let dir = files();
    let (mut log, mut records) = (String::new(), String::new());
    let start: jiff::Timestamp = "2026-11-20T03:00:00Z".parse().unwrap();
    let mut ended = start;
    for number in 0_u64..400 {
        // From many at once to one in a while.
        ended += Duration::from_millis(
            [1, 7, 40, 300, 2_000, 20_000][(number * number % 31 % 6) as usize],
        );
        log += &LINE.replace("2026-11-21T15:20:14.498Z", &format!("{ended:.3}"));
        log += "\n";
        records += &RECORD
            .replace("2026-11-21T15:20:14.500000000Z", &format!("{ended:.9}"))
            .replace("-1\",\"netns", &format!("-{number}\",\"netns"));
        records += "\n";
    }
    fs::write(dir.path().join("access.log"), log).unwrap();
    fs::write(dir.path().join("run.json"), &records).unwrap();
    let whole = Running::start(dir.path(), &["--records", "run.json", "access.log"]).end();
    assert_eq!(whole.0.len(), 400);
    let mut running = Running::start(dir.path(), &["--records", "-", "access.log"]);
    let parts = records.as_bytes().chunks(records.len() / 12);
    running.feed(parts.map(<[u8]>::to_vec).collect());
    let (answers, account) = running.end();
    assert_eq!(account, whole.1);
    assert!(answers == whole.0, "other answers");
}

/// Of two logs the one that a pipe brings slowly goes first where its lines are earlier.
#[test]
fn a_slow_pipe_beside_a_file() {
    let dir = files();
    let hour = |text: &str| text.replace("T15:", "T14:");
    let records = format!("{}\n{RECORD}\n", hour(RECORD));
    fs::write(dir.path().join("run.json"), records).unwrap();
    let args = ["--records", "run.json", "access.log", "-"];
    let mut running = Running::start(dir.path(), &args);
    running.feed(vec![Vec::new(), hour(LINE).into_bytes()]);
    let (answers, account) = running.end();
    let said: Vec<_> = answers
        .iter()
        .map(|answer| (answer["log"].as_str(), answer["sureness"].as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (Some("-"), Some("unique")),
            (Some("access.log"), Some("unique"))
        ],
        "{account}"
    );
}

/// Envoy writes its lines every ten seconds.
#[test]
fn following_a_log_that_is_written_late() {
    let dir = files();
    let log = dir.path().join("access.log");
    fs::write(&log, "").unwrap();
    let then = jiff::Timestamp::now() - Duration::from_secs(9);
    let record = RECORD.replace("2026-11-21T15:20:14.500000000Z", &format!("{then:.9}"));
    fs::write(dir.path().join("run.json"), format!("{record}\n")).unwrap();
    let running = Running::start(
        dir.path(),
        &["--follow", "--records", "run.json", "access.log"],
    );
    thread::sleep(3 * PAUSE);
    let line = LINE.replace("2026-11-21T15:20:14.498Z", &format!("{then:.3}"));
    fs::write(&log, format!("{line}\n")).unwrap();
    let answer = running.answer();
    assert_eq!(answer["sureness"], "unique", "{answer}");
}

/// Log and records grow and are rotated; the answers come while it runs.
#[test]
fn following() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let dir = tempfile::tempdir().unwrap();
        let (log, records) = (dir.path().join("access.log"), dir.path().join("run.json"));
        fs::write(&log, "").unwrap();
        fs::write(&records, "").unwrap();
        let args = ["--follow", "--records", "run.json", "access.log"];
        let running = Running::start(dir.path(), &args);
        let play = || {
            let append = |path: &Path, line: &str| {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                writeln!(file, "{line}").unwrap();
            };
            // What happened a moment ago: a follower waits for what is late, not for what is old.
            let now = jiff::Timestamp::now();
            append(
                &log,
                &LINE.replace("2026-11-21T15:20:14.498Z", &format!("{now:.3}")),
            );
            append(
                &records,
                &RECORD.replace("2026-11-21T15:20:14.500000000Z", &format!("{now:.9}")),
            );
            let answer = running.answer();
            assert_eq!(
                (&answer["line"], &answer["verdict"]),
                (&1.into(), &"refused".into()),
                "{answer}"
            );
        };
        play();
        // Not cut off: to a follower, a file that is as long as before when it is next looked at has not changed.
        for path in [&log, &records] {
            fs::rename(path, path.with_added_extension("1")).unwrap();
            fs::write(path, "").unwrap();
        }
        play();
        running.signal(signal);
        let (answers, account) = running.end();
        assert_eq!(
            (answers.len(), &account["failed"]),
            (0, &2.into()),
            "{account}"
        );
    }
}
