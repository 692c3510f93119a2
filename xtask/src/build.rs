//! `cargo xtask build`: one file to copy to a node, `target/release/upstream-trace`.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    provision,
    workspace::{self, Profile, Workspace, run},
};

/// Has a C library that can be linked statically.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Provisions, builds, and returns where the tracer's binary is.
pub fn tracer(workspace: &Workspace, profile: Profile) -> Result<PathBuf> {
    let binary = workspace.tracer(profile);
    if workspace::is_built() {
        if !binary.is_file() {
            bail!("{} is not built", binary.display());
        }
        return Ok(binary);
    }
    provision::for_build(workspace)?;
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--package", "upstream-trace"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    run(&mut cargo)?;
    Ok(binary)
}

/// The tracer for any machine and for an image without anything else: one file that needs no C library.
pub fn static_tracer(workspace: &Workspace) -> Result<PathBuf> {
    statically(workspace, &["--release", "--package", "upstream-trace"])?;
    Ok(built_statically(workspace).join("release/upstream-trace"))
}

/// The tracer and this program, each one file.
pub fn for_guests(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let tracer = static_tracer(workspace)?;
    statically(workspace, &["--package", "xtask", "--bin", "xtask"])?;
    Ok([tracer, built_statically(workspace).join("debug/xtask")])
}

fn built_statically(workspace: &Workspace) -> PathBuf {
    workspace.target.join(STATIC_TARGET)
}

fn statically(workspace: &Workspace, package: &[&str]) -> Result<()> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("statically linked programs are built on x86-64 Linux only");
    }
    provision::for_build(workspace)?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["build", "--locked", "--target", STATIC_TARGET])
        .args(package)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        // Nobody debugs in a guest, and what it boots with is in its memory.
        .env("CARGO_PROFILE_DEV_STRIP", "symbols");
    run(&mut cargo)
}
