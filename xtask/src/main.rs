//! Everything a developer or CI does with upstream-trace: `cargo xtask VERB`.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    bench, build, demo,
    matrix::{self, Kernels},
    provision, proxy, run, storm, test,
    workspace::{self, Profile, Workspace},
};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what building and testing need and this machine lacks
    Provision,
    /// Build the tracer, the kernel side inside it
    Build {
        /// Leave target/release/upstream-trace, the file to copy to a node
        #[arg(long)]
        release: bool,
        /// Leave target/x86_64-unknown-linux-gnu/release/upstream-trace, which needs no C library: for older systems and for images
        #[arg(long = "static", requires = "release")]
        is_static: bool,
    },
    /// Build the tracer and run it as root
    Run {
        #[arg(long)]
        release: bool,
        /// The tracer's own options, after `--`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Run every test, those on the live kernel and on other kernels included
    Test {
        /// Only play the scenarios on these kernels: `5.10,6.12`, or `all`
        #[arg(long, value_parser = Kernels::parse)]
        kernels: Option<Kernels>,
        #[command(flatten)]
        plays: matrix::Plays,
    },
    /// Save the types of these kernels, cut to what is read of them, as test data
    SaveTypes {
        #[arg(value_parser = Kernels::parse, default_value = "all")]
        kernels: Kernels,
    },
    /// Break connections on purpose and show what the tracer says about each
    Demo,
    /// Break a real Envoy's upstreams on purpose: its words beside what `explain` says, as a table
    Faults,
    /// Explain the logs of a real Envoy, nginx, HAProxy and gRPC client in front of upstreams that fail, and check every answer
    Proxies,
    /// Measure what tracing costs, beside other tracers, against the project's bars
    Bench(bench::Options),
    /// What tracing with this binary costs here, by tcplife: one line of JSON
    #[command(hide = true)]
    Costs { binary: PathBuf },
    /// An upstream that is killed
    #[command(hide = true)]
    UpstreamWorker {
        role: String,
        talk: String,
        address: SocketAddr,
    },
    /// The first process of a guest
    #[command(hide = true)]
    Guest {
        task: matrix::guest::Task,
        #[command(flatten)]
        plays: matrix::Plays,
    },
    /// The accepting end of a storm, until its standard input ends
    #[command(hide = true)]
    StormServer { threads: usize },
    /// The connecting end of a storm: prints the nanoseconds it took
    #[command(hide = true)]
    StormClient { connections: u32, threads: u32 },
    /// Both ends of many connections, held open until its standard input ends
    #[command(hide = true)]
    StormHold { address: Ipv4Addr, connections: u32 },
}

fn main() -> ExitCode {
    match verb(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn verb(verb: Verb) -> Result<()> {
    if let Verb::Guest { task, plays } = verb {
        return matrix::guest::run(task, plays);
    }
    if let Verb::UpstreamWorker {
        role,
        talk,
        address,
    } = verb
    {
        return proxy::worker::run(&role, &talk, address);
    }
    let workspace = Workspace::locate()?;
    match verb {
        Verb::Provision => provision::all(&workspace).map(drop),
        Verb::Build { release, is_static } => {
            let binary = if is_static {
                build::static_tracer(&workspace)?
            } else {
                build::tracer(&workspace, Profile::new(release))?
            };
            eprintln!("xtask: built {}", binary.display());
            Ok(())
        }
        Verb::Run { release, args } => run::tracer(&workspace, Profile::new(release), &args),
        Verb::Test {
            kernels: None,
            plays,
        } => test::all(&workspace, plays),
        Verb::Test {
            kernels: Some(kernels),
            plays,
        } => matrix::run(&workspace, &kernels, plays),
        Verb::SaveTypes { kernels } => matrix::save_types(&workspace, &kernels),
        Verb::Demo => {
            build::tracer(&workspace, Profile::Release)?;
            workspace::become_root()?;
            demo::run()
        }
        Verb::Faults => {
            build::tracer(&workspace, Profile::Release)?;
            let programs = provision::for_proxies(&workspace)?;
            workspace::become_root()?;
            proxy::table::run(&programs)
        }
        Verb::Proxies => test::proxies(&workspace),
        Verb::Bench(options) => bench::run(&workspace, &options),
        Verb::Costs { binary } => bench::kernels::print(&workspace, binary),
        Verb::Guest { .. } | Verb::UpstreamWorker { .. } => unreachable!("they have no workspace"),
        Verb::StormServer { threads } => storm::serve(threads),
        Verb::StormClient {
            connections,
            threads,
        } => storm::connect(connections, threads),
        Verb::StormHold {
            address,
            connections,
        } => storm::hold(address, connections),
    }
}
