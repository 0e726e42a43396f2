//! Nodes that come and go, and the guest on which other scenarios try what would disturb the others.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::json;

use super::Stage;
use crate::{
    cluster::{Cluster, until},
    fabric::NodeSpec,
    product,
    workload::{self, Web},
};

/// The node that comes and goes.
pub(super) const GUEST: &str = "node-c";
/// Its type: three ENIs of three addresses for pods each, so that a few pods exhaust it.
const GUEST_TYPE: &str = "t3.small";

/// How long kube-proxy may take to write its table.
const PROXY: Duration = Duration::from_secs(30);

/// The guest is there and ready: launched for the first that asks, and there until [`node_removal`]. Its agent comes up, and
/// the node gets ready, before there is a kube-proxy.
pub(super) async fn guest(stage: &mut Stage) -> Result<()> {
    if stage.cluster.node(GUEST).is_ok() {
        return Ok(());
    }
    let narrator = stage.narrator.clone();
    let arrival = stage.cluster.add_node(NodeSpec::new(GUEST, GUEST_TYPE));
    narrator.during("Launching a third node", arrival).await?;
    narrator.during("Waiting for it to get ready without kube-proxy", product::ready(&stage.cluster)).await?;
    product::agent_pod(&stage.cluster, GUEST).await?;
    ensure!(!proxied(&stage.cluster).await?, "somebody has written kube-proxy's table on {GUEST}");
    stage.cluster.start_kube_proxy(GUEST)?;
    until("kube-proxy's table on the guest", PROXY, async || Ok(proxied(&stage.cluster).await?.then_some(()))).await?;
    let limit = Duration::from_secs(30);
    product::enipool_shows(&stage.cluster, GUEST, ".status.addresses.available", 3, limit).await?;
    // An ENI's worth, and beyond that what its pods need: more is then a mistake.
    product::edit(&stage.cluster, GUEST, &json!({"minimumIPTarget": 3})).await
}

/// Whether Services lead anywhere on the guest.
async fn proxied(cluster: &Cluster) -> Result<bool> {
    Ok(cluster.node(GUEST)?.exec(&["nft", "list", "tables"]).await?.contains("table ip kube-proxy"))
}

pub(super) fn node_removal(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        guest(stage).await?;
        let narrator = stage.narrator.clone();
        let kubectl = stage.cluster.kubectl().clone();
        let web = Web::new("guest", 3);
        let pods = web.roll_out(&kubectl, Duration::from_secs(180)).await?;
        ensure!(workload::by_node(&pods).contains_key(GUEST), "no pod came to {GUEST}: {pods:?}");
        let instance = stage.cluster.node(GUEST)?.site().instance_id.clone();
        product::edit(&stage.cluster, GUEST, &json!({"minimumIPTarget": 9})).await?;
        let enis = until("ENIs of the guest beyond its first", Duration::from_secs(60), async || {
            let enis = product::enis(&stage.cluster, GUEST)?;
            Ok((enis.len() > 1 && enis.iter().all(|eni| eni.effective)).then_some(enis))
        })
        .await?;

        // As when an instance is terminated under the cluster: first the machine, then its Node.
        stage.cluster.unplug(GUEST).await?;
        narrator.during("Terminating its instance", terminate(&stage.cluster)).await?;
        kubectl.run(&["delete", "node", GUEST, "--wait=false"]).await?;
        let gone = async {
            kubectl.wait(Duration::from_secs(120), "delete", &["node", GUEST]).await?;
            kubectl.wait(Duration::from_secs(120), "delete", &["enipool", GUEST]).await
        };
        narrator.during("Waiting for its ENIPool to go", gone).await?;
        let cleared = until("the ENIs of a node that went", Duration::from_secs(120), async || {
            Ok(product::exist(&stage.cluster, &enis).is_empty().then_some(()))
        });
        narrator.during("Waiting for its ENIs to go", cleared).await?;
        ensure!(product::enis_of_instance(&stage.cluster, &instance).is_empty(), "{instance} still has ENIs");
        // Its pods would be collected after a minute; nothing here is about that.
        for pod in pods.iter().filter(|pod| pod.node == GUEST) {
            kubectl.run(&["delete", "pod", &pod.name, "--force", "--grace-period=0", "--ignore-not-found"]).await?;
        }
        web.remove(&kubectl, Duration::from_secs(120)).await
    }
    .boxed_local()
}

/// Terminates the guest's instance. Shutting down takes EC2 a minute or more, so its clock, and only that, is moved on.
async fn terminate(cluster: &Cluster) -> Result<()> {
    let hurry = async {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tick.tick().await;
            cluster.fabric().sim().model().advance(Duration::from_secs(15));
        }
    };
    tokio::select! {
        terminated = cluster.fabric().terminate_node(GUEST) => Ok(terminated?),
        () = hurry => Ok(()),
    }
}
