//! Who may do what: RBAC, Node authorisation and the chart's admission policy, each asked as who is meant. Whatever would
//! change something is a dry run.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::{Value, json};

use super::Stage;
use crate::{
    cluster::{Cluster, Kubectl},
    product::{self, NAMESPACE},
};

/// A secret that no pod uses.
const SECRET: &str = "of-nobodys-pod";
/// How `kubectl` is told to change nothing.
const DRY: &str = "--dry-run=server";

pub(super) fn without_a_role(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let account = Caller::account(&stage.cluster, "default", "default", &[]).await?;
        let said = account.may_not(&["get", "nodes"], r#"cannot list resource "nodes""#).await?;
        stage.narrator.say(&said);
        account.may_not(&["get", "enipools"], r#"cannot list resource "enipools""#).await.map(drop)
    }
    .boxed_local()
}

pub(super) fn kubelet(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
        let kubelet = Caller::kubelet(cluster, "node-a")?;
        kubectl.run(&["create", "secret", "generic", SECRET, "--from-literal=a=b"]).await?;
        let refused = async {
            kubelet.may(&["get", "node", "node-a"]).await?;
            let [own, other] = ["node-a", "node-b"].map(|node| labels(cluster, node));
            kubelet.may(&["apply", "--server-side", DRY, "-f", &own?]).await?;
            let said = [
                kubelet.may_not(&["get", "node", "node-b"], "only its own Node object").await?,
                kubelet
                    .may_not(&["apply", "--server-side", DRY, "-f", &other?], "is not allowed to modify node")
                    .await?,
                kubelet.may_not(&["get", "secret", SECRET], "no relationship found").await?,
            ];
            kubelet.may_not(&["delete", DRY, "enipool", "node-a"], r#"cannot delete resource "enipools""#).await?;
            anyhow::Ok(said)
        };
        let refused = refused.await;
        kubectl.run(&["delete", "secret", SECRET]).await?;
        for said in refused? {
            stage.narrator.say(&said);
        }
        Ok(())
    }
    .boxed_local()
}

pub(super) fn agents_token(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let cluster = &stage.cluster;
        for (own, other) in [("node-a", "node-b"), ("node-b", "node-a")] {
            let agent = Caller::agent(cluster, own).await?;
            let [to_own, to_other] = [own, other].map(|node| report(cluster, node));
            agent.may(&as_report(&to_own?)).await?;
            let sentence = format!("the enipool agent of node {own} may not change the ENIPool of {other}");
            let said = agent.may_not(&as_report(&to_other?), &sentence).await?;
            stage.narrator.say(&said);
            for pool in [own, other] {
                let spec = r#"{"spec":{"warmENITarget":9}}"#;
                let edit = ["patch", DRY, "enipool", pool, "--type", "merge", "-p", spec];
                agent.may_not(&edit, r#"cannot patch resource "enipools""#).await?;
                agent.may_not(&["delete", DRY, "enipool", pool], r#"cannot delete resource "enipools""#).await?;
            }
        }
        // Made for the account, and not for a pod of it.
        let unbound = Caller::account(cluster, NAMESPACE, "enipool-agent", &[]).await?;
        let sentence = "has to be bound to its node, and this one is not";
        let said = unbound.may_not(&as_report(&report(cluster, "node-a")?), sentence).await?;
        stage.narrator.say(&said);
        Ok(())
    }
    .boxed_local()
}

pub(super) fn daemons(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let cluster = &stage.cluster;
        let operator = Caller::account(cluster, NAMESPACE, "enipool-operator", &[]).await?;
        let agent = Caller::agent(cluster, "node-a").await?;
        let anybody = Caller::account(cluster, NAMESPACE, "default", &[]).await?;
        for (daemon, namespace, expected) in [
            (&operator, NAMESPACE, [OPERATOR, ELECTION].concat()),
            (&operator, "default", OPERATOR.to_vec()),
            (&agent, NAMESPACE, AGENT.to_vec()),
            (&agent, "default", AGENT.to_vec()),
        ] {
            let everybodys = anybody.rules(cluster, namespace).await?;
            let all = daemon.rules(cluster, namespace).await?;
            let found: BTreeSet<&str> = all.difference(&everybodys).map(String::as_str).collect();
            let expected = BTreeSet::from_iter(expected);
            ensure!(
                found == expected,
                "in {namespace} {} may also {:?}, and may not {:?}",
                daemon.name,
                found.difference(&expected),
                expected.difference(&found)
            );
        }
        for daemon in [&operator, &agent] {
            let secrets = ["-n", NAMESPACE, "get", "secrets"];
            let said = daemon.may_not(&secrets, r#"cannot list resource "secrets""#).await?;
            stage.narrator.say(&said);
        }
        Ok(())
    }
    .boxed_local()
}

/// What the operator may do beyond what everybody may.
const OPERATOR: &[&str] = &[
    "create enipoolclasses.enipool.dev",
    "create enipools.enipool.dev",
    "delete enipools.enipool.dev",
    "list enipoolclasses.enipool.dev",
    "list enipools.enipool.dev",
    "list nodes",
    "list pods",
    "patch enipoolclasses.enipool.dev",
    "patch enipoolclasses.enipool.dev/status",
    "patch enipools.enipool.dev",
    "watch enipoolclasses.enipool.dev",
    "watch enipools.enipool.dev",
    "watch nodes",
    "watch pods",
];

/// What it may do in its own namespace only.
const ELECTION: &[&str] = &[
    "create leases.coordination.k8s.io",
    "get leases.coordination.k8s.io enipool-operator",
    "update leases.coordination.k8s.io enipool-operator",
];

/// What an agent may do beyond that; the admission policy ties `enipools/status` to its own node's.
const AGENT: &[&str] = &[
    "create events.events.k8s.io",
    "get enipoolclasses.enipool.dev",
    "get enipools.enipool.dev",
    "list enipoolclasses.enipool.dev",
    "list enipools.enipool.dev",
    "patch enipools.enipool.dev/status",
    "watch enipoolclasses.enipool.dev",
    "watch enipools.enipool.dev",
];

/// A manifest that labels a node, in a file: who may not read an object cannot be tried with `kubectl label`.
fn labels(cluster: &Cluster, node: &str) -> Result<String> {
    let labels = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": {"team": "a"}}});
    file(cluster, &format!("labels-of-{node}.json"), &labels)
}

/// Writes a file into the run's folder.
fn file(cluster: &Cluster, name: &str, content: &Value) -> Result<String> {
    let path = cluster.run().dir().join(name);
    std::fs::write(&path, content.to_string()).with_context(|| format!("writing {}", path.display()))?;
    Ok(path.display().to_string())
}

/// A report about a node, in a file.
fn report(cluster: &Cluster, node: &str) -> Result<String> {
    let report = json!({
        "apiVersion": "enipool.dev/v1alpha1", "kind": "ENIPool", "metadata": {"name": node}, "status": {"waiting": 0},
    });
    file(cluster, &format!("report-on-{node}.json"), &report)
}

/// Applies a file as an agent applies its report.
fn as_report(file: &str) -> [&str; 7] {
    ["apply", "--server-side", "--force-conflicts", "--subresource=status", DRY, "-f", file]
}

/// Somebody who talks to the API server.
struct Caller {
    name: String,
    kubectl: Kubectl,
}

impl Caller {
    /// A kubelet: the user and the group of its certificate.
    fn kubelet(cluster: &Cluster, node: &str) -> Result<Self> {
        let user = format!("system:node:{node}");
        Self::new(cluster, &format!("kubelet-of-{node}"), |admin| {
            admin["as"] = json!(user);
            admin["as-groups"] = json!(["system:nodes"]);
        })
    }

    /// A node's agent, with a token that is bound to its pod, as the kubelet asks for it.
    async fn agent(cluster: &Cluster, node: &str) -> Result<Self> {
        let pod = product::agent_pod(cluster, node).await?;
        Self::account(cluster, NAMESPACE, "enipool-agent", &["--bound-object-kind=Pod", "--bound-object-name", &pod])
            .await
    }

    /// A service account, with a token that the API server makes for it.
    async fn account(cluster: &Cluster, namespace: &str, account: &str, bound: &[&str]) -> Result<Self> {
        let mut create = vec!["-n", namespace, "create", "token", account, "--duration=10m"];
        create.extend(bound);
        let token = cluster.kubectl().run(&create).await?;
        Self::new(cluster, &format!("{namespace}-{account}"), |user| *user = json!({"token": token.trim()}))
    }

    /// Makes a kubeconfig out of the admin's.
    fn new(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Value)) -> Result<Self> {
        let admins = std::fs::read_to_string(cluster.kubectl().kubeconfig()).context("reading the kubeconfig")?;
        let mut config: Value = serde_json::from_str(&admins).context("the kubeconfig is not JSON")?;
        change(config.pointer_mut("/users/0/user").context("the kubeconfig has no user")?);
        let path = file(cluster, &format!("{name}.kubeconfig"), &config)?;
        Ok(Self { name: name.to_owned(), kubectl: Kubectl::new(cluster.programs().path("kubectl"), path.into()) })
    }

    async fn may(&self, what: &[&str]) -> Result<()> {
        self.kubectl.run(what).await.map(drop).with_context(|| format!("{} is not let", self.name))
    }

    /// Returns what the API server says.
    async fn may_not(&self, what: &[&str], sentence: &str) -> Result<String> {
        let Err(error) = self.kubectl.run(what).await else {
            bail!("{} was let: kubectl {}", self.name, what.join(" "));
        };
        let said = format!("{error:#}");
        ensure!(
            said.contains("forbidden") && said.contains(sentence),
            "{} should have been told {sentence:?}, but: {said}",
            self.name
        );
        Ok(said.lines().last().unwrap_or_default().to_owned())
    }

    /// All that this caller may do with objects in a namespace and with those in none, one verb and resource a line.
    async fn rules(&self, cluster: &Cluster, namespace: &str) -> Result<BTreeSet<String>> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
        });
        let review = file(cluster, "rules-review.json", &review)?;
        let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let review = self.kubectl.run(&["create", "--raw", path, "-f", &review]).await?;
        let review: Value = serde_json::from_str(&review).context("the review is not JSON")?;
        let rules = review["status"]["resourceRules"].as_array().context("a review without rules")?;
        Ok(rules.iter().flat_map(flat).collect())
    }
}

/// A rule, as `verb resource.group name`.
fn flat(rule: &Value) -> BTreeSet<String> {
    let words = |of: &str| -> Vec<String> {
        rule[of].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut names: Vec<String> = words("resourceNames").iter().map(|name| format!(" {name}")).collect();
    if names.is_empty() {
        names.push(String::new());
    }
    let mut flat = BTreeSet::new();
    for verb in words("verbs") {
        for group in words("apiGroups") {
            for resource in words("resources") {
                let (resource, part) = resource.split_once('/').map_or((resource.as_str(), ""), |split| split);
                let dot = if group.is_empty() { "" } else { "." };
                let slash = if part.is_empty() { "" } else { "/" };
                flat.extend(names.iter().map(|name| format!("{verb} {resource}{dot}{group}{slash}{part}{name}")));
            }
        }
    }
    flat
}
