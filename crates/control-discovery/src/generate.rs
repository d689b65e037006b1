//! Translations ready to be sent, shared by all proxies that see the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, Weak};

use api_envoy::any::pack;
use control_snapshot::{EndpointView, Proxy, ProxyView, Snapshot};
use control_translate::{Held, Packed, Parts};
use diagnostics::Diagnostic;
use parking_lot::Mutex;
use tokio::sync::watch;
use xds::server::Outgoing;

/// All resources of one view, except endpoints.
#[derive(Debug)]
pub struct Translated {
    /// What they were made from.
    pub view: Arc<ProxyView>,
    /// CDS.
    pub clusters: Vec<Outgoing>,
    /// LDS.
    pub listeners: Vec<Outgoing>,
    /// RDS, by name. Others can be asked for: see [`Translated::route`].
    pub routes: BTreeMap<Arc<str>, Outgoing>,
    /// What could not be translated.
    pub diagnostics: Vec<Diagnostic>,
    /// NDS, once somebody has asked for it: few proxies do.
    name_table: OnceLock<Outgoing>,
    parts: Arc<Parts>,
    _held: Held,
}

impl Translated {
    fn new(view: ProxyView, parts: &Arc<Parts>) -> Self {
        let (translation, diagnostics) = control_translate::translate_with(&view, parts);
        let routes = translation.routes.into_iter().map(outgoing);
        Self {
            clusters: translation.clusters.into_iter().map(outgoing).collect(),
            listeners: translation.listeners.into_iter().map(outgoing).collect(),
            routes: routes.map(|route| (Arc::clone(&route.name), route)).collect(),
            diagnostics,
            view: Arc::new(view),
            name_table: OnceLock::new(),
            parts: Arc::clone(parts),
            _held: translation.held,
        }
    }

    /// A route configuration by name. A name that no listener refers to gets one with the catch-all only, as istiod
    /// answers: the client that asks knows of a listener we do not know yet, or no longer.
    #[must_use]
    pub fn route(&self, name: &str) -> Outgoing {
        let known = self.routes.get(name).cloned();
        known.unwrap_or_else(|| outgoing(control_translate::route(&self.view, name, &self.parts)))
    }

    /// NDS.
    #[must_use]
    pub fn name_table(&self) -> &Outgoing {
        let make = || Outgoing::new("", pack(&control_translate::name_table(&self.view)));
        self.name_table.get_or_init(make)
    }
}

fn outgoing(packed: Packed) -> Outgoing {
    Outgoing::new(packed.name, packed.body)
}

/// Assignments of endpoints, shared by all proxies that see the same of a cluster. They live as long as the publication
/// that they were made for.
#[derive(Debug, Default)]
pub struct Assignments(Mutex<HashMap<EndpointView, Outgoing>>);

impl Assignments {
    /// The endpoints of one cluster, as one proxy sees them. A cluster that is not there has none.
    #[must_use]
    pub fn get(&self, snapshot: &Snapshot, proxy: &Proxy, cluster: &str) -> Outgoing {
        let view = snapshot.endpoint_view(proxy, cluster);
        if let Some(found) = self.0.lock().get(&view) {
            return found.clone();
        }
        let body = pack(&control_translate::endpoints(&view));
        let made = Outgoing::new(Arc::clone(&view.cluster), body);
        self.0.lock().entry(view).or_insert(made).clone()
    }
}

/// Translations by view. An entry lives as long as a session uses it.
#[derive(Debug, Default)]
pub struct Cache {
    translations: Mutex<HashMap<Arc<ProxyView>, Weak<Translated>>>,
    /// What translations of different views have in common.
    parts: Arc<Parts>,
    /// How many translations were made.
    made: watch::Sender<u64>,
}

impl Cache {
    /// The translation of a view, made now or found.
    #[must_use]
    pub fn translate(&self, view: ProxyView) -> Arc<Translated> {
        if let Some(found) = self.translations.lock().get(&view).and_then(Weak::upgrade) {
            return found;
        }
        // Two sessions may translate the same view at the same time; the result is the same, and waiting is worse.
        let translated = Arc::new(Translated::new(view, &self.parts));
        let mut translations = self.translations.lock();
        translations.retain(|_, translation| translation.strong_count() > 0);
        translations.insert(Arc::clone(&translated.view), Arc::downgrade(&translated));
        drop(translations);
        self.made.send_modify(|made| *made += 1);
        translated
    }

    /// How many translations were made, and when there are more.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.made.subscribe()
    }

    /// Every translation in use.
    #[must_use]
    pub fn live(&self) -> Vec<Arc<Translated>> {
        self.translations
            .lock()
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }
}
