//! The tracer in a container that has what `dist/daemonset.yaml` grants it and no more, started by the runtime that clusters use.
//!
//! There is no cluster here: what the manifest says to Kubernetes alone is not looked at.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::scenario::{self, Ctx, check, feature::Features};
use xtask::skipped;
use xtask::tracer::{self, Tracer};
use xtask::workspace::find_program;

use crate::PORT;

const MANIFEST: &str = include_str!("../../../dist/daemonset.yaml");
const TRACER: &str = "/upstream-trace";
/// What it is linked with here. The image has a tracer that needs nothing.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr"];
const FAILURES: [&str; 3] = ["refused", "reset_after_accept", "reset_after_request"];

pub(crate) fn traces_as_on_the_node() -> Result<()> {
    let granted = Granted::read(MANIFEST)?;
    let outside = report(tracer::command(&tracer::binary()?, ["doctor", "--json"]))?;
    let container = Container::new(&granted, &["doctor", "--json"])?;
    let inside = report(container.command()?)?;
    for same in ["kernel", "roles", "fields", "limits", "exit_code"] {
        let (inside, outside) = (&inside[same], &outside[same]);
        ensure!(inside == outside, "{same}: {inside:#}, not {outside:#}");
    }

    let port = PORT.to_string();
    let args: Vec<_> = granted.args.iter().map(String::as_str).collect();
    let args = [&args[..], &["--port", &port]].concat();
    skipped::again(|| {
        let container = Container::new(&granted, &args)?;
        let tracer = Tracer::start_command(container.command()?)?;
        let ctx = Ctx::new(PORT)?;
        let plays = FAILURES.map(|name| -> Result<_> {
            let scenario = scenario::find(name).context(name)?;
            Ok((scenario, scenario.play(&ctx)?))
        });
        thread::sleep(Duration::from_millis(100));
        let run = tracer.stop()?;
        let (lines, kernel) = (run.by_time()?, Features::here()?);
        let mut complaint = None;
        for play in plays {
            let (scenario, played) = play?;
            complaint = complaint.or(check::wrong(scenario, &played, &lines, kernel));
        }
        Ok(complaint.zip(Some(run.stats()?)))
    })
}

fn report(mut doctor: Command) -> Result<Value> {
    let output = doctor.output().context("cannot start the doctor")?;
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).with_context(|| format!("no report; it said {said}"))
}

/// What the manifest has the runtime do. Its lists are written in one line, as JSON is.
struct Granted {
    args: Vec<String>,
    /// Without the `CAP_` of their names.
    capabilities: Vec<String>,
}

impl Granted {
    fn read(manifest: &str) -> Result<Self> {
        let value = |key: &str| {
            let mut lines = manifest.lines().map(|line| line.trim().split_once(": "));
            lines
                .find_map(|line| line.filter(|(name, _)| *name == key))
                .map(|(_, value)| value)
                .with_context(|| format!("the manifest has no {key}"))
        };
        let list = |key| serde_json::from_str(value(key)?).with_context(|| key.to_owned());
        // As `config` has it.
        for (key, expected) in [
            ("hostPID", "true"),
            ("runAsUser", "0"),
            ("allowPrivilegeEscalation", "false"),
            ("readOnlyRootFilesystem", "true"),
            ("drop", r#"["ALL"]"#),
        ] {
            ensure!(value(key)? == expected, "{key}: {}", value(key)?);
        }
        Ok(Self {
            args: list("args")?,
            capabilities: list("add")?,
        })
    }
}

/// One that is not there longer than this value.
struct Container {
    bundle: TempDir,
}

impl Container {
    fn new(granted: &Granted, args: &[&str]) -> Result<Self> {
        let bundle = tempfile::Builder::new()
            .prefix("upstream-trace-")
            .tempdir()?;
        let (root, config) = (
            bundle.path().join("rootfs"),
            bundle.path().join("config.json"),
        );
        fs::create_dir(&root)?;
        File::create(root.join(&TRACER[1..]))?;
        let container = Self { bundle };
        let spec = container.runc(["spec", "--bundle"])?.status()?;
        ensure!(spec.success(), "runc spec: {spec}");
        let mut spec: Value = serde_json::from_slice(&fs::read(&config)?)?;
        configure(&mut spec, granted, args, &tracer::binary()?)?;
        fs::write(config, spec.to_string())?;
        Ok(container)
    }

    /// What starts it, and ends with it.
    fn command(&self) -> Result<Command> {
        let mut command = self.runc(["run", "--bundle"])?;
        command.arg(self.name());
        Ok(command)
    }

    fn runc(&self, args: [&str; 2]) -> Result<Command> {
        let runc = find_program("runc").context("runc is not installed")?;
        let mut command = tracer::command(&runc, args);
        command.arg(self.bundle.path());
        Ok(command)
    }

    fn name(&self) -> &str {
        let name = self.bundle.path().file_name();
        name.and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It is there only where the test went wrong.
        if let Some(runc) = find_program("runc") {
            let _gone = Command::new(runc)
                .args(["delete", "--force", self.name()])
                .output();
        }
    }
}

/// Makes what `runc spec` proposes, which has namespaces of its own for everything, what the manifest asks for.
fn configure(spec: &mut Value, granted: &Granted, args: &[&str], tracer: &Path) -> Result<()> {
    let capabilities = granted.capabilities.iter();
    let capabilities: Vec<_> = capabilities.map(|name| format!("CAP_{name}")).collect();
    let process = &mut spec["process"];
    process["terminal"] = json!(false);
    process["noNewPrivileges"] = json!(true);
    process["args"] = json!([&[TRACER][..], args].concat());
    process["capabilities"] = json!({
        "bounding": capabilities,
        "effective": capabilities,
        "permitted": capabilities,
    });
    spec["root"]["readonly"] = json!(true);
    let namespaces = spec["linux"]["namespaces"].as_array_mut();
    let namespaces = namespaces.context("no namespaces")?;
    namespaces.retain(|namespace| namespace["type"] != "pid" && namespace["type"] != "cgroup");
    namespaces.push(json!({ "type": "cgroup" }));
    let mounts = spec["mounts"].as_array_mut().context("no mounts")?;
    let shown = LIBRARIES.into_iter().map(|path| (path, Path::new(path)));
    mounts.extend(shown.chain([(TRACER, tracer)]).map(|(to, from)| {
        json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind", "ro"] })
    }));
    Ok(())
}
