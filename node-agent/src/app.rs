//! Wiring: starts every part of the agent in the order that keeps its promises, and stops them in the reverse.
//!
//! 1. Who am I, what do I hold, what was I asked for last: IMDS, EC2, journal, kernel (`engine::start`), `wishes.json`.
//! 2. The host's routes and rules, by the engine through [`Host`].
//! 3. Pods of earlier times are adopted; the socket answers; the CNI configuration is written: the node can be Ready.
//! 4. ENIPool and class, if there is an API server. Nothing above waits for it, but for warm addresses on a first start.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enipool_daemon::{Bounds, LogFile, LogGuard, LogOptions, Readiness, Shutdown, logging, memory};
use enipool_pool::ec2::Ec2;
use enipool_pool::imds::Imds;
use enipool_pool::targets::TargetError;
use enipool_pool::{Timestamp, Zone};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::args::RunArgs;
use crate::chained::{self, ChainedPlugins};
use crate::cni::conflist::{self, Conflist};
use crate::cni::{Server, ServerConfig, Verbs, VerbsConfig};
use crate::dataplane::{Dataplane, DataplaneError, Drift};
use crate::engine::machine::Me;
use crate::engine::{Clock, EffectiveConfig, EngineConfig, Hands, Phase, Pool, StartError};
use crate::events::publish;
use crate::events::tell::Telling;
use crate::host::{Host, HostSettings};
use crate::introspection;
use crate::metrics::Metrics;
use crate::metrics::calls::count_notices;
use crate::metrics::pool::PoolCollector;
use crate::status::intake::{Intake, Seen};
use crate::status::kept::{self, WishesFile};
use crate::status::presence::UNREACHABLE_FOR;
use crate::status::wishes::{HostWishes, Wishes};
use crate::status::writer::Writer;

/// Name of the network in the CNI configuration. Attachments are known by it: it never changes.
pub const NETWORK: &str = "enipool";
/// Time for calls and EC2 mutations under way when the agent is told to stop. The chart gives the pod 10 s before it is
/// killed; nothing is lost then either, but the log would not say what was under way.
const GRACE: Duration = Duration::from_secs(8);
/// Pause before the API server is looked for again at the start.
const CLIENT_RETRY: Duration = Duration::from_secs(10);

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error(transparent)]
    Targets(#[from] TargetError),
    #[error(transparent)]
    Logs(#[from] logging::LogError),
    #[error("cannot make the folder {path}")]
    Folder { path: String, source: io::Error },
    #[error("cannot listen on {address} for introspection and metrics; is another agent running?")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot listen on the CNI socket {path}")]
    Socket { path: String, source: io::Error },
    #[error("the kernel refuses what the dataplane needs")]
    Dataplane(#[from] DataplaneError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Ended(#[from] enipool_daemon::shutdown::Failure),
}

/// Sets up logs: standard output, and hourly files with the AWS plugin's names. Keep the guard until the process ends.
pub fn start_logs(args: &RunArgs) -> Result<LogGuard, AppError> {
    // Half of the bytes for each kind: pods that come and go all day must not push the agent's own words out.
    let bounds = Bounds { hours: args.log_files.into(), bytes: args.log_max_bytes / 2 };
    let file =
        |prefix: &str, target| LogFile { folder: args.log_dir.clone().into(), prefix: prefix.into(), bounds, target };
    let files = if args.log_dir.is_empty() {
        Vec::new()
    } else {
        vec![file("ipamd.log", None), file("plugin.log", Some("plugin"))]
    };
    Ok(logging::init(&LogOptions { format: args.log_format, filter: args.log.clone(), files })?)
}

/// Runs the agent until it is told to stop, or until a part without which it is useless fails.
pub async fn run<E: Ec2, I: Imds>(args: RunArgs, ec2: E, imds: I) -> Result<(), AppError> {
    let begun = Instant::now();
    let flags = args.wishes()?;
    let shutdown = Shutdown::new();
    shutdown.on_signals().map_err(AppError::Signals)?;
    let paths = &args.paths;
    std::fs::create_dir_all(&paths.state_dir)
        .map_err(|source| AppError::Folder { path: paths.state_dir.display().to_string(), source })?;

    let readiness = Readiness::new();
    let serving = readiness.gate("pool");
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let counting_since = now();
    let listener =
        TcpListener::bind(args.listen).await.map_err(|source| AppError::Listen { address: args.listen, source })?;

    let dataplane = Dataplane::new(paths.dataplane()).await?;
    let (host_wishes, host_wishes_seen) = watch::channel(flags.host.clone());
    let settings = HostSettings {
        node_ports: args.host.node_port_support,
        external_service_cidrs: args.host.external_service_cidrs.clone(),
        veth_prefix: paths.veth_prefix.clone(),
    };
    let host = Host::new(dataplane.clone(), settings, host_wishes_seen);

    let clock = Clock::wall();
    let config = engine_config(&args, &flags);
    let observer = metrics.clone();
    let hands = Hands {
        ec2: Arc::new(ec2),
        imds: Arc::new(imds),
        kernel: Arc::new(host.clone()),
        observer: Some(Arc::new(move |action, error, took| observer.ec2_call(action, error, took))),
    };
    let mut wishes_file = None;
    let aims = |me: &Me| {
        let aims;
        (aims, wishes_file) = first_aims(&args, &flags, me, &host_wishes);
        aims
    };
    let engine = crate::engine::start_with(config, hands, clock, shutdown.token(), aims).await?;
    let pool = engine.pool;
    registry.register_collector(Box::new(PoolCollector(pool.snapshot())));
    let admin = introspection::server(readiness, Arc::new(registry), pool.snapshot());
    shutdown.spawn_vital("introspection", admin.serve(listener, shutdown.token()));

    let verbs = Arc::new(Verbs::new(
        pool.clone(),
        dataplane.clone(),
        VerbsConfig {
            veth_prefix: paths.veth_prefix.clone(),
            mtu: host_wishes.borrow().mtu,
            del_queue: paths.del_queue(),
        },
        Arc::new(metrics.clone()),
    ));
    let server = Server::bind(ServerConfig { socket: paths.socket.clone(), allowed_uid: 0 })
        .map_err(|source| AppError::Socket { path: paths.socket.display().to_string(), source })?;
    let (conflist, path) = (conflist_of(&args), paths.conflist());
    let start_serving = {
        let (pool, host, verbs, token) = (pool.clone(), host.clone(), Arc::clone(&verbs), shutdown.token());
        let metrics = metrics.clone();
        async move {
            if !wait_until_serving(&pool, &token).await {
                return Ok(());
            }
            match host.adopt(&pool).await {
                Ok(0) => {}
                Ok(pods) => tracing::info!(pods, "pods of earlier times run on"),
                Err(error) => tracing::error!(%error, "pods of earlier times keep the routes they have"),
            }
            if conflist::install(&path, &conflist)? {
                tracing::info!(path = %path.display(), "CNI configuration written: the node can serve pods");
            }
            serving.open();
            metrics.started(begun.elapsed());
            server.serve(verbs, token).await;
            Ok::<_, io::Error>(())
        }
    };
    shutdown.spawn_vital("CNI server", start_serving);
    shutdown.spawn(memory::keep_small(shutdown.token()));
    shutdown.spawn(host.follow_wishes(shutdown.token()));
    shutdown.spawn(follow_mtu(verbs, host_wishes.subscribe(), shutdown.token()));
    shutdown.spawn(count_notices(metrics.clone(), pool.snapshot(), shutdown.token()));
    shutdown.spawn(count_drift(dataplane.drift(), metrics.clone(), shutdown.token()));
    if let Some(file) = wishes_file {
        let (seen, seen_by_writer) = watch::channel(Seen::default());
        let (node, zone) = (args.node_name.clone(), engine.me.zone.clone());
        let (tellings, events) = mpsc::channel(publish::QUEUE);
        let token = shutdown.token();
        shutdown.spawn(publish::collect(pool.snapshot(), dataplane.drift(), clock, tellings, token));
        let link =
            ApiLink { node, zone, flags, pool: pool.clone(), host: host_wishes, file, metrics, counting_since, events };
        shutdown.spawn(link.run(seen, seen_by_writer, shutdown.token()));
    }

    shutdown.token().cancelled().await;
    stop(shutdown, engine.task).await
}

/// Ends everything, and sees EC2 calls through as long as there is time for it.
async fn stop(shutdown: Shutdown, engine: JoinHandle<()>) -> Result<(), AppError> {
    tracing::info!("stopping");
    let end = tokio::time::Instant::now() + GRACE;
    let outcome = shutdown.finish(GRACE).await;
    if tokio::time::timeout_at(end, engine).await.is_err() {
        tracing::warn!("EC2 calls are still under way; the next start finds out how they ended");
    }
    Ok(outcome?)
}

fn engine_config(args: &RunArgs, flags: &Wishes) -> EngineConfig {
    EngineConfig {
        node: args.node_name.clone(),
        cluster: args.cluster_name.clone(),
        journal: args.paths.journal(),
        config: flags.engine.clone(),
        table: enipool_pool::capacity::bundled,
        seed: seed(),
    }
}

/// What the engine and the host's plumbing start from, and where the last word is kept; no file: nobody but the flags has a
/// say.
fn first_aims(
    args: &RunArgs,
    flags: &Wishes,
    me: &Me,
    host: &watch::Sender<HostWishes>,
) -> (EffectiveConfig, Option<WishesFile>) {
    if args.standalone {
        tracing::info!("standalone: no ENIPool is read or written");
        return (flags.engine.clone(), None);
    }
    let file = WishesFile::open(&args.paths.state_dir, &me.instance);
    if file.kept().is_some() {
        tracing::info!("going on by what was asked for last");
    }
    let wishes = kept::first_wishes(flags, file.kept(), &me.zone);
    host.send_replace(wishes.host);
    (wishes.engine, Some(file))
}

fn conflist_of(args: &RunArgs) -> Conflist {
    let chained = [(args.portmap, chained::PORTMAP), (args.bandwidth, chained::BANDWIDTH)];
    let chained: Vec<_> = chained.into_iter().filter_map(|(wanted, name)| wanted.then_some(name)).collect();
    let offer = chained::offer(ChainedPlugins::read(&args.paths.state_dir).as_ref(), &chained);
    for complaint in offer.complaints {
        tracing::warn!("{complaint}");
    }
    Conflist {
        network: NETWORK.into(),
        socket: args.paths.socket.clone(),
        del_queue: args.paths.del_queue(),
        add_timeout: args.add_timeout,
        versions: offer.versions,
        portmap: args.portmap,
        bandwidth: args.bandwidth,
    }
}

/// Whether the pool came to serve, before the agent was told to stop.
async fn wait_until_serving(pool: &Pool, shutdown: &CancellationToken) -> bool {
    let mut snapshots = pool.snapshot();
    let serving = snapshots.wait_for(|snapshot| snapshot.phase == Phase::Serving);
    tokio::select! {
        () = shutdown.cancelled() => false,
        outcome = serving => outcome.is_ok(),
    }
}

/// New pods get the MTU that the class asks for.
async fn follow_mtu(
    verbs: Arc<Verbs<Pool, Dataplane>>,
    mut wishes: watch::Receiver<crate::status::wishes::HostWishes>,
    shutdown: CancellationToken,
) {
    loop {
        verbs.set_mtu(wishes.borrow_and_update().mtu);
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = wishes.changed() => if changed.is_err() { return },
        }
    }
}

async fn count_drift(mut drift: broadcast::Receiver<Drift>, metrics: Metrics, shutdown: CancellationToken) {
    loop {
        let seen = tokio::select! {
            () = shutdown.cancelled() => return,
            seen = drift.recv() => seen,
        };
        match seen {
            // The dataplane has logged it.
            Ok(Drift { kind, repaired: true, .. }) => metrics.drift_repaired(kind.as_str()),
            Ok(_) => {}
            Err(broadcast::error::RecvError::Lagged(missed)) => tracing::warn!(missed, "reports of drift were lost"),
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// The way to the API server: looked for until it is found, while everything else runs.
struct ApiLink {
    node: String,
    zone: Zone,
    flags: crate::status::wishes::Wishes,
    pool: Pool,
    host: watch::Sender<crate::status::wishes::HostWishes>,
    file: WishesFile,
    metrics: Metrics,
    counting_since: Timestamp,
    events: mpsc::Receiver<Telling>,
}

impl ApiLink {
    async fn run(self, seen: watch::Sender<Seen>, seen_by_writer: watch::Receiver<Seen>, shutdown: CancellationToken) {
        let begun = Instant::now();
        let client = loop {
            match kube::Client::try_default().await {
                Ok(client) => break client,
                Err(error) => tracing::warn!(%error, "no way to the API server; the agent goes on by itself"),
            }
            if begun.elapsed() >= UNREACHABLE_FOR {
                self.plan_alone();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(CLIENT_RETRY) => {}
            }
        };
        let (events, token) = (self.events, shutdown.clone());
        let events = publish::publish(client.clone(), self.node.clone(), seen_by_writer.clone(), events, token);
        let writer = Writer {
            client: client.clone(),
            node: self.node.clone(),
            snapshots: self.pool.snapshot(),
            seen: seen_by_writer,
            metrics: self.metrics,
            counting_since: self.counting_since,
        };
        let intake = Intake {
            client,
            node: self.node,
            zone: self.zone,
            flags: self.flags,
            pool: self.pool,
            host: self.host,
            file: self.file,
            seen,
            // A third of the limit at most: spreads a cluster's nodes over some seconds.
            jitter: Duration::from_millis(seed() % 5_000),
            clock: now,
        };
        tokio::join!(intake.run(shutdown.clone()), writer.run(shutdown), events);
    }

    /// Where there is no way to the API server at all, there is no watch either that would notice its silence.
    fn plan_alone(&self) {
        if let Some(kept) = self.file.kept() {
            self.pool.set_config(kept.alone().wishes(&self.flags, &self.zone).engine);
        }
    }
}

fn now() -> Timestamp {
    Clock::wall().now()
}

/// Different on every node and at every start: hashed from what the standard library draws from the kernel.
fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
