//! `cargo xtask test`: every test there is, the live-kernel ones included; what CI runs.
//!
//! Says what each step is and how long it took, and stops at the first that fails. A live test
//! that was skipped is named at the end.

use std::{
    env,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    bpf_toolchain::{self, Build, Toolchain},
    build,
    matrix::{self, Kernels, Plays},
    provision,
    workspace::{self, Profile, Workspace, run},
};

const STEPS: u32 = 10;

pub fn all(workspace: &Workspace, plays: Plays) -> Result<()> {
    let start = Instant::now();
    let mut steps = Steps { done: 0 };
    let toolchain = steps.run("what building and testing need is installed", || {
        provision::all(workspace)
    })?;
    steps.run("formatting", || cargo(workspace, &["fmt", "--check"]))?;
    steps.run("clippy, agent and tools", || {
        let scope = ["clippy", "--locked", "--workspace", "--all-targets"];
        let kernel = ["--exclude", "upstream-trace-ebpf"];
        cargo(
            workspace,
            &[&scope[..], &kernel, &["--", "-Dwarnings"]].concat(),
        )
    })?;
    steps.run("clippy, kernel side", || {
        clippy_kernel(workspace, &toolchain)
    })?;
    steps.run("tests that need no kernel", || host_tests(workspace))?;
    let tracer = steps.run("release build of the tracer", || {
        build::tracer(workspace, Profile::Release)
    })?;
    let skipped = steps.run("tests on this machine's kernel", || {
        can_trace(&tracer)?;
        let program = built(workspace, &["test", "--no-run", "--test"], "live")?;
        live_tests(workspace, &program)
    })?;
    steps.run("logs of real proxies, explained", || played(workspace))?;
    steps.run("tests on other kernels, in guests", || {
        matrix::run(workspace, &Kernels::all(), plays)
    })?;
    steps.run("the measurement, in short", || bench_smoke(workspace))?;

    eprintln!(
        "xtask: all passed in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    for line in &skipped {
        eprintln!("xtask: {line}");
    }
    Ok(())
}

/// `cargo xtask proxies`: that step of [`all`] alone.
pub fn proxies(workspace: &Workspace) -> Result<()> {
    provision::for_build(workspace)?;
    can_trace(&build::tracer(workspace, Profile::Release)?)?;
    played(workspace)
}

/// Real proxies in front of upstreams that fail, their logs explained.
fn played(workspace: &Workspace) -> Result<()> {
    provision::for_proxies(workspace)?;
    let program = built(workspace, &["build", "--example"], "proxies")?;
    live_tests(workspace, &program).map(drop)
}

#[derive(Debug)]
struct Steps {
    done: u32,
}

impl Steps {
    fn run<T>(&mut self, what: &str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        self.done += 1;
        let place = format!("[{}/{STEPS}]", self.done);
        eprintln!("xtask: {place} {what}");
        let start = Instant::now();
        let result = step();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        eprintln!(
            "xtask: {place} {verdict} in {:.1} s",
            start.elapsed().as_secs_f64()
        );
        result.with_context(|| format!("{place} {what}"))
    }
}

fn cargo(workspace: &Workspace, args: &[&str]) -> Result<()> {
    run(workspace.cargo().args(args))
}

/// On its own target, and with the very flags that `upstream-trace/build.rs` builds with.
fn clippy_kernel(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    let build = Build {
        workspace: &workspace.root,
        target_dir: &bpf_toolchain::build_dir(&workspace.target, env::consts::ARCH),
        endian: if cfg!(target_endian = "big") {
            "big"
        } else {
            "little"
        },
        arch: env::consts::ARCH,
    };
    run(toolchain
        .cargo(toolchain.clippy().as_os_str(), "clippy", &build)
        .args(["--", "-Dwarnings"]))
}

fn host_tests(workspace: &Workspace) -> Result<()> {
    let host = ["test", "--locked", "--workspace"];
    let others = ["--exclude", "upstream-trace-ebpf", "--exclude", "xtask"];
    cargo(workspace, &[&host[..], &others].concat())?;
    // Its third target is the live tests, which have their own step.
    let xtask = ["test", "--locked", "--package", "xtask", "--lib", "--bins"];
    cargo(workspace, &xtask)
}

/// Asks the tracer itself whether it can do anything here; it says why not in its own words.
fn can_trace(tracer: &Path) -> Result<()> {
    let status = workspace::as_root(tracer)?
        .args(["--duration", "0"])
        .status()
        .with_context(|| format!("cannot start {}", tracer.display()))?;
    let why = match status.code() {
        Some(0) => return Ok(()),
        Some(2) => "the tracer refused its own options",
        Some(3) => "BPF cannot be loaded on this machine: a privilege is missing",
        Some(4) => "BPF cannot be loaded on this machine: its kernel is not supported",
        Some(5) => "BPF cannot be loaded on this machine: a hook that is needed was refused",
        _ => "the tracer did not start on this machine",
    };
    bail!("{why} (`upstream-trace --duration 0`: {status}); the live tests did not run");
}

/// Built as the user, run as root. Returns what was skipped, as the tests named it.
fn live_tests(workspace: &Workspace, program: &Path) -> Result<Vec<String>> {
    let mut child = workspace::as_root(program)?
        .current_dir(workspace.root.join("xtask"))
        // One at a time: what a test sees in the kernel is everybody's.
        .args(["--test-threads=1", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the live tests")?;
    let output = child.stdout.take().context("the tests have an output")?;
    let mut skipped = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what the live tests print")?;
        println!("{line}");
        let text = line.trim();
        if text.ends_with("... ignored") {
            skipped.push(format!("skipped live test: {text}"));
        }
    }
    let status = child.wait().context("cannot wait for the live tests")?;
    if !status.success() {
        bail!("the live tests failed: {status}");
    }
    Ok(skipped)
}

/// The path of a binary with live tests, from cargo's own account of what it built.
fn built(workspace: &Workspace, how: &[&str], target: &str) -> Result<PathBuf> {
    let output = workspace
        .cargo()
        .args(how)
        .args([target, "--locked", "--package", "xtask"])
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the live tests do not build: {}", output.status);
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no live tests")
}

/// In a process of its own: it may have to become root, and it changes its mount namespace. Through cargo,
/// because the steps before may have built this program anew over the running one.
fn bench_smoke(workspace: &Workspace) -> Result<()> {
    cargo(
        workspace,
        &[
            "run",
            "--quiet",
            "--package",
            "xtask",
            "--",
            "bench",
            "--smoke",
        ],
    )
}
