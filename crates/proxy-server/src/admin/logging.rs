//! `/logging`: which levels are in force, and changing them.

use super::reply::{Query, Reply};
use crate::args::tracing_level;

/// The parts of this proxy that log, by the names of their crates.
const LOGGERS: &[&str] = &[
    "net",
    "proxy_config",
    "proxy_filters",
    "proxy_http",
    "proxy_router",
    "proxy_server",
    "proxy_upstream",
    "telemetry",
    "xds",
];

const USAGE: &str = "\nusage: /logging?<name>=<level> (change single level)\n\
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
usage: /logging?level=<level> (change all levels)\nlevels: trace debug info warning error critical off\n";

/// Changes what the query asks for and lists the levels in force.
#[must_use]
pub fn logging(query: &Query) -> Reply {
    for (name, value) in query.iter() {
        let changed = match name {
            "level" => level(value).map(ToOwned::to_owned),
            "paths" => value.split(',').try_fold(current(), |filter, pair| {
                let (name, value) = pair.split_once(':').ok_or("invalid logger name or level")?;
                one(&filter, name, value)
            }),
            name => one(&current(), name, value),
        };
        let applied = changed
            .map_err(ToOwned::to_owned)
            .and_then(|filter| telemetry::logging::set_filter(&filter));
        if let Err(error) = applied {
            return Reply::error(400, format!("error: {error}\n{USAGE}"));
        }
    }
    let filter = current();
    let lines = LOGGERS
        .iter()
        .map(|logger| format!("  {logger}: {}\n", in_force(&filter, logger)));
    Reply::text(format!("active loggers:\n{}\n", lines.collect::<String>()))
}

fn level(name: &str) -> Result<&'static str, &'static str> {
    tracing_level(name).ok_or("unknown logger level")
}

fn current() -> String {
    telemetry::logging::filter().unwrap_or_else(|| "off".to_owned())
}

/// The filter with one logger's level changed.
fn one(filter: &str, name: &str, value: &str) -> Result<String, &'static str> {
    if !LOGGERS.contains(&name) {
        return Err("unknown logger name");
    }
    let level = level(value)?;
    let others = filter
        .split(',')
        .filter(|d| !d.starts_with(&format!("{name}=")) && !d.is_empty());
    Ok(others
        .map(ToOwned::to_owned)
        .chain([format!("{name}={level}")])
        .collect::<Vec<_>>()
        .join(","))
}

fn in_force(filter: &str, logger: &str) -> String {
    let own = filter
        .split(',')
        .find_map(|d| d.strip_prefix(logger)?.strip_prefix('='));
    let all = filter.split(',').find(|d| !d.contains('='));
    let level = own.or(all).unwrap_or("off").to_ascii_lowercase();
    if level == "warn" {
        "warning".to_owned()
    } else {
        level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loggers_level_is_changed_and_the_others_stay() {
        let filter = one("info,xds=debug", "proxy_http", "warning").unwrap();
        assert_eq!(in_force(&filter, "proxy_http"), "warning");
        assert_eq!(in_force(&filter, "xds"), "debug");
        assert_eq!(in_force(&filter, "net"), "info");
        assert!(one("info", "nobody", "info").is_err());
    }
}
