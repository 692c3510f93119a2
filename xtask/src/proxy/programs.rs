//! Starts the real Envoy, NGINX and HAProxy on loopback, one path for each upstream.
//!
//! Each waits 300 ms for a connection and 800 ms for an answer, and tries once. Must not know: what goes wrong, what is said of it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::upstream::Upstream;
use crate::provision::Proxies;
use crate::tracer;

const PATIENCE: Duration = Duration::from_secs(20);
/// Istio's default.
const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
    %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" \
    %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% \
    %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Envoy,
    Nginx,
    Haproxy,
}

/// A running one. Ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its logs, each of which has a line for every failed request.
    pub logs: Vec<PathBuf>,
    /// Options with which `explain` knows its upstreams.
    pub options: Vec<String>,
}

impl Program {
    pub const ALL: [Self; 3] = [Self::Envoy, Self::Nginx, Self::Haproxy];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// Starts it with its files in `dir`, and waits until it listens.
    pub fn start(self, programs: &Proxies, dir: &Path, upstreams: &[Upstream]) -> Result<Running> {
        let address = free_port()?;
        let place = Place {
            dir,
            address,
            upstreams,
        };
        let mut running = match self {
            Self::Envoy => place.envoy(&programs.envoy),
            Self::Nginx => place.nginx(&programs.nginx),
            Self::Haproxy => place.haproxy(&programs.haproxy),
        }?;
        running.wait_until_ready(&dir.join("said"))?;
        Ok(running)
    }
}

/// Taken back at once; nobody else is given it so soon.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

struct Place<'a> {
    dir: &'a Path,
    address: SocketAddr,
    upstreams: &'a [Upstream],
}

impl Place<'_> {
    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Both of its outputs go to `said`.
    fn run(&self, program: &Path, args: &[&str]) -> Result<Child> {
        let said = File::create(self.dir.join("said"))?;
        tracer::command(program, args)
            .stdout(Stdio::from(said.try_clone()?))
            .stderr(Stdio::from(said))
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))
    }

    fn envoy(&self, program: &Path) -> Result<Running> {
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
        let routes: Vec<Value> = self.upstreams.iter().map(|upstream| {
            let name = upstream.fault.name();
            json!({"match": {"prefix": format!("/{name}/")}, "route": {"cluster": name, "timeout": "0.8s"}})
        }).collect();
        let clusters: Vec<Value> = self.upstreams.iter().map(|upstream| {
            let (name, address) = (upstream.fault.name(), upstream.address);
            let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
            let endpoint = json!({"endpoint": {"address": {"socket_address": socket}}});
            json!({
                "name": name, "type": "STATIC", "connect_timeout": "0.3s",
                "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
            })
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
        let path = self.path("envoy.json");
        fs::write(&path, config.to_string())?;
        let args = [
            "-c",
            &path,
            "--concurrency",
            "2",
            "-l",
            "warn",
            "--file-flush-interval-msec",
            "50",
            "--use-dynamic-base-id",
        ];
        Ok(Running {
            child: self.run(program, &args)?,
            address: self.address,
            logs: vec![istio.into(), plain.into()],
            options: Vec::new(),
        })
    }

    fn nginx(&self, program: &Path) -> Result<Running> {
        let (error, access) = (self.path("error.log"), self.path("access.log"));
        let locations = self.upstreams.iter().map(|upstream| {
            let (name, address) = (upstream.fault.name(), upstream.address);
            format!("location /{name}/ {{ proxy_pass http://{address}; }}")
        });
        let servers = locations.collect::<Vec<_>>().join(
            "
",
        );
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let places = kinds.map(|kind| {
            format!(
                "{kind}_temp_path {};
",
                self.path(kind)
            )
        });
        let temporary = places.concat();
        let config = format!(
            "user root;\nworker_processes 2;\npid {pid};\nevents {{}}\nhttp {{\n{temporary}\
             log_format upstreams '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
             \"$http_referer\" \"$http_user_agent\" upstream_addr=\"$upstream_addr\" upstream_status=\"$upstream_status\" \
             request_time=$request_time pid=$pid';\n\
             access_log {access} upstreams;\nserver {{\nlisten {address};\nproxy_http_version 1.1;\n\
             proxy_connect_timeout 300ms;\nproxy_read_timeout 800ms;\nproxy_next_upstream off;\n{servers}\n}}\n}}\n",
            pid = self.path("pid"),
            address = self.address,
        );
        let path = self.path("nginx.conf");
        fs::write(&path, config)?;
        let global = format!("daemon off; error_log {error} error;");
        Ok(Running {
            child: self.run(program, &["-p", &self.path(""), "-c", &path, "-g", &global])?,
            address: self.address,
            // Its access log has no line of its own for a body that was cut off: the status was sent before.
            logs: vec![error.into()],
            options: Vec::new(),
        })
    }

    fn haproxy(&self, program: &Path) -> Result<Running> {
        let (mut rules, mut backends) = (Vec::new(), Vec::new());
        let mut options = Vec::new();
        for upstream in self.upstreams {
            let (name, address) = (upstream.fault.name(), upstream.address);
            rules.push(format!("  use_backend {name} if {{ path_beg /{name}/ }}\n"));
            backends.push(format!("backend {name}\n  server s {address}\n"));
            options.extend(["--server".to_owned(), format!("{name}/s={address}")]);
        }
        let config = format!(
            "global\n  log stdout format raw local0\ndefaults\n  mode http\n  log global\n  option httplog\n  retries 0\n  \
             timeout connect 300ms\n  timeout server 800ms\n  timeout client 10s\nfrontend in\n  bind {}\n{}{}",
            self.address,
            rules.concat(),
            backends.concat(),
        );
        let path = self.path("haproxy.cfg");
        fs::write(&path, config)?;
        Ok(Running {
            child: self.run(program, &["-db", "-f", &path])?,
            address: self.address,
            logs: vec![self.dir.join("said")],
            options,
        })
    }
}

impl Running {
    fn wait_until_ready(&mut self, said: &Path) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(said).unwrap_or_default();
                bail!("the proxy does not listen ({ended:?}): {said}");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it in order, so that its logs are whole.
    pub fn stop(mut self) -> Result<()> {
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: plain system call; the child has not been waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < PATIENCE, "the proxy does not end");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _killed = self.child.kill();
            let _status = self.child.wait();
        }
    }
}
