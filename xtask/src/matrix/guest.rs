//! The first process of a guest: makes the machine usable, plays every scenario against the tracer,
//! reports over the second serial line, powers off.
//!
//! It runs on a kernel of any version, with nothing but this program and the tracer in its only file
//! system. Must not know: what is expected of this kernel.

use std::{
    ffi::CStr,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::AsRawFd as _,
    ptr, thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{
    Plays,
    initramfs::MODULE_DIR,
    refusal,
    report::{Line, Outcome},
    service,
};
use crate::{
    bench::kernels,
    cgroups,
    confine::{CAP_BPF, CAP_PERFMON, Host},
    doctor::{self, Start},
    older,
    scenario::{
        self, Ctx, Played, Scenario, check,
        feature::{Feature, Features},
        load,
    },
    skipped, stopped,
    tracer::{self, Tracer},
};

const PORT: u16 = 18440;
const REPORT: &str = "/dev/ttyS1";
const DISK: &str = "/dev/vda";
/// Writes to the disk are whole sectors of it.
const SECTOR: usize = 512;
const BTF: &str = "/sys/kernel/btf/vmlinux";
/// A record comes within 100 ms where nothing is emulated.
const PATIENCE: Duration = Duration::from_secs(1);

const MOUNTS: [(&CStr, &CStr); 8] = [
    (c"devtmpfs", c"/dev"),
    (c"proc", c"/proc"),
    (c"sysfs", c"/sys"),
    (c"tmpfs", c"/tmp"),
    (c"securityfs", c"/sys/kernel/security"),
    (c"tracefs", c"/sys/kernel/tracing"),
    (c"bpf", c"/sys/fs/bpf"),
    (c"cgroup2", c"/sys/fs/cgroup"),
];

/// What the guest is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Task {
    /// Play the scenarios.
    Play,
    /// Measure what tracing costs.
    Bench,
    /// Write the kernel's type information to the disk, after its length.
    Types,
    /// Become systemd, which starts the next.
    Systemd,
    /// Test the tracer as a service.
    Service,
}

/// Never returns: the kernel does not survive its first process.
pub fn run(task: Task, plays: Plays) -> Result<()> {
    let is_first = std::process::id() == 1;
    ensure!(
        is_first || task == Task::Service && service::is_inside(),
        "this is for the first process of a guest"
    );
    if task == Task::Systemd {
        return service::boot();
    }
    if is_first {
        mount_all()?;
    }
    let mut report = serial(REPORT)?;
    let done = match task {
        Task::Play => play(&mut report, plays),
        Task::Bench => bench(&mut report, plays.runs),
        Task::Types => types(),
        Task::Systemd | Task::Service => service::play(&mut report),
    };
    let error = done.err().map(|error| format!("{error:#}"));
    tell(&mut report, &Line::End { error })?;
    // SAFETY: a number, and all that was written has been sent.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    Err(io::Error::last_os_error()).context("cannot power off")
}

fn mount_all() -> Result<()> {
    for (kind, at) in MOUNTS {
        let path = at.to_str().context("a plain path")?;
        // Exists on most, and where not, such as /sys/fs/bpf, it cannot be made.
        let _made: io::Result<()> = fs::create_dir_all(path);
        // SAFETY: three strings that end with a NUL and outlive the call; no flags, no data.
        let mounted =
            unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, ptr::null()) };
        ensure!(
            mounted == 0,
            "cannot mount {path}: {}",
            io::Error::last_os_error()
        );
    }
    Ok(())
}

/// A serial line that passes every byte as it is.
fn serial(path: &str) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open(path);
    let file = file.with_context(|| path.to_owned())?;
    let mut modes = std::mem::MaybeUninit::<libc::termios>::uninit();
    // SAFETY: `modes` outlives the call, which writes one termios there.
    let got = unsafe { libc::tcgetattr(file.as_raw_fd(), modes.as_mut_ptr()) };
    ensure!(got == 0, "{path}: {}", io::Error::last_os_error());
    // SAFETY: the call succeeded, so it has been written.
    let mut modes = unsafe { modes.assume_init() };
    // SAFETY: a whole termios, which the call changes.
    unsafe { libc::cfmakeraw(&raw mut modes) };
    // SAFETY: a whole termios that the call only reads.
    let set = unsafe { libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const modes) };
    ensure!(set == 0, "{path}: {}", io::Error::last_os_error());
    Ok(file)
}

/// Waits until it has left the machine.
fn drain(file: &File) {
    // SAFETY: a descriptor that is open.
    unsafe { libc::tcdrain(file.as_raw_fd()) };
}

pub(super) fn tell(report: &mut File, line: &Line) -> Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    report.write_all(text.as_bytes())?;
    drain(report);
    Ok(())
}

fn bench(report: &mut File, rounds: u32) -> Result<()> {
    let costs = kernels::measure(tracer::binary()?, "/tmp/bench".into(), rounds)?;
    tell(report, &Line::Costs(costs))
}

fn types() -> Result<()> {
    load_modules()?;
    let btf = fs::read(BTF).context(BTF)?;
    let mut bytes = u64::try_from(btf.len())?.to_le_bytes().to_vec();
    bytes.extend(btf);
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    let mut disk = OpenOptions::new().write(true).open(DISK).context(DISK)?;
    disk.write_all(&bytes).context(DISK)?;
    disk.sync_all().context(DISK)
}

type Check = fn() -> Result<()>;

/// What is tested beside the scenarios, each with a tracer of its own, and what it needs.
pub(super) const CHECKS: [(&str, Option<Feature>, Check); 6] = [
    ("doctor_foretells_the_run", None, doctor_foretells),
    (
        "filters_by_cgroup_and_container",
        Some(Feature::CurrentTask),
        || cgroups::are_filters(PORT),
    ),
    (
        "older_connections_are_found",
        Some(Feature::SocketScan),
        || older::are_found(PORT),
    ),
    (
        "older_connections_of_mptcp_are_found",
        Some(Feature::MptcpScan),
        || older::multipath_are_found(PORT),
    ),
    ("every_filter_is_taken", None, every_filter),
    ("a_stop_amid_traffic_invents_nothing", None, || {
        stopped::amid_traffic(PORT)
    }),
];

/// For root, for who has the two capabilities alone, and where lockdown is not told, as in a container: there the tracer finds it out.
fn doctor_foretells() -> Result<()> {
    let binary = tracer::binary()?;
    let report = |host| {
        let (binary, args) = (binary.as_path(), &[][..]);
        doctor::report(&Start { host, binary, args })
    };
    let plain = report(Host::default())?;
    report(Host::default().nobody(&[CAP_BPF, CAP_PERFMON]))?;
    let untold = report(Host::default().hide("/sys/kernel/security"))?;
    for what in ["roles", "limits"] {
        ensure!(
            untold[what] == plain[what],
            "{untold}\nwhere lockdown is told: {plain}"
        );
    }
    Ok(())
}

/// What is off is never looked at by the verifier: with every filter on, and with single events instead
/// of stories, the same hooks have to be taken.
fn every_filter() -> Result<()> {
    let port = PORT.to_string();
    let said = |args: &[&str]| -> Result<String> {
        let args = [&["--port", &port, "--duration", "0"], args].concat();
        let output = tracer::command(&tracer::binary()?, args).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {said}", output.status);
        Ok(said)
    };
    let plain = said(&[])?;
    let filters = ["--cidr", "127.0.0.0/8", "--cidr", "::1/128", "--pid", "1"];
    let cgroup: &[_] = if Features::here()?.has(Feature::CurrentTask) {
        &["--cgroup", "/sys/fs/cgroup"]
    } else {
        &[]
    };
    let all = [&filters[..], cgroup, &["--events"]].concat();
    for args in [&filters[..], cgroup, &["--events"], &all] {
        let with = said(args)?;
        ensure!(with == plain, "with {args:?}:\n{with}\nwithout:\n{plain}");
    }
    Ok(())
}

/// The first line of a report.
pub(super) fn describe_kernel() -> Result<Line> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let features = Features::here()?;
    let features = features.iter().map(|feature| feature.name().to_owned());
    Ok(Line::Kernel {
        release: release.trim().to_owned(),
        features: features.collect(),
    })
}

fn play(report: &mut File, how: Plays) -> Result<()> {
    let _refusal = refusal::if_asked()?;
    tell(report, &describe_kernel()?)?;
    let kernel = Features::here()?;
    load_modules()?;
    let ctx = Ctx::new(PORT)?;
    ctx.loopback_up()?;

    let tracer = Tracer::start(&["--port", &format!("{PORT}-{}", PORT + 1)])?;
    let (playable, skipped): (Vec<_>, Vec<_>) =
        scenario::all().partition(|scenario| scenario.is_playable(kernel));
    let mut plays: Vec<(&Scenario, Result<Played>)> = Vec::new();
    for run in 0..how.runs {
        let mut deck = playable.clone();
        scenario::shuffle(&mut deck, how.seed.unwrap_or(0) + u64::from(run));
        plays.extend(deck.into_iter().map(|one| (one, one.play(&ctx))));
    }
    load::use_memory_again(PORT + 1)?;
    thread::sleep(PATIENCE);
    let run = tracer.stop()?;
    let lines = run.by_time()?;
    let missed = skipped::missed(&run.stats()?)?;
    for text in &run.said {
        tell(report, &Line::Said { text: text.clone() })?;
    }
    let wrong = |scenario: &Scenario, played: &Result<Played>| match played {
        Err(error) => Some(format!("{error:#}")),
        Ok(played) => check::wrong(scenario, played, &lines, kernel),
    };
    for scenario in playable {
        let mut played = plays
            .iter()
            .filter(|(other, _)| other.name == scenario.name);
        let mut first_wrong = played.find_map(|(_, played)| wrong(scenario, played));
        if first_wrong.is_some() && missed > 0 {
            // Some events were kept from their hooks, by interrupts on top of others.
            first_wrong = again(scenario, &ctx, kernel)?;
        }
        let outcome = first_wrong.map_or(Outcome::Right, Outcome::Wrong);
        let name = scenario.name.to_owned();
        tell(report, &Line::Test { name, outcome })?;
    }
    for scenario in skipped {
        let (name, outcome) = (scenario.name.to_owned(), Outcome::Skipped);
        tell(report, &Line::Test { name, outcome })?;
    }
    for (name, needs, check) in CHECKS {
        let outcome = if needs.is_none_or(|feature| kernel.has(feature)) {
            let wrong = |error| Outcome::Wrong(format!("{error:#}"));
            check().map_or_else(wrong, |()| Outcome::Right)
        } else {
            Outcome::Skipped
        };
        let name = name.to_owned();
        tell(report, &Line::Test { name, outcome })?;
    }
    Ok(())
}

/// One more play, with a tracer of its own; what is wrong with it.
fn again(scenario: &Scenario, ctx: &Ctx, kernel: Features) -> Result<Option<String>> {
    let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
    let played = scenario.play(ctx)?;
    thread::sleep(PATIENCE);
    let lines = tracer.stop()?.by_time()?;
    Ok(check::wrong(scenario, &played, &lines, kernel))
}

/// In the order of their names, which is the one that they need.
fn load_modules() -> Result<()> {
    let entries = fs::read_dir(MODULE_DIR).context(MODULE_DIR)?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let file = File::open(&path).with_context(|| path.display().to_string())?;
        // SAFETY: an open file, a string that ends with a NUL, no flags.
        let loaded =
            unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        ensure!(
            loaded == 0,
            "{}: {}",
            path.display(),
            io::Error::last_os_error()
        );
    }
    Ok(())
}
