//! Nodes that come and go.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::Stage;
use crate::{
    cluster::{Cluster, until},
    fabric::NodeSpec,
    product,
    story::INSTANCE_TYPE,
    workload::{self, Web},
};

/// The node that comes and goes.
const GUEST: &str = "node-c";

pub(super) fn node_removal(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let narrator = stage.narrator.clone();
        let arrival = stage.cluster.add_node(NodeSpec::new(GUEST, INSTANCE_TYPE));
        narrator.during("Launching a third node", arrival).await?;
        narrator.during("Waiting for it to get ready", product::ready(&stage.cluster)).await?;
        let kubectl = stage.cluster.kubectl().clone();
        let web = Web::new("guest", 3);
        let pods = web.roll_out(&kubectl, Duration::from_secs(180)).await?;
        ensure!(workload::by_node(&pods).contains_key(GUEST), "no pod came to {GUEST}: {pods:?}");
        let instance = stage.cluster.node(GUEST)?.site().instance_id.clone();
        let enis = product::enis(&stage.cluster, GUEST)?;
        ensure!(enis.len() > 1, "{GUEST} has no ENI but its first");

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
