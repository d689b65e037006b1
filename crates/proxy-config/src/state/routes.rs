//! Endpoint assignments (EDS) and route configurations (RDS).

use std::collections::HashSet;
use std::sync::Arc;

use api_envoy::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api_envoy::envoy::config::route::v3::RouteConfiguration;
use api_envoy::{any, type_url};
use proxy_core::{ConfigError, ConfigResult};
use proxy_router::RouteTable;

use super::{Action, ConfigState, ListenerVersion, Refused, Source};
use crate::context::RouteSlot;

/// The endpoints of one EDS service name.
#[derive(Debug, Default)]
pub struct EndpointsEntry {
    /// As they came; nothing until then.
    pub source: Option<Source>,
    /// The last update, if it was refused.
    pub refused: Option<Refused>,
    /// The clusters that get them.
    pub(super) clusters: Vec<Arc<str>>,
}

impl EndpointsEntry {
    /// The endpoints that are in force, decoded: kept like this they would take many times the room.
    pub(super) fn decoded(&self) -> Option<ClusterLoadAssignment> {
        any::unpack(&self.source.as_ref()?.resource).ok()
    }

    pub(super) fn add_cluster(&mut self, name: &Arc<str>) {
        if !self.clusters.contains(name) {
            self.clusters.push(Arc::clone(name));
        }
    }
}

/// One route configuration that some listener names.
#[derive(Debug)]
pub struct RouteEntry {
    /// Its slot.
    pub slot: RouteSlot,
    /// As it came; nothing until then.
    pub source: Option<Source>,
    /// Compiled; nothing until then.
    pub table: Option<Arc<RouteTable>>,
    /// The last update, if it was refused.
    pub refused: Option<Refused>,
    /// Nobody waits for it any more: it did not come in time.
    pub(super) given_up: bool,
}

impl RouteEntry {
    /// Whether a listener need not wait for it.
    pub(super) fn is_ready(&self) -> bool {
        self.table.is_some() || self.given_up
    }
}

impl<H> ConfigState<H> {
    /// Takes endpoints from EDS. Endpoints of a service that no cluster names are kept out.
    ///
    /// # Errors
    /// The endpoints are refused.
    pub fn update_endpoints(&mut self, source: Source) -> ConfigResult<()> {
        let proto: ClusterLoadAssignment =
            any::unpack(&source.resource).map_err(|e| ConfigError::new(e.to_string()))?;
        let name = proto.cluster_name.clone();
        let tried = self.put_endpoints(proto, source.clone());
        if let Some(entry) = self.endpoints.get_mut(name.as_str()) {
            entry.refused = Refused::of(source, &tried);
        }
        tried
    }

    fn put_endpoints(&mut self, proto: ClusterLoadAssignment, source: Source) -> ConfigResult<()> {
        let Some(entry) = self.endpoints.get(proto.cluster_name.as_str()) else {
            return Ok(());
        };
        if entry
            .source
            .as_ref()
            .is_some_and(|known| known.resource == source.resource)
        {
            let warming = |name: &Arc<str>| self.clusters.get(name).is_some_and(|e| e.warming.is_some());
            if !self.clusters_of(&proto.cluster_name).iter().any(warming) {
                return Ok(());
            }
        }
        let names = self.clusters_of(&proto.cluster_name).to_vec();
        let compiled = names.iter().map(|name| self.compile_endpoints(name, &proto));
        let compiled: Vec<_> = compiled.collect::<ConfigResult<_>>()?;
        if let Some(entry) = self.endpoints.get_mut(proto.cluster_name.as_str()) {
            entry.source = Some(source);
        }
        for (name, endpoints) in names.iter().zip(compiled) {
            self.deliver_endpoints(name, &proto, endpoints);
        }
        Ok(())
    }

    /// EDS no longer has the endpoints of a service. As in Envoy the last ones stay in force: CDS removes clusters.
    pub fn remove_endpoints(&mut self, service: &str) {
        tracing::debug!(service, "endpoints removed; the last ones stay in force");
    }

    /// Takes a route configuration from RDS. One that no listener names is kept out.
    ///
    /// # Errors
    /// The route configuration is refused.
    pub fn update_routes(&mut self, source: Source) -> ConfigResult<()> {
        let proto: RouteConfiguration =
            any::unpack(&source.resource).map_err(|e| ConfigError::new(e.to_string()))?;
        let tried = self.put_routes(&proto, source.clone());
        if let Some(entry) = self.routes.get_mut(proto.name.as_str()) {
            entry.refused = Refused::of(source, &tried);
        }
        tried
    }

    fn put_routes(&mut self, proto: &RouteConfiguration, source: Source) -> ConfigResult<()> {
        let Some(entry) = self.routes.get(proto.name.as_str()) else {
            return Ok(());
        };
        if entry
            .source
            .as_ref()
            .is_some_and(|known| known.resource == source.resource)
        {
            return Ok(());
        }
        let slot = entry.slot;
        let table = Arc::new(RouteTable::compile(proto, &mut self.names)?);
        if let Some(entry) = self.routes.get_mut(proto.name.as_str()) {
            entry.source = Some(source);
            entry.table = Some(Arc::clone(&table));
        }
        self.push(Action::ApplyRoutes {
            slot,
            table: Some(table),
        });
        self.warm_listeners();
        Ok(())
    }

    /// RDS no longer has a route configuration. As in Envoy the last one stays in force: LDS removes listeners.
    pub fn remove_routes(&mut self, name: &str) {
        tracing::debug!(name, "route configuration removed; the last one stays in force");
    }

    /// Wants a route configuration for a listener.
    pub(super) fn want_routes(&mut self, awaited: &crate::context::AwaitedRoute) {
        if self.routes.contains_key(&awaited.name) {
            return;
        }
        let entry = RouteEntry {
            slot: awaited.slot,
            source: None,
            table: None,
            refused: None,
            given_up: false,
        };
        self.routes.insert(Arc::clone(&awaited.name), entry);
        self.push(Action::Subscribe {
            type_url: type_url::ROUTE,
            name: Arc::clone(&awaited.name),
        });
        self.wait(
            super::Waiting::Routes(Arc::clone(&awaited.name)),
            awaited.initial_fetch_timeout,
        );
    }

    /// A version of a listener is gone: route configurations that it named may be of no use any more.
    pub(super) fn let_go_of_routes(&mut self, version: Option<&ListenerVersion<H>>) {
        self.routes_may_be_unused |= version.is_some_and(|v| !v.config.awaited_routes.is_empty());
    }

    /// Drops route configurations that no listener names any more.
    pub(super) fn forget_unused_routes(&mut self) {
        if !std::mem::take(&mut self.routes_may_be_unused) {
            return;
        }
        let versions = self
            .listeners
            .values()
            .flat_map(|l| l.active.iter().chain(&l.warming));
        let used: HashSet<&Arc<str>> = versions
            .flat_map(|v| &v.config.awaited_routes)
            .map(|a| &a.name)
            .collect();
        let unused: Vec<_> = self
            .routes
            .keys()
            .filter(|name| !used.contains(name))
            .cloned()
            .collect();
        for name in unused {
            let Some(entry) = self.routes.shift_remove(&name) else {
                continue;
            };
            self.push(Action::ApplyRoutes {
                slot: entry.slot,
                table: None,
            });
            self.push(Action::Unsubscribe {
                type_url: type_url::ROUTE,
                name,
            });
        }
    }

    /// Listeners go on without a route configuration that does not come.
    pub(super) fn routes_timed_out(&mut self, name: &Arc<str>) {
        if let Some(entry) = self.routes.get_mut(name)
            && entry.table.is_none()
        {
            tracing::warn!(%name, "no route configuration within initial_fetch_timeout");
            entry.given_up = true;
            self.warm_listeners();
        }
    }
}
