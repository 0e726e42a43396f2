//! What the agent takes of a node as it is deployed: with a real API server that it watches over TLS, its log files, and a
//! kubelet's probes. Most of the bench runs it without: an API server that works beside it would be in the times.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ec2_sim::server::Handle;
use serde_json::json;

use enipool_e2e::bare::agent::{Agent, AgentSpec};
use enipool_e2e::cluster::{ApiServer, Kubectl, until};
use enipool_e2e::fabric::Fabric;

use crate::figures::{Goal, Report};
use crate::latency::Contender;
use crate::supply::{calls, count, until_quiet};

/// For how long an idle agent is watched: more than a minute, so that what it does by the minute is in it.
const WATCHED: Duration = Duration::from_secs(90);
/// How long an agent may take to show up in its ENIPool.
const REPORTED: Duration = Duration::from_secs(60);
const PODS: usize = 200;

/// On the first node nothing runs; the second gets [`PODS`] pods.
pub(crate) async fn measure(fabric: &Fabric, specs: [AgentSpec; 2], report: &mut Report) -> Result<()> {
    println!("an agent as it is deployed");
    let api = ApiServer::start_on("bench", fabric.control()).await?;
    let outcome = with_api_server(api.kubectl(), fabric.sim(), specs, report).await;
    api.stop().await;
    outcome
}

async fn with_api_server(kubectl: &Kubectl, sim: &Handle, specs: [AgentSpec; 2], report: &mut Report) -> Result<()> {
    for file in ["enipools.yaml", "enipoolclasses.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds").join(file);
        kubectl.apply(&std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?).await?;
    }
    let limit = Duration::from_secs(30);
    kubectl
        .wait(limit, "condition=Established", &["crd/enipools.enipool.dev", "crd/enipoolclasses.enipool.dev"])
        .await?;
    let mut agents = Vec::new();
    for mut spec in specs {
        // What the kubelet and the operator make. Nobody plans for the node: its agent does.
        for (version, kind) in [("v1", "Node"), ("enipool.dev/v1alpha1", "ENIPool")] {
            let object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": spec.node}, "spec": {}});
            kubectl.apply(&object.to_string()).await?;
        }
        spec.kubeconfig = Some(kubectl.kubeconfig().to_owned());
        let node = spec.node.clone();
        let agent = tokio::task::block_in_place(|| spec.start())?;
        let reported = until("the agent's report in its ENIPool", REPORTED, async || {
            let pool = kubectl.json(&["get", "enipool", &node]).await?;
            Ok(pool["status"]["addresses"]["total"].as_u64().filter(|total| *total > 0))
        });
        reported.await?;
        agents.push(agent);
    }
    let [idle, crowded] = <[Agent; 2]>::try_from(agents).map_err(|_| anyhow::anyhow!("two specs are two agents"))?;
    tokio::task::block_in_place(|| {
        nothing_to_do(sim, idle, report)?;
        many_pods(sim, crowded, report)
    })
}

fn nothing_to_do(sim: &Handle, agent: Agent, report: &mut Report) -> Result<()> {
    until_quiet(sim);
    let (cpu, begun, idle) = (agent.cpu_time()?, Instant::now(), calls(sim));
    agent.probed_for(WATCHED)?;
    let percent = 100.0 * agent.cpu_time()?.saturating_sub(cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    println!("  idle, watched for {WATCHED:?}: {:.1} MB, {percent:.3} % of a core", agent.rss_mb()?);
    report.figure("agent_idle_cpu_percent", percent, Goal::AtMost(0.2));
    report.figure("ec2_calls_idle", count(calls(sim) - idle), Goal::AtMost(0.0));
    report.figure("agent_rss_idle_mb", agent.rss_mb()?, Goal::AtMost(20.0));
    agent.stop()
}

fn many_pods(sim: &Handle, mut agent: Agent, report: &mut Report) -> Result<()> {
    agent.wait_for_free(PODS as u64)?;
    let contender = Contender::of(&agent, "enp-cni-deployed");
    let pods = contender.bring_up(PODS)?;
    println!("  with {PODS} pods: {:.1} MB", agent.rss_mb()?);
    report.figure("agent_rss_200_pods_mb", agent.rss_mb()?, Goal::AtMost(24.0));
    // The pool has followed its pods: the links of its ENIs are counted when theirs are waited for.
    until_quiet(sim);
    contender.take_down(pods)?;
    agent.stop()
}
