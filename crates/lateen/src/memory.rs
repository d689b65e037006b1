//! How much memory processes take: proportional set size, which counts shared pages once over all of them.

/// The sum over processes, in bytes; a process that has ended counts nothing.
pub(crate) fn proportional_set_size(pids: impl IntoIterator<Item = u32>) -> u64 {
    pids.into_iter().filter_map(of_process).sum()
}

/// `Pss` of `/proc/PID/smaps_rollup` (proc(5)).
fn of_process(pid: u32) -> Option<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// `58.3 MB`, in millions of bytes.
#[allow(clippy::cast_precision_loss, reason = "nobody reads more than three digits")]
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_some_memory_and_a_missing_one_takes_none() {
        let own = proportional_set_size([std::process::id()]);
        assert!(own > 100_000, "{own}");
        assert_eq!(proportional_set_size([u32::MAX]), 0);
        assert_eq!(megabytes(58_340_000), "58.3 MB");
    }
}
