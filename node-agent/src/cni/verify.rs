//! CHECK and STATUS: is what was made still there, and can more be made.

use enipool_cni::{CniError, Code};

use super::answer;
use super::ports::{Addresses, Availability, PodLinks};
use super::verbs::{Call, Refusal, Verbs};

impl<A: Addresses, L: PodLinks> Verbs<A, L> {
    /// Compares what the runtime remembers, what the ledger holds and what the kernel shows.
    pub(super) async fn check(&self, call: &Call<'_>) -> Result<(), Refusal> {
        let previous = call.conf.prev_result()?.ok_or_else(|| {
            CniError::new(Code::InvalidConfig, "CHECK without prevResult")
                .details("the runtime must pass the result of the ADD that is to be checked")
        })?;
        let lease = self.pool.lookup(&call.key).ok_or_else(|| Refusal {
            error: CniError::new(Code::UnknownContainer, "the pool knows no such container").details(format!(
                "no address is assigned to container {} interface {} in network {}",
                call.key.container_id, call.key.ifname, call.key.network
            )),
            label: "unknown",
        })?;
        let (ifname, netns) = (&call.request.ifname, &call.request.netns);
        if let Some(difference) = answer::difference(&previous, ifname, netns, lease.address) {
            let error =
                CniError::new(Code::CheckFailed, "the container's network is not what ADD made").details(difference);
            return Err(Refusal { error, label: "differs" });
        }
        let mut spec = self.spec(call, &lease);
        // The link has the MTU of the day on which it was made.
        let made = previous.container_interface(ifname).and_then(|(_, interface)| interface.mtu);
        spec.mtu = made.unwrap_or(spec.mtu);
        self.links.check(&spec).await.map_err(|error| Refusal::kernel("confirm the pod's network", &error))?;
        Ok(())
    }

    /// Fails while no ADD can succeed, so that the runtime reports the node as not ready.
    pub(super) fn status(&self) -> Result<(), Refusal> {
        match self.pool.availability() {
            Availability::Available => Ok(()),
            Availability::Unavailable(why) => {
                let error = CniError::new(Code::NotAvailable, "enipool cannot serve pods on this node").details(why);
                Err(Refusal { error, label: "unavailable" })
            }
        }
    }
}
