//! Every path of the admin interface, in one table.

use std::rc::Rc;

use super::reply::{Query, Reply};
use super::source::{AdminSource, DrainRequest};
use super::{certs, clusters, config_dump, info, logging, stats};

/// How a path is answered.
type Handler = fn(&dyn AdminSource, &Query) -> Reply;

/// A path, whether it changes something (and so wants POST), its help line, and its handler.
struct Page {
    path: &'static str,
    mutates: bool,
    help: &'static str,
    handler: Handler,
}

const fn page(path: &'static str, mutates: bool, help: &'static str, handler: Handler) -> Page {
    Page {
        path,
        mutates,
        help,
        handler,
    }
}

/// The pages, in the order of `/help`. `/clusters` is not among them because it asks the workers.
const PAGES: &[Page] = &[
    page("/", false, "Admin home page", |_, _| help()),
    page("/certs", false, "print certs on machine", |s, _| certs::certs(s)),
    page(
        "/config_dump",
        false,
        "dump current Envoy configs",
        config_dump::config_dump,
    ),
    page("/drain_listeners", true, "drain listeners", drain_listeners),
    page(
        "/healthcheck/fail",
        true,
        "cause the server to fail health checks",
        |s, _| fail_health_check(s, true),
    ),
    page(
        "/healthcheck/ok",
        true,
        "cause the server to pass health checks",
        |s, _| fail_health_check(s, false),
    ),
    page("/help", false, "print out list of admin commands", |_, _| help()),
    page(
        "/hot_restart_version",
        false,
        "print the hot restart compatibility version",
        |_, _| Reply::text("disabled"),
    ),
    page("/listeners", false, "print listener info", info::listeners),
    page("/logging", true, "query/change logging levels", |_, q| {
        logging::logging(q)
    }),
    page("/memory", false, "print current allocation/heap usage", |_, _| {
        info::memory()
    }),
    page("/quitquitquit", true, "exit the server", quit),
    page(
        "/ready",
        false,
        "print server state, return 200 if LIVE, otherwise return 503",
        |s, _| info::ready(s.state()),
    ),
    page("/reopen_logs", true, "reopen access logs", reopen_logs),
    page(
        "/reset_counters",
        true,
        "reset all counters to zero",
        reset_counters,
    ),
    page("/runtime", false, "print runtime values", |_, _| {
        Reply::json("{\n \"layers\": [],\n \"entries\": {}\n}\n")
    }),
    page(
        "/server_info",
        false,
        "print server version/status information",
        |s, _| info::server_info(s),
    ),
    page("/stats", false, "print server stats", |s, q| {
        stats::stats(&s.stats(), q)
    }),
    page(
        "/stats/prometheus",
        false,
        "print server stats in prometheus format",
        |s, q| stats::prometheus(&s.stats(), q),
    ),
];

const CLUSTERS: &str = "/clusters";

/// Answers a request.
pub async fn answer(source: Rc<dyn AdminSource>, method: &str, path: &str, query: &str) -> Reply {
    let query = Query::parse(query);
    if path == CLUSTERS {
        return clusters::clusters(source.clusters().await, &query);
    }
    let Some(page) = PAGES.iter().find(|p| p.path == path) else {
        return Reply::error(404, format!("invalid path. {}", help().body));
    };
    if page.mutates && method != "POST" {
        return Reply::error(405, format!("Method {method} not allowed, POST required."));
    }
    (page.handler)(&*source, &query)
}

fn help() -> Reply {
    let mut lines: Vec<String> = PAGES
        .iter()
        .map(|p| {
            format!(
                "  {}{}: {}\n",
                p.path,
                if p.mutates { " (POST)" } else { "" },
                p.help
            )
        })
        .chain([format!("  {CLUSTERS}: upstream cluster status\n")])
        .collect();
    lines.sort();
    Reply::text(format!("admin commands are:\n{}", lines.concat()))
}

fn drain_listeners(source: &dyn AdminSource, query: &Query) -> Reply {
    source.drain_listeners(DrainRequest {
        graceful: query.has("graceful"),
        inbound_only: query.has("inboundonly"),
        skip_exit: query.has("skip_exit"),
    });
    Reply::text("OK\n")
}

fn fail_health_check(source: &dyn AdminSource, fail: bool) -> Reply {
    source.fail_health_check(fail);
    Reply::text("OK\n")
}

fn quit(source: &dyn AdminSource, _: &Query) -> Reply {
    source.quit();
    Reply::text("OK\n")
}

fn reopen_logs(source: &dyn AdminSource, _: &Query) -> Reply {
    source.reopen_logs();
    Reply::text("OK\n")
}

fn reset_counters(source: &dyn AdminSource, _: &Query) -> Reply {
    source.stats().reset_counters();
    Reply::text("OK\n")
}
