//! The filters by cgroup and by container, on any kernel: the live tests and the guests ask the same.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    scenario::{
        Ctx,
        load::{Load, Shape},
    },
    tracer::Tracer,
};

/// Where cgroup v2 is mounted, alone or beside v1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Connections in each case.
const COUNT: usize = 3;
/// A guest may be emulated.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cgroups of the test's own, removed when dropped, by when no process may be in them.
struct Cgroups {
    made: Vec<PathBuf>,
}

impl Cgroups {
    fn make(&mut self, path: PathBuf) -> Result<PathBuf> {
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        self.made.push(path.clone());
        Ok(path)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // A process that was killed is in its cgroup until it is gone entirely.
            let began = Instant::now();
            while fs::remove_dir(path).is_err() && began.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn enter(cgroup: &Path, pid: u32) -> Result<()> {
    let procs = cgroup.join("cgroup.procs");
    fs::write(&procs, pid.to_string()).with_context(|| format!("{pid} into {}", procs.display()))
}

/// Only the end whose process is in the cgroup is traced, whatever it does before or after the start, and
/// however deep below it is.
pub fn are_filters(port: u16) -> Result<()> {
    let mut roots = ROOTS.into_iter().map(Path::new);
    let root = roots
        .find(|root| root.join("cgroup.controllers").exists())
        .context("cgroup v2 is not mounted")?;
    let own = process::id();
    let mut cgroups = Cgroups { made: Vec::new() };
    let wanted = cgroups.make(root.join(format!("upstream-trace-{own}")))?;
    let other = cgroups.make(root.join(format!("upstream-trace-{own}-other")))?;
    let pod = cgroups.make(wanted.join("machine.slice"))?;
    let id = format!("{own:08x}{own:056x}");
    let of_container = cgroups.make(pod.join(format!("libpod-{id}.scope")))?;
    let prefix = &id[..12];
    let by_cgroup = ["--cgroup", path(&wanted)?];
    let by_other = ["--cgroup", path(&other)?];
    let by_container = ["--container", &id];
    let by_prefix = ["--container", prefix];

    let ctx = Ctx::new(port)?;
    let mut load = Load::prepared(&ctx, false, |client, _| enter(&of_container, client))?;
    let client = ("client", load.client_pid());
    let server = ("server", load.server_pid());
    enter(&other, server.1)?;
    let (of_client, of_server) = (inode(&of_container)?, inode(&other)?);
    for (args, (role, pid), cgroup, container) in [
        (by_cgroup, client, of_client, Some(&*id)),
        (by_container, client, of_client, Some(&*id)),
        (by_prefix, client, of_client, Some(&*id)),
        // Who listens since before the start.
        (by_other, server, of_server, None),
    ] {
        let tracer = Tracer::start(&args)?;
        let process = json!({"pid": pid, "cgroup_id": cgroup, "container_id": container});
        only(tracer, &mut load, role, &process).with_context(|| args.join(" "))?;
    }
    drop(load);

    // Who listens after it, in a cgroup that is younger as well.
    let tracer = Tracer::start(&by_cgroup)?;
    let younger = cgroups.make(pod.join("younger"))?;
    let mut load = Load::prepared(&ctx, false, |_, server| enter(&younger, server))?;
    let cgroup = inode(&younger)?;
    let process = json!({"pid": load.server_pid(), "cgroup_id": cgroup, "container_id": null});
    only(tracer, &mut load, "server", &process).context("a younger cgroup")?;
    Ok(())
}

/// A cgroup's id.
fn inode(cgroup: &Path) -> Result<u64> {
    Ok(fs::metadata(cgroup)?.ino())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a plain path")
}

/// Of all connections of this load the tracer prints this end, of whose `process` so much is known, and nothing else
/// at all.
fn only(tracer: Tracer, load: &mut Load, role: &str, process: &Value) -> Result<()> {
    for _ in 0..COUNT {
        load.one(Shape::KeepAlive)?;
    }
    let began = Instant::now();
    while tracer.so_far()?.len() < COUNT && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
    }
    // What should not come has its time to come as well.
    thread::sleep(Duration::from_millis(100));
    let lines = tracer.stop()?.by_time()?;
    let records: Vec<_> = lines.iter().filter(|line| !line.is("stats")).collect();
    let right = records.iter().filter(|line| {
        let record = &line.value;
        let mut known = process.as_object().into_iter().flatten();
        record["role"] == role
            && record["complete"] == true
            && known.all(|(name, value)| record["process"][name] == *value)
    });
    let right = right.count();
    ensure!(
        right == COUNT && records.len() == COUNT,
        "{right} right of {} records for {COUNT} connections of the {role}: {records:?}",
        records.len()
    );
    Ok(())
}
