//! A node as seen from within, for the time when no API server can be asked: its agent's pages, and its pods' namespaces.

use std::{collections::BTreeMap, net::Ipv4Addr, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{process::Child, time::timeout};

use crate::{
    cluster::{Node, until},
    workload::Pod,
};

/// Finds the network namespace on this node in which `eth0` has the address given.
const NETNS_OF: &str = r#"for path in /run/netns/*; do name=${path##*/}
if ip -n "$name" -4 -oneline address show dev eth0 2>/dev/null | grep -qF " $0/"; then echo "$name"; exit; fi; done
echo "no pod here has $0" >&2; exit 1"#;

/// Pings until standard input ends, and then says how it went.
const PING_ON: &str = r#"ip netns exec "$0" ping -n -i 0.05 "$1" & cat >/dev/null; kill -INT $!; wait $!"#;

/// Addresses of a node's pods by name, as its agent's ledger has them.
pub(super) async fn ledger(node: &Node) -> Result<BTreeMap<String, Ipv4Addr>> {
    let url = "http://127.0.0.1:61678/v1/pods";
    let page = node.exec(&["curl", "--silent", "--show-error", "--fail", "--max-time", "5", url]).await?;
    let page: BTreeMap<String, Value> = serde_json::from_str(&page).context("reading /v1/pods")?;
    page.into_iter()
        .map(|(key, entry)| {
            // NAME_NAMESPACE_CONTAINER
            let name = key.split('_').next().unwrap_or_default().to_owned();
            let address = entry["IP"].as_str().with_context(|| format!("{key} has no IP"))?;
            Ok((name, address.parse().with_context(|| format!("{address} is no address"))?))
        })
        .collect()
}

/// Waits until the ledger is as `wanted` says; an agent that does not answer is waited for.
pub(super) async fn ledger_shows(
    node: &Node,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&BTreeMap<String, Ipv4Addr>) -> bool,
) -> Result<BTreeMap<String, Ipv4Addr>> {
    let mut last = None;
    let shown = until(what, limit, async || {
        let ledger = ledger(node).await.ok();
        if let Some(ledger) = ledger {
            if wanted(&ledger) {
                return Ok(Some(ledger));
            }
            last = Some(ledger);
        }
        Ok(None)
    });
    shown.await.with_context(|| format!("{}'s agent shows {last:?}", node.name()))
}

/// One ping from a pod of this node; the error says that none came back.
pub(super) async fn ping(node: &Node, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    let (netns, to) = (netns(node, from).await?, to.to_string());
    let ping = ["ip", "netns", "exec", &netns, "ping", "-n", "-c", "1", "-W", "2", &to];
    node.exec(&ping).await.map(drop).with_context(|| format!("{from} on {} cannot ping {to}", node.name()))
}

async fn netns(node: &Node, pod: Ipv4Addr) -> Result<String> {
    Ok(node.exec(&["sh", "-c", NETNS_OF, &pod.to_string()]).await?.trim().to_owned())
}

/// Pings from a pod, twenty a second, that go on until they are asked how it went.
#[derive(Debug)]
pub(super) struct Pings {
    from: Ipv4Addr,
    to: Ipv4Addr,
    child: Child,
}

impl Pings {
    pub(super) async fn begin(node: &Node, from: &Pod, to: Ipv4Addr) -> Result<Self> {
        let netns = netns(node, from.address).await?;
        let mut command = node.command("sh");
        command.args(["-c", PING_ON, &netns, &to.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().context("starting ping")?;
        Ok(Self { from: from.address, to, child })
    }

    /// Ends them. None may be lost, but the one that was just on its way. Returns what was counted, for people.
    pub(super) async fn end(self) -> Result<String> {
        let Self { from, to, mut child } = self;
        drop(child.stdin.take());
        let output = timeout(Duration::from_secs(20), child.wait_with_output()).await.context("ping goes on")??;
        let said = String::from_utf8_lossy(&output.stdout);
        let count = |what: &str| {
            let line = said.lines().find(|line| line.contains("packets transmitted"))?;
            let part = line.split(',').find(|part| part.contains(what))?;
            part.split_whitespace().next()?.parse::<u64>().ok()
        };
        let (sent, heard) = count("transmitted").zip(count("received")).with_context(|| {
            format!("ping from {from} to {to} counted nothing: {said}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        ensure!(sent > 0 && heard + 1 >= sent, "{heard} of {sent} pings from {from} to {to} came back");
        Ok(format!("{heard} of {sent} pings from {from} to {to} came back"))
    }
}
