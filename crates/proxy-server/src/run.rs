//! Assembly: from the command line to running threads.

use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::bootstrap::v3::Bootstrap;
use net::broker::Broker;
use proxy_config::bootstrap::{self, BootstrapConfig};
use proxy_core::random::seed;
use proxy_observe::LogFiles;
use proxy_upstream::Dialer;
use proxy_upstream::metadata_exchange::Told;
use telemetry::logging;
use telemetry::stats::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin_source::View;
use crate::args::{Args, Mode};
use crate::balancer::Load;
use crate::command::Command;
use crate::dialer::BrokerDialer;
use crate::server::{Parts, Server, static_error};
use crate::sockets::Sockets;
use crate::worker::{self, Worker};
use crate::{admin, discovery, limits, output, secrets};

/// Runs a proxy until it is told to stop.
pub(crate) fn run(args: Args) -> ExitCode {
    match prepare(&args).and_then(|bootstrap| serve_or_validate(args, bootstrap)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::failed(&error);
            ExitCode::FAILURE
        }
    }
}

fn prepare(args: &Args) -> Result<BootstrapConfig, String> {
    args.check()?;
    if let Some(path) = &args.log_path {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|e| format!("cannot open the log file {}: {e}", path.display()))?;
        net::process::redirect_stderr(&file).map_err(|e| format!("cannot log to {}: {e}", path.display()))?;
    }
    logging::init(&args.log_filter()?, logging::Format::Text)?;
    BootstrapConfig::compile(load(args)?, &args.node()).map_err(static_error)
}

/// Reads the bootstrap. The descriptors that this takes for a moment are megabytes.
fn load(args: &Args) -> Result<Bootstrap, String> {
    let (path, yaml) = (args.config_path.as_deref(), args.config_yaml.as_deref());
    let loaded = bootstrap::load(path, yaml, unknown_fields(args)).map_err(|e| e.to_string());
    net::memory::release_free();
    loaded
}

fn unknown_fields(args: &Args) -> bootstrap::UnknownFields {
    match args.allow_unknown_static_fields {
        true => bootstrap::UnknownFields::Ignore,
        false => bootstrap::UnknownFields::Refuse,
    }
}

fn serve_or_validate(args: Args, bootstrap: BootstrapConfig) -> Result<(), String> {
    let flush = Duration::from_millis(args.file_flush_interval_msec.max(1));
    let log_files = LogFiles::start(flush).map_err(|e| format!("cannot start the log writer: {e}"))?;
    let log_files = Arc::new(log_files);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(limits::BLOCKING_THREADS)
        .thread_name("main-blocking")
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|e| format!("cannot start the main thread's runtime: {e}"))?;
    let result = match args.mode {
        Mode::Serve => runtime.block_on(serve(args, bootstrap, log_files)),
        Mode::Validate => runtime.block_on(async { validate(args, bootstrap, log_files) }),
    };
    // Names whose lookup takes long do not keep the process.
    runtime.shutdown_background();
    result
}

/// Compiles everything and listens on nothing.
fn validate(args: Args, bootstrap: BootstrapConfig, log_files: Arc<LogFiles>) -> Result<(), String> {
    let what = match &args.config_path {
        Some(path) => path.display().to_string(),
        None => "--config-yaml".to_owned(),
    };
    let sockets = Sockets::that_bind_nothing();
    let parts = Parts {
        args,
        bootstrap,
        registry: Registry::new(),
        sockets,
        workers: Vec::new(),
        log_files,
    };
    Server::new(parts).load_static().map_err(static_error)?;
    output::valid(&what);
    Ok(())
}

/// Lets connections have the descriptors that the system would grant anyway.
fn raise_descriptor_limit() {
    if let Err(error) = net::process::raise_descriptor_limit() {
        tracing::warn!(%error, "cannot raise the limit of open descriptors");
    }
}

async fn serve(args: Args, bootstrap: BootstrapConfig, log_files: Arc<LogFiles>) -> Result<(), String> {
    raise_descriptor_limit();
    let broker = match &args.socket_broker {
        Some(path) => {
            let broker = Broker::connect(path);
            Some(Arc::new(broker.map_err(|e| {
                format!("no socket broker at {}: {e}", path.display())
            })?))
        }
        None => None,
    };
    let registry = Registry::new();
    let node = bootstrap.proto.node.clone().unwrap_or_default();
    let told = Arc::new(Told::of(&node));
    let (workers, threads) = start_workers(args.workers(), &registry, broker.as_ref(), &told)?;
    let sockets = Sockets::new(workers.len(), broker);
    let server = Server::new(Parts {
        args,
        bootstrap,
        registry,
        sockets,
        workers,
        log_files,
    });
    let served = serve_until_stopped(&server).await;
    server.tell_all(|_| Command::Stop);
    join(threads);
    served
}

async fn serve_until_stopped(server: &Rc<Server>) -> Result<(), String> {
    server.load_static().map_err(static_error)?;
    let (admin_failed, mut admin_failure) = mpsc::channel(1);
    if let Some(address) = server.bootstrap.admin {
        let view = Rc::new(View(Rc::clone(server)));
        tokio::task::spawn_local(async move {
            if let Err(error) = admin::serve(address, view).await {
                let _ = admin_failed
                    .send(format!("cannot bind the admin address {address}: {error}"))
                    .await;
            }
        });
    }
    tokio::task::spawn_local(release_memory(Rc::clone(server)));
    server.start();
    if let Some(ads) = &server.bootstrap.ads {
        discovery::start(server, ads);
    }
    secrets::start(server);
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut reopen = signal(SignalKind::user_defined1()).map_err(|e| e.to_string())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => tracing::warn!("caught SIGTERM"),
            _ = interrupt.recv() => tracing::warn!("caught SIGINT"),
            () = server.exit.notified() => tracing::info!("told to quit"),
            Some(error) = admin_failure.recv() => return Err(error),
            _ = reopen.recv() => {
                server.log_files.reopen();
                continue;
            }
        }
        return Ok(());
    }
}

/// Gives back, a moment later, what new configuration and dumps of it took.
async fn release_memory(server: Rc<Server>) {
    loop {
        server.memory_taken.notified().await;
        tokio::time::sleep(limits::MEMORY_RELEASE_DELAY).await;
        net::memory::release_free();
    }
}

type Threads = Vec<std::thread::JoinHandle<()>>;

fn start_workers(
    count: usize,
    registry: &Registry,
    broker: Option<&Arc<Broker>>,
    told: &Arc<Told>,
) -> Result<(Vec<mpsc::Sender<Command>>, Threads), String> {
    let load: Load = (0..count).map(|_| std::sync::atomic::AtomicU32::new(0)).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..count).map(|_| mpsc::channel(limits::WORKER_QUEUE)).unzip();
    let hostname: Arc<str> = hostname().into();
    let mut threads = Vec::with_capacity(count);
    for (index, commands) in receivers.into_iter().enumerate() {
        let parts = worker::Parts {
            index,
            registry: registry.clone(),
            seed: seed(),
            load: Arc::clone(&load),
            peers: senders.clone(),
            hostname: Arc::clone(&hostname),
            told: Arc::clone(told),
        };
        let broker = broker.cloned();
        let thread = std::thread::Builder::new().name(format!("wrk:worker_{index}"));
        let thread = thread.spawn(move || worker_main(parts, broker, commands));
        threads.push(thread.map_err(|e| format!("cannot start worker {index}: {e}"))?);
    }
    Ok((senders, threads))
}

fn worker_main(parts: worker::Parts, broker: Option<Arc<Broker>>, commands: mpsc::Receiver<Command>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default());
    match runtime {
        Ok(runtime) => {
            let work = async move {
                let dialer = broker.map(|broker| Rc::new(BrokerDialer::new(broker)) as Rc<dyn Dialer>);
                Worker::new(parts, dialer).run(commands).await;
            };
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(work)));
            if worked.is_err() {
                // Connections are caught one by one, so this is a worker's own state. Half a proxy that goes on would
                // leave its share of the connections unanswered; a new process answers them.
                tracing::error!("a worker panicked outside of any connection");
                std::process::exit(1);
            }
        }
        Err(error) => tracing::error!(%error, "cannot start a worker's runtime"),
    }
}

/// Waits for the workers, but not for ever: a connection must not hold up the end of the process.
fn join(threads: Threads) {
    let deadline = std::time::Instant::now() + limits::STOP_PATIENCE;
    while threads.iter().any(|thread| !thread.is_finished()) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
