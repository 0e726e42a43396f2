//! Brings what is worth telling to the API server, as events. Decides nothing.

use std::sync::Arc;
use std::time::Duration;

use enipool_crds::ENIPool;
use enipool_pool::ledger::PodRef;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff;
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::tell::{About, Teller, Telling};
use crate::dataplane::Drift;
use crate::engine::{Clock, PoolSnapshot};
use crate::status::intake::Seen;

/// Events that may wait for the API server. What comes beyond is dropped: it is in the log and in the status too.
pub const QUEUE: usize = 64;
/// Longest wait for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between the tries of one event.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];
/// Where events about objects without a namespace live.
const CLUSTER_SCOPED: &str = "default";
const CONTROLLER: &str = "enipool.dev/agent";
/// Limits of the API for names, and for the reporting instance.
const NAME_MAX: usize = 220;
const INSTANCE_MAX: usize = 128;

/// Watches the pool and the kernel for what is worth an event, until `shutdown`. Never waits for the queue.
pub async fn collect(
    mut snapshots: watch::Receiver<Arc<PoolSnapshot>>,
    mut drift: broadcast::Receiver<Drift>,
    clock: Clock,
    queue: mpsc::Sender<Telling>,
    shutdown: CancellationToken,
) {
    let mut teller = Teller::default();
    let mut withheld = 0;
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let now = clock.now();
        for telling in teller.look(&snapshot, now) {
            put(&queue, telling);
        }
        if teller.withheld() > withheld {
            tracing::debug!(events = teller.withheld() - withheld, "events withheld: this node tells enough");
            withheld = teller.withheld();
        }
        let wake = teller.wake_at(&snapshot, now).map(|at| clock.instant(at));
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = snapshots.changed() => if changed.is_err() { return },
            seen = drift.recv() => match seen {
                Ok(seen) => {
                    if let Some(telling) = teller.drift(&seen, clock.now()) {
                        put(&queue, telling);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = sleep_until(wake.unwrap_or_else(tokio::time::Instant::now)), if wake.is_some() => {}
        }
    }
}

fn put(queue: &mpsc::Sender<Telling>, telling: Telling) {
    if let Err(mpsc::error::TrySendError::Full(lost)) = queue.try_send(telling) {
        tracing::debug!(reason = lost.reason, note = lost.note, "an event is lost: the API server does not take them");
    }
}

/// Publishes what comes over the queue, one after the other, until `shutdown`.
pub async fn publish(
    client: Client,
    node: String,
    seen: watch::Receiver<Seen>,
    mut queue: mpsc::Receiver<Telling>,
    shutdown: CancellationToken,
) {
    loop {
        let telling = tokio::select! {
            () = shutdown.cancelled() => return,
            telling = queue.recv() => match telling {
                Some(telling) => telling,
                None => return,
            },
        };
        let regarding = reference(&telling.about, &node, &seen.borrow());
        let event = event(&telling, regarding, &node, jiff::Timestamp::now());
        let namespace = event.metadata.namespace.as_deref().unwrap_or(CLUSTER_SCOPED);
        let api = Api::<Event>::namespaced(client.clone(), namespace);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = create(&api, &event) => {}
        }
    }
}

/// Creates the event, with some patience. A try that was carried out without our knowing is found by its name.
async fn create(api: &Api<Event>, event: &Event) {
    let mut pauses = PAUSES.iter();
    loop {
        let error = match timeout(TIMEOUT, api.create(&PostParams::default(), event)).await {
            Ok(Ok(_)) => return,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
            // Forbidden, or its namespace is on its way out: no later try does better.
            Ok(Err(error @ kube::Error::Api(_))) if is_final(&error) => {
                tracing::debug!(%error, reason = event.reason, "the API server does not want an event");
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {TIMEOUT:?}"),
        };
        let Some(pause) = pauses.next() else {
            tracing::debug!(error, reason = event.reason, "an event is lost");
            return;
        };
        sleep(*pause).await;
    }
}

/// Whether the API server understood and refused, rather than having too much to do.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// The object as `kubectl describe` looks for its events: by uid.
fn reference(about: &About, node: &str, seen: &Seen) -> ObjectReference {
    match (about, &seen.pool_uid) {
        (About::Pod(PodRef { namespace, name, uid }), _) => ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(namespace.to_string()),
            name: Some(name.to_string()),
            uid: Some(uid.to_string()).filter(|uid| !uid.is_empty()),
            ..ObjectReference::default()
        },
        (About::Pool, Some(uid)) => ObjectReference {
            api_version: Some(ENIPool::api_version(&()).into_owned()),
            kind: Some(ENIPool::kind(&()).into_owned()),
            name: Some(node.to_owned()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        },
        // Without an ENIPool there is the Node. Its name stands for its uid, as in the kubelet's own events.
        (About::Pool | About::Node, _) => ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    }
}

fn event(telling: &Telling, regarding: ObjectReference, node: &str, now: jiff::Timestamp) -> Event {
    let cut = |text: &str, most: usize| text[..text.floor_char_boundary(most)].to_owned();
    let object = cut(regarding.name.as_deref().unwrap_or(node), NAME_MAX);
    let namespace = regarding.namespace.clone().unwrap_or_else(|| CLUSTER_SCOPED.into());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", object.trim_end_matches(['.', '-']), now.as_nanosecond())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        type_: Some(if telling.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(telling.reason.into()),
        action: Some(telling.action.into()),
        note: Some(telling.note.clone()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(cut(node, INSTANCE_MAX)),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "ip-10-0-0-1.ec2.internal";

    fn told(about: About) -> Event {
        let telling = Telling { about, warning: true, reason: "MaxPods", action: "AssignAddress", note: "why".into() };
        let seen = Seen { pool_uid: Some("pool-uid".into()), ..Seen::default() };
        let regarding = reference(&telling.about, NODE, &seen);
        event(&telling, regarding, NODE, jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_event_of_a_pod_is_where_kubectl_describe_looks_for_it() {
        let pod = PodRef { namespace: "shop".into(), name: "web-1".into(), uid: "uid-1".into() };
        let event = told(About::Pod(pod));
        let regarding = event.regarding.unwrap();
        assert_eq!((regarding.kind.as_deref(), regarding.uid.as_deref()), (Some("Pod"), Some("uid-1")));
        assert_eq!((event.metadata.namespace.as_deref(), regarding.namespace.as_deref()), (Some("shop"), Some("shop")));
    }

    #[test]
    fn events_of_objects_without_a_namespace_live_in_default() {
        for (about, kind, uid) in [(About::Pool, "ENIPool", "pool-uid"), (About::Node, "Node", NODE)] {
            let event = told(about);
            assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
            let regarding = event.regarding.unwrap();
            assert_eq!((regarding.kind.as_deref(), regarding.uid.as_deref()), (Some(kind), Some(uid)));
            assert_eq!(regarding.namespace, None);
        }
        let without_a_pool = reference(&About::Pool, NODE, &Seen::default());
        assert_eq!(without_a_pool.kind.as_deref(), Some("Node"));
    }

    #[test]
    fn a_full_queue_loses_events_and_nothing_waits() {
        let (sender, mut receiver) = mpsc::channel(1);
        for reason in ["First", "Second"] {
            let telling = Telling { about: About::Node, warning: false, reason, action: "A", note: String::new() };
            put(&sender, telling);
        }
        assert_eq!(receiver.try_recv().unwrap().reason, "First");
        assert!(receiver.try_recv().is_err());
    }
}
