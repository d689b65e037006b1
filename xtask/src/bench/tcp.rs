//! `cargo xtask bench tcp`: CPU of a proxy per gigabyte of plain TCP, beside Envoy and HAProxy (copying, and with splice).
//!
//! Some connections carry bytes from a server to clients as fast as they go, all in this process; counted is what the
//! clients receive, and what the proxy alone spends meanwhile. One worker each, interleaved rounds, medians.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::figure::{Figure, verdict};
use super::proxies::{self, Proxy, free_port, write};
use super::report::median_of;
use super::{Plan, configuration, limits, load};

/// Clients' connections.
const CONNECTIONS: u32 = 4;
/// Bytes of a gigabyte.
const GIGABYTE: f64 = 1e9;
/// Bytes that the server writes, and the clients read, at once.
const CHUNK_BYTES: usize = 256 * 1024;
/// How long nothing may come before the run has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// One proxy in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    gigabytes: f64,
    seconds: f64,
    user_s: f64,
    system_s: f64,
    rss_kib: u64,
}

impl Sample {
    fn cpu_per_gigabyte(&self) -> f64 {
        (self.user_s + self.system_s) / self.gigabytes
    }
}

/// Runs the bench, prints the table and writes `target/bench/tcp.json`. False when the figure that must hold does not.
pub(super) fn run(plan: &Plan, dir: &Path) -> Result<bool> {
    let (rounds, connections) = (plan.rounds, plan.connections.unwrap_or(CONNECTIONS) as usize);
    let upstream = endless_upstream()?;
    let contenders = contenders(dir, upstream)?;
    let mut samples: Vec<(&'static str, Vec<Sample>)> =
        contenders.iter().map(|proxy| (proxy.name, Vec::new())).collect();
    for round in 1..=rounds {
        for (proxy, (name, collected)) in contenders.iter().zip(&mut samples) {
            let sample = measure(proxy, connections, Duration::from_secs(plan.seconds));
            let sample = sample.with_context(|| format!("{name} in round {round}"))?;
            println!(
                "round {round}  {name:<14} {:>5.2} CPU s/GB  {:>6.2} GB/s",
                sample.cpu_per_gigabyte(),
                sample.gigabytes / sample.seconds
            );
            collected.push(sample);
        }
    }
    print(&samples, rounds, connections);
    let file = dir.join("tcp.json");
    std::fs::write(&file, serde_json::to_string_pretty(&document(&samples))?)?;
    println!("\nwritten to {}", file.display());
    let ratio = of_best(&samples);
    Ok(verdict(&[Figure::at_most(
        "CPU per gigabyte of the best other's",
        ratio,
        limits::TCP_OF_BEST,
    )]))
}

/// A server that writes to each connection for as long as it lasts.
fn endless_upstream() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = stream;
                let chunk = vec![b'x'; CHUNK_BYTES];
                // The end of a round ends its connections.
                while stream.write_all(&chunk).is_ok() {}
            });
        }
    });
    Ok(port)
}

fn contenders(dir: &Path, upstream: u16) -> Result<Vec<Proxy>> {
    let mut contenders = proxies::both(dir, "tcp", |port| {
        let listener = configuration::listener(port, &configuration::tcp(), None);
        Ok(configuration::bootstrap(
            &listener,
            &configuration::upstream(upstream),
        ))
    })?;
    for (name, option) in [("haproxy", ""), ("haproxy-splice", "  option splice-auto\n")] {
        let port = free_port()?;
        let file = write(dir, &format!("{name}-tcp.cfg"), &haproxy(port, upstream, option))?;
        contenders.push(Proxy::new(name, port, "haproxy", &["-db", "-f", &file], dir)?);
    }
    Ok(contenders)
}

fn haproxy(port: u16, upstream: u16, option: &str) -> String {
    format!(
        "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n{option}\
         frontend f\n  bind 127.0.0.1:{port}\n  default_backend b\nbackend b\n  server s 127.0.0.1:{upstream}\n"
    )
}

/// Starts a proxy, lets the connections run for a while, and stops it.
fn measure(proxy: &Proxy, connections: usize, time: Duration) -> Result<Sample> {
    let running = proxy.start()?;
    load::wait_for(proxy.port, Duration::from_secs(20))?;
    let received = Arc::new(AtomicU64::new(0));
    let clients: Vec<Client> = (0..connections)
        .map(|_| Client::start(proxy.port, &received))
        .collect::<Result<_>>()?;
    // What is counted is the steady part.
    std::thread::sleep(Duration::from_millis(500));
    let (start, before) = (Instant::now(), load::usage(running.pid())?);
    let first = received.load(Ordering::Relaxed);
    std::thread::sleep(time);
    let (last, after) = (received.load(Ordering::Relaxed), load::usage(running.pid())?);
    let seconds = start.elapsed().as_secs_f64();
    clients.into_iter().try_for_each(Client::stop)?;
    anyhow::ensure!(last > first, "nothing came through");
    let (user_s, system_s) = after.since(&before);
    #[allow(clippy::cast_precision_loss)]
    let gigabytes = (last - first) as f64 / GIGABYTE;
    Ok(Sample {
        gigabytes,
        seconds,
        user_s,
        system_s,
        rss_kib: after.rss_kib,
    })
}

/// A connection whose bytes are read and counted.
struct Client {
    stream: TcpStream,
    reader: JoinHandle<()>,
}

impl Client {
    fn start(port: u16, received: &Arc<AtomicU64>) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let (mut reading, received) = (stream.try_clone()?, Arc::clone(received));
        let reader = std::thread::spawn(move || {
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(count @ 1..) = reading.read(&mut chunk) {
                received.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { stream, reader })
    }

    fn stop(self) -> Result<()> {
        // The other side may have ended it already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        self.reader
            .join()
            .map_err(|_| anyhow::anyhow!("a client panicked"))
    }
}

type Samples = [(&'static str, Vec<Sample>)];

fn median(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    median_of(samples.iter().map(value).collect())
}

/// The median over the rounds of our CPU per gigabyte against the least of the others' in the same round.
fn of_best(samples: &Samples) -> f64 {
    let Some(((_, ours), others)) = samples.split_first() else {
        return f64::NAN;
    };
    let ratios = ours.iter().enumerate().map(|(round, sample)| {
        let others = others.iter().filter_map(|(_, rows)| rows.get(round));
        let best = others.map(Sample::cpu_per_gigabyte).fold(f64::INFINITY, f64::min);
        sample.cpu_per_gigabyte() / best
    });
    median_of(ratios.collect())
}

#[allow(clippy::cast_precision_loss)]
fn print(samples: &Samples, rounds: usize, connections: usize) {
    println!(
        "\nPlain TCP, {connections} connections, one worker each; medians of {rounds} interleaved rounds\n"
    );
    println!("| proxy | CPU s/GB | user | system | GB/s | RSS MB |");
    println!("|---|---|---|---|---|---|");
    for (name, rows) in samples {
        println!(
            "| {name} | {:.3} | {:.3} | {:.3} | {:.2} | {:.1} |",
            median(rows, Sample::cpu_per_gigabyte),
            median(rows, |s| s.user_s / s.gigabytes),
            median(rows, |s| s.system_s / s.gigabytes),
            median(rows, |s| s.gigabytes / s.seconds),
            median(rows, |s| s.rss_kib as f64) / 1024.0,
        );
    }
}

fn document(samples: &Samples) -> serde_json::Value {
    let rows = |rows: &[Sample]| -> Vec<serde_json::Value> {
        let row = |s: &Sample| {
            serde_json::json!({
                "gigabytes": s.gigabytes, "seconds": s.seconds, "user_s": s.user_s, "system_s": s.system_s,
                "rss_kib": s.rss_kib,
            })
        };
        rows.iter().map(row).collect()
    };
    let proxies = samples
        .iter()
        .map(|(name, samples)| ((*name).to_owned(), rows(samples).into()));
    serde_json::json!({ "proxies": proxies.collect::<serde_json::Map<_, _>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: f64) -> Sample {
        Sample {
            gigabytes: 2.0,
            seconds: 1.0,
            user_s: cpu,
            system_s: cpu,
            rss_kib: 1,
        }
    }

    #[test]
    fn we_are_compared_with_the_best_of_each_round() {
        let rows = |cpu: [f64; 3]| cpu.map(sample).to_vec();
        let samples = [
            ("lateen", rows([1.0, 1.0, 1.0])),
            ("envoy", rows([2.0, 4.0, 2.0])),
            ("haproxy", rows([4.0, 2.0, 1.0])),
        ];
        assert!((of_best(&samples) - 0.5).abs() < 1e-9);
    }
}
