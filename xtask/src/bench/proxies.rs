//! The contenders, each configured for the same job: one listener, one route, one upstream, keep-alive, one worker.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::load;
use crate::process::{Running, target_dir};

/// A proxy that can be started again and again.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// How the table calls it.
    pub(crate) name: &'static str,
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    /// Resident set a second after its start, before any request.
    pub(crate) idle_rss_kib: u64,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

/// The upstream that all proxies share.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// Where it listens on 127.0.0.1.
    pub(crate) port: u16,
    _running: Running,
}

impl Proxy {
    /// Starts it in the foreground.
    pub(crate) fn start(&self) -> Result<Running> {
        Running::start(Command::new(&self.program).args(&self.arguments), &self.log)
    }

    pub(super) fn new(
        name: &'static str,
        port: u16,
        program: impl Into<PathBuf>,
        arguments: &[&str],
        dir: &Path,
    ) -> Result<Self> {
        let mut proxy = Self {
            name,
            port,
            idle_rss_kib: 0,
            program: program.into(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            log: dir.join(format!("{name}.log")),
        };
        let running = proxy.start()?;
        load::wait_for(port, Duration::from_secs(20))?;
        std::thread::sleep(Duration::from_secs(1));
        proxy.idle_rss_kib = load::usage(running.pid())?.rss_kib;
        Ok(proxy)
    }
}

/// Starts nginx with a fixed answer of 1 KB.
pub(crate) fn upstream(dir: &Path) -> Result<Upstream> {
    let port = free_port()?;
    let body = "x".repeat(1024);
    let server = format!(
        "server {{ listen 127.0.0.1:{port} reuseport backlog=4096; keepalive_requests 100000000; location / {{ return 200 '{body}'; }} }}"
    );
    let file = nginx_file(dir, "upstream", &server)?;
    let running = Running::start(
        Command::new("nginx").args(["-c", &file, "-p"]).arg(dir),
        &dir.join("upstream.log"),
    )?;
    load::wait_for(port, Duration::from_secs(10))?;
    Ok(Upstream {
        port,
        _running: running,
    })
}

/// Our proxy, Envoy, nginx and HAProxy.
pub(crate) fn all(dir: &Path, upstream: u16, envoy: &Path) -> Result<Vec<Proxy>> {
    let ports = [free_port()?, free_port()?, free_port()?, free_port()?];
    let ours = write(dir, "lateen.yaml", &envoy_bootstrap(ports[0], upstream))?;
    let theirs = write(dir, "envoy.yaml", &envoy_bootstrap(ports[1], upstream))?;
    let nginx = nginx_file(dir, "nginx", &nginx_proxy(ports[2], upstream))?;
    let haproxy = write(dir, "haproxy.cfg", &haproxy_proxy(ports[3], upstream))?;
    let prefix = dir.display().to_string();
    let lateen = target_dir().join("dist/lateen-proxy");
    Ok(vec![
        Proxy::new(
            "lateen",
            ports[0],
            lateen,
            &["-c", &ours, "--concurrency", "1", "-l", "error"],
            dir,
        )?,
        Proxy::new(
            "envoy",
            ports[1],
            envoy,
            &[
                "-c",
                &theirs,
                "--concurrency",
                "1",
                "-l",
                "error",
                "--use-dynamic-base-id",
            ],
            dir,
        )?,
        Proxy::new("nginx", ports[2], "nginx", &["-c", &nginx, "-p", &prefix], dir)?,
        Proxy::new("haproxy", ports[3], "haproxy", &["-db", "-f", &haproxy], dir)?,
    ])
}

/// The same file for Envoy and for us.
fn envoy_bootstrap(port: u16, upstream: u16) -> String {
    format!(
        r#"static_resources:
  listeners:
  - name: bench
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            name: local
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: upstream }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: upstream
    type: STATIC
    connect_timeout: 1s
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }}
"#
    )
}

fn nginx_proxy(port: u16, upstream: u16) -> String {
    format!(
        "upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }} \
         server {{ listen 127.0.0.1:{port} backlog=4096; keepalive_requests 100000000; location / {{ \
         proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}"
    )
}

fn haproxy_proxy(port: u16, upstream: u16) -> String {
    format!(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  \
         http-reuse always\nfrontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s 127.0.0.1:{upstream}\n"
    )
}

/// One worker, in the foreground, all files below `dir`.
fn nginx_file(dir: &Path, name: &str, server: &str) -> Result<String> {
    let temp = dir.join(format!("{name}-temp"));
    std::fs::create_dir_all(&temp)?;
    let temp = temp.display();
    let text = format!(
        "daemon off;\nworker_processes 1;\npid {temp}/pid;\nerror_log {temp}/error.log;\nevents {{ worker_connections 4096; }}\nhttp {{ \
         access_log off; client_body_temp_path {temp}/body; proxy_temp_path {temp}/proxy; fastcgi_temp_path {temp}/fastcgi; \
         uwsgi_temp_path {temp}/uwsgi; scgi_temp_path {temp}/scgi; {server} }}\n"
    );
    write(dir, &format!("{name}.conf"), &text)
}

pub(super) fn write(dir: &Path, name: &str, text: &str) -> Result<String> {
    let path = dir.join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
