//! Changes of what the discovery client is subscribed to.

use std::sync::Arc;

use xds::client::Client;

/// A change of subscription: wanted or not, type, name.
pub(crate) type Subscription = (bool, &'static str, Arc<str>);

/// Makes the changes.
pub(crate) fn subscribe(client: &mut Client, changes: Vec<Subscription>) {
    for (wanted, type_url, name) in changes {
        if wanted {
            client.subscribe(type_url, [&*name]);
        } else {
            client.unsubscribe(type_url, [&*name]);
        }
    }
}
