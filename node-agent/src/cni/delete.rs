//! DEL and GC: taking down what an ADD made, also one of earlier times that the ledger knows by its address only.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;

use enipool_cni::config::Attachment;
use enipool_cni::{CniError, CniResult, Code, NetConf};
use enipool_pool::ledger::{AttachmentKey, Lease, PodRef};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::observer::Phases;
use super::ports::{Addresses, PodLinks};
use super::verbs::{Call, Refusal, Verbs};
use crate::dataplane::{DataplaneError, HostIfname, Retry, VethPrefix};
use crate::engine::AcquireError;

/// Network and container of leases that the engine adopted from the kernel: made by the AWS plugin, or by us before the
/// journal was lost. Their interface name is the host's.
const ADOPTED: (&str, &str) = ("", "kernel");

impl<A: Addresses, L: PodLinks> Verbs<A, L> {
    /// Ends well for whatever is unknown or gone already. Fails only when the kernel or the journal may do better the next
    /// time: then the address stays taken.
    pub(super) async fn del(&self, call: &Call<'_>, phases: &mut Phases) -> Result<(), Refusal> {
        let _turn = timeout_at(call.deadline, self.flights.enter_to_delete(&call.key)).await.map_err(|_| Refusal {
            error: CniError::new(Code::TryAgainLater, "the ADD of this container is still under way"),
            label: "busy",
        })?;
        let previous = call.conf.prev_result().unwrap_or_else(|error| {
            warn!(target: "plugin", container = %call.key.container_id, %error, "DEL goes on without its prevResult");
            None
        });
        let named = previous.as_ref().and_then(|result| host_interface(result, self.veth_prefix()));
        let host_ifname = named.unwrap_or_else(|| call.host_ifname.clone());
        if let Some(lease) = self.pool.lookup(&call.key) {
            return self.take_down(&call.key, lease.address, &host_ifname, phases).await;
        }
        // An earlier DEL may have taken it without being able to write that down: no success before it is.
        self.pool.release(&call.key).map_err(|error| not_released(&error))?;
        self.del_of_earlier_times(call, previous.as_ref(), &host_ifname, phases).await
    }

    async fn del_of_earlier_times(
        &self,
        call: &Call<'_>,
        previous: Option<&CniResult>,
        host_ifname: &HostIfname,
        phases: &mut Phases,
    ) -> Result<(), Refusal> {
        if previous.is_some_and(is_branch_eni_pod) {
            info!(target: "plugin", %host_ifname, "DEL of a pod on a branch interface of the AWS plugin: not ours");
            return Ok(());
        }
        let addresses: Vec<_> =
            previous.into_iter().flat_map(|r| r.ips.iter().filter_map(enipool_cni::result::Ip::ipv4)).collect();
        let adopted = AttachmentKey::new(ADOPTED.0, ADOPTED.1, host_ifname.as_str());
        match self.pool.lookup(&adopted) {
            // A runtime that remembers other addresses speaks of an earlier sandbox of the same pod.
            Some(lease) if addresses.contains(&lease.address) => {
                return self.take_down(&adopted, lease.address, host_ifname, phases).await;
            }
            // After a migration it remembers nothing, because results are filed under the network's old name.
            Some(lease) if addresses.is_empty() && self.is_sandbox_of(call, host_ifname).await? => {
                return self.take_down(&adopted, lease.address, host_ifname, phases).await;
            }
            Some(lease) => {
                let (container, address) = (&call.key.container_id, lease.address);
                info!(
                    target: "plugin", %container, %host_ifname, %address,
                    "DEL of a sandbox that may be an earlier one of this pod: its address goes when the kernel shows that the pod is gone"
                );
            }
            None => {}
        }
        for address in addresses {
            let holder = self.adopted_holder(address);
            if let Some(holder) = &holder
                && !self.is_sandbox_of(call, holder).await?
            {
                info!(target: "plugin", %address, %holder, "DEL of an earlier holder of an address that another pod has now");
                continue;
            }
            let host_ifname = holder.as_ref().unwrap_or(host_ifname);
            let released = self.pool.release_address(address).map_err(|error| not_released(&error))?;
            // Of an address that is not ours nobody else can be the holder. One of ours that is free or
            // another pod's is left alone.
            if released.is_some() || !self.pool.owns(address) {
                self.unplug(address, host_ifname, phases).await?;
            }
        }
        Ok(())
    }

    /// The host's interface of the adopted pod that has `address`.
    fn adopted_holder(&self, address: Ipv4Addr) -> Option<HostIfname> {
        let is_holder = |key: &AttachmentKey, lease: &Lease| {
            (&*key.network, &*key.container_id) == ADOPTED && lease.address == address
        };
        let held = self.pool.attachments().into_iter().find(|(key, _, lease)| is_holder(key, lease));
        held.and_then(|(key, ..)| HostIfname::new(&key.ifname).ok())
    }

    /// Whether the sandbox that the call names holds the other end of `host_ifname`. One without a namespace, or with
    /// another end, may be an earlier sandbox of the pod that runs now (the kubelet collects them late), and has nothing
    /// left to take down: `engine::adopted` ends the lease once the kernel shows no pod.
    async fn is_sandbox_of(&self, call: &Call<'_>, host_ifname: &HostIfname) -> Result<bool, Refusal> {
        let (netns, ifname) = (&call.request.netns, &call.request.ifname);
        if netns.is_empty() {
            return Ok(false);
        }
        match self.links.is_plugged(Path::new(netns), ifname, host_ifname).await {
            Ok(plugged) => Ok(plugged),
            Err(error) if error.retry() == Retry::Soon => Err(Refusal::kernel("see whose network this is", &error)),
            Err(error) => {
                info!(target: "plugin", netns, %host_ifname, %error, "DEL of a sandbox that cannot be looked into");
                Ok(false)
            }
        }
    }

    async fn take_down(
        &self,
        key: &AttachmentKey,
        address: Ipv4Addr,
        host_ifname: &HostIfname,
        phases: &mut Phases,
    ) -> Result<(), Refusal> {
        // The kernel first: no address is free while a route still leads to its old pod.
        self.unplug(address, host_ifname, phases).await?;
        let begun = Instant::now();
        let released = self.pool.release(key);
        phases.ledger += begun.elapsed();
        released.map(|_| ()).map_err(|error| not_released(&error))
    }

    async fn unplug(&self, address: Ipv4Addr, host_ifname: &HostIfname, phases: &mut Phases) -> Result<(), Refusal> {
        let begun = Instant::now();
        let outcome = self.links.del(address, host_ifname).await;
        phases.netlink += begun.elapsed();
        match outcome {
            Ok(()) | Err(DataplaneError::NoNamespace { .. }) => Ok(()),
            Err(error) if error.retry() == Retry::Soon => Err(Refusal::kernel("take down the pod's network", &error)),
            Err(error) => {
                // Repeating would fail for ever and the pod would never be gone.
                warn!(target: "plugin", %address, %host_ifname, %error, "DEL leaves something behind in the kernel");
                Ok(())
            }
        }
    }

    /// Takes down every attachment of this network that the runtime does not know.
    pub(super) async fn gc(&self, conf: &NetConf) -> Result<(), Refusal> {
        let Some(valid) = &conf.valid_attachments else {
            // The reference library does this when its caller gives no list; it has then deleted by itself all that it knew.
            info!(target: "plugin", network = conf.name, "GC without a list of valid attachments: nothing is taken down");
            return Ok(());
        };
        let mut failures = Vec::new();
        for (key, pod, address) in self.forgotten(&conf.name, valid) {
            // A call for it is under way: whatever it is, the runtime knows of the container.
            if self.flights.is_busy(&key) {
                continue;
            }
            let _turn = self.flights.enter_to_delete(&key).await;
            let host_ifname = self.host_ifname_of(&key, &pod);
            match self.take_down(&key, address, &host_ifname, &mut Phases::default()).await {
                Ok(()) => {
                    info!(target: "plugin", ?key, ?pod, %address, "GC released an attachment that the runtime forgot");
                }
                Err(refusal) => failures.push(format!("{address}: {}", refusal.error)),
            }
        }
        if failures.is_empty() {
            return Ok(());
        }
        let error =
            CniError::new(Code::TryAgainLater, "some attachments could not be taken down").details(failures.join("; "));
        Err(Refusal { error, label: "gc_incomplete" })
    }

    fn forgotten(&self, network: &str, valid: &[Attachment]) -> Vec<(AttachmentKey, PodRef, Ipv4Addr)> {
        let valid: HashSet<(&str, &str)> = valid.iter().map(|a| (a.container_id.as_str(), a.ifname.as_str())).collect();
        self.pool
            .attachments()
            .into_iter()
            .filter(|(key, ..)| &*key.network == network && !valid.contains(&(&*key.container_id, &*key.ifname)))
            .map(|(key, pod, lease)| (key, pod, lease.address))
            .collect()
    }
}

fn not_released(error: &AcquireError) -> Refusal {
    let text = CniError::new(Code::TryAgainLater, "the address cannot be released").details(error.to_string());
    Refusal { error: text, label: error.label() }
}

/// The host's end of the pod's link as a result names it: ours among the interfaces, or what the AWS plugin hides in its
/// dummy interface, whose name ends in the same digits as the link's.
fn host_interface(result: &CniResult, prefix: &VethPrefix) -> Option<HostIfname> {
    let digits = |name: &str, start: &str| {
        name.strip_prefix(start)
            .filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit()))
            .map(str::to_owned)
    };
    let ours = result.interfaces.iter().find(|i| i.sandbox.is_empty() && digits(&i.name, prefix.as_str()).is_some());
    if let Some(interface) = ours {
        return HostIfname::new(&interface.name).ok();
    }
    let digits = result.interfaces.iter().find_map(|i| digits(&i.name, "dummy"))?;
    HostIfname::new(&format!("{}{digits}", prefix.as_str())).ok()
}

/// Whether the AWS plugin put the pod on a branch interface: its dummy interface then carries a VLAN id in place of a MAC.
fn is_branch_eni_pod(result: &CniResult) -> bool {
    result.interfaces.iter().any(|i| i.name.starts_with("dummy") && i.mac.parse::<u16>().is_ok_and(|vlan| vlan != 0))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn result(json: &str) -> CniResult {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_host_s_end_is_found_in_our_own_result() {
        let ours = result(r#"{"interfaces":[{"name":"eni0d7763386da"},{"name":"eth0","sandbox":"/run/netns/a"}]}"#);
        let name = host_interface(&ours, &VethPrefix::default()).unwrap();
        assert_eq!(name.as_str(), "eni0d7763386da");
    }

    #[test]
    fn the_host_s_end_of_the_aws_plugin_is_found_by_its_dummy_interface() {
        let theirs = result(
            r#"{"interfaces":[{"name":"eth0","mac":"2","sandbox":"/run/netns/a"},
                {"name":"dummy0d7763386da","mac":"0","sandbox":"1"}],"ips":[{"address":"10.0.1.5/32"}]}"#,
        );
        assert_eq!(host_interface(&theirs, &VethPrefix::default()).unwrap().as_str(), "eni0d7763386da");
        assert!(!is_branch_eni_pod(&theirs));
    }

    #[test]
    fn a_result_that_names_no_end_of_the_host_leaves_it_to_the_pod_s_name() {
        let other = result(r#"{"interfaces":[{"name":"veth99"},{"name":"eth0","sandbox":"/run/netns/a"}]}"#);
        assert!(host_interface(&other, &VethPrefix::default()).is_none());
    }

    #[test]
    fn a_pod_on_a_branch_interface_is_known_by_its_vlan() {
        let branch = result(r#"{"interfaces":[{"name":"dummy0d7763386da","mac":"7","sandbox":"0"}]}"#);
        assert!(is_branch_eni_pod(&branch));
    }
}
