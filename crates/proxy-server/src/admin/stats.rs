//! `/stats` and `/stats/prometheus`.

use regex::Regex;
use telemetry::render::{self, Kinds};
use telemetry::stats::{Registry, Stat};

use super::reply::{Query, Reply};

/// `/stats`, in text or JSON.
#[must_use]
pub fn stats(registry: &Registry, query: &Query) -> Reply {
    let kinds = match query.get("type") {
        None | Some("All" | "") => Kinds::All,
        Some("Counters") => Kinds::Counters,
        Some("Gauges") => Kinds::Gauges,
        Some("Histograms") => Kinds::Histograms,
        Some("TextReadouts") => return Reply::text(""),
        Some(other) => return Reply::error(400, format!("invalid &type={other}\n")),
    };
    let selected = match select(registry, query, kinds) {
        Ok(selected) => selected,
        Err(reply) => return reply,
    };
    match query.get("format") {
        None | Some("text" | "") => Reply::text(render::text(&selected)),
        Some("json") => Reply::json(render::json(&selected)),
        Some("prometheus") => prometheus(registry, query),
        Some(_) => Reply::error(400, "usage: /stats?format=(text|json|prometheus)\n\n"),
    }
}

/// `/stats/prometheus`.
#[must_use]
pub fn prometheus(registry: &Registry, query: &Query) -> Reply {
    match select(registry, query, Kinds::All) {
        Ok(selected) => Reply {
            content_type: "text/plain; version=0.0.4",
            ..Reply::text(render::prometheus(&selected))
        },
        Err(reply) => reply,
    }
}

fn select(registry: &Registry, query: &Query, kinds: Kinds) -> Result<Vec<Stat>, Reply> {
    let filter = match query.get("filter").filter(|f| !f.is_empty()).map(Regex::new) {
        None => None,
        Some(Ok(filter)) => Some(filter),
        Some(Err(error)) => return Err(Reply::error(400, format!("Invalid re2 regex: {error}\n"))),
    };
    let used_only = query.has("usedonly");
    let inverted = query.has("invert_filter");
    let mut stats = registry.snapshot();
    stats.retain(|stat| {
        render::is_of(stat, kinds)
            && (!used_only || render::is_used(stat))
            && filter.as_ref().is_none_or(|f| f.is_match(&stat.name) != inverted)
    });
    Ok(stats)
}
