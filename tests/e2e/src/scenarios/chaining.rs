//! What the reference plugins that run after ours add to a pod: ports of its node, and a limit to its bandwidth.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{FutureExt as _, future::LocalBoxFuture};

use super::Stage;
use crate::workload::{self, PORT, Web};

const ROLL_OUT: Duration = Duration::from_secs(120);
const HOST_PORT: u16 = 18088;

pub(super) fn host_port_and_bandwidth(stage: &mut Stage) -> LocalBoxFuture<'_, Result<()>> {
    async {
        let (cluster, kubectl) = (&stage.cluster, stage.cluster.kubectl());
        let (home, abroad) = workload::two_nodes_pods(&stage.pods)?;
        let node = cluster.node(&home.node)?;
        let shaped = Web::new("shaped", 1)
            .on(node.name())
            .with_host_port(HOST_PORT)
            .annotated("kubernetes.io/ingress-bandwidth", "1M")
            .annotated("kubernetes.io/egress-bandwidth", "2M");
        let pods = shaped.roll_out(kubectl, ROLL_OUT).await?;
        let pod = pods.first().context("no pod")?;
        let result = async {
            let url = format!("http://{}:{HOST_PORT}/", node.site().address);
            let answer = abroad.fetch(kubectl, &url).await?;
            ensure!(answer == pod.name, "{url} was answered by {answer}, not by {}", pod.name);
            let outside = &cluster.fabric().control().netns;
            let answer = outside.exec(&["timeout", "5", "busybox", "wget", "-q", "-O", "-", &url]).await?;
            ensure!(answer.trim() == pod.name, "{url} was answered by {answer} from outside");
            // The annotations are no bar to the pod's own address.
            abroad.fetch(kubectl, &format!("http://{}:{PORT}/", pod.address)).await?;

            let route = node.exec(&["ip", "route", "get", &pod.address.to_string()]).await?;
            let link =
                route.split_whitespace().skip_while(|word| *word != "dev").nth(1).context("no route to the pod")?;
            let (queue, ingress) = (node.exec(&["tc", "qdisc", "show", "dev", link]).await?, "rate 1Mbit");
            ensure!(
                queue.contains("qdisc tbf") && queue.contains(ingress),
                "no shaper at {ingress} on {link}: {queue}"
            );
            let queues = node.exec(&["tc", "qdisc", "show"]).await?;
            ensure!(queues.contains("rate 2Mbit"), "no shaper for what {} sends: {queues}", pod.name);
            anyhow::Ok((url, link.to_owned()))
        };
        let result = result.await;
        shaped.remove(kubectl, ROLL_OUT).await?;
        let (url, link) = result?;
        ensure!(abroad.fetch(kubectl, &url).await.is_err(), "{url} still answers after its pod has gone");
        let queues = node.exec(&["tc", "qdisc", "show"]).await?;
        ensure!(!queues.contains("qdisc tbf"), "shapers outlive their pod on {link}: {queues}");
        Ok(())
    }
    .boxed_local()
}
