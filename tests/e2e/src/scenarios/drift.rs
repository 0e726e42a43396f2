//! What somebody deletes from a node's kernel is put back, and people are told.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::Stage;
use crate::{cluster::until, product, workload};

/// The agent repairs within a second of the kernel's word; a busy machine takes longer to look.
const REPAIRED: Duration = Duration::from_secs(5);
const TOLD: Duration = Duration::from_secs(30);

pub(super) fn put_back(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let (one, other) = workload::two_nodes_pods(&stage.pods)?;
        let node = stage.cluster.node(&one.node)?;
        node.exec(&["nft", "delete", "table", "ip", "enipool"]).await?;
        node.exec(&["ip", "rule", "delete", "priority", "500"]).await?;
        until("the table and the rule coming back", REPAIRED, async || {
            let table = node.exec(&["nft", "list", "table", "ip", "enipool"]).await;
            let rules = node.exec(&["ip", "rule", "show", "priority", "500"]).await?;
            Ok((table.is_ok() && rules.contains("lookup 20000")).then_some(()))
        })
        .await?;
        one.ping(stage.cluster.kubectl(), other.address).await?;
        let about = format!("reason=DriftRepaired,involvedObject.kind=Node,involvedObject.name={}", node.name());
        let said = product::told(&stage.cluster, &about, TOLD).await.context("an event about the repair")?;
        stage.narrator.say(&said);
        Ok(())
    }
    .boxed_local()
}
