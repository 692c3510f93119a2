//! How the kernel-side object is built: which compiler, which linker, which flags.
//!
//! Read by two programs, so that what is linted is what is shipped: `upstream-trace/build.rs`
//! includes this file by path, and xtask has it as a module.
//!
//! Must not know: anything but the standard library (a build script would have to build it),
//! and how to install what is missing (`provision` does).

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// The one command that installs everything this module may find missing.
pub const PROVISION: &str = "cargo xtask provision";

/// The environment variable that names the linker to use.
pub const LINKER_ENV: &str = "BPF_LINKER";

/// Where `provision` installs the linker, below the workspace's target directory.
pub const LINKER_IN_TARGET: &str = "tools/bin/bpf-linker";

const PACKAGE: &str = "upstream-trace-ebpf";
const BINARY: &str = "upstream-trace";

/// The compiler that Debian's `rustc-web` installs; `rust-web-src` adds the sources of `core`.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// What a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    CoreSources,
    Linker,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoreSources => "the sources of `core`",
            Self::Linker => "bpf-linker",
        })
    }
}

/// A compiler that has the sources of `core`, and a linker for what it makes.
#[derive(Debug)]
pub struct Toolchain {
    sysroot: PathBuf,
    linker: PathBuf,
    /// Where the linker finds an LLVM to load: the current toolchain's own.
    llvm: PathBuf,
}

/// What to build for, and where to put it.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    pub workspace: &'a Path,
    /// Never the target directory of the cargo that may be waiting for us: it holds the lock.
    pub target_dir: &'a Path,
    /// As rustc names them: `little` or `big`, and `x86_64`, `aarch64`, ...
    pub endian: &'a str,
    pub arch: &'a str,
}

impl Toolchain {
    /// Looks for both parts; says all that is missing, not only the first.
    pub fn find(rustc: &OsStr, target_dirs: &[PathBuf]) -> Result<Self, Vec<Missing>> {
        let core = sysroot_with_core(rustc);
        let linker = find_linker(target_dirs);
        if let (Some(sysroot), Some(linker)) = (&core, &linker) {
            return Ok(Self {
                sysroot: sysroot.clone(),
                linker: linker.clone(),
                llvm: sysroot_of(rustc)
                    .unwrap_or_else(|| sysroot.clone())
                    .join("lib"),
            });
        }
        let missing = [
            core.is_none().then_some(Missing::CoreSources),
            linker.is_none().then_some(Missing::Linker),
        ];
        Err(missing.into_iter().flatten().collect())
    }

    /// The compiler that builds the kernel side; not always the one that builds the agent.
    pub fn rustc(&self) -> PathBuf {
        self.sysroot.join("bin/rustc")
    }

    /// The compiler's own clippy: another version's cannot read the `core` it built.
    pub fn clippy(&self) -> PathBuf {
        self.sysroot.join("bin/cargo-clippy")
    }

    pub fn linker(&self) -> &Path {
        &self.linker
    }

    /// `PROGRAM VERB` with everything that makes the kernel-side object; the caller may add to it.
    ///
    /// The program is cargo (`build`) or [`Self::clippy`] (`clippy`).
    pub fn cargo(&self, program: &OsStr, verb: &str, build: &Build<'_>) -> Command {
        let mut command = Command::new(program);
        clear_outer_cargo(&mut command);
        command
            .current_dir(build.workspace)
            .arg(verb)
            .args(["--locked", "--release", "-Z", "build-std=core"])
            .args(["--package", PACKAGE, "--bin", BINARY])
            .args(["--target", target(build.endian)])
            .arg("--target-dir")
            .arg(build.target_dir)
            // `-Z build-std` on a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", self.rustc())
            // Empty, not unset: the user's cargo configuration may name a wrapper as well.
            .env("RUSTC_WRAPPER", "")
            // A configured build directory is the one the outer cargo has locked.
            .env("CARGO_BUILD_BUILD_DIR", build.target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags(build.arch))
            // bpf-linker loads the first libLLVM it meets on this path, whatever its version.
            .env("LD_LIBRARY_PATH", self.library_path());
        command
    }

    fn rustflags(&self, arch: &str) -> OsString {
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker);
        let arch = if arch.starts_with("riscv64") {
            "riscv64"
        } else {
            arch
        };
        let cfg = format!("--cfg=bpf_target_arch=\"{arch}\"");
        // cargo splits the encoded form at this byte only, so paths may hold spaces.
        [
            linker,
            "-Cdebuginfo=2".into(),
            "-Clink-arg=--btf".into(),
            // Everything inlined, closures as well: before 6.4 a program with functions of its own has no table
            // of the loads that may fault (fixed in `jit_subprogs`, `kernel/bpf/verifier.c`), and one that
            // does takes the machine down.
            "-Clink-arg=--llvm-args=-inline-threshold=1000000".into(),
            cfg.into(),
        ]
        .join(OsStr::new("\x1f"))
    }

    fn library_path(&self) -> OsString {
        let mut path = self.llvm.clone().into_os_string();
        if let Some(rest) = env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(rest);
        }
        path
    }
}

impl Build<'_> {
    /// Where a finished build leaves the object.
    pub fn object(&self) -> PathBuf {
        let mut path = self.target_dir.join(target(self.endian));
        path.push("release");
        path.push(BINARY);
        path
    }
}

/// The target directory that a file made by cargo lies in: cargo marks it for backup programs.
pub fn target_root(inside: &Path) -> Option<PathBuf> {
    inside
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map(PathBuf::from)
}

/// The kernel side's own target directory.
///
/// One for all profiles of the agent, and for clippy: each has its own `OUT_DIR`, and building
/// `core` into each of them is most of a build's time.
pub fn build_dir(target_root: &Path, arch: &str) -> PathBuf {
    target_root.join("bpf").join(arch)
}

fn target(endian: &str) -> &'static str {
    if endian == "big" {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    }
}

/// The sysroot of the first compiler that has the sources of `core`.
pub fn sysroot_with_core(rustc: &OsStr) -> Option<PathBuf> {
    [rustc, OsStr::new(SYSTEM_RUSTC)]
        .into_iter()
        .filter_map(sysroot_of)
        .find(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core").is_dir())
}

/// bpf-linker: what the environment names, else what `provision` installed, else the user's own.
pub fn find_linker(target_dirs: &[PathBuf]) -> Option<PathBuf> {
    if let Some(named) = env::var_os(LINKER_ENV).filter(|named| !named.is_empty()) {
        // Named and absent is a mistake to be told of, not a reason to look elsewhere.
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let provisioned = target_dirs.iter().map(|dir| dir.join(LINKER_IN_TARGET));
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path: Vec<_> = env::split_paths(&path)
        .map(|dir| dir.join("bpf-linker"))
        .collect();
    provisioned.chain(on_path).find(|path| path.is_file())
}

fn sysroot_of(rustc: &OsStr) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let line = text.lines().next().filter(|_| output.status.success())?;
    Some(PathBuf::from(line))
}

/// Takes away what an outer cargo, clippy or user set for the host's build.
///
/// Kept are cargo's own place, how it reaches the network and prints, and its job server.
pub fn clear_outer_cargo(command: &mut Command) {
    const KEPT: [&str; 10] = [
        "CARGO",
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_UNSTABLE_",
    ];
    for (key, _) in env::vars_os() {
        let Some(name) = key.to_str() else { continue };
        let cargo = name.starts_with("CARGO")
            && !KEPT
                .iter()
                .any(|kept| name == *kept || (kept.ends_with('_') && name.starts_with(kept)));
        let compiler =
            name == "RUSTFLAGS" || name.starts_with("RUSTC") || name.starts_with("CLIPPY");
        if cargo || compiler {
            command.env_remove(key);
        }
    }
}
