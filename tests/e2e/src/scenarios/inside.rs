//! A node as seen from within, for the time when no API server can be asked: its agent's pages, and its pods' namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{io::AsyncReadExt as _, process::Child, task::JoinHandle, time::timeout};

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
    let page: BTreeMap<String, Value> =
        serde_json::from_value(page(node, "pods").await?).context("reading /v1/pods")?;
    page.into_iter()
        .map(|(key, entry)| {
            // NAME_NAMESPACE_CONTAINER
            let name = key.split('_').next().unwrap_or_default().to_owned();
            let address = entry["IP"].as_str().with_context(|| format!("{key} has no IP"))?;
            Ok((name, address.parse().with_context(|| format!("{address} is no address"))?))
        })
        .collect()
}

/// What the node's agent aims for now.
pub(super) async fn config(node: &Node) -> Result<Value> {
    page(node, "config").await
}

/// One of the agent's pages.
async fn page(node: &Node, name: &str) -> Result<Value> {
    let url = format!("http://127.0.0.1:61678/v1/{name}");
    let page = node.exec(&["curl", "--silent", "--show-error", "--fail", "--max-time", "5", &url]).await?;
    serde_json::from_str(&page).with_context(|| format!("reading /v1/{name}"))
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
    /// Reads all the while: a ping whose pipe is full stands still.
    said: JoinHandle<std::io::Result<String>>,
}

impl Pings {
    pub(super) async fn begin(node: &Node, from: &Pod, to: Ipv4Addr) -> Result<Self> {
        let netns = netns(node, from.address).await?;
        let mut command = node.command("sh");
        command.args(["-c", PING_ON, &netns, &to.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("starting ping")?;
        let mut stdout = child.stdout.take().context("ping has no output")?;
        let said = tokio::spawn(async move {
            let mut said = String::new();
            stdout.read_to_string(&mut said).await.map(|_| said)
        });
        Ok(Self { from: from.address, to, child, said })
    }

    /// Ends them. None may be lost. Returns what was counted, for people.
    pub(super) async fn end(self) -> Result<String> {
        let Self { from, to, mut child, said } = self;
        drop(child.stdin.take());
        let output = timeout(Duration::from_secs(20), child.wait_with_output()).await.context("ping goes on")??;
        let said = said.await.context("reading what ping says")??;
        let tally = Tally::of(&said).with_context(|| {
            format!("ping from {from} to {to} counted nothing: {said}{}", String::from_utf8_lossy(&output.stderr))
        })?;
        let Tally { sent, heard, lost } = &tally;
        ensure!(*heard > 0 && lost.is_empty(), "of {sent} pings from {from} to {to} these were lost: {lost:?}");
        Ok(format!("{heard} of {sent} pings from {from} to {to} came back, and none was lost"))
    }
}

/// Pings whose answer may be on its way when they are ended: those of the last second, on a machine that is busy.
const ON_THEIR_WAY: u64 = 20;

/// How pings went.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tally {
    sent: u64,
    heard: usize,
    /// The numbers of those that got no answer, though later ones did or had the time to.
    lost: Vec<u64>,
}

impl Tally {
    /// Out of what `ping` has printed; none: it has not come to its summary.
    fn of(said: &str) -> Option<Self> {
        let summary = said.lines().find(|line| line.contains("packets transmitted"))?;
        let sent: u64 = summary.split_whitespace().next()?.parse().ok()?;
        let answers = said.lines().filter(|line| line.contains(" bytes from "));
        let heard: BTreeSet<u64> =
            answers.filter_map(|line| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok()).collect();
        let due = heard.last().copied().unwrap_or(0).max(sent.saturating_sub(ON_THEIR_WAY));
        let lost = (1..=due).filter(|number| !heard.contains(number)).collect();
        Some(Self { sent, heard: heard.len(), lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(sent: u64, heard: impl IntoIterator<Item = u64>) -> Option<Tally> {
        let answer = |number| format!("64 bytes from 10.0.0.9: icmp_seq={number} ttl=62 time=0.1 ms\n");
        let answers: String = heard.into_iter().map(answer).collect();
        let summary = format!("{sent} packets transmitted, … received, …% packet loss, time 1s\n");
        Tally::of(&format!("PING 10.0.0.9 (10.0.0.9) 56(84) bytes of data.\n{answers}\n--- statistics ---\n{summary}"))
    }

    #[test]
    fn a_ping_is_lost_when_later_ones_were_answered() {
        let tally = tally(100, (1..=100).filter(|number| ![7, 99].contains(number)));
        assert_eq!(tally.map(|tally| (tally.sent, tally.heard, tally.lost)), Some((100, 98, vec![7, 99])));
    }

    #[test]
    fn answers_that_come_late_and_out_of_turn_or_are_on_their_way_at_the_end_are_no_loss() {
        assert_eq!(tally(100, (1..=90).rev()).map(|tally| tally.lost), Some(vec![]));
    }

    #[test]
    fn silence_in_the_end_is_loss_when_it_lasts() {
        assert_eq!(tally(100, 1..=50).map(|tally| tally.lost), Some((51..=80).collect()));
        assert_eq!(tally(3, []).map(|tally| tally.heard), Some(0));
    }

    #[test]
    fn a_ping_without_a_summary_tells_nothing() {
        assert_eq!(Tally::of("ping: connect: Network is unreachable"), None);
    }
}
