//! Changes of what the discovery client is subscribed to.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use xds::client::Client;
use xds::grpc::client::Command;

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

/// Changes on their way to the client, in order.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    changes: RefCell<Vec<Subscription>>,
    /// Where they go, once there is a client.
    client: RefCell<Option<mpsc::Sender<Command>>>,
    /// They wait for room in the client's queue.
    awaits_room: Cell<bool>,
}

impl Subscriptions {
    /// Adds a change.
    pub(crate) fn push(&self, change: Subscription) {
        self.changes.borrow_mut().push(change);
    }

    /// The changes that nobody has sent yet.
    pub(crate) fn take(&self) -> Vec<Subscription> {
        self.changes.take()
    }

    /// Where changes go from now on.
    pub(crate) fn set_client(&self, commands: mpsc::Sender<Command>) {
        self.client.replace(Some(commands));
    }

    /// Sends the changes. While the client's queue is full they wait for room, with those that come up until then.
    pub(crate) fn send(self: &Rc<Self>) {
        if self.changes.borrow().is_empty() || self.awaits_room.get() {
            return;
        }
        let client = self.client.borrow();
        let Some(client) = client.as_ref() else {
            return;
        };
        match client.try_reserve() {
            Ok(room) => {
                let changes = self.take();
                room.send(Box::new(move |client: &mut Client| subscribe(client, changes)));
            }
            Err(TrySendError::Full(())) => self.await_room(client.clone()),
            // The process ends.
            Err(TrySendError::Closed(())) => {}
        }
    }

    fn await_room(self: &Rc<Self>, client: mpsc::Sender<Command>) {
        self.awaits_room.set(true);
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // The place is given back at once: nobody else on this thread can take it before it is used.
            let room = client.reserve().await.map(drop);
            this.awaits_room.set(false);
            if room.is_ok() {
                this.send();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::envoy::config::core::v3::Node;
    use api_envoy::type_url::ENDPOINT;
    use std::time::Duration;
    use tokio::time::timeout;
    use xds::Variant;
    use xds::client::Request;

    #[tokio::test(flavor = "current_thread")]
    async fn changes_that_find_the_queue_full_are_sent_when_it_has_room() {
        let local = tokio::task::LocalSet::new();
        let sent = local.run_until(async {
            let (commands, mut queue) = mpsc::channel::<Command>(1);
            let subscriptions = Rc::new(Subscriptions::default());
            subscriptions.set_client(commands);
            for name in ["a", "b", "c"] {
                subscriptions.push((true, ENDPOINT, name.into()));
                subscriptions.send();
            }
            let mut client = Client::new(Variant::Delta, Node::default());
            for _ in 0..2 {
                let command = timeout(Duration::from_secs(5), queue.recv()).await;
                command.expect("in time").expect("a command")(&mut client);
            }
            client.connected();
            client.poll_request()
        });
        let Some(Request::Delta(request)) = sent.await else {
            panic!("the names are asked for");
        };
        let mut names = request.resource_names_subscribe;
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"]);
    }
}
