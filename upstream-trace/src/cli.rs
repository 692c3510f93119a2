//! The command line: what was typed, and what it means (`settle`). How one value is read is in `values`.
//!
//! Must not know: the kernel, what is done with a setting.

mod values;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use upstream_trace_common::setting;

use self::values::{PortRange, container, duration, max_connections, pid, ring_size, server};
use crate::{
    exit, explain,
    output::Selection,
    record::Verdict,
    settings::{Network, Ports, Settings, Wanted},
};

/// Explains every failed TCP connection on this node: which stage, who sent the reset, and why.
#[derive(Debug, Parser)]
#[command(version, after_help = after_help(&[TIME, SIZE]), args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub trace: Trace,
}

const TIME: &str = "TIME is a whole number with ms, s, m or h behind it; a bare number is seconds.";
const SIZE: &str = "SIZE is bytes, or a number with KiB, MiB or GiB behind it.";

/// What `--help` says below the options.
fn after_help(values: &[&str]) -> String {
    format!("{}\n\n{}", values.join("\n"), exit::HELP)
}

impl Cli {
    /// What was typed, if it can be meant.
    pub fn read<T>(typed: impl IntoIterator<Item = T>) -> Result<Self, clap::Error>
    where
        T: Into<OsString>,
    {
        let typed: Vec<_> = typed.into_iter().map(Into::into).collect();
        let cli = Self::try_parse_from(&typed).map_err(|error| named(&typed, error))?;
        let trace = &cli.trace;
        let counts = [
            ("--pid", trace.pid.len()),
            ("--cidr", trace.cidr.len()),
            (
                "--cgroup and --container",
                trace.cgroup.len() + trace.container.len(),
            ),
        ];
        let wrong = |kind, message| Err(Self::command().error(kind, message));
        if let Some((option, count)) = counts.iter().find(|(_, count)| *count > MOST) {
            let message = format!("{option}: {count} values, and {MOST} is the most");
            return wrong(ErrorKind::TooManyValues, message);
        }
        match trace.excludes() {
            Some(message) => wrong(ErrorKind::ArgumentConflict, message),
            None => Ok(cli),
        }
    }
}

/// An error that says which of the arguments was meant, where clap does not: one that is not UTF-8.
fn named(typed: &[OsString], error: clap::Error) -> clap::Error {
    let is_utf8 = |error: &clap::Error| error.kind() != ErrorKind::InvalidUtf8;
    if is_utf8(&error) {
        return error;
    }
    // The first with which it goes wrong: a path may be anything.
    let wrong = (1..=typed.len()).find(|&count| {
        let tried = Cli::try_parse_from(typed.iter().take(count));
        tried.is_err_and(|error| !is_utf8(&error))
    });
    let last = wrong.unwrap_or(typed.len());
    let before = typed.get(last.saturating_sub(2));
    let option = before.filter(|before| before.as_encoded_bytes().starts_with(b"-"));
    let words = option.into_iter().chain(typed.get(last.saturating_sub(1)));
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let message = format!("not UTF-8: {}", words.join(" "));
    Cli::command().error(ErrorKind::InvalidUtf8, message)
}

/// Values of one filter.
const MOST: usize = setting::WANTED_MAX as usize;

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Explain the failed requests in a proxy's log by the tracer's records.
    Explain(Explain),
    /// Say what this host lets the tracer see, by loading and attaching as a run does.
    Doctor(Doctor),
    /// Print the playbook: causes, layers, hints and proxies' words, as a table in Markdown.
    Playbook,
    /// Print the JSON Schema of the output.
    Schema,
}

/// What was typed behind `doctor`.
#[derive(Clone, Debug, Args)]
#[command(after_help = exit::HELP)]
pub struct Doctor {
    /// One JSON object, for machines.
    #[arg(long)]
    pub json: bool,

    /// The running kernel's types, where /sys/kernel/btf/vmlinux is hidden: a copy of that file.
    #[arg(long, value_name = "FILE")]
    btf: Option<PathBuf>,
}

impl Doctor {
    /// The run that it stands for.
    pub fn settle(self) -> Settings {
        Settings {
            btf: self.btf,
            ..Settings::default()
        }
    }
}

/// What was typed behind `explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = after_help(&[TIME]))]
pub struct Explain {
    /// Logs of Envoy, Istio, NGINX, HAProxy or a gRPC client; none or `-` is standard input.
    #[arg(value_name = "LOG")]
    logs: Vec<PathBuf>,

    /// What upstream-trace printed as JSON, without --failed, --flagged, --verdict or --ignore; may still be growing.
    #[arg(long, short, value_name = "FILE")]
    records: PathBuf,

    /// For people, or JSON lines for machines.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// Wait for more at the end of the logs and of the records, also when they are rotated or truncated.
    #[arg(long, short)]
    follow: bool,

    /// How long records are kept for lines that come late or out of order [default: 5s, with --follow 15s: Envoy writes its lines every 10s].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    window: Option<Duration>,

    /// Name of the proxy's processes, where it is not envoy, nginx or haproxy.
    #[arg(long, value_name = "NAME")]
    process: Option<String>,

    /// Address of a server that the log has by name: `backend/server=10.0.0.1:80`; repeatable.
    #[arg(long = "server", value_name = "NAME=ADDRESS", value_parser = server)]
    servers: Vec<(String, SocketAddr)>,
}

impl Explain {
    /// What it means.
    pub fn settle(self) -> explain::run::Settings {
        explain::run::Settings {
            records: self.records,
            logs: self.logs,
            follow: self.follow,
            text: self.format == Format::Text,
            window: self
                .window
                .unwrap_or(Duration::from_secs(if self.follow { 15 } else { 5 })),
            process: self.process,
            servers: self.servers,
        }
    }
}

/// What was typed for a run of the tracer.
#[derive(Clone, Debug, Args)]
pub struct Trace {
    /// Ports of either end: `8443`, `8000-8100`, or several with commas; repeatable.
    #[arg(
        long,
        short,
        value_name = "PORTS",
        value_delimiter = ',',
        help_heading = "Which connections"
    )]
    port: Vec<PortRange>,

    /// Network of either end, IPv4 or IPv6: `10.0.0.0/8`, `fd00::/8`, or one address; repeatable.
    #[arg(
        long,
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "Which connections"
    )]
    cidr: Vec<Network>,

    /// Process that owns the socket; repeatable.
    #[arg(
        long,
        value_name = "PID",
        value_delimiter = ',',
        value_parser = pid,
        help_heading = "Which connections"
    )]
    pid: Vec<u32>,

    /// cgroup of the process that owns the socket, or one above it: a directory of cgroup v2; repeatable.
    #[arg(long, value_name = "PATH", help_heading = "Which connections")]
    cgroup: Vec<PathBuf>,

    /// Container of the process that owns the socket, by its id or the first 12 digits of it; repeatable.
    #[arg(
        long,
        value_name = "ID",
        value_delimiter = ',',
        value_parser = container,
        help_heading = "Which connections"
    )]
    container: Vec<String>,

    /// Print only records with a flag: resets before any payload or before the response.
    #[arg(long, help_heading = "Which records")]
    flagged: bool,

    /// Print only connections whose verdict is not `ok`.
    #[arg(long, help_heading = "Which records")]
    failed: bool,

    /// Print only connections with this verdict; repeatable.
    #[arg(
        long,
        value_name = "CODE",
        value_delimiter = ',',
        help_heading = "Which records"
    )]
    verdict: Vec<Verdict>,

    /// Do not print connections with this verdict; repeatable.
    #[arg(
        long,
        value_name = "CODE",
        value_delimiter = ',',
        help_heading = "Which records"
    )]
    ignore: Vec<Verdict>,

    /// Print each kernel event as well, as it happens.
    #[arg(long, help_heading = "Which records")]
    events: bool,

    /// JSON lines for machines, or text for people.
    #[arg(long, value_enum, default_value_t = Format::Json, help_heading = "Output")]
    format: Format,

    /// Write to this file instead of standard output.
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,

    /// Print the tracer's account of itself this often: `10s`, `1m`; at the end it is always printed.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Output")]
    stats_interval: Option<Duration>,

    /// Stop after this time; `0` loads, attaches, says what is attached, and ends.
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Run")]
    duration: Option<Duration>,

    /// A connection without payload for longer than this counts as idle.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "250ms", help_heading = "Run")]
    idle_after: Duration,

    /// Size of the event ring, a power of two: `64KiB` to `1GiB`.
    #[arg(long, value_name = "SIZE", value_parser = ring_size, default_value = "4MiB", help_heading = "Run")]
    ring_size: u32,

    /// Connections that are followed at once; beyond it the longest unused are given up, and counted.
    #[arg(long, value_name = "N", default_value_t = 262_144, help_heading = "Run",
          value_parser = max_connections)]
    max_connections: u32,

    /// The running kernel's types, where /sys/kernel/btf/vmlinux is hidden: a copy of that file.
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    btf: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
    Text,
}

impl Trace {
    /// What is wrong with the options of which records: no connection can pass them all.
    fn excludes(&self) -> Option<String> {
        let passes = |verdict: &Verdict| {
            !(self.failed && *verdict == Verdict::Ok
                || self.flagged && !FLAGGED.contains(verdict)
                || self.ignore.contains(verdict))
        };
        if self.verdict.is_empty() || self.verdict.iter().any(passes) {
            return None;
        }
        let others = [
            (self.failed, "--failed"),
            (self.flagged, "--flagged"),
            (!self.ignore.is_empty(), "--ignore"),
        ];
        let others = others
            .into_iter()
            .filter_map(|(given, name)| given.then_some(name));
        let (verdicts, others) = (names(&self.verdict), others.collect::<Vec<_>>());
        let others = others.join(" and ");
        Some(format!(
            "nothing could be printed: {others} leaves nothing of --verdict {verdicts}; leave one of them out"
        ))
    }

    /// What it means.
    pub fn settle(self) -> Settings {
        let mut ports = (!self.port.is_empty()).then(Ports::default);
        if let Some(ports) = &mut ports {
            for PortRange(first, last) in self.port {
                ports.insert(first, last);
            }
        }
        Settings {
            wanted: Wanted {
                ports,
                networks: self.cidr,
                pids: self.pid,
                cgroups: Vec::new(),
            },
            cgroups: self.cgroup,
            containers: self.container,
            selection: Selection {
                flagged: self.flagged,
                failed: self.failed,
                verdicts: self.verdict,
                ignored: self.ignore,
            },
            events: self.events,
            text: self.format == Format::Text,
            output: self.output,
            stats_interval: self.stats_interval.filter(|interval| !interval.is_zero()),
            duration: self.duration,
            idle_after: self.idle_after,
            ring_size: self.ring_size,
            max_connections: self.max_connections,
            btf: self.btf,
        }
    }
}

/// The verdicts that may have a flag.
const FLAGGED: [Verdict; 5] = [
    Verdict::Refused,
    Verdict::NeverAccepted,
    Verdict::ResetBeforePayload,
    Verdict::Probe,
    Verdict::ResetBeforeResponse,
];

fn names(verdicts: &[Verdict]) -> String {
    let names: Vec<_> = verdicts.iter().map(|verdict| verdict.as_str()).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_pages_have_every_option_as_the_help_has_it() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let cli = Cli::command();
        let explain = cli.find_subcommand("explain").unwrap();
        for (command, page) in [(&cli, "README.md"), (explain, "docs/explain.md")] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(page);
            let page_words = words(&fs::read_to_string(path).unwrap());
            let helps = command.get_opts().filter_map(|option| option.get_help());
            for help in helps {
                let help = words(&help.to_string());
                assert!(page_words.contains(&help), "{page} lacks: {help}");
            }
        }
    }

    #[test]
    fn what_can_match_nothing_is_refused() {
        for (typed, names) in [
            ("--failed --verdict ok", &["--failed", "--verdict ok"][..]),
            (
                "--verdict probe --ignore probe",
                &["--ignore", "--verdict probe"],
            ),
            (
                "--flagged --verdict timeout,ok",
                &["--flagged", "--verdict timeout,ok"],
            ),
            (
                "--flagged --verdict probe,ok --ignore probe",
                &["--flagged and --ignore"],
            ),
        ] {
            let typed: Vec<_> = typed.split(' ').collect();
            let error = settle(&typed).unwrap_err().to_string();
            assert!(names.iter().all(|name| error.contains(name)), "{error}");
        }
        for typed in [
            "--flagged --failed",
            "--failed --verdict ok,refused",
            "--flagged --verdict probe,ok --ignore ok",
        ] {
            let typed: Vec<_> = typed.split(' ').collect();
            assert!(settle(&typed).is_ok(), "{typed:?}");
        }
    }

    /// As README's table of verdicts says.
    #[test]
    fn verdicts_with_a_flag_are_those_of_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
        let page = fs::read_to_string(path).unwrap();
        for verdict in Verdict::ALL {
            let begin = format!("| `{}` |", verdict.as_str());
            let row = page.lines().find(|line| line.starts_with(&begin)).unwrap();
            let may = row.split('|').nth(3).unwrap().trim() != "-";
            assert_eq!(FLAGGED.contains(verdict), may, "{row}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_named() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
        let wrong = OsStr::from_bytes(b"\xff");
        let error = |typed: [&OsStr; 5]| Cli::read(typed).unwrap_err().to_string();
        let [program, port, output] = ["upstream-trace", "--port", "--output"].map(OsStr::new);
        let said = error([program, output, wrong, port, wrong]);
        assert!(said.contains("not UTF-8: --port \u{fffd}"), "{said}");
        assert!(Cli::read([program, output, wrong]).is_ok());
    }

    #[test]
    fn numbers_say_what_they_may_be() {
        for (option, value) in [
            ("--pid", "x"),
            ("--pid", "0"),
            ("--pid", "4194305"),
            ("--max-connections", "x"),
            ("--max-connections", "0"),
        ] {
            let error = settle(&[option, value]).unwrap_err().to_string();
            assert!(error.contains("a number from 1 to"), "{error}");
        }
        assert_eq!(
            settle(&["--pid", "4194304"]).unwrap().wanted.pids,
            [4_194_304]
        );
    }

    fn settle(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let all = std::iter::once("upstream-trace").chain(arguments.iter().copied());
        Cli::read(all).map(|cli| cli.trace.settle())
    }

    #[test]
    fn clap_is_content() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_doctor_stands_for_is_a_run_with_nothing_typed() {
        let run = settle(&[]).unwrap();
        assert_eq!(format!("{run:?}"), format!("{:?}", Settings::default()));
        let typed = Cli::try_parse_from(["upstream-trace", "doctor", "--json", "--btf", "x"]);
        let Some(Command::Doctor(doctor)) = typed.unwrap().command else {
            panic!("not doctor");
        };
        assert!(doctor.json);
        assert_eq!(doctor.settle().btf, settle(&["--btf", "x"]).unwrap().btf);
    }

    #[test]
    fn ports_in_every_form() {
        let settings = settle(&["--port", "80,8000-8002", "--port", "9"]).unwrap();
        let ports = settings.wanted.ports.unwrap();
        for (port, inside) in [
            (9, true),
            (80, true),
            (7999, false),
            (8000, true),
            (8002, true),
            (8003, false),
        ] {
            assert_eq!(ports.contains(port), inside, "{port}");
        }
        for wrong in ["0", "65536", "8-7", "x", "", "1-", "-1"] {
            assert!(settle(&["--port", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks() {
        let settings = settle(&["--cidr", "10.0.0.0/8,::1"]).unwrap();
        let prefixes: Vec<_> = settings
            .wanted
            .networks
            .iter()
            .map(|network| network.prefix)
            .collect();
        assert_eq!(prefixes, [8, 128]);
        let mapped = settle(&["--cidr", "::ffff:10.1.0.0/112"]).unwrap();
        let network = mapped.wanted.networks[0];
        assert_eq!(
            (network.address, network.prefix),
            ([10, 1, 0, 0].into(), 16)
        );
        for wrong in ["10.0.0.0/33", "::/129", "10.0.0/8", "x/1", "10.0.0.1/"] {
            assert!(settle(&["--cidr", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn more_than_the_kernel_side_holds_are_refused() {
        let pids = |count: usize| vec!["7"; count].join(",");
        assert!(settle(&["--pid", &pids(MOST)]).is_ok());
        let error = settle(&["--pid", &pids(MOST + 1)]).unwrap_err();
        assert!(error.to_string().contains("--pid: 1025 values"), "{error}");
    }

    #[test]
    fn containers() {
        let id = "9687bac58d5c4d1606aa46af33d1a21c1d1652e0ac9fb3fc0fc86e3495f42869";
        let full = format!("containerd://{id}");
        let settings = settle(&["--container", "9687bac58d5c", "--container", &full]).unwrap();
        assert_eq!(settings.containers, ["9687bac58d5c", id]);
        let long = format!("{id}0");
        for wrong in ["", "nginx", "9687bac58d5", "9687BAC58D5C", &long] {
            assert!(settle(&["--container", wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn explain() {
        let all = [
            "upstream-trace",
            "explain",
            "-r",
            "run.json",
            "a.log",
            "b.log",
            "-f",
        ];
        let typed = Cli::try_parse_from(all.into_iter().chain(["--server", "b/s=[::1]:80"]));
        let Some(Command::Explain(explain)) = typed.unwrap().command else {
            panic!("not explain");
        };
        let settings = explain.settle();
        assert!(settings.follow && settings.text && settings.logs.len() == 2);
        assert_eq!(
            settings.servers,
            [("b/s".to_owned(), "[::1]:80".parse().unwrap())]
        );
        assert!(Cli::try_parse_from(["upstream-trace", "explain", "a.log"]).is_err());
    }

    #[test]
    fn verdicts() {
        let settings = settle(&["--verdict", "refused,ok", "--ignore", "probe"]).unwrap();
        assert_eq!(settings.selection.verdicts, [Verdict::Refused, Verdict::Ok]);
        assert_eq!(settings.selection.ignored, [Verdict::Probe]);
        assert!(settle(&["--verdict", "nonsense"]).is_err());
    }
}
