//! Taking enipool off a node as `docs/node.md` says, and putting it back.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::{Value, json};

use super::{
    Stage,
    nodes::{self, GUEST},
};
use crate::{
    cluster::{Cluster, Node, until},
    product,
    workload::Web,
};

const ROLL_OUT: Duration = Duration::from_secs(120);
const DAEMON_SET: &str = "daemonset/enipool-agent";
const CONFIGURATION: &str = "/etc/cni/net.d/10-enipool.conflist";
const POD: &str = "pod/enipool-cleanup";
/// Where the manual's pod lives.
const ITS_NAMESPACE: &str = "kube-system";

/// What programs left on a node: rules, routes, nftables tables, addresses, links and their MTUs, settings, files. Own addresses are called OWN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

/// Everything that a node's network consists of, but the local table (the kernel's own), links of ENIs as such (EC2's), and
/// what kubelet and kube-proxy write when they like (their tables).
const LOOK: &str = r#"
ip rule
ip route show table all | grep -v 'table local'
nft list tables | grep -vE ' (kube-proxy|filter|nat|mangle)$' || true
ip -4 -oneline address | awk '{print $2, $3, $4}'
ip -oneline link | awk -F': ' '{print $2}' | sed 's/@.*//' | grep -vE '^eth[1-9]' | sed 's/^/link /'
for link in lo eth0; do for key in rp_filter forwarding; do echo "$link $key $(cat /proc/sys/net/ipv4/conf/$link/$key)"; done; done
for link in lo eth0; do ip -oneline link show "$link" | sed "s/.* \(mtu [0-9]*\) .*/$link \1/"; done
for link in $(ls /proc/sys/net/ipv4/conf | grep -E '^eth[1-9]'); do ip -oneline link show "$link" up | sed "s/.* \(mtu [0-9]*\) .*/$link is up, \1/"; done
echo "ip_forward $(cat /proc/sys/net/ipv4/ip_forward)"
find /etc/cni /opt/cni /run/enipool -mindepth 1 2>/dev/null || true
"#;

/// A distribution's lease on the first ENI that was added, as systemd-networkd and amazon-ec2-net-utils leave it: address,
/// routes with metric and source, and a table whose number and priority are 10000 + device index. `$1`: its address.
const DHCP: &str = r#"
ip link set eth1 up mtu 1500
ip addr add "$1/20" brd + dev eth1 metric 513
gateway=$(ip route show default dev eth0 | awk '{print $3}')
ip route add "$gateway" dev eth1 proto dhcp scope link src "$1" metric 513
ip route add default via "$gateway" dev eth1 proto dhcp src "$1" metric 513 mtu 1400
ip route add default via "$gateway" dev eth1 proto dhcp src "$1" table 10001
ip rule add from "$1" lookup 10001 pref 10001
"#;

impl Traces {
    /// The files that are here and were not there.
    fn new_files<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        self.0.difference(&before.0).map(String::as_str).filter(|line| line.starts_with('/'))
    }

    /// What is there now.
    pub async fn of(node: &Node) -> Result<Self> {
        let own = node.site().address.to_string();
        let found = node.exec(&["sh", "-ec", LOOK]).await?;
        Ok(Self(found.lines().map(|line| line.trim().replace(&own, "OWN")).collect()))
    }
}

pub(super) fn node_as_found(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        nodes::guest(stage).await?;
        let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
        // Something to clean up: a second ENI, which stays however few pods there are.
        product::edit(cluster, GUEST, &json!({"minimumIPTarget": 6})).await?;
        product::enipool_shows(cluster, GUEST, ".status.attachedENIs", 2, ROLL_OUT).await?;
        let web = Web::new("before-cleanup", 4).on(GUEST);
        web.roll_out(kubectl, ROLL_OUT).await?;
        web.remove(kubectl, ROLL_OUT).await?;
        page_names_every_file(stage).await?;
        let (obeyed, said) = product::ask_agent(cluster, GUEST, "cleanup").await?;
        ensure!(!obeyed && said.contains("stop it first"), "cleanup while the agent serves: {said}");

        let banishment = Banishment::of_agent(cluster).await?;
        let cleaned = async {
            status_fails(stage).await?;
            let found = stage.found.as_ref().context("nobody looked at a node before enipool came")?;
            let log = clean(stage, found).await?;
            lease_by_dhcp(stage).await?;
            anyhow::Ok((log, Traces::of(cluster.node(GUEST)?).await?))
        };
        let cleaned = cleaned.await;
        banishment.end(cluster).await?;
        stage.narrator.during("Waiting for the agent to come back", product::ready(&stage.cluster)).await?;
        let (log, leased) = cleaned?;
        stage.narrator.show(&log);

        // The agent has made the ENI its own meanwhile.
        let serves = product::agent_pod(cluster, GUEST);
        stage.narrator.during("Waiting for the agent on the guest", serves).await?;
        let taken = until("the pool's own address on the leased ENI", ROLL_OUT, async || {
            let addresses = cluster.node(GUEST)?.exec(&["ip", "-4", "-oneline", "address", "show", "eth1"]).await?;
            Ok((addresses.contains("/32") && !addresses.contains("/20")).then_some(()))
        });
        taken.await?;
        let banishment = Banishment::of_agent(cluster).await?;
        let cleaned = clean(stage, &leased).await;
        banishment.end(cluster).await?;
        stage.narrator.during("Waiting for the agent to come back once more", product::ready(&stage.cluster)).await?;
        stage.narrator.show(&cleaned?);

        let again = Web::new("after-cleanup", 2).on(GUEST);
        let pods = again.roll_out(kubectl, ROLL_OUT).await?;
        let other = stage.pods.first().context("no pod")?;
        for pod in &pods {
            pod.ping(kubectl, other.address).await?;
        }
        again.remove(kubectl, ROLL_OUT).await?;
        product::edit(cluster, GUEST, &json!({"minimumIPTarget": 3})).await
    }
    .boxed_local()
}

/// `docs/dataplane.md` lists every file that enipool has put onto the guest, by the name that it has there or its folder's.
async fn page_names_every_file(stage: &Stage) -> Result<()> {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dataplane.md"));
    let before = stage.found.as_ref().context("nobody looked at a node before enipool came")?;
    let now = Traces::of(stage.cluster.node(GUEST)?).await?;
    let named = |path: &str| {
        let (folder, name) = path.rsplit_once('/').unwrap_or_default();
        page.contains(&format!("{name}`")) || page.contains(&format!("{name}/`")) || folder.ends_with("/del-queue")
    };
    let files: Vec<&str> = now.new_files(before).collect();
    ensure!(!files.is_empty(), "enipool runs on {GUEST} without a file");
    let missing: Vec<&&str> = files.iter().filter(|path| !named(path)).collect();
    ensure!(missing.is_empty(), "docs/dataplane.md does not name {missing:?}");
    Ok(())
}

/// What a distribution does to an ENI that it finds.
async fn lease_by_dhcp(stage: &Stage) -> Result<()> {
    let enis = product::enis(&stage.cluster, GUEST)?;
    let eni = enis.iter().find(|eni| eni.device_index == 1).context("the guest has one ENI alone")?;
    stage.cluster.node(GUEST)?.exec(&["sh", "-ec", DHCP, "sh", &eni.primary.to_string()]).await.map(drop)
}

/// A runtime that asks the plugin for its STATUS hears that nobody serves here, and the node says so.
async fn status_fails(stage: &Stage) -> Result<()> {
    let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
    let mut last = Value::Null;
    let told = until("word that the agent is gone", ROLL_OUT, async || {
        let node = kubectl.json(&["get", "node", GUEST]).await?;
        let conditions = node["status"]["conditions"].as_array().context("a node without conditions")?;
        last = conditions.iter().find(|condition| condition["type"] == "Ready").context("no condition Ready")?.clone();
        let why = last["message"].as_str().unwrap_or_default();
        let told = last["status"] == "False" && why.contains("enipool's agent is not running on this node");
        Ok(told.then(|| why.to_owned()))
    });
    let told = told.await.with_context(|| format!("of being ready {GUEST} says: {last}"))?;
    // Not for want of a configuration: containerd would not ask then.
    cluster.node(GUEST)?.exec(&["test", "-s", CONFIGURATION]).await?;
    stage.narrator.say(&told);
    Ok(())
}

/// Runs the manual's pod; what then is on the node is what was `found` there. Returns the pod's log.
async fn clean(stage: &Stage, found: &Traces) -> Result<String> {
    let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
    let agents = kubectl.json(&["-n", product::NAMESPACE, "get", DAEMON_SET]).await?;
    let image =
        agents["spec"]["template"]["spec"]["containers"][0]["image"].as_str().context("the agent has no image")?;
    kubectl.apply(&manual()?.replace("NODE\n", &format!("{GUEST}\n")).replace("IMAGE ", &format!("{image} "))).await?;
    let ended = kubectl.wait(ROLL_OUT, "jsonpath={.status.phase}=Succeeded", &["-n", ITS_NAMESPACE, POD]).await;
    let log = kubectl.run(&["-n", ITS_NAMESPACE, "logs", POD]).await;
    kubectl.run(&["-n", ITS_NAMESPACE, "delete", POD, "--wait=false"]).await?;
    let log = log?;
    ended.with_context(|| format!("the cleanup said: {log}"))?;
    let left = Traces::of(cluster.node(GUEST)?).await?;
    let (more, fewer): (Vec<_>, Vec<_>) =
        (left.0.difference(&found.0).collect(), found.0.difference(&left.0).collect());
    ensure!(more.is_empty() && fewer.is_empty(), "after {log}left on the node: {more:?}; missing: {fewer:?}");
    Ok(log)
}

/// The manifest in `docs/node.md`.
fn manual() -> Result<&'static str> {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/node.md"));
    let (_, rest) = page.split_once("```yaml\n").context("docs/node.md has no manifest")?;
    rest.split_once("```").map(|(manifest, _)| manifest).context("the manifest in docs/node.md does not end")
}

/// The guest as a node that the agents' DaemonSet does not want; the other agents are left alone.
struct Banishment {
    strategy: Value,
    index: usize,
}

impl Banishment {
    const TERMS: &str =
        "/spec/template/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";

    async fn of_agent(cluster: &Cluster) -> Result<Self> {
        let kubectl = cluster.kubectl();
        let agents = kubectl.json(&["-n", product::NAMESPACE, "get", DAEMON_SET]).await?;
        let terms = agents.pointer(Self::TERMS).context("the agents have no node affinity")?;
        let index = terms["matchExpressions"].as_array().map_or(0, Vec::len);
        let banishment = Self { strategy: agents["spec"]["updateStrategy"].clone(), index };
        let agent = product::agent_pod(cluster, GUEST).await?;
        let term = json!({"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [GUEST]});
        patch(
            cluster,
            &json!([
                {"op": "replace", "path": "/spec/updateStrategy", "value": {"type": "OnDelete"}},
                {"op": "add", "path": format!("{}/matchExpressions/-", Self::TERMS), "value": term},
            ]),
        )
        .await?;
        kubectl.wait(ROLL_OUT, "delete", &["-n", product::NAMESPACE, "pod", &agent]).await?;
        Ok(banishment)
    }

    async fn end(self, cluster: &Cluster) -> Result<()> {
        let path = format!("{}/matchExpressions/{}", Self::TERMS, self.index);
        patch(
            cluster,
            &json!([
                {"op": "remove", "path": path},
                {"op": "replace", "path": "/spec/updateStrategy", "value": self.strategy},
            ]),
        )
        .await
    }
}

async fn patch(cluster: &Cluster, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let arguments = ["-n", product::NAMESPACE, "patch", DAEMON_SET, "--type", "json", "-p", &patch];
    cluster.kubectl().run(&arguments).await.map(drop)
}
