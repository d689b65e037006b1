//! The same load on each contender, one after the other, again and again.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::figure::{Figure, verdict};
use super::load::{self, Load, Sample};
use super::proxies::Proxy;
use super::report::{self, Samples};
use super::{Plan, START};

/// What is compared.
pub(super) struct Contest<'a> {
    /// What the table is called.
    pub(super) title: &'a str,
    /// The file's name, without its ending.
    pub(super) file: &'a str,
    /// We are the first of them.
    pub(super) contenders: Vec<Proxy>,
    /// Loads a port for so many seconds.
    pub(super) load: &'a dyn Fn(u16, u64) -> Result<Load>,
}

impl Contest<'_> {
    /// Runs all rounds, prints each and the medians, and writes the samples.
    pub(super) fn run(&self, plan: &Plan, dir: &Path) -> Result<Vec<(&'static str, Vec<Sample>)>> {
        let mut samples: Vec<(&'static str, Vec<Sample>)> =
            self.contenders.iter().map(|p| (p.name, Vec::new())).collect();
        for round in 1..=plan.rounds {
            for (proxy, (_, collected)) in self.contenders.iter().zip(&mut samples) {
                let sample = self.measure(proxy, plan);
                let sample = sample.with_context(|| format!("{} in round {round}", proxy.name))?;
                println!(
                    "round {round}  {:<8} {:>7.2} µs/request  {:>8} requests  p99 {:>6.2} ms",
                    proxy.name,
                    sample.cpu_us(),
                    sample.requests,
                    sample.p99_ms
                );
                collected.push(sample);
            }
        }
        report::print(
            &samples,
            &format!("{}; medians of {} interleaved rounds", self.title, plan.rounds),
        );
        let file = dir.join(format!("{}.json", self.file));
        report::write(&file, &samples)?;
        println!("\nwritten to {}", file.display());
        Ok(samples)
    }

    /// Starts a proxy, loads it, and stops it.
    fn measure(&self, proxy: &Proxy, plan: &Plan) -> Result<Sample> {
        let (running, _companion) = proxy.start_all()?;
        load::wait_for(proxy.port, START)?;
        load::wait_for(proxy.entry(), START)?;
        // A short warm-up opens the connections, so that the counted part is steady.
        (self.load)(proxy.entry(), 1)?;
        std::thread::sleep(Duration::from_millis(500));
        let before = load::usage(running.pid())?;
        let result = (self.load)(proxy.entry(), plan.seconds)?;
        let after = load::usage(running.pid())?;
        Ok(Sample::new(&result, before, after, proxy.idle_rss_kib))
    }

    /// Runs, and says whether our CPU per request is at most that fraction of Envoy's.
    pub(super) fn against_envoy(&self, plan: &Plan, dir: &Path, limit: f64) -> Result<bool> {
        let samples: &Samples = &self.run(plan, dir)?;
        let ratio = report::ratio(samples, "lateen", "envoy");
        Ok(verdict(&[Figure::at_most(
            "CPU per request of Envoy's",
            ratio,
            limit,
        )]))
    }
}
