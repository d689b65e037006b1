//! Listeners: from LDS or the bootstrap to the workers.

use std::sync::Arc;

use api_envoy::any;
use api_envoy::envoy::config::listener::v3::Listener;
use proxy_core::{ConfigError, ConfigResult};

use super::{Action, ConfigState, Refused, Source, StartPhase};
use crate::address::BindAddress;
use crate::context::CompileContext;
use crate::limits::MAX_REFUSED_LISTENERS;
use crate::listener::{HttpCompiler, ListenerConfig};

/// Binds the sockets of a listener when it is accepted, so that a taken port is a refusal. The sockets of an earlier
/// version on the same addresses are kept.
pub type Bind<'a, H> = &'a mut dyn FnMut(&ListenerConfig<H>) -> ConfigResult<()>;

/// One listener name: what is in force and what is warming.
#[derive(Debug)]
pub struct ListenerEntry<H> {
    /// Whether it is in the bootstrap; such a listener is never replaced by discovery.
    pub is_static: bool,
    /// In force.
    pub active: Option<ListenerVersion<H>>,
    /// Waiting for route configurations, secrets, or the start.
    pub warming: Option<ListenerVersion<H>>,
    /// The last update, if it was refused.
    pub refused: Option<Refused>,
}

/// One version of a listener.
#[derive(Debug)]
pub struct ListenerVersion<H> {
    /// As it came.
    pub source: Source,
    /// Compiled.
    pub config: Arc<ListenerConfig<H>>,
}

impl<H> ListenerEntry<H> {
    /// The version that came last.
    fn newest(&self) -> Option<&ListenerVersion<H>> {
        self.warming.as_ref().or(self.active.as_ref())
    }
}

impl<H> ConfigState<H> {
    /// Takes a listener of the bootstrap.
    ///
    /// # Errors
    /// The listener is refused.
    pub fn add_static_listener(
        &mut self,
        source: Source,
        http: HttpCompiler<'_, H>,
        bind: Bind<'_, H>,
    ) -> ConfigResult<()> {
        let proto = unpack(&source)?;
        self.put_listener(&proto, source, true, http, bind)
    }

    /// Takes a listener from LDS. The same bytes again change nothing.
    ///
    /// # Errors
    /// The listener is refused, or its sockets cannot be bound.
    pub fn update_listener(
        &mut self,
        source: Source,
        http: HttpCompiler<'_, H>,
        bind: Bind<'_, H>,
    ) -> ConfigResult<()> {
        let proto = unpack(&source)?;
        let tried = self.put_listener(&proto, source.clone(), false, http, bind);
        self.note_tried_listener(&proto.name, Refused::of(source, &tried));
        tried
    }

    fn note_tried_listener(&mut self, name: &str, refused: Option<Refused>) {
        self.refused_listeners.shift_remove(name);
        if let Some(entry) = self.listeners.get_mut(name) {
            entry.refused = refused;
        } else if let Some(refused) = refused {
            if self.refused_listeners.len() >= MAX_REFUSED_LISTENERS {
                self.refused_listeners.shift_remove_index(0);
            }
            self.refused_listeners.insert(name.into(), refused);
        }
    }

    /// Forgets the listeners of which no version was ever taken: a response with all listeners follows, and has them
    /// again, or they are gone. Nothing else would tell of the end of a listener that is not in force.
    pub fn forget_refused_listeners(&mut self) {
        self.refused_listeners.clear();
    }

    fn put_listener(
        &mut self,
        proto: &Listener,
        source: Source,
        is_static: bool,
        http: HttpCompiler<'_, H>,
        bind: Bind<'_, H>,
    ) -> ConfigResult<()> {
        if let Some(entry) = self.listeners.get(proto.name.as_str()) {
            if entry.is_static {
                return Err(ConfigError::at("name", "a static listener has this name"));
            }
            if entry
                .newest()
                .is_some_and(|v| v.source.resource == source.resource)
            {
                return Ok(());
            }
        }
        let config = self.compile_listener(proto, http)?;
        self.refuse_taken_address(&config)?;
        bind(&config)?;
        let config = Arc::new(config);
        let before = self.listeners.get(&config.name).and_then(ListenerEntry::newest);
        let before = before.map(|version| Arc::clone(&version.config));
        self.take_addresses(before.as_deref(), Some(&config));
        let entry = self.listeners.entry(Arc::clone(&config.name));
        let entry = entry.or_insert(ListenerEntry {
            is_static,
            active: None,
            warming: None,
            refused: None,
        });
        let dropped = entry.warming.replace(ListenerVersion {
            source,
            config: Arc::clone(&config),
        });
        self.let_go_of_routes(dropped.as_ref());
        for awaited in &config.awaited_routes {
            self.want_routes(awaited);
        }
        self.warm_listeners();
        Ok(())
    }

    fn compile_listener(
        &mut self,
        proto: &Listener,
        http: HttpCompiler<'_, H>,
    ) -> ConfigResult<ListenerConfig<H>> {
        let context = CompileContext::new(&mut self.names, &self.stats, &self.node, &self.log_files);
        let mut context = context.and_secrets(&mut self.store);
        let compiled = ListenerConfig::compile(proto, &mut context, http);
        self.carry_out_secret_requests();
        compiled
    }

    /// Two listeners may not share an address.
    fn refuse_taken_address(&self, config: &ListenerConfig<H>) -> ConfigResult<()> {
        for address in shared_never(config) {
            if let Some(name) = self
                .taken_addresses
                .get(address)
                .filter(|name| **name != config.name)
            {
                let reason = format!("listener {name} has the address {address} already");
                return Err(ConfigError::at("address", reason));
            }
        }
        Ok(())
    }

    /// The addresses of a listener's newest version are taken, and those of the versions before are not.
    fn take_addresses(&mut self, before: Option<&ListenerConfig<H>>, now: Option<&ListenerConfig<H>>) {
        for address in before.into_iter().flat_map(shared_never) {
            self.taken_addresses.remove(address);
        }
        if let Some(config) = now {
            let taken = shared_never(config).map(|address| (address.clone(), Arc::clone(&config.name)));
            self.taken_addresses.extend(taken);
        }
    }

    /// LDS no longer has a listener.
    pub fn remove_listener(&mut self, name: &str) {
        self.refused_listeners.shift_remove(name);
        if self.listeners.get(name).is_none_or(|entry| entry.is_static) {
            return;
        }
        if let Some(entry) = self.listeners.shift_remove(name) {
            self.take_addresses(entry.newest().map(|version| &*version.config), None);
            self.let_go_of_routes(entry.warming.as_ref());
            self.let_go_of_routes(entry.active.as_ref());
            self.push(Action::RemoveListener {
                name: name.into(),
                before: entry.active,
            });
            self.forget_unused_routes();
            self.advance();
        }
    }

    fn is_ready(&self, config: &ListenerConfig<H>) -> bool {
        let ready = |name: &Arc<str>| self.routes.get(name).is_none_or(super::RouteEntry::is_ready);
        config.awaited_routes.iter().all(|awaited| ready(&awaited.name))
            && self.secrets_are_ready(&config.secrets)
    }

    pub(super) fn listeners_are_warm(&self) -> bool {
        let mut warming = self.listeners.values().filter_map(|entry| entry.warming.as_ref());
        warming.all(|version| self.is_ready(&version.config))
    }

    /// Puts listeners in force whose routes have come; before the start is complete none.
    pub(super) fn warm_listeners(&mut self) {
        if self.phase == StartPhase::Live {
            self.release_listeners();
        } else {
            self.advance();
        }
    }

    pub(super) fn release_listeners(&mut self) {
        let warming = self
            .listeners
            .iter()
            .filter_map(|(name, entry)| Some((name, entry.warming.as_ref()?)));
        let ready = warming.filter(|(_, version)| self.is_ready(&version.config));
        let ready: Vec<Arc<str>> = ready.map(|(name, _)| Arc::clone(name)).collect();
        for name in &ready {
            let Some(entry) = self.listeners.get_mut(name) else {
                continue;
            };
            let Some(version) = entry.warming.take() else {
                continue;
            };
            let config = Arc::clone(&version.config);
            let before = entry.active.replace(version);
            self.let_go_of_routes(before.as_ref());
            self.push(Action::ApplyListener { config, before });
        }
        if !ready.is_empty() {
            self.forget_unused_routes();
        }
    }
}

/// The addresses of a listener that no other may have: port 0 asks for any that is free.
fn shared_never<H>(config: &ListenerConfig<H>) -> impl Iterator<Item = &BindAddress> {
    let addresses = config.addresses.iter();
    addresses.filter(|a| a.socket_addr().is_none_or(|a| a.port() != 0))
}

/// # Errors
/// The bytes are no listener.
fn unpack(source: &Source) -> ConfigResult<Listener> {
    any::unpack(&source.resource).map_err(|e| ConfigError::new(e.to_string()))
}
