//! Asks the API server. Reads only; every call has a limit, and every failure says what was asked.

use std::future::Future;
use std::time::Duration;

use enipool_crds::{ENIPool, ENIPoolClass};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

use crate::args::Connection;
use crate::failure::{Failure, chain};

/// Objects per answer, as kubectl asks for them: 5,000 nodes come in ten answers of some hundred kilobytes each.
const PAGE: u32 = 500;
/// More pages than any cluster has: a server that never ends is a fault, not a fleet.
const PAGES_MAX: usize = 200;
/// Longest wait for a credentials plugin (`aws eks get-token`, a login in the browser).
const CREDENTIALS_WAIT_MAX: Duration = Duration::from_mins(1);

/// Labels that the chart gives to the agents.
const AGENT_LABELS: &str = "app.kubernetes.io/name=enipool,app.kubernetes.io/component=agent";

/// One cluster, as one person sees it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    server: String,
    limit: Duration,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads the kubeconfig and gets credentials. Nothing is sent to the API server yet.
    pub async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let config = config(connection).await?;
        let server = config.cluster_url.to_string();
        let limit = connection.request_timeout;
        // A credentials plugin runs here and blocks.
        let made = tokio::task::spawn_blocking(move || Client::try_from(config));
        match tokio::time::timeout(CREDENTIALS_WAIT_MAX, made).await {
            Ok(Ok(Ok(client))) => Ok(Self { client, server, limit }),
            Ok(Ok(Err(error))) => Err(Failure::Credentials(chain(&error))),
            Ok(Err(panicked)) => Err(Failure::Credentials(panicked.to_string())),
            Err(_) => Err(Failure::Credentials(format!("their plugin gave none within {CREDENTIALS_WAIT_MAX:?}"))),
        }
    }

    /// The namespace of the context.
    pub fn default_namespace(&self) -> &str {
        self.client.default_namespace()
    }

    pub async fn pools(&self) -> Result<Vec<ENIPool>, Failure> {
        self.list(&Api::all(self.client.clone()), &ListParams::default(), "list enipools").await
    }

    pub async fn classes(&self) -> Result<Vec<ENIPoolClass>, Failure> {
        self.list(&Api::all(self.client.clone()), &ListParams::default(), "list enipoolclasses").await
    }

    pub async fn pool(&self, node: &str) -> Result<ENIPool, Failure> {
        let api: Api<ENIPool> = Api::all(self.client.clone());
        self.ask(&format!("get enipool {node}"), api.get(node)).await
    }

    pub async fn class(&self, name: &str) -> Result<ENIPoolClass, Failure> {
        let api: Api<ENIPoolClass> = Api::all(self.client.clone());
        self.ask(&format!("get enipoolclass {name}"), api.get(name)).await
    }

    pub async fn node(&self, name: &str) -> Result<Node, Failure> {
        let api: Api<Node> = Api::all(self.client.clone());
        self.ask(&format!("get node {name}"), api.get(name)).await
    }

    /// The pod; when there is none, where else a pod of this name lives.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Pod, Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match self.ask(&format!("get pod {namespace}/{name}"), api.get(name)).await {
            Err(Failure::NotFound(_)) => Err(Failure::NoSuchPod {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                elsewhere: self.namespaces_with(name).await,
            }),
            answer => answer,
        }
    }

    /// A hint only: somebody who may not list pods of all namespaces does without.
    async fn namespaces_with(&self, name: &str) -> Vec<String> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let by_name = ListParams::default().fields(&format!("metadata.name={name}"));
        let pods = self.list(&api, &by_name, "list pods").await.unwrap_or_default();
        pods.into_iter().filter_map(|pod| pod.metadata.namespace).collect()
    }

    /// The enipool-agent's pod on a node.
    pub async fn agent(&self, node: &str) -> Result<Pod, Failure> {
        let api: Api<Pod> = Api::all(self.client.clone());
        let there = ListParams::default().labels(AGENT_LABELS).fields(&format!("spec.nodeName={node}"));
        let question = format!("list the agent's pods on node {node}");
        // While a DaemonSet replaces a pod there may be two; the one that is not going is the agent.
        let mut pods = self.list(&api, &there, &question).await?;
        pods.sort_by_key(|pod| pod.metadata.deletion_timestamp.is_some());
        pods.into_iter().next().ok_or(Failure::NotFound(question))
    }

    /// The events of this very pod; one of the same name before it had another uid.
    pub async fn events(&self, pod: &Pod) -> Result<Vec<Event>, Failure> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let of_pod = ListParams::default().fields(&format!("involvedObject.kind=Pod,involvedObject.uid={uid}"));
        self.list(&api, &of_pod, &format!("list events in namespace {namespace}")).await
    }

    async fn list<K>(&self, api: &Api<K>, params: &ListParams, question: &str) -> Result<Vec<K>, Failure>
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut objects = Vec::new();
        let mut params = params.clone().limit(PAGE);
        for _ in 0..PAGES_MAX {
            let page = self.ask(question, api.list(&params)).await?;
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(objects),
            }
        }
        Err(Failure::Unreadable { question: question.to_owned(), why: format!("more than {PAGES_MAX} pages") })
    }

    async fn ask<T>(&self, question: &str, answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.limit, answer).await {
            Ok(answer) => answer.map_err(|error| Failure::of(error, question, &self.server)),
            Err(_) => {
                Err(Failure::Timeout { question: question.to_owned(), server: self.server.clone(), limit: self.limit })
            }
        }
    }
}

async fn config(connection: &Connection) -> Result<Config, Failure> {
    let options = KubeConfigOptions { context: connection.context.clone(), ..KubeConfigOptions::default() };
    let config = match &connection.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| Failure::Kubeconfig(chain(&error)))?;
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| chain(&error))
        }
        None if options.context.is_some() => Config::from_kubeconfig(&options).await.map_err(|error| chain(&error)),
        // Without any wish, as kubectl does: the kubeconfig, then the service account of the pod that we run in.
        None => Config::infer().await.map_err(|error| chain(&error)),
    };
    let mut config = config.map_err(Failure::Kubeconfig)?;
    config.connect_timeout = Some(connection.request_timeout);
    config.read_timeout = Some(connection.request_timeout);
    Ok(config)
}
