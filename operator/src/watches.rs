//! From watches into the world. One malformed object neither ends a watch nor removes what we knew of it.

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use enipool_crds::{ENIPool, ENIPoolClass};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::metrics::Metrics;
use crate::world::{Watched, World};

/// Follows everything; ends only with an error, because a watch never ends by itself.
pub async fn follow_all(client: Client, world: World, metrics: Metrics) -> Result<(), &'static str> {
    let all = || watcher::Config::default();
    // Finished pods need no address: the API server leaves them out, and says "deleted" when one finishes.
    let pods = all().fields("spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed");
    tokio::select! {
        () = follow(Api::<DeserializeGuard<Node>>::all(client.clone()), all(), &world, &metrics) => Err("the watch of nodes ended"),
        () = follow(Api::<DeserializeGuard<Pod>>::all(client.clone()), pods, &world, &metrics) => Err("the watch of pods ended"),
        () = follow(Api::<DeserializeGuard<ENIPool>>::all(client.clone()), all(), &world, &metrics) => Err("the watch of ENIPools ended"),
        () = follow(Api::<DeserializeGuard<ENIPoolClass>>::all(client), all(), &world, &metrics) => Err("the watch of ENIPoolClasses ended"),
    }
}

async fn follow<K>(api: Api<DeserializeGuard<K>>, config: watcher::Config, world: &World, metrics: &Metrics)
where
    K: Resource<DynamicType = ()> + Watched + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
    // Names of a list that is coming in; what is not among them when it is complete is gone.
    let mut listed: HashSet<Arc<str>> = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                listed.insert(key(&object));
                take(object, world, metrics);
            }
            Ok(Event::InitDone) => world.change(|state| {
                for gone in K::keys(state).into_iter().filter(|key| !listed.contains(key)) {
                    K::remove(&gone, state);
                }
                listed = HashSet::new();
                state.mark_synced(K::KIND);
            }),
            Ok(Event::Apply(object)) => take(object, world, metrics),
            Ok(Event::Delete(object)) => world.change(|state| K::remove(&key(&object), state)),
            Err(error) => {
                metrics.watch_failed(K::KIND);
                tracing::warn!(kind = K::KIND, %error, "watch interrupted; it goes on after a pause");
            }
        }
    }
}

fn take<K: Resource<DynamicType = ()> + Watched>(object: DeserializeGuard<K>, world: &World, metrics: &Metrics) {
    let key = key(&object);
    match object.0 {
        Ok(object) => world.change(|state| object.apply(key, state)),
        Err(invalid) => {
            metrics.object_invalid(K::KIND);
            tracing::warn!(kind = K::KIND, name = %key, error = %invalid.error, "object not understood; its last known state stays");
        }
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) -> Arc<str> {
    match object.meta().namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()).into(),
        None => object.name_any().into(),
    }
}
