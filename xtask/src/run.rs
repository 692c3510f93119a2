//! `cargo xtask run -- ARGS`: builds the tracer and becomes it, as root.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{
    build,
    workspace::{self, Profile, Workspace},
};

/// Returns only where the tracer could not be started.
pub fn tracer(workspace: &Workspace, profile: Profile, args: &[OsString]) -> Result<()> {
    let binary = build::tracer(workspace, profile)?;
    let error = workspace::as_root(&binary)?.args(args).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}
