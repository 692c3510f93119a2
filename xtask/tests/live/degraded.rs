//! Hosts that forbid or hide something: what is expected of each is written down, and `doctor` has to
//! foretell the run exactly.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::confine::{ATTACH, CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_SYS_RESOURCE, Host};
use xtask::doctor::{self, NO_EXECUTABLES, Start, hooks, texts};
use xtask::tracer;

const SHOWN: &str = "/sys/kernel/btf/vmlinux";
const HIDDEN: &str = "/sys/kernel/btf";

/// The tracer where everybody can run it, and the kernel's types.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) binary: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("upstream-trace-")
            .tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let binary = dir.path().join("upstream-trace");
        fs::copy(tracer::binary()?, &binary)?;
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir, binary })
    }

    fn report(&self, host: Host, args: &[&str]) -> Result<Value> {
        let binary = &self.binary;
        doctor::report(&Start { host, binary, args })
    }

    /// A file here that everybody can read.
    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path.to_str().context("a path")?.to_owned())
    }
}

/// It can run: nothing may differ from root's run but these limits, and what is kept.
fn traces(plain: &Value, report: &Value, more: &[&str], kept: &[&str]) -> Result<()> {
    println!("{} {:?}", report["outcome"], texts(&report["limits"]));
    let mut limits = texts(&plain["limits"]);
    limits.extend(more.iter().map(|limit| (*limit).to_owned()));
    ensure!(texts(&report["limits"]) == limits, "limits: {report:#}");
    for same in ["roles", "fields", "kernel", "lockdown"] {
        ensure!(report[same] == plain[same], "{same}: {report:#}");
    }
    let mut left = texts(&report["capabilities"]["kept"]);
    // Older kernels ask for it whenever a map is read.
    left.retain(|name| name != "CAP_BPF");
    ensure!(left == kept, "kept {left:?}: {report:#}");
    Ok(())
}

/// It cannot run: this code, and the first error has these words. Nothing was tried.
fn refuses(report: &Value, code: i32, words: &[&str]) -> Result<()> {
    println!("{:?}", texts(&report["errors"]));
    ensure!(report["outcome"] == "cannot_run", "{report:#}");
    ensure!(report["exit_code"] == code, "{report:#}");
    let errors = texts(&report["errors"]);
    let first = errors.first().context("no error")?;
    for word in words {
        ensure!(first.contains(word), "{first:?} does not say {word:?}");
    }
    ensure!(hooks(report).next().is_none(), "{report:#}");
    Ok(())
}

/// On the host as it is: the indispensable hook is there, and every role was tried.
pub(crate) fn doctor_foretells_the_run() -> Result<()> {
    let report = Place::new()?.report(Host::default(), &[])?;
    println!("{report:#}");
    let roles = report["roles"].as_array().context("no roles")?;
    ensure!(!roles.is_empty() && roles.iter().all(|role| role["tried"] == true));
    ensure!(hooks(&report).any(|hook| hook == "tp_btf inet_sock_set_state"));
    let fields = report["fields"].as_array().context("no fields")?;
    ensure!(fields.iter().any(|field| field["found"] == true));
    ensure!(report["btf"] == SHOWN, "{}", report["btf"]);
    let validator = jsonschema::validator_for(&schema()?)?;
    ensure!(validator.is_valid(&report), "it does not fit the schema");
    Ok(())
}

fn schema() -> Result<Value> {
    let output = tracer::command(&tracer::binary()?, ["schema"]).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub(crate) fn privileges() -> Result<()> {
    let place = Place::new()?;
    let plain = place.report(Host::default(), &[])?;
    let nobody = |capabilities: &[u8]| place.report(Host::default().nobody(capabilities), &[]);

    let none = nobody(&[])?;
    refuses(&none, 3, &["CAP_BPF and CAP_PERFMON missing"])?;
    // It cannot load, but it can look.
    ensure!(none["fields"] == plain["fields"], "{none:#}");
    let missing = &none["capabilities"]["missing"];
    ensure!(*missing == json!(["CAP_BPF", "CAP_PERFMON"]), "{missing}");

    refuses(&nobody(&[CAP_BPF])?, 3, &["CAP_PERFMON missing"])?;
    refuses(&nobody(&[CAP_PERFMON])?, 3, &["CAP_BPF missing"])?;
    let both = nobody(&[CAP_BPF, CAP_PERFMON])?;
    traces(&plain, &both, &[NO_EXECUTABLES], &[])?;
    ensure!(both["exit_code"] == 8, "{both:#}");
    let three = nobody(&[CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE])?;
    traces(&plain, &three, &[], &["CAP_SYS_PTRACE"])?;

    let alone = Host::default().nobody(&[CAP_BPF, CAP_PERFMON]).one_thread();
    let alone = place.report(alone, &[])?;
    refuses(&alone, 1, &["cannot start a thread", "ulimit -u"])?;

    let root = |without| place.report(Host::default().without(without), &[]);
    traces(&plain, &root(CAP_SYS_RESOURCE)?, &[], &["CAP_SYS_PTRACE"])?;
    traces(&plain, &root(CAP_SYS_PTRACE)?, &[NO_EXECUTABLES], &[])?;
    // It stands for both.
    traces(&plain, &root(CAP_BPF)?, &[], &["CAP_SYS_PTRACE"])?;

    // Root of a user namespace has every capability, and none that counts.
    let fake = place.report(Host::default().user_namespace(), &[])?;
    refuses(&fake, 3, &["does not let this process use BPF"])
}

/// Every tracepoint is refused, also the one that nothing can replace: all of them are told, not the first alone.
pub(crate) fn refused_hooks() -> Result<()> {
    let place = Place::new()?;
    for (errno, code, why) in [
        (libc::EINVAL, 5, "Invalid argument"),
        (libc::EPERM, 3, "Operation not permitted"),
    ] {
        let host = Host::default().refuse(&ATTACH, errno);
        let report = place.report(host, &[])?;
        println!("{:?}", texts(&report["errors"]));
        ensure!(report["exit_code"] == code, "{report:#}");
        ensure!(report["capabilities"]["kept"].is_null(), "{report:#}");
        let errors = texts(&report["errors"]);
        let error = errors.first().context("no error")?;
        let words = ["the kernel refused tp_btf inet_sock_set_state", why];
        ensure!(words.iter().all(|word| error.contains(word)), "{error}");
        for role in report["roles"].as_array().context("no roles")? {
            ensure!(role["tried"] == true, "{role}");
            // An iterator is attached for each run of it.
            ensure!(
                role["hook"].is_null() || role["role"] == "holders",
                "{role}"
            );
        }
    }
    Ok(())
}

pub(crate) fn hidden_file_systems() -> Result<()> {
    let place = Place::new()?;
    let plain = place.report(Host::default(), &[])?;
    let kept = ["CAP_SYS_PTRACE"];
    let tracefs = Host::default()
        .hide("/sys/kernel/tracing")
        .hide("/sys/kernel/debug");
    traces(&plain, &place.report(tracefs, &[])?, &[], &kept)?;
    let cgroups = Host::default().hide("/sys/fs/cgroup");
    traces(&plain, &place.report(cgroups, &[])?, &[], &kept)?;
    // What a run could not count is refused before it begins.
    let cpus = Host::default().hide("/sys/devices/system/cpu");
    refuses(
        &place.report(cpus, &[])?,
        1,
        &["/sys/devices/system/cpu/possible", "mount /sys"],
    )
}

/// A sysctl, put back when dropped.
struct Sysctl {
    path: &'static Path,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: &str) -> Result<Self> {
        let path = Path::new(path);
        let before = fs::read_to_string(path)?;
        fs::write(path, value)?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let back = fs::write(self.path, &self.before);
        assert!(back.is_ok(), "{}: {back:?}", self.path.display());
    }
}

pub(crate) fn paranoid_perf_events() -> Result<()> {
    let place = Place::new()?;
    let plain = place.report(Host::default(), &[])?;
    let _paranoid = Sysctl::set("/proc/sys/kernel/perf_event_paranoid", "3")?;
    let root = place.report(Host::default(), &[])?;
    traces(&plain, &root, &[], &["CAP_SYS_PTRACE"])?;
    let nobody = Host::default().nobody(&[CAP_BPF, CAP_PERFMON]);
    traces(&plain, &place.report(nobody, &[])?, &[NO_EXECUTABLES], &[])
}

pub(crate) fn hidden_types() -> Result<()> {
    let place = Place::new()?;
    let plain = place.report(Host::default(), &[])?;
    let hidden = || Host::default().hide(HIDDEN);
    let own = fs::read(SHOWN)?;
    let copy = place.file("vmlinux", &own)?;
    let root = ["CAP_SYS_PTRACE"];

    let without = place.report(hidden(), &[])?;
    refuses(&without, 4, &[SHOWN, "--btf"])?;
    let fields = without["fields"].as_array().context("no fields")?;
    ensure!(fields.iter().all(|field| field["found"].is_null()));

    let with = place.report(hidden(), &["--btf", &copy])?;
    traces(&plain, &with, &[], &root)?;
    ensure!(with["btf"] == copy.as_str(), "{}", with["btf"]);
    // Where the kernel shows its types, nobody can compare them as well.
    let shown = Host::default().nobody(&[CAP_BPF, CAP_PERFMON]);
    let shown = place.report(shown, &["--btf", &copy])?;
    traces(&plain, &shown, &[NO_EXECUTABLES], &[])?;

    let nobody = hidden().nobody(&[CAP_BPF, CAP_PERFMON]);
    let nobody = place.report(nobody, &["--btf", &copy])?;
    refuses(&nobody, 3, &[copy.as_str(), "CAP_SYS_ADMIN"])?;

    // The same but for one letter of a name, as of a kernel built a moment later.
    let mut other = own;
    let name = other.windows(12).position(|name| name == b"tcp_sendmsg\0");
    other[name.context("no tcp_sendmsg")?] ^= 1;
    let other = place.file("other", &other)?;
    for host in [Host::default(), hidden()] {
        let report = place.report(host, &["--btf", &other])?;
        refuses(&report, 4, &[other.as_str(), "not a copy", SHOWN])?;
    }
    let text = place.file("text", b"no types at all")?;
    refuses(
        &place.report(hidden(), &["--btf", &text])?,
        4,
        &[&text, "not BTF"],
    )?;
    let nowhere = "/nonexistent/vmlinux";
    refuses(&place.report(hidden(), &["--btf", nowhere])?, 4, &[nowhere])
}
