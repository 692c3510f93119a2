//! The filters by cgroup and by container, on any kernel: the live tests and the guests ask the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

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
    for (args, (role, pid)) in [
        (by_cgroup, client),
        (by_container, client),
        (by_prefix, client),
        // Who listens since before the start.
        (by_other, server),
    ] {
        let tracer = Tracer::start(&args)?;
        only(tracer, &mut load, role, pid).with_context(|| args.join(" "))?;
    }
    drop(load);

    // Who listens after it, in a cgroup that is younger as well.
    let tracer = Tracer::start(&by_cgroup)?;
    let younger = cgroups.make(pod.join("younger"))?;
    let mut load = Load::prepared(&ctx, false, |_, server| enter(&younger, server))?;
    let pid = load.server_pid();
    only(tracer, &mut load, "server", pid).context("a younger cgroup")?;
    Ok(())
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("a plain path")
}

/// Of all connections of this load the tracer prints this end, and nothing else at all.
fn only(tracer: Tracer, load: &mut Load, role: &str, pid: u32) -> Result<()> {
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
        record["role"] == role && record["process"]["pid"] == pid && record["complete"] == true
    });
    let right = right.count();
    ensure!(
        right == COUNT && records.len() == COUNT,
        "{right} right of {} records for {COUNT} connections of the {role}: {records:?}",
        records.len()
    );
    Ok(())
}
