//! Wiring: what runs on every replica, and what only on the leader.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use enipool_crds::ENIPoolClassSpec;
use enipool_daemon::{AdminServer, Gate, OlderType, Readiness, Shutdown, memory};
use enipool_pool::Timestamp;
use enipool_pool::budget::Budget;
use enipool_pool::cloudwatch::CloudWatch;
use enipool_pool::ec2::Ec2;
use k8s_controller::LeaderElection;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::args::Args;
use crate::cluster_metrics::{self, ClusterMetrics, Exposed, Post};
use crate::kubernetes::CallError;
use crate::metrics::Metrics;
use crate::network::SharedNetwork;
use crate::planning::Planning;
use crate::world::World;
use crate::{class_status, default_class, farewell, kubernetes, leaks, network, watches};

/// Longest wait for tasks to end: less than Kubernetes's own 30 s.
const GRACE: Duration = Duration::from_secs(10);
/// Pause between two looks for an API server that knows our kinds.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Their plural names.
const KINDS: [&str; 2] = ["enipools", "enipoolclasses"];

/// The AWS services that the operator calls.
#[derive(Debug)]
pub struct Aws<E, C> {
    pub ec2: E,
    pub cloudwatch: C,
}

/// Runs until a signal, or until something breaks that a new start may mend (the Lease is lost, a watch ended).
pub async fn run<E: Ec2, C: CloudWatch>(
    args: Args,
    client: Client,
    aws: Aws<E, C>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    args.cloudwatch_cluster()?;
    let class = args.default_class.clone();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let exposed = Exposed::default();
    registry.register_collector(Box::new(exposed.clone()));
    let readiness = Readiness::new();
    let reachable = readiness.gate("api server");
    let listener = TcpListener::bind(args.admin_address)
        .await
        .with_context(|| format!("--admin-address {}", args.admin_address))?;
    let admin = AdminServer::new(readiness).metrics_with_older_types(Arc::new(registry), older_type);
    shutdown.spawn_vital("admin server", admin.serve(listener, shutdown.token()));
    shutdown.spawn(memory::keep_small(shutdown.token()));

    if !await_api(&client, &reachable, &shutdown.token()).await {
        return shutdown.finish(GRACE).await.map_err(anyhow::Error::new);
    }
    let election = LeaderElection::new(client.clone(), &args.namespace, &args.lease, &args.identity);
    let leading = lead(args, client, aws, class, (metrics, exposed), shutdown.clone());
    tokio::select! {
        () = shutdown.token().cancelled_owned() => {}
        outcome = election.with_lease(leading) => match outcome {
            // Calls that were under way when it was lost may still land; a new process knows nothing of them and looks.
            None => shutdown.fail("the Lease was lost: another replica leads now"),
            Some(Ok(())) => shutdown.request(),
            Some(Err(error)) => shutdown.fail(format!("{error:#}")),
        },
    }
    let ended = shutdown.finish(GRACE).await;
    // Hands over at once instead of after the lease's 15 s; answers nothing of interest if we never held it.
    if tokio::time::timeout(kubernetes::CALL_TIME_MAX, election.release()).await.is_err() {
        tracing::warn!("the Lease was not released in time; it expires by itself");
    }
    ended.map_err(anyhow::Error::new)
}

/// Everything that only the leader does; dropped when the Lease is lost.
async fn lead<E: Ec2, C: CloudWatch>(
    args: Args,
    client: Client,
    aws: Aws<E, C>,
    class: Option<ENIPoolClassSpec>,
    (metrics, exposed): (Metrics, Exposed),
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    tracing::info!(identity = %args.identity, "leading");
    metrics.leads(true);
    if let Some(class) = class {
        default_class::apply(&client, &class).await.context("the class `default`")?;
    }
    let stop = shutdown.token();
    let world = World::default();
    let shared = SharedNetwork::default();
    let now = u64::try_from(k8s_openapi::jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    let budget = Arc::new(Mutex::new(Budget::published(args.ec2_share, Timestamp(now))));
    let planning = Planning::new(client.clone(), world.clone(), shared.clone(), budget.clone(), metrics.clone());
    let (ec2, cloudwatch) = (Arc::new(aws.ec2), Arc::new(aws.cloudwatch));
    let cluster = args.cloudwatch_cluster()?.map(str::to_owned);
    let post = cluster.is_some().then(Post::default);
    let cluster_metrics = ClusterMetrics {
        world: world.clone(),
        network: shared.clone(),
        budget,
        metrics: metrics.clone(),
        exposed,
        post: post.clone(),
        cluster: cluster.unwrap_or_default(),
        namespace: args.namespace.clone(),
        period: Duration::from_secs(args.metrics_interval),
    };
    tokio::select! {
        () = cluster_metrics.run(stop.clone()) => Ok(()),
        () = publish(post, cloudwatch, metrics.clone(), stop.clone()) => Ok(()),
        outcome = watches::follow_all(client.clone(), world.clone(), metrics.clone()) => {
            outcome.map_err(anyhow::Error::msg)
        }
        () = planning.run(stop.clone()) => Ok(()),
        () = network::refresh(ec2.clone(), world.clone(), shared.clone(), metrics.clone(), stop.clone()) => Ok(()),
        () = class_status::keep(client.clone(), world.clone(), shared, metrics.clone(), stop.clone()) => Ok(()),
        () = farewell::see_off(client, ec2.clone(), world.clone(), metrics.clone(), stop.clone()) => Ok(()),
        () = collect_leaks(ec2, args.cluster_name, world, metrics, stop) => Ok(()),
    }
}

/// Without CloudWatch there is nothing to publish; the rest goes on.
async fn publish<C: CloudWatch>(post: Option<Post>, cloudwatch: Arc<C>, metrics: Metrics, stop: CancellationToken) {
    match post {
        Some(post) => post.run(cloudwatch, metrics, stop).await,
        None => stop.cancelled().await,
    }
}

/// The metrics helper's counters have names that OpenMetrics does not take for counters.
fn older_type(name: &str) -> OlderType {
    if cluster_metrics::is_counter(name) { OlderType::Counter } else { OlderType::Untyped }
}

/// The collector ends at once when no cluster name is set; the rest goes on.
async fn collect_leaks<E: Ec2>(ec2: Arc<E>, cluster: String, world: World, metrics: Metrics, stop: CancellationToken) {
    leaks::collect(ec2, cluster, world, metrics, stop.clone()).await;
    stop.cancelled().await;
}

/// Waits for an API server that knows our kinds: without them nothing works, and the errors of the watches would not say
/// so. A CRD takes a moment after it is applied. Answers whether there is one; if not, the end was asked for.
async fn await_api(client: &Client, reachable: &Gate, stop: &CancellationToken) -> bool {
    let version = format!("{}/{}", enipool_crds::GROUP, enipool_crds::VERSION);
    let mut told = None;
    loop {
        let why = match kubernetes::call(client.list_api_group_resources(&version)).await {
            Ok(list) if KINDS.iter().all(|kind| list.resources.iter().any(|resource| resource.name == *kind)) => {
                reachable.open();
                return true;
            }
            Ok(_) | Err(CallError::NotFound) => {
                "it does not know ENIPool and ENIPoolClass: apply crds/enipools.yaml and crds/enipoolclasses.yaml"
                    .into()
            }
            Err(error) => error.story(),
        };
        reachable.close(why.as_str());
        if told.as_ref() != Some(&why) {
            tracing::warn!(%why, "waiting for the API server");
            told = Some(why);
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}
