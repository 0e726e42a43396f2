//! What a restarting agent finds of running pods, and taking them over. Runs on the control thread.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use nix::libc;

use super::desired::aws_pods;
use super::host::Host;
use super::layout::{self, AWS_FROM_POD_PRIORITY, HostIfname, POD_RULE_PRIORITY, POD_TABLE};
use super::netlink::link::Link;
use super::netlink::route::{MAIN, Route};
use super::netlink::rule::Rule;
use super::netlink::{Batch, link, route, rule};
use super::nft;
use super::plumb::{pod_route, push_delete_of_aws_plugin};
use super::pods::PodEntry;
use super::{AdoptedPod, DataplaneError, HostObservation, ObservedPod, PodOwner};

impl Host {
    /// Pods that have a /32 route, by our table or by the AWS plugin's rules.
    pub(super) fn observe(&mut self) -> Result<HostObservation, DataplaneError> {
        let links: BTreeMap<u32, Link> =
            link::all(&mut self.netlink)?.into_iter().map(|link| (link.index, link)).collect();
        let ours = route::in_table(&mut self.netlink, POD_TABLE, None)?;
        let rules = rule::all(&mut self.netlink)?;
        let main = route::in_table(&mut self.netlink, MAIN, None)?;
        let table_present = nft::present(&mut self.nftables)?;

        let mut pods: BTreeMap<Ipv4Addr, ObservedPod> = BTreeMap::new();
        let theirs = aws_pods(&rules, &main).map(|route| (route, PodOwner::AwsPlugin));
        // Ours last: a pod that was taken over half way counts as ours.
        for (route, owner) in theirs.chain(ours.into_iter().map(|route| (route, PodOwner::Enipool))) {
            pods.extend(pod(&route, owner, &links).map(|pod| (pod.address, pod)));
        }
        let routed: BTreeSet<u32> = pods.values().map(|pod| pod.host_ifindex).collect();
        let orphans = links
            .values()
            .filter(|link| !routed.contains(&link.index) && self.is_host_end(link))
            .filter_map(|link| HostIfname::new(&link.name).ok())
            .collect();
        let others = links.values().filter_map(|link| link.mac).filter(|mac| !layout::is_host_mac(*mac)).collect();
        Ok(HostObservation { pods: pods.into_values().collect(), orphans, links: others, table_present })
    }

    fn is_host_end(&self, link: &Link) -> bool {
        link.kind == "veth" && (link.mac.is_some_and(layout::is_host_mac) || link.name.starts_with(&self.veth_prefix))
    }

    /// Takes pods over that keep running: their routes are in our table afterwards, are watched, and the AWS plugin's
    /// rules for them are gone.
    pub(super) fn adopt(&mut self, pods: &[AdoptedPod]) -> Result<(), DataplaneError> {
        let step = "take over a running pod";
        let rules = rule::all(&mut self.netlink)?;
        let mut errors = Vec::new();
        let mut batch = Batch::new();
        // Without this rule nobody looks into the table that their routes move to.
        let to_pods =
            Rule { priority: POD_RULE_PRIORITY, table: POD_TABLE, mark: None, source: None, destination: None };
        if !rules.contains(&to_pods) {
            rule::push_add(&mut batch, to_pods);
        }
        for pod in pods {
            match link::by_name(&mut self.netlink, pod.host_ifname.as_str())? {
                Some(link) => {
                    self.pods
                        .insert(pod.address, PodEntry { host_ifname: pod.host_ifname.clone(), ifindex: link.index });
                    route::push_replace(&mut batch, pod_route(pod.address, link.index));
                }
                None => errors.push(DataplaneError::Differs {
                    address: pod.address,
                    difference: format!("no interface {} on the node", pod.host_ifname),
                }),
            }
        }
        self.netlink.execute_unless(step, batch, &[libc::EEXIST])?;
        self.taken_over.extend(pods.iter().map(|pod| pod.address));
        self.forget_aws_plugin()?;
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(DataplaneError::Several(errors)),
        }
    }

    /// Removes the AWS plugin's rules of pods that were taken over; only once our own routes and marks are in place, so
    /// that no packet is lost between.
    pub(super) fn forget_aws_plugin(&mut self) -> Result<(), DataplaneError> {
        if self.taken_over.is_empty() || !self.is_table_applied() {
            return Ok(());
        }
        let of_aws: BTreeSet<Ipv4Addr> = rule::all(&mut self.netlink)?
            .iter()
            .filter(|rule| matches!(rule.priority, layout::AWS_TO_POD_PRIORITY | AWS_FROM_POD_PRIORITY))
            .filter_map(|rule| rule.destination.or(rule.source))
            .collect();
        let mut batch = Batch::new();
        for address in self.taken_over.intersection(&of_aws) {
            push_delete_of_aws_plugin(&mut batch, *address);
        }
        let missing = [libc::ENOENT, libc::ESRCH];
        self.netlink.execute_unless("remove the AWS plugin's rules of a pod", batch, &missing)?;
        self.taken_over.clear();
        Ok(())
    }
}

fn pod(route: &Route, owner: PodOwner, links: &BTreeMap<u32, Link>) -> Option<ObservedPod> {
    let link = links.get(&route.link)?;
    let is_address = route.destination == Ipv4Net::from(route.destination.addr());
    let host_ifname = HostIfname::new(&link.name).ok()?;
    is_address.then_some(ObservedPod {
        address: route.destination.addr(),
        host_ifname,
        host_ifindex: link.index,
        owner,
    })
}
