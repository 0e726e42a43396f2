//! One pod: its veth pair, its addresses and routes, made, checked and taken away. Synchronous; runs on a worker thread.
//!
//! The cost must not grow with the pods of the node: no dump of links, no list of pods, no change to the node's ruleset.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use ipnet::Ipv4Net;
use nix::libc;

use super::layout::{self, HostIfname, POD_GATEWAY, POD_TABLE, VethPrefix};
use super::netlink::link::{self, Link, VethPair};
use super::netlink::namespace::{self, Home};
use super::netlink::route::{self, Route};
use super::netlink::rule::{self, Rule};
use super::netlink::{Batch, Netlink, address};
use super::pods::{PodEntry, Pods};
use super::reaper::{Doomed, Reaper};
use super::sysctl::Sysctl;
use super::{DataplaneConfig, DataplaneError, PodLink, PodSpec};

/// How often a host interface of the same name may be in the way in one ADD. Each time it is moved aside.
const CREATE_ATTEMPTS: u32 = 4;

/// What a worker thread needs to plumb pods.
#[derive(Debug)]
pub(super) struct Plumber {
    netlink: Netlink,
    home: Home,
    sysctl: Sysctl,
    reaper: Reaper,
    veth_prefix: VethPrefix,
    timeout: Duration,
}

impl Plumber {
    /// In the node's namespace: that of the calling thread, which must be the one that goes on to use it.
    pub(super) fn new(config: &DataplaneConfig, sysctl: Sysctl, reaper: Reaper) -> Result<Self, DataplaneError> {
        let timeout = config.call_timeout;
        let veth_prefix = config.veth_prefix.clone();
        Ok(Self { netlink: Netlink::route(timeout)?, home: Home::here()?, sysctl, reaper, veth_prefix, timeout })
    }

    /// Whether this thread is stuck in some pod's namespace and must not work any more.
    pub(super) fn is_lost(&self) -> bool {
        self.home.is_lost()
    }

    /// The number by which the kernel names this plumber in notifications.
    pub(super) fn port(&self) -> u32 {
        self.netlink.port()
    }

    /// Makes the pod's attachment. After an error nothing of it is left.
    pub(super) fn add(&mut self, spec: &PodSpec, pods: &Pods) -> Result<PodLink, DataplaneError> {
        let namespace = namespace::open(&spec.netns)?;
        let mut pod = self.home.route_socket_in(&namespace, &spec.netns, self.timeout)?;
        let host_end = self.create_veth(spec, &namespace, &mut pod, pods)?;
        let made = link_index(&mut pod, &spec.ifname)
            .and_then(|index| self.finish_host(spec, &host_end).and_then(|()| finish_pod(&mut pod, spec, index)))
            .and_then(|()| self.settle(&host_end));
        if let Err(error) = made {
            let mut undo = Batch::new();
            link::push_delete(&mut undo, host_end.index);
            return match self.netlink.execute_unless("undo a pod's interface", undo, &[libc::ENODEV]) {
                Ok(()) => Err(error),
                Err(second) => Err(DataplaneError::Several(vec![error, second])),
            };
        }
        pods.insert(spec.address, PodEntry { host_ifname: spec.host_ifname.clone(), ifindex: host_end.index });
        Ok(PodLink {
            host_mac: layout::host_mac(spec.address),
            pod_mac: layout::pod_mac(spec.address),
            host_ifindex: host_end.index,
        })
    }

    /// One message makes both ends; the question behind it learns the host end's index, or who is in the way.
    fn create_veth(
        &mut self,
        spec: &PodSpec,
        namespace: &File,
        pod: &mut Netlink,
        pods: &Pods,
    ) -> Result<Link, DataplaneError> {
        let step = "create the pod's interfaces";
        let mut attempt = 1;
        loop {
            let mut batch = Batch::new();
            link::push_create_veth(
                &mut batch,
                &VethPair {
                    host_name: spec.host_ifname.as_str(),
                    host_mac: layout::host_mac(spec.address),
                    pod_name: &spec.ifname,
                    pod_mac: layout::pod_mac(spec.address),
                    pod_namespace: namespace.as_fd(),
                    mtu: spec.mtu,
                },
            );
            link::push_get_by_name(&mut batch, spec.host_ifname.as_str());
            let mut present = None;
            let refusals = self.netlink.exchange(step, batch, |_, answer| present = link::parse(answer))?;
            let creation = refusals.into_iter().find(|refusal| refusal.index == 0);
            match (creation, present) {
                (None, Some(created)) => return Ok(created),
                (Some(refusal), _) if refusal.code != libc::EEXIST || attempt == CREATE_ATTEMPTS => {
                    return Err(refusal.into_error(step));
                }
                // Created, and gone before the question: its pod's namespace is being removed.
                (None, None) => return Err(DataplaneError::Kernel { step, code: libc::ENODEV, text: String::new() }),
                (Some(_), Some(stale)) => self.clear_the_way(spec, pod, &stale, pods)?,
                // Gone meanwhile on the host; what is in the way then is in the pod.
                (Some(_), None) => self.clear_pod_end(spec, pod, pods)?,
            }
            attempt += 1;
        }
    }

    /// A host interface has the name that this pod's should get: left by an ADD cut short, or by the previous pod of that
    /// name whose namespace the kernel has not taken apart yet. It is renamed, which takes no time; the reaper deletes it
    /// if the kernel does not.
    fn clear_the_way(
        &mut self,
        spec: &PodSpec,
        pod: &mut Netlink,
        stale: &Link,
        pods: &Pods,
    ) -> Result<(), DataplaneError> {
        let step = "move a stale interface out of the way";
        // Its end is our own doing: nobody is to take it for somebody else's.
        pods.remove_link(stale.index);
        let same_pod = match link::by_name(pod, &spec.ifname)? {
            Some(in_pod) => in_pod.peer == Some(stale.index) && in_pod.kind == "veth",
            None => false,
        };
        if same_pod {
            return self.delete_now(stale.index);
        }
        let mut batch = Batch::new();
        link::push_rename(&mut batch, stale.index, &self.veth_prefix.stale_ifname(stale.index));
        let gone_or_busy = [libc::ENODEV, libc::EBUSY];
        match self.netlink.exchange(step, batch, |_, _| {})?.into_iter().next() {
            // Kernels before 6.2 do not rename an interface that is up.
            Some(refusal) if refusal.code == libc::EBUSY => return self.delete_now(stale.index),
            Some(refusal) if !gone_or_busy.contains(&refusal.code) => return Err(refusal.into_error(step)),
            _ => {}
        }
        self.reaper.doom(Doomed { ifindex: stale.index, mac: stale.mac });
        Ok(())
    }

    /// An interface in the pod has the name asked for. Ours, from an ADD cut short, goes; anybody else's stays.
    fn clear_pod_end(&mut self, spec: &PodSpec, pod: &mut Netlink, pods: &Pods) -> Result<(), DataplaneError> {
        let Some(in_pod) = link::by_name(pod, &spec.ifname)? else { return Ok(()) };
        let ours = in_pod.kind == "veth" && in_pod.mac.is_some_and(layout::is_pod_mac);
        match in_pod.peer {
            Some(peer) if ours => {
                pods.remove_link(peer);
                self.delete_now(peer)
            }
            _ => Err(DataplaneError::InterfaceInTheWay { ifname: spec.ifname.clone() }),
        }
    }

    fn delete_now(&mut self, index: u32) -> Result<(), DataplaneError> {
        let mut batch = Batch::new();
        link::push_delete(&mut batch, index);
        self.netlink.execute_unless("delete a stale interface", batch, &[libc::ENODEV])
    }

    fn finish_host(&mut self, spec: &PodSpec, host_end: &Link) -> Result<(), DataplaneError> {
        // Without IPv6 on the host's end no pod can announce itself to the node as an IPv6 router.
        self.sysctl.disable_ipv6(spec.host_ifname.as_str())?;
        let mut batch = Batch::new();
        // The pod's end follows at once: with one end up and one down, the kernel would take the link's queue down again.
        link::push_up(&mut batch, host_end.index, true);
        route::push_replace(&mut batch, pod_route(spec.address, host_end.index));
        self.netlink.execute("route to the pod", batch)
    }

    /// The kernel switches the host end's queue on some time after the pod's end came up, and drops what is sent until
    /// then. Asking for the link's state makes it do so now.
    fn settle(&mut self, host_end: &Link) -> Result<(), DataplaneError> {
        let mut batch = Batch::new();
        link::push_get(&mut batch, host_end.index);
        self.netlink.execute_unless("look up a link", batch, &[libc::ENODEV])
    }

    /// Takes the pod's routes away at once and leaves its interfaces to the removal of its namespace, or to the reaper.
    /// A pod that is not known is fine.
    pub(super) fn delete(
        &mut self,
        pod_address: Ipv4Addr,
        host_ifname: &HostIfname,
        pods: &Pods,
    ) -> Result<(), DataplaneError> {
        let step = "take a pod's route away";
        let known = pods.remove(pod_address);
        let mut batch = Batch::new();
        route::push_delete(&mut batch, pod_route(pod_address, known.as_ref().map_or(0, |entry| entry.ifindex)));
        if known.is_none() {
            // Perhaps made by the AWS plugin.
            push_delete_of_aws_plugin(&mut batch, pod_address);
            link::push_get_by_name(&mut batch, host_ifname.as_str());
        }
        let mut found = None;
        let refusals = self.netlink.exchange(step, batch, |_, answer| found = link::parse(answer))?;
        // A late DEL of an earlier pod of the same name must not hit the new one's interface: its MAC tells the address.
        let doomed = match known {
            Some(entry) => Some(Doomed { ifindex: entry.ifindex, mac: None }),
            None => found
                .filter(|link| link.mac == Some(layout::host_mac(pod_address)))
                .map(|link| Doomed { ifindex: link.index, mac: link.mac }),
        };
        if let Some(doomed) = doomed {
            self.reaper.doom(doomed);
        }
        let missing = [libc::ENOENT, libc::ESRCH, libc::ENODEV];
        match refusals.into_iter().find(|refusal| !missing.contains(&refusal.code)) {
            Some(refusal) => Err(refusal.into_error(step)),
            None => Ok(()),
        }
    }

    /// Whether `ifname` in the namespace is the other end of `host_ifname`.
    pub(super) fn is_plugged(
        &mut self,
        netns: &Path,
        ifname: &str,
        host_ifname: &HostIfname,
    ) -> Result<bool, DataplaneError> {
        let Some(host_end) = link::by_name(&mut self.netlink, host_ifname.as_str())? else { return Ok(false) };
        let namespace = namespace::open(netns)?;
        let mut pod = self.home.route_socket_in(&namespace, netns, self.timeout)?;
        Ok(link::by_name(&mut pod, ifname)?.is_some_and(|link| link.peer == Some(host_end.index)))
    }

    /// Compares with what [`Self::add`] makes.
    pub(super) fn check(&mut self, spec: &PodSpec) -> Result<PodLink, DataplaneError> {
        let differs = |difference: String| DataplaneError::Differs { address: spec.address, difference };
        let Some(host_end) = link::by_name(&mut self.netlink, spec.host_ifname.as_str())? else {
            return Err(differs(format!("no interface {} on the node", spec.host_ifname)));
        };
        if !host_end.up {
            return Err(differs(format!("interface {} is down", spec.host_ifname)));
        }
        let routed = route::in_table(&mut self.netlink, POD_TABLE, Some(host_end.index))?;
        if !routed.contains(&pod_route(spec.address, host_end.index)) {
            return Err(differs(format!("table {POD_TABLE} has no route to it over {}", spec.host_ifname)));
        }
        let namespace = namespace::open(&spec.netns)?;
        let mut pod = self.home.route_socket_in(&namespace, &spec.netns, self.timeout)?;
        check_pod_end(&mut pod, spec, &host_end)?;
        Ok(PodLink {
            host_mac: host_end.mac.unwrap_or_else(|| layout::host_mac(spec.address)),
            pod_mac: layout::pod_mac(spec.address),
            host_ifindex: host_end.index,
        })
    }
}

/// The node's route to a pod.
pub(super) fn pod_route(pod_address: Ipv4Addr, ifindex: u32) -> Route {
    Route { table: POD_TABLE, destination: Ipv4Net::from(pod_address), gateway: None, link: ifindex }
}

/// The rules and the route that the AWS plugin makes for a pod.
pub(super) fn push_delete_of_aws_plugin(batch: &mut Batch, pod_address: Ipv4Addr) {
    let rule = Rule { priority: 0, table: 0, mark: None, source: None, destination: None };
    let to = Rule { priority: layout::AWS_TO_POD_PRIORITY, table: route::MAIN, destination: Some(pod_address), ..rule };
    let from = Rule { priority: layout::AWS_FROM_POD_PRIORITY, source: Some(pod_address), ..rule };
    rule::push_delete(batch, to);
    rule::push_delete(batch, from);
    let route = Route { table: route::MAIN, destination: Ipv4Net::from(pod_address), gateway: None, link: 0 };
    route::push_delete(batch, route);
}

fn link_index(pod: &mut Netlink, ifname: &str) -> Result<u32, DataplaneError> {
    let gone = || DataplaneError::Kernel { step: "find the pod's interface", code: libc::ENODEV, text: String::new() };
    Ok(link::by_name(pod, ifname)?.ok_or_else(gone)?.index)
}

/// All that happens inside the pod, in one send: up, address, gateway, default route, the gateway's MAC.
fn finish_pod(pod: &mut Netlink, spec: &PodSpec, index: u32) -> Result<(), DataplaneError> {
    let mut batch = Batch::new();
    link::push_up(&mut batch, index, true);
    address::push_add(
        &mut batch,
        address::LinkAddress { index, address: spec.address, prefix_len: 32, scope: address::SCOPE_GLOBAL },
    );
    for route in pod_side_routes(index) {
        route::push_replace(&mut batch, route);
    }
    address::push_permanent_neighbour(&mut batch, index, POD_GATEWAY, layout::host_mac(spec.address));
    pod.execute("set up the pod's interface", batch)
}

/// The gateway is on the link; everything else goes through it.
fn pod_side_routes(index: u32) -> [Route; 2] {
    [
        Route { table: route::MAIN, destination: Ipv4Net::from(POD_GATEWAY), gateway: None, link: index },
        Route { table: route::MAIN, destination: Ipv4Net::default(), gateway: Some(POD_GATEWAY), link: index },
    ]
}

fn check_pod_end(pod: &mut Netlink, spec: &PodSpec, host_end: &Link) -> Result<(), DataplaneError> {
    let differs = |difference: String| Err(DataplaneError::Differs { address: spec.address, difference });
    let ifname = &spec.ifname;
    let Some(link) = link::by_name(pod, ifname)? else {
        return differs(format!("no interface {ifname} in the pod"));
    };
    if link.peer != Some(host_end.index) {
        return differs(format!("{ifname} in the pod is not the other end of {}", spec.host_ifname));
    }
    if !link.up {
        return differs(format!("{ifname} in the pod is down"));
    }
    if link.mtu != spec.mtu {
        return differs(format!("{ifname} in the pod has MTU {}, not {}", link.mtu, spec.mtu));
    }
    if !address::of_link(pod, link.index)?.iter().any(|found| found.address == spec.address) {
        return differs(format!("{ifname} in the pod lacks the address"));
    }
    let routes = route::in_table(pod, route::MAIN, Some(link.index))?;
    if let Some(missing) = pod_side_routes(link.index).iter().find(|route| !routes.contains(route)) {
        return differs(format!("the pod lacks its route to {}", missing.destination));
    }
    let gateway = (POD_GATEWAY, host_end.mac.unwrap_or_else(|| layout::host_mac(spec.address)));
    if !address::permanent_neighbours(pod, link.index)?.contains(&gateway) {
        return differs(format!("the pod lacks the permanent neighbour {POD_GATEWAY}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_does_not_exist_is_an_error_of_its_own() {
        let error = namespace::open(Path::new("/run/netns/none-such")).unwrap_err();
        assert!(error.to_string().contains("/run/netns/none-such"), "{error}");
        assert_eq!(error.retry(), super::super::Retry::Never);
    }
}
