//! A proxy process with its bootstrap, upstreams with a name, and a discovery service that says what it is told.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod discovery;
pub(crate) mod program;
pub(crate) mod secrets;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy; it is killed when dropped.
pub(crate) struct Proxy {
    child: Child,
    pub(crate) admin: SocketAddr,
    pub(crate) dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts a proxy with this bootstrap, to which an admin interface on a free port is added, and waits for the
    /// admin interface.
    pub(crate) fn start(bootstrap: &str, flags: &[&str]) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_lateen-proxy")), bootstrap, flags)
    }

    /// The same with another program that takes Envoy's flags.
    pub(crate) fn launch(mut program: Command, bootstrap: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("bootstrap.yaml");
        let admin_path = dir.path().join("admin");
        std::fs::write(&config, bootstrap).unwrap();
        let mut child = program
            .args(["-c", config.to_str().unwrap(), "--file-flush-interval-msec", "10"])
            .args([
                "--config-yaml",
                "admin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }",
            ])
            .args(["--admin-address-path", admin_path.to_str().unwrap()])
            .args(flags)
            .current_dir(dir.path())
            .stderr(Stdio::inherit())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(admin) = std::fs::read_to_string(&admin_path)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                return Self { child, admin, dir };
            }
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "the proxy ended: {ended:?}");
            assert!(Instant::now() < deadline, "no admin address");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A page of the admin interface.
    pub(crate) fn admin(&self, method: &str, path: &str) -> String {
        get(self.admin, method, "admin", path)
            .expect("the admin interface answers")
            .1
    }

    /// Waits until the admin interface says LIVE.
    pub(crate) fn wait_live(&self) {
        eventually("the proxy is live", || {
            (self.admin("GET", "/ready") == "LIVE\n").then_some(())
        });
    }

    /// Where a listener listens, once it does.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        let prefix = format!("{name}::");
        eventually(&format!("listener {name} is there"), || {
            let listeners = self.admin("GET", "/listeners");
            listeners
                .lines()
                .find_map(|line| line.strip_prefix(&prefix)?.parse().ok())
        })
    }

    /// The value of a counter or gauge; absent counts as nothing.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let stats = self.admin("GET", "/stats");
        let prefix = format!("{name}: ");
        stats
            .lines()
            .find_map(|line| line.strip_prefix(&prefix)?.parse().ok())
            .unwrap_or(0)
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(mut self) -> std::process::ExitStatus {
        self.terminate()
    }

    /// The same; what it has written is there to be read.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait(&mut self.child)
    }
}

/// Waits for the end of a process; one that does not end in time is killed.
pub(crate) fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process did not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer, and fails after [`PATIENCE`].
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends one request on a connection of its own; status and body.
pub(crate) fn get(address: SocketAddr, method: &str, host: &str, path: &str) -> Option<(u16, String)> {
    Client::connect(address)?.request(method, host, path)
}

/// A connection that waits for nothing for ever.
pub(crate) fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A keep-alive HTTP/1.1 connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    /// The last answer has said that it ends the connection.
    is_over: bool,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Option<Self> {
        Some(Self {
            stream: BufReader::new(connect(address).ok()?),
            is_over: false,
        })
    }

    /// Whether the last answer has said that it ends the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn request(&mut self, method: &str, host: &str, path: &str) -> Option<(u16, String)> {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).ok()?;
        self.response()
    }

    fn response(&mut self) -> Option<(u16, String)> {
        let mut line = String::new();
        self.stream.read_line(&mut line).ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let mut header = String::new();
            self.stream.read_line(&mut header).ok()?;
            let header = header.trim_end().to_ascii_lowercase();
            match header.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse().ok()?,
                Some(("transfer-encoding", "chunked")) => chunked = true,
                Some(("connection", "close")) => self.is_over = true,
                Some(_) => {}
            }
        }
        let body = if chunked {
            self.chunks()?
        } else {
            self.exactly(length)?
        };
        Some((status, String::from_utf8(body).ok()?))
    }

    fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).ok()?;
        Some(body)
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut size = String::new();
            self.stream.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
            body.extend(self.exactly(size)?);
            self.exactly(2)?;
            if size == 0 {
                return Some(body);
            }
        }
    }
}

/// An HTTP upstream that answers every request with its name and the request's path.
pub(crate) fn http_upstream(name: &'static str) -> SocketAddr {
    upstream(Ipv4Addr::LOCALHOST, move |stream| {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let path = line.split(' ').nth(1).unwrap_or("?").to_owned();
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    return;
                }
            }
            let body = format!("{name} {path}");
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// A TCP upstream that greets with its name and then returns what it gets.
pub(crate) fn echo_upstream(name: &'static str) -> SocketAddr {
    echo_upstream_at(Ipv4Addr::LOCALHOST, name)
}

/// The same on another loopback address.
pub(crate) fn echo_upstream_at(ip: Ipv4Addr, name: &'static str) -> SocketAddr {
    upstream(ip, move |mut stream| {
        let _ = stream.write_all(format!("{name}\n").as_bytes());
        let mut reading = stream.try_clone().unwrap();
        let _ = std::io::copy(&mut reading, &mut stream);
    })
}

/// An upstream that serves each connection so, on a thread of its own.
pub(crate) fn upstream_with(serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    upstream(Ipv4Addr::LOCALHOST, serve)
}

fn upstream(ip: Ipv4Addr, serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A static cluster with one endpoint, as YAML or JSON flow text.
pub(crate) fn cluster(name: &str, address: SocketAddr) -> String {
    format!(
        "{{ name: {name}, connect_timeout: 1s, type: STATIC, load_assignment: {{ cluster_name: {name}, endpoints: \
         [{{ lb_endpoints: [{{ endpoint: {{ address: {} }} }}] }}] }} }}",
        socket(address)
    )
}

/// A cluster that is spoken to as this `upstream_protocol_options` says.
pub(crate) fn cluster_with(name: &str, address: SocketAddr, options: &str) -> String {
    let plain = cluster(name, address);
    let fields = plain.strip_suffix('}').unwrap();
    format!(
        "{fields}, typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \
         \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {options} }} }} }}"
    )
}

/// What a cluster for HTTP/2 says.
pub(crate) const HTTP2: &str = "explicit_http_config: { http2_protocol_options: {} }";

/// An address as flow text.
pub(crate) fn socket(address: SocketAddr) -> String {
    format!(
        "{{ socket_address: {{ address: \"{}\", port_value: {} }} }}",
        address.ip(),
        address.port()
    )
}

/// A filter list with an HTTP connection manager that sends everything to `cluster`.
pub(crate) fn http_filters(cluster: &str) -> String {
    format!(
        "[{{ name: http, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: http, route_config: {{ name: local, virtual_hosts: [{{ name: all, domains: [\"*\"], routes: \
         [{{ match: {{ prefix: / }}, route: {{ cluster: {cluster} }} }}] }}] }}, http_filters: [{{ name: router, \
         typed_config: {{ \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }} }}] }} }}]"
    )
}

/// A filter list with a TCP proxy to `cluster`.
pub(crate) fn tcp_filters(cluster: &str) -> String {
    format!(
        "[{{ name: tcp, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp, \
         cluster: {cluster} }} }}]"
    )
}

/// A listener on a free port, with one filter chain.
pub(crate) fn listener(name: &str, filters: &str) -> String {
    format!(
        "{{ name: {name}, address: {}, filter_chains: [{{ filters: {filters} }}] }}",
        socket("127.0.0.1:0".parse().unwrap())
    )
}

/// An access log in this format, as the field of a filter or listener.
pub(crate) fn access_log(file: &str, format: &str) -> String {
    format!(
        ", access_log: [{{ name: file, typed_config: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: {file}, log_format: {{ \
         text_format_source: {{ inline_string: \"{format}\\n\" }} }} }} }}]"
    )
}

/// The lines of a file that the proxy writes, once there are so many.
pub(crate) fn lines(proxy: &Proxy, file: &str, count: usize) -> Vec<String> {
    eventually("the lines are written", || {
        let text = std::fs::read_to_string(proxy.path(file)).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// A bootstrap with these static listeners and clusters.
pub(crate) fn bootstrap(listeners: &[String], clusters: &[String]) -> String {
    format!(
        "static_resources: {{ listeners: [{}], clusters: [{}] }}",
        listeners.join(","),
        clusters.join(",")
    )
}
