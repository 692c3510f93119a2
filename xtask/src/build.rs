//! `cargo xtask build`: one file to copy to a node, `target/release/upstream-trace`.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    provision,
    workspace::{self, Profile, Workspace, run},
};

/// Has a C library that can be linked statically.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

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

/// The tracer and this program for a machine without a C library: each is one file.
pub fn for_guests(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!("the guests are x86-64, and this machine builds no programs for them");
    }
    provision::for_build(workspace)?;
    let build = |package: &[&str]| {
        let mut cargo = workspace.cargo();
        cargo
            .args(["build", "--locked", "--target", GUEST_TARGET])
            .args(package)
            .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
            // Nobody debugs in there, and what a guest boots with is in its memory.
            .env("CARGO_PROFILE_DEV_STRIP", "symbols");
        run(&mut cargo)
    };
    build(&["--release", "--package", "upstream-trace"])?;
    build(&["--package", "xtask", "--bin", "xtask"])?;
    let built = workspace.target.join(GUEST_TARGET);
    Ok([
        built.join("release/upstream-trace"),
        built.join("debug/xtask"),
    ])
}
