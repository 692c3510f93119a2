//! Where this workspace keeps its things, and how the verbs start other programs.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::bpf_toolchain;

/// Set for the copy of xtask that was started again as root: the user's copy has built already.
const BUILT_ENV: &str = "XTASK_BUILT";

#[derive(Clone, Debug)]
pub struct Workspace {
    pub root: PathBuf,
    pub target: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub const fn new(release: bool) -> Self {
        if release { Self::Release } else { Self::Dev }
    }

    const fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

impl Workspace {
    /// Asks neither cargo nor the environment, which sudo takes away.
    pub fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask lies in its workspace")?
            .to_owned();
        let program = env::current_exe().context("cannot find my own executable")?;
        let target = bpf_toolchain::target_root(&program).unwrap_or_else(|| root.join("target"));
        Ok(Self { root, target })
    }

    /// The tracer's binary, built or not.
    pub fn tracer(&self, profile: Profile) -> PathBuf {
        self.target.join(profile.directory()).join("upstream-trace")
    }

    /// Cargo in this workspace, with the target directory that this xtask came from.
    pub fn cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        let mut command = Command::new(cargo);
        command
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target);
        command
    }

    /// Where a bpf-linker may have been installed.
    pub fn target_dirs(&self) -> [PathBuf; 2] {
        [self.target.clone(), self.root.join("target")]
    }
}

/// Runs a command to its end; an error names it and how it ended.
pub fn run(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program());
    let name = program.file_name().map_or_else(
        || program.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    );
    let status = command
        .status()
        .with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        let args: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        bail!("`{name} {}` failed: {status}", args.join(" "));
    }
    Ok(())
}

/// A program of that name on `PATH`, or where administrators' programs live.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

pub fn is_root() -> bool {
    // SAFETY: takes nothing, changes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The program to be started as root: directly, or through sudo.
pub fn as_root(program: impl Into<OsString>) -> Result<Command> {
    let program = program.into();
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find_program("sudo") else {
        bail!(
            "{} has to run as root: there is no sudo on this machine, so start this as root",
            program.display()
        );
    };
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

/// Makes sure that what follows runs as root: starts this very command line again through sudo.
///
/// To be called after what has to be built was built, so that the files belong to the user.
pub fn become_root() -> Result<()> {
    if is_root() {
        return Ok(());
    }
    let program = env::current_exe().context("cannot find my own executable")?;
    let error = as_root("env")?
        .arg(format!("{BUILT_ENV}=1"))
        .arg(program)
        .args(env::args_os().skip(1))
        .exec();
    Err(error).context("cannot start sudo")
}

/// Whether [`become_root`] started this process, so that nothing is left to build.
pub fn is_built() -> bool {
    env::var_os(BUILT_ENV).is_some()
}
