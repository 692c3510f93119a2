//! `cargo xtask build`: one file to copy to a node, `target/release/upstream-trace`.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{
    provision,
    workspace::{self, Profile, Workspace, run},
};

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
