//! The pods that try the network: a Deployment of small web servers spread over the nodes, and questions to them.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{cluster::Kubectl, images::BUSYBOX};

/// Port that every pod of [`Web`] answers HTTP on, with its own name.
pub const PORT: u16 = 8080;

/// A Deployment of web servers, spread evenly over the nodes or all on one.
#[derive(Debug, Clone)]
pub struct Web {
    pub name: String,
    pub replicas: u32,
    /// Also a Service, reachable on this port of every node.
    pub node_port: Option<u16>,
    /// All pods are on this node.
    pub node: Option<String>,
    /// Each pod is also reachable on this port of its node.
    pub host_port: Option<u16>,
    /// Of the pods.
    pub annotations: BTreeMap<String, String>,
}

/// A pod as the API server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub node: String,
    pub address: Ipv4Addr,
}

impl Web {
    pub fn new(name: &str, replicas: u32) -> Self {
        Self {
            name: name.to_owned(),
            replicas,
            node_port: None,
            node: None,
            host_port: None,
            annotations: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn with_service(mut self, node_port: u16) -> Self {
        self.node_port = Some(node_port);
        self
    }

    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.node = Some(node.to_owned());
        self
    }

    #[must_use]
    pub fn with_host_port(mut self, port: u16) -> Self {
        self.host_port = Some(port);
        self
    }

    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The manifest, as `kubectl apply` takes it.
    pub fn manifest(&self) -> Value {
        let labels = json!({"app": self.name});
        let mut pod = json!({
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "containers": [container(self.host_port)],
        });
        match &self.node {
            Some(node) => pod["nodeSelector"] = json!({"kubernetes.io/hostname": node}),
            None => {
                pod["topologySpreadConstraints"] = json!([{
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "DoNotSchedule",
                    "nodeTaintsPolicy": "Honor",
                    "labelSelector": {"matchLabels": labels},
                }]);
            }
        }
        let deployment = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": self.name},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": labels},
                "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}},
                "template": {"metadata": {"labels": labels, "annotations": self.annotations}, "spec": pod},
            },
        });
        let mut items = vec![deployment];
        if let Some(node_port) = self.node_port {
            items.push(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": self.name},
                "spec": {
                    "type": "NodePort",
                    "selector": labels,
                    "ports": [{"port": 80, "targetPort": PORT, "nodePort": node_port}],
                },
            }));
        }
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    }

    /// Applies the manifest and waits until all replicas run.
    pub async fn roll_out(&self, kubectl: &Kubectl, limit: Duration) -> Result<Vec<Pod>> {
        kubectl.apply(&self.manifest().to_string()).await?;
        self.rolled_out(kubectl, limit).await
    }

    /// Changes the number of replicas and waits until all run, and those that go are gone.
    pub async fn scale(&mut self, kubectl: &Kubectl, replicas: u32, limit: Duration) -> Result<Vec<Pod>> {
        self.replicas = replicas;
        let deployment = format!("deployment/{}", self.name);
        kubectl.run(&["scale", &deployment, &format!("--replicas={replicas}")]).await?;
        self.rolled_out(kubectl, limit).await
    }

    /// Deletes Deployment and Service and waits until the last pod is gone.
    pub async fn remove(&self, kubectl: &Kubectl, limit: Duration) -> Result<()> {
        let (deployment, service) = (format!("deployment/{}", self.name), format!("service/{}", self.name));
        kubectl.run(&["delete", "--ignore-not-found", "--wait=false", &deployment, &service]).await?;
        gone(kubectl, &self.name, limit).await
    }

    /// The running pods.
    pub async fn pods(&self, kubectl: &Kubectl) -> Result<Vec<Pod>> {
        pods(kubectl, &self.name).await
    }

    async fn rolled_out(&self, kubectl: &Kubectl, limit: Duration) -> Result<Vec<Pod>> {
        let deployment = format!("deployment/{}", self.name);
        let timeout = format!("--timeout={}s", limit.as_secs());
        let patience = limit + Duration::from_secs(10);
        kubectl.run_within(patience, &["rollout", "status", &deployment, &timeout]).await?;
        let pods = self.pods(kubectl).await?;
        let running = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        ensure!(running == self.replicas, "{running} pods of {} run, {} were asked for", self.name, self.replicas);
        Ok(pods)
    }
}

/// The manifest of a web server that a kubelet runs without being told by an API server.
pub fn static_pod(name: &str, app: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container(None)]},
    })
}

fn container(host_port: Option<u16>) -> Value {
    let mut container = json!({
        "name": "web",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", format!("hostname > /www/index.html; exec httpd -f -p {PORT} -h /www")],
    });
    if let Some(port) = host_port {
        container["ports"] = json!([{"containerPort": PORT, "hostPort": port}]);
    }
    container
}

/// Waits until no pod with this `app` label is left.
pub async fn gone(kubectl: &Kubectl, app: &str, limit: Duration) -> Result<()> {
    let selector = format!("app={app}");
    if kubectl.run(&["get", "pods", "--selector", &selector, "-o", "name"]).await?.is_empty() {
        return Ok(());
    }
    kubectl.wait(limit, "delete", &["pods", "--selector", &selector]).await
}

/// The running pods with this `app` label, those that are going away left out.
pub async fn pods(kubectl: &Kubectl, app: &str) -> Result<Vec<Pod>> {
    let list = kubectl.json(&["get", "pods", "--selector", &format!("app={app}")]).await?;
    let items = list["items"].as_array().context("a list of pods has no items")?;
    items.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).map(parse).collect()
}

/// The pods of each node.
pub fn by_node(pods: &[Pod]) -> BTreeMap<&str, Vec<&Pod>> {
    let mut nodes: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        nodes.entry(&pod.node).or_default().push(pod);
    }
    nodes
}

/// One pod of each of the first two nodes.
pub fn two_nodes_pods(pods: &[Pod]) -> Result<(&Pod, &Pod)> {
    let nodes = by_node(pods);
    let mut first = nodes.values().filter_map(|pods| pods.first().copied());
    match (first.next(), first.next()) {
        (Some(one), Some(other)) => Ok((one, other)),
        _ => bail!("the pods are not spread over two nodes: {pods:?}"),
    }
}

impl Pod {
    /// One ping; the error says that none came back.
    pub async fn ping(&self, kubectl: &Kubectl, to: Ipv4Addr) -> Result<String> {
        let answer = kubectl.exec(&self.name, &["ping", "-c", "2", "-W", "2", "-A", &to.to_string()]).await;
        answer.with_context(|| format!("{} ({}) cannot ping {to}", self.name, self.address))
    }

    /// What a web server answers.
    pub async fn fetch(&self, kubectl: &Kubectl, url: &str) -> Result<String> {
        // busybox's own `wget -T` crashes when it is linked statically against glibc.
        let answer = kubectl.exec(&self.name, &["timeout", "5", "wget", "-q", "-O", "-", url]).await;
        let answer = answer.with_context(|| format!("{} ({}) gets no answer from {url}", self.name, self.address))?;
        Ok(answer.trim().to_owned())
    }
}

fn parse(pod: &Value) -> Result<Pod> {
    let text = |value: &Value, what: &str| {
        value.as_str().map(str::to_owned).with_context(|| format!("pod {} has no {what} yet", pod["metadata"]["name"]))
    };
    let address = text(&pod["status"]["podIP"], "address")?;
    Ok(Pod {
        name: text(&pod["metadata"]["name"], "name")?,
        node: text(&pod["spec"]["nodeName"], "node")?,
        address: address.parse().with_context(|| format!("{address} is no address"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_on_one_node_are_no_pair() {
        let pod =
            |name: &str, node: &str| Pod { name: name.into(), node: node.into(), address: Ipv4Addr::new(10, 0, 0, 9) };
        let pods = [pod("a", "node-a"), pod("b", "node-a")];
        assert!(two_nodes_pods(&pods).is_err());
        let pods = [pod("a", "node-a"), pod("b", "node-a"), pod("c", "node-b")];
        assert!(two_nodes_pods(&pods).is_ok_and(|(one, other)| one.name == "a" && other.name == "c"));
    }

    #[test]
    fn pods_of_one_node_are_not_spread() {
        let pod = |web: Web| web.manifest()["items"][0]["spec"]["template"]["spec"].clone();
        let (spread, pinned) = (pod(Web::new("web", 2)), pod(Web::new("web", 2).on("node-b")));
        assert!(spread["nodeSelector"].is_null() && spread["topologySpreadConstraints"].is_array());
        assert_eq!(pinned["nodeSelector"]["kubernetes.io/hostname"], "node-b");
        assert!(pinned["topologySpreadConstraints"].is_null());
    }

    #[test]
    fn a_service_is_made_only_when_asked_for() {
        assert_eq!(Web::new("web", 1).manifest()["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(Web::new("web", 1).with_service(30080).manifest()["items"].as_array().map(Vec::len), Some(2));
    }
}
