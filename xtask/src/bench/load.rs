//! The load, and what it cost.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::output;

/// CPU time and memory of a process and its children.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    user_s: f64,
    system_s: f64,
    /// Resident set, kibibytes.
    pub(super) rss_kib: u64,
}

impl Usage {
    /// User and system CPU since then, seconds.
    pub(super) fn since(&self, before: &Self) -> (f64, f64) {
        (self.user_s - before.user_s, self.system_s - before.system_s)
    }
}

/// What a load generator reports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    requests: u64,
    errors: u64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Load {
    /// So many requests, of which nobody knows how long they took.
    pub(super) fn counted(requests: u64) -> Self {
        Self {
            requests,
            errors: 0,
            p50_ms: f64::NAN,
            p99_ms: f64::NAN,
        }
    }
}

/// What h2load does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Http2Load<'a> {
    /// Connections.
    pub(super) connections: u32,
    /// Streams at the same time, on each.
    pub(super) streams: u32,
    /// What is asked for.
    pub(super) path: &'a str,
    /// The file with the body of every request, which is then a POST.
    pub(super) body: Option<&'a Path>,
    /// `name: value`.
    pub(super) headers: &'a [&'a str],
}

/// One proxy in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Requests answered.
    pub(super) requests: u64,
    /// User CPU, microseconds per request.
    pub(super) user_us: f64,
    /// System CPU, microseconds per request.
    pub(super) system_us: f64,
    /// Median latency.
    pub(super) p50_ms: f64,
    /// 99th percentile of latency.
    pub(super) p99_ms: f64,
    /// Resident set before any load.
    pub(super) idle_kib: u64,
    /// Resident set after the load.
    pub(super) loaded_kib: u64,
}

impl Sample {
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn new(load: &Load, before: Usage, after: Usage, idle_kib: u64) -> Self {
        let each = |seconds: f64| seconds * 1e6 / load.requests as f64;
        Self {
            requests: load.requests,
            user_us: each(after.user_s - before.user_s),
            system_us: each(after.system_s - before.system_s),
            p50_ms: load.p50_ms,
            p99_ms: load.p99_ms,
            idle_kib,
            loaded_kib: after.rss_kib,
        }
    }

    /// CPU per request, microseconds.
    pub(super) fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// Waits until something answers HTTP on a loopback port.
pub(super) fn wait_for(port: u16, limit: Duration) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nothing listens on {address} after {limit:?}")
}

/// Bounded load on a loopback port.
pub(super) fn wrk(port: u16, connections: u32, seconds: u64) -> Result<Load> {
    let mut command = Command::new("wrk");
    command.args([
        "-t1",
        &format!("-c{connections}"),
        &format!("-d{seconds}s"),
        "--latency",
    ]);
    let text = output(command.arg(format!("http://127.0.0.1:{port}/bench")))?;
    let load = parse(&text).with_context(|| format!("wrk printed: {text}"))?;
    if load.errors > 0 {
        bail!("{} of {} requests failed: {text}", load.errors, load.requests);
    }
    Ok(load)
}

/// Bounded load by HTTP/2 with prior knowledge on a loopback port. `log` takes a line per request.
pub(super) fn h2load(port: u16, load: &Http2Load<'_>, seconds: u64, log: &Path) -> Result<Load> {
    // It appends.
    let _ = std::fs::remove_file(log);
    let mut command = Command::new("h2load");
    command.args([
        "-t1",
        &format!("-c{}", load.connections),
        &format!("-m{}", load.streams),
        &format!("-D{seconds}"),
        &format!("--log-file={}", log.display()),
    ]);
    request_arguments(&mut command, load);
    let text = output(command.arg(format!("http://127.0.0.1:{port}{}", load.path)))?;
    let counts = h2load_counts(&text).with_context(|| format!("h2load printed: {text}"))?;
    let mut microseconds = latencies(&std::fs::read_to_string(log)?);
    microseconds.sort_unstable();
    let load = Load {
        p50_ms: percentile(&microseconds, 50),
        p99_ms: percentile(&microseconds, 99),
        ..counts
    };
    if load.errors > 0 || load.requests == 0 {
        bail!("{} of {} requests failed: {text}", load.errors, load.requests);
    }
    Ok(load)
}

/// Makes sure that what is called answers as gRPC servers do.
pub(super) fn ends_with_grpc_status(port: u16, load: &Http2Load<'_>) -> Result<()> {
    let mut command = Command::new("nghttp");
    command.arg("-v");
    request_arguments(&mut command, load);
    let printed = command
        .arg(format!("http://127.0.0.1:{port}{}", load.path))
        .output()?;
    let text = String::from_utf8_lossy(&printed.stdout);
    if !text.contains("grpc-status: 0") {
        bail!("no gRPC status comes back: {text}");
    }
    Ok(())
}

fn request_arguments(command: &mut Command, load: &Http2Load<'_>) {
    if let Some(body) = load.body {
        command.arg("-d").arg(body);
    }
    for header in load.headers {
        command.args(["-H", header]);
    }
}

/// Reads `requests: 9 total, 9 started, 9 done, 8 succeeded, 1 failed, 0 errored, 0 timeout`.
fn h2load_counts(text: &str) -> Option<Load> {
    let line = text.lines().find_map(|l| l.strip_prefix("requests: "))?;
    let count = |word: &str| -> Option<u64> {
        line.split(", ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    let (done, succeeded) = (count(" done")?, count(" succeeded")?);
    Some(Load {
        errors: done - succeeded,
        ..Load::counted(succeeded)
    })
}

/// The last column of h2load's log: microseconds that a request took.
fn latencies(log: &str) -> Vec<u32> {
    log.lines()
        .filter_map(|l| l.rsplit('\t').next()?.parse().ok())
        .collect()
}

fn percentile(sorted: &[u32], percent: usize) -> f64 {
    let at = sorted.len() * percent / 100;
    sorted
        .get(at)
        .map_or(f64::NAN, |microseconds| f64::from(*microseconds) / 1e3)
}

fn parse(text: &str) -> Option<Load> {
    let value = |label: &str| {
        let line = text.lines().find(|l| l.trim_start().starts_with(label))?;
        milliseconds(line.split_whitespace().nth(1)?)
    };
    let line = text.lines().find(|l| l.contains("requests in"))?;
    let requests = line.split_whitespace().next()?.parse().ok()?;
    let refused = text.lines().find(|l| l.contains("Non-2xx or 3xx responses"));
    let errors = refused
        .and_then(|l| l.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0);
    Some(Load {
        requests,
        errors,
        p50_ms: value("50%")?,
        p99_ms: value("99%")?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = match text {
        t if t.ends_with("us") => (t.trim_end_matches("us"), 0.001),
        t if t.ends_with("ms") => (t.trim_end_matches("ms"), 1.0),
        t => (t.trim_end_matches('s'), 1000.0),
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// Sums a process and its children from `/proc`.
pub(super) fn usage(pid: u32) -> Result<Usage> {
    let ticks = super::ticks_per_second()?;
    let mut total = Usage::default();
    for pid in family(pid) {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the proxy has ended")?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let field = |n: usize| fields.get(n).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        total.user_s += field(11) / ticks;
        total.system_s += field(12) / ticks;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .unwrap_or_default();
        total.rss_kib += rss
            .split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .unwrap_or(0);
    }
    Ok(total)
}

fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut all = vec![pid];
    all.extend(
        children
            .split_whitespace()
            .filter_map(|c| c.parse::<u32>().ok())
            .flat_map(family),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "Running 1s test\n  Latency Distribution\n     50%    1.20ms\n     75%    2.00ms\n     90%    3.00ms\n     99%  900.00us\n  \
                    5000 requests in 1.00s, 6MB read\n  Non-2xx or 3xx responses: 3\nRequests/sec:  5000\n";
        let load = parse(text).unwrap();
        assert_eq!((load.requests, load.errors), (5000, 3));
        assert!((load.p50_ms - 1.2).abs() < 1e-9 && (load.p99_ms - 0.9).abs() < 1e-9);
    }

    #[test]
    fn what_h2load_prints_is_read() {
        let load = h2load_counts(
            "finished in 1s\nrequests: 9 total, 9 started, 9 done, 8 succeeded, 1 failed, 0 errored, 0 timeout\n",
        );
        assert_eq!(load.map(|l| (l.requests, l.errors)), Some((8, 1)));
        let times = latencies("1795298429892387\t200\t1500\n1795298429892390\t200\t2500\n");
        assert!((percentile(&times, 50) - 2.5).abs() < 1e-9 && percentile(&[], 50).is_nan());
    }
}
