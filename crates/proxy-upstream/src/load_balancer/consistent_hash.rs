//! Consistent hashing: ring hash (ketama) and Maglev, entry for entry as Envoy builds them, so that a request's hash
//! leads to the same host in either proxy.

use std::rc::Rc;

use twox_hash::XxHash64;

use super::{RingHashConfig, weight};
use crate::host::Host;

/// What is hashed of a host: its own key, else its name or address.
fn hash_key(host: &Host, use_hostname: bool) -> String {
    host.with_spec(|spec| match &spec.hash_key {
        Some(key) => key.to_string(),
        None if use_hostname => spec.hostname.to_string(),
        None => spec.address.to_string(),
    })
}

/// Each host's share of the sum of weights.
fn shares(hosts: &[Rc<Host>]) -> Vec<f64> {
    let sum: f64 = hosts.iter().map(|h| f64::from(weight(h))).sum();
    hosts.iter().map(|h| f64::from(weight(h)) / sum).collect()
}

/// A ring of hashes; a request goes to the first entry at or after its own hash.
#[derive(Debug)]
pub(super) struct Ring {
    entries: Vec<(u64, u32)>,
}

impl Ring {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    pub(super) fn new(config: &RingHashConfig, hosts: &[Rc<Host>]) -> Self {
        let shares = shares(hosts);
        let smallest = shares.iter().copied().fold(f64::INFINITY, f64::min);
        if !smallest.is_finite() {
            return Self { entries: Vec::new() };
        }
        // The host with the least weight gets a whole number of entries, unless the ring would grow too large.
        let scale = ((smallest * config.min_size as f64).ceil() / smallest).min(config.max_size as f64);
        let mut entries = Vec::with_capacity(scale.ceil() as usize);
        let (mut placed, mut target) = (0.0, 0.0);
        let mut key = String::new();
        for (index, (host, share)) in hosts.iter().zip(&shares).enumerate() {
            let prefix = hash_key(host, config.use_hostname);
            target += scale * share;
            let mut i = 0_u64;
            while placed < target {
                key.clear();
                let _ = std::fmt::Write::write_fmt(&mut key, format_args!("{prefix}_{i}"));
                entries.push((XxHash64::oneshot(0, key.as_bytes()), index as u32));
                i += 1;
                placed += 1.0;
            }
        }
        entries.sort_by_key(|(hash, _)| *hash);
        Self { entries }
    }

    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        let first = self.entries.partition_point(|(entry, _)| *entry < hash);
        let at = first % self.entries.len().max(1);
        let index = (at + attempt as usize) % self.entries.len().max(1);
        self.entries.get(index).map(|(_, host)| *host as usize)
    }
}

/// A Maglev table: hosts fill it in turn, each following its own permutation.
#[derive(Debug)]
pub(super) struct MaglevTable {
    table: Vec<u32>,
}

struct Filler {
    offset: u64,
    skip: u64,
    share: f64,
    target: f64,
    next: u64,
}

impl Filler {
    fn slot(&self, size: u64) -> usize {
        usize::try_from((self.offset + self.skip * self.next) % size).unwrap_or_default()
    }
}

impl MaglevTable {
    const EMPTY: u32 = u32::MAX;

    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn new(size: u64, use_hostname: bool, hosts: &[Rc<Host>]) -> Self {
        if hosts.is_empty() {
            return Self { table: Vec::new() };
        }
        let shares = shares(hosts);
        let largest = shares.iter().copied().fold(0.0, f64::max);
        let mut fillers: Vec<Filler> = hosts
            .iter()
            .zip(&shares)
            .map(|(host, share)| {
                let key = hash_key(host, use_hostname);
                let hash = |seed| XxHash64::oneshot(seed, key.as_bytes());
                let (offset, skip) = (hash(0) % size, hash(1) % (size - 1).max(1) + 1);
                Filler {
                    offset,
                    skip,
                    share: *share,
                    target: 0.0,
                    next: 0,
                }
            })
            .collect();
        let mut table = vec![Self::EMPTY; size as usize];
        let mut filled = 0;
        let mut round = 0.0;
        while filled < size {
            round += 1.0;
            for (index, filler) in fillers.iter_mut().enumerate() {
                // A host of the largest weight fills a slot in every round, the others in some.
                if round * filler.share < filler.target {
                    continue;
                }
                filler.target += largest;
                while table[filler.slot(size)] != Self::EMPTY {
                    filler.next += 1;
                }
                table[filler.slot(size)] = index as u32;
                filler.next += 1;
                filled += 1;
                if filled == size {
                    break;
                }
            }
        }
        Self { table }
    }

    pub(super) fn pick(&self, hash: u64, attempt: u32) -> Option<usize> {
        let hash = if attempt == 0 {
            hash
        } else {
            hash ^ (u64::MAX - u64::from(attempt) + 1)
        };
        let slot = usize::try_from(hash % self.table.len().max(1) as u64).ok()?;
        self.table.get(slot).map(|host| *host as usize)
    }
}
