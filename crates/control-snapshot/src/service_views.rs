//! Services as clients see them, made once for all clients of a namespace where nothing else tells them apart.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::shared::Shared;
use crate::view::ServiceView;

/// What every client of a namespace sees that has no `Sidecar` of its own. Made of the world alone, so it lives and dies
/// with a snapshot of it.
#[derive(Debug, Default)]
pub(crate) struct ServiceViews {
    /// By the clients' namespace, of all namespaces that have any.
    namespaces: HashMap<Arc<str>, OnceLock<NamespaceViews>>,
    /// Those of the world before, to take over what is equal.
    earlier: HashMap<Arc<str>, NamespaceViews>,
}

/// The services of one namespace's clients, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceViews {
    pub(crate) services: Vec<Shared<ServiceView>>,
    /// Positions of headless services: a client that is a workload of one sees that.
    pub(crate) headless: Vec<usize>,
}

impl ServiceViews {
    /// For clients of these namespaces, in a world that comes after another.
    pub(crate) fn new(namespaces: impl Iterator<Item = Arc<str>>, earlier: Option<&Self>) -> Self {
        let made = earlier.into_iter().flat_map(|earlier| &earlier.namespaces);
        let made = made.filter_map(|(namespace, views)| Some((Arc::clone(namespace), views.get()?.clone())));
        Self {
            namespaces: namespaces.map(|namespace| (namespace, OnceLock::new())).collect(),
            earlier: made.collect(),
        }
    }

    /// Those of a namespace, which `make` makes where nobody has asked before; nothing for one that is not known.
    pub(crate) fn of_namespace(
        &self,
        namespace: &str,
        make: impl FnOnce() -> Vec<Shared<ServiceView>>,
    ) -> Option<&NamespaceViews> {
        let views = self.namespaces.get(namespace)?;
        Some(views.get_or_init(|| {
            let mut services = make();
            let earlier = self.earlier.get(namespace).map(|views| &*views.services);
            for (view, before) in services.iter_mut().zip(earlier.unwrap_or_default()) {
                view.reuse(before);
            }
            let headless = services
                .iter()
                .enumerate()
                .filter(|(_, view)| view.service.headless);
            NamespaceViews {
                headless: headless.map(|(position, _)| position).collect(),
                services,
            }
        }))
    }
}
