//! Translations ready to be sent, shared by all proxies that see the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use api_envoy::any::pack;
use control_snapshot::{Proxy, ProxyView, Snapshot};
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
    /// NDS.
    pub name_table: Outgoing,
    /// What could not be translated.
    pub diagnostics: Vec<Diagnostic>,
}

impl Translated {
    fn new(view: ProxyView) -> Self {
        let (resources, diagnostics) = control_translate::translate(&view);
        let clusters = resources
            .clusters
            .iter()
            .map(|c| Outgoing::new(c.name.as_str(), pack(c)));
        let listeners = resources
            .listeners
            .iter()
            .map(|l| Outgoing::new(l.name.as_str(), pack(l)));
        let routes = resources.routes.iter().map(|r| {
            let name: Arc<str> = r.name.as_str().into();
            (Arc::clone(&name), Outgoing::new(name, pack(r)))
        });
        Self {
            clusters: clusters.collect(),
            listeners: listeners.collect(),
            routes: routes.collect(),
            name_table: Outgoing::new("", pack(&resources.name_table)),
            diagnostics,
            view: Arc::new(view),
        }
    }

    /// A route configuration by name. A name that no listener refers to gets one with the catch-all only, as istiod
    /// answers: the client that asks knows of a listener we do not know yet, or no longer.
    #[must_use]
    pub fn route(&self, name: &str) -> Outgoing {
        self.routes
            .get(name)
            .cloned()
            .unwrap_or_else(|| Outgoing::new(name, pack(&control_translate::route(&self.view, name).0)))
    }
}

/// The endpoints of one cluster, as one proxy sees them. A cluster that is not there has none.
#[must_use]
pub fn endpoints(snapshot: &Snapshot, proxy: &Proxy, cluster: &str) -> Outgoing {
    let view = snapshot.endpoint_view(proxy, cluster);
    Outgoing::new(cluster, pack(&control_translate::endpoints(&view)))
}

/// Translations by view. An entry lives as long as a session uses it.
#[derive(Debug, Default)]
pub struct Cache {
    translations: Mutex<HashMap<Arc<ProxyView>, Weak<Translated>>>,
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
        let translated = Arc::new(Translated::new(view));
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
