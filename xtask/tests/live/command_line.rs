//! How it starts, how it ends, and what it says when it cannot.

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use xtask::confine;
use xtask::doctor::{self, Start};
use xtask::scenario::load::{Load, Shape};
use xtask::scenario::{self, Ctx};
use xtask::tracer::{self, Tracer};

use crate::PORT;
use crate::degraded::Place;

fn run(args: &[&str]) -> Result<Output> {
    Ok(tracer::command(&tracer::binary()?, args).output()?)
}

/// It ended with this code, having said one line that holds all of `words`, and printed nothing.
fn one_line(output: &Output, code: i32, words: &[&str]) -> Result<()> {
    let said = String::from_utf8(output.stderr.clone())?;
    println!("{}", said.trim_end());
    ensure!(
        output.status.code() == Some(code),
        "{}, expected exit code {code}",
        output.status
    );
    ensure!(
        output.stdout.is_empty(),
        "printed {}",
        String::from_utf8_lossy(&output.stdout)
    );
    ensure!(!said.contains("panicked"), "it panicked");
    ensure!(
        said.lines().count() == 1,
        "said {} lines:\n{said}",
        said.lines().count()
    );
    for word in words {
        ensure!(said.contains(word), "does not say {word:?}");
    }
    Ok(())
}

/// `--duration 0` loads, attaches, says what is attached, exits; each line in one write, so that others' do not come in between.
pub(crate) fn duration_zero() -> Result<()> {
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut child = tracer::command(&tracer::binary()?, ["--duration", "0"])
        .stderr(OwnedFd::from(theirs))
        .spawn()?;
    let mut attached = String::new();
    let mut bytes = [0; 4096];
    while !attached.contains(": attached ") {
        let len = match ours.recv(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            received => received.context("does not say what it attached")?,
        };
        attached = String::from_utf8(bytes[..len].to_vec())?;
        println!("{}", attached.trim_end());
        let lines = attached.lines().count();
        ensure!(
            lines == 1 && attached.ends_with('\n'),
            "not one line: {attached:?}"
        );
    }
    for hook in ["inet_sock_set_state", "tcp_receive_reset", "tcp_send_reset"] {
        ensure!(
            attached.contains(hook),
            "does not say that {hook} is attached"
        );
    }
    // Whatever else it says finds nobody.
    drop(ours);
    let status = child.wait()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

pub(crate) fn bad_input() -> Result<()> {
    let too_many = vec!["1"; 1025].join(",");
    let cases: [(&[&str], i32, &[&str]); 24] = [
        (&["--pid", &too_many], 2, &["--pid: 1025 values", "1024"]),
        (
            &["--verdict", "nonsense"],
            2,
            &["--verdict", "nonsense", "refused"],
        ),
        (&["--ignore", "nonsense"], 2, &["--ignore", "nonsense"]),
        (&["--cidr", "10.0.0.0/33"], 2, &["--cidr", "10.0.0.0/33"]),
        (&["--cidr", "ten"], 2, &["--cidr", "ten"]),
        (&["--port", "9-8"], 2, &["--port", "9-8"]),
        (&["--port", "70000"], 2, &["--port", "70000"]),
        (&["--port", "0"], 2, &["--port"]),
        (&["--pid", "x"], 2, &["--pid", "x", "a number from 1 to"]),
        (&["--pid", "0"], 2, &["--pid", "a number from 1 to"]),
        (&["--pid", "4194304"], 2, &["--pid 4194304", "no such"]),
        (
            &["--max-connections", "x"],
            2,
            &["--max-connections", "a number from 1 to"],
        ),
        (
            &["--failed", "--verdict", "ok"],
            2,
            &["--failed", "--verdict ok"],
        ),
        (&["--prot", "1"], 2, &["'--prot'", "'--port'"]),
        (&["doctro"], 2, &["'doctro'", "'doctor'"]),
        (
            &["--output", "/nonexistent/\u{1b}[2J"],
            6,
            &["/nonexistent/\\u001b[2J"],
        ),
        (&["--cgroup", "/tmp"], 2, &["--cgroup /tmp", "cgroup v2"]),
        (
            &["--cgroup", "/nonexistent/cgroup"],
            2,
            &["--cgroup /nonexistent/cgroup"],
        ),
        (
            &["--container", "nginx"],
            2,
            &["--container", "nginx", "12"],
        ),
        (
            &["--container", "fedcba987654"],
            2,
            &["--container fedcba987654", "no running container"],
        ),
        (&["--ring-size", "65000"], 2, &["--ring-size", "65000"]),
        (&["--format", "xml"], 2, &["--format", "xml"]),
        (&["--nonsense"], 2, &["--nonsense"]),
        (
            &["--output", "/nonexistent/file"],
            6,
            &["/nonexistent/file"],
        ),
    ];
    for (args, code, words) in cases {
        one_line(&run(args)?, code, words).with_context(|| args.join(" "))?;
    }
    Ok(())
}

/// However few files it may open: it says so, or it traces, as `doctor` foretells.
pub(crate) fn few_descriptors() -> Result<()> {
    const ADVICE: [&str; 2] = ["Too many open files", "ulimit -n"];
    let dir = tempfile::tempdir()?;
    let file = |name: &str| -> Result<String> {
        let path = dir.path().join(name);
        fs::write(&path, "")?;
        Ok(path.to_str().context("a plain path")?.to_owned())
    };
    let (records, log) = (file("run.json")?, file("access.log")?);
    let port = PORT.to_string();
    let start = ["--port", &port, "--duration", "0"];
    let usual = limited("true", &start)?;
    let usual_doctor = limited("true", &["doctor"])?.status.code();
    let mut traced = 0;
    // With fewer it cannot even be loaded, as it opens the C library.
    for most in 4..=64 {
        let run = |args: &[&str]| limited(&format!("ulimit -n {most}"), args);
        let explained = run(&["explain", "-r", &records, &log])?;
        let said = String::from_utf8(explained.stderr)?;
        ensure!(
            matches!(explained.status.code(), Some(0 | 1 | 7)) && !said.contains("panicked"),
            "explain, {most}: {}, {said}",
            explained.status
        );
        let done = run(&start)?;
        let doctor = run(&["doctor"])?.status.code();
        let foretold = if done.status.success() {
            traced += 1;
            // Not a hook less.
            ensure!(done.stderr == usual.stderr, "{most}: {done:?}");
            usual_doctor
        } else {
            one_line(&done, 1, &ADVICE).with_context(|| most.to_string())?;
            Some(1)
        };
        ensure!(
            doctor == foretold,
            "{most}: {done:?}, doctor says {doctor:?}"
        );
    }
    ensure!(
        (1..50).contains(&traced),
        "it traces with {traced} limits of 61"
    );
    Ok(())
}

/// A large ring takes as many addresses, twice.
pub(crate) fn little_memory() -> Result<()> {
    let output = limited("ulimit -v 900000", &["--ring-size", "1GiB"])?;
    let said = String::from_utf8(output.stderr)?;
    println!("{}", said.trim_end());
    ensure!(output.status.code() == Some(1), "{}", output.status);
    ensure!(
        said.contains("lower --ring-size"),
        "does not say what to do"
    );
    Ok(())
}

/// What a start with these limits says.
fn limited(limits: &str, args: &[&str]) -> Result<Output> {
    let mut shell = tracer::command(Path::new("sh"), ["-c", &format!("{limits}; exec \"$@\"")]);
    shell.arg("sh").arg(tracer::binary()?).args(args);
    Ok(shell.output()?)
}

/// Nothing of `/proc` is needed to trace; what is not seen without is told.
pub(crate) fn no_proc() -> Result<()> {
    let place = Place::new()?;
    let host = confine::Host::default().hide("/proc");
    let start = Start {
        host,
        binary: &place.binary,
        args: &[],
    };
    let report = doctor::report(&start)?;
    println!("{report:#}");
    ensure!(report["exit_code"] == 8, "{}", report["exit_code"]);
    let limits = doctor::texts(&report["limits"]);
    ensure!(
        limits.iter().any(
            |limit| limit.contains("/proc is not mounted: mount it (mount -t proc proc /proc)")
        ),
        "{limits:?}"
    );
    Ok(())
}

/// Nobody takes what it says, or what it writes at the end.
pub(crate) fn full_device() -> Result<()> {
    let full = || fs::File::options().write(true).open("/dev/full");
    let status = tracer::command(&tracer::binary()?, ["--duration", "0"])
        .stderr(full()?)
        .status()?;
    ensure!(status.code() == Some(0), "nobody listens: {status}");
    let read_only = || fs::File::open("/dev/null");
    for asked in ["--help", "--version", "schema", "doctor", "playbook"] {
        for refuses in [full()?, read_only()?] {
            let output = tracer::command(&tracer::binary()?, [asked])
                .stdout(refuses)
                .stderr(Stdio::piped())
                .spawn()?
                .wait_with_output()?;
            one_line(&output, 6, &["cannot write standard output"]).context(asked)?;
        }
    }
    let port = PORT.to_string();
    let output = run(&["--port", &port, "--duration", "1s", "--output", "/dev/full"])?;
    let said = String::from_utf8(output.stderr)?;
    println!("{}", said.trim_end());
    ensure!(output.status.code() == Some(6), "{}", output.status);
    let last = said.lines().last().unwrap_or_default();
    ensure!(
        last.contains("cannot write /dev/full"),
        "does not say why nothing was written"
    );
    ensure!(
        last.ends_with("; 1 line was not written"),
        "does not count the final account"
    );
    Ok(())
}

pub(crate) fn full_disk() -> Result<()> {
    let dir = tempfile::tempdir()?;
    // Its mounts end with the thread.
    thread::scope(|scope| {
        let filled = scope.spawn(|| fill_disk(dir.path()));
        filled.join().expect("it does not panic")
    })
}

/// The file ends with a whole line, and every line that is not in it is counted.
fn fill_disk(dir: &Path) -> Result<()> {
    const CONNECTIONS: usize = 100;
    confine::small_file_system(dir)?;
    let file = dir.join("run.json");
    let path = file.to_str().context("a plain path")?;
    let tracer = Tracer::start(&["--port", &PORT.to_string(), "--output", path])?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    // It finds them all at once, so that it has made a line of each when it cannot write on.
    tracer.signal(libc::SIGSTOP)?;
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        drop((client, listener.accept()?));
    }
    tracer.signal(libc::SIGCONT)?;
    let run = tracer.wait()?;
    ensure!(run.status.code() == Some(6), "{}", run.status);
    let last = run.said.last().context("it said nothing")?;
    println!("{last}");
    ensure!(
        last.contains(&format!("cannot write {path}: No space left on device")),
        "does not say why"
    );
    let text = fs::read_to_string(&file)?;
    ensure!(text.ends_with('\n'), "the last line is cut");
    let mut written = 0;
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).context("a line")?;
        ensure!(line["seq"] == written, "{line} is number {written}");
        written += 1;
    }
    let counted = last.strip_suffix(" lines were not written");
    let counted = counted.and_then(|said| said.rsplit(' ').next()?.parse().ok());
    let missing: usize = counted.context("does not say how many lines are missing")?;
    // Two ends each, and the final account.
    ensure!(
        written + missing == 2 * CONNECTIONS + 1,
        "{written} lines were written"
    );
    Ok(())
}

/// The file is cut while it is written, as by logrotate's `copytruncate`: what follows begins at its beginning.
pub(crate) fn cut_output() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let refused = scenario::find("refused").context("no such scenario")?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("run.json");
    let path = file.to_str().context("a plain path")?;
    let tracer = Tracer::start(&["--port", &PORT.to_string(), "--output", path])?;
    for _ in 0..2 {
        refused.play(&ctx)?;
        thread::sleep(Duration::from_millis(200));
        let text = fs::read_to_string(&file)?;
        ensure!(
            text.starts_with('{') && text.contains("refused"),
            "{text:?}"
        );
        fs::File::options().write(true).open(&file)?.set_len(0)?;
    }
    tracer.signal(libc::SIGTERM)?;
    let run = tracer.wait()?;
    ensure!(run.status.code() == Some(0), "{}", run.status);
    let text = fs::read_to_string(&file)?;
    ensure!(
        text.starts_with('{') && text.lines().count() == 1 && text.contains("\"stats\""),
        "{text:?}"
    );
    Ok(())
}

fn named_pipe(dir: &TempDir) -> Result<PathBuf> {
    let pipe = dir.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status()?;
    ensure!(made.success(), "mkfifo: {made}");
    Ok(pipe)
}

/// A pipe that nobody reads is waited for by none: what opens it says so.
pub(crate) fn unread_pipe() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let pipe = named_pipe(&dir)?;
    let binary = tracer::binary()?;
    let name = pipe.display().to_string();
    let output = tracer::command(&binary, ["--output", &name, "--duration", "0"]).output()?;
    one_line(&output, 6, &["cannot write", &name])?;
    let types = tracer::command(&binary, ["--btf", &name, "--duration", "0"]).output()?;
    one_line(&types, 4, &["cannot read", &name])
}

/// Who only asks what would be attached, or cannot trace, keeps what is in the file.
pub(crate) fn output_is_kept() -> Result<()> {
    let place = Place::new()?;
    let file = place.file("records", b"of last night\n")?;
    let args = ["--output", &file, "--duration", "0"];
    let output = tracer::command(&place.binary, args).output()?;
    ensure!(output.status.success(), "{}", output.status);
    ensure!(fs::read(&file)? == b"of last night\n", "it was emptied");
    // Where the kernel takes no tracepoint.
    let mut refused = tracer::command(&place.binary, &args[..2]);
    let host = confine::Host::default().refuse(&confine::ATTACH, libc::EINVAL);
    host.confine(&mut refused);
    one_line(&refused.output()?, 5, &["refused"])?;
    ensure!(fs::read(&file)? == b"of last night\n", "it was emptied");
    Ok(())
}

/// Without `/dev/urandom`, as in a small container, there are random numbers all the same.
pub(crate) fn no_devices() -> Result<()> {
    let place = Place::new()?;
    let file = place.file("records", b"of last night\n")?;
    let args = ["--port", "1", "--output", &file, "--duration", "50ms"];
    let mut command = tracer::command(&place.binary, args);
    confine::Host::default().hide("/dev").confine(&mut command);
    let output = command.output()?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{}: {said}", output.status);
    ensure!(fs::read_to_string(&file)?.contains("\"stats\""));
    Ok(())
}

/// Told to stop while it starts: it has done so, or has not begun.
pub(crate) fn interrupted_start() -> Result<()> {
    for step in 0..40 {
        let mut child = tracer::command(&tracer::binary()?, ["--port", &PORT.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        thread::sleep(Duration::from_millis(step));
        let pid = libc::pid_t::try_from(child.id())?;
        // SAFETY: plain system call; the child has not been waited for.
        let told = unsafe { libc::kill(pid, libc::SIGTERM) };
        ensure!(told == 0, "kill");
        let status = child.wait()?;
        let in_order = status.code() == Some(0) || status.signal() == Some(libc::SIGTERM);
        ensure!(in_order, "after {step} ms: {status}");
    }
    Ok(())
}

/// As nobody, who has no capability: the binary is copied to where nobody can read it.
pub(crate) fn no_privilege() -> Result<()> {
    const NOBODY: u32 = 65534;
    let place = Place::new()?;
    let output = tracer::command(&place.binary, ["--duration", "0"])
        .uid(NOBODY)
        .gid(NOBODY)
        .output()?;
    one_line(&output, 3, &["CAP_BPF"])
}

pub(crate) fn signals() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let refused = scenario::find("refused").context("no such scenario")?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
        refused.play(&ctx)?;
        // At once: what the kernel has seen has to be in the output all the same.
        tracer.signal(signal)?;
        let began = Instant::now();
        let run = tracer.wait()?;
        ensure!(
            run.status.code() == Some(0),
            "signal {signal}: {}",
            run.status
        );
        ensure!(
            began.elapsed() < Duration::from_secs(2),
            "took {:?}",
            began.elapsed()
        );
        let stats = run.stats()?;
        ensure!(stats["connections"] == 1, "signal {signal}: {stats}");
        let refused = run
            .by_time()?
            .iter()
            .any(|line| line.value["verdict"] == "refused");
        ensure!(
            refused,
            "signal {signal}: what was seen last is not in the output"
        );
    }
    Ok(())
}

pub(crate) fn closed_pipe() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let mut load = Load::new(&ctx, false)?;
    let tracer = Tracer::start_unread(&["--port", &PORT.to_string()])?;
    tracer.hang_up();
    thread::sleep(Duration::from_millis(20));
    load.one(Shape::KeepAlive)?;
    ends_quietly(tracer)
}

/// No connection, so no line that would meet the closed pipe; on standard output, and as a file.
pub(crate) fn hang_up() -> Result<()> {
    let rest = || thread::sleep(Duration::from_millis(200));
    let port = PORT.to_string();
    let tracer = Tracer::start_unread(&["--port", &port])?;
    rest();
    tracer.hang_up();
    ends_quietly(tracer)?;

    let dir = tempfile::tempdir()?;
    let pipe = named_pipe(&dir)?;
    let reader = fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&pipe)?;
    let path = pipe.to_str().context("a plain path")?;
    let tracer = Tracer::start(&["--port", &port, "--output", path])?;
    rest();
    drop(reader);
    ends_quietly(tracer)
}

fn ends_quietly(tracer: Tracer) -> Result<()> {
    let began = Instant::now();
    let run = tracer.wait()?;
    println!("after {:?}: {}", began.elapsed(), run.said.join("\n"));
    ensure!(
        began.elapsed() < Duration::from_secs(1),
        "took {:?}",
        began.elapsed()
    );
    ensure!(run.status.code() == Some(0), "{}", run.status);
    let last = run.said.last();
    ensure!(
        last.is_some_and(|line| line == "upstream-trace: tracing"),
        "its last word is {last:?}"
    );
    Ok(())
}
