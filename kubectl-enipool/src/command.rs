//! The verbs: read what each needs, all at once where it can be, and hand it to the pure part.

use k8s_openapi::jiff::Timestamp;

use crate::args::{Args, Command, TopArgs, TopOutput, WhyArgs, WhyOutput};
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::why::{Answer, Facts};
use crate::{top, why};

/// Runs the command and returns what it prints.
pub async fn run(args: &Args, now: Timestamp) -> Result<String, Failure> {
    let cluster = Cluster::connect(&args.connection).await?;
    match &args.command {
        Command::Top(args) => run_top(&cluster, args, now).await,
        Command::Why(args) => Box::pin(run_why(&cluster, args, now)).await,
    }
}

async fn run_top(cluster: &Cluster, args: &TopArgs, now: Timestamp) -> Result<String, Failure> {
    let (pools, classes) = tokio::join!(pools(cluster, &args.nodes), cluster.classes());
    // The nodes are the answer; who may not read the classes gets it without the subnets.
    let report = top::report(&pools?, classes, args.sort, !args.nodes.is_empty(), now);
    Ok(match args.output {
        TopOutput::Table => top::render::text(&report, false),
        TopOutput::Wide => top::render::text(&report, true),
        TopOutput::Json => pretty(&report)?,
    })
}

/// All pools, or those of `nodes`.
async fn pools(cluster: &Cluster, nodes: &[String]) -> Result<Vec<enipool_crds::ENIPool>, Failure> {
    if nodes.is_empty() {
        return cluster.pools().await;
    }
    let mut pools = Vec::with_capacity(nodes.len());
    for node in nodes {
        pools.push(cluster.pool(node).await.map_err(|failure| match failure {
            Failure::NotFound(_) => Failure::NoSuchPool(node.clone()),
            other => other,
        })?);
    }
    Ok(pools)
}

async fn run_why(cluster: &Cluster, args: &WhyArgs, now: Timestamp) -> Result<String, Failure> {
    let namespace = args.namespace.as_deref().unwrap_or_else(|| cluster.default_namespace());
    let pod = cluster.pod(namespace, &args.pod).await?;
    let mut facts = Facts {
        node: Answer::NotAsked,
        pool: Answer::NotAsked,
        class: Answer::NotAsked,
        agent: Answer::NotAsked,
        events: Answer::NotAsked,
        pod,
        now,
    };
    let events = cluster.events(&facts.pod);
    match facts.node_name() {
        None => facts.events = events.await.into(),
        Some(node) => {
            let (node, pool, agent, events) =
                tokio::join!(cluster.node(node), cluster.pool(node), cluster.agent(node), events);
            (facts.node, facts.pool) = (node.into(), pool.into());
            (facts.agent, facts.events) = (agent.into(), events.into());
        }
    }
    if let Some(class) = facts.allocation().map(|allocation| allocation.class.clone()).filter(|name| !name.is_empty()) {
        facts.class = cluster.class(&class).await.into();
    }
    Ok(match args.output {
        WhyOutput::Text => why::render::text(&facts),
        WhyOutput::Json => pretty(&why::render::json(&facts))?,
    })
}

fn pretty(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(std::io::Error::other)?;
    Ok(text + "\n")
}
