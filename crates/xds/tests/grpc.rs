//! The gRPC shell, client and server together, over TCP and over a Unix socket.

use std::sync::Arc;
use std::time::Duration;

use api_envoy::any::pack;
use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::core::v3::Node;
use api_envoy::type_url;
use tokio::sync::{Notify, mpsc};
use xds::Variant;
use xds::client::Client;
use xds::grpc::client::{Event, Target, commands, run};
use xds::grpc::server::{DeltaConnection, SotwConnection, Streams, builder, drain, routes, serve};
use xds::server::{Content, Outgoing, Said, Stream};

/// Answers every wildcard request with one cluster named after the stream, reports ACKs, and hangs up when told.
#[derive(Clone)]
struct OneCluster {
    acks: mpsc::Sender<String>,
    hang_up: Arc<Notify>,
}

fn content() -> Content {
    let body = pack(&Cluster {
        name: "one".into(),
        ..Default::default()
    });
    Content {
        resources: vec![Outgoing::new("one", body)],
        removed: Vec::new(),
    }
}

impl Streams for OneCluster {
    async fn delta(&self, mut connection: DeltaConnection) {
        let mut stream = Stream::new("d", "test");
        loop {
            let request = tokio::select! {
                request = connection.receive() => request,
                () = self.hang_up.notified() => None,
            };
            let Some(request) = request else { return };
            let received = stream.receive_delta(&request).unwrap();
            if received.said == Said::Ack {
                self.acks
                    .send(format!("delta {}", request.response_nonce))
                    .await
                    .unwrap();
            }
            if received.answer.is_some() {
                let response = stream.respond_delta(&received.type_url, "v1", content()).unwrap();
                connection.send(response).await;
            }
        }
    }

    async fn sotw(&self, mut connection: SotwConnection) {
        let mut stream = Stream::new("s", "test");
        while let Some(request) = connection.receive().await {
            let received = stream.receive_sotw(&request).unwrap();
            if received.said == Said::Ack {
                self.acks
                    .send(format!("sotw {}", request.response_nonce))
                    .await
                    .unwrap();
            }
            if received.answer.is_some() {
                let response = stream.respond_sotw(&received.type_url, "v1", content()).unwrap();
                connection.send(response).await;
            }
        }
    }
}

fn client(variant: Variant) -> Client {
    let mut client = Client::new(
        variant,
        Node {
            id: "sidecar~127.0.0.1~a.b~c".into(),
            ..Default::default()
        },
    );
    client.watch_all(type_url::CLUSTER);
    client
}

fn accepting(events: mpsc::Sender<String>) -> impl FnMut(Event, &mut Client) {
    move |event, client| {
        let line = match event {
            Event::Connected(_) => "connected".to_owned(),
            Event::Disconnected { .. } => "disconnected".to_owned(),
            Event::Update(update) => {
                client.accept(&update);
                format!("update {}", update.resources[0].name)
            }
        };
        // The test may have ended already.
        let _ = events.try_send(line);
    }
}

fn server() -> (OneCluster, mpsc::Receiver<String>) {
    let (acks, received) = mpsc::channel(8);
    (
        OneCluster {
            acks,
            hang_up: Arc::new(Notify::new()),
        },
        received,
    )
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

#[tokio::test]
async fn both_variants_get_resources_and_acknowledge_them() {
    for (variant, ack) in [
        (Variant::Delta, "delta d-1"),
        (Variant::StateOfTheWorld, "sotw s-1"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap().to_string());
        let (streams, mut acks) = server();
        let serving = tokio::spawn(serve(listener, streams, std::future::pending()));
        let (_commands, receiver) = commands();
        let (events, _received) = mpsc::channel(64);
        let running = tokio::spawn(run(target, client(variant), accepting(events), receiver, || 0));
        assert_eq!(within(acks.recv()).await.unwrap(), ack);
        running.abort();
        serving.abort();
    }
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("XDS");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (streams, mut acks) = server();
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let serving = tokio::spawn(
        builder()
            .add_routes(routes(streams))
            .serve_with_incoming(incoming),
    );
    let (_commands, receiver) = commands();
    let (events, _received) = mpsc::channel(64);
    let target = Target::Unix(path);
    let running = tokio::spawn(run(
        target,
        client(Variant::Delta),
        accepting(events),
        receiver,
        || 0,
    ));
    assert_eq!(within(acks.recv()).await.unwrap(), "delta d-1");
    running.abort();
    serving.abort();
}

#[tokio::test]
async fn the_client_comes_back_after_the_server_hangs_up_and_ends_with_its_commands() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap().to_string());
    let (streams, mut acks) = server();
    let hang_up = streams.hang_up.clone();
    let serving = tokio::spawn(serve(listener, streams, std::future::pending()));
    let (commands, receiver) = commands();
    let (events, mut received) = mpsc::channel(64);
    let running = tokio::spawn(run(
        target,
        client(Variant::Delta),
        accepting(events),
        receiver,
        || 0,
    ));
    within(acks.recv()).await.unwrap();
    hang_up.notify_one();
    within(acks.recv()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(within(received.recv()).await.unwrap());
    }
    assert_eq!(
        seen,
        [
            "connected",
            "update one",
            "disconnected",
            "connected",
            "update one"
        ]
    );
    drop(commands);
    within(running).await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_clients_for_ever() {
    let began = tokio::time::Instant::now();
    let stopped = drain(std::future::ready(()), |_| std::future::pending());
    assert!(within(stopped).await.is_ok());
    assert!(began.elapsed() >= xds::limits::DRAIN_TIMEOUT);
    let prompt = drain(std::future::pending(), |_| std::future::ready(Ok(())));
    assert!(within(prompt).await.is_ok());
    let heard = drain(std::future::ready(()), |ends| async {
        ends.await;
        Ok(())
    });
    assert!(within(heard).await.is_ok());
}
