//! The contenders, each configured for the same job, with one worker each; and what they forward to.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::{START, configuration, load};
use crate::process::{Running, target_dir};
use crate::tools;

/// A proxy that can be started again and again.
#[derive(Debug)]
pub(super) struct Proxy {
    /// How the table calls it.
    pub(super) name: &'static str,
    /// Where it listens on 127.0.0.1.
    pub(super) port: u16,
    /// Resident set a second after its start, before any request.
    pub(super) idle_rss_kib: u64,
    /// Runs while it does, and is what the load goes to.
    pub(super) companion: Option<Box<Proxy>>,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
}

/// A server that all contenders share.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Where it listens on 127.0.0.1.
    pub(super) port: u16,
    _running: Running,
}

impl Proxy {
    /// Starts it in the foreground.
    pub(super) fn start(&self) -> Result<Running> {
        Running::start(Command::new(&self.program).args(&self.arguments), &self.log)
    }

    /// Starts it with so many descriptors to use.
    pub(super) fn start_with_descriptors(&self, descriptors: usize) -> Result<Running> {
        Running::start(
            with_descriptors(&self.program, descriptors).args(&self.arguments),
            &self.log,
        )
    }

    /// Starts it and its companion.
    pub(super) fn start_all(&self) -> Result<(Running, Option<Running>)> {
        let companion = self.companion.as_ref().map(|c| c.start()).transpose()?;
        Ok((self.start()?, companion))
    }

    /// Where the load goes.
    pub(super) fn entry(&self) -> u16 {
        self.companion.as_ref().map_or(self.port, |c| c.port)
    }

    /// Our proxy with a bootstrap.
    pub(super) fn lateen(dir: &Path, name: &'static str, port: u16, bootstrap: &str) -> Result<Self> {
        let file = write(dir, &format!("{name}.json"), bootstrap)?;
        let program = target_dir().join("dist/lateen-proxy");
        Self::new(
            name,
            port,
            program,
            &["-c", &file, "--concurrency", "1", "-l", "error"],
            dir,
        )
    }

    /// Envoy with a bootstrap.
    fn envoy(dir: &Path, name: &str, port: u16, bootstrap: &str) -> Result<Self> {
        let file = write(dir, &format!("{name}.json"), bootstrap)?;
        let flags = [
            "-c",
            &file,
            "--concurrency",
            "1",
            "-l",
            "error",
            "--use-dynamic-base-id",
        ];
        Self::new("envoy", port, tools::envoy()?, &flags, dir)
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
            companion: None,
            program: program.into(),
            arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
            log: dir.join(format!("{name}.log")),
        };
        let running = proxy.start()?;
        load::wait_for(port, START)?;
        std::thread::sleep(Duration::from_secs(1));
        proxy.idle_rss_kib = load::usage(running.pid())?.rss_kib;
        Ok(proxy)
    }
}

/// A program that may use so many descriptors, which is no more than the system lets it.
pub(super) fn with_descriptors(program: &Path, descriptors: usize) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")])
        .arg(program);
    command
}

/// Our proxy and Envoy with the same bootstrap but for the port.
pub(super) fn both(dir: &Path, what: &str, bootstrap: impl Fn(u16) -> Result<String>) -> Result<Vec<Proxy>> {
    let (ours, theirs) = (free_port()?, free_port()?);
    Ok(vec![
        Proxy::lateen(dir, "lateen", ours, &bootstrap(ours)?)?,
        Proxy::envoy(dir, &format!("envoy-{what}"), theirs, &bootstrap(theirs)?)?,
    ])
}

/// Starts nginx with a fixed answer of 1 KB.
pub(super) fn upstream(dir: &Path) -> Result<Upstream> {
    let body = "x".repeat(1024);
    start_nginx(dir, "upstream", |port| {
        format!(
            "server {{ listen 127.0.0.1:{port} reuseport backlog=4096; keepalive_requests 100000000; \
             location / {{ return 200 '{body}'; }} }}"
        )
    })
}

/// Starts nginx with HTTP/2 by prior knowledge: an answer of 1 KB for everything but `/answer.grpc`, which is a gRPC
/// message of that size and the status 0 in trailers.
pub(super) fn http2_upstream(dir: &Path) -> Result<Upstream> {
    let root = dir.join("answers");
    std::fs::create_dir_all(&root)?;
    let message = "x".repeat(1024);
    let prefix = [&[0][..], &1024_u32.to_be_bytes()].concat();
    std::fs::write(
        root.join("answer.grpc"),
        [prefix.as_slice(), message.as_bytes()].concat(),
    )?;
    let root = root.display();
    // Files are read with GET only: that is what the error page is about.
    start_nginx(dir, "http2-upstream", |port| {
        format!(
            "server {{ listen 127.0.0.1:{port} http2 reuseport backlog=4096; keepalive_requests 100000000; \
             location / {{ return 200 '{message}'; }} \
             location /answer.grpc {{ root {root}; open_file_cache max=10 inactive=1h; default_type application/grpc; \
             add_trailer grpc-status 0; error_page 405 =200 $uri; }} }}"
        )
    })
}

fn start_nginx(dir: &Path, name: &str, server: impl Fn(u16) -> String) -> Result<Upstream> {
    let port = free_port()?;
    let file = nginx_file(dir, name, &server(port))?;
    let running = Running::start(
        Command::new("nginx").args(["-c", &file, "-p"]).arg(dir),
        &dir.join(format!("{name}.log")),
    )?;
    load::wait_for(port, Duration::from_secs(10))?;
    Ok(Upstream {
        port,
        _running: running,
    })
}

/// Our proxy, Envoy, nginx and HAProxy, for plaintext HTTP/1.
pub(super) fn http1(dir: &Path, upstream: u16) -> Result<Vec<Proxy>> {
    let mut contenders = both(dir, "http1", |port| {
        let filter = configuration::http(&configuration::to_upstream());
        let listener = configuration::listener(port, &filter, None);
        Ok(configuration::bootstrap(
            &listener,
            &configuration::upstream(upstream),
        ))
    })?;
    let (nginx_port, haproxy_port) = (free_port()?, free_port()?);
    let nginx = nginx_file(dir, "nginx", &nginx_proxy(nginx_port, upstream))?;
    let haproxy = write(dir, "haproxy.cfg", &haproxy_proxy(haproxy_port, upstream))?;
    let prefix = dir.display().to_string();
    contenders.push(Proxy::new(
        "nginx",
        nginx_port,
        "nginx",
        &["-c", &nginx, "-p", &prefix],
        dir,
    )?);
    contenders.push(Proxy::new(
        "haproxy",
        haproxy_port,
        "haproxy",
        &["-db", "-f", &haproxy],
        dir,
    )?);
    Ok(contenders)
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
