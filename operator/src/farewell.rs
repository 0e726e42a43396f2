//! The end of a node: its ENIs go before its ENIPool does.
//!
//! An ENIPool that is being deleted keeps our finalizer until EC2 holds nothing of the instance that nobody else would
//! delete. ENIs of an instance that goes on running are left alone: its agent still uses them.

use std::sync::Arc;
use std::time::Duration;

use enipool_crds::{ENIPool, FINALIZER};
use enipool_pool::InstanceId;
use enipool_pool::ec2::{Action, Ec2, Ec2Error, Ec2ErrorKind, Eni, EniFilter, EniStatus, InstanceState};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::kubernetes::call;
use crate::metrics::{Metrics, NODE_GONE};
use crate::planning::INSTANCE_ANNOTATION;
use crate::world::World;

/// The tag that says whose an ENI is.
pub const INSTANCE_TAG: &str = "node.k8s.amazonaws.com/instance_id";
/// Pause between two looks at the same pool: an instance takes about a minute to shut down.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// After this long the collector of leaks takes over what is left, so that a pool never hangs for ever.
const PATIENCE: Duration = Duration::from_secs(900);
/// Pools that are seen off at the same time.
const AT_ONCE: usize = 8;

/// What is to be done about one pool now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// Nothing of it is left, or what is left is not ours to take.
    Over,
    /// Delete these, then look again.
    Delete(Vec<enipool_pool::EniId>),
    /// They are still attached to an instance that goes away.
    Wait,
}

/// What to do, from what EC2 says of the instance and its ENIs.
pub fn judge(enis: &[Eni], instance: Option<InstanceState>) -> Farewell {
    let loose: Vec<_> =
        enis.iter().filter(|eni| eni.status == EniStatus::Available).map(|eni| eni.id.clone()).collect();
    if !loose.is_empty() {
        return Farewell::Delete(loose);
    }
    if enis.is_empty() {
        return Farewell::Over;
    }
    match instance {
        Some(InstanceState::Pending | InstanceState::Running | InstanceState::Stopping | InstanceState::Stopped) => {
            Farewell::Over
        }
        Some(InstanceState::ShuttingDown | InstanceState::Terminated) | None => Farewell::Wait,
    }
}

/// Sees off the pools that are being deleted, until the token is cancelled.
pub async fn see_off<E: Ec2>(client: Client, ec2: Arc<E>, world: World, metrics: Metrics, stop: CancellationToken) {
    let mut changes = world.changes();
    loop {
        let leaving: Vec<Arc<ENIPool>> = {
            let state = world.state();
            let leaving = |pool: &&Arc<ENIPool>| pool.metadata.deletion_timestamp.is_some() && has_finalizer(pool);
            state.pools.values().filter(leaving).cloned().collect()
        };
        let none = leaving.is_empty();
        futures::stream::iter(leaving)
            .for_each_concurrent(AT_ONCE, |pool| {
                let (client, ec2, metrics) = (client.clone(), ec2.clone(), metrics.clone());
                async move { one(&client, ec2.as_ref(), &metrics, &pool).await }
            })
            .await;
        changes.mark_unchanged();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY), if !none => {}
            news = changes.changed(), if none => {
                if news.is_err() {
                    return;
                }
            }
        }
    }
}

fn has_finalizer(pool: &ENIPool) -> bool {
    pool.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

/// The instance of a pool: the agent's word, else what the operator wrote down when it made the pool.
pub fn instance_of(pool: &ENIPool) -> Option<InstanceId> {
    let reported =
        pool.status.as_ref().and_then(|status| status.instance.as_ref()).map(|instance| instance.id.as_str());
    let noted = pool.metadata.annotations.as_ref().and_then(|all| all.get(INSTANCE_ANNOTATION)).map(String::as_str);
    reported.or(noted)?.parse().ok()
}

async fn one<E: Ec2>(client: &Client, ec2: &E, metrics: &Metrics, pool: &ENIPool) {
    let name = pool.name_any();
    let over = match instance_of(pool) {
        None => true,
        Some(instance) => match clear(ec2, metrics, &instance).await {
            Ok(over) => over,
            Err(error) => {
                tracing::warn!(node = %name, %error, "ENIs of a node that is gone cannot be deleted yet");
                false
            }
        },
    };
    if !over && !is_overdue(pool) {
        return;
    }
    if !over {
        tracing::warn!(node = %name, "ENIs of a node that is gone are left to the collector of leaks");
    }
    let rest: Vec<&String> = pool.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let patch = json!({"metadata": {"resourceVersion": pool.resource_version(), "finalizers": rest}});
    let pools: Api<ENIPool> = Api::all(client.clone());
    let answer = call(pools.patch(&name, &PatchParams::default(), &Patch::Merge(&patch))).await;
    metrics.wrote("finalizer", &answer);
    match answer {
        Ok(_) => tracing::info!(node = %name, "the node's ENIs are gone, its ENIPool follows"),
        Err(crate::kubernetes::CallError::NotFound) => {}
        Err(error) => tracing::warn!(node = %name, error = %error.story(), "finalizer cannot be removed yet"),
    }
}

fn is_overdue(pool: &ENIPool) -> bool {
    let since = pool.metadata.deletion_timestamp.as_ref().map(|time| Timestamp::now().duration_since(time.0));
    since.and_then(|since| Duration::try_from(since).ok()).is_some_and(|since| since > PATIENCE)
}

/// One round; whether nothing is left to wait for.
async fn clear<E: Ec2>(ec2: &E, metrics: &Metrics, instance: &InstanceId) -> Result<bool, Ec2Error> {
    let tags = [(INSTANCE_TAG.to_owned(), instance.to_string())].into();
    let found = ec2.describe_network_interfaces(&EniFilter { tags, ..EniFilter::default() }).await;
    metrics.called(Action::DescribeNetworkInterfaces, &found);
    let enis = found?;
    let attached = enis.iter().any(|eni| eni.status != EniStatus::Available);
    let state = if attached { state_of(ec2, metrics, instance).await? } else { None };
    match judge(&enis, state) {
        Farewell::Over => Ok(true),
        Farewell::Wait => Ok(false),
        Farewell::Delete(loose) => {
            for eni in loose {
                let answer = ec2.delete_network_interface(&eni).await;
                metrics.called(Action::DeleteNetworkInterface, &answer);
                match answer {
                    Ok(()) => {
                        metrics.deleted(NODE_GONE);
                        tracing::info!(%eni, %instance, "deleted an ENI of a node that is gone");
                    }
                    Err(error) if error.kind == Ec2ErrorKind::EniNotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(false)
        }
    }
}

async fn state_of<E: Ec2>(ec2: &E, metrics: &Metrics, id: &InstanceId) -> Result<Option<InstanceState>, Ec2Error> {
    let answer = ec2.describe_instances(std::slice::from_ref(id)).await;
    metrics.called(Action::DescribeInstances, &answer);
    match answer {
        Ok(instances) => Ok(instances.into_iter().find(|instance| instance.id == *id).map(|instance| instance.state)),
        Err(error) if error.kind == Ec2ErrorKind::InstanceNotFound => Ok(None),
        Err(error) => Err(error),
    }
}
