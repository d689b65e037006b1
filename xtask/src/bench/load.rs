//! The load, and what it cost.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::output;

/// CPU time and memory of a process and its children.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    user_s: f64,
    system_s: f64,
    /// Resident set, kibibytes.
    pub(crate) rss_kib: u64,
}

impl Usage {
    /// User and system CPU since then, seconds.
    pub(crate) fn since(&self, before: &Self) -> (f64, f64) {
        (self.user_s - before.user_s, self.system_s - before.system_s)
    }
}

/// What wrk reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    requests: u64,
    errors: u64,
    p50_ms: f64,
    p99_ms: f64,
}

/// One proxy in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Requests answered.
    pub(crate) requests: u64,
    /// User CPU, microseconds per request.
    pub(crate) user_us: f64,
    /// System CPU, microseconds per request.
    pub(crate) system_us: f64,
    /// Median latency.
    pub(crate) p50_ms: f64,
    /// 99th percentile of latency.
    pub(crate) p99_ms: f64,
    /// Resident set before any load.
    pub(crate) idle_kib: u64,
    /// Resident set after the load.
    pub(crate) loaded_kib: u64,
}

impl Sample {
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn new(load: &Load, before: Usage, after: Usage, idle_kib: u64) -> Self {
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
    pub(crate) fn cpu_us(&self) -> f64 {
        self.user_us + self.system_us
    }
}

/// Waits until something answers HTTP on a loopback port.
pub(crate) fn wait_for(port: u16, limit: Duration) -> Result<()> {
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
pub(crate) fn wrk(port: u16, connections: u32, seconds: u64) -> Result<Load> {
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
pub(crate) fn usage(pid: u32) -> Result<Usage> {
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
    use super::parse;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "Running 1s test\n  Latency Distribution\n     50%    1.20ms\n     75%    2.00ms\n     90%    3.00ms\n     99%  900.00us\n  \
                    5000 requests in 1.00s, 6MB read\n  Non-2xx or 3xx responses: 3\nRequests/sec:  5000\n";
        let load = parse(text).unwrap();
        assert_eq!((load.requests, load.errors), (5000, 3));
        assert!((load.p50_ms - 1.2).abs() < 1e-9 && (load.p99_ms - 0.9).abs() < 1e-9);
    }
}
