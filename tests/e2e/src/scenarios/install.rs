//! The chart, the first pods, and what the API server refuses.

use anyhow::{Context, Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::{Value, json};

use super::{Stage, Traces};
use crate::story;

pub(super) fn nodes_get_ready(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let node = stage.cluster.nodes().first().context("no node")?;
        stage.found = Some(Traces::of(node).await?);
        story::install(&stage.cluster, &stage.narrator).await
    }
    .boxed_local()
}

pub(super) fn pods_on_several_enis(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        stage.pods = story::deploy(&stage.cluster, &stage.narrator).await?;
        Ok(())
    }
    .boxed_local()
}

pub(super) fn bad_pools_are_refused(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let refusals = [
            (json!({"warmENITarget": -1}), "warmENITarget"),
            (json!({"warmENITarget": 2, "warmIPTarget": 3}), "remove the one or the other"),
            (json!({"warmPrefixTarget": 1, "addressing": "Secondary"}), "needs addressing Prefix or Mixed"),
            (json!({"addressing": "Both"}), "supported values"),
        ];
        for (spec, sentence) in refusals {
            let said = stage.cluster.kubectl().refused(&pool("a-node-of-its-own", &spec).to_string()).await?;
            ensure!(
                said.contains(sentence),
                "for {spec} the API server should have said '{sentence}', but said: {said}"
            );
            stage.narrator.say(said.trim());
        }
        Ok(())
    }
    .boxed_local()
}

fn pool(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "enipool.dev/v1alpha1", "kind": "ENIPool", "metadata": {"name": name}, "spec": spec})
}
