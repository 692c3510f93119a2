//! Starts the real Envoy, NGINX and HAProxy on loopback, one path for each upstream; and gRPC's own client, in their place or before Envoy.
//!
//! Each waits 300 ms for a connection and 2 s for an answer, and tries once. Must not know: what goes wrong, what is said of it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::fault::Speech;
use super::grpc;
use super::talk::Talk;
use crate::process::signal;
use crate::provision::Proxies;
use crate::tracer;

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// In a network namespace where nobody else listens.
const PORT: u16 = 18_500;
/// Istio's default.
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The files with its standard output and error.
pub(super) const OUTPUT: &str = "output.log";
const SAID: &str = "said";
/// The host's name in TLS.
const NAME: &str = "upstream.test";

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Envoy,
    Nginx,
    Haproxy,
    /// No proxy: calls go to the upstream.
    Grpc,
    /// Calls go through Envoy.
    GrpcByEnvoy,
}

/// A path and the servers behind it.
#[derive(Clone, Debug)]
pub struct Route {
    /// The path's first part.
    pub name: &'static str,
    pub servers: Vec<SocketAddr>,
    /// What they are spoken to.
    pub speech: Speech,
    /// Connections are kept for further requests.
    pub keeps: bool,
    /// A request that is answered with 503 is sent to another server.
    pub retries: bool,
}

/// A running one. Ended when dropped.
#[derive(Debug)]
pub struct Running {
    program: Program,
    /// The newest last; older ones end by themselves.
    children: Vec<Child>,
    /// How a newer Envoy is started.
    envoy: PathBuf,
    dir: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its logs, each of which has a line for every failed request.
    pub logs: Vec<PathBuf>,
    /// Options with which `explain` knows its upstreams.
    pub options: Vec<String>,
}

impl Program {
    pub const ALL: [Self; 5] = [
        Self::Envoy,
        Self::Nginx,
        Self::Haproxy,
        Self::Grpc,
        Self::GrpcByEnvoy,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Grpc => "grpc",
            Self::GrpcByEnvoy => "grpc_by_envoy",
        }
    }

    /// What its upstreams have to speak.
    pub const fn talk(self) -> Talk {
        match self {
            Self::Envoy | Self::Nginx | Self::Haproxy => Talk::Http1,
            Self::Grpc | Self::GrpcByEnvoy => Talk::Grpc,
        }
    }

    /// Whether it logs the failure of a second request on a kept connection of the client. HAProxy does not where the first of the two was
    /// answered over the same connection to the server: it closes, so that the client asks again.
    pub const fn logs_second_requests(self) -> bool {
        !matches!(self, Self::Haproxy)
    }

    /// Starts it with its files in `dir`, and waits until it listens. At most one in a network namespace.
    pub fn start(self, programs: &Proxies, dir: &Path, routes: &[Route]) -> Result<Running> {
        let place = |port| Place {
            dir,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            routes,
        };
        let first = place(PORT);
        let (child, logs) = match self {
            Self::Envoy | Self::GrpcByEnvoy => first.envoy(&programs.envoy),
            Self::Nginx => first.nginx(&programs.nginx),
            Self::Haproxy => first.haproxy(&programs.haproxy),
            Self::Grpc => grpc::client(&programs.grpc, dir, first.address, routes, None),
        }?;
        let options = routes.iter().flat_map(Route::options);
        let mut running = Running {
            program: self,
            children: vec![child],
            envoy: programs.envoy.clone(),
            dir: dir.to_owned(),
            address: first.address,
            logs: logs.iter().map(|name| dir.join(name)).collect(),
            options: options.filter(|_| self == Self::Haproxy).collect(),
        };
        running.wait_until_ready()?;
        if self == Self::GrpcByEnvoy {
            // Without addresses its lines are told apart by verdicts, and these are blurred by what HTTP/2 says of itself.
            running.logs.truncate(1);
            let client = place(PORT + 1);
            let before = Some(first.address);
            let (child, _) = grpc::client(&programs.grpc, dir, client.address, routes, before)?;
            running.children.push(child);
            running.address = client.address;
            running.wait_until_ready()?;
        }
        Ok(running)
    }
}

impl Route {
    /// The servers' names in HAProxy's log.
    fn options(&self) -> impl Iterator<Item = String> {
        let servers = self.servers.iter().enumerate();
        servers.flat_map(|(number, address)| {
            let name = format!("{}/s{number}={address}", self.name);
            ["--server".to_owned(), name]
        })
    }
}

fn run(program: &Path, dir: &Path, args: &[String]) -> Result<Child> {
    spawn(&mut tracer::command(program, args), dir)
}

pub(super) fn spawn(command: &mut Command, dir: &Path) -> Result<Child> {
    let file = |name: &str| {
        File::options()
            .create(true)
            .append(true)
            .open(dir.join(name))
    };
    command
        .stdout(Stdio::from(file(OUTPUT)?))
        .stderr(Stdio::from(file(SAID)?))
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Each run over takes the place of the one before, which it asks for its sockets and drains.
fn envoy_epoch(program: &Path, dir: &Path, epoch: usize) -> Result<Child> {
    let config = dir.join("envoy.json").display().to_string();
    let epoch = epoch.to_string();
    // Others may run on this machine, and ask by the same number.
    let id = (process::id() % 1_000_000).to_string();
    let args = [
        ["-c", &config],
        ["--concurrency", "2"],
        ["-l", "warn"],
        ["--file-flush-interval-msec", "50"],
        ["--base-id", &id],
        ["--restart-epoch", &epoch],
        ["--drain-time-s", "1"],
        ["--parent-shutdown-time-s", "2"],
    ];
    run(
        program,
        dir,
        &args
            .as_flattened()
            .iter()
            .map(|&arg| arg.to_owned())
            .collect::<Vec<_>>(),
    )
}

struct Place<'a> {
    dir: &'a Path,
    address: SocketAddr,
    routes: &'a [Route],
}

impl Place<'_> {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn envoy(&self, program: &Path) -> Result<(Child, Vec<&'static str>)> {
        let (plain, istio) = (self.path("default.log"), self.path("istio.log"));
        let file = |path: &str, format: Option<&str>| {
            let mut log = json!({
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": path,
            });
            if let Some(format) = format {
                log["log_format"] = json!({"text_format_source": {"inline_string": format}});
            }
            json!({"name": "envoy.access_loggers.file", "typed_config": log})
        };
        let routes: Vec<Value> = self
            .routes
            .iter()
            .map(|route| {
                let mut action = json!({"cluster": route.name, "timeout": "2s"});
                if route.retries {
                    action["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 2});
                }
                json!({"match": {"prefix": format!("/{}/", route.name)}, "route": action})
            })
            .collect();
        let clusters: Vec<Value> = self.routes.iter().map(|route| {
            let endpoints: Vec<Value> = route.servers.iter().map(|address| {
                let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
                json!({"endpoint": {"address": {"socket_address": socket}}})
            }).collect();
            let mut cluster = json!({
                "name": route.name, "type": "STATIC", "connect_timeout": "0.3s",
                "load_assignment": {"cluster_name": route.name, "endpoints": [{"lb_endpoints": endpoints}]},
            });
            if route.retries {
                // Three at a time otherwise: whoever is the fourth gets the 503 (UO).
                cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 1024}]});
            }
            match route.speech {
                Speech::Plain => {}
                Speech::Tls => cluster["transport_socket"] = json!({
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                        "sni": NAME, "common_tls_context": {"alpn_protocols": ["h2"]},
                    },
                }),
                Speech::Http2 => cluster["typed_extension_protocol_options"] = json!({
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                        // One of HTTP/2 outlives a request that was given up.
                        "common_http_protocol_options": {
                            "max_requests_per_connection": if route.keeps { 2 } else { 1 },
                        },
                    },
                }),
            }
            cluster
        }).collect();
        let socket =
            json!({"address": self.address.ip().to_string(), "port_value": self.address.port()});
        let manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "access_log": [file(&plain, None), file(&istio, Some(ISTIO))],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        });
        let config = json!({"static_resources": {
            "listeners": [{"name": "in", "address": {"socket_address": socket}, "filter_chains": [
                {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
            "clusters": clusters,
        }});
        fs::write(self.dir.join("envoy.json"), config.to_string())?;
        let child = envoy_epoch(program, self.dir, 0)?;
        Ok((child, vec!["istio.log", "default.log"]))
    }

    fn nginx(&self, program: &Path) -> Result<(Child, Vec<&'static str>)> {
        let (error, access) = (self.path("error.log"), self.path("access.log"));
        let pools = self.routes.iter().map(|route| {
            let servers = route.servers.iter();
            let servers = servers.map(|server| format!("server {server} max_fails=0; "));
            let servers = servers.collect::<String>();
            format!("upstream {} {{ {servers}keepalive 8; }}\n", route.name)
        });
        let locations = self.routes.iter().map(|route| {
            let name = route.name;
            // NGINX speaks HTTP/2 to upstreams only for gRPC.
            let pass = match route.speech {
                Speech::Plain => "proxy_pass http",
                Speech::Tls => "proxy_pass https",
                Speech::Http2 => "grpc_pass grpc",
            };
            let connection = if route.keeps { "" } else { "close" };
            let next = if route.retries { "http_503" } else { "off" };
            format!(
                "location /{name}/ {{ {pass}://{name}; proxy_set_header Connection \"{connection}\"; \
                 proxy_next_upstream {next}; }}\n"
            )
        });
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let places = kinds.map(|kind| format!("{kind}_temp_path {};\n", self.path(kind)));
        let temporary = places.concat();
        let config = format!(
            "user root;\nworker_processes 2;\npid {pid};\nevents {{}}\nhttp {{\n{temporary}\
             log_format upstreams '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
             \"$http_referer\" \"$http_user_agent\" upstream_addr=\"$upstream_addr\" upstream_status=\"$upstream_status\" \
             request_time=$request_time pid=$pid';\n\
             access_log {access} upstreams;\n{pools}server {{\nlisten {address};\nproxy_http_version 1.1;\n\
             proxy_connect_timeout 300ms;\nproxy_read_timeout 2s;\n\
             grpc_connect_timeout 300ms;\ngrpc_read_timeout 2s;\ngrpc_next_upstream off;\n\
             proxy_ssl_server_name on;\nproxy_ssl_name {NAME};\n{locations}}}\n}}\n",
            pools = pools.collect::<String>(),
            locations = locations.collect::<String>(),
            pid = self.path("pid"),
            address = self.address,
        );
        let path = self.path("nginx.conf");
        fs::write(&path, config)?;
        let global = format!("daemon off; error_log {error} info;");
        let args = ["-p", &self.path(""), "-c", &path, "-g", &global].map(str::to_owned);
        // Its access log has no line of its own for a body that was cut off: the status was sent before.
        Ok((run(program, self.dir, &args)?, vec!["error.log"]))
    }

    fn haproxy(&self, program: &Path) -> Result<(Child, Vec<&'static str>)> {
        let (mut rules, mut backends) = (Vec::new(), Vec::new());
        for route in self.routes {
            let name = route.name;
            rules.push(format!("  use_backend {name} if {{ path_beg /{name}/ }}\n"));
            let speech = match route.speech {
                Speech::Plain => String::new(),
                Speech::Tls => format!(" ssl verify none sni str({NAME}) alpn h2"),
                Speech::Http2 => " proto h2".to_owned(),
            };
            let reuse = if route.keeps { "always" } else { "never" };
            let retries = if route.retries {
                "  retries 2\n  retry-on 503\n  option redispatch 1\n"
            } else {
                "  retries 0\n"
            };
            backends.push(format!("backend {name}\n  http-reuse {reuse}\n{retries}"));
            let servers = route.servers.iter().enumerate();
            backends.extend(servers.map(|(number, address)| {
                format!("  server s{number} {address}{speech} pool-purge-delay 60s\n")
            }));
        }
        // What a fault needs is that the second request finds the connection of the first: neither another thread's, nor purged.
        let config = format!(
            "global\n  nbthread 1\n  log stdout format raw local0\ndefaults\n  mode http\n  log global\n  option httplog\n  option abortonclose\n  \
             timeout connect 300ms\n  timeout server 2s\n  timeout client 10s\nfrontend in\n  bind {}\n{}{}",
            self.address,
            rules.concat(),
            backends.concat(),
        );
        let path = self.path("haproxy.cfg");
        fs::write(&path, config)?;
        let args = ["-W", "-f", &path].map(str::to_owned);
        Ok((run(program, self.dir, &args)?, vec![OUTPUT]))
    }
}

impl Running {
    fn wait_until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.newest()?.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(self.dir.join(SAID)).unwrap_or_default();
                bail!("the proxy does not listen ({ended:?}): {said}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn newest(&mut self) -> Result<&mut Child> {
        self.children.last_mut().context("no process")
    }

    /// Lets new processes take over from those that run, which finish what they have begun; whether this program can.
    pub fn reload(&mut self) -> Result<bool> {
        match self.program {
            Program::Nginx => signal(self.newest()?, libc::SIGHUP)?,
            Program::Haproxy => signal(self.newest()?, libc::SIGUSR2)?,
            Program::Grpc | Program::GrpcByEnvoy => return Ok(false),
            Program::Envoy => {
                let next = envoy_epoch(&self.envoy, &self.dir, self.children.len())?;
                self.children.push(next);
            }
        }
        Ok(true)
    }

    /// Ends it in order, so that its logs are whole.
    pub fn stop(mut self) -> Result<()> {
        for child in &mut self.children {
            if child.try_wait()?.is_none() {
                signal(child, libc::SIGTERM)?;
            }
        }
        let began = Instant::now();
        for child in &mut self.children {
            while child.try_wait()?.is_none() {
                ensure!(began.elapsed() < PATIENCE, "the proxy does not end");
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    /// In order where that is possible: the workers of one that is killed would live on.
    fn drop(&mut self) {
        for child in &mut self.children {
            if matches!(child.try_wait(), Ok(None)) {
                let _told = signal(child, libc::SIGTERM);
            }
        }
        let began = Instant::now();
        for child in &mut self.children {
            while matches!(child.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
            }
            let _killed = child.kill();
            let _status = child.wait();
        }
    }
}
