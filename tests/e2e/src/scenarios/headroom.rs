//! A subnet that is down to its headroom: pods wait and say so, and nobody takes what is kept for others.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};
use serde_json::{Value, json};

use super::{
    Stage,
    autonomy::one_too_many,
    nodes::{self, GUEST},
};
use crate::{
    cluster::{Cluster, until},
    product,
};

const ROLL_OUT: Duration = Duration::from_secs(120);
/// How long the operator may take to look at the subnets again.
const REFRESH: Duration = Duration::from_secs(60);
/// How long a question may take to be asked and answered, or to be asked again: three times the agent's 20 s.
const ANSWER: Duration = Duration::from_secs(60);

pub(super) fn kept_for_others(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        nodes::guest(stage).await?;
        let cluster = &stage.cluster;
        let web = one_too_many(cluster)?;
        let waits = async {
            keep(cluster, json!("99%")).await?;
            waits_without_end(stage, &web.manifest()).await
        };
        let waits = waits.await;
        // First the pods: for them the guest would grow, and the next scenario would find another one.
        web.remove(cluster.kubectl(), ROLL_OUT).await?;
        keep(cluster, Value::Null).await?;
        waits?;
        product::enipool_shows(cluster, GUEST, ".status.addresses.assigned", 0, ROLL_OUT).await
    }
    .boxed_local()
}

/// Sets the headroom of the class `default` and waits until the operator goes by it.
async fn keep(cluster: &Cluster, headroom: Value) -> Result<()> {
    let some = !headroom.is_null();
    let patch = json!({"spec": {"headroom": headroom}}).to_string();
    cluster.kubectl().run(&["patch", "enipoolclass", "default", "--type", "merge", "-p", &patch]).await?;
    until("the class's status showing its headroom", REFRESH, async || {
        let class = cluster.kubectl().json(&["get", "enipoolclass", "default"]).await?;
        let subnets = class["status"]["subnets"].as_array().cloned().unwrap_or_default();
        let kept = subnets.iter().all(|subnet| (subnet["headroom"].as_i64().unwrap_or(0) > 0) == some);
        Ok((!subnets.is_empty() && kept).then_some(()))
    })
    .await
}

/// Longer than an agent waits for an operator that says nothing.
async fn waits_without_end(stage: &Stage, manifest: &Value) -> Result<()> {
    let cluster = &stage.cluster;
    let call = product::at_rest(cluster, GUEST).await?;
    cluster.kubectl().apply(&manifest.to_string()).await?;
    let said = product::told(cluster, "reason=SubnetExhausted,involvedObject.kind=Pod", ROLL_OUT).await?;
    stage.narrator.say(&said);
    ensure!(said.contains("headroom"), "the event does not say what the addresses are kept for: {said}");

    let first = answered(cluster, None).await?;
    let again = answered(cluster, Some(&first)).await?;
    let pool = product::enipool(cluster, GUEST).await?;
    stage.narrator.say(&format!(
        "{GUEST} asked at {first} and {again}, and was answered: {}",
        pool["spec"]["allocation"]["decision"].as_str().unwrap_or_default()
    ));
    let conditions = pool["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let present = conditions.iter().find(|condition| condition["type"] == "OperatorPresent");
    ensure!(
        present.is_some_and(|present| present["status"] == "True" && present["lastTransitionTime"].as_str() < Some(&first)),
        "an operator that answers was taken for one that is away: {present:?}"
    );
    let mut calls = product::calls_since(cluster, GUEST, call)?;
    // Looking is allowed, to the operator too, which may run there.
    calls.retain(|action| !action.starts_with("Describe"));
    ensure!(calls.is_empty(), "{GUEST} took what the subnet keeps for others: {calls:?}");
    Ok(())
}

/// The agent's question after `before`, once the operator has answered it.
async fn answered(cluster: &Cluster, before: Option<&str>) -> Result<String> {
    until("the operator answering the agent's question", ANSWER, async || {
        let pool = product::enipool(cluster, GUEST).await?;
        let asked = pool["status"]["askedAt"].as_str();
        let answered = asked.is_some() && asked != before && pool["spec"]["allocation"]["answers"].as_str() == asked;
        Ok(asked.filter(|_| answered).map(str::to_owned))
    })
    .await
}
