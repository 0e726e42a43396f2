//! The end of leases that no plugin may ever end: those adopted from the kernel, whose keys nobody knows (their DEL may have
//! come before we did, or come in a form that names no address), and those of the journal whose pods the kernel did not
//! show at the start (their DEL may have been lost with whoever was to send it). So the kernel is asked for the pods.
//!
//! Only these leases are ever ended so. Every other one ends with its DEL, also one of these of which a runtime speaks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::pool::Shared;
use super::port::{HostPod, Kernel};

/// Between two looks. The first sees a pod gone, the second ends its lease: one alone may fall into the moment in which
/// somebody puts a route back.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Bound for a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// Looks until no such lease is left (none comes after the start), or until `shutdown`.
pub(super) async fn watch<K: Kernel>(shared: Arc<Shared>, kernel: Arc<K>, shutdown: CancellationToken) {
    loop {
        if watched(&shared, kernel.as_ref()).is_empty() {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let watched = watched(&shared, kernel.as_ref());
        match timeout(LOOK_TIMEOUT, kernel.gone(&watched)).await {
            Ok(Ok(gone)) => {
                let now = shared.clock.now();
                let mut state = shared.lock();
                if state.machine.kernel_lacks(&gone, now) == 0 {
                    continue;
                }
                if let Err(error) = state.write_pending(now) {
                    tracing::error!(%error, "cannot write the ledger's journal");
                }
                drop(state);
                shared.casual.notify_one();
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot see whether pods of earlier times are still there"),
            Err(_) => tracing::warn!("the kernel does not say in time whether pods of earlier times are still there"),
        }
    }
}

fn watched<K: Kernel>(shared: &Shared, kernel: &K) -> Vec<HostPod> {
    let (mut watched, unseen) = {
        let state = shared.lock();
        (state.machine.adopted(), state.machine.leases_unseen())
    };
    watched.extend(
        unseen.into_iter().map(|(key, pod, address)| HostPod { address, host_ifname: kernel.host_ifname(&key, &pod) }),
    );
    watched
}
