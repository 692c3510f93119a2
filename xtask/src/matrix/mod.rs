//! `cargo xtask test --kernels LIST`: every scenario against the release binary on other kernels.
//!
//! [`kernels`] says which, [`archive`] fetches them, [`initramfs`] packs what they boot with, [`qemu`] runs
//! them, [`guest`] is what runs inside, [`service`] where that is systemd, [`report`] judges what they say. Two guests run at a
//! time.

mod archive;
pub mod guest;
mod initramfs;
mod kernels;
mod qemu;
mod refusal;
mod report;
mod service;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    bench::kernels::Costs,
    build, provision, scenario,
    workspace::{self, Workspace},
};
use archive::Suite;
use initramfs::{Contents, Program};
use kernels::Kernel;
use qemu::{Accelerator, Guest};
use report::Test;

/// Guests that run at a time, of two CPUs each.
const AT_A_TIME: usize = 2;

/// Whether this is a guest whose kernel is made to refuse fentry and fexit.
pub(crate) fn refuses_fentry() -> bool {
    refusal::is_asked().is_ok_and(|is_asked| is_asked)
}

/// A guest takes a minute or two for each run where it is emulated.
const PATIENCE: Duration = Duration::from_mins(5);

/// More than any kernel's types take.
const DISK_SIZE: u64 = 32 << 20;

/// Which kernels, from a command line.
#[derive(Clone, Debug)]
pub struct Kernels(Vec<&'static Kernel>);

impl Kernels {
    pub fn parse(list: &str) -> Result<Self, String> {
        kernels::named(list).map(Self)
    }

    pub fn all() -> Self {
        Self(kernels::KERNELS.iter().collect())
    }

    /// Those that are not there to run the tracer as a service.
    fn bare(&self) -> impl Iterator<Item = &'static Kernel> {
        let bare = self.0.iter().filter(|kernel| kernel.systemd.is_none());
        bare.copied()
    }
}

/// How often scenarios are played in guests and in which order, which is random.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Plays {
    /// Play them so many times in each guest
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Replay the order of this number, which is said at the start
    #[arg(long)]
    seed: Option<u64>,
}

/// Plays every scenario on each of these kernels, or tests the service there.
pub fn run(workspace: &Workspace, wanted: &Kernels, plays: Plays) -> Result<()> {
    let boots = prepare(workspace, wanted, &[])?;
    let accelerator = accelerator(&boots)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    let seed = plays.seed.unwrap_or_else(|| u64::from(now));
    let runs = plays.runs;
    eprintln!(
        "xtask: {} guests, by {accelerator:?}, --runs {runs} --seed {seed}",
        boots.len()
    );
    let failed = each(&boots, |boot| {
        let began = Instant::now();
        let right = boot.play(accelerator, (runs, seed), began);
        right.with_context(|| format!("Linux {}", boot.kernel.name))
    });
    let failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
    for error in &failed {
        eprintln!("xtask: {error:#}");
    }
    if !failed.is_empty() {
        bail!("{} of {} kernels failed", failed.len(), boots.len());
    }
    Ok(())
}

/// Saves what these kernels say of their types as test data: `cargo xtask save-types`.
///
/// The guests only hand it over; what is kept of it is decided where it is tested.
pub fn save_types(workspace: &Workspace, wanted: &Kernels) -> Result<()> {
    let plain = wanted.bare().filter(|kernel| kernel.forbids.is_none());
    let boots = prepare(workspace, &Kernels(plain.collect()), &[])?;
    let accelerator = accelerator(&boots)?;
    let directory = tempfile::tempdir_in(&workspace.target)?;
    let saved = each(&boots, |boot| {
        let file = directory.path().join(format!("{}.btf", boot.kernel.name));
        boot.types(accelerator)
            .and_then(|types| Ok(fs::write(file, types)?))
            .with_context(|| format!("Linux {}", boot.kernel.name))
    });
    saved.into_iter().collect::<Result<()>>()?;
    let mut cut = workspace.cargo();
    cut.args(["test", "--locked", "--package", "upstream-trace", "--lib"])
        .args(["kernel::saved"])
        .env("UPDATE_BTF", directory.path());
    workspace::run(&mut cut)
}

/// What tracing costs on each of these kernels, beside this `tracer`: one after the other, in `rounds` even where
/// instructions are counted, because interrupts come upon a program more often in one storm than in another.
pub(crate) fn measure(
    workspace: &Workspace,
    wanted: &Kernels,
    tracer: &Path,
    rounds: u32,
) -> Result<Vec<(&'static str, Result<Costs>)>> {
    let wanted = Kernels(wanted.bare().collect());
    let boots = prepare(workspace, &wanted, &Program::with_libraries(tracer)?)?;
    let accelerator = accelerator(&boots)?.measuring();
    let measured = boots.iter().map(|boot| {
        let name = boot.kernel.name;
        eprintln!("xtask: bench: Linux {name}, by {accelerator:?}");
        (name, boot.measure(accelerator, rounds))
    });
    Ok(measured.collect())
}

/// What runs them here.
fn accelerator(boots: &[Boot]) -> Result<Accelerator> {
    let first = boots.first().context("no kernel to boot")?;
    Accelerator::find(&first.image)
}

/// Does `work` for all of them, some at a time; results in their order.
fn each<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(all.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(index) else { break };
                    let result = work(one);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((index, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A kernel that is ready to boot.
#[derive(Debug)]
struct Boot {
    kernel: &'static Kernel,
    image: PathBuf,
    initramfs: PathBuf,
    /// Where its outputs go.
    directory: PathBuf,
}

/// Fetches the kernels and packs what they boot with: the tracer, this program, and `others`.
fn prepare(workspace: &Workspace, wanted: &Kernels, others: &[Program]) -> Result<Vec<Boot>> {
    let mut programs = others.to_vec();
    for program in build::for_guests(workspace)? {
        programs.push(Program::alone(&program)?);
    }
    programs.push(Program::alone(&workspace.root.join(service::UNIT))?);
    provision::for_guests()?;
    let home = workspace.target.join("kernels");
    let cache = home.join("cache");
    let mut boots = Vec::new();
    for kernel in &wanted.0 {
        let suite = Suite::look_up(kernel.suite, &cache)?;
        let mut packages = Vec::new();
        for begin in kernel.packages {
            let (_, directory) = suite.unpacked(begin, kernels::FLAVOUR)?;
            packages.push(directory);
        }
        let system = match kernel.systemd {
            Some(suite) => Suite::look_up(suite, &cache)?.with_libraries("systemd")?,
            None => Vec::new(),
        };
        let directory = home.join(kernel.name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let initramfs = directory.join("initramfs");
        let contents = Contents {
            programs: &programs,
            kernel: &packages,
            modules: kernels::MODULES,
            system: &system,
        };
        initramfs::write(&initramfs, &contents)?;
        boots.push(Boot {
            kernel,
            image: initramfs::kernel_image(&packages)?,
            initramfs,
            directory,
        });
    }
    Ok(boots)
}

impl Boot {
    fn boot(
        &self,
        accelerator: Accelerator,
        arguments: &str,
        disk: Option<&Path>,
        patience: Duration,
    ) -> Result<()> {
        let guest = Guest {
            accelerator,
            kernel: &self.image,
            initramfs: &self.initramfs,
            options: self.kernel.forbids.unwrap_or_default(),
            init: "/xtask",
            arguments,
            report: &self.report(),
            disk,
            patience,
        };
        guest.run()
    }

    /// The kernel's type information, whole.
    fn types(&self, accelerator: Accelerator) -> Result<Vec<u8>> {
        let disk = self.directory.join("disk");
        fs::File::create(&disk)?.set_len(DISK_SIZE)?;
        self.boot(accelerator, "guest types", Some(&disk), PATIENCE)?;
        let bytes = fs::read(&disk)?;
        let (length, rest) = bytes.split_first_chunk().context("an empty disk")?;
        let length = usize::try_from(u64::from_le_bytes(*length))?;
        let types = rest.get(..length).filter(|types| !types.is_empty());
        Ok(types
            .context("the guest wrote no types to its disk")?
            .to_vec())
    }

    /// What tracing costs there.
    fn measure(&self, accelerator: Accelerator, rounds: u32) -> Result<Costs> {
        let arguments = format!("guest bench --runs {rounds}");
        self.boot(accelerator, &arguments, None, PATIENCE)?;
        report::costs(&fs::read_to_string(self.report()).context("its report")?)
    }

    fn report(&self) -> PathBuf {
        self.directory.join("report")
    }

    fn play(
        &self,
        accelerator: Accelerator,
        (runs, seed): (u32, u64),
        began: Instant,
    ) -> Result<()> {
        let arguments = if self.kernel.systemd.is_some() {
            "guest systemd".into()
        } else {
            format!("guest play --runs {runs} --seed {seed}")
        };
        let tests = &tests(self.kernel);
        let ended = self.boot(accelerator, &arguments, None, PATIENCE * runs.max(1));
        let text = fs::read_to_string(self.report()).context("its report")?;
        let judged = report::judge(self.kernel, tests, &text);
        let verdict = if ended.is_ok() && judged.complaints.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        eprintln!(
            "xtask: Linux {} ({}): {verdict} in {:.0} s: {} of {} tests right, skipped: {}; hooks: {}; limits: {}",
            self.kernel.name,
            judged.release,
            began.elapsed().as_secs_f64(),
            judged.right,
            tests.len(),
            listed(&judged.skipped),
            listed(&judged.hooks),
            listed(&judged.limits),
        );
        ended?;
        if judged.complaints.is_empty() {
            return Ok(());
        }
        Err(anyhow!("{}", judged.complaints.join("\n")))
    }
}

/// What a guest of this kernel has to report of.
fn tests(kernel: &Kernel) -> Vec<Test> {
    if kernel.systemd.is_some() {
        let checks = service::CHECKS.map(|(name, _)| Test { name, needs: None });
        return checks.to_vec();
    }
    let scenarios = scenario::all().map(|scenario| Test {
        name: scenario.name,
        needs: scenario.needs,
    });
    let beside = guest::CHECKS.map(|(name, needs, _)| Test { name, needs });
    scenarios.chain(beside).collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}
