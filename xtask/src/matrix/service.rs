//! The tracer as a service: a guest's first process becomes systemd, and what that starts installs the unit, plays failures,
//! and looks into the journal.
//!
//! Must not know: what is expected of this kernel, what the tracer prints.

use std::{
    fs::{self, File},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    guest::{describe_kernel, tell},
    initramfs::MODULE_DIR,
    report::{Line, Outcome},
};
use crate::{
    bpf::{self, Object},
    confine::{CAP_BPF, CAP_PERFMON},
    scenario::{self, Ctx, Played, Scenario, check, feature::Features},
    skipped, tracer,
};

/// In the workspace.
pub(super) const UNIT: &str = "dist/upstream-trace.service";
const NAME: &str = "upstream-trace";
const INSTALLED: &str = "/etc/systemd/system/upstream-trace.service";
/// From what the guest boots with, whereto, and with which mode.
const INSTALL: [(&str, &str, u32); 2] = [
    ("/upstream-trace", "/usr/local/bin/upstream-trace", 0o755),
    ("/upstream-trace.service", INSTALLED, 0o644),
];

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// What systemd starts. However it ends, so does the guest.
const TESTS: &str = "\
[Unit]
Description=Tests of upstream-trace.service
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
ExecStart=/xtask guest service
";

const PORT: u16 = 18440;
/// Of an emulated machine, with what a unit waits before it starts anew.
const PATIENCE: Duration = Duration::from_mins(1);
/// Whose every record is one of a failure.
const FAILURES: [&str; 3] = ["refused", "reset_after_accept", "reset_after_request"];
const HEALTHY: &str = "healthy";

/// For the first process: becomes systemd, which starts the one that does [`play`].
pub(super) fn boot() -> Result<()> {
    let directory = Path::new("/etc/systemd/system");
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    fs::write(directory.join("tests.service"), TESTS)?;
    // Otherwise this would be a first boot, with services that ask for a language and a password.
    fs::write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")?;
    let mut systemd = Command::new(SYSTEMD);
    // Where it crashes it would wait for somebody to look, and QEMU ends instead of a reboot.
    let error = systemd
        .args(["--crash-reboot", "--unit=tests.service"])
        .exec();
    Err(error).context(SYSTEMD)
}

/// Whether systemd has started this, in a guest.
pub(super) fn is_inside() -> bool {
    std::os::unix::process::parent_id() == 1 && Path::new(MODULE_DIR).is_dir()
}

type Check = fn() -> Result<()>;

/// One after the other, each building on those before.
pub(super) const CHECKS: [(&str, Check); 6] = [
    ("starts_when_installed", starts),
    ("is_confined_as_the_unit_says", is_confined),
    ("failures_alone_are_in_the_journal", failures),
    ("is_started_again_when_killed", is_started_again),
    ("stops_and_leaves_nothing", stops),
    ("systemd_finds_no_fault_in_the_unit", verified),
];

/// Does [`CHECKS`] up to one that fails.
pub(super) fn play(report: &mut File) -> Result<()> {
    tell(report, &describe_kernel()?)?;
    for (name, check) in CHECKS {
        let wrong = |error| Outcome::Wrong(format!("{error:#}"));
        let outcome = check().map_or_else(wrong, |()| Outcome::Right);
        let is_right = matches!(outcome, Outcome::Right);
        let name = name.to_owned();
        tell(report, &Line::Test { name, outcome })?;
        if !is_right {
            break;
        }
    }
    let journal = journal()?;
    let until_ready = journal.iter().take_while(|line| !is_ready(line));
    for text in until_ready {
        tell(report, &Line::Said { text: text.clone() })?;
    }
    Ok(())
}

/// As the README says.
fn starts() -> Result<()> {
    for (from, to, mode) in INSTALL {
        let path = Path::new(to);
        fs::create_dir_all(path.parent().context("a file")?)?;
        fs::copy(from, to).with_context(|| to.to_owned())?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    }
    systemctl(&["enable", "--now", NAME])?;
    traces(1)?;
    ensure!(systemctl(&["is-enabled", NAME])? == "enabled");
    is_in_state("active", "success")
}

/// The user is none of the system's, and its rights are those of the unit, less what the tracer gave up when it had attached.
fn is_confined() -> Result<()> {
    let unit = fs::read_to_string(INSTALLED)?;
    let pid = pid()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|rest| rest.strip_prefix(':'));
        value.map(str::trim).with_context(|| format!("no {name}"))
    };
    let set = |name| Ok::<_, anyhow::Error>(u64::from_str_radix(field(name)?, 16)?);
    for name in ["Uid", "Gid"] {
        let ids: Vec<_> = field(name)?.split_whitespace().collect();
        ensure!(!ids.contains(&"0"), "{name}: {ids:?}");
    }
    let granted = granted(&unit)?;
    let bound = set("CapBnd")?;
    ensure!(bound == granted, "CapBnd: {bound:x}, not {granted:x}");
    for name in ["CapInh", "CapAmb"] {
        ensure!(set(name)? == 0, "{name}: {:x}", set(name)?);
    }
    // Old kernels ask for it whenever a map is read.
    for name in ["CapPrm", "CapEff"] {
        let left = set(name)? & !(1 << CAP_BPF);
        ensure!(left == 0, "{name}: {left:x}");
    }
    ensure!(field("NoNewPrivs")? == "1", "new privileges");
    ensure!(field("Seccomp")? == "2", "no filter of system calls");
    let mounts = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/mnt"));
    ensure!(
        mounts(&pid.to_string())? != mounts("self")?,
        "its file systems are everybody's"
    );
    Ok(())
}

/// The capabilities that the unit names.
fn granted(unit: &str) -> Result<u64> {
    let mut lines = unit.lines();
    let names = lines.find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = names.context("no CapabilityBoundingSet")?;
    names.split_whitespace().try_fold(0, |all, name| {
        let bit = match name {
            "CAP_BPF" => CAP_BPF,
            "CAP_PERFMON" => CAP_PERFMON,
            _ => bail!("{name} was not known here"),
        };
        Ok(all | 1 << bit)
    })
}

/// Once more only where the tracer has counted events that the kernel kept from it.
fn failures() -> Result<()> {
    let first = play_failures();
    if first.is_ok() {
        return Ok(());
    }
    systemctl(&["stop", NAME])?;
    let stats = records()?.pop().context("nothing in the journal")?;
    ensure!(stats.is("stats"), "its last line is no stats: {stats:?}");
    if skipped::missed(&stats.value)? == 0 {
        return first;
    }
    let starts = started()?;
    systemctl(&["start", NAME])?;
    traces(starts + 1)?;
    play_failures()
}

fn play_failures() -> Result<()> {
    let ctx = Ctx::new(PORT)?;
    let play = |name| -> Result<(&Scenario, Played)> {
        let scenario = scenario::find(name).context(name)?;
        Ok((scenario, scenario.play(&ctx)?))
    };
    // First, so that its record would be there when those of the others are.
    let (healthy, exchange) = play(HEALTHY)?;
    let plays = FAILURES.map(play).into_iter().collect::<Result<Vec<_>>>()?;
    let kernel = Features::here()?;
    let lines = until(|| {
        let lines = records()?;
        let wrong =
            |(scenario, played): &(&Scenario, _)| check::wrong(scenario, played, &lines, kernel);
        let wrong: Vec<_> = plays.iter().filter_map(wrong).collect();
        ensure!(wrong.is_empty(), "{}", wrong.concat());
        Ok(lines)
    })?;
    let surplus = check::lines_of(healthy, &exchange, check::within(&lines, &exchange));
    let surplus: Vec<_> = surplus.iter().map(ToString::to_string).collect();
    ensure!(surplus.is_empty(), "no failure: {}", surplus.join("\n"));
    is_in_state("active", "success")
}

/// By whom it was not asked to end.
fn is_started_again() -> Result<()> {
    let (killed, starts) = (pid()?, started()?);
    let objects = objects(killed)?;
    systemctl(&["kill", "--signal=SIGKILL", NAME])?;
    traces(starts + 1)?;
    ensure!(pid()? != killed, "the process is the same");
    bpf::are_gone(objects)?;
    is_in_state("active", "success")
}

/// In order, with exit code 0.
fn stops() -> Result<()> {
    let objects = objects(pid()?)?;
    systemctl(&["stop", NAME])?;
    is_in_state("inactive", "success")?;
    let status = property("ExecMainStatus")?;
    ensure!(status == "0", "its exit code is {status}");
    let last = records()?.pop().context("nothing in the journal")?;
    ensure!(last.is("stats"), "its last line is no stats: {last:?}");
    bpf::are_gone(objects)
}

fn verified() -> Result<()> {
    let mut verify = Command::new("systemd-analyze");
    let verify = verify.args(["verify", INSTALLED]).stdin(Stdio::null());
    let ended = verify.output().context("systemd-analyze")?;
    let said = String::from_utf8_lossy(&ended.stderr);
    let status = ended.status;
    ensure!(status.success() && said.is_empty(), "{status}: {said}");
    Ok(())
}

/// What its process has in the kernel.
fn objects(pid: u32) -> Result<Vec<Object>> {
    let objects = bpf::held_by(pid)?.objects;
    ensure!(objects.iter().any(Object::is_program), "no program");
    Ok(objects)
}

fn is_in_state(state: &str, result: &str) -> Result<()> {
    for (name, expected) in [("ActiveState", state), ("Result", result)] {
        let value = property(name)?;
        ensure!(value == expected, "{name} is {value}, not {expected}");
    }
    Ok(())
}

fn pid() -> Result<u32> {
    let pid = property("MainPID")?.parse()?;
    ensure!(pid != 0, "it does not run");
    Ok(pid)
}

fn property(name: &str) -> Result<String> {
    systemctl(&["show", "--value", "--property", name, NAME])
}

fn is_ready(line: &str) -> bool {
    line.starts_with(tracer::READY)
}

/// How often it has begun to trace.
fn started() -> Result<usize> {
    Ok(journal()?.iter().filter(|line| is_ready(line)).count())
}

/// Waits until it has begun to trace so often.
fn traces(times: usize) -> Result<()> {
    until(|| {
        ensure!(started()? >= times, "{}", journal()?.join("\n"));
        Ok(())
    })
}

/// All that it has printed to the journal, in order of time.
fn records() -> Result<Vec<check::Line>> {
    let journal = journal()?;
    let lines = journal.iter().filter(|line| line.starts_with('{'));
    let mut lines = lines
        .map(|line| check::Line::parse(line).with_context(|| format!("no record: {line}")))
        .collect::<Result<Vec<_>>>()?;
    lines.sort_by_key(|line| line.time);
    Ok(lines)
}

fn journal() -> Result<Vec<String>> {
    let mut journal = Command::new("journalctl");
    journal.args(["--no-pager", "-u", NAME, "-o", "cat"]);
    Ok(output(&mut journal)?.lines().map(str::to_owned).collect())
}

fn systemctl(args: &[&str]) -> Result<String> {
    output(Command::new("systemctl").arg("--no-pager").args(args))
}

/// What a program prints; an error has what it said.
fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    ensure!(status.success(), "{command:?}: {status}: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Asks until it is so.
fn until<T>(asked: impl Fn() -> Result<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        let answer = asked();
        if answer.is_ok() || began.elapsed() > PATIENCE {
            return answer;
        }
        thread::sleep(Duration::from_millis(100));
    }
}
